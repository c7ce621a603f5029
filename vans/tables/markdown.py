"""A table as Markdown that can be read in git: values with intervals, orders, protocol."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from vans.files import atomic_write_text
from vans.score.metrics import METRICS, NONE, PAPER_METRICS, cell, number
from vans.score.score import KINDS, Scores
from vans.tables.orders import SYSTEM_CLAIMS, Order, orders, sentences
from vans.tables.tables import ABLATION, MAIN, Table, metrics_json
from vans.visible import words

HEADLINE = (*PAPER_METRICS, "video_event")
DETAILS = "## Details"  # what stands above it is what the README shows
DISCLAIMER = (
    "The columns marked *paper* are the figures of arXiv 2511.16669: other data, other models, another "
    "detector, so not the same quantity. What can be compared is which row is better than which, not a value "
    "with a value."
)
CORRECTED = (
    "Verdicts are corrected for the {n} differences of this table (Holm: the chance of even one false *holds* or *does "
    "not hold* is at most 5 %); the intervals are not, so that one may stand clear of 0 beside *not resolved*."
)
ABOUT_ORDERS = (
    "Paired differences (second minus first, same samples, same resamples) with their 95 % intervals. *Holds*: the "
    "difference is resolved and lies on the side of 0 that the paper's difference has (where it gives none: on the "
    "better side). *Not resolved*: the interval contains 0, or the p-value (normal, from the resamples' spread) is "
    "above 0.05 once corrected."
)
ABOUT_CLAIMS = (
    "Over all samples. *Holds*: the paired difference is resolved at 5 % and lies on the side of 0 where the paper's "
    "difference lies (where it gives none: on the better side). *Not resolved*: it cannot be told from 0."
)
NOTES = {
    "no_v1": "the same arm as *GRPO (VLM only)*: text rewards alone is what is left of stage 1 without r_v1 "
    "(the paper reports two different figures for the two)",
    "all_in_one": "the paper also reports ROUGE-L 0.3577, FVD 81.01, CLIP-V 0.7800 for it elsewhere",
}


def write(table: Table, folder: str | Path, more: Sequence[str] = ()) -> None:
    """Write ``<name>.csv`` and ``<name>.md``, and with the main table ``metrics.json``. ``more``: sections."""
    folder = Path(folder)
    atomic_write_text(folder / f"{table.layout.name}.csv", table.csv())
    atomic_write_text(folder / f"{table.layout.name}.md", markdown(table, more))
    if table.layout.name == MAIN.name:
        atomic_write_text(folder / "metrics.json", metrics_json(table))


def markdown(table: Table, more: Sequence[str] = ()) -> str:
    """The whole file: a table of each kind, what became of the paper's orders, details, protocol, warnings."""
    layout = table.layout
    parts = [f"# {layout.title}", f"{_ours(table)} {DISCLAIMER}"]
    kinds = [kind for kind in table.kinds if kind != "all"] or table.kinds
    for kind in kinds:
        parts += [f"## {kind.capitalize()}", grid(table, kind, HEADLINE, with_paper=True)]
    told = NOTES if layout.name == ABLATION.name else {}
    if notes := [
        f"- {escaped(f'{row.title}: {note}')}." for row in layout.rows if (note := row.note or told.get(row.name))
    ]:
        parts.append("\n".join(notes))
    parts += ["## Do the paper's orders hold?", claims(table)]
    parts.append(DETAILS)
    for kind in kinds:
        for title, names in _groups(table).items():
            parts += [f"### {escaped(title)}: {kind}", grid(table, kind, names, with_paper=False)]
    parts += [*more, "### Every difference", _orders(table)]
    parts += ["## Protocol", _protocol(table)]
    return "\n\n".join(parts) + "\n"


def _ours(table: Table) -> str:
    level = f"{next(iter(table.scores.values())).resampling.level:.0%}"
    return f"Measured by this repository; in brackets the {level} interval, n the number of samples."


def _groups(table: Table) -> dict[str, tuple[str, ...]]:
    """Heading -> the measured metrics under it: the oracle's first, BLEU last, without the paper's."""
    some = [METRICS[name] for name in METRICS if name in table.frame and name not in PAPER_METRICS]
    order = sorted({metric.group for metric in some}, key=lambda group: (group == "BLEU", "oracle" not in group))
    return {group: tuple(metric.name for metric in some if metric.group == group) for group in order}


def _header(name: str, scores: dict[str, Scores]) -> str:
    return METRICS[name].heading + (f" ({detector(scores, short=True)})" if name == "fvd" else "")


def detector(scores: dict[str, Scores], short: bool = False) -> str:
    """What FVD was measured with; ``short``: its name alone, what stands before the first comma."""
    told = [one.summary["protocol"].get("fvd") for one in scores.values()]
    words = next(filter(None, told), "none: no videos").removeprefix("detector: ")
    return words.split(",")[0].split(";")[0] if short else words


def grid(table: Table, kind: str, names: tuple[str, ...], with_paper: bool) -> str:
    lines = table.frame[table.frame["kind"] == kind]
    names = tuple(name for name in names if name in lines and (with_paper or lines[name].notna().any())) or names
    head = ["configuration", "n", *(_header(name, table.scores) for name in names)]
    if with_paper:
        head += [f"*paper* {METRICS[name].title}" for name in PAPER_METRICS]
    body = []
    for _, line in lines.iterrows():
        if not with_paper and pd.isna(line["n"]):
            continue
        cells = [cell(line[name], line[f"{name}_lo"], line[f"{name}_hi"], METRICS[name]) for name in names]
        count = NONE if pd.isna(line["n"]) else str(int(line["n"]))
        if with_paper:
            cells += [_paper_cell(line[f"paper_{name}"], name) for name in PAPER_METRICS]
        body.append([line["title"], count, *cells])
    return grid_of(head, body)


def _paper_cell(value: float, name: str) -> str:
    return NONE if pd.isna(value) else f"*{value:.2f}*" if name == "fvd" else f"*{value:.4f}*"


def grid_of(head: Sequence[str], body: list[list[str]]) -> str:
    """A Markdown table, its columns padded so that the source can be read too."""
    head, *body = [[escaped(text).replace("|", "\\|") for text in row] for row in [head, *body]]
    wide = [max(len(row[i]) for row in [head, *body]) for i in range(len(head))]
    lines = [[text.ljust(width) for text, width in zip(row, wide, strict=True)] for row in [head, *body]]
    lines.insert(1, ["-" * width for width in wide])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def escaped(text: str) -> str:
    """Words in one line, in which no name can become HTML, code, a formula or a link; emphasis stays."""
    return re.sub(r"[\\`$]|\](?=\()", r"\\\g<0>", re.sub(r"&(?=#?\w+;)", "&amp;", words(text)).replace("<", "&lt;"))


def capital(line: str) -> str:
    """The line as a sentence; r_t1 stays."""
    return line if line[1:2] == "_" else line[:1].upper() + line[1:]


def _orders(table: Table) -> str:
    if not table.orders:
        return "None can be checked: the rows that they compare were not both scored."
    kinds = [kind for kind in KINDS if any(order.kind == kind for order in table.orders)]
    head = ["claim", "metric", "paper", *(f"here, {kind}" for kind in kinds)]
    grouped: dict[tuple[str, str], dict[str, Order]] = {}
    for order in table.orders:
        grouped.setdefault((order.claim, order.metric), {})[order.kind] = order
    body = []
    for (claim, name), by_kind in grouped.items():
        gaps = [_gap(order, kind) for kind, order in by_kind.items() if order.paper is not None]
        cells = [_verdict(by_kind[kind]) if kind in by_kind else NONE for kind in kinds]
        body.append([claim, METRICS[name].title, ", ".join(gaps) or NONE, *cells])
    return f"{ABOUT_ORDERS} {CORRECTED.format(n=len(table.orders))}\n\n{grid_of(head, body)}"


def claims(table: Table) -> str:
    """What became of each claim over all samples, one line each."""
    kinds = {order.kind for order in table.orders}
    kind = "all" if "all" in kinds else min(kinds, default="all")
    found = sentences(table.orders, kind)
    lines = "\n".join(f"- {escaped(capital(line))}" for line in found)
    about = f"{ABOUT_CLAIMS} {CORRECTED.format(n=len(table.orders))}"
    return f"{about}\n\n{lines}" if lines else "None can be checked: no two rows that they compare were scored."


def against_systems(table: Table) -> tuple[Table, str]:
    """The main table with its claims about the other systems in the place of its own, and their section: a family of
    tests of its own, so that the method's own claims are not corrected for them."""
    others = replace(table, orders=orders(table.scores, SYSTEM_CLAIMS, table.layout.arms))
    return others, f"### Against the other systems\n\n{_orders(others)}"


def _gap(order: Order, kind: str) -> str:
    digits = 2 if order.metric == "fvd" else 4
    return f"{order.paper:+.{digits}f} ({kind[:4]}.)".replace("-", "−")


def _verdict(order: Order) -> str:
    metric, ours = METRICS[order.metric], order.ours
    text = f"{number(ours.value, metric, sign=True)} [{number(ours.lo, metric)}, {number(ours.hi, metric)}]"
    return f"{text} **{order.verdict}**"


def _protocol(table: Table) -> str:
    """One list if all arms were scored alike, else one per arm that differs."""
    lines: list[str] = []
    groups: dict[str, list[str]] = {}
    for arm, scores in table.scores.items():
        text = "\n".join(f"- {escaped(f'{k}: {v}')}." for k, v in scores.summary["protocol"].items())
        groups.setdefault(text, []).append(arm)
    for text, arms in groups.items():
        lines += [f"Scored so: {escaped(', '.join(arms))}." if len(groups) > 1 else "", text]
    if answers := {arm: told for arm, scores in table.scores.items() if (told := scores.summary.get("answers"))}:
        lines += ["Somebody else's answers:", "\n".join(f"- {escaped(f'{k}: {v}')}." for k, v in answers.items())]
    about = [
        f"- {escaped(f'{METRICS[name].title}: {METRICS[name].about}')}." for name in METRICS if name in table.frame
    ]
    warnings = sorted({warning for scores in table.scores.values() for warning in scores.summary["warnings"]})
    lines += ["Metrics:", "\n".join(about)]
    if warnings:
        lines += ["Warnings:", "\n".join(f"- {escaped(warning)}." for warning in warnings)]
    return "\n\n".join(line for line in lines if line)
