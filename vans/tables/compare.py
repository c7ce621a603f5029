"""Tables just measured against published ones, cell by cell: same, within the interval, or different.

Compared are the numbers of the CSV files, and on which kinds of machine they came about. Pictures and videos are not:
their encoders and fonts may write other bytes elsewhere.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from vans import spreadsheet
from vans.errors import UserError
from vans.score.metrics import METRICS, number
from vans.tables import machines

SAME, WITHIN, DIFFERS, MISSING = "same", "within the interval", "differs", "only on one side"
TABLES = ("main", "ablation")
KEYS = ["kind", "row"]
CLOSE = 1e-5  # relative: the files hold six significant digits


@dataclass(frozen=True)
class Comparison:
    """One table against its published version.

    ``same_bytes``: the CSV files are equal. ``cells``: one line per number with kind, title, metric,
    measured, published, status. ``note``: why there are no cells, if there are none.
    """

    name: str
    same_bytes: bool
    cells: pd.DataFrame
    note: str = ""

    def count(self, status: str) -> int:
        return 0 if self.cells.empty else int((self.cells["status"] == status).sum())

    def text(self) -> str:
        """A few lines for the terminal: the counts, then every cell that differs."""
        if self.note:
            return f"{self.name}: {self.note}"
        if self.same_bytes:
            return f"{self.name}: same bytes as the published table ({len(self.cells)} numbers)"
        counts = [f"{self.count(status)} {status}" for status in (SAME, WITHIN, DIFFERS, MISSING) if self.count(status)]
        lines = [f"{self.name}: {len(self.cells)} numbers against the published table: {', '.join(counts)}"]
        for _, cell in self.cells[self.cells["status"] == DIFFERS].iterrows():
            metric = METRICS[cell["metric"]]
            old, new = number(cell["published"], metric), number(cell["measured"], metric)
            lines.append(f"  {cell['kind']}, {cell['title']}, {metric.title}: {new}, published {old}")
        return "\n".join(lines)


@dataclass(frozen=True)
class Report:
    """All tables against their published versions; as text: what ``make repro`` prints at its end."""

    tables: list[Comparison]
    machines: str  # which kinds published and measured

    def __str__(self) -> str:
        return "\n".join([*(table.text() for table in self.tables), self.machines])


def compare(results: str | Path, published: str | Path) -> Report:
    """Compare each table that stands in ``results`` with the one in ``published``.

    Raises UserError if ``results`` holds none.
    """
    results, published = Path(results), Path(published)
    names = [name for name in TABLES if (results / f"{name}.csv").is_file()]
    if not names:
        raise UserError(f"{results}: holds no table; run `dvc repro` first")
    tables = [compare_files(name, results / f"{name}.csv", published / f"{name}.csv") for name in names]
    return Report(tables, machines.text(machines.read(results), machines.read(published)))


def compare_files(name: str, measured: Path, published: Path) -> Comparison:
    """One table's CSV against the published CSV."""
    if not published.is_file():
        return Comparison(name, False, pd.DataFrame(), "no published table to compare with")
    new, old = _read(measured), _read(published)
    return Comparison(name, measured.read_bytes() == published.read_bytes(), _cells(new, old))


def _read(path: Path) -> pd.DataFrame:
    try:
        return spreadsheet.read(path, [*KEYS, "title"]).set_index(KEYS)
    except (ValueError, KeyError) as error:
        raise UserError(f"{path}: not a table of this repository ({error}); generate it again") from error


def _cells(new: pd.DataFrame, old: pd.DataFrame) -> pd.DataFrame:
    lines = []
    for key in dict.fromkeys([*new.index, *old.index]):
        for name in METRICS:
            one, two = _ends(new, key, name), _ends(old, key, name)
            if np.isnan(one[0]) and np.isnan(two[0]):
                continue
            title = (new if key in new.index else old).at[key, "title"]
            lines.append((key[0], title, name, one[0], two[0], _status(one, two)))
    return pd.DataFrame(lines, columns=["kind", "title", "metric", "measured", "published", "status"])


def _ends(table: pd.DataFrame, key: tuple[str, str], name: str) -> tuple[float, float, float]:
    """(value, lo, hi) of a cell, nan where it is empty or absent."""
    columns = (name, f"{name}_lo", f"{name}_hi")
    if key not in table.index or not set(columns) <= set(table.columns):
        return (np.nan, np.nan, np.nan)
    value, lo, hi = (float(table.at[key, column]) for column in columns)
    return value, lo, hi


def _status(new: tuple[float, float, float], old: tuple[float, float, float]) -> str:
    """Within: one of the two values lies in the interval of the other."""
    if np.isnan(new[0]) or np.isnan(old[0]):
        return MISSING
    if np.allclose(new, old, rtol=CLOSE, atol=0, equal_nan=True):
        return SAME
    inside = new[1] <= old[0] <= new[2] or old[1] <= new[0] <= old[2]
    return WITHIN if inside else DIFFERS
