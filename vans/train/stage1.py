"""Stage 1, visualization-friendly VLM tuning: GRPO on the VLM's LoRA, VDM frozen (paper, section 3.3).

    r1 = format + ROUGE-L(caption, true caption) + CLIP similarity(rendered video, true video)

Each step: sample G answers of each prompt, render their captions with the frozen VDM as one batch, score them,
normalise the rewards within each group, and make `inner_updates` clipped updates on that rollout.

Deviations from the paper
1. `inner_updates` is not stated there; with one, the ratio is always 1 and clipping does nothing.
2. `render_steps` is smaller than at evaluation (the paper's number for training is not stated): rendering is the cost.
3. Reward "no_v1" needs no video, so none is rendered.
4. Toy scale: other steps, rates, beta and clip range (params.yaml).
"""

from __future__ import annotations

from pathlib import Path

import torch

from vans import files, template
from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.grpo import core, rewards
from vans.grpo.rollout import WithTensors, frozen_copy, render_captions
from vans.models.load import load_clip, load_vdm, load_vlm
from vans.parallel import Group, launch
from vans.params import load
from vans.toy import world
from vans.train.feed import batch_ids, clips_of, latents, prompts_of, write_group
from vans.train.loop import Run, write_curves
from vans.train.optim import optimizer, schedule, set_lr
from vans.train.save import fingerprint, finish_part, kept_part


def train(root: Path, out: Path, curves: Path, reward: str, vlm: Path, vdm: Path) -> list[dict]:
    """Tune the VLM of folder `vlm` against the frozen VDM of folder `vdm` (relative to root); `out` gets vlm/."""
    params = load(root)
    check_batch(params.stage1.prompts, params.stage1.group, params.machine.processes, "stage1")
    name = f"stage1/{Path(out).name}"
    with files.atomic_dir(out) as partial:
        history = launch(
            "vans.train.stage1:train_vlm",
            params.machine,
            root=str(root),
            out=str(partial / "vlm"),
            name=name,
            reward=reward,
            vlm=str(vlm),
            vdm=str(vdm),
        )
    write_curves(curves, history)
    return history


def check_batch(prompts: int, count: int, processes: int, where: str) -> None:
    """The batch's arithmetic, printed and checked before a model is loaded: `count` answers of each prompt."""
    if prompts % processes:
        raise UserError(
            f"params.yaml: {where}.prompts is {prompts}, which {processes} processes cannot share evenly; "
            "make it a multiple of machine.processes"
        )
    print(
        f"{where}: {prompts} prompts x {count} = {prompts * count} answers a step, "
        f"{prompts // processes} prompts on each of {processes} processes"
    )


def train_vlm(group: Group, root: str, out: str, name: str, reward: str, vlm: str, vdm: str) -> list[dict]:
    params = load(root)
    s = params.stage1
    base = Path(root) / "models/base"
    settings = {**fingerprint(root, params, "stage1", "models/base", vlm, vdm), "used_reward": reward}
    if (history := kept_part(root, name, settings, out, group)) is not None:
        return history
    triplets = Triplets(Path(root) / "triplets")
    weights = rewards.preset_weights(rewards.STAGE1, reward, s.weights)
    terms = [t for t, w in weights.items() if w != 0]
    policy = load_vlm(params, base, Path(root) / vlm / "vlm", group.device)
    for n, p in policy.model.named_parameters():
        p.requires_grad_("lora_" in n)
    trained = [p for p in policy.model.parameters() if p.requires_grad]
    optim = optimizer([policy.model], "adamw", s.lr)
    reference = WithTensors(policy.model, frozen_copy(policy.model))
    ids = triplets.select(split="train", rl=True)
    scene = Scorer(params, root, vdm, triplets, ids, group) if "v1" in terms else None
    run = Run(name, settings, group, {"vlm": policy.model}, {"vlm": optim}, Path(root), s.checkpoint_every)

    for step in run.steps(s.steps):
        set_lr(optim, schedule(step, s.steps, s.warmup, decay=0.0))
        mine = group.share(batch_ids(ids, step, s.prompts, params.seed, "stage1"))
        rows = [triplets.row(i) for i in mine]
        keys = (params.seed, "stage1", step)

        # 1. G answers of each prompt
        inputs = prompts_of(policy, triplets, mine)
        answers = policy.sample(
            inputs,
            seeds=[(*keys, i, g) for i in mine for g in range(s.group)],
            max_new_tokens=s.max_new_tokens,
            temperature=s.temperature,
            top_p=s.top_p,
        )
        texts = [answers.texts[i : i + s.group] for i in range(0, len(answers.texts), s.group)]

        # 2. rewards; videos only where a reward looks at them
        rollout = rewards.Rollout(texts=texts, truth=[r["caption"] for r in rows])
        rendered = None
        if scene is not None:
            rollout, rendered = scene.watch(rollout, mine, keys)
        scored = rewards.score(rollout, terms)
        total = rewards.combine(scored, weights)
        advantages, equal = core.group_advantages(total)

        # 3. clipped updates on this rollout
        stats = grpo_updates(policy, reference, inputs, answers, advantages.flatten(), s, optim, trained, group)

        if step % s.keep_groups == 0 or step == s.steps - 1:
            record = {
                "id": mine[0],
                "question": rows[0]["question"],
                "truth": rows[0]["caption"],
                "texts": texts[0],
                "terms": {k: v[0].tolist() for k, v in scored.items()},
                "total": total[0].tolist(),
                "advantages": advantages[0].tolist(),
            }
            clips = rendered.clips[: s.group] if rendered is not None else None
            write_group(run.folder / "groups", step, record, clips, group.main)
        run.log(
            step,
            reward=total.mean(),
            reward_std=total.std(dim=1).mean(),
            **{k: v.mean() for k, v in scored.items()},
            equal_groups=equal.float().mean(),
            **caption_statistics(texts, [r["caption"] for r in rows]),
            **stats,
        )
    return finish_part(root, name, run, group, out, policy.save_lora)


def grpo_updates(policy, reference, inputs, answers, advantages, s, optim, trained, group: Group) -> dict:
    """`inner_updates` optimiser steps on one rollout of N answers; returns what to log."""
    device = policy.device
    mask = answers.mask
    chunks = [slice(i, i + s.micro_batch) for i in range(0, mask.shape[0], s.micro_batch)]
    parts = [_rows(inputs, answers, c, s.group) for c in chunks]
    with torch.no_grad():
        old = [policy.log_probs(*part, s.temperature) for part in parts]
        ref = [policy.log_probs(*part, s.temperature, model=reference) for part in parts]
    stats: dict[str, float] = {}
    for inner in range(s.inner_updates):
        optim.zero_grad()
        clipped = kl_sum = 0.0
        for part, chunk, old_logp, ref_logp in zip(parts, chunks, old, ref, strict=True):
            with policy.recomputing():
                logp = policy.log_probs(*part, s.temperature)
            terms, ratio, fraction = core.clipped_objective(
                logp, old_logp, advantages[chunk].to(device), s.clip, mask[chunk]
            )
            kl = core.kl_tokens(logp, ref_logp, mask[chunk])
            loss = core.grpo_loss(terms, kl, s.beta, mask[chunk], trajectories=mask.shape[0])
            loss.backward()
            share = logp.shape[0] / mask.shape[0]
            clipped += fraction.item() * share
            kl_sum += core.row_means(kl.detach(), mask[chunk]).mean().item() * share
            key = "ratio_first" if inner == 0 else "ratio_last"
            off = (ratio - 1).abs().masked_fill(~mask[chunk].bool(), 0).max().item()
            stats[key] = max(stats.get(key, 0.0), off)
        group.average_gradients(trained)
        norm = torch.nn.utils.clip_grad_norm_(trained, s.grad_clip)
        optim.step()
        stats |= {"clipped": clipped, "kl": kl_sum, "grad_norm": norm.item()}
    return stats


def _rows(inputs, answers, chunk: slice, group: int):
    """The prompts and answers of a micro-batch; a micro-batch may hold several whole groups, or part of one."""
    from vans.models.vlm import Completions

    rows = list(range(*chunk.indices(answers.ids.shape[0])))
    prompts = [r // group for r in rows]
    grids = inputs["video_grid_thw"]
    patches = inputs["pixel_values_videos"].split(grids.prod(1).tolist())
    batch = {
        "input_ids": inputs["input_ids"][prompts],
        "attention_mask": inputs["attention_mask"][prompts],
        "mm_token_type_ids": inputs["mm_token_type_ids"][prompts],
        "video_grid_thw": grids[prompts],
        "pixel_values_videos": torch.cat([patches[p] for p in prompts]),
        "second_per_grid_ts": torch.as_tensor(inputs["second_per_grid_ts"])[prompts],
    }
    return batch, Completions(answers.ids[chunk], answers.mask[chunk], answers.texts[chunk])


def caption_statistics(texts: list[list[str]], truth: list[str]) -> dict[str, float]:
    """Length of the thinking in words, and in the toy world the share of captions that name exactly one event (are
    renderable)."""
    flat = [t for row in texts for t in row]
    thinking = {"thinking_words": sum(map(template.thinking_length, flat)) / len(flat)}
    if not all(world.caption_events(caption) for caption in truth):
        return thinking
    captions = [template.parse_answer(t)[1] for t in flat]
    renderable = [c is not None and len(world.caption_events(c)) == 1 for c in captions]
    return {**thinking, "renderable": sum(renderable) / len(flat)}


class Scorer:
    """The frozen VDM and CLIP that watch stage 1's captions."""

    def __init__(self, params, root: str, vdm: str, triplets: Triplets, ids: list[str], group: Group):
        base = Path(root) / "models/base"
        self.params, self.settings, self.triplets = params, params.stage1, triplets
        self.vdm = load_vdm(params, base, Path(root) / vdm / "vdm", group.device)
        self.clip = load_clip(params, base, group.device)
        self.latents = latents(Path(root), self.vdm, triplets, ids, "input", group)
        with torch.no_grad():
            self.negative = self.vdm.embed([self.vdm.negative_prompt])

    def watch(self, rollout: rewards.Rollout, ids: list[str], keys: tuple):
        """The rollout with the CLIP features of its rendered and true videos; and the videos."""
        clip = self.params.clip
        size = (clip.frames, clip.height, clip.width)
        texts = rollout.texts or []
        captions = [[template.parse_answer(t)[1] for t in group] for group in texts]
        rendered = render_captions(
            self.vdm,
            captions,
            self.vdm.pick_references(self.latents[ids]),
            ids,
            keys,
            self.settings,
            self.vdm.latent_shape(*size),
            size,
            self.negative,
        )
        count = len(texts[0])
        return (
            rewards.Rollout(
                texts=rollout.texts,
                truth=rollout.truth,
                frames=self.clip.image(rendered.clips).unflatten(0, (len(ids), count)),
                rendered=rendered.mask.view(len(ids), count),
                truth_frames=self.clip.image(clips_of(self.triplets, ids, "target")),
            ),
            rendered,
        )
