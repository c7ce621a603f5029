"""A little training of both models for `vans.parallel.launch`: toy networks, recomputed activations, own rewards."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch

from tests import smoke
from vans.grpo.denoising import Conditions, sde_rollout, vdm_updates
from vans.grpo.rollout import initial_noise, reference
from vans.grpo.tokens import vlm_updates
from vans.models.load import vdm_options
from vans.models.tokenizer import chat_tokenizer, text_tokenizer
from vans.models.vdm import VDM
from vans.models.vlm import VLM
from vans.parallel import Ranks
from vans.params import load
from vans.rng import generator
from vans.toy import world
from vans.train.optim import optimizer
from vans.train.runs import Run
from vans.train.stage2 import make_trainable

QUESTIONS = ["what will happen ?", "what happens next if the wind blows ?"]
CAPTIONS = ["the ball fades and soon looks as before .", "the box is at rest ."]
LAYERS = {"vlm": [("text_config", "num_hidden_layers")], "vdm": [("dit", "num_layers")]}
S1 = {"group_size": 2, "temperature": 1.0, "beta": 0.04, "clip_range": 0.2}
S2 = {"render_steps": 3, "train_steps": 1, "noise_level": 0.7, "guidance": 2.0, "guidance_grad": "conditional"}
S2 |= {"guidance_start": 0.0, "guidance_stop": 1.0}
S2 |= {"beta": 0.04, "clip_range": 1e-3}


def models() -> tuple[VLM, VDM]:
    """Two layers each of random weights, the adapter not at its start."""
    params, words, config = load(smoke.ROOT, scale="tiny"), world.vocabulary(), {}
    for name in ("vlm", "vdm"):
        told = dict(getattr(params.models, name).config)
        config[name] = told | {part: {**told[part], key: 2} for part, key in LAYERS[name]}
    vlm = VLM.scratch(config["vlm"], chat_tokenizer(words), 0).add_lora(4, 8, 0)
    for i, (name, p) in enumerate(vlm.model.named_parameters()):
        if "lora_B" in name:
            p.data = torch.randn(p.shape, generator=generator("lora", i)) * 0.05
    vdm = VDM.scratch(config["vdm"], text_tokenizer(words), 0, **vdm_options(params))
    return vlm.checkpoint_activations("all"), vdm.checkpoint_activations("all")


def clips() -> torch.Tensor:
    scene = world.Scene(shape="cone", colour="blue")
    return torch.stack([torch.from_numpy(world.render_event(scene, e)[:5]) for e in ("left", "grow")])


def train(ranks: Ranks, root: str, out: str, shard: bool, steps: int) -> int:
    """Two prompts a step, shared over the ranks; ends after so many of two steps. Returns the step it began with."""
    vlm, vdm = models()
    cut = ranks if shard else None
    trained = vlm.train_lora(cut)
    save_dit = make_trainable(vdm, 0, 0, cut)
    weights = [p for p in vdm.dit.parameters() if p.requires_grad]
    starts = reference(vlm.model), reference(vdm.dit)
    optims = {"vlm": optimizer([vlm.model], "adamw", 1e-4), "dit": optimizer([vdm.dit], "adamw", 1e-5)}
    run = Run(root, "both", {"machine": {"processes": ranks.size}}, ranks, every=1)
    run.attach({"vlm": vlm.model, "dit": vdm.dit}, optims)
    begun, common = run.position, {"inner_updates": 2, "grad_clip": 1.0, "micro_batch": 1}
    s1, s2 = SimpleNamespace(**common, **S1), SimpleNamespace(**common, **S2)
    mine, every = ranks.share([0, 1]), clips()
    for step in run.steps(2):
        inputs = vlm.inputs(every[mine], [QUESTIONS[i] for i in mine], 3.0)
        seeds = [(step, i, g) for i in mine for g in range(2)]
        answers = vlm.sample(inputs, seeds=seeds, max_new_tokens=5, temperature=1.0)
        advantages = torch.tensor([[1.0, -1.0], [1.5, -0.5]])[mine]
        of_vlm = vlm_updates(vlm, starts[0], inputs, answers, advantages.flatten(), s1, optims["vlm"], trained, ranks)
        with torch.no_grad():
            repeat = [i for i in mine for _ in range(2)]
            text, negative = vdm.embed([CAPTIONS[i] for i in repeat]), vdm.embed([""])
            given = Conditions(text, vdm.pick_references(vdm.encode(every[repeat])), negative)
        noises = initial_noise(vdm.latent_shape(*every.shape[1:4]), [str(i) for i in mine], 2, False, step)
        names = [f"{i}/{g}" for i in mine for g in range(2)]
        trajectories = sde_rollout(vdm, given, noises, names, (step,), s2, starts[1])
        some = advantages.flatten()
        of_dit = vdm_updates(vdm, trajectories, given, some, s2, optims["dit"], weights, ranks, len(some))
        assert of_vlm["kl"] > 0 and of_dit["ratio_first"] == 0 and of_dit["kl"] > 0
        run.log(step, kl=of_vlm["kl"], vdm_kl=of_dit["kl"], norm=of_vlm["grad_norm"], vdm_norm=of_dit["grad_norm"])
        if step + 1 == steps < 2:
            run.checkpoints.settle()
            return begun

    def save(folder: Path) -> None:
        vlm.save_lora(folder / "vlm")
        save_dit(folder)

    run.finish(out, save)
    return begun


def trained(ranks: Ranks, root: str) -> list[int]:
    """Whole, the first half, and the second half of another number's first: what two processes are tested with."""
    at = Path(root)
    whole = train(ranks, str(at / "two"), str(at / "two/out"), True, 2)
    train(ranks, str(at / "two_one"), "", True, 1)
    return [whole, train(ranks, str(at / "one_two"), str(at / "one_two/out"), True, 2)]
