"""The toy world: its rules, its language, its bytes."""

import json
from collections import Counter

import numpy as np
import pytest

from tests.data_helpers import world_params
from vans.data import annotate
from vans.data.annotate import Request
from vans.data.draw import Draw
from vans.errors import UserError
from vans.similarity import rouge_l
from vans.toy import sources as toy_sources
from vans.toy import world
from vans.toy.render import COLOURS, DURATION, EVENTS, ONSETS, SHAPES, TRANSIENT, Scene, render_event

ANCHOR = 0.6  # stage2.anchor_threshold


def test_each_event_starts_at_the_same_rest_picture_and_no_two_look_the_same():
    for shape in SHAPES:
        clips = [render_event(Scene(shape=shape), event) for event in EVENTS]
        assert all(np.array_equal(clip[:2], clips[0][:2]) for clip in clips)
        for i, a in enumerate(clips):
            for b in clips[:i]:
                assert np.abs(a.astype(int) - b).mean() > 2.0


def test_a_transient_event_is_away_for_its_frames_and_the_others_last():
    for event in EVENTS:
        for start in range(7):
            for frames in (3, DURATION):
                clip = render_event(Scene(), event, 12, start, frames)
                away = np.abs(clip.astype(int) - clip[0]).mean(axis=(1, 2, 3)) > 0.1
                last = start + frames if event in TRANSIENT else 11
                assert away.tolist() == [start < t <= last for t in range(12)]


def test_half_of_the_events_are_transient_and_in_pairs_of_which_both_are_or_none():
    assert len(TRANSIENT) == 4 and set(TRANSIENT) <= set(EVENTS)
    for pair in world.PAIRS.values():
        assert len(set(pair) & set(TRANSIENT)) in (0, 2)


def test_the_moment_of_a_transient_event_is_told_by_nothing_and_any_is_as_likely():
    onsets, lengths = Counter[int](), Counter[int]()
    for i in range(600):
        draw = Draw("moments", i)
        clip = toy_sources.draw_shot(draw, toy_sources.draw_scene(draw), TRANSIENT[i % 4])
        away = np.flatnonzero(np.abs(clip.astype(int) - clip[0]).mean(axis=(1, 2, 3)) > 0.1)
        assert len(clip) == 9 and len(away) == away[-1] - away[0] + 1  # whole, and in one piece
        onsets[int(away[0])] += 1
        if away[0] < ONSETS[-1]:  # the latest is cut off by the shot's end
            lengths[len(away)] += 1
    assert sorted(onsets) == list(ONSETS) and min(onsets.values()) > 110
    assert set(lengths) == {DURATION}


PINNED = [566780, 524962]  # sums of the first and the last picture


def test_the_picture_is_pinned():
    clip = render_event(Scene(shape="cone", colour="cyan", x=15.25, scale=1.04, wall=2, floor=1), "grow")
    assert clip.shape == (9, 32, 32, 3)
    assert [int(clip[0].astype(np.int64).sum()), int(clip[8].astype(np.int64).sum())] == PINNED


def test_the_three_routines_are_cycles_that_differ_after_every_event():
    for cycle in world.ROUTINES.values():
        assert sorted(cycle) == sorted(EVENTS)
    for event in EVENTS:  # the event alone does not tell what follows
        assert len({world.successor(routine, event) for routine in world.ROUTINES}) == 3
    for routine in world.ROUTINES:  # nor does the routine's name alone
        assert len({world.successor(routine, event) for event in EVENTS}) == 8


def test_what_happens_needs_condition_and_shape_and_a_surprise_is_another_event():
    for shape in SHAPES:
        assert {world.outcome(c, shape) for c in world.CONDITIONS} == set(EVENTS)
        assert {world.outcome(c, shape, True) for c in world.CONDITIONS} == set(EVENTS)
        for condition in world.CONDITIONS:
            assert world.outcome(condition, shape) != world.outcome(condition, shape, True)
    for condition in world.CONDITIONS:
        assert len({world.outcome(condition, shape) for shape in SHAPES}) == 3


def test_captions_mean_one_event_when_plain_and_a_pair_when_flowery():
    for shape in SHAPES:
        for event in EVENTS:
            for wording in (0, 1):
                plain, flowery = (world.caption(shape, event, style, wording) for style in ("plain", "flowery"))
                assert world.caption_events(plain) == {event}
                assert world.caption_events(flowery) == set(world.PAIRS[world.pair_of(event)])
    a, b = world.PAIRS["journey"]
    assert world.caption("ball", a, "flowery") == world.caption("ball", b, "flowery")


def test_wordings_are_told_apart():
    for event in EVENTS:
        texts = [world.caption("ball", event, *how) for how in (("plain", 0), ("plain", 1), ("flowery", 1))]
        assert [world.wording(t) for t in [*texts, "", "stir"]] == [
            "first word", "second word", "flowery", "other", "other"
        ]  # fmt: skip


def test_either_word_of_an_event_is_as_good_to_a_comparison_of_texts_and_labels_have_the_first():
    for shape in SHAPES:
        for event in EVENTS:
            one, other = (world.caption(shape, event, "plain", k) for k in (0, 1))
            assert sum(a != b for a, b in zip(one.split(), other.split(), strict=True)) == 1
            assert world.label(shape, event) == one
            assert rouge_l(one, other) >= ANCHOR + 0.1  # either is an anchor where the other is the reference
            for k in (0, 1):  # nor is one of them nearer to what else may happen
                others = [world.caption(shape, e, "plain", w) for e in EVENTS if e != event for w in (0, 1)]
                near = [rouge_l(world.caption(shape, event, "plain", k), text) for text in others]
                assert sum(r >= ANCHOR for r in near) == 2  # of the other event of the pair
    words = [w for event in EVENTS for w in world.WORDS[event]]
    assert len(set(words)) == 2 * len(EVENTS)


def test_references_have_either_word_half_of_the_time():
    said = Counter[tuple[str, str]]()
    for i in range(800):
        request = Request(
            f"x{i}", "predictive", "the wind blows", world.label("ball", "left"), world.label("ball", EVENTS[i % 8])
        )
        said[EVENTS[i % 8], annotate.rules(request, 0, 0.0).caption] += 1
    assert len(said) == 16 and min(said.values()) > 30


@pytest.mark.parametrize(
    ("text", "events"),
    [
        ("The ball moves to the left and stays.", {"left"}),
        ("ball moves to the west and stays", {"left"}),
        ("the ball moves to the", set()),
        ("the ball moves to the left left and stays .", set()),
        ("the moves to the left and stays .", set()),
        ("", set()),
        ("the dog moves to the left and stays .", set()),
    ],
)
def test_captions_are_read_strictly_but_punctuation_and_case_do_not_matter(text, events):
    assert world.caption_events(text) == events


def test_labels_are_read_back():
    assert all(world.read_label(world.label(s, e)) == (s, e) for s in SHAPES for e in EVENTS)
    assert world.read_label("stir the soup") is None


def test_words_are_few_and_never_name_what_the_frames_must_carry():
    words = world.vocabulary()
    assert len(words) <= 130
    assert words == sorted(set(words))
    captions = {w for s in SHAPES for e in EVENTS for k in (0, 1) for style in ("plain", "flowery")
                for w in world.caption(s, e, style, k).split()}  # fmt: skip
    assert captions <= set(words)
    assert not captions & {*COLOURS, "wall", "poster"}
    for routine in world.ROUTINES:
        for event in EVENTS:
            text = world.reasoning("procedural", routine, "ball", event, world.successor(routine, event))
            assert len(text.split()) <= 22


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(tmp_path):
    params = world_params(3, 2, 2, 2)
    for name in ("a", "b"):
        world.generate(tmp_path / name, params)
    world.generate(tmp_path / "c", world_params(3, 2, 2, 2, seed=8))
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)
    assert any((tmp_path / "a" / f).read_bytes() != (tmp_path / "c" / f).read_bytes() for f in files
               if (tmp_path / "c" / f).exists())  # fmt: skip
    assert world.verify(tmp_path / "a", params)["differing"] == []
    (tmp_path / "a" / files[-1]).write_bytes(b"other")
    assert world.verify(tmp_path / "a", params)["differing"] == [str(files[-1])]


def test_data_of_the_users_own_is_never_touched(tmp_path):
    (tmp_path / "mine.mp4").write_bytes(b"mine")
    with pytest.raises(UserError, match="not empty"):
        world.generate(tmp_path, world_params())
    assert [p.name for p in tmp_path.iterdir()] == ["mine.mp4"]


def test_annotations_are_in_the_layouts_of_the_real_sources(tmp_path):
    world.generate(tmp_path / "data", world_params(20, 4, 3, 2))
    coin = json.loads((tmp_path / "data/coin/COIN.json").read_text())["database"]
    entry = next(iter(coin.values()))
    assert {"class", "recipe_type", "subset", "duration", "annotation"} <= set(entry)
    assert {e["subset"] for e in coin.values()} <= {"training", "testing"}
    assert set(entry["annotation"][0]) == {"id", "segment", "label"}
    youcook = json.loads((tmp_path / "data/youcook2/youcookii_annotations_trainval.json").read_text())["database"]
    entry = next(iter(youcook.values()))
    assert set(entry["annotations"][0]) == {"id", "segment", "sentence"}
    assert isinstance(entry["annotations"][0]["id"], int)
    assert {e["subset"] for e in youcook.values()} <= {"training", "validation"}
    shorts = json.loads((tmp_path / "data/shorts/shorts.json").read_text())["database"]
    assert not any("segment" in json.dumps(entry) for entry in shorts.values())  # cuts without timestamps
    assert Counter(e["scene"] for e in shorts.values()) == dict.fromkeys({e["scene"] for e in shorts.values()}, 2)


def test_one_input_has_two_futures():
    for i in range(30):
        _, seen, futures = toy_sources.predictive_scene(7, f"scene{i}", 0.2)
        (_, a), (_, b) = futures
        assert a["condition"] != b["condition"]
        assert a["event"] != b["event"]
        assert seen["event"] in EVENTS


def test_surprises_are_as_frequent_as_asked():
    futures = [toy_sources.predictive_scene(7, f"scene{i}", 0.2) for i in range(300)]
    surprised = np.mean(
        [f["event"] != world.outcome(f["condition"], seen["scene"].shape) for _, seen, fs in futures for _, f in fs]
    )
    assert 0.14 < surprised < 0.26
