"""Tables as figures: one panel a metric, one bar a row with its interval, the paper's figures as grey
numbers."""

from collections.abc import Sequence

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import MaxNLocator

from vans.score.metric import ARROWS
from vans.score.metrics import METRICS, PAPER_METRICS, number
from vans.show.style import ARM_COLOURS, BLUE, FAINT, INK, MUTED, RED, THEME, new_figure
from vans.tables.markdown import detector
from vans.tables.tables import Table
from vans.tables.terms import Gain

WIDTH, ROW, HEAD = 1000, 23, 72
SHOWN = (*PAPER_METRICS, "video_event", "static")
PLAIN = "#c3d3e2"  # bars of arms without a colour of their own
GLYPH, GAP = 6.7, 8  # pixels: a digit in a column of numbers, and the space before one
FOOT = (
    "Bars: measured here, from 0, with 95 % intervals; shares end at 100 %. In grey italics: the paper's figures "
    "(arXiv 2511.16669), other data and other models, not the same quantity."
)


def figure(table: Table, kinds: Sequence[str] | None = None, metrics: Sequence[str] = SHOWN) -> Figure:
    """The table as bars: one block a kind of sample, one panel a metric that was measured.

    ``kinds``: which blocks, from the top (default: procedural and predictive).
    """
    kinds = list(kinds or [kind for kind in table.kinds if kind != "all"] or table.kinds)
    names = [name for name in metrics if name in table.frame and table.frame[name].notna().any()]
    blocks = [_rows(table, kind, names) for kind in kinds]
    heights = [HEAD + ROW * len(block) for block in blocks]
    foot = 48
    total = sum(heights) + foot
    left, label = 0.012, 0.205
    with matplotlib.rc_context(THEME):
        page = new_figure(WIDTH, total)
        top = total
        for kind, block, height in zip(kinds, blocks, heights, strict=True):
            title = f"{table.layout.title}, {kind} samples"
            page.text(left, (top - 22) / total, title, fontsize=10.5, fontweight="bold", color=INK)
            panel = (1 - label - 0.012) / len(names)
            for place, name in enumerate(names):
                box = (
                    label + place * panel,
                    (top - height + 4) / total,
                    panel * 0.93,
                    ROW * len(block) / total,
                )
                axes = page.add_axes(box)
                _panel(axes, block, name, with_titles=place == 0)
            top -= height
        page.text(left, 22 / total, FOOT, fontsize=7.5, color=MUTED)
        page.text(left, 8 / total, f"FVD: {detector(table.scores)}.", fontsize=7.5, color=MUTED)
    return page


def _rows(table: Table, kind: str, names: list[str]) -> pd.DataFrame:
    """The rows of one kind that hold a number of ours or of the paper's."""
    rows = table.frame[table.frame["kind"] == kind]
    columns = [*names, *(f"paper_{name}" for name in PAPER_METRICS)]
    return rows[rows[columns].notna().any(axis=1)].reset_index(drop=True)


def _panel(axes: Axes, rows: pd.DataFrame, name: str, with_titles: bool) -> None:
    """Bars with intervals on the left, our numbers and the paper's as two columns on the right."""
    metric, places = METRICS[name], np.arange(len(rows))[::-1]
    values, low, high = (rows[column].to_numpy(float) for column in (name, f"{name}_lo", f"{name}_hi"))
    low_end, end = _limits(values, low, high, share=metric.unit == "%")
    colours = [ARM_COLOURS.get(row, PLAIN) for row in rows["row"]]
    axes.barh(places, np.nan_to_num(values), height=0.62, color=colours)
    known = np.isfinite(values) & np.isfinite(low)
    spread = np.stack([values - low, high - values])[:, known].clip(0)
    axes.errorbar(values[known], places[known], xerr=spread, fmt="none", ecolor=INK, elinewidth=0.9, capsize=1.6)
    columns = [("", values, INK, "normal")]
    if f"paper_{name}" in rows and rows[f"paper_{name}"].notna().any():
        columns.append(("paper", rows[f"paper_{name}"].to_numpy(float), FAINT, "italic"))
    words = [[number(v, metric) if np.isfinite(v) or not title else "" for v in c] for title, c, *_ in columns]
    pixels = [GLYPH * max(map(len, [title, *w])) + GAP for (title, *_), w in zip(columns, words, strict=True)]
    room = axes.get_position().width * WIDTH
    scale = (end - low_end) / (room - sum(pixels))  # of a pixel
    right = end
    for (title, column, colour, style), texts, width in zip(columns, words, pixels, strict=True):
        right += width * scale
        axes.text(right, len(rows) - 0.45, title, ha="right", va="bottom", fontsize=7, color=FAINT, style=style)
        for place, value, text in zip(places, column, texts, strict=True):
            ink = colour if np.isfinite(value) else FAINT
            axes.text(right, place, text, ha="right", va="center", fontsize=7.5, color=ink, style=style)
    axes.set_xlim(low_end, right)
    axes.set_ylim(-0.6, len(rows) - 0.4)
    _fit(axes.set_title(metric.heading, fontsize=9, pad=13), room)
    axes.set_xticks([])
    axes.set_yticks(places, list(rows["title"]) if with_titles else [""] * len(rows))
    axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=8.5)
    for label in axes.get_yticklabels():
        _fit(label, axes.get_position().x0 * WIDTH - 2 * GAP)
    axes.spines["bottom"].set_visible(False)


def _fit(text: Text, room: float) -> None:
    """Make a text so small that it takes at most ``room`` pixels."""
    text.set_fontsize(float(text.get_fontsize()) * min(1.0, room / max(1.0, text.get_window_extent().width)))


def _limits(*values: np.ndarray, share: bool = False) -> tuple[float, float]:
    """Of an axis that always holds 0, where bars start, and of shares 1; so that lengths can be compared."""
    every = np.concatenate(values)
    every = every[np.isfinite(every)]
    largest = 1.0 if share or not len(every) else max(float(every.max()), 1e-6)
    return float(min(0.0, *every, 0.0)), largest


def differences(table: Table, metrics: Sequence[str] = SHOWN, kind: str = "all") -> Figure:
    """Every claimed order as a difference with its interval: right of 0 is better, whatever the metric's
    direction. Coloured: what is resolved, corrected for all claims of the table."""
    orders = [order for order in table.orders if order.kind == kind and order.metric in metrics]
    claims = list(dict.fromkeys(order.claim for order in orders))
    names = [name for name in metrics if any(order.metric == name for order in orders)]
    with matplotlib.rc_context(THEME):
        page = new_figure(WIDTH, 66 + 26 * max(1, len(claims)))
        grid = page.subplots(1, max(1, len(names)), sharey=True, squeeze=False)[0]
        places = {claim: len(claims) - 1 - number for number, claim in enumerate(claims)}
        for axes, name in zip(grid, names, strict=False):
            sign = -1 if METRICS[name].better == "down" else 1
            axes.axvline(0, color=FAINT, linewidth=1)
            for order in orders:
                if order.metric == name:
                    ends = sorted((sign * order.ours.lo, sign * order.ours.hi))
                    better = sign * order.ours.value > 0
                    colour = FAINT if not order.resolved else BLUE if better else RED
                    axes.plot(ends, [places[order.claim]] * 2, color=colour, linewidth=2, solid_capstyle="round")
                    axes.plot(sign * order.ours.value, places[order.claim], "o", color=colour, markersize=5)
            axes.set_title(f"{METRICS[name].title}{ARROWS[METRICS[name].better]}", fontsize=9)
            axes.tick_params(axis="y", length=0, labelcolor=INK)
            axes.spines["left"].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=2, min_n_ticks=2))
            axes.grid(axis="y")
        grid[0].set_yticks(list(places.values()), list(places))
        grid[0].set_ylim(-0.6, len(claims) - 0.4)
        page.tight_layout(pad=0.7, w_pad=1.0)
    return page


def gains(found: Sequence[Gain]) -> Figure:
    """Per reward term trained on: what it gained in its own measure, in CLIP-V, in the oracle's eyes."""
    rows = [f"{gain.term} in {gain.arm}" for gain in found]
    columns = [("its own measure", "own"), ("CLIP-V", "clip"), ("video event", "oracle")]
    with matplotlib.rc_context(THEME):
        page = new_figure(WIDTH, 66 + 26 * max(1, len(rows)))
        for place, (title, name) in enumerate(columns):
            axes = page.add_subplot(1, len(columns), place + 1)
            axes.axvline(0, color=FAINT, linewidth=1)
            for row, gain in enumerate(found):
                change, sign = getattr(gain, name), gain.signs[place]
                if change is not None:
                    colour = {1: BLUE, 0: FAINT, -1: RED}[sign]
                    axes.plot([change.lo, change.hi], [-row, -row], color=colour, linewidth=2)
                    axes.plot(change.value, -row, "o", color=colour, markersize=5)
            axes.set_title(f"gain in {title}", fontsize=9)
            axes.set_yticks([-row for row in range(len(rows))], rows if place == 0 else [""] * len(rows))
            axes.set_ylim(-len(rows) + 0.4, 0.6)
            axes.tick_params(axis="y", length=0, labelcolor=INK)
            axes.spines["left"].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=3, min_n_ticks=2))
        page.tight_layout(pad=0.7, w_pad=1.0)
    return page
