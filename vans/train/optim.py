"""AdamW, and Muon for training from scratch: one torch optimiser over named parameters, with one state.

Muon (K. Jordan et al., 2024): momentum, then the update of each matrix is replaced by the nearest semi-orthogonal
matrix (five Newton-Schulz steps). Torch's own `torch.optim.Muon` takes 2-D weights only; here convolutions are
flattened to [out, in * kernel], and matrices of one shape share a batched Newton-Schulz.

AdamW takes tensors that are cut up over ranks, too: its arithmetic is of each element, its state this rank's rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from torch.optim import Optimizer

from vans.errors import UserError
from vans.sharding import mine

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)


def newton_schulz(matrices: Tensor, steps: int = 5) -> Tensor:
    """[B, m, n] -> approximately the orthogonal factor of each (singular values in about 0.7 to 1.2)."""
    a, b, c = NEWTON_SCHULZ
    x = matrices / (matrices.flatten(1).norm(dim=1).view(-1, 1, 1) + 1e-7)
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    for _ in range(steps):
        gram = x @ x.mT
        x = a * x + (b * gram + c * gram @ gram) @ x
    return x.mT if tall else x


class MuonAdamW(Optimizer):
    """Muon on the groups with `muon=True`, AdamW on the others."""

    def __init__(self, groups: list[dict], betas=(0.9, 0.95), eps=1e-8, momentum=0.95, weight_decay=0.0):
        super().__init__(groups, {"betas": betas, "eps": eps, "momentum": momentum, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure=None):
        for group in self.param_groups:
            with_grad = [p for p in group["params"] if p.grad is not None]
            (self._muon if group["muon"] else self._adamw)(group, with_grad)

    def _muon(self, group: dict, params: list[Tensor]) -> None:
        by_shape: dict[tuple, list[Tensor]] = defaultdict(list)
        for p in params:
            state = self.state[p]
            if not state:
                state["momentum"] = torch.zeros_like(p)
            assert p.grad is not None
            state["momentum"].lerp_(p.grad, 1 - group["momentum"])
            by_shape[(p.shape[0], p[0].numel())].append(p)
        for shape, members in by_shape.items():
            grads = [(p.grad, self.state[p]["momentum"]) for p in members if p.grad is not None]
            updates = [g.lerp(m, group["momentum"]).reshape(shape) for g, m in grads]
            scale = max(1.0, shape[0] / shape[1]) ** 0.5
            for p, update in zip(members, newton_schulz(torch.stack(updates)), strict=True):
                p.mul_(1 - group["lr"] * group["weight_decay"])
                p.add_(update.reshape(p.shape), alpha=-group["lr"] * scale)

    def _adamw(self, group: dict, params: list[Tensor]) -> None:
        b1, b2 = group["betas"]
        for p in params:
            state = self.state[p]
            assert p.grad is not None
            here, grad = mine(p), mine(p.grad)
            if not state:
                state["step"] = torch.zeros(())
                state["m"], state["v"] = torch.zeros_like(here), torch.zeros_like(here)
            state["step"] += 1
            state["m"].lerp_(grad, 1 - b1)
            state["v"].lerp_(grad.square(), 1 - b2)
            t = float(state["step"])
            denominator = (state["v"] / (1 - b2**t)).sqrt_().add_(group["eps"])
            here.mul_(1 - group["lr"] * group["weight_decay"])
            here.addcdiv_(state["m"], denominator, value=-group["lr"] / (1 - b1**t))


def optimizer(modules: Iterable[nn.Module], kind: str, lr: float, adam_lr: float | None = None) -> MuonAdamW:
    """Over every trainable parameter. kind "adamw": `lr` for all; "muon": `lr` for matrices and convolutions of the
    bodies, `adam_lr` for embeddings, norms, biases, and first and last layers. UserError for a matrix that is cut up.
    """
    matrices: list[Tensor] = []
    rest: list[Tensor] = []
    for module in modules:
        for name, p in module.named_parameters():
            if not p.requires_grad:
                continue
            if kind == "muon" and isinstance(p, DTensor):
                raise UserError("optimizer: muon needs whole matrices, which machine.shard cuts up; use adamw")
            inner = p.ndim >= 2 and not any(word in name for word in OUTER)
            (matrices if kind == "muon" and inner else rest).append(p)
    groups = [{"params": matrices, "lr": lr, "muon": True}] if matrices else []
    if rest:
        groups.append({"params": rest, "lr": adam_lr if kind == "muon" and adam_lr else lr, "muon": False})
    for group in groups:
        group["initial_lr"] = group["lr"]
    return MuonAdamW(groups)


OUTER = (
    "embed",  # token, position, patch and class embeddings
    "shared",
    "lm_head",
    "proj_out",
    "conv_in",
    "conv_out",
    "scale_shift_table",
    "relative_attention_bias",
    "conv1",
    "logit_scale",
)


def set_lr(optim: Optimizer, factor: float) -> None:
    """Scale every group's learning rate from where it started."""
    for group in optim.param_groups:
        group["lr"] = group["initial_lr"] * factor


def schedule(step: int, total: int, warmup: int = 0, decay: float = 0.3) -> float:
    """Linear warm-up, flat, then linear down to 0 over the last `decay` share of the steps."""
    if warmup and step < warmup:
        return (step + 1) / warmup
    start = total * (1 - decay)
    return 1.0 if decay == 0 or step < start else max(0.0, (total - step) / (total - start))
