"""A training that is killed without warning and started again ends in the same bytes as one that was not.

Forks of a process that has imported the libraries, but for one stage, whose processes start Python anew.
"""

import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests import smoke
from vans import warm_server

OUTS = {"base": "base", "sft": "sft", "stage1": "stage1/full", "stage2": "stage2/main", "all_in_one": "all_in_one/full"}
ANEW = "sft"  # two processes
KILLED_IN = {"base": "base/clip", "sft": "sft/vdm"}  # a later part: what was finished before it is kept
# Steps enough to be killed between, a checkpoint every second so that some work is lost, one process or two. Untrained
# models earn nothing and would learn nothing: the reward is one that differs within a group.
SCRIPT = """
import sys
from pathlib import Path
from vans.data.curate import curate
from vans.grid import Cell
from vans.params import load
from vans.train import all_in_one, base, sft, stage1, stage2
from vans.train.runs import forget

root = Path.cwd()
preset = {"by_pixels": {"tests.reward_terms:by_pixels": 1.0}}
six = {"steps": 6}
params = load(root).with_(
    seed=int(sys.argv[1]),
    rewards=dict.fromkeys(("stage1", "stage2", "all_in_one"), preset),
    keep={"checkpoints": dict.fromkeys(("base", "sft", "stage1", "stage2"), 2)},
    base=dict.fromkeys(base.PARTS, six),
    sft={"vlm": six, "vdm": six},
    stage1=six,
    stage2=six,
    all_in_one=six,
)
cells = {
    "stage1": Cell("stage1", "full", "sft", "sft", "by_pixels"),
    "stage2": Cell("stage2", "main", "stage1/full", "sft", "by_pixels"),
    "all_in_one": Cell("all_in_one", "full", "sft", "sft", "by_pixels"),
}
for stage in sys.argv[2:]:
    if stage == "curate":
        curate(root / "data", root / "triplets", params)
    elif stage == "base":
        base.train(params, root)
    elif stage == "sft":
        sft.train(params.with_(machine={"processes": 2}), root)
    else:
        {"stage1": stage1, "stage2": stage2, "all_in_one": all_in_one}[stage].train(params, cells[stage], root)
    if stage != "curate":
        forget(root, cells[stage].name if stage in cells else stage)
"""
DIT = "vdm/transformer/diffusion_pytorch_model.safetensors"
STARTS = {
    "stage1": ("models/stage1/full/vlm/adapter_model.safetensors", "models/sft/vlm/adapter_model.safetensors"),
    "stage2": (f"models/stage2/main/{DIT}", f"models/sft/{DIT}"),
    "all_in_one": (f"models/all_in_one/full/{DIT}", f"models/sft/{DIT}"),
}


def _start(root: Path, *stages: str, seed: int = 0) -> Any:
    (root / "resumed.py").write_text(SCRIPT)
    command, env = [sys.executable, "-m", "resumed", str(seed), *stages], smoke.environment(root)
    with open(root / "said.log", "wb") as log:
        options: dict[str, Any] = {"cwd": str(root), "env": env, "stdout": log, "stderr": log}
        if stages == (ANEW,):
            return subprocess.Popen(command, **options)
        process = warm_server.popen(command, **options)
    assert process is not None
    return process


def _run(root: Path, *stages: str, seed: int = 0) -> str:
    code = _start(root, *stages, seed=seed).wait()
    said = (root / "said.log").read_text()
    assert code == 0, said[-4000:]
    return said


def _bytes(root: Path, stage: str) -> dict[str, bytes]:
    files = [p for folder in ("models", "curves") for p in (root / folder / OUTS[stage]).rglob("*") if p.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A clone at smoke size in which every stage was trained without interruption."""
    root = smoke.clone(tmp_path_factory.mktemp("resume") / "clone")
    with warm_server.running(smoke.environment(root)):
        _run(root, "curate", *OUTS)
        yield root


def _untrained(trained: Path, root: Path, stage: str) -> Path:
    """A copy in which one stage is still to do."""
    shutil.copytree(trained, root, symlinks=True, ignore=shutil.ignore_patterns(".dvc", ".git"))
    for folder in ("models", "curves"):
        shutil.rmtree(root / folder / OUTS[stage])
    return root


def _kill_after_a_checkpoint(root: Path, stage: str) -> None:
    """Start a training and kill -9 its main process as soon as a checkpoint is there; workers must die too."""
    process = _start(root, stage)
    try:
        deadline = time.monotonic() + 300
        folder = root / "runs" / KILLED_IN.get(stage, OUTS[stage])
        while not any(folder.glob("*/step-*/run.json")):
            assert process.poll() is None, (root / "said.log").read_text()[-2000:]
            assert time.monotonic() < deadline, "no checkpoint in time"
            time.sleep(0.002)
    finally:
        process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("stage", STARTS)
def test_what_is_resumed_has_moved(trained, stage):
    result, start = ((trained / name).read_bytes() for name in STARTS[stage])
    assert result != start, "a training that changes nothing could be resumed by doing nothing"


@pytest.mark.parametrize("stage", OUTS)
def test_killed_and_started_again(trained, tmp_path, stage):
    whole = _bytes(trained, stage)
    assert whole, "nothing was trained"
    root = _untrained(trained, tmp_path / "clone", stage)
    _kill_after_a_checkpoint(root, stage)
    assert not _bytes(root, stage), "half-written"
    said = _run(root, stage)
    assert "goes on at step" in said
    assert _bytes(root, stage) == whole
    left = [path for path in (root / "runs").rglob("*") if path.is_file()]
    assert not left, "checkpoints are removed when the result is whole"
    assert not [path for path in (root / "models").rglob("*") if ".partial-" in path.name]


def test_a_run_of_other_settings_is_kept_and_taken_up_when_they_go_back(trained, tmp_path):
    root = _untrained(trained, tmp_path / "clone", "stage1")
    _kill_after_a_checkpoint(root, "stage1")
    said = _run(root, "stage1", seed=1)
    assert "goes on at step" not in said and "(seed) is kept as aside-" in said
    assert _bytes(root, "stage1") != _bytes(trained, "stage1")
    said = _run(root, "stage1")
    assert "is taken up again" in said and "goes on at step" in said
    assert _bytes(root, "stage1") == _bytes(trained, "stage1")
