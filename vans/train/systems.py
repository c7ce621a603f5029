"""The other systems of the main table, from the same classes, base models and data as SFT.

extension  Video-GPT's kind: a VDM with reference latents and an empty caption. Frames alone; no question, no caption.
cascade    Gemini-FilmWeaver's kind: a VLM and a VDM that never met. Each learns from its own half of the scenes; the
           VDM without reference latents, from the sources' labels, which are another captioner's than the VLM's
           captions. What `arms.cascade` names instead (an endpoint, a hub id) is not trained.
unified    Omni-Video's kind: no caption in between. The VLM's hidden states drive the DiT through a connector
           (vans/models/connector.py); cross-entropy of the answer and flow matching are one loss, with equal weights.

Held equal: batch, optimiser, rates and schedule of every model are SFT's (`sft.vlm`, `sft.vdm`), and so is how many
samples it sees in all (steps x batch; those of the cascade's halves so come twice as often). The unified one passes its
VLM twice a step: `arms.unified.steps` are as many as take the FLOPs of both models' SFT (tests/test_systems.py counts
them). Reference latents of extension and unified are those of SFT. machine.shard cuts up the models of extension and
cascade; those of the unified one stay whole, since its VLM is called without its head, too. The textual system needs no
training of its own: it is SFT's VLM without a VDM.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vans import files
from vans.data.batches import batch_ids, prompts_of
from vans.data.triplets import Triplets
from vans.models.connector import Connector, driven
from vans.models.load import load_vdm, load_vlm
from vans.models.protocol import protocol_of
from vans.models.vdm import VDM
from vans.models.vlm import VLM
from vans.parallel import Ranks, launch
from vans.plan.work import Work, of_step
from vans.preflight import preflight
from vans.rng import generator, noise, numpy_generator, seed_of
from vans.sharding import over, update
from vans.template import answer_text
from vans.train.feed import Latents, embeddings, latents
from vans.train.flow import flow_matching_loss, training_sigmas
from vans.train.loop import columns, write_curves
from vans.train.optim import optimizer, schedule, set_lr
from vans.train.runs import Run
from vans.train.settings import settings_of

OUT, CURVES, NOT_TRAINED = "models/systems", "curves/systems", "not_trained.json"
ENTRY = "vans/train/systems.py"


def train(params: Any, key: str, root: Path) -> list[dict]:
    """Train one system; writes models/systems/<key> with vlm/, vdm/ or both, and the curves.

    One that `arms.run` leaves out, and a part that `arms.cascade` names, is a file that says so. Returns the history, a
    dict a step, with vlm/... and vdm/... columns.
    """
    chosen = key in params.arms.run
    if chosen:
        preflight(params, root, "sft", ["models/base/vlm", "models/base/vdm"])
    with files.atomic_dir(root / OUT / key) as partial:
        if not chosen:
            not_trained(partial, f"arms.run of scale {params.scale} leaves it out")
        job = {"root": str(root), "out": str(partial), "key": key}
        histories = launch("vans.train.systems:train_system", params.machine, params=params, **job) if chosen else {}
    history = columns(histories)
    write_curves(root / CURVES / key, history)
    return history


def not_trained(folder: Path, why: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    files.atomic_write_text(folder / NOT_TRAINED, json.dumps({"why": why}) + "\n")


def train_system(ranks: Ranks, params: Any, root: str, out: str, key: str) -> dict[str, list[dict]]:
    return {"extension": extension, "cascade": cascade, "unified": unified}[key](ranks, params, Path(root), Path(out))


# ---------------------------------------------------------------------------------------------- what all of them do
@dataclass
class Clips:
    """What a VDM learns from: latents of the target clips, and of the input clips where it sees reference latents."""

    targets: Latents
    inputs: Latents | None

    @classmethod
    def of(cls, ranks: Ranks, root: Path, vdm: VDM, ids: list[str], references: bool) -> Clips:
        triplets = Triplets(root / "triplets")
        inputs = latents(root, vdm, triplets, ids, "input", ranks) if references else None
        return cls(latents(root, vdm, triplets, ids, "target", ranks), inputs)


def begun(ranks: Ranks, params: Any, root: Path, name: str, keys: Sequence[str], models: Sequence[str]) -> Run:
    settings = settings_of(params, root, ranks, ENTRY, ("seed", "train_seed", *keys), models)
    return Run(root, f"systems/{name}", settings, ranks, params.keep.checkpoints.sft)


def flow_step(
    ranks: Ranks, s: Any, vdm: VDM, clips: Clips, whole: list[str], told: Callable[..., Tensor], keys: tuple
) -> float:
    """Gradients of one batch's flow-matching loss; `told(ids, dropped)` [M, L, D] is what the DiT is told of each."""
    levels = ranks.share(training_sigmas(len(whole), vdm.shift, generator(*keys)).tolist())
    dropped = ranks.share((numpy_generator(*keys).random(len(whole)) < s.drop_caption).tolist())
    mine = ranks.share(whole)
    total = 0.0
    for part in torch.arange(len(mine)).split(s.micro_batch):
        chosen = [mine[i] for i in part]  # M
        x = clips.targets[chosen].to(ranks.device)  # [M, C, T', H', W']
        seen = None if clips.inputs is None else vdm.pick_references(clips.inputs[chosen].to(ranks.device))
        eps = noise(tuple(x.shape[1:]), chosen, *keys)
        text = told(chosen, [dropped[i] for i in part])
        sigma = torch.tensor([levels[i] for i in part])
        loss = flow_matching_loss(vdm, x, eps, text, seen, sigma) * (len(chosen) / len(mine))
        loss.backward()
        total += loss.item()
    return total


def text_step(ranks: Ranks, params: Any, vlm: VLM, triplets: Triplets, whole: list[str]) -> float:
    """Gradients of one batch's cross-entropy, as in SFT: mean over answers of the mean over tokens."""
    mine, spaces, total = ranks.share(whole), protocol_of(params).spaces, 0.0
    for part in torch.arange(len(mine)).split(params.sft.vlm.micro_batch):
        rows = [triplets.row(mine[i]) for i in part.tolist()]
        prompts = prompts_of(vlm, triplets, [r["id"] for r in rows])
        answers = vlm.encode_answers([answer_text(r["reasoning"], r["caption"], spaces) for r in rows])
        with vlm.recomputing():
            logp = vlm.log_probs(prompts, answers, suppress=False)  # [M, L]
        loss = -(logp.sum(1) / answers.mask.sum(1)).sum() / len(mine)
        loss.backward()
        total += float(loss.item())
    return total


class Learner:
    """Parameters that learn at SFT's rates: `begin` before a step's gradients, `end` after them."""

    def __init__(self, ranks: Ranks, modules: list, s: Any, steps: int):
        self.ranks, self.s, self.steps = ranks, s, steps
        self.trained = [p for m in modules for p in m.parameters() if p.requires_grad]
        self.optim = optimizer(modules, s.optimizer, s.lr, s.adam_lr)

    def begin(self, step: int) -> None:
        set_lr(self.optim, schedule(step, self.steps, self.s.warmup, self.s.decay))
        self.optim.zero_grad()

    def end(self) -> float:
        """One optimiser step; the gradient's norm."""
        return float(update(self.optim, self.trained, self.ranks, self.s.grad_clip))


def fresh_vlm(params: Any, root: Path, device: Any, keys: tuple, cut: Ranks | None = None) -> VLM:
    """The base VLM under a new adapter, which trains. cut: the ranks over which it is cut up."""
    s, place = params.sft.vlm, "cpu" if cut else device
    vlm = load_vlm(params, root / "models/base", device=place)
    vlm.add_lora(s.lora_rank, s.lora_alpha, seed_of(*keys, "lora") % 2**31).to(place)
    vlm.train_lora(cut)
    return vlm


def fresh_vdm(params: Any, root: Path, device: Any, cut: Ranks | None = None) -> VDM:
    """The base VDM, whose DiT trains."""
    vdm = load_vdm(params, root / "models/base", device="cpu" if cut else device)
    vdm.dit.float().requires_grad_(True)
    if cut is not None:
        vdm.shard(cut)
    return vdm


def renderer(
    ranks: Ranks, params: Any, root: Path, out: Path, name: str, keys: tuple, ids: list[str], column: str | None
) -> list[dict]:
    """A VDM alone. column: of the manifest, what it is told of a clip, without reference latents; None: nothing, but
    it sees them.
    """
    s = params.sft.vdm
    run = begun(ranks, params, root, name, ("sft.vdm", "models.vdm"), ["models/base/vdm"])
    if run.done:
        return run.take(out)
    triplets, vdm = Triplets(root / "triplets"), fresh_vdm(params, root, ranks.device, over(params, ranks))
    clips = Clips.of(ranks, root, vdm, ids, references=column is None)
    said = {id: "" if column is None else triplets.row(id)[column] for id in ids}
    embedded = embeddings(root, vdm, sorted({*said.values(), vdm.negative_prompt}), ranks)
    vdm.text_encoder.to("meta")
    learner = Learner(ranks, [vdm.dit], s, s.steps)

    def told(chosen: list[str], dropped: list[bool]) -> Tensor:
        pairs = zip(chosen, dropped, strict=True)
        return embedded[[vdm.negative_prompt if gone and column else said[id] for id, gone in pairs]]

    run.attach({"dit": vdm.dit}, {"dit": learner.optim})
    for step in run.steps(s.steps, of_step(params, "sft/vdm") if column is None else None):
        learner.begin(step)
        loss = flow_step(ranks, s, vdm, clips, batch_ids(ids, step, s.batch, *keys), told, (*keys, step))
        run.log(step, loss=loss, grad_norm=learner.end())
    return run.finish(out, lambda folder: vdm.dit.save_pretrained(folder / "transformer"))


# ---------------------------------------------------------------------------------------------- the systems
def extension(ranks: Ranks, params: Any, root: Path, out: Path) -> dict[str, list[dict]]:
    keys = (params.seed, params.train_seed, "extension")
    ids = Triplets(root / "triplets").select(split="train")
    return {"vdm": renderer(ranks, params, root, out / "vdm", "extension/vdm", keys, ids, None)}


def cascade(ranks: Ranks, params: Any, root: Path, out: Path) -> dict[str, list[dict]]:
    at, histories = params.arms.cascade, {}
    halves = in_halves(Triplets(root / "triplets"), params.seed)
    keys = (params.seed, params.train_seed, "cascade")
    parts: dict[str, Callable[[], list[dict]]] = {
        "vlm": lambda: writer(ranks, params, root, out / "vlm", "cascade/vlm", (*keys, "vlm"), halves[0]),
        "vdm": lambda: renderer(
            ranks, params, root, out / "vdm", "cascade/vdm", (*keys, "vdm"), halves[1], "target_sentence"
        ),
    }
    for part, fit in parts.items():
        if (named := getattr(at, part)) is None:
            histories[part] = fit()
        elif ranks.main:
            not_trained(out / part, f"arms.cascade.{part} is {named}")
    return histories


def in_halves(triplets: Triplets, seed: int) -> tuple[list[str], list[str]]:
    """The training triplets in two parts that share no scene and no source video, by a digest of the scene."""
    frame = triplets.frame.loc[triplets.select(split="train")]
    scene = frame["scene"].astype("string").fillna("")
    groups = scene.where(scene != "", frame["video"].astype("string"))
    first = [seed_of(seed, "half", group) % 2 == 0 for group in groups]
    ids = list(frame.index)
    return [i for i, f in zip(ids, first, strict=True) if f], [i for i, f in zip(ids, first, strict=True) if not f]


def writer(
    ranks: Ranks, params: Any, root: Path, out: Path, name: str, keys: tuple, ids: list[str]
) -> list[dict]:
    """A VLM alone, as in SFT, on some of the triplets."""
    s = params.sft.vlm
    run = begun(ranks, params, root, name, ("sft.vlm", "models.vlm"), ["models/base/vlm"])
    if run.done:
        return run.take(out)
    triplets, vlm = Triplets(root / "triplets"), fresh_vlm(params, root, ranks.device, keys, over(params, ranks))
    learner = Learner(ranks, [vlm.model], s, s.steps)
    run.attach({"vlm": vlm.model}, {"vlm": learner.optim})
    for step in run.steps(s.steps, of_step(params, "sft/vlm")):
        learner.begin(step)
        loss = text_step(ranks, params, vlm, triplets, batch_ids(ids, step, s.batch, *keys))
        run.log(step, loss=loss, grad_norm=learner.end())
    return run.finish(out, vlm.save_lora)


def unified(ranks: Ranks, params: Any, root: Path, out: Path) -> dict[str, list[dict]]:
    at, s = params.arms.unified, params.sft
    used = ("arms.unified", "sft", "models.vlm", "models.vdm")
    run = begun(ranks, params, root, "unified/both", used, ["models/base/vlm", "models/base/vdm"])
    if run.done:
        return {"both": run.take(out)}
    keys = (params.seed, params.train_seed, "unified")
    triplets = Triplets(root / "triplets")
    ids = triplets.select(split="train")
    vlm, vdm = fresh_vlm(params, root, ranks.device, keys), fresh_vdm(params, root, ranks.device)
    connector = Connector.between(vlm, vdm, seed_of(*keys, "connector") % 2**31).to(ranks.device)
    clips = Clips.of(ranks, root, vdm, ids, references=True)
    vdm.text_encoder.to("meta")
    writes = Learner(ranks, [vlm.model], s.vlm, at.steps)
    renders = Learner(ranks, [vdm.dit, connector], s.vdm, at.steps)

    def told(chosen: list[str], dropped: list[bool]) -> Tensor:
        with vlm.recomputing():
            seen = driven(vlm, prompts_of(vlm, triplets, chosen), connector, at.tokens)
        return seen * (1.0 - torch.tensor(dropped, device=seen.device, dtype=seen.dtype))[:, None, None]

    modules = {"vlm": vlm.model, "dit": vdm.dit, "connector": connector}
    run.attach(modules, {"vlm": writes.optim, "dit": renders.optim})
    for step in run.steps(at.steps, Work(s.vdm.batch, lambda: flops(params))):
        whole = batch_ids(ids, step, s.vdm.batch, *keys)
        writes.begin(step)
        renders.begin(step)
        text_loss = text_step(ranks, params, vlm, triplets, whole)
        flow_loss = flow_step(ranks, s.vdm, vdm, clips, whole, told, (*keys, step))
        norms = {"vlm_grad_norm": writes.end(), "vdm_grad_norm": renders.end()}
        run.log(step, text_loss=text_loss, flow_loss=flow_loss, **norms)

    def save(folder: Path) -> None:
        vlm.save_lora(folder / "vlm")
        vdm.dit.save_pretrained(folder / "vdm/transformer")
        connector.save(folder)

    return {"both": run.finish(out, save)}


def flops(params: Any) -> float:
    """Of one step of the unified system: both models' SFT steps, and the prompt passed once more with its gradient."""
    from vans.plan.work import Models

    models = Models(params)
    both = sum(part.flop for stage in ("sft/vlm", "sft/vdm") for part in models.step(stage))
    again = models.read_prompt - models.tower  # the tower's features are kept
    return both + params.sft.vdm.batch * (2 + models.again) * again
