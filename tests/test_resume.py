"""A training that is killed without warning and started again ends in the same bytes as one that was not."""

import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests import smoke

STEPS = 6
DIT = "vdm/transformer/diffusion_pytorch_model.safetensors"
CALLS = {
    "base": "base.train(root, out, curves)",
    "sft": "sft.train(root, out, curves)",
    "stage1": "stage1.train(root, out, curves, 'full', 'models/sft', 'models/sft')",
    "stage2": "stage2.train(root, out, curves, 'full', 'models/stage1/full', 'models/sft')",
    "all_in_one": "all_in_one.train(root, out, curves, 'models/sft', 'models/sft')",
}
OUTS = {"stage1": "stage1/full", "stage2": "stage2/main"}
KILLED_IN = {"base": "base/clip", "sft": "sft/vdm"}  # a later part: what was finished before it is kept
PROCESSES = {"sft": 2}
# Untrained models earn nothing and would learn nothing: the script puts rewards in that differ within a group.
SCRIPT = """
from pathlib import Path
import torch
from vans.grpo import rewards
from vans.train import {stage}
from vans.train.save import drop_kept


def score(rollout, names):
    value = torch.tensor([[float(len(t)) for t in group] for group in rollout.texts]) if rollout.texts else 0.0
    if rollout.frames is not None:
        value = value + rollout.frames.flatten(2).sum(-1)
    return {{name: value / (1 + i) for i, name in enumerate(names)}}


rewards.score = score
root = Path.cwd()
out, curves = root / "models/{out}", root / "curves/{out}"
{call}
drop_kept(root, *"{out}".split("/"))
"""
STARTS = {
    "stage1": ("models/stage1/full/vlm/adapter_model.safetensors", "models/sft/vlm/adapter_model.safetensors"),
    "stage2": (f"models/stage2/main/{DIT}", f"models/sft/{DIT}"),
    "all_in_one": (f"models/all_in_one/{DIT}", f"models/sft/{DIT}"),
}


def _command(stage: str) -> list[str]:
    script = SCRIPT.format(stage=stage, out=OUTS.get(stage, stage), call=CALLS[stage])
    return [sys.executable, "-c", script]


def _set(root: Path, stage: str) -> None:
    """Parameters for a stage: steps enough to be killed between, a checkpoint every second so that some work is
    lost, one process or two."""
    tree = yaml.safe_load((root / "params.yaml").read_text())
    tree["scales"]["tiny"]["machine"]["processes"] = PROCESSES.get(stage, 1)
    tree["scales"]["tiny"]["stage2"]["anchor_threshold"] = 0.0
    _deepen(tree["scales"]["tiny"])
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))


def _deepen(tree: dict) -> None:
    for key, value in tree.items():
        if isinstance(value, dict) and key != "generate":
            _deepen(value)
        elif key == "steps":
            tree[key] = STEPS
        elif key == "checkpoint_every":
            tree[key] = 2


def _bytes(root: Path, stage: str) -> dict[str, bytes]:
    out = OUTS.get(stage, stage)
    files = [p for folder in ("models", "curves") for p in (root / folder / out).rglob("*") if p.is_file()]
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone at smoke size in which every stage was trained without interruption."""
    root = smoke.clone(tmp_path_factory.mktemp("resume") / "clone")
    curate = "from vans.data.curate import curate; from vans.params import load; curate('data', 'triplets', load())"
    smoke.run(sys.executable, "-c", curate, cwd=root)
    for stage in CALLS:
        _set(root, stage)
        smoke.run(*_command(stage), cwd=root)
    return root


def _kill_after_a_checkpoint(root: Path, stage: str) -> None:
    """Start a training and kill -9 its main process as soon as a checkpoint is there; workers must die too."""
    env = smoke.environment(root)
    with open(root / "killed.log", "wb") as log:
        process = subprocess.Popen(_command(stage), cwd=root, env=env, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 300
            folder = root / "runs" / KILLED_IN.get(stage, OUTS.get(stage, stage))
            while not any(folder.glob("step-*/run.json")):
                assert process.poll() is None, (root / "killed.log").read_text()[-2000:]
                assert time.monotonic() < deadline, "no checkpoint in time"
                time.sleep(0.002)
        finally:
            process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("stage", STARTS)
def test_what_is_resumed_has_moved(trained, stage):
    result, start = ((trained / name).read_bytes() for name in STARTS[stage])
    assert result != start, "a training that changes nothing could be resumed by doing nothing"


@pytest.mark.parametrize("stage", CALLS)
def test_killed_and_started_again(trained, tmp_path, stage):
    whole = _bytes(trained, stage)
    assert whole, "nothing was trained"
    out = OUTS.get(stage, stage)
    root = tmp_path / "clone"
    shutil.copytree(trained, root, symlinks=True, ignore=shutil.ignore_patterns(".dvc", ".git"))
    shutil.rmtree(root / "models" / out)
    shutil.rmtree(root / "curves" / out)
    _set(root, stage)
    _kill_after_a_checkpoint(root, stage)
    assert not (root / "models" / out).exists() and not (root / "curves" / out).exists(), "half-written"
    said = smoke.run(*_command(stage), cwd=root)
    assert "goes on at step" in said
    assert _bytes(root, stage) == whole
    left = [path for path in (root / "runs").rglob("*") if path.is_file()]
    assert not left, "checkpoints are removed when the result is whole"
    assert not [path for path in (root / "models").rglob("*") if ".partial-" in path.name]


def test_a_checkpoint_of_other_settings_is_not_taken_up(trained, tmp_path):
    root = tmp_path / "clone"
    shutil.copytree(trained, root, ignore=shutil.ignore_patterns(".dvc", ".git"))
    shutil.rmtree(root / "models/stage1")
    _set(root, "stage1")
    _kill_after_a_checkpoint(root, "stage1")
    path = root / "params.yaml"
    path.write_text(path.read_text().replace("\nseed: 0 ", "\nseed: 1 ", 1))
    said = smoke.run(*_command("stage1"), cwd=root)
    assert "goes on at step" not in said and "discarded" in said
    assert _bytes(root, "stage1") != _bytes(trained, "stage1")
