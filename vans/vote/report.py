"""What votes say: strengths of the arms with intervals, who beats whom, how far people agree, who was left out.

Choices. A chosen candidate beats each of those it was shown with (of several at once this breaking is consistent:
Azari Soufiani et al., 2013); a tie is half a win for each of two. Bradley and Terry's model then says how likely i is
to be preferred to j, 1 / (1 + exp(s_j - s_i)), ties counted half; the s have mean 0 (`choix`, by Maystre's iterated
Luce spectral ranking). PRIOR wins of each against each keep the strengths finite where somebody never loses.

Marks. The mean of each arm in each of the three questions.

Agreement is Krippendorff's alpha (`krippendorff`): of marks ordinal, of choices nominal over places in an order of the
candidates that is mixed for each screen, since arms are not the same categories from screen to screen and one that
always comes first would hide agreement; a tie is a category.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import choix
import krippendorff
import numpy as np
import pandas as pd

from vans.errors import UserError
from vans.score.bootstrap import Interval
from vans.visible import words
from vans.vote import resample
from vans.vote.plan import ASKED, LIKERT, TIE, shuffled

PRIOR = 0.1


@dataclass(frozen=True)
class Found:
    """arms: best first. measures: name -> arm -> interval ("strength", or those of the likert form). wins [A, A]: how
    often the row was preferred to the column, ties half, of how many in `met`. steps: measure -> difference of each arm
    to the next. left_out: rater -> share of checks that were right. sides: share of votes for each place."""

    form: str
    arms: list[str]
    measures: dict[str, dict[str, Interval]]
    steps: dict[str, list[Interval]]
    wins: np.ndarray
    met: np.ndarray
    alpha: dict[str, float]
    raters: list[str]
    left_out: dict[str, float]
    unchecked: list[str]
    samples: int
    votes: int
    ties: int
    sides: list[float]
    seconds: float
    least: float

    def text(self) -> str:
        """All of it for a terminal."""
        return "\n".join([*_head(self), "", *_table(self), *_foot(self)])


def analyse(frame: pd.DataFrame, least: float = 0.7, seed: int = 0, resamples: int = resample.RESAMPLES) -> Found:
    """Read votes (of `ballots.read`). least: share of attention checks that a rater must have right.

    Raises UserError if no votes are left, or choices and marks are mixed.
    """
    if not 0 <= least <= 1:
        raise UserError(f"--right {least}: a share from 0 to 1")
    votes = frame.drop_duplicates(["plan", "rater", "number"], keep="last")
    if (forms := sorted(set(votes["form"]))) not in (["choice"], ["likert"]):
        raise UserError(f"the file holds {' and '.join(forms) or 'no votes'}; report choices or marks, one at a time")
    checked = votes[votes["check"] != ""]
    share = (checked["right"] == "right").groupby(checked["rater"]).mean()
    left_out = {str(name): float(value) for name, value in share.items() if value < least}
    votes = votes[(votes["check"] == "") & ~votes["rater"].isin(list(left_out))]
    if votes.empty:
        raise UserError(
            f"no votes are left: attention checks leave out {len(left_out)} of {frame['rater'].nunique()} raters; "
            "--right says how many must be right (0: leaves nobody out)"
        )
    raters, samples = (sorted(set(votes[name])) for name in ("rater", "sample"))
    place = votes["rater"].map(raters.index).to_numpy(), votes["sample"].map(samples.index).to_numpy()
    arms = sorted({arm for sides in votes["sides"] for arm in sides})
    voted = np.zeros((len(raters), len(samples)), bool)
    voted[place] = True
    wins, met = _wins(votes, arms)
    table = np.zeros((*voted.shape, *wins.shape[1:]))
    np.add.at(table, place, wins)
    if forms == [LIKERT]:
        names: tuple[str, ...] = ASKED
        statistic, values = _means(votes, arms, place, voted.shape)
    else:
        names, (statistic, values) = ("strength",), _strengths(table)
    covariances = resample.covariance(statistic, voted, seed, resamples)
    values = values.reshape(len(names), len(arms))
    order = np.argsort(-values[-1], kind="stable")
    measures, steps = {}, {}
    for number, name in enumerate(names):
        unit = np.eye(values.size)[number * len(arms) : (number + 1) * len(arms)]
        ends = [_interval(values.ravel(), covariances, unit[i], voted, len(votes)) for i in order]
        measures[name] = {arms[i]: one for i, one in zip(order, ends, strict=True)}
        steps[name] = [
            _interval(values.ravel(), covariances, unit[i] - unit[j], voted, len(votes)) for i, j in pairwise(order)
        ]
    grid = np.ix_(order, order)
    chosen = [c for c in votes["choice"] if isinstance(c, str)]
    return Found(
        form=forms[0],
        arms=[arms[i] for i in order],
        measures=measures,
        steps=steps,
        wins=wins.sum(0)[grid],
        met=met[grid],
        alpha=_alpha(votes, raters),
        raters=raters,
        left_out=left_out,
        unchecked=sorted(set(raters) - set(share.index)),
        samples=len(samples),
        votes=len(votes),
        ties=chosen.count(TIE),
        sides=_sides(votes),
        seconds=float(votes["seconds"].median()),
        least=least,
    )


def _wins(votes: pd.DataFrame, arms: list[str]) -> tuple[np.ndarray, np.ndarray]:
    """Per vote who was preferred to whom [N, A, A], and how often each two met [A, A]. Marks: by the overall one."""
    wins = np.zeros((len(votes), len(arms), len(arms)))
    for vote, sides, choice in zip(wins, votes["sides"], votes["choice"], strict=True):
        value = [marks[-1] for marks in choice] if isinstance(choice, list) else [side == choice for side in sides]
        for (i, first), (j, second) in ((a, b) for a in enumerate(sides) for b in enumerate(sides) if a[0] != b[0]):
            if choice == TIE or isinstance(choice, list) or value[i] or value[j]:
                vote[arms.index(first), arms.index(second)] += 0.5 * (1 + np.sign(float(value[i]) - float(value[j])))
    return wins, (wins.sum(0) + wins.sum(0).T)


def _strengths(table: np.ndarray) -> tuple[resample.Statistic, np.ndarray]:
    """Bradley-Terry's strengths [A] as a function of weights, and those of all votes. table: wins [R, S, A, A]."""
    base = PRIOR * (1 - np.eye(table.shape[-1]))

    def fit(weights: np.ndarray, start: np.ndarray | None = None) -> np.ndarray:
        wins = np.tensordot(weights, table, 2) + base
        return choix.ilsr_pairwise_dense(wins, initial_params=start, tol=1e-6, max_iter=1000)

    values = fit(np.ones(table.shape[:2]))
    return lambda weights: fit(weights, values), values


def _means(votes: pd.DataFrame, arms: list[str], place: tuple, shape: tuple) -> tuple[resample.Statistic, np.ndarray]:
    """Mean marks [3 · A] as a function of weights, and those of all votes."""
    sums, counts = np.zeros((*shape, len(ASKED), len(arms))), np.zeros((*shape, len(arms)))
    for rater, sample, sides, choice in zip(*place, votes["sides"], votes["choice"], strict=True):
        for side, marks in zip(sides, choice, strict=True):
            sums[rater, sample, :, arms.index(side)] += marks
            counts[rater, sample, arms.index(side)] += 1
    whole = (sums.sum((0, 1)) / counts.sum((0, 1))).ravel()

    def mean(weights: np.ndarray) -> np.ndarray:
        seen = np.tensordot(weights, counts, 2)
        with np.errstate(invalid="ignore", divide="ignore"):
            found = (np.tensordot(weights, sums, 2) / seen).ravel()
        return np.where(np.isfinite(found), found, whole)  # a draw without any vote for an arm

    return mean, whole


def _interval(values: np.ndarray, covariances: np.ndarray, unit: np.ndarray, voted: np.ndarray, n: int) -> Interval:
    value, half = float(unit @ values), resample.half(covariances, unit, voted)
    return Interval(value, value - half, value + half, n)


def _alpha(votes: pd.DataFrame, raters: list[str]) -> dict[str, float]:
    """Krippendorff's alpha by name; nan where fewer than two people saw the same, or all always said the same."""
    if votes["form"].iloc[0] == LIKERT:
        cells: dict[str, dict[Any, dict[str, float]]] = {name: {} for name in ASKED}
        for rater, sample, sides, choice in votes[["rater", "sample", "sides", "choice"]].itertuples(index=False):
            for side, marks in zip(sides, choice, strict=True):
                for name, mark in zip(ASKED, marks, strict=True):
                    cells[name].setdefault((sample, side), {})[rater] = mark
        return {name: _of_units(units, raters, "ordinal") for name, units in cells.items()}
    units: dict[Any, dict[str, float]] = {}
    for rater, sample, sides, choice in votes[["rater", "sample", "sides", "choice"]].itertuples(index=False):
        mixed = shuffled(sorted(sides), sample)
        units.setdefault((sample, *sorted(sides)), {})[rater] = -1 if choice == TIE else mixed.index(choice)
    return {"choice": _of_units(units, raters, "nominal")}


def _of_units(units: dict[Any, dict[str, float]], raters: Sequence[str], level: Literal["nominal", "ordinal"]) -> float:
    data = np.array([[unit.get(rater, np.nan) for unit in units.values()] for rater in raters], float)
    known = data[:, np.isfinite(data).sum(0) > 1]
    if known.size == 0 or len(np.unique(known[np.isfinite(known)])) < 2:
        return float("nan")
    return float(krippendorff.alpha(reliability_data=known, level_of_measurement=level))


def _sides(votes: pd.DataFrame) -> list[float]:
    """Share of choices that fell on each place, ties left out."""
    places = [sides.index(c) for sides, c in zip(votes["sides"], votes["choice"], strict=True) if c in sides]
    return (np.bincount(places) / len(places)).tolist() if places else []


# -------------------------------------------------------------------------------------------------------- words
def _head(found: Found) -> list[str]:
    lines = [f"{found.votes} votes of {len(found.raters)} people on {found.samples} samples, {found.form}"]
    if found.left_out:
        names = ", ".join(f"{words(name)} ({share:.0%})" for name, share in found.left_out.items())
        lines.append(
            f"left out, fewer than {found.least:.0%} of their attention checks right: {len(found.left_out)}: {names}"
        )
    else:
        lines.append(f"left out by attention checks: nobody (at least {found.least:.0%} right)")
    if found.unchecked:
        lines.append(f"without any attention check: {', '.join(map(words, found.unchecked))}")
    return lines


def _table(found: Found) -> list[str]:
    rows = {}
    for number, arm in enumerate(found.arms):
        row = {}
        for name, each in found.measures.items():
            one = each[arm]
            row[name] = f"{one.value:.2f} [{one.lo:.2f}, {one.hi:.2f}]"
        met = found.met[number].sum()
        row["preferred"] = f"{found.wins[number].sum() / met:.0%}" if met else "—"
        if number + 1 < len(found.arms):
            row["against the next"] = _verdict({name: each[number] for name, each in found.steps.items()})
        rows[words(arm)] = row
    return pd.DataFrame(rows).T.fillna("").to_string().splitlines()


def _verdict(steps: dict[str, Interval]) -> str:
    """In which measures an arm is above the next, or below it, as far as the interval of the difference tells."""
    above = [name for name, one in steps.items() if one.lo > 0]
    below = [name for name, one in steps.items() if one.hi < 0]
    told = [f"{where}: {', '.join(names)}" for where, names in (("above", above), ("below", below)) if names]
    if len(steps) == 1:
        return "resolved" if told else "not resolved"
    return "; ".join(told) or "not resolved"


def _foot(found: Found) -> list[str]:
    alpha = ", ".join(f"{name} {value:.2f}" if value == value else f"{name} —" for name, value in found.alpha.items())
    wins = pd.DataFrame(
        [
            [f"{w:g} of {m:g}" if m else "—" for w, m in zip(*row, strict=True)]
            for row in zip(found.wins, found.met, strict=True)
        ],
        index=list(map(words, found.arms)),
        columns=list(map(words, found.arms)),
    )
    lines = ["", "preferred, row to column (a tie counts half):", *wins.to_string().splitlines(), ""]
    lines.append(f"Krippendorff's alpha: {alpha}; median {found.seconds:.1f} s a vote")
    if found.sides:
        sides = ", ".join(f"{share:.0%}" for share in found.sides)
        lines.append(f"ties: {found.ties} of {found.votes}; choices by place, from the left: {sides}")
    kind = "Bradley-Terry strengths (mean 0, ties half a win)" if found.form != LIKERT else "mean marks"
    lines.append(f"{kind}, 95 % intervals over people and samples (bootstrap)")
    return lines
