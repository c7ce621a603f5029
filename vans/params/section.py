"""Sections of parameters: frozen pydantic models whose errors are one line with the key and the fix."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from vans.errors import UserError, one_of

S = TypeVar("S", bound="Section")
# A whole number, also where DVC has written it as 1000.0 (`-S stage1.steps=1e3`).
Whole = Annotated[int, BeforeValidator(lambda v: int(v) if isinstance(v, float) and v.is_integer() else v)]
NAMES: dict[Any, str] = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


class Section(BaseModel):
    """A section of params.yaml. Unknown keys, missing ones, wrong types and values out of range are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, hide_input_in_errors=True)

    def with_(self, **changes: Any) -> Self:
        """A copy with other values: `params.stage1.with_(steps=5)`, `params.with_(stage1={"steps": 5}, seed=1)`.

        Checked like the file; UserError names the key.
        """
        return build(type(self), merged(self.model_dump(), changes), lambda key: key, "with_")


def merged(tree: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`tree` with the keys of `over` put in, section by section."""
    out = dict(tree)
    for key, value in over.items():
        value = value.model_dump() if isinstance(value, BaseModel) else value
        both = isinstance(value, Mapping) and isinstance(out.get(key), Mapping)
        out[key] = merged(out[key], value) if both else value
    return out


def build(kind: type[S], tree: Mapping[str, Any], where: Any, source: str) -> S:
    """Make a section from a mapping. where(key): a dotted key as it stands in the source, for messages."""
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise UserError(f"{source}: {_line(kind, error, where)}") from None


# -------------------------------------------------------------------------------------------------- wording
def _line(kind: type[BaseModel], error: ValidationError, where: Any) -> str:
    """The first error as "key: what is wrong; what would be right"."""
    first = error.errors(include_url=False)[0]
    key = ".".join(map(str, first["loc"]))
    place, value, what = where(key), first.get("input"), first["type"]
    holder, field = _find(kind, first["loc"])
    wanted = describe(field)
    if what == "extra_forbidden":
        name = str(first["loc"][-1])
        close = difflib.get_close_matches(name, list(holder.model_fields), n=1, cutoff=0.5)
        hint = f"did you mean {close[0]}?" if close else f"valid keys are {', '.join(holder.model_fields)}"
        return f"{place}: unknown key; {hint}"
    if what == "missing":
        return f"{place}: missing; add it ({wanted})"
    if what in ("value_error", "assertion_error"):
        return f"{place + ': ' if place else ''}{first['msg'].partition(', ')[2]}"
    if what in ("model_type", "model_attributes_type"):
        return f"{place}: must hold keys with values, not {value!r}"
    if what == "literal_error":
        return f"{place}: {value!r} is unknown; use {wanted}"
    if what.startswith(("greater_than", "less_than")):
        return f"{place}: {value!r} is out of range; use {wanted}"
    return f"{place}: {value!r} is not {wanted}"


def _find(kind: type[BaseModel], loc: tuple) -> tuple[type[BaseModel], FieldInfo | None]:
    """The section and the field that an error's place means."""
    holder, field = kind, None
    for name in loc:
        field = holder.model_fields.get(str(name)) if holder is not None else None
        hint = field.annotation if field is not None else None
        for part in (hint, *typing.get_args(hint)):
            if isinstance(part, type) and issubclass(part, BaseModel) and name != loc[-1]:
                holder = part
    return holder, field


def describe(field: FieldInfo | None) -> str:
    """What a field wants: "a number from 0 to 1"."""
    if field is None:
        return "a number or a section with weight, needs and timeout"
    hint, null = field.annotation, ""
    if isinstance(hint, types.UnionType) and type(None) in typing.get_args(hint):
        hint, null = next(part for part in typing.get_args(hint) if part is not type(None)), " or null"
    if typing.get_origin(hint) is Literal:
        return one_of(typing.get_args(hint)) + null
    if isinstance(hint, type) and issubclass(hint, BaseModel):
        return f"a section with {', '.join(hint.model_fields)}"
    if typing.get_origin(hint) is dict:
        return "a section of keys with values" + null
    if typing.get_origin(hint) is list:
        return "a list" + null
    bounds = {k: getattr(m, k) for m in field.metadata for k in ("ge", "gt", "le") if getattr(m, k, None) is not None}
    text, low, high = NAMES.get(hint, str(hint)), bounds.get("ge", bounds.get("gt")), bounds.get("le")
    if low is not None:
        text += f" {'above' if 'gt' in bounds else 'from'} {low:g}"
        text += "" if high is not None or "gt" in bounds else " up"
    return text + (f" to {high:g}" if high is not None else "") + null
