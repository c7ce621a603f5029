"""Supervised fine-tuning of both models (paper, section 3.2).

VLM: LoRA on all linear layers, cross-entropy on the answer's tokens only, [Think]reasoning[/Think][Ans]caption[/Ans].
VDM: flow matching on the target clip given the ground-truth caption and the reference latents of the input clip.

Deviations from the paper
1. With `sft.vdm.drop_caption` a share of captions is replaced by the negative prompt, so that guidance keeps a trained
   unconditional branch; the paper does not say whether it does this.
2. With `sft.vdm.labels` a share of captions is replaced by the source's own label of the clip: what video models are
   trained on comes from another captioner than what the VLM answers (toy scale; none at the paper's).
3. The answer has spaces around its tags, which the template allows (`vans.template.answer_text`); none under
   `models.protocol: release`.
4. Noise levels are drawn stratified over the batch, in [0.108, 0.9952] of Wan's grid at shift 5 (`vans.train.flow`).
5. Toy scale: other steps, learning rates and optimisers (params.yaml).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from vans import files
from vans.data.batches import batch_ids, prompts_of
from vans.data.triplets import Triplets
from vans.grpo.rollout import numbers, zero
from vans.models.load import load_vdm, load_vlm
from vans.models.protocol import protocol_of
from vans.parallel import Ranks, launch
from vans.plan.work import of_step
from vans.preflight import preflight
from vans.rng import generator, noise, numpy_generator, seed_of
from vans.sharding import over, update
from vans.template import answer_text
from vans.train.feed import embeddings, latents
from vans.train.flow import flow_matching_loss, training_sigmas
from vans.train.loop import columns, write_curves
from vans.train.optim import optimizer, schedule, set_lr
from vans.train.runs import Run
from vans.train.settings import settings_of

OUT, CURVES = "models/sft", "curves/sft"
ENTRY = "vans/train/sft.py"


def train(params: Any, root: Path) -> list[dict]:
    """Both SFTs; writes models/sft/vlm (adapter), models/sft/vdm/transformer and the curves.

    Returns the history with vlm/... and vdm/... columns, a dict a step.
    """
    preflight(params, root, "sft", ["models/base/vlm", "models/base/vdm"])
    with files.atomic_dir(root / OUT) as partial:
        histories = launch("vans.train.sft:train_both", params.machine, params=params, root=str(root), out=str(partial))
    history = columns(histories)
    write_curves(root / CURVES, history)
    return history


def train_both(ranks: Ranks, params: Any, root: str, out: str) -> dict[str, list[dict]]:
    here, folder = Path(root), Path(out)
    return {
        "vlm": train_vlm(ranks, params, here, folder / "vlm"),
        "vdm": train_vdm(ranks, params, here, folder / "vdm"),
    }


def train_vlm(ranks: Ranks, params: Any, root: Path, out: Path) -> list[dict]:
    s = params.sft.vlm
    settings = settings_of(
        params, root, ranks, ENTRY, ("seed", "train_seed", "sft.vlm", "models.vlm"), ["models/base/vlm"]
    )
    run = Run(root, "sft/vlm", settings, ranks, params.keep.checkpoints.sft)
    if run.done:
        return run.take(out)
    keys = (params.seed, params.train_seed, "sft", "vlm")
    triplets = Triplets(root / "triplets")
    place = "cpu" if (cut := over(params, ranks)) else ranks.device
    vlm = load_vlm(params, root / "models/base", device=place)
    vlm.add_lora(s.lora_rank, s.lora_alpha, seed_of(*keys, "lora") % 2**31).to(place)
    trained = vlm.train_lora(cut)
    optim = optimizer([vlm.model], s.optimizer, s.lr, s.adam_lr)
    ids, spaces = triplets.select(split="train"), protocol_of(params).spaces
    run.attach({"vlm": vlm.model}, {"vlm": optim})
    for step in run.steps(s.steps, of_step(params, "sft/vlm")):
        set_lr(optim, schedule(step, s.steps, s.warmup, s.decay))
        mine = ranks.share(batch_ids(ids, step, s.batch, *keys))  # B of this rank
        optim.zero_grad()
        total = zero(ranks.device)
        for part in torch.arange(len(mine)).split(s.micro_batch):
            rows = [triplets.row(mine[i]) for i in part.tolist()]  # M
            prompts = prompts_of(vlm, triplets, [r["id"] for r in rows])
            answers = vlm.encode_answers([answer_text(r["reasoning"], r["caption"], spaces) for r in rows])  # [M, L]
            with vlm.recomputing():
                logp = vlm.log_probs(prompts, answers, suppress=False)  # [M, L]
            loss = -(logp.sum(1) / answers.mask.sum(1)).sum() / len(mine)  # mean over answers of the mean over tokens
            loss.backward()
            total += loss.detach().double()
        norm = update(optim, trained, ranks, s.grad_clip)
        run.log(step, **numbers({"loss": total, "grad_norm": norm}))
    return run.finish(out, vlm.save_lora)


def train_vdm(ranks: Ranks, params: Any, root: Path, out: Path) -> list[dict]:
    s = params.sft.vdm
    settings = settings_of(
        params, root, ranks, ENTRY, ("seed", "train_seed", "sft.vdm", "models.vdm"), ["models/base/vdm"]
    )
    run = Run(root, "sft/vdm", settings, ranks, params.keep.checkpoints.sft)
    if run.done:
        return run.take(out)
    keys = (params.seed, params.train_seed, "sft", "vdm")
    triplets = Triplets(root / "triplets")
    vdm = load_vdm(params, root / "models/base", device="cpu" if (cut := over(params, ranks)) else ranks.device)
    vdm.dit.float().requires_grad_(True)
    if cut is not None:
        vdm.shard(cut)
    trained = [p for p in vdm.dit.parameters() if p.requires_grad]
    optim = optimizer([vdm.dit], s.optimizer, s.lr, s.adam_lr)
    ids = triplets.select(split="train")
    inputs = latents(root, vdm, triplets, ids, "input", ranks)
    targets = latents(root, vdm, triplets, ids, "target", ranks)
    columns = ["caption", *(["target_sentence"] if s.labels else [])]
    texts = sorted({triplets.row(i)[column] for i in ids for column in columns} | {vdm.negative_prompt})
    embedded = embeddings(root, vdm, texts, ranks)
    vdm.text_encoder.to("meta")  # not needed any more: 11 GB at the paper scale, in every process
    run.attach({"dit": vdm.dit}, {"dit": optim})
    for step in run.steps(s.steps, of_step(params, "sft/vdm")):
        set_lr(optim, schedule(step, s.steps, s.warmup, s.decay))
        # the whole batch's draws, then this process's part of them: the same for any number of processes
        whole = batch_ids(ids, step, s.batch, *keys)
        levels = training_sigmas(len(whole), vdm.shift, generator(*keys, step)).tolist()
        said = texts_of([triplets.row(i) for i in whole], s, vdm.negative_prompt, numpy_generator(*keys, step))
        mine, levels, said = ranks.share(whole), ranks.share(levels), ranks.share(said)  # B of this rank
        optim.zero_grad()
        total = zero(ranks.device)
        for part in torch.arange(len(mine)).split(s.micro_batch):
            chosen, captions = [mine[i] for i in part], [said[i] for i in part]  # M
            x = targets[chosen].to(ranks.device)  # [M, C, T', H', W']
            reference = vdm.pick_references(inputs[chosen].to(ranks.device))  # [M, C, n, H', W']
            eps = noise(tuple(x.shape[1:]), chosen, *keys, step)  # [M, C, T', H', W']
            sigma = torch.tensor([levels[i] for i in part])  # [M]
            loss = flow_matching_loss(vdm, x, eps, embedded[captions], reference, sigma) * (len(chosen) / len(mine))
            loss.backward()
            total += loss.detach().double()
        norm = update(optim, trained, ranks, s.grad_clip)
        run.log(step, **numbers({"loss": total, "grad_norm": norm}))
    return run.finish(out, lambda folder: vdm.dit.save_pretrained(folder / "transformer"))


def texts_of(rows: list[dict], s: Any, negative: str, draw: np.random.Generator) -> list[str]:
    """What the VDM is told of each clip: its caption, the source's label of it (`labels`), nothing (`drop_caption`)."""
    dropped, labelled = draw.random((2, len(rows)))
    said = [row["target_sentence" if u < s.labels else "caption"] for row, u in zip(rows, labelled, strict=True)]
    return [negative if u < s.drop_caption else text for u, text in zip(dropped, said, strict=True)]
