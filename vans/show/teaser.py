"""The README's picture: one video, two questions, two answers."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.figure import Figure

from vans.show.frames import strip, strip_size
from vans.show.style import BLUE, INK, LINE, MUTED, WASH, Canvas

WIDTH = 940


@dataclass(frozen=True)
class Answer:
    """A question with its generated caption and video (uint8 [T, H, W, 3])."""

    question: str
    caption: str
    clip: np.ndarray


def teaser(source: np.ndarray, answers: Sequence[Answer], frames: int = 5, height: int = 72) -> Figure:
    """The input video on the left, one branch a question on the right: question, answering video, caption."""
    width, _ = strip_size(source, frames, height)
    small = strip_size(source, 3, height)[0]
    row, pad = height + 62, 14
    page = Canvas(WIDTH, row * len(answers))
    middle = row * len(answers) / 2
    page.text(0, middle - height / 2 - 22, "input video", 12, MUTED)
    page.image(strip(source, 3), 0, middle - height / 2, small, height)
    start = small + 74
    for number, answer in enumerate(answers):
        y = number * row
        centre = y + row / 2 - 4
        _branch(page, small + 10, middle, start - 12, centre)
        page.box(start, y + 4, WIDTH - start, row - 12, WASH, radius=10)
        words = start + pad
        page.text(words, y + 14, answer.question, 14, INK, bold=True)
        page.image(strip(answer.clip, frames), words, y + 40, width, height)
        room = WIDTH - words - width - 36
        page.text(words + width + 20, y + 40 + height / 2 - 24, "answer", 10.5, MUTED)
        page.text(words + width + 20, y + 40 + height / 2 - 8, answer.caption, 13, BLUE, width=room, lines=3)
    return page.figure


def _branch(page: Canvas, x0: float, y0: float, x1: float, y1: float) -> None:
    """A smooth line from the input to an answer."""
    along = np.linspace(0, 1, 60)
    ease = along * along * (3 - 2 * along)
    page.axes.plot(
        x0 + (x1 - x0) * along, y0 + (y1 - y0) * ease, color=LINE, linewidth=2, solid_capstyle="round"
    )
