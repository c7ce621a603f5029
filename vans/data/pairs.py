"""From one source video to pairs of clips: segments, the best clip of each, neighbours.

Every segment and pair that is given up goes into the ledger with its reason.

A clip is a window of its segment: as long as `curate.input_seconds` or `curate.target_seconds` (the whole
segment where that is shorter), with `clip.frames` pictures evenly spread over it, so that the models' input has
one size whatever the length. The window with most motion is taken, or the one that an annotator has chosen.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import numpy as np

from vans import video
from vans.data import shots
from vans.data.ledger import Ledger
from vans.data.records import Record
from vans.data.shots import Best, Segment
from vans.errors import UserError

NEIGHBOUR_LOST = "one of the two segments was dropped"
ROLES = ("input", "target")
THIN = 24  # pictures of a segment that an annotator is shown
SIDE = 384  # px, their longer side at most


@dataclass(frozen=True)
class Settings:
    """What of the parameters a source's clips depend on. input_seconds, target_seconds: s, longest windows."""

    frames: int
    height: int
    width: int
    min_segment: float
    input_seconds: float
    target_seconds: float
    shot_threshold: float
    codec: str

    @classmethod
    def of(cls, params: Any) -> "Settings":
        """From params.clip and params.curate."""
        clip, curate = params.clip, params.curate
        return cls(
            *(clip.frames, clip.height, clip.width, curate.min_segment),
            *(curate.input_seconds, curate.target_seconds, curate.shot_threshold, curate.codec),
        )


@dataclass(frozen=True)
class Cut:
    """A segment's best clip: start, end in s of the source video, the clip file's bytes, its motion 0..1."""

    segment: Segment
    start: float
    end: float
    data: bytes
    motion: float


@dataclass(frozen=True)
class Part:
    """A segment that is to be cut: from `opened`; roles: what its clips are needed as."""

    opened: video.Video
    segment: Segment
    roles: tuple[str, ...] = ROLES


Cuts = dict[str, Cut]  # role -> clip
Pair = tuple[Cut, Cut, int | None]  # input, target, index of the record's `given` pair
Starts = Mapping[str, float | str]  # segment's id -> where its best clip begins, s, or why it has none


def pairs(record: Record, settings: Settings, ledger: Ledger, starts: Starts | None = None) -> list[Pair]:
    """All pairs of one video, in order. Raises UserError if the video cannot be opened or decoded at all.

    starts: an annotator's choice; None: the window with most motion.
    """
    return list((_given if record.given else _neighbours)(record, settings, ledger, starts or {}))


def _segments(record: Record, opened: video.Video, settings: Settings) -> tuple[Segment, ...]:
    if record.segments is not None:
        return record.segments
    return tuple(shots.find(opened, settings.shot_threshold))


def _neighbours(record: Record, settings: Settings, ledger: Ledger, starts: Starts) -> Iterator[Pair]:
    """Segments that follow each other, both kept (nothing skipped between, except black)."""
    assert record.path is not None
    opened = video.Video(record.path)
    found = sorted(_segments(record, opened, settings), key=lambda s: s.start)
    seen = [s for s in found if not s.black]
    cuts: list[tuple[Segment, Cuts | None]] = []
    for segment in found:
        if segment.black:
            ledger.segment(record.title, segment.id, segment.start, segment.end, "black between shots")
        else:
            ends = segment is seen[-1], segment is seen[0]  # the last is no input, the first no target
            roles = tuple(r for r, out in zip(ROLES, ends) if not out or len(seen) == 1)
            cuts.append((segment, cut(record.title, Part(opened, segment, roles), settings, ledger, starts)))
    if record.segments is None and record.labels is not None:
        kept = [c for _, c in cuts if c is not None]
        if len(kept) != len(record.labels):
            ledger.drop("pair", record.title, "shots found do not match the labels")
            return
        cuts = [(_any(c).segment, _labelled(c, text)) for c, text in zip(kept, record.labels)]
    for (first, a), (second, b) in pairwise(cuts):
        if a is None or b is None:
            ledger.drop("pair", f"{record.title}:{first.id}-{second.id}", NEIGHBOUR_LOST)
        else:
            yield a["input"], b["target"], None


def _given(record: Record, settings: Settings, ledger: Ledger, starts: Starts) -> Iterator[Pair]:
    """Pairs that a source names: files already cut, or segments to cut from the whole video."""
    cuts: dict[str, Cuts | None] = {}
    parts = _given_parts(record)
    for index, given in enumerate(record.given):
        for key in (given.input_id, given.target_id):
            if key in cuts:
                continue
            if (part := next(parts)) is None:
                ledger.segment(record.title, key, 0.0, 0.0, "the table's segment has no times and no file")
                cuts[key] = None
            else:
                cuts[key] = cut(record.title, part, settings, ledger, starts)
        a, b = cuts[given.input_id], cuts[given.target_id]
        if a is None or b is None:
            ledger.drop("pair", f"{record.title}:{given.input_id}-{given.target_id}", NEIGHBOUR_LOST)
        else:
            yield a["input"], b["target"], index


def _given_parts(record: Record) -> Iterator[Part | None]:
    """The segments that given pairs name, each once, in their order; None: it has no times and no file."""
    whole = video.Video(record.path) if record.path is not None else None
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
                opened = video.Video(file)
                yield Part(opened, Segment(key, 0.0, opened.info.duration, sentence), roles)
            elif whole is not None and key in segments:
                label = sentence or segments[key].label
                yield Part(whole, replace(segments[key], label=label), roles)
            else:
                yield None


def _any(cuts: Cuts) -> Cut:
    return next(iter(cuts.values()))


def _labelled(cuts: Cuts, label: str) -> Cuts:
    return {role: replace(c, segment=replace(c.segment, label=label)) for role, c in cuts.items()}


# ------------------------------------------------------------------------------------------------------ cutting
def too_short(opened: video.Video, segment: Segment, settings: Settings) -> str:
    """Why a segment is not cut; '' if it can be."""
    if segment.start >= opened.info.duration:
        return "begins after the video's end"
    if min(segment.end, opened.info.duration) - segment.start < settings.min_segment - video.TOLERANCE:
        return f"shorter than {settings.min_segment:g} s"
    return ""


def grid(start: float, end: float, seconds: float, frames: int) -> tuple[np.ndarray, float]:
    """(times at which clips of `seconds` may be looked at, pictures per second); the whole if it is shorter."""
    rate = frames / seconds
    times = video.grid(start, end, rate)
    if len(times) >= frames:
        return times, rate
    rate = frames / (end - start)
    return start + np.arange(frames) / rate, rate


def cut(title: str, part: Part, settings: Settings, ledger: Ledger, starts: Starts) -> Cuts | None:
    """The best clip of a segment for each of its roles, or None with the reason in the ledger."""
    opened, segment = part.opened, part.segment
    chosen = starts.get(segment.id)
    reason = too_short(opened, segment, settings) or (chosen if isinstance(chosen, str) else "")
    cuts: Cuts | None = None
    if not reason:
        try:
            cuts = _cut(part, settings, None if isinstance(chosen, str) else chosen)
        except UserError as error:
            reason = "pictures unreadable"
            ledger.note(error)
    ledger.segment(title, segment.id, segment.start, segment.end, reason)
    return cuts


def _cut(part: Part, settings: Settings, chosen: float | None) -> Cuts:
    """Decode once, whatever the roles; UserError where that fails."""
    segment, count = part.segment, settings.frames
    end = min(segment.end, part.opened.info.duration)
    grids: dict[float, tuple[np.ndarray, float]] = {}  # windows of equal length are the same clip
    lengths = {role: getattr(settings, f"{role}_seconds") for role in part.roles}
    for seconds in lengths.values():
        times, rate = grid(segment.start, end, seconds, count)
        if chosen is not None:
            first = min(max(0, round((chosen - segment.start) * rate)), len(times) - count)
            times = times[first : first + count]
        grids[seconds] = times, rate
    best = {seconds: Best(count) for seconds in grids}
    wanted = sorted({float(t) for times, _ in grids.values() for t in times})
    takers: dict[float, list[Best]] = {time: [] for time in wanted}
    for seconds, (times, _) in grids.items():
        for time in times:
            takers[float(time)].append(best[seconds])
    for time, picture in zip(wanted, part.opened.pictures(wanted, settings.height, settings.width), strict=True):
        for taker in takers[time]:
            taker.push(picture)
    clips = {}
    for seconds, (times, rate) in grids.items():
        found = best[seconds]
        data, _ = video.encode(np.stack(found.pictures), rate, settings.codec)
        start = float(times[found.at])
        clips[seconds] = Cut(segment, round(start, 3), round(start + count / rate, 3), data, found.motion)
    return {role: clips[seconds] for role, seconds in lengths.items()}


# ----------------------------------------------------------------------------------------------------- choosing
def thin(record: Record, settings: Settings) -> Iterator[tuple[Segment, np.ndarray, np.ndarray]]:
    """What an annotator chooses from: (segment, times s [n], pictures uint8 [n, h, w, 3]) of each that it can.

    Segments that are as short as a clip leave no choice. Raises UserError as `pairs`.
    """
    if record.given:
        parts = [p for p in _given_parts(record) if p is not None]
    else:
        assert record.path is not None
        opened = video.Video(record.path)
        parts = [Part(opened, s) for s in _segments(record, opened, settings) if not s.black]
    shortest = min(settings.input_seconds, settings.target_seconds)
    for part in parts:
        segment, info = part.segment, part.opened.info
        end = min(segment.end, info.duration)
        if too_short(part.opened, segment, settings) or end - segment.start <= shortest + video.TOLERANCE:
            continue
        times = segment.start + (end - segment.start) * np.arange(THIN) / THIN
        scale = min(1.0, SIDE / max(info.height, info.width))
        size = (max(2, round(info.height * scale)), max(2, round(info.width * scale)))
        try:
            yield segment, times, part.opened.sample(times, *size)
        except UserError:
            continue  # counted where it is cut
