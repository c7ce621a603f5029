"""Values out of annotations, whatever is in them: texts, times, JSON. What cannot be right raises ValueError."""

import difflib
import json
import math
import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vans.data.shots import Segment
from vans.errors import UserError

MALFORMED = (KeyError, TypeError, ValueError, IndexError, AttributeError, ArithmeticError, RecursionError)
CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]+")
CLOCK = re.compile(r"(?:(\d{1,3}):)?(\d{1,3}):(\d{1,2}(?:[.,]\d+)?)")
DASH = re.compile(r"\s*(?:-->|[-\u2013\u2014~])\s*")


SYNONYMS = {"label": "text", "sentence": "text", "description": "text", "split": "subset", "shots": "events"}


class Object(dict):
    """A JSON object; doubled: keys that it has more than once (the first counts)."""

    doubled: tuple[str, ...] = ()


def text(value: Any) -> str:
    """A text or number as one line of text, '' for None. ValueError if it is neither, or not Unicode."""
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError("a text is no text")
    try:
        cleaned = composed(CONTROL.sub(" ", str(value)).strip())
        cleaned.encode("utf-8")
    except UnicodeEncodeError:
        raise ValueError("a text is not in UTF-8") from None
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a text is no text")
    return cleaned


def composed(name: Any) -> Any:
    """A text in Unicode's composed form (NFC), in which names from any system are equal; anything else as it is."""
    return unicodedata.normalize("NFC", name) if isinstance(name, str) else name


def seconds(value: Any) -> float:
    """A time, s: a number, its text, or [hh:]mm:ss[.fff]. ValueError unless it is finite and not negative."""
    try:
        clock = CLOCK.fullmatch(value.strip()) if isinstance(value, str) else None
        if clock:
            hours, minutes, rest = clock.groups()
            time = 3600 * int(hours or 0) + 60 * int(minutes) + float(rest.replace(",", "."))
        else:
            time = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        time = math.nan
    if not 0 <= time < math.inf:
        raise ValueError(f"a time is not a number of seconds from 0 on ({str(value)[:40]!r})")
    return time


def span(value: Any) -> tuple[Any, Any]:
    """[start, end], or the text 'start-end'. ValueError for anything else."""
    parts = DASH.split(value.strip()) if isinstance(value, str) else value
    if not isinstance(parts, list | tuple) or len(parts) != 2:
        raise ValueError("a segment is not [start, end]")
    return parts[0], parts[1]


def segment(id: Any, times: Any, label: Any) -> Segment:
    """One annotated event; times: see `span`. ValueError if it has no id or ends before it starts."""
    start, end = (seconds(t) for t in span(times))
    if end < start:
        raise ValueError("a segment ends before it starts")
    if not (name := text(id)):
        raise ValueError("a segment has no id")
    return Segment(name, start, end, text(label))


def known_keys(entry: Any, keys: Sequence[str]) -> None:
    """ValueError that names the first key of an object of a layout of ours that means nothing there."""
    for key in entry:
        if key not in keys:
            near = difflib.get_close_matches(SYNONYMS.get(key, key), keys, n=1, cutoff=0.5)
            told = f"did you mean {near[0]}?" if near else f"known are {', '.join(keys)}"
            raise ValueError(f"unknown key {text(key)[:20]}; {told}")


def words(name: Any) -> str:
    """RoastPeppers -> roast peppers."""
    return " ".join(re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[^\W\dA-Z_]+|\d+", text(name))).lower()


def decoded(data: bytes) -> str:
    """A text file's bytes as text: UTF-8 or UTF-16 with their marks; other bytes stay marked (see `text`)."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        return data.decode("utf-16", "replace")
    return data.decode("utf-8-sig", "surrogateescape")


def file_bytes(path: Path, limit: int = -1) -> bytes:
    """A file's first bytes, or all. Raises UserError if it may not be read."""
    try:
        with open(path, "rb") as file:
            return file.read(limit)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); change its rights or replace it") from error


def read_json(path: Path) -> Any:
    """A JSON file's content, objects as Object. Raises UserError if it cannot be read."""
    try:
        return entry_json(path)
    except ValueError as error:
        raise UserError(f"{path}: {error}; replace it") from error


def entry_json(path: Path) -> Any:
    """As `read_json` for a file that describes a single video; raises ValueError."""
    try:
        return json.loads(decoded(path.read_bytes()), object_pairs_hook=_object)
    except RecursionError:
        raise ValueError("is not JSON (nested too deeply)") from None
    except (OSError, ValueError) as error:
        raise ValueError(f"is not JSON ({str(error).encode('ascii', 'backslashreplace').decode()})") from None


def _object(pairs: list[tuple[str, Any]]) -> Object:
    out = Object()
    for key, value in pairs:
        if key in out:
            out.doubled += (key,)
        else:
            out[key] = value
    return out


def reason_of(error: Exception) -> str:
    """Why an annotation could not be read, without what differs from one entry to the next."""
    if isinstance(error, KeyError):
        what = f"{str(error.args[0])[:40] if error.args else ''} is missing"
    elif type(error) is ValueError:
        what = str(error).partition(" (")[0]
    else:
        what = type(error).__name__
    return f"annotation not readable ({CONTROL.sub(' ', what)[:160].encode('ascii', 'backslashreplace').decode()})"
