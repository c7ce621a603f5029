"""Shot boundaries of videos without timestamps, and the choice of the best clip inside a segment."""

from collections import deque
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vans.media.video import Video

SHORTEST_SHOT = 0.2  # s; closer boundaries count as one
BLACK = 12.0  # mean brightness (0..255) under which a shot is only black between shots
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
    """Cut a video at its shot boundaries: PySceneDetect's content detector.

    threshold: mean change of hue, saturation and value between neighbouring pictures, 0..255. The segments
    cover the whole video, in order. Raises UserError where decoding fails.
    """
    from scenedetect import ContentDetector, FrameTimecode

    rate = video.info.fps
    detector = ContentDetector(threshold=threshold, min_scene_len=max(1, round(SHORTEST_SHOT * rate)))
    times: list[float] = []
    light: list[float] = []
    cuts: list[int] = []
    for time, picture in video.frames(longest=LOOK):
        small = np.ascontiguousarray(picture[..., ::-1])  # BGR
        cuts += [c.frame_num for c in detector.process_frame(FrameTimecode(len(times), rate), small)]
        times.append(time)
        light.append(float(small.mean()))
    if not times:
        return []
    edges = sorted({0, *cuts, len(times)})
    ends = [*times, max(video.info.end, times[-1])]
    return [
        Segment(str(i + 1), round(times[a], 3), round(ends[b], 3), black=float(np.mean(light[a:b])) < BLACK)
        for i, (a, b) in enumerate(pairwise(edges))
    ]


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


def best_window(frames: np.ndarray, count: int) -> int:
    """Where the best window (see Best) of frames uint8 [n, H, W, 3] begins; ValueError if n < count."""
    if len(frames) < count:
        raise ValueError(f"{len(frames)} pictures do not hold a window of {count}")
    best = Best(count)
    for picture in frames:
        best.push(picture)
    return best.at
