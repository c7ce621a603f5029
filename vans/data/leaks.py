"""Nothing of the test split is in training: what has to go, and the proof from what is left."""

from collections.abc import Sequence

import numpy as np

from vans.data import duplicates
from vans.data.fingerprint import FRAMES, GRID
from vans.data.ledger import Ledger
from vans.data.work import Looked, Task
from vans.errors import UserError

TOLD = 100  # dropped videos of which is said what they are near to


def check_splits(rows: list[dict]) -> None:
    """Raise UserError if a video or a scene stands in training and in test."""
    for key in ("video", "scene"):
        sides: dict[str, set[str]] = {}
        for row in rows:
            sides.setdefault(row[key], set()).add(row["split"])
        if both := sorted(name for name, side in sides.items() if len(side) > 1):
            raise UserError(f"{key} {both[0]!r} is in training and in test; give all of it one subset")


def apart(
    tasks: Sequence[Task], looked: dict[str, Looked], radius: float, ledger: Ledger
) -> tuple[list[Task], dict[str, np.ndarray], dict[str, str], dict]:
    """Drop training videos that are near-duplicates of test videos, or cannot be told from them.

    Returns (what is left, title -> fingerprints, title -> group, facts for the report).
    """
    prints = {title: found.prints for title, found in looked.items() if found.prints is not None}
    seen = [t.record for t in tasks if t.record.title in prints]
    if not seen:
        return list(tasks), {}, {}, {}
    cut, parts = cut_files([looked[r.title] for r in seen])
    joined, measured = duplicates.inside(seen, cut, parts, radius)
    group, facts = duplicates.groups(seen, [prints[r.title] for r in seen], radius, joined)
    if any(len(files) for files in cut):
        facts |= {"cut_files": sum(map(len, cut)), "segments": sum(map(len, parts)), "of_them_measured": measured}
    gone = duplicates.leaking(seen, group)
    named = {r.title: r for r in seen}
    compared = [prints[r.title] for r in seen]
    for number, title in enumerate(sorted(gone)):
        named[title].lose(ledger, duplicates.NEAR)
        if number < TOLD:
            ledger.details.append(duplicates.why(title, seen, compared, group))
    unclear = duplicates.unclear(seen, [prints[r.title] for r in seen]) - gone
    for title in sorted(unclear):
        named[title].lose(ledger, duplicates.UNCLEAR)
    gone |= unclear
    facts = {"near_duplicate": radius, **facts, "dropped_from_training": len(gone)}
    left = [t for t in tasks if t.record.title not in gone]
    return left, prints, {r.title: g for r, g in zip(seen, group, strict=True)}, facts


def cut_files(looked: Sequence[Looked]) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of each source the fingerprints of its cut files, and, if there are any at all, those of its segments."""
    none = np.zeros((0, FRAMES, GRID, GRID, 3), np.uint8)
    cut = [none if found.prints is None else found.prints[found.videos :] for found in looked]
    needed = any(len(files) for files in cut)
    return cut, [found.parts if needed and found.parts is not None else none for found in looked]


def proven(rows: list[dict], prints: dict[str, np.ndarray], radius: float, looked: dict[str, Looked]) -> dict:
    """What remains, measured once more from the final rows. UserError if near-duplicates stand on both sides."""
    sides: dict[str, dict[str, np.ndarray]] = {"test": {}, "train": {}}
    for row in rows:
        sides[row["split"]][row["video"]] = prints[row["video"]]
    found = duplicates.proof(sides["test"], sides["train"], radius)
    out = {"across_the_split": {"test_videos": len(sides["test"]), "train_videos": len(sides["train"]), **found}}
    titles, tests = [*sides["test"], *sides["train"]], len(sides["test"])
    cut, parts = cut_files([looked[title] for title in titles])
    if any(len(files) for files in cut):
        for name, here, there in (("test_files_in_training", cut, parts), ("training_files_in_test", parts, cut)):
            test, train = (dict(zip(titles[s], p[s])) for s, p in ((slice(tests), here), (slice(tests, None), there)))
            out[name] = duplicates.proof(test, train, radius)
    return out
