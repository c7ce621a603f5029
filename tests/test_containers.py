"""What a player shows is what is cut: containers x codecs x what files in the wild do to their times."""

from fractions import Fraction

import pytest

from tests.fuzz_helpers import read_number
from tests.media_helpers import Made, Sound, made
from vans.media import video

H264, H265, VP8, VP9, AV1 = "libx264", "libx265", "libvpx", "libvpx-vp9", "libsvtav1"
MPEG1, MPEG2, MPEG4 = "mpeg1video", "mpeg2video", "mpeg4"
FILES: dict[str, tuple[str, str, tuple[str, ...]]] = {  # suffix: format, sound's codec, pictures' codecs
    "mp4": ("mp4", "aac", (H264, H265, MPEG4, MPEG2, VP9, AV1, "mjpeg")),
    "mov": ("mov", "pcm_s16le", (H264, MPEG4, "mjpeg", "prores_ks")),
    "mkv": ("matroska", "aac", (H264, H265, MPEG4, MPEG2, MPEG1, VP8, VP9, "mjpeg", "ffv1")),
    "webm": ("webm", "libopus", (VP8, VP9, AV1)),
    "avi": ("avi", "mp2", (H264, MPEG4, MPEG2, "mjpeg", "ffv1", "msmpeg4v2", "huffyuv")),
    "ts": ("mpegts", "aac", (H264, H265, MPEG2, MPEG4, MPEG1)),
    "mpg": ("mpeg", "mp2", (MPEG1, MPEG2)),
    "flv": ("flv", "aac", ("flv", H264)),
    "wmv": ("asf", "mp2", ("wmv2", "msmpeg4", MPEG4)),
    "3gp": ("3gp", "aac", (MPEG4, H264)),
    "ogv": ("ogg", "flac", (VP8,)),
}
COUNT = 36
STEADY = [Fraction(i, 25) for i in range(COUNT)]
UNEVEN = [Fraction(i * 40 + 13 * (i % 2) + (700 if i > 20 else 0), 1000) for i in range(COUNT)]
FILM = [Fraction(round(i * 1001 / 30), 1000) for i in range(COUNT)]  # 29.97 a second, as screen recorders note it
B_FRAMES = {codec: {"bf": "2"} for codec in (H264, MPEG1, MPEG2, MPEG4)}
B_FRAMES[H265] = {"x265-params": "bframes=2:log-level=none:pools=none:frame-threads=1"}
INTRA = {"mjpeg", "ffv1", "huffyuv", "prores_ks"}
STAMPED = ("mp4", "mov", "mkv", "webm", "ts", "flv", "3gp")  # hold any time for a picture
MILLI = Fraction(1, 1000)
AT_A_THOUSAND = {"rate": Fraction(1000), "base": MILLI}


def combinations():
    for suffix, (form, heard, codecs) in FILES.items():
        for codec in codecs:
            plain: dict = {"container": form, "codec": codec, "times": STEADY}
            moved = [time + 100 for time in STEADY]
            some = {
                "plain": plain,
                "sound longer": plain | {"sound": Sound(heard, 0.0, 4.0)},
                "sound shorter": plain | {"sound": Sound(heard, 0.0, 0.7)},
                "sound a little before": plain | {"sound": Sound(heard, -0.023, 2.0)},
                "sound later": plain | {"sound": Sound(heard, 0.5, 1.0)},
            }
            if suffix == "avi":  # which counts pictures and shows the first until the others come
                del some["sound a little before"]
            if suffix not in ("avi", "mov"):
                some["pictures late"] = plain | {"times": [t + 1 for t in STEADY], "sound": Sound(heard, 0.0, 4.0)}
            if suffix not in ("avi", "ogv"):
                some["far from 0"] = plain | {"times": moved, "sound": Sound(heard, 100.0, 2.0)}
            if codec in B_FRAMES:
                some["B-frames"] = plain | {"options": B_FRAMES[codec]}
                some["B-frames, sound"] = some["B-frames"] | {"sound": Sound(heard, -0.023, 4.0)}
                if suffix in ("ts", "flv", "avi", "mkv"):
                    some["times shuffled"] = some["B-frames"] | {"shuffled": True}
            if suffix in STAMPED and codec not in (MPEG1, MPEG2, MPEG4):
                some["uneven"] = plain | {"times": UNEVEN, "base": MILLI}
            if suffix in ("mkv", "webm", "mp4", "flv") and codec not in (MPEG1, MPEG2, MPEG4, AV1):
                some["says 1000 a second"] = plain | {"times": FILM} | AT_A_THOUSAND
            if codec not in INTRA and suffix in ("ts", "mkv", "flv", "avi", "wmv"):
                some["cut in mid-group"] = plain | {"lost": 4}
            for oddity, what in some.items():
                yield pytest.param(suffix, Made(**what), id=f"{suffix}-{codec}-{oddity}")


@pytest.mark.parametrize(("suffix", "what"), combinations())
def test_the_pictures_are_those_that_a_player_shows(tmp_path, suffix, what):
    path = tmp_path / f"a.{suffix}"
    path.write_bytes(made(what))
    opened = video.Video(path)
    info = opened.info
    late = 1.0 if what.sound and what.times[0] == 1 else 0.0
    read = [(time, read_number(picture)) for time, picture in opened.frames()]
    first = 10 if what.lost else 0  # the next group
    assert [number for _, number in read] == list(range(first, COUNT))
    zero = read[0][0] - late if what.lost else 0.0
    times = [float(t - what.times[first]) + late + zero for t in what.times[first:]]
    assert [t for t, _ in read] == pytest.approx(times, abs=0.0015)
    assert info.start == pytest.approx(times[0], abs=0.0015)
    last = 0.001 if suffix == "mp4" and what.times is FILM else 1 / 30 if what.times is FILM else 0.04  # mp4 tells it
    assert info.end == pytest.approx(times[-1] + last, abs=0.0025)
    # the first, the last, and on both sides of a boundary, found by jumping there
    middle = len(times) * 2 // 3
    shown = {times[0]: first, times[middle] - 0.003: first + middle - 1, times[middle]: first + middle}
    shown |= {times[middle] + 0.02: first + middle, times[-1]: COUNT - 1, info.end - 0.0005: COUNT - 1}
    assert [read_number(opened.sample([t], 32, 32)[0]) for t in shown] == list(shown.values())
    together = opened.sample(sorted(shown), 32, 32)
    assert [read_number(p) for p in together] == [shown[t] for t in sorted(shown)]


def test_there_are_as_many_combinations_as_are_told():
    assert len(list(combinations())) >= 300
