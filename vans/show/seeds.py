"""Pictures over training seeds: every seed a point, the mean and its interval over trainings and samples."""

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from vans.score.metric import ARROWS
from vans.score.metrics import METRICS
from vans.show.style import ARM_COLOURS, BLUE, FAINT, INK, MUTED, PURPLE, RED, THEME, new_figure
from vans.tables.seeds_markdown import NO_SEEDS
from vans.tables.seeds_table import ROWS, Mean, SeedTable

WIDTH, ROW = 1000, 25
FOOT = "Points: single training seeds; lines: 95 % over trainings and samples"
SIDES = "; right of 0 is better, in blue and red what is decided"
CROSSES = "; crosses: runs that vary everything"


def arms(table: SeedTable | None) -> Figure:
    """The arms, one panel a metric; ``copy``, which is not trained, is left out."""
    if table is None:
        return _empty()
    rows = [arm for arm in table.arms if arm != "copy"]
    found = {name: {arm: one for arm in rows if (one := table.means.get((arm, name)))} for name in table.metrics}
    colours = {name: {arm: ARM_COLOURS.get(arm, MUTED) for arm in rows} for name in found}
    return _panels({arm: ROWS.get(arm, arm) for arm in rows}, found, colours, signs={})


def claims(table: SeedTable | None) -> Figure:
    """The claimed differences: right of the line is better, whatever the metric's direction. Coloured: decided."""
    if table is None:
        return _empty()
    rows = {claim.order.claim: claim.order.claim for claim in table.claims}
    found: dict[str, dict[str, Mean]] = {}
    colours: dict[str, dict[str, str]] = {}
    signs = {name: -1 if METRICS[name].better == "down" else 1 for name in table.metrics}
    for claim in table.claims:
        name = claim.order.metric
        better = signs[name] * claim.ours.value > 0
        colour = FAINT if not claim.order.resolved else BLUE if better else RED
        found.setdefault(name, {})[claim.order.claim] = claim
        colours.setdefault(name, {})[claim.order.claim] = colour
    return _panels(rows, found, colours, signs)


def _empty() -> Figure:
    with matplotlib.rc_context(THEME):
        page = new_figure(WIDTH, 60)
        page.text(0.02, 0.5, NO_SEEDS, va="center", color=MUTED)
    return page


def _panels(
    rows: dict[str, str], found: dict[str, dict[str, Mean]], colours: dict[str, dict[str, str]], signs: dict[str, int]
) -> Figure:
    """``rows``: name -> title; ``found``: metric -> row -> its number. ``signs``: of differences, by metric."""
    height = 86 + ROW * max(1, len(rows))
    places = {row: len(rows) - 1 - place for place, row in enumerate(rows)}
    with matplotlib.rc_context(THEME):
        page = new_figure(WIDTH, height)
        grid = page.subplots(1, max(1, len(found)), sharey=True, squeeze=False)[0]
        for axes, (name, numbers) in zip(grid, found.items(), strict=True):
            if signs:
                axes.axvline(0, color=FAINT, linewidth=1)
            for row, one in numbers.items():
                _number(axes, one, places[row], colours[name][row], signs.get(name, 1))
            axes.set_title(f"{METRICS[name].title}{ARROWS[METRICS[name].better]}", fontsize=9)
            axes.tick_params(axis="y", length=0, labelcolor=INK)
            axes.spines["left"].set_visible(False)
            axes.xaxis.set_major_locator(MaxNLocator(nbins=2, min_n_ticks=2))
            if METRICS[name].unit == "%":
                axes.xaxis.set_major_formatter(PercentFormatter(1.0))
            axes.grid(axis="y")
        grid[0].set_yticks(list(places.values()), list(rows.values()))
        grid[0].set_ylim(-0.6, len(rows) - 0.4)
        page.tight_layout(pad=0.7, w_pad=1.0, rect=(0, 20 / height, 1, 1))
        varied = any(one.varied for numbers in found.values() for one in numbers.values())
        page.text(
            0.012, 8 / height, f"{FOOT}{SIDES if signs else ''}{CROSSES if varied else ''}.", fontsize=7.5, color=MUTED
        )
    return page


def _number(axes: Axes, one: Mean, place: int, colour: str, sign: int) -> None:
    """The seeds a little above each other, the interval under them."""
    values = sign * np.array(list(one.each.values()))
    shift = np.linspace(-0.16, 0.16, len(values)) if len(values) > 1 else np.zeros(1)
    if np.isfinite(one.ours.lo):
        axes.plot([sign * one.ours.lo, sign * one.ours.hi], [place] * 2, color=colour, linewidth=2, alpha=0.6)
    axes.plot(values, place + shift, ".", color=colour, markersize=4, alpha=0.8)
    axes.plot(sign * one.ours.value, place, "|", color=INK, markersize=11, markeredgewidth=1.6)
    for value in one.varied.values():
        axes.plot(sign * value, place, "x", color=PURPLE, markersize=5)
