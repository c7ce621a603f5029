"""Stage 2, context-faithful VDM adaptation: GRPO on the VDM's SDE, the tuned VLM frozen as anchor (paper, section 3.3).

    r2 = CLIP similarity(video, true video) + CLIPScore(video, anchor caption)

Each step: one anchor caption of each prompt (thrown away and sampled again while its ROUGE-L is below the threshold),
G stochastic trajectories of each, rewards of the G videos, and `inner_updates` clipped updates over all trained steps.

Deviations from the paper
1. When `anchor_attempts` samples all fall below the threshold, the prompt has no anchor: nothing is rendered for it,
   it adds nothing to the objective and is counted (the paper does not say what happens then).
2. Guidance: rollout and update use the same guided velocity; `guidance_grad` says which branches are differentiated.
3. `train_steps` may train on a window of steps from the noisy end; 0 is the paper's: all stochastic steps.
4. `captions="ground_truth"` (the ablation "VDM only") takes the true caption for the anchor: no VLM is involved.
5. Toy scale: other steps, rates, noise level and beta (params.yaml).
"""

from __future__ import annotations

from pathlib import Path

import torch
from peft import LoraConfig

from vans import files, similarity, template
from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.grpo import core, flow_sde, rewards
from vans.grpo.rollout import Trajectories, WithTensors, frozen_copy, initial_noise, sde_rollout
from vans.models.load import load_clip, load_vdm, load_vlm
from vans.parallel import Group, launch
from vans.params import load
from vans.rng import seed_of
from vans.train.feed import batch_ids, clips_of, latents, prompts_of, write_group
from vans.train.loop import Run, write_curves
from vans.train.optim import optimizer, schedule, set_lr
from vans.train.save import fingerprint, finish_part, kept_part
from vans.train.stage1 import check_batch


def train(
    root: Path, out: Path, curves: Path, reward: str, vlm: Path, vdm: Path, captions: str = "anchor"
) -> list[dict]:
    """Tune the VDM of folder `vdm`, anchored by the VLM of folder `vlm` (relative to root); `out` gets vdm/."""
    params = load(root)
    check_batch(params.stage2.prompts, params.stage2.group, params.machine.processes, "stage2")
    name = f"stage2/{Path(out).name}"
    with files.atomic_dir(out) as partial:
        history = launch(
            "vans.train.stage2:train_vdm",
            params.machine,
            root=str(root),
            out=str(partial / "vdm"),
            name=name,
            reward=reward,
            vlm=str(vlm),
            vdm=str(vdm),
            captions=captions,
        )
    write_curves(curves, history)
    return history


def train_vdm(
    group: Group, root: str, out: str, name: str, reward: str, vlm: str, vdm: str, captions: str
) -> list[dict]:
    params = load(root)
    s, base = params.stage2, Path(root) / "models/base"
    uses = ["generate", "models/base", vdm, *([vlm] if captions == "anchor" else [])]
    settings = {**fingerprint(root, params, "stage2", *uses), "used_reward": reward, "captions": captions}
    if (history := kept_part(root, name, settings, out, group)) is not None:
        return history
    triplets = Triplets(Path(root) / "triplets")
    weights = rewards.preset_weights(rewards.STAGE2, reward, s.weights)
    terms = [t for t, w in weights.items() if w != 0]
    policy = load_vdm(params, base, Path(root) / vdm / "vdm", group.device)
    save = make_trainable(policy, s.lora_rank, seed_of(params.seed, "stage2", "lora") % 2**31)
    trained = [p for p in policy.dit.parameters() if p.requires_grad]
    optim = optimizer([policy.dit], "adamw", s.lr)
    reference = WithTensors(policy.dit, frozen_copy(policy.dit))
    clip = load_clip(params, base, group.device)
    ids = triplets.select(split="train", rl=True)
    inputs = latents(Path(root), policy, triplets, ids, "input", group)
    anchor = None
    if captions == "anchor":
        anchor = Anchor(params, load_vlm(params, base, Path(root) / vlm / "vlm", group.device), triplets)
    shape = policy.latent_shape(params.clip.frames, params.clip.height, params.clip.width)
    with torch.no_grad():
        negative = policy.embed([policy.negative_prompt])
    run = Run(name, settings, group, {"dit": policy.dit}, {"dit": optim}, Path(root), s.checkpoint_every)
    check_anchors(run.history, s)
    none_kept = not any((run.folder / "groups").glob("*.json"))

    for step in run.steps(s.steps):
        set_lr(optim, schedule(step, s.steps, s.warmup, decay=0.0))
        prompts = group.share(batch_ids(ids, step, s.prompts, params.seed, "stage2"))
        keys = (params.seed, "stage2", step)

        # 1. one anchor caption of each prompt; a prompt without one goes no further
        if anchor is None:
            found, resampled = {i: triplets.row(i)["caption"] for i in prompts}, 0.0
        else:
            found, resampled = anchor.captions(prompts, keys)
        mine = [i for i in prompts if i in found]
        texts = [found[i] for i in mine]
        counts = {"anchors_resampled": resampled, "anchors_missing": 1 - len(mine) / len(prompts)}
        if not mine:  # the other processes wait for this one's share of the gradient: none
            stats = grpo_nothing(s, optim, trained, group)
            run.log(step, **counts, **stats)
            check_anchors(run.history, s)
            continue

        # 2. G stochastic trajectories of each, in one rollout
        repeat = [p for p in range(len(mine)) for _ in range(s.group)]
        with torch.no_grad():
            text = policy.embed(texts)[repeat]
        context = policy.pick_references(inputs[mine].to(group.device))[repeat]
        trajectories = sde_rollout(
            policy,
            text,
            context,
            initial_noise(shape, mine, s.group, s.share_noise, *keys),
            [f"{i}/{g}" for i in mine for g in range(s.group)],
            keys,
            steps=s.render_steps,
            trained=s.train_steps,
            eta=s.noise_level,
            guidance=s.guidance,
            negative=negative,
            micro_batch=s.micro_batch,
            frozen=reference,
        )
        clips = policy.decode(trajectories.final)

        # 3. rewards and advantages
        rollout = rewards.Rollout(
            frames=clip.image(clips).unflatten(0, (len(mine), s.group)),
            truth_frames=clip.image(clips_of(triplets, mine, "target")),
            caption_features=clip.text(texts),
        )
        scored = rewards.score(rollout, terms)
        total = rewards.combine(scored, weights)
        advantages, equal = core.group_advantages(total)

        # 4. clipped updates on this rollout
        stats = grpo_updates(
            policy,
            trajectories,
            text,
            context,
            negative,
            advantages.flatten(),
            s,
            optim,
            trained,
            group,
            total=len(prompts) * s.group,
        )

        if none_kept or step % s.keep_groups == 0 or step == s.steps - 1:
            none_kept = False
            record = {
                "id": mine[0],
                "question": triplets.row(mine[0])["question"],
                "truth": triplets.row(mine[0])["caption"],
                "anchor": texts[0],
                "terms": {k: v[0].tolist() for k, v in scored.items()},
                "total": total[0].tolist(),
                "advantages": advantages[0].tolist(),
            }
            write_group(run.folder / "groups", step, record, clips[: s.group], group.main)
        run.log(
            step,
            reward=total.mean(dim=1),
            reward_std=total.std(dim=1),
            **{k: v.mean(dim=1) for k, v in scored.items()},
            equal_groups=equal,
            motion=motion_energy(clips),
            **counts,
            **stats,
        )
        check_anchors(run.history, s)
    return finish_part(root, name, run, group, out, save)


def make_trainable(policy, lora_rank: int, seed: int):
    """Let the whole DiT train (as float32), or a LoRA on its attention and feed-forward layers; returns the saver.

    What is saved is a whole DiT in either case: a LoRA is merged into it.
    """
    policy.dit.float()
    if lora_rank == 0:
        policy.dit.requires_grad_(True)
        return lambda folder: policy.dit.save_pretrained(folder / "transformer")
    torch.manual_seed(seed)
    targets = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
    policy.dit.add_adapter(LoraConfig(r=lora_rank, lora_alpha=lora_rank, target_modules=targets))
    for n, p in policy.dit.named_parameters():
        p.requires_grad_("lora_" in n)

    def save(folder: Path) -> None:
        policy.dit.fuse_lora()
        policy.dit.unload_lora()
        policy.dit.save_pretrained(folder / "transformer")

    return save


def check_anchors(history: list[dict], s) -> None:
    """UserError where the first steps (ten, or all if there are fewer) found no anchor at all: nothing would be learnt,
    however long it trains."""
    first = history[: min(10, s.steps)]
    if len(first) == min(10, s.steps) and all(row["anchors_missing"] == 1 for row in first):
        raise UserError(
            f"stage2.anchor_threshold is {s.anchor_threshold:g}: none of the VLM's captions of the first "
            f"{len(first)} steps comes that close to the truth (ROUGE-L), so there is nothing to train on; lower it, "
            "raise stage2.anchor_attempts, or train the VLM longer"
        )


def grpo_nothing(s, optim, trained, group: Group) -> dict:
    """The updates of a process whose prompts all lack an anchor: gradient 0, in step with the other processes."""
    stats: dict[str, float] = {}
    for _ in range(s.inner_updates):
        stats["grad_norm"] = _step(s, optim, trained, group, zero=True)
    return stats


def _step(s, optim, trained, group: Group, zero: bool = False) -> float:
    """Average the gradients over processes, clip, update; returns the gradient's norm."""
    if zero:
        for p in trained:
            p.grad = torch.zeros_like(p)
    group.average_gradients(trained)
    norm = torch.nn.utils.clip_grad_norm_(trained, s.grad_clip)
    optim.step()
    return norm.item()


def grpo_updates(
    policy,
    trajectories: Trajectories,
    text,
    context,
    negative,
    advantages,
    s,
    optim,
    trained,
    group: Group,
    total: int | None = None,
) -> dict:
    """`inner_updates` optimiser steps on one rollout; each recomputes every trained step of every trajectory.

    total: what the mean over trajectories divides by (default: their number), so that groups without an anchor, which
    are not among them, count as zeros.
    """
    device = policy.device
    count, steps = trajectories.old_logp.shape
    total = total or count
    stats: dict[str, float] = {}
    for inner in range(s.inner_updates):
        optim.zero_grad()
        clipped = kl_sum = 0.0
        for first in range(0, count, s.micro_batch):
            part = slice(first, first + s.micro_batch)
            cond, ref = text[part].to(device), context[part].to(device)
            for k in range(steps):
                now, then = trajectories.sigmas[k], trajectories.sigmas[k + 1]
                x = trajectories.states[k][part].to(device)
                sigma = torch.full((x.shape[0],), now, device=device)
                v = policy.guided_velocity(x, sigma, cond, ref, s.guidance, negative, grad_through=s.guidance_grad)
                mean, std = flow_sde.sde_mean_std(x, v, now, then, s.noise_level)
                logp = flow_sde.log_prob(trajectories.states[k + 1][part].to(device), mean, std)
                terms, ratio, fraction = core.clipped_objective(
                    logp[:, None],
                    trajectories.old_logp[part, k : k + 1].to(device),
                    advantages[part].to(device),
                    s.clip,
                )
                kl = flow_sde.gaussian_kl(mean, trajectories.reference_means[k][part].to(device), std)
                # Mean over steps of the mean over trajectories: one step of one micro-batch at a time.
                loss = core.grpo_loss(terms, kl[:, None], s.beta, trajectories=total) / steps
                loss.backward()
                share = x.shape[0] / count / steps
                clipped += fraction.item() * share
                kl_sum += kl.detach().mean().item() * share
                key = "ratio_first" if inner == 0 else "ratio_last"
                stats[key] = max(stats.get(key, 0.0), (ratio - 1).abs().max().item())
        stats |= {"clipped": clipped, "kl": kl_sum, "grad_norm": _step(s, optim, trained, group)}
    return stats


def motion_energy(clips: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of neighbouring frames of each clip [N], in [0, 1]; near 0 means static answers."""
    return (clips[:, 1:].float() - clips[:, :-1].float()).abs().flatten(1).mean(1) / 255.0


class Anchor:
    """The frozen, tuned VLM that says what stage 2's videos should show."""

    def __init__(self, params, vlm, triplets: Triplets):
        self.params, self.vlm, self.triplets = params, vlm, triplets

    def captions(self, ids: list[str], keys: tuple) -> tuple[dict[str, str], float]:
        """{prompt's id: its anchor caption} of the prompts that get one, and the share of samples thrown away.

        ROUGE-L with the true caption below `anchor_threshold`: sampled again, at most `anchor_attempts` times in all.
        """
        s, g = self.params.stage2, self.params.generate
        found: dict[str, str] = {}
        drawn = 0
        for attempt in range(s.anchor_attempts):
            todo = [i for i in dict.fromkeys(ids) if i not in found]
            if not todo:
                break
            rows = [self.triplets.row(i) for i in todo]
            inputs = prompts_of(self.vlm, self.triplets, todo)
            answers = self.vlm.sample(
                inputs,
                seeds=[(*keys, "anchor", i, attempt) for i in todo],
                max_new_tokens=g.max_new_tokens,
                temperature=g.temperature or 1.0,
                top_p=g.top_p,
            )
            drawn += len(todo)
            for i, row, answer in zip(todo, rows, answers.texts, strict=True):
                caption = template.parse_answer(answer)[1] or ""
                if similarity.rouge_l(caption, row["caption"]) >= s.anchor_threshold:
                    found[i] = caption
        return {i: found[i] for i in ids if i in found}, (drawn - len(found)) / max(drawn, 1)
