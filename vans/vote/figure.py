"""The picture of a report: the arms with their intervals, and who is preferred to whom."""

import matplotlib
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure

from vans.show.style import ARM_COLOURS, BLUE, FAINT, INK, MUTED, ORANGE, THEME, new_figure
from vans.visible import words
from vans.vote.plan import LIKERT
from vans.vote.report import Found

WIDTH, ROW = 1000, 44
MAP = LinearSegmentedColormap.from_list("preferred", [ORANGE, "#ffffff", BLUE])
TITLES = {"strength": "Strength (Bradley–Terry)"}


def draw(found: Found) -> Figure:
    """Best arm on top; lines are 95 % over people and samples, cells the share of comparisons that the row won."""
    count, names, arms = len(found.arms), list(found.measures), list(map(words, found.arms))
    height = 110 + ROW * max(2, count)
    with matplotlib.rc_context(THEME):
        page = new_figure(WIDTH, height)
        ratios = {"width_ratios": [*[1] * len(names), min(1.2, 0.25 * count + 0.2) if len(names) > 1 else 0.9]}
        *panels, grid = page.subplots(1, len(names) + 1, gridspec_kw=ratios)
        for axes, name in zip(panels, names, strict=True):
            for place, arm in enumerate(found.arms):
                one, colour = found.measures[name][arm], ARM_COLOURS.get(arm, MUTED)
                axes.plot([one.lo, one.hi], [place] * 2, color=colour, linewidth=3, alpha=0.6, solid_capstyle="round")
                axes.plot(one.value, place, "o", color=colour, markersize=7, markeredgecolor="white")
            axes.set_title(TITLES.get(name, name.capitalize()))
            axes.set_ylim(count - 0.5, -0.5)
            axes.set_yticks(range(count), arms if axes is panels[0] else [""] * count)
            axes.tick_params(axis="y", length=0, labelcolor=INK, labelsize=9)
            axes.spines["left"].set_visible(False)
            axes.grid(axis="x")
            axes.set_axisbelow(True)
            if found.form == LIKERT:
                axes.set_xlim(0.9, 5.1)
                axes.set_xticks(range(1, 6))
            else:
                axes.axvline(0, color=FAINT, linewidth=1)
        _matrix(grid, found)
        page.tight_layout(pad=0.8, w_pad=2.0, rect=(0, 26 / height, 1, 1))
        page.text(0.012, 10 / height, _foot(found), fontsize=7.5, color=MUTED)
    return page


def _matrix(axes, found: Found) -> None:
    count, arms = len(found.arms), list(map(words, found.arms))
    with np.errstate(invalid="ignore", divide="ignore"):
        share = found.wins / found.met
    axes.imshow(np.ma.masked_invalid(share), cmap=MAP, vmin=0, vmax=1, aspect="auto")
    for (i, j), value in np.ndenumerate(share):
        if np.isfinite(value):
            ink = "white" if abs(value - 0.5) > 0.3 else INK
            axes.text(j, i, f"{value:.0%}", ha="center", va="center", fontsize=9, color=ink)
    axes.set_title("Row preferred to column")
    axes.set_xticks(range(count), arms, rotation=30 if count > 3 else 0, ha="right" if count > 3 else "center")
    axes.set_yticks(range(count), arms)
    axes.tick_params(length=0, labelcolor=INK)
    for spine in axes.spines.values():
        spine.set_visible(False)


def _foot(found: Found) -> str:
    alpha = ", ".join(f"{name} {value:.2f}" if value == value else f"{name} —" for name, value in found.alpha.items())
    out = f", {len(found.left_out)} people left out by attention checks" if found.left_out else ""
    people = f"{found.votes} votes of {len(found.raters)} people on {found.samples} samples{out}"
    return f"{people}. Lines: 95 % over people and samples; ties count half. Krippendorff's alpha: {alpha}."
