"""What is done to one source, in whatever process: the function that curation maps over sources.

`look` decodes a source once and leaves its result in the store; what comes back is small. `show` is for annotators
that choose the clips themselves: it leaves thin pictures of each segment there, and `look` follows with the choice.
"""

import base64
import dataclasses
import hashlib
import io
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from PIL import Image

from vans.data import cutting, fingerprint, ledger, pairs, records, shots
from vans.data.annotate import Candidate
from vans.data.cutting import Cut, Settings
from vans.data.ledger import Ledger
from vans.data.pairs import Pair
from vans.data.records import Record
from vans.data.shots import Segment
from vans.data.store import Store
from vans.errors import UserError
from vans.files import digest
from vans.llm.pictures import jpeg
from vans.media import avi, clock, video

# the code that results depend on, with this file
MODULES = (video, clock, avi, cutting, fingerprint, ledger, pairs, records, shots)
LIBRARIES = ("av", "numpy", "pillow", "opencv-python", "opencv-python-headless")


@dataclass(frozen=True)
class Task:
    """One source to work on.

    root: the data folder. files: SHA-256 of each. starts: an annotator's choice (None: most motion). shown: what it
    chooses from (see Annotator).
    """

    record: Record
    settings: Settings
    root: str
    store: str
    files: Mapping[Path, str] = field(default_factory=dict)
    starts: Mapping[str, float | str] | None = None
    shown: tuple[int, int] | None = None

    def key(self, what: str = "look") -> str:
        """A digest of everything that the result depends on: content, annotations, parameters, code."""
        record = self.record
        given = [[g.input_id, g.target_id, g.sentences, [self._file(f) for f in g.files]] for g in record.given]
        return digest(
            {
                "what": [what, code(), self.shown if what == "show" else None],
                "title": record.title,
                "video": self._file(record.path),
                "segments": record.segments and [dataclasses.astuple(s) for s in record.segments],
                "annotated": record.segments is not None,
                "labels": record.labels,
                "torn": record.torn,
                "given": given,
                "starts": self.starts,
                "settings": dataclasses.asdict(self.settings),
            }
        )

    def _file(self, path: Path | None) -> list[str] | None:
        return None if path is None else [self.files[path], str(path).replace(f"{self.root}/", "")]


@dataclass(frozen=True)
class Looked:
    """What comes back of a source at once.

    prints: fingerprints of the video and of cut files, [n, ...] (None: unreadable); the first `videos` are of the
    video. parts: those of its segments, [m, ...].
    """

    key: str
    prints: np.ndarray | None
    kept: bool  # it was in the store already
    crashed: bool = False  # it took its process down
    videos: int = 1
    parts: np.ndarray | None = None


@dataclass(frozen=True)
class Worked:
    """A source's books and pairs. error: why it cannot be read ('' if it can)."""

    ledger: Ledger
    pairs: list[Pair]
    error: str


@cache
def code() -> str:
    """A digest of the code and the libraries that results depend on."""
    texts = [Path(file).read_bytes() for file in (__file__, *(str(module.__file__) for module in MODULES))]
    return digest([hashlib.sha256(t).hexdigest() for t in texts] + [[name, _version(name)] for name in LIBRARIES])


def _version(library: str) -> str:
    """'' if it is not installed (OpenCV has two names)."""
    try:
        return version(library)
    except PackageNotFoundError:
        return ""


def decodes(task: Task) -> bool:
    """Does one of its files need a real decoder, which takes time and may crash?"""
    return not all(_plain(path) for path in task.files)


def _plain(path: Path) -> bool:
    if path.suffix.lower() != ".avi" or path.stat().st_size > video.AT_ONCE:
        return False
    with open(path, "rb") as file:
        return avi.is_ours(file.read(avi.HEADER))


def look(task: Task) -> Looked:
    """Fingerprint and clips of one source into the store, if they are not there."""
    store, key = Store(task.store), task.key()
    known = store.get(key, blobs=False)
    if known is None:
        meta, blobs = _made(task)
        store.put(key, meta, blobs)
    else:
        meta, _ = known
    parts = [c["print"] for c in {c["segment"][0]: c for c in meta["cuts"]}.values()]
    there = known is not None
    return Looked(key, _read(meta["prints"]), there, False, meta["videos"], _read("".join(parts)))


def worked(task: Task) -> Worked:
    """What `look` has left in the store; made again if it is gone or damaged."""
    known = Store(task.store).get(task.key())
    meta, blobs = known or _made(task)
    book = Ledger(**meta["ledger"] | {n: [tuple(x) for x in meta["ledger"][n]] for n in ("drops", "segments")})
    cuts = [Cut(Segment(*c["segment"]), c["start"], c["end"], b, c["motion"]) for c, b in zip(meta["cuts"], blobs)]
    return Worked(book, [(cuts[a], cuts[b], given) for a, b, given in meta["pairs"]], meta["error"])


def _made(task: Task) -> tuple[dict, list[bytes]]:
    book, error = Ledger(root=task.root), ""
    found: list[Pair] = []
    prints, videos = None, 0
    seen: fingerprint.Seen = {}
    try:
        found = pairs.pairs(task.record, task.settings, book, task.starts, seen)
    except UserError as problem:
        book, error = Ledger(root=task.root), book.relative(problem)
    try:
        prints, videos = fingerprint.fingerprints(task.record, seen)
    except UserError as problem:  # then there is nothing to compare it by
        found, book, error = [], Ledger(root=task.root), book.relative(problem)
    cuts: dict[int, Cut] = {id(c): c for pair in found for c in pair[:2]}
    place = {name: n for n, name in enumerate(cuts)}
    meta = {
        "ledger": {n: getattr(book, n) for n in ("entered", "kept", "drops", "segments", "details")},
        "cuts": [
            {
                **{"segment": dataclasses.astuple(c.segment), "start": c.start, "end": c.end, "motion": c.motion},
                "print": _text(c.print),
            }
            for c in cuts.values()
        ],
        "pairs": [[place[id(a)], place[id(b)], given] for a, b, given in found],
        "prints": _text(prints),
        "videos": videos,
        "error": error,
    }
    return meta, [c.data for c in cuts.values()]


def _text(prints: np.ndarray | None) -> str:
    return "" if prints is None else base64.b64encode(prints.tobytes()).decode()


def _read(text: str) -> np.ndarray | None:
    """Fingerprints, uint8 [n, FRAMES, GRID, GRID, 3], from their texts (each without padding) one after the other."""
    if not text:
        return None
    shape = (-1, fingerprint.FRAMES, fingerprint.GRID, fingerprint.GRID, 3)
    return np.frombuffer(base64.b64decode(text), np.uint8).reshape(shape)


# ----------------------------------------------------------------------------------------------------- choosing
def show(task: Task) -> str:
    """Thin pictures of one source's segments into the store, if they are not there; returns their key."""
    store, key = Store(task.store), task.key("show")
    if store.get(key, blobs=False) is None:
        meta, blobs = [], []
        assert task.shown is not None
        try:
            for segment, times, frames in pairs.thin(task.record, task.settings, *task.shown):
                meta.append({"id": segment.id, "label": segment.label, "times": times.tolist()})
                blobs += [jpeg(picture) for picture in frames]
        except UserError:
            pass  # unreadable: counted where it is cut
        store.put(key, meta, blobs)
    return key


def candidates(task: Task) -> Iterator[Candidate]:
    """What `show` has left in the store, one by one: a film's segments need not all be in memory."""
    store = Store(task.store)
    known = store.get(task.key("show")) or store.get(show(task))
    assert known is not None
    meta, blobs = known
    pictures = iter(np.asarray(Image.open(io.BytesIO(blob)).convert("RGB")) for blob in blobs)
    for m in meta:
        frames = np.stack([next(pictures) for _ in m["times"]])
        yield Candidate(f"{task.record.title}:{m['id']}", m["label"], np.array(m["times"]), frames)
