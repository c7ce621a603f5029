"""Fréchet video distance: the distance itself, and the I3D detector of the paper scale.

A detector has ``features(clips uint8 [N, T, H, W, 3]) -> [N, D]`` and ``name``, a text that says which
network it is and what is done to the clips. The number means nothing without that text: it is printed
wherever FVD stands.
"""

from pathlib import Path
from typing import Protocol

import numpy as np

from vans.errors import UserError
from vans.files import sha256_file

I3D_SIZE = 224  # px, the side to which the TorchScript file resizes
I3D_FRAMES = 10  # fewest frames that the network's time strides accept


class Detector(Protocol):
    """Turns clips into one feature vector each."""

    name: str

    def features(self, clips: np.ndarray) -> np.ndarray:
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
    return np.linalg.qr(scaled.T, mode="r").T


def resampled_distances(a: np.ndarray, b: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The distance in each resample: paired features [N, D] twice and counts [B, N] -> [B].

    Row i of both belongs to one sample and is taken or left together. A resample of fewer than two gives nan.
    """
    out = np.full(len(weights), np.nan)
    for index, row in enumerate(weights):
        taken = np.repeat(np.arange(len(row)), row.astype(int))
        if len(taken) >= 2:
            out[index] = frechet_distance(a[taken], b[taken])
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


class I3D:
    """The Kinetics-400 I3D published with StyleGAN-V as a TorchScript file: 400 features a clip.

    The file is checked against ``sha256`` before any of it is run. Clips enter in [0, 255], the network
    resizes them to 224 x 224 and rescales them; all frames are used, none repeated or dropped. Check: 8
    videos of 30 x 64 x 64 zeros against ones give 151.256.
    """

    def __init__(self, path: str | Path, sha256: str, device: str = "cpu", batch: int = 16) -> None:
        import torch

        path = Path(path).expanduser()
        if not path.is_file():
            raise UserError(f"{path}: no such I3D file; download StyleGAN-V's i3d_torchscript.pt to it")
        if not sha256:
            raise UserError(f"{path}: its sha256 is not set in params.yaml; put in the one that you trust")
        found = sha256_file(path)
        if found != sha256.lower():
            raise UserError(f"{path}: sha256 is {found}, params.yaml says {sha256}; it is not loaded")
        self._network = torch.jit.load(str(path), map_location=device).eval()
        self._device, self._batch = device, batch
        self.name = (
            f"I3D Kinetics-400 (StyleGAN-V TorchScript {found[:8]}), {I3D_SIZE} x {I3D_SIZE}, all frames"
        )

    def features(self, clips: np.ndarray) -> np.ndarray:
        """uint8 [N, T, H, W, 3] -> float32 [N, 400]; T >= 10."""
        import torch

        clips = np.asarray(clips)
        if clips.ndim != 5 or clips.dtype != np.uint8:
            raise ValueError(f"clips must be uint8 [N, T, H, W, 3], not {clips.dtype} {clips.shape}")
        if clips.shape[1] < I3D_FRAMES:
            raise UserError(f"I3D needs clips of {I3D_FRAMES} frames or more, these have {clips.shape[1]}")
        out = []
        with torch.no_grad():
            for start in range(0, len(clips), self._batch):
                part = torch.from_numpy(np.ascontiguousarray(clips[start : start + self._batch]))
                videos = part.permute(0, 4, 1, 2, 3).float().to(self._device)
                out.append(
                    self._network(videos, rescale=True, resize=True, return_features=True).float().cpu()
                )
        return torch.cat(out).numpy() if out else np.zeros((0, 400), np.float32)
