"""Answers to several questions about one input, and chains of events in which each answer is the next input."""

from collections.abc import Mapping, Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from vans.show.frames import fitting, strip, strip_size
from vans.show.style import ARM_COLOURS, BLUE, FAINT, GREEN, INK, MUTED, ORANGE, THEME, Canvas, new_figure
from vans.toy.render import EVENTS

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


PANELS = (  # measure, kind, title
    ("right", "procedural", "event: routines, the k-th step"),
    ("right", "predictive", "event: conditions, the usual outcome again"),
    ("identity", "all", "identity: colour and shape of the first input"),
    ("blur", "all", "blur: distance from the toy world's clips"),
)


def curves(summary: pd.DataFrame, titles: Mapping[str, str], sharp: float | None = None) -> Figure:
    """How event, identity and picture quality hold up over a chain: a panel each, a line an arm, 95 % intervals.

    summary: of `vans.answer.chain.summary`. titles: of the arms, in order. sharp: the blur of true clips.
    """
    colours = dict(zip(titles, (ARM_COLOURS["sft"], ARM_COLOURS["stage1"], ORANGE, GREEN), strict=False))
    colours |= {key: ARM_COLOURS[key] for key in titles if key in ARM_COLOURS} | {"truth": GREEN}
    with matplotlib.rc_context(THEME):
        figure = new_figure(1000, 560)
        for place, (measure, kind, title) in enumerate(PANELS):
            axes = figure.add_subplot(2, 2, place + 1)
            part = summary[(summary["measure"] == measure) & (summary["kind"] == kind)]
            for number, (arm, name) in enumerate(titles.items()):
                one = part[part["arm"] == arm].sort_values("event")
                at = one["event"] + 0.05 * (number - (len(titles) - 1) / 2)
                axes.plot(at, one["value"], color=colours[arm], label=name, marker="o", markersize=3.5, linewidth=1.5)
                axes.vlines(at, one["lo"], one["hi"], color=colours[arm], linewidth=1.2)
            if measure == "blur" and sharp is not None:
                axes.axhline(sharp, color=FAINT, linewidth=1, linestyle=":", label="true clips")
            if measure == "right":
                axes.axhline(1 / len(EVENTS), color=FAINT, linewidth=1, linestyle="--", label="chance")
            axes.set_title(title)
            axes.set_ylim(0, None if measure == "blur" else 1.02)
            axes.set_xticks(sorted(part["event"].unique()))
            axes.grid(axis="y")
            if place >= 2:
                axes.set_xlabel("events since the input, each answer the next input")
            if place in (0, 3):
                axes.legend(loc="best")
        figure.tight_layout(pad=0.8)
    return figure
