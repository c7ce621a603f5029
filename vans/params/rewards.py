"""Reward presets of params.yaml: the weight of each term, a name that is known or the way to a term of one's own."""

from __future__ import annotations

import re
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vans.errors import one_of
from vans.llm.net import check_url
from vans.params.base import Section, Wrong
from vans.rewards import names

OWN = r"([A-Za-z_]\w*\.)*[A-Za-z_]\w*:[A-Za-z_]\w*|\.{0,2}/\S+"


class Term(Section):
    """One term of a reward: its weight and, where the term does not say so itself, what it needs."""

    weight: float
    needs: Literal["text", "video"] | None = None  # None: as the term says
    timeout: float = Field(default=30.0, gt=0)  # s, of one answer

    @model_validator(mode="before")
    @classmethod
    def _weight_alone(cls, tree: Any) -> Any:
        return tree if isinstance(tree, dict | Term) else {"weight": tree}


Preset = dict[str, Term]


class Rewards(Section):
    """Presets by name for each kind of stage."""

    stage1: dict[str, Preset]
    stage2: dict[str, Preset]
    all_in_one: dict[str, Preset]

    @model_validator(mode="after")
    def check(self) -> Self:
        for stage in ("stage1", "stage2", "all_in_one"):
            for name, preset in getattr(self, stage).items():
                if not any(term.weight for term in preset.values()):
                    raise Wrong("holds no term with a weight; give at least one a weight", stage, name)
                for term in preset:
                    if why := _wrong(term):  # an address is not shown: it may hold a password
                        raise Wrong(why, stage, name, *([] if "://" in term else [term]))
        return self


def _wrong(term: str) -> str | None:
    """What is wrong with a term's name; None: nothing."""
    if term.startswith(("http://", "https://")):
        try:
            check_url(term)
        except ValueError as error:
            return str(error)
        return None
    if re.fullmatch(OWN, term) or term in names():
        return None
    own = "package.module:function, ./executable or an http(s) address"
    return f"unknown term; use {one_of([*names(), own])}"
