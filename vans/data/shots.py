"""Shot boundaries of videos without timestamps, and the choice of the best clip inside a segment."""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from vans.video import Video

SHORTEST_SHOT = 0.2  # s; closer boundaries count as one
BLACK = 12.0  # mean brightness (0..255) under which a shot is only black between shots
LOOK = 96  # px; pictures are thinned to about this width before they are compared


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
    for time, picture in video.frames():
        thin = max(1, picture.shape[1] // LOOK)
        small = np.ascontiguousarray(picture[::thin, ::thin, ::-1])  # BGR
        cuts += [c.frame_num for c in detector.process_frame(FrameTimecode(len(times), rate), small)]
        times.append(time)
        light.append(float(small.mean()))
    if not times:
        return []
    edges = sorted({0, *cuts, len(times)})
    ends = [*times, max(video.info.duration, times[-1])]
    return [
        Segment(str(i + 1), round(times[a], 3), round(ends[b], 3), black=float(np.mean(light[a:b])) < BLACK)
        for i, (a, b) in enumerate(pairwise(edges))
    ]


def best_window(frames: np.ndarray, count: int) -> int:
    """Where the `count` neighbouring pictures with most motion begin (the first of equals).

    frames: uint8 [n, H, W, 3], n >= count. Motion is the sum of absolute differences of neighbouring
    pictures, in integers, so that equal windows are exactly equal.
    """
    if len(frames) < count:
        raise ValueError(f"{len(frames)} pictures do not hold a window of {count}")
    change = np.array(
        [np.abs(b.astype(np.int16) - a).sum(dtype=np.int64) for a, b in pairwise(frames)],
        dtype=np.int64,
    )
    total = np.concatenate([[0], np.cumsum(change)])
    return int(np.argmax(total[count - 1 :] - total[: len(total) - count + 1]))
