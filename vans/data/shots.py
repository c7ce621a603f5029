"""Shot boundaries of videos without timestamps, and the choice of the best clip inside a segment."""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vans.media.video import TOLERANCE, Video

SHORTEST_SHOT = 0.2  # s; closer boundaries count as one
BLACK = 12.0  # mean brightness (0..255) under which a shot is only black between shots
FAINT = 64.0  # of 255; below it light and colour count less, being noise
LOOK = 96  # px; the longer side of pictures before they are compared


@dataclass(frozen=True)
class Segment:
    """A part of a video. start, end: s; label: what happens ('' if nobody said); black: nothing to see."""

    id: str
    start: float
    end: float
    label: str = ""
    black: bool = False


def find(video: Video, threshold: float) -> list[Segment]:
    """Cut a video at its shot boundaries; black between shots is a segment of its own.

    threshold: difference of neighbouring pictures (see `difference`) from which on they are of two shots. All lengths
    are measured in seconds, whatever rate the file claims. What goes back within SHORTEST_SHOT to what was there before
    (less than half as far off) is a flash and no boundary. The segments cover the whole video, in order. Raises
    UserError where decoding fails.
    """
    times: list[float] = []
    light: list[float] = []
    cuts: list[int] = []
    flashes: set[int] = set()  # pictures in them
    last: Colours | None = None
    old: Colours | None = None  # the last picture before the newest boundary, as long as that may be a flash's
    jump = 0.0  # there
    for time, picture in video.frames(longest=LOOK):
        n, seen = len(times), Colours(picture)
        if old is not None and time - times[cuts[-1]] >= SHORTEST_SHOT - TOLERANCE:
            old = None
        if old is not None and difference(old, seen) < jump / 2:
            flashes.update(range(cuts.pop(), n))
            old = None
        elif old is None and last is not None and (jump := difference(last, seen)) >= threshold:
            cuts.append(n)
            old = last
        last = seen
        times.append(time)
        light.append(float(picture.mean()))
    if not times:
        return []
    for run in _black(light):
        cuts += _around(run, times, cuts) if not flashes.intersection(run) else []
    edges = sorted({0, *cuts, len(times)})
    ends = [*times, max(video.info.end, times[-1])]
    return [
        Segment(str(i + 1), round(times[a], 3), round(ends[b], 3), black=float(np.mean(light[a:b])) < BLACK)
        for i, (a, b) in enumerate(pairwise(edges))
    ]


class Colours:
    """A picture, uint8 [H, W, 3], as it is compared: hue 0..180, saturation, value 0..255; and YCrCb.

    bright, coloured: how much its saturation and its hue count, 0..1.
    """

    def __init__(self, picture: np.ndarray) -> None:
        import cv2

        self.hsv = cv2.cvtColor(picture, cv2.COLOR_RGB2HSV)
        self.ycc = cv2.cvtColor(picture, cv2.COLOR_RGB2YCrCb)
        value = self.hsv[..., 2] * np.float32(1 / FAINT)
        self.coloured = np.minimum(value * (self.hsv[..., 1] * np.float32(1 / 255)), 1)
        self.bright = np.minimum(value, 1)


def difference(one: Colours, other: Colours) -> float:
    """How much two pictures differ, 0..255: the larger of two channels, each the mean over the pixels.

    The first is the mean change of hue, saturation and value, where hue is a circle; hue counts as far as there is
    colour, saturation as far as there is light, since noise has any. It cannot tell green from red that are equally
    saturated and bright; the second, the distance of colour alone (Cr, Cb), can.
    """
    import cv2

    hue, saturation, value = cv2.split(cv2.absdiff(one.hsv, other.hsv))
    hue = cv2.min(hue, 180 - hue)
    weighed = np.vdot(hue.astype(np.float32), np.minimum(one.coloured, other.coloured))
    weighed += np.vdot(saturation.astype(np.float32), np.minimum(one.bright, other.bright))
    first = (float(weighed) / hue.size + cv2.mean(value)[0]) / 3
    _, red, blue = cv2.split(cv2.absdiff(one.ycc, other.ycc))
    colour = cv2.magnitude(red.astype(np.float32), blue.astype(np.float32))
    return max(first, cv2.mean(colour)[0])


def _black(light: Sequence[float]) -> list[range]:
    """Where pictures are black between others that are not: mean brightness of each -> pictures.

    From where it falls to half of BLACK, so that a night scene is not cut to pieces, to where it rises to twice that.
    """
    runs: list[range] = []
    lit, dark = -1, False
    for n, level in enumerate([*light, 255.0]):
        if level > 2 * BLACK:
            if dark and lit >= 0 and n < len(light):
                below = [i for i in range(lit + 1, n) if light[i] < BLACK]
                runs.append(range(below[0], below[-1] + 1))
            lit, dark = n, False
        dark = dark or level < BLACK / 2
    return runs


def _around(run: range, times: Sequence[float], cuts: Sequence[int]) -> list[int]:
    """Boundaries on both sides of black pictures, one in the middle of few; none where there is one already."""
    short = times[run.stop] - times[run.start] < SHORTEST_SHOT - TOLERANCE
    near = [run[len(run) // 2]] if short else [run.start, run.stop]
    return [n for n in near if all(abs(times[n] - times[c]) >= SHORTEST_SHOT - TOLERANCE for c in cuts)]


class Best:
    """The window of `count` neighbouring pictures with most motion (the first of equals), seen in one pass.

    Motion is the sum of absolute differences of neighbouring pictures, in integers, so that equal windows are
    exactly equal. at: where the best window begins; pictures: its pictures. Only two windows are held in memory.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.at = self.seen = self.total = 0
        self.pictures: list[np.ndarray] = []
        self.most = -1
        self.window: deque[np.ndarray] = deque(maxlen=count)
        self.changes: deque[int] = deque()

    def push(self, picture: np.ndarray) -> None:
        """The next picture, uint8 [H, W, 3]."""
        if self.window and self.count > 1:
            import cv2

            change = int(cv2.norm(picture, self.window[-1], cv2.NORM_L1))  # exact; NumPy takes ten times as long
            self.changes.append(change)
            self.total += change - (self.changes.popleft() if len(self.changes) == self.count else 0)
        self.window.append(picture)
        self.seen += 1
        if self.seen >= self.count and self.total > self.most:
            self.most, self.at, self.pictures = self.total, self.seen - self.count, list(self.window)

    @property
    def motion(self) -> float:
        """Mean change of a pixel from picture to picture in the best window, 0..1."""
        steps = (self.count - 1) * self.pictures[0].size if self.pictures else 0
        return round(self.most / (255 * steps), 6) if steps else 0.0
