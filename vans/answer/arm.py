"""Answers: caption and video for the held-out samples of an arm.

The noise of a video depends on (seed, sample) alone, so all arms render a sample from the same noise; an answer's
text is drawn from (seed, sample) too. Where an arm draws several answers and keeps the best, the first is the one that
it would give without that, and the k-th is drawn from (seed, sample/k).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from vans import files
from vans.answer import predictions
from vans.answer.best import Answer, best_of, judge
from vans.data.batches import clips_of, held_out
from vans.data.triplets import Triplets
from vans.grid import Arm
from vans.media import video as media
from vans.models.load import load_vdm, load_vlm
from vans.models.protocol import protocol_of
from vans.parallel import Ranks, launch
from vans.rng import noise


def predict(params: Any, arm: Arm, root: Path) -> Path:
    """Write an arm's predictions to predictions/<arm>: captions.csv and videos/<id>.*; returns the folder."""
    out, clip = root / "predictions" / arm.key, params.video
    samples = len(held_out(Triplets(root / "triplets"), params.evaluate.samples))
    files.check_free_space(out, samples * clip.frames * clip.height * clip.width * 3)
    with files.atomic_dir(out) as partial:
        job = {"root": str(root), "out": str(partial), "arm": arm.plain()}
        launch("vans.answer.arm:predict_share", params.machine, params=params, **job)
    return out


def predict_share(ranks: Ranks, params: Any, root: str, out: str, arm: dict) -> None:
    g, here, at = params.generate, Path(root), Arm(**arm)
    protocol = protocol_of(params)
    base, captions = here / "models/base", at.captions
    triplets = Triplets(here / "triplets")
    ids = ranks.share(held_out(triplets, params.evaluate.samples))
    vlm = load_vlm(params, base, here / at.vlm_folder, ranks.device) if captions == "vlm" else None
    vdm = load_vdm(params, base, here / at.vdm_folder, ranks.device) if captions != "none" else None
    chooser = judge(at.best_of["by"], params, base, triplets, ranks.device) if at.best_of else None
    texts: list[str] = []
    words: list[str] = []
    suffix = ".avi" if params.curate.codec == "raw" else ".mp4"
    chunks = [ids[i : i + g.batch] for i in range(0, len(ids), g.batch)]

    def draw(some: list[str], k: int = 0) -> list[Answer]:
        """The k-th answer to each of some questions."""
        names = [f"{i}/{k}" for i in some] if k else some
        clips = clips_of(triplets, some, "input")
        rows = [triplets.row(i) for i in some]
        if vlm is not None:
            rates = triplets.rates(some, "input", clips.shape[1])
            answers = write_answers(params, vlm, clips, [r["question"] for r in rows], rates, names)
            found = [protocol.caption(t) or "" for t in answers]
        elif captions == "ground_truth":
            found = answers = [r["caption"] for r in rows]
        else:
            found = answers = [""] * len(some)
        videos = clips if vdm is None else render(params, vdm, clips, found, names)
        return list(zip(found, answers, videos, strict=True))

    for chunk in tqdm(chunks, desc="answers", disable=not ranks.main, mininterval=2, ncols=100):
        given = best_of(at.best_of["n"], chooser, chunk, draw) if at.best_of and chooser else draw(chunk)
        for id, (caption, text, clip) in zip(chunk, given, strict=True):
            words.append(caption)
            texts.append(text)
            media.write(Path(out) / "videos" / f"{id}{suffix}", clip.numpy(), params.video.fps)
    rows_out = ranks.collect(list(zip(ids, words, texts, strict=True)))
    if ranks.main:
        table = predictions.captions_csv(*zip(*rows_out, strict=True))
        (Path(out) / predictions.CAPTIONS).write_text(table, encoding="utf-8", newline="")


def write_answers(
    params, vlm, clips: Tensor, questions: list[str], fps: Sequence[float], names: list[str], within_template=False
) -> list[str]:
    """The VLM's whole answers, one of each question; drawn from (seed, name). fps: of each clip, pictures/s.

    within_template: see `VLM.sample`.
    """
    answers = vlm.sample(
        vlm.inputs(clips, questions, fps),
        seeds=[(params.seed, "answer", n) for n in names],
        within_template=within_template,
        **protocol_of(params).drawing(params.generate),
    )
    return answers.texts


def render(params, vdm, clips: Tensor, captions: list[str], names: list[str], progress=None) -> Tensor:
    """Videos uint8 [N, T, H, W, 3] of captions, given input clips [N, T, H, W, 3]."""
    g, c, protocol = params.generate, params.video, protocol_of(params)
    vdm.lowered(protocol.half, protocol.tile)
    shape = vdm.latent_shape(c.frames, c.height, c.width)
    with torch.no_grad():
        text = vdm.embed(captions)
        negative = vdm.embed([vdm.negative_prompt])
    reference = vdm.pick_references(vdm.encode(clips))
    if protocol.one_seed:
        same = torch.randn(shape, generator=torch.Generator().manual_seed(params.seed))
        start = same.expand(len(names), *shape)
    else:
        start = noise(shape, names, params.seed, "answer")
    final = vdm.render_latents(text, reference, start, g.steps, g.guidance, negative, g.batch, progress)
    return vdm.decode(final)
