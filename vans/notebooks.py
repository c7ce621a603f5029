"""Notebooks as stages: strip their outputs, run them headless.

    python -m vans.notebooks strip                        stripped/: copies without outputs, and digests of the code
    python -m vans.notebooks run 04_stage1 --cell full    papermill on stripped/04_stage1.ipynb

A run leaves ``executed/04_stage1.full.ipynb`` and ``.html`` for people; what counts (models, curves, tables)
is written by the notebook itself. A UserError in a cell ends the run with its one line, any other error with
the cell's traceback, both with an exit code that is not 0.
"""

import sys

from vans import warm_server

if __name__ == "__main__":  # before the other imports, which take as long as a small stage
    if (code := warm_server.instead("vans.notebooks")) is not None:
        sys.exit(code)  # a fork has done it
    # jsonschema would import it, for a format (IRI) that no notebook has; it compiles a grammar each time: 1.4 of the
    # 1.6 s of processor time that nbformat takes (rfc3987-syntax 1.1.0).
    sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]

import argparse
import html
import logging
import os
from pathlib import Path
from typing import Any

import nbformat

from vans import cpu, warm
from vans.errors import UserError
from vans.files import atomic_write_text, is_full, sweep
from vans.grid import Grid
from vans.params import find_root, load
from vans.tables import machines
from vans.visible import visible

EXECUTED = "executed"
SOURCE = "stripped"
# What a notebook trains or renders with, in several processes.
LAUNCHES = {
    "02_base_models": "vans.train.base",
    "03_sft": "vans.train.sft",
    "04_stage1": "vans.train.stage1",
    "05_stage2": "vans.train.stage2",
    "06_all_in_one": "vans.train.all_in_one",
    "07_answer": "vans.answer.arm",
    "12_systems": "vans.train.systems",
    "13_systems_answer": "vans.answer.systems",
    "14_pictures": "vans.train.pictures",
}
LANGUAGE = {
    "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
    "language_info": {"name": "python"},
}


# -------------------------------------------------------------------------------------------------- strip
def stripped(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """A copy with sources and tags only: opening, running and saving a notebook does not change it.

    Dropped: outputs, execution counts, injected parameter cells, widget state, all other metadata. Cell ids
    become numbers.
    """
    cells: list[nbformat.NotebookNode] = []
    for cell in notebook.cells:
        tags = list(cell.metadata.get("tags", []))
        if "injected-parameters" in tags:
            continue
        kept: dict[str, Any] = {
            "id": f"cell-{len(cells)}",
            "cell_type": cell.cell_type,
            "source": cell.source,
        }
        kept["metadata"] = {"tags": tags} if tags else {}
        if cell.cell_type == "code":
            kept |= {"execution_count": None, "outputs": []}
        cells.append(nbformat.from_dict(kept))
    new = {"cells": cells, "metadata": LANGUAGE, "nbformat": 4, "nbformat_minor": 5}
    return nbformat.from_dict(new)


def strip(source: str | Path, out: str | Path) -> list[Path]:
    """Write the stripped copy of every notebook of folder ``source`` into folder ``out``; returns the copies.

    A copy is only written where its text changes; copies of notebooks that are gone are removed.
    """
    source, out = Path(source), Path(out)
    names = sorted(path.name for path in source.glob("*.ipynb"))
    if not names:
        raise UserError(f"{source}: no notebooks there; run in the repository's folder")
    sweep(out)
    for old in out.glob("*.ipynb"):
        if old.name not in names:
            old.unlink()
    for name in names:
        text = nbformat.writes(stripped(read(source / name))) + "\n"
        if not (out / name).exists() or (out / name).read_text(encoding="utf-8") != text:
            atomic_write_text(out / name, text)
    return [out / name for name in names]


def read(path: Path) -> nbformat.NotebookNode:
    """A notebook in the current format; UserError when it is missing or broken."""
    try:
        notebook = nbformat.read(path, as_version=4)
        for cell in notebook.cells:  # tools leave out, or null, what is empty
            cell.source = "".join(cell.get("source") or "")
            cell.metadata = nbformat.from_dict(cell.get("metadata") or {})
            cell.metadata.tags = list(cell.metadata.get("tags") or [])
            cell.cell_type = str(cell.cell_type)
        return notebook
    except FileNotFoundError:
        raise UserError(f"{path}: missing; get it back with `git checkout notebooks`") from None
    except Exception as error:  # nbformat raises many kinds for broken files
        raise UserError(f"{path}: not a notebook: {error}") from error


# ---------------------------------------------------------------------------------------------------- run
def run(name: str, values: dict[str, Any], label: str = "", root: str | Path | None = None) -> Path:
    """Run ``stripped/<name>.ipynb`` with papermill in the repository's root; returns the executed copy.

    ``values`` go into the cell tagged ``parameters`` (one that it does not set is a UserError), ``label``
    into the executed copy's name. The log of the cells streams to stdout.
    """
    import papermill
    from papermill.exceptions import PapermillExecutionError

    root = Path(root or find_root())
    source = root / SOURCE / f"{name}.ipynb"
    if not source.exists():
        strip(root / "notebooks", root / SOURCE)
    check_parameters(read(source), values, source)
    set_environment(root, name)
    target = root / EXECUTED / (f"{name}.{label}.ipynb" if label else f"{name}.ipynb")
    target.parent.mkdir(exist_ok=True)
    target.with_suffix(".html").unlink(missing_ok=True)  # a run that fails must not leave the last one's page
    try:
        papermill.execute_notebook(
            str(source),
            str(target),
            parameters=values,
            kernel_name="python3",
            cwd=str(root),
            log_output=True,
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            extra_arguments=["--IPKernelApp.log_level=50"],
            kernel_manager_class="vans.warm_kernel.Manager",
        )
    except OSError as error:
        if is_full(error):
            raise UserError(f"{target}: no space left on the disk; free some and run again") from error
        raise
    except KeyboardInterrupt:
        logging.getLogger("asyncio").disabled = True  # it would report, with a traceback, that the cell was stopped
        raise
    except PapermillExecutionError as error:
        if error.ename == "UserError":
            raise UserError(error.evalue) from error
        if is_full(error.evalue):
            raise UserError(f"{name}: no space left on the disk; free some and run again") from error
        if error.ename == "KeyboardInterrupt":
            raise KeyboardInterrupt from error
        sys.exit(str(error))
    finally:
        os.environ.pop(warm.VARIABLE, None)  # it was for this notebook's kernel
    write_html(target)
    machine = load(root).machine
    machines.record(root / "results", target.stem, cpu.describe(machine.processes, machine.threads))
    return target


def check_parameters(notebook: nbformat.NotebookNode, values: dict[str, Any], source: Path) -> None:
    """Each of ``values`` must be set in the one cell tagged ``parameters`` (papermill alone only warns)."""
    cells = [cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]
    if len(cells) != 1:
        raise UserError(f"{source}: has {len(cells)} cells tagged `parameters`; tag exactly one")
    known = [line.split("=")[0].split(":")[0].strip() for line in cells[0].source.splitlines() if "=" in line]
    for name in values:
        if name not in known:
            raise UserError(f"{source}: {name} is not in its parameters cell; it has {', '.join(known)}")


def set_environment(root: Path, name: str) -> None:
    """What the kernel and the processes it starts inherit: this copy of the code, threads, determinism, the workers
    that its trainer will want."""
    machine = load(root).machine
    if module := LAUNCHES.get(name):
        os.environ[warm.VARIABLE] = f"{machine.processes} {machine.threads} {module}"
    os.environ.update(environment(root))


def environment(root: Path) -> dict[str, str]:
    """Variables that are the same for all stages."""
    threads, paths = str(load(root).machine.threads), os.environ.get("PYTHONPATH", "").split(os.pathsep)
    return {
        "PYTHONPATH": os.pathsep.join([str(root), *(path for path in paths if path not in ("", str(root)))]),
        "PYTHONHASHSEED": "0",
        "OMP_NUM_THREADS": threads,
        "MKL_NUM_THREADS": threads,
        "OPENBLAS_NUM_THREADS": threads,
        "TOKENIZERS_PARALLELISM": "false",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
    }


def mathml(formula: str, display: str) -> str:
    """A TeX formula as MathML, "inline" or "block"; as code where it cannot be read."""
    from latex2mathml.converter import convert

    try:
        return convert(formula, display=display)
    except Exception:  # of many kinds; a formula must not end a run
        return f"<code>{html.escape(formula)}</code>"


PAGE = """{%- extends 'index.html.j2' -%}
{%- block html_head_js_requirejs -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
"""  # nothing that a browser would fetch from elsewhere


def write_html(path: Path) -> None:
    """The executed notebook as a page that any browser shows, also without a network, beside it.

    Formulas become MathML, which browsers draw by themselves. HTML in Markdown, where names from anywhere may stand, is
    shown and not run. Of a progress bar the last state alone: a browser begins a new line at each carriage return.
    """
    from jinja2 import pass_context
    from nbconvert import HTMLExporter
    from nbconvert.filters.markdown_mistune import IPythonRenderer, MarkdownWithMath
    from nbconvert.preprocessors import CoalesceStreamsPreprocessor

    class Offline(IPythonRenderer):
        def block_html(self, text: str) -> str:
            return f"<p>{html.escape(text)}</p>\n"

        def inline_html(self, text: str) -> str:
            return html.escape(text)

        def block_math(self, body: str) -> str:
            return mathml(body, "block")

        def inline_math(self, body: str) -> str:
            return mathml(body, "inline")

        def latex_environment(self, name: str, body: str) -> str:
            return mathml(rf"\begin{{{name}}}{body}\end{{{name}}}", "block")

    @pass_context
    def markdown(context: Any, source: str) -> str:
        return MarkdownWithMath(renderer=Offline(escape=False, allow_harmful_protocols=False)).render(source)

    exporter = HTMLExporter(template_name="lab", raw_template=PAGE)
    exporter.register_filter("markdown2html", markdown)
    exporter.register_preprocessor(CoalesceStreamsPreprocessor(), enabled=True)
    body, _ = exporter.from_filename(str(path))
    atomic_write_text(path.with_suffix(".html"), visible(body))


# --------------------------------------------------------------------------------------------------- main
def main(arguments: list[str] | None = None) -> None:
    """The command line of this module (see its docstring)."""
    parser = argparse.ArgumentParser(prog="python -m vans.notebooks", description="strip or run notebooks")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("strip", help="write output-free copies of the notebooks, and the digests of the code")
    execute = commands.add_parser("run", help="run one notebook headless")
    execute.add_argument("name")
    execute.add_argument("--cell", help="cell of a GRPO stage: parameter `cell`")
    execute.add_argument("--arm", help="arm of the tables: parameter `arm`")
    for told in ("vlm", "vdm", "reward", "captions", "steps", "best_of.n", "best_of.by", "models"):
        execute.add_argument(f"--{told}", help=argparse.SUPPRESS)  # of the cell; the notebook reads dvc.yaml
    given = parser.parse_args(arguments)
    root = find_root()
    if given.command == "strip":
        from vans import code

        strip(root / "notebooks", root / SOURCE)
        for folder in ("code", "code/notebooks", "code/rewards"):
            sweep(root / SOURCE / folder)
        code.write(root, root / SOURCE / "code", load(root))
        return
    stage, key = given.name.partition("_")[2], given.cell or given.arm
    check_grid(root, f"{stage}@{key}" if key else stage)
    values = {name: getattr(given, name) for name in ("cell", "arm") if getattr(given, name)}
    run(given.name, values, label=key or "", root=root)
    if (root / "runs").exists() and stage != "pictures":  # which scores, too: a new metric trains nothing again
        from vans.train.runs import forget

        forget(root, {"base_models": "base"}.get(stage, f"{stage}/{key}" if key else stage))


def check_grid(root: Path, stage: str) -> None:
    """UserError where a part of the ablation grid is asked for and the grid is off: at the paper's scale it must not
    start by accident. An arm of the imported release is none: it stands in dvc.yaml because somebody wrote it there."""
    params = load(root)
    if params.machine.grid or ("@" not in stage and stage != "ablations"):
        return
    grid = Grid(params, root)
    if stage not in grid.main_chain() and stage not in grid.of_release():
        key = f"scales.{params.scale}.machine.grid"
        raise UserError(
            f"params.yaml: {key}: the ablation grid is off at this scale ({stage} belongs to it); "
            f"`dvc repro benchmarks` runs the main chain alone, {key}: true switches the grid on"
        )


if __name__ == "__main__":
    from vans.cli import guarded

    sys.exit(guarded(main, to_print=False))
