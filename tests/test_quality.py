"""The RL subset's score and choice."""

from collections import Counter

import numpy as np
import pytest

from tests.data_helpers import curate_params
from vans.data import quality
from vans.data.agreement import agreement, judge, visual_gain
from vans.data.shots import Best
from vans.errors import UserError
from vans.media import video

WEIGHTS = {"agreement": 2.0, "motion": 1.0, "length": 1.0, "self_check": 1.0, "visual_gain": 0.0}


def row(id, **fields):
    usual = {
        **{"split": "train", "kind": "predictive", "style": "plain", "rl_score": 1.0, "topic": "t"},
        **{"recipe_type": "", "source": "s", "target_sentence": "a", "group": str(id)},
    }
    return {"id": str(id), **usual, **fields}


def taken(rows, count, seed=0):
    return [r for r, reason in zip(rows, quality.choose(rows, count, seed), strict=True) if not reason]


def test_motion_is_the_mean_change_of_a_pixel():
    best = Best(3)
    for brightness in (0, 51, 51):
        best.push(np.full((2, 2, 3), brightness, np.uint8))
    assert best.motion == pytest.approx(0.2 / 2)
    still = Best(1)
    still.push(np.zeros((2, 2, 3), np.uint8))
    assert still.motion == 0.0


@pytest.mark.parametrize(
    ("measured", "expected"),
    [
        ({}, {"agreement": 0.75, "motion": 0.5, "length": 1.0, "self_check": 1.0}),
        ({"agreement": None}, {"agreement": None}),
        ({"agreement": -0.2}, {"agreement": 0.0}),
        ({"agreement": 0.7}, {"agreement": 1.0}),
        ({"motion": 0.0}, {"motion": 0.0}),
        ({"motion": 0.9}, {"motion": 1.0}),
        ({"caption_words": 0}, {"length": 0.0}),
        ({"caption_words": 1}, {"length": 0.25}),
        ({"caption_words": 60}, {"length": 0.5}),
        ({"caption_words": 500}, {"length": 0.0}),
        ({"questions_refused": 3}, {"self_check": 0.25}),
        ({}, {"visual_gain": None}),
        ({"visual_gain": float("nan")}, {"visual_gain": None}),
        ({"visual_gain": 0.7}, {"visual_gain": 0.7}),
    ],
)
def test_terms_are_what_their_definitions_say(measured, expected):
    usual = {"agreement": 0.3, "motion": 0.002, "caption_words": 9, "questions_refused": 0}
    found = quality.terms({**usual, **measured}, 0.004)
    assert tuple(found) == quality.TERMS
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_the_score_is_the_weighted_mean_of_what_was_measured():
    terms = {"agreement": 0.5, "motion": 1.0, "length": 1.0, "self_check": 0.0}
    assert quality.score(terms, WEIGHTS) == pytest.approx(3 / 5)
    assert quality.score({**terms, "agreement": None}, WEIGHTS) == pytest.approx(2 / 3, abs=1e-6)
    assert quality.score(terms, dict.fromkeys(WEIGHTS, 0.0)) == 0.0
    gained = {**terms, "visual_gain": 0.0}
    assert quality.score(gained, WEIGHTS) == quality.score(terms, WEIGHTS)  # a weight of 0 changes nothing
    assert quality.score(gained, {**WEIGHTS, "visual_gain": 1.0}) == pytest.approx(3 / 6)


def test_best_scores_first_and_equals_by_a_draw():
    rows = [row(i, rl_score=i / 10) for i in range(10)]
    assert [r["id"] for r in taken(rows, 3)] == ["7", "8", "9"]
    equal = [row(i) for i in range(40)]
    first, again, other = (Counter(r["id"] for r in taken(equal, 8, seed)) for seed in (0, 0, 1))
    assert first == again != other
    assert first == Counter(r["id"] for r in taken(equal[::-1], 8, 0)), "the order of rows does not matter"


def test_topics_take_turns_and_targets_keep_their_frequencies():
    common = [row(f"c{i}", topic="rain", target_sentence="wet") for i in range(80)]
    rare = [row(f"r{i}", topic="rain", target_sentence="dry") for i in range(20)]
    other = [row(f"o{i}", topic="sun", target_sentence="warm") for i in range(10)]
    chosen = taken(common + rare + other, 20)
    assert Counter(r["topic"] for r in chosen) == {"rain": 10, "sun": 10}
    assert Counter(r["target_sentence"] for r in chosen) == {"wet": 8, "dry": 2, "warm": 10}


def test_each_source_gives_its_best_before_any_gives_a_second():
    rows = [row(i, group=str(i // 4), rl_score=0.5 + (i % 4) / 10, target_sentence=str(i % 3)) for i in range(40)]
    chosen = taken(rows, 10)
    assert len({r["group"] for r in chosen}) == 10 and {r["rl_score"] for r in chosen} == {0.8}
    assert len(taken(rows, 15)) == 15


def test_half_of_each_kind_where_there_are_enough():
    rows = [row(f"p{i}", kind="procedural") for i in range(3)] + [row(i) for i in range(30)]
    assert Counter(r["kind"] for r in taken(rows, 4)) == {"procedural": 2, "predictive": 2}
    assert Counter(r["kind"] for r in taken(rows, 12)) == {"procedural": 3, "predictive": 9}
    assert len(taken(rows, 100)) == 33 and not taken(rows, 0)


def test_every_refusal_has_its_reason():
    rows = [
        *(row("test", split="test"), row("flowery", style="flowery"), row("best"), row("low", rl_score=0.1)),
        *(row("same", group="best", rl_score=0.2), row("late", topic="u", rl_score=0.0)),
    ]
    reasons = dict(zip([r["id"] for r in rows], quality.choose(rows, 1, 0), strict=True))
    assert reasons == {
        **{"test": quality.TEST, "flowery": quality.FLOWERY, "best": "", "low": quality.LATER},
        **{"same": quality.SAME, "late": quality.FULL},
    }


def test_agreement_is_clips_cosine_of_target_and_caption(tmp_path):
    torch = pytest.importorskip("torch")
    from types import SimpleNamespace

    from vans.models.clip import CLIP
    from vans.models.tokenizer import text_tokenizer
    from vans.toy import world

    config = {
        "embed_dim": 16,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
        "text_cfg": {"context_length": 24, "width": 32, "heads": 2, "layers": 1},
    }
    clip = CLIP.scratch(config, text_tokenizer(world.vocabulary()), 0)
    clip.save(tmp_path / "clip")
    clips = np.random.default_rng(0).integers(0, 256, (3, 9, 32, 32, 3), dtype=np.uint8)
    rows: list[dict] = []
    data = b""
    for i, pictures in enumerate(clips):
        file, _ = video.encode(pictures, 3.0, "raw")
        place = {"shard": "a.tar", "target_offset": len(data), "target_size": len(file)}
        place |= {"input_offset": 0, "input_size": len(file)}  # of all the same input: that of the first is its target
        rows.append({"caption": f"the {('ball', 'box', 'cone')[i]} jumps for a moment and returns .", **place})
        data += file
    (tmp_path / "a.tar").write_bytes(data)
    params = SimpleNamespace(
        models=SimpleNamespace(clip=SimpleNamespace(repo=str(tmp_path / "clip"), revision="x")),
        machine=SimpleNamespace(device="cpu"),
    )
    found = agreement(rows, tmp_path, judge(params))
    frames = clip.image(torch.from_numpy(clips[:, [0, 3, 5, 8]]))
    texts = clip.text([str(r["caption"]) for r in rows])
    expected = (frames * texts[:, None]).sum(-1).mean(-1)
    assert found == pytest.approx(expected.tolist(), abs=1e-3)
    given = (frames[:1] * texts[:, None]).sum(-1).mean(-1)
    gains = visual_gain(rows, tmp_path, judge(params))
    scale = clip.model.logit_scale.exp()
    assert gains == pytest.approx(torch.sigmoid(scale * (expected - given)).tolist(), abs=1e-3)
    assert gains[0] == 0.5 and len({*gains}) == 3
    params.models.clip.repo = None
    with pytest.raises(UserError, match="curate.agreement"):
        judge(params)


def test_fields_of_the_tests_are_those_of_the_parameters():
    from vans.params import load

    others = {"qwen"}  # of annotators that these tests do not ask
    assert set(vars(curate_params().curate)) == set(vars(load().curate)) - others
