"""Reward terms for tests: `tests.reward_terms:name` in a preset, imported as anyone's own, also by child processes."""

import torch
from torch import Tensor

from vans.rewards.rollout import Rollout, term


@term(needs="video")
def graded(rollout: Rollout) -> Tensor:
    """Rewards that differ within every group, whatever an untrained model writes or renders."""
    p, g = rollout.shape
    return torch.arange(float(p * g)).view(p, g) % 3


@term(needs="video")
def rising(rollout: Rollout) -> Tensor:
    """The same in every group."""
    p, g = rollout.shape
    return torch.arange(float(g)).repeat(p, 1)


@term(needs="text")
def by_length(rollout: Rollout) -> Tensor:
    """Shorter answers earn more; nothing is rendered."""
    return -torch.tensor([[float(len(text)) for text in row] for row in rollout.answers])


@term(needs="video")
def by_pixels(rollout: Rollout) -> Tensor:
    """Longer answers and brighter videos earn more: differs by the model's own state."""
    lengths = torch.tensor([[float(len(text)) for text in row] for row in rollout.answers])
    return lengths + rollout.videos.float().flatten(2).mean(-1)


@term(needs="text")
def equal(rollout: Rollout) -> Tensor:
    return torch.ones(rollout.shape)
