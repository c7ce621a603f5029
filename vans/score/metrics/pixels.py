"""Pixels: PSNR against the ground truth, and how much moves. Neither enters a reward."""

import numpy as np

from vans.score.batch import Batch
from vans.score.metric import metric, ratio

PSNR_MAX = 100.0  # dB, given to identical clips
VISIBLE = 10  # of 255: a smaller change between frames is not motion


@metric(
    "psnr",
    "PSNR",
    better="up",
    about="peak signal-to-noise ratio against the ground-truth clip",
    unit="dB",
    digits=1,
    claim=False,
)
def psnr_of(batch: Batch) -> np.ndarray:
    return psnr(batch.videos, batch.targets)


@metric(
    "motion_ratio",
    "motion",
    better="one",
    about="mean visible change between frames, as a multiple of the ground truth's; 0 is a still",
    digits=2,
    columns=("motion", "motion_gt"),
    sums=ratio,
)
def motion_ratio(batch: Batch) -> dict[str, np.ndarray]:
    return {"motion": motion(batch.videos), "motion_gt": motion(batch.targets)}


def psnr(clips: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB per clip: uint8 [N, T, H, W, 3] twice -> [N], at most PSNR_MAX."""
    if clips.shape != truth.shape:
        raise ValueError(f"clips {clips.shape} and ground truth {truth.shape} differ in shape")
    pairs = zip(clips, truth, strict=True)
    mse = np.array([np.square(a.astype(np.float32) - b.astype(np.float32)).mean() for a, b in pairs])
    return np.minimum(10 * np.log10(255.0**2 / np.maximum(mse, 1e-12)), PSNR_MAX)


def motion(clips: np.ndarray) -> np.ndarray:
    """Mean absolute change from frame to frame, uint8 [N, T, H, W, 3] -> [N] in [0, 1]; 0 for one frame.

    Changes below VISIBLE count as none, so that a generator's flicker is not taken for motion.
    """
    out = np.zeros(len(clips))
    for index, clip in enumerate(clips):
        change = np.abs(np.diff(clip.astype(np.int16), axis=0))
        out[index] = np.where(change < VISIBLE, 0, change).mean() / 255 if change.size else 0.0
    return out
