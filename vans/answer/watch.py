"""What somebody brings: a video or a picture, as the models look at it, and a question.

A picture is a clip in which nothing moves: as many equal frames as any other input has, at the scale's rate. So the VLM
has as many tokens of it as it was trained on, and the VDM's reference latents are those of a video at rest.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from vans.errors import UserError
from vans.media import picture
from vans.media import video as media
from vans.models.protocol import Protocol
from vans.template import check_words


@dataclass(frozen=True)
class Watched:
    """clip: uint8 [T, H, W, 3] of the scale's size, which the VDM's references are made of, at `rate` pictures/s.
    looked: uint8 [T', H', W', 3], what the VLM sees of it, at `looked_rate`.
    """

    clip: Tensor
    rate: float
    looked: Tensor
    looked_rate: float


def watch(path: str | Path, clip: Any, protocol: Protocol) -> Watched:
    """A whole video, evenly spaced over it, or a picture. clip: the section `video` of the parameters.

    UserError for a file that cannot be read as either.
    """
    still = picture.read(path) if Path(path).is_file() else None
    count, pixels = protocol.frames or clip.frames, protocol.pixels
    if still is not None:
        seen = repeated(still, clip.frames, clip.height, clip.width)
        looked = repeated(still, count, *smaller(still.shape[0], still.shape[1], pixels)) if pixels else seen
        return Watched(seen, clip.fps, looked, clip.fps * len(looked) / clip.frames)
    source = media.Video(path, longest_still=math.inf)  # a screen may rest for minutes
    seen, rate = spread(source, clip)
    return Watched(seen, rate, *(in_own_shape(source, count, pixels) if pixels else (seen, rate)))


def of_frames(frames: Tensor, fps: float) -> Watched:
    """A clip uint8 [T, H, W, 3] of the scale's size, such as an answer, to be asked about."""
    return Watched(frames, fps, frames, fps)


def spread(source: media.Video, clip: Any) -> tuple[Tensor, float]:
    """A whole video as a clip uint8 [T, H, W, 3], each picture from the middle of its share, and its pictures/s."""
    times = source.info.start + (np.arange(clip.frames) + 0.5) * source.info.duration / clip.frames
    return torch.from_numpy(source.sample(times, clip.height, clip.width)), clip.frames / source.info.duration


def in_own_shape(source: media.Video, count: int, pixels: int) -> tuple[Tensor, float]:
    """`count` pictures of a video with the first and the last, uint8 [count, H, W, 3], and their pictures/s."""
    info = source.info
    times = np.linspace(info.start, max(info.start, info.end - 1 / info.fps), count)
    pictures = torch.from_numpy(source.sample(times, *smaller(info.height, info.width, pixels)))
    return pictures, max(count - 1, 1) / max(times[-1] - times[0], 1 / info.fps)


def smaller(height: int, width: int, pixels: int) -> tuple[int, int]:
    """A size of the same shape and of at most so many pixels."""
    scale = min(1.0, (pixels / (height * width)) ** 0.5)
    return max(1, int(height * scale)), max(1, int(width * scale))


def repeated(still: np.ndarray, frames: int, height: int, width: int) -> Tensor:
    """A picture uint8 [H, W, 3] as a clip uint8 [frames, height, width, 3] at rest."""
    return torch.from_numpy(np.repeat(media.fit(still, height, width)[None], frames, axis=0))


def check_question(question: str) -> None:
    """UserError for a question that no model can be asked: none, bytes that are no text, signs of the models' own."""
    if not question.strip():
        raise UserError('the question is empty; ask one, such as "what happens next ?"')
    check_text(question, "the question")
    check_words(question, "the question")


def check_text(text: str, what: str) -> None:
    """UserError for bytes that are no text. what: the text's name."""
    if any("\ud800" <= sign <= "\udfff" for sign in text):
        raise UserError(f"{what} is not in UTF-8: {text[:400]!r}; type it in a terminal that writes UTF-8")
