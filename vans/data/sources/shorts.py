"""Films without timestamps: shorts.json, database -> id -> {subset, scene, condition, shots: [label, ...]}.

A film is a video, whose shots are searched, or a folder of that name with one clip per shot, in the order of
their names; then `shots` may be left out.
"""

from itertools import pairwise
from typing import Any

from vans.data.records import Given, Record
from vans.data.sources.source import Source, SourceLayout
from vans.data.sources.values import known_keys, text

FILE = "shorts.json"
KEYS = ("subset", "scene", "condition", "shots", "duration", "notes")


def entries(source: Source) -> Any:
    """The films of shorts.json."""
    return source.entries(source.folder / FILE)


def record(source: Source, name: str, entry: dict) -> Record:
    """One film."""
    path = source.videos.find(name)
    clips = [] if path is not None else source.videos.inside(name)
    known_keys(entry, KEYS)
    if clips and source.videos.odd_inside(name):
        raise ValueError("a clip of the film is not there or may not be read")
    if len(clips) == 1:
        raise ValueError("a film of a single clip")
    if path is None and clips and "shots" not in entry:
        labels = ("",) * len(clips)
    elif isinstance(entry["shots"], list):
        labels = tuple(text(label) for label in entry["shots"])
    else:
        raise ValueError("the shots are not a list")
    given: tuple[Given, ...] = ()
    if path is None and clips:
        if len(clips) != len(labels):
            raise ValueError("not as many clips as shots")
        shots = list(zip(range(1, len(clips) + 1), clips, labels))
        given = tuple(
            Given(str(i), str(j), None, (said, next_said), (clip, next_clip))
            for (i, clip, said), (j, next_clip, next_said) in pairwise(shots)
        )
        for pair in given:
            source.enter("pair", f"{name}:{pair.input_id}-{pair.target_id}")
    condition = text(entry.get("condition"))
    return source.record(
        name,
        "predictive",
        subset=entry.get("subset"),
        scene=entry.get("scene"),
        path=path,
        topic=condition,
        condition=condition,
        labels=labels,
        given=given,
    )


SHORTS = SourceLayout("short films", (FILE,), entries, record)
