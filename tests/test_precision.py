"""The paper scale's way of computing, on toy models: all of them loaded from repositories, bf16 autocast, activations
recomputed in the backward pass, guidance. Stage 2's ratio is exactly 1 at the first inner update there, too, and stage
1's sampler and first update agree."""

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml

from tests import smoke
from vans.grpo.denoising import Conditions, Trajectories, sde_rollout, vdm_updates
from vans.grpo.rollout import WithTensors, frozen_copy, initial_noise
from vans.grpo.tokens import vlm_updates
from vans.models.clip import CLIP
from vans.models.load import load_vdm, load_vlm, vdm_options
from vans.models.tokenizer import chat_tokenizer, text_tokenizer
from vans.models.vdm import VDM
from vans.models.vlm import VLM
from vans.parallel import Ranks
from vans.params import Params, load
from vans.rng import generator
from vans.toy import world
from vans.train import base, stage2
from vans.train.optim import optimizer

ALONE = Ranks(0, 1, torch.device("cpu"))
NOWHERE = Path("models/none")
QUESTIONS = ["what will happen ?", "what happens next if the wind blows ?"]
PARTS = {"vdm": "Wan2.1-T2V-1.3B", "vlm": "Qwen2.5-VL-3B-Instruct", "clip": "vit_base_patch32_clip_224.openai"}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """A repository whose paper scale has its own models' parameters, but toy weights and clips of the toy world."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("root")
    tree = yaml.safe_load((smoke.ROOT / "params.yaml").read_text())
    tiny, paper = tree["scales"]["tiny"], tree["scales"]["paper"]
    params = load(smoke.ROOT, scale="tiny")
    words = world.vocabulary()
    models = params.models
    VDM.scratch(models.vdm.config, text_tokenizer(words), 0, **vdm_options(params)).save(folder / PARTS["vdm"])
    VLM.scratch(models.vlm.config, chat_tokenizer(words), 0).save(folder / PARTS["vlm"])
    CLIP.scratch(models.clip.config, text_tokenizer(words), 0).save(folder / PARTS["clip"])
    for part, name in PARTS.items():
        paper["models"][part]["repo"] = str(folder / name)
    paper["models"]["vdm"] |= {"references": 3, "max_text": 24, "negative_prompt": "static"}
    paper["video"] = tiny["video"]
    paper["machine"] |= {"device": "cpu", "processes": 1, "threads": 1}
    tree["scale"] = "paper"
    (folder / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    (folder / "dvc.yaml").write_text((smoke.ROOT / "dvc.yaml").read_text())
    return folder


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    scene = world.Scene(shape="cone", colour="blue")
    return torch.stack([torch.from_numpy(world.render_event(scene, e)) for e in ("left", "grow")])


class Gradients:
    """In the place of an optimiser: keeps the gradients of the first step, changes nothing."""

    def __init__(self, weights):
        self.weights = weights

    def zero_grad(self):
        for p in self.weights:
            p.grad = None

    def step(self):
        self.kept = [p.grad.clone() for p in self.weights]


def settings(inner: int, **keys) -> SimpleNamespace:
    return SimpleNamespace(inner_updates=inner, grad_clip=1.0, clip_range=1e-3, beta=0.004, **keys)


# ---- the base stage ------------------------------------------------------------------------------------------
def test_base_stage_without_anything_to_train_writes_what_the_graph_declares(root):
    assert base.train(load(root), root) == []
    stage = yaml.safe_load((root / "dvc.yaml").read_text())["stages"]["base"]
    declared = [*stage["outs"], *stage["metrics"], *stage["plots"]]
    assert len(declared) >= 4
    assert [name for name in declared if not (root / name).exists()] == []
    assert {p.name for p in (root / "models/base").iterdir()} == {f"{p}.json" for p in base.PARTS}


@pytest.mark.parametrize("where", ["attention", "adapter"])
def test_recomputing_wakes_no_dropout(root, clips, where):
    params = load(root)
    policy, _ = vlm_policy(params)
    found = 0
    for module in policy.model.modules():
        if where == "attention" and hasattr(module, "attention_dropout"):
            module.attention_dropout, found = 0.5, found + 1
        elif where == "adapter" and hasattr(module, "lora_dropout"):
            module.lora_dropout["default"], found = torch.nn.Dropout(0.5), found + 1
    assert found
    policy.model.eval()
    inputs, answers = rollout1(policy, clips)
    calm = policy.log_probs(inputs, answers)
    with policy.recomputing():
        torch.testing.assert_close(policy.log_probs(inputs, answers), calm, rtol=0, atol=0)
    assert calm.abs().sum() > 0 and not policy.model.training


# ---- stage 1 -------------------------------------------------------------------------------------------------
def vlm_policy(params: Params) -> tuple[VLM, list]:
    """bf16 weights under a float32 LoRA that is not at its start."""
    policy = load_vlm(params, NOWHERE)
    policy.add_lora(4, 8, 0)
    for i, (name, p) in enumerate(policy.model.named_parameters()):
        p.requires_grad_("lora_" in name)
        if "lora_B" in name:
            p.data = torch.randn(p.shape, generator=generator("lora", i)) * 0.05
    return policy, [p for p in policy.model.parameters() if p.requires_grad]


def rollout1(policy: VLM, clips) -> tuple:
    inputs = policy.inputs(clips, QUESTIONS, 3.0)
    seeds = [(i, g) for i in range(2) for g in range(4)]
    return inputs, policy.sample(inputs, seeds=seeds, max_new_tokens=12, temperature=1.0)


def updates1(policy, weights, inputs, answers, optim, inner: int) -> dict:
    s = settings(inner, temperature=1.0, micro_batch=2, group_size=4)
    start = WithTensors(policy.model, {n: p * 0.5 for n, p in frozen_copy(policy.model).items()})
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5, 1.5, -1.5, 0.2, -0.2])
    return vlm_updates(policy, start, inputs, answers, advantages, s, optim, weights, ALONE)


def test_stage1_in_bf16_with_recomputed_activations(root, clips):
    params = load(root)
    assert params.machine.dtype == "bfloat16" and params.machine.gradient_checkpointing == "all"
    policy, weights = vlm_policy(params)
    assert {p.dtype for p in weights} == {torch.float32}
    assert {p.dtype for n, p in policy.model.named_parameters() if "lora_" not in n} == {torch.bfloat16}
    inputs, answers = rollout1(policy, clips)
    layer = next(m for n, m in policy.model.named_modules() if n.endswith("language_model.layers.0.mlp"))
    runs = {"count": 0}
    layer.register_forward_pre_hook(lambda *_: runs.__setitem__("count", runs["count"] + 1))
    answers = replace(answers, drawn=answers.drawn + 0.5)  # as if the sampler had seen others: the gap must show it
    stats = updates1(policy, weights, inputs, answers, optimizer([policy.model], "adamw", 1e-3), inner=2)
    assert runs["count"] == 4 * (1 + 2 * 2), "the reference once; each of two updates forward and recomputed"
    assert abs(stats["sampler_gap"] - 0.5) < 0.1, "but for that, sampler and first update may round apart, and no more"
    assert stats["ratio_last"] > 0 and stats["kl"] > 0
    assert not policy.model.training, "recomputing leaves the model in eval mode"


def test_stage1_gradients_do_not_depend_on_recomputing(root, clips):
    found, said = [], []
    for checkpointing in ("all", "half", "none"):
        policy, weights = vlm_policy(load(root).with_(machine={"gradient_checkpointing": checkpointing}))
        inputs, answers = rollout1(policy, clips)
        optim = Gradients(weights)
        updates1(policy, weights, inputs, answers, optim, inner=1)
        found.append(optim.kept)
        said.append(answers.texts)
    assert said[0] == said[1] == said[2]
    assert sum(g.abs().sum() for g in found[0]) > 0
    for some in zip(*found, strict=True):
        assert torch.equal(some[0], some[1]) and torch.equal(some[0], some[2])


# ---- stage 2 -------------------------------------------------------------------------------------------------
def dit_policy(params: Params, lora_rank: int) -> tuple[VDM, list]:
    policy = load_vdm(params, NOWHERE)
    stage2.make_trainable(policy, lora_rank, 0)
    for i, (name, p) in enumerate(policy.dit.named_parameters()):
        if "lora_B" in name:
            p.data = torch.randn(p.shape, generator=generator("lora", i)) * 0.05
    return policy, [p for p in policy.dit.parameters() if p.requires_grad]


def settings2(inner: int, guidance: float, grad: str) -> SimpleNamespace:
    sde = {"render_steps": 3, "train_steps": 0, "noise_level": 0.7, "guidance": guidance, "guidance_grad": grad}
    return settings(inner, micro_batch=2, guidance_start=0.0, guidance_stop=1.0, **sde)


def rollout2(policy: VDM, clips, s: SimpleNamespace) -> tuple[Trajectories, Conditions]:
    with torch.no_grad():
        text = policy.embed(["the ball fades and soon looks as before .", "the box is at rest ."])[[0, 0, 1, 1]]
        negative = policy.embed([policy.negative_prompt])
    given = Conditions(text, policy.pick_references(policy.encode(clips))[[0, 0, 1, 1]], negative)
    start = WithTensors(policy.network, {n: p * 0.98 for n, p in frozen_copy(policy.network).items()})
    noises = initial_noise(policy.latent_shape(*clips.shape[1:4]), ["a", "b"], 2, False, "test")
    names = [f"{i}/{g}" for i in "ab" for g in range(2)]
    return sde_rollout(policy, given, noises, names, ("test",), s, start), given


def updates2(policy, weights, trajectories: Trajectories, given: Conditions, optim, s: SimpleNamespace) -> dict:
    advantages = torch.tensor([1.0, -1.0, 0.5, -0.5])
    return vdm_updates(policy, trajectories, given, advantages, s, optim, weights, ALONE, len(advantages))


@pytest.mark.parametrize("lora_rank", [0, 4])
@pytest.mark.parametrize(("guidance", "grad"), [(1.0, "both"), (5.0, "conditional"), (5.0, "both")])
def test_stage2_in_bf16_with_recomputed_activations(root, clips, lora_rank, guidance, grad):
    params = load(root)
    policy, weights = dit_policy(params, lora_rank)
    assert {p.dtype for p in policy.dit.parameters()} == {torch.float32}
    s = settings2(2, guidance, grad)
    trajectories, given = rollout2(policy, clips, s)
    for tensor in (*trajectories.states, *trajectories.ref_means, trajectories.old_logp, trajectories.final):
        assert tensor.dtype == torch.float32
        assert not torch.equal(tensor, tensor.bfloat16().float()), "it must not have been rounded on its way either"
    runs = {"count": 0}
    policy.network.blocks[0].ffn.register_forward_pre_hook(lambda *_: runs.__setitem__("count", runs["count"] + 1))
    optim = optimizer([policy.dit], "adamw", 1e-3)
    stats = updates2(policy, weights, trajectories, given, optim, s)
    passes = {(1.0, "both"): (2, 2), (5.0, "conditional"): (2, 3), (5.0, "both"): (4, 4)}[guidance, grad]
    assert runs["count"] == 2 * 2 * sum(passes), "two updates of two micro-batches and two steps; the first reuses"
    assert stats["ratio_first"] == 0.0
    assert stats["ratio_last"] > 0 and stats["kl"] > 0


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_stage2_gradients_do_not_depend_on_recomputing(root, clips, lora_rank):
    found = []
    for checkpointing in ("all", "half", "none"):
        params = load(root).with_(machine={"gradient_checkpointing": checkpointing})
        policy, weights = dit_policy(params, lora_rank)
        s, optim = settings2(1, 5.0, "conditional"), Gradients(weights)
        updates2(policy, weights, *rollout2(policy, clips, s), optim, s)
        found.append(optim.kept)
    assert sum(g.abs().sum() for g in found[0]) > 0
    for some in zip(*found, strict=True):
        assert torch.equal(some[0], some[1]) and torch.equal(some[0], some[2])
