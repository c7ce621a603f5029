"""ActivityNet Captions: train.json, val_1.json, val_2.json, id -> {duration, timestamps: [[s, s]], sentences}.

Events overlap (source.follow says which pairs are made). val_1.json and val_2.json describe the same videos:
val_1.json's entry counts. Ids begin with v_, the videos' names may do without.
"""

from collections.abc import Iterator
from typing import Any

from vans.data.records import Record
from vans.data.sources.source import Source, SourceLayout

SUBSETS = {"train.json": "training", "val_1.json": "validation", "val_2.json": "validation"}


def entries(source: Source) -> Iterator[tuple[str, Any]]:
    """(id, (entry, subset)); validation first: what is in it is no training video, whatever train.json says."""
    first: set[str] = set()
    for file in ("val_1.json", "val_2.json", "train.json"):
        if (path := source.folder / file).is_file():
            for name, entry in source.entries(path, key=None):
                if file == "val_2.json" and name in first:
                    continue  # described a second time, by design
                if file == "val_1.json":
                    first.add(name)
                yield name, (entry, SUBSETS[file])


def record(source: Source, name: str, found: tuple[dict, str]) -> Record:
    """One video."""
    entry, subset = found
    path = source.videos.find(name) or source.videos.find(name.removeprefix("v_"))
    times, sentences = entry["timestamps"], entry["sentences"]
    if len(times) != len(sentences):
        source.name_all(times)
        raise ValueError("not as many sentences as timestamps")
    return source.record(
        name,
        "predictive",
        subset=subset,
        path=path,
        events=source.events(name, list(zip(times, sentences)), lambda e, n: (str(n), e[0], e[1])),
    )


ACTIVITYNET = SourceLayout("ActivityNet Captions", tuple(SUBSETS), entries, record)
