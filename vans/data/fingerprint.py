"""A video's fingerprint: what duplicates.py compares."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from vans.data.records import Record
from vans.errors import UserError
from vans.media.video import TOLERANCE, Video

FRAMES = 8  # pictures of a fingerprint, evenly spread over the video
GRID = 8  # each thinned to GRID x GRID colours
LOOK = 128  # px; the longer side of pictures before they are thinned
SEEK = 5.0  # s; over gaps longer than this the reader jumps instead of decoding all between


Seen = dict[tuple[Path, float], np.ndarray]  # (file, time s) -> uint8 [GRID, GRID, 3]


def times(start: float, end: float) -> list[float]:
    """When the pictures of a fingerprint are shown: of a whole video, or of a part of it, s."""
    return [start + (i + 0.5) / FRAMES * (end - start) for i in range(FRAMES)]


def thin(opened: Video, frame: Any) -> np.ndarray:
    """A frame, uint8 [GRID, GRID, 3]."""
    high, wide = opened.info.height, opened.info.width
    scale = min(1.0, LOOK / max(high, wide))
    picture = opened.picture(frame, max(1, round(high * scale)), max(1, round(wide * scale)))
    return np.asarray(Image.fromarray(picture).resize((GRID, GRID), Image.Resampling.BOX))


def fingerprint(opened: Video, seen: Mapping[tuple[Path, float], np.ndarray] | None = None) -> np.ndarray:
    """Uint8 [FRAMES, GRID, GRID, 3] of an open video; of a damaged one, from what can be decoded.

    seen: pictures that another look at the video has left; what is missing is decoded. Raises UserError if nothing
    can be.
    """
    seen = seen or {}
    out: list[np.ndarray] = []
    stream: Iterator[tuple[float, Any]] = iter(())
    shown: tuple[float, Any] | None = None
    ahead: tuple[float, Any] | None = None
    error: UserError | None = None
    begun = False
    for time in times(opened.info.start, opened.info.end):
        if (opened.path, time) in seen:
            out.append(seen[opened.path, time])
            continue
        try:
            if not begun or (ahead is not None and time - ahead[0] > SEEK):
                stream, begun = opened._decode(time), True  # pictures are converted where they are looked at only
                ahead = next(stream, None)
            while ahead is not None and (shown is None or ahead[0] <= time + TOLERANCE):
                shown, ahead = ahead, next(stream, None)
        except UserError as damage:
            error, ahead = damage, None
        if shown is None:
            raise error or UserError(f"{opened.path}: holds no picture; replace or remove it")
        out.append(thin(opened, shown[1]))
    return np.stack(out)


def fingerprints(
    record: Record, seen: Mapping[tuple[Path, float], np.ndarray] | None = None
) -> tuple[np.ndarray, int]:
    """Of the video and then of each cut file that a table names: (uint8 [n, FRAMES, GRID, GRID, 3], number of videos).

    seen: as above. Raises UserError if none can be read.
    """
    files = [record.path, *(f for g in record.given for f in g.files)]
    videos, prints, problem = 0, [], UserError(f"{record.title}: no video")
    for file in dict.fromkeys(files):
        try:
            prints += [fingerprint(Video(file), seen)] if file is not None else []
            videos += file is not None and file == record.path
        except UserError as error:
            problem = error
    if not prints:
        raise problem
    return np.stack(prints), videos
