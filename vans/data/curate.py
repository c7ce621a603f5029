"""Curation: source videos -> triplets (input clip, question, reasoning, caption, target clip) and a report.

Written into the triplets folder: manifest.parquet (columns: shards.COLUMNS), shards/00000.tar, ... (clips
<id>.input.avi and <id>.target.avi), report.json (what came in = kept + dropped by reason), dropped.csv (every
single drop), segments.csv (every segment with its times and what became of it).

The work on single sources (work.py) is mapped over them by an engine (engine.py) and kept in a store
(store.py); everything after that happens here, in the sources' order, so that the output depends on neither.

Deviations from the paper (1: see annotate):
2. Where the annotator does not choose clips itself (the rules do not), the best clip of a segment is the window
   with most motion, where the paper asks a multimodal LLM for the best 3-5 s.
3. The RL subset is chosen by a written score (quality.py), where the paper picks 1 K triplets by hand.
"""

import hashlib
import json
import re
import shutil
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Any

import pandas as pd
from tqdm import tqdm

from vans import spreadsheet
from vans.data import engine, quality, sources, work
from vans.data.agreement import agreement, judge, visual_gain
from vans.data.annotate import Annotation, Annotator, Refused, Request, annotator
from vans.data.cutting import Settings
from vans.data.draw import Draw
from vans.data.leaks import apart, check_splits, proven
from vans.data.ledger import Ledger
from vans.data.records import Record
from vans.data.shards import COLUMNS, ShardWriter
from vans.data.split import OTHER, HeldOut, Sample
from vans.data.store import Store, digests
from vans.data.work import Looked, Task, Worked
from vans.errors import UserError
from vans.files import atomic_dir, digest
from vans.llm.secret import Secret
from vans.params import find_root
from vans.template import TAGS, special_tokens

BATCH = 256  # requests that the annotator is given at once
CHOICES = 128  # and segments to choose from: each is many pictures, some 6 MB
CRASH = "a video crashes the decoder; replace or remove it"
KEPT = "digests.json"  # in the cache: what is known of the sources' files
Made = tuple[dict, tuple[bytes, bytes]]  # manifest row without storage columns, (input, target) file bytes


@dataclass(frozen=True)
class Annotated:
    """A source whose pairs have been written about: answers[i] is that of worked.pairs[i]."""

    record: Record
    worked: Worked
    answers: list[Annotation | Refused]


def curate(
    data_dir: str | Path,
    out_dir: str | Path,
    params: Any,
    progress: bool = True,
    cache: str | Path | None = None,
    asked: Annotator | None = None,
) -> dict:
    """Make triplets of everything in data_dir; out_dir is replaced as a whole, or left alone on any error.

    params: seed, video, curate, machine.engine and .workers, models.clip (and machine.device where CLIP is asked).
    cache: folder in which finished sources are kept, so that they are not done again. asked: instead of the
    annotator that the parameters name. Returns the report. Raises UserError if nothing is kept or the splits
    overlap.
    """
    machine = params.machine
    found = sources.discover(data_dir)
    ledger = found.ledger
    ledger.root = str(data_dir)
    files = _digests(found.records, cache, machine.workers)
    named = params.curate.held_out and HeldOut(find_root() / Path(params.curate.held_out).expanduser(), found.layouts)
    records = unique(named.split(found.records, ledger) if named else found.records, files, ledger)
    check_splits([{"video": r.title, "scene": r.scene, "split": r.split} for r in records])
    clip = judge(params) if params.curate.agreement == "clip" else None  # all errors come before anything is paid for
    asked = asked or annotator(params, progress=progress)
    with atomic_dir(out_dir) as partial:
        settings = Settings.of(params)
        store = _store(cache or partial / "work", settings)
        tasks = [
            Task(
                *(record, settings, str(data_dir), str(store.folder), {f: files[f] for f in _files(record)}),
                shown=asked.chooses,
            )
            for record in records
        ]
        if asked.chooses:
            tasks = list(chosen(tasks, asked, machine, progress))
        looked = dict(zip([t.record.title for t in tasks], look(tasks, machine, progress), strict=True))
        kept, prints, group, leaks = apart(tasks, looked, params.curate.near_duplicate, ledger)
        writer = ShardWriter(partial / "shards")
        rows: list[dict] = []
        for source in annotated(kept, looked, asked, progress):
            made = triplets_of(source, ledger, params.seed, named.of(source.record) if named else None)
            rows += [{**row, **writer.add(row["id"], clips, params.curate.codec)} for row, clips in made]
        writer.close()
        ledger.check()
        if not rows:
            raise UserError(f"{data_dir}: no triplet could be made: {_reasons(ledger)}")
        leaks |= proven(rows, prints, params.curate.near_duplicate, looked)
        mark_rl(rows, group, partial / "shards", params, clip, progress)
        result = report(rows, ledger) | {"rl": rl_report(rows, params), "leaks": leaks}
        result |= {"held_out": named.report(rows, records)} if named else {}
        secret = Secret.of(params.curate.llm.key_variable)
        secret.check(_texts([rows, result, vars(ledger)]), f"{out_dir}: what the annotator wrote")
        _write(partial, rows, result, ledger)
        shown = {replace(t, starts=None).key("show") for t in tasks if asked.chooses}  # before anything was chosen
        store.prune({found.key for found in looked.values()} | shown)
        _sweep(store.folder.parent)
        shutil.rmtree(partial / "work", ignore_errors=True)
    return result


# ----------------------------------------------------------------------------------------------- files and videos
def _digests(records: list[Record], cache: str | Path | None, workers: int) -> dict[Path, str]:
    paths = dict.fromkeys(path for record in records for path in _files(record))
    memory = Path(cache) / KEPT if cache is not None else None
    return digests(list(paths), memory, workers or engine.cores())


def _files(record: Record) -> list[Path]:
    return [path for path in (record.path, *(f for g in record.given for f in g.files)) if path is not None]


def _store(folder: str | Path, settings: Settings) -> Store:
    """A folder for each setting, so that going back to another scale finds what was there."""
    return Store(Path(folder) / f"{digest(vars(settings))[:16]}-{work.code()[:16]}")


def _sweep(cache: Path) -> None:
    """Remove what other versions of the code have made: no run will ask for it again."""
    for folder in cache.glob("*"):
        if re.fullmatch(r"[0-9a-f]{16}(-[0-9a-f]{16})?", folder.name) and not folder.name.endswith(work.code()[:16]):
            shutil.rmtree(folder, ignore_errors=True)


def unique(records: list[Record], files: dict[Path, str], ledger: Ledger) -> list[Record]:
    """Drop videos that are missing, and of files with the same content all but one.

    Otherwise both splits might see the same video. A test video stays, else the best annotated one. files: SHA-256
    of each.
    """
    present = []
    by_size: dict[int, list[Record]] = {}
    for record in records:
        if record.path is not None:
            by_size.setdefault(record.path.stat().st_size, []).append(record)
        elif not record.given or any(None in g.files for g in record.given):
            record.lose(ledger, "video missing")
            continue
        present.append(record)
    twins = set()
    for group in by_size.values():
        seen = set()
        for record in sorted(group, key=lambda r: (r.split != "test", _poorness(r))):
            assert record.path is not None
            if files[record.path] in seen:
                twins.add(record.title)
                record.lose(ledger, "same file as another video")
            seen.add(files[record.path])
    return [r for r in present if r.title not in twins]


def _poorness(record: Record) -> int:
    """0: texts given; 1: times annotated; 2: shots labelled; 3: nothing known."""
    known = (any(g.texts for g in record.given), record.segments is not None, record.labels is not None, True)
    return known.index(True)


# ------------------------------------------------------------------------------------------------ mapped over sources
def look(tasks: Sequence[Task], machine: Any, progress: bool) -> Iterator[Looked]:
    """Decode and cut every source that is not in the store yet."""
    results = _mapped(work.look, tasks, machine, "decode and cut" if progress else "")
    for task, result in zip(tasks, results, strict=True):
        yield Looked(task.key(), None, False, crashed=True) if result == engine.CRASHED else result


def _mapped(function: Callable[[Task], Any], tasks: Sequence[Task], machine: Any, progress: str) -> Iterator[Any]:
    heavy = any(work.decodes(task) for task in tasks)
    return engine.run(function, tasks, machine.engine, machine.workers, progress, heavy)


def chosen(tasks: Sequence[Task], asked: Annotator, machine: Any, progress: bool) -> Iterator[Task]:
    """Ask for the best clip of every segment that leaves a choice; the tasks with the answers."""
    shown = _mapped(work.show, tasks, machine, "show segments" if progress else "")
    ready = (task for task, result in zip(tasks, shown, strict=True) if result != engine.CRASHED)
    answered: dict[str, dict[str, float | str]] = {}
    candidates = ((task.record.title, c) for task in ready for c in work.candidates(task))
    while some := list(islice(candidates, CHOICES)):
        answers = asked.choose([c for _, c in some])
        for (title, candidate), answer in zip(some, answers, strict=True):
            segment = candidate.id.removeprefix(f"{title}:")
            answered.setdefault(title, {})[segment] = str(answer) if isinstance(answer, Refused) else float(answer)
    for task in tasks:
        yield replace(task, starts=answered.get(task.record.title, {}))


# ------------------------------------------------------------------------------------------- written, in order
def annotated(
    tasks: Sequence[Task], looked: dict[str, Looked], asked: Annotator, progress: bool
) -> Iterator[Annotated]:
    """Have question, reasoning and caption written for every pair, many sources at a time."""
    some: list[tuple[Task, Worked]] = []
    waiting = 0
    bar = tqdm(total=len(tasks), desc="write", unit="video", disable=not progress, file=sys.stderr, mininterval=2.0)
    with bar:
        for last, task in enumerate(tasks, start=1 - len(tasks)):
            crashed = looked[task.record.title].crashed
            some.append((task, Worked(Ledger(), [], CRASH) if crashed else work.worked(task)))
            waiting += len(some[-1][1].pairs)
            if waiting >= BATCH or not last:
                answers = iter(asked.write([r for t, w in some for r in _requests(t.record, w, bool(asked.chooses))]))
                for task, worked in some:
                    yield Annotated(task.record, worked, list(islice(answers, len(worked.pairs))))
                    bar.update()
                some, waiting = [], 0


def _requests(record: Record, worked: Worked, clips: bool) -> list[Request]:
    """What is asked about a source's pairs; clips: with the pictures, for who looks at them."""
    return [
        Request(
            *(id_of(record, a.segment.id, b.segment.id), record.kind, record.topic, a.segment.label, b.segment.label),
            given=record.given[third].texts if isinstance(third, int) else None,
            clips=(a.data, b.data) if clips else None,
            split=record.split,
            condition=record.condition,
            told=third if isinstance(third, str) else "",
        )
        for a, b, third in worked.pairs
    ]


def triplets_of(source: Annotated, ledger: Ledger, seed: int, named: Sample | None = None) -> list[Made]:
    """All triplets of one source (a procedural test video gives one, and so does one that a list names: `named`), and
    the entries of its books.
    """
    record, worked, before = source.record, source.worked, len(ledger.drops)
    ledger.add(worked.ledger)
    if worked.error:
        ledger.details.append(worked.error)
        record.lose(ledger, "unreadable")
        return []
    made: list[Made] = []
    for (first, second, third), written in zip(worked.pairs, source.answers, strict=True):
        name = id_of(record, first.segment.id, second.segment.id)
        questions = written.questions if isinstance(written, Refused) else written.refused
        ledger.refused += [f"{name}: {question}" for question in questions]
        if not isinstance(written, Refused) and (found := _signs(written)):
            written = Refused(f"a text holds {found}, which models read as a sign of their own")
        if isinstance(written, Refused):
            ledger.drop("pair", name, str(written))
            continue
        if named and named.input and (named.input, named.target) != (first.segment.id, second.segment.id):
            ledger.drop("pair", name, OTHER)
            continue
        row = {
            **{"id": name, "source": record.source, "kind": record.kind, "split": record.split},
            **{"video": record.title, "scene": record.scene, "subset": record.subset},
            **{"input_start": first.start, "input_end": first.end},
            **{"target_start": second.start, "target_end": second.end},
            **{"input_sentence": first.segment.label, "target_sentence": second.segment.label},
            **{"recipe_type": record.recipe_type, "condition": record.condition, "topic": record.topic},
            **{"question": written.question, "reasoning": written.reasoning},
            **{"caption": written.caption, "style": written.style},
            **{"caption_words": len(written.caption.split()), "questions_refused": len(written.refused)},
            **{"motion": second.motion, "skipped": isinstance(third, str)},
        }
        made.append((row, (first.data, second.data)))
    if record.split == "test" and (record.kind == "procedural" or named) and len(made) > 1:
        keep = Draw(seed, "test", record.title).below(len(made))
        for row, _ in made[:keep] + made[keep + 1 :]:
            ledger.drop("pair", str(row["id"]), OTHER if named else "test split takes one pair per procedural video")
        made = made[keep : keep + 1]
    ledger.kept["pair"] += len(made)
    if made:
        ledger.kept["video"] += 1
    else:
        why = [reason for _, _, reason in ledger.drops[before:]] or ["fewer than two segments"]
        ledger.drop("video", record.title, f"no pair: {why[-1]}")
    return made


def _signs(written: Annotation) -> str:
    """The first special token of models, or tag of the answer's template, in a text where only words may stand."""
    texts = (written.question, written.reasoning, written.caption)
    tags = (tag for tag in TAGS if tag in written.reasoning + written.caption)
    return next((token for text in texts for token in special_tokens(text)), next(tags, ""))


def _texts(tree: Any) -> Iterator[str]:
    """All texts in nested lists and dicts; those of one dict as one."""
    if isinstance(tree, str):
        yield tree
    elif isinstance(tree, dict):
        yield "".join(value for value in tree.values() if isinstance(value, str))
        yield from _texts([value for value in tree.values() if not isinstance(value, str)])
    elif isinstance(tree, list | tuple):
        for value in tree:
            yield from _texts(value)


def id_of(record: Record, first: str, second: str) -> str:
    """A triplet's id: letters, digits, . _ - (not first), at most 80 long; changed names get a digest, to differ."""
    full = f"{record.source}-{record.name}-{first}-{second}"
    plain = re.sub(r"[^A-Za-z0-9._-]|^[.-]", "_", full)
    if plain == full and len(full) <= 80 and "-" not in record.source + first + second:  # else two could be one
        return full
    return f"{plain[:68]}-{hashlib.sha256(full.encode()).hexdigest()[:10]}"


def mark_rl(
    rows: list[dict], group: dict[str, str], shards: Path, params: Any, clip: Any = None, progress: bool = False
) -> None:
    """Score every row and set group, agreement (clip: the CLIP that measures it), rl_score, rl and rl_reason, and
    visual_gain where it has a weight."""
    weights = vars(params.curate.rl_weights)
    cosines: list[float | None] = [None] * len(rows)
    if clip is not None:
        cosines = list(agreement(rows, shards, clip, progress))
    if clip is not None and weights["visual_gain"]:
        for row, gain in zip(rows, visual_gain(rows, shards, clip, progress), strict=True):
            row["visual_gain"] = gain
    for row, cosine in zip(rows, cosines, strict=True):
        row |= {"group": group[row["video"]], "agreement": cosine}
        row["rl_score"] = quality.score(quality.terms(row, params.curate.rl_motion), weights)
    for row, reason in zip(rows, quality.choose(rows, params.curate.rl, params.seed), strict=True):
        row |= {"rl": not reason, "rl_reason": reason}


def rl_report(rows: list[dict], params: Any) -> dict:
    """The RL subset in counts and words."""
    said = "left out of the score: curate.agreement is none"
    if params.curate.agreement == "clip":
        said = "2.5 x the mean cosine of CLIP's features of target frames and caption"
    elif params.models.clip.repo is None:
        said += " (no CLIP is trained yet when this scale curates)"
    scores = [row["rl_score"] for row in rows if row["rl"]]
    return {
        "taken": len(scores),
        "refused": dict(sorted(Counter(row["rl_reason"] for row in rows if not row["rl"]).items())),
        "score": {"least": min(scores, default=None), "mean": round(sum(scores) / max(1, len(scores)), 4)},
        "agreement": said,
    }


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
        **({"skipped_steps": count} if (count := sum(r["skipped"] for r in rows)) else {}),
        "details": ledger.details[:100],
        **({"not_read": {"count": len(ledger.unread), "files": ledger.unread[:1000]}} if ledger.unread else {}),
    }


def _write(folder: Path, rows: list[dict], result: dict, ledger: Ledger) -> None:
    columns = [*COLUMNS, *(["visual_gain"] if "visual_gain" in rows[0] else [])]
    columns += ["skipped"] if any(row["skipped"] for row in rows) else []
    manifest = pd.DataFrame(rows, columns=columns).astype({"agreement": "float64"})
    manifest.to_parquet(folder / "manifest.parquet", index=False)
    drops = pd.DataFrame(ledger.drops, columns=["level", "name", "reason"])
    (folder / "dropped.csv").write_text(spreadsheet.write(drops), encoding="utf-8", newline="")
    segments = pd.DataFrame(ledger.segments, columns=["video", "id", "start", "end", "outcome"])
    (folder / "segments.csv").write_text(spreadsheet.write(segments), encoding="utf-8", newline="")
    (folder / "report.json").write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")


def _reasons(ledger: Ledger) -> str:
    """The reasons of all drops, most frequent first, in one line."""
    counts = Counter(f"{level}: {reason}" for level, _, reason in ledger.drops)
    return "; ".join(f"{reason} ({count})" for reason, count in counts.most_common(5)) or "no video found"
