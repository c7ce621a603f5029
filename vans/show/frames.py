"""Clips as still pictures: frames picked, put side by side, enlarged without smoothing."""

import numpy as np


def as_clip(clip: object) -> np.ndarray:
    """A clip as uint8 [T, H, W, 3], from numpy or torch; ValueError for anything else."""
    pixels = np.asarray(clip)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[-1] != 3:
        raise ValueError(f"a clip must be uint8 [T, H, W, 3], not {pixels.dtype} {pixels.shape}")
    return pixels


def pick(clip: object, count: int) -> np.ndarray:
    """``count`` frames, evenly spread from the first to the last; all of them if there are no more."""
    pixels = as_clip(clip)
    if len(pixels) <= count:
        return pixels
    return pixels[np.linspace(0, len(pixels) - 1, count).round().astype(int)]


def enlarge(pixels: np.ndarray, factor: int) -> np.ndarray:
    """[..., H, W, 3] -> [..., factor * H, factor * W, 3], each pixel a square."""
    return pixels.repeat(factor, axis=-3).repeat(factor, axis=-2)


def shrink(pixels: np.ndarray, side: int) -> np.ndarray:
    """[..., H, W, 3] with its longer side at most about ``side``, by averaging whole blocks (for real
    videos)."""
    block = int(np.ceil(max(pixels.shape[-3:-1]) / side))
    if block <= 1:
        return pixels
    height, width = (n // block for n in pixels.shape[-3:-1])
    cut = pixels[..., : height * block, : width * block, :]
    blocks = cut.reshape(*pixels.shape[:-3], height, block, width, block, 3)
    return blocks.mean(axis=(-4, -2)).round().astype(np.uint8)


def strip(clip: object, count: int) -> np.ndarray:
    """Frames side by side with white gaps: uint8 [H, W', 3]."""
    shown = pick(clip, count)
    gaps = np.full((shown.shape[1], gap(shown), 3), 255, np.uint8)
    parts = [part for picture in shown for part in (picture, gaps)]
    return np.concatenate(parts[:-1], axis=1)


def gap(pixels: np.ndarray) -> int:
    """Between frames, in their own pixels: looks alike at every resolution."""
    return max(1, pixels.shape[1] // 32)


def strip_size(clip: object, count: int, height: float) -> tuple[float, float]:
    """(width, height) in pixels of a strip drawn ``height`` pixels high."""
    pixels = as_clip(clip)
    shown = min(count, len(pixels))
    return height * (shown * pixels.shape[2] + (shown - 1) * gap(pixels)) / pixels.shape[1], height


def fitting(clip: object, count: int, height: float, room: float) -> tuple[int, float]:
    """(frames, height in pixels) of a strip that is at most ``room`` pixels wide: fewer frames, then a lower one."""
    pixels = as_clip(clip)
    shown = min(count, len(pixels))
    while shown > 1 and strip_size(pixels, shown, height)[0] > room:
        shown -= 1
    return shown, height * min(1.0, room / strip_size(pixels, shown, height)[0])


def grid(clip: object, count: int, columns: int) -> np.ndarray:
    """``count`` frames in lines of ``columns``, the last one filled up with white: uint8 [H', W', 3]."""
    shown = pick(clip, count)
    lines = [strip(shown[at : at + columns], columns) for at in range(0, len(shown), columns)]
    (height, width), between = lines[0].shape[:2], gap(shown)
    page = np.full((len(lines) * (height + between) - between, width, 3), 255, np.uint8)
    for number, line in enumerate(lines):
        top = number * (height + between)
        page[top : top + height, : line.shape[1]] = line
    return page
