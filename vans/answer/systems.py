"""Answers of the main table's other systems (vans/train/systems.py) on the held-out samples, to predictions/<system>.

Each sample's video has the noise that every arm renders it from, and each text the draws of every arm's VLM. Finished
batches are kept under runs/systems_answer/ until all are there, and what an endpoint has said in its cache.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from vans import files
from vans.answer import batchwise, predictions
from vans.answer.draw import render, write_answers
from vans.answer.outsiders import Pipeline, caption_of, captions_of_endpoint
from vans.data.batches import clips_of, held_out, prompts_of
from vans.data.triplets import Triplets
from vans.models.connector import Connector, driven
from vans.models.load import frozen_dtype, load_vdm, load_vlm, vlm_options
from vans.models.protocol import protocol_of
from vans.models.vlm import VLM
from vans.parallel import Ranks, launch
from vans.params.arms import ENDPOINT
from vans.preflight import preflight
from vans.rng import noise

DECIDING = ("seed", "video", "generate", "arms", "curate", "models")  # sections of the parameters


def predict(params: Any, key: str, models: str, root: Path) -> Path:
    """Write a system's predictions: captions.csv, and videos/<id>.* where it renders; returns the folder.

    key: of vans.grid; models: whose, below models/. Of a system that `arms.run` leaves out: an empty captions.csv.
    """
    out, clip = root / "predictions" / key, params.video
    if key not in params.arms.run:
        with files.atomic_dir(out) as partial:
            (partial / predictions.CAPTIONS).write_text(predictions.captions_csv([], [], []), encoding="utf-8")
        print(f"{key}: not run at scale {params.scale} (arms.run): its row stays empty")
        return out
    triplets = Triplets(root / "triplets")
    ids = held_out(triplets, params.evaluate.samples)
    at = params.arms.cascade
    base = ["models/base/vlm"] * (key != "extension" and (key, at.vlm) != ("cascade", ENDPOINT))
    base += ["models/base/vdm"] * (key != "textual" and (key != "cascade" or at.vdm is None))
    preflight(params, root, "answer", base)
    files.check_free_space(out, len(ids) * clip.frames * clip.height * clip.width * 3)
    said = captions_of_endpoint(params, triplets, ids, root) if (key, at.vlm) == ("cascade", ENDPOINT) else None
    with files.atomic_dir(out) as partial:
        job = {"root": str(root), "out": str(partial), "key": key, "models": models, "said": said}
        kept = launch("vans.answer.systems:predict_share", params.machine, params=params, **job)
    files.discard(kept)
    return out


def predict_share(
    ranks: Ranks, params: Any, root: str, out: str, key: str, models: str, said: dict[str, str] | None
) -> str:
    """This rank's share of a system's predictions; returns the folder in which batches are kept."""
    here = Path(root)
    triplets = Triplets(here / "triplets")
    ids = ranks.share(held_out(triplets, params.evaluate.samples))
    system = SYSTEMS[key](params, here, here / "models" / models, ranks.device, triplets)
    system.said = said
    name = ranks.gather(identity(params, here, ranks, key, models, said) if ranks.main else "")[0]
    kept = here / "runs/systems_answer" / key / name
    batchwise.predict(ranks, params, ids, Path(out), kept, system.answer, videos=key != "textual")
    return str(kept)


def identity(params: Any, root: Path, ranks: Ranks, key: str, models: str, said: Any) -> str:
    """Of what decides a system's answers (`batchwise.identity`); local folders that the cascade names count, too."""
    at = params.arms.cascade
    own = [root / name for name in (at.vlm, at.vdm) if key == "cascade" and name and (root / name).is_dir()]
    folders = [root / "models/base/vlm", root / "models/base/vdm", root / "models" / models, *own]
    return batchwise.identity(params, root, ranks, "vans/answer/systems.py", DECIDING, folders, key=key, said=said)


# ---------------------------------------------------------------------------------------------- the systems
class System:
    """Captions, whole texts and videos of some held-out samples; what is missing of them stays "" or None."""

    said: dict[str, str] | None = None  # an endpoint's answers

    def __init__(self, params: Any, root: Path, models: Path, device: Any, triplets: Triplets):
        self.params, self.root, self.models, self.device, self.triplets = params, root, models, device, triplets
        self.base, self.protocol = root / "models/base", protocol_of(params)
        self.load()

    def load(self) -> None:
        raise NotImplementedError

    def answer(self, ids: list[str]) -> batchwise.Answers:
        raise NotImplementedError

    def seen(self, ids: list[str]) -> Tensor:
        return clips_of(self.triplets, ids, "input")

    def written(self, vlm: VLM, ids: list[str]) -> list[str]:
        """Whole answers of a VLM to the questions."""
        clips = self.seen(ids)
        rates = self.triplets.rates(ids, "input", clips.shape[1])
        return write_answers(self.params, vlm, clips, [self.triplets.row(i)["question"] for i in ids], rates, ids)

    def rendered(self, vdm: Any, told: Tensor, negative: Tensor, ids: list[str], references: bool = True) -> Tensor:
        """Videos of conditions [N, L, D], with the same noise and steps as those of an arm."""
        g, c = self.params.generate, self.params.video
        start = noise(vdm.latent_shape(c.frames, c.height, c.width), ids, self.params.seed, "answer")
        seen = vdm.pick_references(vdm.encode(self.seen(ids))) if references else start[:, :, :0]
        return vdm.decode(vdm.render_latents(told, seen, start, g.steps, g.guidance, negative, g.batch))


class Textual(System):
    """A VLM without a VDM."""

    def load(self) -> None:
        self.vlm = load_vlm(self.params, self.base, self.models / "vlm", self.device)

    def answer(self, ids: list[str]) -> batchwise.Answers:
        texts = self.written(self.vlm, ids)
        return [self.protocol.caption(t) or "" for t in texts], texts, None


class Extension(System):
    """Frames alone. There is nothing to guide towards, so guidance is 1."""

    def load(self) -> None:
        self.vdm = load_vdm(self.params, self.base, self.models / "vdm", self.device, True)

    def answer(self, ids: list[str]) -> batchwise.Answers:
        nothing = [""] * len(ids)
        plain = self.params.with_(generate={"guidance": 1.0})
        return nothing, nothing, render(plain, self.vdm, self.seen(ids), nothing, ids)


class Unified(System):
    """Text and video of one model. Guidance departs from conditions of zeros, which training has seen."""

    def load(self) -> None:
        self.vlm = load_vlm(self.params, self.base, self.models / "vlm", self.device)
        self.vdm = load_vdm(self.params, self.base, self.models / "vdm", self.device, True)
        self.connector = Connector.load(self.models).to(self.device)

    @torch.no_grad()
    def answer(self, ids: list[str]) -> batchwise.Answers:
        texts = self.written(self.vlm, ids)
        prompts = prompts_of(self.vlm, self.triplets, ids)
        told = driven(self.vlm, prompts, self.connector, self.params.arms.unified.tokens)
        videos = self.rendered(self.vdm, told, torch.zeros_like(told[:1]), ids)
        return [self.protocol.caption(t) or "" for t in texts], texts, videos


class Cascade(System):
    """A VLM and a VDM that never met, each trained here or named by `arms.cascade`."""

    def load(self) -> None:
        p, at = self.params, self.params.arms.cascade
        self.vlm: Any = None
        self.vdm: Any = None
        self.pipeline: Pipeline | None = None
        if at.vlm is None:
            self.vlm = load_vlm(p, self.base, self.models / "vlm", self.device)
        elif at.vlm != ENDPOINT:
            dtype = frozen_dtype(p) if p.machine.dtype != "float32" else None
            self.vlm = VLM.load(at.vlm, at.vlm_revision, dtype, **vlm_options(p) | {"system": at.system})
            self.vlm.sample_batch = p.machine.sample_batch
            self.vlm.to(self.device)
        if at.vdm is None:
            self.vdm = load_vdm(p, self.base, self.models / "vdm", self.device, True)
        else:
            self.pipeline = Pipeline(p, self.device)

    def answer(self, ids: list[str]) -> batchwise.Answers:
        texts = [self.said[i] for i in ids] if self.said is not None else self.written(self.vlm, ids)
        captions = [caption_of(text) for text in texts]
        if self.pipeline is not None:
            return captions, texts, self.pipeline.render(self.seen(ids), captions, ids)
        with torch.no_grad():
            told, negative = self.vdm.embed(captions), self.vdm.embed([self.vdm.negative_prompt])
        return captions, texts, self.rendered(self.vdm, told, negative, ids, references=False)


SYSTEMS: dict[str, type[System]] = {
    "extension": Extension,
    "cascade": Cascade,
    "unified": Unified,
    "textual": Textual,
}
