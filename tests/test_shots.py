"""Shot boundaries: made clips with known cuts, fades and flashes."""

from fractions import Fraction
from itertools import pairwise

import numpy as np
import pytest

from tests.media_helpers import Made, made
from vans.data import shots
from vans.media import video

THRESHOLD = 27.0  # that of params.yaml
RNG = np.random.default_rng(0)
WEAVE = np.kron(RNG.normal(0, 1, (6, 8, 1)), np.ones((6, 6, 1)))  # a pattern of light, [36, 48, 1]


def scene(colour, count: int, drift: int = 1) -> np.ndarray:
    """A shot of `count` pictures uint8 [count, 36, 48, 3] in one colour: a pattern that drifts, and noise."""
    pictures = [np.roll(WEAVE, i * drift, axis=1) * 14 + np.array(colour, float) for i in range(count)]
    return (np.stack(pictures) + RNG.normal(0, 3, (count, 36, 48, 3))).clip(0, 255).astype(np.uint8)


def found(tmp_path, *parts: np.ndarray, fps: float = 25.0) -> list[tuple[float, float]]:
    """The shots of a video of these parts: (start, end), s; black ones negative."""
    video.write(tmp_path / "a.avi", np.concatenate(parts), fps)
    segments = shots.find(video.Video(tmp_path / "a.avi"), THRESHOLD)
    assert segments[0].start == 0 and all(a.end == b.start for a, b in pairwise(segments))
    return [(-s.start, -s.end) if s.black else (s.start, s.end) for s in segments]


GREEN, RED, BLUE, GREY = (20, 200, 20), (200, 20, 20), (30, 40, 200), (120, 120, 120)
VIVID = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255), (0, 255, 255)]


@pytest.mark.parametrize("one", VIVID)
@pytest.mark.parametrize("other", VIVID)
def test_saturated_colours_are_told_apart_and_one_colour_is_one_shot(tmp_path, one, other):
    ends = [(0.0, 1.0), (1.0, 2.0)] if one != other else [(0.0, 2.0)]
    assert found(tmp_path, scene(one, 25), scene(other, 25)) == ends


def test_hue_is_a_circle(tmp_path):
    """Reds on both sides of hue 0 are nearly equal."""
    reds = [np.full((10, 36, 48, 3), red, np.uint8) for red in ((220, 20, 24), (220, 24, 20))]
    assert found(tmp_path, *reds, *reds) == [(0.0, 1.6)]


def test_noise_in_the_dark_or_in_grey_is_no_cut(tmp_path):
    for level, size in ((10, 4), (30, 6), (120, 12)):
        noise = RNG.normal(level, size, (30, 36, 48, 3)).clip(0, 255).astype(np.uint8)
        assert len(found(tmp_path, noise)) == 1


def test_a_cut_right_after_the_begin_counts(tmp_path):
    assert found(tmp_path, scene(GREEN, 3), scene(RED, 25)) == [(0.0, 0.12), (0.12, 1.12)]
    # but of boundaries closer than the shortest shot the first is one for all
    assert found(tmp_path, scene(GREEN, 25), scene(BLUE, 3), scene(RED, 25)) == [(0.0, 1.0), (1.0, 2.12)]
    assert found(tmp_path, scene(GREEN, 25), scene(BLUE, 5), scene(RED, 25)) == [(0.0, 1.0), (1.0, 1.2), (1.2, 2.2)]


@pytest.mark.parametrize("length", [1, 2, 4])
def test_a_flash_is_no_cut(tmp_path, length):
    shot = scene(GREY, 60)
    shot[20 : 20 + length] = 255
    shot[44 : 44 + length] = 0  # nor is a picture that is missing
    assert found(tmp_path, shot, scene(RED, 25)) == [(0.0, 2.4), (2.4, 3.4)]


def test_a_fade_through_black_parts_two_shots(tmp_path):
    out, into = np.linspace(1, 0, 25)[:, None, None, None], np.linspace(0, 1, 25)[:, None, None, None]
    one, other = scene(GREY, 50), scene(BLUE, 50)
    one[25:], other[:25] = one[25:] * out, other[:25] * into
    dark = np.zeros((20, 36, 48, 3), np.uint8)
    before, black, after = found(tmp_path, one, dark, other)
    assert before[0] == 0 and after[1] == 4.8 and before[1] == -black[0] and after[0] == -black[1]
    assert 1.8 <= before[1] <= 2.0 and 2.8 <= after[0] <= 3.1  # where less than a tenth of the light is there
    short = found(tmp_path, one[::2], other[::2])  # no picture stays black
    assert len([s for s in short if s[1] > 0]) == 2 and short[0][1] == pytest.approx(1.0, abs=0.13)


def test_a_fade_in_alone_a_dim_shot_and_a_change_of_light_are_no_boundaries(tmp_path):
    into = np.linspace(0, 1, 25)[:, None, None, None]
    assert len(found(tmp_path, (scene(GREY, 25) * into).astype(np.uint8), scene(GREY, 10))) == 1
    dim = np.stack([np.full((36, 48, 3), 11 + i % 3, np.uint8) for i in range(50)])  # around the edge of black
    assert len(found(tmp_path, scene((30, 30, 30), 10), dim)) <= 2
    assert len(found(tmp_path, scene(GREY, 25), scene((150, 150, 150), 25))) == 1


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
@pytest.mark.parametrize("rate", [25, 30, 60])
def test_lengths_are_measured_in_seconds_whatever_the_rate_says(tmp_path, suffix, rate):
    """A file that says 1000 pictures a second, with a cut every 0.8 s."""
    count = round(0.8 * rate)
    times = [Fraction(round(1000 * i / rate), 1000) for i in range(6 * count)]
    pictures = [p for colour in VIVID for p in scene(colour, count)]
    codec = {"mkv": "libx264", "webm": "libvpx"}[suffix]
    container = {"mkv": "matroska", "webm": "webm"}[suffix]
    data = made(Made(container, codec, times, rate=Fraction(1000), base=Fraction(1, 1000)), pictures)
    (tmp_path / f"a.{suffix}").write_bytes(data)
    segments = shots.find(video.Video(tmp_path / f"a.{suffix}"), THRESHOLD)
    assert [s.start for s in segments] == pytest.approx([0.8 * i for i in range(6)], abs=0.002)
    assert segments[-1].end == pytest.approx(4.8, abs=0.01)
