"""Videos whose pictures do not begin or end with the file: curated and watched by the pictures that there are."""

from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pandas as pd
import pytest

from tests.data_helpers import curate_params, shared
from tests.fuzz_helpers import read_number
from tests.media_helpers import Made, Sound, made
from vans.answer.watch import watch
from vans.data import shots
from vans.data.curate import curate
from vans.data.triplets import Triplets
from vans.media import clock, video
from vans.models.protocol import Protocol

CLIP = SimpleNamespace(frames=9, height=32, width=32, fps=3.0)
EIGHT = [Fraction(i, 8) for i in range(96)]  # 12 s


def curated(folder: Path, name: str, data: bytes, events: str) -> tuple[pd.DataFrame, list[list[int]]]:
    """(what became of each event, the numbers that each pair's clips show) of one video with these lines of events."""
    (folder / "data" / "mine").mkdir(parents=True)
    (folder / "data" / "mine" / name).write_bytes(data)
    (folder / "data" / "mine" / name).with_suffix(".txt").write_text(events)
    curate(folder / "data", folder / "out", curate_params(), progress=False)
    triplets = Triplets(folder / "out")
    numbers = [
        [read_number(picture) for picture in clip]
        for row in triplets.select()
        for which in ("input", "target")
        for clip in triplets.clips([row], which)
    ]
    return pd.read_csv(folder / "out" / "segments.csv"), numbers


def late(seconds: int, container: str = "mp4") -> bytes:
    times = [time + seconds for time in EIGHT]
    return made(Made(container, "libx264", times, Fraction(8), sound=Sound("aac", 0.0, 12.0 + seconds)))


def test_pictures_that_begin_after_the_sound_keep_their_times(tmp_path):
    segments, clips = curated(tmp_path, "x.mp4", late(3), "3 7 one thing\n7 11 another\n11 15 a third\n")
    assert segments["outcome"].tolist() == ["kept"] * 3
    assert len(clips) == 4  # two pairs, 0.333 s from picture to picture
    for first, end, numbers in zip((0, 32, 32, 64), (32, 64, 64, 96), clips, strict=True):
        assert all(first <= number < end for number in numbers)
        assert set(np.diff(numbers)) <= {2, 3}


def test_an_event_that_begins_before_the_pictures_is_cut_from_the_first_one_on(tmp_path):
    events = "0 2 too early\n2.2 7 begins early\n7 11 is all there\n"
    segments, clips = curated(tmp_path, "x.mkv", late(3, "matroska"), events)
    assert segments["outcome"].tolist()[1:] == ["kept", "kept"]
    assert "first picture" in segments["outcome"][0]
    assert len(clips) == 2 and all(0 <= number < 32 for number in clips[0])


def test_sound_that_goes_on_does_not_make_an_event_longer(tmp_path):
    data = made(Made("matroska", "libx264", EIGHT, Fraction(8), sound=Sound("aac", -0.023, 24.0)))
    events = "0 4 one\n4 8 two\n8 14 three\n14 20 four\n"
    segments, clips = curated(tmp_path, "x.mkv", data, events)
    assert segments["outcome"].tolist()[:3] == ["kept"] * 3
    assert "begins after" in segments["outcome"][3]
    assert len(clips) == 4 and all(64 <= number < 96 for number in clips[-1])


@pytest.mark.parametrize(
    ("name", "what", "first"),
    [
        ("a.mp4", {"times": [time + 3 for time in EIGHT], "sound": Sound("aac", 0.0, 20.0)}, 0),
        ("a.mkv", {"sound": Sound("aac", 0.0, 24.0)}, 0),
        ("a.ts", {"lost": 13}, 20),  # groups of ten pictures
        ("a.webm", {"codec": "libvpx", "sound": Sound("libopus", -0.013, 12.0)}, 0),
        ("a.avi", {"options": {"bf": "2"}}, 0),
    ],
)
def test_a_question_about_a_video_is_answered_from_the_pictures_there_are(tmp_path, name, what, first):
    container = {"mkv": "matroska", "ts": "mpegts"}.get(name[2:], name[2:])
    what = {"codec": "libx264", "times": EIGHT, "rate": Fraction(8)} | what
    (tmp_path / name).write_bytes(made(Made(container, **what)))
    seen = watch(tmp_path / name, CLIP, Protocol())
    count = 96 - first
    expected = [first + int((i + 0.5) * count / 9 + 0.01) for i in range(9)]
    assert [read_number(picture) for picture in seen.clip.numpy()] == expected
    assert seen.rate == pytest.approx(9 * 8 / count, rel=1e-3)


def test_pictures_that_were_packed_two_to_a_chunk(tmp_path):
    """DivX: a picture and the B-picture before it in one chunk, then a chunk that says: nothing new."""
    source = made(Made("avi", "mpeg4", [Fraction(i, 25) for i in range(41)], options={"bf": "1", "g": "20"}))
    (tmp_path / "a.avi").write_bytes(source)
    with av.open(str(tmp_path / "a.avi")) as given, av.open(str(tmp_path / "packed.avi"), "w") as out:
        own = given.streams.video[0]
        stream = out.add_stream_from_template(own)
        data = [bytes(packet) for packet in given.demux(own) if packet.size]
        kinds = [chunk[chunk.index(b"\0\0\1\xb6") + 4] >> 6 for chunk in data]  # 0: I, 1: P, 2: B
        chunks: list[bytes] = []
        nothing = b"\0\0\1\xb6\x50\0\0"
        for chunk, kind in zip(data, kinds, strict=True):
            if kind == 2:
                chunks[-1] += chunk
                chunks.append(nothing)
            else:
                at = chunk.index(b"\0\0\1\xb6")
                chunks.append(chunk[:at] + (b"\0\0\1\xb2DivX503b1393p" if kind == 0 else b"") + chunk[at:])
        assert 2 in kinds
        for n, chunk in enumerate(chunks):
            packet = av.Packet(chunk)
            packet.pts = packet.dts = n
            packet.time_base, packet.stream, packet.is_keyframe = Fraction(1, 25), stream, n % 20 == 0
            out.mux(packet)
    opened = video.Video(tmp_path / "packed.avi")
    read = [(round(time * 25, 2), read_number(picture)) for time, picture in opened.frames()]
    assert read == [(n, n) for n in range(41)]
    assert [read_number(opened.sample([n / 25], 32, 32)[0]) for n in (0, 19, 20, 21, 30, 40)] == [0, 19, 20, 21, 30, 40]


def test_times_that_have_changed_places_are_put_in_order():
    times = [1, 2, 4, 3, 5, 8, 7, 6, 9]
    assert list(clock.ascending(zip(times, "abcdefghi", strict=True), 2)) == list(zip(range(1, 10), "abcdefghi"))
    assert list(clock.ascending([(2, "a"), (1, "b")], 0)) == [(2, "a"), (1, "b")]


# what each of the shared files is read as: (first picture, end), s
CASES = {
    "ssr30.mkv": (0, 24),
    "delayed_video.mp4": (3, 15),
    "longaudio.mkv": (0, 12),
    "h264_bframes.avi": (0, 12),
    "starts_mid_gop.ts": (1.96, 11.96),
    "opus_negative_start.webm": (0, 12),
}


@pytest.mark.parametrize("name", CASES)
def test_files_that_were_read_wrongly(name):
    path = shared("cases") / name
    opened = video.Video(path)
    assert (opened.info.start, opened.info.end) == pytest.approx(CASES[name], abs=0.002)
    with av.open(str(path)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    read = list(opened.frames())
    assert len(read) == len(shown)
    assert all(b > a for (a, _), (b, _) in pairwise(read))
    for at in (0, 25, len(shown) - 1):  # by its exact time each picture comes
        assert np.array_equal(opened.sample([read[at][0]], *shown[at].shape[:2])[0], read[at][1])
        assert np.abs(read[at][1].astype(int) - shown[at]).mean() < 2
    if name != "ssr30.mkv":
        assert read[25][0] - read[0][0] == pytest.approx(1.0, abs=0.002)
    watch(path, CLIP, Protocol())
    if name == "ssr30.mkv":
        assert len(shots.find(opened, 27.0)) == 6
