"""Prompts live in Markdown files, with named placeholders ($topic) and places for pictures ([[input]]).

What is filled in are words: signs that a model takes for its own, such as the end of a turn, are taken apart.

A file has parts under headings: `# System`, `# User` and, for answers that could not be used, `# Again: <why>`.
"""

import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from vans.errors import UserError
from vans.llm.answers import one_line

# <|im_end|>, </s>, <start_of_turn>, <｜User｜>, <<SYS>>, [/INST], [TOOL_CALLS]: what begins one.
SIGN = re.compile(r"<(?=[/|｜<A-Za-z])|\[(?=/?[A-Z_]{3,}\])")
PICTURES = re.compile(r"^\[\[(\w+)\]\]$", re.MULTILINE)


@dataclass(frozen=True)
class Prompt:
    """parts: text under each heading, in lower case. path: for messages."""

    path: Path
    parts: dict[str, string.Template]

    def fill(self, part: str, **values: object) -> str:
        """The text under a heading, every placeholder filled in by words in one line."""
        try:
            return self.parts[part].substitute({name: words(str(value)) for name, value in values.items()})
        except KeyError as error:
            missing = f"no part {part!r}" if part not in self.parts else f"unknown placeholder ${error.args[0]}"
            raise UserError(f"{self.path}: {missing}; `git diff` shows what was changed") from None
        except ValueError as error:
            raise UserError(f"{self.path}: {error}; a dollar sign in the text is written $$") from None


@cache
def load(path: Path) -> Prompt:
    """Read a prompt's file. UserError if it is missing or has no part called User."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: cannot be read ({error}); get it back with `git checkout`") from error
    pieces = re.split(r"^# (.+)$", text, flags=re.MULTILINE)
    parts = {
        heading.strip().lower(): string.Template(body.strip())
        for heading, body in zip(pieces[1::2], pieces[2::2], strict=True)
    }
    if "user" not in parts:
        raise UserError(f"{path}: no part under the heading `# User`; get it back with `git checkout`")
    return Prompt(path, parts)


def words(text: str) -> str:
    """A text in one line, its special tokens and chat markers taken apart by a space."""
    return SIGN.sub(r"\g<0> ", one_line(text))


def split(text: str) -> list[tuple[str, str]]:
    """A filled text as ("text", words) and ("pictures", name), in order."""
    pieces = PICTURES.split(text)
    kinds = ("text", "pictures")
    return [(kinds[i % 2], piece.strip()) for i, piece in enumerate(pieces) if piece.strip()]


def content(text: str, shown: Callable[[str], list[str] | None]) -> list[dict]:
    """A filled text as the parts of a chat message. shown: data URLs of the pictures of a name, None if it has none."""
    parts: list[dict] = []
    for kind, value in split(text):
        urls = shown(value) if kind == "pictures" else None
        if urls is None:
            parts.append({"type": "text", "text": value if kind == "text" else "(no pictures)"})
        else:
            parts += [{"type": "image_url", "image_url": {"url": url}} for url in urls]
    return parts
