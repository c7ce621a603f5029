"""Reward terms: tables of malformed answers, hand-computed values, presets, and adding one."""

import pytest
import torch
from vans.grpo.rewards import Rollout

from vans import similarity, template
from vans.grpo import rewards

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


@pytest.fixture
def rollout() -> Rollout:
    generator = torch.Generator().manual_seed(0)
    frames = torch.randn(2, 3, 4, 5, generator=generator)
    return Rollout(
        texts=[[GOOD, "the ball jumps up .", GOOD.replace("jumps up", "rolls")], [GOOD] * 3],
        truth=["the ball jumps up .", "the box grows ."],
        frames=frames,
        rendered=torch.tensor([[True, False, True], [True, True, True]]),
        truth_frames=frames[:, 0],
        caption_features=frames[:, 1, 0],
    )


def test_terms_are_prompt_by_answer(rollout):
    terms = rewards.score(rollout, list(rewards.REGISTRY))
    assert set(terms) == {"format", "t1", "v1", "v2", "c2"}
    assert {tuple(t.shape) for t in terms.values()} == {(2, 3)}
    assert terms["format"].tolist() == [[1, 0, 1], [1, 1, 1]]
    rolls = similarity.rouge_l("the ball rolls", rollout.truth[0])
    assert terms["t1"][0].tolist() == pytest.approx([1.0, 0.0, rolls])
    torch.testing.assert_close(terms["v1"][:, 0], torch.ones(2))  # the truth itself
    assert terms["v1"][0, 1] == 0 and terms["c2"][0, 1] == 0  # nothing rendered
    assert torch.equal(terms["v1"], terms["v2"])
    expected = torch.cosine_similarity(rollout.frames[1, 2], rollout.caption_features[1][None], dim=-1).mean()
    torch.testing.assert_close(terms["c2"][1, 2], expected)


def test_a_right_caption_outside_the_template_earns_nothing(rollout):
    terms = rewards.score(rollout, ["format", "t1", "v1"])
    assert sum(t[0, 1].item() for t in terms.values()) == 0.0


def test_a_term_says_what_it_lacks():
    with pytest.raises(ValueError, match=r"Rollout\.texts"):
        rewards.score(Rollout(), ["t1"])


WEIGHTS1 = {"format": 1.0, "t1": 1.0, "v1": 1.0}


def test_presets_leave_out_exactly_their_term():
    assert rewards.preset_weights(rewards.STAGE1, "full", WEIGHTS1) == WEIGHTS1
    assert rewards.preset_weights(rewards.STAGE1, "no_t1", WEIGHTS1) == {"format": 1.0, "t1": 0.0, "v1": 1.0}
    assert rewards.preset_weights(rewards.STAGE1, "no_v1", WEIGHTS1) == {"format": 1.0, "t1": 1.0, "v1": 0.0}
    assert rewards.preset_weights(rewards.STAGE2, "no_c2", {"v2": 2.0, "c2": 1.0}) == {"v2": 2.0, "c2": 0.0}
    assert rewards.preset_weights(rewards.STAGE2, "no_v2", {"v2": 2.0, "c2": 1.0}) == {"v2": 0.0, "c2": 1.0}
    with pytest.raises(ValueError, match="'no_c2' is unknown"):
        rewards.preset_weights(rewards.STAGE1, "no_c2", WEIGHTS1)
    with pytest.raises(ValueError, match="'t2' names no reward term"):
        rewards.preset_weights(rewards.STAGE1, "full", {"t2": 1.0})


def test_combine_by_hand():
    terms = {"v2": torch.tensor([[1.0, 2.0]]), "c2": torch.tensor([[10.0, 20.0]])}
    assert rewards.combine(terms, {"v2": 2.0, "c2": 0.5}).tolist() == [[7.0, 14.0]]
    assert rewards.combine(terms, {"v2": 1.0, "c2": 0.0}).tolist() == [[1.0, 2.0]]
    with pytest.raises(ValueError, match="t1"):
        rewards.combine(terms, {"t1": 1.0})


def test_adding_a_reward_is_one_function_and_one_weight(rollout, monkeypatch):
    monkeypatch.setattr(rewards, "REGISTRY", dict(rewards.REGISTRY))

    @rewards.term("short")
    def _short(r: Rollout) -> torch.Tensor:
        return torch.tensor([[-float(template.thinking_length(t)) for t in group] for group in r.texts or []])

    weights = rewards.preset_weights(rewards.STAGE1, "full", {**WEIGHTS1, "short": 0.1})
    terms = rewards.score(rollout, list(weights))
    total = rewards.combine(terms, weights)
    torch.testing.assert_close(total[0, 0], torch.tensor(1 + 1 + 1 - 0.5))
    with pytest.raises(ValueError, match="twice"):
        rewards.term("short")(_short)
