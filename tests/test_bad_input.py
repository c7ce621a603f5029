"""Bad input: each sample becomes right or is dropped with its reason, and the counts add up."""

import io
import itertools
import json
import os
import random
import struct
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest

from tests import fuzz_helpers as fuzz
from tests.data_helpers import curate_params
from vans import setup
from vans.data import ledger
from vans.data.curate import curate
from vans.data.sources import discover, tables
from vans.data.sources.videos import IGNORED
from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.media import video

EVENTS = "0 4 she looks\n4 8 she waves\n"
LONG = [Fraction(i, 8) for i in range(72)]  # 9 s


GROUPS = itertools.cycle(range(10, 60))


def clip(suffix=".mp4", **how):
    """A video of 9 s of its own: no two of a test are the same file."""
    return fuzz.video_bytes(suffix, how.pop("times", LONG), options={"g": str(next(GROUPS))}, **how)


def only_sound():
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        for packet in [*stream.encode(sound), *stream.encode(None)]:
            container.mux(packet)
    return out.getvalue()


def turned():
    """A quarter turn in the header."""
    data = bytearray(clip())
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)
    return bytes(data)


def uneven():
    steps = np.random.default_rng(0).integers(20, 250, 90).cumsum()
    return clip(times=[Fraction(int(t - steps[0]), 1000) for t in steps])


KEPT = {
    "uneven.mp4": uneven,
    "turned.mp4": turned,
    "odd.mkv": lambda: clip(".mkv", size=(33, 47), pixels="yuv444p"),
    "portrait.mp4": lambda: clip(size=(96, 32)),
    "tiny.avi": lambda: clip(".avi", size=(16, 16)),
    "silent.webm": lambda: clip(".webm"),
    "wrong suffix.avi": lambda: clip(".mp4"),
    "név с пробелом 名.mp4": clip,
    "=cmd.mp4": clip,
    "a.b.c.mp4": clip,
}
DROPPED = {
    "sound.mp4": (only_sound, "unreadable"),
    "empty.mp4": (bytes, "unreadable"),
    "half.mp4": (lambda: clip()[:3000], "unreadable"),
    "half.mkv": (lambda: (data := clip(".mkv"))[: len(data) // 3], "no pair"),
    "text.mp4": (lambda: b"this is a text\n" * 100, "unreadable"),
    "playlist.mp4": (lambda: b"ffconcat version 1.0\nfile =cmd.mp4\n", "unreadable"),
    "zeros.mp4": (lambda: bytes(5000), "unreadable"),
    "still.mp4": (lambda: clip(times=LONG[:1]), "no pair"),
    "short.mp4": (lambda: clip(times=LONG[:30]), "no pair"),
}


def test_each_bad_video_becomes_right_or_is_dropped(tmp_path, capfd):
    data = tmp_path / "data"
    fuzz.put(data / "own", {name: make() for name, make in KEPT.items()})
    fuzz.put(data / "own", {name: make() for name, (make, _) in DROPPED.items()})
    fuzz.put(data / "own", {f"{name.rpartition('.')[0]}.txt": EVENTS.encode() for name in KEPT | DROPPED})
    os.symlink("nowhere.mp4", data / "own" / "link.mp4")
    os.mkfifo(data / "own" / "pipe.mp4")
    (data / "own" / "folder.mp4").mkdir()
    report = fuzz.whole(data, tmp_path / "out", curate_params())
    assert report is not None and report["videos"]["in"] == len(KEPT) + len(DROPPED) + 2
    frame = Triplets(tmp_path / "out").frame
    assert sorted(frame["video"]) == sorted(f"own/{name.rpartition('.')[0]}" for name in KEPT)
    drops = fuzz.pd.read_csv(tmp_path / "out" / "dropped.csv").set_index("name")
    for name, (_, reason) in DROPPED.items():
        names = [f"own/{name}", f"own/{name.rpartition('.')[0]}"]
        reasons = drops[(drops["level"] == "video") & drops.index.isin(names)]["reason"]
        assert any(r.startswith(reason) for r in reasons), name
    assert drops.loc["own/link.mp4", "reason"] == "a link to a file that is not there"
    assert drops.loc["own/pipe.mp4", "reason"] == "not a file"
    printed = capfd.readouterr()
    assert "[" not in printed.err and "@ 0x" not in printed.out + printed.err  # FFmpeg keeps silent


def test_what_is_kept_shows_what_it_should(tmp_path):
    fuzz.put(tmp_path, {name: make() for name, make in KEPT.items()})
    for name in KEPT:
        opened = video.Video(tmp_path / name)
        height, width = opened.info.height, opened.info.width
        shown = [opened.sample([t], height, width)[0] for t in (1.0, 4.5)]
        if name == "turned.mp4":
            assert (height, width) == (48, 32)
            shown = [np.rot90(picture) for picture in shown]
        if name not in ("uneven.mp4", "tiny.avi"):
            assert [fuzz.read_number(picture) for picture in shown] == [8, 36], name


EVIL = ["../../outside", "/etc/passwd", "..", ".", "", "a/../../outside", "C:\\x", "x\x00y", "\ud800", "a" * 3000, "‮"]


@pytest.mark.parametrize("layout", ["coin", "youcook2", "shorts", "activitynet", "v1", "vans"])
def test_an_id_leads_to_no_file_outside_its_folder(tmp_path, layout):
    """A video lies where each evil id points to; none is read, and each id is dropped with a reason."""
    data = tmp_path / "data"
    fuzz.put(tmp_path, {"outside.mp4": clip(), "data/outside.mp4.txt": b"x"})
    fuzz.put(tmp_path, {"data/elsewhere/outside.mp4": clip()})
    folder = data / layout
    fuzz.put(folder, {"a.mp4": clip()})
    if layout == "vans":
        head, *rows = fuzz.table()
        bad = [[f"{e}/2.mp4", f"{e}/1.mp4", e, *rows[0][3:]] for e in EVIL if e not in ("\x00", "\ud800")]
        bad = [[cell.encode("utf-8", "replace").decode() for cell in row] for row in bad]
        lines = "\n".join(",".join('"' + c.replace('"', '""') + '"' for c in row) for row in [head, rows[0], *bad])
        fuzz.put(
            folder,
            {"triplets.csv": lines.encode(), "COIN.json": json.dumps(fuzz.annotations()["coin"]["COIN.json"]).encode()},
        )
        expected = len(bad)
    else:
        ((file, content), *_) = fuzz.annotations()[layout].items()
        entries = content.get("database", content) if isinstance(content, dict) else content
        if isinstance(entries, dict):
            model = next(iter(entries.values()))
            entries.update(dict.fromkeys(EVIL, model))
        else:
            entries += [entries[0] | {"video_path": f"video_dataset/{e}.mp4"} for e in EVIL]
        fuzz.put(folder, {file: json.dumps(content).encode()})
        expected = len(EVIL)
    found = discover(data)
    paths = [
        p for r in found.records if r.source == layout for p in (r.path, *(f for g in r.given for f in g.files)) if p
    ]
    assert paths and all(p == folder / "a.mp4" for p in paths)
    lost = [r for r in found.records if r.source == layout and r.path is None]
    dropped = [d for d in found.dropped if d[1].startswith(f"{layout}/")]
    assert len(lost) + len(dropped) >= expected
    report = fuzz.whole(data, tmp_path / "out", curate_params())
    assert (report is None) == (layout == "shorts")  # its film has other shots than labels


SEGMENTS = [
    ([3.0, 0.5], "a segment ends before it starts"),
    ([3.0], "a segment is not [start, end]"),
    (["a", "b"], "a time is not a number of seconds from 0 on"),
    ([-1, 4], "a time is not a number of seconds from 0 on"),
    ([0, 1e999], "a time is not a number of seconds from 0 on"),
    ([float("nan"), 4], "a time is not a number of seconds from 0 on"),
    ([True, 4], "a time is not a number of seconds from 0 on"),
    ("12", "a segment is not [start, end]"),
    (None, "a segment is not [start, end]"),
    ({"0": 1}, "a segment is not [start, end]"),
]


@pytest.mark.parametrize(("times", "reason"), SEGMENTS)
def test_a_bad_segment_is_dropped_and_the_rest_of_its_video_kept(tmp_path, times, reason):
    data = tmp_path / "data"
    steps = [*fuzz.STEPS[:2], {"id": "x", "segment": times, "label": "bad"}, {"id": "y", "label": "no times"}]
    entry = {"class": "T", "subset": "training", "annotation": steps}
    fuzz.put(data / "coin", {"COIN.json": json.dumps({"database": {"a": entry}}).encode(), "a.mp4": clip()})
    report = fuzz.whole(data, tmp_path / "out", curate_params())
    assert report is not None and report["triplets"]["all"] == 1 and report["videos"]["kept"] == 1
    assert report["segments"] == {
        "in": 4,
        "kept": 2,
        "dropped": {f"annotation not readable ({why})": 1 for why in (reason, "segment is missing")},
    }


def test_segments_beyond_the_end_and_overlapping_ones(tmp_path):
    spans = [[0, 4], [4, 20], [60, 1e6], [2, 9.4]]
    steps = [{"id": i, "segment": s, "label": f"step {i}"} for i, s in enumerate(spans)]
    entry = {"class": "T", "subset": "training", "annotation": steps}
    fuzz.put(tmp_path / "data/coin", {"COIN.json": json.dumps({"database": {"a": entry}}).encode(), "a.mp4": clip()})
    report = fuzz.whole(tmp_path / "data", tmp_path / "out", curate_params())
    assert report is not None and report["triplets"]["all"] == 1
    assert report["segments"]["dropped"] == {
        "begins after the video's end": 1,
        "no event right before or after it that does not overlap it": 1,
    }


@pytest.mark.parametrize(
    "entry", [None, 3, "x", [], {}, {"annotation": None}, {"annotation": "ab"}, {"annotation": {}}]
)
def test_a_bad_entry_drops_its_video_alone(tmp_path, entry):
    good = {"class": "T", "subset": "training", "annotation": fuzz.STEPS[:2]}
    database = {"database": {"bad": entry, "a": good}}
    fuzz.put(tmp_path / "coin", {"COIN.json": json.dumps(database).encode(), "a.mp4": clip(), "bad.mp4": clip()})
    found = discover(tmp_path)
    assert [r.name for r in found.records] == ["a"]
    assert [(level, name) for level, name, _ in found.dropped] == [("video", "coin/bad")]


def test_what_comes_in_is_counted_where_it_is_seen(tmp_path, monkeypatch):
    steps = [{"id": str(i), "segment": [a, b], "label": f"step {i}"} for i, (a, b) in enumerate(((0, 4), (4, 8)))]
    entry = {"class": "T", "subset": "training", "annotation": [*steps, {"id": "x", "segment": [3], "label": "?"}]}
    database = {"a": entry, "gone": entry, "odd": {**entry, "subset": "some"}, "text": entry}
    files = {"COIN.json": json.dumps({"database": database}).encode(), "text.mp4": b"no video"}
    fuzz.put(tmp_path / "data/coin", {**files, "a.mp4": clip(), "odd.mp4": clip()})
    report = curate(tmp_path / "data", tmp_path / "out", curate_params(), progress=False)
    assert report["videos"] == {
        "in": 4,
        "kept": 1,
        "dropped": {
            "annotation not readable (the subset is neither training nor validation nor testing)": 1,
            "unreadable": 1,
            "video missing": 1,
        },
    }
    malformed = "annotation not readable (a segment is not [start, end])"
    assert report["segments"] == {"in": 12, "kept": 2, "dropped": {malformed: 4, ledger.VIDEO_LOST: 6}}
    segments = pd.read_csv(tmp_path / "out/segments.csv")
    assert sorted(segments["video"].value_counts().items()) == [(f"coin/{n}", 3) for n in sorted(database)]
    assert segments["start"].isna().tolist() == segments["outcome"].eq(malformed).tolist()

    monkeypatch.setattr(ledger.Ledger, "segment", lambda *found: None)  # code that forgets to say what it did
    with pytest.raises(UserError, match="lost count: segments .*'in': 12, 'kept': 2, 'dropped': {}"):
        curate(tmp_path / "data", tmp_path / "again", curate_params(), progress=False)
    assert not (tmp_path / "again").exists()


def step(id, *times):
    return {"id": str(id), "segment": list(times), "label": "she looks"}


ODD: dict[str, list[tuple]] = {  # entries whose subset is unknown, so that all that has come in of them goes out again
    "two pairs of one name": [("1", 0, 2), ("2-3", 1.6, 3.5), ("1-2", 3.2, 5), ("3", 4.8, 8)],
    "an id like a number": [("#2", 0, 4), ("x", 3), ("#2", 4, 8)],
}


@pytest.mark.parametrize("kind", ODD)
def test_no_name_of_an_event_confuses_the_books(tmp_path, kind):
    steps = [step(*given) for given in ODD[kind]]
    good = {"class": "T", "subset": "training", "annotation": fuzz.STEPS[:2]}
    database = {"odd": {"class": "T", "subset": "some", "annotation": steps}, "a": good}
    fuzz.put(tmp_path / "d/coin", {"COIN.json": json.dumps({"database": database}).encode(), "a.mp4": clip()})
    report = curate(tmp_path / "d", tmp_path / "out", curate_params(), progress=False)
    assert report["segments"]["in"] == len(steps) + 2 and report["segments"]["kept"] == 2
    segments = pd.read_csv(tmp_path / "out/segments.csv")
    odd = segments[segments["video"] == "coin/odd"]
    assert sorted(odd["start"].dropna()) == [given[1] for given in ODD[kind] if len(given) == 3]


def test_rows_whose_name_is_no_id_and_pairs_out_of_order_are_dropped(tmp_path):
    rows = [
        ("/x/ abc /2.mp4", "/x/ abc /1.mp4", "#NAME?", "1", "2"),
        ("/ /2.mp4", "/ /1.mp4", "", "1", "2"),
        ("/x/a/1.mp4", "/x/a/2.mp4", "a", "2", "1"),
        ("/x/b/2.mp4", "/x/b/1.mp4", "b", "1", "2"),
        ("/x/c/2.mp4", "/x/c/1.mp4", "c", "1", "2"),
    ]
    texts = ("look", "wave", "7", "What?", "So.", "She waves.")
    table = [",".join(tables.COLUMNS), *(",".join((*row, *texts)) for row in rows)]
    times = {"a": ((0, 4), (4.5, 8.5)), "b": ((0, 6), (2, 8)), "c": ((0, 4.3), (4, 8.5))}
    database = {
        name: {"class": "T", "subset": "training", "annotation": [step(i + 1, *span) for i, span in enumerate(spans)]}
        for name, spans in times.items()
    }
    files = {"triplets.csv": "\n".join(table).encode(), "COIN.json": json.dumps({"database": database}).encode()}
    fuzz.put(tmp_path / "d/t", files | {f"{name}.mp4": clip() for name in times})
    report = curate(tmp_path / "d", tmp_path / "out", curate_params(), progress=False)
    assert report["pairs"]["in"] == 5 and report["pairs"]["kept"] == 1
    assert report["pairs"]["dropped"]["the target does not come after its input"] == 1
    frame = Triplets(tmp_path / "out").frame
    assert frame["video"].tolist() == ["t/c"] and (frame["input_end"] <= 4.0).all()


def test_a_broken_whole_video_does_not_cost_its_parts(tmp_path):
    captions = {"caption_part1": "she looks", "caption_part2": "she waves"}
    entry = {"video_path": "video_dataset/c/aa.mp4", "events": [], "video_split": {"split_caption": captions}}
    files = {"next_event_prediction.json": json.dumps([entry]).encode(), "video_dataset/c/aa.mp4": b"garbage"}
    files |= {f"{part}_part_video/c/aa.mp4": clip() for part in ("first", "second")}
    fuzz.put(tmp_path / "d/v1", files)
    report = curate(tmp_path / "d", tmp_path / "out", curate_params(), progress=False)
    assert report["triplets"]["all"] == 1 and report["segments"] == {"in": 2, "kept": 2, "dropped": {}}


def test_films_of_one_clip_and_clips_beside_their_film_are_counted(tmp_path):
    films = {"h": {"shots": ["she looks", "she waves"]}, "f": {}, "g": {}}
    names = ("h.mp4", "h/1.mp4", "h/2.mp4", "f/1.mp4", "g/1.mp4", "g/2.mp4")
    fuzz.put(tmp_path / "d/s", {"shorts.json": json.dumps({"database": films}).encode()} | {n: clip() for n in names})
    found = discover(tmp_path / "d")
    assert {(name, reason) for _, name, reason in found.dropped} == {
        ("s/h/1", "not in the annotations"),
        ("s/h/2", "not in the annotations"),
        ("s/f", "annotation not readable (a film of a single clip)"),
    }


def test_a_file_with_two_databases_is_refused(tmp_path):
    fuzz.put(tmp_path / "coin", {"COIN.json": b'{"database": {}, "database": {"a": {}}}', "a.mp4": clip()})
    with pytest.raises(UserError, match="COIN.json: has the key 'database' twice"):
        discover(tmp_path)


def test_an_id_that_is_there_twice_counts_once(tmp_path):
    entry = json.dumps({"class": "T", "subset": "testing", "annotation": []})
    text = f'{{"database": {{"a": {entry}, "a": {entry.replace("testing", "training")}}}}}'
    fuzz.put(tmp_path / "coin", {"COIN.json": text.encode(), "a.mp4": clip()})
    found = discover(tmp_path)
    assert [r.split for r in found.records] == ["test"]
    assert found.dropped == [("video", "coin/a", "its id is there twice")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"{", "is not JSON"),
        (b"", "is not JSON"),
        (b"[]", "'database'"),
        (b"{}", "'database'"),
        (b'{"database": []}', "'database'"),
        (b"[" * 200_000, "nested too deeply"),
        (b"\xff\xfe\x00", "is not JSON"),
        (bytes(100), "is not JSON"),
        (b'{"database": ' + b"9" * 5000 + b"}", "is not JSON"),
    ],
)
def test_a_bad_annotation_file_stops_with_its_name(tmp_path, data, message):
    fuzz.put(tmp_path / "coin", {"COIN.json": data, "a.mp4": b"x"})
    with pytest.raises(UserError, match=rf"COIN\.json: .*{message}"):
        discover(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_annotations_in_other_encodings(tmp_path, encoding):
    steps = [s | {"label": "café"} for s in fuzz.STEPS[:2]]
    database = {n: {"class": "T", "annotation": steps if n == "a" else fuzz.STEPS} for n in "ab"}
    text = json.dumps({"database": database}, ensure_ascii=False)
    fuzz.put(tmp_path / "coin", {"COIN.json": text.encode(encoding), "a.mp4": clip(), "b.mp4": clip()})
    found = discover(tmp_path)
    first, second = found.records
    if encoding == "latin-1":  # which letter was meant is not known: only the texts that hold it are lost
        assert first.segments == () and len(second.segments or ()) == 3
        assert {r for _, _, r in found.dropped} == {"annotation not readable (a text is not in UTF-8)"}
    else:
        assert [s.label for s in first.segments or ()] == ["café", "café"] and not found.dropped


def test_links_to_files_are_read_and_links_to_folders_refused(tmp_path):
    """DVC sees what lies behind the former and not what lies behind the latter."""
    fuzz.put(tmp_path / "disk/deep", {"a.mp4": clip()})
    fuzz.put(tmp_path / "data/coin", {"COIN.json": json.dumps(fuzz.annotations()["coin"]["COIN.json"]).encode()})
    videos = tmp_path / "data/coin/my videos"
    os.symlink(tmp_path / "disk", videos)
    with pytest.raises(UserError, match=f"{videos}: is a link to a folder, .* link its files instead: `rm ") as caught:
        discover(tmp_path / "data")
    assert "\n" not in str(caught.value)
    if sys.platform == "linux":  # cp -s is GNU's
        subprocess.run(str(caught.value).split("`")[1], shell=True, check=True)
        (first, *others) = discover(tmp_path / "data").records
        assert first.path == videos / "deep/a.mp4" and all(r.path is None for r in others)
    for folder in (tmp_path / "link", tmp_path / "data/source"):
        os.symlink(tmp_path / "disk", folder)
        with pytest.raises(UserError, match=f"{folder}: is a link"):
            discover(tmp_path / folder.relative_to(tmp_path).parts[0])
        with pytest.raises(UserError, match=f"{folder}: is a link"):
            setup.check_links(folder.parent)
    for behind in ("disk", "nowhere"):
        os.symlink(tmp_path / behind, tmp_path / "root data")
        (tmp_path / "root data").replace(tmp_path / "disk/data")
        with pytest.raises(UserError, match=f"{tmp_path}/disk/data: is a link"):
            setup.data(root=tmp_path / "disk")


def test_what_dvc_ignores_is_not_read(tmp_path):
    ignored = (Path(__file__).parents[1] / ".dvcignore").read_text().splitlines()
    assert {name for name in ignored if not name.startswith((".", "/", "#", "*.pyc"))} == set(IGNORED)
    fuzz.put(tmp_path / "own", {"a.mp4": clip(), "b.partial-1.mp4": clip(), "__pycache__/c.mp4": clip()})
    found = discover(tmp_path)
    assert [r.name for r in found.records] == ["a"] and found.ledger.entered["video"] == 1


def test_a_source_folder_whose_name_is_no_text_is_refused(tmp_path):
    try:
        os.mkdir(os.fsencode(tmp_path) + b"/\xff\xfe")
    except OSError:
        pytest.skip("this file system takes no such name")
    with pytest.raises(UserError, match="rename the folder"):
        discover(tmp_path)


# --------------------------------------------------------------------------------------------------------- fuzz
def test_fuzz_videos(tmp_path, capfd):
    """300 damaged videos of nine kinds, 30 in a run; most of them with two annotated events."""
    sound = fuzz.seeds()
    for run in range(10):
        draw = random.Random(run)
        data = tmp_path / str(run) / "data"
        for i in range(30):
            suffix = draw.choice(sorted(sound))
            name = f"{i}.{suffix.rpartition('.')[2]}"
            sidecar = {f"{i}.txt": EVENTS.encode()} if i % 5 else {}  # without one, shots are searched
            fuzz.put(data / "own", {name: fuzz.damaged(sound[suffix], draw)} | sidecar)
        report = fuzz.whole(data, data.parent / "out", curate_params())
        assert report is None or report["videos"]["in"] == 30
    assert "@ 0x" not in capfd.readouterr().err


def test_fuzz_annotations(tmp_path):
    """400 damaged annotation files, tables and sidecars: all are read; every tenth goes through the whole run."""
    videos = {f"{name}.mp4": clip() for name in "abc"}
    refused = dropped = 0
    for number in range(400):
        draw = random.Random(number)
        folder, files = fuzz.damaged_source(draw)
        data = tmp_path / str(number) / "data"
        fuzz.put(data / folder, files)
        fuzz.put(data / folder, videos)
        if number % 10 == 0:
            fuzz.whole(data, data.parent / "out", curate_params())
        try:
            dropped += fuzz.accounted(data) > 0
        except UserError as error:
            refused += 1
            assert "\n" not in str(error) and data.name in str(error)
    assert refused > 20 and dropped > 150
