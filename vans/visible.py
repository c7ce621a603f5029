"""Words from anywhere, where people see them: control characters and signs that turn what follows become their names.

A caption, a label or the name of a file may hold a sign that clears a screen, hides a line or shows text backwards.
"""

import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from vans.terminal import Steady, steady

# C0 but tab and line ends, C1, directions (UAX #9: embeddings, overrides, isolates), halves of characters.
SIGNS = "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
COLOURS = re.compile(rf"(\x1b\[[0-9;]*m)|{SIGNS}")  # of tracebacks


def visible(text: str) -> str:
    """The text with such signs as \\x9b or \\u202e; all other characters stay."""
    return re.sub(SIGNS, _name, text)


def words(text: str) -> str:
    """The same in one line."""
    return visible(" ".join(text.split()))


@contextmanager
def terminal() -> Iterator[Steady]:
    """As `steady`, and what is printed meanwhile is visible; colours stay. Yields the steady standard output."""
    with steady() as out:
        before = sys.stdout, sys.stderr
        sys.stdout, sys.stderr = map(_Visible, before)  # type: ignore[assignment]
        try:
            yield out
        finally:
            sys.stdout, sys.stderr = before


class _Visible:
    """A text stream that shows what it is given."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream

    def write(self, text: str) -> int:
        self.stream.write(COLOURS.sub(lambda found: found[1] or _name(found), text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


def _name(found: re.Match) -> str:
    return found[0].encode("unicode_escape").decode()
