"""Does an order that the paper claims hold here? Paired differences of two arms, with intervals and
verdicts.

One table asks hundreds of such questions. Their p-values are adjusted together (Holm), so that the chance of even one
false "holds" or "does not hold" in a table is at most 5 %; the intervals are those of each difference by itself.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vans.errors import UserError
from vans.score import bootstrap
from vans.score.bootstrap import Interval
from vans.score.metrics import METRICS, PAPER_METRICS
from vans.score.score import KINDS, Scores

VERBS = {
    "holds": "holds for",
    "does not hold": "does not hold for",
    "not resolved": "not resolved for",
    "differs": "equal in the paper but not here:",
    "equal within the interval": "equal as in the paper:",
}
GOOD = {"up": 1, "down": -1}
SAME = 1e-9  # a smaller difference in the paper's figures is none

# (row, row, what is claimed of the second against the first)
MAIN_CLAIMS = (
    ("sft", "stage1", "stage 1 improves on SFT"),
    ("stage1", "main", "stage 2 improves on stage 1"),
    ("sft", "main", "Joint-GRPO improves on SFT"),
)
SYSTEM_CLAIMS = (  # a family of tests of its own; the textual system's captions are SFT's: there is nothing to test
    ("extension", "sft", "SFT against frames alone"),
    ("omni", "sft", "SFT against the unified system"),
    ("filmweaver", "sft", "SFT against the cascade"),
    ("omni", "main", "Joint-GRPO against the unified system"),
    ("filmweaver", "main", "Joint-GRPO against the cascade"),
)
ABLATION_CLAIMS = (
    ("sft", "vlm_only", "GRPO of the VLM alone against SFT"),
    ("sft", "vdm_only", "GRPO of the VDM alone against SFT"),
    ("sft", "vlm_vdm", "both alone, put together, against SFT"),
    ("vlm_vdm", "main", "joint against both alone"),
    ("no_t1", "stage1", "r_t1 helps stage 1"),
    ("no_v1", "stage1", "r_v1 helps stage 1"),
    ("stage1", "main", "stage 2 improves on stage 1"),
    ("no_c2", "main", "r_c2 helps stage 2"),
    ("no_v2", "main", "r_v2 helps stage 2"),
    ("all_in_one", "main", "two stages against one"),
)


@dataclass(frozen=True)
class Order:
    """One claim, metric and kind: the paper's difference, ours, and what follows.

    ``direction``: the sign of the second row's value minus the first's that the claim expects: the paper's
    own difference where it gives one, else the metric's good direction; 0 where the paper's two figures are
    equal. ``p``: of no difference; ``adjusted``: for all claims of the table.
    """

    claim: str
    first: str
    second: str
    metric: str
    kind: str
    paper: float | None
    direction: int
    ours: Interval
    p: float = 0.0
    adjusted: float = 0.0

    @property
    def resolved(self) -> bool:
        return bootstrap.verdict(self.ours, 1, self.adjusted) in ("holds", "does not hold")

    @property
    def verdict(self) -> str:
        found = bootstrap.verdict(self.ours, self.direction or 1, self.adjusted)
        if self.direction:
            return found
        return {"not resolved": "equal within the interval", "not measured": found}.get(found, "differs")


@cache
def paper() -> pd.DataFrame:
    """The paper's figures, indexed by (row, kind). Other data, other models: never the same quantity as
    ours."""
    return pd.read_csv(Path(__file__).with_name("paper.csv"), index_col=["row", "kind"]).sort_index()


def paper_value(row: str, kind: str, metric: str) -> float | None:
    """One of the paper's figures; None where it gives none."""
    table = paper()
    if (row, kind) not in table.index or metric not in PAPER_METRICS:
        return None
    value = table.at[(row, kind), metric]
    return float(value) if np.isfinite(value) else None


def difference(first: Scores, second: Scores, metric: str, kind: str) -> Interval | None:
    """second - first, paired, with its interval; see `paired`."""
    found = paired(first, second, metric, kind)
    return found and found[0]


def paired(
    first: Scores, second: Scores, metric: str, kind: str, of: Callable[[Any], Any] = lambda value: value
) -> tuple[Interval, float] | None:
    """second - first and the p-value of no difference: both arms are seen through the same resamples of the same
    samples. of: what is compared in the place of the metric's value.

    None if one of them lacks the metric. Raises UserError if they were scored on other samples or settings.
    """
    a, b = first.interval(kind, metric), second.interval(kind, metric)
    if a is None or b is None:
        return None
    if list(first.frame["id"]) != list(second.frame["id"]) or first.resampling != second.resampling:
        raise UserError(f"results/scores: {first.arm} and {second.arm} were scored on other samples; score both again")
    resampled = of(second.resampled(kind, metric)) - of(first.resampled(kind, metric))
    value, centre = of(b.value) - of(a.value), METRICS[metric].distance is not None
    found = bootstrap.percentile(value, resampled, min(a.n, b.n), first.resampling.level, centre)
    return found, bootstrap.p_value(value, resampled)


def orders(
    scores: dict[str, Scores],
    claims: tuple[tuple[str, str, str], ...],
    arms: dict[str, str] | None = None,
) -> list[Order]:
    """Every claim whose two rows were scored, for every metric with a direction and kind that both have.

    ``arms`` maps a row of the table to the arm that fills it, where the two have different names.
    """
    found = []
    for first, second, claim in claims:
        one, two = (scores.get((arms or {}).get(row, row)) for row in (first, second))
        if one is None or two is None:
            continue
        for metric in (m.name for m in METRICS.values() if m.claim and m.better in GOOD):
            for kind in KINDS:
                measured = paired(one, two, metric, kind)
                if measured is None:
                    continue
                gap, direction = expected(first, second, metric, kind)
                found.append(Order(claim, first, second, metric, kind, gap, direction, *measured))
    return adjust(found)


def adjust(found: list[Order]) -> list[Order]:
    """The orders with their p-values corrected for their number."""
    adjusted = bootstrap.holm([order.p for order in found])
    return [replace(order, adjusted=float(p)) for order, p in zip(found, adjusted, strict=True)]


def sentences(found: list[Order], kind: str = "all") -> list[str]:
    """What became of each claim, in a sentence: the metrics for which it holds, does not hold, is not
    resolved."""
    out = []
    for claim in dict.fromkeys(order.claim for order in found):
        parts = []
        for verdict in ("holds", "does not hold", "not resolved", "differs", "equal within the interval"):
            names = [METRICS[o.metric].title for o in found if (o.claim, o.kind, o.verdict) == (claim, kind, verdict)]
            if names:
                parts.append(f"{VERBS.get(verdict, verdict)} {', '.join(names)}")
        if parts:
            out.append(f"{claim}: {'; '.join(parts)}.")
    return out


def expected(first: str, second: str, metric: str, kind: str) -> tuple[float | None, int]:
    """The paper's difference of two rows, None where it gives none, and the sign that is expected of ours.

    The paper gives some rows for procedural samples only: their sign is then expected of the others too.
    """
    given = _paper_gap(first, second, metric, kind)
    gap = _paper_gap(first, second, metric, "procedural") if given is None else given
    if gap is None:
        return None, GOOD[METRICS[metric].better]
    return given, 0 if abs(gap) < SAME else int(np.sign(gap))


def _paper_gap(first: str, second: str, metric: str, kind: str) -> float | None:
    a, b = paper_value(first, kind, metric), paper_value(second, kind, metric)
    return None if a is None or b is None else b - a
