"""The answer's template, `[Think]reasoning[/Think][Ans]caption[/Ans]`: SFT teaches it, the format reward checks it."""

from __future__ import annotations

import re
from collections.abc import Iterable

from vans.errors import UserError

# How the models' own signs are written: <|im_end|>, <|video_pad|> (Qwen), </s>, <pad>, <extra_id_0> (umT5),
# <end_of_text> (CLIP).
SPECIAL = re.compile(
    r"<\|[^<>|\n]{1,40}\|>|</?s>|<(?:pad|unk|mask|extra_id_\d+|(?:start|end)_of_text)>", re.IGNORECASE
)
TAGS = ("[Think]", "[/Think]", "[Ans]", "[/Ans]")
_TEMPLATE = re.compile(r"\s*\[Think\](.*)\[/Think\]\s*\[Ans\](.*)\[/Ans\]\s*", re.DOTALL)


def parse_answer(text: str) -> tuple[str, str | None]:
    """(thinking, caption) of `[Think]...[/Think][Ans]caption[/Ans]`; ("", None) if the template is broken.

    The template: the four tags once each, in this order, spelt exactly so, nothing but white space before,
    between the two parts, and after; neither part empty. Parts come back without surrounding white space.
    """
    match = _TEMPLATE.fullmatch(text)
    if match is None or any(text.count(tag) != 1 for tag in TAGS):
        return "", None
    thinking, caption = match[1].strip(), match[2].strip()
    return (thinking, caption) if thinking and caption else ("", None)


def special_tokens(text: str, known: Iterable[str] = ()) -> list[str]:
    """Signs of the models' own that a text holds, where only words may stand: it would end or change what is asked.

    known: further ones, such as a tokenizer's `all_special_tokens`.
    """
    return SPECIAL.findall(text) + [token for token in known if token in text and not SPECIAL.fullmatch(token)]


def check_words(text: str, what: str, known: Iterable[str] = ()) -> None:
    """UserError if a text (of which `what` is the name) that a model is to read holds special tokens."""
    if signs := special_tokens(text, known):
        raise UserError(f"{what} holds {signs[0]}, a sign of the model's own; do without it: {text[:400]!r}")


def plain(text: str) -> str:
    """The text with its special tokens taken apart by a space, so that a tokenizer reads them as words: for what
    models wrote themselves, which cannot be refused."""
    return SPECIAL.sub(lambda found: f"< {found[0][1:]}", text)


def format_reward(text: str) -> float:
    """1.0 if the whole answer follows the template (see `parse_answer`), else 0.0."""
    return 0.0 if parse_answer(text)[1] is None else 1.0


def thinking_length(text: str) -> int:
    """Words of the thinking; 0 if the template is broken."""
    return len(parse_answer(text)[0].split())


def answer_text(reasoning: str, caption: str, spaces: bool = True) -> str:
    """The answer that SFT teaches. The spaces around its tags are a deviation from the paper; the template allows
    them.
    """
    parts = [TAGS[0], reasoning, TAGS[1], TAGS[2], caption, TAGS[3]]
    return (" " if spaces else "").join(parts)
