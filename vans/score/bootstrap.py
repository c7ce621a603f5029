"""Intervals, by group and seeded: bootstrap, paired between arms; jackknife; and verdicts, corrected for their number.

Samples of one scene (the same input with another question) are not independent: whole groups are drawn. Every
arm of a comparison is given the same draws, so that the difference of two arms has an interval of its own
that does not count what both share.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

LEVEL = 0.95


@dataclass(frozen=True)
class Interval:
    """A value with the ends of its interval and the number of samples behind it."""

    value: float
    lo: float
    hi: float
    n: int

    def contains(self, value: float) -> bool:
        return self.lo <= value <= self.hi


def draws(groups: Sequence[str], resamples: int, seed: int) -> np.ndarray:
    """How often each sample is taken in each resample: group labels [N] -> counts float64 [resamples, N].

    As many groups are drawn with replacement as there are; a group's samples come together. The same groups,
    number and seed give the same draws.
    """
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, not {resamples}")
    _, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    count = int(codes.max()) + 1 if len(codes) else 0
    if not count:
        return np.zeros((resamples, 0))
    taken = np.random.default_rng(seed).integers(0, count, size=(resamples, count))
    weights = np.zeros((resamples, count))
    np.add.at(weights, (np.arange(resamples)[:, None], taken), 1.0)
    return weights[:, codes]


def percentile(value: float, resampled: np.ndarray, n: int, level: float = LEVEL, centre: bool = False) -> Interval:
    """The percentile interval of resampled values [B] around ``value``.

    ``centre`` moves the interval by value - mean(resampled): for a statistic such as FVD that drawing with
    replacement biases (repeated samples make covariances poorer), so that the interval stands around the
    value. Resamples in which the statistic is not defined (nan) do not count.
    """
    resampled = np.asarray(resampled, dtype=np.float64)
    resampled = resampled[np.isfinite(resampled)]
    if not np.isfinite(value) or not len(resampled):
        return Interval(float(value), float("nan"), float("nan"), n)
    lo, hi = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    shift = value - resampled.mean() if centre else 0.0
    return Interval(float(value), float(lo + shift), float(hi + shift), n)


def leave_out(groups: Sequence[str], most: int) -> np.ndarray:
    """[G, N] of 0 and 1: each row leaves one group out, or one of ``most`` blocks of groups where they are more."""
    _, codes = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    blocks = codes % max(2, most)
    return (blocks != np.arange(blocks.max() + 1 if len(blocks) else 0)[:, None]).astype(float)


def jackknife(value: float, left_out: np.ndarray, n: int, level: float = LEVEL) -> Interval:
    """The interval of a smooth statistic from its values with one of G groups left out [G] (Tukey; Shao and Tu, The
    Jackknife and Bootstrap, 1995): value ± t(G - 1) √((G - 1) / G Σ (θ₋g - mean)²). nan with fewer than two groups.
    """
    count = len(left_out)
    if count < 2 or not np.isfinite([value, *left_out]).all():
        return Interval(float(value), float("nan"), float("nan"), n)
    error = np.sqrt((count - 1) / count * np.square(left_out - left_out.mean()).sum())
    half = stats.t.ppf((1 + level) / 2, count - 1) * error
    return Interval(float(value), float(value - half), float(value + half), n)


def p_value(value: float, resampled: np.ndarray) -> float:
    """Two-sided p of "the difference is 0", by the normal distribution with the resamples' standard deviation.

    (The share of resamples beyond 0 cannot be smaller than one over their number, too coarse for many claims.) nan
    where there is no number.
    """
    known = np.asarray(resampled, np.float64)
    known = known[np.isfinite(known)]
    if not np.isfinite(value) or len(known) < 2:
        return float("nan")
    error = known.std(ddof=1)
    return float(2 * stats.norm.sf(abs(value) / error)) if error > 0 else float(value == 0)


def holm(p: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p-values [M] (1979): at most α of them mean that, however the M tests depend on each other, the
    chance of one or more false verdicts among all is at most α. nan is no test.
    """
    given = np.asarray(p, np.float64)
    order = np.argsort(given)  # nan last
    count = int(np.isfinite(given).sum())
    out = np.full(len(given), np.nan)
    steps = given[order[:count]] * np.arange(count, 0, -1)
    out[order[:count]] = np.minimum(np.maximum.accumulate(steps), 1.0)
    return out


def verdict(difference: Interval, direction: int, p: float = 0.0, level: float = LEVEL) -> str:
    """What an interval of a difference, and its p-value (adjusted for the number of claims), say of a claimed sign.

    "holds" if the whole interval lies on the claimed side (+1 or -1) of 0 and p is at most 1 - level, "does not hold"
    if on the other side, "not resolved" if it contains 0 or p is larger, "not measured" if there is none.
    """
    if not np.isfinite([difference.value, difference.lo, difference.hi]).all():
        return "not measured"
    if difference.lo <= 0 <= difference.hi or p > 1 - level:
        return "not resolved"
    return "holds" if np.sign(difference.value) == np.sign(direction) else "does not hold"
