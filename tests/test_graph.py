"""dvc.yaml against the code and against DVC: the grid's rows, the code and the parameters that each stage uses."""

import ast
import copy
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import smoke
from vans import code
from vans.errors import UserError
from vans.grid import TRAINED, Grid
from vans.params import load

ROOT = smoke.ROOT
GRAPH: dict[str, Any] = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"]
TREE = yaml.safe_load((ROOT / "params.yaml").read_text())
PARAMS = load(ROOT)
GRID = Grid(PARAMS, ROOT)
NOTEBOOKS = {path.stem: path for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
STAGES = [stage for stage in GRAPH if stage != "strip"]
TABLES = ("benchmarks", "ablations", "seeds")


def _body(stage: str) -> dict[str, Any]:
    return GRAPH[stage].get("do", GRAPH[stage])


def _notebook(stage: str) -> str:
    return _body(stage)["cmd"].split(" run ")[1].split()[0]


# ---- the grid ------------------------------------------------------------------------------------------------
def test_the_grid_has_every_cell_and_every_arm():
    assert set(GRID.cells) == {(stage, key) for stage in TRAINED for key in GRAPH[stage]["foreach"]}
    assert list(GRID.arms) == list(GRAPH["answer"]["foreach"])
    assert list(GRID.systems) == list(GRAPH["systems_answer"]["foreach"])
    assert [*GRID.arms, *GRID.systems] == GRAPH["score"]["foreach"]
    for cell in GRID.cells.values():
        assert GRID.cell(cell.stage, cell.key) is cell
        told = GRAPH[cell.stage]["foreach"][cell.key]
        assert {name: getattr(cell, name) for name in told if "$" not in told[name]} == {
            name: value for name, value in told.items() if "$" not in value
        }


def test_the_main_cells_follow_the_choice_of_reward():
    grid = Grid(load(ROOT).with_(stage1={"reward": "no_t1"}, stage2={"reward": "no_v2"}), ROOT)
    main = grid.cell("stage2", "main")
    assert (main.vlm, main.reward) == ("stage1/no_t1", "no_v2")
    assert grid.arm("main").vlm == "stage1/no_t1" and grid.arm("stage1").vlm == "stage1/full"


def test_the_file_is_short():
    assert len((ROOT / "dvc.yaml").read_text().splitlines()) <= 310


def _written(folder: Path, stages: dict[str, Any]) -> Path:
    (folder / "dvc.yaml").write_text(yaml.safe_dump({"stages": stages}, sort_keys=False))
    return folder


SFT = {"vlm": "sft", "vdm": "sft"}


@pytest.mark.parametrize(
    "stage, row, said",
    [
        ("stage1", {**SFT, "reward": "ful"}, "reward: 'ful' is unknown; did you mean full? known: full, no_t1, no_v1"),
        ("stage2", {**SFT, "reward": "no_t1"}, "reward: 'no_t1' is unknown; did you mean"),
        ("stage2", {**SFT, "reward": "full", "step": 3}, "'step' is unknown; did you mean steps? known: vlm, vdm"),
        ("stage2", {**SFT, "reward": "full", "stage": "x"}, "'stage' is unknown"),
        ("stage1", {"vdm": "sft", "reward": "full"}, "vlm: missing; add it"),
        ("stage1", None, "must hold vlm, vdm, reward, captions, steps, not None"),
        ("stage2", {**SFT, "reward": "full", "captions": "none"}, "captions: 'none' is unknown; known: vlm, ground_"),
        ("stage1", {**SFT, "reward": "full", "captions": "ground_truth"}, "captions: 'ground_truth' is unknown"),
        ("all_in_one", {**SFT, "reward": "full", "steps": 0}, "steps: 0 is not a whole number from 1 up"),
        ("all_in_one", {**SFT, "reward": "full", "steps": "5"}, "steps: '5' is not a whole number"),
        ("stage1", {"vlm": "stage1/ful", "vdm": "sft", "reward": "full"}, "vlm: 'stage1/ful' is unknown; did you mean"),
        ("stage1", {"vlm": "stage2/main", "vdm": "sft", "reward": "full"}, "vlm: 'stage2/main' is unknown"),
        ("stage1", {"vlm": "sft", "vdm": "stage1/full", "reward": "full"}, "vdm: 'stage1/full' is unknown"),
        ("stage1", {"vlm": 3, "vdm": "sft", "reward": "full"}, "vlm: 3 is unknown"),
        (
            "stage1",
            {"vlm": "stage1/new", "vdm": "sft", "reward": "full"},
            "starts from itself, stage1/new from stage1/n",
        ),
        ("answer", {**SFT, "captions": "truth"}, "captions: 'truth' is unknown; known: vlm, ground_truth, none"),
        ("answer", {**SFT, "reward": "full"}, "'reward' is unknown; known: vlm, vdm, captions"),
        ("answer", {**SFT, "best_of": 8}, "best_of: must hold n and by, not 8"),
        ("answer", {**SFT, "best_of": {"n": 8}}, "best_of: must hold n and by, not {'n': 8}"),
        ("answer", {**SFT, "best_of": {"n": 1, "by": "clip_t_own"}}, "best_of: n: 1 is not a whole number from 2 up"),
        ("answer", {**SFT, "best_of": {"n": True, "by": "clip_t_own"}}, "best_of: n: True is not a whole number"),
        (
            "answer",
            {**SFT, "best_of": {"n": 8, "by": "clip_t"}},
            "best_of: by: 'clip_t' is unknown; did you mean clip_",
        ),
        (
            "answer",
            {**SFT, "captions": "none", "best_of": {"n": 8, "by": "video_event"}},
            "best_of: captions: none gives no answers to choose among; leave it out",
        ),
        ("systems_answer", {"models": "systems/unifid"}, "models: 'systems/unifid' is unknown; did you mean systems/u"),
        ("systems_answer", {"model": "sft"}, "must hold models, not {'model': 'sft'}"),
        ("answer", {"vlm": "sft"}, "vdm: missing; add it"),
        ("answer", {"vlm": "sft", "vdm": "stage2/mian"}, "vdm: 'stage2/mian' is unknown; did you mean stage2/main?"),
    ],
)
def test_a_row_that_is_not_right_is_one_line(tmp_path, stage, row, said):
    stages = copy.deepcopy(GRAPH)
    stages[stage]["foreach"]["new"] = row
    with pytest.raises(UserError) as caught:
        Grid(PARAMS, _written(tmp_path, stages))
    line = str(caught.value)
    assert line.startswith(f"dvc.yaml: {stage}: new: {said}") and "\n" not in line


def test_an_unknown_cell_or_arm_is_one_line():
    with pytest.raises(UserError, match=r"^dvc.yaml: stage2: 'no_c' is unknown; did you mean no_c2\? known: main, "):
        GRID.cell("stage2", "no_c")
    with pytest.raises(UserError, match=r"^dvc.yaml: answer: 'mian' is unknown; did you mean main\?"):
        GRID.arm("mian")
    line = "add the line `release: {vlm: release, vdm: release}` there"
    with pytest.raises(UserError, match=re.escape(f"dvc.yaml: answer: no arm 'release'; {line}")):
        GRID.arm("release")
    with pytest.raises(UserError, match=r"^'cascade' is another system, .* alone; use main, stage1 or sft$"):
        GRID.arm("cascade")


# ---- against DVC itself --------------------------------------------------------------------------------------
def _repo(folder: Path, stages: dict[str, Any]) -> Any:
    """A repository of DVC alone with this graph; whatever its stages read or write is there, empty."""
    from dvc.repo import Repo

    shutil.copyfile(ROOT / "params.yaml", folder / "params.yaml")
    repo = Repo.init(str(_written(folder, stages)), no_scm=True)
    for stage in repo.index.stages:
        for path in (Path(thing.fs_path) for thing in (*stage.deps, *stage.outs)):
            (path.parent if path.suffix else path).mkdir(parents=True, exist_ok=True)
            if path.suffix:
                path.touch()
    return repo


def _behind(repo: Any, target: str) -> set[str]:
    """The stages that one needs."""
    graph = repo.index.graph
    todo = [stage for stage in graph if stage.name == target]
    found: set = set()
    while todo:
        new = {stage for node in todo for stage in graph.successors(node)} - found
        found |= new
        todo = list(new)
    return {stage.name for stage in found}


@pytest.fixture(scope="module")
def rounds(tmp_path_factory) -> tuple[Path, Any]:
    """Rounds as lines of dvc.yaml: 1, 2, 1, 2 and a third one; and 2, 1, the other way round."""
    stages = copy.deepcopy(GRAPH)
    stages["stage1"]["foreach"] |= {
        "round2": {"vlm": "stage1/full", "vdm": "stage2/main", "reward": "full", "steps": 20},
        "round3": {"vlm": "stage1/round2", "vdm": "stage2/round2", "reward": "full"},
        "after2": {"vlm": "sft", "vdm": "stage2/vdm_only", "reward": "full"},
    }
    stages["stage2"]["foreach"] |= {
        "round2": {"vlm": "stage1/round2", "vdm": "stage2/main", "reward": "full"},
        "round3": {"vlm": "stage1/round3", "vdm": "stage2/round2", "reward": "full"},
    }
    stages["answer"]["foreach"] |= {
        "round2": {"vlm": "stage1/round2", "vdm": "stage2/round2"},
        "round3": {"vlm": "stage1/round3", "vdm": "stage2/round3"},
        "reversed": {"vlm": "stage1/after2", "vdm": "stage2/vdm_only"},
    }
    stages["score"]["foreach"] += ["round2", "round3", "reversed"]
    folder = tmp_path_factory.mktemp("rounds")
    return folder, _repo(folder, stages)


def test_the_main_chain_is_what_the_main_table_needs(rounds):
    cells = {name for name in _behind(rounds[1], "benchmarks") if "@" in name}
    assert cells == GRID.main_chain()


def test_what_the_grid_calls_the_rest_is_behind_the_other_table(rounds):
    names = {stage.name for stage in rounds[1].index.stages if "@" in stage.name}
    assert _behind(rounds[1], "ablations") >= names


@pytest.mark.parametrize("cells, table", [("main", "benchmarks"), ("all", "ablations")])
def test_a_seed_is_timed_in_an_order_in_which_it_can_run(tmp_path, cells, table):
    from benchmarks import seed

    graph = _repo(tmp_path, GRAPH).index.graph
    before = {stage.name: {needed.name for needed in graph.successors(stage)} for stage in graph}
    others = {f"{made}@{key}" for made in ("systems_answer", "score") for key in GRID.systems}
    assert {Path(path).stem for path in seed.of_others(ROOT)} == set(GRID.systems)
    ran = {"curate", "base", *others}  # what the trees get from the root
    for stage in [stage for turn in seed.stages(ROOT, cells) for stage in turn]:
        assert stage not in ran and before[stage] <= ran, stage
        ran.add(stage)
    arms = [key for key in GRID.arms if cells == "all" or f"answer@{key}" in GRID.main_chain()]
    assert table in ran and {f"{made}@{key}" for made in ("answer", "score") for key in arms} <= ran
    assert {stage.partition("@")[0] for stage in ran - others}.isdisjoint({"systems", "systems_answer", "pictures"})


def test_a_seed_is_timed_where_arms_are_answered_and_scored_at_once(tmp_path):
    from benchmarks import seed

    cells: dict[str, Any] = {
        "stage1": {"foreach": {"full": {}, "no_v1": {}}},
        "stage2": {"foreach": {"main": {}}},
        "all_in_one": {},
    }
    arms: dict[str, Any] = {"evaluate": {"foreach": {"copy": {}, "main": {}, "no_v1": {}}}}
    tables = {
        "benchmarks": {"deps": ["triplets", "results/scores/copy.csv", "predictions/main"]},
        "ablations": {"deps": []},
    }
    _written(tmp_path, {"strip": {}, "sft": {}, **cells, **arms, **tables})
    assert seed.of_others(tmp_path) == []
    first = [["strip", "sft"], ["stage1@full"], ["stage2@main"]]
    assert seed.stages(tmp_path, "main") == [*first, ["evaluate@copy", "evaluate@main"], ["benchmarks"]]
    assert seed.stages(tmp_path, "all") == [
        ["strip", "sft"],
        ["stage1@full", "stage1@no_v1"],
        ["stage2@main"],
        ["all_in_one"],
        ["evaluate@copy", "evaluate@main", "evaluate@no_v1"],
        ["benchmarks", "ablations"],
    ]


def test_rounds_are_cells(rounds):
    grid = Grid(PARAMS, rounds[0])
    cell = grid.cell("stage1", "round2")
    assert (cell.vlm_folder, cell.vdm_folder) == ("models/stage1/full/vlm", "models/stage2/main/vdm")
    assert (cell.out, cell.curves, cell.steps) == ("models/stage1/round2", "curves/stage1/round2", 20)
    assert grid.cell("stage1", "after2").vdm_folder == "models/stage2/vdm_only/vdm"
    arm = grid.arm("round3")
    assert (arm.vlm_folder, arm.vdm_folder) == ("models/stage1/round3/vlm", "models/stage2/round3/vdm")
    assert grid.main_chain() == GRID.main_chain()


def test_dvc_runs_rounds_in_their_order(rounds, monkeypatch):
    folder, repo = rounds
    monkeypatch.chdir(folder)
    chain = ["stage1@full", "stage2@main", "stage1@round2", "stage2@round2", "stage1@round3", "stage2@round3"]
    ran = [stage.name for stage in repo.reproduce(["score@round3"], dry=True)]
    assert [name for name in ran if name in chain] == chain
    assert set(ran) == _behind(repo, "score@round3") | {"score@round3"}
    assert ran[-2:] == ["answer@round3", "score@round3"]
    ran = [stage.name for stage in repo.reproduce(["score@reversed"], dry=True)]
    assert ran[-4:] == ["stage2@vdm_only", "stage1@after2", "answer@reversed", "score@reversed"]
    steps = next(stage.cmd for stage in repo.index.stages if stage.name == "stage1@round2")
    assert steps.endswith("--cell round2 --vlm stage1/full --vdm stage2/main --reward full --steps 20")


# ---- code ----------------------------------------------------------------------------------------------------
def test_every_notebook_has_its_stage_and_every_stage_its_notebook():
    assert {_notebook(stage): stage for stage in STAGES}.keys() == NOTEBOOKS.keys()
    assert len({_notebook(stage) for stage in STAGES}) == len(STAGES)
    assert set(code.ENTRIES) == set(STAGES) - set(TABLES)


@pytest.mark.parametrize("stage", STAGES)
def test_a_stage_depends_on_its_code_and_its_notebook(stage):
    wanted = [f"code/{'tables' if stage in TABLES else stage}.txt", f"code/notebooks/{_notebook(stage)}.txt"]
    if stage in TRAINED:
        wanted.insert(1, f"code/rewards/{stage}.${{item.reward}}.txt")
        assert f"rewards.{stage}.${{item.reward}}" in _body(stage)["params"]
    if stage == "pictures":
        wanted[1:1] = [f"code/rewards/{trained}.full.txt" for trained in ("stage1", "stage2")]
    assert [dep for dep in _body(stage)["deps"] if dep.startswith("stripped")] == [f"stripped/{p}" for p in wanted]
    assert not [dep for dep in _body(stage)["deps"] if dep.startswith(("vans", "notebooks"))]


@pytest.mark.parametrize("stage", code.ENTRIES)
def test_a_notebook_calls_what_writes_its_outputs(stage):
    cells = json.loads(NOTEBOOKS[_notebook(stage)].read_text(encoding="utf-8"))["cells"]
    sources = ["".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"]
    modules = {module for source in sources for module in code.imported(ast.parse(source), "", ROOT)}
    assert modules.issuperset(code.ENTRIES[stage])


@pytest.mark.parametrize("stage", ["answer", *TRAINED])
def test_a_stage_reads_the_models_of_its_row(stage):
    models = [dep for dep in _body(stage)["deps"] if dep.startswith("models/")]
    assert models == ["models/base", "models/${item.vlm}/vlm", "models/${item.vdm}/vdm"]


# ---- parameters ----------------------------------------------------------------------------------------------
MACHINE = {"device", "dtype", "processes"}  # the rest of it is speed and memory
NO_PARAMETER = {"keep", "scale", "machine"}
# Sections that a module behind the stage names for another stage; the presets are listed one by one.
OTHERS = {"all_in_one": {"generate"}}
# Sections of which `strip` puts a digest of what counts into the stage's code file, in the place of parameters.
DIGESTED = {"curate": {"curate", "machine", "models"}, "stage2": {"generate"}}
IN_PARTS = {("models", "detector")}  # its hash decides scores alone


def _modules(stage: str) -> set[str]:
    """All that can change the stage's outputs, with the terms of its presets and the annotator in use."""
    entries = list(code.ENTRIES[stage])
    if stage in TRAINED:
        terms = {term for preset in getattr(PARAMS.rewards, stage).values() for term in preset}
        entries += [f"vans/rewards/terms/{term}.py" for term in sorted(terms)]
    if stage == "curate":
        entries.append("vans/data/annotate/rulebook.py")
    return code.behind(entries, ROOT)


def _used(stage: str) -> set[tuple[str, ...]]:
    """("stage1",) where a module takes a whole section of the parameters, ("curate", "codec") where it takes a key."""
    texts = [(ROOT / module).read_text(encoding="utf-8") for module in _modules(stage)]
    found = {tuple(name.split(".")) for text in texts for name in re.findall(r"\bparams\.(\w+(?:\.\w+)?)", text)}
    known = set(type(PARAMS).model_fields) - NO_PARAMETER - {"rewards"} - OTHERS.get(stage, set())
    known -= DIGESTED.get(stage, set())
    return {path for path in found if path[0] in known}


def _listed(stage: str) -> list[tuple[str, ...]]:
    """Its parameters as keys from the top of params.yaml, but for presets of rewards, with the current scale."""
    keys = [key.replace("${scale}", PARAMS.scale) for key in _body(stage)["params"]]
    return [tuple(key.split(".")) for key in keys if not key.startswith("rewards.")]


def _below(path: tuple[str, ...]) -> tuple[str, ...]:
    return path[1:] if path[0] == "defaults" else path[2:] if path[0] == "scales" else path


def _at(path: tuple[str, ...], missing: Any = None) -> Any:
    value: Any = TREE
    for key in path:
        value = value.get(key, missing) if isinstance(value, dict) else missing
    return value


def _holds_anything(value: Any) -> bool:
    return any(map(_holds_anything, value.values())) if isinstance(value, dict) else value is not None


@pytest.mark.parametrize("stage", code.ENTRIES)
def test_a_stage_lists_the_parameters_that_it_uses_and_no_others(stage):
    listed, used = {_below(path) for path in _listed(stage)}, _used(stage)
    sections = {path for path in listed if path[0] != "machine"}
    parts = {one[:2] for one in sections if one[:2] in IN_PARTS}
    missing = {path for path in used if not any(path[: len(one)] == one for one in sections | parts)}
    idle = {one for one in sections if not any(path[: len(one)] == one[: len(path)] for path in used)}
    assert not missing, "add to its params in dvc.yaml"
    assert not idle, "remove from its params in dvc.yaml"
    machine = {path[1] for path in listed if path[0] == "machine"}
    texts = [(ROOT / module).read_text(encoding="utf-8") for module in _modules(stage)]
    starts = any(re.search(r"launch\([^)]*params\.machine", text) for text in texts)
    drawn = {"sampler"} if any(re.search(r"\b(vlm|policy|anchor\w*)\.sample\(", text) for text in texts) else set()
    assert machine == {"dtype", "processes"} | drawn if starts else machine <= MACHINE


@pytest.mark.parametrize("stage", code.ENTRIES)
def test_a_section_is_listed_wherever_it_stands(stage):
    listed = _listed(stage)
    for path in listed:
        below = _below(path)
        for place in (("defaults",), ("scales", PARAMS.scale)):
            if path != below and _holds_anything(_at((*place, *below))):
                assert (*place, *below) in listed, f"{'.'.join((*place, *below))}: add to its params in dvc.yaml"


@pytest.mark.parametrize("stage", GRAPH)
def test_what_a_stage_lists_exists_at_every_scale(stage):
    for key in _body(stage).get("params", []):
        for scale in TREE["scales"]:
            rewards = [""] if "${item.reward}" not in key else getattr(PARAMS.rewards, stage)
            for reward in rewards:
                path = key.replace("${scale}", scale).replace("${item.reward}", reward).split(".")
                assert _at(tuple(path), missing=KeyError) is not KeyError, key


def test_every_section_is_some_stages_parameter():
    """A section that no stage lists could change without anything being run again."""
    listed = {_below(path)[0] for stage in code.ENTRIES for path in _listed(stage)}
    everywhere = set(TREE["defaults"]) | set(TREE["scales"][PARAMS.scale])
    # the judge's settings stand in the digest of the presets that use it, which `strip` writes
    assert everywhere - {"keep", "judge"} <= listed
    assert {"defaults.judge", "scales.${scale}.judge"} <= set(GRAPH["strip"]["params"])


def test_strip_follows_what_chooses_code():
    named = set(re.findall(r"\bparams\.(\w+)", (ROOT / "vans/code.py").read_text())) - {"yaml"}
    assert named == {"curate", "evaluate", "generate", "judge", "machine", "models", "rewards"}
    whole = [name.replace("models", "models.clip") for name in named - {"machine", "rewards"}]
    twice = [f"{place}.{name}" for name in whole for place in ("defaults", "scales.${scale}")]
    # stage1.reward and stage2.reward: so that a preset that does not exist is refused by vans, in its one line
    others = {"scale", "rewards", "stage1.reward", "stage2.reward", "scales.${scale}.machine.device"}
    assert set(GRAPH["strip"]["params"]) == {*others, *twice}
