"""CSV files that people open in spreadsheets: no cell of them is a formula, and what was written is read again.

A text that a spreadsheet would compute stands behind an apostrophe; so does one that begins with apostrophes before
such a sign, so that taking one away gives back every text.
"""

import csv
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import pandas as pd

FORMULA = re.compile(r"'*[=+\-@\t\r\n＝＋－＠]")


def guarded(value: Any) -> Any:
    """A cell as it is written; what is no text stays."""
    return f"'{value}" if isinstance(value, str) and FORMULA.match(value) else value


def bare(text: str) -> str:
    """A cell as it was before."""
    return text[1:] if text[:1] == "'" and FORMULA.match(text[1:]) else text


def quoting(texts: Sequence[Any]) -> Literal[0, 1]:
    """How Python's csv quotes: where a text holds a carriage return, everything (of itself, it quotes only line feeds
    where these end the rows).
    """
    return csv.QUOTE_ALL if any(isinstance(text, str) and "\r" in text for text in texts) else csv.QUOTE_MINIMAL


def write(frame: pd.DataFrame, numbers: str | None = None) -> str:
    """The text of a CSV file. numbers: format of floats (default: all their digits)."""
    safe = frame.rename(columns=guarded)
    some = {name: safe[name].map(guarded) for name in safe if not pd.api.types.is_numeric_dtype(safe[name])}
    every = quoting([text for column in some.values() for text in column])
    return safe.assign(**some).to_csv(index=False, float_format=numbers, lineterminator="\n", quoting=every)


def read(path: str | Path, texts: Sequence[str]) -> pd.DataFrame:
    """The table of a file that `write` made. texts: columns that hold nothing else ("NA" and "007" are words there)."""
    words = pd.read_csv(path, dtype=str, keep_default_na=False, usecols=lambda name: name in texts)
    return pd.read_csv(path).assign(**{name: words[name].map(bare) for name in words}).rename(columns=bare)
