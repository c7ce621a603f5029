"""The benchmark's held-out samples as a list of names, from the sources' annotations alone: `vans split`.

Two groups that own the data of the same sources get the same list, whatever videos they could still download. The rule:

1. Candidates are videos that their source itself puts into its test or validation half (docs/data.md says which); your
   own videos are none.
2. A video's pairs are those of curation (docs/data.md, "Which events make a pair"), as far as its annotations name
   them, with both events at least SHORTEST seconds long by their annotated times. A film whose shots have labels and no
   times has one pair, which is not named: that of curation.
3. One pair a video, drawn by SHA-256 of rule, source and video. The same id in two sources is one video: the first
   source's, in the order of their names.
4. `samples` of each kind, shared evenly by the sources of that kind; what one cannot give the others do. In each source
   the videos are ordered by the same hash.

Curation with `curate.held_out` takes this list for its test half: a listed video is held out, of its pairs the listed
one; held-out videos that are not listed go, and so does what is too like a listed one in training (`leaks` in the
report). Samples whose video is gone are counted in the report; groups compare what both have.
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from pathlib import Path

from vans import files
from vans.data import sources
from vans.data.draw import Draw
from vans.data.ledger import Ledger
from vans.data.records import Record
from vans.data.sources.order import in_time
from vans.data.sources.plain import PLAIN
from vans.errors import UserError

RULE, SHORTEST = "vans-split-1", 3.0  # s
KINDS = ("procedural", "predictive")
UNLISTED, OTHER = "held out by its source and not in the list", "the list names another pair of its video"


@dataclass(frozen=True, order=True)
class Sample:
    """A pair by names: dataset is the source's title, input and target its ids of two events ("": not named)."""

    kind: str
    dataset: str
    video: str
    input: str
    target: str


def choose(data_dir: str | Path, samples: int) -> list[Sample]:
    """At most so many samples of each kind by the rule above, sorted. UserError as `sources.discover`."""
    found = sources.discover(data_dir)
    of: dict[str, dict[str, list[tuple[str, Sample]]]] = {kind: defaultdict(list) for kind in KINDS}
    seen: set[str] = set()
    known = [(found.layouts[record.source], record) for record in found.records]
    for dataset, record in sorted(known, key=lambda x: (x[0], x[1].name)):
        video = record.name.removeprefix("v_")  # ActivityNet's
        if record.split != "test" or not record.subset or dataset == PLAIN.title or video in seen:
            continue
        if pairs := _pairs(record):
            seen.add(video)
            ids = pairs[Draw(RULE, dataset, record.name).below(len(pairs))]
            place = hashlib.sha256(f"{RULE}/{dataset}/{record.name}".encode()).hexdigest()
            of[record.kind][dataset].append((place, Sample(record.kind, dataset, record.name, *ids)))
    chosen = []
    for kind in KINDS:
        ordered = {dataset: [sample for _, sample in sorted(some)] for dataset, some in of[kind].items()}
        for dataset, count in shares({name: len(some) for name, some in ordered.items()}, samples).items():
            chosen += ordered[dataset][:count]
    return sorted(chosen)


def _pairs(record: Record) -> list[tuple[str, str]]:
    """The pairs that the annotations name, in their order, as ids."""
    length = {s.id: s.end - s.start for s in record.segments or () if not s.black}
    if record.given:
        ids = [(g.input_id, g.target_id) for g in record.given]
        return [pair for pair in ids if all(length.get(id, SHORTEST) >= SHORTEST for id in pair)]
    if record.segments is None:
        return [("", "")] if record.labels is not None and len(record.labels) > 1 else []
    events = sorted(record.segments, key=in_time)
    follow = [(a.id, b.id) for a, b in pairwise(events) if a.id not in record.torn]
    return [pair for pair in follow if all(length.get(id, 0.0) >= SHORTEST for id in pair)]


def shares(there: dict[str, int], count: int) -> dict[str, int]:
    """How many each gives, as even as can be: {name: how many it has} -> {name: how many of them}.

    What does not divide goes to the largest.
    """
    out, left = {}, count
    for n, name in enumerate(sorted(there, key=lambda name: (there[name], name))):
        out[name] = min(there[name], left // (len(there) - n))
        left -= out[name]
    return out


# -------------------------------------------------------------------------------------------------------- the file
def digest(samples: Iterable[Sample]) -> str:
    """SHA-256 of the list, 16 digits: what two groups compare."""
    lines = ("\t".join(asdict(sample).values()) for sample in sorted(samples))
    return hashlib.sha256("\n".join([RULE, *lines]).encode()).hexdigest()[:16]


def write(path: str | Path, samples: Sequence[Sample]) -> str:
    """The list as JSON; returns its digest."""
    tree = {"rule": RULE, "digest": digest(samples), "samples": [asdict(sample) for sample in sorted(samples)]}
    files.atomic_write_text(Path(path), json.dumps(tree, indent=1, ensure_ascii=False) + "\n")
    return tree["digest"]  # type: ignore[return-value]


def read(path: str | Path) -> list[Sample]:
    """A list as it was written. UserError in one line for a file that is none, and for one that was changed."""
    path, fix = Path(path).expanduser(), "write it again with `vans split`, or get it from whom you compare with"
    if not files.check_readable(path).is_file():
        raise UserError(f"{path}: curate.held_out: missing; {fix}")
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
        if tree["rule"] != RULE:
            raise UserError(f"{path}: is of the rule {str(tree['rule'])[:40]!r}, not {RULE}; {fix}")
        samples = [Sample(**{key: str(value) for key, value in row.items()}) for row in tree["samples"]]
        named = tree["digest"]
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: is no list of `vans split` ({type(error).__name__}); {fix}") from error
    if (found := digest(samples)) != named:
        raise UserError(f"{path}: was changed: its samples have the digest {found}, not {named}; {fix}")
    if len({(s.dataset, s.video) for s in samples}) != len(samples):
        raise UserError(f"{path}: names a video twice; {fix}")
    return samples


# ------------------------------------------------------------------------------------------------------ in curation
class HeldOut:
    """A list that decides what is held out. layouts: the source's title by the name of its folder."""

    def __init__(self, path: str | Path, layouts: dict[str, str]):
        samples = read(path)
        self.digest, self.layouts = digest(samples), layouts
        self.by_video = {(s.dataset, s.video): s for s in samples}

    def of(self, record: Record) -> Sample | None:
        """The sample of this video."""
        return self.by_video.get((self.layouts[record.source], record.name))

    def split(self, records: Sequence[Record], ledger: Ledger) -> list[Record]:
        """Listed videos are held out, whatever their subset; other held-out ones go."""
        kept = []
        for record in records:
            if self.of(record) is not None:
                kept.append(replace(record, split="test"))
            elif record.split == "test":
                record.lose(ledger, UNLISTED)
            else:
                kept.append(record)
        return kept

    def report(self, rows: Sequence[dict], records: Sequence[Record]) -> dict:
        """How much of the list is there: `missing` names the videos without a triplet."""
        titles = {record.title: (self.layouts[record.source], record.name) for record in records}
        there = {titles[row["video"]] for row in rows if row["split"] == "test"}
        missing = [f"{dataset}/{video}" for dataset, video in sorted(self.by_video.keys() - there)]
        return {"list": self.digest, "samples": len(self.by_video), "made": len(there), "missing": missing[:1000]}


def describe(samples: Sequence[Sample], wanted: int) -> list[str]:
    """Lines for people: how many of each source, the digest, and what is lacking."""
    lines = []
    for kind in KINDS:
        some = [s.dataset for s in samples if s.kind == kind]
        parts = ", ".join(f"{name} {some.count(name)}" for name in sorted(set(some)))
        line = f"{kind}: {len(some)}" + (f" ({parts})" if parts else "")
        lack = wanted - len(some)
        lines.append(line + (f", {lack} short of {wanted}: data/ has no more in its test halves" if lack else ""))
    return [*lines, f"digest: {digest(samples)}"]
