"""Runs: kept by their settings, set aside when these change, found again, whole or not taken."""

import json
import os
import select
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors import SafetensorError

from tests import smoke
from vans import files
from vans.errors import UserError
from vans.grid import Cell
from vans.parallel import Ranks, processes
from vans.params import load
from vans.train import all_in_one, base, checkpoints, runs, stage1, stage2
from vans.train.loop import columns, write_curves
from vans.train.runs import Run, forget
from vans.train.settings import settings_of

ALONE = Ranks(0, 1, torch.device("cpu"))
SETTINGS = {"seed": 0, "stage1": {"lr": 1e-4, "steps": 4}}


def train(root, settings=SETTINGS, steps=4, stop=None, out=None):
    """A little training; `stop`: leaves after that many steps, as if killed. Returns the run and its weights."""
    run = Run(root, "stage1/full", settings, ALONE, every=1)
    torch.manual_seed(0)
    model = torch.nn.Linear(3, 1)
    optim = torch.optim.AdamW(model.parameters(), lr=0.1)
    if run.done:
        return run, run.take(out)
    run.attach({"m": model}, {"m": optim})
    for step in run.steps(steps):
        if step == stop:
            run.checkpoints.settle()
            return run, model.weight.detach().clone()
        optim.zero_grad()
        (model(torch.full((1, 3), step + 1.0)) ** 2).sum().backward()
        optim.step()
        run.keep_group(step, {"id": "a"}, torch.zeros(2, 1, 4, 4, 3, dtype=torch.uint8))
        run.log(step, loss=1.0)
    if out is not None:
        run.finish(out, lambda folder: files.atomic_write_text(folder / "w.json", str(model.weight.tolist())))
    return run, model.weight.detach().clone()


def test_a_run_goes_on_where_it_was_and_ends_in_the_same_bytes(tmp_path):
    _, whole = train(tmp_path / "a")
    train(tmp_path / "b", stop=2)
    run, resumed = train(tmp_path / "b")
    assert torch.equal(resumed, whole) and [row["step"] for row in run.history] == [0, 1, 2, 3]


def test_an_element_that_is_nan_is_none(tmp_path):
    run = Run(tmp_path, "stage1/full", SETTINGS, ALONE, every=1000)
    run.log(0, reward=torch.tensor([1.0, float("nan")]), t1=torch.tensor([float("nan")]), equal=torch.tensor([True]))
    assert run.history == [{"step": 0, "reward": 1.0, "equal": 1.0}]


def test_a_run_of_other_settings_is_set_aside_and_found_again(tmp_path, capsys):
    _, whole = train(tmp_path / "whole")
    train(tmp_path, stop=3)
    changed = {**SETTINGS, "stage1": {"lr": 2e-4, "steps": 4}}
    run, _ = train(tmp_path, changed, stop=1)
    assert run.position == 1, "it began anew"
    said = capsys.readouterr().out
    aside = next((tmp_path / "runs/stage1/full").glob("aside-*-stage1.lr-*"))
    assert f"(stage1.lr) is kept as {aside.name}" in said
    run, resumed = train(tmp_path)
    assert "taken up again" in capsys.readouterr().out and not aside.exists()
    assert torch.equal(resumed, whole), "it went on from step 3"
    assert len(list((tmp_path / "runs/stage1/full").glob("aside-*"))) == 1, "now the other one is aside"


def test_a_run_without_a_checkpoint_leaves_nothing_behind(tmp_path):
    train(tmp_path, stop=0)
    train(tmp_path, {**SETTINGS, "seed": 1}, stop=0)
    assert len(list((tmp_path / "runs/stage1/full").iterdir())) == 1


def test_a_finished_run_is_taken_until_the_stage_is_over(tmp_path):
    run, _ = train(tmp_path, out=tmp_path / "out")
    assert (tmp_path / "out/w.json").exists() and len(list((tmp_path / "out/groups").glob("*.json"))) == 4
    _, history = train(tmp_path, out=tmp_path / "again")
    assert [row["step"] for row in history] == [0, 1, 2, 3]
    assert (tmp_path / "again/w.json").read_bytes() == (tmp_path / "out/w.json").read_bytes()
    forget(tmp_path, "stage1/full")
    assert not run.folder.exists()


def test_forgetting_leaves_what_was_set_aside(tmp_path):
    train(tmp_path, out=tmp_path / "out")
    train(tmp_path, {**SETTINGS, "seed": 1}, out=tmp_path / "other")
    forget(tmp_path, "stage1/full")
    left = [p.name for p in (tmp_path / "runs/stage1/full").iterdir()]
    assert len(left) == 1 and left[0].startswith("aside-") and "-seed-" in left[0]


@pytest.mark.parametrize("damage", ["gone", "short", "other", "unlisted"])
def test_a_damaged_finished_run_is_not_taken(tmp_path, capsys, damage):
    run, whole = train(tmp_path, out=tmp_path / "out")
    file = run.folder / "done/model/w.json"
    if damage == "gone":
        file.unlink()
    elif damage == "short":
        file.write_text(file.read_text()[:-1])
    elif damage == "other":
        file.write_text(file.read_text().replace("0", "1"))
    else:
        (run.folder / "done/run.json").write_text(json.dumps({"history": []}))
    again, weights = train(tmp_path, out=tmp_path / "new")
    assert "is damaged on the disk" in capsys.readouterr().out
    assert torch.equal(weights, whole) and (tmp_path / "new/w.json").exists() and again.done


@pytest.mark.parametrize("damage", ["state-00001-of-00001.safetensors", "run.json"])
def test_a_damaged_checkpoint_is_not_taken(tmp_path, capsys, damage):
    _, whole = train(tmp_path / "a")
    run, _ = train(tmp_path / "b", stop=2)
    file = run.folder / "step-0000002" / damage
    data = bytearray(file.read_bytes())
    data[-20] ^= 1
    file.write_bytes(data)
    run, weights = train(tmp_path / "b")
    said = capsys.readouterr().out
    assert "checkpoint step-0000002 is damaged on the disk" in said and "goes on at step 1" in said
    assert torch.equal(weights, whole) and [row["step"] for row in run.history] == [0, 1, 2, 3]


def test_what_a_killed_process_leaves_is_swept(tmp_path):
    run, _ = train(tmp_path, stop=2)
    for name in (".step-0000004.partial-", "groups/.step-00001.json.partial-"):
        (run.folder / f"{name}{files.HOST}-999999999").touch()
    half = run.folder / f".step-0000002.partial-{files.HOST}-999999999-gone"  # killed while it deleted a checkpoint
    half.mkdir()
    (half / "state-00001-of-00001.safetensors").write_bytes(b"x")
    train(tmp_path, out=tmp_path / "out")
    assert not [p for p in tmp_path.rglob("*") if files.PARTIAL in p.name], "it would be part of the model"


def test_a_second_process_at_the_same_training_waits_for_the_first(tmp_path, monkeypatch):
    """The other process, which is in the middle of it, goes on only when this one has said that it waits."""
    here, there = os.pipe(), os.pipe()
    if not (child := os.fork()):
        try:
            train(tmp_path, stop=2)  # it has the run now
            os.write(here[1], b"x")
            ready = select.select([there[0]], [], [], 20)[0]
            train(tmp_path, out=tmp_path / "theirs")
            os._exit(0 if ready else 1)
        finally:
            os._exit(2)
    os.read(here[0], 1)
    monkeypatch.setattr(runs, "print", lambda said, **_: "waits" in said and os.write(there[1], b"x"), raising=False)
    run, _ = train(tmp_path, out=tmp_path / "ours")
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert run.done and not run.history, "it took the other's result"
    assert (tmp_path / "ours/w.json").read_bytes() == (tmp_path / "theirs/w.json").read_bytes()
    assert not list((tmp_path / "runs").rglob("*.lock"))


def test_nothing_is_deleted_by_halves(tmp_path, monkeypatch):
    """Killed at any point of a deletion: what is left under its own name is whole, or nothing."""
    run, _ = train(tmp_path, out=tmp_path / "out")

    class Killed(BaseException):
        pass

    def killed(path, **_):
        if not path.exists():
            return
        next(p for p in sorted(path.rglob("*")) if p.is_file()).unlink()
        raise Killed

    monkeypatch.setattr(files.shutil, "rmtree", killed)
    with pytest.raises(Killed):
        files.discard(run.folder)
    assert not run.folder.exists()
    monkeypatch.undo()
    left = next((tmp_path / "runs/stage1/full").glob(".*"))
    left.rename(left.with_name(left.name.replace(str(os.getpid()), "999999999")))  # of a process that is gone
    train(tmp_path)
    assert not [p for p in (tmp_path / "runs/stage1/full").iterdir() if p.name.startswith(".")], "swept"


def test_a_full_disk_while_saving_is_one_line(tmp_path, monkeypatch):
    def full(*_, **__):
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    train(tmp_path, stop=2)
    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(UserError, match="no space left on the disk"):
        train(tmp_path)
    monkeypatch.undo()
    run, _ = train(tmp_path)
    assert [row["step"] for row in run.history] == [0, 1, 2, 3], "what was there before is still there"


def test_free_space_is_checked_before_the_first_step(tmp_path, monkeypatch):
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10})())
    with pytest.raises(UserError, match="are needed and"):
        train(tmp_path)


def test_curves_are_whole_or_absent(tmp_path, monkeypatch):
    write_curves(tmp_path / "c", [{"step": 0, "loss": 1.0}])
    before = (tmp_path / "c/history.csv").read_bytes()
    monkeypatch.setattr("pandas.DataFrame.to_csv", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "full")))
    with pytest.raises(UserError, match="no space"):
        write_curves(tmp_path / "c", [{"step": 0, "loss": 2.0}])
    assert (tmp_path / "c/history.csv").read_bytes() == before


def test_histories_side_by_side():
    rows = columns({"vlm": [{"step": 0, "loss": 1.0}, {"step": 1, "loss": 2.0}], "vdm": [{"step": 0, "loss": 3.0}]})
    assert rows == [{"step": 0, "vlm/loss": 1.0, "vdm/loss": 3.0}, {"step": 1, "vlm/loss": 2.0}]


# ---- what decides a run's numbers --------------------------------------------------------------------------------
CELL: dict[str, Any] = {"vlm": "sft", "vdm": "sft", "reward": "full"}
USES: dict[str, tuple] = {  # of each run: what of the parameters counts, without its seeds and the machine
    "vae": (("seed", *base.KEYS["vae"]),),
    "vdm": (("seed", *base.KEYS["vdm"]),),
    "sft": (("seed", "train_seed", "sft.vlm", "models.vlm"),),
    "stage1": stage1.uses(Cell("stage1", "full", **CELL), renders=True),
    "no_v1": stage1.uses(Cell("stage1", "no_v1", **CELL), renders=False),
    "stage2": stage2.uses(Cell("stage2", "main", **CELL)),
    "vdm_only": stage2.uses(Cell("stage2", "vdm_only", **CELL, captions="ground_truth")),
    "all_in_one": (all_in_one.KEYS,),
}
CHANGES: list[tuple[dict[str, Any], set[str]]] = [  # one of the parameters, and the runs whose numbers it changes
    ({"seed": 1}, set(USES)),
    ({"train_seed": 1}, set(USES) - {"vae", "vdm"}),
    ({"base": {"vae": {"lr": 0.5}}}, {"vae", "vdm"}),
    ({"base": {"drop_caption": 0.5}}, {"vdm"}),
    ({"sft": {"vlm": {"lr": 0.5}}}, {"sft"}),
    ({"sft": {"vdm": {"lr": 0.5}}}, set()),
    ({"models": {"vlm": {"system": "?"}}}, {"sft", "stage1", "no_v1", "stage2", "all_in_one"}),
    ({"models": {"clip": {"config": {"embed_dim": 32}}}}, {"stage1", "stage2", "vdm_only", "all_in_one"}),
    ({"models": {"detector": {"config": {"width": 8}}}}, set()),
    ({"stage1": {"reward": "no_t1", "steps": 7}, "stage2": {"reward": "no_c2", "steps": 7}}, set()),
    ({"stage1": {"lr": 0.5}}, {"stage1", "no_v1", "all_in_one"}),
    ({"stage1": {"render_steps": 7}}, {"stage1"}),
    ({"stage1": {"prompts": 2}}, {"stage1", "no_v1"}),
    ({"stage2": {"render_steps": 7}}, {"stage2", "vdm_only", "all_in_one"}),
    ({"stage2": {"anchor_threshold": 0.1}}, {"stage2"}),
    ({"stage2": {"group_size": 4}}, {"stage2", "vdm_only"}),
    ({"stage1": {"guidance_stop": 0.5}}, {"stage1"}),
    ({"stage1": {"explore_steps": 3}}, {"stage1"}),
    ({"stage1": {"explore_size": 16}}, {"stage1", "no_v1"}),
    ({"stage1": {"fp8": True}}, {"stage1"}),
    ({"stage2": {"guidance_start": 0.5}}, {"stage2", "vdm_only", "all_in_one"}),
    ({"stage2": {"explore_size": 16}}, {"stage2", "vdm_only"}),
    ({"all_in_one": {"prompts": 2}}, {"all_in_one"}),
    ({"all_in_one": {"steps": 7}}, set()),
    ({"generate": {"top_p": 0.5}}, {"stage2"}),
    ({"generate": {"batch": 2, "steps": 3}}, set()),
    ({"keep": {"groups": 3}}, set()),
    ({"machine": {"grid": False, "workers": 3}}, set()),
    ({"machine": {"dit_batch": 2}}, set(USES)),
    ({"machine": {"sample_batch": 2}}, set(USES)),
    ({"machine": {"decoding": "static"}}, set(USES)),
    ({"machine": {"compile": True}}, set(USES)),
    ({"machine": {"sampler": "vllm"}}, set(USES)),
    ({"machine": {"vllm_memory": 0.5}}, set()),
]


def test_only_what_can_change_a_runs_numbers_counts(tmp_path, monkeypatch):
    files.atomic_write_text(tmp_path / "triplets/manifest.parquet", "")
    files.atomic_write_text(tmp_path / "triplets/shards/0.tar", "")
    params = load(smoke.ROOT)
    monkeypatch.setattr("vans.code.digest", lambda *_: "")

    def settings(changed):
        return {name: settings_of(changed, tmp_path, ALONE, "", *uses) for name, uses in USES.items()}

    before = settings(params)
    for change, moved in CHANGES:
        after = settings(params.with_(**change))
        assert {name for name in USES if after[name] != before[name]} == moved, change


def test_what_a_run_really_runs_on_counts(tmp_path, monkeypatch):
    """Where "auto" finds fewer GPUs than processes, fewer are started, and the settings say how many."""
    files.atomic_write_text(tmp_path / "triplets/manifest.parquet", "")
    (tmp_path / "triplets/shards").mkdir()
    two = settings_of(load(smoke.ROOT), tmp_path, Ranks(0, 2, torch.device("cpu")), "vans/train/sft.py", ["seed"])
    one = settings_of(load(smoke.ROOT), tmp_path, Ranks(0, 1, torch.device("cuda", 0)), "vans/train/sft.py", ["seed"])
    assert (two["machine"]["device"], two["machine"]["processes"]) == ("cpu", 2)
    assert (one["machine"]["device"], one["machine"]["processes"]) == ("cuda", 1)
    asked = SimpleNamespace(device="auto", processes=8)
    assert processes(asked) == 8
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    for count, size in ((1, 1), (3, 2), (6, 4), (16, 8)):  # a number that shares what 8 share
        monkeypatch.setattr("torch.cuda.device_count", lambda count=count: count)
        assert processes(asked) == size
    assert processes(SimpleNamespace(device="cuda", processes=8)) == 8, "refused later: a GPU is not there"
