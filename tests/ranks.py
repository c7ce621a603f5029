"""Training functions for `vans.parallel.launch`, with rewards put in: child processes see no monkeypatch."""

from unittest.mock import patch

import torch

from vans.grpo import rewards
from vans.parallel import Group
from vans.train import stage1


def by_length(rollout: rewards.Rollout, names: list[str]) -> dict[str, torch.Tensor]:
    """Rewards that differ in a group, even among the answers of an untrained model: shorter answers earn more."""
    lengths = torch.tensor([[float(len(text)) for text in group] for group in rollout.texts or []])
    return {name: -lengths / (number + 1) for number, name in enumerate(names)}


def stage1_by_length(group: Group, **arguments: str) -> list[dict]:
    """`vans.train.stage1:train_vlm` with these rewards and nothing rendered."""
    with patch.object(rewards, "score", by_length):
        return stage1.train_vlm(group, **arguments)
