"""Curation: source videos -> triplets (input clip, question, reasoning, caption, target clip) and a report.

Written into the triplets folder: manifest.parquet (columns: shards.COLUMNS), shards/00000.tar, ... (clips
<id>.input.avi and <id>.target.avi), report.json (what came in = kept + dropped by reason), dropped.csv (every
single drop), segments.csv (every segment with its times and what became of it).

Deviations from the paper (1: see annotate.py):
2. The best clip of a segment is the window with most motion, as long as the model's clip (frames / fps =
   3 s), where the paper asks a multimodal LLM for the best 3-5 s. Input clips are as long as target clips
   (the paper's input clips average 9.43 s).
3. The RL subset is a fixed draw from the training split, half procedural and half predictive, where the paper
   picks 1 K triplets by hand.
"""

import hashlib
import json
import re
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from vans.data import sources
from vans.data.annotate import Refused, Request, rules
from vans.data.draw import Draw
from vans.data.ledger import Ledger
from vans.data.pairs import pairs
from vans.data.records import Record
from vans.data.shards import COLUMNS, ShardWriter
from vans.errors import UserError
from vans.files import atomic_dir

Made = tuple[dict, tuple[bytes, bytes]]  # manifest row without storage columns, (input, target) file bytes


def curate(data_dir: str | Path, out_dir: str | Path, params: Any, progress: bool = True) -> dict:
    """Make triplets of everything in data_dir; out_dir is replaced as a whole, or left alone on any error.

    params: seed, clip (frames, height, width, fps), curate (min_segment s, codec, annotator, flowery, rl,
    shot_threshold). Returns the report. Raises UserError if nothing is kept or the splits overlap.
    """
    found = sources.discover(data_dir)
    ledger = Ledger(root=str(data_dir), drops=list(found.dropped))
    records = unique(found.records, ledger)
    with atomic_dir(out_dir) as partial:
        writer = ShardWriter(partial / "shards")
        rows: list[dict] = []
        for record in tqdm(
            records, desc="curate", unit="video", disable=not progress, file=sys.stderr, mininterval=2.0
        ):
            before = len(ledger.drops)
            try:
                made = triplets_of(record, params, ledger)
            except UserError as error:
                ledger.note(error)
                ledger.drop("video", record.title, "unreadable")
                continue
            rows += [{**row, **writer.add(row["id"], clips, params.curate.codec)} for row, clips in made]
            if made:
                ledger.kept["video"] += 1
            else:
                why = [reason for _, _, reason in ledger.drops[before:]] or ["fewer than two segments"]
                ledger.drop("video", record.title, f"no pair: {why[-1]}")
        writer.close()
        if not rows:
            raise UserError(f"{data_dir}: no triplet could be made: {_reasons(ledger)}")
        mark_rl(rows, params.curate.rl, params.seed)
        check_splits(rows)
        _write(partial, rows, result := report(rows, ledger), ledger)
    return result


def unique(records: list[Record], ledger: Ledger) -> list[Record]:
    """Drop videos that are missing, and of files with the same bytes all but the best annotated one.

    Otherwise both splits might see the same video.
    """
    present = []
    by_size: dict[int, list[Record]] = {}
    for record in records:
        if record.path is not None:
            by_size.setdefault(record.path.stat().st_size, []).append(record)
        elif not record.given or any(None in g.files for g in record.given):
            ledger.drop("video", record.title, "video missing")
            continue
        present.append(record)
    twins = set()
    for group in by_size.values():
        seen = set()
        for record in sorted(group, key=_poorness) if len(group) > 1 else []:
            assert record.path is not None
            key = hashlib.sha256(record.path.read_bytes()).digest()
            if key in seen:
                twins.add(record.title)
                ledger.drop("video", record.title, "same file as another video")
            seen.add(key)
    return [r for r in present if r.title not in twins]


def _poorness(record: Record) -> int:
    """0: texts given; 1: times annotated; 2: shots labelled; 3: nothing known."""
    known = (bool(record.given), record.segments is not None, record.labels is not None, True)
    return known.index(True)


def triplets_of(record: Record, params: Any, ledger: Ledger) -> list[Made]:
    """All triplets of one video (a procedural test video gives one). UserError if the video is unreadable."""
    made: list[Made] = []
    for first, second, texts in pairs(record, params, ledger):
        name = id_of(record, first.segment.id, second.segment.id)
        request = Request(name, record.kind, record.topic, first.segment.label, second.segment.label, texts)
        try:
            flowery = params.curate.flowery if record.split == "train" else 0.0
            written = rules(request, params.seed, flowery)
        except Refused as reason:
            ledger.drop("pair", name, str(reason))
            continue
        ledger.refused += [f"{name}: {question}" for question in written.refused]
        row = {
            **{"id": name, "source": record.source, "kind": record.kind, "split": record.split, "rl": False},
            **{"video": record.title, "scene": record.scene, "subset": record.subset},
            **{"input_start": first.start, "input_end": first.end},
            **{"target_start": second.start, "target_end": second.end},
            **{"input_sentence": first.segment.label, "target_sentence": second.segment.label},
            **{"recipe_type": record.recipe_type, "condition": record.condition, "topic": record.topic},
            **{"question": written.question, "reasoning": written.reasoning},
            **{"caption": written.caption, "style": written.style},
        }
        made.append((row, (first.data, second.data)))
    if record.split == "test" and record.kind == "procedural" and len(made) > 1:
        keep = Draw(params.seed, "test", record.title).below(len(made))
        for row, _ in made[:keep] + made[keep + 1 :]:
            ledger.drop("pair", str(row["id"]), "test split takes one pair per procedural video")
        made = made[keep : keep + 1]
    ledger.kept["pair"] += len(made)
    return made


def id_of(record: Record, first: str, second: str) -> str:
    """A triplet's id: letters, digits, . _ -, at most 80 long; changed names get a digest, to differ."""
    full = f"{record.source}-{record.name}-{first}-{second}"
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", full)
    if plain == full and len(full) <= 80:
        return full
    return f"{plain[:68]}-{hashlib.sha256(full.encode()).hexdigest()[:10]}"


def mark_rl(rows: list[dict], count: int, seed: int) -> None:
    """Set rl on `count` training rows, half of them procedural where there are enough of both kinds.

    A caption that leaves open what is to be seen (a flowery one) is no reference for a video: it is not taken.
    """
    train = [r for r in rows if r["split"] == "train" and r["style"] != "flowery"]
    train.sort(key=lambda r: Draw(seed, "rl", r["id"]).below(2**62))
    procedural, predictive = ([r for r in train if r["kind"] == k] for k in ("procedural", "predictive"))
    first = min(len(procedural), max(count - count // 2, count - len(predictive)))
    for row in procedural[:first] + predictive[: max(0, count - first)]:
        row["rl"] = True


def check_splits(rows: list[dict]) -> None:
    """Raise UserError if a video or a scene stands in training and in test."""
    for key in ("video", "scene"):
        sides: dict[str, set[str]] = {}
        for row in rows:
            sides.setdefault(row[key], set()).add(row["split"])
        if both := sorted(name for name, side in sides.items() if len(side) > 1):
            raise UserError(f"{key} {both[0]!r} is in training and in test; give all of it one subset")


def report(rows: list[dict], ledger: Ledger) -> dict:
    """Counts of what came in, was kept, was dropped and why, and of what was made."""
    made = Counter(f"{r['split']} {r['kind']}" for r in rows)
    return {
        "videos": ledger.level("video"),
        "segments": ledger.level("segment"),
        "pairs": ledger.level("pair"),
        "questions_refused": {"count": len(ledger.refused), "examples": ledger.refused[:5]},
        "triplets": {**dict(sorted(made.items())), "rl": sum(r["rl"] for r in rows), "all": len(rows)},
        "sources": dict(sorted(Counter(r["source"] for r in rows).items())),
        "styles": dict(sorted(Counter(r["style"] for r in rows).items())),
        "details": ledger.details[:100],
    }


def _write(folder: Path, rows: list[dict], result: dict, ledger: Ledger) -> None:
    pd.DataFrame(rows, columns=list(COLUMNS)).to_parquet(folder / "manifest.parquet", index=False)
    drops = pd.DataFrame(ledger.drops, columns=["level", "name", "reason"])
    drops.to_csv(folder / "dropped.csv", index=False, lineterminator="\n")
    segments = pd.DataFrame(ledger.segments, columns=["video", "id", "start", "end", "outcome"])
    segments.to_csv(folder / "segments.csv", index=False, lineterminator="\n")
    (folder / "report.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _reasons(ledger: Ledger) -> str:
    """The reasons of all drops, most frequent first, in one line."""
    counts = Counter(f"{level}: {reason}" for level, _, reason in ledger.drops)
    return "; ".join(f"{reason} ({count})" for reason, count in counts.most_common(5)) or "no video found"
