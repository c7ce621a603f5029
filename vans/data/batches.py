"""What models eat: ids of a batch from (seed, step), clips as tensors, prompts; which samples are held out."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.rng import generator


def batch_ids(ids: list[str], step: int, batch: int, *keys: object) -> list[str]:
    """The batch of a step: every id once per epoch, each epoch in an order of its own (seeded by keys and epoch)."""
    if not ids:
        raise UserError("no triplets to train on: check triplets/report.json, and curate.rl in params.yaml")
    out: list[str] = []
    position = step * batch
    while len(out) < batch:
        epoch, offset = divmod(position, len(ids))
        order = torch.randperm(len(ids), generator=generator(*keys, "epoch", epoch)).tolist()
        take = order[offset : offset + batch - len(out)]
        out += [ids[i] for i in take]
        position += len(take)
    return out


def clips_of(triplets: Triplets, ids: list[str], which: str) -> Tensor:
    """uint8 clips [N, T, H, W, 3] of these triplets."""
    return torch.from_numpy(triplets.clips(ids, which))


def prompts_of(vlm: Any, triplets: Triplets, ids: list[str]) -> Any:
    """The VLM's inputs of these triplets: the input clip, at the rate of its own time, and the question.

    Its vision tower is frozen: a triplet is tokenised and its clip encoded when it is first met.
    """

    def prompt(id: str) -> Any:
        clips = clips_of(triplets, [id], "input")
        return vlm.inputs(clips, [triplets.row(id)["question"]], triplets.rates([id], "input", clips.shape[1]))

    return vlm.together([vlm.kept((triplets.folder, id), lambda id=id: prompt(id)) for id in ids])


def held_out(triplets: Triplets, samples: int) -> list[str]:
    """The evaluation's ids: at most `samples` of each kind, procedural first."""
    return [
        id for kind in ("procedural", "predictive") for id in triplets.select(split="test", kind=kind, limit=samples)
    ]
