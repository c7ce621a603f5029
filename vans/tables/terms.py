"""Was a reward hacked? Per reward term that something was trained on: its own gain, CLIP's gain, the oracle's gain.

A term's own gain is that of the metric nearest to it. A reward is hacked where its own measure rises and the event that
the oracle sees in the video does not.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vans.score.bootstrap import Interval, holm, verdict
from vans.score.metrics import METRICS, NONE, number
from vans.score.score import Scores
from vans.tables.markdown import grid_of
from vans.tables.orders import paired

OWN = {  # term -> the metric that measures the same
    "format": "format",
    "t1": "rouge_l",
    "v1": "clip_v",
    "v2": "clip_v",
    "c2": "clip_t_own",
    "motion": "motion_ratio",
    "oracle": "video_event",
}
SEEN = ("clip_v", "video_event")  # CLIP's gain, the oracle's gain
NEARER = ", nearer to 1"  # what is gained in a metric that is best there
HEAD = ("term", "arm", "against", "its own measure", "its own gain", "CLIP-V gain", "video event gain, %", "reading")
ABOUT = (
    "Paired differences with 95 % intervals. *Against*: the arm trained with the same terms but this one, where there "
    "is one; else the arm that training started from, so that the gain is that of all its terms together. Readings are "
    "corrected for all gains of this table (Holm, 5 %), the intervals are not."
)


@dataclass(frozen=True)
class Trained:
    """How an arm came about: the arm that it started from, and the reward terms it was trained on."""

    start: str
    terms: Sequence[str]


def trained(
    arms: Mapping[str, Any], cells: Mapping[str, Any], rewards: Mapping[str, Sequence[str]]
) -> dict[str, Trained]:
    """How each arm came about, from the grid. ``arms``: name -> its models (``vlm``, ``vdm``) and ``captions``;
    ``cells``: name of a trained model -> the models it started from; ``rewards``: -> the terms it was trained on.

    What an arm was trained on last is its VDM's run, unless its VLM's began with that VDM, or there is none; it started
    from the arm that has the models of before. Arms that were not trained, or whose start is no arm, are left out.
    """
    own = {name: (arm.vlm, arm.vdm) for name, arm in arms.items() if arm.captions == "vlm" and not arm.best_of}
    found = {}
    for name, (vlm, vdm) in own.items():
        rendered = vlm in cells and cells[vlm].vdm == vdm  # the VLM was trained with this very VDM
        last = vlm if rendered or vdm not in cells else vdm
        if last not in cells:
            continue
        before = (cells[last].vlm if vlm == last else vlm, cells[last].vdm if vdm == last else vdm)
        start = next((other for other, models in own.items() if models == before), None)
        if start is not None:
            found[name] = Trained(start, tuple(rewards[last]))
    return found


@dataclass(frozen=True)
class Gain:
    """What training on a term gave, in its own measure (a metric), in CLIP-V and in the oracle's eyes: None where
    it was not measured. In a metric that is best near 1 (motion): how much nearer it came. ``adjusted``: their
    p-values, for all gains of the table.
    """

    term: str
    arm: str
    against: str
    measure: str | None
    own: Interval | None
    clip: Interval | None
    oracle: Interval | None
    adjusted: tuple[float, float, float] = (0.0, 0.0, 0.0)

    @property
    def signs(self) -> tuple[int, int, int]:
        """+1 (better), -1 (worse), or 0 where it is not resolved, of own measure, CLIP-V and oracle."""
        found = zip((self.own, self.clip, self.oracle), self.adjusted, strict=True)
        known = {"holds": 1, "does not hold": -1}
        own, clip, oracle = (0 if gain is None else known.get(verdict(gain, 1, p), 0) for gain, p in found)
        down = self.measure is not None and METRICS[self.measure].better == "down"
        return -own if down else own, clip, oracle

    @property
    def reading(self) -> str:
        """What the signs of own measure and oracle say together."""
        if self.own is None or self.oracle is None or self.measure is None:
            return "not measured"
        own, _, oracle = self.signs
        if own > 0:
            return {1: "both rise", 0: "only its own measure rises", -1: "hacked: the oracle's falls"}[oracle]
        return "its own measure falls" if own < 0 else "its own measure: not resolved"


def gains(
    scores: Mapping[str, Scores], cells: Mapping[str, Trained], kind: str = "all", own: Mapping[str, str] = OWN
) -> list[Gain]:
    """One line an arm and term it was trained on, of the arms that were scored. ``cells``: as `trained` gives them."""
    found: list[Gain] = []
    p: list[float] = []
    for arm, cell in cells.items():
        for term in cell.terms:
            rest = set(cell.terms) - {term}
            others = (a for a, c in cells.items() if c.start == cell.start and set(c.terms) == rest and a in scores)
            against = next(others, cell.start)
            if arm not in scores or against not in scores:
                continue
            measure = own.get(term, term if term in METRICS else None)
            changes = [_change(scores[against], scores[arm], n, kind) if n else None for n in (measure, *SEEN)]
            mine, clip, oracle = (change and change[0] for change in changes)
            p += [change[1] if change else float("nan") for change in changes]
            found.append(Gain(term, arm, against, measure, mine, clip, oracle))
    adjusted = holm(p).reshape(-1, 3).tolist()
    return [replace(gain, adjusted=tuple(three)) for gain, three in zip(found, adjusted, strict=True)]


def rows(found: Sequence[Gain], titles: Mapping[str, str] = {}) -> list[list[str]]:
    """The gains as text, columns as HEAD."""
    return [
        [
            gain.term,
            titles.get(gain.arm, gain.arm),
            titles.get(gain.against, gain.against),
            METRICS[gain.measure].title + (NEARER if _to_one(gain.measure) else "") if gain.measure else NONE,
            _text(gain.own, gain.measure),
            _text(gain.clip, SEEN[0]),
            _text(gain.oracle, SEEN[1]),
            gain.reading,
        ]
        for gain in found
    ]


def markdown(found: Sequence[Gain], titles: Mapping[str, str] = {}) -> str:
    """A section of the ablation table's Markdown."""
    return f"### What each reward term gained\n\n{ABOUT}\n\n{grid_of(HEAD, rows(found, titles))}"


def _to_one(metric: str) -> bool:
    return METRICS[metric].better == "one"


def _change(first: Scores, second: Scores, metric: str, kind: str) -> tuple[Interval, float] | None:
    """As `paired`; of a metric that is best near 1, how much nearer to it the second is."""
    if _to_one(metric):
        return paired(first, second, metric, kind, lambda value: -abs(value - 1))
    return paired(first, second, metric, kind)


def _text(gain: Interval | None, name: str | None) -> str:
    if gain is None or name is None:
        return NONE
    metric = METRICS[name]
    ends = ", ".join(number(x, metric, sign=True) for x in (gain.lo, gain.hi))
    return f"{number(gain.value, metric, sign=True)} [{ends}]"
