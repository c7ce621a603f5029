"""Source folders `data/<name>/`, each in one of the known layouts, read into Records.

| the folder holds | layout |
|---|---|
| triplets.csv (+ COIN.json or annotations.json for the times) | published table of VANS-Data-100K |
| COIN.json or annotations.json | COIN: database -> id -> {class, recipe_type, subset, annotation: [{segment, label}]} |
| youcookii_annotations_trainval.json | YouCook2: the same with annotations, sentence (label_foodtype.csv: names) |
| shorts.json | films without timestamps: database -> id -> {subset, scene, condition, shots: [label, ...]} |
| only videos | nothing known: shots are searched |

Videos are looked for by name anywhere in the folder. To add a layout, write one reader and add it to LAYOUTS.
"""
import csv
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vans.data.draw import Draw
from vans.data.shots import Segment
from vans.errors import UserError
from vans.video import VIDEO_SUFFIXES

TEST_SHARE = 0.1  # of videos whose source names no subset
COIN_NAMES = ("COIN.json", "annotations.json")
COLUMNS = ("output_video_path", "input_video_path", "name", "input_id", "target_id", "input_sentence",
           "target_sentence", "recipe_type", "ENG_Instruction", "ENG_Think", "ENG_GT_Caption")


@dataclass(frozen=True)
class Given:
    """A pair that a published table names: segment ids, (question, think, caption), files already cut (or None)."""
    input_id: str
    target_id: str
    texts: tuple[str, str, str]
    sentences: tuple[str, str]
    files: tuple[Path | None, Path | None]


@dataclass(frozen=True)
class Record:
    """One source video. segments None: to be searched; labels: of the searched shots, in order (None: unknown)."""
    source: str
    name: str
    path: Path | None
    kind: str
    split: str
    scene: str
    subset: str = ""
    topic: str = ""
    recipe_type: str = ""
    condition: str = ""
    segments: tuple[Segment, ...] | None = None
    labels: tuple[str, ...] | None = None
    given: tuple[Given, ...] = ()


@dataclass
class Found:
    """records in a fixed order; dropped: (level, name, reason) of what could not even be read."""
    records: list[Record] = field(default_factory=list)
    dropped: list[tuple[str, str, str]] = field(default_factory=list)


def discover(data_dir: str | Path) -> Found:
    """Read all source folders of data_dir. Raises UserError if there is none or an annotation file is not readable."""
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"{data_dir}: no such folder; put source folders there, or make the toy world")
    found = Found()
    folders = sorted(p for p in data_dir.iterdir() if p.is_dir() and not p.name.startswith("."))
    for folder in folders:
        videos = _videos(folder)
        reader = next((r for names, r in LAYOUTS if any((folder / n).is_file() for n in names)), None)
        if reader is None and not videos:
            found.dropped.append(("video", folder.name, "folder without annotation and videos"))
            continue
        (reader or _plain_folder)(folder, videos, found)
        known = {r.name for r in found.records if r.source == folder.name}
        known |= {n.partition("/")[2] for _, n, _ in found.dropped if n.startswith(f"{folder.name}/")}
        cut = {f for r in found.records for g in r.given for f in g.files}
        for name, path in videos.items():
            if name not in known and path not in cut:
                found.dropped.append(("video", f"{folder.name}/{name}", "not in the annotations"))
    if not folders:
        raise UserError(f"{data_dir}: holds no source folder; put videos into {data_dir}/<name>/")
    return found


def _videos(folder: Path) -> dict[str, Path]:
    """Videos of a folder by name without suffix, sorted; files in <id>/ folders keep the folder in their name."""
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in VIDEO_SUFFIXES and p.is_file())
    names: dict[str, Path] = {}
    for path in paths:
        name = path.stem if path.stem not in names else str(path.relative_to(folder).with_suffix(""))
        names[name] = path
    return names


def split_of(subset: str, name: str) -> str:
    """train | test from a source's own subset; without one, a fixed tenth of the names is test."""
    subset = subset.strip().lower()
    if subset in ("testing", "test", "validation", "val"):
        return "test"
    if subset in ("training", "train"):
        return "train"
    return "test" if Draw("split", name).chance(TEST_SHARE) else "train"


def read_json(path: Path) -> dict:
    """The `database` of an annotation file. Raises UserError if it is not JSON or has none."""
    try:
        database = json.loads(path.read_text(encoding="utf-8-sig"))["database"]
        assert isinstance(database, dict)
    except (ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(f"{path}: is not an annotation file ({type(error).__name__}: {error}); "
                        "it must be JSON with a key 'database'") from error
    return database


def _words(name: str) -> str:
    """RoastPeppers -> roast peppers."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\dA-Z_]+|\d+", name)).lower()


def _segments(items: list[dict], text_key: str) -> tuple[Segment, ...]:
    return tuple(Segment(str(s["id"]), float(s["segment"][0]), float(s["segment"][1]), str(s[text_key]).strip())
                 for s in items)


def _steps_layout(folder: Path, videos: dict[str, Path], found: Found, file: Path, list_key: str, text_key: str,
                  topic: Callable[[dict], str]) -> None:
    for name, entry in read_json(file).items():
        try:
            subset = str(entry.get("subset", ""))
            found.records.append(Record(
                source=folder.name, name=name, path=videos.get(name), kind="procedural", split=split_of(subset, name),
                scene=f"{folder.name}/{name}", subset=subset, topic=topic(entry),
                recipe_type=str(entry.get("recipe_type", "")), segments=_segments(entry[list_key], text_key)))
        except (KeyError, TypeError, ValueError, IndexError, AttributeError) as error:
            found.dropped.append(("video", f"{folder.name}/{name}", f"annotation not readable ({_short(error)})"))


def _short(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:80]


def _coin_file(folder: Path) -> Path | None:
    return next((folder / n for n in COIN_NAMES if (folder / n).is_file()), None)


def _coin(folder: Path, videos: dict[str, Path], found: Found) -> None:
    file = _coin_file(folder)
    assert file is not None
    _steps_layout(folder, videos, found, file, "annotation", "label", lambda e: _words(str(e.get("class", ""))))


def _youcook2(folder: Path, videos: dict[str, Path], found: Found) -> None:
    names = {}
    if (table := folder / "label_foodtype.csv").is_file():
        with open(table, encoding="utf-8-sig", newline="") as rows:
            names = {row[0].strip(): row[1].strip() for row in csv.reader(rows) if len(row) > 1}
    _steps_layout(folder, videos, found, folder / "youcookii_annotations_trainval.json", "annotations", "sentence",
                  lambda e: names.get(str(e.get("recipe_type", "")), "this recipe"))


def _shorts(folder: Path, videos: dict[str, Path], found: Found) -> None:
    for name, entry in read_json(folder / "shorts.json").items():
        try:
            subset = str(entry.get("subset", ""))
            scene = str(entry.get("scene", name))
            found.records.append(Record(
                source=folder.name, name=name, path=videos.get(name), kind="predictive",
                split=split_of(subset, scene), scene=f"{folder.name}/{scene}", subset=subset,
                topic=str(entry.get("condition", "")), condition=str(entry.get("condition", "")),
                labels=tuple(str(s) for s in entry["shots"])))
        except (KeyError, TypeError, AttributeError) as error:
            found.dropped.append(("video", f"{folder.name}/{name}", f"annotation not readable ({_short(error)})"))


def _plain_folder(folder: Path, videos: dict[str, Path], found: Found) -> None:
    found.records += [Record(source=folder.name, name=name, path=path, kind="predictive", split=split_of("", name),
                             scene=f"{folder.name}/{name}") for name, path in videos.items()]


def clean_caption(text: str) -> str:
    """A table's caption without the tail that follows a blank line or a line of dashes."""
    lines = text.replace("\r\n", "\n").strip().split("\n")
    stop = next((i for i, line in enumerate(lines) if not line.strip() or re.fullmatch(r"-{3,}", line.strip())),
                len(lines))
    return " ".join(line.strip() for line in lines[:stop])


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a published table; a byte-order mark is no part of it. Raises UserError for missing columns."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            missing = [c for c in COLUMNS if c not in (reader.fieldnames or [])]
            if missing:
                raise UserError(f"{path}: column {missing[0]!r} is missing; it has {', '.join(reader.fieldnames or [])}")
            return [{k: (v or "") for k, v in row.items() if k} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is not a CSV table in UTF-8 ({error})") from error


def _table(folder: Path, videos: dict[str, Path], found: Found) -> None:
    file = _coin_file(folder)
    database: dict[str, Any] = read_json(file) if file else {}
    groups: dict[str, list[Given]] = {}
    kinds: dict[str, str] = {}
    for line, row in enumerate(read_table(folder / "triplets.csv"), start=2):
        name = row["name"].strip()
        title = f"{folder.name}/triplets.csv:{line}"
        if name.startswith("#NAME") or not name:
            found.dropped.append(("pair", title, "the table lost the video's name (#NAME?)"))
            continue
        files = [folder / row[c].strip().lstrip("/\\") for c in ("input_video_path", "output_video_path")]
        existing = tuple(p if p.is_file() else None for p in files)
        if name not in videos and None in existing:
            found.dropped.append(("pair", title, "video missing"))
            continue
        kinds[name] = row["recipe_type"].strip()
        groups.setdefault(name, []).append(Given(
            row["input_id"].strip(), row["target_id"].strip(),
            (row["ENG_Instruction"].strip(), row["ENG_Think"].strip(), clean_caption(row["ENG_GT_Caption"])),
            (row["input_sentence"].strip(), row["target_sentence"].strip()), (existing[0], existing[1])))
    for name, given in groups.items():
        entry = database.get(name, {})
        try:
            segments = _segments(entry.get("annotation", []), "label")
        except (KeyError, TypeError, ValueError, IndexError) as error:
            found.dropped.append(("video", f"{folder.name}/{name}", f"annotation not readable ({_short(error)})"))
            continue
        subset = str(entry.get("subset", ""))
        found.records.append(Record(
            source=folder.name, name=name, path=videos.get(name), kind="procedural" if kinds[name] else "predictive",
            split=split_of(subset, name), scene=f"{folder.name}/{name}", subset=subset,
            topic=_words(str(entry.get("class", ""))), recipe_type=kinds[name], segments=segments, given=tuple(given)))


LAYOUTS: tuple[tuple[tuple[str, ...], Callable[[Path, dict[str, Path], Found], None]], ...] = (
    (("triplets.csv",), _table), (("youcookii_annotations_trainval.json",), _youcook2),
    (("shorts.json",), _shorts), (COIN_NAMES, _coin))
