"""How answers hold up in a chain, in which each is the next input: what the toy world's oracle sees, event by event.

The same question is asked again at each event. What should come then, the toy world's rules say: of a routine the event
after the last one (so the k-th is k steps after what the input shows), of a condition its usual outcome for the input's
shape, each time. The surprise, which one sample in five of the data shows instead, does not count as right here.

Columns of `measured`, one row a sample, event and arm:

| column | |
|---|---|
| right | does the oracle see the event that should come by now? |
| follows | of a routine: does it see the event after the one that it sees in the video before? |
| identity | has the object the colour and the shape that it has in the very first input? |
| blur | mean squared distance of the object's pixels from the nearest clip of the toy world, 0..1; 0 is sharp |

The arm TRUTH is told what should come, by the sources' own labels: what a chain loses there, the pictures lose.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from vans.answer.live import Answerer, names_of
from vans.answer.watch import of_frames
from vans.data.batches import clips_of
from vans.errors import UserError
from vans.score.bootstrap import draws, percentile
from vans.toy import oracle, world
from vans.toy.render import SIZE

TRUTH = "truth"
MEASURES = ("right", "follows", "identity", "blur")


def expected(kind: str, topic: str, shape: str, seen: str, events: int) -> list[str]:
    """What should come, event by event. topic: a routine, or a condition; seen: the event that the input shows."""
    if kind == "predictive":
        return [world.outcome(topic, shape)] * events
    found = [seen]
    for _ in range(events):
        found.append(world.successor(topic, found[-1]))
    return found[1:]


def measured(models: Answerer, triplets: Any, ids: Sequence[str], events: int, told: bool = False) -> pd.DataFrame:
    """A row for each sample and event (see above). told: by the true captions instead of the VLM's.

    Samples whose input shows no event to the oracle are left out. UserError for data that is not the toy world's.
    """
    clips = clips_of(triplets, list(ids), "input")
    if tuple(clips.shape[2:4]) != (SIZE, SIZE) or not {*triplets.frame.loc[list(ids), "topic"]} <= _topics():
        raise UserError(f"{triplets.folder}: only the toy world's rules tell what should come; use its triplets")
    first = oracle.read(clips.numpy())
    kept = [i for i, reading in enumerate(first) if reading.event != oracle.STATIC]
    ids, clips, first = [ids[i] for i in kept], clips[kept], [first[i] for i in kept]
    rows = triplets.frame.loc[ids]
    true = [
        expected(row.kind, row.topic, reading.shape, reading.event, events)
        for row, reading in zip(rows.itertuples(), first, strict=True)
    ]
    parts, before = [], first
    for event, videos in enumerate(_videos(models, triplets, ids, clips, true if told else None, first, events)):
        seen = oracle.read(videos.numpy())
        for i, (id, row) in enumerate(zip(ids, rows.itertuples(), strict=True)):
            last, procedural = before[i].event, row.kind == "procedural"
            follows = last != oracle.STATIC and procedural and seen[i].event == world.successor(row.topic, last)
            parts.append(
                {
                    "id": id,
                    "kind": row.kind,
                    "scene": row.scene,
                    "event": event + 1,
                    "expected": true[i][event],
                    "seen": seen[i].event,
                    "right": float(seen[i].event == true[i][event]),
                    "follows": float(follows) if procedural else np.nan,
                    "identity": float((seen[i].colour, seen[i].shape) == (first[i].colour, first[i].shape)),
                    "blur": seen[i].distance,
                }
            )
        before = seen
    return pd.DataFrame(parts)


def _topics() -> set[str]:
    return {*world.ROUTINES, *world.CONDITIONS}


def _videos(
    models: Answerer, triplets: Any, ids: list[str], clips: Tensor, true: Any, first: Any, events: int
) -> Iterator[Tensor]:
    """The videos of each event, uint8 [N, T, H, W, 3]."""
    rates = triplets.rates(ids, "input", clips.shape[1])
    seen = [of_frames(clip, rate) for clip, rate in zip(clips, rates, strict=True)]
    if true is None:
        questions = [triplets.row(id)["question"] for id in ids]
        for answers in models.chain(seen, questions, events, name=ids):
            yield torch.stack([answer.frames for answer in answers])
        return
    for event in range(events):
        captions = [world.label(reading.shape, row[event]) for reading, row in zip(first, true, strict=True)]
        videos = models.render(seen, captions, name=names_of(event, ids))
        yield videos
        seen = [of_frames(video, models.params.video.fps) for video in videos]


def summary(frame: pd.DataFrame, resamples: int, seed: int) -> pd.DataFrame:
    """Means with 95 % intervals over scenes: a row for each arm, kind ("all" too), event and measure.

    frame: of `measured`, with a column arm. Columns: arm, kind, event, measure, n, value, lo, hi.
    """
    rows = []
    whole = [(("all", *key), part) for key, part in frame.groupby(["arm", "event"], sort=False)]
    each = [(key, part) for key, part in frame.groupby(["kind", "arm", "event"], sort=False)]
    for (kind, arm, event), part in [*whole, *each]:
        weights = draws(part["scene"].tolist(), resamples, seed)
        for measure in MEASURES:
            values = part[measure].to_numpy(float)
            if not np.isfinite(values).any() or (kind == "all" and np.isnan(values).any()):
                continue
            found = percentile(values.mean(), weights @ values / weights.sum(1), len(values))
            rows.append(
                {"arm": arm, "kind": kind, "event": event, "measure": measure}
                | {"n": found.n, "value": found.value, "lo": found.lo, "hi": found.hi}
            )
    return pd.DataFrame(rows)
