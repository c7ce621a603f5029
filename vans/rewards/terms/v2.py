"""The paper's r_v2: the same quantity as r_v1, as a reward of the VDM."""

from torch import Tensor

from vans.rewards.rollout import Rollout, term
from vans.rewards.terms.v1 import similarity


@term(needs="video")
def v2(rollout: Rollout) -> Tensor:
    return similarity(rollout)
