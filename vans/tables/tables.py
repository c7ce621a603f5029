"""The main table and the ablation table as data and CSV, generated from scores on disk.

Laid out like the paper's, with its figures in columns of their own: other data, other models, not the same
quantity. A row whose arm was not scored stays in the table, empty.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from vans import spreadsheet
from vans.errors import UserError
from vans.score.metrics import METRICS, PAPER_METRICS, use
from vans.score.score import KINDS, Scores, load_all
from vans.tables import others
from vans.tables.orders import ABLATION_CLAIMS, MAIN_CLAIMS, Order, orders, paper_value


@dataclass(frozen=True)
class Row:
    """One row: its name in ``paper.csv``, its title, the arm that fills it (None: the paper's figures
    alone), and what is to be known of it."""

    name: str
    title: str
    arm: str | None
    note: str = ""


@dataclass(frozen=True)
class Layout:
    """A table before it has numbers: its file name, title, rows and the claims that are checked under it."""

    name: str
    title: str
    rows: tuple[Row, ...]
    claims: tuple[tuple[str, str, str], ...]

    @property
    def arms(self) -> dict[str, str]:
        return {row.name: row.arm for row in self.rows if row.arm}


TOLD = {  # of the other systems: what they are, and what they were trained for
    "extension": "a VDM that is told nothing: frames alone; as many samples as SFT's",
    "unified": "no caption in between: hidden states drive the DiT; the FLOPs of both SFTs",
    "cascade": "a VLM and a VDM that never met; each on half of the scenes, as many samples as SFT's",
}
MAIN = Layout(
    "main",
    "Main table",
    (
        Row("textual", "text alone (TEMPURA's kind)", "textual", "SFT's VLM; as VLEP, MVP and TEMPURA answer"),
        Row("extension", "video extension (Video-GPT's kind)", "extension", TOLD["extension"]),
        Row("omni", "unified (Omni-Video's kind)", "unified", TOLD["unified"]),
        Row("filmweaver", "cascade (Gemini-FilmWeaver's kind)", "cascade", TOLD["cascade"]),
        Row("copy", "copy of the input", "copy"),
        Row("sft", "VANS (SFT)", "sft"),
        Row("stage1", "VANS (stage 1 only)", "stage1"),
        Row("main", "VANS (Joint-GRPO)", "main"),
        Row("ceiling", "true captions, SFT VDM", "ceiling"),
        Row("ceiling_main", "true captions, Joint-GRPO VDM", "ceiling_main"),
    ),
    MAIN_CLAIMS,
)
ABLATION = Layout(
    "ablation",
    "Ablation table",
    (
        Row("sft", "SFT", "sft"),
        Row("vlm_only", "GRPO (VLM only)", "vlm_only"),
        Row("vdm_only", "GRPO (VDM only)", "vdm_only"),
        Row("vlm_vdm", "GRPO (VLM + VDM)", "vlm_vdm"),
        Row("no_t1", "stage 1 without r_t1", "no_t1"),
        Row("no_v1", "stage 1 without r_v1", "vlm_only"),
        Row("stage1", "stage 1 only", "stage1"),
        Row("no_c2", "stages 1+2 without r_c2", "no_c2"),
        Row("no_v2", "stages 1+2 without r_v2", "no_v2"),
        Row("all_in_one", "all in one stage", "all_in_one"),
        Row("main", "Joint-GRPO, full", "main"),
    ),
    ABLATION_CLAIMS,
)
CHOSEN = {  # by whom the best of several answers was chosen -> how it is called, what is to be known of it
    "clip_t_own": (
        "CLIP-T own",
        "chosen at test time, by CLIP's opinion of video and own caption; no truth is seen, nothing is trained",
    ),
    "video_event": ("the oracle (ceiling)", "no method: who chooses knows the true event; the ceiling of any choice"),
}
EXPERIMENT_METRICS = (*PAPER_METRICS, "clip_t_own", "caption_event", "video_event", "identity", "static")
LAYOUTS = {"main": MAIN, "ablation": ABLATION}


@dataclass(frozen=True)
class Table:
    """A layout with its scores: ``frame`` has one line per kind and row (the CSV), ``orders`` the claims."""

    layout: Layout
    scores: dict[str, Scores]
    frame: pd.DataFrame
    orders: list[Order]

    @property
    def kinds(self) -> list[str]:
        return list(dict.fromkeys(self.frame["kind"]))

    def csv(self) -> str:
        return spreadsheet.write(self.frame, "%.6g")


def with_arms(layout: Layout, arms: Mapping[str, Any]) -> Layout:
    """A layout with a row for each of these arms that no table has: a new cell of dvc.yaml needs no line here."""
    known = {row.arm for one in LAYOUTS.values() for row in one.rows}
    return replace(layout, rows=(*layout.rows, *(_row(key, arms) for key in arms if key not in known)))


def _row(key: str, arms: Mapping[str, Any]) -> Row:
    """The row of an arm of dvc.yaml. One that chooses among several answers is called by the arm that gives them."""
    arm = arms[key]
    if not arm.best_of:
        return Row(key, key, key)
    of = (arm.vlm, arm.vdm, arm.captions)
    same = [other for other, a in arms.items() if not a.best_of and (a.vlm, a.vdm, a.captions) == of]
    titles = [row.title for row in (*ABLATION.rows, *MAIN.rows) if row.arm in same] or [key]
    by, about = CHOSEN[arm.best_of["by"]]
    return Row(key, f"{titles[0]}, best of {arm.best_of['n']} by {by}", key, about)


def build(
    folder: str | Path, layout: Layout, own: Sequence[str] = (), given: str | Path | None = None
) -> Table:
    """Fill a layout from a folder of scores. ``own``: the user's own metrics, as in ``evaluate.metrics``. ``given``: a
    folder with scores of somebody else's answers, which get rows at the end (`vans.tables.others`).

    Raises UserError if none of its arms was scored.
    """
    use(own)
    arms = list(dict.fromkeys(layout.arms.values()))
    scores = load_all(folder, arms)
    if not scores:
        raise UserError(f"{folder}: holds the scores of none of {', '.join(arms)}; run `dvc repro benchmarks`")
    if given is not None:
        more, notes = others.given(given, scores)
        scores |= more
        rows = (Row(name, name, name if name in more else None, note) for name, note in notes.items())
        layout = replace(layout, rows=(*layout.rows, *rows))
    measured = [name for name in METRICS if any(s.interval(k, name) for s in scores.values() for k in KINDS)]
    kinds = [kind for kind in KINDS if any(kind in s.kinds for s in scores.values())]
    lines = [_line(layout, row, kind, scores, measured) for kind in kinds for row in layout.rows]
    found = orders(scores, layout.claims, layout.arms)
    return Table(layout, scores, pd.DataFrame(lines), found)


def metrics_json(table: Table) -> str:
    """The values over all samples of the trained arms, small, for `dvc metrics` and `dvc exp show`."""
    arms = [arm for arm in ("sft", "stage1", "main") if arm in table.scores]
    out: dict[str, dict[str, float]] = {}
    for arm in arms:
        found = {name: table.scores[arm].interval("all", name) for name in EXPERIMENT_METRICS}
        out[arm] = {name: interval.value for name, interval in found.items() if interval is not None}
    return json.dumps(out, indent=2) + "\n"


def _line(layout: Layout, row: Row, kind: str, scores: dict[str, Scores], measured: list[str]) -> dict[str, object]:
    """One line of the CSV: names, n, each metric with its ends, the paper's figures, FVD's detector."""
    arm = scores.get(row.arm or "")
    line: dict[str, object] = {"kind": kind, "row": row.name, "title": row.title, "arm": row.arm}
    line["n"] = None if arm is None else len(arm.frame) if kind == "all" else int((arm.frame["kind"] == kind).sum())
    for name in measured:
        found = None if arm is None else arm.interval(kind, name)
        ends = (None, None, None) if found is None else (found.value, found.lo, found.hi)
        line |= dict(zip((name, f"{name}_lo", f"{name}_hi"), ends, strict=True))
    line |= {f"paper_{name}": paper_value(row.name, kind, name) for name in PAPER_METRICS}
    line["fvd_detector"] = None if arm is None else arm.summary["protocol"].get("fvd")
    return line
