"""Readers of the source layouts: (folder, its videos by name, found) -> records added to found."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vans.data.records import Found, Given, Record, split_of
from vans.data.shots import Segment
from vans.errors import UserError

COIN_NAMES = ("COIN.json", "annotations.json")
YOUCOOK2_NAME = "youcookii_annotations_trainval.json"
SHORTS_NAME = "shorts.json"
TABLE_NAME = "triplets.csv"
COLUMNS = (
    *("output_video_path", "input_video_path", "name", "input_id", "target_id", "input_sentence"),
    *("target_sentence", "recipe_type", "ENG_Instruction", "ENG_Think", "ENG_GT_Caption"),
)
MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError)
Videos = dict[str, Path]


def coin(folder: Path, videos: Videos, found: Found) -> None:
    """COIN: database -> id -> {class, recipe_type, subset, annotation: [{id, segment: [s, s], label}]}."""
    file = coin_file(folder)
    assert file is not None
    _steps(
        folder, videos, found, read_json(file), ("annotation", "label"), lambda e: words(e.get("class", ""))
    )


def youcook2(folder: Path, videos: Videos, found: Found) -> None:
    """YouCook2: as COIN with `annotations` and `sentence`; label_foodtype.csv names the recipe types."""
    names = {}
    if (table := folder / "label_foodtype.csv").is_file():
        with open(table, encoding="utf-8-sig", newline="") as rows:
            names = {row[0].strip(): row[1].strip() for row in csv.reader(rows) if len(row) > 1}
    database = read_json(folder / YOUCOOK2_NAME)
    recipe = "this recipe"
    _steps(
        *(folder, videos, found, database, ("annotations", "sentence")),
        lambda e: names.get(str(e.get("recipe_type", "")), recipe),
    )


def _steps(
    folder: Path,
    videos: Videos,
    found: Found,
    database: dict,
    keys: tuple[str, str],
    topic: Callable[[dict], str],
) -> None:
    """Videos with annotated steps; keys: of the list of steps and of a step's text."""
    for name, entry in database.items():
        try:
            subset = str(entry.get("subset", ""))
            record = Record(
                **_common(folder, name, videos, subset),
                kind="procedural",
                topic=topic(entry),
                recipe_type=str(entry.get("recipe_type", "")),
                segments=segments_of(entry[keys[0]], keys[1]),
            )
            found.records.append(record)
        except MALFORMED as error:
            _malformed(found, folder, name, error)


def shorts(folder: Path, videos: Videos, found: Found) -> None:
    """Films without timestamps: database -> id -> {subset, scene, condition, shots: [label, ...]}."""
    for name, entry in read_json(folder / SHORTS_NAME).items():
        try:
            condition = str(entry.get("condition", ""))
            common = _common(
                folder, name, videos, str(entry.get("subset", "")), str(entry.get("scene", name))
            )
            labels = tuple(str(s) for s in entry["shots"])
            found.records.append(
                Record(**common, kind="predictive", topic=condition, condition=condition, labels=labels)
            )
        except MALFORMED as error:
            _malformed(found, folder, name, error)


def plain(folder: Path, videos: Videos, found: Found) -> None:
    """Only videos: nothing is known of them."""
    found.records += [Record(**_common(folder, name, videos, ""), kind="predictive") for name in videos]


def table(folder: Path, videos: Videos, found: Found) -> None:
    """A published table of VANS-Data-100K.

    The segments are files /<video id>/<segment id>.mp4, or are cut from the whole video at the times that a
    COIN file in the same folder gives.
    """
    file = coin_file(folder)
    database: dict[str, Any] = read_json(file) if file else {}
    groups: dict[str, list[Given]] = {}
    recipes: dict[str, str] = {}
    for line, row in enumerate(read_table(folder / TABLE_NAME), start=2):
        name, where = row["name"], f"{folder.name}/{TABLE_NAME}:{line}"
        paths = [folder / row[c].lstrip("/\\") for c in ("input_video_path", "output_video_path")]
        files = tuple(p if p.is_file() else None for p in paths)
        if not name or name.startswith("#"):
            found.dropped.append(("pair", where, "the table lost the video's name (#NAME?)"))
        elif name not in videos and None in files:
            found.dropped.append(("pair", where, "video missing"))
        else:
            recipes[name] = row["recipe_type"]
            texts = (row["ENG_Instruction"], row["ENG_Think"], clean_caption(row["ENG_GT_Caption"]))
            sentences = (row["input_sentence"], row["target_sentence"])
            given = Given(row["input_id"], row["target_id"], texts, sentences, (files[0], files[1]))
            groups.setdefault(name, []).append(given)
    for name, pairs in groups.items():
        entry = database.get(name, {})
        try:
            record = Record(
                **_common(folder, name, videos, str(entry.get("subset", ""))),
                kind="procedural" if recipes[name] else "predictive",
                topic=words(entry.get("class", "")),
                recipe_type=recipes[name],
                segments=segments_of(entry.get("annotation", []), "label"),
                given=tuple(pairs),
            )
            found.records.append(record)
        except MALFORMED as error:
            _malformed(found, folder, name, error)


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a published table, cells stripped, no byte-order mark. UserError if a column is missing."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            names = [n.strip() for n in reader.fieldnames or []]
            if missing := [c for c in COLUMNS if c not in names]:
                raise UserError(f"{path}: column {missing[0]!r} is missing; it has {', '.join(names)}")
            reader.fieldnames = names
            return [{k: (v or "").strip() for k, v in row.items() if k} for row in reader]
    except (UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: is not a CSV table in UTF-8 ({error}); save it as one") from error


def clean_caption(text: str) -> str:
    """A table's caption in one line, without the tail after a blank line or a line of dashes."""
    kept = []
    for line in (line.strip() for line in text.strip().splitlines()):
        if not line or re.fullmatch(r"-{3,}", line):
            break
        kept.append(line)
    return " ".join(kept)


def read_json(path: Path) -> dict:
    """The `database` of an annotation file. Raises UserError if it is not JSON or has none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise UserError(f"{path}: is not JSON ({error}); replace it") from error
    database = content.get("database") if isinstance(content, dict) else None
    if not isinstance(database, dict):
        raise UserError(f"{path}: has no key 'database' with an entry for each video id; add it")
    return database


def coin_file(folder: Path) -> Path | None:
    """The folder's annotation file in COIN's layout, if it has one."""
    return next((folder / n for n in COIN_NAMES if (folder / n).is_file()), None)


def segments_of(steps: list[dict], text_key: str) -> tuple[Segment, ...]:
    """Annotated steps as segments. Raises ValueError if one ends before it starts."""
    segments = []
    for step in steps:
        start, end = float(step["segment"][0]), float(step["segment"][1])
        if not 0 <= start <= end:
            raise ValueError(f"segment [{start:g}, {end:g}] ends before it starts")
        segments.append(Segment(str(step["id"]), start, end, str(step[text_key]).strip()))
    return tuple(segments)


def words(name: object) -> str:
    """RoastPeppers -> roast peppers."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\dA-Z_]+|\d+", str(name))).lower()


def _common(folder: Path, name: str, videos: Videos, subset: str, scene: str | None = None) -> dict[str, Any]:
    scene = name if scene is None else scene
    return {
        **{"source": folder.name, "name": name, "path": videos.get(name)},
        **{"split": split_of(subset, scene), "subset": subset, "scene": f"{folder.name}/{scene}"},
    }


def _malformed(found: Found, folder: Path, name: str, error: Exception) -> None:
    reason = f"annotation not readable ({type(error).__name__}: {str(error)[:60]})"
    found.dropped.append(("video", f"{folder.name}/{name}", reason))
