"""Videos inside notebooks: small looping pictures that need neither a player nor a file beside the notebook.

Each clip becomes an animated WebP in the page itself (lossless and enlarged without smoothing where it is
small), which JupyterLab, exported HTML and browsers show alike, also in notebooks that are not trusted.
"""

import base64
import html
import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image

from vans.show.frames import as_clip, enlarge, shrink
from vans.show.page import Page

SMALL = 64  # pixels: clips up to this size are enlarged and kept without loss
LONGEST = 320  # pixels: larger clips are made smaller than this


def webp(clip: object, fps: float, size: int = 128) -> bytes:
    """An endless animated WebP: small clips enlarged by a whole factor to about ``size``, large ones made
    smaller."""
    pixels = as_clip(clip)
    side = max(pixels.shape[1:3])
    small = side <= SMALL
    pixels = enlarge(pixels, max(1, round(size / side))) if small else shrink(pixels, LONGEST)
    pictures = [Image.fromarray(picture) for picture in pixels]
    durations = [round(1000 / fps)] * len(pictures)
    durations[-1] += 500  # a moment of rest before it starts again
    file = io.BytesIO()
    pictures[0].save(
        file,
        format="WEBP",
        save_all=True,
        append_images=pictures[1:],
        duration=durations,
        loop=0,
        lossless=small,
        quality=60,
        method=4,
    )
    return file.getvalue()


def player(clip: object, fps: float, size: int = 128) -> str:
    """The clip as an HTML image."""
    data = base64.b64encode(webp(clip, fps, size)).decode()
    return f'<img src="data:image/webp;base64,{data}" style="display:block;margin:0" alt="video">'


def gallery(
    rows: Sequence[Mapping[str, object]],
    fps: float,
    size: int = 128,
    wide: int = 150,
) -> Page:
    """A table of videos and words: one line a mapping, column title -> clip (uint8 [T, H, W, 3]) or text."""
    titles = list(dict.fromkeys(title for row in rows for title in row))
    cell = "padding:4px 10px;text-align:left;vertical-align:middle"
    head = "".join(f'<th style="{cell};font-weight:600">{html.escape(title)}</th>' for title in titles)
    lines = []
    for row in rows:
        cells = []
        for title in titles:
            value = row.get(title, "")
            if isinstance(value, np.ndarray) or hasattr(value, "detach"):
                cells.append(f'<td style="{cell}">{player(value, fps, size)}</td>')
            else:
                cells.append(f'<td style="{cell};max-width:{wide}px">{html.escape(str(value))}</td>')
        lines.append(f"<tr>{''.join(cells)}</tr>")
    style = "border-collapse:collapse;font-size:12px"
    return Page(f'<table style="{style}"><tr>{head}</tr>{"".join(lines)}</table>')


def answers(
    triplets: object,
    ids: Sequence[str],
    arms: Mapping[str, tuple[Sequence[str], np.ndarray]],
    fps: float,
    size: int = 112,
) -> Page:
    """Input, truth and each arm's answer to the same questions, playing side by side, captions under the
    titles."""
    inputs, targets = (triplets.clips(ids, which) for which in ("input", "target"))  # type: ignore[attr-defined]
    rows: list[dict[str, object]] = []
    for number, name in enumerate(ids):
        row = triplets.row(name)  # type: ignore[attr-defined]
        clips = {"question": row["question"], "input": inputs[number], "ground truth": targets[number]}
        words: dict[str, object] = {"question": "", "input": "", "ground truth": row["caption"]}
        for title, (captions, videos) in arms.items():
            clips[title] = videos[number]
            words[title] = captions[number]
        rows += [clips, words]
    return gallery(rows, fps, size)
