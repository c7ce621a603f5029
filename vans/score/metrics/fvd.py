"""Distances of the answers' video features to the ground truth's: Fréchet (FVD) and kernel (KVD)."""

import numpy as np

from vans.score.batch import Batch
from vans.score.fvd import frechet_distance
from vans.score.kvd import kvd, resampled
from vans.score.metric import metric


@metric(
    "kvd",
    "KVD",
    better="down",
    about="kernel distance of the same features (polynomial MMD², JEDi's kind), unbiased however few the samples",
    digits=4,
    distance=kvd,
    weighted=resampled,
    signed=True,
)
@metric("fvd", "FVD", better="down", about="Fréchet distance of video features", digits=2, distance=frechet_distance)
def features(batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    return batch.detector_features(batch.videos), batch.detector_features(batch.targets)
