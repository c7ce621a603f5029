"""Somebody else's answers as rows of the tables: `vans score FOLDER --as NAME` keeps their scores in FOLDER, which git
has; the tables' stages depend on it.

They were scored on the held-out samples of that day. A row whose samples, or resamples, are no longer those of the
tables stays, empty, with the reason.
"""

from collections.abc import Mapping
from pathlib import Path

from vans.errors import UserError
from vans.score.score import Scores, load_all

FOLDER = "docs/results/others"
OTHER_SAMPLES = "scored on other samples than this table: `vans score … --as {}` again"
ABOUT = "somebody else's answers: {}"


def given(folder: str | Path, own: Mapping[str, Scores]) -> tuple[dict[str, Scores], dict[str, str]]:
    """(scores, notes) of what is kept in a folder, by name; scores only of what was scored as `own` was.

    UserError for one that is called as one of `own`.
    """
    every = load_all(folder)
    if both := sorted(every.keys() & own.keys()):
        raise UserError(f"{folder}/{both[0]}.json: the tables have {both[0]} of their own; use another --as")
    some = next(iter(own.values()))
    fit = {name: scores for name, scores in every.items() if _alike(scores, some)}
    notes = {name: ABOUT.format(one.summary.get("answers", "nothing is told of them")) for name, one in fit.items()}
    notes |= {name: OTHER_SAMPLES.format(name) for name in every if name not in fit}
    return fit, dict(sorted(notes.items()))


def _alike(one: Scores, two: Scores) -> bool:
    """Can they be compared, sample by sample?"""
    same_truth = all(list(one.frame[name]) == list(two.frame[name]) for name in ("id", "truth"))
    return same_truth and one.resampling == two.resampling
