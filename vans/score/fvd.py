"""Fréchet video distance, from the features of a detector.

A detector has ``features(clips uint8 [N, T, H, W, 3]) -> [N, D]`` and ``name``, a text that says which
network it is and what is done to the clips (``vans.models.detector`` has both that are used here). The number
means nothing without that text: it is printed wherever FVD stands.
"""

from collections.abc import Callable
from typing import Protocol

import numpy as np
from torch import Tensor


class Detector(Protocol):
    """Turns clips into one feature vector each."""

    @property
    def name(self) -> str: ...

    def features(self, clips: Tensor) -> Tensor:
        """uint8 [N, T, H, W, 3] -> [N, D]."""
        ...


def frechet_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Squared Fréchet distance of the Gaussians fitted to two sets of features, [N, D] and [M, D], each >= 2.

    |mean_a - mean_b|² + tr(A) + tr(B) - 2 tr sqrt(AB), A and B the unbiased covariances (divisor N - 1). The
    last trace is taken as the sum of the singular values of Xaᵀ Xb, where A = Xa Xaᵀ and B = Xb Xbᵀ: always
    real and defined for covariances without full rank, so that no small number has to be added to the
    diagonal as with a general matrix square root. Computed in float64; never below 0.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise ValueError(f"features must be [N, D] and [M, D], not {a.shape} and {b.shape}")
    if min(len(a), len(b)) < 2:
        raise ValueError("a covariance needs at least two samples a side")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("features hold nan or inf")
    mean_a, mean_b = a.mean(0), b.mean(0)
    root_a, root_b = _root(a - mean_a), _root(b - mean_b)
    cross = np.linalg.svd(root_a.T @ root_b, compute_uv=False).sum()
    spread = np.square(root_a).sum() + np.square(root_b).sum() - 2 * cross
    return float(np.square(mean_a - mean_b).sum() + max(spread, 0.0))


def _root(centred: np.ndarray) -> np.ndarray:
    """X with X Xᵀ = the covariance of centred features [N, D]; [D, min(N, D)]."""
    scaled = centred.T / np.sqrt(len(centred) - 1)
    if scaled.shape[1] <= scaled.shape[0]:
        return scaled
    _, upper = np.linalg.qr(scaled.T)
    return upper.T


def resampled_distances(
    a: np.ndarray, b: np.ndarray, weights: np.ndarray, distance: Callable[..., float] = frechet_distance
) -> np.ndarray:
    """The distance in each resample: paired features [N, D] twice and counts [B, N] -> [B].

    Row i of both belongs to one sample and is taken or left together. A resample of fewer than two gives nan.
    """
    out = np.full(len(weights), np.nan)
    for index, row in enumerate(weights):
        taken = np.repeat(np.arange(len(row)), row.astype(int))
        if len(taken) >= 2:
            out[index] = distance(a[taken], b[taken])
    return out


def few_samples(n: int, dimensions: int) -> str | None:
    """A warning if n samples are few for features of that many dimensions, else None.

    With n <= D the covariance has no full rank; below 10 D the distance is biased upwards noticeably (two
    samples of one distribution come out apart). Arms with equal n can still be compared.
    """
    if n <= dimensions:
        return (
            f"FVD: {n} samples for {dimensions} features: the covariance has no full rank; "
            "compare arms of equal n, do not read the value by itself"
        )
    if n < 10 * dimensions:
        return f"FVD: {n} samples for {dimensions} features: biased upwards; compare only arms of equal n"
    return None
