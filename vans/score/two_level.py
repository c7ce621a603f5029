"""Intervals over trainings *and* samples: S seeds, each evaluated on the same G groups of samples, both random.

    y_sg = mean + a_s + b_g + e_sg          a: the training, b: the sample, e: what this training does to this sample

The mean of all y has the variance σ_a²/S + σ_b²/G + σ_e²/(SG): more samples do not make up for few trainings, nor the
other way round. The components come from the mean squares of the balanced two-way table (Searle, Casella and McCulloch,
Variance Components, 1992, ch. 4), the degrees of freedom from Satterthwaite (1946). A bootstrap over five trainings
covers too little; what each choice covers: benchmarks/coverage.py.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from vans.score.bootstrap import LEVEL, Interval

MOST = 200  # seeds that are thought of when asked how many more are needed


@dataclass(frozen=True)
class Spread:
    """Variance components of one number that ``seeds`` trainings gave on ``groups`` groups of samples.

    ``seed``: σ_a², whose estimate may lie below 0 by chance; ``group``: σ_b², at least 0; ``both``: σ_e².
    """

    seeds: int
    groups: int
    seed: float
    group: float
    both: float

    def error(self, seeds: int | None = None) -> tuple[float, float]:
        """Standard error of the mean over so many seeds (default: those there are), and its degrees of freedom."""
        s, g = seeds or self.seeds, self.groups
        if s < 2 or g < 2:
            return float("nan"), float("nan")
        # mean squares over SG: of seeds, of groups, of the rest
        rest = self.both / (s * g)
        parts = np.array([max(self.seed / s + rest, 0.0), self.group / g + rest, rest])
        variance = parts[0] + parts[1] - parts[2]
        if variance <= 0:
            return 0.0, float(s - 1)
        freedom = variance**2 / (parts**2 / [s - 1, g - 1, (s - 1) * (g - 1)]).sum()
        # Satterthwaite's are never fewer than the fewest of what is added up; the part that is taken away may bring
        # them near 0 where the trainings agree by chance, and the interval beyond all numbers
        return float(np.sqrt(variance)), float(max(freedom, min(s, g) - 1))

    def interval(self, value: float, n: int, level: float = LEVEL) -> Interval:
        """Around a mean; ``n``: samples behind it. nan with fewer than two seeds or groups."""
        error, freedom = self.error()
        half = special.stdtrit(freedom, (1 + level) / 2) * error
        return Interval(value, float(value - half), float(value + half), n)

    def p_value(self, value: float, seeds: int | None = None) -> float:
        """Two-sided p of "the mean is 0", if it were seen over so many seeds. nan where there is no interval."""
        error, freedom = self.error(seeds)
        if error == 0:
            return float(value == 0)
        return float(2 * special.stdtr(freedom, -abs(value) / error))

    def seeds_for(self, value: float, p: float) -> int | None:
        """The smallest number of seeds with which this mean would have at most this p-value, the components being what
        they are; None where more samples would be needed (or more than MOST seeds).
        """
        return next((s for s in range(2, MOST + 1) if self.p_value(value, s) <= p), None)


def spread(values: np.ndarray) -> Spread:
    """Variance components of a balanced two-way table without replication, float [S, G]."""
    values = np.asarray(values, np.float64)
    s, g = values.shape
    if s < 2 or g < 2:
        return Spread(s, g, float("nan"), float("nan"), float("nan"))
    rows, columns, mean = values.mean(1), values.mean(0), values.mean()
    of_seeds = g * np.square(rows - mean).sum() / (s - 1)
    of_groups = s * np.square(columns - mean).sum() / (g - 1)
    rest = np.square(values - rows[:, None] - columns + mean).sum() / ((s - 1) * (g - 1))
    return Spread(s, g, float(of_seeds - rest) / g, max(float(of_groups - rest) / s, 0.0), float(rest))


def pseudo_values(value: float, left_out: Sequence[float] | np.ndarray) -> np.ndarray:
    """What each of G groups adds to a statistic, float [G], the mean being ``value`` (Tukey's, without their correction
    of bias). ``left_out``: the statistic without each of them. Of a mean over equal groups: the groups' own means.
    """
    without = np.asarray(left_out, np.float64)
    return value - (len(without) - 1) * (without - without.mean())
