"""Which samples a page shows, and how it is decided whether an answer is right.

Nobody chooses: ids are taken in the order of the SHA-256 of "<seed>/<id>", which anyone can do again.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from vans.score.score import Scores
from vans.show import oracle

ORACLE = "video_event"
CLIP = "clip_v"
EVENTS = ("event", "event_named", "event_seen")


def order(ids: Iterable[str], seed: int) -> list[str]:
    """The ids as they are drawn."""
    return sorted(ids, key=lambda id: hashlib.sha256(f"{seed}/{id}".encode()).digest())


@dataclass(frozen=True)
class Verdict:
    """right: id -> is the answer right (ids of which it is not said are left out)? rule: how it was decided. share: how
    many are right and what the others are put down to, in words. why: of an id, what its answer is put down to.
    oracle: was it the oracle?"""

    right: dict[str, bool]
    rule: str
    share: str
    why: Callable[[str], str]
    oracle: bool


def decide(scores: Scores) -> Verdict | None:
    """By the oracle where it could read the videos, else by CLIP; None where neither was measured."""
    frame = scores.frame.set_index("id")
    if ORACLE in frame and frame[ORACLE].notna().any():
        known = frame[frame[ORACLE].notna()]
        right = {str(id): bool(value == 1) for id, value in known[ORACLE].items()}
        rule = (
            "Right is an answer in whose video the oracle, which reads the pixels, sees the event that really happened."
        )
        return Verdict(right, rule, _share(right, known), partial(_blame, known), True)
    if CLIP in frame and frame[CLIP].notna().any():
        known = frame[frame[CLIP].notna()].sort_values(CLIP)
        quarter = max(1, len(known) // 4)
        right = {str(id): False for id in known.index[:quarter]} | {str(id): True for id in known.index[-quarter:]}
        rule = (
            "No oracle reads these videos. Successes are of the quarter whose CLIP-V with the true video is highest, "
            f"failures of the quarter where it is lowest ({quarter} of {len(known)} each)."
        )

        def why(id: str) -> str:
            return f"CLIP-V {known[CLIP][id]:.3f}" if id in known.index else ""

        return Verdict(right, rule, "", why, False)
    return None


def _share(right: dict[str, bool], frame: pd.DataFrame) -> str:
    good, wrong = sum(right.values()), sum(not one for one in right.values())
    text = f"{good} of {len(right)} held-out answers are right ({good / len(right):.1%}), {wrong} are wrong"
    if wrong and set(EVENTS) <= set(frame):
        parts = oracle.blame(frame[frame[ORACLE] != 1])
        counts = [f"{oracle.BLAME[str(name)][0]} {round(wrong * part)}" for name, part in parts.items() if part > 0]
        text += f": {'; '.join(counts)}"
    return f"{text}."


def _blame(frame: pd.DataFrame, id: str) -> str:
    """Which of caption and video was wrong, and of a wrong video what is seen instead."""
    if id not in frame.index or not set(EVENTS) <= set(frame):
        return ""
    said, row = oracle.BLAME[str(oracle.blame(frame.loc[[id]]).idxmax())][0], frame.loc[id]
    if row[ORACLE] == 1:
        return said
    return f"{said}: {row['event']} happened, {row['event_seen'].replace(oracle.STATIC, 'nothing')} is seen"


def sides(verdict: Verdict, ids: Sequence[str], count: int) -> tuple[list[str], list[str]]:
    """The first right and the first wrong ones of drawn ids, equally many where there are enough."""
    good = [id for id in ids if verdict.right.get(id) is True]
    bad = [id for id in ids if verdict.right.get(id) is False]
    if good and bad:
        count = min(count, len(good), len(bad))
    return good[:count], bad[:count]


def opening(rows: pd.DataFrame, ids: Sequence[str], verdict: Verdict | None) -> tuple[list[str], str]:
    """What stands at the top: a video with two questions (else with one) whose answers are right, and how it was found.

    rows: of the triplets, by id. ids: drawn.
    """
    right = verdict.right if verdict else {}
    pairs: dict[str, list[str]] = {}
    for id in ids:
        scene = rows.loc[id, "scene"]
        pairs.setdefault(scene if isinstance(scene, str) and scene else id, []).append(id)
    some = [pair[:2] for pair in pairs.values() if len(pair) > 1 and rows.loc[pair[0], "kind"] == "predictive"]
    good = [pair for pair in some if all(right.get(id) is True for id in pair)]
    if good:
        told = f"of {len(some)} held-out videos with two questions, both answers are right for {len(good)}"
        return good[0], f"Chosen, not drawn: {told}, and this is the first of them in the draw below."
    single = next((id for id in ids if right.get(id) is True), None)
    if single:
        return [single], "Chosen, not drawn: the first answer in the draw below that is right."
    return list(ids[:1]), "The first that was drawn."
