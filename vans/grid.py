"""The cells of the grid, read from where they are told: the `foreach` tables of dvc.yaml.

    stage1: {full: {vlm: sft, vdm: sft, reward: full}, ...}          a run of GRPO: from which models, on which reward
    answer: {main: {vlm: stage1/full, vdm: stage2/main, captions: vlm}, ...}   an arm: who writes and who renders

A cell of any stage may start from any other stage's models, so that rounds (1, 2, 1, 2), the reversed order (2, 1) or
a new reward are lines of dvc.yaml. Model folders hold `vlm/`, `vdm/` or both.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vans.errors import UserError

TRAINED = ("stage1", "stage2", "all_in_one")  # the stages with cells
TABLE = "benchmarks"  # what the main chain is for
CAPTIONS = ("vlm", "ground_truth", "none")


class Coupled:
    """A VLM and a VDM, each by the stage and cell that trained it."""

    vlm: str
    vdm: str

    @property
    def vlm_folder(self) -> str:
        return f"models/{self.vlm}/vlm"

    @property
    def vdm_folder(self) -> str:
        return f"models/{self.vdm}/vdm"

    def plain(self) -> dict[str, Any]:
        """As JSON can hold it: `Cell(**cell.plain())` is the cell again."""
        return dataclasses.asdict(self)  # type: ignore[call-overload]


@dataclass(frozen=True)
class Cell(Coupled):
    """One run of a GRPO stage. vlm, vdm: whose models it starts from ("sft", "stage1/full"). reward: a preset of the
    stage.

    captions: what stage 2's videos are asked to show, the anchor VLM's caption ("vlm") or "ground_truth". steps:
    instead of the stage's own.
    """

    stage: str
    key: str
    vlm: str
    vdm: str
    reward: str
    captions: str = "vlm"
    steps: int | None = None

    @property
    def name(self) -> str:
        return f"{self.stage}/{self.key}"

    @property
    def out(self) -> str:
        return f"models/{self.name}"

    @property
    def curves(self) -> str:
        return f"curves/{self.name}"

    def reward_settings(self, params: Any, root: Path) -> dict[str, Any]:
        """What decides its reward: the weights, and the code of each term."""
        from vans.code import of_term

        weights = getattr(params.rewards, self.stage)[self.reward]
        own = Path(__file__).resolve().parents[1]
        code = {name: of_term(name, root if "/" in name else own) for name in weights}
        return {
            "reward": {name: term.model_dump() for name, term in weights.items()},
            "reward_code": code,
            "captions": self.captions,
            "steps": self.steps,
        }


@dataclass(frozen=True)
class Arm(Coupled):
    """One row of a table. captions: whose ("vlm", "ground_truth"), or "none": the input clip is the answer."""

    key: str
    vlm: str
    vdm: str
    captions: str = "vlm"


class Grid:
    """All cells and arms of a repository. Raises UserError for a dvc.yaml that cannot be read or misses something."""

    def __init__(self, params: Any, root: Path):
        path = Path(root) / "dvc.yaml"
        try:
            self.stages = yaml.safe_load(path.read_text(encoding="utf-8"))["stages"]
        except (OSError, ValueError, KeyError, TypeError, yaml.YAMLError) as error:
            raise UserError(f"{path}: no stages to be read there ({error}); `git checkout dvc.yaml`") from error
        self.params = params
        self.cells = {(s, key): self._cell(s, key, row) for s in TRAINED for key, row in self._rows(s).items()}
        self.arms = {key: self._arm(key, row) for key, row in self._rows("answer").items()}

    def cell(self, stage: str, key: str) -> Cell:
        """One cell; UserError names the nearest one where it is unknown."""
        known = [k for s, k in self.cells if s == stage]
        return self.cells[stage, _known(key, known, f"dvc.yaml: {stage}")]

    def arm(self, key: str) -> Arm:
        """One arm; UserError names the nearest one where it is unknown."""
        return self.arms[_known(key, list(self.arms), "dvc.yaml: answer")]

    def main_chain(self) -> set[str]:
        """What the main table needs, as DVC names it: "stage1@full", "answer@main", ...; the rest is the ablation
        grid.
        """
        found: set[str] = set()
        deps = self._filled(self.stages[TABLE]["deps"])
        todo = [m[1] for dep in deps if (m := re.fullmatch(r"results/scores/(\w+)\.json", dep))]
        for arm in todo:
            found |= {f"answer@{arm}", f"score@{arm}"}
            found |= self._needed(self.arms[arm].vlm) | self._needed(self.arms[arm].vdm)
        return found

    def _needed(self, models: str) -> set[str]:
        stage, _, key = models.partition("/")
        if (stage, key) not in self.cells:
            return set()
        cell = self.cells[stage, key]
        return {f"{stage}@{key}"} | self._needed(cell.vlm) | self._needed(cell.vdm)

    # ------------------------------------------------------------------ reading
    def _rows(self, stage: str) -> dict[str, dict[str, Any]]:
        rows = self.stages.get(stage, {}).get("foreach")
        if not isinstance(rows, dict):
            raise UserError(f"dvc.yaml: {stage}: has no foreach table of cells; `git checkout dvc.yaml`")
        return self._filled(rows)

    def _filled(self, value: Any) -> Any:
        """A part of dvc.yaml with the top-level keys of params.yaml that its cells follow put in."""
        if isinstance(value, dict):
            return {key: self._filled(v) for key, v in value.items()}
        if isinstance(value, list):
            return [self._filled(v) for v in value]
        if isinstance(value, str):
            return re.sub(r"\$\{(stage[12])\.reward\}", lambda m: getattr(self.params, m[1]).reward, value)
        return value

    def _cell(self, stage: str, key: str, row: dict[str, Any]) -> Cell:
        try:
            cell = Cell(stage, key, **row)
        except TypeError as error:
            raise UserError(f"dvc.yaml: {stage}: {key}: {str(error).replace('Cell.__init__() ', '')}") from None
        presets = getattr(self.params.rewards, stage)
        _known(cell.reward, list(presets), f"dvc.yaml: {stage}: {key}: reward")
        if cell.captions not in CAPTIONS[:2]:
            raise UserError(
                f"dvc.yaml: {stage}: {key}: captions: {cell.captions!r}; use one of {', '.join(CAPTIONS[:2])}"
            )
        return cell

    def _arm(self, key: str, row: dict[str, Any]) -> Arm:
        try:
            arm = Arm(key, **row)
        except TypeError as error:
            raise UserError(f"dvc.yaml: answer: {key}: {str(error).replace('Arm.__init__() ', '')}") from None
        if arm.captions not in CAPTIONS:
            raise UserError(f"dvc.yaml: answer: {key}: captions: {arm.captions!r}; use one of {', '.join(CAPTIONS)}")
        return arm


def _known(name: str, names: list[str], where: str) -> str:
    if name in names:
        return name
    near = difflib.get_close_matches(name, names, 1)
    raise UserError(
        f"{where}: {name!r} is unknown; {f'did you mean {near[0]}?' if near else ''} known: {', '.join(names)}"
    )
