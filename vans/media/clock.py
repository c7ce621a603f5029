"""What a video file's times mean: where 0 is, when its pictures begin and end, and in which order they come.

- 0 is the file's start, as in a player. Sound does not shift pictures: what its encoder puts before the first sample
  (times before 0, or a file that was moved by as much so that nothing is before 0) does not count.
- The end is the end of the last picture, not that of the sound.
- AVI and ASF hold no times of pictures but only an order of decoding, from which FFmpeg guesses: with B-frames the
  first picture seems to come late, and some change places. Decoders hand out pictures in the order in which they are
  shown, so the times are sorted and counted from the first packet's.
"""

import heapq
import statistics
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from itertools import islice, pairwise, tee
from typing import Any

import av

PRIMING = Fraction(1, 20)  # s of silence that an encoder puts before sound: 1024 to 2112 samples
GUESSED = {"avi", "asf"}  # formats without times of pictures
EXACT = {"mov", "matroska"}  # formats that hold a time for each picture; others may let some change places
COUNTED = {"mov", "avi"}  # formats that know how long their pictures last, whatever the sound does
REORDERED = 16  # pictures that a decoder can hold back
COPIED = 4  # as far as times go wrong that were copied out of an AVI
CUT_OFF = 1  # s that may be missing at the end of a whole file
TAILS = (2.0, 10.0, 120.0)  # s before the end where the last picture is looked for
PATCHED = {"mpeg4", "h263", "flv", "msmpeg4v1", "msmpeg4v2", "msmpeg4", "wmv1", "wmv2"}  # decoders that begin anywhere
LONGEST = 86_400  # s
MAX_PACKETS = 20_000_000  # 24 h at 230 pictures per second


@dataclass(frozen=True)
class Clock:
    """origin: s of the file's own time that is 0; start, end: s, of the first picture and of the last one's end.

    rate: pictures per second, as the file says, unless its pictures come at another. depth: how many places a time
    may be off.
    """

    origin: Fraction
    start: float
    end: float
    rate: float
    depth: int


def named(container: Any) -> str:
    """The format's first name."""
    return str(container.format.name).split(",")[0]


def packets(container: Any, *streams: Any) -> Iterator[Any]:
    """All packets (of these streams); ValueError if there are too many to be a video's."""
    for count, packet in enumerate(container.demux(*streams)):
        if count > MAX_PACKETS:
            raise ValueError("too many packets")
        yield packet


def frames(found: Iterable[Any], stream: Any) -> Iterator[Any]:
    """The pictures of packets, from the first on that does not lack what it is made from, as in a cut broadcast."""
    begun, problem = False, None
    for packet in found:
        try:
            decoded = packet.decode()
        except av.error.FFmpegError as error:
            if begun:
                raise
            problem = error
            continue
        for frame in decoded:
            begun = begun or bool(frame.key_frame) or stream.codec_context.name not in PATCHED
            if begun:
                yield frame
    if problem is not None and not begun:
        raise problem


def seconds(holder: Any) -> Fraction | None:
    """When a packet or a frame is shown, s of the file's own time, as far as it is known."""
    ticks = holder.dts if holder.pts is None else holder.pts
    return None if ticks is None or not holder.time_base else ticks * holder.time_base


def ascending(frames: Iterable[tuple[float, Any]], depth: int) -> Iterator[tuple[float, Any]]:
    """Frames in their order with their times in order, as far as none is more than `depth` places off."""
    times: list[float] = []
    held: deque[Any] = deque()
    for time, frame in frames:
        heapq.heappush(times, time)
        held.append(frame)
        if len(held) > depth:
            yield heapq.heappop(times), held.popleft()
    while held:
        yield heapq.heappop(times), held.popleft()


def read(container: Any, stream: Any) -> tuple[Clock, Any] | None:
    """(a freshly opened file's clock, its first picture), None if it holds none; the container is left anywhere."""
    found, passed = tee(packets(container, stream))
    frame = next(frames(found, stream), None)
    if frame is None:
        return None
    first = seconds(frame) or Fraction(0)
    own = None
    if named(container) in GUESSED:
        own = next((p.dts for p in islice(passed, 1000) if p.pts == frame.pts), None)
    late = Fraction(0) if own is None else first - own * stream.time_base
    begins = Fraction(container.start_time or 0, av.time_base)
    rate = float(stream.average_rate or stream.guessed_rate or 0)
    rate = rate if 0 < rate <= 1000 else 25.0
    stated = first - late
    stated = stated if stream.start_time is None else min(stated, stream.start_time * stream.time_base)
    origin = begins if begins > PRIMING else min(stated, Fraction(0))
    origin = stated if stated - origin <= PRIMING else origin
    depth = 0 if named(container) in EXACT else REORDERED
    if named(container) in COUNTED and stream.duration:
        end = stated + stream.duration * stream.time_base
    else:
        claimed = Fraction(container.duration or 0, av.time_base)
        end, rate, ordered = _end(container, stream, begins, claimed, rate)
        depth, end = max(depth, COPIED if ordered else 0), end - late
    depth = depth if stream.codec_context.has_b_frames else 0
    return Clock(origin + late, float(first - late - origin), float(end - origin), rate, depth), frame


def _end(container: Any, stream: Any, begins: Fraction, claimed: Fraction, rate: float) -> tuple[Fraction, float, bool]:
    """(when the last picture ends, s of the file's own time; pictures per second; are they decoded in their order?).

    claimed: s that the file says it lasts, 0 if it does not; of one that was cut off nothing else is known.
    """
    believed = 0 < claimed <= LONGEST
    sought = believed and named(container) != "mpeg"  # whose times are wrong for a while after a jump
    ends, shown, length, base = dict[int, Fraction](), list[int](), 0, stream.time_base
    for back in (*TAILS, 0) if sought else (0,):
        at = begins + max(Fraction(0), claimed - Fraction(back)) if back else Fraction(0)
        with suppress(av.error.FFmpegError):  # without an index it is read from here on
            container.seek(int(at * av.time_base))
        last, shown = dict[int, tuple[int, Any]](), []
        for packet in packets(container):
            ticks = packet.dts if packet.pts is None else packet.pts
            if ticks is None:
                continue
            lasts, index = packet.duration or 0, packet.stream.index
            before, _ = last.get(index, (ticks, None))
            last[index] = max(before, ticks + lasts), packet.time_base
            if index == stream.index:
                shown.append(ticks)
                length = lasts if ticks == max(shown[-REORDERED:]) else length
        ends = {index: end * unit for index, (end, unit) in last.items()}
        if len(shown) > 1:
            break
    if not shown or (believed and max(ends.values()) < claimed - CUT_OFF):  # Matroska counts it from 0
        return begins + claimed, rate, False
    steps = [b - a for a, b in pairwise(sorted(shown)) if b > a]
    if steps and rate * (step := statistics.median_low(steps)) * base > 1.5:  # it says more a second than there are
        length, rate = max(length, step), float(len(steps) / (sum(steps) * base))
    held = max(length * base, Fraction(1 / rate).limit_denominator(90_000))
    return max(shown) * base + held, rate, shown == sorted(shown)
