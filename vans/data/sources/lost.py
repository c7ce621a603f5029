"""Where events lie that are named and cannot be read: nobody knows what follows those around them."""

from collections.abc import Sequence
from itertools import pairwise

from vans.data.shots import Segment


class Order:
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

    def torn(self, first: Segment, second: Segment) -> bool:
        """May a lost event lie between two events, the first of which begins first?

        It does where it is named between the two, and where a time of it lies between their beginnings. Where events
        are not named in the order of time and the lost one has no time, it may lie anywhere.
        """
        if not self.gaps or not {first.id, second.id} <= set(self._places):
            return False
        a, b = sorted(self._places[event.id] for event in (first, second))
        return any(
            a < place < b or any(first.start < t < second.start for t in times) or not (self._sorted or times)
            for place, times in self.gaps
        )

    def broken(self, events: Sequence[Segment]) -> tuple[str, ...]:
        """Ids of the events, in order of time, between which and the next a lost one may lie."""
        return tuple(a.id for a, b in pairwise(events) if self.torn(a, b)) if self.gaps else ()
