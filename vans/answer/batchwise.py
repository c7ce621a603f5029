"""The predictions of an arm or a system, batch by batch: each batch is kept as soon as it is done, until all are."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tqdm import tqdm

from vans import code, cpu, files
from vans.answer import predictions
from vans.data import shards
from vans.media import video as media
from vans.models.protocol import protocol_of
from vans.parallel import Ranks
from vans.train.settings import MACHINE

Answers = tuple[Sequence[str], Sequence[str], Any]  # captions, whole texts, videos (N of uint8 [T, H, W, 3]) or None


def identity(
    params: Any, root: Path, ranks: Ranks, entry: str, sections: Sequence[str], folders: Iterable[Path], **more: Any
) -> str:
    """Of what decides answers: parameters, data, models, code, and what computes them. Batches of another one are not
    taken.

    entry: the module whose code counts. sections: of the parameters. folders: of the models. more: what else decides.
    """
    resolved = params.resolved()
    told = {name: value for name, value in resolved.items() if name in sections}
    told["machine"] = {name: resolved["machine"][name] for name in MACHINE}
    told["machine"] |= {"device": ranks.device.type, "caps": cpu.caps_set()}
    told["protocol"] = asdict(protocol_of(params))  # the release's prompts, too, which stand outside of the parameters
    paths = sorted({p for folder in folders for p in folder.rglob("*") if p.is_file() and "groups" not in p.parts})
    told["files"] = [[os.path.relpath(p, root), files.sha256_file(p)] for p in paths]
    told["triplets"] = [files.sha256_file(root / "triplets/manifest.parquet"), shards.identity(root / "triplets")]
    told["code"] = code.digest([entry], Path(__file__).resolve().parents[2])
    return files.digest(told | more)[:12]


def predict(
    ranks: Ranks,
    params: Any,
    ids: Sequence[str],
    out: Path,
    kept: Path,
    answer: Callable[[list[str]], Answers],
    videos: bool = True,
) -> None:
    """Write this rank's share `ids` of predictions to `out`: videos/<id>.*, and, by rank 0, captions.csv of all.

    kept: where batches are kept. answer: to some of the questions. videos: are there any?
    """
    if ranks.main:
        for folder in (kept.parent, kept):  # what a kill left half-written, or half-deleted at the end
            files.sweep(folder)
    ranks.barrier()
    size, suffix = params.generate.batch, ".avi" if params.curate.codec == "raw" else ".mp4"
    rows: list[tuple[str, str, str]] = []
    if videos:
        (out / "videos").mkdir(exist_ok=True)
    chunks = [list(ids[i : i + size]) for i in range(0, len(ids), size)]
    for chunk in tqdm(chunks, desc="answers", disable=not ranks.main, mininterval=2, ncols=100):
        done, names = kept / f"batch-{files.digest(chunk)[:12]}", [f"{id}{suffix}" for id in chunk] if videos else []
        record = files.sealed(done)
        try:  # another process that answers for the same arm, and has ended, removes what both have kept
            if record is not None:
                _place(names, done, out / "videos")
        except FileNotFoundError:
            record = None
        if record is None:
            captions, texts, clips = answer(chunk)
            record = {"captions": list(captions), "texts": list(texts)}
            for name, clip in zip(names, clips if videos else (), strict=True):
                media.write(out / "videos" / name, clip.numpy(), params.video.fps)
            with suppress(FileNotFoundError), files.atomic_dir(done) as partial:
                _place(names, out / "videos", partial)
                files.seal(partial, record)
        rows += zip(chunk, record["captions"], record["texts"], strict=True)
    every = ranks.collect(rows)
    if ranks.main:
        table = predictions.captions_csv(*zip(*every, strict=True))
        (out / predictions.CAPTIONS).write_text(table, encoding="utf-8", newline="")


def _place(names: list[str], here: Path, there: Path) -> None:
    """Files of a folder in another one, too: links, or copies where there are none."""
    for name in names:
        (there / name).unlink(missing_ok=True)
        try:
            os.link(here / name, there / name)
        except OSError:
            shutil.copyfile(here / name, there / name)
