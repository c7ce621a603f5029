"""Models by parameters: the same call gives the toy models of models/base or the real ones of the hub."""

from __future__ import annotations

from pathlib import Path

import torch
from diffusers import WanTransformer3DModel

from vans.errors import UserError
from vans.models.engine import Engine, check_installed
from vans.models.protocol import protocol_of
from vans.models.vdm import VDM
from vans.models.vlm import VLM
from vans.models.whole import TRAIN, check_finite, pretrained


def frozen_dtype(params) -> torch.dtype:
    """The precision of frozen weights and of autocast arithmetic; what trains is float32 in every case."""
    return {"float32": torch.float32, "bfloat16": torch.bfloat16}[params.machine.dtype]


def vlm_options(params) -> dict:
    protocol = protocol_of(params)
    told = {"system": protocol.system, "frames": protocol.frames, "seconds": protocol.seconds}
    return told | {"position_rule": params.models.vlm.positions}


def vdm_options(params) -> dict:
    model, protocol = params.models.vdm, protocol_of(params)
    return {
        "references": model.references,
        "shift": model.shift,
        "max_text": model.max_text,
        "negative_prompt": protocol.negative_prompt,
        "picking": protocol.references,
        "vae_batch": params.machine.vae_batch,
        "dit_batch": params.machine.dit_batch,
        "autocast_dtype": None if params.machine.dtype == "float32" else frozen_dtype(params),
        "compiled": params.machine.compile,
    }


def load_vdm(params, base: Path, tuned: Path | None = None, device="cpu", renders: bool = False) -> VDM:
    """The VDM of `base` (or of the hub), its DiT replaced by that of `tuned`/transformer where given.

    renders: and nothing else (`VDM.rounded`).
    """
    model = params.models.vdm
    vdm = VDM.load(model.repo or Path(base) / "vdm", model.revision, frozen_dtype(params), **vdm_options(params))
    if tuned is not None:
        vdm.dit = load_dit(tuned)
    vdm.checkpoint_activations(params.machine.gradient_checkpointing)
    vdm.frozen()
    return (vdm.rounded() if renders else vdm).to(device)


def load_dit(folder: Path) -> WanTransformer3DModel:
    """A trained DiT (float32) from a stage's vdm folder, whole and finite, else UserError."""
    folder = Path(folder)
    if not (folder / "transformer" / "config.json").exists():
        raise UserError(f"{folder}/transformer: no DiT here; {TRAIN}")
    dit = pretrained(WanTransformer3DModel, folder, "DiT", TRAIN, "transformer", strict=True)
    check_finite(folder / "transformer", dit.named_parameters())
    return dit


def load_vlm(params, base: Path, adapter: Path | None = None, device="cpu") -> VLM:
    """The VLM of `base` (or of the hub), under the LoRA adapter of `adapter` where given (frozen)."""
    model = params.models.vlm
    dtype = None if params.machine.dtype == "float32" else frozen_dtype(params)
    source, machine = model.repo or Path(base) / "vlm", params.machine
    if machine.sampler == "vllm":
        check_installed()
    vlm = VLM.load(source, model.revision, dtype, **vlm_options(params))
    vlm.sample_batch, vlm.decoding = machine.sample_batch, machine.decoding
    if machine.sampler == "vllm":
        vlm.engine = Engine(source, model.revision, machine.vllm_memory, machine.sample_batch)
    if adapter is not None:
        vlm.load_lora(adapter)
    vlm.checkpoint_activations(machine.gradient_checkpointing)
    return vlm.frozen().to(device)
