"""Before a stage: weights that are not there or not whole, the device, FVD's network, the disk; one line each."""

import json
import re
import shutil
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import save_file

from tests import smoke
from vans import cli, outside, preflight
from vans.errors import UserError
from vans.parallel import Ranks
from vans.params import load
from vans.plan import memory
from vans.preflight import Problem, check_whole


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A repository whose base models are there."""
    for name in ("params.yaml", "dvc.yaml"):
        shutil.copyfile(smoke.ROOT / name, tmp_path / name)
    for folder in ("models/base/vlm", "models/base/vdm/transformer", "models/base/clip"):
        (tmp_path / folder).mkdir(parents=True)
        save_file({"a": torch.ones(2, 3)}, tmp_path / folder / "model.safetensors", {"format": "pt"})
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def params(root):
    return load(root).with_(machine={"device": "cpu"})


def lines(problems) -> list[str]:
    return [problem.what for problem in problems]


def test_files_that_are_not_whole(tmp_path):
    file = tmp_path / "x/model-1.safetensors"
    file.parent.mkdir()
    save_file({"a": torch.ones(4), "b": torch.ones(2)}, file)
    whole = file.read_bytes()
    check_whole(tmp_path)
    empty = (2).to_bytes(8, "little") + b"{}"
    for wrong in (whole[:-1], whole + b"x", whole[:20], b"", b"123", b"\xff" * 100, empty + b"1", empty[:8] + b"xx"):
        file.write_bytes(wrong)
        with pytest.raises(UserError, match=r"x/model-1.safetensors: not whole.*; get it, or train it, anew"):
            check_whole(tmp_path)
    file.write_bytes(empty)
    check_whole(tmp_path)
    index = tmp_path / "x/model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    with pytest.raises(UserError, match=r"x/model-2.safetensors: missing, model.safetensors.index.json names it"):
        check_whole(tmp_path)
    index.write_text("[]")
    with pytest.raises(UserError, match="index.json: not an index of weights"):
        check_whole(tmp_path)


def test_weights_of_a_stage(root, params):
    assert lines(preflight.weights(params, root, ["models/base/vlm", "models/base/vdm"])) == []
    file = root / "models/base/vlm/model.safetensors"
    file.write_bytes(file.read_bytes()[:-4])
    found = lines(preflight.weights(params, root, ["models/base/vlm", "models/sft/vlm"]))
    assert "not whole" in found[0] and found[1].startswith("models/sft/vlm: no weights here; run the stage")
    with pytest.raises(UserError, match=r"model.safetensors: not whole.* \(and 1 more, above\)$"):
        preflight.preflight(params, root, "stage1", ["models/base/vlm", "models/sft/vlm"])


def test_a_repositorys_weights(root, params, monkeypatch):
    named = params.with_(models={"vlm": {"repo": "some/model", "revision": "0" * 40}})
    monkeypatch.setenv("HF_HUB_CACHE", str(root / "hub"))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert lines(preflight.weights(named, root, ["models/base/vlm"])) == [
        "models.vlm: some/model is not here and HF_HUB_OFFLINE is set; unset it"
    ]
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")
    assert lines(preflight.weights(named, root, ["models/base/vlm"])) == []  # it will be downloaded
    folder = root / "hub/models--some--model/snapshots" / ("0" * 40)
    folder.mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"half")
    assert "model.safetensors: not whole" in lines(preflight.weights(named, root, ["models/base/vlm"]))[0]


def test_fvds_network_is_said_early_and_needed_late(root, params, capsys):
    paper = params.with_(models={"detector": {"path": "i3d.pt"}})
    assert list(preflight.detector(params, root, "score")) == []
    (missing,) = preflight.detector(paper, root, "sft")
    assert not missing.stops and missing.what.startswith("models.detector.path: i3d.pt is missing, and FVD needs it")
    (root / "i3d.pt").touch()
    (unknown,) = preflight.detector(paper, root, "score")
    assert unknown.stops and "models.detector.sha256: null" in unknown.what and "`sha256sum i3d.pt`" in unknown.what
    preflight.preflight(paper, root, "stage1", ["models/base/vlm"])
    assert capsys.readouterr().out == f"stage1: {unknown.what}\n"
    with pytest.raises(UserError, match="models.detector.sha256"):
        preflight.preflight(paper, root, "score", ["models/base/clip"])
    assert list(preflight.detector(paper.with_(models={"detector": {"sha256": "0" * 64}}), root, "score")) == []


def test_room_for_latents_and_checkpoints(root, params, monkeypatch):
    monkeypatch.setattr("vans.plan.report.counted", lambda root: 1000)
    latent = 2 * 16 * 5 * 8 * 8
    dit = (root / "models/base/vdm/transformer/model.safetensors").stat().st_size
    needed = {"sft": 2000 * latent + 10 * dit, "stage1": 256 * latent, "stage2": 256 * latent + 10 * dit, "answer": 0}
    for stage, size in needed.items():
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _, size=size: SimpleNamespace(free=size))
        assert list(preflight.disk(params, root, stage)) == []
        monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _, size=size: SimpleNamespace(free=size - 1))
        assert len(list(preflight.disk(params, root, stage))) == (stage != "answer")
    (root / "cache/latents/x").mkdir(parents=True)
    (root / "cache/latents/x/0").write_bytes(b"1")
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: SimpleNamespace(free=needed["stage1"] - 1))
    assert list(preflight.disk(params, root, "stage1")) == []  # one byte is there


@pytest.fixture
def gpu(monkeypatch):
    """gpu(free, total): a machine with one H100 with so much memory, GB."""
    before = torch.are_deterministic_algorithms_enabled()

    def machine(free: int, total: int) -> None:
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free * 10**9, total * 10**9))
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "NVIDIA H100 80GB HBM3")

    yield machine
    torch.use_deterministic_algorithms(before)


def test_the_device(params, monkeypatch, gpu):
    old = "the NVIDIA driver is too old: it is for CUDA 11.4"
    with monkeypatch.context() as patch:
        for module in (preflight, preflight.device_of.__globals__):
            (patch.setattr if module is preflight else patch.setitem)(module, "no_cuda", lambda: old)
        (auto,) = preflight.machine(params.with_(machine={"device": "auto"}), "stage1")
        assert auto == Problem(f"machine.device is auto and the CPU is taken: {old}", stops=False)
        (cuda,) = preflight.machine(params.with_(machine={"device": "cuda"}), "stage1")
        assert cuda == Problem(f"machine.device in params.yaml is cuda: {old}")
        assert list(preflight.machine(params, "stage1")) == []
    gpu(70, 80)
    (many,) = preflight.machine(params.with_(machine={"device": "cuda", "processes": 2}), "stage1")
    assert many.stops and "asks for GPU 1, this machine has 1; lower machine.processes" in many.what
    monkeypatch.setattr(outside, "_ranks", Ranks(0, 2, torch.device("cuda", 0)))  # one a machine
    assert list(preflight.machine(params.with_(machine={"device": "cuda", "processes": 2}), "stage1")) == []


def test_the_gpus_memory_against_the_plan(params, gpu, monkeypatch):
    one = params.with_(machine={"device": "cuda", "processes": 1})
    planned = []

    def remedy(models, stage, gpus, card):
        planned.append((stage, gpus, card.memory))
        return SimpleNamespace(total=60e9), "" if card.memory >= 80 else "less"

    monkeypatch.setattr(memory, "remedy", remedy)
    gpu(70, 80)
    assert list(preflight.machine(one, "sft")) == []
    assert planned == [("sft/vlm", 1, 80), ("sft/vdm", 1, 80)]
    gpu(50, 80)
    (busy,) = preflight.machine(one, "stage2")
    assert not busy.stops and "stage2: about 60 GB are needed by plan and 50 of 80 are free; end what else" in busy.what
    gpu(39, 40)
    (small,) = preflight.machine(one, "stage2")
    assert not small.stops and "the GPU has 40; it would fit with less (`vans plan`)" in small.what
    assert list(preflight.machine(one, "score")) == []


def test_the_disk_of_a_whole_run_at_the_papers_scale(params, tmp_path, monkeypatch):
    shutil.copyfile(smoke.ROOT / "dvc.yaml", tmp_path / "dvc.yaml")
    paper = load(smoke.ROOT, scale="paper")
    free = SimpleNamespace(free=300e9)
    monkeypatch.setattr(preflight.shutil, "disk_usage", lambda _: free)
    (problem,) = preflight.whole_run(paper, tmp_path)
    said = r"about (\d+) GB by plan for 100,000 triplets \(`vans plan`\), 300 are free; use a larger disk"
    found = re.fullmatch(said, problem.what)
    assert found and 600 < int(found[1]) < 700 and not problem.stops
    free.free = 1e12
    assert not list(preflight.whole_run(paper, tmp_path))
    free.free = 0
    assert not list(preflight.whole_run(params, tmp_path)), "a toy's fits"


def test_the_command(root, capsys, monkeypatch):
    path = root / "params.yaml"
    path.write_text(path.read_text().replace("device: auto ", "device: cpu  "))
    assert cli.main(["preflight"]) == 0
    said = "nothing is wrong: weights that are here, disk, device and memory of every stage\n"
    assert capsys.readouterr().out == said
    (root / "models/base/clip/model.safetensors").write_bytes(b"")
    with pytest.raises(SystemExit):
        cli.main(["preflight"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 and lines[0].startswith("base: ")
    assert "clip/model.safetensors: not whole: 0 bytes" in lines[0]
