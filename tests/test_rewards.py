"""Reward terms: tables of malformed answers, hand-computed values, presets, and adding one."""

import re

import numpy as np
import pytest
import torch

from vans import similarity, template
from vans.errors import UserError
from vans.grpo import core
from vans.params import Term
from vans.rewards import names
from vans.rewards.plugs import Plug, plugs, score
from vans.rewards.rollout import Rollout, term
from vans.rewards.terms.motion import energy
from vans.toy.render import Scene, render_event

GOOD = "[Think]the ball just rolled .[/Think][Ans]the ball jumps up .[/Ans]"

WELL_FORMED = [
    (GOOD, "the ball just rolled .", "the ball jumps up ."),
    ("[Think] a [/Think] [Ans] b [/Ans]", "a", "b"),  # a word-level tokenizer leaves spaces
    ("\n[Think]a\nb[/Think]\n[Ans]c[/Ans]\n", "a\nb", "c"),
    ("[Think]a [think] b[/Think][Ans]c[/Ans]", "a [think] b", "c"),  # not a tag: tags are spelt exactly
]

MALFORMED = [
    "",
    " ",
    "the ball jumps up .",
    "[Think]a[/Think]",
    "[Ans]c[/Ans]",
    "[Think]a[/Think][Ans]c",  # cut off
    "[Think]a[/Think][Ans]c[/Ans",
    "[Think]a[Ans]c[/Ans]",
    "[Ans]c[/Ans][Think]a[/Think]",  # wrong order
    "[Think]a[Ans]c[/Ans][/Think]",  # nested
    "[Think][/Think][Ans]c[/Ans]",  # empty parts
    "[Think] [/Think][Ans]c[/Ans]",
    "[Think]a[/Think][Ans][/Ans]",
    "[Think]a[/Think][Ans] \n [/Ans]",
    "[Think]a[/Think]and so[Ans]c[/Ans]",  # text outside the parts
    "well[Think]a[/Think][Ans]c[/Ans]",
    "[Think]a[/Think][Ans]c[/Ans]the end",
    "[Think]a[/Think][Ans]c[/Ans][Ans]d[/Ans]",  # answering twice
    "[Think]a[/Think][Think]b[/Think][Ans]c[/Ans]",
    "[Think]a[Think]b[/Think][Ans]c[/Ans]",
    "[Think]a[/Think][Ans]c[Ans]d[/Ans]",
    GOOD + GOOD,
    "[think]a[/think][ans]c[/ans]",
    "<think>a</think><ans>c</ans>",
    "[ Think ]a[/Think][Ans]c[/Ans]",
]


@pytest.mark.parametrize(("text", "thinking", "caption"), WELL_FORMED)
def test_well_formed_answers(text, thinking, caption):
    assert template.parse_answer(text) == (thinking, caption)
    assert template.format_reward(text) == 1.0
    assert template.thinking_length(text) == len(thinking.split())


@pytest.mark.parametrize("text", MALFORMED)
def test_malformed_answers(text):
    assert template.parse_answer(text) == ("", None)
    assert template.format_reward(text) == 0.0
    assert template.thinking_length(text) == 0


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("the ball jumps up .", "the ball jumps up .", 1.0),
        ("The Ball jumps up", "the ball jumps up .", 1.0),  # case and punctuation do not count
        ("the ball rolls", "the ball jumps up", 2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4)),  # LCS 2
        ("up jumps ball the", "the ball jumps up", 0.25),  # order counts: LCS 1
        ("", "the ball jumps up", 0.0),
        ("a b c", "d e f", 0.0),
        ("球跳起来", "球跳起来", 0.0),  # only a-z and 0-9 are seen
    ],
)
def test_rouge_l_by_hand(a, b, expected):
    assert similarity.rouge_l(a, b) == pytest.approx(expected)
    assert similarity.rouge_l(b, a) == pytest.approx(expected)


def test_frame_similarity_by_hand():
    a = torch.tensor([[[1.0, 0.0], [0.0, 2.0]]])
    b = torch.tensor([[[3.0, 0.0], [1.0, 1.0]]])
    torch.testing.assert_close(similarity.frame_similarity(a, b), torch.tensor([(1 + 0.5**0.5) / 2]))
    torch.testing.assert_close(similarity.frame_similarity(a, 5 * a), torch.ones(1))
    # frame by frame: the same frames in another order are another video
    assert similarity.frame_similarity(a, a.flip(1)).item() == pytest.approx(0.0)


def test_clip_score_by_hand():
    frames = torch.tensor([[[1.0, 0.0], [0.0, 2.0]], [[-1.0, 0.0], [-1.0, 0.0]]])
    text = torch.tensor([[2.0, 0.0], [1.0, 0.0]])
    torch.testing.assert_close(similarity.clip_score(frames, text), torch.tensor([0.5, -1.0]))


def test_bad_shapes_raise():
    with pytest.raises(ValueError, match=r"\[N, T, D\]"):
        similarity.frame_similarity(torch.zeros(1, 2, 3), torch.zeros(1, 3, 3))
    with pytest.raises(ValueError, match=r"\[N, D\]"):
        similarity.clip_score(torch.zeros(1, 2, 3), torch.zeros(2, 3))


class Features:
    """A CLIP whose features are read off: a frame's is its mean colour, a text's a fixed direction."""

    def image(self, clips):
        return torch.nn.functional.normalize(clips.float().mean((2, 3)) + 1.0, dim=-1)  # [N, T, 3]

    def text(self, texts):
        return torch.nn.functional.normalize(torch.tensor([[1.0, len(t), 2.0] for t in texts]), dim=-1)


class Clips:
    def clips(self, ids, which):
        fill = {"input": 10, "target": 200}[which]
        clips = np.zeros((len(ids), 4, 8, 8, 3), np.uint8)
        clips[:, 1:, :, :, 0] = fill
        return clips


def made(videos: bool = True) -> Rollout:
    """Two prompts of three answers; the second answer breaks the template."""
    answers = [[GOOD, "the ball jumps up .", GOOD.replace("jumps up", "rolls")], [GOOD] * 3]
    captions = [[template.parse_answer(text)[1] for text in row] for row in answers]
    films = torch.zeros(2, 3, 4, 8, 8, 3, dtype=torch.uint8)
    films[:, 0] = torch.from_numpy(Clips().clips(["a"], "target"))[0]  # the truth itself
    films[:, 2, :, :, :, 1] = 255  # a green still
    return Rollout(
        ["a", "b"],
        ["what next ?"] * 2,
        ["the ball jumps up .", "the box grows ."],
        answers,
        captions,
        films if videos else None,
        triplets=Clips(),
        clip=Features(),
    )


def weights(**given) -> dict[str, Term]:
    return {name: Term(weight=w) for name, w in given.items()}


def of(*names: str, **given) -> list[Plug]:
    return plugs(weights(**dict.fromkeys(names, 1.0), **given), None)


def test_the_terms_that_ship_are_those_of_the_folder():
    assert names() == ["c2", "format", "judge", "motion", "oracle", "t1", "v1", "v2"]


def test_terms_are_prompt_by_answer():
    rollout = made()
    scores = score(rollout, of("format", "t1", "v1", "v2", "c2"))
    assert {tuple(t.shape) for t in scores.terms.values()} == {(2, 3)} and scores.kept.all()
    assert scores.terms["format"].tolist() == [[1, 0, 1], [1, 1, 1]]
    rolls = similarity.rouge_l("the ball rolls", rollout.truth[0])
    assert scores.terms["t1"][0].tolist() == pytest.approx([1.0, 0.0, rolls])
    torch.testing.assert_close(scores.terms["v1"][:, 0], torch.ones(2))  # the truth itself
    assert scores.terms["v1"][0, 1] == 0 and scores.terms["c2"][0, 1] == 0  # nothing rendered
    assert torch.equal(scores.terms["v1"], scores.terms["v2"])
    own = torch.cosine_similarity(rollout.video_features[1, 2], rollout.caption_features[1, 2][None], dim=-1).mean()
    torch.testing.assert_close(scores.terms["c2"][1, 2], own)
    torch.testing.assert_close(scores.total, sum(scores.terms.values()))


def test_each_caption_has_its_own_features():
    features = made().caption_features
    assert not torch.equal(features[0, 0], features[0, 2]) and torch.equal(features[0, 0], features[1, 1])


def test_motion_by_hand():
    still, truth = torch.zeros(1, 4, 8, 8, 3, dtype=torch.uint8), torch.from_numpy(Clips().clips(["a"], "target"))
    assert energy(still).tolist() == [0.0]
    assert energy(truth).item() == pytest.approx(200 / 3 / 3)  # one of three changes, of one of three channels
    found = score(made(), of("motion")).terms["motion"]
    assert found[:, 0].tolist() == pytest.approx([1.0, 1.0])
    assert found[0, 2].item() == pytest.approx(0.1 / (200 / 9 + 0.1)) and found[0, 1] == 0


def test_the_oracle_pays_for_the_true_event_only():
    scene = Scene(shape="ball", colour="red")
    films = {event: torch.from_numpy(render_event(scene, event)) for event in ("jump", "grow")}
    rollout = made()
    rollout.targets = films["jump"][None].repeat(2, 1, 1, 1, 1)
    rollout._videos = torch.stack([films["jump"], films["jump"], films["grow"]])[None].repeat(2, 1, 1, 1, 1, 1)
    assert score(rollout, of("oracle")).terms["oracle"].tolist() == [[1, 0, 0], [1, 1, 0]]  # [0, 1]: no caption


def test_a_right_caption_outside_the_template_earns_nothing():
    scores = score(made(), of("format", "t1", "v1", "v2", "c2", "motion"))
    assert scores.total[0, 1] == 0.0


def test_weights_are_a_sum():
    scores = score(made(), of(format=2.0, t1=-0.5))
    torch.testing.assert_close(scores.total, 2 * scores.terms["format"] - 0.5 * scores.terms["t1"])
    assert [p.name for p in of(format=1.0, t1=0.0)] == ["format"]  # nothing is computed for a weight of 0


def test_a_term_may_not_look_at_videos_that_it_did_not_ask_for():
    with pytest.raises(ValueError, match="needs=.video"):
        made(videos=False).videos  # noqa: B018
    with pytest.raises(UserError, match="reward v1: it needs videos, and this stage renders none"):
        plugs(weights(v1=1.0), None, renders=False)
    assert {p.name: p.needs for p in of("format", "v1")} == {"format": "text", "v1": "video"}


# ---- terms of one's own, found by "tests.test_rewards:name"


@term(needs="text")
def short(rollout: Rollout) -> torch.Tensor:
    return torch.tensor([[-float(template.thinking_length(text)) for text in row] for row in rollout.answers])


def broken(rollout: Rollout) -> torch.Tensor:
    return torch.full(rollout.shape, float("nan"))


def misshapen(rollout: Rollout) -> torch.Tensor:
    return torch.zeros(rollout.shape[0])


def sometimes(rollout: Rollout) -> list[list[float | None]]:
    return [[1.0, None, 3.0], [1.0, 2.0, 3.0]]


def never(rollout: Rollout) -> list[list[float | None]]:
    return [[None] * 3] * 2


def own(name: str, **more) -> list[Plug]:
    return plugs({f"tests.test_rewards:{name}": Term(weight=1.0), **weights(**more)}, None)


def test_a_reward_of_ones_own_is_one_function_and_one_weight():
    scores = score(made(), own("short", format=1.0))
    assert scores.total[0].tolist() == [1 - 5, 0, 1 - 5]


def test_nan_stops_with_the_terms_name():
    with pytest.raises(UserError, match=r"tests.test_rewards:broken: is nan for a \(caption 'the ball jumps up .'"):
        score(made(), own("broken"))
    with pytest.raises(UserError, match=r"returned \[2\], but the rollout is \[2, 3\]"):
        score(made(), own("misshapen"))


def test_an_answer_without_a_score_is_dropped_from_its_group_and_counted():
    scores = score(made(), own("sometimes", format=1.0))
    assert scores.kept.tolist() == [[True, False, True], [True, True, True]]
    assert scores.total.tolist() == [[2, 0, 4], [2, 3, 4]]
    means = scores.means()
    assert means["dropped"].tolist() == pytest.approx([1 / 3, 0])
    for p in range(2):  # of the answers that are kept: a missing score is no 0
        kept = scores.total[p][scores.kept[p]]
        assert means["reward"][p] == pytest.approx(kept.mean()) and means["reward_std"][p] == pytest.approx(kept.std())
    assert means["tests.test_rewards:sometimes"].tolist() == [2, 2]  # of those that have one
    advantages, equal = core.group_advantages(scores.total, scores.kept)
    torch.testing.assert_close(advantages[0], torch.tensor([-1.0, 0.0, 1.0]), atol=1e-3, rtol=0)
    assert not equal.any()


def test_a_term_that_never_scores_stops_the_run():
    terms = own("never")
    for _ in range(2):
        assert not score(made(), terms).kept.any()
    with pytest.raises(UserError, match="never: gave no score at all for 3 rollouts in a row"):
        score(made(), terms)


@pytest.mark.parametrize(
    "name, message",
    [
        ("t2", "reward 't2' is unknown; use one of c2, format"),
        ("no.such:function", "reward no.such:function: ModuleNotFoundError: No module named 'no'"),
        ("tests.test_rewards:gone", "has no attribute 'gone'"),
        ("tests.test_rewards:GOOD", "is not a function"),
        ("./gone.sh", "no program that can be run there"),
        ("http://example.org/score", "http:// shows key and videos on the way"),
    ],
)
def test_a_name_that_nothing_answers_to_is_refused(name, message):
    with pytest.raises(UserError, match=re.escape(message)):
        plugs({name: Term(weight=1.0)}, None)


def test_a_preset_without_terms_is_refused():
    with pytest.raises(UserError, match="no term with a weight"):
        plugs(weights(format=0.0), None)
