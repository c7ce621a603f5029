"""Clips inside a page: all pictures of a clip side by side in one WebP, drawn from one clock as in `vans vote`.

What is small stays crisp: no smoothing, no blocks, colours in steps of STEP levels (a third of the bytes of all 256).
"""

import base64
import io
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

from vans.show.frames import as_clip, pick, shrink
from vans.vote.sheets import SMALL, tiled

STEP = 8  # levels
LONGEST = 16  # pictures of a large clip
QUALITY = 55  # of large clips

Put = Callable[[object, float], dict[str, Any]]  # clip, pictures per second -> what the page needs to draw it


def rounded(pixels: np.ndarray) -> np.ndarray:
    """uint8 in steps of STEP, at most STEP / 2 off; black and white stay."""
    steps = np.rint(pixels / STEP) * STEP
    return np.where(pixels == 255, 255, np.minimum(steps, 255)).astype(np.uint8)


def data(kind: str, content: bytes) -> str:
    """Bytes as an address that holds them."""
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def put(side: int) -> Put:
    """How clips are put into a page: clips larger than SMALL px at most ``side`` px, with at most LONGEST pictures."""

    def one(clip: object, fps: float) -> dict[str, Any]:
        pixels = as_clip(clip)
        small, count = max(pixels.shape[1:3]) <= SMALL, len(pixels)
        pixels = rounded(pixels) if small else shrink(pick(pixels, LONGEST), side)
        whole, columns = tiled(pixels)
        file = io.BytesIO()
        Image.fromarray(whole).save(file, "WEBP", lossless=small, quality=80 if small else QUALITY, method=4)
        frames, height, width, _ = pixels.shape
        about = {"frames": frames, "columns": columns, "height": height, "width": width, "small": small}
        return {"src": data("image/webp", file.getvalue()), "fps": round(fps * frames / count, 4), **about}

    return one


def figure(content: bytes, wide: int = 1500, colours: int = 32) -> tuple[str, int, int]:
    """A PNG as a smaller picture: its address, width and height in px."""
    picture = Image.open(io.BytesIO(content)).convert("RGB")
    if picture.width > wide:
        picture = picture.resize((wide, round(picture.height * wide / picture.width)), Image.Resampling.LANCZOS)
    few = picture.quantize(colours, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE).convert("RGB")
    file = io.BytesIO()
    few.save(file, "WEBP", lossless=True, quality=80, method=4)
    return data("image/webp", file.getvalue()), picture.width, picture.height
