"""Near-duplicates: what counts as one video, that none is missed, that none stands on both sides."""

import dataclasses
import json
import string
from fractions import Fraction
from types import SimpleNamespace
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests import media_helpers
from tests.data_helpers import curate_params, real_clips, world_params
from vans.data import duplicates
from vans.data.annotate import Annotation
from vans.data.curate import curate
from vans.data.cutting import Look, Piece, Settings, cut
from vans.data.duplicates import Search, groups, leaking, proof, unclear, vectors
from vans.data.fingerprint import FRAMES, GRID, fingerprint, fingerprints
from vans.data.leaks import apart, proven
from vans.data.ledger import Ledger
from vans.data.records import Given, Record
from vans.data.shots import Segment
from vans.data.triplets import Triplets
from vans.data.work import Looked
from vans.errors import UserError
from vans.media import video
from vans.toy import world

SHAPE = (FRAMES, GRID, GRID, 3)


def record(name: str, split: str = "train", scene: str = "") -> Record:
    return Record("s", name, None, "predictive", split, scene or f"s/{name}")


def prints(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), dtype=np.uint8)


def altered(one: np.ndarray, amount: int, seed: int = 1) -> np.ndarray:
    noise = np.random.default_rng(seed).integers(-amount, amount + 1, one.shape)
    return np.clip(one.astype(int) + noise, 0, 255).astype(np.uint8)


def test_distance_is_that_of_the_correlation_and_blind_to_light():
    one, other = prints(2).reshape(2, -1)
    a, b = vectors(np.stack([one, other]))
    r = np.corrcoef(one, other)[0, 1]
    assert np.linalg.norm(a - b) == pytest.approx(np.sqrt(2 - 2 * r), abs=1e-5)
    darker = (one * 0.5 + 20).round().astype(np.uint8)
    assert np.linalg.norm(np.subtract(*vectors(np.stack([one, darker])))) < 0.01
    flat = np.stack([np.full(SHAPE, 7, np.uint8), altered(np.full(SHAPE, 7, np.uint8), 1)])
    assert np.linalg.norm(np.subtract(*vectors(flat))) < 0.3, "noise on a flat picture is no content"


@pytest.mark.parametrize("crowded", [False, True])
@pytest.mark.parametrize("radius", [0.05, 0.3, 0.9])
def test_the_search_finds_exactly_what_comparing_all_with_all_finds(radius, crowded, monkeypatch):
    if crowded:
        monkeypatch.setattr(duplicates, "MANY", 10)
        monkeypatch.setattr(duplicates, "ROWS", 7)
    base = prints(40)
    near = np.concatenate([altered(base[:20], amount, amount) for amount in (4, 30, 60, 90)])
    points = vectors(np.concatenate([base, near]))
    full = np.linalg.norm(points[:, None] - points[None], axis=-1)
    expected = {(i, j) for i, j in zip(*np.nonzero(full <= radius)) if i < j}
    found, distance, _ = Search(points).pairs(radius)
    assert len(expected) >= 20 and {(i, j) for i, j in found} <= expected
    if crowded:  # only so many that the same hang together
        parts = [duplicates._connected(np.array(sorted(map(tuple, e))), len(points)) for e in (expected, found)]
        assert all(len({(a, b) for a, b in zip(*parts)}) == len(set(p)) for p in parts)
    else:
        assert len(found) == len(expected)
    assert np.allclose(distance, [full[i, j] for i, j in found], atol=1e-6)
    there = Search(points[40:])
    across, _, _ = Search(points[:40], there.axes).across(there, radius)
    assert {(i, j + 40) for i, j in across} == {(i, j) for i, j in expected if i < 40 <= j}
    assert Search(points[:20], there.axes).across(Search(points[20:40], there.axes), 0.01)[0].shape == (0, 2)


def test_few_pairs_are_measured_of_many():
    coarse = np.random.default_rng(0).integers(0, 256, (3000, 2, 2, 2, 3), dtype=np.uint8)  # as pictures are
    points = vectors(coarse.repeat(4, axis=1).repeat(4, axis=2).repeat(4, axis=3))
    assert Search(points).pairs(0.3)[2] < 3000 * 3000 / 2 / 100


def test_groups_join_duplicates_chains_and_scenes():
    a, b, c = prints(3)
    chain = [altered(a, 30, n) for n in (1, 2)]
    records = [
        *(record("a"), record("a2"), record("a3"), record("b", scene="s/x"), record("c", scene="s/x")),
        *(record("a4", "test"), record("far", "test")),
    ]
    seen = [*(p[None] for p in (a, chain[0], chain[1], b, c)), np.stack([prints(1, 9)[0], a]), prints(1, 8)]
    group, facts = groups(records, seen, 0.3)
    assert group == ["s/a", "s/a", "s/a", "s/b", "s/b", "s/a", "s/far"]
    assert facts["videos"] == 7 and facts["near_pairs"] >= 3
    assert leaking(records, group) == {"s/a", "s/a2", "s/a3"}, "the training side gives way, as a whole"


def test_a_scene_leaves_training_with_its_duplicate():
    a, b, c = (p[None] for p in prints(3))
    records = [record("a", scene="s/x"), record("b", scene="s/x"), record("c"), record("t", "test")]
    group, _ = groups(records, [a, b, c, altered(a, 3)], 0.1)
    assert leaking(records, group) == {"s/a", "s/b"}


def test_a_scene_on_both_sides_is_not_taken_for_a_duplicate():
    a, b = (p[None] for p in prints(2))
    records = [record("a", scene="s/x"), record("b", "test", scene="s/x")]
    assert not leaking(records, groups(records, [a, b], 0.1)[0])


def test_the_same_video_id_is_the_same_video_in_every_folder():
    """A part of a video has another fingerprint than the whole."""
    names = ("vans/dQw4w9WgXcQ", "v1/anet/v_dQw4w9WgXcQ", "coin/v_abcdEFGH1", "own/living_room", "v1/video_00001")
    other = ("coin/dQw4w9WgXcQ", "yc2/v_abcdEFGH1", "other/living_room", "shorts/video_00001")
    records = []
    for title, split in (*((name, "train") for name in names), *((name, "test") for name in other)):
        source, _, name = title.partition("/")
        records.append(Record(source, name, None, "predictive", split, title))
    group, facts = groups(records, list(prints(len(records))[:, None]), 0.1)
    assert leaking(records, group) == {"vans/dQw4w9WgXcQ", "v1/anet/v_dQw4w9WgXcQ", "coin/v_abcdEFGH1"}
    assert facts["same_id"] == 3 and facts["near_pairs"] == 0


@pytest.mark.parametrize(
    "name",
    [
        *("Video_00001", "Clip-000001", "IMG_1234567", "DSC_0001234", "cam1_000001", "20240101_12", "12345678901"),
        *("Living_Room", "Birthday_01", "GX010012345", "kitchen-cam"),
    ],
)
def test_names_that_people_and_cameras_give_are_no_video_ids(name):
    assert not duplicates.video_id(name) and not duplicates.video_id(f"train/{name}")


def test_nearly_all_of_youtubes_ids_are_video_ids():
    draw = np.random.default_rng(0)
    letters = np.array(list(string.ascii_letters + string.digits + "-_"))
    ids = ["".join(some) for some in letters[draw.integers(0, 64, (20_000, 11))]]
    assert np.mean([duplicates.video_id(id) == id for id in ids]) > 0.995


def test_what_a_dropped_video_is_near_to_is_said():
    a, b, c = prints(3)
    records = [record("a"), record("t", "test"), record("u", "test"), record("far")]
    seen = [p[None] for p in (a, altered(a, 3), b, c)]
    group, _ = groups(records, seen, 0.3)
    said = duplicates.why("s/a", records, seen, group)
    assert said.startswith("s/a: dropped from training, in one group with s/t (distance 0.")
    assert 0 < float(said.rpartition(" ")[2].rstrip(")")) < 0.3


def test_whole_video_and_cut_files_are_both_looked_at(tmp_path):
    for n, name in enumerate(("whole", "a", "b")):
        video.write(tmp_path / f"{name}.avi", np.full((9, 16, 16, 3), 50 * n, np.uint8), 3.0)
    files = (tmp_path / "a.avi", tmp_path / "b.avi")
    given = (Given("1", "2", None, ("", ""), files), Given("2", "3", None, ("", ""), (files[1], None)))
    for path, levels in ((tmp_path / "whole.avi", [0, 50, 100]), (None, [50, 100])):
        found, videos = fingerprints(Record("s", "x", path, "procedural", "train", "s/x", given=given))
        assert [int(p.max()) for p in found] == levels and videos == (path is not None)


def drifting(seconds: int, seed: int) -> np.ndarray:
    """Pictures uint8 [8 a second, 64, 96, 3] that go from one random pattern to the next, each second another."""
    rng = np.random.default_rng(seed)
    keys = rng.integers(0, 256, (seconds + 1, 4, 6, 3)).astype(float)
    at = np.arange(seconds * 8) / 8
    low, part = at.astype(int), (at % 1)[:, None, None, None]
    return ((1 - part) * keys[low] + part * keys[low + 1]).astype(np.uint8).repeat(16, axis=1).repeat(16, axis=2)


@pytest.mark.parametrize("tested", ["cut", "whole"])
def test_a_file_cut_out_of_a_video_under_another_name_leaves_training(tmp_path, tested):
    sides = {"cut": "training", "whole": "training"} | {tested: "testing"}
    film = drifting(12, 1)
    steps = [{"id": str(i), "segment": [4 * i, 4 * i + 4], "label": f"step {i}"} for i in range(3)]
    entry = {"class": "T", "subset": sides["whole"], "annotation": steps}
    other = {"class": "T", "subset": "testing", "annotation": steps}
    for name, frames in (("film", film), ("other", drifting(12, 2))):
        video.write(tmp_path / f"data/coin/{name}.mp4", frames, 8.0)
    (tmp_path / "data/coin/COIN.json").write_text(json.dumps({"database": {"film": entry, "other": other}}))
    films = {"elsewhere": {"subset": sides["cut"]}, "own": {"subset": "training"}}
    (tmp_path / "data/shorts").mkdir()
    (tmp_path / "data/shorts/shorts.json").write_text(json.dumps({"database": films}))
    for i, pictures in enumerate((film[33:64], film[64:95])):  # steps 1 and 2, cut off by a picture
        video.write(tmp_path / f"data/shorts/elsewhere/{i}.mp4", pictures[:, 2:, 3:-3].repeat(2, 1).repeat(2, 2), 8.0)
        video.write(tmp_path / f"data/shorts/own/{i}.mp4", drifting(4, 5 + i), 8.0)
    asked: Any = SimpleNamespace(chooses=None, write=lambda some: [Annotation("q", "r", "c", "plain") for _ in some])
    params = curate_params(near_duplicate=0.4)
    report = curate(tmp_path / "data", tmp_path / "out", params, progress=False, asked=asked)
    assert report["videos"]["dropped"] == {duplicates.NEAR: 1}
    gone = {"cut": "coin/film", "whole": "shorts/elsewhere"}[tested]
    assert gone not in set(Triplets(tmp_path / "out").frame["video"])
    leaks = report["leaks"]
    assert leaks["cut_files"] == 4 and leaks["segments"] >= 10
    assert leaks["near_pairs"] == 1
    left = [leaks[name]["nearest"] for name in ("test_files_in_training", "training_files_in_test")]
    assert [n is None for n in left] == [tested == "whole", False]  # then the test side has no cut files
    assert all(n is None or n > 0.4 for n in left)

    looked = {
        "s/t": Looked("", prints(3)[:1], True, videos=0),
        "s/a": Looked("", prints(3)[1:2], True, parts=prints(3)[:1]),
    }
    rows = [{"split": "test", "video": "s/t"}, {"split": "train", "video": "s/a"}]
    with pytest.raises(UserError, match="s/a .training. is a near-duplicate of s/t"):
        proven(rows, {t: found.prints for t, found in looked.items() if found.prints is not None}, 0.4, looked)


@pytest.mark.parametrize("fps", [8.0, 25.0])
def test_a_file_cut_at_the_annotated_times_is_near_its_segment_at_the_toy_radius(tmp_path, fps):
    film = drifting(13, 3).repeat(round(fps / 8), axis=0)[: round(12 * fps)]
    video.write(tmp_path / "film.mp4", film, fps)
    for start, end in ((1.25, 4.625), (4.625, 8.875), (8.875, 12.0)):
        first, last = round(start * fps), round(end * fps)
        video.write(tmp_path / "cut.mp4", film[first:last], fps)
        segment = Segment("1", first / fps, last / fps)
        ((plan),) = cut(
            [Piece(video.Video(tmp_path / "film.mp4"), segment)], Look(Settings.of(curate_params()), {}, {})
        )
        assert plan.cuts is not None and plan.cuts["input"].print is not None
        assert distance(plan.cuts["input"].print, fingerprint(video.Video(tmp_path / "cut.mp4"))) < 0.08


def test_a_file_that_ends_early_keeps_the_clips_that_are_whole(tmp_path):
    """The last picture of a segment's fingerprint lies behind its clip's: the clip must not be lost for it."""
    video.write(tmp_path / "a.mp4", drifting(6, 3)[:40], 8.0)
    opened = video.Video(tmp_path / "a.mp4")
    opened.info = dataclasses.replace(opened.info, duration=6.0)
    steady = Settings.of(curate_params(input_seconds=6.0, target_seconds=6.0, frames=6))
    seen: dict = {}
    (plan,) = cut([Piece(opened, Segment("1", 0.0, 9.9))], Look(steady, {}, seen))
    assert not plan.reason and plan.cuts is not None, plan.error


def dark(count: int) -> np.ndarray:
    """Black pictures with noise."""
    return np.random.default_rng(5).integers(0, 4, (count, *SHAPE), dtype=np.uint8)


def test_flat_videos_are_compared_with_none_and_leave_training_if_one_is_tested():
    black = np.concatenate([dark(3), np.zeros((2, *SHAPE), np.uint8)])
    seen = [*black[:, None], prints(1), np.concatenate([black[:1], prints(1, 4)])]
    records = [*(record(n) for n in "abc"), record("t", "test"), record("d"), record("clear"), record("half")]
    group, facts = groups(records, seen, 0.4)
    assert len(set(group)) == 7 and not leaking(records, group)
    assert facts["not_comparable"] == 5 and facts["pairs_measured"] <= 1
    assert unclear(records, seen) == {"s/a", "s/b", "s/c", "s/d"}
    untested = [r for r in records if r.split == "train"]
    assert not unclear(untested, [*seen[:3], *seen[4:]])
    assert groups(records[:3], seen[:3], 0.4)[0] == ["s/a", "s/b", "s/c"]
    assert proof({"s/t": seen[3]}, {"s/clear": seen[5]}, 0.4)["nearest"] is None
    ledger = Ledger()
    tasks: list[Any] = [SimpleNamespace(record=r) for r in records]
    looked = {r.title: Looked("", p, True) for r, p in zip(records, seen)}
    left = apart(tasks, looked, 0.4, ledger)[0]
    assert [t.record.name for t in left] == ["t", "clear", "half"]
    assert {reason for _, _, reason in ledger.drops} == {duplicates.UNCLEAR}


def test_where_all_are_near_each_other_few_are_measured_and_few_held(monkeypatch):
    coarse = np.random.default_rng(0).integers(0, 256, (2, 2, 2, 2, 3), dtype=np.uint8)
    one, other = coarse.repeat(4, axis=1).repeat(4, axis=2).repeat(4, axis=3)
    points = vectors(np.stack([altered(p, 20, n) for n in range(150) for p in (one, other)]))
    monkeypatch.setattr(duplicates, "MANY", 3000, raising=False)
    held: list[int] = []
    measure = duplicates._measure

    def watched(first, second, found):
        held.append(len(found))
        return measure(first, second, found)

    monkeypatch.setattr(duplicates, "_measure", watched)
    found, distance, measured = Search(points).pairs(0.4)
    joined = duplicates._connected(found, len(points))
    assert set(joined[::2]) != set(joined[1::2]) and len(set(joined)) == 2, "the same ones hang together"
    assert max(held) <= 3000 and measured < 300 * 299 // 2 / 5 and (distance <= 0.4).all()
    held.clear()
    there = Search(points[150:])
    assert len(Search(points[:150], there.axes).across(there, 0.4)[0]) == 2 * 75 * 75
    assert max(held) <= 3000


def test_the_proof_finds_the_nearest_pair_or_refuses(monkeypatch):
    base = prints(30)
    test = {f"t{i}": p[None] for i, p in enumerate(base[:10])}
    train = {f"n{i}": p[None] for i, p in enumerate(base[10:])} | {"close": altered(base[3], 60)[None]}
    exact = np.linalg.norm(np.subtract(*vectors(np.stack([base[3], train["close"][0]]))))
    found = proof(test, train, 0.1)
    assert (found["test_video"], found["train_video"]) == ("t3", "close")
    assert found["nearest"] == pytest.approx(exact, abs=1e-4)
    with pytest.raises(UserError, match="close .training. is a near-duplicate of t3"):
        proof(test, train, float(exact) + 0.01)
    monkeypatch.setattr(duplicates, "CANDIDATES", 0)
    bounded = proof(test, train, 0.01)
    assert bounded["nearest"] is None and bounded["farther_than"] >= 0.01
    assert proof({}, train, 0.1)["nearest"] is None


def test_toy_sources_are_not_taken_for_each_other(tmp_path):
    world.generate(tmp_path / "data", world_params(30, 10, 60, 10))
    report = curate(tmp_path / "data", tmp_path / "out", curate_params(), progress=False)
    leaks = report["leaks"]
    assert leaks["dropped_from_training"] == 0 and duplicates.NEAR not in report["videos"]["dropped"]
    assert leaks["across_the_split"]["nearest"] > leaks["near_duplicate"]
    frame = Triplets(tmp_path / "out").frame
    assert (frame.groupby("group")["scene"].nunique() == 1).all()
    assert not set(frame[frame.split == "train"].group) & set(frame[frame.split == "test"].group)


# ----------------------------------------------------------------------------------------------- real videos
def encode(path, frames, fps, crf=28):
    frames = [f[: f.shape[0] // 2 * 2, : f.shape[1] // 2 * 2] for f in frames]
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=Fraction(fps).limit_denominator(1001))
        stream.options = {"crf": str(crf), "threads": "1", "preset": "veryfast"}
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(frame), format="rgb24")):
                out.mux(packet)
        for packet in stream.encode():
            out.mux(packet)


def scaled(frames, height, width):
    return [np.asarray(Image.fromarray(f).resize((width, height), Image.Resampling.BILINEAR)) for f in frames]


@pytest.fixture(scope="module")
def real():
    return {p.stem: p for p in sorted(real_clips().glob("*.mp4"))}


def distance(a, b) -> float:
    return float(np.linalg.norm(np.subtract(*vectors(np.stack([a, b])))))


def test_different_real_videos_are_far_apart(real):
    points = vectors(np.stack([fingerprint(video.Video(p)) for p in real.values()]))
    full = np.linalg.norm(points[:, None] - points[None], axis=-1)
    assert full[np.triu_indices(len(full), 1)].min() > 1.0


@pytest.mark.parametrize("name", ["peppers_on_tray", "toddler_living_room"])
def test_copies_of_a_real_video_are_near(real, tmp_path, name):
    frames, fps = media_helpers.read(real[name])
    original = fingerprint(video.Video(real[name]))
    height, width = frames.shape[1:3]
    y, x = height * 3 // 100, width * 3 // 100
    copies = {
        "small": (scaled(frames, 120, 200), fps, 30),
        "cropped": (scaled(frames[:, y : height - y, x : width - x], 160, 284), fps, 26),
        "slow": (scaled(frames[::2], 160, 284), fps / 2, 26),
    }
    limits = {"small": 0.08, "cropped": 0.4, "slow": 0.4}
    for kind, (pictures, rate, crf) in copies.items():
        encode(tmp_path / f"{kind}.mp4", pictures, rate, crf)
        assert distance(fingerprint(video.Video(tmp_path / f"{kind}.mp4")), original) < limits[kind], kind


def test_the_same_source_under_another_name_leaves_training(real, tmp_path):
    import shutil

    folder = tmp_path / "data" / "coin"
    folder.mkdir(parents=True)
    for name in ("peppers_on_tray", "birthday", "silence_girl"):
        shutil.copyfile(real[name], folder / f"{name}.mp4")
    database = json.loads((real_clips() / "annotations.json").read_text())["database"]
    frames, fps = media_helpers.read(real["silence_girl"])  # its subset is testing
    (tmp_path / "data" / "other").mkdir()
    encode(tmp_path / "data/other/elsewhere.mp4", scaled(frames, 180, 320), fps)
    copy = {**database["silence_girl"], "subset": "training"}
    (folder / "COIN.json").write_text(json.dumps({"database": database}))
    (tmp_path / "data/other/COIN.json").write_text(json.dumps({"database": {"elsewhere": copy}}))
    params = curate_params(near_duplicate=0.4)
    report = curate(tmp_path / "data", tmp_path / "out", params, progress=False)
    assert report["videos"]["dropped"] == {duplicates.NEAR: 1} and report["leaks"]["dropped_from_training"] == 1
    assert report["leaks"]["across_the_split"]["nearest"] > 0.4
    frame = Triplets(tmp_path / "out").frame
    assert "other/elsewhere" not in set(frame.video) and "coin/silence_girl" in set(frame[frame.split == "test"].video)
    (tmp_path / "data/other/COIN.json").write_text(
        json.dumps({"database": {"elsewhere": {**copy, "subset": "testing"}}})
    )
    report = curate(tmp_path / "data", tmp_path / "again", params, progress=False)
    assert not report["videos"]["dropped"], "on one side both may stay"
    assert Triplets(tmp_path / "again").frame.groupby("group").video.nunique().max() == 2
