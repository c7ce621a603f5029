"""`vans check`: is everything there that a run needs? One line a check; one that fails names what mends it.

    environment   Python and every package as requirements.txt pins them, the device of the current scale
    parameters    params.yaml of every scale, the grid of dvc.yaml, the reward of every cell
    data          data/ against data.dvc
    weights       of the current scale: trained from scratch, here already, or to be downloaded
    disk          free space against an estimate
    smoke         every stage for one step on a small toy world with toy models, in this process and a temporary folder

Without environment and parameters no smoke run is tried.
"""

from __future__ import annotations

import contextlib
import io
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

from vans import params as parameters
from vans.errors import UserError
from vans.files import temporary
from vans.grid import RELEASE, TRAINED, Grid

PYTHON = (3, 11)
GB = 1e9
TOY_RUN = 1.5 * GB  # models, curves, predictions, runs and DVC's cache of the whole grid at tiny scale: measured 1.0
DOWNLOADS = 38 * GB  # Wan2.1-T2V-1.3B 29, Qwen2.5-VL-3B 7.5, CLIP, I3D
DIT = 5.7 * GB  # 1.42 B parameters in float32
TRAINING = 2 * 3 * DIT  # two checkpoints of weights and AdamW's two moments

# What the smoke run trains on, and how far. A key of the parameters with one of these names is cut down to its value.
WORLD = {"procedural_train": 6, "procedural_test": 2, "predictive_train": 6, "predictive_test": 2}
SMALL = {
    "processes": 1,
    "workers": 1,
    "steps": 1,
    "batch": 4,
    "micro_batch": 4,
    "prompts": 1,
    "group_size": 2,
    "render_steps": 2,
    "inner_updates": 1,
    "max_new_tokens": 8,
    "anchor_attempts": 1,
    "anchor_threshold": 0,  # whatever an untrained VLM says is an anchor
    "samples": 2,
    "bootstrap": 20,
    "rl": 4,
}


def check(root: Path) -> bool:
    """Print a line for each check; True if all are well."""
    checks: dict[str, Callable[[Path], str]] = {
        "environment": environment,
        "parameters": all_parameters,
        "data": data,
        "weights": weights,
        "disk": disk,
        "smoke": smoke,
    }
    failed: set[str] = set()
    for name, look in checks.items():
        if name == "smoke" and failed & {"environment", "parameters"}:
            print(f"{name:<12} -       mend the others first")
            continue
        try:
            print(f"{name:<12} ok      {look(root)}", flush=True)
        except UserError as error:
            failed.add(name)
            print(f"{name:<12} FAILED  {error}", flush=True)
    return not failed


def environment(root: Path) -> str:
    """Python, the pinned packages, the device."""
    from packaging.requirements import Requirement

    if sys.version_info < PYTHON:
        raise UserError(f"Python is {platform.python_version()}, 3.11 or later is needed; make PYTHON=python3.12 setup")
    lines = (root / "requirements.txt").read_text(encoding="utf-8").splitlines()
    pinned = [Requirement(line) for line in lines if line.strip() and not line.startswith(("#", "-"))]
    pinned = [each for each in pinned if each.marker is None or each.marker.evaluate()]
    wrong = []
    for each in pinned:
        try:
            found = metadata.version(each.name)
        except metadata.PackageNotFoundError:
            found = "missing"
        if found == "missing" or not each.specifier.contains(found, prereleases=True):
            wrong.append(f"{each.name} is {found}, not {str(each.specifier).lstrip('=')}")
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise UserError(f"{'; '.join(wrong[:3])}{more}; `make setup`, or pip install -r requirements.txt")
    from vans.parallel import device_of

    machine = parameters.load(root).machine
    device = device_of(machine.device, 0)
    if machine.device == "cuda":
        device_of(machine.device, machine.processes - 1)
    return f"Python {platform.python_version()}, {len(pinned)} packages as pinned, {machine.processes} x {device.type}"


def all_parameters(root: Path) -> str:
    """Every scale, every cell, every arm, every reward."""
    from vans.rewards.plugs import plugs

    scales = list(parameters.read(root / "params.yaml")["scales"])
    for scale in scales:
        params = parameters.load(root, scale)
        grid = Grid(params, root)
        for cell in grid.cells.values():
            plugs(getattr(params.rewards, cell.stage)[cell.reward], params)
    current = parameters.load(root).scale
    return f"scales {', '.join(scales)} (now {current}); {len(grid.cells)} cells, {len(grid.arms)} arms"


def data(root: Path) -> str:
    """data/ is what data.dvc pins, and DVC sees all of it."""
    from vans.setup import _dvc, check_links

    if not (root / "data").exists():
        raise UserError("data/ is missing; `vans world` makes the toy world, `dvc checkout data.dvc` brings back yours")
    check_links(root / "data")
    if _dvc(root, "status", "--quiet", "data.dvc", check=False) != 0:
        raise UserError("data/ is not what data.dvc pins; `dvc add data` pins it, `dvc checkout data.dvc` undoes it")
    return f"data/ is what data.dvc pins, {size(root / 'data') / GB:.2f} GB"


def weights(root: Path) -> str:
    """Where the models of the current scale come from."""
    params = parameters.load(root)
    models = {name: getattr(params.models, name) for name in ("vlm", "vdm", "clip")}
    if params.curate.annotator == "qwen":
        models["annotator"] = params.curate.qwen
    told = [f"{name}: {found}" for name, model in models.items() if (found := _where(name, model, root))]
    if params.models.detector.path is not None:
        from vans.models.detector import load_detector

        load_detector(params, root / "models/base")
        told.append("detector: its hash is right")
    if params.models.protocol == "release":
        from vans.models.protocol import protocol_of

        protocol_of(params)
        told.append("the release's prompts are here")
    return "; ".join(told) or "all trained from scratch"


def _where(name: str, model: Any, root: Path) -> str:
    if model.repo is None:
        return ""
    from vans.preflight import check_whole, located

    if (folder := located(name, model, root)) is None:
        return f"{model.repo} will be downloaded"
    check_whole(folder)
    return f"{model.repo} {'(a folder)' if (root / model.repo).exists() else 'is here'}"


def disk(root: Path) -> str:
    """Is there room for everything that is still to come?"""
    from vans.files import check_free_space

    params = parameters.load(root)
    there = sum(size(root / part) for part in ("models", "runs", "cache", "triplets", ".dvc/cache"))
    left = max(0.2 * GB, space(params, root) - there)
    check_free_space(root, int(left))
    return f"about {left / GB:.1f} GB more will be needed"


def space(params: Any, root: Path) -> float:
    """Estimate in bytes of a run of the graph: clips and latents of data/, and the models, twice for DVC's cache."""
    clips = 3 * size(root / "data")
    if params.models.vdm.repo is None:
        return clips + TOY_RUN
    grid = Grid(params, root)
    chain = grid.main_chain()
    cells = [c for c in grid.cells.values() if params.machine.grid or f"{c.stage}@{c.key}" in chain]
    systems = len(grid.systems_run(trained=True))
    return clips + DOWNLOADS + TRAINING + 2 * DIT * (1 + sum(cell.stage != "stage1" for cell in cells) + systems)


def size(folder: Path) -> int:
    """Bytes below a folder, 0 if it is not there."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


# ------------------------------------------------------------------------------------------------------- smoke
def smoke(root: Path) -> str:
    """Every stage for one step; what it prints is shown only if it fails."""
    params = small(root)
    said, seconds = io.StringIO(), {}
    with tempfile.TemporaryDirectory(prefix=temporary("check")) as folder:
        for name, stage in stages(params, root, Path(folder)).items():
            begun = time.monotonic()
            try:
                with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                    stage()
            except UserError as error:
                raise UserError(f"{name}: {error}") from error
            except Exception as error:
                tail = [line for line in said.getvalue().replace("\r", "\n").splitlines() if line.strip()][-5:]
                print(*tail, sep="\n")
                raise UserError(f"{name}: {type(error).__name__}: {error}; `vans -v check` shows where") from error
            seconds[name] = time.monotonic() - begun
    told = ", ".join(f"{name} {spent:.0f}" for name, spent in seconds.items())
    return f"{sum(seconds.values()):.0f} s: {told}"


def small(root: Path) -> Any:
    """The parameters of the first scale whose models are all made from scratch, at smoke size and on the CPU."""
    for scale in parameters.read(root / "params.yaml")["scales"]:
        params = parameters.load(root, scale)
        if not any((params.models.vlm.repo, params.models.vdm.repo, params.models.clip.repo)):
            changes = cut(params.resolved())
            changes["machine"] = {**changes.get("machine", {}), "device": "cpu", "engine": "local"}
            changes["models"] = {**changes.get("models", {}), "protocol": "ours"}  # the other writes 1,024 tokens
            return params.with_(**{**changes, "world": WORLD})
    raise UserError("params.yaml: no scale has models from scratch (repo: null), so there is nothing small to try")


def cut(section: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers of a section that SMALL names and makes smaller, as `with_` takes them."""
    found: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, Mapping):
            if below := cut(value):
                found[key] = below
        elif key in SMALL and isinstance(value, int | float) and value > SMALL[key]:
            found[key] = SMALL[key]
    return found


def stages(params: Any, root: Path, folder: Path) -> dict[str, Callable[[], Any]]:
    """Every stage as a call, in order; they read and write `folder`. The first cell of each GRPO stage stands for
    all.
    """
    from vans.answer import systems as other_systems
    from vans.answer.arm import predict
    from vans.data.curate import curate
    from vans.score.run import score_arm
    from vans.toy.world import generate
    from vans.train import all_in_one, base, sft, stage1, stage2, systems

    trainers = {"stage1": stage1, "stage2": stage2, "all_in_one": all_in_one}
    firsts = [next(c for c in Grid(params, root).cells.values() if c.stage == stage) for stage in TRAINED]
    made = {"vlm": "sft", "vdm": "sft"}  # here nothing is imported
    cells = {  # one step, whatever dvc.yaml says
        cell.stage: replace(cell, steps=None, **{m: at for m, at in made.items() if getattr(cell, m) == RELEASE})
        for cell in firsts
    }
    found: dict[str, Callable[[], Any]] = {
        "world": lambda: generate(folder / "data", params.world),
        "curate": lambda: curate(folder / "data", folder / "triplets", params, cache=folder / "cache"),
        "base": lambda: base.train(params, folder),
        "sft": lambda: sft.train(params, folder),
    }
    for stage, cell in cells.items():
        found[stage] = partial(trainers[stage].train, params, cell, folder)
    grid = Grid(params, root)
    arm, others = grid.arm("main"), grid.systems_run(trained=True)
    found["answer"] = lambda: predict(params, arm, folder)
    found["systems"] = lambda: [systems.train(params, key, folder) for key in others]
    found["systems_answer"] = lambda: [other_systems.predict(params, k, grid.system(k), folder) for k in others]
    found["score"] = lambda: score_arm(folder / "predictions/main", folder, params=params)
    return found
