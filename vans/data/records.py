"""What a source folder says about one video, whatever its layout."""

from dataclasses import dataclass, field
from pathlib import Path

from vans.data.draw import Draw
from vans.data.shots import Segment

TEST_SHARE = 0.1  # of videos whose source names no subset


@dataclass(frozen=True)
class Given:
    """A pair that a published table names.

    texts: (question, think, caption). sentences, files: of input and target; file None: it is to be cut.
    """

    input_id: str
    target_id: str
    texts: tuple[str, str, str]
    sentences: tuple[str, str]
    files: tuple[Path | None, Path | None]


@dataclass(frozen=True)
class Record:
    """One source video.

    kind: procedural | predictive. split: train | test. scene: what must stay on one side of the split.
    topic: routine, recipe or condition in words. segments: annotated steps (None: shots must be searched).
    labels: what the searched shots show, in order (None: nobody said).
    """

    source: str
    name: str
    path: Path | None
    kind: str
    split: str
    scene: str
    subset: str = ""
    topic: str = ""
    recipe_type: str = ""
    condition: str = ""
    segments: tuple[Segment, ...] | None = None
    labels: tuple[str, ...] | None = None
    given: tuple[Given, ...] = ()

    @property
    def title(self) -> str:
        """source/name."""
        return f"{self.source}/{self.name}"


@dataclass
class Found:
    """records in a fixed order; dropped: (level, name, reason) of what could not even be read."""

    records: list[Record] = field(default_factory=list)
    dropped: list[tuple[str, str, str]] = field(default_factory=list)


def split_of(subset: str, name: str) -> str:
    """train | test from a source's own subset; without one, a fixed tenth of the names is test."""
    subset = subset.strip().lower()
    if subset in ("testing", "test", "validation", "val"):
        return "test"
    if subset in ("training", "train"):
        return "train"
    return "test" if Draw("split", name).chance(TEST_SHARE) else "train"
