"""The stream of curated shards: every sample once an epoch, the same batches for any number of ranks and workers,
resumable anywhere, in little memory; damage is one clear line."""

import importlib.util
import json
import shutil
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch.utils.data import DataLoader

from tests import smoke
from tests.data_helpers import curate_params, world_params
from vans.data import shards, stream
from vans.data.batches import batch_ids
from vans.data.curate import curate
from vans.data.stream import Loader, Stream
from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.parallel import Ranks
from vans.toy import world

KEYS = (7, "test")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Triplets of a small toy world in several shards."""
    root = tmp_path_factory.mktemp("stream")
    world.generate(root / "data", world_params(6, 3, 6, 3))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shards, "PER_SHARD", 7)
        curate(root / "data", root / "triplets", curate_params(), progress=False)
    assert len(list((root / "triplets/shards").iterdir())) > 2
    return root / "triplets"


def ids(batches) -> list[str]:
    return [id for batch in batches for id in batch["id"]]


def opened(folder, batch=4, epochs=1, **options) -> Stream:
    return Stream(folder, batch, KEYS, epochs=epochs, which=(), texts=(), **options)


def test_clips_and_texts_are_those_of_the_triplets(folder):
    triplets = Triplets(folder)
    for batch in Stream(folder, 5, KEYS, epochs=1):
        assert batch["input"].dtype == torch.uint8 and batch["input"].shape[1:] == (9, 32, 32, 3)
        for which in ("input", "target"):
            assert np.array_equal(batch[which].numpy(), triplets.clips(batch["id"], which))
        for name in ("question", "reasoning", "caption"):
            assert batch[name] == [triplets.row(id)[name] for id in batch["id"]]


def test_undecoded_clips_are_the_files(folder):
    triplets = Triplets(folder)
    batch = next(iter(Stream(folder, 3, KEYS, decode=False, which=["target"])))
    assert batch["target"] == [triplets.file(id, "target") for id in batch["id"]] and "input" not in batch


@pytest.mark.parametrize("choice", [{}, {"split": "train"}, {"split": "test", "kind": "predictive"}, {"rl": True}])
def test_every_chosen_sample_once_an_epoch_in_another_order_each(folder, choice):
    chosen = Triplets(folder).select(**choice)
    found = ids(opened(folder, batch=3, epochs=2, **choice))
    first, second = found[: len(chosen)], found[len(chosen) :]
    assert sorted(first) == sorted(second) == sorted(chosen)
    assert first != second and first != chosen
    again = Stream(folder, 3, KEYS, epochs=2, which=(), texts=(), **choice)
    other = Stream(folder, 3, (8, "test"), epochs=2, which=(), texts=(), **choice)
    assert ids(again) == found != ids(other)


def test_batches_are_those_of_the_trainers(folder):
    chosen = Triplets(folder).select(split="train")
    batches = iter(opened(folder, batch=4, epochs=None, split="train"))
    for step in range(3 * len(chosen) // 4):
        assert next(batches)["id"] == batch_ids(chosen, step, 4, *KEYS)


@pytest.mark.parametrize("size", [2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_ranks_share_each_batch_without_overlap_or_loss(folder, size, workers):
    whole = [batch["id"] for batch in opened(folder, batch=5, epochs=2)]
    parts = [[b["id"] for b in Loader(opened(folder, 5, 2, rank=r, size=size), workers)] for r in range(size)]
    for step, batch in enumerate(whole):
        assert [id for part in parts for id in part[step]] == batch
        shares = [Ranks(r, size, torch.device("cpu")).share(batch) for r in range(size)]
        assert [part[step] for part in parts] == shares
    assert {len(part) for part in parts} == {len(whole)}, "all ranks take the same number of steps"


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_workers_change_nothing(folder, workers):
    whole = list(Stream(folder, 4, KEYS, epochs=1, which=["input"]))
    for loader in (
        Loader(Stream(folder, 4, KEYS, epochs=1, which=["input"]), workers),
        DataLoader(Stream(folder, 4, KEYS, epochs=1, which=["input"]), batch_size=None, num_workers=workers),
    ):
        found = list(loader)
        assert [b["id"] for b in found] == [b["id"] for b in whole]
        assert [b["position"] for b in found] == [b["position"] for b in whole]
        assert all(torch.equal(a["input"], b["input"]) for a, b in zip(found, whole, strict=True))


@pytest.mark.parametrize(("before", "after"), [((0, 1), (2, 1)), ((2, 1), (0, 2)), ((2, 2), (1, 3))])
@pytest.mark.parametrize("stop", [1, 4, 9])
def test_it_goes_on_where_it_was_with_other_workers_and_ranks(folder, before, after, stop):
    """(workers, ranks) before and after; read-ahead of the workers is not counted as read."""
    whole = [batch["id"] for batch in opened(folder, batch=4, epochs=3)]
    loaders = [Loader(opened(folder, 4, 3, rank=r, size=before[1]), before[0]) for r in range(before[1])]
    iterators = [iter(loader) for loader in loaders]
    seen = [[id for it in iterators for id in next(it)["id"]] for _ in range(stop)]
    states = [json.loads(json.dumps(loader.state_dict())) for loader in loaders]
    del iterators
    assert all(state == states[0] for state in states) and states[0]["position"] == 4 * stop
    resumed = [Loader(opened(folder, 4, 3, rank=r, size=after[1]), after[0]) for r in range(after[1])]
    for loader in resumed:
        loader.load_state_dict(states[0])
    rest = [[id for batch in parts for id in batch["id"]] for parts in zip(*resumed, strict=True)]
    assert seen + rest == whole


def test_a_position_in_other_data_or_of_another_seed_is_refused(folder):
    state = opened(folder).state_dict()
    with pytest.raises(UserError, match="of other triplets"):
        opened(folder, split="train").load_state_dict(state)
    with pytest.raises(UserError, match="of another seed"):
        Stream(folder, 4, (8, "test"), which=(), texts=()).load_state_dict(state)


def test_an_endless_stream_does_not_end(folder):
    batches, chosen = iter(opened(folder, batch=11, epochs=None)), Triplets(folder).select()
    found = [id for _ in range(len(chosen)) for id in next(batches)["id"]]
    assert all(found.count(id) == 11 for id in chosen)


# ---- what is wrong is said -----------------------------------------------------------------------------------
@pytest.fixture
def damaged(folder, tmp_path) -> Path:
    return Path(shutil.copytree(folder, tmp_path / "triplets"))


@pytest.mark.parametrize("workers", [0, 2])
def test_a_damaged_clip_is_named(damaged, workers):
    row = Triplets(damaged).frame.iloc[3]
    with open(damaged / "shards" / row["shard"], "r+b") as shard:
        shard.seek(row["target_offset"])
        shard.write(bytes(row["target_size"]))
    with pytest.raises(UserError) as caught:
        list(Loader(Stream(damaged, 4, KEYS, epochs=1), workers))
    said = str(caught.value)
    assert said.startswith(str(damaged / "shards" / row["shard"])) and f"target clip of {row['id']} is damaged" in said
    assert "Traceback" not in said


def test_a_shard_that_ends_too_early(damaged):
    last = sorted((damaged / "shards").iterdir())[-1]
    data = last.read_bytes()
    stream = Stream(damaged, 4, KEYS, epochs=1)
    last.write_bytes(data[:2000])
    for read in (lambda: list(stream), lambda: Stream(damaged, 4, KEYS)):
        with pytest.raises(UserError, match=f"{last.name}.* is damaged .the shard ends before it"):
            read()


def test_what_is_missing_is_named(damaged):
    with pytest.raises(UserError, match="no triplet of split='nowhere'"):
        opened(damaged, split="nowhere")
    next((damaged / "shards").iterdir()).unlink()
    with pytest.raises(UserError, match=r"\.tar: missing; make it again"):
        opened(damaged)
    frame = pd.read_parquet(damaged / "manifest.parquet")
    frame.drop(columns="target_size").to_parquet(damaged / "manifest.parquet")
    with pytest.raises(UserError, match="has no column target_size"):
        Stream(damaged, 4, KEYS)
    (damaged / "manifest.parquet").write_bytes(b"not parquet")
    with pytest.raises(UserError, match="not a readable manifest"):
        opened(damaged)
    (damaged / "manifest.parquet").unlink()
    with pytest.raises(UserError, match="missing; make it with"):
        opened(damaged)


def test_arguments_that_cannot_be_meant(folder):
    cases: list[dict[str, Any]] = [{"rank": 2, "size": 2}, {"batch": 0}, {"epochs": 0}, {"which": ["video"]}]
    for wrong in cases:
        with pytest.raises(ValueError):
            Stream(folder, **{"batch": 4, "keys": KEYS, **wrong})


# ---- means ---------------------------------------------------------------------------------------------------
def test_few_shards_are_open_at_once(folder, monkeypatch):
    monkeypatch.setattr(stream, "OPEN_SHARDS", 2)
    reader = Stream(folder, 4, KEYS, epochs=1, decode=False)
    before = len(list(Path("/proc/self/fd").iterdir())) if Path("/proc/self/fd").exists() else 0
    assert len(ids(reader)) == reader.count and len(reader._open) == 2
    del reader
    if before:
        assert len(list(Path("/proc/self/fd").iterdir())) <= before


def big(folder: Path, count: int) -> Path:
    """A manifest of `count` triplets with texts of the paper's lengths, over the small world's shards."""
    frame = pd.read_parquet(folder / "manifest.parquet")
    whole = frame.iloc[np.arange(count) % len(frame)].reset_index(drop=True)
    number = pd.Series(np.arange(count)).astype(str)
    whole["id"] = "activitynet-v_" + number.str.zfill(11) + "-" + number
    for name, words in (("question", 15), ("reasoning", 60), ("caption", 20)):
        whole[name] = ("word " * (words - 1)) + number
    out = folder.parent / f"big-{count}"
    out.mkdir(exist_ok=True)
    whole.to_parquet(out / "manifest.parquet")
    if not (out / "shards").exists():
        (out / "shards").symlink_to(folder / "shards")
    return out


def test_memory_of_100_000_triplets(folder):
    place = big(folder, 100_000)
    tracemalloc.start()
    reader = Stream(place, 64, KEYS, epochs=1, decode=False)
    batch = reader.read(reader.rows(0, 64))
    python = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    arrays = reader.shard.nbytes + sum(a.nbytes for pair in reader.places.values() for a in pair) + reader.words.nbytes
    assert len(set(batch["id"])) == 64 and reader.count == 100_000
    assert arrays < 100e6 and python < 60e6, (arrays, python)


def test_memory_of_the_table_of_100_000_triplets(folder):
    frame = Triplets(big(folder, 100_000)).frame
    assert frame.memory_usage(deep=True).sum() < 120e6


def test_the_readers_benchmark(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(smoke.ROOT)
    spec = importlib.util.spec_from_file_location("reader", smoke.ROOT / "benchmarks/reader.py")
    assert spec is not None and spec.loader is not None
    reader = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(reader)
    monkeypatch.setattr(reader, "WORKERS", (1, 2))
    found = reader.main(["--triplets", str(folder), "--repeats", "1", "--cold"])
    assert found["samples"] == len(Triplets(folder)) and found["ratio_to_raw"]["raw, front to back"] == 1
    made = reader.main(["--synthetic", "20", "--scale", "tiny", "--repeats", "1", "--out", str(tmp_path / "x.json")])
    assert made["samples"] == 20 and json.loads((tmp_path / "x.json").read_text()) == made
    assert set(made["samples_per_s"]) == set(found["samples_per_s"]) and min(made["samples_per_s"].values()) > 0
