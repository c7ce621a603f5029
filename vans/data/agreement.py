"""Does a target clip show what its caption says, and the input not yet? CLIP's opinion, for the RL subset's score."""

import math
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from vans.data.engine import cores
from vans.errors import UserError
from vans.media import video

if TYPE_CHECKING:
    from vans.models.clip import CLIP

FRAMES = 4  # of a clip, evenly spread
BATCH = 32  # clips at a time


def judge(params: Any) -> "CLIP":
    """CLIP by models.clip.repo of params, on machine.device.

    Raises UserError if its weights are not there, or can only be trained from the curation's own output.
    """
    from vans.devices import device_of
    from vans.models.clip import CLIP

    model = params.models.clip
    place = f"scales.{params.scale}." if hasattr(params, "scale") else ""
    if model.repo is None:
        raise UserError(
            f"params.yaml: {place}curate.agreement: clip needs models.clip.repo; this scale trains its CLIP after the "
            "curation, so write none"
        )
    device = device_of(params.machine.device, 0)
    try:
        return CLIP.load(model.repo, model.revision).to(device)
    except Exception as error:  # offline, no such repository, a folder without weights: the hub raises many kinds
        why = " ".join(str(error).split())[:300]
        raise UserError(
            f"params.yaml: {place}models.clip.repo: {model.repo} cannot be loaded ({why}); get its weights, or leave "
            f"CLIP out of the RL subset's score with {place}curate.agreement: none"
        ) from error


def visual_gain(rows: Sequence[dict], shards: Path, clip: "CLIP", progress: bool = False) -> list[float]:
    """What the video adds over the text, 0..1: 1 / (1 + exp(-s (t - i))), t and i being `agreement` of the caption with
    target and input clip and s CLIP's own scale of its logits: the probability by which CLIP, told to choose, gives the
    caption to the target. A caption that the input shows as well (0.5 and below) can be written without looking ahead,
    and its reward tells nothing of the video.
    """
    target, given = (_cosines(rows, shards, clip, which, progress) for which in ("target", "input"))
    scale = float(clip.model.logit_scale.detach().exp())
    return [round(1 / (1 + math.exp(-scale * (t - i))), 4) for t, i in zip(target, given, strict=True)]


def agreement(rows: Sequence[dict], shards: Path, clip: "CLIP", progress: bool = False) -> list[float]:
    """Mean cosine of the frames' features with the caption's, -1..1, of each row's target clip.

    rows: caption, shard, and offset and size of both clips. clip: see `judge`.
    """
    return [round(cosine, 4) for cosine in _cosines(rows, shards, clip, "target", progress)]


def _cosines(rows: Sequence[dict], shards: Path, clip: "CLIP", which: str, progress: bool) -> list[float]:
    import torch

    cosines: list[float] = []
    said = f"agreement, {which}"
    bar = tqdm(total=len(rows), desc=said, unit="clip", disable=not progress, file=sys.stderr, mininterval=2.0)
    with bar, ThreadPoolExecutor(cores()) as pool:  # the decoder lets other threads run
        for at in range(0, len(rows), BATCH):
            part = rows[at : at + BATCH]
            frames = torch.from_numpy(np.stack(list(pool.map(partial(_frames, shards, which), part))))
            texts = clip.text([row["caption"] for row in part])
            cosines += (clip.image(frames) * texts[:, None]).sum(-1).mean(-1).tolist()
            bar.update(len(part))
    return cosines


def _frames(shards: Path, which: str, row: dict) -> np.ndarray:
    with open(shards / row["shard"], "rb") as shard:
        shard.seek(row[f"{which}_offset"])
        clip, _ = video.decode(shard.read(row[f"{which}_size"]))
    return clip[np.linspace(0, len(clip) - 1, FRAMES).round().astype(int)]
