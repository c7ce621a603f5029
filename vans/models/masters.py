"""A copy of a network that computes in bfloat16, over the float32 weights that it stands for and that train: masters.

Each weight is rounded once after an update, not in every pass as autocast does, and between matrix products nothing is
widened to float32 but what diffusers keeps there (`_keep_in_fp32_modules`: norms, time embedding, scales and shifts);
those are no copies but the masters themselves. A gradient goes on to its master, in float32, as soon as a backward pass
has made it: nothing is added up in bfloat16 from pass to pass.
"""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn


class Halved:
    """The copy of `masters`, a model of diffusers; its weights are looked after in `network`.

    What trains in the masters (`requires_grad`) is asked at every look, and so is whether they have changed: an
    optimiser's step, a checkpoint read back and a weight set by hand are all followed. Modules that are put in or taken
    out (an adapter) are not: make another copy. What is in `dtype` already is not held twice.
    """

    def __init__(self, masters: Any, dtype: torch.dtype):
        self.masters = masters
        kept = set(getattr(masters, "_keep_in_fp32_modules", None) or ())
        self.pairs: list[tuple[nn.Parameter, nn.Parameter]] = []  # master, its copy
        known: dict[int, Any] = {id(buffer): buffer for buffer in masters.buffers()}
        for name, master in masters.named_parameters():
            if kept.isdisjoint(name.split(".")) and master.is_floating_point():
                half = nn.Parameter(master.detach().to(dtype))
                half.register_post_accumulate_grad_hook(handed_to(master))
                self.pairs.append((master, half))
                known[id(master)] = half
            else:
                known[id(master)] = master
        self._network: Any = copy.deepcopy(masters, known)
        self.seen = self._state()

    def _state(self) -> list[tuple[int, int]]:
        return [(master.data_ptr(), master._version) for master, _ in self.pairs]

    @property
    def network(self) -> Any:
        """The copy, as the masters are now."""
        for master, half in self.pairs:
            half.requires_grad_(master.requires_grad)
        if (now := self._state()) != self.seen:
            self.seen = now
            with torch.no_grad():
                for master, half in self.pairs:
                    half.copy_(master)
        return self._network


def handed_to(master: nn.Parameter):
    """A hook that moves the gradient of a copy to its master and adds it there."""

    def move(half: Tensor) -> None:
        assert half.grad is not None
        grad, half.grad = half.grad.to(master.dtype), None
        master.grad = grad if master.grad is None else master.grad.add_(grad)

    return move
