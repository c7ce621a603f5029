"""COIN: COIN.json, database -> id -> {class, recipe_type, subset, annotation: [{id, segment: [s, s], label}]}.

A step's id is that of its class, so that a step done twice has the same id twice.
"""

from typing import Any

from vans.data.records import Record
from vans.data.sources.source import Source, SourceLayout
from vans.data.sources.values import words

FILES = ("COIN.json", "annotations.json")


def entries(source: Source) -> Any:
    """The videos of the annotation file; none if the folder has none."""
    file = next((f for f in (source.folder / n for n in FILES) if f.is_file()), None)
    return source.entries(file) if file else iter(())


def steps(source: Source, name: str, entry: dict) -> Any:
    """A video's annotated steps."""
    return source.events(name, entry["annotation"], lambda s, n: (s["id"], s["segment"], s["label"]))


def record(source: Source, name: str, entry: dict) -> Record:
    """One video."""
    return source.record(
        name,
        "procedural",
        subset=entry.get("subset"),
        topic=words(entry.get("class")),
        recipe_type=entry.get("recipe_type"),
        events=steps(source, name, entry),
    )


COIN = SourceLayout("COIN", FILES, entries, record)
