"""The method's released weights, in and out: `vans import` and `vans export`.

The release is two files of safetensors (its repository: KlingAIResearch/VANS, revision 4a931a8):

    checkpoints/vlm.safetensors   LoRA of Qwen2.5-VL (r 8, alpha 32), the vision tower's feed-forward layers included,
                                  in the names of an older transformers
    checkpoints/vdm.safetensors   the whole DiT in Wan's own names

Here they become what a stage writes: `vlm`, an adapter of peft's layout (its vision part is merged into the tower when
it is loaded, `vans.models.tower`), and `vdm/transformer`, a DiT of diffusers' layout in float32. `release.json` beside
each is the file's own header, to the byte: with it the way back gives the same names, order, precision and metadata, so
that what has not been trained comes back as the same file.

Every tensor of file and model is accounted for. Only safetensors are read. Of the base models only the configurations
are needed.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from diffusers import WanTransformer3DModel
from diffusers.loaders.single_file_utils import convert_wan_transformer_to_diffusers
from peft import LoraConfig, get_peft_model
from peft.utils import get_peft_model_state_dict
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

from vans import files
from vans.errors import UserError
from vans.models.load import load_dit
from vans.models.vlm import LORA_PATTERN
from vans.models.whole import BROKEN, CONFIG, WEIGHTS, account, adapter_tensors, check_finite, companion, first_line

FILES = {"vlm": "checkpoints/vlm.safetensors", "vdm": "checkpoints/vdm.safetensors"}
HEADER = "release.json"
RANK, ALPHA = 8, 32
PREFIXES = {
    "vlm": ("pipe.mllm.mllm_backbone.", "mllmagent.mllm_backbone.", "mllm_backbone.", ""),
    "vdm": ("pipe.dit.", "model.diffusion_model.", "dit.", ""),
}
RENAMED = {  # of the adapter: older transformers and peft -> now
    "base_model.model.model.layers.": "base_model.model.model.language_model.layers.",
    "base_model.model.visual.": "base_model.model.model.visual.",
}
DTYPES = {"F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
FIX = "check models.vlm and models.vdm in params.yaml, or run `dvc repro base`"


# ------------------------------------------------------------------------------------------------------- in
def bring(path: str | Path, out: str | Path, params: Any, base: Path) -> dict[str, Path]:
    """Import the release's two files from a folder (with checkpoints/, or that folder itself), or either file alone.

    Writes `out`/vlm, `out`/vdm/transformer or both, whole or not at all; returns {model: its folder}. base: the folder
    of the base models, where params.yaml names none of the hub. UserError in one line for a file that is missing, no
    safetensors, damaged, of another rank, size or model, or that holds nan, and for an `out` that holds anything else.
    """
    found, out = released(Path(path)), Path(out)
    _check_out(out, found)
    expected = {"vlm": lambda: adapter_shapes(params, base), "vdm": lambda: dit_shapes(params, base)}
    names = {}
    for kind, file in found.items():
        try:
            names[kind] = _accounted(file, kind, expected[kind]())
        except UserError as error:
            if getattr(params.models, kind).repo is not None:
                raise
            own = f"scale `{params.scale}` trains its own models, the published release is for `scale: paper`"
            raise UserError(f"{error} ({own} in params.yaml)") from error
    for kind, file in found.items():
        check_finite(file, _tensors(file, names[kind]))
    files.check_free_space(out, 2 * sum(file.stat().st_size for file in found.values()))
    write: dict[str, Callable] = {"vlm": _write_adapter, "vdm": _write_dit}
    with files.atomic_dir(out if len(found) == 2 else out / next(iter(found))) as partial:
        for kind, file in found.items():
            folder = partial / kind if len(found) == 2 else partial
            folder.mkdir(exist_ok=True)
            write[kind](folder, dict(_tensors(file, names[kind])), params, base)
            (folder / HEADER).write_bytes(_header(file))
            files.usual_permissions(folder)
    return {kind: out / kind for kind in found}


def released(path: Path) -> dict[str, Path]:
    """{model: its file}: both of a folder, or the one that is named, whichever it is by its tensors' names."""
    if path.is_dir():
        inside = path if not (path / "checkpoints").is_dir() else path / "checkpoints"
        found = {kind: inside / Path(name).name for kind, name in FILES.items()}
        for file in found.values():
            if not files.check_readable(file).exists():
                raise UserError(f"{file}: missing; get it, or name the other file alone")
        for kind, file in found.items():
            if (other := _kind(file)) != kind:
                raise UserError(f"{file}: holds what {found[other].name} should; get it anew")
        return found
    if not files.check_readable(path).exists():
        raise UserError(f"{path}: missing; name the folder with checkpoints/, or one of its two files")
    return {_kind(path): path}


def _kind(file: Path) -> str:
    return "vlm" if any("lora_" in key for key in _entries(file)) else "vdm"


def _check_out(out: Path, kinds: dict[str, Path]) -> None:
    """Nothing but an earlier import is replaced."""
    if out.exists() and not out.is_dir():
        raise UserError(f"{out}: is there and is no folder; choose another with --out")
    files.sweep(out)
    for there in out.iterdir() if out.is_dir() else ():
        if there.name not in FILES or not (there / HEADER).is_file():
            raise UserError(f"{there}: is there and was not imported; choose another folder with --out, or remove it")


def _header(file: Path) -> bytes:
    with open(file, "rb") as stream:
        return stream.read(int.from_bytes(stream.read(8), "little"))


def _entries(file: Path) -> dict[str, dict]:
    """{tensor: dtype, shape, data_offsets} of a safetensors file, in the order of its bytes."""
    if file.suffix != ".safetensors":
        raise UserError(f"{file}: only .safetensors are read, nothing is unpickled; get it in that form")
    try:
        with safe_open(file, "pt"):  # its checks: the header is whole, nothing overlaps, nothing is left over
            tree = json.loads(_header(file))
    except BROKEN as error:
        raise UserError(f"{file}: no safetensors, or damaged ({first_line(error)}); get it anew") from error
    return _of_header(tree)


def _of_header(tree: dict) -> dict[str, dict]:
    found = {name: entry for name, entry in tree.items() if name != "__metadata__"}
    return dict(sorted(found.items(), key=lambda pair: pair[1]["data_offsets"]))


def names_of(kind: str, keys: list[str]) -> dict[str, str]:
    """{a released file's name of a tensor: the name here}; a name that is none of a release's stays as it is."""
    prefix = next((p for p in PREFIXES[kind] if any(key.startswith(p) for key in keys)), "")
    rename = {"vlm": _adapter_name, "vdm": _dit_name}[kind]
    return {key: rename(key.removeprefix(prefix)) if key.startswith(prefix) else key for key in keys}


def _adapter_name(name: str) -> str:
    for old, new in RENAMED.items():
        if name.startswith(old):
            return new + name.removeprefix(old).replace(".default.weight", ".weight")
    return f"{name} (no name of the release)"  # also one of today's peft: then nothing is known of where it comes from


def _dit_name(name: str) -> str:
    try:
        (found,) = convert_wan_transformer_to_diffusers({name: None})  # diffusers' own table of names
    except BROKEN:  # of another model of Wan's family, whose tensors it would cut
        return name
    return found


def _accounted(file: Path, kind: str, expected: dict[str, list[int]]) -> dict[str, str]:
    """{name here: name in the file}; UserError unless the file has every tensor of the model, in its size, and no
    other.
    """
    entries = _entries(file)
    what = {"vlm": "adapter", "vdm": "DiT"}[kind]
    names: dict[str, str] = {}
    for key, name in names_of(kind, list(entries)).items():
        if entries[key]["dtype"] not in DTYPES:
            raise UserError(f"{file}: {key} is of type {entries[key]['dtype']}; use {', '.join(DTYPES)}")
        if name in names:
            raise UserError(f"{file}: {names[name]} and {key} are the same tensor; get the file anew")
        names[name] = key
    account(file, what, expected.keys() - names.keys(), [names[name] for name in names.keys() - expected.keys()])
    for name, shape in expected.items():
        if (own := entries[names[name]]["shape"]) != shape:
            rank = f" with rank {RANK}" if kind == "vlm" else ""
            raise UserError(f"{file}: {names[name]} is {own}, but {shape} in this model{rank}; use one made for it")
    return names


def _tensors(file: Path, names: dict[str, str]) -> Iterator[tuple[str, Tensor]]:
    with safe_open(file, "pt") as opened:
        for name, key in names.items():
            yield name, opened.get_tensor(key)


# ------------------------------------------------------------------------------------- what the models expect
def _lora(params: Any) -> LoraConfig:
    return LoraConfig(
        r=RANK,
        lora_alpha=ALPHA,
        lora_dropout=0.0,
        target_modules=LORA_PATTERN,
        task_type="CAUSAL_LM",
        base_model_name_or_path=params.models.vlm.repo,
        inference_mode=True,
    )


def adapter_shapes(params: Any, base: Path) -> dict[str, list[int]]:
    """Names and sizes of the adapter's tensors, as peft has them for the VLM of these parameters."""
    model = params.models.vlm
    config = companion(Qwen2_5_VLConfig, model.repo or base / "vlm", "VLM config", FIX, revision=model.revision)
    with torch.device("meta"):
        adapted = get_peft_model(Qwen2_5_VLForConditionalGeneration(config), _lora(params))
    return {name: list(tensor.shape) for name, tensor in get_peft_model_state_dict(adapted).items()}


def _dit(params: Any, base: Path) -> WanTransformer3DModel:
    """The DiT of these parameters, without weights."""
    model = params.models.vdm
    source = model.repo or base / "vdm"
    try:
        config = WanTransformer3DModel.load_config(str(source), subfolder="transformer", revision=model.revision)
        with torch.device("meta"):
            return WanTransformer3DModel.from_config(config)
    except BROKEN as error:
        raise UserError(f"{source}/transformer: no DiT config here ({first_line(error)}); {FIX}") from error


def dit_shapes(params: Any, base: Path) -> dict[str, list[int]]:
    """Names and sizes of the DiT's tensors, as diffusers has them for the VDM of these parameters."""
    return {name: list(tensor.shape) for name, tensor in _dit(params, base).state_dict().items()}


def _write_adapter(folder: Path, tensors: dict[str, Tensor], params: Any, base: Path) -> None:
    save_file(tensors, folder / WEIGHTS, metadata={"format": "pt"})
    _lora(params).save_pretrained(str(folder))


def _write_dit(folder: Path, tensors: dict[str, Tensor], params: Any, base: Path) -> None:
    dit = _dit(params, base)
    dit.load_state_dict({name: tensor.float() for name, tensor in tensors.items()}, strict=True, assign=True)
    dit.save_pretrained(folder / "transformer")


# ------------------------------------------------------------------------------------------------------ out
def send(path: str | Path, imported: Path, tuned: dict[str, Path | None]) -> dict[str, Path]:
    """Export to `path`/checkpoints: the release's files, with the weights of an import or of runs that started from it.

    imported: the folder of the import, whose `release.json` say how the files are built. tuned: for "vlm" and "vdm" the
    folder whose weights go out, None: the import's own (left out where only the other was imported). Tensors are
    rounded to the precision that they have in the release. Both files are written, or neither. Returns {model: its
    file}; UserError in one line where something does not fit, and for a file that is there.
    """
    headers = {kind: imported / kind / HEADER for kind in FILES}
    asked = {kind for kind, folder in tuned.items() if folder is not None}
    kinds = [kind for kind in FILES if kind in asked or headers[kind].is_file()]
    for kind in kinds or FILES:
        if not headers[kind].is_file():
            raise UserError(f"{headers[kind]}: missing, so nothing says how the file is built; `vans import` it first")
    written = {kind: Path(path) / FILES[kind] for kind in kinds}
    with ExitStack() as both:  # or neither
        for kind, file in written.items():
            folder = tuned[kind] or imported / kind
            files.check_output(file, reads=[imported, folder])
            if file.exists():
                raise UserError(f"{file}: is there; choose another folder, or remove it")
            _write_file(both.enter_context(files.atomic_file(file)), headers[kind], kind, folder)
    return written


def _trained(kind: str, folder: Path) -> dict[str, Tensor]:
    if kind == "vdm":
        return load_dit(folder).state_dict()
    tensors = adapter_tensors(folder)
    try:
        config: Any = LoraConfig.from_pretrained(str(folder))
        found = config.r, config.lora_alpha
    except BROKEN as error:
        raise UserError(f"{folder / CONFIG}: cannot be read ({first_line(error)})") from error
    if found != (RANK, ALPHA):
        raise UserError(f"{folder / CONFIG}: r and lora_alpha are {found}; a release's are {RANK} and {ALPHA}")
    return tensors


def _write_file(file: Path, header: Path, kind: str, folder: Path) -> None:
    """The weights of a folder as a safetensors file with a given header, to the byte."""
    raw, tensors = header.read_bytes(), _trained(kind, folder)
    try:
        entries = _of_header(json.loads(raw))
        names = names_of(kind, list(entries))
        size = 8 + len(raw) + max(entry["data_offsets"][1] for entry in entries.values())
        parts = [(names[key], DTYPES[entry["dtype"]], entry["shape"]) for key, entry in entries.items()]
    except BROKEN as error:
        raise UserError(f"{header}: damaged ({first_line(error)}); `vans import` the release anew") from error
    what = {"vlm": "adapter of the release (its vision part included)", "vdm": "DiT of the release"}[kind]
    account(folder, what, set(names.values()) - tensors.keys(), tensors.keys() - set(names.values()))
    files.check_free_space(file.parent, size)
    with open(file, "wb") as stream:
        stream.write(len(raw).to_bytes(8, "little") + raw)
        for name, dtype, shape in parts:
            if list(tensors[name].shape) != shape:
                raise UserError(f"{folder}: {name} is {list(tensors[name].shape)}, but {shape} in the release")
            stream.write(tensors[name].to(dtype).contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
