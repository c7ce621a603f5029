"""Before a stage begins: is what it needs there? Headers, sizes and numbers alone; no weights are loaded or hashed.

    preflight(params, root, "stage1", ["models/base/vlm", "models/sft/vlm"])     # UserError if something is not
    look(params, root)                                                          # `vans preflight`: of all stages

One line a problem, with the key or the file and what mends it. What a stage could still do without is only said: a
GPU that the plan takes for too small, FVD's network.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vans.devices import device_of, no_cuda
from vans.errors import UserError
from vans.outside import current

BASE = "models/base/"
PLANNED = {"sft": ("sft/vlm", "sft/vdm")}  # of the plan's stages; others are called so there, too
MADE = "run the stage that makes it (`dvc repro` does)"


@dataclass(frozen=True)
class Problem:
    """what: the line. stops: can the stage not be run so?"""

    what: str
    stops: bool = True


def preflight(params: Any, root: Path, stage: str, models: Iterable[str] = ()) -> None:
    """Say what is wrong, and raise UserError if the stage cannot run so. models: folders below root that it reads."""
    found = [
        *weights(params, root, models),
        *machine(params, stage),
        *detector(params, root, stage),
        *disk(params, root, stage),
    ]
    stopping = [problem.what for problem in found if problem.stops]
    for problem in found:
        if not problem.stops or len(stopping) > 1:
            print(f"{stage}: {problem.what}", flush=True)
    if stopping:
        more = f" (and {len(stopping) - 1} more, above)" if len(stopping) > 1 else ""
        raise UserError(stopping[0] + more)


def look(params: Any, root: Path) -> bool:
    """Print what is wrong for each stage of the scale; what no stage has made yet is not. True if nothing is."""
    every = [f"{BASE}{name}" for name in ("vlm", "vdm", "clip") if getattr(params.models, name).repo]
    every += [str(path.parent.relative_to(root)) for path in sorted((root / "models").rglob("*.safetensors"))]
    said: dict[str, list[str]] = {}
    for stage in ("base", "sft", "stage1", "stage2", "all_in_one", "answer", "score"):
        problems = [*machine(params, stage), *detector(params, root, stage), *disk(params, root, stage)]
        for problem in problems if stage != "base" else [*weights(params, root, dict.fromkeys(every)), *problems]:
            said.setdefault(problem.what, []).append(stage)
    for problem in whole_run(params, root):
        said[problem.what] = ["a whole run"]
    for what, stages in said.items():
        print(f"{', '.join(stages) if len(stages) < 7 else 'all stages'}: {what}")
    if not said:
        print("nothing is wrong: weights that are here, disk, device and memory of every stage")
    return not said


# ------------------------------------------------------------------------------------------------------- weights
def weights(params: Any, root: Path, models: Iterable[str]) -> Iterator[Problem]:
    """Folders whose weights are not there or not whole. models/base/NAME stands for the repository, if one is named."""
    for name in models:
        folder: Path | None = root / name
        model = getattr(params.models, name.removeprefix(BASE), None) if name.startswith(BASE) else None
        try:
            if model is not None and getattr(model, "repo", None):
                if (folder := located(name.removeprefix(BASE), model, root)) is None:
                    continue  # it will be downloaded
            assert folder is not None
            if not any(folder.rglob("*.safetensors")):
                raise UserError(f"{name}: no weights here; {MADE}")
            check_whole(folder)
        except UserError as error:
            yield Problem(str(error))


def located(name: str, model: Any, root: Path) -> Path | None:
    """The folder of a model's weights, None where they are still to be downloaded; UserError where they cannot be."""
    if (root / model.repo).exists() or model.repo.startswith((".", "/", "~")):
        folder = (root / model.repo).expanduser()
        if not any(folder.rglob("*.safetensors")):
            raise UserError(f"models.{name}.repo: {model.repo}: no folder with safetensors; correct it in params.yaml")
        return folder
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    cache = os.environ.get("HF_HUB_CACHE")  # as it is now, whenever the hub's library was imported
    try:
        folder = Path(snapshot_download(model.repo, revision=model.revision, local_files_only=True, cache_dir=cache))
        if any(folder.rglob("*.safetensors")):  # not only its configuration
            return folder
    except HFValidationError as error:
        raise UserError(f"models.{name}.repo: {error}; correct it in params.yaml") from error
    except LocalEntryNotFoundError:
        pass
    if os.environ.get("HF_HUB_OFFLINE", "0") not in ("", "0"):
        raise UserError(f"models.{name}: {model.repo} is not here and HF_HUB_OFFLINE is set; unset it")
    return None


def check_whole(folder: Path) -> None:
    """UserError for a safetensors file below a folder that is longer or shorter than its header says, and for one that
    an index names and that is not there."""
    for index in sorted(folder.rglob("*.safetensors.index.json")):
        try:
            parts = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise UserError(f"{index}: not an index of weights; get the model's folder anew") from error
        if missing := sorted(part for part in parts if not (index.parent / part).exists()):
            raise UserError(f"{index.parent / missing[0]}: missing, {index.name} names it; get the model's folder anew")
    for path in sorted(folder.rglob("*.safetensors")):
        try:
            size = path.stat().st_size
            with path.open("rb") as file:
                length = int.from_bytes(file.read(8), "little")
                header = json.loads(file.read(length)) if 0 < length <= size - 8 else {}
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
        except (OSError, ValueError, LookupError, AttributeError, TypeError) as error:
            raise UserError(f"{path}: not whole ({error}); get it, or train it, anew") from error
        if size != 8 + length + max(ends, default=0):
            raise UserError(f"{path}: not whole: {size:,} bytes, its header says otherwise; get it, or train it, anew")


# -------------------------------------------------------------------------------------------------------- device
def machine(params: Any, stage: str) -> Iterator[Problem]:
    """The driver, as many GPUs as processes, and their memory against the plan."""
    m = params.machine
    why = "" if m.device == "cpu" else no_cuda()
    if m.device == "auto" and "too old" in why:
        yield Problem(f"machine.device is auto and the CPU is taken: {why}", stops=False)
    if m.device == "cpu" or (m.device == "auto" and why):
        return
    one = m.device == "auto" or current() is not None  # ranks that somebody else started have their GPU each
    try:
        device_of(m.device, 0 if one else m.processes - 1)
    except UserError as error:
        yield Problem(str(error))
        return
    if stage in ("base", "score"):
        return
    import torch

    from vans.plan.gpus import GPU
    from vans.plan.memory import remedy
    from vans.plan.work import Models

    free, total = torch.cuda.mem_get_info(0)
    gpu = GPU(torch.cuda.get_device_name(0), total // 10**9, 0.0, 0.0, ())
    models = Models(params)
    for planned in PLANNED.get(stage, (stage,)):
        found, change = remedy(models, planned, m.processes, gpu)
        if change:
            told = f"about {found.total / 1e9:.0f} GB are needed by plan, the GPU has {gpu.memory}"
            yield Problem(f"{planned}: {told}; it would fit with {change} (`vans plan`)", stops=False)
        elif found.total > free:
            told = f"about {found.total / 1e9:.0f} GB are needed by plan and {free / 1e9:.0f} of {gpu.memory} are free"
            yield Problem(f"{planned}: {told}; end what else uses the GPU (nvidia-smi)", stops=False)


def detector(params: Any, root: Path, stage: str) -> Iterator[Problem]:
    """FVD's network, if it is a file: is that there, and its hash known? Only the scores need it."""
    told = params.models.detector
    if told.path is None:
        return
    scores = stage == "score"
    path = Path(told.path)
    if not (root / path).exists():
        yield Problem(f"models.detector.path: {path} is missing, and FVD needs it; put it there", stops=scores)
    elif told.sha256 is None:
        fix = f"write there what `sha256sum {path}` says (it makes no training stale)"
        yield Problem(f"models.detector.sha256: null, and nothing unknown is loaded for FVD; {fix}", stops=scores)


# ---------------------------------------------------------------------------------------------------------- disk
def whole_run(params: Any, root: Path) -> Iterator[Problem]:
    """Room for all that a run at the paper's scale leaves, by plan, less what of it is there."""
    if not params.models.vdm.repo:
        return
    from vans.grid import Grid
    from vans.plan.report import TRIPLETS, counted, sizes
    from vans.plan.work import Models

    count = counted(root) or TRIPLETS
    needed = sum(size for _, size, _ in sizes(Models(params), Grid(params, root), count))
    free = shutil.disk_usage(root).free
    there = sum(_size(root / name) for name in ("triplets", "cache", "models", "predictions", ".dvc/cache"))
    if free + there < needed:
        told = f"about {needed / 1e9:.0f} GB by plan for {count:,} triplets (`vans plan`)"
        yield Problem(f"{told}, {free / 1e9:.0f} are free; use a larger disk", stops=False)


def disk(params: Any, root: Path, stage: str) -> Iterator[Problem]:
    """Room for the latents that are not there yet, for three checkpoints and for the result."""
    if stage not in ("sft", "stage1", "stage2", "all_in_one"):
        return
    from vans.plan.report import counted, latent_bytes

    clips = 2 * counted(root) if stage == "sft" else min(params.curate.rl, counted(root))
    latents = clips * latent_bytes(params)
    latents = max(0, latents - _size(root / "cache/latents"))
    folder = root / BASE / "vdm"
    if params.models.vdm.repo:
        try:
            folder = located("vdm", params.models.vdm, root) or folder
        except UserError:
            return  # said by `weights`
    dit = _size(folder / "transformer")
    states = 0 if stage == "stage1" else (9 + 1) * dit  # of each checkpoint weights and two moments, and the result
    if (free := shutil.disk_usage(root).free) < latents + states:
        told = (
            f"{latents / 1e9:.1f} GB of latents (cache/), {states / 1e9:.1f} GB of checkpoints and models are to come"
        )
        yield Problem(
            f"{root}: {told}, {free / 1e9:.1f} GB are free; free some, or put cache/ and runs/ on another disk"
        )


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) if folder.exists() else 0
