"""The README's picture: one video, two questions, two answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vans.score.score import Scores
from vans.show.arms import answers as answers_of
from vans.show.frames import fitting, strip, strip_size
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
    frames, _ = fitting(source, frames, height, WIDTH * 0.44)
    seen, _ = fitting(source, 3, height, WIDTH * 0.25)
    width, small = strip_size(source, frames, height)[0], strip_size(source, seen, height)[0]
    row, pad = height + 62, 14
    page = Canvas(WIDTH, row * len(answers))
    middle = row * len(answers) / 2
    page.text(0, middle - height / 2 - 22, "input video", 12, MUTED)
    page.image(strip(source, seen), 0, middle - height / 2, small, height)
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


def from_predictions(folder: str | Path, triplets: Any, scores: Scores) -> Figure:
    """The teaser of one arm: the first held-out input with two questions whose answers are both right.

    Without such a pair (or without the oracle): the first input with two questions, else the first question.
    """
    rows = triplets.frame.loc[scores.frame["id"]].assign(right=1.0)
    if "video_event" in scores.frame:
        good = scores.frame["video_event"] * scores.frame["caption_renderable"] * scores.frame["identity"]
        rows["right"] = good.to_numpy()
    groups = [list(part.index) for _, part in rows.groupby("scene", sort=False) if len(part) > 1]
    groups.sort(key=lambda ids: -rows.loc[ids[:2], "right"].sum())  # stable: the first of the best
    ids = groups[0][:2] if groups else [rows.index[0]]
    ((captions, clips),) = answers_of(folder, triplets, ids, [scores.arm]).values()
    questions = [triplets.row(name)["question"] for name in ids]
    shown = [Answer(q, caption, clip) for q, caption, clip in zip(questions, captions, clips, strict=True)]
    return teaser(triplets.clips(ids[:1], "input")[0], shown)


def _branch(page: Canvas, x0: float, y0: float, x1: float, y1: float) -> None:
    """A smooth line from the input to an answer."""
    along = np.linspace(0, 1, 60)
    ease = along * along * (3 - 2 * along)
    page.axes.plot(x0 + (x1 - x0) * along, y0 + (y1 - y0) * ease, color=LINE, linewidth=2, solid_capstyle="round")
