"""The table over training seeds as Markdown and CSV, and as README's headline."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vans import spreadsheet
from vans.files import atomic_write_text
from vans.score.metrics import METRICS, NONE, PAPER_METRICS, cell, number
from vans.tables.markdown import DETAILS, capital, escaped, grid_of
from vans.tables.orders import VERBS
from vans.tables.seeds import Seed
from vans.tables.seeds_table import HOURS, ROWS, Claim, Mean, SeedTable, build, kinds, unresolved

LEAST = 3  # seeds from which README shows this table
VERDICTS = {**VERBS, "undecided": "undecided for", "not measured": "too few seeds for"}
NO_SEEDS = "No seed is kept yet. `vans seeds` keeps those that ran (docs/seeds.md)."
ABOUT = (
    "Means over training seeds; in brackets 95 % intervals over trainings *and* samples (two-way random effects, every "
    "training on the same samples; docs/seeds.md). Differences are paired by seed and sample."
)
ABOUT_CLAIMS = (
    "*Holds*: the difference lies on the side of 0 where the paper's lies (where it gives none: on the better side), "
    "with a p-value of at most 5 % once corrected for the {n} differences that have one (Holm: the chance of even one "
    "false *holds* or *does not hold* is at most 5 %). *Undecided*: it cannot be told from 0."
)
ABOUT_MORE = (
    "*Seeds needed*: with how many in all the verdict would fall if mean and spread stayed what they are, at p ≤ 5 % "
    "over the number of those that cannot be told from 0 ({n}), which is when Holm's procedure takes the next one; "
    "*samples*: more seeds alone would not do. A seed of the whole grid costs about {hours} h of two cores. *SD*: of "
    "trainings (σ_a), of groups of samples (σ_b) and of both together (σ_e)."
)


def write(runs: Sequence[Seed], folder: Path) -> dict[str, SeedTable]:
    """Write ``seeds.csv`` and ``seeds.md``; returns the table of each kind of sample. Without seeds they say so."""
    tables = {kind: build(runs, kind) for kind in kinds(runs)} if runs else {}
    frames = [table.frame() for table in tables.values()]
    frame = pd.concat(frames) if frames else pd.DataFrame(columns=["kind", "row", "claim", "metric"])
    atomic_write_text(folder / "seeds.csv", spreadsheet.write(frame, "%.6g"))
    atomic_write_text(folder / "seeds.md", markdown(tables))
    return tables


def markdown(tables: dict[str, SeedTable]) -> str:
    """The whole file: the table over all samples, the claims, then every kind, every difference and every seed."""
    title = "# The ablation over training seeds"
    if "all" not in tables:
        return f"{title}\n\n{NO_SEEDS}\n"
    table = tables["all"]
    parts = [title, f"{_counted(table)} {ABOUT}", grid(table), "## Do the paper's orders hold?", claims(table)]
    parts.append(DETAILS)
    parts += ["### Every difference", _differences(table)]
    for kind in (kind for kind in tables if kind != "all"):
        parts += [f"### {kind.capitalize()} samples", _counted(tables[kind]), grid(tables[kind]), claims(tables[kind])]
    for metric in table.metrics:
        parts += [f"### Every seed: {escaped(METRICS[metric].heading)}", _every_seed(table, metric)]
    return "\n\n".join(parts) + "\n"


def headline(folder: Path, rows: dict[str, str]) -> str | None:
    """README's part on seeds from what is published in a folder: ``rows`` in the paper's metrics, the claims; None with
    fewer than LEAST seeds. ``rows``: arm -> title."""
    from vans.tables.seeds import load

    runs = load(folder / "seeds")
    table = build(runs) if runs else None
    if table is None or len(table.seeds) < LEAST:
        return None
    return "\n\n".join([grid(table, rows, PAPER_METRICS), f"{_counted(table)} {ABOUT}", claims(table)])


def grid(table: SeedTable, rows: dict[str, str] | None = None, metrics: Sequence[str] = ()) -> str:
    """Rows of arms, columns of metrics: mean and interval."""
    names = list(metrics) or table.metrics
    rows = {arm: ROWS.get(arm, arm) for arm in table.arms} if rows is None else rows
    some = {arm: title for arm, title in rows.items() if arm in table.arms}
    body = []
    for arm, title in some.items():
        found = [table.means.get((arm, metric)) for metric in names]
        count = max(len(one.each) for one in found if one) if any(found) else 0
        body.append([title, str(count), *(_cell(one, m) for one, m in zip(found, names, strict=True))])
    return grid_of(["", "seeds", *(METRICS[name].heading for name in names)], body)


def claims(table: SeedTable) -> str:
    """What became of each claim, one line each, and what the undecided ones would cost."""
    if not table.tested:
        return "Verdicts over seeds need two seeds at least."
    lines = [f"- {escaped(capital(line))}" for line in sentences(table)]
    return "\n\n".join([ABOUT_CLAIMS.format(n=len(table.tested)), "\n".join(lines), _cost(table)])


def sentences(table: SeedTable) -> list[str]:
    """A sentence a claim: the metrics for which it holds, does not hold, is undecided."""
    out = []
    for name in dict.fromkeys(claim.order.claim for claim in table.claims):
        parts = []
        for verdict, words in VERDICTS.items():
            some = [c for c in table.claims if (c.order.claim, c.verdict) == (name, verdict)]
            if some:
                parts.append(f"{words} {', '.join(METRICS[c.order.metric].title for c in some)}")
        out.append(f"{name}: {'; '.join(parts)}.")
    return out


def _cost(table: SeedTable) -> str:
    """What deciding the undecided would take."""
    open_ones = table.undecided
    if not open_ones:
        return "None is undecided."
    within = sorted(claim.more for claim in open_ones if claim.more)
    text = f"Undecided: {len(open_ones)} of {len(table.tested)}."
    if within:
        more = within[0] - max(len(claim.each) for claim in open_ones if claim.more == within[0])
        text += (
            f" At the present means and spreads {len(within)} of them would be decided by more seeds, the nearest with "
            f"{within[0]} ({more} more, about {more * HOURS:.1f} h of two cores), the last with {within[-1]};"
            f" {len(open_ones) - len(within)} would need more samples."
        )
    else:
        text += " None would be decided by more seeds alone: more samples are needed."
    return text


def _counted(table: SeedTable) -> str:
    seeds = f"{len(table.seeds)} training seed{'s' if len(table.seeds) != 1 else ''}"
    told = ", ".join(map(str, table.seeds))
    text = f"{seeds} ({told}) on the same base models, {table.samples} held-out samples in {table.groups} groups."
    if table.varied:
        text += f" Runs that vary base models and everything else, in no mean: {escaped(', '.join(table.varied))}."
    return text


def _cell(one: Mean | None, metric: str) -> str:
    return NONE if one is None else cell(one.ours.value, one.ours.lo, one.ours.hi, METRICS[metric])


def _differences(table: SeedTable) -> str:
    head = ["claim", "metric", "seeds", "difference", "p", "corrected", "verdict", "seeds needed", "SD σ_a, σ_b, σ_e"]
    body = []
    for one in table.claims:
        metric = METRICS[one.order.metric]
        ends = ", ".join(number(x, metric, sign=True) for x in (one.ours.lo, one.ours.hi))
        spreads = [float(np.sqrt(max(x, 0))) for x in (one.spread.seed, one.spread.group, one.spread.both)]
        body.append(
            [
                one.order.claim,
                metric.title,
                str(len(one.each)),
                f"{number(one.ours.value, metric, sign=True)} [{ends}]",
                _p(one.p),
                _p(one.order.adjusted),
                f"**{one.verdict}**",
                _needed(one),
                ", ".join(number(x, metric) for x in spreads),
            ]
        )
    return f"{ABOUT_MORE.format(n=unresolved(table.claims), hours=HOURS)}\n\n{grid_of(head, body)}"


def _needed(one: Claim) -> str:
    if one.verdict != "undecided":
        return ""
    return "samples" if one.more is None else str(one.more)


def _p(value: float) -> str:
    return NONE if not np.isfinite(value) else "< 0.001" if value < 0.001 else f"{value:.3f}"


def _every_seed(table: SeedTable, metric: str) -> str:
    """Arms, then claims, a column a seed; runs that vary everything in columns of their own."""
    rows: list[tuple[str, Mean, bool]] = []
    rows += [(ROWS.get(arm, arm), one, False) for (arm, name), one in table.means.items() if name == metric]
    rows += [(f"{one.order.claim} (difference)", one, True) for one in table.claims if one.order.metric == metric]
    head = ["", *(f"seed {seed}" for seed in table.seeds), *(f"*everything: {name}*" for name in table.varied)]
    body = []
    for title, one, sign in rows:
        values = [one.each.get(seed, np.nan) for seed in table.seeds]
        values += [one.varied.get(name, np.nan) for name in table.varied]
        body.append([title, *(number(value, METRICS[metric], sign) for value in values)])
    return grid_of(head, body)
