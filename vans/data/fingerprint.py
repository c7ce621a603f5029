"""A video's fingerprint: what duplicates.py compares."""

from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from vans.data.records import Record
from vans.errors import UserError
from vans.video import TOLERANCE, Video

FRAMES = 8  # pictures of a fingerprint, evenly spread over the video
GRID = 8  # each thinned to GRID x GRID colours
SEEK = 5.0  # s; over gaps longer than this the reader jumps instead of decoding all between


def fingerprint(opened: Video) -> np.ndarray:
    """Uint8 [FRAMES, GRID, GRID, 3] of an open video; of a damaged one, from what can be decoded.

    Raises UserError if nothing can.
    """
    times = [(i + 0.5) / FRAMES * opened.info.duration for i in range(FRAMES)]
    out: list[np.ndarray] = []
    stream: Iterator[tuple[float, Any]] = iter(())
    shown: tuple[float, Any] | None = None
    ahead: tuple[float, Any] | None = None
    error: UserError | None = None
    for time in times:
        try:
            if not out or (ahead is not None and time - ahead[0] > SEEK):
                stream = opened._decode(time)  # pictures are converted where they are looked at only
                ahead = next(stream, None)
            while ahead is not None and (shown is None or ahead[0] <= time + TOLERANCE):
                shown, ahead = ahead, next(stream, None)
        except UserError as damage:
            error, ahead = damage, None
        if shown is None:
            raise error or UserError(f"{opened.path}: holds no picture; replace or remove it")
        small = Image.fromarray(opened._picture(shown[1])).resize((GRID, GRID), Image.Resampling.BOX)
        out.append(np.asarray(small))
    return np.stack(out)


def fingerprints(record: Record) -> np.ndarray:
    """Uint8 [n, FRAMES, GRID, GRID, 3]: of the video and of each cut file that a table names.

    Raises UserError if none can be read.
    """
    files = [record.path, *(f for g in record.given for f in g.files)]
    prints, problem = [], UserError(f"{record.title}: no video")
    for file in dict.fromkeys(files):
        try:
            prints += [fingerprint(Video(file))] if file is not None else []
        except UserError as error:
            problem = error
    if not prints:
        raise problem
    return np.stack(prints)
