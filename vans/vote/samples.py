"""What is asked: questions with the clip they are about and, where it is known, what really happened.

From the held-out triplets of a project, or from anyone's CSV file with the columns

    id, question, input, truth, caption     (id and question are needed; input and truth are videos beside the file)
"""

import csv
import hashlib
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vans import spreadsheet
from vans.errors import UserError
from vans.files import check_readable, sha256_file
from vans.vote import sheets

COLUMNS = ("id", "question", "input", "truth", "caption")
Clip = tuple[np.ndarray, float]  # uint8 [T, H, W, 3], pictures per second


@dataclass(frozen=True)
class Film:
    """A clip in a file. read: its pictures; digest: SHA-256 of the file's bytes."""

    read: Callable[[], Clip]
    digest: Callable[[], str]


@dataclass(frozen=True)
class Sample:
    """input, truth: None where there is none. caption: what really happened, in words."""

    id: str
    question: str
    caption: str
    input: Film | None
    truth: Film | None


def of_triplets(folder: Path) -> Mapping[str, Sample]:
    """The held-out samples of curated triplets, by id in NFC."""
    from vans.data.triplets import Triplets

    triplets = Triplets(folder)
    found = {}
    for id in triplets.select(split="test"):
        row = triplets.row(id)
        own, truth = (_in_shard(triplets, id, which) for which in ("input", "target"))
        found[unicodedata.normalize("NFC", id)] = Sample(id, str(row["question"]), str(row["caption"]), own, truth)
    return found


def _in_shard(triplets, id: str, which: str) -> Film:
    return Film(
        lambda: sheets.decoded(triplets.file(id, which), f"{triplets.folder}: {which} clip of {id}"),
        lambda: hashlib.sha256(triplets.file(id, which)).hexdigest(),
    )


def of_csv(path: Path) -> Mapping[str, Sample]:
    """The samples of a CSV file; UserError for a missing column, a row of another length, an id twice, a lost video."""
    found: dict[str, Sample] = {}
    try:
        with open(check_readable(path), encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            if missing := [name for name in COLUMNS[:2] if name not in (reader.fieldnames or ())]:
                raise UserError(f"{path}: column {missing[0]!r} is missing; it needs {', '.join(COLUMNS[:2])}")
            for row in reader:
                where = f"{path}: line {reader.line_num}"
                if None in row or None in row.values():
                    raise UserError(f"{where}: not as long as the first line; quote what holds a comma")
                texts = {name: spreadsheet.bare(row.get(name, "")) for name in COLUMNS}
                id = unicodedata.normalize("NFC", texts["id"])
                if not id or id in found:
                    raise UserError(f"{where}: the id {id!r} is empty or stands twice; give each sample one of its own")
                clips = [_in_file(path.parent / texts[name], where, texts[name]) for name in ("input", "truth")]
                found[id] = Sample(texts["id"], texts["question"], texts["caption"], *clips)
    except (csv.Error, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); it must be a CSV with the columns id,question") from error
    if not found:
        raise UserError(f"{path}: holds no sample")
    return found


def _in_file(path: Path, where: str, name: str) -> Film | None:
    if not name:
        return None
    if not path.is_file():
        raise UserError(f"{where}: {path} is not there; name a video beside the CSV file")
    return Film(lambda: sheets.read(path), lambda: sha256_file(path))
