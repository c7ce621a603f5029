"""Curation under damaged videos and annotations by the thousand: what becomes of each mutant.

    python benchmarks/fuzz.py                            # 3,000 videos and 3,000 annotation files
    python benchmarks/fuzz.py --videos 20000 --seed 7

Videos of nine kinds (H.264, VP8, MPEG-2 and 4, FLV1, MJPEG, uncompressed) are damaged byte by byte, 30 go through one
curation, four of five with two annotated events; annotation files, tables and sidecars are damaged as values and as
bytes. Checked for each run: one clear line or a whole result, in = kept + dropped on each level, every clip readable,
nothing half-written. Each run is a process of its own, so that a decoder that crashes or hangs is found and named by
its seed (the program then ends with 1).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import random
import resource
import sys
import tempfile
import time
import traceback
from collections import Counter
from multiprocessing.connection import Connection
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests import fuzz_helpers as fuzz
from tests.data_helpers import curate_params
from vans.errors import UserError
from vans.files import atomic_write_text
from vans.visible import terminal

EVENTS = b"0 4 she looks\n4 8 she waves\n"
TOGETHER = {"videos": 30, "annotations": 20}
PATIENCE = 300.0  # s for one run


def videos(seed: int, count: int, folder: Path) -> Counter[str]:
    """One curation of `count` damaged videos; what became of them."""
    draw, sound = random.Random(seed), fuzz.seeds()
    for i in range(count):
        suffix = draw.choice(sorted(sound))
        name = f"{i}.{suffix.rpartition('.')[2]}"
        sidecar = {f"{i}.txt": EVENTS} if i % 5 else {}  # without one, shots are searched
        fuzz.put(folder / "data/own", {name: fuzz.damaged(sound[suffix], draw)} | sidecar)
    report = fuzz.whole(folder / "data", folder / "out", curate_params())
    if report is None:
        return Counter({"all of a run dropped": count})
    assert report["videos"]["in"] == count, report["videos"]
    return Counter(report["videos"]["dropped"]) + Counter(kept=report["videos"]["kept"])


def annotations(seed: int, count: int, folder: Path) -> Counter[str]:
    """`count` sources whose annotations are damaged, each read and curated; what became of them."""
    out: Counter[str] = Counter()
    sound = fuzz.seeds()[".mp4"]
    for number in range(seed * count, (seed + 1) * count):
        name, files = fuzz.damaged_source(random.Random(number))
        data = folder / str(number) / "data"
        fuzz.put(data / name, files)
        fuzz.put(
            data / name, {f"{n}.mp4": sound + bytes([0, 0, 0, 8]) + b"free" * (i + 1) for i, n in enumerate("abc")}
        )
        try:
            out["something dropped" if fuzz.accounted(data) else "all read"] += 1
        except UserError:
            out["one clear line"] += 1
        fuzz.whole(data, data.parent / "out", curate_params())
    return out


def child(kind: str, seed: int, answer: Connection) -> None:
    """One run; sends (outcomes, CPU s, peak MB, traceback)."""
    error, outcomes = "", Counter[str]()
    with tempfile.TemporaryDirectory() as folder:
        try:
            outcomes = {"videos": videos, "annotations": annotations}[kind](seed, TOGETHER[kind], Path(folder))
        except Exception:
            error = traceback.format_exc()
    usage = resource.getrusage(resource.RUSAGE_SELF)
    answer.send((outcomes, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024, error))


def main() -> int:
    """Run all and print a table of outcomes; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=3000)
    parser.add_argument("--annotations", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=1000, help="number of the first run")
    parser.add_argument("--out", type=Path, help="write the figures into this JSON file")
    given = parser.parse_args()
    figures: dict[str, dict] = {}
    wrong: list[str] = []
    fuzz.seeds()  # once, before the processes are forked
    for kind in ("videos", "annotations"):
        outcomes, began, cpu, memory = Counter[str](), time.monotonic(), [0.0], [0.0]
        runs = -(-getattr(given, kind) // TOGETHER[kind])
        for seed in range(given.seed, given.seed + runs):
            ours, theirs = multiprocessing.Pipe()
            process = multiprocessing.Process(target=child, args=(kind, seed, theirs))
            process.start()
            theirs.close()
            try:
                found, seconds, peak, error = ours.recv() if ours.poll(PATIENCE) else ({}, PATIENCE, 0, "hangs")
            except EOFError:
                found, seconds, peak, error = {}, 0.0, 0.0, "the process died"
            if error == "hangs":
                process.kill()
            process.join()
            outcomes.update(found)
            cpu.append(seconds)
            memory.append(peak)
            if error:
                wrong.append(f"{kind}, run {seed}: {error}")
                print(wrong[-1], flush=True)
        figures[kind] = {
            "mutants": runs * TOGETHER[kind],
            "outcomes": dict(outcomes.most_common()),
            "seconds": round(time.monotonic() - began, 1),
            "cpu_seconds": round(sum(cpu), 1),
            "slowest_run_cpu_seconds": round(max(cpu), 2),
            "peak_memory_mb": round(max(memory)),
        }
        print(f"\n{kind}: {figures[kind]['mutants']} mutants")
        for reason, count in outcomes.most_common():
            print(f"{count:7}  {reason}")
        print({k: v for k, v in figures[kind].items() if k != "outcomes"}, flush=True)
    print(f"\n{len(wrong)} runs went wrong")
    if given.out:
        atomic_write_text(given.out, json.dumps({"figures": figures, "wrong": wrong}, indent=1) + "\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    with terminal():  # who reads along may go: the figures are written all the same
        code = main()
    sys.exit(code)
