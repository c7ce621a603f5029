"""Answers: caption and video for the held-out samples of an arm.

The noise of a video depends on (seed, sample) alone, so all arms render a sample from the same noise; an answer's
text is drawn from (seed, sample) too. Where an arm draws several answers and keeps the best, the first is the one that
it would give without that, and the k-th is drawn from (seed, sample/k).
"""

from __future__ import annotations

import os
import shutil
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vans import code, cpu, files
from vans.answer import predictions
from vans.answer.best import Answer, best_of, judge
from vans.answer.draw import render as render
from vans.answer.draw import write_answers as write_answers
from vans.data import shards
from vans.data.batches import clips_of, held_out
from vans.data.triplets import Triplets
from vans.grid import Arm
from vans.media import video as media
from vans.models.load import load_vdm, load_vlm
from vans.models.protocol import protocol_of
from vans.parallel import Ranks, launch
from vans.preflight import preflight

# Of the machine, what moves last bits; the sampler moves all.
BATCHES = ("dtype", "threads", "vae_batch", "dit_batch", "sample_batch", "decoding", "compile", "sampler")
DECIDING = ("seed", "video", "generate", "curate", "models", "machine")  # sections of the parameters


def predict(params: Any, arm: Arm, root: Path) -> Path:
    """Write an arm's predictions to predictions/<arm>: captions.csv and videos/<id>.*; returns the folder.

    Each batch is kept under runs/answer/<arm>/ as soon as it is done, until all are: what is interrupted goes on there.
    """
    out, clip = root / "predictions" / arm.key, params.video
    samples = len(held_out(Triplets(root / "triplets"), params.evaluate.samples))
    models = ["models/base/vlm", arm.vlm_folder] if arm.captions == "vlm" else []
    models += ["models/base/vdm", arm.vdm_folder] if arm.captions != "none" else []
    preflight(params, root, "answer", models)
    files.check_free_space(out, samples * clip.frames * clip.height * clip.width * 3)
    with files.atomic_dir(out) as partial:
        job = {"root": str(root), "out": str(partial), "arm": arm.plain()}
        kept = launch("vans.answer.arm:predict_share", params.machine, params=params, **job)
    files.discard(kept)
    return out


def predict_share(ranks: Ranks, params: Any, root: str, out: str, arm: dict) -> str:
    """This rank's share of an arm's predictions; returns the folder in which batches are kept."""
    g, here, at = params.generate, Path(root), Arm(**arm)
    protocol = protocol_of(params)
    base, captions = here / "models/base", at.captions
    triplets = Triplets(here / "triplets")
    ids = ranks.share(held_out(triplets, params.evaluate.samples))
    vlm = load_vlm(params, base, here / at.vlm_folder, ranks.device) if captions == "vlm" else None
    vdm = load_vdm(params, base, here / at.vdm_folder, ranks.device, True) if captions != "none" else None
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

    kept = here / "runs/answer" / at.key / ranks.gather(identity(params, here, ranks, at) if ranks.main else "")[0]
    if ranks.main:
        for folder in (kept.parent, kept):  # what a kill left half-written, or half-deleted at the end
            files.sweep(folder)
    ranks.barrier()
    videos = Path(out) / "videos"
    videos.mkdir(exist_ok=True)
    for chunk in tqdm(chunks, desc="answers", disable=not ranks.main, mininterval=2, ncols=100):
        done, names = kept / f"batch-{files.digest(chunk)[:12]}", [f"{id}{suffix}" for id in chunk]
        record = files.sealed(done)
        try:  # another process that answers for this arm, and has ended, removes what both have kept
            if record is not None:
                place(names, done, videos)
        except FileNotFoundError:
            record = None
        if record is None:
            given = best_of(at.best_of["n"], chooser, chunk, draw) if at.best_of and chooser else draw(chunk)
            record = {"captions": [caption for caption, _, _ in given], "texts": [text for _, text, _ in given]}
            for name, (_, _, clip) in zip(names, given, strict=True):
                media.write(videos / name, clip.numpy(), params.video.fps)
            with suppress(FileNotFoundError), files.atomic_dir(done) as partial:
                place(names, videos, partial)
                files.seal(partial, record)
        words += record["captions"]
        texts += record["texts"]
    rows_out = ranks.collect(list(zip(ids, words, texts, strict=True)))
    if ranks.main:
        table = predictions.captions_csv(*zip(*rows_out, strict=True))
        (Path(out) / predictions.CAPTIONS).write_text(table, encoding="utf-8", newline="")
    return str(kept)


def place(names: list[str], here: Path, there: Path) -> None:
    """Files of a folder in another one, too: links, or copies where there are none."""
    for name in names:
        (there / name).unlink(missing_ok=True)
        try:
            os.link(here / name, there / name)
        except OSError:
            shutil.copyfile(here / name, there / name)


def identity(params: Any, root: Path, ranks: Ranks, arm: Arm) -> str:
    """Of what decides an arm's answers: parameters, data, models, code, and what computes them. Batches of another one
    are not taken."""
    told = {key: value for key, value in params.resolved().items() if key in DECIDING}
    told["machine"] = {key: told["machine"][key] for key in BATCHES}
    told["protocol"] = asdict(protocol_of(params))  # the release's prompts, too, which stand outside of the parameters
    told["machine"] |= {"device": ranks.device.type, "caps": cpu.caps_set()}
    base = ["vlm", "vdm", *(["clip"] if arm.best_of else [])]
    folders = [f"models/base/{name}" for name in base] + [arm.vlm_folder, arm.vdm_folder]
    paths = sorted({p for name in folders for p in (root / name).rglob("*") if p.is_file() and "groups" not in p.parts})
    told["files"] = [[str(p.relative_to(root)), files.sha256_file(p)] for p in paths]
    told["triplets"] = [files.sha256_file(root / "triplets/manifest.parquet"), shards.identity(root / "triplets")]
    told["code"] = code.digest(["vans/answer/arm.py"], Path(__file__).resolve().parents[2])
    return files.digest(told | {"arm": arm.plain()})[:12]
