"""Kernel video distance, from the features of a detector: what FVD asks, without FVD's bias where samples are few.

The squared maximum mean discrepancy of two sets of features under a polynomial kernel of degree 3 (KVD: Unterthiner et
al., "Towards Accurate Generative Models of Video", 2018; the kernel is KID's, Bińkowski et al., ICLR 2018). It supposes
no Gaussian and estimates no covariance, so that it is unbiased at every number of samples; Luo et al. ("Beyond FVD",
ICLR 2025), whose JEDi is such a distance on V-JEPA's features, find it to settle with a fraction of the samples.
"""

import numpy as np

DEGREE = 3


def kernel(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """(a·b / D + 1)³ of features [N, D] and [M, D] -> [N, M]."""
    return (a @ b.T / a.shape[1] + 1.0) ** DEGREE


def kvd(a: np.ndarray, b: np.ndarray) -> float:
    """The kernel video distance of answers [N, D] and truth [N, D]; see `resampled`."""
    return float(resampled(a, b, np.ones((1, len(a))))[0])


def resampled(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The kernel video distance in each resample: features [N, D] twice and counts [B, N] -> [B].

    `weighted` of features in units of the root mean square of the truth's, so that the kernel's 1 stands beside numbers
    of its size whatever the detector's scale (else the cube is made of the few largest), and arms share one kernel.
    """
    unit = np.sqrt(np.square(np.asarray(b, np.float64)).mean()) or 1.0
    return weighted(a / unit, b / unit, weights)


def kernel_distance(a: np.ndarray, b: np.ndarray) -> float:
    """MMD² of features [N, D] of answers and [N, D] of their truths, row i of both of one sample; see `weighted`."""
    return float(weighted(a, b, np.ones((1, len(a))))[0])


def weighted(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """MMD² of B weighted samples: paired features [N, D] twice and counts [B, N] -> [B] float64.

    The mean over ordered pairs i ≠ j of k(a_i, a_j) + k(b_i, b_j) - k(a_i, b_j) - k(a_j, b_i) (Gretton et al., JMLR
    2012, equation 4): unbiased also where an answer and its own truth depend on each other, and 0 where they are the
    same. A sample that a resample has several times makes no pair with itself. nan for fewer than two samples.
    Raises ValueError for shapes that differ and for nan or inf.
    """
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.ndim != 2 or a.shape != b.shape:
        raise ValueError(f"features must be [N, D] twice, row i of one sample, not {a.shape} and {b.shape}")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("features hold nan or inf")
    across = kernel(a, b)
    pairs = kernel(a, a) + kernel(b, b) - across - across.T
    np.fill_diagonal(pairs, 0.0)
    weights = np.asarray(weights, np.float64)
    total = weights.sum(axis=1) ** 2 - np.square(weights).sum(axis=1)
    summed = np.einsum("bi,bi->b", weights @ pairs, weights)
    return np.divide(summed, total, out=np.full(len(weights), np.nan), where=total > 0)
