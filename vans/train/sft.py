"""Supervised fine-tuning of both models (paper, section 3.2).

VLM: LoRA on all linear layers, cross-entropy on the answer's tokens only, [Think]reasoning[/Think][Ans]caption[/Ans].
VDM: flow matching on the target clip given the ground-truth caption and the reference latents of the input clip.

Deviations from the paper
1. With `sft.vdm.drop_caption` a share of captions is replaced by the negative prompt, so that guidance keeps a trained
   unconditional branch; the paper does not say whether it does this.
2. The answer has spaces around its tags, which the template allows.
3. Toy scale: other steps, learning rates and optimisers (params.yaml).
"""

from __future__ import annotations

from pathlib import Path

import torch

from vans import files
from vans.data.triplets import Triplets
from vans.models.load import load_vdm, load_vlm
from vans.parallel import Group, launch
from vans.params import load
from vans.rng import generator, noise, numpy_generator, seed_of
from vans.template import TAGS
from vans.train.feed import batch_ids, embeddings, latents, prompts_of
from vans.train.flow import flow_matching_loss, training_sigmas
from vans.train.loop import Run, write_curves
from vans.train.optim import optimizer, schedule, set_lr
from vans.train.save import fingerprint, finish_part, kept_part


def answer_text(reasoning: str, caption: str) -> str:
    """The answer that SFT teaches, in the template that the format reward checks."""
    return f"{TAGS[0]} {reasoning} {TAGS[1]} {TAGS[2]} {caption} {TAGS[3]}"


def train(root: Path, out: Path, curves: Path) -> list[dict]:
    """Both SFTs; `out` gets vlm/ (adapter) and vdm/transformer/. Returns the history with vlm/… and vdm/… columns."""
    params = load(root)
    with files.atomic_dir(out) as partial:
        rows: dict[int, dict] = {}
        for part in ("vlm", "vdm"):
            history = launch(f"vans.train.sft:train_{part}", params.machine, root=str(root), out=str(partial / part))
            for row in history:
                rows.setdefault(row["step"], {"step": row["step"]}).update(
                    {f"{part}/{k}": v for k, v in row.items() if k != "step"}
                )
    merged = [rows[s] for s in sorted(rows)]
    write_curves(curves, merged)
    return merged


def train_vlm(group: Group, root: str, out: str) -> list[dict]:
    params = load(root)
    s = params.sft.vlm
    if (history := kept_part(root, "sft/vlm", fingerprint(root, params, "sft", "models/base"), out, group)) is not None:
        return history
    triplets = Triplets(Path(root) / "triplets")
    vlm = load_vlm(params, Path(root) / "models/base", device=group.device)
    vlm.add_lora(s.lora_rank, s.lora_alpha, seed_of(params.seed, "sft", "lora") % 2**31).to(group.device)
    weights = [p for p in vlm.model.parameters() if p.requires_grad]
    optim = optimizer([vlm.model], s.optimizer, s.lr, s.adam_lr)
    run = Run(
        "sft/vlm",
        fingerprint(root, params, "sft", "models/base"),
        group,
        {"vlm": vlm.model},
        {"vlm": optim},
        Path(root),
        s.checkpoint_every,
    )
    ids = triplets.select(split="train")
    for step in run.steps(s.steps):
        set_lr(optim, schedule(step, s.steps, s.warmup, s.decay))
        mine = group.share(batch_ids(ids, step, s.batch, params.seed, "sft", "vlm"))
        optim.zero_grad()
        total = 0.0
        for part in torch.arange(len(mine)).split(s.micro_batch):
            rows = [triplets.row(mine[i]) for i in part.tolist()]
            inputs = prompts_of(vlm, triplets, [r["id"] for r in rows])
            answers = vlm.encode_answers([answer_text(r["reasoning"], r["caption"]) for r in rows])
            with vlm.recomputing():
                logp = vlm.log_probs(inputs, answers, suppress=False)
            loss = -(logp.sum(1) / answers.mask.sum(1)).sum() / len(mine)  # mean over answers of the mean over tokens
            loss.backward()
            total += loss.item()
        group.average_gradients(weights)
        norm = torch.nn.utils.clip_grad_norm_(weights, s.grad_clip)
        optim.step()
        run.log(step, loss=total, grad_norm=norm.item())
    return finish_part(root, "sft/vlm", run, group, out, vlm.save_lora)


def train_vdm(group: Group, root: str, out: str) -> list[dict]:
    params = load(root)
    s = params.sft.vdm
    if (history := kept_part(root, "sft/vdm", fingerprint(root, params, "sft", "models/base"), out, group)) is not None:
        return history
    triplets = Triplets(Path(root) / "triplets")
    vdm = load_vdm(params, Path(root) / "models/base", device=group.device)
    vdm.dit.float().requires_grad_(True)
    weights = [p for p in vdm.dit.parameters() if p.requires_grad]
    optim = optimizer([vdm.dit], s.optimizer, s.lr, s.adam_lr)
    ids = triplets.select(split="train")
    inputs = latents(Path(root), vdm, triplets, ids, "input", group)
    targets = latents(Path(root), vdm, triplets, ids, "target", group)
    captions = sorted({triplets.row(i)["caption"] for i in ids} | {vdm.negative_prompt})
    store = embeddings(Path(root), vdm, captions, group)
    vdm.text_encoder.to("meta")  # not needed any more: 11 GB at the paper scale, in every process
    run = Run(
        "sft/vdm",
        fingerprint(root, params, "sft", "models/base"),
        group,
        {"dit": vdm.dit},
        {"dit": optim},
        Path(root),
        s.checkpoint_every,
    )
    for step in run.steps(s.steps):
        set_lr(optim, schedule(step, s.steps, s.warmup, s.decay))
        # the whole batch's draws, then this process's part of them: the same for any number of processes
        whole = batch_ids(ids, step, s.batch, params.seed, "sft", "vdm")
        levels = training_sigmas(len(whole), vdm.shift, generator(params.seed, "sft", "vdm", step)).tolist()
        dropped = numpy_generator(params.seed, "sft", "vdm", step).random(len(whole)) < s.drop_caption
        texts = [vdm.negative_prompt if d else triplets.row(i)["caption"] for i, d in zip(whole, dropped, strict=True)]
        mine, levels, texts = group.share(whole), group.share(levels), group.share(texts)
        optim.zero_grad()
        total = 0.0
        for part in torch.arange(len(mine)).split(s.micro_batch):
            chosen, captions = [mine[i] for i in part], [texts[i] for i in part]
            x = targets[chosen].to(group.device)
            reference = vdm.pick_references(inputs[chosen].to(group.device))
            eps = noise(tuple(x.shape[1:]), chosen, params.seed, "sft", "vdm", step)
            sigma = torch.tensor([levels[i] for i in part])
            loss = flow_matching_loss(vdm, x, eps, store[captions], reference, sigma) * (len(chosen) / len(mine))
            loss.backward()
            total += loss.item()
        group.average_gradients(weights)
        norm = torch.nn.utils.clip_grad_norm_(weights, s.grad_clip)
        optim.step()
        run.log(step, loss=total, grad_norm=norm.item())
    return finish_part(root, "sft/vdm", run, group, out, lambda folder: vdm.dit.save_pretrained(folder / "transformer"))
