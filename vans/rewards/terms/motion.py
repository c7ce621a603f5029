"""Motion of the video against the true one's, in [0, 1]: 1 where both move as much, near 0 for a still (or for noise).

min(m + a, m' + a) / max(m + a, m' + a), with m and m' the mean absolute changes of a pixel between neighbouring frames
(0 to 255) and a = 0.1, so that two stills agree. Closed form, without a model: it sees what CLIP's similarity does not.
"""

import torch
from torch import Tensor

from vans.rewards.rollout import Rollout, term

FLOOR = 0.1  # of 255


def energy(videos: Tensor) -> Tensor:
    """Mean absolute change between neighbouring frames, 0 to 255: uint8 [..., T, H, W, 3] -> [...]."""
    change = (videos[..., 1:, :, :, :].float() - videos[..., :-1, :, :, :].float()).abs()
    return change.flatten(-4).mean(-1)


@term(needs="video")
def motion(rollout: Rollout) -> Tensor:
    ours, true = energy(rollout.videos) + FLOOR, energy(rollout.targets)[:, None] + FLOOR
    return rollout.where_rendered(torch.minimum(ours, true) / torch.maximum(ours, true))
