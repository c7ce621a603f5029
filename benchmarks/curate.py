"""What curation costs: the map over videos against the decoder alone, the books, and DVC at full size.

    python benchmarks/curate.py decode                      # synthetic H.264 videos
    python benchmarks/curate.py decode --videos FOLDER      # your own
    python benchmarks/curate.py books --triplets 100000
    python benchmarks/curate.py storage --triplets 100000   # 5.7 GB of shards and as much of DVC's cache
    python benchmarks/curate.py whole --triplets 100000     # rendered toy sources; 20 GB on --folder's disk
    python benchmarks/curate.py beside --against FOLDER     # this code and that of another checkout

decode: every video is cut into steps of --step seconds from its begin to its end; "decoder alone" decodes the same
files from begin to end and throws the pictures away, "decode and cut" is the pictures of every clip at its size and
rate, "curation" all of it: choice by motion, H.264 of the clips, fingerprint, store. They take turns in one process;
the numbers are medians of processor time, since other work on the machine would count as theirs.
books: made-up pairs and fingerprints (one source of six is cut files) go through the functions that write the manifest,
at the paper's radius. storage: rendered toy clips
under the names of a full data set in shards; `dvc add`, `dvc status`, and one per cent more, added at one place
(a new source) and spread over all videos. whole: toy sources are rendered, put under DVC and curated, all of them and
then one per cent more as sources of their own. beside: --count videos of three pieces in MP4, Matroska and MPEG-TS,
half with times and half without, so that shots are searched, curated at the tiny scale by this code and by another
checkout's in turn, each in a process of its own: processor time and the most memory that a process took.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from PIL import Image

from vans import params as parameters
from vans.data import curate, work
from vans.data.annotate import annotator
from vans.data.cutting import Cut, Settings
from vans.data.fingerprint import FRAMES, GRID
from vans.data.leaks import apart, check_splits, proven
from vans.data.ledger import Ledger
from vans.data.records import Record
from vans.data.shards import ShardWriter
from vans.data.shots import Segment
from vans.data.work import Looked, Task, Worked
from vans.files import atomic_write_text
from vans.media import video
from vans.toy import world
from vans.toy.render import Scene, render_event
from vans.visible import terminal


@contextmanager
def clock(into: dict[str, float], name: str, now: Callable[[], float] = time.perf_counter) -> Iterator[None]:
    before = now()
    yield
    into[name] = into.get(name, 0.0) + now() - before


# ----------------------------------------------------------------------------------------------------- decoding
def synthetic(folder: Path, count: int, seconds: float, height: int) -> list[Path]:
    """Videos of 16 : 9 at 25 fps: soft random shapes that drift, as H.264 at a usual quality."""
    width = height * 16 // 9 // 2 * 2
    paths = []
    for n in range(count):
        rng = np.random.default_rng(n)
        small = Image.fromarray(rng.integers(0, 256, (40, 120, 3), dtype=np.uint8))
        wide = np.asarray(small.resize((4 * width, 2 * height), Image.Resampling.BICUBIC))
        paths.append(folder / f"v{n}.mp4")
        with av.open(str(paths[-1]), "w") as out:
            stream = out.add_stream("libx264", rate=25, options={"crf": "23", "preset": "veryfast"})
            stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
            for t in range(round(seconds * 25)):
                x, y = t * 2 % (3 * width), int(height * (0.4 + 0.3 * np.sin(t / 40)))
                picture = wide[y : y + height, x : x + width].astype(np.int16)
                picture += rng.integers(-6, 7, (height, width, 1), dtype=np.int16)
                frame = np.ascontiguousarray(picture.clip(0, 255).astype(np.uint8))
                out.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            out.mux(stream.encode())
    return paths


def decoder_alone(paths: list[Path]) -> int:
    pictures = 0
    for path in paths:
        with av.open(str(path)) as container:
            stream = container.streams.video[0]
            stream.thread_type = "NONE"
            pictures += sum(1 for _ in container.decode(stream))
    return pictures


def decode(given: argparse.Namespace) -> dict:
    """Seconds for the same files: decoder alone, and decoding, choosing, cutting, encoding and storing the clips."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if given.videos:
            paths = sorted(p for p in given.videos.iterdir() if p.suffix in video.VIDEO_SUFFIXES)
        else:
            paths = synthetic(folder, 2, given.seconds, given.height)
        files = curate.digests(paths)
        tasks = []
        for path in paths:
            length, step = video.Video(path).info.duration, given.step
            cuts = np.arange(0, length - step + 0.01, step)
            steps = tuple(Segment(str(i), float(t), float(t) + step, "x") for i, t in enumerate(cuts))
            record = Record("s", path.stem, path, "procedural", "train", path.stem, segments=steps)
            settings = dataclasses.replace(Settings.of(paper()), codec=given.codec)
            tasks.append(Task(record, settings, name, "", {path: files[path]}))
        turns: list[dict[str, float]] = []
        clips = pictures = 0
        for turn in range(given.repeats + 1):  # the first turn warms up
            seconds: dict[str, float] = {}
            with clock(seconds, "decoder_alone", time.process_time):
                pictures = decoder_alone(paths)
            with clock(seconds, "decode_and_cut", time.process_time):
                cut_alone(tasks)
            turned = [dataclasses.replace(t, store=str(folder / f"store{turn}")) for t in tasks]
            with clock(seconds, "curation", time.process_time):
                for task in turned:
                    work.look(task)
            clips = sum(len({id(c) for pair in work.worked(t).pairs for c in pair[:2]}) for t in turned)
            turns += [seconds] if turn else []
    median = {f"{name}_s": round(statistics.median(t[name] for t in turns), 3) for name in turns[0]}
    ratio = {
        f"{name}_ratio": round(statistics.median(t["decoder_alone"] / t[name] for t in turns), 3)
        for name in ("decode_and_cut", "curation")
    }
    rate = round(clips / median["curation_s"], 2)
    return {"videos": len(paths), "pictures": pictures, "clips": clips, **median, **ratio, "clips_per_cpu_s": rate}


def cut_alone(tasks: list[Task]) -> None:
    """The pictures of each segment's clips, at the clips' size."""
    for task in tasks:
        assert task.record.path is not None
        opened, frames = video.Video(task.record.path), task.settings.frames
        segments = task.record.segments or ()
        times = [np.linspace(s.start, s.end, frames, endpoint=False) for s in segments]
        for _ in opened.pictures(np.concatenate(times), task.settings.height, task.settings.width):
            pass


def paper() -> parameters.Params:
    """The paper's scale."""
    return parameters.load(parameters.find_root(), scale="paper")


# ------------------------------------------------------------------------------------------------------- books
def made_up(rng: np.random.Generator, count: int) -> np.ndarray:
    """Fingerprints of coarse colours, as different as those of different videos."""
    coarse = rng.integers(0, 256, (count, 4, 4, 4, 3), dtype=np.uint8)
    return coarse.repeat(2, axis=1).repeat(2, axis=2).repeat(2, axis=3)


def books(given: argparse.Namespace) -> dict:
    """Seconds for the manifest of a full data set: texts, near-duplicates, splits, leak check, RL subset, files."""
    params = parameters.load(parameters.find_root(), scale="tiny")
    radius = paper().curate.near_duplicate
    sources = given.triplets * 2 // 3  # three triplets from two videos
    rng = np.random.default_rng(0)
    prints = made_up(rng, sources)
    copies = rng.permutation(sources)[: sources // 100 * 2].reshape(2, -1)  # one per cent is there twice
    noise = rng.integers(-4, 5, (copies.shape[1], FRAMES, GRID, GRID, 3))
    prints[copies[0]] = np.clip(prints[copies[1]].astype(np.int16) + noise, 0, 255)
    tasks, looked, made = [], {}, {}
    events = list(world.EVENTS)
    for n in range(sources):
        topic = world.CONDITIONS[n % 8] if n % 10 < 7 else list(world.ROUTINES)[n % 3]
        kind = "predictive" if n % 10 < 7 else "procedural"
        record = Record(f"s{n % 6}", f"v{n:06d}", None, kind, "test" if n % 100 == 0 else "train", f"v{n}", topic=topic)
        cuts = [
            Cut(Segment(str(i), 3.0 * i, 3.0 * i + 3, world.label("ball", events[(n + i) % 8])), 0.0, 3.0, b"", 0.01)
            for i in range(3 if n % 2 else 2)
        ]
        pairs = [(a, b, None) for a, b in pairwise(cuts)]
        tasks.append(Task(record, Settings.of(params), "", ""))
        looked[record.title] = Looked("", prints[n][None], True, videos=int(n % 6 > 0), parts=made_up(rng, len(cuts)))
        made[record.title] = Worked(Ledger(kept={"segment": len(cuts)}), pairs, "")  # type: ignore[arg-type]
    seconds: dict[str, float] = {}
    asked, ledger, rows = annotator(params, progress=False), Ledger(), []
    with tempfile.TemporaryDirectory() as folder:
        with clock(seconds, "near-duplicates"):
            kept, left, group, leaks = apart(tasks, looked, radius, ledger)
        with clock(seconds, "texts and rows"):
            for task in kept:
                done = made[task.record.title]
                answers = asked.write(curate._requests(task.record, done, False))
                source = curate.Source(task.record, done, answers)
                rows += [row for row, _ in curate.triplets_of(source, ledger, 0)]
        place = {"shard": "", "input_offset": 0, "input_size": 0, "target_offset": 0, "target_size": 0}
        rows = [row | place for row in rows]
        with clock(seconds, "splits"):
            check_splits(rows)
        with clock(seconds, "leak check of what is left"):
            leaks |= proven(rows, left, radius, looked)
        with clock(seconds, "RL subset"):
            curate.mark_rl(rows, group, Path(folder), params)
        with clock(seconds, "report and files"):
            result = curate.report(rows, ledger) | {"leaks": leaks}
            curate._write(Path(folder), rows, result, ledger)
    total = sum(seconds.values())
    return {
        **{"videos": sources, "triplets": len(rows), "dropped_near_duplicates": leaks["dropped_from_training"]},
        "seconds": {name: round(value, 2) for name, value in seconds.items()},
        **{"total_s": round(total, 2), "triplets_per_s": round(len(rows) / total)},
        "leak_check": {name: value for name, value in leaks.items() if isinstance(value, dict)},
    }


# ------------------------------------------------------------------------------------------------------ storage
def storage(given: argparse.Namespace) -> dict:
    """Seconds of DVC and bytes that are new in its cache."""
    pool = []
    for i in range(200):
        scene = Scene(shape=("ball", "box", "cone")[i % 3], x=14.0 + i % 17 / 4, wall=i % 4, floor=i % 3)
        clip = render_event(scene, world.EVENTS[i % 8])
        pool.append(video.encode(clip, 3.0, "raw")[0])
    names = [f"source{i * 6 // given.triplets}-v{i:06d}-1-2" for i in range(given.triplets)]
    extra = len(names) // 100
    place = [*names[: len(names) // 2], *(f"source3-a{i:06d}-1-2" for i in range(extra)), *names[len(names) // 2 :]]
    spread = [n for i, name in enumerate(names) for n in ([name, f"{name}-b"] if i % 100 == 0 else [name])]
    out: dict = {"triplets": len(names)}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        root = Path(folder)
        dvc(root, "init", "--no-scm", "-q")
        dvc(root, "config", "core.analytics", "false")
        dvc(root, "config", "cache.type", "hardlink")
        for what, some in (("first", names), ("one_place", place), ("spread", spread)):
            seconds: dict[str, float] = {}
            before = cached(root)
            if (root / "triplets").exists():
                subprocess.run(["rm", "-rf", str(root / "triplets")], check=True)
            with clock(seconds, "write_s"):
                writer = ShardWriter(root / "triplets" / "shards")
                for name in some:
                    which = sum(name.encode()) % len(pool)
                    writer.add(name, (pool[which], pool[which - 1]), "raw")
                writer.close()
            with clock(seconds, "dvc_add_s"):
                dvc(root, "add", "-q", "triplets")
            with clock(seconds, "dvc_status_s"):
                dvc(root, "status", "-q")
            after = cached(root)
            new = sum(size for path, size in after.items() if path not in before)
            shards = len(list((root / "triplets" / "shards").iterdir()))
            fresh = len(set(after) - set(before))
            facts = {"shards": shards, "new_files": fresh, "new_GB": round(new / 1e9, 3)}
            out[what] = {**{k: round(v, 2) for k, v in seconds.items()}, **facts}
            print(what, out[what], flush=True)
    return out


def whole(given: argparse.Namespace) -> dict:
    """Seconds of everything on rendered toy sources: all of it, and once more with one per cent new videos."""
    params = parameters.load(parameters.find_root(), scale="tiny")
    params = params.with_(curate={"near_duplicate": given.near_duplicate})
    sizes = {n: getattr(params.world, n) for n in ("procedural_train", "predictive_train")}
    per_world = 2432 - 256  # triplets of the world of params.yaml, those held out apart
    out: dict = {}
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        root = Path(folder)
        dvc(root, "init", "--no-scm", "-q")
        dvc(root, "config", "core.analytics", "false")
        dvc(root, "config", "cache.type", "hardlink")
        for what, triplets, seed in (("first", given.triplets, 1), ("one_per_cent", given.triplets // 100, 2)):
            seconds: dict[str, float] = {}
            before = cached(root)
            more = {name: max(1, size * triplets // per_world) for name, size in sizes.items()}
            with clock(seconds, "render_s"):
                made = params.world.with_(seed=seed, **more)
                world.generate(root / "new", made)
            (root / "data").mkdir(exist_ok=True)
            for source in sorted((root / "new").iterdir()):
                if source.is_dir():
                    source.rename(root / "data" / f"{source.name}{seed}")
            subprocess.run(["rm", "-rf", str(root / "new")], check=True)
            with clock(seconds, "dvc_add_data_s"):
                dvc(root, "add", "-q", "data")
            with clock(seconds, "curate_s"):
                report = curate.curate(root / "data", root / "triplets", params, cache=root / "store")
            with clock(seconds, "dvc_add_triplets_s"):
                dvc(root, "add", "-q", "triplets")
            with clock(seconds, "dvc_status_s"):
                dvc(root, "status", "-q")
            after = cached(root)
            new = {path: size for path, size in after.items() if path not in before}
            out[what] = {
                **{"videos": report["videos"]["in"], "triplets": report["triplets"]["all"]},
                **{k: round(v, 1) for k, v in seconds.items()},
                **{"new_files": len(new), "new_GB": round(sum(new.values()) / 1e9, 3)},
                **{"dropped": report["videos"]["dropped"], "leaks": report["leaks"]},
            }
            print(what, json.dumps(out[what]), flush=True)
    return out


BATCH = 20  # videos
ALONE = """
import dataclasses, json, resource, sys
from vans import params
from vans.data.curate import curate
read = params.load(params.find_root(), scale="tiny")
read = dataclasses.replace(read, machine=dataclasses.replace(read.machine, workers=1))
report = curate(sys.argv[1], sys.argv[2], read, progress=False)
used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
own = next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))  # since it began
out = {"cpu_s": sum(u.ru_utime + u.ru_stime for u in used), "MB": max(own, used[1].ru_maxrss) / 1024}
print(json.dumps(out | {"videos": report["videos"]["in"], "triplets": report["triplets"]["all"]}))
"""


def beside(given: argparse.Namespace) -> dict:
    """Processor time and memory of curation by this checkout and by another one, in turn."""
    code = {"this": Path(__file__).resolve().parents[1], "other": given.against.resolve()}
    found: dict[str, list[dict]] = {name: [] for name in code}
    with tempfile.TemporaryDirectory(dir=given.folder) as name:
        folder = Path(name)
        films(folder, given.count, given.height)
        for turn, part in enumerate(sorted(folder.glob("part*")) * given.repeats):
            for which in sorted(code, reverse=turn % 2 > 0):  # other work on the machine counts for both alike
                command = [sys.executable, "-c", ALONE, str(part), str(folder / f"{which}{turn}")]
                environment = {**os.environ, "PYTHONPATH": str(code[which])}
                done = subprocess.run(
                    command, cwd=code[which], env=environment, check=True, capture_output=True, text=True
                )
                found[which].append(json.loads(done.stdout.splitlines()[-1]))
                print(turn, which, found[which][-1], flush=True)
    out: dict = {
        which: {name: sum(d[name] for d in done) for name in ("videos", "triplets", "cpu_s")}
        | {"MB": max(d["MB"] for d in done)}
        for which, done in found.items()
    }
    faster = [a["cpu_s"] / b["cpu_s"] for a, b in zip(found["other"], found["this"], strict=True)]
    return {
        **out,
        "times_as_fast": round(out["other"]["cpu_s"] / out["this"]["cpu_s"], 3),
        "times_as_fast_median": round(statistics.median(faster), 3),
        "memory": round(out["this"]["MB"] / out["other"]["MB"], 3),
    }


def films(folder: Path, count: int, height: int) -> None:
    """Videos of three 4 s pieces each, copied together in many ways; every second with the times of its pieces.

    They lie in folders of BATCH.
    """
    with tempfile.TemporaryDirectory() as name:
        pieces = synthetic(Path(name), 12, 4.0, height)
        rng = np.random.default_rng(0)
        for n in range(count):
            path = folder / f"part{n // BATCH:03d}" / "films" / f"film{n:04d}{('.mp4', '.mkv', '.ts')[n % 3]}"
            path.parent.mkdir(parents=True, exist_ok=True)
            with av.open(str(path), "w") as out:
                stream = None
                for place, piece in enumerate(rng.choice(len(pieces), 3, replace=False)):
                    with av.open(str(pieces[piece])) as given:
                        own = given.streams.video[0]
                        stream = stream or out.add_stream_from_template(own)
                        for packet in given.demux(own):
                            if packet.dts is not None:
                                packet.pts += round(4 * place / packet.time_base)
                                packet.dts += round(4 * place / packet.time_base)
                                packet.stream = stream
                                out.mux(packet)
            lines = [f"{4 * i} {4 * i + 4} " if n % 2 else "" for i in range(3)]
            words = [f"part {n} {i} happens" for i in range(3)]
            path.with_suffix(".txt").write_text("".join(f"{a}{b}\n" for a, b in zip(lines, words, strict=True)))


def dvc(root: Path, *arguments: str) -> None:
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=root, env=environment, check=True)


def cached(root: Path) -> dict[str, int]:
    files = (root / ".dvc" / "cache").rglob("*")
    return {str(p): p.stat().st_size for p in files if p.is_file()}


PARTS: dict[str, Callable[[argparse.Namespace], dict]]
PARTS = {"decode": decode, "books": books, "storage": storage, "whole": whole, "beside": beside}


def main() -> None:
    parser = argparse.ArgumentParser(description="what curation costs")
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--triplets", type=int, default=100_000)
    parser.add_argument("--near-duplicate", type=float, default=0.08, help="whole: curate.near_duplicate")
    parser.add_argument("--videos", type=Path, help="decode: folder of videos (default: synthetic ones)")
    parser.add_argument("--seconds", type=float, default=20.0, help="decode: length of a synthetic video")
    parser.add_argument("--height", type=int, default=360, help="decode: px of a synthetic video")
    parser.add_argument("--step", type=float, default=5.0, help="decode: s, length of a segment")
    parser.add_argument("--codec", choices=("h264", "raw"), default="h264", help="decode: of the clips")
    parser.add_argument("--against", type=Path, help="beside: the other checkout's folder")
    parser.add_argument("--count", type=int, default=200, help="beside: videos")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="storage: where there is room (default: the temporary folder)")
    parser.add_argument("--out", type=Path, help="write the numbers to this file as JSON too")
    given = parser.parse_args()
    found = PARTS[given.part](given)
    print(json.dumps(found, indent=1))
    if given.out:
        atomic_write_text(given.out, json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    with terminal():  # who reads along may go: the figures are written all the same
        main()
