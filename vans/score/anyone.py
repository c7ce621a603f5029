"""`vans score FOLDER`: anyone's predictions, printed, written where one wants, or kept as a row of the tables."""

import os
from pathlib import Path

from vans.answer.predictions import CAPTIONS, is_empty
from vans.errors import UserError
from vans.files import check_output
from vans.grid import Grid
from vans.params import find_root, load
from vans.score import run
from vans.score.score import Scores
from vans.tables import others
from vans.tables.tables import LAYOUTS

SIZE = 1 << 22  # bytes that an arm's scores may take


def score_folder(
    folder: str | Path,
    name: str | None = None,
    out: str | Path | None = None,
    row: str | None = None,
    seeds: str | None = None,
) -> Scores:
    """What ``vans score`` does: score, write the scores to ``out`` where one is named, then print them.

    ``row``: as a row of this name of the tables, which find the scores in `others.FOLDER`; ``seeds``: which made the
    answers, in whatever words.
    """
    root = find_root()
    if row is None and seeds is not None:
        raise UserError("--seeds: is said of a row of the tables; name it with --as NAME")
    if row is not None:
        if name is not None or out is not None:
            raise UserError("--as: names the row and says where its scores are kept; leave out --name and --out")
        check_row(row, root)
        name, out = row, root / others.FOLDER
    name = os.path.basename(os.path.abspath(folder)) if name is None else name
    if out is not None:
        check_name(name, "--name" if row is None else "--as")
        for suffix in (".csv", ".json"):
            path = Path(out) / f"{name}{suffix}"
            check_output(path, reads=[folder, root / "triplets", root / "models", root / "data"], size=SIZE)
    if is_empty(folder):
        raise UserError(f"{Path(folder) / CAPTIONS}: holds no row; every held-out sample needs one")
    scores = run.score_arm(folder, root, name, made=None if row is None else seeds or "")
    if out is not None:
        scores.save(out)
    print(run.text(scores))
    if out is not None:
        print(f"written: {Path(out) / scores.arm}.csv and .json")
    if row is not None:
        print("then: dvc repro benchmarks ablations (the tables and figures get the row)")
    return scores


def check_name(name: str, option: str = "--name") -> None:
    """Raise UserError unless a row's name can be a file's."""
    if not name or "/" in name or "\\" in name or name.startswith(".") or not name.isprintable():
        raise UserError(f"{option} {name!r}: the scores' files are called by it; use letters, digits, - and _")


def check_row(name: str, root: Path) -> None:
    """Raise UserError if the tables have a row, or scores, of this name of their own."""
    grid = Grid(load(root), root)
    own = {of for layout in LAYOUTS.values() for row in layout.rows for of in (row.name, row.arm)}
    if name in own | grid.arms.keys() | grid.systems.keys():
        raise UserError(f"--as {name}: the tables have a row of that name; choose another")
