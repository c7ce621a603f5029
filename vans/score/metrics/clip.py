"""CLIP similarities. CLIP-T compares the frames with the *ground-truth* caption, so that a video of the wrong event
cannot score by agreeing with its own wrong caption; the other reading, agreement with the arm's own caption, is
``clip_t_own``.
"""

import numpy as np

from vans import similarity
from vans.score.batch import Batch, numpy
from vans.score.metric import metric


@metric("clip_v", "CLIP-V", better="up", about="cosine of frame i with ground-truth frame i, mean over frames")
def clip_v(batch: Batch) -> np.ndarray:
    return numpy(similarity.frame_similarity(batch.video_features, batch.target_features))


@metric("clip_t", "CLIP-T", better="up", about="cosine of the frames with the ground-truth caption, mean over frames")
def clip_t(batch: Batch) -> np.ndarray:
    return numpy(similarity.clip_score(batch.video_features, batch.truth_features))


@metric(
    "clip_t_own",
    "CLIP-T own",
    better="up",
    about="cosine of the frames with the arm's own caption",
    needs=("videos", "captions"),
)
def clip_t_own(batch: Batch) -> np.ndarray:
    own = numpy(similarity.clip_score(batch.video_features, batch.caption_features))
    return np.where([not caption.strip() for caption in batch.captions], np.nan, own)
