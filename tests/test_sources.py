"""Reading the source layouts, and what bad annotation files give."""

import json

import numpy as np
import pytest

from vans import video
from vans.data import layouts
from vans.data.records import split_of
from vans.data.sources import discover
from vans.errors import UserError


def put_video(path, seconds=4.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(len(str(path)))
    video.write(path, rng.integers(0, 256, (int(seconds * 3), 8, 8, 3)).astype(np.uint8), 3.0)


def put_coin(folder, **entry):
    folder.mkdir(parents=True, exist_ok=True)
    whole = {"class": "MakeTea", "recipe_type": 3, "subset": "testing", "annotation": [], **entry}
    (folder / "COIN.json").write_text(json.dumps({"database": {"a": whole}}))


def test_coin_is_read_and_unknown_videos_are_named(tmp_path):
    steps = [{"id": "1", "segment": [0.5, 3.0], "label": " boil water "}]
    put_coin(tmp_path / "coin", annotation=steps)
    for name in ("coin/videos/a.mp4", "coin/b.mp4"):
        put_video(tmp_path / name)
    found = discover(tmp_path)
    (record,) = found.records
    assert (record.kind, record.split, record.topic, record.recipe_type) == (
        "procedural",
        "test",
        "make tea",
        "3",
    )
    assert record.segments is not None and record.path is not None
    assert record.segments[0].label == "boil water" and record.path.name == "a.mp4"
    assert found.dropped == [("video", "coin/b", "not in the annotations")]


def test_youcook2_in_its_own_folders_with_recipe_names(tmp_path):
    folder = tmp_path / "youcook2"
    put_video(folder / "raw_videos" / "validation" / "113" / "xyz.mp4")
    step = {"id": 0, "segment": [1, 4], "sentence": "fry it"}
    entry = {"recipe_type": "113", "subset": "validation", "annotations": [step], "duration": 9.0}
    (folder / "youcookii_annotations_trainval.json").write_text(json.dumps({"database": {"xyz": entry}}))
    (record,) = discover(tmp_path).records
    assert record.segments is not None
    assert (record.topic, record.split, record.segments[0].id) == ("this recipe", "test", "0")
    (folder / "label_foodtype.csv").write_text("113,pad thai\n")
    assert discover(tmp_path).records[0].topic == "pad thai"


def test_a_folder_of_videos_alone_and_a_data_folder_that_is_the_source(tmp_path):
    put_video(tmp_path / "own" / "a.avi")
    (record,) = discover(tmp_path).records
    assert record.segments is None and record.labels is None and record.kind == "predictive"
    (record,) = discover(tmp_path / "own").records
    assert record.title == "own/a"


@pytest.mark.parametrize(
    ("annotation", "reason"),
    [
        ([{"id": "1", "segment": [3.0, 0.5], "label": "x"}], "ends before it starts"),
        ([{"id": "1", "segment": [3.0], "label": "x"}], "IndexError"),
        ([{"id": "1", "segment": ["a", "b"], "label": "x"}], "could not convert"),
        ([{"id": "1", "label": "x"}], "'segment'"),
        (None, "TypeError"),
    ],
)
def test_one_bad_entry_drops_one_video(tmp_path, annotation, reason):
    put_coin(tmp_path / "coin", annotation=annotation)
    put_video(tmp_path / "coin" / "a.mp4")
    found = discover(tmp_path)
    assert found.records == [] and len(found.dropped) == 1
    assert found.dropped[0][:2] == ("video", "coin/a") and reason in found.dropped[0][2]


@pytest.mark.parametrize(
    ("text", "message"), [("{", "is not JSON"), ("[]", "'database'"), ("{}", "'database'")]
)
def test_a_bad_annotation_file_stops_with_its_name(tmp_path, text, message):
    (tmp_path / "coin").mkdir()
    (tmp_path / "coin" / "COIN.json").write_text(text)
    with pytest.raises(UserError, match=rf"COIN\.json: .*{message}"):
        discover(tmp_path)


def test_no_data(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        discover(tmp_path / "data")
    with pytest.raises(UserError, match="no source folder"):
        discover(tmp_path)
    (tmp_path / "empty").mkdir()
    assert discover(tmp_path).dropped == [("video", "empty", "folder without annotations and videos")]


def test_a_table_with_a_byte_order_mark_is_read_and_one_without_a_column_is_not(tmp_path):
    path = tmp_path / "triplets.csv"
    header = ",".join(layouts.COLUMNS)
    path.write_bytes(b"\xef\xbb\xbf" + f"{header}\r\n{',x' * len(layouts.COLUMNS)}\r\n".encode())
    (row,) = layouts.read_table(path)
    assert row["output_video_path"] == "" and row["name"] == "x"
    path.write_text(header.replace("ENG_Think", "Think") + "\n")
    with pytest.raises(UserError, match=r"triplets\.csv: column 'ENG_Think' is missing"):
        layouts.read_table(path)
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="UTF-8"):
        layouts.read_table(path)


@pytest.mark.parametrize(
    ("text", "caption"),
    [
        ("A man waves.", "A man waves."),
        ("A man waves.\n\n---\nchecked", "A man waves."),
        ("A man waves.\r\n\r\n---\r\nchecked", "A man waves."),
        ("A man\nwaves.\n---\nchecked", "A man waves."),
        ("  A man waves - twice.  ", "A man waves - twice."),
        ("", ""),
    ],
)
def test_captions_lose_their_tail(text, caption):
    assert layouts.clean_caption(text) == caption


@pytest.mark.parametrize(
    ("subset", "split"),
    [("training", "train"), ("Testing", "test"), ("validation", "test"), ("train", "train")],
)
def test_a_sources_own_subset_counts(subset, split):
    assert split_of(subset, "any") == split


def test_without_a_subset_a_tenth_is_test_and_stays_so():
    splits = [split_of("", f"video{i}") for i in range(1000)]
    assert 60 < splits.count("test") < 140
    assert splits == [split_of("", f"video{i}") for i in range(1000)]


def test_class_names_become_words():
    assert [layouts.words(n) for n in ("RoastPeppers", "UseTV2", "harbor", "")] == [
        "roast peppers",
        "use tv 2",
        "harbor",
        "",
    ]
