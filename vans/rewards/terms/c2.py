"""CLIPScore of the video with the caption that it was rendered from (the paper's r_c2), in [-1, 1].

The plain cosine, averaged over frames, not 2.5 * max(cosine, 0) (Hessel et al. 2021): the paper's CLIP-T of 0.30 to
0.38 are plain cosines, and a factor is the weight's business.
"""

from torch import Tensor

from vans.rewards.rollout import Rollout, term
from vans.similarity import clip_score


@term(needs="video")
def c2(rollout: Rollout) -> Tensor:
    values = clip_score(rollout.video_features.flatten(0, 1), rollout.caption_features.flatten(0, 1))
    return rollout.where_rendered(values.unflatten(0, rollout.shape))
