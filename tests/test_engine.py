"""The map over sources: any number of processes, interruptions and caches give the same bytes."""

import builtins
import dataclasses
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import types
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests import media_helpers
from tests.data_helpers import curate_params, world_params
from vans.data import curate as curation
from vans.data import engine, pairs, store, work
from vans.data import shards as shards_module
from vans.data.annotate import Annotation, Refused
from vans.data.curate import curate
from vans.data.cutting import Settings
from vans.data.ledger import Ledger
from vans.data.records import Record
from vans.data.shards import ShardWriter
from vans.data.shots import Segment
from vans.data.store import Store, digests
from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.media import video
from vans.toy import world


def machine(engine="local", workers=1):
    return SimpleNamespace(engine=engine, workers=workers)


def params(**fields):
    made = curate_params(**fields)
    made.machine = machine()
    return made


def content(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """(data folder, content of its triplets made in this process without a cache)."""
    folder = tmp_path_factory.mktemp("toy")
    world.generate(folder / "data", world_params(4, 2, 22, 2))
    curate(folder / "data", folder / "triplets", params(), progress=False)
    return folder / "data", content(folder / "triplets")


# ------------------------------------------------------------------------------------------------------ engines
def square(number: int) -> int:
    return number * number


def where(number: int) -> int:
    time.sleep(0.05)
    return os.getpid()


def fall_over(number: int) -> int:
    if number in (5, 40):
        os._exit(3)
    return number


def complain(number: int) -> int:
    raise UserError(f"no {number}")


@pytest.mark.parametrize("workers", [1, 2])
def test_results_come_in_order(workers):
    assert list(engine.run(square, list(range(50)), workers=workers)) == [n * n for n in range(50)]
    assert list(engine.run(square, [], workers=workers)) == []


def test_two_workers_are_two_processes():
    seen = set(engine.run(where, list(range(40)), workers=2))
    assert len(seen) == 2 and os.getpid() not in seen
    assert set(engine.run(where, [1, 2], workers=1)) == {os.getpid()}


def test_a_task_that_takes_its_process_down_is_the_only_one_lost():
    results = list(engine.run(fall_over, list(range(45)), workers=2))
    assert results == [engine.CRASHED if n in (5, 40) else n for n in range(45)]


def test_few_heavy_tasks_are_spread_and_one_worker_is_a_process_too(monkeypatch):
    assert list(engine.run(fall_over, [4, 5, 6], workers=1, heavy=True)) == [4, engine.CRASHED, 6]
    monkeypatch.setattr(engine, "cores", lambda: 2)
    assert len(set(engine.run(where, list(range(20)), workers=0, heavy=True))) == 2
    assert set(engine.run(where, list(range(20)), workers=0)) == {os.getpid()}


def test_videos_for_a_real_decoder_are_known(clock, tmp_path, monkeypatch):
    frames = np.zeros((9, 16, 16, 3), np.uint8)
    video.write(tmp_path / "a.mp4", frames, 3.0)
    other = Record("s", "o", tmp_path / "a.mp4", "procedural", "train", "s/o")
    tasks = [work.Task(r, settings(3.0, 3.0), "", "", {Path(str(r.path)): ""}) for r in (clock, other)]
    assert [work.decodes(t) for t in tasks] == [False, True]
    calls: list[bool] = []

    def run(*given):
        calls.append(given[-1])
        return iter([work.Looked("", None, False)] * len(given[1]))

    monkeypatch.setattr(engine, "run", run)
    for some in (tasks[:1], tasks):
        assert len(list(curation.look(some, machine(), False))) == len(some)
    assert calls == [False, True]


@pytest.mark.parametrize("workers", [1, 2])
def test_what_a_task_raises_is_raised(workers):
    with pytest.raises(UserError, match="no 3"):
        list(engine.run(complain, [3, 4], workers=workers))


def test_without_ray_the_error_says_what_to_install(monkeypatch):
    real = builtins.__import__

    def no_ray(name, *rest, **named):
        if name == "ray":
            raise ImportError(name)
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", no_ray)
    with pytest.raises(UserError, match=r"pip install 'vans\[ray\]'"):
        list(engine.run(square, [1], engine="ray"))


def test_a_ray_cluster_that_is_not_there_is_one_line(monkeypatch):
    def init(**settings):
        raise ConnectionError("Could not find any running\nRay instance")

    ray = types.SimpleNamespace(is_initialized=lambda: False, init=init)
    monkeypatch.setitem(sys.modules, "ray", ray)
    with socket.socket() as taken:  # bound, and nobody listens
        taken.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{taken.getsockname()[1]}"
        for address, why in (("auto", "running Ray instance"), (closed, "refused"), (f"ray://{closed}", "refused")):
            monkeypatch.setenv("RAY_ADDRESS", address)
            with pytest.raises(UserError, match=rf"{why}\); check RAY_ADDRESS \({address}\), or set") as caught:
                list(engine.run(square, [1], engine="ray"))
            assert "\n" not in str(caught.value)


def test_two_processes_write_the_same_bytes_as_one(toy, tmp_path):
    made = params()
    made.machine = machine(workers=2)
    curate(toy[0], tmp_path / "out", made, progress=False, cache=tmp_path / "cache")
    assert content(tmp_path / "out") == toy[1]


def test_ray_writes_the_same_bytes(toy, tmp_path):
    pytest.importorskip("ray", reason="Ray is not installed (pip install 'vans[ray]')")
    made = params()
    made.machine = machine("ray", 2)
    curate(toy[0], tmp_path / "out", made, progress=False, cache=tmp_path / "cache")
    assert content(tmp_path / "out") == toy[1]


# -------------------------------------------------------------------------------------------------------- cache
def entries(cache: Path) -> dict[str, int]:
    """Finished ones, and when they were written."""
    return {p.name: p.stat().st_mtime_ns for p in cache.glob("*/??/*") if store.PARTIAL not in p.name}


def test_finished_sources_are_not_done_again(toy, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    curate(toy[0], tmp_path / "first", params(), progress=False, cache=cache)
    before = entries(cache)
    assert content(tmp_path / "first") == toy[1] and len(before) > 40
    with monkeypatch.context() as patched:
        patched.setattr(work, "_made", lambda task: pytest.fail(f"{task.record.title} was done again"))
        curate(toy[0], tmp_path / "second", params(rl=2, flowery=0.0), progress=False, cache=cache)
        curate(toy[0], tmp_path / "third", params(), progress=False, cache=cache)
    assert content(tmp_path / "third") == toy[1] and entries(cache) == before


def test_only_what_has_changed_is_done_again(toy, tmp_path):
    data, cache = tmp_path / "data", tmp_path / "cache"
    subprocess.run(["cp", "-r", toy[0], data], check=True)
    curate(data, tmp_path / "first", params(), progress=False, cache=cache)
    before = entries(cache)
    annotations = data / "coin" / "COIN.json"
    annotations.write_text(annotations.read_text().replace('"start": 0.0', '"start": 0.5'))  # of nobody's business
    films = sorted((data / "shorts" / "videos").glob("*.avi"))
    films[0].write_bytes(films[1].read_bytes())  # another video under the same name
    films[1].write_bytes(films[2].read_bytes() + b" ")
    os.utime(films[3], (1, 1))  # the same video
    curate(data, tmp_path / "second", params(), progress=False, cache=cache)
    after = entries(cache)
    assert len(set(after) - set(before)) == 2 and len(set(before) - set(after)) == 2, "the old ones are removed"
    assert all(after[name] == before[name] for name in set(before) & set(after))
    curate(data, tmp_path / "fresh", params(), progress=False)
    assert content(tmp_path / "second") == content(tmp_path / "fresh")


def test_the_key_knows_all_code_and_what_old_code_has_made_goes(toy, tmp_path, monkeypatch):
    cache = tmp_path / "cache"
    curate(toy[0], tmp_path / "first", params(), progress=False, cache=cache)
    curate(toy[0], tmp_path / "first", params(min_segment=2.0), progress=False, cache=cache)
    old = {p for p in cache.iterdir() if p.is_dir()}
    assert len(old) == 2, "another scale's is kept"
    (cache / "annotations").mkdir()
    code = work.code()
    for library in ("opencv-python", "opencv-python-headless"):
        with monkeypatch.context() as patched:
            patched.setattr(work, "version", lambda name, library=library: "99" if name == library else "1")
            other = work.code.__wrapped__()
            patched.setattr(work, "version", lambda name: "1")
            assert other != work.code.__wrapped__(), library
    (tmp_path / "work.py").write_text(Path(work.__file__).read_text() + "# changed\n")
    monkeypatch.setattr(work, "__file__", str(tmp_path / "work.py"))
    changed = work.code.__wrapped__()
    assert changed != code
    monkeypatch.setattr(work, "code", lambda: changed)
    curate(toy[0], tmp_path / "second", params(), progress=False, cache=cache)
    left = {p for p in cache.iterdir() if p.is_dir()}
    assert len(left) == 2 and not left & old and cache / "annotations" in left, "what is not ours stays"
    assert content(tmp_path / "second") == toy[1]


@pytest.mark.parametrize("damage", ["cut", "flip", "empty", "other"])
def test_a_damaged_entry_is_made_again(toy, tmp_path, damage):
    cache = tmp_path / "cache"
    curate(toy[0], tmp_path / "first", params(), progress=False, cache=cache)
    paths = sorted(cache.glob("*/??/*"), key=lambda p: p.stat().st_size)
    for path in paths[-3:]:
        data = path.read_bytes()
        flipped = data[:-9] + bytes([data[-9] ^ 1]) + data[-8:]
        damaged = {"cut": data[:-1], "flip": flipped, "empty": b"", "other": paths[-4].read_bytes()[:200]}
        path.write_bytes(damaged[damage])
    curate(toy[0], tmp_path / "second", params(), progress=False, cache=cache)
    assert content(tmp_path / "second") == toy[1]


def test_a_killed_run_goes_on_where_it_was(tmp_path):
    world.generate(tmp_path / "data", world_params(20, 4, 150, 4))
    code = (
        "from tests.test_engine import params, curate; from vans.data import work; import time; made = work._made\n"
        "def slow(task):\n    time.sleep(0.02); return made(task)\n"
        f"work._made = slow; curate({str(tmp_path / 'data')!r}, {str(tmp_path / 'out')!r}, params(), progress=False, "
        f"cache={str(tmp_path / 'cache')!r})"
    )
    root = Path(__file__).resolve().parents[1]
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    while len(entries(tmp_path / "cache")) < 30 and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    before = entries(tmp_path / "cache")
    assert 30 <= len(before) < 300 and not (tmp_path / "out").exists()
    curate(tmp_path / "data", tmp_path / "out", params(), progress=False, cache=tmp_path / "cache")
    after = entries(tmp_path / "cache")
    assert all(after[name] == at for name, at in before.items()), "what was finished was not done again"
    curate(tmp_path / "data", tmp_path / "fresh", params(), progress=False)
    assert content(tmp_path / "out") == content(tmp_path / "fresh")


def test_workers_die_with_their_parent(tmp_path):
    code = (
        "from vans.data import engine; from tests.test_engine import forever\n"
        f"list(engine.run(forever, [{str(tmp_path)!r}] * 2, workers=2))"
    )
    root = Path(__file__).resolve().parents[1]
    process = subprocess.Popen([sys.executable, "-c", code], cwd=root, env={**os.environ, "PYTHONPATH": str(root)})
    while len(pids := [int(p.name) for p in tmp_path.iterdir()]) < 2 and process.poll() is None:
        time.sleep(0.05)
    process.kill()
    process.wait()
    limit = time.time() + 20
    while (alive := [pid for pid in pids if _alive(pid)]) and time.time() < limit:
        time.sleep(0.1)
    assert len(pids) == 2 and not alive


@pytest.mark.parametrize("after", [0.3, 0.9, 1.5, None])  # s; None: when both workers are at work
def test_ctrl_c_ends_the_workers_without_a_word(tmp_path, after):
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in the background
        "from vans.data import engine; from tests.test_engine import forever\n"
        f"try: print('begin', flush=True); list(engine.run(forever, [{str(tmp_path)!r}] * 2, workers=2))\n"
        "except KeyboardInterrupt: print('stopped')"
    )
    root = Path(__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(
        [sys.executable, "-c", code], cwd=root, env=env, start_new_session=True, stdout=-1, stderr=-1, text=True
    )
    assert process.stdout is not None and process.stdout.readline() == "begin\n"
    if after is None:
        while len(list(tmp_path.iterdir())) < 2:
            time.sleep(0.05)
    else:
        time.sleep(after)
    os.killpg(process.pid, signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert out == "stopped\n" and "Traceback" not in errors


def forever(folder: str) -> None:
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(60)


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


def test_an_entry_is_whole_or_absent(tmp_path):
    beside = tmp_path / f".digests.json{store.PARTIAL}{store.HOST}-{os.getpid()}"
    tmp_path /= "store"
    there = Store(tmp_path)
    assert there.get("ab12") is None
    there.put("ab12", {"n": 1}, [b"first", b""])
    assert there.get("ab12") == ({"n": 1}, [b"first", b""]) and there.get("ab12", blobs=False) == ({"n": 1}, [])
    there.put("cd34", [], [])
    gone = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], stdout=subprocess.PIPE, check=True)
    for pid in (os.getppid(), int(gone.stdout)):
        (tmp_path / "cd" / f".cd35{store.PARTIAL}{store.HOST}-{pid}").write_bytes(b"half")
    beside.write_bytes(b"half")
    there.prune(["ab12"])
    assert not beside.exists()
    live = tmp_path / "cd" / f".cd35{store.PARTIAL}{store.HOST}-{os.getppid()}"
    assert sorted(tmp_path.glob("??/*")) == [tmp_path / "ab/ab12", live], "another run may write"
    live.unlink()
    assert [p.name for p in tmp_path.glob("??/*")] == ["ab12"]


def test_a_folder_that_another_process_sweeps_meanwhile_is_made_again(tmp_path, monkeypatch):
    replace = os.replace
    swept: list = []

    def busy(source, target):
        if not swept:
            swept.append(True)
            shutil.rmtree(tmp_path / "store")
        replace(source, target)

    monkeypatch.setattr(os, "replace", busy)
    there = Store(tmp_path / "store")
    there.put("ab12", 1, [b"x"])
    assert swept and there.get("ab12") == (1, [b"x"])


def test_digests_are_remembered_until_a_file_is_touched(tmp_path, monkeypatch):
    files = [tmp_path / name for name in ("a", "b")]
    for i, path in enumerate(files):
        path.write_bytes(bytes([i]) * 9)
        os.utime(path, (1000, 1000))
    first = digests(files, tmp_path / "memory.json", 2)
    assert len(set(first.values())) == 2
    files[1].write_bytes(b"\7" * 9)
    read: list[Path] = []
    real = store.sha256_file

    def counted(path):
        read.append(path)
        return real(path)

    monkeypatch.setattr(store, "sha256_file", counted)
    second = digests(files, tmp_path / "memory.json", 2)
    assert read == [files[1]] and second[files[0]] == first[files[0]] and second[files[1]] != first[files[1]]
    digests(files, tmp_path / "memory.json", 2)
    assert read == [files[1]] * 2, "changed a moment ago: it may change again unnoticed"
    (tmp_path / "memory.json").write_text("{")
    assert digests(files, tmp_path / "memory.json") == second


# ------------------------------------------------------------------------------------------------ clips, choosing
COUNT, RATE = 240, 12.0  # pictures, per second: 20 s


@pytest.fixture
def clock(tmp_path):
    """A video whose pictures tell their number (brightness), and a record with two annotated segments."""
    frames = np.broadcast_to(np.arange(COUNT, dtype=np.uint8)[:, None, None, None], (COUNT, 16, 16, 3))
    video.write(tmp_path / "data" / "coin" / "v.avi", np.ascontiguousarray(frames), RATE)
    segments = (Segment("1", 1.0, 10.0, "wash it"), Segment("2", 10.0, 19.0, "cut it"))
    return Record("coin", "v", tmp_path / "data/coin/v.avi", "procedural", "train", "coin/v", segments=segments)


def numbers(cut: pairs.Cut) -> list[int]:
    frames, fps = video.decode(cut.data)
    assert fps == pytest.approx(len(frames) / (cut.end - cut.start), rel=1e-3)
    return frames[:, 0, 0, 0].tolist()


def settings(input_seconds: float, target_seconds: float) -> Settings:
    return Settings.of(
        curate_params(frames=9, height=16, width=16, input_seconds=input_seconds, target_seconds=target_seconds)
    )


def test_input_and_target_have_lengths_of_their_own(clock):
    ((first, second, _),) = pairs.pairs(clock, settings(20.0, 4.5), Ledger())
    assert (first.start, first.end) == (1.0, 10.0), "a segment that is shorter is taken whole"
    assert numbers(first) == [12 + 12 * i for i in range(9)], "evenly over all of it"
    assert second.end - second.start == pytest.approx(4.5) and 10.0 <= second.start <= 14.5
    assert np.diff(numbers(second)).tolist() == [6] * 8
    ((again, _, _),) = pairs.pairs(clock, settings(3.0, 3.0), Ledger())
    assert np.diff(numbers(again)).tolist() == [4] * 8


def test_labels_name_the_shots_in_order_and_no_pair_spans_a_lost_one(clock, monkeypatch):
    spans = ((0, 4), (4, 8), (8, 9), (9, 13), (13, 17))
    found = [Segment(str(n), float(a), float(b)) for n, (a, b) in enumerate(spans, start=1)]
    monkeypatch.setattr(pairs.shots, "find", lambda *_: found)

    def made(labels, starts=None):
        record = dataclasses.replace(clock, segments=None, labels=tuple(labels))
        cuts = pairs.pairs(record, settings(3.0, 3.0), ledger := Ledger(), starts)
        ledger.kept["pair"] += len(cuts)
        ledger.check()
        return [(a.segment.label, b.segment.label) for a, b, _ in cuts]

    assert made("abcde") == [("a", "b"), ("d", "e")], "the third is too short"
    assert made("abde") == [("a", "b"), ("b", "d"), ("d", "e")], "and not among the labelled"
    assert made("abc") == []
    assert made("abde", {"2": "nothing to be seen"}) == [("d", "e")], "the fourth is still d"


def test_a_chosen_clip_is_cut_where_it_begins_or_as_near_as_fits(clock):
    for start, expected in ((12.0, 12.0), (18.9, 16.0), (0.0, 10.0)):
        ((_, second, _),) = pairs.pairs(clock, settings(3.0, 3.0), Ledger(), {"2": start})
        assert second.start == pytest.approx(expected)
    ledger = Ledger()
    assert not pairs.pairs(clock, settings(3.0, 3.0), ledger, {"2": "nothing to be seen"})
    assert ("segment", "coin/v:2", "nothing to be seen") in ledger.drops


class Chooser:
    """Chooses the 4th second of each segment, refuses segment 3; writes what it is given."""

    chooses: tuple[int, int] | None = (12, 8)

    def __init__(self):
        self.seen, self.requests = [], []

    def choose(self, candidates):
        self.seen += candidates
        return [Refused("too dark") if c.id.endswith(":3") else float(c.times[0]) + 4.0 for c in candidates]

    def write(self, requests):
        self.requests += requests
        return [Annotation("What next?", "so", f"{r.target_label} .", "written", ("leaky?",)) for r in requests]


def test_an_annotator_may_choose_the_clips(clock, tmp_path):
    events = [(1, 1.0, 8.0), (2, 8.0, 15.0), (3, 15.0, 20.0)]
    annotation = [{"id": str(n), "segment": [a, b], "label": f"step {n}"} for n, a, b in events]
    database = {"v": {"class": "Wash", "recipe_type": 1, "subset": "training", "annotation": annotation}}
    (tmp_path / "data/coin/COIN.json").write_text(json.dumps({"database": database}))
    for run in ("first", "second"):
        asked = Chooser()
        report = curate(tmp_path / "data", tmp_path / run, params(), False, tmp_path / "cache", asked)
        assert [c.id for c in asked.seen] == ["coin/v:1", "coin/v:2", "coin/v:3"]
        assert all(c.frames.shape == (12, 8, 8, 3) and len(c.times) == 12 for c in asked.seen)
        assert asked.seen[1].times[0] == 8.0 and asked.seen[1].label == "step 2"
        (request,) = asked.requests
        assert request.split == "train" and request.clips is not None
    frame = Triplets(tmp_path / "first").frame
    assert frame["input_start"].tolist() == [5.0] and frame["target_start"].tolist() == [12.0]
    assert request.clips == tuple(Triplets(tmp_path / "first").file(frame["id"].iloc[0], w) for w in pairs.ROLES)
    assert report["segments"]["dropped"] == {"too dark": 1} and report["questions_refused"]["count"] == 1
    assert report["pairs"] == {"in": 2, "kept": 1, "dropped": {pairs.NEIGHBOUR_LOST: 1}}
    assert content(tmp_path / "first") == content(tmp_path / "second")


def test_pictures_to_choose_from_are_few_at_once_and_kept_for_the_next_run(clock, tmp_path, monkeypatch):
    monkeypatch.setattr(curation, "CHOICES", 2, raising=False)
    database = {
        name: {
            **{"class": "Wash", "recipe_type": 1, "subset": "training"},
            "annotation": [{"id": str(n), "segment": [4 * n, 4 * n + 4], "label": f"step {n}"} for n in (1, 2, 4)],
        }
        for name in ("v", "w")
    }
    (tmp_path / "data/coin/COIN.json").write_text(json.dumps({"database": database}))
    frames, _ = media_helpers.read(tmp_path / "data/coin/v.avi")
    video.write(tmp_path / "data/coin/w.avi", 255 - frames[::-1], RATE)
    sizes = []

    class Counts(Chooser):
        def choose(self, candidates):
            sizes.append(len(candidates))
            return super().choose(candidates)

    curate(tmp_path / "data", tmp_path / "first", params(), False, tmp_path / "cache", Counts())
    assert sizes == [2, 2, 2]
    monkeypatch.setattr(pairs, "thin", lambda *_: pytest.fail("pictures were made again"))
    curate(tmp_path / "data", tmp_path / "second", params(), False, tmp_path / "cache", Counts())
    assert content(tmp_path / "first") == content(tmp_path / "second")


# ------------------------------------------------------------------------------------------------------- shards
def shards(folder: Path, names: list[str]) -> dict[str, bytes]:
    writer = ShardWriter(folder)
    places = [writer.add(name, (name.encode(), b"x"), "raw") for name in names]
    writer.close()
    sizes = pd.Series([place["shard"] for place in places]).value_counts().sort_index()
    assert sizes.max() <= 64 and (sizes[:-1] >= 32).all()
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_what_is_added_changes_few_shards(tmp_path, monkeypatch):
    for name, small in (("PER_SHARD", 64), ("FEWEST", 32), ("MEAN", 16)):
        monkeypatch.setattr(shards_module, name, small)
    names = [f"s-{i:05d}" for i in range(1000)]
    before = shards(tmp_path / "a", names)
    after = shards(tmp_path / "b", names[:350] + [f"new-{i}" for i in range(10)] + names[350:])  # one per cent
    assert len(before) > 15
    assert 1 <= len(set(after.values()) - set(before.values())) <= 3, "the others keep their bytes"


def test_workers_that_cannot_start_are_one_line_and_no_crashed_videos(tmp_path):
    """A script that has no `if __name__ == "__main__"` is run again by each worker: said once, not retried for ever."""
    script = tmp_path / "script.py"
    script.write_text("from vans.data import engine\nprint(list(engine.run(abs, [1, 2, 3], workers=2)))\n")
    place = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[1])}
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, env=place, timeout=300)
    assert done.returncode == 1 and "crashed" not in done.stdout
    said = [line for line in done.stderr.splitlines() if "below `if __name__ == '__main__':`" in line]
    assert len(said) == 1, done.stderr  # after it multiprocessing may complain of what the workers have left
