"""What every layout is given: its folder, the videos in it, and the way to records and drops."""

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from vans.data.ledger import VIDEO_LOST
from vans.data.records import Found, Given, Record, split_of
from vans.data.shots import Segment
from vans.data.sources.order import EventOrder, follow, in_time
from vans.data.sources.values import (
    CONTROL,
    MALFORMED,
    Object,
    composed,
    read_json,
    reason_of,
    seconds,
    segment,
    span,
    text,
)
from vans.data.sources.videos import Videos, beside_video
from vans.errors import UserError

UNUSED = "none of its rows can be used"
ALONE = "no event right before or after it that does not overlap it"
FIRST = "a question about an event that no other precedes"
UNKNOWN = "a question about an event before which something could not be read"
Texts = tuple[str, str, str]  # question, reasoning, caption


@dataclass(frozen=True)
class Missing:
    """An event that is named and cannot be used, among others. torn: those around it make no pair."""

    id: str
    reason: str
    torn: bool = True


class Source:
    """One source folder that is being read into `found`."""

    def __init__(self, folder: Path, found: Found) -> None:
        self.folder, self.found = folder, found
        self.name = _printable(folder.name)
        if self.name != folder.name:
            raise UserError(f"{_printable(str(folder))}: rename the folder; its name is not plain text in UTF-8")
        self.videos = Videos(folder)
        self.sidecars = {composed(str(path)): path for path in self.videos.texts if path.is_file()}
        self.taken: set[Path] = set()  # annotation files that somebody has read
        self._open: dict[tuple[str, str], list[tuple[float, float]]] = {}  # (level, id) in the entry that is read
        self.order = EventOrder()  # of its events, the unreadable ones among them
        self._expected: dict[str, list[str]] = {}  # ids of the rows of entries that are still to be read

    def read(self, layout: "SourceLayout") -> None:
        """Records of all entries; what cannot be read, and videos that no entry names, are dropped."""
        before = self.found.ledger.entered["video"]
        names: set[str] = set()
        for name, entry in layout.entries(self):
            name = composed(name)
            self.enter("video")
            self._open, self.order = {}, EventOrder()
            for row in self._expected.pop(name, ()):
                self._put("pair", row)
            if name in names:
                self.drop("video", name, "its id is there twice")
                continue
            names.add(name)
            try:
                if not name or text(name) != name:
                    raise ValueError("the id is empty or not plain text")
                no_doubles(entry)
                if record := layout.record(self, name, entry):
                    self.found.records.append(record)
                else:
                    self._lose(name, UNUSED)
            except MALFORMED as error:
                self.videos.find(name)
                self.tell(name, error)
                self._lose(name, reason_of(error))
        self._pass_over(layout)
        for name in self.videos.unused():
            self.odd(name, "not in the annotations")
        for name, reason in self.videos.odd:
            self.odd(name, reason)
        if before == self.found.ledger.entered["video"]:
            self.enter("video")
            self.found.ledger.drop("video", self.name, "folder without annotations and videos")

    def enter(self, level: str, id: str | None = None, times: tuple[float, float] = (math.nan, math.nan)) -> None:
        """A video, segment or pair of this folder comes in; id: of a part of the entry that is being read."""
        self.found.ledger.enter(level)
        if id is not None:
            self._put(level, id, times)

    def expect(self, name: str, row: str) -> None:
        """A row of a table belongs to an entry that will be read: it goes the way of that, unless it is dropped."""
        self._expected.setdefault(name, []).append(row)

    def _put(self, level: str, id: str, times: tuple[float, float] = (math.nan, math.nan)) -> None:
        self._open.setdefault((level, id), []).append(times)

    def _take(self, level: str, id: str) -> tuple[float, float]:
        """The times of what is no longer open (NaN if it was not, or has none)."""
        waiting = self._open.get((level, id))
        return waiting.pop() if waiting else (math.nan, math.nan)

    def drop(self, level: str, name: str, reason: str) -> None:
        """Give up a video or pair of this folder."""
        self._take(level, name)
        self.found.ledger.drop(level, f"{self.name}/{_printable(str(name))}", reason)

    def drop_segment(self, name: str, id: str, reason: str) -> None:
        """Give up a segment of the entry that is being read."""
        times = self._take("segment", id)
        self.found.ledger.segment(f"{self.name}/{_printable(name)}", _printable(id), *times, reason)

    def tell(self, name: str, error: Exception) -> None:
        """Keep in full, with its value, what a reason says without."""
        what = f"{error.args[0]} is missing" if isinstance(error, KeyError) and error.args else str(error)
        self.found.ledger.details.append(f"{self.name}/{_printable(name)}: {_printable(what)[:300]}")

    def _pass_over(self, layout: "SourceLayout") -> None:
        """Note the annotation files that lie deeper than this layout looks: a misspelt folder must not go unseen."""
        for path in self.videos.texts if layout.files else ():
            if path.parent != self.folder and path not in self.taken:
                self.unread(f"{path.relative_to(self.folder)} ({layout.title} has no annotations there)")

    def unread(self, what: str) -> None:
        """A file of this folder that looks like annotations and is none that is known."""
        self.found.ledger.unread.append(f"{self.name}/{_printable(what)}")

    def odd(self, name: str, reason: str) -> None:
        """What should be a video comes in, and is given up at once."""
        self.enter("video")
        self.drop("video", name, reason)

    def _lose(self, name: str, reason: str) -> None:
        """Give up the entry that is being read, with all that has come in of it."""
        self.drop("video", name, reason)
        for (level, id), waiting in self._open.items():
            for _ in list(waiting):
                if level == "segment":
                    self.drop_segment(str(name), id, VIDEO_LOST)
                else:
                    self.drop(level, id, VIDEO_LOST)

    def entries(self, file: Path, key: str | None = "database") -> Iterator[tuple[str, Any]]:
        """(id, entry) of a JSON file's object (or of its `key`). UserError if there is none."""
        content = read_json(file)
        if key is not None:
            if isinstance(content, Object) and key in content.doubled:
                raise UserError(f"{file}: has the key {key!r} twice; replace it")
            content = content.get(key) if isinstance(content, dict) else None
        if not isinstance(content, Object):
            where = f"no key {key!r} with" if key else "not"
            raise UserError(f"{file}: has {where} an entry for each video id; replace it")
        for name in content.doubled:
            self.odd(name, "its id is there twice")
        yield from ((composed(name), entry) for name, entry in content.items())

    def events(self, name: str, items: Any, read: Callable[[Any, int], tuple[Any, Any, Any]]) -> tuple[Segment, ...]:
        """Annotated events; read: (item, its number from 1; a Missing is not asked) -> (id, [start, end], label).

        Bad ones are dropped. An id that is there again (COIN's are those of step classes) gets a number: 603,
        603.2. Raises ValueError if items is no list.
        """
        if not isinstance(items, list):
            raise ValueError("the events are not a list")
        out: list[Segment] = []
        taken: dict[str, int] = {}
        for number, item in enumerate(items, start=1):
            if isinstance(item, Missing):
                self.enter("segment", item.id)
                self.drop_segment(name, item.id, item.reason)
                if item.torn:
                    self.order.lost()
                continue
            try:
                no_doubles(item)
                event = segment(*read(item, number))
            except MALFORMED as error:
                self._unreadable(name, f"#{number}", _times(lambda: read(item, number)[1]), error)  # noqa: B023
                continue
            taken[event.id] = taken.get(event.id, 0) + 1
            id = event.id if taken[event.id] == 1 else f"{event.id}.{taken[event.id]}"
            while id != event.id and id in taken:
                id += "."
            taken.setdefault(id, 1)
            event = replace(event, id=id)
            self.enter("segment", id, (event.start, event.end))
            self.order.read(event)
            out.append(event)
        return tuple(out)

    def _unreadable(self, name: str, id: str, times: tuple[float, ...], error: Exception) -> None:
        """An event comes in and is given up; what lies around it makes no pair. times: those that could be read, s."""
        self.tell(f"{name}:{id}", error)
        self.order.lost(times)
        self.enter("segment")
        self.found.ledger.segment(f"{self.name}/{_printable(name)}", id, math.nan, math.nan, reason_of(error))

    def name_all(self, items: Any) -> None:
        """Enter what is named in a list that cannot be read as events."""
        for number, _ in enumerate(items if isinstance(items, list) else (), start=1):
            self.enter("segment", f"#{number}")

    def record(
        self,
        name: str,
        kind: str,
        subset: Any = None,
        scene: Any = None,
        path: Path | None = None,
        look: bool = True,
        events: tuple[Segment, ...] | None = None,
        texts: dict[str, Texts] | None = None,
        **fields: Any,
    ) -> Record:
        """A record of this folder.

        look: without a path, find the video by its name. events: annotated (None: shots are searched). texts:
        question, reasoning and caption by the id of the event that they ask for. fields: topic, recipe_type,
        condition, labels, given. Where events overlap or have texts, and no pairs are given, those that follow each
        other are named (see `follow`).
        """
        scene = text(scene) or name
        if "given" in fields:
            pass
        elif events and (texts or any(b.start < a.end for a, b in pairwise(sorted(events, key=in_time)))):
            events, follows, alone = follow(events, self.order.torn)
            for event in alone:
                self.drop_segment(name, event.id, ALONE)
            fields["given"] = tuple(
                Given(a.id, b.id, (texts or {}).get(b.id), (a.label, b.label), (None, None)) for a, b in follows
            )
            for a, b in follows:
                self.enter("pair", f"{name}:{a.id}-{b.id}")
            for id in [id for id in texts or {} if id not in {b.id for _, b in follows}]:
                self.enter("pair", f"{name}:?-{id}")
                self.drop("pair", f"{name}:?-{id}", UNKNOWN if self.order.gaps else FIRST)
        else:
            fields["torn"] = self.order.broken(sorted(events or (), key=in_time))
        annotated = {event.id for event in events or ()}
        for id in dict.fromkeys(id for g in fields.get("given", ()) for id in (g.input_id, g.target_id)):
            if id not in annotated:
                self.enter("segment", id)
        plain: dict[str, Any] = {k: text(v) if k in TEXT_FIELDS else v for k, v in fields.items()}
        return Record(
            source=self.name,
            name=name,
            path=path or (self.videos.find(name) if look else None),
            kind=kind,
            split=split_of(text(subset), scene),
            scene=f"{self.name}/{scene}",
            subset=text(subset),
            segments=events,
            **plain,
        )


TEXT_FIELDS = ("topic", "recipe_type", "condition")


@dataclass(frozen=True)
class SourceLayout:
    """One source layout.

    title: what users call it. files: names of which its folder holds at least one. more: others that it reads where
    they are there. entries: (id, entry) of each
    video that the annotations name. record: a Record of an entry (None: what was in it has been dropped); what it
    raises of MALFORMED drops the video.
    """

    title: str
    files: tuple[str, ...]
    entries: Callable[[Source], Iterable[tuple[str, Any]]]
    record: Callable[[Source, str, Any], Record | None]
    more: tuple[str, ...] = ()

    def is_in(self, folder: Path) -> bool:
        """Does the folder hold one of the layout's files (and no video of that name, whose sidecar it would be)?"""
        files = (folder / name for name in self.files if (folder / name).is_file())
        return any(not beside_video(file) for file in files)


def no_doubles(entry: Any) -> None:
    """ValueError if an entry, or one of the parts it comes in, is a JSON object with a key that is there twice."""
    for part in entry if isinstance(entry, tuple) else (entry,):
        if isinstance(part, Object) and part.doubled:
            raise ValueError(f"the key {text(part.doubled[0])[:40]} is there twice")


def _times(read: Callable[[], Any]) -> tuple[float, ...]:
    """The times, s, of an event that is not readable as a whole."""
    try:
        found = span(read())
    except MALFORMED:
        return ()
    times = []
    for value in found:
        with suppress(ValueError):
            times.append(seconds(value))
    return tuple(times)


def _printable(name: str) -> str:
    return CONTROL.sub(" ", name).encode("utf-8", "backslashreplace").decode()
