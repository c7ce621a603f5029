"""From the weights of a preset to functions, and from functions to the scores of a rollout.

A term that returns nan or inf stops the run with its name. A term that could not score an answer (None: an endpoint
that failed or took too long) drops that answer from its group and counts it; a missing score is never a 0.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor

from vans.errors import UserError
from vans.rewards import names, outside
from vans.rewards.rollout import Rollout, Term

IN_A_ROW = 3  # rollouts without a single score, after which a term has failed for good


@dataclass
class Plug:
    """A reward term with its weight."""

    name: str
    weight: float
    needs: str  # text | video
    function: Term
    failed: int = 0  # rollouts in a row that it scored nothing of

    @property
    def may_drop(self) -> bool:
        """May an answer be left without a score? Not by a function of vans."""
        return self.name not in names() or not isinstance(self.function, FunctionType)


@dataclass(frozen=True)
class Scored:
    """terms: name -> [P, G] float32, nan where dropped. total: weighted sum [P, G], 0 where dropped. kept: bool [P,
    G].
    """

    terms: dict[str, Tensor]
    total: Tensor
    kept: Tensor
    may_drop: bool = True

    def means(self) -> dict[str, Tensor]:
        """Of each prompt's kept answers the reward's mean and deviation and each term's mean, [P], nan where there are
        too few; and the share of answers dropped, where a term may drop one (so on every rank, or on none).
        """
        kept = self.kept
        found = {"reward": self.total.mean(dim=1), "reward_std": self.total.std(dim=1)}
        if not kept.all():
            found = {"reward": self._kept(self.total).nanmean(dim=1)}
            count, centred = kept.sum(dim=1), self._kept(self.total) - found["reward"][:, None]
            variance = centred.square().nansum(dim=1) / (count - 1)
            found["reward_std"] = variance.sqrt().masked_fill(count < 2, torch.nan)
        found |= {name: self._kept(values).nanmean(dim=1) for name, values in self.terms.items()}
        return found | ({"dropped": (~kept).float().mean(dim=1)} if self.may_drop else {})

    def _kept(self, values: Tensor) -> Tensor:
        return values.masked_fill(~self.kept, torch.nan)


def plugs(weights: Mapping[str, Any], params: Any, renders: bool = True) -> list[Plug]:
    """The terms of a preset (name -> .weight, .needs, .timeout), without those of weight 0.

    renders: are there videos to look at? Raises UserError for a name that nothing answers to, a function that cannot be
    imported, a term that needs videos where none are rendered, and a preset without any term.
    """
    found = []
    for name, spec in weights.items():
        if spec.weight == 0:
            continue
        function = resolve(name, spec, params)
        needs = spec.needs or getattr(function, "needs", "text")
        if needs == "video" and not renders:
            raise UserError(f"reward {name}: it needs videos, and this stage renders none; give the cell a VDM")
        found.append(Plug(name, float(spec.weight), needs, function))
    if not found:
        raise UserError("params.yaml: rewards: this preset has no term with a weight; nothing could be learnt from it")
    return found


def resolve(name: str, spec: Any, params: Any) -> Term:
    """The function behind a name: of vans/rewards/terms, `package.module:function`, an executable, or a URL."""
    if outside.is_url(name):
        return outside.Endpoint(name, spec.timeout)
    if outside.is_path(name):
        return outside.Executable(name, spec.timeout)
    module, _, attribute = name.partition(":")
    if not attribute:
        if name not in names():
            raise UserError(f"reward {name!r} is unknown; use one of {', '.join(names())}, or package.module:function")
        module, attribute = f"vans.rewards.terms.{name}", name
    try:
        function = getattr(importlib.import_module(module), attribute)
        if isinstance(function, type):  # a term with a state of its own, such as a connection
            return function(params)
    except UserError:
        raise
    except Exception as error:  # whatever a module does that is not ours
        why = f"{type(error).__name__}: {error}"
        raise UserError(f"reward {name}: {why}; it must be a function that Python can import from here") from error
    if not callable(function):
        raise UserError(f"reward {name}: is not a function")
    return function


def score(rollout: Rollout, terms: list[Plug]) -> Scored:
    """All terms of a rollout. An answer that one of them could not score is dropped from all."""
    scored = {plug.name: _values(plug, rollout) for plug in terms}
    kept = ~torch.stack([values.isnan() for values in scored.values()]).any(0)
    total = sum(plug.weight * scored[plug.name] for plug in terms)
    assert isinstance(total, Tensor)
    return Scored(scored, total.masked_fill(~kept, 0.0), kept, any(plug.may_drop for plug in terms))


def _values(plug: Plug, rollout: Rollout) -> Tensor:
    """[P, G] float32 on the CPU; nan where the term says that it could not score."""
    try:
        given = plug.function(rollout)
    except UserError:
        raise
    except Exception as error:
        if plug.name in names() and not isinstance(error, outside.Failed):
            raise  # a fault of vans itself
        given = [[None] * rollout.shape[1] for _ in range(rollout.shape[0])]
        why = str(error) if isinstance(error, outside.Failed) else f"{type(error).__name__}: {error}"
        print(f"reward {plug.name}: no score at all ({' '.join(why.split())})", flush=True)
    try:
        if isinstance(given, Tensor):
            values = given.detach().float().cpu()
            none = torch.zeros_like(values, dtype=torch.bool)
        else:
            none = torch.tensor([[x is None for x in row] for row in given])
            values = torch.tensor([[0.0 if x is None else float(x) for x in row] for row in given])
    except (TypeError, ValueError) as error:
        raise UserError(f"reward {plug.name}: returned no [P, G] numbers ({error}); mend it") from error
    finite = values.isfinite()
    if values.shape != rollout.shape:
        raise UserError(f"reward {plug.name}: returned {list(values.shape)}, but the rollout is {list(rollout.shape)}")
    if not finite.all():
        p, g = (~finite).nonzero()[0].tolist()
        caption = rollout.captions[p][g]
        raise UserError(
            f"reward {plug.name}: is {values[p, g].item()} for {rollout.ids[p]} (caption {caption!r}); mend it"
        )
    plug.failed = plug.failed + 1 if none.all() else 0
    if plug.failed == IN_A_ROW:
        raise UserError(f"reward {plug.name}: gave no score at all for {IN_A_ROW} rollouts in a row; see above for why")
    return values.masked_fill(none, float("nan"))
