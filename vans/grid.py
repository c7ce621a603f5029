"""The cells of the grid: which models and which reward each run of stage 1, stage 2 and evaluation uses.

dvc.yaml spells the same table out as dependencies; a test holds the two together. Paths are relative to the
repository's root. A model folder holds ``vlm/`` or ``vdm/`` or both.
"""

from dataclasses import dataclass

from vans.errors import UserError
from vans.params import Params

SFT = "models/sft"
STAGE1 = ("full", "no_t1", "no_v1")
STAGE2 = ("main", "no_c2", "no_v2", "vdm_only")


@dataclass(frozen=True)
class Stage2Cell:
    """One run of stage 2: its reward preset, the models it starts from, what its videos are asked to show."""

    reward: str  # full | no_c2 | no_v2
    vlm: str  # the anchor, frozen
    vdm: str  # where training starts
    captions: str  # anchor | ground_truth


@dataclass(frozen=True)
class Arm:
    """One row of a table: who writes the captions and who renders them."""

    captions: str  # vlm | ground_truth | none (copy: the input clip is the answer)
    vlm: str | None
    vdm: str | None


def stage1_out(cell: str) -> str:
    """Folder of stage 1's cell, named like its reward preset."""
    return f"models/stage1/{_known(cell, STAGE1)}"


def stage2_out(cell: str) -> str:
    """Folder of stage 2's cell."""
    return f"models/stage2/{_known(cell, STAGE2)}"


def stage2_cell(params: Params, cell: str) -> Stage2Cell:
    """What stage 2's cell does; ``main`` follows params.yaml, the others are pinned."""
    cells = {
        "main": Stage2Cell(params.stage2.reward, stage1_out(params.stage1.reward), SFT, "anchor"),
        "no_c2": Stage2Cell("no_c2", stage1_out("full"), SFT, "anchor"),
        "no_v2": Stage2Cell("no_v2", stage1_out("full"), SFT, "anchor"),
        "vdm_only": Stage2Cell("full", SFT, SFT, "ground_truth"),
    }
    return cells[_known(cell, tuple(cells))]


def arms(params: Params) -> dict[str, Arm]:
    """All arms by name, in the order of the tables."""
    main, main_vlm = stage2_out("main"), stage1_out(params.stage1.reward)
    return {
        "copy": Arm("none", None, None),
        "sft": Arm("vlm", SFT, SFT),
        "vlm_only": Arm("vlm", stage1_out("no_v1"), SFT),
        "vdm_only": Arm("vlm", SFT, stage2_out("vdm_only")),
        "vlm_vdm": Arm("vlm", stage1_out("no_v1"), stage2_out("vdm_only")),
        "no_t1": Arm("vlm", stage1_out("no_t1"), SFT),
        "stage1": Arm("vlm", stage1_out("full"), SFT),
        "no_c2": Arm("vlm", stage1_out("full"), stage2_out("no_c2")),
        "no_v2": Arm("vlm", stage1_out("full"), stage2_out("no_v2")),
        "all_in_one": Arm("vlm", "models/all_in_one", "models/all_in_one"),
        "main": Arm("vlm", main_vlm, main),
        "ceiling": Arm("ground_truth", None, SFT),
        "ceiling_main": Arm("ground_truth", None, main),
    }


def arm(params: Params, name: str) -> Arm:
    """One arm by name; UserError names the known ones."""
    table = arms(params)
    return table[_known(name, tuple(table))]


def _known(name: str, names: tuple[str, ...]) -> str:
    if name not in names:
        raise UserError(f"cell {name!r} is unknown; use one of {', '.join(names)}")
    return name
