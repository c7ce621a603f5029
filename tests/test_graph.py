"""dvc.yaml against the code: the grid's cells, the modules and the parameters that each stage uses."""

import dataclasses
import re
from typing import Any

import pytest
import yaml

from tests import imports, smoke
from vans import grid
from vans.params import load

ROOT = smoke.ROOT
GRAPH = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
PARAMS = load(ROOT)
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
# What writes a stage's outputs. The rest of its notebook looks at them: an executed notebook is nobody's input.
WRITERS = {
    "curate": ["vans/data/curate.py"],
    "base": ["vans/train/base.py"],
    "sft": ["vans/train/sft.py"],
    "stage1": ["vans/train/stage1.py"],
    "stage2": ["vans/train/stage2.py"],
    "all_in_one": ["vans/train/all_in_one.py"],
    "evaluate": ["vans/predict.py", "vans/evaluate/run.py"],
}
# Sections that a module behind the stage names for another stage.
OTHERS = {"stage2": {"stage1"}, "all_in_one": {"generate"}}


def _body(stage: str) -> dict[str, Any]:
    return GRAPH[stage].get("do", GRAPH[stage])


def _notebook(stage: str) -> str:
    return _body(stage)["cmd"].split(" run ")[1].split()[0]


STAGES = [stage for stage in GRAPH if stage != "strip"]


def _cells(stage: str) -> dict[str, dict[str, str]]:
    """A foreach's cells with the top-level choices of params.yaml filled in."""
    text = yaml.safe_dump(GRAPH[stage]["foreach"])
    for name in ("stage1", "stage2"):
        text = text.replace(f"${{{name}.reward}}", getattr(PARAMS, name).reward)
    return yaml.safe_load(text)


def test_stage1_has_the_cells_of_the_grid():
    assert tuple(_cells("stage1")) == grid.STAGE1


def test_stage2_has_the_cells_of_the_grid():
    cells = _cells("stage2")
    assert tuple(cells) == grid.STAGE2
    for name, cell in cells.items():
        expected = grid.stage2_cell(PARAMS, name)
        assert (f"models/{cell['vlm']}", cell["reward"]) == (expected.vlm, expected.reward)
        assert expected.vdm == grid.SFT and "models/sft/vdm" in _body("stage2")["deps"]


def test_evaluate_has_the_arms_of_the_grid():
    cells, arms = _cells("evaluate"), grid.arms(PARAMS)
    assert set(cells) == set(arms)
    for name, arm in arms.items():
        assert arm.vlm in (None, f"models/{cells[name]['vlm']}")
        assert arm.vdm in (None, f"models/{cells[name]['vdm']}")


def test_the_main_chain_is_free_and_everything_else_behind_the_grid_switch():
    free = {
        "stage1": {"full"},
        "stage2": {"main"},
        "evaluate": {"copy", "sft", "stage1", "main", "ceiling", "ceiling_main"},
    }
    for stage, cells in free.items():
        assert {name for name, cell in _cells(stage).items() if not cell["switch"]} == cells
    assert "--grid" in _body("all_in_one")["cmd"] and "--grid" in _body("ablations")["cmd"]


@pytest.mark.parametrize("stage, layout", [("benchmarks", "MAIN"), ("ablations", "ABLATION")])
def test_a_table_depends_on_the_scores_of_its_rows(stage, layout):
    tables = pytest.importorskip("vans.tables.tables")
    arms = set(getattr(tables, layout).arms.values())
    scores = {dep for dep in _body(stage)["deps"] if dep.startswith("results/scores/")}
    written = [out for out in _body("evaluate")["outs"] if out.startswith("results/scores/")]
    assert scores == {out.replace("${key}", arm) for arm in arms for out in written}


def test_every_notebook_has_its_stage_and_its_stripped_copy():
    used = {_notebook(stage) for stage in STAGES}
    assert {f"stripped/{name}.ipynb" for name in used} == set(GRAPH["strip"]["outs"])
    for stage in STAGES:
        assert _body(stage)["deps"][0] == f"stripped/{_notebook(stage)}.ipynb"
    assert used == set(NOTEBOOKS)


def _modules(stage: str) -> set[str]:
    """What can change the stage's outputs: everything behind its writers, or behind the tables' notebooks."""
    notebook = imports.of_notebook(NOTEBOOKS[_notebook(stage)], ROOT)
    assert notebook.issuperset(WRITERS.get(stage, []))
    return imports.behind(WRITERS.get(stage, notebook), ROOT)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_the_modules_it_uses_and_on_no_others(stage):
    deps = [dep for dep in _body(stage)["deps"] if dep.startswith("vans/")]
    used = _modules(stage)
    missing = sorted(module for module in used if not imports.covered(module, deps))
    idle = sorted(dep for dep in deps if not any(imports.covered(module, [dep]) for module in used))
    assert not missing, "add to its deps in dvc.yaml"
    assert not idle, "remove from its deps in dvc.yaml"


@pytest.mark.parametrize("stage", WRITERS)
def test_a_stage_depends_on_the_parameters_it_uses_and_on_no_others(stage):
    sections = {field.name for field in dataclasses.fields(PARAMS)} - {"scale"}
    used = imports.sections(_modules(stage), ROOT) & sections - OTHERS.get(stage, set())
    listed = {key.replace("scales.${scale}.", "").split(".")[0] for key in _body(stage)["params"]}
    assert used == listed


@pytest.mark.parametrize("stage", STAGES)
def test_what_a_stage_reads_and_lists_exists(stage):
    for dep in _body(stage)["deps"]:
        if dep.startswith("vans/"):
            assert (ROOT / dep).exists(), dep
    for key in _body(stage).get("params", []):
        section: Any = yaml.safe_load((ROOT / "params.yaml").read_text())
        for part in key.replace("${scale}", PARAMS.scale).split("."):
            assert part in section, key
            section = section[part]


def test_every_scale_section_is_some_stages_parameter():
    """A section that no stage lists could change without anything being run again."""
    listed = {key for stage in STAGES for key in _body(stage).get("params", [])}
    sections = set(yaml.safe_load((ROOT / "params.yaml").read_text())["scales"][PARAMS.scale])
    free = {"machine"}  # listed key by key
    assert sections - free <= {re.sub(r"^scales\.\$\{scale\}\.([^.]+).*", r"\1", key) for key in listed}
