"""Train a stage without a notebook: on this machine, or as one of the ranks of torchrun or srun (docs/cluster.md).

    python -m vans.train stage1 --cell full
    torchrun --nproc-per-node 8 -m vans.train sft

The same run as the notebook's, kept in the same place: the notebook (`dvc repro stage1@full`), started afterwards,
finds it finished, shows it and hands it to DVC.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from functools import partial

import vans  # noqa: F401 (first of all: what it caps is read when NumPy is imported)
from vans.cli import guarded
from vans.errors import UserError

STAGES = ("base", "sft", "systems", "stage1", "stage2", "all_in_one")


def train(stage: str, cell: str | None) -> None:
    from vans.grid import TRAINED, Grid
    from vans.outside import joined, place
    from vans.params import find_root, load

    if cell is not None and stage not in (*TRAINED, "systems"):
        raise UserError(f"--cell {cell}: {stage} has no cells; leave it out")
    root = find_root()
    params = load(root)
    if (at := place()) is not None:
        try:
            params = params.with_(machine={"processes": at[1]})  # which batches must be able to share
        except UserError as error:
            raise UserError(f"{at[1]} processes: {str(error).removeprefix('with_: ')}") from error
    given: list = []
    if stage == "systems":
        given.append(Grid(params, root).trained_system(cell or "extension"))
    if stage in TRAINED:
        given.append(Grid(params, root).cell(stage, cell or ("main" if stage == "stage2" else "full")))
    with joined(params.machine) as ranks:
        if ranks is None or ranks.main:
            module = importlib.import_module(f"vans.train.{stage}")
            module.train(params, *given, root)


def main() -> int:
    first = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m vans.train", description=first, allow_abbrev=False)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--cell", help="of such a stage, as dvc.yaml names it (full; main; extension)")
    given = parser.parse_args()
    return guarded(partial(train, given.stage, given.cell))


def as_a_stage() -> None:
    """Start anew with the variables of a stage, most of which are read when Python or a library starts."""
    from vans.notebooks import environment
    from vans.params import find_root

    told = environment(find_root())
    if any(os.environ.get(name) != value for name, value in told.items()):
        os.execve(sys.executable, [sys.executable, "-m", "vans.train", *sys.argv[1:]], {**os.environ, **told})


if __name__ == "__main__":
    if (code := guarded(as_a_stage)) != 0:
        raise SystemExit(code)
    raise SystemExit(main())
