"""Bootstrap intervals, seeded, by group, and paired between arms.

Samples of one scene (the same input with another question) are not independent: whole groups are drawn. Every
arm of a comparison is given the same draws, so that the difference of two arms has an interval of its own
that does not count what both share.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

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


def verdict(difference: Interval, direction: int) -> str:
    """What an interval of a difference says of a claimed sign (+1 or -1).

    "holds" if the whole interval lies on the claimed side of 0, "does not hold" if on the other side,
    "not resolved" if it contains 0, "not measured" if there is none.
    """
    if not np.isfinite([difference.value, difference.lo, difference.hi]).all():
        return "not measured"
    if difference.lo <= 0 <= difference.hi:
        return "not resolved"
    return "holds" if np.sign(difference.value) == np.sign(direction) else "does not hold"
