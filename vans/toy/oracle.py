"""The exact oracle: which event, colour and shape a 32 x 32 toy clip shows, told from pixels.

A clip becomes 9 maps of "how much of the object's colour is here" (0..1); these are compared with maps
rendered for every shape, event, rest position, size, start and duration (matched filter, squared distance). "none" is
the hypothesis that nothing changes: the clip's own mean map, repeated.
"""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from vans.toy.render import COLOURS, EVENTS, SHAPES, SIZE, TRANSIENT, Scene, coverage, pose, progress

FRAMES = 9
CELL = 2  # maps are compared at 16 x 16
STARTS = (0, 1, 2)  # last frame at rest, of events that last
MOMENTS = range(7)  # the same of transient ones: all that leave two frames
DURATIONS = (2, 3, 4, 5, 6)  # frames of transient ones; more than the world's own, since models are not exact
POSITIONS = tuple(14.0 + 0.5 * i for i in range(9))
SCALES = (0.92, 1.0, 1.08)
STATIC = "none"


@dataclass(frozen=True)
class Reading:
    """What a clip shows.

    event: one of EVENTS or "none". colour, shape: names. motion: mean |frame difference|, 0..1.
    distance: mean squared distance to the nearest hypothesis, 0..1 (the larger, the less like the toy world).
    change: mean squared difference of the object's maps from their mean, 0..1 (0: nothing happens to the object).
    """

    event: str
    colour: str
    shape: str
    motion: float
    distance: float
    change: float


@dataclass(frozen=True)
class Bank:
    """What clips are compared with. D = 256 cells, M maps of a look, H hypotheses.

    rest: maps at rest [looks, D]. maps: [looks, M, D]. shown: which map a hypothesis has in each frame [H, 9]. events:
    its event [H].
    """

    rest: np.ndarray
    maps: np.ndarray
    shown: np.ndarray
    events: list[str]


@lru_cache(maxsize=1)
def _bank() -> Bank:
    told = [(event, start, 2) for event in EVENTS if event not in TRANSIENT for start in STARTS]
    told += [(event, start, frames) for event in TRANSIENT for start in MOMENTS for frames in DURATIONS]
    states = [[(event, u) for u in progress(event, FRAMES, start, frames)] for event, start, frames in told]
    place = {state: n for n, state in enumerate(sorted({state for row in states for state in row}))}
    rest, maps = [], []
    for shape in SHAPES:
        for x in POSITIONS:
            for scale in SCALES:
                scene = Scene(shape=shape, x=x, scale=scale)
                poses = [pose(scene, *state) for state in place]
                rest.append(_shrink(coverage(shape, scale, pose(scene, None, 0.0))))
                maps.append(np.stack([_shrink(coverage(shape, scale, p) * p.opacity) for p in poses]))
    shown = np.array([[place[state] for state in row] for row in states])
    return Bank(np.array(rest, np.float32), np.array(maps, np.float32), shown, [event for event, _, _ in told])


def _shrink(maps: np.ndarray) -> np.ndarray:
    """[..., 32, 32] -> [..., 256] by averaging cells."""
    small = SIZE // CELL
    return (
        maps.reshape(*maps.shape[:-2], small, CELL, small, CELL)
        .mean(axis=(-3, -1))
        .reshape(*maps.shape[:-2], -1)
    )


def _colour_maps(clips: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Clips float32 [N, 9, 32, 32, 3] in 0..1 -> (colour index [N], object maps [N, 9, 256])."""
    directions = np.array(list(COLOURS.values()), dtype=np.float32) / 255.0
    directions -= directions.mean(axis=1, keepdims=True)
    strength = np.linalg.norm(directions, axis=1, keepdims=True)
    chroma = clips - clips.mean(axis=-1, keepdims=True)
    at_rest = chroma[:, 0, 12:26, 9:23].mean(axis=(1, 2))  # N 3
    wall = np.median(chroma[:, 0, :10], axis=(1, 2))  # N 3, the wall's own tint
    colour = ((at_rest - wall) @ (directions / strength).T).argmax(axis=1)
    chosen = directions[colour] / strength[colour] ** 2  # N 3, 1 on the pure colour
    maps = sum(chroma[..., c] * chosen[:, c, None, None, None] for c in range(3))
    maps -= np.einsum("nc,nc->n", wall, chosen)[:, None, None, None]
    return colour, _shrink(np.clip(maps, -0.2, 1.2))


def read(clips: np.ndarray) -> list[Reading]:
    """Tell what clips show. clips: uint8 [N, T, 32, 32, 3] RGB (T other than 9 is resampled), numpy or torch.

    Raises ValueError on any other shape or type.
    """
    clips = np.asarray(clips)
    if clips.dtype != np.uint8 or clips.ndim != 5 or clips.shape[2:] != (SIZE, SIZE, 3) or clips.shape[1] < 1:
        raise ValueError(
            f"clips must be uint8 [N, T, {SIZE}, {SIZE}, 3], got {clips.dtype} {list(clips.shape)}"
        )
    readings: list[Reading] = []
    for part in range(0, len(clips), 256):
        readings += _read_part(clips[part : part + 256])
    return readings


def motion(clips: np.ndarray) -> np.ndarray:
    """Mean absolute difference between neighbouring frames, [N] in 0..1, of uint8 clips [N, T, H, W, 3]."""
    clips = np.asarray(clips).astype(np.float32) / 255.0
    if clips.shape[1] < 2:
        return np.zeros(len(clips), dtype=np.float32)
    return np.abs(np.diff(clips, axis=1)).mean(axis=(1, 2, 3, 4))


def _read_part(clips: np.ndarray) -> list[Reading]:
    moved = motion(clips)
    picked = np.round(np.linspace(0, clips.shape[1] - 1, FRAMES)).astype(int)
    colour, maps = _colour_maps(clips[:, picked].astype(np.float32) / 255.0)
    bank = _bank()
    first = maps[:, 0]  # N D
    to_rest = (first**2).sum(1)[:, None] - 2.0 * first @ bank.rest.T + (bank.rest**2).sum(1)[None]
    nearest = to_rest.argmin(axis=1)  # N
    mean = maps.mean(axis=1, keepdims=True)
    to_static = ((maps - mean) ** 2).sum(axis=(1, 2)) * FRAMES / (FRAMES - 1)  # unbiased under noise
    readings = []
    for i in range(len(maps)):
        known = bank.maps[nearest[i]]  # M D
        apart = (maps[i] ** 2).sum(1)[:, None] - 2.0 * maps[i] @ known.T + (known**2).sum(1)[None]  # 9 M
        distance = apart[np.arange(FRAMES), bank.shown].sum(axis=1)  # H
        best = int(distance.argmin())
        static = to_static[i] <= distance[best]
        readings.append(
            Reading(
                event=STATIC if static else bank.events[best],
                colour=list(COLOURS)[colour[i]],
                shape=SHAPES[nearest[i] // (len(POSITIONS) * len(SCALES))],
                motion=float(moved[i]),
                distance=float(max(0.0, min(to_static[i], distance[best])) / maps[i].size),
                change=float(to_static[i] / maps[i].size),
            )
        )
    return readings
