"""The ablation "all in one stage": VLM and VDM tuned at once, on one shared reward.

Each step samples G answers of each prompt, renders each answer's caption by one stochastic trajectory of the VDM, and
gives that (caption, video) pair the sum of both stages' rewards. The one advantage of the pair updates both models: if
it is bad, neither can tell whose fault it was. Everything else is stage 1's and stage 2's own code.

Deviation from the paper: it says only that both are trained in a single stage; this is the plainest reading.
"""

from __future__ import annotations

from pathlib import Path

import torch

from vans import files, similarity, template
from vans.data.triplets import Triplets
from vans.grpo import core, rewards
from vans.grpo.rollout import WithTensors, frozen_copy, initial_noise, sde_rollout
from vans.models.load import load_clip, load_vdm, load_vlm
from vans.parallel import Group, launch
from vans.params import load
from vans.rng import seed_of
from vans.train import stage1, stage2
from vans.train.feed import batch_ids, clips_of, latents, prompts_of, write_group
from vans.train.loop import Run, write_curves
from vans.train.optim import optimizer, schedule, set_lr
from vans.train.save import fingerprint, finish_part, kept_part


def train(root: Path, out: Path, curves: Path, vlm: Path, vdm: Path) -> list[dict]:
    """Tune both models of the folders `vlm` and `vdm` (relative to root); `out` gets vlm/ and vdm/."""
    params = load(root)
    stage1.check_batch(params.all_in_one.prompts, params.stage1.group, params.machine.processes, "all_in_one")
    with files.atomic_dir(out) as partial:
        history = launch(
            "vans.train.all_in_one:train_both",
            params.machine,
            root=str(root),
            out=str(partial),
            vlm=str(vlm),
            vdm=str(vdm),
        )
    write_curves(curves, history)
    return history


def train_both(group: Group, root: str, out: str, vlm: str, vdm: str) -> list[dict]:
    params = load(root)
    s1, s2, base = params.stage1, params.stage2, Path(root) / "models/base"
    settings = fingerprint(root, params, "stage1", "stage2", "all_in_one", "models/base", vlm, vdm)
    if (history := kept_part(root, "all_in_one", settings, out, group)) is not None:
        return history
    triplets = Triplets(Path(root) / "triplets")
    weights = {**s1.weights, **s2.weights}
    terms = [t for t, w in weights.items() if w != 0]
    writer = load_vlm(params, base, Path(root) / vlm / "vlm", group.device)
    for n, p in writer.model.named_parameters():
        p.requires_grad_("lora_" in n)
    painter = load_vdm(params, base, Path(root) / vdm / "vdm", group.device)
    save_dit = stage2.make_trainable(painter, s2.lora_rank, seed_of(params.seed, "stage2", "lora") % 2**31)
    trained = {"vlm": writer.model, "dit": painter.dit}
    tensors = {k: [p for p in m.parameters() if p.requires_grad] for k, m in trained.items()}
    optims = {"vlm": optimizer([writer.model], "adamw", s1.lr), "dit": optimizer([painter.dit], "adamw", s2.lr)}
    frozen = {k: WithTensors(m, frozen_copy(m)) for k, m in trained.items()}
    clip = load_clip(params, base, group.device)
    ids = triplets.select(split="train", rl=True)
    inputs = latents(Path(root), painter, triplets, ids, "input", group)
    shape = painter.latent_shape(params.clip.frames, params.clip.height, params.clip.width)
    with torch.no_grad():
        negative = painter.embed([painter.negative_prompt])
    run = Run("all_in_one", settings, group, trained, optims, Path(root), s1.checkpoint_every)
    count = s1.group

    for step in run.steps(params.all_in_one.steps):
        for optim, s in ((optims["vlm"], s1), (optims["dit"], s2)):
            set_lr(optim, schedule(step, params.all_in_one.steps, s.warmup, decay=0.0))
        mine = group.share(batch_ids(ids, step, params.all_in_one.prompts, params.seed, "all_in_one"))
        rows = [triplets.row(i) for i in mine]
        keys = (params.seed, "all_in_one", step)

        # 1. G captions of each prompt, one trajectory of each caption
        prompt = prompts_of(writer, triplets, mine)
        answers = writer.sample(
            prompt,
            seeds=[(*keys, i, g) for i in mine for g in range(count)],
            max_new_tokens=s1.max_new_tokens,
            temperature=s1.temperature,
            top_p=s1.top_p,
        )
        captions = [template.parse_answer(t)[1] for t in answers.texts]
        repeat = [p for p in range(len(mine)) for _ in range(count)]
        with torch.no_grad():
            text = painter.embed([c or "" for c in captions])
        context = painter.pick_references(inputs[mine].to(group.device))[repeat]
        trajectories = sde_rollout(
            painter,
            text,
            context,
            initial_noise(shape, mine, count, s2.share_noise, *keys),
            [f"{i}/{g}" for i in mine for g in range(count)],
            keys,
            steps=s2.render_steps,
            trained=s2.train_steps,
            eta=s2.noise_level,
            guidance=s2.guidance,
            negative=negative,
            micro_batch=s2.micro_batch,
            frozen=frozen["dit"],
        )
        clips = painter.decode(trajectories.final)

        # 2. one reward for the pair
        texts = [answers.texts[i : i + count] for i in range(0, len(answers.texts), count)]
        scored = pair_rewards(clip, triplets, rows, mine, texts, captions, clips, terms)
        total = rewards.combine(scored, weights)
        advantages, equal = core.group_advantages(total)

        # 3. the same advantage updates both
        first = stage1.grpo_updates(
            writer, frozen["vlm"], prompt, answers, advantages.flatten(), s1, optims["vlm"], tensors["vlm"], group
        )
        second = stage2.grpo_updates(
            painter,
            trajectories,
            text,
            context,
            negative,
            advantages.flatten(),
            s2,
            optims["dit"],
            tensors["dit"],
            group,
        )

        if step % s1.keep_groups == 0 or step == params.all_in_one.steps - 1:
            record = {
                "id": mine[0],
                "question": rows[0]["question"],
                "truth": rows[0]["caption"],
                "texts": texts[0],
                "terms": {k: v[0].tolist() for k, v in scored.items()},
                "total": total[0].tolist(),
                "advantages": advantages[0].tolist(),
            }
            write_group(run.folder / "groups", step, record, clips[:count], group.main)
        run.log(
            step,
            reward=total.mean(),
            reward_std=total.std(dim=1).mean(),
            **{k: v.mean() for k, v in scored.items()},
            equal_groups=equal.float().mean(),
            motion=stage2.motion_energy(clips),
            **stage1.caption_statistics(texts, [r["caption"] for r in rows]),
            **{f"vlm_{k}": v for k, v in first.items()},
            **{f"vdm_{k}": v for k, v in second.items()},
        )

    def save(folder: Path) -> None:
        writer.save_lora(folder / "vlm")
        save_dit(folder / "vdm")

    return finish_part(root, "all_in_one", run, group, out, save)


def pair_rewards(clip, triplets, rows, ids, texts, captions, clips, terms: list[str]) -> dict:
    """All terms of both stages, [P, G] each; CLIPScore is that of each video with its own caption."""
    shape = (len(ids), len(texts[0]))
    has_caption = torch.tensor([c is not None for c in captions])
    features = clip.image(clips)
    truth = clip.image(clips_of(triplets, ids, "target"))
    rollout = rewards.Rollout(
        texts=texts,
        truth=[r["caption"] for r in rows],
        frames=features.unflatten(0, shape),
        rendered=has_caption.view(shape),
        truth_frames=truth,
    )
    scored = rewards.score(rollout, [t for t in terms if t != "c2"])
    if "c2" in terms:
        own = similarity.clip_score(features, clip.text([c or "" for c in captions]))
        scored["c2"] = own.masked_fill(~has_caption, 0.0).view(shape)
    return scored
