"""Intervals over raters and samples, both drawn: a bootstrap for votes that share a rater or a sample.

Three variances are bootstrapped: raters drawn (all of a rater's votes come together), samples drawn, and each cell of
rater and sample drawn for itself. Their sum V_raters + V_samples - V_cells counts what raters share and what samples
share once (Cameron, Gelbach and Miller, 2011), where drawing both at once counts the noise of single votes up to three
times (Owen, 2007). It is never taken below either of the two. The interval is value ± t · √V, with as many degrees of
freedom as there are raters or samples, whichever are fewer, less one.
"""

from collections.abc import Callable

import numpy as np
from scipy import stats

RESAMPLES = 400
LEVEL = 0.95
Statistic = Callable[[np.ndarray], np.ndarray]  # weights [raters, samples] -> values [K]


def covariance(statistic: Statistic, voted: np.ndarray, seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Covariance [K, K] of a statistic's values. voted: bool [raters, samples], where there are votes."""
    rng = np.random.default_rng(seed)
    raters, samples = voted.shape
    found: list[np.ndarray] = []
    for kind in ("raters", "samples", "cells"):
        values = []
        for _ in range(resamples):
            weights = np.ones((raters, samples))
            if kind == "raters":
                weights *= _counts(rng, raters)[:, None]
            elif kind == "samples":
                weights *= _counts(rng, samples)[None]
            else:
                weights[voted] = _counts(rng, int(voted.sum()))
                weights[~voted] = 0
            values.append(statistic(weights))
        found.append(np.cov(np.asarray(values), rowvar=False, ddof=1).reshape(len(values[0]), -1))
    return np.stack(found)


def _counts(rng: np.random.Generator, n: int) -> np.ndarray:
    return rng.multinomial(n, np.full(n, 1 / n)).astype(float)


def half(covariances: np.ndarray, direction: np.ndarray, voted: np.ndarray, level: float = LEVEL) -> float:
    """Half an interval's width, of direction [K] · values; nan with one rater and one sample.

    Of a single rater it says what other samples would change, of a single sample what other raters would.
    """
    raters, samples, cells = (float(direction @ one @ direction) for one in covariances)
    sizes = [size for size in voted.shape if size > 1]
    if not sizes:
        return float("nan")
    variance = max(raters + samples - cells, raters, samples)
    return float(stats.t.ppf((1 + level) / 2, min(sizes) - 1) * np.sqrt(variance))
