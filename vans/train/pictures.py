"""Text to image: SFT of the VDM, stage 1 and stage 2 with one picture in the place of the clip. The method is one for
any writer and renderer, so the trainers are those of the clips, as they are; what is another is the data
(vans/data/pictures.py) and two parameters: video.frames and models.vdm.references are 1.

Everything happens in a root of its own, runs/pictures/, which is taken up again where it was interrupted. Base models
and SFT's VLM are those of the clips; the reference latent is the first of the input clip's. The text alone does not say
where things have moved to meanwhile.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vans import files
from vans.answer.arm import predict
from vans.data.pictures import derive
from vans.grid import Arm, Cell
from vans.parallel import Ranks, launch
from vans.preflight import preflight
from vans.score import run
from vans.score.score import Scores
from vans.train import sft, stage1, stage2

OUT, WORK = "models/pictures", "runs/pictures"
STAGE1 = Cell("stage1", "full", "sft", "sft", "full")
STAGE2 = Cell("stage2", "main", "stage1/full", "sft", "full")
ARMS = {
    "sft": Arm("sft", "sft", "sft"),
    "stage1": Arm("stage1", STAGE1.name, "sft"),
    "main": Arm("main", STAGE1.name, STAGE2.name),
    "ceiling": Arm("ceiling", "sft", STAGE2.name, captions="ground_truth"),
}


@dataclass(frozen=True)
class Made:
    """Where the pictures are (root/predictions/<arm>, root/triplets), with the parameters, histories and scores."""

    root: Path
    params: Any
    histories: dict[str, list[dict]]
    scores: dict[str, Scores]


def of_pictures(params: Any) -> Any:
    """The same parameters for one picture."""
    return params.with_(video={"frames": 1}, models={"vdm": {"references": 1}})


def train(params: Any, root: Path) -> Made:
    """All of it: trainings, answers and scores. Writes models/pictures with sft/vdm, stage1/full and stage2/main."""
    p, here = of_pictures(params), root / WORK
    preflight(params, root, "sft", ["models/base/vlm", "models/base/vdm", "models/base/clip", "models/sft/vlm"])
    begin(params, root, here)
    with files.atomic_dir(here / "models/sft/vdm") as partial:
        job = {"root": str(here), "out": str(partial)}
        histories = {"sft": launch("vans.train.pictures:train_renderer", p.machine, params=p, **job)}
    histories["stage1"] = stage1.train(p, STAGE1, here)
    histories["stage2"] = stage2.train(p, STAGE2, here)
    scores = {}
    for key, arm in ARMS.items():
        scores[key] = run.score_arm(predict(p, arm, here), here, key, p)
        scores[key].save(here / "results/scores")
    with files.atomic_dir(root / OUT) as partial:
        for name in ("sft/vdm", STAGE1.name, STAGE2.name):
            shutil.copytree(here / "models" / name, partial / name)
    return Made(here, p, histories, scores)


def begin(params: Any, root: Path, here: Path) -> None:
    """The root of its own: derived triplets, and links to what the clips' models give."""
    derive(root / "triplets", here / "triplets", params)
    shutil.rmtree(here / "models", ignore_errors=True)
    for name in ("base", "sft/vlm"):
        (here / "models" / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink((root / "models" / name).absolute(), here / "models" / name)


def train_renderer(ranks: Ranks, params: Any, root: str, out: str) -> list[dict]:
    return sft.train_vdm(ranks, params, Path(root), Path(out))
