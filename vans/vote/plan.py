"""Who sees what: trials, their order and their sides follow from a seed and the rater's name, and from nothing else.

So a server that was killed goes on where it was, and every rater has an order of one's own. Orders are sorted digests,
not draws of a generator: the same in every version of every library.
"""

import math
import os
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vans.answer.predictions import SUFFIXES, Predictions, open_folder
from vans.errors import UserError
from vans.files import digest, sha256_file
from vans.vote import sheets
from vans.vote.samples import Clip, Sample

CHOICE, LIKERT = "choice", "likert"
ASKED = ("semantic", "visual", "overall")  # of the likert form, each 1 to 5
TIE, TRUTH, OTHER, INPUT = RESERVED = "tie", "truth", "other", "input"
IDENTICAL = "identical"
MOST = {CHOICE: 2, LIKERT: 4}  # candidates at once, unless told otherwise
FEWEST_CHECKS, ONE_CHECK_IN = 4, 10
LIMIT = 9  # candidates at once: keys


class Side(NamedTuple):
    """A video: whose (an arm's, or "truth" or "input") of which sample."""

    arm: str
    sample: str


@dataclass(frozen=True)
class Trial:
    """One screen. sides: from left to right. check: "", "identical" (copies), "other" (the truth, and another's)."""

    sample: str
    sides: tuple[Side, ...]
    check: str = ""

    @property
    def names(self) -> list[str]:
        """Of the sides as the results tell them: another sample's truth is "other"."""
        strange = OTHER if self.check == OTHER else ""
        return [side.arm if side.sample == self.sample else strange for side in self.sides]

    def right(self, choice: Any) -> bool | None:
        """Was an attention check answered rightly? None for what is none. choice: a name, or marks per side."""
        if not self.check:
            return None
        if isinstance(choice, str):
            return choice == (TIE if self.check == IDENTICAL else TRUTH)
        if self.check == IDENTICAL:
            return all(max(marks) - min(marks) <= 1 for marks in zip(*choice, strict=True))
        overall = dict(zip(self.names, (marks[-1] for marks in choice), strict=True))
        return overall[TRUTH] > overall[OTHER]


def well_marked(marks: Any, sides: int) -> bool:
    """Is it a list of so many lists of a whole mark of 1 to 5 for each question of the likert form?"""
    if not isinstance(marks, list) or len(marks) != sides:
        return False
    return all(
        isinstance(m, list) and [type(x) is int and 1 <= x <= 5 for x in m] == [True] * len(ASKED) for m in marks
    )


@dataclass(frozen=True)
class Plan:
    """arms: predictions by name. samples: by id in NFC. at_once: candidates on a screen. each: of a sample's
    combinations so many are shown to one rater (None: all). checks: attention checks of one rater. truth, captions:
    show what really happened; the candidates' captions."""

    arms: Mapping[str, Predictions]
    samples: Mapping[str, Sample]
    form: str = CHOICE
    at_once: int = 2
    each: int | None = None
    checks: int = FEWEST_CHECKS
    seed: int = 0
    truth: bool = False
    captions: bool = False

    @cached_property
    def name(self) -> str:
        """A digest of all that decides what is seen and in which order, bytes of all videos included."""
        kept = [
            [arm, found.captions, [sha256_file(p) for p in found.paths.values()]] for arm, found in self.arms.items()
        ]
        asked = [
            [one.id, one.question, one.caption, *(film and film.digest() for film in (one.input, one.truth))]
            for one in self.samples.values()
        ]
        settings = [self.form, self.at_once, self.each, self.checks, self.seed, self.truth, self.captions]
        return digest([kept, asked, settings])[:12]

    @cached_property
    def unlike(self) -> dict[str, str]:
        """For each sample with a truth the one whose truth looks least like it; empty without two truths."""
        known = [id for id, sample in self.samples.items() if sample.truth is not None]
        if len(known) < 2:
            return {}
        seen = np.stack([_thumb(self.clip(Side(TRUTH, id))[0]) for id in known])
        apart = np.abs(seen[:, None] - seen[None]).mean(axis=2)
        return {id: known[int(apart[i].argmax())] for i, id in enumerate(known)}

    def clip(self, side: Side) -> Clip:
        """The video of a side. ValueError where the sample has none."""
        sample = self.samples[side.sample]
        if side.arm not in (TRUTH, INPUT):
            return sheets.read(self.arms[side.arm].paths[sample.id])
        own = sample.truth if side.arm == TRUTH else sample.input
        if own is None:
            raise ValueError(f"{sample.id} has no {side.arm}")
        return own.read()

    def trials(self, rater: str) -> list[Trial]:
        """All screens of a rater, in order, the checks spread evenly among them."""
        found = [(id, arms) for id in self.samples for arms in self._combined(rater, id)]
        trials = [Trial(id, tuple(Side(arm, id) for arm in arms)) for id, arms in shuffled(found, self.seed, rater)]
        checks = self._checks(rater)
        for number, check in reversed(list(enumerate(checks))):
            within = int(digest([self.seed, rater, "place", number])[:8], 16) / 16**8
            trials.insert(int((len(found) + 1) * (number + within) / len(checks)), check)
        return [
            Trial(one.sample, tuple(shuffled(one.sides, self.seed, rater, "sides", number)), one.check)
            for number, one in enumerate(trials)
        ]

    def _combined(self, rater: str, id: str) -> Sequence[Sequence[str]]:
        """The sets of arms that a rater sees of a sample: marked once each, or compared each with each."""
        if self.form == LIKERT:
            mixed = shuffled(self.arms, self.seed, rater, id)
            return [mixed[at : at + self.at_once] for at in range(0, len(mixed), self.at_once)]
        return shuffled(combinations(self.arms, self.at_once), self.seed, rater, id)[: self.each]

    def _checks(self, rater: str) -> list[Trial]:
        ids, arms = shuffled(self.samples, self.seed, rater, "checks"), shuffled(self.arms, self.seed, rater, "checks")
        several, found = max(2, self.at_once), []
        for number in range(self.checks):
            id = ids[number % len(ids)]
            if number % 2 == 0 and id in self.unlike:
                strange = [Side(TRUTH, self.unlike[id])] * (several - 1)
                found.append(Trial(id, (Side(TRUTH, id), *strange), OTHER))
            else:
                found.append(Trial(id, (Side(arms[number % len(arms)], id),) * several, IDENTICAL))
        return found


def shuffled(items: Any, *keys: object) -> list[Any]:
    """Items in an order that these keys decide; equal items keep apart."""
    placed = list(enumerate(items))
    return [item for _, item in sorted(placed, key=lambda one: digest([*keys, one[0], one[1]]))]


def _thumb(clip: np.ndarray) -> np.ndarray:
    """First and last picture, small: [2 * 16 * 16 * 3]."""
    small = [np.asarray(Image.fromarray(clip[at]).resize((16, 16)), np.float32) for at in (0, -1)]
    return np.concatenate(small).ravel()


# -------------------------------------------------------------------------------------------- from what was typed
def named(folders: Sequence[str]) -> dict[str, Path]:
    """Folders by their names, or by those given as NAME=FOLDER; UserError where two have one name."""
    found: dict[str, Path] = {}
    for text in folders:
        name, equals, folder = text.partition("=")
        if not equals or Path(text).is_dir():
            name, folder = os.path.basename(os.path.abspath(text)), text
        if not name.isprintable() or name in ("", *RESERVED, *found):
            raise UserError(f"{text}: an arm cannot be called {name!r} here; give it another name: NAME={folder}")
        if not Path(folder).is_dir():
            raise UserError(f"{folder}: no such folder of predictions")
        found[name] = Path(folder)
    if len(found) < 2:
        raise UserError("name two or more folders of predictions to compare")
    return found


def _ids(folder: Path) -> set[str]:
    """In NFC, of which a folder has a video."""
    found = (path for path in (folder / "videos").glob("*") if path.suffix.lower() in SUFFIXES)
    return {unicodedata.normalize("NFC", path.stem) for path in found}


def make(
    folders: Sequence[str],
    samples: Mapping[str, Sample],
    count: int = 20,
    form: str = CHOICE,
    at_once: int | None = None,
    each: int | None = None,
    checks: int | None = None,
    seed: int = 0,
    truth: bool = False,
    captions: bool = False,
) -> Plan:
    """A plan over `count` samples, drawn by the seed from those of which every folder has a video.

    Raises UserError for what cannot be: no common sample, a folder that is not whole, numbers out of range.
    """
    places = named(folders)
    at_once = min(MOST[form], len(places)) if at_once is None else at_once
    if not 2 <= at_once <= min(LIMIT, len(places)):
        raise UserError(f"--at-once {at_once}: 2 to {min(LIMIT, len(places))} of {len(places)} folders")
    for option, value, least in (("--samples", count, 1), ("--each", each, 1), ("--checks", checks, 0)):
        if value is not None and value < least:
            raise UserError(f"{option} {value}: at least {least}")
    there = [_ids(place) for place in places.values()]
    common = [id for id in samples if all(id in some for some in there)]
    if not common:
        raise UserError(f"{', '.join(map(str, places.values()))}: no sample of which all have a video")
    drawn = sorted(shuffled(common, seed, "samples")[:count], key=common.index)
    ids = [samples[id].id for id in drawn]
    arms = {name: open_folder(place, ids) for name, place in places.items()}
    for found in arms.values():
        found.check()
    if checks is None:
        combined = math.comb(len(arms), at_once) if form == CHOICE else math.ceil(len(arms) / at_once)
        checks = max(FEWEST_CHECKS, len(ids) * min(combined, each or combined) // ONE_CHECK_IN)
    return Plan(arms, {id: samples[id] for id in drawn}, form, at_once, each, checks, seed, truth, captions)
