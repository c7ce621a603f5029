"""vLLM as the sampler, against a stand-in that has the names and arguments of its interface and draws with a model of
its own, loaded from the folders that it is handed."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from tests import smoke
from vans.errors import UserError
from vans.models import engine
from vans.models.engine import Engine
from vans.models.load import load_vlm
from vans.models.prompts import in_parts, pick
from vans.models.tokenizer import chat_tokenizer
from vans.models.vlm import VLM
from vans.params import load
from vans.toy import world

QUESTIONS = ["what will happen ?", "what happens next if the wind blows ?"]
SEEDS = [("s", i, g) for i in range(2) for g in range(3)]
ASKED: dict[str, Any] = {"max_new_tokens": 9, "temperature": 0.8}


@dataclass
class SamplingParams:
    seed: int
    max_tokens: int
    temperature: float
    top_p: float
    logprobs: int
    logit_bias: dict[int, float]
    stop_token_ids: list[int]
    detokenize: bool


@dataclass
class LoRARequest:
    lora_name: str
    lora_int_id: int
    lora_path: str


class LLM:
    """Draws what our sampler would draw with the same model, at `rate_factor` times the pictures' rate."""

    made: ClassVar[list["LLM"]] = []
    rate_factor = 1.0

    def __init__(self, *, model: str, revision, dtype: str, seed: int, max_model_len: int, max_num_seqs: int,
                 gpu_memory_utilization: float, limit_mm_per_prompt: dict, generation_config: str, logprobs_mode: str,
                 enable_sleep_mode: bool, enable_lora: bool = False, max_loras: int = 1, max_lora_rank: int = 16,
                 distributed_executor_backend: str | None = None):  # fmt: skip
        assert (generation_config, logprobs_mode, enable_sleep_mode) == ("vllm", "processed_logprobs", True)
        assert limit_mm_per_prompt == {"image": 0, "video": 1}
        self.model, self.enable_lora, self.max_lora_rank, self.room = model, enable_lora, max_lora_rank, max_model_len
        self.awake, self.config = True, (dtype, max_num_seqs, gpu_memory_utilization)
        self.seen: list[tuple] = []
        self.loras: list[LoRARequest] = []
        LLM.made.append(self)

    def sleep(self, level: int) -> None:
        assert self.awake and level == 1
        self.awake = False

    def wake_up(self) -> None:
        assert not self.awake
        self.awake = True

    def generate(self, prompts: list[dict], sampling_params: list[SamplingParams], *, use_tqdm: bool, lora_request):
        assert self.awake and len(prompts) == len(sampling_params)
        vlm = VLM.load(self.model)
        if lora_request is not None:
            assert self.enable_lora
            config = json.loads((Path(lora_request.lora_path) / "adapter_config.json").read_text())
            assert isinstance(config["target_modules"], list) and config["r"] <= self.max_lora_rank
            vlm.load_lora(lora_request.lora_path)
            self.loras.append(lora_request)
        self.seen += list(zip(prompts, sampling_params, strict=True))
        out = []
        for prompt, how in zip(prompts, sampling_params, strict=True):
            assert set(prompt) == {"prompt", "multi_modal_data", "mm_processor_kwargs"}
            clip, told = prompt["multi_modal_data"]["video"], prompt["mm_processor_kwargs"]
            assert isinstance(clip, np.ndarray) and clip.dtype == np.uint8 and told["do_sample_frames"] is False
            vlm.prompt = lambda question, text=prompt["prompt"]: text  # type: ignore[method-assign,misc]
            inputs = vlm.inputs(torch.from_numpy(clip)[None], [""], told["fps"] * self.rate_factor)
            assert inputs["input_ids"].shape[1] + how.max_tokens <= self.room
            assert set(how.logit_bias) == set(vlm.special_ids()) and set(how.logit_bias.values()) == {-100.0}
            drawn = vlm.sample(
                inputs, seeds=[(how.seed,)], max_new_tokens=how.max_tokens, temperature=how.temperature,
                top_p=how.top_p,
            )  # fmt: skip
            count = int(drawn.mask.sum())
            assert drawn.drawn is not None
            ids, logp = drawn.ids[0, :count].tolist(), drawn.drawn[0, :count].tolist()
            logprobs = [{token: SimpleNamespace(logprob=value)} for token, value in zip(ids, logp, strict=True)]
            out.append(SimpleNamespace(outputs=[SimpleNamespace(token_ids=tuple(ids), logprobs=logprobs)]))
        return out


@pytest.fixture
def vllm(monkeypatch) -> type[LLM]:
    """As if it were installed."""
    package, lora, request = (ModuleType(name) for name in ("vllm", "vllm.lora", "vllm.lora.request"))
    package.LLM, package.SamplingParams, request.LoRARequest = LLM, SamplingParams, LoRARequest  # type: ignore[attr-defined]
    for module in (package, lora, request):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(engine, "find_spec", lambda name: object())
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    monkeypatch.setattr(LLM, "made", [])
    return LLM


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("hub") / "vlm"
    VLM.scratch(load(smoke.ROOT, scale="tiny").models.vlm.config, chat_tokenizer(world.vocabulary()), 0).save(folder)
    return folder


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    scene = world.Scene(shape="cone", colour="blue")
    return torch.stack([torch.from_numpy(world.render_event(scene, e)) for e in ("left", "grow")])


def policy(folder: Path, **machine) -> VLM:
    told = {"models": {"vlm": {"repo": str(folder), "revision": "x", "positions": "largest"}}}
    params = load(smoke.ROOT, scale="tiny").with_(machine={"sampler": "vllm", "sample_batch": 4} | machine, **told)
    vlm = load_vlm(params, folder.parent)
    vlm.add_lora(4, 8, 0)
    return shaken(vlm, 0)


def shaken(vlm: VLM, seed: int) -> VLM:
    for name, p in vlm.model.named_parameters():
        if "lora_B" in name:
            p.data = torch.randn(p.shape, generator=torch.Generator().manual_seed(seed)) * 0.05
    return vlm


def test_not_installed_is_one_line_before_a_model_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    monkeypatch.setattr(VLM, "load", None)
    with pytest.raises(UserError, match=r"machine\.sampler is vllm, which is not installed here; pip install") as told:
        policy(folder)
    assert "\n" not in str(told.value)


def test_answers_come_with_their_tokens_and_log_probabilities(vllm, folder, clips, capsys):
    vlm = policy(folder, vllm_memory=0.4)
    prompts = vlm.inputs(clips, QUESTIONS, [3.0, 2.5])
    answers = vlm.sample(prompts, seeds=SEEDS, **ASKED)
    (llm,) = vllm.made
    assert not llm.awake and llm.config == ("float32", 4, 0.4) and llm.max_lora_rank == 8
    fps = [prompt["mm_processor_kwargs"]["fps"] for prompt, _ in llm.seen]
    assert fps == [3.0] * 3 + [2.5] * 3 and len({how.seed for _, how in llm.seen}) == 6
    own, vlm.engine = vlm.engine, None
    ours = vlm.sample(prompts, seeds=[(how.seed,) for _, how in llm.seen], **ASKED)
    assert torch.equal(answers.ids, ours.ids) and torch.equal(answers.mask, ours.mask) and answers.texts == ours.texts
    assert_close(answers.drawn, ours.drawn, rtol=0, atol=1e-4)
    assert_close(vlm.log_probs(prompts, answers, 0.8).detach(), answers.drawn, rtol=0, atol=1e-4)
    assert "differ from ours by" in capsys.readouterr().out
    vlm.engine = own
    shaken(vlm, 1)
    again = vlm.sample(vlm.see(prompts), seeds=SEEDS, **ASKED)  # features, and the adapter after an update
    assert len(vllm.made) == 1 and [lora.lora_int_id for lora in llm.loras] == [1, 2]
    assert not Path(llm.loras[0].lora_path).exists()
    assert_close(vlm.log_probs(prompts, again, 0.8).detach(), again.drawn, rtol=0, atol=1e-4)
    assert "differ" not in capsys.readouterr().out, "once"


def test_prompts_keep_their_clips_in_every_form(vllm, folder, clips):
    vlm = policy(folder)
    make = [lambda i=i: vlm.inputs(clips[i : i + 1], [QUESTIONS[i]], 3.0) for i in (0, 1)]
    batch = vlm.together([vlm.kept(("clip", i), make[i]) for i in (0, 1)])
    for prompts in (batch, pick(batch, [0, 1])):
        for shown, clip in zip(prompts["shown"], clips.numpy(), strict=True):
            assert np.array_equal(shown["clip"], clip)
    assert vlm.sample(batch, seeds=SEEDS, **ASKED).ids.shape[0] == 6
    assert in_parts(2, 3, 4), "more than sample_batch at once: cutting them is vLLM's own"
    assert len(vllm.made[0].seen) == 6


@pytest.mark.parametrize("more", [{"within_template": True, "max_new_tokens": 40}, {"hub_defaults": True}], ids=str)
def test_what_vllm_does_not_do_our_sampler_does(vllm, folder, clips, more):
    vlm = policy(folder)
    assert vlm.sample(vlm.inputs(clips, QUESTIONS, 3.0), seeds=SEEDS, **(ASKED | more)).drawn is not None
    assert not vllm.made


@pytest.mark.parametrize("more", [{"temperature": 0.0}, {"top_p": 0.5}], ids=str)
def test_log_probabilities_of_a_cut_distribution_are_not_taken(vllm, folder, clips, more):
    vlm = policy(folder)
    answers = vlm.sample(vlm.inputs(clips, QUESTIONS, 3.0), seeds=SEEDS, **(ASKED | more))
    assert answers.drawn is None and len(answers.texts) == 6


def test_a_vllm_that_reads_the_prompt_otherwise_is_refused(vllm, folder, clips, monkeypatch):
    monkeypatch.setattr(vllm, "rate_factor", 0.01)  # another length of a second
    monkeypatch.setattr(engine, "MOST", 1e-3)  # toy weights hardly see it
    vlm = policy(folder)
    with pytest.raises(UserError, match="its log-probabilities differ from ours by .* use another one"):
        vlm.sample(vlm.inputs(clips, QUESTIONS, 3.0), seeds=SEEDS, **ASKED)


def test_what_vllm_cannot_load_is_refused(vllm, folder, clips):
    for name, value, said in (("position_rule", "grid", "largest alone"), ("vision", {"a": 1}, "a vision part")):
        vlm = policy(folder)
        setattr(vlm, name, value)
        with pytest.raises(UserError, match=said):
            vlm.sample(vlm.inputs(clips, QUESTIONS, 3.0), seeds=SEEDS, **ASKED)
    assert not vllm.made


def test_of_several_processes_each_has_an_engine_in_the_group_that_is_there(vllm, folder, monkeypatch):
    monkeypatch.setattr(engine.dist, "is_initialized", lambda: True)
    monkeypatch.setattr(engine.dist, "get_world_size", lambda: 4)
    monkeypatch.setattr(engine.dist, "get_rank", lambda: 2)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.setenv(name, "0")  # of rank 0, which has an engine, too, and started this process
    found: dict = {}
    monkeypatch.setattr(sys.modules["vllm"], "LLM", lambda **given: found.update(given))
    vlm = policy(folder)
    assert isinstance(vlm.engine, Engine)
    vlm.engine._start(vlm, 100)
    assert found["distributed_executor_backend"] == "external_launcher" and found["max_model_len"] == 100
    assert (engine.os.environ["RANK"], engine.os.environ["WORLD_SIZE"]) == ("2", "4")


def test_it_takes_no_adapter_that_is_cut_up():
    with pytest.raises(UserError, match=r"machine\.sampler: takes whole adapters"):
        load(smoke.ROOT, scale="tiny").with_(machine={"sampler": "vllm", "shard": True})
