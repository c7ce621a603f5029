"""Contact sheets: triplets as the data has them, and the answers of several arms to the same questions."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vans.show.frames import fitting, grid, strip, strip_size
from vans.show.style import BLUE, FAINT, GREEN, INK, MUTED, RED, Canvas

WIDTH = 1000  # pixels, the width of a notebook's output
WORDS = 390  # and the least that question, reasoning and caption are given
ANSWER = 320  # and an arm's caption


def triplets_sheet(triplets: Any, ids: Sequence[str], frames: int = 4, height: int = 66) -> Figure:
    """One row a triplet: input frames, question, reasoning and caption, target frames.

    ``triplets``: ``.row(id)`` and ``.clips(ids, which)``. ``height``: of a frame, in pixels. Frames that would leave
    the words no room stand in two lines or more.
    """
    inputs, targets = triplets.clips(ids, "input"), triplets.clips(ids, "target")
    columns, width, high = 1, 0.0, 0.0
    if len(ids):
        columns, side = fitting(inputs[0], frames, height, (WIDTH - WORDS - 44) / 2)
        lines = -(-min(frames, len(inputs[0])) // columns)
        columns = -(-min(frames, len(inputs[0])) // lines)
        page_height, page_width = grid(inputs[0], frames, columns).shape[:2]
        width, _ = strip_size(inputs[0], columns, side)
        high = width * page_height / page_width
    middle, text_width, top = width + 22, WIDTH - 2 * width - 44, 30
    rows = [triplets.row(name) for name in ids]
    draft = Canvas(WIDTH, top)  # long words need a higher row
    heights = [max(round(high) + 26, round(_words(draft, row, middle, 0, text_width)) + 16) for row in rows]
    page = Canvas(WIDTH, top + sum(heights))
    for x, word in (
        (0, "input video"),
        (middle, "question, reasoning, caption"),
        (WIDTH - width, "target video"),
    ):
        page.text(x, 2, word, 11, MUTED)
    y = top
    for number, row in enumerate(rows):
        page.rule(y - 6)
        page.image(grid(inputs[number], frames, columns), 0, y + 6, width, high)
        page.image(grid(targets[number], frames, columns), WIDTH - width, y + 6, width, high)
        _words(page, row, middle, y, text_width)
        y += heights[number]
    return page.figure


def _words(page: Canvas, row: Mapping[str, Any], x: float, y: float, width: float) -> float:
    """Tag, question, reasoning and caption under each other; returns the lower edge."""
    below = page.text(x, y + 1, tag(row), 9.5, FAINT)
    below = page.text(x, below + 1, row["question"], 12, INK, bold=True, width=width * 0.93, lines=3)
    below = page.text(x, below + 2, row["reasoning"], 10, MUTED, width=width, lines=4)
    return page.text(x, below + 2, row["caption"], 11.5, BLUE, width=width, lines=4)


def tag(row: Mapping[str, Any]) -> str:
    """``procedural · harbor · plain wording``."""
    topics = [row.get(name) for name in ("topic", "condition", "recipe_type")]
    known = [topic for topic in topics if isinstance(topic, str) and topic and not topic.isdigit()]
    style = [f"{row['style']} wording"] if row.get("style") in ("plain", "flowery") else []
    return " · ".join([row["kind"], *known[:1], *style])


def answers_sheet(
    triplets: Any,
    ids: Sequence[str],
    answers: Mapping[str, tuple[Sequence[str], np.ndarray]],
    right: Mapping[str, Sequence[bool]] | None = None,
    frames: int = 9,
    height: int = 48,
) -> Figure:
    """The same samples in several arms: one block a sample, one line each for input, truth and every arm.

    ``answers``: arm's title -> (captions, clips uint8 [N, T, H, W, 3]) in the order of ``ids``. ``right``:
    title -> does the video show the true event? Shown as a green or red mark. Of wide clips fewer frames are shown.
    """
    inputs, targets = triplets.clips(ids, "input"), triplets.clips(ids, "target")
    label, start, width = 0, 118, 0.0
    if len(ids):
        frames, _ = fitting(inputs[0], frames, height, WIDTH - start - 18 - ANSWER)
        width, _ = strip_size(inputs[0], frames, height)
    line, head = height + 8, 44
    block = head + line * (2 + len(answers)) + 10
    page = Canvas(WIDTH, max(1, block * len(ids)))
    words, room = start + width + 18, WIDTH - start - width - 18
    for number, name in enumerate(ids):
        row, y = triplets.row(name), number * block
        page.rule(y + 4)
        page.text(WIDTH - 2, y + 15, tag(row), 9.5, FAINT, align="right")
        page.text(start, y + 12, row["question"], 13, INK, bold=True)
        lines: list[tuple[str, str, np.ndarray, bool | None]]
        lines = [("input", "", inputs[number], None), ("ground truth", row["caption"], targets[number], None)]
        for title, (captions, clips) in answers.items():
            mark = None if right is None or title not in right else bool(right[title][number])
            lines.append((title, captions[number], clips[number], mark))
        for count, (title, caption, clip, mark) in enumerate(lines):
            at = y + head + count * line
            page.text(label, at + height / 2 - 8, title, 11, MUTED if count < 2 else INK, width=start - 10, lines=2)
            page.image(strip(clip, frames), start, at, strip_size(clip, frames, height)[0], height)
            colour = {None: MUTED, True: GREEN, False: RED}[mark]
            if mark is not None:
                page.text(words, at + height / 2 - 9, "✓" if mark else "✗", 14, colour, bold=True)
            shift = 22 if mark is not None else 0
            two = caption and len(caption) * 0.57 * 12 > room - shift
            middle = at + height / 2 - (16 if two else 8)
            page.text(words + shift, middle, caption, 12, BLUE if count == 1 else INK, width=room - shift, lines=2)
    return page.figure
