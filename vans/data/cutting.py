"""The best clips of segments: which times are looked at, the pictures decoded once, each clip encoded.

A clip is a window of its segment: as long as `curate.input_seconds` or `curate.target_seconds` (the whole
segment where that is shorter), with `video.frames` pictures evenly spread over it, so that the models' input has
one size whatever the length. The window with most motion is taken, or the one that an annotator has chosen.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

from vans.data import fingerprint
from vans.data.fingerprint import Seen
from vans.data.shots import Best, Segment
from vans.errors import UserError
from vans.media import video

SHORT = "shorter than"
ROLES = ("input", "target")
SEEK = 5.0  # s; segments that are not farther apart are decoded in one go


@dataclass(frozen=True)
class Settings:
    """What of the parameters a source's pairs depend on. input_seconds, target_seconds: s, longest windows."""

    frames: int
    height: int
    width: int
    min_segment: float
    input_seconds: float
    target_seconds: float
    shot_threshold: float
    codec: str
    skipped_steps: bool = False

    @classmethod
    def of(cls, params: Any) -> "Settings":
        """From params.video and params.curate."""
        clip, curate = params.video, params.curate
        return cls(
            *(clip.frames, clip.height, clip.width, curate.min_segment),
            *(curate.input_seconds, curate.target_seconds, curate.shot_threshold, curate.codec, curate.skipped_steps),
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
