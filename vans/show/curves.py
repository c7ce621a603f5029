"""Training curves: every reward term over the steps, and anything else that a history holds."""

import textwrap
from collections.abc import Mapping, Sequence
from itertools import cycle
from typing import Literal

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from vans.show.style import (
    BLUE,
    DPI,
    FAINT,
    GREEN,
    INK,
    MUTED,
    ORANGE,
    PURPLE,
    RED,
    TEAL,
    TERM_COLOURS,
    THEME,
    new_figure,
)

WIDTH, PANEL = 1000, 190
CYCLE = (BLUE, ORANGE, GREEN, PURPLE, TEAL, RED)


def smooth(values: Sequence[float], window: int) -> np.ndarray:
    """Centred running mean; windows are cut off at both ends, missing values left out."""
    series = pd.Series(np.asarray(values, float))
    return series.rolling(max(1, window), center=True, min_periods=1).mean().to_numpy()


def curves(
    history: pd.DataFrame,
    panels: Mapping[str, str] | Sequence[str],
    columns: int = 4,
    window: int | None = None,
    title: str = "",
) -> Figure:
    """One small panel a column of the history: values faint, their running mean strong, the last mean
    written.

    ``panels``: column -> title, or columns alone; those that the history does not have are left out.
    ``window``: of the running mean, in rows (default: a twelfth of them). The x axis is ``step`` if there is
    one.
    """
    names = dict(panels) if isinstance(panels, Mapping) else {name: name for name in panels}
    names = {name: words for name, words in names.items() if name in history and history[name].notna().any()}
    steps = history["step"] if "step" in history else pd.Series(range(len(history)))
    window = window or max(1, len(history) // 12)
    rows = max(1, -(-len(names) // columns))
    with matplotlib.rc_context(THEME):
        figure = new_figure(WIDTH, rows * PANEL + (26 if title else 0))
        for place, (name, words) in enumerate(names.items()):
            axes = figure.add_subplot(rows, columns, place + 1)
            colour = TERM_COLOURS.get(name.split("/")[-1], CYCLE[place % len(CYCLE)])
            line(axes, steps, history[name], window, colour)
            mean = smooth(history[name], window)
            axes.set_title(words)
            axes.set_title(f"{mean[np.isfinite(mean)][-1]:.3g}", loc="right", color=colour, fontweight="bold")
            axes.grid(axis="y")
            if place >= len(names) - columns:
                axes.set_xlabel("step")
        if title:
            figure.suptitle(
                title, x=0.01, ha="left", fontsize=11, fontweight="bold", fontfamily="DejaVu Sans", color=INK
            )
        figure.tight_layout(pad=0.8, w_pad=1.6, h_pad=1.2)
    return figure


def line(axes: matplotlib.axes.Axes, steps: Sequence[float], values: Sequence[float], window: int, colour: str) -> None:
    """Values faint, running mean strong."""
    if window > 1:
        axes.plot(steps, values, color=colour, linewidth=0.7, alpha=0.3)
    axes.plot(steps, smooth(values, window), color=colour, linewidth=1.8)


def bars(counts: Mapping[str, float], title: str = "", unit: str = "", width: int = 480) -> Figure:
    """A few named amounts as horizontal bars with their numbers: splits, drops by reason, lengths."""
    labels = [textwrap.fill(label, max(24, width // 15)) for label in counts]
    lines = [label.count("\n") + 1 for label in labels]
    with matplotlib.rc_context(THEME):
        figure = new_figure(width, 44 + 24 * max(1, len(counts)) + 13 * (sum(lines) - len(lines)))
        axes = figure.add_subplot()
        tall = np.array([24 + 13 * (n - 1) for n in lines]) / 24
        places = tall.sum() - np.cumsum(tall) + tall / 2
        axes.barh(places, list(counts.values()), height=0.62, color=BLUE)
        for place, value in zip(places, counts.values(), strict=True):
            axes.text(value, place, f"  {value:,.4g}{unit}", va="center", color=INK, fontsize=8.5)
        axes.set_yticks(places, labels)
        axes.tick_params(axis="y", length=0, labelcolor=INK)
        axes.margins(x=0.16)
        axes.set_ylim(-0.1, tall.sum() + 0.1)
        axes.set_xticks([])
        axes.spines["bottom"].set_visible(False)
        axes.spines["left"].set_color(FAINT)
        pixels = figure.get_figheight() * DPI
        size = matplotlib.rcParams["axes.titlesize"]
        figure.text(6 / width, 1 - 6 / pixels, title, color=MUTED, va="top", fontsize=size)
        if not counts:
            axes.text(0.02, 0.5, "none", color=MUTED, va="center", transform=axes.transAxes)
        figure.tight_layout(pad=0.6, rect=(0, 0, 1, 1 - 20 / pixels))
    return figure


def histogram(
    values: Mapping[str, Sequence[float]],
    title: str = "",
    unit: str = "",
    width: int = 480,
    span: tuple[float, float] | None = None,
) -> Figure:
    """Distributions of one quantity in a few groups over common bins, on top of each other.

    Groups that hold no number are left out. span: the ends of the axis (default: of the values).
    """
    finite = {label: np.asarray(some, float)[np.isfinite(np.asarray(some, float))] for label, some in values.items()}
    values = {label: some for label, some in finite.items() if len(some)}
    with matplotlib.rc_context(THEME):
        figure = new_figure(width, 210)
        axes = figure.add_subplot()
        every = np.concatenate([*values.values()]) if values else np.zeros(1)
        low, high = span or (float(every.min()), float(every.max()))
        around = 0.0 if high > low else 0.05 * max(1.0, abs(low))
        bins = np.linspace(low - around, high + around, 31)
        colours = [colour for colour, _ in zip(cycle(CYCLE), values)]
        if values:
            axes.hist(list(values.values()), list(bins), color=colours, alpha=0.75, label=list(values), stacked=True)
        axes.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        axes.set_xlabel(unit)
        axes.set_title(title, color=MUTED)
        if not values:
            axes.text(0.5, 0.5, "nothing to show", color=MUTED, ha="center", transform=axes.transAxes)
        if len(values) > 1:  # beside or above the bars, wherever they are
            above = 6.5 * sum(len(label) + 6 for label in values) < 0.75 * width
            columns = len(values) if above else 1
            corner: Literal["lower right", "upper left"] = "lower right" if above else "upper left"
            axes.legend(loc=corner, bbox_to_anchor=(1.0, 1.0), ncols=columns, borderaxespad=0.2)
        figure.tight_layout(pad=0.6)
    return figure
