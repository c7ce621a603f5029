"""Answers: caption and video for the held-out samples of an arm.

The noise of a video depends on (seed, sample) alone, so all arms render a sample from the same noise; an answer's
text is drawn from (seed, sample) too. Where an arm draws several answers and keeps the best, the first is the one that
it would give without that, and the k-th is drawn from (seed, sample/k).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vans import files
from vans.answer import batchwise
from vans.answer.best import Answer, best_of, judge
from vans.answer.draw import render as render
from vans.answer.draw import write_answers as write_answers
from vans.data.batches import clips_of, held_out
from vans.data.triplets import Triplets
from vans.grid import Arm
from vans.models.load import load_vdm, load_vlm
from vans.models.protocol import protocol_of
from vans.parallel import Ranks, launch
from vans.preflight import preflight

DECIDING = ("seed", "video", "generate", "curate", "models")  # sections of the parameters


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
    here, at = Path(root), Arm(**arm)
    protocol = protocol_of(params)
    base, captions = here / "models/base", at.captions
    triplets = Triplets(here / "triplets")
    ids = ranks.share(held_out(triplets, params.evaluate.samples))
    vlm = load_vlm(params, base, here / at.vlm_folder, ranks.device) if captions == "vlm" else None
    vdm = load_vdm(params, base, here / at.vdm_folder, ranks.device, True) if captions != "none" else None
    chooser = judge(at.best_of["by"], params, base, triplets, ranks.device) if at.best_of else None

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

    def answer(some: list[str]) -> batchwise.Answers:
        chosen = best_of(at.best_of["n"], chooser, some, draw) if at.best_of and chooser else draw(some)
        words, texts, videos = zip(*chosen, strict=True)
        return words, texts, videos

    kept = here / "runs/answer" / at.key / ranks.gather(identity(params, here, ranks, at) if ranks.main else "")[0]
    batchwise.predict(ranks, params, ids, Path(out), kept, answer)
    return str(kept)


def identity(params: Any, root: Path, ranks: Ranks, arm: Arm) -> str:
    """Of what decides an arm's answers (`batchwise.identity`)."""
    base = [f"models/base/{name}" for name in ("vlm", "vdm", *(["clip"] if arm.best_of else []))]
    folders = [root / name for name in (*base, arm.vlm_folder, arm.vdm_folder)]
    return batchwise.identity(params, root, ranks, "vans/answer/arm.py", DECIDING, folders, arm=arm.plain())
