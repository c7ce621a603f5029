"""What came in, what was kept, what was thrown away and why: on every level, in = kept + dropped.

What comes in is counted where it is first seen, what becomes of it where that is decided, so that the sum is a proof.
"""

from collections import Counter
from dataclasses import dataclass, field

from vans.errors import UserError

LEVELS = ("video", "segment", "pair")
VIDEO_LOST = "its video was dropped"


@dataclass
class Ledger:
    """The books of one curation.

    root: the data folder. entered, kept: counts per level. drops: (level, name, reason), one per drop. segments:
    (video, id, start s, end s, kept or the reason); times that cannot be read are NaN. refused: questions that gave
    the answer away and were asked again. details: messages of bad files. unread: files that look like annotations and
    are none that is known.
    """

    root: str = ""
    entered: Counter[str] = field(default_factory=Counter)
    kept: Counter[str] = field(default_factory=Counter)
    drops: list[tuple[str, str, str]] = field(default_factory=list)
    segments: list[tuple[str, str, float, float, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)

    def enter(self, level: str, count: int = 1) -> None:
        """Count what comes in."""
        self.entered[level] += count

    def drop(self, level: str, name: str, reason: str) -> None:
        """Count one video, segment or pair as thrown away."""
        self.drops.append((level, name, reason))

    def segment(self, video: str, id: str, start: float, end: float, reason: str = "") -> None:
        """Enter one segment: kept, or thrown away for a reason."""
        self.segments.append((video, id, start, end, reason or "kept"))
        if reason:
            self.drop("segment", f"{video}:{id}", reason)
        else:
            self.kept["segment"] += 1

    def note(self, error: Exception) -> None:
        """Keep a message."""
        self.details.append(self.relative(error))

    def relative(self, error: Exception) -> str:
        """A message whose paths begin at the data folder (the report must not depend on its place)."""
        return str(error).replace(f"{self.root}/", "")

    def add(self, other: "Ledger") -> None:
        """Enter another ledger's books after these."""
        self.entered.update(other.entered)
        self.kept.update(other.kept)
        self.drops += other.drops
        self.segments += other.segments
        self.refused += other.refused
        self.details += other.details
        self.unread += other.unread

    def level(self, level: str) -> dict:
        """{in, kept, dropped: {reason: count}} of one level."""
        reasons = Counter(reason for where, _, reason in self.drops if where == level)
        return {"in": self.entered[level], "kept": self.kept[level], "dropped": dict(sorted(reasons.items()))}

    def check(self) -> None:
        """UserError if something was lost without a word, or counted twice."""
        for level in LEVELS:
            found = self.level(level)
            if found["in"] != found["kept"] + sum(found["dropped"].values()):
                raise UserError(f"curation lost count: {level}s {found}; please report this with what is in data/")
