"""The numbers of a page, read from the tables of results/: none is typed and none computed anew."""

import html
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from vans import spreadsheet
from vans.score.metrics import METRICS, PAPER_METRICS, cell, number
from vans.score.score import KINDS
from vans.tables.report import CLAIMS, short
from vans.tables.seeds_table import ROWS

SHOWN = (*PAPER_METRICS, "caption_event", "video_event")
WIDE = 100  # what an interval is drawn in


@dataclass(frozen=True)
class Line:
    """An arm's number in one metric; left, right, at: its interval and itself on 0..WIDE."""

    arm: str
    title: str
    value: str
    interval: str
    left: float
    right: float
    at: float


@dataclass(frozen=True)
class Block:
    """One metric of all arms."""

    heading: str
    about: str
    lines: list[Line]


@dataclass(frozen=True)
class Table:
    """blocks: to look at. grid: everything, its first line the headings. samples: how many. seeds: of how many
    trainings (0: not told). level: of the intervals, in words. claims: what became of the paper's orders, as HTML that
    is escaped."""

    kind: str
    blocks: list[Block]
    grid: list[list[str]]
    samples: int
    seeds: int
    level: str
    claims: str


def of_arms(folder: Path, name: str) -> Table:
    """The main or the ablation table. OSError or ValueError for one that cannot be read."""
    frame = spreadsheet.read(folder / f"{name}.csv", ["kind", "row", "title", "arm"])
    frame = frame[frame["n"].notna()]
    kind = _kind(frame)
    rows = frame[frame["kind"] == kind].reset_index(drop=True)
    known = [metric for metric in METRICS if metric in rows and rows[metric].notna().any()]
    rows = rows.reindex(columns=[*dict.fromkeys([*rows, *(f"{m}_{end}" for m in known for end in ("lo", "hi"))])])
    blocks = [_block(rows, metric, *(metric, f"{metric}_lo", f"{metric}_hi")) for metric in SHOWN if metric in known]
    grid = [["", "n", *(METRICS[metric].heading for metric in known)]]
    for _, row in rows.iterrows():
        values = (cell(row[m], row[f"{m}_lo"], row[f"{m}_hi"], METRICS[m]) for m in known)
        grid.append([row["title"], str(int(row["n"])), *values])
    return Table(kind, blocks, grid, int(rows["n"].max()), 0, *said(folder / f"{name}.md"))


def of_seeds(folder: Path) -> Table:
    """The table over training seeds."""
    frame = spreadsheet.read(folder / "seeds.csv", ["kind", "row", "claim", "metric"])
    frame = frame[(frame["claim"] == "") & frame["metric"].isin(METRICS)]
    kind = _kind(frame)
    rows = frame[frame["kind"] == kind].assign(arm=frame["row"], title=frame["row"].map(lambda arm: ROWS.get(arm, arm)))
    metrics = list(dict.fromkeys(rows["metric"]))
    by = {metric: rows[rows["metric"] == metric].reset_index(drop=True) for metric in metrics}
    blocks = [_block(by[metric], metric, "value", "lo", "hi") for metric in metrics]
    grid = [["", *(METRICS[metric].heading for metric in metrics)]]
    for arm in dict.fromkeys(rows["arm"]):
        some = [by[metric][by[metric]["arm"] == arm] for metric in metrics]
        cells = []
        for one, metric in zip(some, metrics, strict=True):
            value, lo, hi = one[["value", "lo", "hi"]].iloc[0].tolist() if len(one) else [float("nan")] * 3
            cells.append(cell(value, lo, hi, METRICS[metric]))
        grid.append([ROWS.get(arm, arm), *cells])
    seeds = 0 if rows.empty else int(rows["seeds"].max())
    return Table(kind, blocks, grid, 0, seeds, *said(folder / "seeds.md"))


def _kind(frame: pd.DataFrame) -> str:
    there = set(frame["kind"])
    if "all" in there or not there:
        return "all"
    return next((kind for kind in KINDS if kind in there), min(there))


def _block(rows: pd.DataFrame, metric: str, value: str, lo: str, hi: str) -> Block:
    some = rows[rows[value].notna()]
    numbers = some[[value, lo, hi]].astype(float)
    numbers = numbers.assign(**{lo: numbers[lo].fillna(numbers[value]), hi: numbers[hi].fillna(numbers[value])})
    least, most = min(0.0, numbers[lo].min()), numbers[hi].max()
    if METRICS[metric].better == "up" and METRICS[metric].unit != "%":  # similarities: where the numbers are
        least = numbers[lo].min()
    room = max(most - least, 1e-9)

    def at(x: float) -> float:
        return round(2 + (WIDE - 4) * (x - least) / room, 2)

    lines = []
    for (_, row), (own, low, high) in zip(some.iterrows(), numbers.to_numpy(), strict=True):
        told = METRICS[metric]
        ends = "" if pd.isna(row[lo]) else f"[{number(row[lo], told)}, {number(row[hi], told)}]"
        lines.append(Line(row["arm"], row["title"], number(own, told), ends, at(low), at(high), at(own)))
    return Block(METRICS[metric].heading, METRICS[metric].about, lines)


# ------------------------------------------------------------------------------------------------- words
def said(path: Path) -> tuple[str, str]:
    """(level of the intervals, what became of the paper's orders as HTML) by a table's Markdown; without it both are
    empty."""
    if not path.is_file():
        return "", ""
    text = short(path.read_text(encoding="utf-8"))
    level = re.search(r"in brackets (?:the )?(\d+) ?% interval", text)
    return f"{level[1]} %" if level else "", prose(text.partition(CLAIMS)[2].strip())


def prose(text: str) -> str:
    """Paragraphs, bullets and emphasis of Markdown that `vans.tables.markdown` wrote; everything else is escaped."""
    parts = []
    for part in filter(None, text.split("\n\n")):
        if part.startswith("- "):
            items = (_inline(line.removeprefix("- ")) for line in part.splitlines())
            parts.append("<ul>" + "".join(f"<li>{item}</li>" for item in items) + "</ul>")
        else:
            parts.append(f"<p>{_inline(part)}</p>")
    return "\n".join(parts)


def _inline(line: str) -> str:
    plain = html.unescape(re.sub(r"\\([\\`$\]|])", r"\1", line))
    strong = re.sub(r"\*\*([^*]+)\*\*", r"<strong>\1</strong>", html.escape(plain))
    return re.sub(r"\*([^*]+)\*", r"<em>\1</em>", strong)
