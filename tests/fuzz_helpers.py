"""Seeded damage for fuzzing: small videos of many kinds, and mutators of bytes, JSON values and tables.

Everything is drawn from one `random.Random`, so that a number names a mutant for good.
"""

import io
import json
import random
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np

KINDS: dict[str, tuple[str, str, dict[str, str]]] = {  # suffix: format, codec, its options
    ".mp4": ("mp4", "libx264", {"g": "12", "threads": "1"}),
    ".m4v": ("mp4", "libx264", {"g": "12", "threads": "1"}),  # in fragments
    ".mov": ("mov", "mjpeg", {}),
    ".mkv": ("matroska", "libx264", {"g": "12", "threads": "1"}),
    ".webm": ("webm", "libvpx", {"g": "12", "deadline": "realtime"}),
    ".avi": ("avi", "mpeg4", {"g": "12"}),
    ".ts": ("mpegts", "mpeg2video", {"g": "12"}),
    ".flv": ("flv", "flv", {"g": "12"}),
}
NASTY: tuple[Any, ...] = (
    *(None, True, False, 0, -1, 1e999, -1e999, float("nan"), 10**30, -0.0, 1e-320, "", " ", "nan", "-inf"),
    *("3.5", "00:01", "\x00", "\ud800", "../../../etc/passwd", "/etc/passwd", "..", ".", "a/b", "#NAME?"),
    *("é" * 300, "\u202e", "=1+1", [], {}, [[]], [None], {"a": {}}, [1], [2, 1], ["a", "b"], [0, 5], "testing"),
)


def numbered(count: int, height: int = 32, width: int = 48, first: int = 0) -> Iterator[np.ndarray]:
    """Pictures with their number painted in eight squares, black or white, over a grey that moves."""
    for i in range(first, first + count):
        picture = np.full((height, width, 3), 90 + 5 * (i % 13), np.uint8)
        for bit in range(8):
            row, column = divmod(bit, 4)
            box = picture[row * height // 2 : (row + 1) * height // 2, column * width // 4 : (column + 1) * width // 4]
            box[2:-2, 2:-2] = 255 * (i >> bit & 1)
        yield picture


def read_number(picture: np.ndarray) -> int:
    """The number painted into a picture uint8 [H, W, 3] of any size."""
    height, width = picture.shape[:2]
    middles = [(height * (2 * r + 1) // 4, width * (2 * c + 1) // 8) for r in range(2) for c in range(4)]
    return sum((int(picture[y, x].mean()) > 127) << bit for bit, (y, x) in enumerate(middles))


def video_bytes(
    suffix: str = ".mp4",
    times: list[Fraction] | None = None,
    size: tuple[int, int] = (32, 48),
    options: dict[str, str] | None = None,
    pixels: str = "yuv420p",
) -> bytes:
    """A numbered video, made with FFmpeg alone; times: s of each picture (40 at 8 fps where not given)."""
    container_format, codec, defaults = KINDS[suffix]
    times = [Fraction(i, 8) for i in range(40)] if times is None else times
    base = Fraction(1, 1000) if container_format in ("matroska", "webm", "flv") else Fraction(1, 90_000)
    if suffix == ".avi":
        base = Fraction(1, 8)
    out = io.BytesIO()
    fragments = {"movflags": "frag_keyframe+empty_moov"} if suffix == ".m4v" else {}
    with av.open(out, "w", format=container_format, container_options=fragments) as container:
        stream = container.add_stream(codec, rate=8, options=defaults | (options or {}))
        stream.height, stream.width = size
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else pixels
        stream.codec_context.time_base = base if suffix not in (".ts", ".avi") else Fraction(1, 8)
        for time, picture in zip(times, numbered(len(times), *size), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base = stream.codec_context.time_base
            frame.pts = round(time / frame.time_base)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return out.getvalue()


def damaged(data: bytes, draw: random.Random) -> bytes:
    """A file's bytes with one to three kinds of damage."""
    for _ in range(draw.randint(1, 3)):
        data = draw.choice((_flip, _flip_header, _cut, _zero, _splice, _insert, _shuffle, _number))(data, draw)
    return data


def _flip(data: bytes, draw: random.Random) -> bytes:
    """Single bits anywhere."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 4, 30)) if out else 0):
        out[draw.randrange(len(out))] ^= 1 << draw.randrange(8)
    return bytes(out)


def _flip_header(data: bytes, draw: random.Random) -> bytes:
    """Random bytes among the first or last 1,000, where containers keep their tables."""
    out = bytearray(data)
    for _ in range(draw.choice((1, 3, 20)) if out else 0):
        at = draw.randrange(min(1000, len(out)))
        out[at if draw.random() < 0.6 else -1 - at] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))
    return bytes(out)


def _cut(data: bytes, draw: random.Random) -> bytes:
    """Only a beginning, or only an end."""
    at = draw.randrange(len(data) + 1)
    return data[:at] if draw.random() < 0.8 else data[at:]


def _zero(data: bytes, draw: random.Random) -> bytes:
    """A stretch of zeros, as a download with holes has."""
    at, length = draw.randrange(len(data) + 1), draw.choice((8, 200, 3000))
    return data[:at] + bytes(len(data[at : at + length])) + data[at + length :]


def _splice(data: bytes, draw: random.Random) -> bytes:
    """A stretch once more, elsewhere."""
    at, to = draw.randrange(len(data) + 1), draw.randrange(len(data) + 1)
    return data[:to] + data[at : at + draw.choice((16, 500, 5000))] + data[to:]


def _insert(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(min(2000, len(data)) + 1)
    return data[:at] + draw.randbytes(draw.choice((1, 7, 64))) + data[at:]


def _shuffle(data: bytes, draw: random.Random) -> bytes:
    """Two stretches change places."""
    a, b, c = sorted(draw.randrange(len(data) + 1) for _ in range(3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _number(data: bytes, draw: random.Random) -> bytes:
    """A 32-bit number of the header becomes extreme."""
    at = draw.randrange(max(1, min(4000, len(data)) - 4))
    number = draw.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x00010000))
    return data[:at] + number.to_bytes(4, draw.choice(("big", "little"))) + data[at + 4 :]


def damaged_value(value: Any, draw: random.Random) -> Any:
    """A JSON-like value in which one to four things were swapped, removed, doubled or replaced."""
    value = json.loads(json.dumps(value))
    for _ in range(draw.randint(1, 4)):
        places = list(_places(value))
        if not places:
            return draw.choice(NASTY)
        holder, key = draw.choice(places)
        what = draw.random()
        if what < 0.5:
            holder[key] = draw.choice(NASTY)
        elif what < 0.65:
            del holder[key]
        elif what < 0.8:
            other, place = draw.choice(places)
            holder[key] = json.loads(json.dumps(other[place]))
        elif isinstance(holder, list):
            holder.insert(key, json.loads(json.dumps(holder[key])))
        else:
            holder[str(draw.choice(NASTY))] = holder.pop(key)
    return value


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of every value inside a JSON-like value."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        yield from _places(inner)


def damaged_rows(rows: list[list[str]], draw: random.Random) -> list[list[str]]:
    """A table (first row: header) in which cells, rows or columns were swapped, removed, doubled or replaced."""
    rows = [list(row) for row in rows]
    for _ in range(draw.randint(1, 4)):
        row = draw.choice(rows[1:] or rows)
        what = draw.random()
        if what < 0.45 and row:
            row[draw.randrange(len(row))] = str(draw.choice(NASTY))
        elif what < 0.6 and len(rows) > 1:
            rows.insert(draw.randrange(1, len(rows) + 1), list(row))
        elif what < 0.7 and row:
            del row[draw.randrange(len(row))]
        elif what < 0.8:
            row.append(str(draw.choice(NASTY)))
        elif what < 0.9:
            a, b = (draw.randrange(max(1, min(map(len, rows)))) for _ in range(2))
            for each in rows:
                if len(each) > max(a, b):
                    each[a], each[b] = each[b], each[a]
        elif len(rows) > 1:
            other = draw.choice(rows[1:])
            at = draw.randrange(max(1, min(len(row), len(other))))
            row[at : at + 1], other[at : at + 1] = other[at : at + 1], row[at : at + 1]
    return rows


def damaged_text(text: str, draw: random.Random) -> bytes:
    """The bytes of a text file in another encoding, with damage, or as it should be."""
    what = draw.random()
    if what < 0.5:
        return text.encode("utf-8", "surrogatepass")
    if what < 0.8:
        return draw.choice((_flip, _cut, _insert, _splice))(text.encode("utf-8", "surrogatepass"), draw)
    encoding = draw.choice(("latin-1", "utf-16", "utf-8-sig", "cp1251", "utf-7"))
    return text.encode(encoding, "replace")
