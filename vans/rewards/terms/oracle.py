"""The toy world's verifiable reward: 1 where the oracle sees the true event in the video's pixels, else 0.

The true event is read from the true clip, as the video's is. Raises UserError for clips that are no toy world's.
"""

import torch
from torch import Tensor

from vans.errors import UserError
from vans.rewards.rollout import Rollout, term
from vans.toy.oracle import read
from vans.toy.render import SIZE


@term(needs="video")
def oracle(rollout: Rollout) -> Tensor:
    if tuple(rollout.targets.shape[2:4]) != (SIZE, SIZE):
        raise UserError("reward oracle: it reads the toy world's clips only; take its weight out of params.yaml")
    seen = [r.event for r in read(rollout.videos.flatten(0, 1).numpy())]
    true = [r.event for r in read(rollout.targets.numpy())]
    count = rollout.shape[1]
    hits = torch.tensor([float(event == true[i // count]) for i, event in enumerate(seen)])
    return rollout.where_rendered(hits.unflatten(0, rollout.shape))
