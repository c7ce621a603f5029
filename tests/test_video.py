"""Videos: frame-exact cuts, cover and crop, rotation, and the uncompressed AVI."""

import io
import random
import struct
from bisect import bisect_right
from fractions import Fraction
from typing import Any

import av
import numpy as np
import pytest
from PIL import Image

from tests import media_helpers
from tests.data_helpers import real_clips
from tests.fuzz_helpers import read_number, video_bytes
from vans.data import shots
from vans.errors import UserError
from vans.media import avi, clock, video


def numbered(count: int, height: int = 32, width: int = 48) -> np.ndarray:
    """Pictures of one grey each: picture i has the value 4 * i."""
    return np.broadcast_to(np.arange(count, dtype=np.uint8)[:, None, None, None] * 4, (count, height, width, 3)).copy()


def numbers(frames: np.ndarray) -> list[int]:
    return np.round(frames.reshape(len(frames), -1).mean(axis=1) / 4).astype(int).tolist()


@pytest.mark.parametrize(("height", "width"), [(4, 4), (5, 7), (32, 33)])
def test_the_avi_is_lossless_and_other_readers_read_it(tmp_path, height, width):
    frames = np.random.default_rng(0).integers(0, 256, (3, height, width, 3)).astype(np.uint8)
    data = avi.encode(frames, 3.0)
    (tmp_path / "a.avi").write_bytes(data)
    decoded = avi.decode(data)
    assert decoded is not None
    again, fps = decoded
    assert np.array_equal(again, frames) and fps == 3.0
    with av.open(str(tmp_path / "a.avi")) as container:
        theirs = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
        assert np.array_equal(np.stack(theirs), frames)
        assert container.streams.video[0].average_rate == 3


def test_a_cut_off_avi_and_wrong_frames_are_refused():
    data = avi.encode(numbered(3), 3.0)
    with pytest.raises(ValueError, match="cut short"):
        avi.decode(data[: len(data) // 2])
    assert avi.decode(b"RIFFxxxxWAVE") is None
    for wrong in (numbered(3)[0], numbered(3).astype(float), numbered(0)):
        with pytest.raises(ValueError, match="T, H, W, 3"):
            avi.encode(wrong, 3.0)


@pytest.mark.parametrize("fps", [24.0, 25.0, 30000 / 1001])
def test_cuts_are_exact_to_the_frame(tmp_path, fps):
    video.write(tmp_path / "a.mp4", numbered(60), fps)
    for start in (0.0, 0.4, 1.0, 17 / fps, round(23 / fps, 3)):
        times = start + np.arange(9) / 11.0
        expected = [int((t + video.TOLERANCE) * fps + 1e-9) for t in times]
        assert numbers(media_helpers.cut(tmp_path / "a.mp4", start, 9, 11.0, 32, 48)) == expected


STEADY = [Fraction(i, 8) for i in range(100)]
UNEVEN = [Fraction(t, 1000) for t in np.cumsum(np.random.default_rng(3).integers(15, 250, 100)).tolist()]
UNEVEN = [t - UNEVEN[0] for t in UNEVEN]
NO_B_FRAMES, OPEN_GROUPS = {"bf": "0"}, {"bf": "3", "g": "15", "x264-params": "open-gop=1"}


@pytest.mark.parametrize(
    ("suffix", "times", "options"),
    [
        *((suffix, STEADY, None) for suffix in (".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".ts", ".flv")),
        *((suffix, UNEVEN, None) for suffix in (".mp4", ".m4v", ".mov", ".mkv", ".webm")),
        *((suffix, UNEVEN, OPEN_GROUPS) for suffix in (".mp4", ".mkv")),
        (".mp4", UNEVEN, NO_B_FRAMES),
    ],
)
def test_cuts_from_videos_made_elsewhere_are_exact_to_the_frame(tmp_path, suffix, times, options):
    """Each picture has its number painted into it; expected is what the list of times says."""
    (tmp_path / f"a{suffix}").write_bytes(video_bytes(suffix, times, options=options))
    opened = video.Video(tmp_path / f"a{suffix}")
    draw = random.Random(5)
    for _ in range(12):
        start, step = draw.uniform(0, float(times[-1]) - 3), draw.choice((1 / 3, 1 / 11, 1 / 30))
        wanted = [start + i * step for i in range(9)]
        expected = [bisect_right(times, t + video.TOLERANCE) - 1 for t in wanted]
        assert [read_number(p) for p in opened.pictures(wanted, 32, 48)] == expected
    exact = [float(t) for t in times[40:50]]  # annotated to the frame
    assert [read_number(p) for p in opened.sample(exact, 32, 48)] == list(range(40, 50))


def test_a_matroska_file_that_was_cut_off_does_not_freeze(tmp_path):
    data = video_bytes(".mkv", STEADY)
    (tmp_path / "a.mkv").write_bytes(data[: len(data) // 2])
    opened = video.Video(tmp_path / "a.mkv")
    assert opened.info.duration == pytest.approx(12.5, abs=0.1)  # what the header still says
    read = [(time, read_number(picture)) for time, picture in opened.frames()]
    assert read[-1][0] < 10 and all(number == round(time * 8) for time, number in read)
    assert read_number(opened.sample([read[-1][0]], 32, 48)[0]) == read[-1][1]
    with pytest.raises(UserError, match="ends at"):
        opened.sample([1.0, read[-1][0] + 2], 32, 48)


class Stream(io.BytesIO):
    """A file that cannot be wound back, as a browser records into."""

    def seekable(self):
        return False

    seek = None  # type: ignore[assignment]


def test_a_recording_that_does_not_tell_its_duration(tmp_path):
    out = Stream()
    with av.open(out, "w", format="webm", container_options={"live": "1"}) as container:
        stream = container.add_stream("libvpx", rate=8)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        for i in range(24):
            frame = av.VideoFrame.from_ndarray(np.full((32, 48, 3), i * 9, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 8)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    (tmp_path / "a.webm").write_bytes(out.getvalue())
    with av.open(str(tmp_path / "a.webm")) as container:
        assert not container.duration
    assert video.Video(tmp_path / "a.webm").info.duration == pytest.approx(3.0, abs=0.13)


def test_a_text_file_named_mp4_opens_no_other_file(tmp_path):
    (tmp_path / "secret.ts").write_bytes(video_bytes(".ts"))
    for text in (
        "ffconcat version 1.0\nfile secret.ts\n",
        "#EXTM3U\n#EXTINF:5,\nsecret.ts\n#EXT-X-ENDLIST\n",
        "hello\n" * 99,
    ):
        (tmp_path / "a.mp4").write_text(text)
        with pytest.raises(UserError, match=r"a\.mp4: cannot be read as a video"):
            video.Video(tmp_path / "a.mp4")


def test_pixels_that_are_not_square_and_names_in_another_encoding(tmp_path):
    with av.open(str(tmp_path / "a.mkv"), "w") as container:
        container.metadata["title"] = "TITLE"
        stream = container.add_stream("libx264", rate=8)
        stream.height, stream.width, stream.pix_fmt = 32, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(2, 1)
        container.mux(stream.encode(av.VideoFrame.from_ndarray(np.zeros((32, 48, 3), np.uint8), format="rgb24")))
        container.mux(stream.encode(None))
    data = (tmp_path / "a.mkv").read_bytes()
    assert b"TITLE" in data
    (tmp_path / "a.mkv").write_bytes(data.replace(b"TITLE", b"T\xe9\xff\xfeL"))
    opened = video.Video(tmp_path / "a.mkv")
    assert (opened.info.height, opened.info.width) == (32, 96)
    assert opened.sample([0.0], 32, 96).shape == (1, 32, 96, 3)


def test_a_picture_that_is_too_large_and_one_that_had_to_be_patched_up_are_refused(tmp_path, monkeypatch):
    data = video_bytes(".mkv", STEADY)
    (tmp_path / "a.mkv").write_bytes(data)
    monkeypatch.setattr(video, "MAX_PIXELS", 32 * 48 - 1)
    with pytest.raises(UserError, match="cannot be read as a video"):
        video.Video(tmp_path / "a.mkv")
    monkeypatch.undo()
    hurt = bytearray(data)
    with av.open(tmp_path / "a.mkv") as container:  # Matroska's random numbers move the packets: a picture is looked up
        packets = [packet for packet in container.demux(video=0) if packet.size]
    packet = packets[len(packets) * 6 // 10]
    half = packet.pos + packet.size // 2
    hurt[half : packet.pos + packet.size] = bytes(packet.size - packet.size // 2)
    (tmp_path / "a.mkv").write_bytes(hurt)
    opened = video.Video(tmp_path / "a.mkv")
    assert [read_number(p) for p in opened.sample([1.0, 1.5], 32, 48)] == [8, 12]
    with pytest.raises(UserError, match=r"damaged at|cannot be read as a video"):
        opened.sample(np.arange(0, 12, 0.125), 32, 48)


def test_what_a_file_may_claim_is_bounded(tmp_path, monkeypatch):
    (tmp_path / "a.mkv").write_bytes(video_bytes(".mkv", STEADY))
    opened = video.Video(tmp_path / "a.mkv")
    monkeypatch.setattr(clock, "MAX_PACKETS", 10)
    with pytest.raises(UserError, match="too many packets"):
        list(opened.frames())
    monkeypatch.setattr(clock, "LONGEST", 5.0)
    with pytest.raises(UserError, match="too many packets"):
        video.Video(tmp_path / "a.mkv")
    monkeypatch.setattr(clock, "MAX_PACKETS", 1000)
    with pytest.raises(UserError, match=r"its times reach to 12\.5 s"):
        video.Video(tmp_path / "a.mkv")


def test_pictures_that_change_their_size_on_the_way(tmp_path):
    (tmp_path / "a.ts").write_bytes(video_bytes(".ts") + video_bytes(".ts", size=(64, 64)))
    opened = video.Video(tmp_path / "a.ts")
    assert {picture.shape for _, picture in opened.frames()} == {(32, 48, 3)}
    assert shots.find(opened, 27.0)


def test_times_that_run_backwards_or_leap_are_not_believed(tmp_path):
    leap = [Fraction(i, 8) + (40 if i > 20 else 0) for i in range(60)]
    (tmp_path / "a.mkv").write_bytes(video_bytes(".mkv", leap))
    opened = video.Video(tmp_path / "a.mkv")
    assert [read_number(p) for p in opened.sample([1.0, 2.0, 2.5], 32, 48)] == [8, 16, 20]
    with pytest.raises(UserError, match=r"no picture from 2\.50 to 42\.62 s"):
        opened.sample([2.0, 5.0], 32, 48)
    monkey = video.Video(tmp_path / "a.mkv")
    frames = list(monkey.frames())
    monkey._decode = lambda start: iter([frames[3], frames[1], frames[4]])  # type: ignore[method-assign]
    with pytest.raises(UserError, match="run backwards"):
        monkey.sample([0.4, 0.5], 32, 48)


def test_the_picture_at_a_time_is_the_one_that_a_player_shows(tmp_path):
    video.write(tmp_path / "a.avi", numbered(6), 2.0)
    opened = video.Video(tmp_path / "a.avi")
    assert opened.info == video.Info(32, 48, 2.0, 3.0)
    assert numbers(opened.sample([0.0, 0.4, 0.5, 0.999, 1.0, 2.9], 32, 48)) == [0, 0, 1, 2, 2, 5]
    with pytest.raises(UserError, match="ends at"):
        opened.sample([0.0, 3.5], 32, 48)
    with pytest.raises(ValueError, match="ascend"):
        opened.sample([1.0, 0.0], 32, 48)


def test_a_grid_holds_only_whole_slots():
    assert len(video.grid(1.333, 4.333, 3.0)) == 9
    assert len(video.grid(1.333, 4.2, 3.0)) == 8
    assert len(video.grid(2.0, 1.0, 3.0)) == 0
    assert np.allclose(video.grid(0.4, 1.5, 3.0), [0.4, 0.4 + 1 / 3, 0.4 + 2 / 3])


def test_cover_and_crop_keeps_the_aspect_ratio_and_the_middle():
    picture = np.zeros((100, 200, 3), np.uint8)
    yy, xx = np.mgrid[:100, :200]
    picture[(yy - 49.5) ** 2 + (xx - 99.5) ** 2 < 20**2] = 255  # a disc in the middle
    for height, width in ((32, 32), (352, 640), (64, 32)):
        small = video.fit(picture, height, width)
        assert small.shape == (height, width, 3)
        rows, columns = np.nonzero(small[..., 0] > 127)
        tall, wide = np.ptp(rows) + 1, np.ptp(columns) + 1
        assert abs(tall - wide) <= max(2, 0.03 * tall)  # still a disc
        assert abs(rows.mean() - (height - 1) / 2) < 1 and abs(columns.mean() - (width - 1) / 2) < 1
    assert video.fit(picture, 100, 200) is picture


def test_rotation_is_honoured(tmp_path):
    frames = np.zeros((4, 32, 64, 3), np.uint8)
    frames[:, :16, :32] = (250, 20, 20)  # red in the left upper corner
    data = bytearray(video.encode(frames, 5.0, "h264")[0])
    matrix = data.index(b"tkhd") + 44
    assert struct.unpack_from(">9i", data, matrix) == (65536, 0, 0, 0, 65536, 0, 0, 0, 1 << 30)
    struct.pack_into(">9i", data, matrix, 0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30)  # a quarter turn clockwise
    (tmp_path / "phone.mp4").write_bytes(data)
    opened = video.Video(tmp_path / "phone.mp4")
    assert (opened.info.height, opened.info.width) == (64, 32)
    shown = opened.sample([0.0], 64, 32)[0]
    assert shown[4, -4, 0] > 200 and shown[4, 4, 0] < 60 and shown[-4, -4, 0] < 60  # now right upper
    assert video.decode(bytes(data))[0].shape == (4, 64, 32, 3)


TURNS = {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}  # clockwise, of a tkhd box


def turn(path, degrees):
    """Have an mp4 say that it is to be shown turned."""
    data = bytearray(path.read_bytes())
    a, b, c, d = (n * 65536 for n in TURNS[degrees])
    struct.pack_into(">9i", data, data.index(b"tkhd") + 44, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)


@pytest.mark.parametrize("pixel", [Fraction(1), Fraction(4, 3), Fraction(2, 3)])
@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
def test_scaling_while_converting_is_converting_and_then_scaling(tmp_path, degrees, pixel):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (5, 7, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(small).resize((128, 96), Image.Resampling.BICUBIC))
    with av.open(str(tmp_path / "a.mp4"), "w") as out:
        stream = out.add_stream("libx264", rate=8, options={"crf": "5"})
        stream.height, stream.width, stream.pix_fmt = 96, 128, "yuv420p"
        stream.codec_context.sample_aspect_ratio = pixel
        for _ in range(3):
            out.mux(stream.encode(av.VideoFrame.from_ndarray(smooth, format="rgb24")))
        out.mux(stream.encode())
    turn(tmp_path / "a.mp4", degrees)
    opened = video.Video(tmp_path / "a.mp4")
    wide, high = round(128 * pixel), 96
    assert (opened.info.width, opened.info.height) == ((high, wide) if degrees % 180 else (wide, high))
    (_, frame), *_ = opened._decode(0.0)
    shown = opened.picture(frame)
    for size in ((48, 48), (40, 96), (96, 40), (97, 131), (7, 240), (240, 7), (high, wide)):
        straight, later = opened.picture(frame, *size).astype(int), video.fit(shown, *size).astype(int)
        assert straight.shape == (*size, 3) and np.abs(straight - later).mean() < 6, size


@pytest.mark.parametrize("content", [b"", b"not a video", b"RIFF" + bytes(300)])
def test_an_unreadable_video_is_one_clear_line(tmp_path, content):
    for name in ("a.mp4", "a.avi"):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=f"{name}: cannot be read as a video"):
            video.Video(tmp_path / name)
    with pytest.raises(ValueError, match="not a readable video"):
        video.decode(content)


def test_a_missing_video_one_without_pictures_and_a_wrong_name(tmp_path):
    with pytest.raises(UserError, match="no such video"):
        video.Video(tmp_path / "a.mp4")
    with av.open(str(tmp_path / "sound.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        sound.sample_rate = 8000
        for packet in [*stream.encode(sound), *stream.encode(None)]:
            container.mux(packet)
    with pytest.raises(UserError, match="no video stream"):
        video.Video(tmp_path / "sound.mp4")
    with pytest.raises(UserError, match="use a name that ends in one of .mp4, .avi"):
        video.write(tmp_path / "a.gif", numbered(3), 3.0)
    with pytest.raises(ValueError, match="even"):
        video.encode(numbered(3, 5, 7), 3.0, "h264")
    with pytest.raises(ValueError, match="codec"):
        video.encode(numbered(3), 3.0, "gif")


def test_a_truncated_mp4_never_gives_wrong_pictures(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (40, 64, 64, 3)).astype(np.uint8)
    data = video.encode(frames, 10.0, "h264")[0]
    (tmp_path / "a.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(UserError, match=r"a\.mp4"):
        video.Video(tmp_path / "a.mp4").sample([0.0, 3.5], 64, 64)


@pytest.mark.parametrize(("at", "value"), [(48, 0), (48, 2**32 - 1), (128, 0), (132, 0), (176, 2**31), (180, 0)])
def test_an_avi_with_a_damaged_header_is_refused(tmp_path, at, value):
    data = bytearray(avi.encode(numbered(3), 3.0))
    struct.pack_into("<I", data, at, value)
    (tmp_path / "a.avi").write_bytes(data)
    with pytest.raises(UserError, match=r"a\.avi: cannot be read as a video"):
        video.Video(tmp_path / "a.avi")
    assert avi.decode(bytes(data[:200])) is None


def test_shots_are_found_where_the_picture_changes(tmp_path):
    rng = np.random.default_rng(0)
    scenes = [np.broadcast_to(rng.integers(0, 256, (1, 1, 1, 3)), (n, 32, 48, 3)) for n in (20, 30, 10)]
    video.write(tmp_path / "a.avi", np.concatenate(scenes).astype(np.uint8), 10.0)
    found = shots.find(video.Video(tmp_path / "a.avi"), 27.0)
    assert [(s.start, s.end) for s in found] == [(0.0, 2.0), (2.0, 5.0), (5.0, 6.0)]
    assert not any(s.black for s in found)


def test_the_best_window_is_the_first_with_most_motion():
    still, moving = np.zeros((5, 8, 8, 3), np.uint8), numbered(4, 8, 8) + 40
    frames = np.concatenate([still, moving, still])
    change = np.abs(np.diff(frames[:, 0, 0, 0].astype(int)))
    sums = [change[i : i + 4].sum() for i in range(len(change) - 3)]
    for pictures, count, at in ((frames, 5, int(np.argmax(sums))), (still, 3, 0)):
        best = shots.Best(count)
        for picture in pictures:
            best.push(picture)
        assert best.at == at


def test_real_clips_are_read_to_their_end():
    for path in sorted(real_clips().glob("*.mp4")):
        opened = video.Video(path)
        last = opened.sample([opened.info.duration - 0.01], 36, 64)
        assert last.shape == (1, 36, 64, 3) and last.std() > 5


@pytest.mark.parametrize("size", [(1024, 1024), (360, 640), (96, 130)])
def test_scaling_keeps_the_level_of_a_flat_picture(size):
    """The scaler's fast ways lose up to 15 of 255, enough for a dark shot to be taken for black."""
    frame = av.VideoFrame(size[1], size[0], "yuv420p")
    for plane, level in zip(frame.planes, (60, 120, 136)):
        plane.update(bytes([level]) * plane.buffer_size)
    opened: Any = video.Video.__new__(video.Video)
    opened._aspect, opened.path = 1.0, None
    opened._scaler, opened._colours = video.VideoReformatter(), video.VideoReformatter()
    shown = opened.picture(frame)
    assert np.ptp(shown.reshape(-1, 3), axis=0).max() == 0
    for height, width in ((32, 32), (54, 96), (352, 640), (57, 57)):
        scaled = opened.picture(frame, height, width)
        assert np.abs(scaled.astype(int) - shown[0, 0]).max() <= 1, (height, width)
