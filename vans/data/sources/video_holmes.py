"""Video-Holmes: train_Video-Holmes.json and test_Video-Holmes.json (questions; they name the videos by
`video ID`), annotation_training/<id>.json and annotations/<id>.json (what happens when: a list of one object
whose `Segment Description` is [{TimeRange: "mm:ss-mm:ss", Description}]).

The questions are about a whole film and offer six answers: they are not asked here. A film without annotation
file is searched for shots.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from vans.data.records import Record
from vans.data.sources.source import Source, SourceLayout, no_doubles
from vans.data.sources.values import composed, entry_json, read_json
from vans.errors import UserError

SUBSETS = {  # the test set first: what is in it is no training video
    "test": ("test_Video-Holmes.json", "annotations"),
    "training": ("train_Video-Holmes.json", "annotation_training"),
}


def entries(source: Source) -> Iterator[tuple[str, tuple[str, Path]]]:
    """(id, (subset, annotation file, which need not exist)) of every video that either names."""
    for subset, (file, folder) in SUBSETS.items():
        path = source.folder / file
        questions = read_json(path) if path.is_file() else []
        if not isinstance(questions, list):
            raise UserError(f"{path}: is not a list of questions; replace it")
        names: dict[str, None] = {}
        for number, question in enumerate(questions, start=1):
            name = composed(question.get("video ID")) if isinstance(question, dict) else None
            if isinstance(name, str) and name:
                names[name] = None
            else:
                source.odd(f"{file}:#{number}", "a question without video ID")
        paths = (p for p in sorted((source.folder / folder).glob("*.json")) if not p.name.startswith("."))
        files = {composed(p.stem): p for p in paths}
        source.taken.update(files.values())
        for name in names | dict.fromkeys(files):
            yield name, (subset, files.get(name, source.folder / folder / "none"))


def record(source: Source, name: str, found: tuple[str, Path]) -> Record:
    """One film."""
    subset, file = found
    if not file.is_file():
        return source.record(name, "predictive", subset=subset)
    content = entry_json(file)
    no_doubles(content)
    if isinstance(content, list) and len(content) != 1:
        raise ValueError("not one description of the film")
    facts = _keys(content[0] if isinstance(content, list) else content)
    events = source.events(
        name,
        facts["segmentdescription"],
        lambda e, n: (str(n), _keys(e)["timerange"], _keys(e)["description"]),
    )
    return source.record(name, "predictive", subset=subset, events=events)


def _keys(entry: dict) -> dict:
    """An object with its keys in lower case and without spaces, which the two subsets set differently."""
    return {re.sub(r"[\s_]", "", key).lower(): value for key, value in entry.items()}


VIDEO_HOLMES = SourceLayout("Video-Holmes", tuple(file for file, _ in SUBSETS.values()), entries, record)
