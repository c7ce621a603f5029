"""Clips for a browser: all pictures of one clip side by side in one picture.

The page draws them from one clock, so that clips start, stop and start again in the same frame, whatever codecs the
browser has. What is small stays exact (PNG); the rest is JPEG with full colour.
"""

import io
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from vans.errors import UserError
from vans.media import video
from vans.show.frames import as_clip

SMALL = 64  # px: sheets of clips up to this size are exact
ROOM = 24_000_000  # px of a sheet; browsers hold it at 4 bytes each
LONGEST = 240  # pictures
WIDE = 8192  # px that a sheet may be wide
QUALITY = 94


@dataclass(frozen=True)
class Sheet:
    """data: a PNG or JPEG. frames pictures of height x width px, in lines of `columns`, at fps pictures per second."""

    data: bytes
    kind: str
    frames: int
    columns: int
    height: int
    width: int
    fps: float

    def described(self) -> dict[str, float]:
        """What the page needs to draw it."""
        names = ("frames", "columns", "height", "width", "fps")
        return {name: getattr(self, name) for name in names}


def tiled(clip: object) -> tuple[np.ndarray, int]:
    """A clip uint8 [T, H, W, 3] as one picture [H', W', 3], and how many of its pictures stand in a line of it."""
    pictures = as_clip(clip)
    count, height, width, _ = pictures.shape
    columns = min(count, max(1, WIDE // width))
    rows = math.ceil(count / columns)
    page = np.zeros((rows, columns, height, width, 3), np.uint8)
    page.reshape(-1, height, width, 3)[:count] = pictures
    return np.ascontiguousarray(page.swapaxes(1, 2)).reshape(rows * height, columns * width, 3), columns


def sheet(clip: np.ndarray, fps: float) -> Sheet:
    """Clip uint8 [T, H, W, 3] at fps pictures per second as one picture; empty places are black."""
    whole, columns = tiled(clip)
    count, height, width, _ = clip.shape
    picture = Image.fromarray(whole)
    file, exact = io.BytesIO(), max(height, width) <= SMALL
    if exact:
        picture.save(file, format="PNG")
    else:
        picture.save(file, format="JPEG", quality=QUALITY, subsampling=0)
    return Sheet(file.getvalue(), "image/png" if exact else "image/jpeg", count, columns, height, width, fps)


def read(path: str | Path) -> tuple[np.ndarray, float]:
    """A video as (uint8 [T, H, W, 3], fps), within ROOM and LONGEST: long ones lose pictures, large ones get smaller.

    Raises UserError for one that cannot be read.
    """
    source = video.Video(path)
    info = source.info
    found = max(1, round(info.duration * info.fps))
    count = min(found, LONGEST)
    scale = min(1.0, math.sqrt(ROOM / (count * info.height * info.width)), WIDE / info.width)
    height, width = max(1, int(info.height * scale)), max(1, int(info.width * scale))
    fps = info.fps if count == found else count / info.duration
    times = info.start + np.arange(count) / fps
    return source.sample(times[times < info.end], height, width), fps


def decoded(data: bytes, name: str) -> tuple[np.ndarray, float]:
    """The same of the bytes of a small file; name: for the error."""
    try:
        return video.decode(data)
    except ValueError as error:
        raise UserError(f"{name}: {error}; replace it") from error
