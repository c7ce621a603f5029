"""The cells of the grid, read from where they are told: the `foreach` tables of dvc.yaml.

    stage1: {full: {vlm: sft, vdm: sft, reward: full}, ...}          a run of GRPO: from which models, on which reward
    answer: {main: {vlm: stage1/full, vdm: stage2/main, captions: vlm}, ...}   an arm: who writes and who renders

`systems_answer` has the main table's other systems, each with the models that answer: `systems/<its own training>` or
those of another stage.

A cell of any stage may start from any other stage's models, so that rounds (1, 2, 1, 2), the reversed order (2, 1) or
a new reward are lines of dvc.yaml. Model folders hold `vlm/`, `vdm/` or both. `release` is no stage's: `vans import`
makes models/release of the method's released weights.
"""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from vans.errors import UserError
from vans.params import read

TRAINED = ("stage1", "stage2", "all_in_one")  # the stages with cells
RELEASE = "release"  # models that `vans import` makes
TABLE = "benchmarks"  # what the main chain is for
CAPTIONS = ("vlm", "ground_truth", "none")
CHOOSERS = ("clip_t_own", "video_event")  # of several answers: CLIP-T to the own caption, or the toy world's oracle
T = TypeVar("T", "Cell", "Arm")


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
        code = {name: of_term(name, root if "/" in name else own, params) for name in weights}
        return {
            "reward": {name: term.model_dump() for name, term in weights.items()},
            "reward_code": code,
            "captions": self.captions,
        }


@dataclass(frozen=True)
class Arm(Coupled):
    """One row of a table. captions: whose ("vlm", "ground_truth"), or "none": the input clip is the answer.

    best_of: {n, by}: of n answers to each question the best one by one of CHOOSERS is kept; None: the first is.
    """

    key: str
    vlm: str
    vdm: str
    captions: str = "vlm"
    best_of: dict[str, Any] | None = None


class Grid:
    """All cells and arms of a repository. Raises UserError for a dvc.yaml that cannot be read or misses something."""

    def __init__(self, params: Any, root: Path):
        path = Path(root) / "dvc.yaml"
        stages = read(path).get("stages")
        if not isinstance(stages, dict):
            raise UserError(f"{path}: stages: missing; get it back with `git checkout dvc.yaml`")
        self.params, self.root, self.stages = params, Path(root), dict(stages)
        self.cells = {(s, key): self._cell(s, key, row) for s in TRAINED for key, row in self._rows(s).items()}
        self.arms = {key: self._arm(key, row) for key, row in self._rows("answer").items()}
        self.systems = {key: self._system(key, row) for key, row in self._rows("systems_answer").items()}
        trained = {
            "vlm": ["sft", RELEASE, *(cell.name for cell in self.cells.values() if cell.stage != "stage2")],
            "vdm": ["sft", RELEASE, *(cell.name for cell in self.cells.values() if cell.stage != "stage1")],
        }
        told: list[Cell | Arm] = [*self.cells.values(), *self.arms.values()]
        for row in told:
            for model, names in trained.items():
                where = f"dvc.yaml: {row.stage if isinstance(row, Cell) else 'answer'}: {row.key}: {model}"
                _known(getattr(row, model), names, where)
        for cell in self.cells.values():
            self._needed(cell.name)

    def cell(self, stage: str, key: str) -> Cell:
        """One cell; UserError names the nearest one where it is unknown."""
        known = [k for s, k in self.cells if s == stage]
        return self._imported(self.cells[stage, _known(key, known, f"dvc.yaml: {stage}")], f"{stage}: {key}")

    def arm(self, key: str) -> Arm:
        """One arm; UserError names the nearest one where it is unknown."""
        if key == RELEASE and key not in self.arms:
            line = f"{RELEASE}: {{vlm: {RELEASE}, vdm: {RELEASE}}}"
            raise UserError(f"dvc.yaml: answer: no arm {RELEASE!r}; add the line `{line}` there (docs/release.md)")
        if key in self.systems:
            only = "is another system, which answers the held-out questions alone"
            raise UserError(f"{key!r} {only}; use main, stage1 or sft")
        return self._imported(self.arms[_known(key, list(self.arms), "dvc.yaml: answer")], f"answer: {key}")

    def system(self, key: str) -> str:
        """Whose models a system of the main table answers with; UserError names the nearest one if it is unknown."""
        return self.systems[_known(key, list(self.systems), "dvc.yaml: systems_answer")]

    def trained_system(self, key: str) -> str:
        """A system that is trained, by its name; UserError names the nearest one if it is unknown."""
        return _known(key, self.trained_systems(), "dvc.yaml: systems")

    def trained_systems(self) -> list[str]:
        """The other systems that are trained, in the order of dvc.yaml."""
        own = self.stages.get("systems", {}).get("foreach")
        if not isinstance(own, list):
            raise UserError("dvc.yaml: systems: has no foreach list of systems; `git checkout dvc.yaml`")
        return own

    def systems_run(self, trained: bool = False) -> list[str]:
        """The other systems of `arms.run`, all or those that are trained, in the order of dvc.yaml."""
        return [key for key in (self.trained_systems() if trained else self.systems) if key in self.params.arms.run]

    def answering(self, key: str) -> Arm:
        """An arm that can answer a question of anybody's; UserError for any other."""
        arm, others = self.arm(key), "use main, stage1 or sft"
        if arm.captions != "vlm":
            raise UserError(f"arm {key!r} has no VLM that could answer a question; {others}")
        if arm.best_of:
            raise UserError(f"arm {key!r} chooses among several answers to the held-out questions; {others}")
        return arm

    def furthest(self) -> str:
        """The last arm of the chain whose models are there: main, else stage1, else sft (also if nothing is)."""
        for key in ("main", "stage1"):
            arm = self.arm(key)
            if (self.root / arm.vlm_folder).exists() and (self.root / arm.vdm_folder).exists():
                return key
        return "sft"

    def _imported(self, row: T, where: str) -> T:
        """A row, where the released models that it names are there; only who asks for such a row needs them."""
        for model, folder in {"vlm": row.vlm_folder, "vdm": row.vdm_folder}.items():
            if getattr(row, model) == RELEASE and not (self.root / folder).is_dir():
                raise UserError(f"dvc.yaml: {where}: {model}: {folder} is not there; make it with `vans import PATH`")
        return row

    def main_chain(self) -> set[str]:
        """What the main table needs, as DVC names it: "stage1@full", "answer@main", ...; the rest is the ablation
        grid.
        """
        found: set[str] = set()
        deps = self._filled(self.stages[TABLE]["deps"])
        todo = [m[1] for dep in deps if (m := re.fullmatch(r"results/scores/([^/]+)\.json", dep))]
        for arm in todo:
            found.add(f"score@{arm}")
            if arm in self.systems:
                stage, _, key = self.systems[arm].partition("/")
                found |= {f"systems_answer@{arm}"} | ({f"{stage}@{key}"} if key else set())
                continue
            found.add(f"answer@{arm}")
            found |= self._needed(self.arms[arm].vlm) | self._needed(self.arms[arm].vdm)
        return found

    def of_release(self) -> set[str]:
        """Answers and scores of arms of the imported models for which nothing beside the main chain is trained, as DVC
        names them."""
        main = self.main_chain()
        arms = [
            arm
            for arm in self.arms.values()
            if RELEASE in (arm.vlm, arm.vdm) and self._needed(arm.vlm) | self._needed(arm.vdm) <= main
        ]
        return {f"{stage}@{arm.key}" for stage in ("answer", "score") for arm in arms}

    def _needed(self, models: str, after: tuple[str, ...] = ()) -> set[str]:
        """The cells behind some models, as DVC names them. after: those on the way, none of which may come again."""
        stage, _, key = models.partition("/")
        if (stage, key) not in self.cells:
            return set()
        if models in after:
            said = " from ".join((*after, models))
            raise UserError(f"dvc.yaml: {stage}: {key}: starts from itself, {said}; let one of them start from sft")
        cell, way = self.cells[stage, key], (*after, models)
        return {f"{stage}@{key}"} | self._needed(cell.vlm, way) | self._needed(cell.vdm, way)

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

    def _cell(self, stage: str, key: str, row: Any) -> Cell:
        where = f"dvc.yaml: {stage}: {key}"
        cell = _row(Cell, row, where, stage=stage, key=key)
        _known(cell.reward, list(getattr(self.params.rewards, stage)), f"{where}: reward")
        _known(cell.captions, CAPTIONS[:2] if stage == "stage2" else CAPTIONS[:1], f"{where}: captions")
        if cell.steps is not None and (type(cell.steps) is not int or cell.steps < 1):
            raise UserError(f"{where}: steps: {cell.steps!r} is not a whole number from 1 up")
        return cell

    def _system(self, key: str, row: Any) -> str:
        where = f"dvc.yaml: systems_answer: {key}"
        if not isinstance(row, dict) or set(row) != {"models"}:
            raise UserError(f"{where}: must hold models, not {row!r}")
        known = [f"systems/{name}" for name in self.trained_systems()]
        return _known(row["models"], [*known, "sft", *(c.name for c in self.cells.values())], f"{where}: models")

    def _arm(self, key: str, row: Any) -> Arm:
        where = f"dvc.yaml: answer: {key}"
        arm = _row(Arm, row, where, key=key)
        _known(arm.captions, CAPTIONS, f"{where}: captions")
        if arm.best_of is not None:
            told = arm.best_of
            if arm.captions == "none":
                raise UserError(f"{where}: best_of: captions: none gives no answers to choose among; leave it out")
            if not isinstance(told, dict) or set(told) != {"n", "by"}:
                raise UserError(f"{where}: best_of: must hold n and by, not {told!r}")
            if type(told["n"]) is not int or told["n"] < 2:
                raise UserError(f"{where}: best_of: n: {told['n']!r} is not a whole number from 2 up")
            _known(told["by"], CHOOSERS, f"{where}: best_of: by")
        return arm


def _row(kind: type[T], row: Any, where: str, **told: str) -> T:
    """A row of a table as a Cell or an Arm; UserError for a key that is unknown or missing."""
    fields = {f.name: f for f in dataclasses.fields(kind) if f.name not in told}
    if not isinstance(row, dict):
        raise UserError(f"{where}: must hold {', '.join(fields)}, not {row!r}")
    for name in row:
        _known(name, list(fields), where)
    for name, field in fields.items():
        if name not in row and field.default is dataclasses.MISSING:
            raise UserError(f"{where}: {name}: missing; add it")
    return kind(**{**told, **row})


def _known(name: Any, names: Sequence[str], where: str) -> str:
    if name in names:
        return name
    near = difflib.get_close_matches(str(name), names, 1)
    meant = f"did you mean {near[0]}? " if near else ""
    raise UserError(f"{where}: {name!r} is unknown; {meant}known: {', '.join(names)}")
