"""CLIP similarity of the rendered video with the true one, frame by frame, in [-1, 1] (the paper's r_v1)."""

from torch import Tensor

from vans.rewards.rollout import Rollout, term
from vans.similarity import frame_similarity


@term(needs="video")
def v1(rollout: Rollout) -> Tensor:
    return similarity(rollout)


def similarity(rollout: Rollout) -> Tensor:
    """[P, G]; 0 for an answer without a caption."""
    truth = rollout.target_features[:, None].expand_as(rollout.video_features)
    values = frame_similarity(rollout.video_features.flatten(0, 1), truth.flatten(0, 1))
    return rollout.where_rendered(values.unflatten(0, rollout.shape))
