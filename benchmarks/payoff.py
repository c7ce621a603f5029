"""Does standing still pay? Reward of a still minus reward of the right event at a moment of its own, by CLIP.

    python benchmarks/payoff.py                # models/base/clip of this repository, scenes of world seed 101
    python benchmarks/payoff.py --root DIR     # another repository's

Nobody tells when a transient event begins. A video that shows it at another
moment than the true clip differs from it twice: where it should not move, and where it should. A still differs once.
Each row is a set of durations and onsets of which both, the true clip and the video, draw theirs; the captions have
either of an event's two words. + says that a VDM tuned on this reward does well to let nothing happen.

The scenes are drawn from a world of another seed than params.yaml's, so nothing held out is looked at.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vans.data.draw import Draw
from vans.errors import UserError
from vans.files import atomic_write_text
from vans.models.clip import load_clip
from vans.params import load
from vans.similarity import clip_score, frame_similarity
from vans.toy import world
from vans.toy.render import DURATION, EVENTS, ONSETS, TRANSIENT, render_event
from vans.toy.sources import draw_scene
from vans.visible import terminal

SEED = 101
LASTING = tuple(e for e in EVENTS if e not in TRANSIENT)
ROWS: dict[str, tuple[Sequence[str], Sequence[int], Sequence[int]]] = {  # events, durations, onsets
    "the world's transient events": (TRANSIENT, (DURATION,), ONSETS),
    "3 frames": (TRANSIENT, (3,), ONSETS),
    "3 or 4 frames": (TRANSIENT, (3, 4), ONSETS),
    "from frame 1, 3 or 5": (TRANSIENT, (DURATION,), (1, 3, 5)),
    "always from frame 3": (TRANSIENT, (DURATION,), (3,)),
    "the world's lasting events": (LASTING, (0,), (2,)),
}


@dataclass(frozen=True)
class Payoff:
    """Means over scenes of the reward of a still less that of the event: under r_v2, and under r_v2 + r_c2."""

    v2: float
    both: float


def payoff(
    clip: Any, events: Sequence[str], durations: Sequence[int], onsets: Sequence[int], n: int, seed: int
) -> Payoff:
    """clip: has `image(clips)` and `text(captions)`, as `vans.models.clip.CLIP`. n: scenes, each with all moments."""
    v2, c2 = [], []
    for i in range(n):
        draw = Draw(seed, "payoff", i)
        scene, event = draw_scene(draw), events[i % len(events)]
        shown = [render_event(scene, event, 9, onset - 1, frames) for onset in onsets for frames in durations]
        still = render_event(scene, None)
        *happens, rests = clip.image(torch.from_numpy(np.stack([*shown, still])))  # each [9, D]
        event_at, at_rest = torch.stack(happens), rests[None]
        pairs = [frame_similarity(event_at, true.expand_as(event_at)).mean() for true in happens]
        same = frame_similarity(event_at, rests.expand_as(event_at)).mean()
        text = clip.text([world.caption(scene.shape, event, "plain", draw.below(2))])
        v2.append(same - torch.stack(pairs).mean())
        c2.append(clip_score(at_rest, text)[0] - clip_score(event_at, text.expand(len(happens), -1)).mean())
    stay, say = torch.stack(v2).mean().item(), torch.stack(c2).mean().item()
    return Payoff(stay, stay + say)


def table(clip: Any, n: int, seed: int) -> dict[str, Payoff]:
    return {name: payoff(clip, *row, n=n, seed=seed) for name, row in ROWS.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(), help="repository whose base CLIP judges")
    parser.add_argument("--seed", type=int, default=SEED, help="world from which scenes are drawn")
    parser.add_argument("--scenes", type=int, default=128)
    parser.add_argument("--out", type=Path, help="write the table as JSON, too")
    args = parser.parse_args()
    params = load(args.root.resolve())
    if args.seed == load(Path(__file__).resolve().parents[1]).world.seed:
        raise UserError(f"--seed {args.seed}: that is the published world; take another one")
    found = table(load_clip(params, args.root / "models/base"), args.scenes, args.seed)
    print("| durations and onsets, of 9 frames | r_v2 | r_v2 + r_c2 |\n|---|---|---|")
    for name, row in found.items():
        print(f"| {name} | {row.v2:+.3f} | {row.both:+.3f} |")
    if args.out:
        atomic_write_text(args.out, json.dumps({name: vars(row) for name, row in found.items()}, indent=1) + "\n")


if __name__ == "__main__":
    with terminal():  # who reads along may go: the figures are written all the same
        main()
