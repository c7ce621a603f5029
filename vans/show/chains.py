"""Answers to several questions about one input, and chains of events in which each answer is the next input."""

from collections.abc import Sequence

import numpy as np
from matplotlib.figure import Figure

from vans.show.frames import fitting, strip, strip_size
from vans.show.style import BLUE, INK, MUTED, Canvas

WIDTH = 1000  # pixels
ROOM = 300  # of them a caption's


def sheet(
    source: np.ndarray, rows: Sequence[tuple[str, Sequence[tuple[str, np.ndarray]]]], frames: int = 9, height: int = 60
) -> Figure:
    """The input, then of each question its answers, one a line: frames and caption.

    source: uint8 [T, H, W, 3]. rows: question -> [(caption, uint8 [T, H, W, 3])].
    """
    start = 70
    frames, height_ = fitting(source, frames, height, WIDTH - start - ROOM)
    width, high = strip_size(source, frames, height_)
    line, head = round(high) + 8, 30
    page = Canvas(WIDTH, line + 12 + sum(head + line * len(answers) for _, answers in rows))
    page.text(0, high / 2 - 6, "input", 11, MUTED)
    page.image(strip(source, frames), start, 0, width, high)
    y = line + 12.0
    for question, answers in rows:
        page.rule(y - 6)
        page.text(start, y, question, 13, INK, bold=True, width=WIDTH - start, lines=1)
        y += head
        for number, (caption, clip) in enumerate(answers):
            title = "answer" if len(answers) == 1 else f"event {number + 1}"
            page.text(0, y + high / 2 - 8, title, 11, MUTED)
            page.image(strip(clip, frames), start, y, width, high)
            words = start + width + 18
            page.text(words, y + high / 2 - 16, caption, 12, BLUE, width=WIDTH - words, lines=3)
            y += line
    return page.figure
