"""What is measured of a few clips at hand, without an arm on disk: for the notebooks of the trainings."""

from typing import Any

import numpy as np
import pandas as pd

from vans.score.batch import Batch
from vans.score.metric import METRICS, measure
from vans.score.metrics.oracle import can_read as oracle_can_read
from vans.score.metrics.oracle import readings

__all__ = ["of_oracle", "of_videos", "oracle_can_read"]


def of_videos(clips: np.ndarray, target: np.ndarray, rows: pd.DataFrame, clip: Any) -> dict[str, Any]:
    """Per sample: CLIP similarities, PSNR and motion of answers. rows: caption, truth."""
    batch = Batch(rows.index.astype(str), rows["caption"], rows["truth"], clips, targets=target, clip=clip)
    names = ("clip_v", "clip_t", "clip_t_own", "psnr", "motion_ratio")
    return measure(batch, [METRICS[name] for name in names])[0].to_dict("list")


def of_oracle(clips: np.ndarray, target: np.ndarray, source: np.ndarray, captions: list[str]) -> dict[str, Any]:
    """Per sample: what the oracle sees in answer, target and input, and whether the caption names it."""
    batch = Batch(captions, captions, captions, clips, targets=target, inputs=source, toy=True)
    return readings(batch) or {}
