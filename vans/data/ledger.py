"""What curation threw away and why: on every level, in = kept + dropped."""

from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Ledger:
    """The books of one curation.

    root: the data folder. kept: count per level (video, segment, pair). drops: (level, name, reason), one per
    drop. segments: (video, id, start s, end s, kept or the reason). refused: questions that gave the answer
    away and were asked again. details: messages of bad files.
    """

    root: str = ""
    kept: Counter[str] = field(default_factory=Counter)
    drops: list[tuple[str, str, str]] = field(default_factory=list)
    segments: list[tuple[str, str, float, float, str]] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)

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
        self.kept.update(other.kept)
        self.drops += other.drops
        self.segments += other.segments
        self.refused += other.refused
        self.details += other.details

    def level(self, level: str) -> dict:
        """{in, kept, dropped: {reason: count}} of one level."""
        reasons = Counter(reason for where, _, reason in self.drops if where == level)
        kept = self.kept[level]
        return {"in": kept + sum(reasons.values()), "kept": kept, "dropped": dict(sorted(reasons.items()))}
