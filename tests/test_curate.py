"""Curation: triplets out of toy and real sources, what is dropped and why, splits, reading."""

import csv
import json
import shutil
import tarfile
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from tests import media_helpers
from tests.data_helpers import curate_params, real_clips, world_params
from vans.data import annotate
from vans.data import curate as module
from vans.data.annotate import Refused, Request
from vans.data.curate import curate
from vans.data.leaks import check_splits
from vans.data.ledger import Ledger
from vans.data.records import Record
from vans.data.shards import COLUMNS
from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.media import video
from vans.toy import oracle, world
from vans.toy.render import ONSETS, TRANSIENT


@pytest.fixture(scope="module")
def toy(tmp_path_factory):
    """A small toy world and its triplets: (data folder, triplets folder, report)."""
    folder = tmp_path_factory.mktemp("toy")
    world.generate(folder / "data", world_params(12, 6, 60, 4))
    report = curate(folder / "data", folder / "triplets", curate_params(), progress=False)
    return folder / "data", folder / "triplets", report


def read(text: str) -> tuple[str, str]:
    known = world.read_label(text)
    assert known is not None
    return known


def balances(report: dict) -> bool:
    levels = [report[key] for key in ("videos", "segments", "pairs")]
    return all(level["in"] == level["kept"] + sum(level["dropped"].values()) for level in levels)


def test_what_came_in_was_kept_or_dropped_for_a_reason(toy):
    _, folder, report = toy
    assert balances(report)
    assert json.loads((folder / "report.json").read_text()) == report
    drops = pd.read_csv(folder / "dropped.csv")
    assert len(drops) == sum(sum(report[k]["dropped"].values()) for k in ("videos", "segments", "pairs"))
    assert len(pd.read_csv(folder / "segments.csv")) == report["segments"]["in"]
    assert report["triplets"]["all"] == report["pairs"]["kept"] == len(Triplets(folder))
    assert {"unreadable", "same file as another video"} <= set(report["videos"]["dropped"])
    assert {"shorter than 3 s", "black between shots"} <= set(report["segments"]["dropped"])
    assert report["questions_refused"]["count"] > 0


def test_every_clip_shows_what_its_label_says(toy):
    triplets = Triplets(toy[1])
    for which in ("input", "target"):
        clips = triplets.clips(triplets.select(), which)
        assert clips.shape == (len(triplets), 9, 32, 32, 3) and clips.dtype == np.uint8
        truth = [world.read_label(text) for text in triplets.frame[f"{which}_sentence"]]
        assert [(r.shape, r.event) for r in oracle.read(clips)] == truth and None not in truth
        away = (clips != clips[:, :1]).any((2, 3, 4)).argmax(1)  # the first frame that is another
        transient = np.array([known is not None and known[1] in TRANSIENT for known in truth])
        assert set(away[~transient]) == {2}  # what lasts begins at the same moment of its clip
        assert set(away[transient]) == set(ONSETS)  # and what does not, at any of its own


def test_texts_are_true_and_questions_do_not_tell_the_answer(toy):
    frame = Triplets(toy[1]).frame
    words = set(world.vocabulary())
    for row in frame.itertuples():
        shape, event = read(row.target_sentence)
        assert event in world.caption_events(row.caption)
        assert (len(world.caption_events(row.caption)) == 2) == (row.style == "flowery")
        assert not (row.style == "flowery" and (row.rl or row.split == "test")), "references for the eye are plain"
        assert shape in row.caption.split()
        assert set(f"{row.question} {row.reasoning} {row.caption}".split()) <= words
        assert not any(wording in row.question for wording in world.PLAIN[event])
        if row.kind == "procedural":
            _, seen = read(row.input_sentence)
            routine = next(r for r in world.ROUTINES if r in row.question)
            assert routine == row.topic
            assert world.successor(routine, seen) == event
        else:
            assert row.condition in row.question
            assert event in {world.outcome(row.condition, shape), world.outcome(row.condition, shape, True)}
    assert 0.2 < (frame["style"] == "flowery").mean() < 0.5


def test_a_clip_has_the_rate_of_the_time_that_it_spans(toy):
    triplets = Triplets(toy[1])
    first, second = triplets.select(limit=2)
    triplets.frame.loc[second, ["input_start", "input_end"]] = (2.0, 20.0)
    assert triplets.rates([second, first], "input", 9) == [0.5, 3.0]
    assert triplets.rates([second], "target", 9) == [3.0]
    triplets.frame.loc[second, ["input_start", "input_end"]] = (0.0, 1e300)
    assert triplets.rates([second], "input", 9) == [0.001]


def test_splits_share_no_video_and_no_scene(toy):
    frame = Triplets(toy[1]).frame
    for key in ("video", "scene"):
        assert not set(frame[frame.split == "train"][key]) & set(frame[frame.split == "test"][key])
    test = frame[(frame.split == "test") & (frame.kind == "procedural")]
    assert test["video"].is_unique and len(test) == 6
    assert len(frame[(frame.split == "test") & (frame.kind == "predictive")]) == 8
    rows = [{"video": "a", "scene": "x", "split": "train"}, {"video": "b", "scene": "x", "split": "test"}]
    with pytest.raises(UserError, match="scene 'x'"):
        check_splits(rows)
    with pytest.raises(UserError, match="video 'a'"):
        check_splits([rows[0], {**rows[1], "video": "a"}])


def test_the_same_input_with_another_question_has_another_future(toy):
    triplets = Triplets(toy[1])
    frame = triplets.frame[triplets.frame.kind == "predictive"]
    pairs = [group["id"].tolist() for _, group in frame.groupby("scene") if len(group) == 2]
    assert len(pairs) > 20
    for a, b in pairs:
        first, second = triplets.clips([a, b], "input")
        assert np.array_equal(first, second)
        assert triplets.row(a)["question"] != triplets.row(b)["question"]
        assert triplets.row(a)["target_sentence"] != triplets.row(b)["target_sentence"]


def test_the_rl_subset_is_half_of_each_kind_and_in_training(toy):
    frame = Triplets(toy[1]).frame
    chosen = frame[frame.rl]
    assert set(chosen.split) == {"train"}
    assert chosen.kind.value_counts().to_dict() == {"procedural": 4, "predictive": 4}
    assert (chosen.rl_reason == "").all() and (frame[~frame.rl].rl_reason != "").all()
    assert toy[2]["rl"]["taken"] == 8 and sum(toy[2]["rl"]["refused"].values()) == len(frame) - 8
    assert frame["agreement"].isna().all() and "left out" in toy[2]["rl"]["agreement"]
    assert frame["rl_score"].between(0, 1).all() and frame["motion"].gt(0).all()


def test_bytes_depend_on_content_alone_not_on_where_or_when(toy, tmp_path):
    shutil.copytree(toy[0], tmp_path / "elsewhere")
    curate(tmp_path / "elsewhere", tmp_path / "again", curate_params(), progress=False)
    for path in sorted(p for p in toy[1].rglob("*") if p.is_file()):
        assert (tmp_path / "again" / path.relative_to(toy[1])).read_bytes() == path.read_bytes(), path


def test_shards_are_ordinary_tars_and_offsets_point_into_them(toy):
    triplets = Triplets(toy[1])
    assert list(triplets.frame.columns) == list(COLUMNS)
    with tarfile.open(toy[1] / "shards" / "00000.tar") as tar:
        assert len(tar.getnames()) == 2 * len(triplets)
        for id in triplets.select(limit=5):
            member = tar.extractfile(f"{id}.target.avi")
            assert member is not None and member.read() == triplets.file(id, "target")


def test_selection_is_ordered_filtered_and_spread(toy):
    triplets = Triplets(toy[1])
    everything = triplets.select()
    assert everything == triplets.frame["id"].tolist()
    assert triplets.select(split="train", rl=True, kind="procedural") == [
        i for i in everything if triplets.row(i)["rl"] and triplets.row(i)["kind"] == "procedural"
    ]
    some = triplets.select(limit=7)
    assert len(some) == 7 == len(set(some)) and some == sorted(some, key=everything.index)
    assert triplets.select(limit=10**6) == everything
    with pytest.raises(ValueError, match="input or target"):
        triplets.clips(some, "output")


def test_missing_or_damaged_triplets_are_one_clear_line(toy, tmp_path):
    with pytest.raises(UserError, match=r"manifest\.parquet: missing"):
        Triplets(tmp_path)
    shutil.copytree(toy[1], tmp_path / "t")
    shard = tmp_path / "t" / "shards" / "00000.tar"
    shard.write_bytes(shard.read_bytes()[:4000])
    with pytest.raises(UserError, match="damaged"):
        Triplets(tmp_path / "t").clips(Triplets(tmp_path / "t").select(limit=2), "input")
    shard.unlink()
    with pytest.raises(UserError, match=r"00000\.tar: missing"):
        Triplets(tmp_path / "t")


class Paid:
    """An annotator that must not be asked."""

    chooses: tuple[int, int] | None = (24, 384)

    def choose(self, candidates):
        pytest.fail("a request was paid for")

    def write(self, requests):
        pytest.fail("a request was paid for")


def test_what_is_wrong_with_data_and_weights_is_said_before_a_request(toy, tmp_path):
    params = curate_params(agreement="clip")
    params.models = SimpleNamespace(clip=SimpleNamespace(repo=None, revision=None))
    params.machine = SimpleNamespace(device="cpu", engine="local", workers=1)
    for repo, message in ((None, "models.clip.repo"), (str(tmp_path), "safetensors is missing.*agreement: none")):
        params.models.clip.repo = repo
        with pytest.raises(UserError, match=message):
            curate(toy[0], tmp_path / "out", params, progress=False, asked=Paid())
    shutil.copytree(toy[0], tmp_path / "data")
    file = tmp_path / "data" / "shorts" / "shorts.json"
    films = json.loads(file.read_text())
    first = next(film for film in films["database"].values() if film["subset"] == "training")
    other = next(film for film in films["database"].values() if film["subset"] != "training")
    other["scene"] = first["scene"]
    file.write_text(json.dumps(films))
    with pytest.raises(UserError, match="is in training and in test"):
        curate(tmp_path / "data", tmp_path / "out", curate_params(), progress=False, asked=Paid())


def test_of_equal_files_the_test_video_stays_however_poor(tmp_path):
    records = []
    for name, split, labels in (("rich", "train", ("a", "b")), ("poor", "test", None), ("other", "train", None)):
        (tmp_path / name).write_bytes(b"same")
        records.append(Record("s", name, tmp_path / name, "predictive", split, f"s/{name}", labels=labels))
    ledger = Ledger()
    left = module.unique(records, {r.path: "digest" for r in records if r.path is not None}, ledger)
    assert [r.name for r in left] == ["poor"]
    assert [name for _, name, _ in ledger.drops] == ["s/rich", "s/other"]


def test_when_nothing_is_kept_what_was_there_stays(tmp_path):
    (tmp_path / "data" / "mine").mkdir(parents=True)
    (tmp_path / "data" / "mine" / "a.mp4").write_bytes(b"broken")
    (tmp_path / "triplets").mkdir()
    (tmp_path / "triplets" / "old").write_text("old")
    with pytest.raises(UserError, match=r"no triplet could be made: .*unreadable \(1\)"):
        curate(tmp_path / "data", tmp_path / "triplets", curate_params(), progress=False)
    assert [p.name for p in tmp_path.iterdir() if p.name != "data"] == ["triplets"]
    assert (tmp_path / "triplets" / "old").read_text() == "old"


REQUEST = Request("x", "procedural", "roast peppers", "wash the pepper", "cut the pepper into halves")


@pytest.mark.parametrize(
    ("question", "leaks"),
    [
        ("What is the next step of roast peppers?", False),
        ("Will she cut it now?", True),
        ("What happens to the pepper?", False),
        ("Is it time for cutting into halves?", True),
        ("", False),
    ],
)
def test_a_question_that_tells_the_answer_is_seen(question, leaks):
    assert annotate.leaks(question, REQUEST) == leaks


def test_leaking_toy_questions_are_refused_and_asked_again():
    requests = [
        Request(
            f"r{i}",
            "predictive",
            world.CONDITIONS[i % 8],
            world.label("ball", "jump"),
            world.label("ball", "fade"),
        )
        for i in range(600)
    ]
    written = [annotate.rules(r, 0, 0.35) for r in requests]
    assert 0.01 < np.mean([len(w.refused) for w in written]) < 0.06
    assert not any(annotate.leaks(w.question, r) for w, r in zip(written, requests))
    leaking = world.leaking_question("predictive", "the wind blows", "ball", "fade")
    assert annotate.leaks(leaking, requests[0])


@pytest.mark.parametrize(
    ("about", "question"),
    [
        ({"topic": "party"}, "Topic: party. What happens next?"),
        ({"topic": "the wind blows", "condition": "the wind blows"}, "What happens next if the wind blows?"),
        ({"topic": ""}, "What happens next?"),
    ],
)
def test_only_a_condition_is_asked_for_with_if(about, question):
    request = Request(**{"id": "x", "kind": "predictive", "input_label": "", "target_label": "she laughs"} | about)
    assert annotate.rules(request, 0, 0.0).question == question


def test_the_rules_refuse_what_they_cannot_write():
    unlabelled = Request("x", "predictive", "", "", "")
    with pytest.raises(Refused, match="no label"):
        annotate.rules(unlabelled, 0, 0.0)
    for texts, reason in (
        (("", "t", "c"), "empty"),
        (("Will she cut it?", "t", "She cuts it."), "answer away"),
    ):
        with pytest.raises(Refused, match=reason):
            annotate.rules(Request(*("x", "procedural", "", "wash it", "cut it"), given=texts), 0, 0.0)


# ----------------------------------------------------------------------------------------------- real videos
def copy_clips(folder, *names):
    folder.mkdir(parents=True)
    for name in names:
        shutil.copyfile(real_clips() / name, folder / name.replace("annotations.json", "COIN.json"))


STEPS = ("annotations.json", "peppers_on_tray.mp4", "birthday.mp4", "silence_girl.mp4")


def test_real_steps_are_cut_from_real_videos(tmp_path):
    copy_clips(tmp_path / "data" / "coin", *STEPS)
    report = curate(tmp_path / "data", tmp_path / "out", curate_params(), progress=False)
    assert balances(report)
    assert report["triplets"] == {"test procedural": 1, "train procedural": 3, "rl": 3, "all": 4}
    assert report["segments"]["dropped"] == {"shorter than 3 s": 1}  # 8.8 to 11.7 s
    triplets = Triplets(tmp_path / "out")
    row = triplets.row("coin-peppers_on_tray-1-2")
    assert row["question"] == "What is the next step of roast peppers?"
    assert row["caption"] == "Place a second red pepper half below the first one."
    assert row["input_start"] >= 0.4 and row["input_end"] <= 3.6
    assert row["input_end"] - row["input_start"] == pytest.approx(3.0)
    again = media_helpers.cut(tmp_path / "data/coin/peppers_on_tray.mp4", row["target_start"], 9, 3.0, 32, 32)
    assert np.array_equal(triplets.clips([row["id"]], "target")[0], again)


def test_real_steps_at_the_papers_size_are_mp4(tmp_path):
    copy_clips(tmp_path / "data" / "coin", "annotations.json", "peppers_on_tray.mp4")
    params = curate_params("h264", frames=33, height=352, width=640, fps=11.0)
    report = curate(tmp_path / "data", tmp_path / "out", params, progress=False)
    assert report["triplets"]["all"] == 1 and report["videos"]["dropped"] == {"video missing": 2}
    triplets = Triplets(tmp_path / "out")
    clips = triplets.clips(triplets.select(), "target")
    assert clips.shape == (1, 33, 352, 640, 3)
    start = triplets.frame["target_start"].iloc[0]
    exact = media_helpers.cut(tmp_path / "data/coin/peppers_on_tray.mp4", start, 33, 11.0, 352, 640)
    assert np.abs(clips[0].astype(int) - exact).mean() < 3.0  # H.264 loses a little, never a frame


def test_the_published_table_with_its_known_defects(tmp_path):
    copy_clips(tmp_path / "data" / "vans100k", *STEPS, "triplets.csv", "baby_with_book.mp4")
    report = curate(tmp_path / "data", tmp_path / "out", curate_params(), progress=False)
    assert balances(report) and report["styles"] == {"given": 4}
    assert report["pairs"]["dropped"] == {"the table lost the video's name (#NAME?)": 1, "video missing": 1}
    unused = {"none of its rows can be used": 1, "not in the annotations": 1}
    assert report["videos"]["dropped"] == unused
    row = Triplets(tmp_path / "out").row("vans100k-birthday-1-2")
    assert row["caption"] == "The man in the party hat raises both arms over the candle-lit cake and cheers."
    assert row["question"].startswith("My friends") and row["split"] == "train"
    assert Triplets(tmp_path / "out").row("vans100k-silence_girl-1-2")["split"] == "test"


def test_segments_that_are_already_cut_are_taken_as_they_are(tmp_path):
    copy_clips(tmp_path / "data" / "t", "triplets.csv")
    for i, start in (("1", 0.4), ("2", 4.7)):
        frames = media_helpers.cut(real_clips() / "peppers_on_tray.mp4", start, 33, 11.0, 64, 96)
        (tmp_path / "data/t/peppers_on_tray").mkdir(exist_ok=True)
        video.write(tmp_path / f"data/t/peppers_on_tray/{i}.mp4", frames, 11.0)
    report = curate(tmp_path / "data", tmp_path / "out", curate_params(), progress=False)
    assert report["triplets"]["all"] == 1 and report["videos"]["kept"] == 1
    assert report["videos"] == {"in": 4, "kept": 1, "dropped": {"none of its rows can be used": 3}}


def test_videos_without_annotation_are_searched_and_dropped_with_the_reason(tmp_path):
    copy_clips(tmp_path / "data" / "coin", *STEPS)
    copy_clips(tmp_path / "data" / "own", "baby_with_book.mp4", "toddler_living_room.mp4", "birthday.mp4")
    report = curate(tmp_path / "data", tmp_path / "out", curate_params(), progress=False)
    dropped = report["videos"]["dropped"]
    assert report["sources"] == {"coin": 4} and dropped["same file as another video"] == 1
    assert dropped["no pair: fewer than two segments"] == 1  # one shot
    with open(tmp_path / "out" / "dropped.csv", newline="") as file:
        assert any(row["name"].startswith("own/toddler") for row in csv.DictReader(file))  # a cut at 0.3 s
