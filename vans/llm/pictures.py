"""A clip's pictures as they are shown to a model."""

import base64
import io

import numpy as np
from PIL import Image

QUALITY = 90  # of JPEG


def spread(count: int, most: int) -> np.ndarray:
    """Indices of at most `most` of `count` things, evenly spread, first and last among them: int [n]."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(int)


def pictures(frames: np.ndarray, most: int, side: int) -> np.ndarray:
    """At most so many, evenly spread, none longer than `side` px: uint8 [T, H, W, 3] -> uint8 [n, h, w, 3]."""
    frames = frames[spread(len(frames), most)]
    height, width = frames.shape[1:3]
    if max(height, width) <= side:
        return frames
    size = (max(1, round(width * side / max(height, width))), max(1, round(height * side / max(height, width))))
    return np.stack([np.asarray(Image.fromarray(f).resize(size, Image.Resampling.BICUBIC)) for f in frames])


def jpeg(picture: np.ndarray) -> bytes:
    """uint8 [H, W, 3] as a file."""
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=QUALITY)
    return out.getvalue()


def data_url(picture: np.ndarray) -> str:
    """uint8 [H, W, 3] as a JPEG in a data URL."""
    return "data:image/jpeg;base64," + base64.b64encode(jpeg(picture)).decode()
