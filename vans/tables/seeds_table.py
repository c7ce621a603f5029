"""The table over training seeds: means, intervals over trainings and samples, what became of the paper's claims, and
what it would cost to decide the undecided ones.

Two arms are compared seed by seed and sample by sample. Verdicts are corrected together for the number of differences
of the table (Holm).
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from vans.score.bootstrap import LEVEL, Interval
from vans.score.metrics import METRICS, PAPER_METRICS
from vans.score.score import KINDS
from vans.score.two_level import Spread, spread
from vans.tables.orders import ABLATION_CLAIMS, MAIN_CLAIMS, Order, adjust, expected
from vans.tables.seeds import Seed
from vans.tables.tables import ABLATION, MAIN

SHOWN = (*PAPER_METRICS, "video_event", "static")
HOURS = 0.65  # of two cores, SFT to the scores of the whole grid: the published run (docs/log.md), with work beside
ROWS: dict[str, str] = {}  # arm -> title
for _row in (*ABLATION.rows, *MAIN.rows):
    if _row.arm:
        ROWS.setdefault(_row.arm, _row.title)
ROWS |= {"sft_best": "SFT, best by CLIP-T own", "sft_oracle": "SFT, best by the oracle (ceiling)"}
FILLED = {row.name: row.arm for layout in (ABLATION, MAIN) for row in layout.rows if row.arm}
CLAIMS = tuple({row[:2]: row for row in MAIN_CLAIMS + ABLATION_CLAIMS}.values())
CLAIMED = (*PAPER_METRICS, "video_event")  # of every claim …
ALSO = {("no_c2", "main"): ("static",)}  # … and what the paper says of one


@dataclass(frozen=True)
class Mean:
    """A number over training seeds. ``each``: train seed -> its value; ``varied``: the same of runs that vary
    everything, by name; ``spread``: its variance components."""

    ours: Interval
    each: dict[int, float]
    varied: dict[str, float]
    spread: Spread
    p: float


@dataclass(frozen=True)
class Claim(Mean):
    """A claim's difference, second row minus first. ``more``: seeds that the verdict would need in all at the present
    mean and spread, None where it would need more samples; of a verdict that stands, those there are."""

    order: Order
    more: int | None = None

    @property
    def verdict(self) -> str:
        return {"not resolved": "undecided"}.get(self.order.verdict, self.order.verdict)


@dataclass(frozen=True)
class SeedTable:
    """``means``: (arm, metric) -> its number; ``claims``: in the order of CLAIMS; all of one kind of sample."""

    kind: str
    seeds: list[int]
    varied: list[str]
    samples: int
    groups: int
    means: dict[tuple[str, str], Mean]
    claims: list[Claim]

    @property
    def metrics(self) -> list[str]:
        return list(dict.fromkeys(metric for _, metric in self.means))

    @property
    def arms(self) -> list[str]:
        return list(dict.fromkeys(arm for arm, _ in self.means))

    @property
    def tested(self) -> list[Claim]:
        """Those with a p-value, for whose number the verdicts are corrected: of two seeds or more."""
        return [claim for claim in self.claims if np.isfinite(claim.p)]

    @property
    def undecided(self) -> list[Claim]:
        return [claim for claim in self.claims if claim.verdict == "undecided"]

    def frame(self) -> pd.DataFrame:
        """The CSV: a line for each arm or claim and metric."""
        lines = []
        for (arm, metric), one in self.means.items():
            lines.append({"row": arm, "claim": "", "metric": metric, **_line(one)})
        for one in self.claims:
            about = {"row": f"{one.order.second} - {one.order.first}", "claim": one.order.claim}
            decided = {"p": one.p, "adjusted": one.order.adjusted, "verdict": one.verdict, "seeds_needed": one.more}
            lines.append({**about, "metric": one.order.metric, **_line(one), **decided})
        return pd.DataFrame(lines).assign(kind=self.kind)


def build(runs: Sequence[Seed], kind: str = "all", metrics: Sequence[str] = SHOWN) -> SeedTable:
    """The table of one kind of sample from what was kept of each seed. The runs of the commonest ``seed`` are its train
    seeds; those of other ones vary everything.
    """
    bases = [run.seed for run in runs]
    base = max(sorted(set(bases)), key=bases.count, default=0)
    same = [run for run in runs if run.seed == base]
    other = {f"seed {run.seed}, train seed {run.train_seed}": run for run in runs if run.seed != base}
    samples = same[0].samples if same else pd.DataFrame({"kind": [], "group": []})
    samples = samples if kind == "all" else samples[samples["kind"] == kind]
    n = len(samples)
    kept: dict[tuple[str, str, str], tuple[float, np.ndarray] | None] = {}

    def of(run: Seed, arm: str, metric: str) -> tuple[float, np.ndarray] | None:
        key = (run.name, arm, metric)
        if key not in kept:
            kept[key] = run.statistic(arm, metric, kind)
        return kept[key]

    def minus(run: Seed, first: str, second: str, metric: str) -> tuple[float, np.ndarray] | None:
        a, b = of(run, first, metric), of(run, second, metric)
        return None if a is None or b is None else (b[0] - a[0], b[1] - a[1])

    means = {}
    for arm in dict.fromkeys([*ROWS, *(arm for run in runs for arm in run.arms)]):
        for metric in metrics:
            found = {run.train_seed: of(run, arm, metric) for run in same}
            if some := _mean(found, {name: of(run, arm, metric) for name, run in other.items()}, n):
                means[arm, metric] = replace(some, ours=_possible(some.ours, metric))
    claims = []
    for first, second, claim in CLAIMS:
        for metric in (name for name in metrics if name in (*CLAIMED, *ALSO.get((first, second), ()))):
            pair = FILLED[first], FILLED[second], metric
            found = {run.train_seed: minus(run, *pair) for run in same}
            if one := _mean(found, {name: minus(run, *pair) for name, run in other.items()}, n):
                paper = expected(first, second, metric, kind)
                order = Order(claim, first, second, metric, kind, *paper, one.ours, one.p)
                claims.append(Claim(**vars(one), order=order))
    seeds = sorted(run.train_seed for run in same)
    return SeedTable(kind, seeds, list(other), n, samples["group"].nunique(), means, _decided(claims))


def _mean(
    found: dict[int, tuple[float, np.ndarray] | None], other: dict[str, tuple[float, np.ndarray] | None], n: int
) -> Mean | None:
    """Over the seeds that have it; None if none has."""
    some = {seed: both for seed, both in found.items() if both is not None}
    if not some:
        return None
    each = {seed: value for seed, (value, _) in some.items()}
    components = spread(np.stack([values for _, values in some.values()]))
    value = float(np.mean(list(each.values())))
    varied = {name: both[0] for name, both in other.items() if both is not None}
    return Mean(components.interval(value, n), each, varied, components, components.p_value(value))


def _possible(ours: Interval, metric: str) -> Interval:
    """An arm's interval without what cannot be: distances and shares below 0, shares above 1."""
    share = METRICS[metric].unit == "%"
    distance = METRICS[metric].distance and not getattr(METRICS[metric], "signed", False)
    lo = 0.0 if (share or distance) and ours.lo < 0 else ours.lo
    return replace(ours, lo=lo, hi=1.0 if share and ours.hi > 1 else ours.hi)


def unresolved(claims: Sequence[Claim]) -> int:
    """How many Holm's procedure has not taken: the undecided, and those equal in the paper that may be equal here."""
    return sum(bool(np.isfinite(claim.p)) and not claim.order.resolved for claim in claims)


def _decided(claims: list[Claim]) -> list[Claim]:
    """With corrected verdicts, and what the undecided ones would need: a p-value of 5 % over the number of unresolved
    ones, which is when Holm's procedure would take the next one."""
    orders = adjust([claim.order for claim in claims])
    claims = [Claim(**{**vars(claim), "order": order}) for claim, order in zip(claims, orders, strict=True)]
    left = unresolved(claims)
    out = []
    for claim in claims:
        more: int | None = len(claim.each)
        if claim.verdict == "undecided":
            needed = claim.spread.seeds_for(claim.ours.value, (1 - LEVEL) / left)
            more = needed and max(needed, len(claim.each) + 1)
        out.append(Claim(**{**vars(claim), "more": more}))
    return out


def _line(one: Mean) -> dict[str, object]:
    deviation = [float(np.sqrt(max(x, 0.0))) for x in (one.spread.seed, one.spread.group, one.spread.both)]
    return {
        "seeds": len(one.each),
        **dict(zip(("value", "lo", "hi"), (one.ours.value, one.ours.lo, one.ours.hi), strict=True)),
        **dict(zip(("sd_seed", "sd_group", "sd_both"), deviation, strict=True)),
        "each": " ".join(f"{seed}:{value:.6g}" for seed, value in one.each.items()),
    }


def kinds(runs: Sequence[Seed]) -> list[str]:
    """The kinds of samples there are, all together last."""
    there = {kind for run in runs for kind in run.samples["kind"]}
    return [kind for kind in KINDS if kind in there or kind == "all"]
