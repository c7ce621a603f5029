"""Test-time choice: N answers to a question are drawn and the best one is kept, by a score of their own.

`clip_t_own` needs no truth: the video that CLIP finds most like the caption it was asked to show, which anybody could
choose. `video_event` asks the toy world's oracle whether the true event is seen: no method, but the ceiling of
choosing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vans import similarity
from vans.errors import UserError
from vans.models.clip import load_clip
from vans.toy import oracle
from vans.toy.render import SIZE

Answer = tuple[str, str, Tensor]  # caption, whole text, video uint8 [T, H, W, 3]


@dataclass(frozen=True)
class Judge:
    """``scores(ids, answers)``: a number each, more is better, nan worse than any. ``most``: none is more than that."""

    scores: Callable[[Sequence[str], Sequence[Answer]], Sequence[float]]
    most: float = float("inf")


def judge(by: str, params: Any, base: Path, triplets: Any, device: Any) -> Judge:
    """The judge of a name of `vans.grid.CHOOSERS`. base: the folder of the base models."""
    return {"clip_t_own": _clip, "video_event": _oracle}[by](params, base, triplets, device)


def best_of(
    n: int, judge: Judge, ids: Sequence[str], draw: Callable[[list[str], int], Sequence[Answer]]
) -> list[Answer]:
    """The best of ``n`` answers to each of ``ids``, the first of equals. draw(ids, k): the k-th answer to each.

    Questions whose answer cannot be bettered are not drawn again.
    """
    kept = list(draw(list(ids), 0))
    scores = _worst(judge.scores(ids, kept))
    for k in range(1, n):
        if not (some := [i for i, score in enumerate(scores) if score < judge.most]):
            break
        names = [ids[i] for i in some]
        drawn = draw(names, k)
        for i, answer, score in zip(some, drawn, _worst(judge.scores(names, drawn)), strict=True):
            if score > scores[i]:
                kept[i], scores[i] = answer, score
    return kept


def _worst(scores: Sequence[float]) -> list[float]:
    return np.nan_to_num(np.asarray(scores, float), nan=-np.inf, posinf=np.inf, neginf=-np.inf).tolist()


def _clip(params: Any, base: Path, triplets: Any, device: Any) -> Judge:
    model = load_clip(params, base, device)

    def scores(ids: Sequence[str], answers: Sequence[Answer]) -> list[float]:
        captions, _, videos = zip(*answers, strict=True)
        found = similarity.clip_score(model.image(torch.stack(videos)), model.text(list(captions))).tolist()
        return [value if caption.strip() else np.nan for value, caption in zip(found, captions, strict=True)]

    return Judge(scores)


def _oracle(params: Any, base: Path, triplets: Any, device: Any) -> Judge:
    def scores(ids: Sequence[str], answers: Sequence[Answer]) -> list[float]:
        true = np.asarray(triplets.clips(ids, "target"))
        if true.shape[2:4] != (SIZE, SIZE):
            raise UserError(f"dvc.yaml: answer: best_of: video_event reads the toy world alone, {SIZE} x {SIZE} pixels")
        seen = oracle.read(torch.stack([video for _, _, video in answers]).numpy())
        return [float(a.event == b.event) for a, b in zip(seen, oracle.read(true), strict=True)]

    return Judge(scores, most=1.0)
