"""Seeded damage for fuzzing: small videos of many kinds, and mutators of bytes, JSON values and tables.

Everything is drawn from one `random.Random`, so that a number names a mutant for good.
"""

import csv
import io
import json
import random
from collections.abc import Iterator
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd

from vans.data.curate import curate
from vans.data.sources import discover
from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.media import avi

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
    asked = {"fflags": "+bitexact"}
    asked |= {"movflags": "frag_keyframe+empty_moov"} if suffix == ".m4v" else {}
    with av.open(out, "w", format=container_format, container_options=asked) as container:
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


@cache
def seeds() -> dict[str, bytes]:
    """A sound video of each kind, 9 s, by suffix (the last: an uncompressed AVI as the toy world has)."""
    times = [Fraction(i, 8) for i in range(72)]
    ours = avi.encode(np.stack(list(numbered(27))), 3.0)
    return {suffix: video_bytes(suffix, times) for suffix in KINDS} | {".raw.avi": ours}


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


def _places(value: Any, depth: int = 0) -> Iterator[tuple[Any, Any]]:
    """(holder, key) of every value inside a JSON-like value, down to 100 levels."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, inner in list(items):
        yield value, key
        if depth < 100:
            yield from _places(inner, depth + 1)


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


# ------------------------------------------------------------------------------------------- whole data folders
STEPS = [{"id": "1", "segment": [0, 3], "label": "wash it"}, {"id": "2", "segment": [3.2, 7], "label": "cut it"}]
STEPS += [{"id": "1", "segment": [7, 10.5], "label": "wash it again"}]


def annotations() -> dict[str, dict[str, Any]]:
    """A sound annotation file of each layout: {layout: {file: content}}; its videos are called a, b and c."""
    coin = {"class": "MakeTea", "recipe_type": 3, "subset": "training", "duration": 11.0, "annotation": STEPS}
    cooked = [{"id": i, "segment": s["segment"], "sentence": s["label"]} for i, s in enumerate(STEPS)]
    cook = {"recipe_type": "101", "subset": "validation", "annotations": cooked}
    short = {"subset": "training", "condition": "it rains", "shots": ["he runs", "he hides"]}
    net = {"duration": 11.0, "timestamps": [[0, 3.4], [3, 7], [0, 11], [7, 10.5]], "sentences": ["a", "b", "c", "d"]}
    holmes = [{"TimeRange": t, "Description": t} for t in ("00:00-00:03", "00:03-00:07", "0:07-00:11")]
    scenes = [{"Scene 1": "x", "start": 0, "end": 4}, {"Scene 2": {"start": "00:04", "end": 9}}]
    told = [{"scene": f"Scene {i}", "description": f"event {i}"} for i in (1, 2)]
    split = {"scenes_timestep": scenes, "split_caption": {"caption_part1": "before", "caption_part2": "after"}}
    sidecar = {
        "events": [{"start": 0, "end": 4, "text": "x"}, {"start": "0:04", "end": 9, "text": "y"}],
        "question": "Why?",
    }
    return {
        "coin": {"COIN.json": {"database": dict.fromkeys("abc", coin)}},
        "youcook2": {"youcookii_annotations_trainval.json": {"database": dict.fromkeys("abc", cook)}},
        "shorts": {"shorts.json": {"database": dict.fromkeys("abc", short)}},
        "activitynet": {"train.json": {"v_a": net, "v_b": net}, "val_1.json": {"v_c": net}},
        "holmes": {
            "test_Video-Holmes.json": [{"video ID": n, "Question": "Who?"} for n in "aab"],
            "annotations/a.json": [{"Segment Description": holmes}],
            "annotation_training/c.json": {"SegmentDescription": holmes},
        },
        "v1": {
            "next_event_prediction.json": [
                {"video_path": f"video_dataset/{n}.mp4", "events": told, "video_split": split} for n in "abc"
            ],
            "futurebench.json": [{"video_path": "video_dataset/c.mp4"}],
        },
        "own": {"a.json": sidecar, "b.json": sidecar | {"subset": "val", "kind": "procedural"}},
    }


TEXTS = {
    "own/a.srt": "1\n00:00:00,000 --> 00:00:03,500\nHe sits\n\n2\n00:00:04,000 --> 00:00:08,000\nHe eats\n",
    "own/a.txt": "0 3.5 she sings\n0:04 - 0:08 she bows\n",
    "own/b.txt": "she sings\nshe bows\n",
}
COLUMNS = (
    *("output_video_path", "input_video_path", "name", "input_id", "target_id", "input_sentence"),
    *("target_sentence", "recipe_type", "ENG_Instruction", "ENG_Think", "ENG_GT_Caption"),
)


def table() -> list[list[str]]:
    """A sound published table of the videos a, b and c: its header and its rows."""
    texts = ["wash it", "cut it", "3", "What next?", "It is clean,\nso it is cut.", 'A hand cuts "it".\n\n---\nchecked']
    return [list(COLUMNS), *([f"/{n}/2.mp4", f"/{n}/1.mp4", n, "1", "2", *texts] for n in "abc")]


def put(folder: Path, files: dict[str, bytes]) -> None:
    """Write files below a folder."""
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


def damaged_source(draw: random.Random) -> tuple[str, dict[str, bytes]]:
    """One source with something wrong in its annotations: (folder, {file: bytes}), videos not included."""
    kinds = [*annotations(), "table", "text"]
    kind = draw.choice(kinds)
    if kind == "text":
        name = draw.choice(sorted(TEXTS))
        folder, _, file = name.partition("/")
        return folder, {file: damaged_text(TEXTS[name], draw)}
    if kind == "table":
        out = io.StringIO()
        csv.writer(out, lineterminator=draw.choice(("\n", "\r\n"))).writerows(damaged_rows(table(), draw))
        coin = json.dumps(annotations()["coin"]["COIN.json"]).encode()
        return "vans", {"triplets.csv": damaged_text(out.getvalue(), draw), "COIN.json": coin}
    files = annotations()[kind]
    hit = draw.choice(sorted(files))
    return kind, {
        name: damaged_text(json.dumps(damaged_value(value, draw)), draw) if name == hit else json.dumps(value).encode()
        for name, value in files.items()
    }


def whole(data: Path, out: Path, params: Any) -> dict | None:
    """Curate a data folder and check what must hold whatever is in it; the report, None after a UserError.

    One clear line or a whole result; on each level in = kept + dropped; each drop with a reason; ids that are
    unique; every clip readable; nothing written beside the result.
    """
    before = {*data.rglob("*"), *data.parent.iterdir()}
    report: dict | None = None
    try:
        report = curate(data, out, params, progress=False)
    except UserError as error:
        assert "lost count" not in str(error), error
        assert "\n" not in str(error) and len(str(error)) > 20, error
        str(error).encode("utf-8")
        assert not out.exists()
    if report is not None:
        levels = [report[level] for level in ("videos", "segments", "pairs")]
        assert all(level["in"] == level["kept"] + sum(level["dropped"].values()) for level in levels), levels
        drops = pd.read_csv(out / "dropped.csv", keep_default_na=False)
        assert len(drops) == sum(sum(level["dropped"].values()) for level in levels)
        assert len(pd.read_csv(out / "segments.csv")) == report["segments"]["in"]
        assert (drops["reason"].str.len() > 3).all()
        triplets = Triplets(out)
        assert triplets.frame["id"].is_unique and len(triplets) == report["triplets"]["all"]
        for which in ("input", "target"):
            assert triplets.clips(triplets.select(), which).shape[1:] == (params.video.frames, 32, 32, 3)
        assert not (triplets.frame["question"].eq("") | triplets.frame["caption"].eq("")).any()
    assert {*data.rglob("*"), *data.parent.iterdir()} == before | ({out} if report else set())
    return report


def accounted(data: Path) -> int:
    """Read a data folder's sources; every video file is in a record or dropped by name. Returns the drops."""
    found = discover(data)
    used = {p for r in found.records for p in (r.path, *(f for g in r.given for f in g.files)) if p}
    dropped = {name.split("/", 1)[-1] for level, name, _ in found.dropped if level in ("video", "pair")}
    for path in sorted(data.rglob("*.mp4")):
        names = {path.stem, f"v_{path.stem}", path.name}
        assert path in used or names & dropped or any("triplets.csv:" in n for n in dropped), (path, found)
    assert len({r.title for r in found.records}) == len(found.records)
    return len(found.dropped)
