"""Saved weights are taken whole or refused: every tensor of file and model is accounted for, none is nan.

Libraries load what fits, draw the rest at random and say so in a warning that nobody reads.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Iterable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.utils import get_peft_model_state_dict, set_peft_model_state_dict
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor
from transformers import PreTrainedModel

from vans.errors import UserError
from vans.files import check_readable

WEIGHTS, CONFIG = "adapter_model.safetensors", "adapter_config.json"
TRAIN = "run the stage that trains it"
BROKEN = (OSError, ValueError, TypeError, LookupError, AttributeError, RuntimeError, ImportError, SafetensorError)
NO_CODE: dict[str, Any] = {"trust_remote_code": False}  # else transformers asks on standard input whether to run it
ATTENTION = "sdpa"  # said in every load: a folder's config may name a kernel of the hub, which is code too


def pretrained(
    model: Any, source: str | Path, what: str, fix: str, subfolder: str = "", strict: bool = False, **options: Any
) -> Any:
    """`model.from_pretrained` of a folder or hub repository with all of its tensors; safetensors only.

    No code of the folder is run, and nobody is asked about it. strict: nor may the file hold others. UserError in one
    line if there are none, some are missing or damaged, or a file may not be read.
    """
    where = Path(source, subfolder)
    _check_files(where)
    options |= {"subfolder": subfolder} if subfolder else {}
    if issubclass(model, PreTrainedModel):
        options |= NO_CODE | {"attn_implementation": ATTENTION}
    try:
        with _quiet():
            loaded, info = model.from_pretrained(str(source), use_safetensors=True, output_loading_info=True, **options)
    except BROKEN as error:
        raise UserError(f"{where}: no {what} weights here ({first_line(error)}); {fix}") from error
    account(where, what, info["missing_keys"], info["unexpected_keys"] if strict else ())
    return loaded


def companion(auto: Any, source: str | Path, what: str, fix: str, **options: Any) -> Any:
    """A tokenizer, processor or config of a folder or hub repository by `auto`; no code of the folder is run."""
    try:
        return auto.from_pretrained(str(source), **NO_CODE, **options)
    except BROKEN as error:
        where = Path(source, options.get("subfolder", ""))
        raise UserError(f"{where}: no {what} here ({first_line(error)}); {fix}") from error


def load_adapter(model: Any, folder: str | Path) -> Any:
    """The model under a saved LoRA adapter in peft's layout, trainable and without dropout.

    UserError in one line where file and model do not fit in every tensor's name and shape, a tensor is not of floating
    point or not finite, or a file is missing, damaged or not to be read.
    """
    folder = Path(folder)
    tensors = adapter_tensors(folder)
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
        if not isinstance(settings, dict) or settings.get("peft_type") != "LORA":
            raise ValueError("it is of another type than LoRA")
        config: Any = LoraConfig.from_pretrained(str(folder))
        config.inference_mode, config.lora_dropout = False, 0.0
        adapted: Any = get_peft_model(model, config)
        expected = get_peft_model_state_dict(adapted)
        for name in tensors.keys() & expected.keys():
            if tensors[name].shape != expected[name].shape:
                file, here = (list(x[name].shape) for x in (tensors, expected))
                raise ValueError(f"{name} is {file}, but {here} in this model with rank {config.r}")
        layers = [part for part in adapted.modules() if isinstance(part, LoraLayer)]
        if not all(math.isfinite(scale) for layer in layers for scale in layer.scaling.values()):
            raise ValueError("its lora_alpha is no number")
        with _quiet():
            result = set_peft_model_state_dict(adapted, tensors)
    except BROKEN as error:
        raise UserError(f"{folder}: its adapter does not fit the model ({first_line(error)}); {TRAIN}") from error
    account(folder / WEIGHTS, "adapter", [k for k in result.missing_keys if "lora_" in k], result.unexpected_keys)
    return adapted


def adapter_tensors(folder: str | Path) -> dict[str, Tensor]:
    """The tensors of a saved adapter by peft's names; UserError if they are not there, damaged or not finite."""
    folder = Path(folder)
    for name in (WEIGHTS, CONFIG):
        if not check_readable(folder / name).exists():
            raise UserError(f"{folder}: {name} is missing; {TRAIN}")
    try:
        tensors = load_file(folder / WEIGHTS)
    except BROKEN as error:
        raise UserError(f"{folder / WEIGHTS}: damaged ({first_line(error)}); {TRAIN}") from error
    check_finite(folder / WEIGHTS, tensors.items())
    return tensors


def check_finite(where: str | Path, tensors: Iterable[tuple[str, Tensor]]) -> None:
    """Raise UserError if a tensor holds nan or inf, or is not of floating point."""
    for name, tensor in tensors:
        if not tensor.is_floating_point():
            raise UserError(f"{where}: {name} is of type {tensor.dtype}, not of floating point; save it anew")
        if not torch.isfinite(tensor).all():
            raise UserError(f"{where}: {name} holds nan or inf; train it anew")


def account(where: Path, what: str, missing: Iterable[str], unexpected: Iterable[str]) -> None:
    """Raise UserError, in one line, if tensors of a file are missing or fit nowhere."""
    missing, unexpected = sorted(missing), sorted(unexpected)
    if missing or unexpected:
        kinds = {"tensors are missing": missing, "fit nowhere": unexpected}
        some = [f"{len(names)} {how} (such as {names[0]})" for how, names in kinds.items() if names]
        raise UserError(f"{where}: not the whole {what} of this model: {', '.join(some)}; use one made for this model")


def _check_files(folder: Path) -> None:
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        if path.suffix in (".json", ".safetensors"):
            check_readable(path)


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0][:200]


@contextmanager
def _quiet():
    """Without the libraries' reports on what does not fit: it is said in one line."""
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(before)
