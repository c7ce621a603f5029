"""What trains, cut up over two processes: the same numbers as whole on one, and checkpoints that either takes up."""

from __future__ import annotations

import json
import os
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from peft.utils import get_peft_model_state_dict
from safetensors.torch import load_file
from torch import nn
from torch.distributed.checkpoint import HuggingFaceStorageReader
from torch.func import functional_call
from torch.utils.checkpoint import checkpoint

from tests import sharded, smoke
from vans import warm_server
from vans.errors import UserError
from vans.grpo.rollout import WithTensors, frozen_copy, reference
from vans.models.load import load_dit
from vans.models.vlm import VLM
from vans.parallel import Ranks, launch
from vans.sharding import make_whole, mine, shard
from vans.train.optim import optimizer
from vans.train.stage2 import make_trainable

ALONE = Ranks(0, 1, torch.device("cpu"))
FILES = ("vlm/adapter_model.safetensors", "transformer/diffusion_pytorch_model.safetensors")


def results(out: Path) -> list[dict[str, torch.Tensor]]:
    return [load_file(out / name) for name in FILES]


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    assert one.keys() == other.keys()
    return max((one[name] - other[name]).abs().max().item() for name in one)


def test_two_processes_cut_up_against_one_whole_and_from_each_others_checkpoint(tmp_path, monkeypatch):
    """Two steps of two updates of both models; and one step by one number of processes and the rest by the other."""
    monkeypatch.setenv("PYTHONPATH", str(smoke.ROOT))
    torch.set_num_threads(1)
    one, two, one_two, two_one = (tmp_path / name for name in ("one", "two", "one_two", "two_one"))
    assert sharded.train(ALONE, str(one), str(one / "out"), False, 2) == 0
    sharded.train(ALONE, str(one_two), "", False, 1)
    machine = SimpleNamespace(processes=2, device="cpu", threads=1)
    with warm_server.running({**os.environ, "OMP_NUM_THREADS": "1"}):
        assert launch("tests.sharded:trained", machine, root=str(tmp_path)) == [0, 1]
    parts_as_torch_reads_them(next((two_one / "runs/both").rglob("step-0000001")))
    assert sharded.train(ALONE, str(two_one), str(two_one / "out"), False, 2) == 1
    whole, start = results(one / "out"), starts()
    assert all(close(a, b) > 1e-5 for a, b in zip(whole, start, strict=True)), "they have moved"
    for out in (two, one_two, two_one):
        assert all(close(a, b) < 1e-6 for a, b in zip(results(out / "out"), whole, strict=True)), out.name


def parts_as_torch_reads_them(folder: Path) -> None:
    """A checkpoint of two processes: torch.distributed.checkpoint finds the same whole tensors in its files."""
    parts = [load_file(path) for path in sorted(folder.glob("state-*.safetensors"))]
    assert len(parts) == 2 and not (folder / ".metadata").exists(), "no pickle"
    mine = {}
    for name in sorted({*parts[0], *parts[1]}):
        some = [part[name] for part in parts if name in part]
        mine[name] = torch.cat(some) if some[0].ndim else some[0]
    assert any(len(part[name]) < len(mine[name]) for part in parts for name in part if mine[name].ndim)
    theirs = {name: torch.zeros_like(tensor) for name, tensor in mine.items() if tensor.ndim}
    dcp.load(theirs, storage_reader=HuggingFaceStorageReader(str(folder)), no_dist=True)
    assert all(torch.equal(theirs[name], mine[name]) for name in theirs)


def starts() -> list[dict[str, torch.Tensor]]:
    """Adapter and DiT before the first step, by the names of the files."""
    vlm, vdm = sharded.models()
    return [get_peft_model_state_dict(vlm.model), vdm.dit.state_dict()]


# ---- traps -------------------------------------------------------------------------------------------------------
@pytest.fixture
def group(tmp_path):
    """A process group of this process alone: what is cut up over it goes FSDP2's ways all the same."""
    dist.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


class Net(nn.Module):
    """Two linear layers, the second block's activations recomputed."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.ModuleList([nn.Linear(6, 6), nn.Linear(6, 6)])
        self.last = nn.Linear(6, 2)

    def forward(self, x):
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=False).tanh()
        return self.last(x)


def moved(model: nn.Module) -> None:
    with torch.no_grad():
        for p in model.parameters():
            mine(p).mul_(1.5)


X = torch.linspace(-1, 1, 18).view(3, 6)


@pytest.mark.parametrize("cast", [False, True])
def test_a_reference_is_the_policy_of_the_start_whatever_the_weights_become(group, cast):
    """Cut up or whole, and within one autocast block, too, which casts a weight once: the KL would always be 0."""
    found = []
    for cut in (False, True):
        model = Net()
        with torch.autocast("cpu", torch.bfloat16, enabled=cast), torch.no_grad():
            before, expected = model(X), None
            moved(model)
            torch.clear_autocast_cache()
            expected = model(X)
        model = Net()
        if cut:
            shard(model, model.blocks, ALONE)
            with pytest.raises(ValueError, match="cut up over ranks, where functional_call changes nothing"):
                WithTensors(model, frozen_copy(model))
        start = reference(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=cast):
            model(X).sum().backward()  # a plain pass first, after which functional_call sees the model's own
        moved(model)
        with torch.autocast("cpu", torch.bfloat16, enabled=cast), torch.no_grad():
            for _ in range(2):  # in turns, as a rollout calls them
                assert torch.equal(model(X), expected) and torch.equal(start(X), before)
        found.append([mine(p).detach().clone() for p in model.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*found, strict=True)), "the policy is as it was"


def test_functional_call_changes_nothing_where_a_model_is_cut_up(group):
    """Why `WithTensors` refuses it."""
    model = Net()
    shard(model, model.blocks, ALONE)
    zeros = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    own = model(X)
    assert torch.equal(functional_call(model, zeros, (X,)), own)


def test_nothing_can_be_learnt_through_a_reference():
    """Its recomputed activations would be of the model's own weights: right outputs, wrong gradients."""
    model = Net()
    start = WithTensors(model, {name: p * 0.5 for name, p in frozen_copy(model).items()})
    assert torch.is_grad_enabled() and not start(X.clone().requires_grad_()).requires_grad


@pytest.mark.parametrize("kind", ["vlm", "vdm"])
def test_a_weight_changed_between_two_passes_is_seen(kind):
    """Each pass in bfloat16 has an autocast block of its own: within one, the second would be with the first's."""
    vlm, vdm = sharded.models()
    vlm.autocast_dtype = vdm.autocast_dtype = torch.bfloat16
    inputs, answer = vlm.inputs(sharded.clips()[:1], sharded.QUESTIONS[:1], 3.0), vlm.encode_answers(["the ball ."])
    x, text = torch.ones(1, *vdm.latent_shape(5, 32, 32)), torch.ones(1, 24, 64)
    model = vlm.model if kind == "vlm" else vdm.dit
    trained = [p for name, p in model.named_parameters() if "lora_" in name or kind == "vdm"]

    def passed(trains: bool) -> torch.Tensor:
        for p in trained:
            p.requires_grad_(trains)
        return vlm.log_probs(inputs, answer) if kind == "vlm" else vdm.velocity(x, torch.ones(1), text, None)

    before = passed(True).detach()
    with torch.no_grad():
        for p in trained:
            p.mul_(1.5)
    after = passed(True).detach()
    assert torch.equal(after, passed(False)), "what does not train is never kept"
    assert not torch.equal(after, before)


def test_an_adapter_that_only_answers_trains_nothing_before_and_after(tmp_path):
    """peft's disable_adapter would let its tensors train ever after: it is called nowhere."""
    vlm, _ = sharded.models()
    vlm.save_lora(tmp_path)
    again = VLM(sharded.models()[0].model.unload(), vlm.processor).load_lora(tmp_path).frozen()
    inputs = again.inputs(sharded.clips()[:1], sharded.QUESTIONS[:1], 3.0)
    again.sample(inputs, seeds=[(0,)], max_new_tokens=4, temperature=1.0)
    again.log_probs(again.see(inputs), again.encode_answers(["the ball ."]))
    assert not [name for name, p in again.model.named_parameters() if p.requires_grad]
    sources = [path for path in (smoke.ROOT / "vans").rglob("*.py") if "disable_adapter" in path.read_text()]
    assert not sources


@pytest.mark.parametrize("cut", [False, True])
def test_a_dit_with_a_lora_is_saved_whole_and_one_with_an_adapter_beside_it_is_refused(group, tmp_path, cut):
    """diffusers would leave weights of the second on the meta device."""
    _, vdm = sharded.models()
    save = make_trainable(vdm, 2, 0, ALONE if cut else None)
    with torch.no_grad():
        for name, p in vdm.dit.named_parameters():
            if "lora_B" in name:
                mine(p).fill_(0.1)
    x, text = torch.ones(1, *vdm.latent_shape(5, 32, 32)), torch.ones(1, 24, 64)
    with torch.no_grad():
        expected = vdm.velocity(x, torch.ones(1), text, None)
    make_whole(vdm.dit, keep=True)
    vdm.dit.save_pretrained(tmp_path / "unmerged/transformer")
    with pytest.raises(UserError, match="not the whole DiT of this model"):
        load_dit(tmp_path / "unmerged")
    save(tmp_path / "merged")
    dit = load_dit(tmp_path / "merged")
    assert not any(p.is_meta for p in dit.parameters())
    assert json.loads((tmp_path / "merged/transformer/config.json").read_text())["_class_name"] == type(dit).__name__
    vdm.dit = dit
    with torch.no_grad():
        torch.testing.assert_close(vdm.velocity(x, torch.ones(1), text, None), expected, rtol=1e-4, atol=1e-5)


def test_muon_refuses_matrices_that_are_cut_up(group):
    model = Net()
    shard(model, model.blocks, ALONE)
    with pytest.raises(UserError, match="muon needs whole matrices, which machine.shard cuts up; use adamw"):
        optimizer([model], "muon", 1e-3)
