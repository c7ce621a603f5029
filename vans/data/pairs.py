"""From one source video to pairs of clips: segments, the best clip of each, neighbours.

Every segment and pair that is given up goes into the ledger with its reason.

A clip is a window of its segment: as long as `curate.input_seconds` or `curate.target_seconds` (the whole
segment where that is shorter), with `video.frames` pictures evenly spread over it, so that the models' input has
one size whatever the length. The window with most motion is taken, or the one that an annotator has chosen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice, pairwise
from typing import Any

import numpy as np

from vans.data import fingerprint, shots
from vans.data.fingerprint import Seen
from vans.data.ledger import Ledger
from vans.data.records import Record
from vans.data.shots import Best, Segment
from vans.errors import UserError
from vans.media import video

NEIGHBOUR_LOST = "one of the two segments was dropped"
TORN = "something that could not be read lies between the two"
SHORT = "shorter than"
ROLES = ("input", "target")
SEEK = 5.0  # s; segments that are not farther apart are decoded in one go


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
        """From params.video and params.curate."""
        clip, curate = params.video, params.curate
        return cls(
            *(clip.frames, clip.height, clip.width, curate.min_segment),
            *(curate.input_seconds, curate.target_seconds, curate.shot_threshold, curate.codec),
        )


@dataclass(frozen=True)
class Cut:
    """A segment's best clip: start, end in s of the source video, the clip file's bytes, its motion 0..1.

    print: the fingerprint of the whole segment, uint8 [FRAMES, GRID, GRID, 3].
    """

    segment: Segment
    start: float
    end: float
    data: bytes
    motion: float
    print: np.ndarray | None = None


@dataclass(frozen=True)
class Piece:
    """A segment that is to be cut: from `opened`; roles: what its clips are needed as."""

    opened: video.Video
    segment: Segment
    roles: tuple[str, ...] = ROLES


Starts = Mapping[str, float | str]  # segment's id -> where its best clip begins, s, or why it has none


@dataclass(frozen=True)
class Look:
    """How a video is looked at (see `pairs`)."""

    settings: Settings
    starts: Starts
    seen: Seen


Cuts = dict[str, Cut]  # role -> clip
Pair = tuple[Cut, Cut, int | None]  # input, target, index of the record's `given` pair


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


# ------------------------------------------------------------------------------------------------------ cutting
def too_short(opened: video.Video, segment: Segment, settings: Settings) -> str:
    """Why a segment is not cut; '' if it can be."""
    if segment.start >= opened.info.end:
        return "begins after the video's end"
    if segment.end <= opened.info.start:
        return "ends before the video's first picture"
    start, end = opened.shown_of(segment.start, segment.end)
    if end - start < settings.min_segment - video.TOLERANCE:
        return f"{SHORT} {settings.min_segment:g} s"
    return ""


def grid(start: float, end: float, seconds: float, frames: int) -> tuple[np.ndarray, float]:
    """(times at which clips of `seconds` may be looked at, pictures per second); the whole if it is shorter."""
    rate = frames / seconds
    times = video.grid(start, end, rate)
    if len(times) >= frames:
        return times, rate
    rate = frames / (end - start)
    return start + np.arange(frames) / rate, rate


@dataclass
class Plan:
    """What is looked at for one segment's clips, and what has come of it.

    grids: window's length in s -> (times, pictures per second). windows: role -> window's length; those that come
    out as the same clip have one. prints: when the pictures of the segment's fingerprint are shown, s.
    """

    part: Piece
    reason: str = ""
    error: UserError | None = None
    grids: dict[float, tuple[np.ndarray, float]] = field(default_factory=dict)
    windows: dict[str, float] = field(default_factory=dict)
    prints: list[float] = field(default_factory=list)
    cuts: Cuts | None = None

    @property
    def times(self) -> list[float]:
        """All times that are looked at, ascending, s."""
        return sorted({float(time) for times, _ in self.grids.values() for time in times} | set(self.prints))


def cut(parts: Sequence[Piece], look: Look) -> list[Plan]:
    """The best clips of segments. Those near each other are decoded in one go, each alone if that fails."""
    plans = [_plan(part, look.settings, look.starts.get(part.segment.id)) for part in parts]
    runs: list[list[Plan]] = []
    for plan in sorted((p for p in plans if not p.reason), key=lambda p: p.times[0]):
        last = runs[-1] if runs else []
        if last and last[0].part.opened is plan.part.opened and plan.times[0] - last[-1].times[-1] <= SEEK:
            last.append(plan)
        else:
            runs.append([plan])
    for run in runs:
        for some in (run, *([plan] for plan in run if len(run) > 1)):
            if all(plan.cuts is not None for plan in some):
                continue
            try:
                _decode(some, look)
            except UserError as error:
                if len(some) == 1:
                    some[0].reason, some[0].error = "pictures unreadable", error
    return plans


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


def _plan(part: Piece, settings: Settings, chosen: float | str | None) -> Plan:
    segment, count = part.segment, settings.frames
    if reason := too_short(part.opened, segment, settings) or (chosen if isinstance(chosen, str) else ""):
        return Plan(part, reason)
    plan = Plan(part)
    start, end = part.opened.shown_of(segment.start, segment.end)
    plan.prints = fingerprint.times(start, end)
    for role in part.roles:
        seconds = getattr(settings, f"{role}_seconds")
        times, rate = grid(start, end, seconds, count)
        if chosen is not None:
            first = min(max(0, round((float(chosen) - start) * rate)), len(times) - count)
            times = times[first : first + count]
        plan.grids[seconds] = times, rate
        plan.windows[role] = next(s for s, (t, _) in plan.grids.items() if np.array_equal(t, times))
    plan.grids = {seconds: plan.grids[seconds] for seconds in plan.windows.values()}
    return plan


def _decode(plans: Sequence[Plan], look: Look) -> None:
    """Look at all pictures of a run once and encode its clips; UserError where that fails."""
    settings, opened = look.settings, plans[0].part.opened
    best = {(n, seconds): Best(settings.frames) for n, plan in enumerate(plans) for seconds in plan.grids}
    takers: dict[float, list[Best]] = {}
    ends: dict[float, list[int]] = {}  # which plans have seen all after that time
    for n, plan in enumerate(plans):
        for seconds, (times, _) in plan.grids.items():
            for time in times:
                takers.setdefault(float(time), []).append(best[n, seconds])
    for n, plan in enumerate(plans):
        ends.setdefault(plan.times[-1], []).append(n)
    looked = {time for plan in plans for time in plan.times}
    whole = {t for t in fingerprint.times(opened.info.start, opened.info.end) if min(looked) <= t <= max(looked)}
    prints = whole.union(*(plan.prints for plan in plans))
    wanted = sorted(prints | looked)
    for time, (frame, at) in zip(wanted, _to_the_end(opened, wanted, max(takers)), strict=True):
        if time in takers:
            picture = opened.fitted(frame, at, settings.height, settings.width)
            for taker in takers.pop(time):  # what is done is not held in memory
                taker.push(picture)
        if time in prints:
            look.seen[opened.path, time] = fingerprint.thin(opened, frame)
        for n in ends.get(time, ()):
            plans[n].cuts = _encode(plans[n], {s: best.pop((n, s)) for s in plans[n].grids}, look)


def _to_the_end(opened: video.Video, wanted: Sequence[float], needed: float) -> Iterator[tuple[Any, float]]:
    """What is shown at each time. Where the file ends early, after the last needed time, its last picture stays."""
    last: Any = None
    count = 0
    try:
        for last in opened.shown(wanted):
            yield last
            count += 1
    except UserError:
        for last in islice(opened.shown([time for time in wanted if time <= needed]), count, None):
            yield last
            count += 1
        for _ in wanted[count:]:
            yield last


def _encode(plan: Plan, best: Mapping[float, Best], look: Look) -> Cuts:
    settings, clips = look.settings, {}
    shown = np.stack([look.seen[plan.part.opened.path, time] for time in plan.prints])
    for seconds, (times, rate) in plan.grids.items():
        found = best[seconds]
        data, _ = video.encode(np.stack(found.pictures), rate, settings.codec)
        start = float(times[found.at])
        end = round(start + settings.frames / rate, 3)
        clips[seconds] = Cut(plan.part.segment, round(start, 3), end, data, found.motion, shown)
    return {role: clips[seconds] for role, seconds in plan.windows.items()}


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
