"""Uncompressed AVI: 24-bit BGR bitmaps, bottom row first, rows padded to 4 bytes.

Written and read here without any codec library, so that the bytes depend on nothing but the frames; every
player reads them. Source: Microsoft's AVI RIFF file reference.
"""

import struct
from fractions import Fraction

import numpy as np

HEADER = 224  # bytes before the first picture's chunk


def _chunk(name: bytes, body: bytes) -> bytes:
    return name + struct.pack("<I", len(body)) + body + (b"\0" if len(body) % 2 else b"")


def _list(kind: bytes, body: bytes) -> bytes:
    return _chunk(b"LIST", kind + body)


def encode(frames: np.ndarray, fps: float) -> bytes:
    """Frames uint8 [T, H, W, 3] RGB, frames per second -> the file's bytes. ValueError on other shapes."""
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    count, height, width, _ = frames.shape
    stride = (3 * width + 3) // 4 * 4
    rows = np.zeros((count, height, stride), dtype=np.uint8)
    rows[:, :, : 3 * width] = frames[:, ::-1, :, ::-1].reshape(count, height, 3 * width)
    size = stride * height
    rate = Fraction(fps).limit_denominator(100_000)
    microseconds = round(1_000_000 / rate)
    avih = struct.pack(
        "<14I", microseconds, round(size * rate), 0, 0x10, count, 0, 1, size, width, height, 0, 0, 0, 0
    )
    # flags, priority, language, first frame; scale, rate, start, length, buffer; quality, sample size; left, top
    times = (rate.denominator, rate.numerator, 0, count, size)
    strh = struct.pack("<4s4s12x5I8x4x2H", b"vids", b"DIB ", *times, width, height)
    strf = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 24, 0, size, 0, 0, 0, 0)
    header = _list(
        b"hdrl", _chunk(b"avih", avih) + _list(b"strl", _chunk(b"strh", strh) + _chunk(b"strf", strf))
    )
    head = b"00db" + struct.pack("<I", size)
    movie = _list(b"movi", b"".join(head + row.tobytes() for row in rows))
    index = b"".join(struct.pack("<4sIII", b"00db", 0x10, 4 + i * (8 + size), size) for i in range(count))
    body = b"AVI " + header + movie + _chunk(b"idx1", index)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def is_ours(header: bytes) -> bool:
    """Do the first HEADER bytes of a file look like what `encode` writes?"""
    kinds = ((0, b"RIFF"), (8, b"AVI LIST"), (20, b"hdrl"), (112, b"DIB "), (164, b"strf"), (220, b"movi"))
    if len(header) < HEADER or any(header[at : at + len(kind)] != kind for at, kind in kinds):
        return False
    bits, compression = struct.unpack_from("<HI", header, 186)
    return bits == 24 and compression == 0


def decode(data: bytes) -> tuple[np.ndarray, float] | None:
    """The bytes of a file that `encode` wrote -> (frames uint8 [T, H, W, 3], fps); None for any other file.

    Raises ValueError if the file is cut short or its header is damaged.
    """
    if not is_ours(data[:HEADER]):
        return None
    count = struct.unpack_from("<I", data, 48)[0]
    scale, rate = struct.unpack_from("<II", data, 128)
    width, height = struct.unpack_from("<ii", data, 176)
    if min(count, width, height) < 1 or not 0 < scale <= rate * 1000 <= scale * 1_000_000:
        raise ValueError(f"the header is damaged ({count} pictures of {height} x {width}, {rate}/{scale} fps)")
    stride = (3 * width + 3) // 4 * 4
    step = 8 + stride * height
    if len(data) < HEADER + count * step:
        raise ValueError("the file is cut short")
    body = np.frombuffer(data, np.uint8, count * step, HEADER).reshape(count, step)[:, 8:]
    rows = body.reshape(count, height, stride)[:, ::-1, : 3 * width].reshape(count, height, width, 3)
    return np.ascontiguousarray(rows[..., ::-1]), rate / scale
