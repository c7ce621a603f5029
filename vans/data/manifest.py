"""The strict reader of a triplets folder, wherever it comes from: all that its manifest says is checked before any of
it is used.

An id becomes the name of a file, a shard's name with offset and size decides what is read, a text goes to the models:
each may only be what a curation would have written. Nothing outside of the folder can be named.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vans.data.shards import COLUMNS
from vans.errors import UserError, one_of
from vans.files import check_readable
from vans.template import SPECIAL, TAGS

ID = r"^[A-Za-z0-9_][A-Za-z0-9._-]{0,79}\z"  # what `vans.data.curate.id_of` gives
SHARD = r"^[0-9]{5,9}\.tar\z"  # what `vans.data.shards.ShardWriter` gives
CHOICES = {"split": ("train", "test"), "kind": ("procedural", "predictive")}
ROLES = ("input", "target")
TIMES = tuple(f"{role}_{end}" for role in ROLES for end in ("start", "end"))
NUMBERS = (*TIMES, "motion", "agreement", "rl_score")
COUNTS = ("caption_words", "questions_refused", *(f"{role}_{x}" for role in ROLES for x in ("offset", "size")))
EMPTY = ("agreement",)  # where nothing need stand
SIGNS = f"(?i:{SPECIAL.pattern})"
TAG = r"\[/?(?:Think|Ans)\]"
FIX = "make it again with `dvc repro curate`"
LONGEST = 20_000  # characters of a text

assert all(tag.strip("[/]") in TAG for tag in TAGS)


def read(folder: str | Path) -> pa.Table:
    """The manifest of a triplets folder, columns in the order of COLUMNS; further ones are left out.

    UserError in one line that names the file, the triplet and the fix, for the first thing that is wrong: a file that
    is missing, damaged or not to be read, columns that are missing or of another type, empty cells, an id that is
    there twice or would be no file's name, texts with signs of the models' own, clips that lie outside of their shard.
    """
    folder = Path(folder)
    path = folder / "manifest.parquet"
    if not check_readable(path).is_file():
        raise UserError(f"{path}: missing; make it with `dvc repro curate`")
    try:
        with pq.ParquetFile(path) as file:
            _check_schema(path, file.schema_arrow)
            table = file.read(columns=list(COLUMNS)).select(COLUMNS).combine_chunks()
        table.validate(full=True)
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: not a readable manifest; {FIX}") from error
    if not len(table):
        raise UserError(f"{path}: holds no triplet; {FIX}")
    _check_rows(path, table)
    _check_places(folder, table)
    return table


def _check_schema(path: Path, schema: pa.Schema) -> None:
    kinds: dict[str, tuple[str, Callable[[pa.DataType], bool]]] = dict.fromkeys(COLUMNS, ("text", _is_text))
    kinds |= dict.fromkeys(NUMBERS, ("numbers", lambda t: pa.types.is_floating(t) or pa.types.is_integer(t)))
    kinds |= dict.fromkeys(COUNTS, ("whole numbers", pa.types.is_integer))
    kinds["rl"] = ("true or false", pa.types.is_boolean)
    for name, (words, right) in kinds.items():
        found = schema.get_all_field_indices(name)
        if not found:
            raise UserError(f"{path}: has no column {name}; {FIX}")
        if len(found) > 1:
            raise UserError(f"{path}: has the column {name} {len(found)} times; {FIX}")
        if not right(kind := schema.field(found[0]).type):
            raise UserError(f"{path}: the column {name} is of type {kind}, not {words}; {FIX}")


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _check_rows(path: Path, table: pa.Table) -> None:
    """Each cell by itself, and that no id is there twice."""
    ids = table["id"]

    def none(wrong: pa.ChunkedArray, column: str, what: str) -> None:
        first = pc.index(wrong, True).as_py()
        if first >= 0:
            value = str(table[column][first].as_py())
            raise UserError(f"{path}: triplet {ids[first].as_py()!r:.100}: {column} {what} ({value!r:.60}); {FIX}")

    for name in COLUMNS:
        if name not in EMPTY:
            none(pc.is_null(table[name], nan_is_null=True), name, "is empty")
    none(pc.invert(pc.match_substring_regex(ids, ID)), "id", "is not letters, digits, . _ and - as a file's name")
    none(pc.invert(pc.match_substring_regex(table["shard"], SHARD)), "shard", "is no shard's name such as 00000.tar")
    if len(pc.unique(ids)) < len(ids):
        counts = pc.value_counts(ids.combine_chunks())
        twice = counts.field("values")[pc.index(pc.greater(counts.field("counts"), 1), True).as_py()]
        raise UserError(f"{path}: triplet {twice.as_py()!r} is there twice; {FIX}")
    for name, values in CHOICES.items():
        none(pc.invert(pc.is_in(table[name], pa.array(values, table[name].type))), name, f"is not {one_of(values)}")
    for name in ("question", "reasoning", "caption"):
        none(pc.greater(pc.utf8_length(table[name]), LONGEST), name, f"is longer than {LONGEST} characters")
        signs = SIGNS if name == "question" else f"{SIGNS}|{TAG}"
        none(pc.match_substring_regex(table[name], signs), name, "holds a sign of the models' own")
    for name in NUMBERS:
        if name not in EMPTY:
            none(pc.invert(pc.is_finite(table[name])), name, "is no number")
    for role in ROLES:
        start, end = (table[f"{role}_{x}"] for x in ("start", "end"))
        none(pc.less(start, 0), f"{role}_start", "is before the video")
        none(pc.less_equal(end, start), f"{role}_end", "is not after its start")


def _check_places(folder: Path, table: pa.Table) -> None:
    """Every clip lies inside of a shard that is there."""
    names = pc.unique(table["shard"]).to_pylist()
    sizes = np.array([_size(folder / "shards" / name) for name in names])
    shard = pc.index_in(table["shard"], pa.array(names, table["shard"].type)).to_numpy()
    for role in ROLES:
        offset, size = (table[f"{role}_{x}"].to_numpy() for x in ("offset", "size"))
        inside = (offset >= 0) & (size > 0) & (size <= sizes[shard]) & (offset <= sizes[shard] - size)
        if not inside.all():
            first = int(np.argmin(inside))
            raise UserError(
                f"{folder / 'shards' / names[shard[first]]}: {role} clip of {table['id'][first].as_py()} is damaged "
                f"(the shard ends before it); make it again with `dvc repro -f curate`"
            )


def _size(shard: Path) -> int:
    if not check_readable(shard).is_file():
        raise UserError(f"{shard}: missing; {FIX}")
    return os.stat(shard).st_size
