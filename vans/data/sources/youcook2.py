"""YouCook2: youcookii_annotations_trainval.json, as COIN's with `annotations` and `sentence`.

label_foodtype.csv (number, name) names the recipes; without it a question says "this recipe".
"""

import csv
import io
from collections.abc import Iterator
from typing import Any

from vans.data.records import Record
from vans.data.sources.source import Source, SourceLayout
from vans.data.sources.values import decoded, file_bytes
from vans.errors import UserError

FILE, NAMES = "youcookii_annotations_trainval.json", "label_foodtype.csv"


def entries(source: Source) -> Iterator[tuple[str, Any]]:
    """(id, (entry, its recipe in words))."""
    names = {}
    if (table := source.folder / NAMES).is_file():
        rows = csv.reader(io.StringIO(decoded(file_bytes(table)), newline=""))
        try:
            names = {row[0].strip(): row[1].strip() for row in rows if len(row) > 1}
        except csv.Error as error:
            raise UserError(f"{table}: is not a CSV table ({error}); replace it") from error
    for name, entry in source.entries(source.folder / FILE):
        number = entry.get("recipe_type") if isinstance(entry, dict) else None
        yield name, (entry, names.get(str(number), "this recipe"))


def steps(source: Source, name: str, entry: dict) -> Any:
    """A video's annotated steps."""
    return source.events(name, entry["annotations"], lambda s, n: (s["id"], s["segment"], s["sentence"]))


def record(source: Source, name: str, found: tuple[dict, str]) -> Record:
    """One video."""
    entry, recipe = found
    return source.record(
        name,
        "procedural",
        subset=entry.get("subset"),
        topic=recipe,
        recipe_type=entry.get("recipe_type"),
        events=steps(source, name, entry),
    )


YOUCOOK2 = SourceLayout("YouCook2", (FILE,), entries, record, more=(NAMES,))
