"""Matrix products of a frozen DiT in float8 (e4m3): an approximation of what it renders, for `stage1.fp8`.

Weights are kept with one scale for each output, inputs get one for each row as they come; products add up in float32
(torch.nn.functional.scaled_mm). Only the blocks' attention and feed-forward layers change; what comes before and after
them, and all norms, stay. GPUs from Ada and Hopper on have it; a VDM that trains cannot use it, since the update's
velocity must be the rollout's. What it does to a group's ranking: docs/approximations.md. Never run on a GPU here.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vans.errors import UserError

FLOAT8, LARGEST = torch.float8_e4m3fn, torch.finfo(torch.float8_e4m3fn).max
CAPABILITY = (8, 9)


class Float8Linear(nn.Module):
    """A linear layer whose product is in float8: [..., I] -> [..., O] in the input's dtype."""

    weight: Tensor
    scale: Tensor

    def __init__(self, linear: nn.Linear):
        super().__init__()
        self.bias = linear.bias
        weight, scale = quantised(linear.weight.detach().float())
        self.register_buffer("weight", weight)  # [O, I]
        self.register_buffer("scale", scale)  # [O, 1]

    def forward(self, x: Tensor) -> Tensor:
        rows, scale = quantised(x.flatten(0, -2).float())  # [N, I], [N, 1]
        row = functional.ScalingType.RowWise
        wide = torch.bfloat16 if x.is_cuda else torch.float32  # CUDA's kernel gives no other with such scales
        out = functional.scaled_mm(rows, self.weight.T, scale, row, self.scale.T, row, output_dtype=wide)
        out = out if self.bias is None else out + self.bias.to(wide)
        return out.to(x.dtype).unflatten(0, x.shape[:-1])


def quantised(values: Tensor) -> tuple[Tensor, Tensor]:
    """float32 [N, I] -> (float8 [N, I], scale [N, 1] float32): values = float8 * scale, the largest of a row exact."""
    scale = values.abs().amax(dim=1, keepdim=True).clamp(min=1e-12) / LARGEST
    return (values / scale).to(FLOAT8), scale


def lower(dit: Any) -> Any:
    """Put float8 layers in the place of the linear layers of a frozen DiT's blocks, whose sides are multiples of 16."""
    for block in dit.blocks:
        for parent in list(block.modules()):
            for name, layer in list(parent.named_children()):
                if isinstance(layer, nn.Linear) and not (layer.in_features % 16 or layer.out_features % 16):
                    setattr(parent, name, Float8Linear(layer))
    return dit


def check(device: torch.device, key: str) -> None:
    """UserError where the hardware has no float8. key: of the parameter that asks for it."""
    if device.type != "cuda":
        has = f"this is {device.type}"
    elif (found := torch.cuda.get_device_capability(device)) < CAPABILITY:
        has = f"{torch.cuda.get_device_name(device)} has {found[0]}.{found[1]}"
    else:
        return
    raise UserError(f"{key}: needs a GPU of compute capability 8.9 or later (Ada, Hopper), and {has}; use false")
