"""What a model wrote -> the fields that were asked for, or one line that says why not.

Models put JSON into fences, talk before and after it, think aloud in braces, or forget it: the last object in the
text that has every field counts.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import Any

from vans.template import special_tokens

Fields = dict[str, type]  # name -> str | bool | int | float

CHOOSE: Fields = {"usable": bool, "picture": int}
WRITE: Fields = {"question": str, "reasoning": str, "caption": str}
CHECK: Fields = {"why": str, "leaks": bool}
GRADE: Fields = {"why": str, "grade": float}
OPTIONAL = ("why",)
LONGEST = {"question": 400, "reasoning": 2000, "caption": 500, "why": 500}  # characters
LONGEST_ANSWER = 50_000
KINDS = {str: "string", bool: "boolean", int: "integer", float: "number"}
# Signs that show nothing and change how what follows is shown: directions, joins and marks, tags.
UNSEEN = "\u00ad\u061c\u200b\u200e\u200f\u202a-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f"


def schema(fields: Fields) -> dict[str, Any]:
    """The JSON schema of an object with these fields."""
    properties = {name: {"type": KINDS[kind]} for name, kind in fields.items()}
    return {"type": "object", "properties": properties, "required": list(fields), "additionalProperties": False}


def forms(name: str, fields: Fields) -> tuple[dict[str, Any], ...]:
    """Fields of a request that make a model answer with such an object, best first."""
    shape = {"name": name, "strict": True, "schema": schema(fields)}
    named = {"type": "json_schema", "json_schema": shape}
    return {"response_format": named}, {"response_format": {"type": "json_object"}}, {}


def read(text: str, fields: Fields) -> dict[str, Any]:
    """The fields of the last object in `text` that has all of them, each of its type. Raises ValueError."""
    if not text.strip():
        raise ValueError("it was empty")
    if len(text) > LONGEST_ANSWER:
        raise ValueError("it was far too long")
    why = "it held no JSON object"
    for found in reversed(list(objects(text))):
        if missing := [name for name in fields if name not in found and name not in OPTIONAL]:
            why = f"{missing[0]} was missing" if why.startswith("it held") else why
            continue
        return {name: _value(name, found[name], kind) for name, kind in fields.items() if name in found}
    raise ValueError(why)


def clean(text: str) -> str:
    """Text that every file can hold and every screen shows as it is: no halves of characters, no control characters
    (C0, C1) but white space, nothing unseen that turns the direction.
    """
    text = text.encode("utf-8", "replace").decode("utf-8")
    return re.sub(f"[{UNSEEN}]", "", re.sub(r"[^\S\n\t ]|[\x00-\x08\x0b-\x1f\x7f-\x9f]", " ", text))


def one_line(text: str) -> str:
    """Clean text in one line."""
    return " ".join(clean(text).split())


def objects(text: str) -> Iterator[dict[str, Any]]:
    """The JSON objects in a text, the outermost ones."""
    decoder, at = json.JSONDecoder(), text.find("{")
    while at >= 0:
        try:
            found, end = decoder.raw_decode(text, at)
        except (ValueError, RecursionError):
            end = at + 1
        else:
            yield found
        at = text.find("{", end)


def _value(name: str, value: Any, kind: type) -> Any:
    if kind is str:
        if not isinstance(value, str):
            raise ValueError(f"{name} was not a text")
        value = one_line(value)
        if not value and name not in OPTIONAL:
            raise ValueError(f"{name} was empty")
        if len(value) > LONGEST[name]:
            raise ValueError(f"{name} was longer than {LONGEST[name]} characters")
        if found := special_tokens(value):
            raise ValueError(f"{name} held {found[0]}, which models read as a sign of their own")
        return value
    if isinstance(value, str):
        value = {"true": True, "false": False}.get(value.strip().lower(), value)
    if kind is bool:
        if not isinstance(value, bool):
            raise ValueError(f"{name} was neither true nor false")
        return value
    try:
        number = float("nan") if isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = float("nan")
    if not math.isfinite(number) or (kind is int and not number.is_integer()):
        raise ValueError(f"{name} was not a {'whole ' if kind is int else ''}number")
    return kind(number)
