"""Ranks that torchrun or srun have started: the same job as on ranks of our own, and a run that goes on with another
number of them."""

import contextlib
import importlib
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests import smoke
from vans import files, outside
from vans.data.curate import curate
from vans.errors import UserError
from vans.grid import Grid
from vans.params import load
from vans.train import base, runs, sft, stage1
from vans.train.__main__ import train
from vans.train.runs import Run

# by its address: torchrun asks for the name of this machine, which not every container resolves, for minutes
TORCHRUN = ["-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1", "--nproc-per-node", "2", "-m"]


@pytest.fixture(scope="module")
def ready(tmp_path_factory) -> Path:
    """A repository with triplets, base models and SFT at smoke size."""
    root = smoke.clone(tmp_path_factory.mktemp("outside") / "clone")
    tree = yaml.safe_load((root / "params.yaml").read_text())
    tree["rewards"]["stage1"]["full"] = {"tests.reward_terms:by_length": 1.0}  # one that differs within a group
    tree["scales"]["tiny"]["stage1"] |= {"steps": 4, "prompts": 2, "warmup": 0, "micro_batch": 8}
    (root / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    params = load(root)
    curate(root / "data", root / "triplets", params)
    base.train(params, root)
    sft.train(params, root)
    return root


def run(root: Path, *command: str, **more: str) -> subprocess.CompletedProcess:
    env = {**smoke.environment(root), "OMP_NUM_THREADS": "1", **more}
    return subprocess.run([sys.executable, *command], cwd=root, env=env, capture_output=True, text=True, timeout=400)


def copied(root: Path, to: Path) -> Path:
    shutil.copytree(root, to, symlinks=True, ignore=shutil.ignore_patterns(".dvc", "runs"))
    return to


def weights(root: Path) -> dict[str, torch.Tensor]:
    return load_file(root / "models/stage1/full/vlm/adapter_model.safetensors")


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def test_a_place_is_told_by_torchrun_or_srun_or_nobody(monkeypatch):
    for name in (*outside.SLURM, *outside.SLURM.values(), "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert outside.place() is None
    for name, value in {"SLURM_PROCID": "3", "SLURM_NTASKS": "8", "SLURM_LOCALID": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="SLURM_NTASKS is 8, but MASTER_ADDR and MASTER_PORT are not set"):
        outside.place()
    monkeypatch.setenv("MASTER_ADDR", "node1")
    monkeypatch.setenv("MASTER_PORT", "29500")
    assert outside.place() == (3, 8, 1)
    for name, value in {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "0"}.items():
        monkeypatch.setenv(name, value)
    assert outside.place() == (1, 4, 0), "torchrun within SLURM: torchrun's"
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert outside.place() == (1, 1, 0), "a job of one process is one, too"


def alone(root: Path, monkeypatch, steps: int | None = None) -> None:
    """Stage 1 by this process, ended after some steps."""
    log = Run.log

    def stopping(self: Run, step: int, **values) -> None:
        log(self, step, **values)
        if step + 1 == steps:
            self.checkpoints.settle()
            raise KeyboardInterrupt

    monkeypatch.chdir(root)
    monkeypatch.setattr(Run, "log", stopping)
    params = load(root)
    with contextlib.suppress(KeyboardInterrupt):
        stage1.train(params, Grid(params, root).cell("stage1", "full"), root)
    runs._release(root / "runs/stage1/full")  # a process that is stopped ends, and its lock with it
    monkeypatch.setattr(Run, "log", log)


def test_torchrun_trains_as_one_process_does_and_either_goes_on_with_the_others_checkpoint(
    ready, tmp_path, monkeypatch, capsys
):
    """Two gloo ranks against one; then two steps by one number of ranks and the rest by the other."""
    one, two, first_one, first_two = (copied(ready, tmp_path / name) for name in ("1", "2", "12", "21"))
    stage = ["stage1", "--cell", "full"]
    alone(one, monkeypatch)
    told = run(two, *TORCHRUN, "vans.train", *stage)
    assert told.returncode == 0, told.stderr[-2000:]
    expected, start = weights(one), load_file(ready / "models/sft/vlm/adapter_model.safetensors")
    assert close(expected, start) > 1e-5, "it trained"
    assert close(weights(two), expected) < 1e-6

    alone(first_one, monkeypatch, steps=2)
    stopped = run(first_two, *TORCHRUN, "tests.stopping", "2", *stage)
    assert "stopped after step 1" in stopped.stdout, stopped.stderr[-2000:]
    for root in (first_one, first_two):
        assert max(p.name for p in (root / "runs/stage1/full").rglob("step-*") if p.is_dir()) == "step-0000002"
    told = run(first_one, *TORCHRUN, "vans.train", *stage)
    assert "goes on at step 2" in told.stdout, told.stderr[-2000:]
    assert "2 processes go on where 1 were: sums are added in another order" in told.stdout
    capsys.readouterr()
    alone(first_two, monkeypatch)
    said = capsys.readouterr().out
    assert "goes on at step 2" in said and "1 processes go on where 2 were" in said
    for root, took_part in ((first_one, [1, 2]), (first_two, [2, 1])):
        assert close(weights(root), expected) < 1e-5
        done = next((root / "runs/stage1/full").rglob("done"))
        assert json.loads((done / files.LISTED).read_text())["processes"] == took_part


def test_what_ranks_cannot_share_is_one_line(ready, tmp_path):
    root = copied(ready, tmp_path / "three")
    env = {"RANK": "0", "WORLD_SIZE": "3", "LOCAL_RANK": "0", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"}
    told = run(root, "-m", "vans.train", "stage1", **env)
    assert told.returncode == 1 and told.stderr.count("\n") == 1, told.stderr
    assert "3 processes: " in told.stderr and "multiple of machine.processes" in told.stderr
    assert "with_" not in told.stderr


@pytest.mark.parametrize("stage", ["base", "sft"])
def test_a_cell_of_a_stage_without_cells_is_refused(stage, monkeypatch):
    monkeypatch.setattr(importlib, "import_module", lambda name: pytest.fail("trained"))
    with pytest.raises(UserError, match=f"^--cell full: {stage} has no cells; leave it out$"):
        train(stage, "full")


def test_what_was_trained_without_a_notebook_is_not_trained_again(ready, tmp_path, monkeypatch, capsys):
    """The notebook calls the same function on the same run. Nothing of a stage's environment has to be there."""
    root = copied(ready, tmp_path / "found")
    told = run(root, "-m", "vans.train", "stage1", PYTHONHASHSEED="3", OMP_NUM_THREADS="2")
    assert told.returncode == 0 and "it/s" in told.stdout, told.stderr[-2000:]
    trained = weights(root)
    alone(root, monkeypatch)
    assert "it/s" not in capsys.readouterr().out and close(weights(root), trained) == 0.0


def test_the_file_for_slurm_has_ranks_that_share_the_papers_batches():
    text = (smoke.ROOT / "docs/stage.sbatch").read_text()
    nodes, gpus, each = (
        int(re.search(rf"--{what}[= ](\d+)", text)[1])  # type: ignore[index]
        for what in ("nodes", "gpus-per-node", "nproc-per-node")
    )
    assert gpus == each and load(smoke.ROOT, scale="paper").with_(machine={"processes": nodes * each})
