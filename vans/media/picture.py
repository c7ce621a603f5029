"""Still pictures that somebody brings: told from videos by what they hold, decoded within bounds.

Only FORMATS are opened, and none of more than `vans.media.video.MAX_PIXELS`; a picture that is cut short is refused.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from vans.errors import UserError
from vans.media.video import MAX_PIXELS

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
BROKEN = (OSError, ValueError, SyntaxError, ArithmeticError, MemoryError, IndexError, Image.DecompressionBombError)


def read(path: str | Path) -> np.ndarray | None:
    """A picture as it is shown, uint8 [H, W, 3]: turned as its file says, on white where it is transparent; None for a
    file that is no picture. UserError for one that is damaged, too large, or moves.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of large pictures, of metadata that cannot be read
        try:
            with Image.open(path, formats=FORMATS) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    size = f"{picture.width} x {picture.height}"
                    raise UserError(f"{path}: {size} pixels are more than {MAX_PIXELS}; make it smaller")
                if getattr(picture, "n_frames", 1) > 1 and picture.format != "TIFF":
                    raise UserError(f"{path}: moves; make a video of it (ffmpeg -i {Path(path).name} video.mp4)")
                return _rgb(ImageOps.exif_transpose(picture))
        except UnidentifiedImageError:
            return None
        except BROKEN as error:
            raise UserError(f"{path}: cannot be read as a picture ({error}); replace it") from error


def _rgb(picture: Image.Image) -> np.ndarray:
    """Any mode as uint8 [H, W, 3]."""
    if picture.mode.startswith(("I", "F")):  # 16 bits of grey, which Pillow would cut off at 255
        grey = np.asarray(picture).astype(np.float64)
        most = 65535.0 if grey.max(initial=0) > 255 else 255.0
        picture = Image.fromarray((grey.clip(0, most) * (255 / most)).round().astype(np.uint8))
    if picture.has_transparency_data:
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture.convert("RGBA"))
    return np.asarray(picture.convert("RGB"))
