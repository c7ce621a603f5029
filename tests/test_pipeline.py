"""The whole graph in clean clones at smoke size: every notebook headless, nothing twice, the same bytes."""

import json
import re
import shutil
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests import smoke
from vans.grid import Grid
from vans.params import load
from vans.tables import report

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif(not list((smoke.ROOT / "notebooks").glob("*.ipynb")), reason="no notebooks"),
]
NOTEBOOKS = [path.stem for path in sorted((smoke.ROOT / "notebooks").glob("*.ipynb"))]


@pytest.fixture(scope="module")
def clones(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two clean clones: the main chain by `vans repro`, whose stages are forks, and each kind of its stages, up to a
    score, by DVC alone."""
    folder = tmp_path_factory.mktemp("clones")
    first = smoke.clone(folder / "first")
    second = smoke.clone(folder / "elsewhere" / "second")
    ways = {first: ("vans.cli", "repro", "benchmarks"), second: ("dvc", "repro", "score@main")}
    smoke.run_in_each({root: (sys.executable, "-m", *way) for root, way in ways.items()})
    return first, second


@pytest.fixture(scope="module")
def whole(clones: tuple[Path, Path]) -> Iterator[Path]:
    """The first clone with the whole grid, committed; DVC itself and all that it starts are forks from now on."""
    root = clones[0]
    with smoke.forks(root, "dvc.cli.parser", "dvc.repo.experiments"):
        smoke.dvc(root, "repro")
        smoke.commit(root, "everything run")
        yield root


def test_two_clones_give_the_same_lock(clones):
    """To the hash of every output. In a new lock DVC writes stages in the order in which it has run them, and of
    several that could be next it takes any (its graph of a target is a set); a lock that is there keeps its order."""
    locks = [yaml.safe_load((clone / "dvc.lock").read_text())["stages"] for clone in clones]
    assert len(locks[0]) == 30 and len(locks[1]) == 8 and {name: locks[0].get(name) for name in locks[1]} == locks[1]


def test_every_notebook_ran_headless_and_left_a_page(whole):
    names = {path.name.split(".")[0] for path in (whole / "executed").glob("*.ipynb")}
    assert names == set(NOTEBOOKS)
    for path in (whole / "executed").glob("*.ipynb"):
        assert path.with_suffix(".html").stat().st_size > 0
        text = path.read_text()
        assert '"output_type": "error"' not in text
        assert not re.search(r"\w+Warning\b", text), "of a library"


def test_the_tables_are_there_and_printed(whole):
    grid = Grid(load(whole), whole)
    assert {path.stem for path in (whole / "results/scores").glob("*.json")} == {*grid.arms, *grid.systems}
    assert (whole / "results/pictures.md").stat().st_size > 0
    for name in ("main", "ablation"):
        for suffix in (".csv", ".md", ".png"):
            assert (whole / f"results/{name}{suffix}").stat().st_size > 0
    said = smoke.vans(whole, "summary")
    for name in ("main", "ablation"):
        assert report.short((whole / f"results/{name}.md").read_text()) in said
    assert "executed/*.html" in said
    json.loads((whole / "results/metrics.json").read_text())


def test_a_second_repro_does_nothing_within_seconds(whole):
    start = time.monotonic()
    said = smoke.dvc(whole, "repro")
    assert "up to date" in said and smoke.ran(said) == []
    assert time.monotonic() - start < 20, "10 s on an idle machine"
    assert smoke.run("git", "status", "--porcelain", cwd=whole) == ""


def test_opening_and_saving_a_notebook_retrains_nothing(whole):
    name = f"{NOTEBOOKS[3]}.ipynb"
    path = whole / "notebooks" / name
    clean = path.read_bytes()
    executed = next((whole / "executed").glob(f"{NOTEBOOKS[3]}*.ipynb"))
    shutil.copyfile(executed, path)  # outputs, counts, metadata, the injected cell
    try:
        assert smoke.ran(smoke.dvc(whole, "repro")) == ["strip"]
    finally:
        path.write_bytes(clean)
        smoke.dvc(whole, "repro")


def test_a_notebook_runs_from_whatever_folder_and_writes_the_same(whole):
    before = (whole / "dvc.lock").read_bytes()
    source, target = whole / "notebooks/10_benchmarks.ipynb", whole / "executed/elsewhere.ipynb"
    script = (
        f"import papermill; papermill.execute_notebook({str(source)!r}, {str(target)!r}, "
        f"cwd={str(whole / 'notebooks')!r}, kernel_name='python3', progress_bar=False)"
    )
    smoke.run(sys.executable, "-c", script, cwd=whole)
    target.unlink()
    assert "up to date" in smoke.dvc(whole, "repro") and (whole / "dvc.lock").read_bytes() == before


def test_an_experiment_runs_stage_2_what_uses_its_model_and_the_tables_only(whole):
    said = smoke.dvc(whole, "exp", "run", "--name", "without-c2", "-S", "stage2.reward=no_c2")
    of_its_model = [f"{stage}@{arm}" for stage in ("answer", "score") for arm in ("main", "ceiling_main")]
    expected = ["strip", "stage2@main", *of_its_model, "benchmarks", "ablations"]
    assert sorted(smoke.ran(said)) == sorted(expected)
    changed = {line[3:] for line in smoke.run("git", "status", "--porcelain", cwd=whole).splitlines()}
    assert changed == {"dvc.lock", "params.yaml"}
    assert "without-c2" in smoke.dvc(whole, "exp", "show", "--csv")
    assert "stage2.reward" in smoke.dvc(whole, "params", "diff")
    # and back: everything comes from the cache
    smoke.run("git", "checkout", "--quiet", "params.yaml", "dvc.lock", cwd=whole)
    smoke.dvc(whole, "checkout")
    assert "up to date" in smoke.dvc(whole, "repro")


def test_a_misspelt_experiment_is_refused(whole):
    assert "rewrad" in smoke.dvc(whole, "exp", "run", "-S", "stage2.rewrad=no_c2", code=255)
    said = smoke.dvc(whole, "exp", "run", "-S", "stage2.reward=no_c3", code=255)
    assert "vans: params.yaml: stage2.reward: 'no_c3' is unknown; use full, no_c2 or no_v2" in said
    smoke.run("git", "checkout", "--quiet", "params.yaml", "dvc.lock", cwd=whole)
    smoke.dvc(whole, "checkout")


def test_curves_and_metrics_can_be_shown(whole):
    assert "results/metrics.json" in smoke.dvc(whole, "metrics", "show")
    assert "index.html" in smoke.dvc(whole, "plots", "show")
