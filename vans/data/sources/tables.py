"""The published tables of VANS-Data-100K: every *.csv of the folder that has their columns.

The segments are files <video id>/<segment id>.mp4, or are cut from the whole video at the times that COIN.json or
youcookii_annotations_trainval.json in the same folder gives. Defects of the published files that are put right:
the byte-order mark, columns in another order, a name that a spreadsheet made #NAME? while the paths still hold
it, captions with a tail. What cannot be put right drops its row.
"""

import csv
import difflib
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from vans.data.records import Given, Record
from vans.data.shots import Segment
from vans.data.sources import coin, youcook2
from vans.data.sources.order import OVERLAP, spans
from vans.data.sources.source import Source, SourceLayout
from vans.data.sources.values import MALFORMED, decoded, file_bytes, text, words
from vans.errors import UserError

TABLE_NAME = "triplets.csv"
COLUMNS = (
    *("output_video_path", "input_video_path", "name", "input_id", "target_id", "input_sentence"),
    *("target_sentence", "recipe_type", "ENG_Instruction", "ENG_Think", "ENG_GT_Caption"),
)
FROM_PATHS = ("name", "input_id", "target_id")  # columns that the paths say again
LOST = "the table lost the video's name (#NAME?)"
Row = dict[str, str]


def tables_in(folder: Path) -> list[Path]:
    """The folder's CSV or TSV files that are, or should be, published tables. UserError for a spreadsheet's own."""
    named = re.compile(r"vans[-_]?data.*|triplets", re.IGNORECASE)
    for path in sorted(folder.glob("*.xls*")):
        if named.fullmatch(path.stem):
            raise UserError(f"{path}: save the table as CSV (UTF-8); a spreadsheet's own format is not read")
    paths = (p for p in sorted(folder.iterdir()) if p.suffix.lower() in (".csv", ".tsv") and p.is_file())
    return [p for p in paths if named.fullmatch(p.stem) or _known(_header(p)) >= 5]


def entries(source: Source) -> Iterator[tuple[str, tuple[list[Row], Any]]]:
    """(video id, (its rows, (entry of its annotations, reader of the steps, topic))), all tables together."""
    database: dict[str, Any] = {n: (e, coin.steps, None) for n, e in coin.entries(source)}
    if (source.folder / youcook2.FILE).is_file():
        database |= {n: (e, youcook2.steps, topic) for n, (e, topic) in youcook2.entries(source)}
    groups: dict[str, list[Row]] = {}
    for path in tables_in(source.folder):
        for line, row in read_table(path):
            where = f"{path.name}:{line}"
            source.enter("pair")
            if isinstance(row, str):
                source.drop("pair", where, row)
            elif not row["name"]:
                source.drop("pair", where, LOST)
            else:
                groups.setdefault(row["name"], []).append(row | {"where": where})
                source.expect(row["name"], where)
    for name, rows in groups.items():
        yield name, (rows, database.get(name))


def record(source: Source, name: str, found: tuple[list[Row], Any]) -> Record | None:
    """One video and the pairs that the tables name; None if none of its rows can be used."""
    rows, known = found
    entry: Any
    entry, read_steps, topic = known or ({}, None, None)
    steps = read_steps(source, name, entry) if read_steps else ()
    path = source.videos.find(name)
    times = {step.id: step for step in steps}
    pairs: dict[tuple[str, str], Given] = {}
    for row in rows:
        first, second = (source.videos.find(row[c]) for c in ("input_video_path", "output_video_path"))
        ids = _occurrence(steps, row["input_id"], row["target_id"])
        texts = (row["ENG_Instruction"], row["ENG_Think"], row["ENG_GT_Caption"])
        given = Given(*ids, texts, (row["input_sentence"], row["target_sentence"]), (first, second))
        if path is None and None in given.files:
            source.drop("pair", row["where"], "video missing")
        elif ids[0] == ids[1]:
            source.drop("pair", row["where"], "input and target are the same segment")
        elif ids in pairs:
            source.drop("pair", row["where"], "the same pair is there twice")
        elif all(id in times for id in ids) and times[ids[1]].start <= times[ids[0]].start:
            source.drop("pair", row["where"], "the target does not come after its input")
        elif all(id in times for id in ids) and _between(source, steps, *ids):
            source.drop("pair", row["where"], "another step lies between the two")
        elif None not in given.files and all(id in times for id in ids) and _overlap(times, ids) > OVERLAP:
            source.drop("pair", row["where"], "the input's file shows part of the target")
        else:
            pairs[ids] = given
            if None in given.files and all(id in times for id in ids):  # the input shows nothing of the target
                a, b = (times[id] for id in ids)
                times[a.id] = replace(a, end=min(a.end, b.start))
    if not pairs:
        return None
    return source.record(
        name,
        "procedural" if rows[0]["recipe_type"] else "predictive",
        subset=entry.get("subset"),
        path=path,
        topic=topic or words(entry.get("class")),
        recipe_type=rows[0]["recipe_type"],
        events=tuple(times.values()),
        given=tuple(pairs.values()),
    )


def _between(source: Source, steps: tuple[Segment, ...], first: str, second: str) -> bool:
    """Do the annotations name a step between two of them, readable or not?"""
    known = {step.id: step for step in steps}
    a, b = known[first], known[second]
    return source.order.torn(a, b) or spans(a, b, (step for step in steps if step.id not in (first, second)))


def _overlap(times: dict[str, Segment], ids: tuple[str, str]) -> float:
    """Seconds that the input goes on after the target has begun."""
    return times[ids[0]].end - times[ids[1]].start


def _occurrence(steps: tuple[Segment, ...], first: str, second: str) -> tuple[str, str]:
    """The table's ids as those of two steps that follow each other, where steps are there more than once."""
    inputs, targets = ([s for s in steps if s.id == id or s.id.startswith(f"{id}.")] for id in (first, second))
    after = [(b.start - a.end, a.id, b.id) for a in inputs for b in targets if a is not b and b.start >= a.start]
    return min(after)[1:] if after else (first, second)


def read_table(path: Path) -> Iterator[tuple[int, Row | str]]:
    """(line, row) of a table, or (line, reason) where a row cannot be used.

    Cells are stripped, captions without their tail, name and ids taken from the paths where they are lost.
    Raises UserError if a column is missing.
    """
    lines = _lines(file_bytes(path))
    header, mark = _header(path)
    if missing := [c for c in COLUMNS if c not in header and c not in FROM_PATHS]:
        names = [h.encode("ascii", "backslashreplace").decode()[:40] for h in header[:20]]
        others = {h.lower(): h for h in names if h not in COLUMNS}
        near = difflib.get_close_matches(missing[0].lower(), list(others), n=1, cutoff=0.7)
        fix = f"rename {others[near[0]]!r}" if near else "the table must be a CSV file in UTF-8"
        raise UserError(f"{path}: column {missing[0]!r} is missing; it has {', '.join(names)}; {fix}")
    at = 1
    while at < len(lines):
        reader = csv.reader(islice(lines, at, None), delimiter=mark, strict=True)
        begin = at
        try:
            for cells in reader:
                while len(cells) > len(header) and not cells[-1].strip():
                    cells.pop()
                whole = len(cells) == len(header)
                if cells:
                    row = _row(dict(zip(header, cells))) if whole else "not as many cells as columns"
                    yield begin + 1, row
                if cells and not whole and reader.line_num + at - begin > 1:
                    break  # a quote that never ends has swallowed the next lines: read them again
                begin = at + reader.line_num
            else:
                return
        except csv.Error:
            yield begin + 1, "its quotes do not match"
        at = begin + 1


def _row(cells: Row) -> Row | str:
    """A row put right, or the reason why it cannot be."""
    caption = clean_caption(cells["ENG_GT_Caption"])
    try:
        row = {key: text(value) for key, value in cells.items()} | {"ENG_GT_Caption": text(caption)}
    except MALFORMED:
        return "the row is not in UTF-8"
    paths = {c: PurePosixPath(row[c].replace("\\", "/")) for c in ("input_video_path", "output_video_path")}
    said = {
        "name": paths["input_video_path"].parent.name.strip(),
        "input_id": paths["input_video_path"].stem.strip(),
        "target_id": paths["output_video_path"].stem.strip(),
    }
    for column, other in said.items():
        if _lost(row.get(column, "")):
            row[column] = "" if _lost(other) else other
    return row


def _lost(cell: str) -> bool:
    """Is a cell empty or what a spreadsheet leaves of a text that it takes for a formula?"""
    return not cell or cell.startswith("#")


def clean_caption(caption: str) -> str:
    """A table's caption in one line, without the tail after a blank line or a line of dashes."""
    kept = []
    for line in (line.strip() for line in caption.strip().splitlines()):
        if not line or re.fullmatch(r"-{3,}", line):
            break
        kept.append(line)
    return " ".join(kept)


def _header(path: Path) -> tuple[list[str], str]:
    """A CSV file's column names and the mark between its cells: comma, semicolon or tab."""
    first = _lines(file_bytes(path, 65_536))[0]
    try:
        read = [([c.strip() for c in next(csv.reader([first], delimiter=m), [])], m) for m in ",;\t"]
    except csv.Error:
        return [], ","
    return max(read, key=_known)


def _lines(data: bytes) -> list[str]:
    """A text file's lines, each with its end, whichever of the three ways of ending lines it has."""
    whole = decoded(data).replace("\r\n", "\n")
    return [line + "\n" for line in (whole if "\n" in whole else whole.replace("\r", "\n")).split("\n")]


def _known(header: tuple[list[str], str]) -> int:
    return len(set(header[0]) & set(COLUMNS))


class _Tables(SourceLayout):
    def is_in(self, folder: Path) -> bool:
        """Does the folder hold a table?"""
        return bool(tables_in(folder))


TABLES = _Tables("VANS-Data-100K", (TABLE_NAME,), entries, record, more=(*coin.FILES, youcook2.FILE))
