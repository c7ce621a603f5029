"""Notebooks as stages: stripping, parameters, how errors in cells end; and the committed notebooks' form."""

import ast
import importlib
import os
import re
import subprocess
import sys
import types

import nbformat
import pytest
import yaml
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

from tests import smoke
from vans import notebooks, warm
from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.params import from_dict, load, read
from vans.show import videos
from vans.toy import world

COMMITTED = sorted((smoke.ROOT / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in COMMITTED]


def _notebook(*sources, parameters="examples = 6\ncell = None"):
    cells = [new_markdown_cell("# title"), new_code_cell(parameters, metadata={"tags": ["parameters"]})]
    return new_notebook(cells=cells + [new_code_cell(source) for source in sources])


def test_stripping_drops_whatever_running_and_saving_changes():
    clean = _notebook("print(1)")
    used = _notebook("print(1)")
    used.metadata.update({"papermill": {"start_time": "now"}, "widgets": {"state": 1}})
    used.cells[2].outputs = [new_output("stream", text="1\n")]
    used.cells[2].execution_count = 7
    used.cells[2].metadata.update({"collapsed": True, "tags": []})
    used.cells.insert(2, new_code_cell("cell = 1", metadata={"tags": ["injected-parameters"]}))
    assert notebooks.stripped(used) == notebooks.stripped(clean)
    nbformat.validate(notebooks.stripped(used))
    assert notebooks.stripped(clean).cells[1].metadata.tags == ["parameters"]


def test_strip_writes_only_what_changes(tmp_path):
    source, out = tmp_path / "notebooks", tmp_path / "stripped"
    with pytest.raises(UserError, match="no notebooks there"):
        notebooks.strip(source, out)
    source.mkdir()
    nbformat.write(_notebook("1"), source / "a.ipynb")
    out.mkdir()
    (out / "gone.ipynb").touch()
    (copy,) = notebooks.strip(source, out)
    before = copy.stat().st_mtime_ns
    notebooks.strip(source, out)
    assert copy.stat().st_mtime_ns == before and list(out.iterdir()) == [copy]


@pytest.mark.parametrize("text", ["", "{", '{"cells": 1}'])
def test_a_broken_notebook_is_a_user_error(tmp_path, text):
    (tmp_path / "a.ipynb").write_text(text)
    with pytest.raises(UserError, match="not a notebook"):
        notebooks.strip(tmp_path, tmp_path / "out")


def test_parameters_must_be_in_the_one_tagged_cell(tmp_path):
    notebooks.check_parameters(_notebook(), {"cell": "main"}, tmp_path)
    with pytest.raises(UserError, match="arm is not in its parameters cell; it has examples, cell"):
        notebooks.check_parameters(_notebook(), {"arm": "main"}, tmp_path)
    with pytest.raises(UserError, match="has 0 cells tagged `parameters`"):
        notebooks.check_parameters(new_notebook(), {}, tmp_path)


@pytest.fixture
def repository(tmp_path):
    """A folder with parameters and room for notebooks."""
    (tmp_path / "notebooks").mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((smoke.ROOT / name).read_bytes())
    return tmp_path


def _run(root, *arguments):
    command = [sys.executable, "-m", "vans.notebooks", "run", *arguments]
    env = smoke.environment(smoke.ROOT)
    return subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)


def test_a_run_leaves_the_executed_copy_and_its_page(repository):
    nbformat.write(_notebook("import os; print(cell, os.getcwd())"), repository / "notebooks/a.ipynb")
    done = _run(repository, "a", "--cell", "no_t1")
    assert done.returncode == 0, done.stderr
    assert f"no_t1 {repository}" in done.stdout
    assert {p.name for p in (repository / "executed").iterdir()} == {"a.no_t1.ipynb", "a.no_t1.html"}


def test_the_word_to_start_workers_is_gone_after_the_notebook(repository, monkeypatch):
    told = []

    def execute(*_, **__):
        told.append(os.environ.get(warm.VARIABLE))
        raise KeyboardInterrupt

    monkeypatch.setattr("papermill.execute_notebook", execute)
    monkeypatch.setattr(os, "environ", dict(os.environ))
    nbformat.write(_notebook("cell"), repository / "notebooks/04_stage1.ipynb")
    with pytest.raises(KeyboardInterrupt):
        notebooks.run("04_stage1", {"cell": "full"}, root=repository)
    assert told == ["2 1 vans.train.stage1"] and warm.VARIABLE not in os.environ


def test_the_page_reads_without_a_network(tmp_path):
    text = r"""# Title
Inline $z_\sigma=(1-\sigma)z_0$ and $a<b$, code `$not$`, a broken one: $\frac$.

$$J=\frac1G\sum_i\underbrace{x_i}_{\text{the form}}
+\Big[\min\big(a,\ b\big)\Big]$$

\begin{equation}E=mc^2\end{equation}
"""
    shown = new_output("display_data", data={"text/markdown": "found $x^2$"})
    cell = new_code_cell("1", execution_count=1, outputs=[shown])
    path = tmp_path / "a.ipynb"
    nbformat.write(new_notebook(cells=[new_markdown_cell(text), cell]), path)
    notebooks.write_html(path)
    page = path.with_suffix(".html").read_text()
    assert not re.search(r"""<(script|link|iframe|img)[^>]*(src|href)=["']?(https?:)?//""", page)
    assert not re.search(r"@import|url\(.?(https?:)?//|\bimport\(|<script", page)
    body = page[page.index("<body") :]
    assert body.count("<math") == 5 and "<code>$not$</code>" in body and "<code>\\frac</code>" in body
    assert "$$" not in body and "\\sum" not in body and "begin{equation}" not in body


def test_the_page_shows_a_progress_bar_as_a_terminal_does_at_its_end(tmp_path):
    told = ["step 1\n\rbar:  0%", "\rbar: 50%", "\r        \r", "step 2\n\rbar: 50%", "\rbar: 100%", "\n", "done"]
    outputs = [new_output("stream", name="stdout", text=text) for text in told]
    path = tmp_path / "a.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell("1", execution_count=1, outputs=outputs)]), path)
    notebooks.write_html(path)
    assert "<pre>step 1\nstep 2\nbar: 100%\ndone</pre>" in path.with_suffix(".html").read_text()
    assert "50%" in path.read_text(), "the notebook keeps what was printed"


def test_formulas_of_the_committed_notebooks_can_be_drawn():
    for path in COMMITTED:
        notebook = nbformat.read(path, as_version=4)
        text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
        text = re.sub(r"`[^`]*`", "", text)
        for block, inline in re.findall(r"\$\$(.+?)\$\$|\$(.+?)\$", text, re.DOTALL):
            assert notebooks.mathml(block or inline, "block").startswith("<math"), block or inline


def test_a_user_error_in_a_cell_is_one_line_and_any_other_shows_its_traceback(repository):
    raises = "from vans.errors import UserError\nraise UserError('data/x.avi: empty; remove it')"
    nbformat.write(_notebook(raises), repository / "notebooks/a.ipynb")
    nbformat.write(_notebook("1 / 0"), repository / "notebooks/b.ipynb")
    done = _run(repository, "a")
    assert done.returncode == 1
    assert done.stderr.strip().splitlines()[-1] == "vans: data/x.avi: empty; remove it"
    assert "Traceback" not in done.stderr
    done = _run(repository, "b")
    assert done.returncode == 1 and "ZeroDivisionError" in done.stderr
    nbformat.write(_notebook("raise KeyboardInterrupt"), repository / "notebooks" / "c.ipynb")
    done = _run(repository, "c")
    assert done.returncode == 130 and done.stderr.strip().splitlines()[-1] == "vans: stopped"


def test_the_grid_stops_where_it_is_switched_off(repository):
    path = repository / "params.yaml"
    text = path.read_text().replace("grid: true", "grid: false")
    path.write_text(text)
    with pytest.raises(UserError, match="machine.grid: the ablation grid is off at this scale .stage1@no_t1 belongs"):
        notebooks.check_grid(repository, "stage1@no_t1")
    with pytest.raises(UserError, match="ablations belongs to it"):
        notebooks.check_grid(repository, "ablations")
    for stage in ("stage1@full", "sft", "answer@main", "score@main", "benchmarks"):
        notebooks.check_grid(repository, stage)
    # an arm of the imported release trains nothing; one that needs a cell of the grid does
    graph = repository / "dvc.yaml"
    told = graph.read_text()
    rows = "release: {vlm: release, vdm: release}\n      half: {vlm: stage1/no_t1, vdm: release}\n      "
    graph.write_text(told.replace("copy: {vlm: sft", f"{rows}copy: {{vlm: sft", 1))
    for stage in ("answer@release", "score@release"):
        notebooks.check_grid(repository, stage)
    with pytest.raises(UserError, match="answer@half belongs to it"):
        notebooks.check_grid(repository, "answer@half")
    graph.write_text(told)
    # what the main chain follows may be trained, whichever preset that is
    path.write_text(text.replace("stage1:\n  reward: full\n", "stage1:\n  reward: no_t1\n", 1))
    notebooks.check_grid(repository, "stage1@no_t1")
    path.write_text(text.replace("grid: false", "grid: true"))
    notebooks.check_grid(repository, "ablations")


# ------------------------------------------------------------------------------------ the committed notebooks
@pytest.mark.parametrize("path", COMMITTED, ids=NAMES)
def test_form_of_the_committed_notebooks(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert all(not cell.outputs and cell.execution_count is None for cell in code), "outputs in git"
    assert sum("parameters" in cell.metadata.get("tags", []) for cell in code) == 1
    assert sum(len(cell.source.strip().splitlines()) for cell in code) < 150
    for cell in code:
        for node in ast.walk(ast.parse(cell.source)):
            assert not isinstance(node, ast.FunctionDef | ast.ClassDef), "functions belong in vans/"
    assert notebook.cells[0].cell_type == "markdown", "starts with what it is about"


@pytest.mark.parametrize("path", COMMITTED, ids=NAMES)
def test_what_a_notebook_takes_from_vans_is_there(path):
    cells = nbformat.read(path, as_version=4).cells
    tree = ast.parse("\n".join(cell.source for cell in cells if cell.cell_type == "code"))
    modules: dict = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("vans"):
            for alias in node.names:
                module = importlib.import_module(node.module)
                if not hasattr(module, alias.name):
                    importlib.import_module(f"{node.module}.{alias.name}")
                found = getattr(module, alias.name)
                modules |= {alias.asname or alias.name: found} if isinstance(found, types.ModuleType) else {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in modules:
            assert hasattr(modules[node.value.id], node.attr), ast.unparse(node)


TRAINERS = COMMITTED[:6]
EXECUTED = {"04_stage1": ".full", "05_stage2": ".main", "06_all_in_one": ".full"}
NOT_OURS = r"\b(paint\w*|brush|writers?|judges?|films?|scripts?)\b"  # the field says VLM, VDM, render, CLIP, video


@pytest.mark.parametrize("path", TRAINERS, ids=[path.stem for path in TRAINERS])
def test_a_notebook_trains_on_the_parameters_that_it_shows(path):
    cells = nbformat.read(path, as_version=4).cells
    assert f"(../executed/{path.stem}{EXECUTED.get(path.stem, '')}.html)" in cells[0].source, "its executed twin"
    code = "\n".join(cell.source for cell in cells if cell.cell_type == "code")
    loaded = code.index("params = load(root)\n")
    (change,) = re.findall(r"# (params = params.with_\(.*\))\n", code)
    calls = [
        node
        for node in ast.walk(ast.parse(code))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith((".train", "curate"))
    ]
    assert loaded < code.index(change) < code.index(ast.unparse(calls[0].func) + "(")
    assert any(ast.unparse(argument) == "params" for argument in calls[0].args)
    names = {"params": load(smoke.ROOT)}
    before = names["params"].resolved()
    exec(change, names)  # the change that it proposes is one that the parameters take
    assert names["params"].resolved() != before
    words = "\n".join(cell.source for cell in cells)
    assert not re.findall(NOT_OURS, words, re.IGNORECASE)


def test_the_curation_notebook_plays_no_more_than_it_is_asked_to(tmp_path, monkeypatch):
    tree = read(smoke.ROOT / "params.yaml")
    sizes = {"procedural_train": 4, "procedural_test": 1, "predictive_train": 12, "predictive_test": 1}
    tree["world"] |= sizes
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tree, sort_keys=False))
    (tmp_path / "dvc.yaml").touch()
    world.generate(tmp_path / "data", from_dict(tree).world)
    monkeypatch.chdir(tmp_path)
    shown: list = []
    decoded: list = []
    clips = Triplets.clips
    monkeypatch.setattr(videos, "gallery", lambda rows, fps, **size: shown.append(list(rows)))

    def counted(self, ids, which):
        decoded.extend(ids)
        return clips(self, ids, which)

    monkeypatch.setattr(Triplets, "clips", counted)
    notebook = nbformat.read(smoke.ROOT / "notebooks" / "01_data_curation.ipynb", as_version=4)
    code = {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "code"}
    params = from_dict(tree)
    names: dict = {"params": params, "clip": params.video, "video": params.video}
    for id in ("cell-1", "cell-2", "cell-11", "cell-15"):
        exec(code[id], names)
        names |= {"most": 2, "compared": 3, "scenes": 1}
    assert [len(rows) for rows in shown] == [3, 1]  # two inputs and the last target; one scene
    assert len(decoded) == 3 + 3 * 2 + 2
    shown.clear()
    decoded.clear()
    names["toy"] = False
    exec(code["cell-15"], names)
    assert not decoded and not shown


@pytest.mark.parametrize("where", ["in a cell", "beside it"])
def test_a_full_disk_is_one_line(tmp_path, monkeypatch, where):
    import papermill
    from papermill.exceptions import PapermillExecutionError

    def full(*_, **__):
        if where == "beside it":  # the executed copy
            raise OSError(28, "No space left on device")
        said = "[Errno 28] No space left on device"
        raise PapermillExecutionError(1, 1, "x", "OSError", said, ["Traceback", f"OSError: {said}"])

    (tmp_path / "stripped").mkdir()
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((smoke.ROOT / name).read_bytes())
    nbformat.write(_notebook("1"), tmp_path / "stripped/a.ipynb")
    monkeypatch.setattr(papermill, "execute_notebook", full)
    monkeypatch.setattr(notebooks, "set_environment", lambda *_: None)
    with pytest.raises(UserError, match="a(.ipynb)?: no space left on the disk; free some and run again"):
        notebooks.run("a", {}, root=tmp_path)
