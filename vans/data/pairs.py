"""From one source video to pairs of clips: segments, the best clip of each (cutting.py), neighbours.

Every segment and pair that is given up goes into the ledger with its reason.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from vans.data import shots
from vans.data.cutting import ROLES, SHORT, Cut, Cuts, Look, Piece, Plan, Settings, Starts, cut, too_short
from vans.data.fingerprint import Seen
from vans.data.ledger import Ledger
from vans.data.records import Record
from vans.data.shots import Segment
from vans.errors import UserError
from vans.media import video

NEIGHBOUR_LOST = "one of the two segments was dropped"
TORN = "something that could not be read lies between the two"
# input, target, and the index of the record's `given` pair, or the label of the step between the two
Pair = tuple[Cut, Cut, int | str | None]


def pairs(
    record: Record,
    settings: Settings,
    ledger: Ledger,
    starts: Starts | None = None,
    seen: Seen | None = None,
) -> list[Pair]:
    """All pairs of one video, in order. Raises UserError if the video cannot be opened or decoded at all.

    starts: an annotator's choice; None: the window with most motion. seen: where pictures for the fingerprint that
    come by are left.
    """
    look = _given if record.given else _neighbours
    return list(look(record, ledger, Look(settings, starts or {}, {} if seen is None else seen)))


def _segments(record: Record, opened: video.Video, settings: Settings) -> tuple[Segment, ...]:
    if record.segments is not None:
        return record.segments
    return tuple(shots.find(opened, settings.shot_threshold))


def _neighbours(record: Record, ledger: Ledger, look: Look) -> Iterator[Pair]:
    """Segments that follow each other, both kept (nothing skipped between, except black)."""
    assert record.path is not None
    opened = video.Video(record.path)
    found = sorted(_segments(record, opened, look.settings), key=lambda s: s.start)
    seen = [s for s in found if not s.black]
    if record.segments is None:
        ledger.enter("segment", len(found))
    parts = []
    for segment in seen:
        ends = segment is seen[-1], segment is seen[0]  # the last is no input, the first no target
        parts.append(Piece(opened, segment, tuple(r for r, out in zip(ROLES, ends) if not out or len(seen) == 1)))
    plans = cut(parts, look)
    done = iter(plans)
    cuts: list[tuple[Segment, Cuts | None]] = []
    for segment in found:
        if segment.black:
            ledger.segment(record.title, segment.id, segment.start, segment.end, "black between shots")
        else:
            cuts.append((segment, _enter(record.title, next(done), ledger)))
    if record.segments is None and record.labels is not None:
        labelled = _labels(cuts, plans, record.labels)
        if labelled is None:
            ledger.enter("pair")
            ledger.drop("pair", record.title, "shots found do not match the labels")
            return
        cuts = labelled
    ledger.enter("pair", max(0, len(cuts) - 1))
    for (first, a), (second, b) in pairwise(cuts):
        if a is None or b is None:
            ledger.drop("pair", f"{record.title}:{first.id}-{second.id}", NEIGHBOUR_LOST)
        elif first.id in record.torn:
            ledger.drop("pair", f"{record.title}:{first.id}-{second.id}", TORN)
        else:
            yield a["input"], b["target"], None
    if look.settings.skipped_steps and record.split == "train":
        yield from _skipped(record, ledger, cuts)


def _skipped(record: Record, ledger: Ledger, cuts: Sequence[tuple[Segment, Cuts | None]]) -> Iterator[Pair]:
    """Pairs across one step that was dropped and that has a label, which the question then tells."""
    for (first, a), (lost, none), (_, b) in zip(cuts, cuts[1:], cuts[2:]):
        if a is not None and none is None and b is not None and lost.label and not {first.id, lost.id} & {*record.torn}:
            ledger.enter("pair")
            yield a["input"], b["target"], lost.label


def _given(record: Record, ledger: Ledger, look: Look) -> Iterator[Pair]:
    """Pairs that a source names: files already cut, or segments to cut from the whole video.

    The pairs and the segments have entered the books where the source was read.
    """
    named = {key for given in record.given for key in (given.input_id, given.target_id)}
    for segment in record.segments or ():
        if segment.id not in named:
            ledger.segment(record.title, segment.id, segment.start, segment.end, "in no pair")
    parts = list(_given_parts(record))
    done = iter(cut([part for part in parts if isinstance(part, Piece)], look))
    todo = iter(parts)
    cuts: dict[str, Cuts | None] = {}
    for index, given in enumerate(record.given):
        for key in (given.input_id, given.target_id):
            if key in cuts:
                continue
            part = next(todo)
            if isinstance(part, str):
                ledger.segment(record.title, key, 0.0, 0.0, part)
                cuts[key] = None
            else:
                cuts[key] = _enter(record.title, next(done), ledger)
        a, b = cuts[given.input_id], cuts[given.target_id]
        if a is None or b is None:
            ledger.drop("pair", f"{record.title}:{given.input_id}-{given.target_id}", NEIGHBOUR_LOST)
        else:
            yield a["input"], b["target"], index


def _given_parts(record: Record) -> Iterator[Piece | str]:
    """The segments that given pairs name, each once, in their order; or why one cannot be cut."""
    needed = any(None in given.files for given in record.given)
    whole = video.Video(record.path) if record.path is not None and needed else None
    segments = {s.id: s for s in record.segments or ()}
    inputs, targets = ({getattr(g, f"{role}_id") for g in record.given} for role in ROLES)
    done = set()
    for given in record.given:
        ids = (given.input_id, given.target_id)
        for key, sentence, file in zip(ids, given.sentences, given.files, strict=True):
            if key in done:
                continue
            done.add(key)
            roles = tuple(role for role, of in zip(ROLES, (inputs, targets)) if key in of)
            if file is not None:
                try:
                    opened = video.Video(file)
                except UserError:
                    yield "its file is unreadable"
                    continue
                yield Piece(opened, Segment(key, opened.info.start, opened.info.end, sentence), roles)
            elif whole is not None and key in segments:
                label = sentence or segments[key].label
                yield Piece(whole, replace(segments[key], label=label), roles)
            else:
                yield "the table's segment has no times and no file"


def _labelled(cuts: Cuts, label: str) -> Cuts:
    return {role: replace(c, segment=replace(c.segment, label=label)) for role, c in cuts.items()}


def _labels(
    cuts: Sequence[tuple[Segment, Cuts | None]], plans: Sequence[Plan], labels: Sequence[str]
) -> list[tuple[Segment, Cuts | None]] | None:
    """The shots with their labels, in order: all of them, or those that are not too short; None if neither fits.

    A shot that is lost for another reason keeps its place and its label, so that no pair spans it.
    """
    long = [c for c, plan in zip(cuts, plans, strict=True) if not plan.reason.startswith(SHORT)]
    named = next((some for some in (cuts, long) if len(some) == len(labels)), None)
    if named is None:
        return None
    return [(segment, c and _labelled(c, text)) for (segment, c), text in zip(named, labels)]


def _enter(title: str, plan: Plan, ledger: Ledger) -> Cuts | None:
    """Into the books; the clips, if there are any."""
    segment = plan.part.segment
    if plan.error is not None:
        ledger.note(plan.error)
    ledger.segment(title, segment.id, segment.start, segment.end, plan.reason)
    return plan.cuts


# ----------------------------------------------------------------------------------------------------- choosing
def thin(record: Record, settings: Settings, count: int, side: int) -> Iterator[tuple[Segment, np.ndarray, np.ndarray]]:
    """What an annotator chooses from: (segment, times s [n], pictures uint8 [n, h, w, 3]) of each that it can.

    count: pictures of each. side: px, their longer one at most. Segments that are as short as a clip leave no choice.
    Raises UserError as `pairs`.
    """
    if record.given:
        parts = [p for p in _given_parts(record) if isinstance(p, Piece)]
    else:
        assert record.path is not None
        opened = video.Video(record.path)
        parts = [Piece(opened, s) for s in _segments(record, opened, settings) if not s.black]
    shortest = min(settings.input_seconds, settings.target_seconds)
    for part in parts:
        segment, info = part.segment, part.opened.info
        start, end = part.opened.shown_of(segment.start, segment.end)
        if too_short(part.opened, segment, settings) or end - start <= shortest + video.TOLERANCE:
            continue
        times = start + (end - start) * np.arange(count) / count
        scale = min(1.0, side / max(info.height, info.width))
        size = (max(2, round(info.height * scale)), max(2, round(info.width * scale)))
        try:
            yield segment, times, part.opened.sample(times, *size)
        except UserError:
            continue  # counted where it is cut
