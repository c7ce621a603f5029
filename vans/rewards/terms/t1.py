"""ROUGE-L of the caption with the true one (the paper's r_t1).

An answer that breaks the template has no caption: 0, whatever text it holds.
"""

import torch
from torch import Tensor

from vans.rewards.rollout import Rollout, term
from vans.similarity import rouge_l


@term(needs="text")
def t1(rollout: Rollout) -> Tensor:
    rows = zip(rollout.captions, rollout.truth, strict=True)
    return torch.tensor([[rouge_l(caption or "", truth) for caption in row] for row, truth in rows])
