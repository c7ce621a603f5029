"""Reading the source layouts: small files in the layout of each real source."""

import csv
import itertools
import json
import shutil
import unicodedata
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from tests.data_helpers import curate_params, real_clips
from vans.data.curate import curate
from vans.data.ledger import VIDEO_LOST
from vans.data.records import split_of
from vans.data.shots import Segment
from vans.data.sources import LAYOUTS, discover, layout_of, tables
from vans.data.sources.order import EventOrder, follow
from vans.data.sources.plain import SIDECARS
from vans.data.sources.source import ALONE, UNKNOWN, UNUSED
from vans.data.sources.values import seconds, words
from vans.data.triplets import Triplets
from vans.errors import UserError, one_of
from vans.media import video

KINDS = one_of(SIDECARS)


def put_video(path, seconds=4.0):
    path.parent.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(list(path.name.encode()))
    video.write(path, rng.integers(0, 256, (int(seconds * 3), 8, 8, 3)).astype(np.uint8), 3.0)


def put_json(path, content):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")


def put_coin(folder, **entry):
    whole = {"class": "MakeTea", "recipe_type": 3, "subset": "testing", "annotation": [], **entry}
    put_json(folder / "COIN.json", {"database": {"a": whole}})


def put_table(path, *rows, columns=tables.COLUMNS, start="", **writer):
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        file.write(start)
        out = csv.DictWriter(file, columns, restval="", extrasaction="ignore", **writer)
        out.writeheader()
        out.writerows(rows)


def row(video="v", first="1", second="2", **cells):
    paths = {"input_video_path": f"/{video}/{first}.mp4", "output_video_path": f"/{video}/{second}.mp4"}
    texts = {"ENG_Instruction": "What next?", "ENG_Think": "So.", "ENG_GT_Caption": "It boils."}
    ids = {"name": video, "input_id": first, "target_id": second, "recipe_type": "7"}
    return paths | texts | ids | cells


def times(record):
    return [(s.id, s.start, s.end, s.label) for s in record.segments]


def follows(record):
    return [(g.input_id, g.target_id) for g in record.given]


def test_coin_is_read_and_unknown_videos_are_named(tmp_path):
    steps = [{"id": "1", "segment": [0.5, 3.0], "label": " boil water "}]
    put_coin(tmp_path / "coin", annotation=steps)
    for name in ("coin/videos/a.mp4", "coin/b.mp4"):
        put_video(tmp_path / name)
    found = discover(tmp_path)
    (record,) = found.records
    assert (record.kind, record.split, record.topic, record.recipe_type) == ("procedural", "test", "make tea", "3")
    assert times(record) == [("1", 0.5, 3.0, "boil water")] and record.given == ()
    assert record.path is not None and record.path.name == "a.mp4"
    assert found.dropped == [("video", "coin/b", "not in the annotations")]


def test_a_coin_step_that_is_done_twice_keeps_both_times(tmp_path):
    labels = [("603", 0, 3), ("604", 4, 8), ("603", 9, 12), ("605", 13, 17), ("603", 18, 22)]
    steps = [{"id": i, "segment": [a, b], "label": i} for i, a, b in labels]
    put_coin(tmp_path / "coin", annotation=steps)
    (record,) = discover(tmp_path).records
    assert [s.id for s in record.segments or ()] == ["603", "604", "603.2", "605", "603.3"]
    folder = tmp_path / "vans"  # a table names a step by its class: the two that follow each other are meant
    put_coin(folder, annotation=steps)
    put_video(folder / "a.mp4")
    put_table(
        folder / "VANS-DATA_COIN.csv", *(row("a", *ids) for ids in (("603", "605"), ("605", "603"), ("9", "604")))
    )
    (record,) = [r for r in discover(tmp_path).records if r.source == "vans"]
    assert follows(record) == [("603.2", "605"), ("605", "603.3"), ("9", "604")]


def test_youcook2_in_its_own_folders_with_recipe_names(tmp_path):
    folder = tmp_path / "youcook2"
    put_video(folder / "raw_videos" / "validation" / "113" / "xyz.mp4")
    step = {"id": 0, "segment": [1, 4], "sentence": "fry it"}
    entry = {"recipe_type": "113", "subset": "validation", "annotations": [step], "duration": 9.0}
    put_json(folder / "youcookii_annotations_trainval.json", {"database": {"xyz": entry}})
    (record,) = discover(tmp_path).records
    assert (record.topic, record.split) == ("this recipe", "test") and times(record) == [("0", 1, 4, "fry it")]
    (folder / "label_foodtype.csv").write_text("113,pad thai\n")
    assert discover(tmp_path).records[0].topic == "pad thai"


def test_activitynet_captions_with_events_that_overlap(tmp_path):
    folder = tmp_path / "activitynet"
    entry = {
        "duration": 82.73,
        "timestamps": [[0.83, 19.86], [17.37, 60.81], [56.26, 79.42], [0.0, 82.73]],
        "sentences": ["A woman walks up.", " She climbs a rope.", "She climbs down.", "All of it."],
    }
    put_json(folder / "train.json", {"v_QOlSCBRmfWY": entry, "v_both": entry})
    near = entry | {"timestamps": [[0, 10.2], [10, 20], [21, 30], [22, 25]]}
    put_json(folder / "val_1.json", {"v_uqiMw7tQ1Cc": near, "v_both": entry})
    put_json(folder / "val_2.json", {"v_uqiMw7tQ1Cc": entry, "v_only2": entry | {"sentences": ["one"]}})
    put_video(folder / "videos" / "v_QOlSCBRmfWY.mp4")
    put_video(folder / "videos" / "uqiMw7tQ1Cc.mkv.mp4")
    put_video(folder / "videos" / "uqiMw7tQ1Cc.mp4")
    found = discover(tmp_path)
    by_name = {r.name: r for r in found.records}
    first, second = by_name["v_QOlSCBRmfWY"], by_name["v_uqiMw7tQ1Cc"]
    assert (first.split, second.split, by_name["v_both"].split) == ("train", "test", "test")
    assert first.kind == "predictive" and first.path and second.path and second.path.stem == "uqiMw7tQ1Cc"
    assert follows(first) == [] == times(first)  # the second begins before the first has ended, and is not the third
    assert follows(second) == [("1", "2"), ("2", "3")]
    assert times(second)[0] == ("1", 0, 10, "A woman walks up.")  # a little overlap is cut off the input
    reasons = [(level, name, reason) for level, name, reason in found.dropped if "both" not in name]
    assert ("segment", "activitynet/v_QOlSCBRmfWY:2", ALONE) in reasons
    assert not any("uqiMw7tQ1Cc" in name and "twice" in why for _, name, why in reasons)  # val_2 tells of it again
    assert ("video", "activitynet/v_both", "its id is there twice") in found.dropped
    assert ("video", "activitynet/v_only2", "annotation not readable (not as many sentences as timestamps)") in reasons
    assert ("video", "activitynet/uqiMw7tQ1Cc.mkv", "not in the annotations") in reasons


def test_which_event_follows_which():
    def chain(*spans):
        _, pairs, alone = follow([Segment(str(i), a, b) for i, (a, b) in enumerate(spans)])
        return [(a.id, b.id, a.end) for a, b in pairs], [e.id for e in alone]

    assert chain((0, 4), (4, 8), (9, 12)) == ([("0", "1", 4), ("1", "2", 9 - 1)], [])
    assert chain((9, 12), (0, 4), (4, 8)) == ([("1", "2", 4), ("2", "0", 8)], [])  # order of time, not of the file
    assert chain((0, 4.4), (4, 8)) == ([("0", "1", 4)], [])
    assert chain((0, 4.6), (4, 8)) == ([], ["0", "1"])
    assert chain((0, 5), (1, 6), (7, 9)) == ([("1", "2", 6)], ["0"])  # of two inputs the one that ends last
    assert chain((0, 5), (0, 5)) == ([], ["0", "1"])
    assert chain((0, 5), (3, 9), (6, 12)) == ([], ["0", "1", "2"])  # the second lies between the two others
    assert chain((0, 5), (3, 5.5), (6, 12)) == ([("1", "2", 5.5)], ["0"])
    assert chain() == ([], [])


def test_video_holmes_films_and_their_official_subsets(tmp_path):
    folder = tmp_path / "holmes"
    question = {
        "video ID": "dGS48Kcax5k",
        "Question ID": 1,
        "Question Type": "SR",
        "Question": "Who?",
        "Options": {"A": "x"},
        "Answer": "A",
        "Explanation": "",
    }
    put_json(folder / "test_Video-Holmes.json", [question, question | {"Question ID": 2}])
    put_json(folder / "train_Video-Holmes.json", [question | {"video ID": i} for i in ("RSmjqss0XKQ", "dGS48Kcax5k")])
    parts = [("00:00-00:46", "A man fills out forms."), ("00:46-01:31", "He sneezes."), ("01:31", "lost")]
    segments = [{"TimeRange": t, "Description": d} for t, d in parts]
    put_json(folder / "annotations" / "dGS48Kcax5k.json", [{"Segment Description": segments, "Core Theme": "x"}])
    put_json(folder / "annotation_training" / "more.json", {"SegmentDescription": segments[:2]})
    put_video(folder / "videos_cropped" / "dGS48Kcax5k.mp4")
    put_video(folder / "videos_cropped" / "RSmjqss0XKQ.mp4")
    found = discover(tmp_path)
    by_name = {r.name: r for r in found.records}
    film = by_name["dGS48Kcax5k"]
    assert film.split == "test" and film.kind == "predictive" and film.path is not None
    assert times(film) == [("1", 0, 46, "A man fills out forms."), ("2", 46, 91, "He sneezes.")]
    assert by_name["RSmjqss0XKQ"].segments is None and by_name["RSmjqss0XKQ"].split == "train"
    assert len(by_name["more"].segments or ()) == 2 and by_name["more"].split == "train"
    assert found.dropped == [
        ("segment", "holmes/dGS48Kcax5k:#3", "annotation not readable (a segment is not [start, end])"),
        ("video", "holmes/dGS48Kcax5k", "its id is there twice"),
    ]


def test_v1_33k_is_cut_at_its_scenes_or_taken_in_its_parts(tmp_path):
    folder = tmp_path / "v1"
    told = [{"scene": f"Scene {i}", "description": f"event {i}"} for i in (1, 2, 3)]

    def entry(name, *scenes):
        captions = {"caption_part1": "before", "caption_part2": "after"}
        split = {"scenes_timestep": list(scenes), "split_caption": captions}
        return {"video_path": f"video_dataset/{name}.mp4", "events": told, "video_split": split}

    beside = [{"Scene 2": "x", "start": 4.0, "end": 9}, {"Scene 3": "x", "start": "00:09", "end": "00:14.5"}]
    under = [{"Scene 1": {"start": 0, "end": 3}}, {"Scene 2": "00:04-00:08"}]
    put_json(
        folder / "next_event_prediction.json",
        [entry("youtube/a", *beside), entry("ego4d/a", *under), entry("NextQA/parts"), entry("x/whole"), {"id": 3}],
    )
    put_json(folder / "futurebench.json", [{"id": 0, "video_path": "video_dataset/ego4d/a.mp4", "qa": {}}])
    for name in ("video_dataset/youtube/a", "video_dataset/ego4d/a", "video_dataset/x/whole"):
        put_video(folder / f"{name}.mp4")
    for name in ("first_part_video/NextQA/parts", "second_part_video/NextQA/parts", "first_part_video/youtube/a"):
        put_video(folder / f"{name}.mp4")
    found = discover(tmp_path)
    a, b, parts, whole = found.records
    assert a.path == folder / "video_dataset/youtube/a.mp4" and b.path == folder / "video_dataset/ego4d/a.mp4"
    assert times(a) == [("Scene2", 4, 9, "event 2"), ("Scene3", 9, 14.5, "event 3")]
    assert times(b) == [("Scene1", 0, 3, "event 1"), ("Scene2", 4, 8, "event 2")]
    assert b.subset == "test" == b.split and a.subset == ""
    (given,) = parts.given
    assert given.sentences == ("before", "after") and given.texts is None
    assert [f and f.parent.parent.name for f in given.files] == ["first_part_video", "second_part_video"]
    assert whole.segments is None and whole.given == () and whole.path is not None
    untimed = "a scene without times"
    parts_of = [("segment", f"v1/NextQA/parts:Scene{i}", "its video is taken in its two parts") for i in (1, 2, 3)]
    assert found.dropped == [
        ("segment", "v1/youtube/a:Scene1", untimed),
        ("segment", "v1/ego4d/a:Scene3", untimed),
        *parts_of,
        *(("segment", f"v1/x/whole:Scene{i}", untimed) for i in (1, 2, 3)),
        ("video", "v1/next_event_prediction.json:#5", "an entry without video_path"),
    ]


def test_films_without_timestamps_as_videos_and_as_folders_of_clips(tmp_path):
    folder = tmp_path / "shorts"
    film = {"subset": "training", "scene": "s1", "condition": "it rains", "shots": ["a", "b", "c"]}
    bare = {"subset": "testing"}
    put_json(
        folder / "shorts.json", {"database": {"whole": film, "cut": film, "bare": bare, "short": film, "gone": bare}}
    )
    for name in ("whole", "cut/clip10", "cut/clip9", "cut/clip2", "bare/1", "bare/2", "short/1", "short/2"):
        put_video(folder / f"{name}.mp4")
    found = discover(tmp_path)
    whole, cut, unsaid = found.records
    assert whole.labels == ("a", "b", "c") and whole.scene == "shorts/s1" and whole.topic == "it rains"
    assert follows(cut) == [("1", "2"), ("2", "3")] and cut.path is None
    assert [f and f.stem for g in cut.given for f in g.files] == ["clip2", "clip9", "clip9", "clip10"]
    assert [g.sentences for g in cut.given] == [("a", "b"), ("b", "c")]
    assert unsaid.given[0].sentences == ("", "") and unsaid.split == "test"
    assert found.dropped == [
        ("video", "shorts/short", "annotation not readable (not as many clips as shots)"),
        ("video", "shorts/gone", "annotation not readable (shots is missing)"),
    ]


def test_the_published_tables_of_both_sources_in_one_folder(tmp_path):
    folder = tmp_path / "vans"
    put_coin(
        folder,
        annotation=[{"id": "1", "segment": [0, 3], "label": "boil"}, {"id": "2", "segment": [4, 8], "label": "pour"}],
    )
    step = {"id": 0, "segment": [1, 4], "sentence": "fry it"}
    cook = {"recipe_type": "113", "subset": "validation", "annotations": [step]}
    put_json(folder / "youcookii_annotations_trainval.json", {"database": {"yc": cook}})
    put_video(folder / "a.mp4")
    put_video(folder / "clips" / "yc" / "0.mp4")
    put_video(folder / "clips" / "yc" / "1.mp4")
    put_table(
        folder / "VANS-DATA_COIN.csv", row("a"), row("a"), row("a", "1", "1"), row("a", name="#NAME?"), start="\ufeff"
    )
    columns = tuple(c for c in reversed(tables.COLUMNS) if c not in ("name", "input_id", "target_id"))
    put_table(folder / "VANS-DATA_YouCook.csv", row("yc", "0", "1"), columns=columns, delimiter=";")
    found = discover(tmp_path)
    coin, cooked = found.records
    assert follows(coin) == [("1", "2")] and coin.given[0].files == (None, None)
    assert (coin.split, coin.topic, cooked.split, cooked.topic) == ("test", "make tea", "test", "this recipe")
    assert coin.given[0].texts == ("What next?", "So.", "It boils.")
    assert follows(cooked) == [("0", "1")] and cooked.path is None
    assert [f and f.stem for f in cooked.given[0].files] == ["0", "1"]
    twice = "the same pair is there twice"
    assert found.dropped == [
        ("pair", "vans/VANS-DATA_COIN.csv:3", twice),
        ("pair", "vans/VANS-DATA_COIN.csv:4", "input and target are the same segment"),
        ("pair", "vans/VANS-DATA_COIN.csv:5", twice),  # its name came back from its path
    ]


def test_a_table_with_a_byte_order_mark_is_read_and_one_without_a_column_is_not(tmp_path):
    path = tmp_path / "triplets.csv"
    header = ",".join(tables.COLUMNS)
    for mark, encoding in (("\ufeff", "utf-8"), ("\ufeff", "utf-16-le")):
        path.write_bytes(f"{mark}{header}\r\n{',x' * (len(tables.COLUMNS) - 1)}\r\n".encode(encoding))
        ((line, cells),) = tables.read_table(path)
        assert line == 2 and isinstance(cells, dict) and cells["output_video_path"] == "" and cells["name"] == "x"
    path.write_text(header.replace("ENG_Think", "Think") + "\n")
    with pytest.raises(UserError, match=r"triplets\.csv: column 'ENG_Think' is missing"):
        list(tables.read_table(path))
    path.write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(UserError, match="UTF-8"):
        list(tables.read_table(path))
    path.rename(tmp_path / "triplets.xlsx")
    with pytest.raises(UserError, match=r"triplets\.xlsx: save the table as CSV"):
        discover(tmp_path)


def test_quotes_that_do_not_match_lose_their_row_alone(tmp_path):
    path = tmp_path / "triplets.csv"
    good = ["/v/2.mp4,/v/1.mp4,v,1,2,a,b,7,Why?,Think,Fine.", '/v/2.mp4,/v/1.mp4,v,1,2,"a ""b""\nc",b,7,Why?,T,F.']
    bad = '/v/2.mp4,/v/1.mp4,v,1,2,"a,b,7,Why?,Think,Fine.'
    lines = [",".join(tables.COLUMNS), good[0], bad, good[1], bad, good[0], good[0] + ",", "/v/2.mp4,x", good[0]]
    path.write_text("\n".join(lines))
    read = [(line, cells if isinstance(cells, str) else "row") for line, cells in tables.read_table(path)]
    assert [line for line, what in read if what == "row"] == [2, 4, 7, 8, 10]
    assert [line for line, what in read if what != "row"] == [3, 6, 9]


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
    assert tables.clean_caption(text) == caption


def test_a_folder_of_videos_alone_and_a_data_folder_that_is_the_source(tmp_path):
    put_video(tmp_path / "own" / "a.avi")
    (record,) = discover(tmp_path).records
    assert record.segments is None and record.labels is None and record.kind == "predictive"
    (record,) = discover(tmp_path / "own").records
    assert record.title == "own/a"


def test_annotations_that_would_be_passed_over_stop_the_run(tmp_path):
    put_coin(tmp_path / "data" / "coin")
    put_video(tmp_path / "data" / "coin" / "a.mp4")
    assert len(discover(tmp_path / "data").records) == 1
    put_video(tmp_path / "data" / "stray.mp4")
    with pytest.raises(UserError, match=r"data: stray\.mp4 lies beside coin/, a source \(COIN\); put it into a folder"):
        discover(tmp_path / "data")
    (tmp_path / "data" / "stray.mp4").unlink()
    (tmp_path / "data" / "mine").mkdir()
    (tmp_path / "data" / "coin").rename(tmp_path / "data" / "mine" / "coin")
    with pytest.raises(
        UserError, match=r"mine/coin: annotations of COIN too deep to be read; move this folder to .*/<"
    ):
        discover(tmp_path / "data")
    (tmp_path / "data" / "mine" / "coin").rename(tmp_path / "data" / "coin")
    (tmp_path / "data" / "shorts.json").write_text('{"database": {}}')
    with pytest.raises(UserError, match=r"data: shorts\.json lies beside coin/, a source \(COIN\); put it into"):
        discover(tmp_path / "data")


def test_a_sidecar_in_a_folder_of_a_folder_is_no_annotation_of_a_source(tmp_path):
    put_video(tmp_path / "own" / "holiday" / "train.mp4")
    put_json(tmp_path / "own" / "holiday" / "train.json", {"events": []})
    put_video(tmp_path / "own" / "b.mp4")
    assert [r.name for r in discover(tmp_path).records] == ["b", "train"]
    assert [r.name for r in discover(tmp_path / "own").records] == ["b", "train"]


def test_videos_of_the_same_name_are_all_there(tmp_path):
    for name in ("a.mp4", "a.avi", "x/a.avi", "x/a.mp4", "x/._a.mp4", ".cache/b.mp4"):
        put_video(tmp_path / "own" / name)
    records = discover(tmp_path).records
    assert len({r.path for r in records}) == 4 == len({r.name for r in records})


def test_sidecars_of_your_own_videos(tmp_path):
    folder = tmp_path / "own"
    for name in ("a", "b", "c", "d", "e", "f", "none"):
        put_video(folder / f"{name}.mp4", 14.0)
    put_video(tmp_path / "named" / "train.mp4")  # like one of ActivityNet's files
    put_json(tmp_path / "named" / "train.json", {"events": []})
    assert layout_of(tmp_path / "named").title == "your own videos"
    shutil.rmtree(tmp_path / "named")
    events = [{"start": 0, "end": 4, "text": "look"}, {"start": "0:05", "end": 9.5, "text": "go"}]
    asked = events + [{"start": 10, "end": 14, "text": "home", "question": "Where to?", "caption": "She walks home."}]
    put_json(folder / "a.json", {"events": asked, "subset": "validation", "kind": "procedural", "topic": "a walk"})
    put_json(
        folder / "b.json", {"events": events, "question": "What now?", "reasoning": "It is time.", "subset": "train"}
    )
    put_json(folder / "c.json", {"events": [{"text": "one"}, {"text": "two"}]})
    (folder / "d.srt").write_text(
        "1\r\n00:00:00,500 --> 00:00:04,000\r\nHe <i>sits</i>\r\ndown\r\n\r\n"
        "2\r\n00:00:04,000 --> 00:00:08,000\r\nHe eats\r\n"
    )
    (folder / "e.txt").write_text("0 3 she sings\n0:04 - 0:08 she bows\nno times here\n")
    (folder / "f.txt").write_text("first shot\n\nsecond shot\n")
    found = discover(tmp_path)
    a, b, c, d, e, f, none = found.records
    assert (a.kind, a.split, a.topic) == ("procedural", "test", "a walk")
    assert [(g.input_id, g.target_id, g.texts) for g in a.given] == [
        ("1", "2", None),
        ("2", "3", ("Where to?", "", "She walks home.")),
    ]
    assert b.given[0].texts == ("What now?", "It is time.", "go") and b.split == "train"
    assert c.labels == ("one", "two") and c.segments is None
    assert times(d) == [("1", 0.5, 4, "He sits down"), ("2", 4, 8, "He eats")]
    assert times(e) == [("1", 0, 3, "she sings"), ("2", 4, 8, "she bows")] and e.given == ()
    assert f.labels == ("first shot", "second shot") and none.labels is None and none.segments is None
    assert found.dropped == [
        ("segment", "own/e:#3", "annotation not readable (a time is not a number of seconds from 0 on)")
    ]
    report = curate(tmp_path, tmp_path / "out", curate_params(), progress=False)
    made = Triplets(tmp_path / "out").frame.set_index("video")
    assert sorted(made.index) == ["own/a", "own/b", "own/d", "own/e"] and report["videos"]["in"] == 7
    assert made.loc["own/b", ["question", "reasoning", "caption"]].tolist() == ["What now?", "It is time.", "go"]
    assert made.loc["own/e", "caption"] == "She bows."


def test_the_page_for_users_names_every_file_that_tells_a_source():
    page = (Path(__file__).parents[1] / "docs" / "data.md").read_text(encoding="utf-8")
    for layout in LAYOUTS:
        assert layout.files and layout.title in page
        assert all(f"`{name}`" in page for name in layout.files)
    assert all(f"`x{suffix}`" in page for suffix in SIDECARS)
    assert all(suffix in page for suffix in video.VIDEO_SUFFIXES)


def test_two_sources_in_one_folder_are_refused(tmp_path):
    put_coin(tmp_path / "mixed")
    put_json(tmp_path / "mixed" / "shorts.json", {"database": {}})
    with pytest.raises(UserError, match=r"mixed: holds shorts\.json and COIN\.json; give each"):
        discover(tmp_path)
    put_table(tmp_path / "tables" / "triplets.csv")
    put_coin(tmp_path / "tables")
    assert layout_of(tmp_path / "tables").title == "VANS-Data-100K"


def test_no_data(tmp_path):
    with pytest.raises(UserError, match="no such folder"):
        discover(tmp_path / "data")
    with pytest.raises(UserError, match="no source folder"):
        discover(tmp_path)
    (tmp_path / "empty").mkdir()
    assert discover(tmp_path).dropped == [("video", "empty", "folder without annotations and videos")]


@pytest.mark.parametrize(
    ("subset", "split"),
    [("training", "train"), ("Testing", "test"), ("validation", "test"), ("train", "train")],
)
def test_a_sources_own_subset_counts(subset, split):
    assert split_of(subset, "any") == split


def test_a_subset_that_is_not_known_is_not_guessed(tmp_path):
    with pytest.raises(ValueError, match="subset"):
        split_of("holdout", "any")
    put_coin(tmp_path / "coin", subset="holdout")
    assert "subset is neither" in discover(tmp_path).dropped[0][2]


def test_without_a_subset_a_tenth_is_test_and_stays_so():
    splits = [split_of("", f"video{i}") for i in range(1000)]
    assert 60 < splits.count("test") < 140
    assert splits == [split_of("", f"video{i}") for i in range(1000)]


def test_class_names_become_words():
    names = ("RoastPeppers", "UseTV2", "harbor", "", None)
    assert [words(n) for n in names] == ["roast peppers", "use tv 2", "harbor", "", ""]


def test_times_in_every_way_that_sources_write_them():
    good = {3: 3, 2.5: 2.5, "7": 7, " 1.5 ": 1.5, "01:02": 62, "1:00:02.5": 3602.5, "00:00:01,250": 1.25, "90:00": 5400}
    assert {k: seconds(k) for k in good} == good
    bad: object
    for bad in (-1, "-1", float("nan"), float("inf"), "x", "", None, True, [1], {}, 10**400, "1:2:3:4"):
        with pytest.raises(ValueError, match="seconds"):
            seconds(bad)


def test_the_real_annotations(tmp_path):
    for name in ("annotations.json", "triplets.csv"):
        (tmp_path / "t").mkdir(exist_ok=True)
        (tmp_path / "t" / name).write_bytes((real_clips() / name).read_bytes())
    found = discover(tmp_path)
    reasons = [reason for _, _, reason in found.dropped]
    lost = [VIDEO_LOST, UNUSED, tables.LOST, "video missing"]  # segments, videos, rows
    assert found.records == [] and set(reasons) == set(lost)
    assert len([reason for level, _, reason in found.dropped if level == "pair"]) == 6
    (tmp_path / "t" / "triplets.csv").unlink()
    assert [len(r.segments or ()) for r in discover(tmp_path).records] == [2, 3, 3]


# ------------------------------------------------------------------------------ what would be passed over
BASE: dict = {"database": {}}
ODD: list = [[], [1, 2], [[[]]], {}, {"a": None}, 3, None]
LIST = [{"video_path": "x/y.mp4"}]


@pytest.mark.parametrize(
    ("wrong", "right", "content"),
    [
        ("CION.json", "COIN.json", BASE),
        ("coin.json", "COIN.json", []),  # but for capitals: whatever is in it
        ("short.json", "shorts.json", BASE),
        ("val1.json", "val_1.json", {"v_a": {"timestamps": []}}),
        ("next_event_predictions.json", "next_event_prediction.json", LIST),
        ("join.json", None, {"events": []}),  # like COIN.json by its name alone
        ("brain.json", None, "not JSON"),
        ("else.json", None, BASE),
        *(("join.json", None, odd) for odd in ODD),
    ],
)
def test_annotations_with_a_name_that_is_almost_right_stop_the_run(tmp_path, wrong, right, content):
    put_video(tmp_path / "s" / "a.mp4")
    put_json(tmp_path / "s" / wrong, content)
    if right is None:
        assert discover(tmp_path).ledger.unread == [f"s/{wrong} (a sidecar is named like its video, with {KINDS})"]
        return
    with pytest.raises(UserError, match=f"{wrong}: would not be read; if it is {right}, rename it, else move it"):
        discover(tmp_path)
    put_video(tmp_path / "s" / f"{wrong[:-5]}.MP4")  # then it is the sidecar of that video
    assert {name for _, name, _ in discover(tmp_path).dropped} == {f"s/{wrong[:-5]}"}


@pytest.mark.parametrize("name", ["train", "COIN", "shorts"])
@pytest.mark.parametrize("suffix", [".mp4", ".MP4"])
def test_a_sidecar_of_a_video_that_is_called_like_annotations_is_one(tmp_path, name, suffix):
    put_video(tmp_path / "x.mp4")
    (tmp_path / "own").mkdir()
    shutil.move(tmp_path / "x.mp4", tmp_path / "own" / f"{name}{suffix}")
    put_json(tmp_path / "own" / f"{name}.json", {"events": [{"start": 0, "end": 2, "text": "a"}], "subset": "test"})
    (record,) = discover(tmp_path).records
    assert times(record) == [("1", 0, 2, "a")] and record.split == "test"


def put_v1(folder, bench="futurebench.json"):
    scenes = [{"Scene 1": "", "start": 0, "end": 2}, {"Scene 2": "", "start": 2, "end": 4}]
    told = [{"scene": f"Scene {i}", "description": f"event {i}"} for i in (1, 2)]
    captions = {"caption_part1": "one", "caption_part2": "two"}
    split = {"scenes_timestep": scenes, "split_caption": captions}
    entries = [{"video_path": f"video_dataset/c/a{i}.mp4", "events": told, "video_split": split} for i in range(6)]
    put_json(folder / "next_event_prediction.json", entries)
    put_json(folder / bench, entries)


def test_files_that_say_what_is_held_out_stop_the_run_where_they_are_misspelt(tmp_path):
    put_v1(tmp_path / "v1")
    assert {r.split for r in discover(tmp_path).records} == {"test"}
    shutil.rmtree(tmp_path / "v1")
    put_v1(tmp_path / "v1", "FutureBench.json")
    with pytest.raises(UserError, match=r"FutureBench.json: .* if it is futurebench.json"):
        discover(tmp_path)
    (tmp_path / "v1" / "FutureBench.json").unlink()
    assert "v1/futurebench.json: not there or empty" in discover(tmp_path).ledger.details[0]
    shutil.rmtree(tmp_path / "v1")
    put_table(tmp_path / "vans" / "triplets.csv", row())
    put_coin(tmp_path / "vans")
    (tmp_path / "vans" / "COIN.json").rename(tmp_path / "vans" / "coin.json")
    with pytest.raises(UserError, match=r"coin.json: .* if it is COIN.json"):
        discover(tmp_path)


@pytest.mark.parametrize("name", ["VANS-DATA_COIN.CSV", "vans-data.tsv"])
def test_tables_count_whatever_the_case_of_their_suffix(tmp_path, name):
    put_table(tmp_path / "vans" / name, row("a"), **({"delimiter": "\t"} if name.endswith("tsv") else {}))
    put_coin(tmp_path / "vans")
    put_video(tmp_path / "vans" / "a.mp4")
    assert layout_of(tmp_path / "vans").title == "VANS-Data-100K"
    assert [given.texts for given in discover(tmp_path).records[0].given] == [("What next?", "So.", "It boils.")]


def test_a_first_part_is_not_the_whole_video(tmp_path):
    put_v1(tmp_path / "v1")
    for i in range(6):
        for part in ("first_part_video", "second_part_video"):
            put_video(tmp_path / "v1" / part / "c" / f"a{i}.mp4")
    found = discover(tmp_path)
    assert {level for level, _, _ in found.dropped} == {"segment"} and all(r.path is None for r in found.records)
    assert all(f is not None for r in found.records for f in r.given[0].files)


def test_cut_files_of_a_table_are_held_to_the_annotated_times(tmp_path):
    steps = [{"id": str(i), "segment": s, "label": str(i)} for i, s in enumerate(([0, 4], [5, 9], [7, 12], [11.8, 15]))]
    put_coin(tmp_path / "vans", annotation=steps)
    for i in range(4):
        put_video(tmp_path / "vans" / "a" / f"{i}.mp4")
    rows = [row("a", *ids) for ids in (("0", "1"), ("1", "0"), ("1", "2"), ("2", "3"))]
    put_table(tmp_path / "vans" / "triplets.csv", *rows)
    found = discover(tmp_path)
    assert follows(found.records[0]) == [("0", "1"), ("2", "3")]  # 0.2 s is no more than annotators differ by
    assert [(name, why) for _, name, why in found.dropped] == [
        ("vans/triplets.csv:3", "the target does not come after its input"),
        ("vans/triplets.csv:4", "the input's file shows part of the target"),
    ]


def test_annotations_in_a_misspelt_folder_are_named_and_hidden_ones_passed_over(tmp_path):
    folder = tmp_path / "holmes"
    put_json(folder / "test_Video-Holmes.json", [{"video ID": "aa"}])
    put_json(folder / "annotation" / "aa.json", [])
    put_json(folder / "annotations" / "._aa.json", [])
    put_video(folder / "aa.mp4")
    found = discover(tmp_path)
    assert len(found.records) == 1 and not found.dropped
    assert found.ledger.unread == ["holmes/annotation/aa.json (Video-Holmes has no annotations there)"]


@pytest.mark.parametrize(
    ("events", "level", "why"),
    [
        ([{"text": "a"}, {"text": "b", "question": "Q?"}], "video", "needs an event with start and end"),
        ([{"start": 0, "end": 2, "question": "Q?"}, {"start": 2, "end": 4}], "pair", "that no other precedes"),
    ],
)
def test_a_question_that_cannot_be_used_is_dropped_with_its_reason(tmp_path, events, level, why):
    put_video(tmp_path / "own" / "x.mp4")
    put_json(tmp_path / "own" / "x.json", {"events": events})
    ((where, _, reason),) = discover(tmp_path).dropped
    assert where == level and why in reason


def test_the_events_of_a_video_with_an_unknown_key_are_in_the_books(tmp_path):
    put_video(tmp_path / "own" / "x.mp4")
    events = [{"start": 0, "end": 2, "text": "a"}, {"start": 2, "end": 4, "label": "b"}]
    put_json(tmp_path / "own" / "x.json", {"events": events})
    found = discover(tmp_path)
    assert found.ledger.entered["segment"] == 2
    assert [why for level, _, why in found.dropped if level == "segment"] == [VIDEO_LOST] * 2
    assert "own/x: unknown key label; did you mean text?" in found.ledger.details


def test_details_hold_the_value_that_is_wrong(tmp_path):
    put_video(tmp_path / "own" / "x.mp4")
    put_video(tmp_path / "own" / "y.mp4")
    events = [{"start": 0, "end": "3,2"}, {"start": 4, "end": 5}, {"start": 6, "end": 7}]
    put_json(tmp_path / "own" / "x.json", {"events": events, "subset": "holdout"})
    (tmp_path / "own" / "y.json").write_text('{"events": [],}')
    said = "\n".join(discover(tmp_path).ledger.details)
    assert "own/x:#1: a time is not a number of seconds from 0 on ('3,2')" in said
    assert "own/x: the subset is neither training nor validation nor testing ('holdout')" in said
    assert "own/y: is not JSON" in said and "line 1 column" in said


def test_a_misspelt_second_file_of_a_source_stops_the_run_and_its_other_files_do_not(tmp_path):
    folder = tmp_path / "activitynet"
    put_video(folder / "v_a.mp4")
    entry = {"timestamps": [[0, 1], [2, 3]], "sentences": ["a", "b"]}
    put_json(folder / "train.json", {"v_a": entry})
    for name in ("train_ids.json", "val_ids.json", "test_ids.json"):  # they come with it
        put_json(folder / name, ["v_a"])
    assert len(discover(tmp_path).records) == 1
    put_json(folder / "val1.json", {"v_a": entry})
    with pytest.raises(UserError, match=r"val1.json: would not be read; if it is val_1.json"):
        discover(tmp_path)


def test_files_beside_your_own_videos_that_nobody_reads_are_named(tmp_path):
    put_video(tmp_path / "own" / "in" / "x.mp4")
    put_json(tmp_path / "own" / "in" / "x.json", {"events": [], "notes": {"licence": "mine"}})
    for name in ("in/x.srt", "in/x.en.vtt", "gone.json", "notes.csv", ".hidden.json"):
        (tmp_path / "own" / name).write_text("{}")
    found = discover(tmp_path)
    assert len(found.records) == 1 and not found.dropped
    assert sorted(line.partition(" (")[0] for line in found.ledger.unread) == [
        *("own/gone.json", "own/in/x.en.vtt", "own/in/x.srt", "own/notes.csv"),
    ]
    assert "own/in/x.srt (x.json beside it counts)" in found.ledger.unread


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ({"events": [], "subest": "testing"}, "unknown key subest; did you mean subset?"),
        ({"events": [{"start": 0, "end": 1, "txt": "a"}]}, "unknown key txt; did you mean text?"),
        ({"events": [], "split": "test"}, "unknown key split; did you mean subset?"),
    ],
)
def test_an_unknown_key_beside_your_own_video_drops_it(tmp_path, content, why):
    put_video(tmp_path / "own" / "x.mp4")
    put_json(tmp_path / "own" / "x.json", content)
    reasons = {name: reason for level, name, reason in discover(tmp_path).dropped if level == "video"}
    assert list(reasons) == ["own/x"] and why in reasons["own/x"]


def test_an_unknown_key_of_a_short_film_drops_it(tmp_path):
    put_video(tmp_path / "films" / "x.mp4")
    film = {"shots": ["a", "b"], "conditions": "it rains"}
    put_json(tmp_path / "films" / "shorts.json", {"database": {"x": film}})
    ((_, name, reason),) = discover(tmp_path).dropped
    assert name == "films/x" and "did you mean condition?" in reason
    for number in (1, 2, 3):  # as a folder of clips: they are part of the film and lost with it
        put_video(tmp_path / "films" / "x" / f"{number}.mp4")
    (tmp_path / "films" / "x.mp4").unlink()
    assert [name for _, name, _ in discover(tmp_path).dropped] == ["films/x"]


def test_activitynets_unreadable_entry_is_counted_once(tmp_path):
    put_video(tmp_path / "a" / "abc.mp4")
    put_json(tmp_path / "a" / "train.json", {"v_abc": {"sentences": []}})
    found = discover(tmp_path)
    assert found.dropped == [("video", "a/v_abc", "annotation not readable (timestamps is missing)")]
    assert found.ledger.entered["video"] == 1


def test_a_missing_column_names_the_one_that_looks_like_it(tmp_path):
    columns = [c if c != "input_sentence" else "Input sentence" for c in tables.COLUMNS]
    put_table(tmp_path / "v" / "triplets.csv", row(), columns=columns)
    with pytest.raises(UserError, match="column 'input_sentence' is missing; .*; rename 'Input sentence'"):
        discover(tmp_path)


# --------------------------------------------------------------------------------- no pair across what is lost
def neighbours(record):
    """Ids of the pairs that curation will try to cut."""
    if record.given:
        return follows(record)
    ordered = sorted(record.segments or (), key=lambda s: s.start)
    return [(a.id, b.id) for a, b in pairwise(ordered) if a.id not in record.torn]


def spans_of(*times):
    """As each layout writes them: (id, [start, end], label)."""
    return [(str(n), list(pair), f"event {n}") for n, pair in enumerate(times, start=1)]


def put_layout(folder, layout, events):
    """One video with these events."""
    put_video(folder / "a.mp4")
    coin = [{"id": i, "segment": s, "label": said} for i, s, said in events]
    if layout == "coin":
        put_coin(folder, annotation=coin)
    elif layout == "table":
        put_coin(folder, annotation=coin)
        put_table(
            folder / "triplets.csv", *(row("a", x[0], y[0]) for i, x in enumerate(events) for y in events[i + 1 :])
        )
    elif layout == "youcook2":
        steps = [{"id": i, "segment": s, "sentence": said} for i, s, said in events]
        entry = {"recipe_type": "1", "subset": "training", "annotations": steps}
        put_json(folder / "youcookii_annotations_trainval.json", {"database": {"a": entry}})
    elif layout == "activitynet":
        put_json(
            folder / "train.json", {"a": {"timestamps": [s for _, s, _ in events], "sentences": [e[2] for e in events]}}
        )
    elif layout == "holmes":
        told = [{"TimeRange": "-".join(map(str, s)), "Description": said} for _, s, said in events]
        put_json(folder / "train_Video-Holmes.json", [{"video ID": "a"}])
        put_json(folder / "annotation_training" / "a.json", [{"Segment Description": told}])
    elif layout == "v1":
        scenes = [{f"Scene {i}": "", "start": s[0], "end": s[1]} for i, s, _ in events]
        told = [{"scene": f"Scene {i}", "description": said} for i, _, said in events]
        film = {"video_path": "x/a.mp4", "events": told, "video_split": {"scenes_timestep": scenes}}
        put_json(folder / "next_event_prediction.json", [film])
    elif layout == "x.json":
        put_json(folder / "a.json", {"events": [{"start": s[0], "end": s[1], "text": said} for _, s, said in events]})
    elif layout == "x.txt":
        (folder / "a.txt").write_text("".join(f"{s[0]} {s[1]} {said}\n" for _, s, said in events))


LAYOUT_NAMES = ("coin", "table", "youcook2", "activitynet", "holmes", "v1", "x.json", "x.txt")


def without_table(layout, record):
    """Pairs of the four events but those with the second that a table asks for by name."""
    pairs = [(a[-1], b[-1]) for a, b in neighbours(record)]
    return [pair for pair in pairs if layout != "table" or "2" not in pair]


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
@pytest.mark.parametrize("lost", [[5, 4], [-4, 8], ["x", 8], ["4.5.6", "8"]])
def test_no_pair_spans_an_event_that_could_not_be_read(tmp_path, layout, lost):
    put_layout(tmp_path / "s", layout, spans_of([0, 4], lost, [8, 12], [12, 16]))
    found = discover(tmp_path)
    (record,) = found.records
    assert [s.label for s in record.segments or ()] == ["event 1", "event 3", "event 4"]
    assert without_table(layout, record) == [("3", "4")]
    reasons = [why for level, _, why in found.dropped if level == "segment"]
    assert len(reasons) == 1 and found.ledger.entered["segment"] == 4 + (layout == "table")  # which names it again


@pytest.mark.parametrize("layout", LAYOUT_NAMES)
def test_no_pair_spans_an_event_that_overlaps_both(tmp_path, layout):
    put_layout(tmp_path / "s", layout, spans_of([0, 4], [3, 9], [8, 12], [12, 16]))
    (record,) = discover(tmp_path).records
    assert without_table(layout, record) == [("3", "4")]


def test_where_lost_events_may_lie():
    def torn(events, *lost):  # (place among the events, times)
        order, segments = EventOrder(), [Segment(str(n), *pair) for n, pair in enumerate(events)]
        for place in range(len(events) + 1):
            for at, times in lost:
                if at == place:
                    order.lost(times)
            if place < len(events):
                order.read(segments[place])
        return order.broken(sorted(segments, key=lambda s: s.start))

    three = [(0.0, 4.0), (4.0, 8.0), (10.0, 14.0)]
    assert torn(three) == torn(three, (0, ())) == torn(three, (3, ())) == ()
    assert torn(three, (1, ())) == ("0",) and torn(three, (2, ()), (1, ())) == ("0", "1")
    assert torn(three, (3, (9.5, 8.5))) == ("1",), "named last, and it happens between"
    assert torn(three, (3, (3.0, 0.5))) == (), "within the first"
    assert torn(three, (3, (9.0,))) == ("1",)
    mixed = [three[2], three[0], three[1]]
    assert torn(mixed, (0, ())) == ("1", "2"), "it may lie anywhere"
    assert torn(mixed, (0, (20.0, 19.0))) == ()


def test_scenes_without_times_lie_between_those_with_times(tmp_path):
    put_layout(tmp_path / "v1", "v1", spans_of([0, 4], [4, 8], [8, 12]))
    path = tmp_path / "v1" / "next_event_prediction.json"
    (entry,) = json.loads(path.read_text())
    del entry["video_split"]["scenes_timestep"][1]
    put_json(path, [entry])
    found = discover(tmp_path)
    assert neighbours(found.records[0]) == []
    assert found.dropped == [("segment", "v1/a:Scene2", "a scene without times")]


def test_a_question_about_an_event_that_follows_a_lost_one_is_dropped(tmp_path):
    put_video(tmp_path / "own" / "x.mp4")
    events = [{"start": 0, "end": 4}, {"start": "x", "end": 8}, {"start": 8, "end": 12, "question": "Q?"}]
    put_json(tmp_path / "own" / "x.json", {"events": events})
    found = discover(tmp_path)
    assert [why for level, _, why in found.dropped if level == "pair"] == [UNKNOWN]
    assert neighbours(found.records[0]) == []


def test_a_film_of_which_a_clip_is_not_there_is_dropped(tmp_path):
    put_json(tmp_path / "shorts" / "shorts.json", {"database": {"film": {"subset": "training"}}})
    for n in (1, 3):
        put_video(tmp_path / "shorts" / "film" / f"{n}.mp4")
    (tmp_path / "shorts" / "film" / "2.mp4").symlink_to("nowhere.mp4")
    found = discover(tmp_path)
    assert found.records == [] and "a clip of the film is not there" in found.dropped[0][2]


def test_a_key_that_is_there_twice_hides_nothing(tmp_path):
    put_coin(tmp_path / "coin", annotation=[{"id": "1", "segment": [0, 3], "label": "a"}])
    path = tmp_path / "coin" / "COIN.json"
    path.write_text(path.read_text().replace('"annotation":', '"annotation": [], "annotation":'))
    assert "the key annotation is there twice" in discover(tmp_path).dropped[0][2]


# ----------------------------------------------------------------------------------------------------- odd names
def test_names_are_equal_in_any_form_of_unicode(tmp_path):
    names = {form: unicodedata.normalize(form, "caf\u00e9") for form in ("NFC", "NFD")}
    for id, file in itertools.permutations(names.values()):
        for layout in ("coin", "own"):
            folder = tmp_path / id / layout
            put_video(folder / f"{file}.mp4")
            events = [{"start": 0, "end": 2, "text": "a"}]
            put_json(folder / f"{id}.json", {"events": events}) if layout == "own" else put_json(
                folder / "COIN.json", {"database": {id: {"annotation": []}}}
            )
        found = discover(tmp_path / id)
        assert [r.name for r in found.records] == [names["NFC"]] * 2 and not found.dropped and not found.ledger.unread
        assert all(r.path is not None for r in found.records) and len(found.records[1].segments or ()) == 1
    for form in names.values():
        put_video(tmp_path / "both" / "own" / f"{form}.mp4")
    found = discover(tmp_path / "both")
    assert len({r.name for r in found.records}) == 2 == len({r.path for r in found.records}), "none hides the other"


def test_names_that_begin_with_a_dash(tmp_path):
    put_video(tmp_path / "-own" / "-x.mp4", 8.0)
    (tmp_path / "-own" / "-x.txt").write_text("0 4 one\n4 8 two\n")
    curate(tmp_path, tmp_path / "out", curate_params(), progress=False)
    (id,) = Triplets(tmp_path / "out").frame["id"]
    assert id.startswith("_own--x-1-2-")
