"""Fréchet video distance of the answers to the ground truth."""

import numpy as np

from vans.score.batch import Batch
from vans.score.fvd import frechet_distance
from vans.score.metric import metric


@metric("fvd", "FVD", better="down", about="Fréchet distance of video features", digits=2, distance=frechet_distance)
def fvd(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    return batch.detector_features(batch.videos), batch.detector_features(batch.targets)
