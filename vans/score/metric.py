"""What a metric is, and the registry of all of them.

    @metric("brightness", "brightness", better="up", about="mean of all pixels")
    def brightness(batch: Batch) -> np.ndarray:      # [N], one number a sample; nan where there is none
        return batch.videos.mean(axis=(1, 2, 3, 4)) / 255

That is all: the scores have a column with an interval, the tables too, their claims are checked for it (it has a
direction), and figures can show it. The order of registration is the order of the columns. A function of your own
package is used by ``evaluate.metrics: [package.module:function]`` in params.yaml.
"""

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from vans.errors import UserError
from vans.score.batch import Batch, numpy

NONE = "—"  # stands where there is no number
ARROWS = {"up": " ↑", "down": " ↓", "one": " → 1", "": ""}


@dataclass(frozen=True)
class Metric:
    """A named quantity of an arm.

    ``measure(batch)``: N numbers, the mean over samples being the metric; or columns by name, N values each; or None
    where the batch cannot give it. ``better``: "up", "down", "one" (best near 1) or "" (no direction). ``about``: one
    line for the protocol. ``unit``: "" for a plain number, "%" for a share, or a unit's name. ``sums``: for what is no
    mean: a function of the summed ``columns``, [B, len(columns)] -> [B], so that resamples are exact. ``distance``: for
    what only whole sets of samples have: a function of two sets of features, [N, D] and [M, D] (``measure`` then gives
    those of answers and truth, for all batches or for none); ``weighted``: the same of B weighted samples at once,
    features [N, D] twice and counts [B, N] -> [B], where there is a short way; ``signed``: may it fall below 0, as an
    unbiased estimate does? ``table``: ``measure`` is given the table of all samples instead of a batch, with id, kind,
    group and every column of the metrics before it. ``claim``: are the paper's orders checked for it? ``group``: its
    heading in the tables. ``needs``: of "videos" and "captions" what it looks at: a system that answers without the one
    or the other has no such metric.
    """

    name: str
    title: str
    better: str
    about: str
    measure: Callable[..., Any]
    unit: str = ""
    digits: int = 3
    columns: tuple[str, ...] = ()
    sums: Callable[[np.ndarray], np.ndarray] | None = None
    distance: Callable[[np.ndarray, np.ndarray], float] | None = None
    weighted: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray] | None = None
    signed: bool = False
    table: bool = False
    claim: bool = True
    needs: tuple[str, ...] = ("videos",)
    group: str = "Further measures"

    @property
    def heading(self) -> str:
        """Title, unit and direction: "static % ↓"."""
        return self.title + (f" {self.unit}" if self.unit else "") + ARROWS[self.better]

    def of(self, frame: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
        """The metric of B weighted samples of a per-sample table: counts [B, N] -> [B].

        Rows where one of its columns is empty do not count. A distance is not a matter of columns: ValueError.
        """
        if self.distance:
            raise ValueError(f"{self.name} is not computed from per-sample columns")
        values = frame[list(self.columns)].to_numpy(np.float64)
        known = np.isfinite(values).all(axis=1)
        values = np.where(known[:, None], values, 0.0)
        if self.sums:
            return self.sums(weights @ values)
        return ratio(weights @ np.stack([values[:, 0], known.astype(np.float64)], axis=1))

    def count(self, frame: pd.DataFrame) -> int:
        """How many samples (of what is told of pairs: how many pairs) stand behind it."""
        return len(frame) if self.distance else int(frame[list(self.columns)].notna().all(axis=1).sum())


METRICS: dict[str, Metric] = {}


def metric(name: str, title: str, *, better: str = "", about: str = "", **more: Any) -> Callable:
    """Registers a function as a metric; see `Metric` for what can be said of it. Several metrics may share one function
    that gives the columns of all: it is called once.
    """
    if better not in ARROWS:
        raise ValueError(f"{name}: better must be one of {', '.join(ARROWS)}, got {better!r}")

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        about_it = about or (function.__doc__ or title).strip().splitlines()[0].rstrip(".")
        made = Metric(name, title, better, about_it, function, **more)
        METRICS[name] = made if made.columns or made.distance else replace(made, columns=(name,))
        return function

    return register


def use(names: Sequence[str]) -> None:
    """Takes up metrics of the user's own, "package.module:function"; one without @metric counts without a direction.

    UserError where it cannot be imported, or has the name of another metric.
    """
    for place in names:
        module, _, name = place.partition(":")
        where = f"params.yaml: evaluate.metrics: {place}"
        try:
            function = getattr(importlib.import_module(module), name)
        except (Exception, SystemExit) as error:  # whatever a module does that is not ours
            why = " ".join(f"{type(error).__name__}: {error}".split())
            fix = "write package.module:function, and start where the package can be imported"
            raise UserError(f"{where}: cannot be imported ({why}); {fix}") from error
        if not callable(function):
            raise UserError(f"{where}: is no function; write package.module:function")
        if any(known.measure is function for known in METRICS.values()):
            continue
        if name in METRICS and METRICS[name].measure.__module__ != module:
            raise UserError(f"{where}: there is a metric {name} already; rename it")
        metric(name, name.replace("_", " "))(function)


def measure(batch: Batch, metrics: Sequence[Metric] | None = None) -> tuple[pd.DataFrame, dict[str, np.ndarray]]:
    """Every column that the metrics (default: all) give for a batch, and the features of distances, [2, N, D] each:
    of answers and truth. UserError names a metric that gives anything else than one value a sample.
    """
    columns: dict[str, Any] = {}
    features: dict[str, np.ndarray] = {}
    given: dict[int, Any] = {}  # by function: one that several metrics share is called once
    for one in METRICS.values() if metrics is None else metrics:
        if one.table or any(getattr(batch, part) is None for part in one.needs):
            continue
        if id(one.measure) not in given:
            given[id(one.measure)] = one.measure(batch)
        found = given[id(one.measure)]
        if found is not None and one.distance:
            features[one.name] = np.stack([numpy(x) for x in found])
        elif found is not None:
            columns |= _columns(one, found, len(batch))
    return pd.DataFrame(columns), features


def measure_table(frame: pd.DataFrame) -> pd.DataFrame:
    """The table of all samples with the columns of the metrics that are given it (`Metric.table`) behind its own."""
    for one in METRICS.values():
        if one.table and (found := one.measure(frame)) is not None:
            frame = frame.assign(**_columns(one, found, len(frame)))
    return frame


def joined(parts: Sequence[Mapping[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """The features of distances of all batches, float32 [2, N, D] each. UserError if one has them for a part only."""
    names = dict.fromkeys(name for part in parts for name in part)
    for name in names:
        if lacking := sum(name not in part for part in parts):
            raise UserError(
                f"metric {name}: gave no features for {lacking} of {len(parts)} batches; a distance is of whole sets: "
                "give those of every batch, or None for all"
            )
    return {name: np.concatenate([part[name] for part in parts], axis=1).astype(np.float32) for name in names}


def _columns(one: Metric, found: Any, count: int) -> dict[str, np.ndarray]:
    """What a metric gave as columns of ``count`` values each."""
    columns = {}
    for name, values in (found if isinstance(found, Mapping) else {one.name: found}).items():
        columns[name] = numpy(values)
        if columns[name].shape != (count,):
            raise UserError(f"metric {one.name}: gave shape {columns[name].shape} for {count} samples, not one each")
    return columns


def available(frame: pd.DataFrame, features: Mapping[str, Any] = {}) -> list[Metric]:
    """The metrics that a per-sample table, and the features beside it, can give, in the order of METRICS."""
    columns = set(frame.columns[frame.notna().any()])
    known = (m for m in METRICS.values())
    return [m for m in known if (m.name in features if m.distance else set(m.columns) <= columns)]


def ratio(sums: np.ndarray) -> np.ndarray:
    """First of two sums over the second, [B, 2] -> [B]; nan where the second is 0."""
    return np.divide(sums[:, 0], sums[:, 1], out=np.full(len(sums), np.nan), where=sums[:, 1] > 0)


# ---------------------------------------------------------------- as text


def cell(value: float, lo: float, hi: float, metric: Metric) -> str:
    """``0.563 [0.541, 0.586]``; shares in percent; a dash where there is no number."""
    if pd.isna(value):
        return NONE
    text, low, high = (number(x, metric) for x in (value, lo, hi))
    return text if pd.isna(lo) else f"{text} [{low}, {high}]"


def number(value: float, metric: Metric, sign: bool = False) -> str:
    """One number with the metric's digits; shares in percent."""
    if pd.isna(value):
        return NONE
    text = f"{100 * value if metric.unit == '%' else value:{'+' if sign else ''}.{metric.digits}f}"
    return text.replace("-", "−")
