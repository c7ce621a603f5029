"""Tokens one at a time: keys and values that grow against keys and values of fixed length, and a captured pass, played
by an object of its form where there is no GPU."""

import contextlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.testing import assert_close

from tests import smoke
from vans.models import decoding
from vans.models.sampling import Draws
from vans.models.tokenizer import chat_tokenizer
from vans.models.vlm import VLM
from vans.params import load
from vans.toy import world

QUESTIONS = ["what will happen ?", "what happens next if the wind blows ?"]  # of unlike length: padding on the left
SEEDS = [(i, g) for i in range(2) for g in range(3)]


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    scene = world.Scene(shape="cone", colour="blue")
    return torch.stack([torch.from_numpy(world.render_event(scene, e)) for e in ("left", "grow")])


@pytest.fixture(scope="module", params=[torch.float32, torch.bfloat16], ids=["float32", "bfloat16"])
def vlm(request) -> VLM:
    """Under an adapter that is not at its start: merged in float32, beside the weights in bfloat16."""
    vlm = VLM.scratch(load(smoke.ROOT, scale="tiny").models.vlm.config, chat_tokenizer(world.vocabulary()), 0)
    vlm.model.to(request.param)
    vlm.autocast_dtype = None if request.param == torch.float32 else request.param
    vlm.add_lora(4, 8, 0)
    for name, p in vlm.model.named_parameters():
        if "lora_B" in name:
            p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(0)) * 0.05
    return vlm


def drawn(vlm: VLM, clips: torch.Tensor, how: str, most: int = 14, **more):
    vlm.decoding = how
    inputs = vlm.inputs(clips, QUESTIONS, 3.0)
    return vlm.sample(inputs, seeds=SEEDS, max_new_tokens=most, **{"temperature": 1.0} | more)


def agree(vlm: VLM, some, other) -> None:
    assert torch.equal(some.ids, other.ids) and torch.equal(some.mask, other.mask) and some.texts == other.texts
    assert_close(some.drawn, other.drawn, rtol=0, atol=1e-5 if vlm.autocast_dtype is None else 0.05)


@pytest.mark.parametrize("more", [{}, {"temperature": 0.0}, {"within_template": True, "most": 48}], ids=str)
def test_a_cache_of_fixed_length_gives_the_same_tokens(vlm, clips, more):
    grown, fixed = (drawn(vlm, clips, how, **more) for how in ("dynamic", "static"))
    agree(vlm, fixed, grown)
    logp = vlm.log_probs(vlm.inputs(clips, QUESTIONS, 3.0), fixed, more.get("temperature", 1.0) or 1.0)
    assert_close(fixed.drawn, logp.detach(), rtol=0, atol=1e-4 if vlm.autocast_dtype is None else 0.1)


def test_every_pass_has_the_same_shapes_and_the_same_memory(vlm, clips, monkeypatch):
    shapes, places = set(), set()
    step = decoding.Fixed._pass

    def seen(self):
        out = step(self)
        tensors = [self.token, self.at, self.seen, *(t for part in self.cache.layers for t in (part.keys, part.values))]
        shapes.add(tuple(t.shape for t in [*tensors, out]))
        places.add(tuple(t.data_ptr() for t in tensors))
        return out

    monkeypatch.setattr(decoding.Fixed, "_pass", seen)
    drawn(vlm, clips, "static")
    assert len(shapes) == len(places) == 1
    assert next(iter(shapes))[2][-1] % decoding.BLOCK == 0


def test_without_a_gpu_a_graph_is_asked_for_in_vain(vlm, clips, monkeypatch):
    monkeypatch.setattr(decoding, "captured", None)
    agree(vlm, drawn(vlm, clips, "graph"), drawn(vlm, clips, "dynamic"))


def test_what_is_cut_up_over_ranks_is_not_captured(monkeypatch):
    """FSDP's streams would be forked into the capture and never joined."""
    mask: Any = SimpleNamespace(device=torch.device("cuda"), repeat_interleave=lambda times, axis: mask)
    cache = SimpleNamespace(batch_repeat_interleave=lambda times: None, is_sliding=[False])
    policy = SimpleNamespace(decoding="graph", model=None, autocast=None)
    monkeypatch.setattr(decoding, "Fixed", lambda *given: "captured" if given[5] else "static")
    assert decoding.decoder(policy, cache, mask, mask, 1, 1) == "captured"
    monkeypatch.setattr(decoding, "sharded", lambda model: True)
    assert isinstance(decoding.decoder(policy, cache, mask, mask, 1, 1), decoding.Growing)


def test_a_captured_pass_is_replayed_for_every_token(vlm, clips, monkeypatch):
    """A graph reads and writes the memory that it was captured on, and its warm-up leaves no trace."""
    grown, replays = drawn(vlm, clips, "dynamic"), []

    def captured(step, rewind):
        for _ in range(2):
            step()
            rewind()
        out = torch.zeros_like(step())
        rewind()  # a capture runs nothing
        return lambda: replays.append(1) or out.copy_(step())  # type: ignore[func-returns-value]

    whole = decoding.Fixed

    def fixed(model, cache, mask, place, most, graph, autocast):
        made = whole(model, cache, mask, place, most, True, lambda: vlm.autocast(cache=False))
        made.look = decoding.LOOK  # as on a GPU
        return made

    monkeypatch.setattr(decoding, "captured", captured)
    monkeypatch.setattr(decoding, "Fixed", fixed)
    agree(vlm, drawn(vlm, clips, "static"), grown)
    assert len(replays) >= grown.ids.shape[1] - 1 > 5


@pytest.mark.parametrize("why", ["", "operation not permitted when stream is capturing\nmore"])
def test_a_pass_is_captured_or_said_not_to_be(monkeypatch, capsys, why):
    """Against what of torch.cuda a capture calls: never run on a GPU here."""
    said: list[str] = []

    class Graph:
        def replay(self) -> None:
            said.append("replay")

    @contextlib.contextmanager
    def graph(made: Graph):
        said.append("capture")
        yield
        if why:
            raise RuntimeError(why)

    stream = SimpleNamespace(wait_stream=lambda other: None)
    fakes = {"CUDAGraph": Graph, "graph": graph, "Stream": lambda: stream, "current_stream": lambda: stream}
    for name, value in (fakes | {"stream": lambda stream: contextlib.nullcontext()}).items():
        monkeypatch.setattr(torch.cuda, name, value)
    step = lambda: said.append("step") or torch.ones(1)  # type: ignore[func-returns-value] # noqa: E731
    run = decoding.captured(step, lambda: said.append("rewind"))
    begun = ["step", "rewind", "step", "rewind", "capture", "step"]
    if why:
        assert run is step and said == [*begun, "rewind"]
        told = capsys.readouterr().out
        assert told.count("\n") == 1 and "machine.decoding: no CUDA graph" in told and "more" not in told
    else:
        assert run() is run() and said == [*begun, "replay", "replay"] and not capsys.readouterr().out


def test_what_comes_behind_the_last_end_is_cut_off(vlm, clips, monkeypatch):
    """On a GPU one looks every few tokens whether all answers have ended."""
    draw = Draws.__call__

    def ending(self, scores, step):  # answer n has n + 4 tokens
        ends = torch.arange(len(scores)) + 3 <= step
        return torch.where(ends, vlm.tokenizer.eos_token_id, draw(self, scores, step))

    monkeypatch.setattr(Draws, "__call__", ending)
    grown = drawn(vlm, clips, "dynamic")
    assert grown.mask.sum(1).tolist()[1:] == [5, 6, 7, 8, 9] and grown.ids.shape[1] == 9
    monkeypatch.setattr(decoding.Growing, "look", 7)
    agree(vlm, drawn(vlm, clips, "dynamic"), grown)
