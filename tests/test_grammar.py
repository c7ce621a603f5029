"""Decoding under the answer's template: any model, any tokenizer, any budget that has room gives a whole answer."""

import itertools
import random
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from tests import smoke
from vans.answer.live import Answerer, Thought
from vans.answer.watch import of_frames
from vans.errors import UserError
from vans.models.grammar import END, Grammar, State, WithinTemplate, advance, step, token_texts
from vans.models.protocol import Protocol
from vans.models.tokenizer import QWEN_SPECIALS, chat_tokenizer
from vans.models.vlm import VLM
from vans.params import load
from vans.template import TAGS, parse_answer
from vans.toy import world

SPECIALS = ["<|endoftext|>", *QWEN_SPECIALS]


def byte_tokenizer(*merged: str) -> PreTrainedTokenizerFast:
    """Byte-level BPE as Qwen's: no tag is a token, "][" and "].[/" are."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    text = ["the cone moves .", "[/Think][Ans]", "a].[/b", "Think Ans é 名", *merged] * 9
    bpe.train_from_iterator(
        text,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=SPECIALS, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=list(QWEN_SPECIALS),
        padding_side="left",
    )


TOKENIZERS = {"words": lambda: chat_tokenizer(world.vocabulary()), "bytes": byte_tokenizer}


@pytest.fixture(scope="module", params=TOKENIZERS)
def tokenizer(request):
    return TOKENIZERS[request.param]()


@pytest.fixture(scope="module")
def grammar(tokenizer):
    banned = [i for i in tokenizer.all_special_ids if i != tokenizer.eos_token_id]
    return Grammar(tokenizer, len(tokenizer) + 3, banned)


def decode(grammar, tokenizer, rows, budget, scores_of):
    """Greedy decoding of `rows` answers under the grammar; scores_of(step) -> [rows, size]."""
    within, ids = WithinTemplate(grammar, tokenizer.eos_token_id, budget), torch.zeros(rows, 1, dtype=torch.long)
    for position in range(budget):
        scores = within(ids, scores_of(position))
        assert (scores > float("-inf")).any(1).all(), "some token must be allowed"
        ids = torch.cat([ids, scores.argmax(1, keepdim=True)], 1)
    end = tokenizer.eos_token_id
    return [tokenizer.decode(list(itertools.takewhile(lambda t: t != end, row))) for row in ids[:, 1:].tolist()]


def test_the_automaton_agrees_with_the_parser():
    """Whole for the automaton exactly where the parser reads an answer; white space around the tags apart: the parser
    takes any, the automaton at most one between the parts and none at the end."""
    pieces = [*TAGS, "a", " ", "[", "[/An"]
    two = ["", *pieces, *map("".join, itertools.product(pieces, repeat=2))]
    whole = 0
    for thinking, between, caption in itertools.product(two, ["", *pieces, "  "], two):
        text = f"[Think]{thinking}[/Think]{between}[Ans]{caption}[/Ans]"
        found = advance(State(), text) == END
        assert found == (parse_answer(text)[1] is not None and between != "  "), text
        whole += found
    assert whole > 500
    for broken in ("", "[Think]", "a [Think] b [/Think][Ans] c [/Ans]", "[Think] b [/Think][Ans] c [/Ans] d"):
        assert advance(State(), broken) != END


def test_a_tokens_text_is_what_it_adds(tokenizer):
    texts = token_texts(tokenizer, len(tokenizer))
    text = "[Think] the cone moves . [/Think] [Ans] ball [/Ans]"
    ids = tokenizer(text, add_special_tokens=False).input_ids
    assert "".join(texts[i] for i in ids).strip() == tokenizer.decode(ids).strip() == text


@pytest.mark.parametrize("spare", [0, 1, 7, 60])
def test_any_model_answers_within_the_template_and_the_budget(tokenizer, grammar, spare):
    budget, draw = int(grammar.cost[0]) + spare, torch.Generator().manual_seed(spare)
    answers = decode(grammar, tokenizer, 40, budget, lambda _: torch.randn(40, grammar.next.shape[1], generator=draw))
    assert all(parse_answer(text)[1] for text in answers), answers
    assert len(set(answers)) > 5 or spare < 7


# What a model wants before all else: to end, to say nothing, to go on with the thinking, to break the tags.
WANTED = ["<|im_end|>", " ", "the", "[/Ans]", "[Ans]", "[Think]", "[/Think]", "]", "[", "[/", "é"]


@pytest.mark.parametrize("wish", WANTED)
def test_no_wish_of_the_model_breaks_it(tokenizer, grammar, wish):
    liked = tokenizer(wish, add_special_tokens=False).input_ids
    draw = torch.Generator().manual_seed(0)

    def scores(_):
        out = torch.randn(4, grammar.next.shape[1], generator=draw)
        out[:, liked] += 100.0
        return out

    budget = 3 * int(grammar.cost[0])
    for text in decode(grammar, tokenizer, 4, budget, scores):
        assert parse_answer(text)[1], text


def test_a_space_of_several_tokens_is_no_caption(tokenizer, grammar):
    for i in tokenizer("\u3000", add_special_tokens=False).input_ids:  # three bytes; of words none
        assert grammar.texts[i] == "\ufffd"
        for part in (1, 3):
            assert grammar.states[int(grammar.next[grammar.index[State(part)], i])] == State(part)
    assert step(State(3), "\ufffd") == State(3) and advance(State(3), "\ufffd[/Ans]") is None


def test_rambling_leaves_a_third_to_the_caption(tokenizer, grammar):
    word = tokenizer("the", add_special_tokens=False).input_ids
    word = [i for i in word if grammar.texts[i].strip()][-1:]
    budget = 90

    def scores(_):
        out = torch.zeros(1, grammar.next.shape[1])
        out[:, word] = 9.0
        return out

    (text,) = decode(grammar, tokenizer, 1, budget, scores)
    thinking, caption = parse_answer(text)
    assert caption and len(tokenizer(caption).input_ids) >= budget // 3 - 12 > 15
    assert len(tokenizer(thinking).input_ids) > 15


def test_what_the_model_says_itself_is_left_alone(tokenizer, grammar):
    """An answer that keeps to the template is the likeliest at each step: nothing of it is changed."""
    text = "[Think] the cone [/Think] [Ans] ball moves . [/Ans]"
    ids = [*tokenizer(text, add_special_tokens=False).input_ids, *[tokenizer.eos_token_id] * 99]

    def scores(position):
        out = torch.zeros(1, grammar.next.shape[1])
        out[0, ids[position]] = 9.0
        return out

    assert decode(grammar, tokenizer, 1, 90, scores) == [text]


def test_no_room_is_said(tokenizer, grammar):
    least = int(grammar.cost[0])
    with pytest.raises(UserError, match=rf"max_new_tokens is {least - 1}; .* at least {least}"):
        WithinTemplate(grammar, tokenizer.eos_token_id, least - 1)


def test_a_tokenizer_without_brackets_is_refused():
    words = chat_tokenizer(["ball"])
    lost = Grammar(words, len(words), [*words.all_special_ids[1:], *words.convert_tokens_to_ids(list(TAGS))])
    with pytest.raises(UserError, match="tokenizer cannot write"):
        WithinTemplate(lost, words.eos_token_id, 100)


# --------------------------------------------------------------------------------------------------- the VLM
@pytest.fixture(scope="module")
def params():
    return load(smoke.ROOT, scale="tiny")


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_untrained_vlm_answers_every_question(params, name):
    vlm = VLM.scratch(params.models.vlm.config, TOKENIZERS[name](), 0)
    pictures = torch.from_numpy(world.render_event(world.Scene(shape="cone", colour="blue"), "left"))[None]
    asked: dict[str, Any] = {"max_new_tokens": 40, "temperature": 0.7, "top_p": 0.9}
    inputs, seeds = vlm.inputs(pictures, ["what next ?"], 3.0), [("g", i) for i in range(12)]
    free = vlm.sample(inputs, seeds=seeds, **asked)
    assert not any(parse_answer(text)[1] for text in free.texts)
    kept = vlm.sample(inputs, seeds=seeds, within_template=True, **asked)
    assert all(parse_answer(text)[1] for text in kept.texts) and len(set(kept.texts)) > 6
    again = vlm.sample(inputs, seeds=seeds[3:5], within_template=True, **asked)
    assert again.texts == kept.texts[3:5], "an answer depends on its own seed only"
    assert vlm.sample(inputs, seeds=seeds, **asked).texts == free.texts, "without it nothing is changed"
    greedy = vlm.sample(inputs, seeds=seeds[:1], max_new_tokens=30, temperature=0.0, within_template=True)
    assert parse_answer(greedy.texts[0])[1]
    vlm.model.generation_config.top_k = 1  # of the tokens that keep to it
    only = vlm.sample(inputs, seeds=seeds[:1], within_template=True, hub_defaults=True, **asked)
    assert parse_answer(only.texts[0])[1]


def test_an_answer_always_comes_and_says_that_it_was_forced(params):
    class Writer:
        """Says `own` when it is free."""

        model, own = torch.nn.Identity(), ""

        def inputs(self, *_):
            return {}

        def sample(self, inputs, *, within_template, seeds, **_):
            text = "[Think] a [/Think][Ans] b [/Ans]" if within_template else self.own
            return type("Answers", (), {"texts": [text] * len(seeds)})

    models: Any = object.__new__(Answerer)
    models.params, models.protocol, models.vlm = params, Protocol(), Writer()
    seen = of_frames(torch.zeros(2, 8, 8, 3, dtype=torch.uint8), 3.0)
    for models.vlm.own, forced in (("the ball", True), ("[Think] a [/Think][Ans] b [/Ans]", False)):
        assert models.think(seen, ["what ?"]) == [Thought("what ?", "a", "b", forced)]
    models.protocol = Protocol(whole_text=True)
    for models.vlm.own, said in (("the ball", ("", "the ball", False)), ("[Ans] [/Ans]", ("a", "b", True))):
        assert models.think(seen, ["what ?"]) == [Thought("what ?", *said)]


def test_states_are_closed(grammar):
    draw = random.Random(0)
    for _ in range(300):
        state = State()
        while state != END:
            row = grammar.next[grammar.index[state]]
            state = grammar.states[int(row[draw.choice((row >= 0).nonzero().flatten().tolist())])]
            if draw.random() < 0.02:
                break
        assert grammar.cost[grammar.index[state]] < 40
