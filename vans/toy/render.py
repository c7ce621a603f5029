"""The toy world's picture: one large object in a small room, eight events, exact to the byte.

Four events last: the object is elsewhere, or of another size, when they are over (EVENT_STEPS frame steps, 7 / 3 fps =
2.33 s). Four are TRANSIENT: for DURATION frames the object is not as it was, and then it is again; nobody says when.

Only +, -, *, /, comparisons and integer sums are used (each is exact or correctly rounded everywhere), so
that the same arguments give the same bytes on every machine. Frames are 32 x 32, anti-aliased by 4 x 4
samples. Lengths are in pixels, x to the right, y downwards.
"""

from dataclasses import dataclass

import numpy as np

SIZE = 32  # px, frames are square
FPS = 3.0  # frames per second of every source
SAMPLES = 4  # anti-aliasing samples per pixel and axis
EVENT_STEPS = 7  # frame steps from rest to the end of an event that lasts
DURATION = 4  # frames away from rest, of a transient event
ONSETS = (1, 3, 5, 7)  # the first frame away from rest, of a transient event in a shot of 9
HALFWAY = 0.75  # how far a transient event is in its first and last frame
FLOOR_Y = 26.0  # the line on which the object stands
RADIUS = 7.5  # half height of the object at rest
TRAVEL = 10.0  # how far left, right and jump go
SINK = 13.0  # how far dive goes: in front of the floor, out of the frame (a cone that the floor hid from
# below would look just like one that shrinks)

SHAPES = ("ball", "box", "cone")
EVENTS = ("left", "right", "jump", "dive", "grow", "shrink", "fade", "squash")
TRANSIENT = ("jump", "dive", "fade", "squash")
COLOURS = {
    "red": (222, 40, 40),
    "green": (36, 168, 60),
    "blue": (40, 80, 224),
    "yellow": (236, 204, 36),
    "purple": (156, 44, 196),
    "cyan": (36, 192, 212),
}
WALLS = ((238, 222, 216), (216, 226, 238), (220, 234, 218), (240, 234, 216))
FLOORS = ((72, 72, 76), (92, 88, 84), (56, 62, 68))
POSTERS = ((150, 158, 168), (182, 168, 150), (120, 124, 128))
POSTER = 8  # px, side


@dataclass(frozen=True)
class Scene:
    """What stays the same in all segments of one source.

    shape: one of SHAPES. colour: a key of COLOURS. x: rest position, 14..18. scale: size factor, 0.92..1.08.
    wall, floor, poster: indices into WALLS, FLOORS, POSTERS. poster_x, poster_y: its left upper corner.
    """

    shape: str = "ball"
    colour: str = "red"
    x: float = 16.0
    scale: float = 1.0
    wall: int = 0
    floor: int = 0
    poster: int = 0
    poster_x: int = 4
    poster_y: int = 4


@dataclass(frozen=True)
class Pose:
    """Where the object is: centre x, bottom y, factors of width and height, opacity 0..1."""

    x: float
    bottom: float
    wide: float = 1.0
    high: float = 1.0
    opacity: float = 1.0


_GRID = (np.arange(SIZE * SAMPLES) + 0.5) / SAMPLES  # sample positions in px


def pose(scene: Scene, event: str | None, u: float) -> Pose:
    """The object's pose where an event (None: at rest) is at u in [0, 1] of the way from rest to its extreme."""
    if event is None:
        return Pose(scene.x, FLOOR_Y)
    if event == "left":
        return Pose(scene.x - TRAVEL * u, FLOOR_Y)
    if event == "right":
        return Pose(scene.x + TRAVEL * u, FLOOR_Y)
    if event == "jump":
        return Pose(scene.x, FLOOR_Y - TRAVEL * u)
    if event == "dive":
        return Pose(scene.x, FLOOR_Y + SINK * u)
    if event == "grow":
        return Pose(scene.x, FLOOR_Y, 1.0 + 0.55 * u, 1.0 + 0.55 * u)
    if event == "shrink":
        return Pose(scene.x, FLOOR_Y, 1.0 - 0.62 * u, 1.0 - 0.62 * u)
    if event == "fade":
        return Pose(scene.x, FLOOR_Y, opacity=1.0 - 0.9 * u)
    if event == "squash":
        return Pose(scene.x, FLOOR_Y, 1.0 + 0.6 * u, 1.0 - 0.68 * u)
    raise ValueError(f"unknown event {event!r}; one of {', '.join(EVENTS)}")


def coverage(shape: str, scale: float, at: Pose) -> np.ndarray:
    """Share of each pixel that the object covers, [32, 32] float64 in steps of 1/16."""
    half_w = RADIUS * scale * at.wide
    half_h = RADIUS * scale * at.high
    dx = (_GRID - at.x)[None, :] / half_w  # -1..1 across the object
    dy = (_GRID - (at.bottom - half_h))[:, None] / half_h  # -1 at the top, 1 at the bottom
    if shape == "ball":
        inside = dx * dx + dy * dy <= 1.0
    elif shape == "box":
        inside = (np.abs(dx) <= 0.92) & (np.abs(dy) <= 1.0)
    elif shape == "cone":
        inside = (np.abs(dy) <= 1.0) & (np.abs(dx) * 2.0 <= (dy + 1.0) * 1.08)
    else:
        raise ValueError(f"unknown shape {shape!r}; one of {', '.join(SHAPES)}")
    counts = inside.reshape(SIZE, SAMPLES, SIZE, SAMPLES).sum(axis=(1, 3), dtype=np.int64)
    return counts / float(SAMPLES * SAMPLES)


def background(scene: Scene) -> np.ndarray:
    """The empty room, [32, 32, 3] float64 in 0..255."""
    room = np.empty((SIZE, SIZE, 3))
    room[:] = WALLS[scene.wall]
    x, y = scene.poster_x, scene.poster_y
    room[y : y + POSTER, x : x + POSTER] = POSTERS[scene.poster]
    room[int(FLOOR_Y) :] = FLOORS[scene.floor]
    return room


def frame(scene: Scene, at: Pose | None, room: np.ndarray | None = None) -> np.ndarray:
    """One picture, uint8 [32, 32, 3] RGB; at = None shows the empty room."""
    room = background(scene) if room is None else room
    if at is None:
        return (room + 0.5).astype(np.uint8)
    alpha = (coverage(scene.shape, scene.scale, at) * at.opacity)[:, :, None]
    colour = np.array(COLOURS[scene.colour], dtype=np.float64)
    return (room * (1.0 - alpha) + colour * alpha + 0.5).astype(np.uint8)


def progress(event: str | None, frames: int, start: int, duration: int = DURATION) -> list[float]:
    """How far an event is in each frame, 0..1. start: last frame at rest; duration: frames, of a transient event."""
    if event in TRANSIENT:
        away = [HALFWAY] + [1.0] * (duration - 2) + [HALFWAY]
        return [away[t - start - 1] if 0 < t - start <= duration else 0.0 for t in range(frames)]
    return [min(max(t - start, 0), EVENT_STEPS) / EVENT_STEPS for t in range(frames)]


def render_event(
    scene: Scene, event: str | None, frames: int = 9, start: int = 1, duration: int = DURATION
) -> np.ndarray:
    """A shot, uint8 [frames, 32, 32, 3]: at rest up to frame `start`, then the event (see `progress`)."""
    room = background(scene)
    steps = progress(event, frames, start, duration)
    drawn = {u: frame(scene, pose(scene, event, u), room) for u in sorted(set(steps))}
    return np.stack([drawn[u] for u in steps])
