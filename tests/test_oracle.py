"""The oracle tells event, colour and shape from pixels, static answers included."""

import numpy as np
import pytest

from vans.data.draw import Draw
from vans.toy import oracle
from vans.toy.render import DURATION, EVENTS, ONSETS, TRANSIENT, Scene, render_event
from vans.toy.sources import draw_scene


def drawn(count: int) -> tuple[np.ndarray, list[Scene], list[str]]:
    scenes = [draw_scene(Draw("oracle", i)) for i in range(count)]
    events = [EVENTS[i % 8] for i in range(count)]
    clips = [render_event(s, e, 9, *moment(e, i)) for i, (s, e) in enumerate(zip(scenes, events))]
    return np.stack(clips), scenes, events


def moment(event: str, i: int) -> tuple[int, int]:
    """Start and duration: each of the world's onsets in turn, half of the events too short, as models make them."""
    if event in TRANSIENT:
        return ONSETS[(i // 8) % 4] - 1, (DURATION, 3)[(i // 32) % 2]
    return (i // 8) % 3, 0


def share(readings, events):
    return np.mean([r.event == e for r, e in zip(readings, events)])


def test_clean_clips_are_read_without_a_mistake():
    clips, scenes, events = drawn(240)
    readings = oracle.read(clips)
    assert [r.event for r in readings] == events
    assert [r.shape for r in readings] == [s.shape for s in scenes]
    assert [r.colour for r in readings] == [s.colour for s in scenes]
    assert all(0 < r.motion < 0.2 and r.distance < 0.02 for r in readings)


def test_noisy_clips_are_mostly_read_right():
    clips, _, events = drawn(240)
    noise = np.random.default_rng(0).normal(0, 0.1 * 255, clips.shape)
    assert share(oracle.read(np.clip(clips + noise, 0, 255).astype(np.uint8)), events) > 0.95


@pytest.mark.parametrize("noise", [0.0, 0.1])
def test_a_still_picture_of_any_moment_is_no_event(noise):
    clips, _, _ = drawn(96)
    rng = np.random.default_rng(1)
    for moment in (0, 4, 8):
        still = np.repeat(clips[:, moment : moment + 1], 9, axis=1)
        still = np.clip(still + rng.normal(0, noise * 255, still.shape), 0, 255).astype(np.uint8)
        readings = oracle.read(still)
        assert share(readings, ["none"] * 96) == 1.0
        if noise == 0.0:
            assert all(r.motion == 0.0 for r in readings)


def test_a_clip_played_backwards_is_not_its_event():
    clips, _, events = drawn(96)
    wrong = [r.event == e for r, e in zip(oracle.read(clips[:, ::-1]), events) if e not in TRANSIENT]
    assert np.mean(wrong) < 0.1


@pytest.mark.parametrize("event", TRANSIENT)
@pytest.mark.parametrize("duration", [2, 3, 4, 5, 6])
def test_a_transient_event_is_read_at_any_moment_and_of_any_length(event, duration):
    starts = range(7)
    clips = np.stack([render_event(Scene(shape="box"), event, 9, start, duration) for start in starts])
    assert [r.event for r in oracle.read(clips)] == [event] * len(starts)


def test_nonsense_is_far_from_every_event():
    rng = np.random.default_rng(0)
    nonsense = rng.integers(0, 256, (8, 9, 32, 32, 3)).astype(np.uint8)
    clips, _, _ = drawn(64)
    assert min(r.distance for r in oracle.read(nonsense)) > max(r.distance for r in oracle.read(clips))


def test_a_batch_reads_as_its_parts_and_other_lengths_are_taken():
    clips, _, events = drawn(16)
    assert oracle.read(clips)[5] == oracle.read(clips[5:6])[0]
    assert share(oracle.read(np.repeat(clips, 2, axis=1)), events) > 0.9
    assert oracle.read(clips[:0]) == []


@pytest.mark.parametrize("shape", [(9, 32, 32, 3), (2, 9, 32, 16, 3), (2, 0, 32, 32, 3)])
def test_wrong_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="uint8"):
        oracle.read(np.zeros(shape, np.uint8))
    with pytest.raises(ValueError, match="float64"):
        oracle.read(np.zeros((2, 9, 32, 32, 3)))
