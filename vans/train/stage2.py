"""Stage 2, context-faithful VDM adaptation: GRPO on the VDM's SDE, the tuned VLM frozen as anchor (paper, section 3.3).

    r2 = CLIP similarity(video, true video) + CLIPScore(video, anchor caption)

Each step: one anchor caption of each prompt (thrown away and sampled again while its ROUGE-L is below the threshold),
G stochastic trajectories of each, rewards of the G videos, and `inner_updates` clipped updates over all trained steps.

Deviations from the paper
1. When `anchor_attempts` samples all fall below the threshold, the prompt has no anchor: nothing is rendered for it,
   it adds nothing to the objective and is counted (the paper does not say what happens then).
2. Guidance: rollout and update use the same guided velocity; `guidance_grad` says which branches are differentiated.
3. Approximations, all off: `train_steps` trains on a window of steps from the noisy end (0 is the paper's: all
   stochastic steps); guidance in a part of the steps; `explore_size` noises of each prompt compared by the ODE's videos
   of `explore_steps` steps, of which the best and the worst are kept. What each does: docs/approximations.md.
4. `captions: ground_truth` (the ablation "VDM only") takes the true caption for the anchor: no VLM is involved.
5. Toy scale: other steps, rates, noise level and beta (params.yaml).
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig
from torch import Tensor
from tqdm import tqdm

from vans import files
from vans.data.batches import prompts_of
from vans.errors import UserError
from vans.grid import Cell
from vans.grpo import core
from vans.grpo.denoising import Conditions, no_updates, sde_rollout, vdm_updates
from vans.grpo.rollout import reference
from vans.meter import timer
from vans.models.load import load_vdm, load_vlm
from vans.models.protocol import protocol_of
from vans.models.vdm import VDM
from vans.parallel import Ranks, launch
from vans.plan.work import of_step
from vans.preflight import preflight
from vans.rewards.plugs import Plug, plugs, score
from vans.rewards.terms.motion import energy
from vans.rng import seed_of
from vans.sharding import over
from vans.similarity import rouge_l
from vans.template import answer_text, parse_answer
from vans.train.feed import embeddings
from vans.train.loop import tell_batch, write_curves
from vans.train.optim import optimizer, schedule, set_lr
from vans.train.rollouts import Rollouts, record_of
from vans.train.runs import Run
from vans.train.settings import settings_of

ANCHOR = ("anchor_threshold", "anchor_attempts")  # settings of the VLM's captions alone
ANCHOR_STEPS, ANCHOR_ROWS = 50, 16  # steps whose anchors stand in one file; answers drawn at once


def train(params: Any, cell: Cell, root: Path) -> list[dict]:
    """Tune the VDM of the cell's `vdm`, anchored by the VLM of its `vlm`; writes `cell.out`/vdm and the curves.

    Returns the history, a dict a step. Raises UserError before a model is loaded if the reward is not right.
    """
    s = params.stage2
    tell_batch(s.prompts, s.group_size, params.machine, "stage2")
    plugs(params.rewards.stage2[cell.reward], params)
    preflight(params, root, "stage2", uses(cell)[1])
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

    cut = over(params, ranks)
    vdm = load_vdm(params, base, here / at.vdm_folder, "cpu" if cut else ranks.device)
    save = make_trainable(vdm, s.lora_rank, seed_of(params.seed, params.train_seed, "stage2", "lora") % 2**31, cut)
    trained = [p for p in vdm.dit.parameters() if p.requires_grad]
    start = reference(vdm.network)
    optim = optimizer([vdm.dit], "adamw", s.lr)
    rollouts = Rollouts(params, here, "stage2", vdm, ranks)
    run.attach({"dit": vdm.dit}, {"dit": optim})
    vlm = partial(load_vlm, params, base, here / at.vlm_folder, ranks.device) if at.captions == "vlm" else None
    anchor = Anchor(params, vlm, rollouts, run, steps)
    embedded = embeddings(here, vdm, anchor.captions, ranks)
    vdm.text_encoder.to("meta")  # not needed any more: 11 GB at the paper scale

    for step in run.steps(steps, of_step(params, "stage2", anchored=False)):
        set_lr(optim, schedule(step, steps, s.warmup, decay=0.0))
        prompts, keys = rollouts.batch(step, s.prompts)

        # 1. one anchor of each prompt; a prompt without one goes no further
        texts, resampled = anchor(prompts, keys)
        ids = [i for i in prompts if i in texts]  # P
        counts = {"anchors_resampled": resampled, "anchors_missing": 1 - len(ids) / len(prompts)}
        idle = not ids  # the other processes wait for this one's share of the gradient: none
        if idle and cut is None:
            run.log(step, **counts, **no_updates(s, optim, trained, ranks))
            continue
        if idle:  # and for its part in gathering the weights: it takes any prompt and caption, for nothing
            ids, texts = prompts[:1], {prompts[0]: ""}
        answers = [[texts[i]] * s.group_size for i in ids]  # [P][G]
        captions: list = [[parse_answer(texts[i])[1] or ""] * s.group_size for i in ids]  # [P][G]
        if idle:
            captions = [[anchor.captions[0]] * s.group_size]

        # 2. G stochastic trajectories of each, in one rollout
        repeat = [p for p in range(len(ids)) for _ in range(s.group_size)]  # N = P * G
        text = embedded[[row[0] for row in captions]].to(ranks.device)[repeat]  # [N, L, D]
        given = Conditions(text, rollouts.reference(ids)[repeat], rollouts.negative)
        names = [f"{i}/{g}" for i in ids for g in range(s.group_size)]
        with timer("render"):
            noises = rollouts.noise(ids, s.explore_size or s.group_size, s.share_noise, keys)  # [N, C, T', H', W']
            if s.explore_size:
                noises, names = explored(rollouts, ids, answers, captions, given, noises, keys, s, terms)
            trajectories = sde_rollout(vdm, given, noises, names, keys, s, start)
        if idle:
            none = torch.zeros(len(names))
            stats = vdm_updates(vdm, trajectories, given, none, s, optim, trained, ranks, math.inf)
            run.log(step, **counts, grad_norm=stats["grad_norm"])
            continue
        with timer("decode"):
            videos = vdm.decode(trajectories.final).unflatten(0, (len(ids), s.group_size))  # [P, G, T, H, W, 3]

        # 3. the reward; the advantages
        rollout = rollouts.of(ids, answers, captions, videos, keys)
        with timer("reward"):
            scores = score(rollout, terms)  # total [P, G]
        advantages, equal = core.group_advantages(scores.total, scores.kept)  # [P, G], [P]

        # 4. clipped updates on this rollout
        total = len(prompts) * s.group_size
        with timer("update"):
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
    return run.finish(out, save)


def explored(
    rollouts: Rollouts,
    ids: list[str],
    answers: list[list[str]],
    captions: list,
    given: Conditions,
    noises: Tensor,
    keys: tuple,
    s: Any,
    terms: list[Plug],
) -> tuple[Tensor, list[str]]:
    """Of the noises [P * G', ...] those whose cheap videos earn most and least, group_size of each prompt, and their
    names. answers, captions: [P][G]. given: of N = P * G.
    """
    size, vdm = s.explore_size, rollouts.vdm
    assert vdm is not None
    first = [p * s.group_size for p in range(len(ids)) for _ in range(size)]  # P * G'
    shown = (given.text[first], given.reference[first], noises, s.explore_steps, s.guidance, given.negative)
    latents = vdm.render_latents(*shown, interval=(s.guidance_start, s.guidance_stop))
    with timer("decode"):
        videos = vdm.decode(latents).unflatten(0, (len(ids), size))  # [P, G', T, H, W, 3]
    told, said = ([[row[0]] * size for row in texts] for texts in (answers, captions))
    rows = rollouts.extremes(rollouts.of(ids, told, said, videos, keys), terms, s.group_size)
    return noises[rows], [f"{ids[row // size]}/{row % size}" for row in rows]


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
    """Says what stage 2's videos should show: the frozen, tuned VLM (`load` gives it), or without one the ground truth.

    The VLM does not change, so that all anchors are drawn before the first step, ANCHOR_ROWS at once, and kept in the
    run's folder (anchors-<first step>.json, of ANCHOR_STEPS each): after that it is needed no more.
    """

    def __init__(self, params: Any, load: Callable[[], Any] | None, rollouts: Rollouts, run: Run, steps: int):
        self.params, self.load, self.rollouts, self.triplets = params, load, rollouts, rollouts.triplets
        self.vlm: Any = None
        self.drawn: dict[str, list] = {}  # "step/id": [its anchor or None, samples drawn for it], of all ranks
        for first in range(0, steps if load else 0, ANCHOR_STEPS):
            path = run.folder / f"anchors-{first:05d}.json"
            found = run.ranks.gather(_read(path) if run.ranks.main else None)[0]
            if found is None:
                parts = run.ranks.gather(self.draw(range(first, min(first + ANCHOR_STEPS, steps))))
                found = {key: value for part in parts for key, value in part.items()}
                if run.ranks.main:
                    files.atomic_write_text(path, json.dumps(found, indent=1) + "\n")
            self.drawn |= found
            if first + ANCHOR_STEPS >= min(10, steps):
                check_anchors(self.drawn, params.stage2, steps)
        self.vlm = None  # needed no more: 6 GB at the paper scale

    @property
    def captions(self) -> list[str]:
        """All captions that a step may render, each once."""
        if self.load is None:
            rows = [self.triplets.row(id) for id in self.rollouts.ids]
            texts = [answer_text(row["reasoning"], row["caption"]) for row in rows]
        else:
            texts = [text for text, _ in self.drawn.values() if text is not None]
        return sorted({parse_answer(text)[1] or "" for text in texts}) or [""]

    def __call__(self, ids: list[str], keys: tuple) -> tuple[dict[str, str], float]:
        """{prompt's id: its anchor, a whole answer} of the prompts that get one, and the share of samples thrown away.

        keys: of the step, its number last.
        """
        if self.load is None:
            rows = {i: self.triplets.row(i) for i in ids}
            return {i: answer_text(row["reasoning"], row["caption"]) for i, row in rows.items()}, 0.0
        found = {i: self.drawn[f"{keys[-1]}/{i}"] for i in ids}
        drawn, kept = sum(count for _, count in found.values()), {i: t for i, (t, _) in found.items() if t is not None}
        return kept, (drawn - len(kept)) / max(drawn, 1)

    def draw(self, steps: Sequence[int]) -> dict[str, list]:
        """The anchors of this rank's prompts of some steps, as `drawn`.

        ROUGE-L with the true caption below `anchor_threshold`: sampled again, at most `anchor_attempts` times in all.
        """
        s, drawing = self.params.stage2, dict(protocol_of(self.params).drawing(self.params.generate))
        drawing["temperature"] = drawing["temperature"] or 1.0
        if self.vlm is None and self.load is not None:
            self.vlm = self.load()
        batches = [self.rollouts.batch(step, s.prompts) for step in steps]
        asked = {f"{keys[-1]}/{i}": (i, keys) for ids, keys in batches for i in ids}
        found: dict[str, list] = {key: [None, 0] for key in asked}
        for attempt in range(s.anchor_attempts):
            todo = [key for key, (text, _) in found.items() if text is None]
            parts = [todo[i : i + ANCHOR_ROWS] for i in range(0, len(todo), ANCHOR_ROWS)]
            title = f"anchors of steps {steps[0]} to {steps[-1]}, attempt {attempt + 1}"
            for some in tqdm(parts, title, disable=not self.rollouts.ranks.main, mininterval=2, ncols=100):
                ids = [asked[key][0] for key in some]
                sampled = self.vlm.sample(
                    prompts_of(self.vlm, self.triplets, ids),
                    seeds=[(*asked[key][1], "anchor", asked[key][0], attempt) for key in some],
                    **drawing,
                )
                for key, id, text in zip(some, ids, sampled.texts, strict=True):
                    caption, truth = parse_answer(text)[1] or "", self.triplets.row(id)["caption"]
                    good = rouge_l(caption, truth) >= s.anchor_threshold
                    found[key] = [text if good else None, found[key][1] + 1]
        return found


def check_anchors(drawn: dict[str, list], s: Any, steps: int) -> None:
    """UserError where the first steps (ten, or all if there are fewer) have no anchor at all: nothing would be learnt,
    however long it trains. drawn: see `Anchor`."""
    count = min(10, steps)
    if not any(text is not None for key, (text, _) in drawn.items() if int(key.split("/")[0]) < count):
        raise UserError(
            f"stage2.anchor_threshold is {s.anchor_threshold:g}: none of the VLM's captions of the first {count} steps "
            "comes that close to the truth (ROUGE-L), so there is nothing to train on; lower it, raise "
            "stage2.anchor_attempts, or train the VLM longer"
        )


def _read(path: Path) -> dict[str, list] | None:
    """Kept anchors; None where there are none, or they cannot be read."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(key): [text, int(count)] for key, (text, count) in found.items()}
    except (OSError, ValueError, TypeError, AttributeError):
        return None


def make_trainable(vdm: VDM, lora_rank: int, seed: int, cut: Ranks | None = None) -> Callable[[Path], None]:
    """Let the whole DiT train (as float32), or a LoRA on its attention and feed-forward layers; returns the saver.

    cut: the ranks over which it is cut up. What is saved is a whole DiT in any case: a LoRA is merged into it (with one
    beside it, it would load with weights that are nowhere).
    """
    vdm.dit.float().requires_grad_(lora_rank == 0)
    if lora_rank:
        torch.manual_seed(seed)
        targets = ["to_q", "to_k", "to_v", "to_out.0", "ffn.net.0.proj", "ffn.net.2"]
        vdm.dit.add_adapter(LoraConfig(r=lora_rank, lora_alpha=lora_rank, target_modules=targets))
        for n, p in vdm.dit.named_parameters():
            p.requires_grad_("lora_" in n)
    vdm.again()
    if cut is not None:
        vdm.shard(cut)

    def save(folder: Path) -> None:
        if lora_rank:
            vdm.dit.fuse_lora()
            vdm.dit.unload_lora()
        vdm.dit.save_pretrained(folder / "transformer")

    return save
