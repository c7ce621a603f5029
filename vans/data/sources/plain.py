"""Your own videos, each with or without a sidecar of the same name beside it (the first that is there counts):

    x.json   {events: [{start, end, text, question, reasoning, caption}], subset, kind, topic, scene};
             events without start and end name the shots that are searched, in order
    x.srt, x.vtt   subtitles: one event each (see subtitles.py)
    x.txt    lines "start end what happens", or "what happens" for each shot in order

Other keys than these (and `duration` and `notes`, which nobody reads) drop the video: a misspelt `subset` would
change its side.
`question`, `reasoning` and `caption` of an event are those of the pair whose target it is; at the top level they
are those of the last event. Times: seconds or [hh:]mm:ss. Without sidecar, shots are searched.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vans.data.records import Record
from vans.data.shots import Segment
from vans.data.sources.source import Missing, Source, SourceLayout, Texts, no_doubles
from vans.data.sources.subtitles import cues
from vans.data.sources.values import composed, decoded, entry_json, known_keys, text
from vans.errors import one_of

SIDECARS = (".json", ".srt", ".vtt", ".txt")
KINDS = ("predictive", "procedural")
ASKED = ("question", "reasoning", "caption")
KEYS = ("events", "subset", "kind", "topic", "scene", *ASKED, "duration", "notes")
EVENT_KEYS = ("start", "end", "text", *ASKED, "notes")
TIME = r"([-\u2212]?\d[\d:.,;]*)"  # a negative or misspelt one is still a time, which cannot be read
LINE = re.compile(rf"\s*{TIME}\s*(?:\s|[-=~\u2010-\u2015]+\s*>*|\u2192)\s*{TIME}\s+(\S.*)")


def entries(source: Source) -> Iterator[tuple[str, Path]]:
    """Every video. Files beside them that are nobody's sidecar are noted as not read."""
    read = {composed(str(path.with_suffix(""))) for path in source.videos.named.values()}
    for file in source.videos.texts:
        name = file.relative_to(source.folder)
        if composed(str(file.with_suffix(""))) not in read or file.suffix not in SIDECARS:
            source.unread(f"{name} (a sidecar is named like its video, with {one_of(SIDECARS)})")
        elif (first := _sidecar(source, file)) != file and first is not None:
            source.unread(f"{name} ({first.name} beside it counts)")
    yield from list(source.videos.named.items())


def record(source: Source, name: str, path: Path) -> Record:
    """One video and what its sidecar says."""
    source.videos.use(path)
    file = _sidecar(source, path)
    if file is None:
        return source.record(name, "predictive", path=path)
    if file.suffix in (".srt", ".vtt"):
        return source.record(name, KINDS[0], path=path, events=_subtitles(source, name, file))
    content = entry_json(file) if file.suffix == ".json" else _from_text(file)
    no_doubles(content)
    items = content["events"]
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        source.name_all(items)
        raise ValueError("the events are not a list of objects")
    fields: dict[str, Any] = {key: content.get(key) for key in ("subset", "scene", "topic")}
    if items and not any("start" in item or "end" in item for item in items):
        kind = _kind(content, items)
        if any(item.get(key) for item in (content, *items) for key in ASKED):
            raise ValueError("a question, reasoning or caption needs an event with start and end")
        labels = tuple(text(item.get("text")) for item in items)
        return source.record(name, kind, path=path, labels=labels, **fields)
    numbered = [{**item, "id": str(number)} for number, item in enumerate(items, start=1)]
    if numbered:
        numbered[-1] = {k: content.get(k) for k in ASKED} | numbered[-1]
    events = source.events(name, numbered, lambda e, n: (e["id"], [e["start"], e["end"]], e.get("text")))
    kind = _kind(content, items)
    texts = {item["id"]: _texts(item) for item in numbered if item.get("question")}
    return source.record(name, kind, path=path, events=events, texts=texts, **fields)


def _kind(content: dict, items: list[dict]) -> str:
    """The kind of the video; ValueError if it or a key is unknown (asked when all events have been counted)."""
    known_keys(content, KEYS)
    for item in items:
        known_keys(item, EVENT_KEYS)
    kind = text(content.get("kind")) or KINDS[0]
    if kind not in KINDS:
        raise ValueError(f"the kind is neither {KINDS[0]} nor {KINDS[1]} ({kind[:40]!r})")
    return kind


def _sidecar(source: Source, path: Path) -> Path | None:
    """The file beside a video that tells about it."""
    files = (source.sidecars.get(composed(str(path.with_suffix(suffix)))) for suffix in SIDECARS)
    return next((f for f in files if f is not None), None)


def _texts(item: dict) -> Texts:
    """Question, reasoning and caption of an event that has a question; without caption its text is the caption."""
    return text(item["question"]), text(item.get("reasoning")), text(item.get("caption") or item.get("text"))


def _subtitles(source: Source, name: str, file: Path) -> tuple[Segment, ...]:
    """The events of subtitles; ids are the numbers of the cues. ValueError if there is no cue."""
    found = cues(decoded(file.read_bytes()), vtt=file.suffix == ".vtt")
    items = [Missing(str(n), c.lost, torn=not c.again) if c.lost else c for n, c in enumerate(found, start=1)]
    return source.events(name, items, lambda c, n: (n, [c.start, c.end], " ".join(c.lines)))


def _from_text(file: Path) -> dict:
    """The events of lines of text: with times where one line has them."""
    lines = [line for line in re.split(r"\r\n?|\n", decoded(file.read_bytes())) if line.strip()]
    timed = [LINE.fullmatch(line) for line in lines]
    if not any(timed):
        return {"events": [{"text": line} for line in lines]}
    return {
        "events": [
            {"start": m[1], "end": m[2], "text": m[3]} if m else {"start": None, "end": None, "text": line}
            for line, m in zip(lines, timed)
        ]
    }


PLAIN = SourceLayout("your own videos", (), entries, record)
