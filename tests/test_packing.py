"""Where tokens stand, and several answers behind one prompt: against transformers' own and against one by one."""

import pytest
import torch
from torch.testing import assert_close

from tests import smoke
from vans.models.packing import pack
from vans.models.positions import positions
from vans.models.prompts import arguments, pick
from vans.models.tokenizer import chat_tokenizer
from vans.models.vlm import VLM
from vans.params import load
from vans.toy import world

QUESTIONS = ["what will happen ?", "what happens next if the wind blows ?"]
LONG = 0.2  # pictures per second: a clip of 45 s


@pytest.fixture(scope="module")
def models() -> dict[str, VLM]:
    config = load(smoke.ROOT, scale="tiny").models.vlm.config
    tokens = chat_tokenizer(world.vocabulary())
    return {rule: VLM.scratch(config, tokens, 0, position_rule=rule) for rule in ("grid", "largest")}


@pytest.fixture(scope="module")
def clips() -> torch.Tensor:
    scene = world.Scene(shape="cone", colour="blue")
    return torch.stack([torch.from_numpy(world.render_event(scene, e)) for e in ("left", "grow")])


@pytest.mark.parametrize("fps", [3.0, 0.7, LONG])
def test_positions_by_the_grid_are_those_of_transformers(models, clips, fps):
    vlm = models["grid"]
    inputs = vlm.inputs(clips, QUESTIONS, [fps, 2 * fps])
    own = {key: value for key, value in inputs.items() if key != "pixel_values_videos"}
    assert torch.equal(vlm.positions(inputs)[0], vlm.network.get_rope_index(**own)[0])


def test_positions_behind_a_long_video(models, clips):
    """By hand: 5 grids of 2 x 2 tokens, 3 tokens before them, at 2 positions a second; 10 s between two grids."""
    inputs = models["grid"].inputs(clips[:1], QUESTIONS[:1], LONG)
    assert inputs["video_grid_thw"].tolist() == [[5, 4, 4]] and float(inputs["second_per_grid_ts"][0]) == 10.0
    for rule, behind in (("grid", 3 + 2), ("largest", 3 + 80 + 1)):
        places, following = models[rule].positions(inputs)
        places = places[:, 0]
        assert places[:, :3].tolist() == [[0, 1, 2]] * 3
        assert places[0, 3:23].tolist() == [3 + 20 * i for i in range(5) for _ in range(4)]
        assert places[1, 3:7].tolist() == [3, 3, 4, 4] and places[2, 3:7].tolist() == [3, 4, 3, 4]
        text = places.shape[1] - 23
        assert places[:, 23:].tolist() == [list(range(behind, behind + text))] * 3
        assert following.tolist() == [behind + text]


def test_positions_of_texts_pictures_and_several_videos(models):
    """Of a row with two pictures, a row with two videos and a row of text, padded on the left; "largest" by hand."""
    config = models["largest"].model.config
    kinds = [[0, 1, 1, 1, 1, 0, 1, 1, 1, 1], [0, 2, 2, 2, 2, 2, 2, 2, 2, 0], [0] * 10]
    real = [[1] * 10, [1] * 10, [0] * 7 + [1] * 3]
    batch = {
        "input_ids": torch.zeros(3, 10, dtype=torch.long),
        "attention_mask": torch.tensor(real),
        "mm_token_type_ids": torch.tensor(kinds),
        "image_grid_thw": torch.tensor([[1, 4, 4], [1, 4, 4]]),
        "video_grid_thw": torch.tensor([[2, 4, 4]]),
        "second_per_grid_ts": [2.5],
    }
    places, following = positions(batch, config, "largest")
    assert places[0, 0].tolist() == [0, 1, 1, 1, 1, 3, 4, 4, 4, 4] and following.tolist() == [6, 8, 3]
    assert places[2, 0].tolist() == [0, 1, 2, 1, 2, 3, 4, 5, 4, 5]
    assert places[0, 1].tolist() == [0, 1, 1, 1, 1, 6, 6, 6, 6, 7]
    assert places[:, 2].tolist() == [[0] * 7 + [0, 1, 2]] * 3
    with pytest.raises(ValueError, match="no rule 'time'"):
        positions(batch, config, "time")


def alone(vlm: VLM, inputs, answers, temperature: float) -> torch.Tensor:
    """Log-probabilities of each answer behind a prompt of its own, by plain padded rows."""
    batch = pick(inputs, [n * len(inputs["input_ids"]) // len(answers.ids) for n in range(len(answers.ids))])
    places, following = vlm.positions(batch)
    length = answers.ids.shape[1]
    behind = (following[:, None] + torch.arange(length)).expand(3, -1, -1)
    batch |= {
        key: torch.cat([batch[key], getattr(answers, own)], 1)
        for key, own in (("input_ids", "ids"), ("attention_mask", "mask"))
    }
    batch.pop("mm_token_type_ids")
    out = vlm.model(**arguments(batch), position_ids=torch.cat([places, behind], 2), use_cache=False).logits
    logits = out[:, -length - 1 : -1].index_fill(2, torch.tensor(vlm.special_ids()), float("-inf"))
    chosen = (logits / temperature).log_softmax(-1).gather(2, answers.ids[..., None])[..., 0]
    return chosen.masked_fill(answers.mask == 0, 0.0)


@pytest.mark.parametrize("rule", ["grid", "largest"])
@pytest.mark.parametrize("fps, count", [(3.0, 8), (LONG, 8), (3.0, 2)])
def test_packed_answers_have_the_log_probs_and_gradients_of_answers_one_by_one(models, clips, rule, fps, count):
    vlm = models[rule]
    inputs = vlm.inputs(clips, QUESTIONS, fps)
    answers = vlm.sample(inputs, seeds=[("p", i) for i in range(count)], max_new_tokens=12, temperature=1.0)
    answers.mask[1, 5:], answers.mask[-1, 3:] = 0, 0  # other lengths
    answers.mask[3 % count, 3 if count < 4 else 0 :] = 0  # an empty answer
    weights = [p for n, p in vlm.model.named_parameters() if "language_model" in n]
    found = []
    for method in (vlm.log_probs, lambda *given: alone(vlm, *given)):
        for p in weights:
            p.requires_grad_(True)
        logp = method(inputs, answers, 0.8)
        loss = (logp * torch.arange(1.0, count + 1)[:, None]).sum()
        found.append((logp.detach(), torch.autograd.grad(loss, weights)))
        vlm.frozen()
    (packed, gradients), (plain, expected) = found
    assert (packed - plain).abs().max() <= 2e-6 and (packed != 0).sum() == answers.mask.sum()
    for got, right in zip(gradients, expected, strict=True):
        assert_close(got, right, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("rule", ["grid", "largest"])
def test_what_is_drawn_of_a_long_video_is_what_is_scored(models, clips, rule):
    vlm = models[rule]
    inputs = vlm.inputs(clips, QUESTIONS, LONG)
    answers = vlm.sample(inputs, seeds=[(i,) for i in range(8)], max_new_tokens=12, temperature=1.0)
    assert_close(answers.drawn, vlm.log_probs(inputs, answers), rtol=1e-5, atol=1e-5)


def test_a_prompt_is_read_once_for_all_its_answers(models, clips):
    vlm = models["grid"]
    inputs = vlm.see(vlm.inputs(clips, QUESTIONS, 3.0))
    answers = vlm.sample(inputs, seeds=[("p", i) for i in range(8)], max_new_tokens=12, temperature=1.0)
    places, following = vlm.positions(inputs)
    packed = pack(inputs, places, following, answers.ids, answers.mask, 0, [0] * 4 + [1] * 4)
    real = [int(n) for n in inputs["attention_mask"].sum(1)]
    sizes = [real[p] + int(answers.mask[4 * p : 4 * p + 4].sum()) for p in (0, 1)]
    assert packed.inputs["input_ids"].shape == (2, max(sizes))
    seen = packed.inputs["attention_mask"]["full_attention"][:, 0]
    first = int(answers.mask[0].sum())
    assert seen[0, real[0] + first].nonzero().flatten().tolist() == [*range(real[0]), real[0] + first], (
        "answer 1 sees no other"
    )
    assert seen.diagonal(dim1=1, dim2=2).all(), "a row that sees nothing is nan"
    some = pick(inputs, [1])
    assert_close(
        vlm.log_probs(some, type(answers)(answers.ids[4:], answers.mask[4:], [])),
        vlm.log_probs(inputs, answers)[4:],
        rtol=1e-5,
        atol=2e-6,
    )
