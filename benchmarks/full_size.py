"""What the paper's models cost: one rendered group, one update of stage 1, one update of stage 2, at full size.

    python benchmarks/full_size.py --out benchmarks/full_size.json    # a CUDA GPU; writes full_size.md beside it
    python benchmarks/full_size.py --tiny                             # toy models, any machine: does the script work?

The models are built from their public configurations with random weights, so nothing is downloaded; random weights take
the time and the memory of trained ones. Everything else is the code and the settings of the paper scale: bf16 autocast,
recomputed activations, guidance 5, 20 denoising steps, one prompt with a group of 8 on one GPU.

What differs from a real step
1. Answers of random weights do not end: each has all of `stage1.max_new_tokens`, the most that a step can cost. They
   hold no captions, so the captions that are rendered are given, and so are the advantages.
2. The text encoder has `--text-layers` of umT5-xxl's 24 layers, at full width. Its time would not be seen beside the
   DiT's, its memory would: 24 layers in bf16 are 9 GiB, and the vocabulary's table is 2 GiB.
3. One process: the gradients' all-reduce is not in the numbers.

Not measured yet: as long as benchmarks/full_size.json does not exist, this was never run on a GPU.
"""

from __future__ import annotations

import argparse
import json
import time
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from vans import params as parameters
from vans.files import atomic_write_text
from vans.grpo.denoising import Conditions, sde_rollout, vdm_updates
from vans.grpo.rollout import WithTensors, frozen_copy, initial_noise, render_captions
from vans.grpo.tokens import vlm_updates
from vans.models.clip import CLIP
from vans.models.load import vdm_options
from vans.models.tokenizer import chat_tokenizer, text_tokenizer
from vans.models.vdm import VDM
from vans.models.vlm import VLM
from vans.parallel import Ranks, device_of
from vans.plan import flops
from vans.plan.released import VDMS, VIT_B_32, VLMS
from vans.toy import world
from vans.train import stage2
from vans.train.optim import optimizer
from vans.visible import terminal

RESULT = Path(__file__).with_name("full_size.json")

WAN = VDMS["Wan-AI/Wan2.1-T2V-1.3B-Diffusers"]
QWEN = VLMS["Qwen/Qwen2.5-VL-3B-Instruct"]


class Parts:
    """Seconds and peak memory of each part; `with parts("name"):`."""

    def __init__(self, device: torch.device):
        self.device = device
        self.rows: list[dict[str, Any]] = []

    @contextmanager
    def __call__(self, name: str):
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.synchronize(self.device)
            torch.cuda.reset_peak_memory_stats(self.device)
        start = time.perf_counter()
        yield
        if cuda:
            torch.cuda.synchronize(self.device)
        seconds = time.perf_counter() - start
        peak = torch.cuda.max_memory_allocated(self.device) / 2**30 if cuda else None
        self.rows.append(
            {"part": name, "seconds": round(seconds, 4), "peak_gib": None if peak is None else round(peak, 2)}
        )
        print(f"  {name:<44} {seconds:10.3f} s" + ("" if peak is None else f"  {peak:7.1f} GiB"), flush=True)

    def seconds(self, name: str) -> float:
        return next(row["seconds"] for row in self.rows if row["part"] == name)


def build(params: parameters.Params, tiny: bool, text_layers: int, device: torch.device) -> tuple[VDM, VLM, CLIP]:
    """The three models, ready as `vans.models.load` gives them: float32 DiT and VAE, bf16 VLM under a LoRA."""
    words = world.vocabulary()
    models = params.models
    wan: dict[str, Any] = models.vdm.config if tiny else WAN
    text = {key: value for key, value in wan["text_encoder"].items() if key != "vocab_size"}  # of the toy's words
    wan = {**wan, "text_encoder": {**text, **({} if tiny else {"num_layers": text_layers})}}
    with torch.device(device):
        vdm = VDM.scratch(wan, text_tokenizer(words), 0, **vdm_options(params))
        clip = CLIP.scratch(models.clip.config if tiny else VIT_B_32, text_tokenizer(words), 0)
        torch.set_default_dtype(torch.bfloat16)  # as from_pretrained does
        try:
            config = models.vlm.config if tiny else QWEN
            vlm = VLM.scratch(config, chat_tokenizer(words), 0, models.vlm.system, position_rule=models.vlm.positions)
        finally:
            torch.set_default_dtype(torch.float32)
    vdm.text_encoder.to(torch.bfloat16)
    vdm.checkpoint_activations()
    vlm.autocast_dtype = torch.bfloat16
    vlm.checkpoint_activations()
    vlm.add_lora(params.sft.vlm.lora_rank, params.sft.vlm.lora_alpha, 0)
    return vdm.to(device), vlm.to(device), clip.to(device)


def measure(params: parameters.Params, tiny: bool, text_layers: int) -> dict:
    """Build the models and run the parts; one prompt, one group."""
    device = device_of(params.machine.device, 0)
    s1, s2, c = params.stage1, params.stage2, params.video
    vdm, vlm, clip = build(params, tiny, text_layers, device)
    size, shape = (c.frames, c.height, c.width), vdm.latent_shape(c.frames, c.height, c.width)
    group, alone, parts = s1.group_size, Ranks(0, 1, device), Parts(device)
    random = torch.Generator().manual_seed(0)
    clips = torch.randint(0, 256, (1, *size, 3), generator=random, dtype=torch.uint8)
    captions: list[str | None] = [f"the ball moves to the left . {'and then again ' * g}" for g in range(group)]
    advantages = torch.linspace(-1.5, 1.5, group)
    names, keys = [f"p/{g}" for g in range(group)], ("benchmark",)

    print("warm-up")
    with torch.no_grad():
        text, negative = vdm.embed([c or "" for c in captions]), vdm.embed([vdm.negative_prompt])
    latents = vdm.encode(clips)
    context = vdm.pick_references(latents)[[0] * group]
    start = initial_noise(shape, ["p"], group, False, *keys)
    vdm.decode(vdm.render_latents(text, context, start, 1, s1.guidance, negative)[:1])

    print("parts")
    with parts("VAE: encode one clip"):
        vdm.encode(clips)
    with parts("VAE: decode one video"):
        vdm.decode(latents)

    with parts("stage 1: prepare the prompt"):
        inputs = vlm.inputs(clips, ["what will happen ?"], c.fps)
    with parts("stage 1: sample a group of answers"):
        answers = vlm.sample(
            inputs,
            seeds=[(*keys, g) for g in range(group)],
            max_new_tokens=s1.max_new_tokens,
            temperature=s1.temperature,
        )
    with parts("stage 1: render a group"):
        videos = render_captions(
            vdm,
            [captions],
            context[:1],
            start,
            negative,
            size=size,
            steps=s1.render_steps,
            guidance=s1.guidance,
            distinct=s1.render_distinct,
        )[0]
    with parts("stage 1: CLIP features"):
        clip.image(videos)
    for n, p in vlm.model.named_parameters():
        p.requires_grad_("lora_" in n)
    trained = [p for p in vlm.model.parameters() if p.requires_grad]
    optim = optimizer([vlm.model], "adamw", s1.lr)
    policy = WithTensors(vlm.model, frozen_copy(vlm.model))
    with parts(f"stage 1: {s1.inner_updates} inner updates"):
        first = vlm_updates(vlm, policy, inputs, answers, advantages, s1, optim, trained, alone)
    vlm.frozen()

    given = Conditions(text, context, negative)
    stage2.make_trainable(vdm, s2.lora_rank, 0)
    weights = [p for p in vdm.dit.parameters() if p.requires_grad]
    optim = optimizer([vdm.dit], "adamw", s2.lr)
    policy = WithTensors(vdm.network, frozen_copy(vdm.network))
    with parts("stage 2: stochastic rollout of a group"):
        trajectories = sde_rollout(vdm, given, start, names, keys, s2, policy)
    with parts("stage 2: decode a group, CLIP features"):
        clip.image(vdm.decode(trajectories.final))
    with parts(f"stage 2: {s2.inner_updates} inner updates"):
        second = vdm_updates(vdm, trajectories, given, advantages, s2, optim, weights, alone, group)

    config = dict(vdm.dit.config)
    patches = (shape[1] + vdm.references) * (shape[2] // 2) * (shape[3] // 2)
    passes = group * s1.render_steps * (1 if s1.guidance == 1 else 2)
    flop = passes * flops.dit(config, patches, vdm.max_text)
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU, 1 thread",
        "torch": torch.__version__,
        "models": "toy" if tiny else "full size, random weights",
        "parameters_m": {
            name: round(sum(p.numel() for p in module.parameters()) / 1e6, 2)
            for name, module in {"dit": vdm.dit, "vae": vdm.vae, "text": vdm.text_encoder, "vlm": vlm.model}.items()
        },
        "settings": {
            "clip": list(size),
            "group": group,
            "render_steps": [s1.render_steps, s2.render_steps],
            "guidance": [s1.guidance, s2.guidance],
            "guidance_grad": s2.guidance_grad,
            "micro_batch": [s1.micro_batch, s2.micro_batch],
            "vae_batch": vdm.vae_batch,
            "dit_batch": vdm.dit_batch,
            "lora_rank": [params.sft.vlm.lora_rank, s2.lora_rank],
            "text_layers": vdm.text_encoder.config.num_layers,
        },
        "prompt_tokens": inputs["input_ids"].shape[1],
        "answer_tokens": round(answers.mask.sum(1).float().mean().item(), 1),
        "dit_tokens": patches,
        "render_tflop": round(flop / 1e12, 4),
        "render_tflop_per_s": round(flop / 1e12 / parts.seconds("stage 1: render a group"), 3),
        "parts": parts.rows,
        "peak_gib": max((row["peak_gib"] for row in parts.rows), default=None) if device.type == "cuda" else None,
        "stage1": {k: float(v) for k, v in first.items()},
        "stage2": {k: float(v) for k, v in second.items()},
    }


def markdown(found: dict) -> str:
    """The result as a table."""
    s = found["settings"]
    lines = [
        f"Measured on {found['device']}, torch {found['torch']}; models: {found['models']}; "
        f"clips of {' x '.join(map(str, s['clip']))}, a group of {s['group']}, {s['render_steps'][0]} denoising steps, "
        f"guidance {s['guidance'][0]:g}, bf16; {found['prompt_tokens']} tokens of prompt, {found['answer_tokens']:g} "
        f"of answer, {found['dit_tokens']} in the DiT ({found['render_tflop_per_s']:g} TFLOP/s while rendering, "
        "the VAE's time included).",
        "",
        "| part | seconds | peak memory GiB |",
        "| --- | --- | --- |",
    ]
    for row in found["parts"]:
        peak = "—" if row["peak_gib"] is None else f"{row['peak_gib']:.1f}"
        lines.append(f"| {row['part']} | {row['seconds']:.3f} | {peak} |")
    lines += [
        "",
        "| stage | first update: sampler's gap (stage 1), ratio − 1 (stage 2) | last update | clipped | KL |",
        "| --- | --- | --- | --- | --- |",
    ]
    for name in ("stage1", "stage2"):
        s = found[name]
        last = f"{s['ratio_last']:.2e}" if "ratio_last" in s else "—"
        first = s["sampler_gap" if name == "stage1" else "ratio_first"]
        lines.append(f"| {name} | {first:g} | {last} | {s['clipped']:.1%} | {s['kl']:.2e} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description="the paper's models at full size: time and memory of a step")
    parser.add_argument("--tiny", action="store_true", help="toy models, three denoising steps")
    parser.add_argument("--text-layers", type=int, default=1, help="layers of the text encoder, of umT5-xxl's 24")
    parser.add_argument("--group", type=int, help="videos of a group (default: stage1.group_size)")
    parser.add_argument("--steps", type=int, help="denoising steps (default: stage1.render_steps; toy: 3)")
    parser.add_argument("--out", type=Path, help="write the numbers to this file as JSON, and as a table beside it")
    given = parser.parse_args(arguments)

    params = parameters.load(parameters.find_root(), scale="tiny" if given.tiny else "paper")
    steps = given.steps or (3 if given.tiny else params.stage1.render_steps)
    group_size = given.group or params.stage1.group_size
    common: dict[str, Any] = {"group_size": group_size, "render_steps": steps, "guidance": 5.0}
    device = "auto" if given.tiny else "cuda"
    params = params.with_(
        machine={"device": device, "processes": 1, "dtype": "bfloat16", "gradient_checkpointing": "all"},
        stage1=common,
        stage2={**common, "guidance_grad": "conditional"},
    )
    torch.set_num_threads(params.machine.threads)
    if not RESULT.exists():
        print(f"{RESULT.name} does not exist: the full size has not been measured on a GPU yet")
    found = measure(params, given.tiny, given.text_layers)
    print("\n" + markdown(found))
    if given.out:
        atomic_write_text(given.out, json.dumps(found, indent=2) + "\n")
        atomic_write_text(given.out.with_suffix(".md"), markdown(found))
    return found


if __name__ == "__main__":
    with terminal():  # who reads along may go: the figures are written all the same
        main()
