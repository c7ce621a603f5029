"""Decoding under the answer's template: an answer that follows `[Think]…[/Think][Ans]…[/Ans]`, whatever the model says.

The template is an automaton over characters (`step`), so that it does not matter whether a tag is one token or several
and whether a token ends one tag and begins the next. For each state a token is allowed if its text leads to a state
from which the template can still be ended with the tokens that are left. Among the allowed ones the model chooses.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import LogitsProcessor

from vans.errors import UserError
from vans.template import TAGS

CAPTION = 3  # one in so many tokens is kept back for the caption
NEVER = 1 << 20  # tokens: the template cannot be ended
HALF = "\ufffd"  # of a character whose bytes are several tokens: it may become a space


class State(NamedTuple):
    """Where in the template a text stands.

    part 0: before [Think], 1: in the thinking, 2: between the parts, 3: in the caption, 4: after [/Ans]. tail: the
    beginning of a tag that the text ends in. filled: the part that is being written holds more than white space.
    """

    part: int = 0
    tail: str = ""
    filled: bool = False


END = State(4)


def step(state: State, character: str) -> State | None:
    """One character more; None where the template is broken. Source: `vans.template.parse_answer`."""
    part, tail, filled = state
    longer = tail + character
    if part in (0, 2):  # a tag has to come, after at most one space
        if TAGS[part] == longer:
            return State(part + 1)
        if TAGS[part].startswith(longer):
            return State(part, longer, filled)
        return State(part, "", True) if character.isspace() and not tail and not filled else None
    if part == 4:
        return None
    if longer in TAGS:
        return State(part + 1) if longer == TAGS[part] and filled else None
    if any(tag.startswith(longer) for tag in TAGS):
        return State(part, longer, filled)
    filled = filled or bool(tail)
    return State(part, "[", filled) if character == "[" else State(part, "", filled or not _blank(character))


def _blank(text: str) -> bool:
    """Nothing that is sure to be seen?"""
    return not text.replace(HALF, "").strip()


def advance(state: State, text: str) -> State | None:
    """`step` through a text."""
    found: State | None = state
    for character in text:
        if found is None or (found := step(found, character)) is None:
            return None
    return found


class Grammar:
    """The template's automaton over the tokens of one tokenizer. size: of the model's logits; banned: never allowed."""

    def __init__(self, tokenizer: Any, size: int, banned: list[int]) -> None:
        self.texts = token_texts(tokenizer, size)
        self.first = defaultdict(list)  # tokens by their first character
        for i, text in enumerate(self.texts):
            self.first[text[:1]].append(i)
        self.blank = torch.tensor([_blank(text) for text in self.texts])
        self.brackets = torch.tensor(["[" in text for text in self.texts])
        self.usable = torch.tensor([bool(text) for text in self.texts])
        self.usable[[*banned, tokenizer.eos_token_id]] = False
        self.states = [State(), *_others()]
        self.index = {state: i for i, state in enumerate(self.states)}
        self.next = torch.stack([self._row(state) for state in self.states])  # [states, tokens], -1: not allowed
        self.cost = self._costs()

    def _row(self, state: State) -> Tensor:
        """The state after each token. Few tokens hold a bracket or go on with a tag: only those are walked through."""
        row = torch.full((len(self.texts),), -1)
        if state.part in (1, 3):  # all others just fill the part
            row[~self.brackets] = self.index[State(state.part, "", True)]
            row[self.blank] = self.index[State(state.part, "", state.filled or bool(state.tail))]
        starts = {tag[len(state.tail)] for tag in TAGS if tag.startswith(state.tail)}
        starts |= {c for c in self.first if c.isspace()} if state.part in (0, 2) else set()
        walked = [*self.brackets.nonzero().flatten().tolist(), *(i for c in starts for i in self.first[c])]
        after = (advance(state, self.texts[i]) for i in walked)
        row[walked] = torch.tensor([-1 if s is None else self.index[s] for s in after])
        row[~self.usable] = -1
        return row

    def _costs(self) -> Tensor:
        """The fewest tokens that end the template from each state: relaxed until nothing changes."""
        cost = torch.full((len(self.states),), NEVER)
        cost[self.index[END]] = 0
        while True:
            reached = torch.cat([cost, cost.new_tensor([NEVER])])[self.next]  # -1: the last entry
            better = torch.minimum(cost, reached.min(1).values + 1)
            if torch.equal(better, cost):
                return cost
            cost = better


def _others() -> list[State]:
    """Every state but the first."""
    tails = ["", *sorted({tag[:n] for tag in TAGS for n in range(1, len(tag))})]
    inside = [State(part, tail, filled) for part in (1, 3) for tail in tails for filled in (False, True)]
    between = [State(p, TAGS[p][:n], filled) for p in (0, 2) for n in range(len(TAGS[p])) for filled in (False, True)]
    return [*[s for s in between if s != State()], *inside, END]


def token_texts(tokenizer: Any, size: int) -> list[str]:
    """What each token adds to a text, the space before a word included; "" for ids that the tokenizer does not know."""
    known = min(size, len(tokenizer))
    before = tokenizer("a", add_special_tokens=False).input_ids[-1]
    start = tokenizer.decode([before], skip_special_tokens=False)
    pairs = tokenizer.batch_decode([[before, i] for i in range(known)], skip_special_tokens=False)
    texts = [pair.removeprefix(start) for pair in pairs]
    return texts + [""] * (size - known)


class WithinTemplate(LogitsProcessor):
    """-inf at every token after which the template could not be ended within `max_new_tokens`.

    The thinking is closed early enough to leave a third of the tokens to the caption. One object serves one call of
    generate. UserError where the template has no room in `max_new_tokens`.
    """

    def __init__(self, grammar: Grammar, eos: int, max_new_tokens: int) -> None:
        self.grammar, self.eos, self.left = grammar, eos, max_new_tokens
        least = int(grammar.cost[0])
        if least > max_new_tokens:
            raise UserError(
                f"generate.max_new_tokens is {max_new_tokens}; an answer in the template takes at least {least}"
                if least < NEVER
                else "models.vlm: its tokenizer cannot write the answer's template"
            )
        parts = torch.tensor([state.part for state in grammar.states])
        reserve = min(max_new_tokens // CAPTION, max_new_tokens - least)
        self.needs = torch.cat([grammar.cost + reserve * (parts < 3), torch.tensor([NEVER])])  # -1: the last entry
        self.at: Tensor | None = None  # each row's state

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        grammar = self.grammar
        if self.at is None:
            self.at = torch.zeros(len(scores), dtype=torch.long)
        else:
            last = input_ids[:, -1].cpu()
            ended = self.at == grammar.index[END]
            self.at = torch.where(ended, self.at, grammar.next[self.at, last])
        self.left -= 1
        rows = grammar.next[self.at]
        allowed = self.needs[rows] <= self.left
        allowed[self.at == grammar.index[END], self.eos] = True
        return scores.masked_fill(~allowed.to(scores.device), float("-inf"))
