"""What a source folder says about one video, whatever its layout."""

import math
from dataclasses import dataclass, field
from pathlib import Path

from vans.data.draw import Draw
from vans.data.ledger import VIDEO_LOST, Ledger
from vans.data.shots import Segment

TEST_SHARE = 0.1  # of videos whose source names no subset


@dataclass(frozen=True)
class Given:
    """A pair that the source names.

    texts: (question, think, caption), None: they are to be written. sentences, files: of input and target; file
    None: it is to be cut.
    """

    input_id: str
    target_id: str
    texts: tuple[str, str, str] | None
    sentences: tuple[str, str]
    files: tuple[Path | None, Path | None]


@dataclass(frozen=True)
class Record:
    """One source video.

    kind: procedural | predictive. split: train | test. scene: what must stay on one side of the split.
    topic: routine, recipe or condition in words. segments: annotated steps (None: shots must be searched).
    labels: what the searched shots show, in order (None: nobody said). torn: ids of the segments after which the source
    names something that could not be read, so that nobody knows what follows them.
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
    torn: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """source/name."""
        return f"{self.source}/{self.name}"

    @property
    def files_alone(self) -> list[str]:
        """Ids of the segments that pairs name and no annotation gives times to: files already cut."""
        named = dict.fromkeys(id for g in self.given for id in (g.input_id, g.target_id))
        return [id for id in named if id not in {s.id for s in self.segments or ()}]

    def lose(self, ledger: Ledger, reason: str) -> None:
        """Enter into the books that the video is dropped, and with it all that is annotated in it."""
        ledger.drop("video", self.title, reason)
        for s in self.segments or ():
            ledger.segment(self.title, s.id, s.start, s.end, VIDEO_LOST)
        for id in self.files_alone:
            ledger.segment(self.title, id, math.nan, math.nan, VIDEO_LOST)
        for given in self.given:
            ledger.drop("pair", f"{self.title}:{given.input_id}-{given.target_id}", VIDEO_LOST)


@dataclass
class Found:
    """records in a fixed order; ledger: what came in, and what of it could not even be read; layouts: the title of each
    source's layout, by the source's name.
    """

    records: list[Record] = field(default_factory=list)
    ledger: Ledger = field(default_factory=Ledger)
    layouts: dict[str, str] = field(default_factory=dict)

    @property
    def dropped(self) -> list[tuple[str, str, str]]:
        """(level, name, reason) of what could not be read."""
        return self.ledger.drops


def split_of(subset: str, name: str) -> str:
    """train | test from a source's own subset; without one, a fixed tenth of the names is test.

    Raises ValueError for a subset that is not known: on which side it belongs is not ours to guess.
    """
    subset = subset.strip().lower()
    if subset in ("testing", "test", "validation", "val", "valid", "dev"):
        return "test"
    if subset in ("training", "train"):
        return "train"
    if subset:
        raise ValueError(f"the subset is neither training nor validation nor testing ({subset[:40]!r})")
    return "test" if Draw("split", name).chance(TEST_SHARE) else "train"
