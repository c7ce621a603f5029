"""Predictions on disk: one caption and one video per sample, in a layout that anyone can write.

    <folder>/captions.csv      id,caption,text   (text: the whole answer with its thinking; may be left out)
    <folder>/videos/<id>.avi   or .mp4, .mkv, .webm, .mov; no folder videos/ at all: answers in words alone

Answers of another size or length than the ground truth are fitted to it (frames picked evenly, cover and
crop) and counted, so that the scores can say so. Names and ids are compared in NFC. What a spreadsheet would take for a
formula ("-2 degrees") may stand behind an apostrophe (`vans.spreadsheet`).
"""

import csv
import io
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np

from vans import spreadsheet
from vans.errors import UserError
from vans.files import check_readable
from vans.media import video

CAPTIONS = "captions.csv"
COLUMNS = ("id", "caption", "text")
SUFFIXES = (".avi", ".mp4", ".mkv", ".webm", ".mov")


@dataclass(frozen=True)
class Predictions:
    """Answers in the order of ``ids``; videos are read when asked for. ``texts`` are empty where not
    given, ``paths`` has the videos by id (none of answers in words alone). ``shapes``: (T, H, W) of the videos that
    were read so far, as they are on the disk."""

    ids: list[str]
    captions: list[str]
    texts: list[str]
    paths: dict[str, Path]
    shapes: Counter[tuple[int, int, int]] = field(default_factory=Counter)

    def check(self) -> None:
        """Open every video: UserError for one that cannot be (what is damaged further inside shows in `clips`)."""
        for path in self.paths.values():
            video.Video(path)

    def clips(self, ids: Sequence[str], geometry: tuple[int, ...]) -> tuple[np.ndarray, int]:
        """The videos of some samples as uint8 [N, T, H, W, 3] of the given (T, H, W), and how many had to be
        fitted. Of a longer or larger video only what is wanted is held.

        Raises UserError for a video that cannot be read.
        """
        clips, shapes = zip(*(_clip(self.paths[name], *geometry) for name in ids), strict=True)
        self.shapes.update(shapes)
        return np.stack(clips), sum(shape != geometry for shape in shapes)


def captions_csv(ids: Sequence[str], captions: Sequence[str], texts: Sequence[str]) -> str:
    """The text of captions.csv; in no cell of it a spreadsheet finds a formula."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n", quoting=spreadsheet.quoting([*captions, *texts]))
    writer.writerow(COLUMNS)
    writer.writerows(map(spreadsheet.guarded, row) for row in zip(ids, captions, texts, strict=True))
    return file.getvalue()


def open_folder(folder: str | Path, ids: Sequence[str], words: bool = False) -> Predictions:
    """Check a predictions folder and give the answers to ``ids``, in that order; others in it are ignored.

    ``words``: may it be without a folder videos/, as answers in words alone are? Raises UserError if the folder, a
    column, a caption's row or a video is missing, if a row is short or long, a quote is not closed, a file is no
    regular one or may not be read, or if two rows or files claim one id.
    """
    folder = Path(folder)
    rows = _read_captions(folder / CAPTIONS, ids)
    if missing := [name for name in ids if _nfc(name) not in rows]:
        raise UserError(f"{folder / CAPTIONS}: no row for {_some(missing)}; every held-out sample needs one")
    paths = {} if words and not (folder / "videos").exists() else _videos(folder / "videos", ids)
    captions, texts = ([rows[_nfc(name)][column] for name in ids] for column in (0, 1))
    return Predictions(list(ids), captions, texts, paths)


def is_empty(folder: str | Path) -> bool:
    """Is this the folder of a system that was not run: a captions.csv without a row, and no videos?"""
    path = Path(folder) / CAPTIONS
    if (Path(folder) / "videos").exists() or not path.is_file():
        return False
    return check_readable(path).read_bytes() == captions_csv([], [], []).encode()


def _videos(folder: Path, ids: Sequence[str]) -> dict[str, Path]:
    """The one video of each id."""
    there: dict[str, list[Path]] = {}
    for path in sorted(folder.glob("*")):
        if path.suffix.lower() in SUFFIXES:
            there.setdefault(_nfc(path.stem), []).append(path)
    if missing := [name for name in ids if _nfc(name) not in there]:
        raise UserError(f"{folder}: no video for {_some(missing)}; name each <id>.avi or <id>.mp4")
    for name in ids:
        if len(found := there[_nfc(name)]) > 1:
            named = " and ".join(path.name for path in found)
            raise UserError(f"{folder}: {named} are both the video of {name!r}; keep one")
    return {name: check_readable(there[_nfc(name)][0]) for name in ids}


def _read_captions(path: Path, ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """id in NFC -> (caption, text), of `ids`; a byte-order mark in front of the first column's name is ignored."""
    rows: dict[str, tuple[str, str]] = {}
    wanted = {_nfc(name) for name in ids}
    try:
        with open(check_readable(path), encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            names = reader.fieldnames or []
            for column in COLUMNS[:2]:
                if column not in names:
                    has = ", ".join(map(str, names)) or "none"
                    raise UserError(f"{path}: column {column!r} is missing; it has {has}")
            for row in reader:
                name = _row_id(f"{path}: line {reader.line_num}", row, len(names), ids)
                if name in rows:
                    raise UserError(f"{path}: {name!r} stands twice; keep one row per sample")
                if name in wanted:
                    rows[name] = (spreadsheet.bare(row["caption"]), spreadsheet.bare(row.get("text") or ""))
    except csv.Error as error:
        where = f"{path}: the row of line {reader.line_num + 1}"
        raise UserError(f"{where}: {error}; close or double its quotes") from error
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); it must be a CSV with the columns id,caption") from error
    return rows


def _row_id(where: str, row: dict, columns: int, ids: Sequence[str]) -> str:
    """The id of a row that is as long as the header and has not swallowed the row of one of `ids`."""
    name = _nfc(spreadsheet.bare(row["id"] or ""))
    if None in row or None in row.values():
        count = columns + len(row.get(None, ())) - sum(value is None for value in row.values())
        raise UserError(f"{where}: {name!r} has {count} values for {columns} columns; quote what holds a comma")
    lines = [line for value in row.values() for line in value.splitlines()[1:]]
    if swallowed := [other for other in ids if any(_nfc(line).startswith(f"{_nfc(other)},") for line in lines)]:
        raise UserError(f"{where}: a quote in {name!r} swallows the row of {swallowed[0]!r}; close or double it")
    return name


def _clip(path: Path, frames: int, height: int, width: int) -> tuple[np.ndarray, tuple[int, int, int]]:
    """A video as uint8 [frames, height, width, 3], and the (T, H, W) that it has: where that is another, frames are
    picked evenly, cover and crop. Such a one is decoded twice, for its length and for its pictures, and never held
    whole."""
    source = video.Video(path)
    fits = (source.info.height, source.info.width) == (height, width)
    if fits and len(first := [picture for _, picture in islice(source.frames(), frames + 1)]) == frames:
        return np.stack(first), (frames, height, width)
    count = sum(1 for _ in source.frames(longest=16))
    if not count:
        raise UserError(f"{path}: holds no picture; replace it")
    picked = np.linspace(0, count - 1, frames).round().astype(int).tolist()
    out, wanted = np.empty((frames, height, width, 3), np.uint8), set(picked)
    for i, (_, picture) in enumerate(source.frames()):
        if i in wanted:
            out[[at for at, index in enumerate(picked) if index == i]] = video.fit(picture, height, width)
    return out, (count, source.info.height, source.info.width)


def _nfc(name: str) -> str:
    return unicodedata.normalize("NFC", name)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"
