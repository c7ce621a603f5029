"""What a section of params.yaml is: a frozen pydantic model, and each of its refusals as one line.

A line names file, key and fix: what a field takes is read from its type and its bounds.
"""

from __future__ import annotations

import difflib
import re
import types
import typing
from collections.abc import Callable
from typing import Any, Self, TypeVar

from annotated_types import Ge, Gt, Le
from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from vans.errors import UserError, one_of

NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
SPELLED = {  # numbers that stand as text: YAML 1.1 reads 5e-05 so, and quotes make one
    int: re.compile(r"[-+]?\d(_?\d)*"),
    float: re.compile(r"[-+]?(\d(_?\d)*\.?(\d(_?\d)*)?|\.\d(_?\d)*)([eE][-+]?\d+)?"),
}


T = TypeVar("T", bound="Section")


class Wrong(ValueError):
    """What a check finds wrong at a key: ``path`` of names from the section that is checked, ``what`` of the key."""

    def __init__(self, what: str, *path: str) -> None:
        super().__init__(what)
        self.path, self.what = path, what


class Section(BaseModel):
    """A section of params.yaml: frozen, no key but its fields, no type bent; every spelling of a number counts."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    @model_validator(mode="before")
    @classmethod
    def _numbers(cls, tree: Any) -> Any:
        if not isinstance(tree, dict):
            return tree
        return {k: _number(v, cls.model_fields[k].annotation) if k in cls.model_fields else v for k, v in tree.items()}

    def resolved(self) -> dict[str, Any]:
        """A plain nested dict (JSON and YAML can hold it), equal for equal parameters."""
        return self.model_dump()

    def with_(self, **changes: Any) -> Self:
        """These parameters with other values, checked like the file: ``params.stage1.with_(steps=5)``.

        Sections are given as nested dicts of what changes: ``params.with_(stage1={"steps": 5})``. A preset of
        reward terms is replaced as a whole. Raises UserError.
        """
        return validated(type(self), _changed(self, changes), lambda path: ".".join(path), "with_")


def validated(kind: type[T], tree: Any, place: Callable[[tuple[str, ...]], str], file: str) -> T:
    """The section from nested dicts; UserError of one line. ``place``: what a key is called in the file."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        found = error.errors(include_url=False)
    first = min(found, key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key is missing as well
    path, what = _worded(kind, first)
    where = place(path)
    raise UserError(f"{file}: {where + ': ' if where else ''}{what}")


def merged(below: Any, above: Any) -> Any:
    """Two trees put together; where both have a value the one above counts."""
    if isinstance(below, dict) and isinstance(above, dict):
        return {**below, **{key: merged(below.get(key), value) for key, value in above.items()}}
    return above


def _changed(old: Any, new: Any) -> Any:
    if not isinstance(new, dict):
        return new
    if isinstance(old, BaseModel):
        old = dict(old)
    if not isinstance(old, dict) or any(map(_is_term, old.values())):
        return new  # also a preset: its terms are given together
    return {**old, **{key: _changed(old.get(key), value) for key, value in new.items()}}


def _is_term(value: Any) -> bool:
    return isinstance(value, BaseModel) and set(type(value).model_fields) == {"weight", "needs", "timeout"}


def _number(value: Any, hint: Any) -> Any:
    kinds = typing.get_args(hint) or (hint,)
    for kind in (int, float):
        if kind in kinds:
            if isinstance(value, str) and SPELLED[kind].fullmatch(value.strip()):
                return kind(value)
            if kind is int and isinstance(value, float) and value.is_integer():
                return int(value)  # DVC writes 1e3 as 1000.0
            if kind is float and isinstance(value, int) and not isinstance(value, bool):
                return float(value)
    return value


# -------------------------------------------------------------------------------------------------- wording
def _worded(kind: type[Section], error: Any) -> tuple[tuple[str, ...], str]:
    """A pydantic error as the key's path and what is said of it."""
    path, value, type_ = tuple(str(part) for part in error["loc"]), error["input"], error["type"]
    hint, bounds, holder = _field(kind, path)
    if type_ == "extra_forbidden":
        return path, f"unknown key; {_nearest(path[-1], list(holder.model_fields))}"
    if type_ == "missing":
        return path, f"missing; add it ({_describe(hint, bounds)})"
    if type_ in ("model_type", "model_attributes_type"):
        return path, f"must hold keys with values, not {value!r}"
    if type_ == "value_error":
        why = error["ctx"]["error"]
        return ((*path, *why.path), why.what) if isinstance(why, Wrong) else (path, str(why))
    if type_ == "literal_error":
        return path, f"{value!r} is unknown; use {_describe(hint, bounds)}"
    if type_ in ("greater_than", "greater_than_equal", "less_than_equal"):
        return path, f"{value!r} is out of range; use {_describe(hint, bounds)}"
    return path, f"{value!r} is not {_describe(hint, bounds)}"


def _field(kind: type[Section], path: tuple[str, ...]) -> tuple[Any, list[Any], type[Section]]:
    """Type and bounds of the field at a path, and the section that it stands in."""
    hint, bounds, holder = typing.cast(Any, kind), [], kind
    for name in path:
        if isinstance(hint, type) and issubclass(hint, BaseModel):
            holder = typing.cast(type[Section], hint)
            spec = holder.model_fields.get(name)
            hint, bounds = (spec.annotation, spec.metadata) if spec else (None, [])
        elif typing.get_origin(hint) is dict:
            hint, bounds = typing.get_args(hint)[1], []
    return hint, bounds, holder


def _describe(hint: Any, bounds: list[Any]) -> str:
    """What a field takes: "a number from 0 to 1"."""
    if typing.get_origin(hint) in (types.UnionType, typing.Union):  # with a Literal the latter
        kinds = [kind for kind in typing.get_args(hint) if kind is not type(None)]
        return _describe(kinds[0], bounds) + " or null"
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return "a section with " + ", ".join(hint.model_fields)
    if typing.get_origin(hint) is dict or hint is dict:
        return "a section of keys with values"
    if typing.get_origin(hint) is typing.Literal:
        return one_of(typing.get_args(hint))
    text = NAMES.get(hint, str(hint))
    high = next((b.le for b in bounds if isinstance(b, Le)), None)
    for bound in bounds:
        if isinstance(bound, Gt):
            text += f" above {bound.gt:g}"
        elif isinstance(bound, Ge):
            text += f" from {bound.ge:g}" + ("" if high is not None else " up")
    return text + (f" to {high:g}" if high is not None else "")


def _nearest(name: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"valid keys are {', '.join(valid)}"
