"""From one source video to pairs of clips: segments, the best clip of each, neighbours.

Every segment and pair that is given up goes into the ledger with its reason.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

from vans import video
from vans.data import shots
from vans.data.ledger import Ledger
from vans.data.quality import motion
from vans.data.records import Record
from vans.data.shots import Segment
from vans.errors import UserError

NEIGHBOUR_LOST = "one of the two segments was dropped"


@dataclass(frozen=True)
class Cut:
    """A segment's best clip: start, end in s of the source video, the clip file's bytes, its motion 0..1."""

    segment: Segment
    start: float
    end: float
    data: bytes
    motion: float


Pair = tuple[Cut, Cut, tuple[str, str, str] | None]  # input, target, given (question, think, caption)


def pairs(record: Record, params: Any, ledger: Ledger) -> list[Pair]:
    """All pairs of one video, in order. Raises UserError if the video cannot be opened or decoded at all."""
    return list((_given if record.given else _neighbours)(record, params, ledger))


def _neighbours(record: Record, params: Any, ledger: Ledger) -> Iterator[Pair]:
    """Segments that follow each other, both kept (nothing skipped between, except black)."""
    assert record.path is not None
    opened = video.Video(record.path)
    found = record.segments
    if found is None:
        found = tuple(shots.find(opened, params.curate.shot_threshold))
    cuts: list[tuple[Segment, Cut | None]] = []
    for segment in sorted(found, key=lambda s: s.start):
        if segment.black:
            ledger.segment(record.title, segment.id, segment.start, segment.end, "black between shots")
        else:
            cuts.append((segment, cut(record, opened, segment, params, ledger)))
    if record.segments is None and record.labels is not None:
        kept = [c for _, c in cuts if c is not None]
        if len(kept) != len(record.labels):
            ledger.drop("pair", record.title, "shots found do not match the labels")
            return
        named = [replace(c.segment, label=text) for c, text in zip(kept, record.labels)]
        cuts = [(s, replace(c, segment=s)) for c, s in zip(kept, named)]
    for (first, a), (second, b) in pairwise(cuts):
        if a is None or b is None:
            ledger.drop("pair", f"{record.title}:{first.id}-{second.id}", NEIGHBOUR_LOST)
        else:
            yield a, b, None


def _given(record: Record, params: Any, ledger: Ledger) -> Iterator[Pair]:
    """Pairs that a published table names: files already cut, or segments to cut from the whole video."""
    whole = video.Video(record.path) if record.path is not None else None
    segments = {s.id: s for s in record.segments or ()}
    cuts: dict[str, Cut | None] = {}
    for given in record.given:
        ids = (given.input_id, given.target_id)
        for key, sentence, file in zip(ids, given.sentences, given.files, strict=True):
            if key in cuts:
                continue
            if file is not None:
                opened = video.Video(file)
                segment = Segment(key, 0.0, opened.info.duration, sentence)
                cuts[key] = cut(record, opened, segment, params, ledger)
            elif whole is not None and key in segments:
                label = sentence or segments[key].label
                cuts[key] = cut(record, whole, replace(segments[key], label=label), params, ledger)
            else:
                ledger.segment(record.title, key, 0.0, 0.0, "the table's segment has no times and no file")
                cuts[key] = None
        a, b = cuts[given.input_id], cuts[given.target_id]
        if a is None or b is None:
            ledger.drop("pair", f"{record.title}:{given.input_id}-{given.target_id}", NEIGHBOUR_LOST)
        else:
            yield a, b, given.texts


def cut(record: Record, opened: video.Video, segment: Segment, params: Any, ledger: Ledger) -> Cut | None:
    """The best clip of a segment at the scale's size and rate, or None with the reason in the ledger."""
    clip, shortest = params.clip, params.curate.min_segment
    end = min(segment.end, opened.info.duration)
    times = video.grid(segment.start, end, clip.fps)
    frames, reason = None, ""
    if segment.start >= opened.info.duration:
        reason = "begins after the video's end"
    elif end - segment.start < shortest - video.TOLERANCE or len(times) < clip.frames:
        reason = f"shorter than {max(shortest, clip.frames / clip.fps):g} s"
    else:
        try:
            frames = opened.sample(times, clip.height, clip.width)
        except UserError as error:
            reason = "pictures unreadable"
            ledger.note(error)
    ledger.segment(record.title, segment.id, segment.start, segment.end, reason)
    if frames is None:
        return None
    at = shots.best_window(frames, clip.frames)
    best = frames[at : at + clip.frames]
    data, _ = video.encode(best, clip.fps, params.curate.codec)
    start = float(times[at])
    return Cut(segment, round(start, 3), round(start + clip.frames / clip.fps, 3), data, motion(best))
