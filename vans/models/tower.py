"""The vision part of a LoRA adapter: merged into the tower when it is loaded, written back when it is saved.

An adapter that was trained elsewhere may change the vision tower, too (the method's released one does). Here the tower
is frozen, so that a clip's features are computed once and shared. So its part of the adapter becomes part of the
tower's own matrices, W + alpha / r * B A, rounded once to their precision. On disk there are only the factors, in the
adapter's one file: nothing can be left behind or be of another tower, and peft alone loads the same model.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import Tensor

from vans.models.whole import WEIGHTS

PREFIX = "base_model.model.model.visual."  # of the tower's tensors in an adapter's file


def merge(adapted: Any) -> dict[str, Tensor]:
    """Merge the vision part of a peft model of Qwen2.5-VL into its tower, which then is plain again, without an
    adapter; returns that part as it stands in the file ({}: there is none).
    """
    factors = {n: t.clone() for n, t in get_peft_model_state_dict(adapted).items() if n.startswith(PREFIX)}
    tower = adapted.get_base_model().model.visual
    layers = {name: part for name, part in tower.named_modules() if isinstance(part, LoraLayer)}
    for name, layer in layers.items():
        plain: Any = layer.get_base_layer()
        weight = plain.weight
        weight.data = (weight.float() + layer.get_delta_weight("default").float()).to(weight.dtype)
        parent, _, own = name.rpartition(".")
        setattr(tower.get_submodule(parent), own, plain)
    return factors


def put_back(folder: Path, factors: dict[str, Tensor]) -> None:
    """Add a vision part to a saved adapter, whose settings name its modules already."""
    if factors:
        save_file(load_file(folder / WEIGHTS) | factors, folder / WEIGHTS, metadata={"format": "pt"})
