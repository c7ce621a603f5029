"""The ablation "all in one stage": VLM and VDM tuned at once, on one shared reward.

Each step samples G answers of each prompt, renders each answer's caption by one stochastic trajectory of the VDM, and
gives that (caption, video) pair the sum of both stages' rewards. The one advantage of the pair updates both models: if
it is bad, neither can tell whose fault it was. Everything else is stage 1's and stage 2's own code and settings.

Deviation from the paper: it says only that both are trained in a single stage; this is the plainest reading. Of the
approximations, stage 2's window and interval of guidance hold here, too; `explore_size` and `fp8` do not.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from vans import files
from vans.data.batches import prompts_of
from vans.grid import Cell
from vans.grpo import core
from vans.grpo.denoising import Conditions, sde_rollout, vdm_updates
from vans.grpo.rollout import reference
from vans.grpo.tokens import vlm_updates
from vans.meter import timer
from vans.models.load import load_vdm, load_vlm
from vans.parallel import Ranks, launch
from vans.plan.work import of_step
from vans.preflight import preflight
from vans.rewards.plugs import plugs, score
from vans.rewards.terms.motion import energy
from vans.rng import seed_of
from vans.sharding import over
from vans.train.loop import tell_batch, write_curves
from vans.train.optim import optimizer, schedule, set_lr
from vans.train.rollouts import Rollouts, captions_of, grouped, record_of
from vans.train.runs import Run
from vans.train.settings import settings_of
from vans.train.stage1 import RENDERING, thinking
from vans.train.stage2 import ANCHOR, make_trainable

KEYS = ["seed", "train_seed", "video", "models", "-models.detector", "all_in_one.prompts", "stage1", "stage2"]
KEYS += [f"-{stage}.{key}" for stage in ("stage1", "stage2") for key in ("reward", "steps", "prompts")]
KEYS += [f"-stage1.{key}" for key in ("explore_size", *RENDERING)]
KEYS += [f"-stage2.{key}" for key in ("group_size", "explore_size", "explore_steps", *ANCHOR)]
BASES = [f"models/base/{name}" for name in ("vlm", "vdm", "clip")]


def train(params: Any, cell: Cell, root: Path) -> list[dict]:
    """Tune both models of the cell's `vlm` and `vdm`; writes `cell.out`/vlm, `cell.out`/vdm and the curves."""
    tell_batch(params.all_in_one.prompts, params.stage1.group_size, params.machine, "all_in_one")
    plugs(params.rewards.all_in_one[cell.reward], params)
    preflight(params, root, "all_in_one", [*BASES, cell.vlm_folder, cell.vdm_folder])
    with files.atomic_dir(root / cell.out) as partial:
        job = {"root": str(root), "out": str(partial), "cell": cell.plain()}
        history = launch("vans.train.all_in_one:train_both", params.machine, params=params, **job)
    write_curves(root / cell.curves, history)
    return history


def train_both(ranks: Ranks, params: Any, root: str, out: str, cell: dict) -> list[dict]:
    s1, s2, here, at = params.stage1, params.stage2, Path(root), Cell(**cell)
    base, steps = here / "models/base", at.steps or params.all_in_one.steps
    terms = plugs(params.rewards.all_in_one[at.reward], params)
    starts = ["models/base", at.vlm_folder, at.vdm_folder]
    settings = settings_of(
        params, here, ranks, "vans/train/all_in_one.py", KEYS, starts, steps=steps, **at.reward_settings(params, here)
    )
    run = Run(here, at.name, settings, ranks, params.keep.checkpoints.stage1)
    if run.done:
        return run.take(out)

    place = "cpu" if (cut := over(params, ranks)) else ranks.device
    vlm = load_vlm(params, base, here / at.vlm_folder, place)
    vdm = load_vdm(params, base, here / at.vdm_folder, place)
    vlm.train_lora(cut)
    seed = seed_of(params.seed, params.train_seed, "stage2", "lora") % 2**31
    save_dit = make_trainable(vdm, s2.lora_rank, seed, cut)
    models = {"vlm": vlm.model, "dit": vdm.dit}
    trained = {name: [p for p in model.parameters() if p.requires_grad] for name, model in models.items()}
    start = {name: reference(model) for name, model in {"vlm": vlm.model, "dit": vdm.network}.items()}
    optims = {"vlm": optimizer([vlm.model], "adamw", s1.lr), "dit": optimizer([vdm.dit], "adamw", s2.lr)}
    rollouts = Rollouts(params, here, "all_in_one", vdm, ranks)
    run.attach(models, optims)

    for step in run.steps(steps, of_step(params, "all_in_one")):
        set_lr(optims["vlm"], schedule(step, steps, s1.warmup, decay=0.0))
        set_lr(optims["dit"], schedule(step, steps, s2.warmup, decay=0.0))
        ids, keys = rollouts.batch(step, params.all_in_one.prompts)  # P

        # 1. G answers of each prompt, one trajectory of each caption
        with timer("generate"):
            prompts = prompts_of(vlm, rollouts.triplets, ids)
            sampled = vlm.sample(
                prompts,
                seeds=[(*keys, i, g) for i in ids for g in range(s1.group_size)],
                max_new_tokens=s1.max_new_tokens,
                temperature=s1.temperature,
                top_p=s1.top_p,
            )  # N = P * G rows of L tokens
        answers = grouped(sampled.texts, s1.group_size)  # [P][G]
        captions = captions_of(answers)  # [P][G]
        repeat = [p for p in range(len(ids)) for _ in range(s1.group_size)]  # N
        with torch.no_grad():
            text = vdm.embed([caption or "" for row in captions for caption in row])  # [N, L, D]
        given = Conditions(text, rollouts.reference(ids)[repeat], rollouts.negative)
        names = [f"{i}/{g}" for i in ids for g in range(s1.group_size)]
        noises = rollouts.noise(ids, s1.group_size, s2.share_noise, keys)  # [N, C, T', H', W']
        with timer("render"):
            trajectories = sde_rollout(vdm, given, noises, names, keys, s2, start["dit"])
        with timer("decode"):
            videos = vdm.decode(trajectories.final).unflatten(0, (len(ids), s1.group_size))  # [P, G, T, H, W, 3]

        # 2. one reward for the pair; one advantage
        rollout = rollouts.of(ids, answers, captions, videos, keys)
        with timer("reward"):
            scores = score(rollout, terms)  # total [P, G]
        advantages, equal = core.group_advantages(scores.total, scores.kept)  # [P, G], [P]
        flat = advantages.flatten()  # [N]

        # 3. it updates both
        with timer("update"):
            of_vlm = vlm_updates(vlm, start["vlm"], prompts, sampled, flat, s1, optims["vlm"], trained["vlm"], ranks)
            of_vdm = vdm_updates(vdm, trajectories, given, flat, s2, optims["dit"], trained["dit"], ranks, len(flat))

        if step % params.keep.groups == 0 or step == steps - 1:
            run.keep_group(step, record_of(rollout, scores, advantages), videos[0])
        run.log(
            step,
            **scores.means(),
            equal_groups=equal,
            motion=energy(videos) / 255.0,
            thinking_words=thinking(sampled.texts),
            **{f"vlm_{k}": v for k, v in of_vlm.items()},
            **{f"vdm_{k}": v for k, v in of_vdm.items()},
        )

    def save(folder: Path) -> None:
        vlm.save_lora(folder / "vlm")
        save_dit(folder / "vdm")

    return run.finish(out, save)
