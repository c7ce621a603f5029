"""A nested mapping as frozen dataclasses, checked: the machinery behind ``vans.params``.

A dataclass is a section. Its fields say type, range and choices; ``build`` makes it from a mapping or raises
a UserError that names file, key and fix. Types: bool, int, float, str, ``X | None``, ``tuple[X, ...]`` (a
list), ``dict[str, Any]`` (free keys), other dataclasses. A dataclass may have ``check()``, which raises
ValueError for what no single field can say.
"""

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import field
from typing import Any, TypeVar

from vans.errors import UserError

FILE = "params.yaml"
NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
T = TypeVar("T")


def between(low: float | None = None, high: float | None = None) -> Any:
    """A required number (or each number of a list) in [low, high]; None: no bound on that side."""
    return field(metadata={"low": low, "high": high})


def above(low: float, high: float | None = None) -> Any:
    """A required number in (low, high]."""
    return field(metadata={"low": low, "high": high, "open": True})


def choice(*values: Any) -> Any:
    """A required value that is one of ``values``."""
    return field(metadata={"choices": values})


def section() -> Any:
    """A required section (or any other value without a range)."""
    return field(metadata={})


# ------------------------------------------------------------------------------------------------- building
def build(kind: type[T], tree: Any, keys: dict[str, str], key: str = "") -> T:
    """Make dataclass ``kind`` from a mapping; ``keys`` gives a section's name in params.yaml for messages."""
    where = keys.get(key, key)
    if not isinstance(tree, dict):
        raise UserError(f"{FILE}: {where}: must hold keys with values, not {tree!r}")
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in tree:
        if name not in fields:
            raise UserError(f"{FILE}: {join(where, name)}: unknown key; {_nearest(str(name), list(fields))}")
    hints = typing.get_type_hints(kind)
    values = {}
    for name, spec in fields.items():
        if name in tree:
            values[name] = _value(tree[name], hints[name], spec.metadata, keys, join(key, name))
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            place = keys.get(join(key, name), join(where, name))
            raise UserError(f"{FILE}: {place}: missing; add it ({_describe(hints[name], spec.metadata)})")
    made = kind(**values)
    if hasattr(made, "check"):
        try:
            made.check()
        except ValueError as error:
            raise UserError(f"{FILE}: {where + ': ' if where else ''}{error}") from error
    return made


def _value(value: Any, hint: Any, meta: Any, keys: dict[str, str], key: str) -> Any:
    """One value, of the type and in the range that its field asks for."""
    top, _, rest = key.partition(".")
    where = keys.get(key) or (f"{keys[top]}.{rest}" if top in keys else key)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, {**keys, key: where}, key)  # type: ignore[arg-type]
    if isinstance(hint, types.UnionType):
        if value is None and type(None) in hint.__args__:
            return None
        hint, meta = next(kind for kind in hint.__args__ if kind is not type(None)), {**meta, "null": True}
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{FILE}: {where}: {value!r} is not {_describe(hint, meta)}")
        kind = typing.get_args(hint)[0]
        return tuple(_scalar(item, kind, meta, where) for item in value)
    if typing.get_origin(hint) is dict or hint is dict:
        if not isinstance(value, dict):
            raise UserError(f"{FILE}: {where}: {value!r} is not {_describe(hint, meta)}")
        return value
    return _scalar(value, hint, meta, where)


def _scalar(value: Any, kind: Any, meta: Any, where: str) -> Any:
    right = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value, right = float(value), True
    if not right:
        hint = ""
        if kind is float and isinstance(value, str) and _is_number(value):
            hint = f"; write it with a point and a sign, like {float(value):.1e}"
        raise UserError(f"{FILE}: {where}: {value!r} is not {_describe(kind, meta)}{hint}")
    if kind is float and not math.isfinite(value):
        raise UserError(f"{FILE}: {where}: {value!r} is not {_describe(kind, meta)}")
    choices, low, high = meta.get("choices"), meta.get("low"), meta.get("high")
    if choices is not None and value not in choices:
        raise UserError(f"{FILE}: {where}: {value!r} is unknown; use {one_of(choices)}")
    too_low = low is not None and (value <= low if meta.get("open") else value < low)
    if too_low or (high is not None and value > high):
        raise UserError(f"{FILE}: {where}: {value!r} is out of range; use {_describe(kind, meta)}")
    return value


# -------------------------------------------------------------------------------------------------- wording
def _describe(hint: Any, meta: Any) -> str:
    """What a field wants, for messages: "a number from 0 to 1"."""
    if dataclasses.is_dataclass(hint):
        return "a section with " + ", ".join(f.name for f in dataclasses.fields(hint))
    if isinstance(hint, types.UnionType):
        kinds = [kind for kind in hint.__args__ if kind is not type(None)]
        return _describe(kinds[0], meta) + " or null"
    if typing.get_origin(hint) is tuple:
        return "a list, each " + _describe(typing.get_args(hint)[0], meta)
    if typing.get_origin(hint) is dict or hint is dict:
        return "a section of keys with values"
    if meta.get("choices") is not None and hint is not bool:
        return one_of(meta["choices"])
    low, high = meta.get("low"), meta.get("high")
    above_or_from = "above" if meta.get("open") else "from"
    text = NAMES.get(hint, str(hint))
    if low is not None:
        text += f" {above_or_from} {low:g}" + ("" if high is not None or meta.get("open") else " up")
    text += f" to {high:g}" if high is not None else ""
    return text + (" or null" if meta.get("null") else "")


def one_of(values: Any) -> str:
    values = [str(value) for value in values]
    return values[0] if len(values) == 1 else ", ".join(values[:-1]) + " or " + values[-1]


def _nearest(name: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"valid keys are {', '.join(valid)}"


def join(*parts: str) -> str:
    return ".".join(str(part) for part in parts if part)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
