"""The RL subset by a written score, where the paper picks 1 K triplets by hand.

A triplet's score is the weighted mean of its terms, each in [0, 1]; `curate.rl_weights` has the weights, and a
term that was not measured is left out. The choice is greedy, best score first, spread over classes:

1. Only training triplets whose caption says what is to be seen (a flowery one is no reference for a video).
2. Half procedural, half predictive, where there are enough of both.
3. Topics (recipe, routine, condition; without one, the source) take turns, so that each gives equally many.
4. Within a topic targets keep their frequencies: taking rare futures as often as usual ones would teach a wrong
   idea of what happens next. Of each source video the best triplet comes before any second one.
5. Equals are ordered by a draw from (seed, id).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from vans.data.draw import Draw

WORDS = (4, 40)  # a caption of so many words can be filmed and says enough
CLIPSCORE = 2.5  # the usual factor that brings CLIP's cosines to about 0..1 (Hessel et al. 2021)
TERMS = ("agreement", "motion", "length", "self_check", "visual_gain")
TEST = "held out for the test"
FLOWERY = "the caption leaves open what is to be seen"
SAME = "another triplet of the same source was taken"
LATER = "others of its topic come first"
FULL = "the subset was full before its topic's turn"


def terms(row: Mapping[str, Any], full_motion: float) -> dict[str, float | None]:
    """The terms of one triplet, each in [0, 1], None if it was not measured (None or NaN).

    agreement: 2.5 times the mean cosine of CLIP's features of the target clip's frames and of the caption, at
    most 1. motion: of the target clip, as a share of full_motion, at most 1, so that quiet events are not left
    out: only stills score low. length: 1 for WORDS words, falling to 0 at none and at twice the most.
    self_check: 1 / (1 + questions that gave the answer away before this one). visual_gain: what the video adds over the
    text: CLIP's probability that the caption is of the target clip rather than of the input clip
    (`vans.data.agreement.visual_gain`): 1/2 where the caption fits what was seen already just as well.
    """
    words, (least, most) = row["caption_words"], WORDS
    cosine, gain = row["agreement"], row.get("visual_gain")
    return {
        "agreement": None if cosine is None or cosine != cosine else min(1.0, max(0.0, CLIPSCORE * cosine)),
        "motion": min(1.0, row["motion"] / full_motion),
        "length": max(0.0, min(1.0, words / least, 2.0 - words / most)),
        "self_check": 1.0 / (1.0 + row["questions_refused"]),
        "visual_gain": None if gain is None or gain != gain else gain,
    }


def score(terms: Mapping[str, float | None], weights: Mapping[str, float]) -> float:
    """The weighted mean of the terms that were measured, in [0, 1]; 0 if none of them has a weight."""
    known = {name: value for name, value in terms.items() if value is not None}
    total = sum(weights[name] for name in known)
    return round(sum(weights[name] * value for name, value in known.items()) / total, 6) if total else 0.0


def choose(rows: Sequence[Mapping[str, Any]], count: int, seed: int) -> list[str]:
    """For each row '' if it belongs to the RL subset of `count`, else why not.

    rows: id, split, kind, style, rl_score, topic, recipe_type, source, target_sentence, group.
    """
    reasons = [TEST if r["split"] != "train" else FLOWERY if r["style"] == "flowery" else "" for r in rows]
    ranked = {
        kind: _ranked(rows, [i for i, row in enumerate(rows) if not reasons[i] and row["kind"] == kind], seed)
        for kind in ("procedural", "predictive")
    }
    first = min(len(ranked["procedural"]), max(count - count // 2, count - len(ranked["predictive"])))
    taken = {*ranked["procedural"][:first], *ranked["predictive"][: max(0, count - first)]}
    sources = {rows[i]["group"] for i in taken}
    topics = {_topic(rows[i]) for i in taken}
    for i, row in enumerate(rows):
        if not reasons[i] and i not in taken:
            reasons[i] = SAME if row["group"] in sources else LATER if _topic(row) in topics else FULL
    return reasons


def _topic(row: Mapping[str, Any]) -> tuple[str, str]:
    return row["kind"], row["topic"] or row["recipe_type"] or row["source"]


def _ranked(rows: Sequence[Mapping[str, Any]], some: list[int], seed: int) -> list[int]:
    """The rows with indices `some` in the order in which they are taken."""
    best = sorted(some, key=lambda i: (-rows[i]["rl_score"], Draw(seed, "rl", rows[i]["id"]).below(2**62)))
    of_source: dict[str, int] = defaultdict(int)
    targets: dict[tuple, list[int]] = defaultdict(list)  # topic, better ones of its source, target -> places
    for place, i in enumerate(best):
        row = rows[i]
        targets[*_topic(row), of_source[row["group"]], row["target_sentence"]].append(place)
        of_source[row["group"]] += 1
    queues: dict[tuple, list[tuple]] = defaultdict(list)
    for (kind, topic, better, _), places in targets.items():
        for n, place in enumerate(places):  # the n-th of m comes at (n + 0.5) / m of its topic
            queues[kind, topic].append((better, (n + 0.5) / len(places), place))
    turns = [(turn, at) for queue in queues.values() for turn, (_, _, at) in enumerate(sorted(queue))]
    return [best[at] for _, at in sorted(turns)]
