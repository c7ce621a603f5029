"""Which event follows which, and where events lie that are named and cannot be read."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import pairwise

from vans.data.shots import Segment

OVERLAP = 0.5  # s that an event may begin before the one in front of it ends and still follow it


class EventOrder:
    """The events of one video in the order in which its annotations name them, with gaps for those that are lost.

    gaps: (its place, the times that could be read, s) of each event that is lost.
    """

    def __init__(self) -> None:
        self.gaps: list[tuple[int, tuple[float, ...]]] = []
        self._places: dict[str, int] = {}
        self._count = 0
        self._last = 0.0
        self._sorted = True

    def read(self, event: Segment) -> None:
        """The next event is this one."""
        self._sorted &= event.start >= self._last
        self._last = event.start
        self._places[event.id] = self._count
        self._count += 1

    def lost(self, times: tuple[float, ...] = ()) -> None:
        """The next event cannot be read, apart from these times."""
        self.gaps.append((self._count, times))
        self._count += 1

    def torn(self, first: Segment, last: Segment) -> bool:
        """May a lost event lie between two events, the first of which begins first?

        It does where it is named between the two, and where its times lie between them. Where events are not named in
        the order of time and the lost one has no time, it may lie anywhere.
        """
        if not self.gaps or not {first.id, last.id} <= set(self._places):
            return False
        a, b = sorted(self._places[event.id] for event in (first, last))
        return any(a < place < b or self._times_between(first, last, times) for place, times in self.gaps)

    def _times_between(self, first: Segment, last: Segment, times: tuple[float, ...]) -> bool:
        if len(times) > 1:
            return spans(first, last, [Segment("", min(times), max(times))])
        return any(first.start < time < last.start for time in times) or not (times or self._sorted)

    def broken(self, events: Sequence[Segment]) -> tuple[str, ...]:
        """Ids of the events, in order of time, between which and the next a lost one may lie."""
        return tuple(a.id for a, b in pairwise(events) if self.torn(a, b)) if self.gaps else ()


def spans(first: Segment, last: Segment, events: Iterable[Segment]) -> bool:
    """Does another event lie between the two: begin after the first does, and happen when that has ended?"""
    for event in events:
        begin, end = max(event.start, first.end), min(event.end, last.start)
        inside = first.end <= event.start and event.end <= last.start
        if first.start < event.start < last.start and (inside or end - begin > OVERLAP):
            return True
    return False


def follow(
    events: Sequence[Segment],
    torn: Callable[[Segment, Segment], bool] = lambda a, b: False,
) -> tuple[tuple[Segment, ...], list[tuple[Segment, Segment]], list[Segment]]:
    """Which event follows which, where events overlap: (events in a pair, pairs, events in none).

    The event that follows is the first that begins when the input has ended (at most OVERLAP s before that; the
    input is then shortened, so that it shows nothing of the target). Of several inputs that one event follows,
    the one that ends last is taken. No pair is made where another event lies between the two (see `spans`),
    nor where `torn` says that something could not be read between them.
    """
    ordered = sorted(events, key=in_time)
    inputs: dict[int, int] = {}
    for i, event in enumerate(ordered):
        for j in range(i + 1, len(ordered)):
            if ordered[j].start > event.start and ordered[j].start >= event.end - OVERLAP:
                best = ordered[inputs[j]] if j in inputs else None
                if torn(event, ordered[j]) or spans(event, ordered[j], ordered[i + 1 : j]):
                    pass
                elif best is None or (event.end, event.start) > (best.end, best.start):
                    inputs[j] = i
                break
    for j, i in inputs.items():
        ordered[i] = replace(ordered[i], end=min(ordered[i].end, ordered[j].start))
    used = {*inputs, *inputs.values()}
    pairs = [(ordered[i], ordered[j]) for j, i in sorted(inputs.items(), key=lambda pair: (pair[1], pair[0]))]
    kept = tuple(event for i, event in enumerate(ordered) if i in used)
    return kept, pairs, [event for i, event in enumerate(ordered) if i not in used]


def in_time(event: Segment) -> tuple[float, float]:
    """What events are sorted by."""
    return event.start, event.end
