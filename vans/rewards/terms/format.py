"""The whole answer follows the template: 1, else 0 (the paper's r_f)."""

import torch
from torch import Tensor

from vans.rewards.rollout import Rollout, term
from vans.template import format_reward


@term(needs="text")
def format(rollout: Rollout) -> Tensor:
    return torch.tensor([[format_reward(text) for text in row] for row in rollout.answers])
