"""How fast the stream reads curated shards: with 1, 2 and 4 workers, against reading the same bytes raw, in one run.

    python benchmarks/reader.py                              # the curated triplets/ of this repository
    python benchmarks/reader.py --synthetic 512 --cold       # made-up clips of the paper's size, page cache dropped

raw, front to back   one process reads the bytes of all clips in the order of the shards, and does nothing with them
raw, shuffled        the same bytes in the stream's order: what the exact shuffle costs on this disk
decode alone         one process decodes the clips from memory: what a worker can do at best
stream, bytes        the stream hands over the files as they are
stream, clips        the stream hands over decoded clips, as for training (of the first `--decoded` samples)

All take turns in one process tree, `--repeats` times; each number is the median. The start of the workers is in their
times. With --cold the shards' pages are dropped from the cache before each turn (where the file system lets them go).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from vans import params as parameters
from vans.data.manifest import COUNTS, NUMBERS
from vans.data.shards import COLUMNS, ShardWriter
from vans.data.stream import Loader, Stream
from vans.files import atomic_write_text
from vans.media import video
from vans.visible import terminal

WORKERS = (1, 2, 4)
ROW: dict = dict.fromkeys(COLUMNS, "")
ROW |= dict.fromkeys(NUMBERS, 0.0) | dict.fromkeys(COUNTS, 1) | {"input_end": 3.0, "target_end": 3.0}
ROW |= {"split": "train", "kind": "procedural", "rl": False}


def synthetic(folder: Path, count: int, clip: parameters.Video, codec: str) -> Path:
    """`count` triplets of drifting textures in shards with a manifest, as curation writes them; 16 distinct clips."""
    random = np.random.default_rng(0)
    coarse = random.integers(0, 256, (16, clip.height // 32 + 3, clip.width // 32 + 3, 3), dtype=np.uint8)
    large = coarse.repeat(32, 1).repeat(32, 2)
    moved = [[p[t : t + clip.height, t : t + clip.width] for t in range(clip.frames)] for p in large]
    files = [video.encode(np.stack(frames), clip.fps, codec)[0] for frames in moved]
    writer, rows = ShardWriter(folder / "shards"), []
    for i in range(count):
        place = writer.add(f"s{i:06d}", (files[i % 16], files[(i + 1) % 16]), codec)
        texts = {"question": "what next ?", "reasoning": "so", "caption": "that"}
        rows.append(ROW | {"id": f"s{i:06d}", **texts, **place})
    writer.close()
    pd.DataFrame(rows, columns=list(COLUMNS)).to_parquet(folder / "manifest.parquet", index=False)
    return folder


def drop_pages(folder: Path) -> None:
    """Forget the shards' pages, so that the next reader meets the disk."""
    for path in (folder / "shards").iterdir():
        descriptor = os.open(path, os.O_RDONLY)
        os.fsync(descriptor)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def raw(folder: Path, places: list[tuple[str, int, int]]) -> int:
    """Read these (shard, offset, size) in this order, one process; returns the bytes read."""
    opened = {name: os.open(folder / "shards" / name, os.O_RDONLY) for name in {p[0] for p in places}}
    total = sum(len(os.pread(opened[name], size, offset)) for name, offset, size in places)
    for descriptor in opened.values():
        os.close(descriptor)
    return total


def measure(folder: Path, batch: int, repeats: int, cold: bool, decoded: int) -> dict:
    """Samples a second of each way, and its ratio to reading raw from front to back."""
    plain = Stream(folder, batch, ("reader",), epochs=1, decode=False)
    order = plain.rows(0, plain.count)
    columns = {w: plain.places[w] for w in plain.which}

    def places(rows: list[int]) -> list[tuple[str, int, int]]:
        return [
            (plain.shards[plain.shard[row]], int(columns[w][0][row]), int(columns[w][1][row]))
            for row in rows
            for w in plain.which
        ]

    straight, shuffled = sorted(places(order)), places(order)
    held = [plain.read([row]) for row in order[: min(decoded, 32)]]

    def decode() -> int:
        for sample in held:
            for which in plain.which:
                video.decode(sample[which][0])
        return len(held)

    def stream(workers: int, clips: bool) -> int:
        reader = Stream(folder, batch, ("reader",), epochs=1, decode=clips)
        wanted, seen = min(decoded, plain.count) if clips else plain.count, 0
        for found in Loader(reader, workers):
            seen += len(found["id"])
            if seen >= wanted:
                break
        return seen

    def read(what: list[tuple[str, int, int]]) -> int:
        assert raw(folder, what) == sum(size for _, _, size in what)
        return plain.count

    ways: dict[str, Callable[[], int]] = {
        "raw, front to back": lambda: read(straight),
        "raw, shuffled": lambda: read(shuffled),
        "decode alone": decode,
    }
    for clips in (False, True):
        for workers in WORKERS:
            name = f"stream, {'clips' if clips else 'bytes'}, {workers} worker{'s' if workers > 1 else ''}"
            ways[name] = partial(stream, workers, clips)
    rates: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            if cold:
                drop_pages(folder)
            start = time.perf_counter()
            samples = way()
            rates[name].append(samples / (time.perf_counter() - start))
    found = {name: statistics.median(r) for name, r in rates.items()}
    return {
        "samples": plain.count,
        "kilobytes_per_sample": round(sum(size for _, _, size in straight) / plain.count / 1e3, 1),
        "cpu_cores": os.cpu_count(),
        "cold": cold,
        "repeats": repeats,
        "batch": batch,
        "decoded": min(decoded, plain.count),
        "samples_per_s": {name: round(rate, 1) for name, rate in found.items()},
        "ratio_to_raw": {name: round(rate / found["raw, front to back"], 4) for name, rate in found.items()},
        "ratio_to_decode": {name: round(r / found["decode alone"], 3) for name, r in found.items() if "clips" in name},
    }


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description="the stream of curated shards against reading the same bytes raw")
    parser.add_argument("--triplets", type=Path, help="curated folder (default: triplets/)")
    parser.add_argument("--synthetic", type=int, help="instead: this many made-up triplets, clips of --scale's size")
    parser.add_argument("--scale", default="paper", help="whose clip size and codec the made-up triplets have")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--decoded", type=int, default=128, help="samples of a turn that decodes")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--cold", action="store_true", help="drop the shards from the page cache before each turn")
    parser.add_argument("--out", type=Path, help="write the numbers to this file as JSON too")
    given = parser.parse_args(arguments)

    torch.set_num_threads(1)
    root = parameters.find_root()
    with tempfile.TemporaryDirectory(prefix="vans-reader-") as place:
        folder = given.triplets or root / "triplets"
        if given.synthetic:
            params = parameters.load(root, scale=given.scale)
            folder = synthetic(Path(place), given.synthetic, params.video, params.curate.codec)
        found = measure(folder, given.batch, given.repeats, given.cold, given.decoded)
    cache = "page cache dropped" if given.cold else "page cache warm"
    print(f"{found['samples']} triplets of {found['kilobytes_per_sample']} KB, {cache}, {found['cpu_cores']} cores")
    for name, rate in found["samples_per_s"].items():
        decode = f", {found['ratio_to_decode'][name]:.2f} of decoding alone" if name in found["ratio_to_decode"] else ""
        print(f"  {name:<28} {rate:12.1f} samples/s   {found['ratio_to_raw'][name]:8.4f} of raw{decode}")
    if given.out:
        atomic_write_text(given.out, json.dumps(found, indent=2) + "\n")
    return found


if __name__ == "__main__":
    with terminal():  # who reads along may go: the figures are written all the same
        main()
