"""Curation: source videos -> triplets (input clip, question, reasoning, caption, target clip), splits, report.

Written: triplets/manifest.parquet (COLUMNS), triplets/shards/00000.tar (clips, <id>.input.avi, <id>.target.avi),
triplets/report.json (what came in = kept + dropped by reason) and triplets/dropped.csv (every single drop).

Deviations from the paper (1: see annotate.py):
2. The best clip of a segment is the window with most motion, as long as the model's clip (frames / fps = 3 s), where
   the paper asks a multimodal LLM for the best 3-5 s. Input clips are as long as target clips (the paper's inputs
   average 9.43 s).
3. The RL subset is a fixed draw from the training split, half procedural and half predictive, not hand-picked.
"""
import hashlib
import io
import json
import sys
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from vans import video
from vans.data import shots, sources
from vans.data.annotate import ANNOTATORS, Refused, Request
from vans.data.draw import Draw
from vans.data.shots import Segment
from vans.data.sources import Record
from vans.errors import UserError
from vans.files import atomic_dir

PER_SHARD = 2048  # triplets in one tar file
COLUMNS = ("id", "source", "kind", "split", "rl", "video", "scene", "subset", "input_start", "input_end",
           "target_start", "target_end", "input_sentence", "target_sentence", "recipe_type", "condition", "question",
           "reasoning", "caption", "style", "shard", "input_offset", "input_size", "target_offset", "target_size")


@dataclass(frozen=True)
class Cut:
    """A segment's best clip: start, end in s, the file's bytes."""
    segment: Segment
    start: float
    end: float
    data: bytes


@dataclass
class Ledger:
    """Counts per level (video, segment, pair): in = kept + dropped; and every drop by name."""
    kept: Counter
    drops: list[tuple[str, str, str]]
    refused: int = 0

    def drop(self, level: str, name: str, reason: str) -> None:
        self.drops.append((level, name, reason))

    def level(self, level: str) -> dict:
        """{in, kept, dropped: {reason: count}} of one level."""
        reasons = Counter(reason for where, _, reason in self.drops if where == level)
        kept = self.kept[level]
        return {"in": kept + sum(reasons.values()), "kept": kept, "dropped": dict(sorted(reasons.items()))}


class ShardWriter:
    """Tar files whose members can be read by offset; the bytes depend on names and contents only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True)
        self.count = 0
        self.tar: tarfile.TarFile | None = None

    def add(self, files: dict[str, bytes]) -> list[tuple[str, int, int]]:
        """Append the files of one triplet; (shard name, offset, size) of each."""
        if self.count % PER_SHARD == 0:
            self.close()
            self.shard = f"{self.count // PER_SHARD:05d}.tar"
            self.tar = tarfile.open(self.folder / self.shard, "w", format=tarfile.USTAR_FORMAT)
        assert self.tar is not None
        self.count += 1
        places = []
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            places.append((self.shard, self.tar.offset + tarfile.BLOCKSIZE, len(data)))
            self.tar.addfile(member, io.BytesIO(data))
        return places

    def close(self) -> None:
        """Finish the open tar file."""
        if self.tar is not None:
            self.tar.close()
            self.tar = None


def curate(data_dir: str | Path, out_dir: str | Path, params: Any, progress: bool = True) -> dict:
    """Make triplets of everything in data_dir; out_dir is replaced as a whole, or left as it was on any error.

    params: seed, clip (frames, height, width, fps), curate (min_segment s, codec, annotator, flowery, rl,
    shot_threshold). Returns the report. Raises UserError if nothing is kept or a split overlaps.
    """
    ledger = Ledger(Counter(), [])
    found = sources.discover(data_dir)
    ledger.drops += found.dropped
    records = unique(found.records, ledger)
    with atomic_dir(out_dir) as partial:
        writer = ShardWriter(partial / "shards")
        rows: list[dict] = []
        bar = tqdm(records, desc="curate", unit="video", disable=not progress, file=sys.stderr, mininterval=2.0)
        for record in bar:
            made = list(triplets_of(record, params, ledger))
            for row, clips in made:
                rows.append(_stored(row, clips, params.curate.codec, writer))
            if made:
                ledger.kept["video"] += 1
            else:
                ledger.drop("video", _title(record), _video_reason(record, ledger))
        writer.close()
        if not rows:
            reasons = ledger.level("video")["dropped"] | ledger.level("pair")["dropped"]
            raise UserError(f"{data_dir}: no triplet could be made; reasons: "
                            + "; ".join(f"{reason} ({count})" for reason, count in reasons.items()))
        mark_rl(rows, params.curate.rl, params.seed)
        check_splits(rows)
        report = _report(rows, ledger)
        pd.DataFrame(rows, columns=list(COLUMNS)).to_parquet(partial / "manifest.parquet", index=False)
        drops = pd.DataFrame(ledger.drops, columns=["level", "name", "reason"])
        drops.to_csv(partial / "dropped.csv", index=False, lineterminator="\n")
        (partial / "report.json").write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
    return report


def _title(record: Record) -> str:
    return f"{record.source}/{record.name}"


def unique(records: list[Record], ledger: Ledger) -> list[Record]:
    """Drop videos that are missing and files with the same bytes as an earlier one (both splits might see them)."""
    kept = []
    by_size: dict[int, list[Record]] = {}
    for record in records:
        cut = [f for g in record.given for f in g.files]
        if record.path is None and (not cut or None in cut):
            ledger.drop("video", _title(record), "video missing")
        elif record.path is None:
            kept.append(record)
        else:
            by_size.setdefault(record.path.stat().st_size, []).append(record)
            kept.append(record)
    twins = {}
    for group in by_size.values():
        seen: dict[str, Record] = {}
        for record in group if len(group) > 1 else []:
            assert record.path is not None
            key = hashlib.sha256(record.path.read_bytes()).hexdigest()
            if key in seen:
                twins[_title(record)] = _title(seen[key])
            seen.setdefault(key, record)
    for name in twins:
        ledger.drop("video", name, "same file as another video")
    return [r for r in kept if _title(r) not in twins]


def triplets_of(record: Record, params: Any, ledger: Ledger) -> Iterator[tuple[dict, tuple[bytes, bytes]]]:
    """Rows (without storage columns) and (input, target) file bytes of one video."""
    try:
        pairs = list(_given_pairs(record, params, ledger) if record.given else _adjacent(record, params, ledger))
    except UserError as error:
        ledger.drop("segment", _title(record), "video unreadable")
        ledger.drop("detail", _title(record), str(error))
        return
    made = []
    for first, second, texts in pairs:
        name = f"{record.source}-{record.name}-{first.segment.id}-{second.segment.id}".replace("/", "_")
        request = Request(name, record.kind, record.topic, first.segment.label, second.segment.label, texts)
        try:
            written = ANNOTATORS[params.curate.annotator](request, params.seed, params.curate.flowery)
        except Refused as reason:
            ledger.drop("pair", name, str(reason))
            continue
        ledger.refused += written.refused
        made.append(({
            "id": name, "source": record.source, "kind": record.kind, "split": record.split, "rl": False,
            "video": _title(record), "scene": record.scene, "subset": record.subset,
            "input_start": first.start, "input_end": first.end, "target_start": second.start,
            "target_end": second.end, "input_sentence": first.segment.label,
            "target_sentence": second.segment.label, "recipe_type": record.recipe_type,
            "condition": record.condition, "question": written.question, "reasoning": written.reasoning,
            "caption": written.caption, "style": written.style}, (first.data, second.data)))
    if record.split == "test" and record.kind == "procedural" and len(made) > 1:
        keep = Draw(params.seed, "test", record.source, record.name).below(len(made))
        for i, (row, _) in enumerate(made):
            if i != keep:
                ledger.drop("pair", row["id"], "test split takes one pair per procedural video")
        made = made[keep:keep + 1]
    ledger.kept["pair"] += len(made)
    yield from made


def _adjacent(record: Record, params: Any, ledger: Ledger) -> Iterator[tuple[Cut, Cut, None]]:
    """Pairs of segments that follow each other, both kept."""
    assert record.path is not None
    opened = video.Video(record.path)
    segments = record.segments
    if segments is None:
        segments = tuple(shots.find(opened, params.curate.shot_threshold))
    cuts = [(s, _cut(record, opened, s, params, ledger)) for s in sorted(segments, key=lambda s: s.start)
            if not (s.black and _drop_black(record, s, ledger))]
    if record.segments is None:
        cuts = _labelled(record, cuts)
        if cuts is None:
            ledger.drop("pair", _title(record), "shots found do not match the labels")
            return
    for (first, a), (second, b) in zip(cuts, cuts[1:], strict=False):
        if a is None or b is None:
            ledger.drop("pair", f"{_title(record)}:{first.id}-{second.id}", "one of the two segments was dropped")
        else:
            yield a, b, None


def _drop_black(record: Record, segment: Segment, ledger: Ledger) -> bool:
    ledger.drop("segment", f"{_title(record)}:{segment.id}", "black between shots")
    return True


def _labelled(record: Record, cuts: list[tuple[Segment, Cut | None]]) -> list[tuple[Segment, Cut | None]] | None:
    """Give the searched shots that were kept their labels, in order; None if their numbers differ."""
    if record.labels is None:
        return cuts
    kept = [cut for _, cut in cuts if cut is not None]
    if len(kept) != len(record.labels):
        return None
    named = []
    for cut, label in zip(kept, record.labels, strict=True):
        segment = Segment(cut.segment.id, cut.segment.start, cut.segment.end, label)
        named.append((segment, Cut(segment, cut.start, cut.end, cut.data)))
    return [(s, c) for s, c in named]


def _given_pairs(record: Record, params: Any, ledger: Ledger) -> Iterator[tuple[Cut, Cut, tuple[str, str, str]]]:
    """Pairs that a published table names: files already cut, or segments cut from the whole video."""
    whole = video.Video(record.path) if record.path is not None else None
    segments = {s.id: s for s in record.segments or ()}
    cuts: dict[str, Cut | None] = {}
    for given in record.given:
        for key, sentence, file in zip((given.input_id, given.target_id), given.sentences, given.files, strict=True):
            if key in cuts:
                continue
            if file is not None:
                opened = video.Video(file)
                segment = Segment(key, 0.0, opened.info.duration, sentence)
                cuts[key] = _cut(record, opened, segment, params, ledger)
            elif whole is not None and key in segments:
                found = segments[key]
                segment = Segment(key, found.start, found.end, sentence or found.label)
                cuts[key] = _cut(record, whole, segment, params, ledger)
            else:
                ledger.drop("segment", f"{_title(record)}:{key}", "the table's segment has no times and no file")
                cuts[key] = None
        a, b = cuts[given.input_id], cuts[given.target_id]
        if a is None or b is None:
            name = f"{_title(record)}:{given.input_id}-{given.target_id}"
            ledger.drop("pair", name, "one of the two segments was dropped")
        else:
            yield a, b, given.texts


def _cut(record: Record, opened: video.Video, segment: Segment, params: Any, ledger: Ledger) -> Cut | None:
    """The best clip of a segment, or None with the reason in the ledger."""
    clip, name = params.clip, f"{_title(record)}:{segment.id}"
    end = min(segment.end, opened.info.duration)
    times = video.grid(segment.start, end, clip.fps)
    if segment.start >= opened.info.duration:
        ledger.drop("segment", name, "begins after the video's end")
        return None
    if end - segment.start < params.curate.min_segment - video.TOLERANCE or len(times) < clip.frames:
        ledger.drop("segment", name, f"shorter than {max(params.curate.min_segment, clip.frames / clip.fps):g} s")
        return None
    try:
        frames = opened.sample(times, clip.height, clip.width)
    except UserError as error:
        ledger.drop("segment", name, "pictures unreadable")
        ledger.drop("detail", name, str(error))
        return None
    at = shots.best_window(frames, clip.frames)
    data, _ = video.encode(frames[at:at + clip.frames], clip.fps, params.curate.codec)
    ledger.kept["segment"] += 1
    return Cut(segment, round(float(times[at]), 3), round(float(times[at]) + clip.frames / clip.fps, 3), data)


def _stored(row: dict, clips: tuple[bytes, bytes], codec: str, writer: ShardWriter) -> dict:
    suffix = {"raw": "avi", "h264": "mp4"}[codec]
    places = writer.add({f"{row['id']}.input.{suffix}": clips[0], f"{row['id']}.target.{suffix}": clips[1]})
    (shard, input_offset, input_size), (_, target_offset, target_size) = places
    return {**row, "shard": shard, "input_offset": input_offset, "input_size": input_size,
            "target_offset": target_offset, "target_size": target_size}


def _video_reason(record: Record, ledger: Ledger) -> str:
    """Why a video gave no triplet: its last drop, or that it has fewer than two segments."""
    for level, name, reason in reversed(ledger.drops):
        if level in ("segment", "pair") and name.replace("/", "-").startswith(_title(record).replace("/", "-")):
            return "unreadable" if reason == "video unreadable" else f"no pair: {reason}"
    return "no pair: fewer than two segments"


def mark_rl(rows: list[dict], count: int, seed: int) -> None:
    """Set rl on `count` rows of the training split, half of them procedural where there are enough of both kinds."""
    order = sorted((r for r in rows if r["split"] == "train"), key=lambda r: Draw(seed, "rl", r["id"]).below(2**62))
    halves = [[r for r in order if r["kind"] == kind] for kind in ("procedural", "predictive")]
    first = min(len(halves[0]), max(count - count // 2, count - len(halves[1])))
    for row in halves[0][:first] + halves[1][:max(0, count - first)]:
        row["rl"] = True


def check_splits(rows: list[dict]) -> None:
    """Raise UserError if a video or a scene stands on both sides."""
    for key in ("video", "scene"):
        sides: dict[str, set[str]] = {}
        for row in rows:
            sides.setdefault(row[key], set()).add(row["split"])
        both = sorted(name for name, side in sides.items() if len(side) > 1)
        if both:
            raise UserError(f"{key} {both[0]!r} is in training and test; give its videos one subset")


def _report(rows: list[dict], ledger: Ledger) -> dict:
    frame = pd.DataFrame(rows)
    counts = Counter((r["split"], r["kind"]) for r in rows)
    return {
        "videos": ledger.level("video"), "segments": ledger.level("segment"), "pairs": ledger.level("pair"),
        "questions_refused": ledger.refused,
        "triplets": {f"{split} {kind}": n for (split, kind), n in sorted(counts.items())}
        | {"rl": int(frame["rl"].sum()), "all": len(rows)},
        "sources": {k: int(v) for k, v in frame["source"].value_counts().sort_index().items()},
        "styles": {k: int(v) for k, v in frame["style"].value_counts().sort_index().items()},
        "details": [f"{name}: {text}" for level, name, text in ledger.drops if level == "detail"][:100],
    }
