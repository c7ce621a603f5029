"""Stage 2, context-faithful VDM adaptation: GRPO on the VDM's SDE, the tuned VLM frozen as anchor (paper, section 3.3).

    r2 = CLIP similarity(video, true video) + CLIPScore(video, anchor caption)

Each step: one anchor caption of each prompt (thrown away and sampled again while its ROUGE-L is below the threshold),
G stochastic trajectories of each, rewards of the G videos, and `inner_updates` clipped updates over all trained steps.

Deviations from the paper
1. When `anchor_attempts` samples all fall below the threshold, the prompt has no anchor: nothing is rendered for it,
   it adds nothing to the objective and is counted (the paper does not say what happens then).
2. Guidance: rollout and update use the same guided velocity; `guidance_grad` says which branches are differentiated.
3. `train_steps` may train on a window of steps from the noisy end; 0 is the paper's: all stochastic steps.
4. `captions: ground_truth` (the ablation "VDM only") takes the true caption for the anchor: no VLM is involved.
5. Toy scale: other steps, rates, noise level and beta (params.yaml).
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig

from vans import files
from vans.data.batches import prompts_of
from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.grid import Cell
from vans.grpo import core
from vans.grpo.denoising import Conditions, no_updates, sde_rollout, vdm_updates
from vans.grpo.rollout import WithTensors, frozen_copy
from vans.models.load import load_vdm, load_vlm
from vans.models.protocol import protocol_of
from vans.models.vdm import VDM
from vans.parallel import Ranks, launch
from vans.rewards.plugs import plugs, score
from vans.rewards.terms.motion import energy
from vans.rng import seed_of
from vans.similarity import rouge_l
from vans.template import answer_text, parse_answer
from vans.train.loop import tell_batch, write_curves
from vans.train.optim import optimizer, schedule, set_lr
from vans.train.rollouts import Rollouts, record_of
from vans.train.runs import Run
from vans.train.settings import settings_of

ANCHOR = ("anchor_threshold", "anchor_attempts")  # settings of the VLM's captions alone


def train(params: Any, cell: Cell, root: Path) -> list[dict]:
    """Tune the VDM of the cell's `vdm`, anchored by the VLM of its `vlm`; writes `cell.out`/vdm and the curves.

    Returns the history, a dict a step. Raises UserError before a model is loaded if the reward is not right.
    """
    s = params.stage2
    tell_batch(s.prompts, s.group_size, params.machine, "stage2")
    plugs(params.rewards.stage2[cell.reward], params)
    with files.atomic_dir(root / cell.out) as partial:
        job = {"root": str(root), "out": str(partial / "vdm"), "cell": cell.plain()}
        history = launch("vans.train.stage2:train_vdm", params.machine, params=params, **job)
    write_curves(root / cell.curves, history)
    return history


def train_vdm(ranks: Ranks, params: Any, root: str, out: str, cell: dict) -> list[dict]:
    s, here, at = params.stage2, Path(root), Cell(**cell)
    base, steps = here / "models/base", at.steps or s.steps
    terms = plugs(params.rewards.stage2[at.reward], params)
    settings = settings_of(
        params, here, ranks, "vans/train/stage2.py", *uses(at), steps=steps, **at.reward_settings(params, here)
    )
    run = Run(here, at.name, settings, ranks, params.keep.checkpoints.stage2)
    if run.done:
        return run.take(out)

    vdm = load_vdm(params, base, here / at.vdm_folder, ranks.device)
    save = make_trainable(vdm, s.lora_rank, seed_of(params.seed, params.train_seed, "stage2", "lora") % 2**31)
    trained = [p for p in vdm.dit.parameters() if p.requires_grad]
    start = WithTensors(vdm.dit, frozen_copy(vdm.dit))
    optim = optimizer([vdm.dit], "adamw", s.lr)
    rollouts = Rollouts(params, here, "stage2", vdm, ranks)
    vlm = load_vlm(params, base, here / at.vlm_folder, ranks.device) if at.captions == "vlm" else None
    anchor = Anchor(params, vlm, rollouts.triplets)
    run.attach({"dit": vdm.dit}, {"dit": optim})

    for step in run.steps(steps):
        check_anchors(run.history, s, steps)
        set_lr(optim, schedule(step, steps, s.warmup, decay=0.0))
        prompts, keys = rollouts.batch(step, s.prompts)

        # 1. one anchor of each prompt; a prompt without one goes no further
        texts, resampled = anchor(prompts, keys)
        ids = [i for i in prompts if i in texts]  # P
        counts = {"anchors_resampled": resampled, "anchors_missing": 1 - len(ids) / len(prompts)}
        if not ids:  # the other processes wait for this one's share of the gradient: none
            run.log(step, **counts, **no_updates(s, optim, trained, ranks))
            continue
        answers = [[texts[i]] * s.group_size for i in ids]  # [P][G]
        captions: list = [[parse_answer(texts[i])[1] or ""] * s.group_size for i in ids]  # [P][G]

        # 2. G stochastic trajectories of each, in one rollout
        repeat = [p for p in range(len(ids)) for _ in range(s.group_size)]  # N = P * G
        with torch.no_grad():
            text = vdm.embed([row[0] for row in captions])[repeat]  # [N, L, D]
        given = Conditions(text, rollouts.reference(ids)[repeat], rollouts.negative)
        names = [f"{i}/{g}" for i in ids for g in range(s.group_size)]
        trajectories = sde_rollout(
            vdm, given, rollouts.noise(ids, s.group_size, s.share_noise, keys), names, keys, s, start
        )
        videos = vdm.decode(trajectories.final).unflatten(0, (len(ids), s.group_size))  # [P, G, T, H, W, 3]

        # 3. the reward; the advantages
        rollout = rollouts.of(ids, answers, captions, videos, keys)
        scores = score(rollout, terms)  # total [P, G]
        advantages, equal = core.group_advantages(scores.total, scores.kept)  # [P, G], [P]

        # 4. clipped updates on this rollout
        total = len(prompts) * s.group_size
        stats = vdm_updates(vdm, trajectories, given, advantages.flatten(), s, optim, trained, ranks, total)

        if not run.has_groups or step % params.keep.groups == 0 or step == steps - 1:
            run.keep_group(step, record_of(rollout, scores, advantages), videos[0])
        run.log(
            step,
            **scores.means(),
            equal_groups=equal,
            motion=energy(videos) / 255.0,
            **counts,
            **stats,
        )
    check_anchors(run.history, s, steps)
    return run.finish(out, save)


def uses(at: Cell) -> tuple[list[str], list[str]]:
    """The parameters and the models that decide a run: see `settings_of`."""
    keys = ["seed", "train_seed", "video", "models.vdm", "models.clip", "stage2", "-stage2.reward", "-stage2.steps"]
    models = ["models/base/vdm", "models/base/clip", at.vdm_folder]
    if at.captions == "vlm":
        keys += ["models.vlm", *(f"generate.{key}" for key in ("temperature", "top_p", "max_new_tokens"))]
        models += ["models/base/vlm", at.vlm_folder]
    else:
        keys += [f"-stage2.{key}" for key in ANCHOR]
    return keys, models


class Anchor:
    """Says what stage 2's videos should show: the frozen, tuned VLM, or (vlm None) the ground truth."""

    def __init__(self, params: Any, vlm: Any, triplets: Triplets):
        self.params, self.vlm, self.triplets = params, vlm, triplets

    def __call__(self, ids: list[str], keys: tuple) -> tuple[dict[str, str], float]:
        """{prompt's id: its anchor, a whole answer} of the prompts that get one, and the share of samples thrown away.

        ROUGE-L with the true caption below `anchor_threshold`: sampled again, at most `anchor_attempts` times in all.
        """
        s, drawing = self.params.stage2, protocol_of(self.params).drawing(self.params.generate)
        rows = {i: self.triplets.row(i) for i in ids}
        if self.vlm is None:
            return {i: answer_text(row["reasoning"], row["caption"]) for i, row in rows.items()}, 0.0
        found: dict[str, str] = {}
        drawn = 0
        for attempt in range(s.anchor_attempts):
            todo = [i for i in rows if i not in found]
            if not todo:
                break
            sampled = self.vlm.sample(
                prompts_of(self.vlm, self.triplets, todo),
                seeds=[(*keys, "anchor", i, attempt) for i in todo],
                **{**drawing, "temperature": drawing["temperature"] or 1.0},
            )
            drawn += len(todo)
            for i, text in zip(todo, sampled.texts, strict=True):
                if rouge_l(parse_answer(text)[1] or "", rows[i]["caption"]) >= s.anchor_threshold:
                    found[i] = text
        return found, (drawn - len(found)) / max(drawn, 1)


def check_anchors(history: list[dict], s: Any, steps: int) -> None:
    """UserError where the first steps (ten, or all if there are fewer) found no anchor at all: nothing would be learnt,
    however long it trains."""
    count = min(10, steps)
    if len(history) >= count and all(row["anchors_missing"] == 1 for row in history[:count]):
        raise UserError(
            f"stage2.anchor_threshold is {s.anchor_threshold:g}: none of the VLM's captions of the first {count} steps "
            "comes that close to the truth (ROUGE-L), so there is nothing to train on; lower it, raise "
            "stage2.anchor_attempts, or train the VLM longer"
        )


def make_trainable(vdm: VDM, lora_rank: int, seed: int) -> Callable[[Path], None]:
    """Let the whole DiT train (as float32), or a LoRA on its attention and feed-forward layers; returns the saver.

    What is saved is a whole DiT in either case: a LoRA is merged into it.
    """
    vdm.dit.float()
    if lora_rank == 0:
        vdm.dit.requires_grad_(True)
        return lambda folder: vdm.dit.save_pretrained(folder / "transformer")
    torch.manual_seed(seed)
    targets = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
    vdm.dit.add_adapter(LoraConfig(r=lora_rank, lora_alpha=lora_rank, target_modules=targets))
    for n, p in vdm.dit.named_parameters():
        p.requires_grad_("lora_" in n)

    def save(folder: Path) -> None:
        vdm.dit.fuse_lora()
        vdm.dit.unload_lora()
        vdm.dit.save_pretrained(folder / "transformer")

    return save
