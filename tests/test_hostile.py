"""What is hostile or damaged ends in one line or is right, never in a traceback, and nothing is written outside."""

import importlib.util

import pytest

from tests import smoke
from vans import code, notebooks
from vans.errors import UserError
from vans.tables.markdown import grid_of


def test_hostile_folders_adapters_predictions_notebooks_texts_and_servers(monkeypatch):
    monkeypatch.setenv("VANS_API_KEY", "")  # it sets its own
    monkeypatch.chdir(smoke.ROOT)
    spec = importlib.util.spec_from_file_location("hostile", smoke.ROOT / "benchmarks/hostile.py")
    assert spec is not None and spec.loader is not None
    hostile = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(hostile)
    found = hostile.main(["--cases", "120", "--seed", "1"])
    for kind, counts in found.items():
        assert counts["cases"] == 20 and counts.get("one line"), (kind, counts)
        assert not counts.get("tracebacks") and not counts.get("long") and not counts["outside"], (kind, counts)


@pytest.mark.parametrize("metadata", ['{"tags": null}', "{}"])
@pytest.mark.parametrize("source", ['"source": "x = 1", ', '"source": null, ', ""])
def test_a_notebook_whose_tools_leave_out_what_is_empty(tmp_path, metadata, source):
    cell = f'{{"cell_type": "code", {source}"metadata": {metadata}, "outputs": [], "execution_count": null}}'
    (tmp_path / "a.ipynb").write_text(f'{{"cells": [{cell}], "metadata": {{}}, "nbformat": 4, "nbformat_minor": 4}}')
    (copy,) = notebooks.strip(tmp_path, tmp_path / "out")
    assert code.of_notebook(copy) == code.of_notebook(tmp_path / "a.ipynb")
    (tmp_path / "b.ipynb").write_text('{"cells": [1]}')
    with pytest.raises(UserError, match="b.ipynb: not a notebook"):
        code.of_notebook(tmp_path / "b.ipynb")


def test_no_name_ends_a_cell_of_a_markdown_table():
    lines = grid_of(["a|b"], [["<b>x</b>\n| y `z`"]]).splitlines()
    assert [line.strip("| ") for line in lines[::2]] == ["a\\|b", "&lt;b>x&lt;/b> \\| y \\`z\\`"] and len(lines) == 3
