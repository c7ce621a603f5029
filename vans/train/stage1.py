"""Stage 1, visualization-friendly VLM tuning: GRPO on the VLM's LoRA, VDM frozen (paper, section 3.3).

    r1 = format + ROUGE-L(caption, true caption) + CLIP similarity(rendered video, true video)

Each step: sample G answers of each prompt, render their captions with the frozen VDM as one batch, score them,
normalise the rewards within each group, and make `inner_updates` clipped updates on that rollout.

Deviations from the paper
1. `inner_updates` is not stated there; with one, the ratio is always 1 and clipping does nothing.
2. `render_steps` is smaller than at evaluation (the paper's number for training is not stated): rendering is the cost.
3. Nothing is rendered where no term of the reward looks at videos ("no_v1").
4. The clip range of tokens is 0.2 at both scales, as in the training code that the authors published (their
   repository at revision 4a931a8). The paper names 1e-3 for both stages, but a token's ratio is no mean over the
   elements of a latent. Toy scale: other steps, rates and beta (params.yaml).
5. The old policy's log-probabilities are those of the first update's own pass, not the sampler's: the first ratio is 1
   by construction. The curve `sampler_gap` is the largest difference between the two: rounding alone in float32 (also
   tested, tests/test_models.py); in bfloat16 it is more, which is not corrected for.
6. Approximations, all off: guidance in a part of the steps (`guidance_start`, `guidance_stop`), float8 (`fp8`), and
   `explore_size` answers of each prompt compared by videos of `explore_steps` steps, of which the best and the worst
   are kept, rendered and scored like any others. What each does to a group's ranking: docs/approximations.md.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vans import files
from vans.data.batches import prompts_of
from vans.grid import Cell
from vans.grpo import core
from vans.grpo.rollout import reference
from vans.grpo.tokens import vlm_updates
from vans.meter import timer
from vans.models import float8
from vans.models.load import load_vdm, load_vlm
from vans.parallel import Ranks, device_of, launch
from vans.plan.work import of_step
from vans.preflight import preflight
from vans.rewards.plugs import plugs, score
from vans.sharding import over
from vans.template import thinking_length
from vans.train.loop import tell_batch, write_curves
from vans.train.optim import optimizer, schedule, set_lr
from vans.train.rollouts import Rollouts, captions_of, grouped, record_of
from vans.train.runs import Run
from vans.train.settings import settings_of

# Settings of videos alone.
APPROXIMATE = ("guidance_start", "guidance_stop", "explore_steps", "fp8")
RENDERING = ("render_steps", "guidance", "share_noise", "render_distinct", *APPROXIMATE)


def train(params: Any, cell: Cell, root: Path) -> list[dict]:
    """Tune the VLM of the cell's `vlm` against the frozen VDM of its `vdm`; writes `cell.out`/vlm and the curves.

    Returns the history, a dict a step. Raises UserError before a model is loaded if the reward is not right.
    """
    s = params.stage1
    tell_batch(s.prompts, s.group_size, params.machine, "stage1")
    terms = plugs(params.rewards.stage1[cell.reward], params, renders=cell.vdm is not None)
    if s.fp8:
        float8.check(device_of(params.machine.device, 0), "stage1.fp8")
    preflight(params, root, "stage1", uses(cell, any(plug.needs == "video" for plug in terms))[1])
    with files.atomic_dir(root / cell.out) as partial:
        job = {"root": str(root), "out": str(partial / "vlm"), "cell": cell.plain()}
        history = launch("vans.train.stage1:train_vlm", params.machine, params=params, **job)
    write_curves(root / cell.curves, history)
    return history


def train_vlm(ranks: Ranks, params: Any, root: str, out: str, cell: dict) -> list[dict]:
    s, here, at = params.stage1, Path(root), Cell(**cell)
    base, steps = here / "models/base", at.steps or s.steps
    terms = plugs(params.rewards.stage1[at.reward], params)
    renders = any(plug.needs == "video" for plug in terms)
    settings = settings_of(
        params, here, ranks, "vans/train/stage1.py", *uses(at, renders), steps=steps, **at.reward_settings(params, here)
    )
    run = Run(here, at.name, settings, ranks, params.keep.checkpoints.stage1)
    if run.done:
        return run.take(out)

    vlm = load_vlm(params, base, here / at.vlm_folder, "cpu" if (cut := over(params, ranks)) else ranks.device)
    trained = vlm.train_lora(cut)
    start = reference(vlm.model)
    optim = optimizer([vlm.model], "adamw", s.lr)
    place = "cpu" if cut and not s.fp8 else ranks.device
    whole = s.fp8 or cut is not None
    vdm = load_vdm(params, base, here / at.vdm_folder, place, not whole) if renders else None
    if vdm is not None and s.fp8:
        float8.lower(vdm.dit)
        vdm.rounded()
    elif vdm is not None and cut is not None:
        vdm.shard(cut)
    size = s.explore_size or s.group_size  # G', or G
    rollouts = Rollouts(params, here, "stage1", vdm, ranks)
    run.attach({"vlm": vlm.model}, {"vlm": optim})

    for step in run.steps(steps, of_step(params, "stage1", renders)):
        set_lr(optim, schedule(step, steps, s.warmup, decay=0.0))
        ids, keys = rollouts.batch(step, s.prompts)  # P

        # 1. G answers of each prompt, or G' of which the best and the worst are kept
        with timer("generate"):
            prompts = prompts_of(vlm, rollouts.triplets, ids)
            sampled = vlm.sample(
                prompts,
                seeds=[(*keys, i, g) for i in ids for g in range(size)],
                max_new_tokens=s.max_new_tokens,
                temperature=s.temperature,
                top_p=s.top_p,
            )  # N = P * G rows of L tokens
        rows = None
        if s.explore_size:
            answers = grouped(sampled.texts, size)  # [P][G']
            with timer("render"):
                videos = rollouts.render(ids, captions_of(answers), s, keys)  # [P, G', T, H, W, 3]
            rows = rollouts.extremes(rollouts.of(ids, answers, captions_of(answers), videos, keys), terms, s.group_size)
            sampled = sampled.rows(rows)
        answers = grouped(sampled.texts, s.group_size)  # [P][G]
        captions = captions_of(answers)  # [P][G]

        # 2. their videos, where a term of the reward looks at them; the reward; the advantages
        with timer("render"):
            videos = rollouts.render(ids, captions, s, keys, rows)  # [P, G, T, H, W, 3]
        rollout = rollouts.of(ids, answers, captions, videos, keys)
        with timer("reward"):
            scores = score(rollout, terms)  # total [P, G]
        advantages, equal = core.group_advantages(scores.total, scores.kept)  # [P, G], [P]

        # 3. clipped updates on this rollout
        with timer("update"):
            stats = vlm_updates(vlm, start, prompts, sampled, advantages.flatten(), s, optim, trained, ranks)

        if step % params.keep.groups == 0 or step == steps - 1:
            run.keep_group(step, record_of(rollout, scores, advantages), None if videos is None else videos[0])
        run.log(
            step,
            **scores.means(),
            equal_groups=equal,
            thinking_words=thinking(sampled.texts),
            **stats,
        )
    return run.finish(out, vlm.save_lora)


def uses(at: Cell, renders: bool) -> tuple[list[str], list[str]]:
    """The parameters and the models that decide a run: see `settings_of`."""
    keys = ["seed", "train_seed", "models.vlm", "stage1", "-stage1.reward", "-stage1.steps"]
    models = ["models/base/vlm", at.vlm_folder]
    if renders:
        keys += ["video", "models.vdm", "models.clip"]
        models += ["models/base/vdm", "models/base/clip", at.vdm_folder]
    else:
        keys += [f"-stage1.{key}" for key in RENDERING]
    return keys, models


def thinking(texts: list[str]) -> float:
    """Mean length of the thinking, in words."""
    return sum(map(thinking_length, texts)) / len(texts)
