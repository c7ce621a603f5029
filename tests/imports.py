"""Which modules and parameters of vans stand behind a module or notebook: read from the sources, nothing runs."""

import ast
import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import nbformat

# Cannot change what a stage writes: parameters are declared one by one, the rest writes, prints and starts.
PLUMBING = {
    "vans/__init__.py",
    "vans/cli.py",
    "vans/errors.py",
    "vans/files.py",
    "vans/grid.py",
    "vans/notebooks.py",
    "vans/params.py",
    "vans/report.py",
    "vans/setup.py",
    "vans/typed.py",
}
# The toy world's generator: its product is data/, a dependency of its own.
PLUMBING |= {"vans/data/toy_sources.py"}
# Where and when curation's work is done, not what comes of it (tests hold them to the same bytes).
PLUMBING |= {"vans/data/engine.py", "vans/data/store.py"}


def of_notebook(path: Path, root: Path) -> set[str]:
    """The modules of vans that a notebook imports itself, as paths relative to ``root``."""
    notebook = nbformat.read(path, as_version=4)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    return {module for source in sources for module in _imported(ast.parse(source), "", root)}


def behind(modules: Iterable[str], root: Path) -> set[str]:
    """The modules and everything of vans that they import; without plumbing and empty packages."""
    todo, seen = list(modules), set()
    while todo:
        module = todo.pop()
        if module in seen or module in PLUMBING:
            continue
        names = _imports_of(module, root)
        if names is not None:
            seen.add(module)
            todo += names
    return seen


@cache
def _imports_of(module: str, root: Path) -> set[str] | None:
    """What a module imports of vans; None if it is empty but for a docstring."""
    tree = ast.parse((root / module).read_text(encoding="utf-8"))
    if all(isinstance(node, ast.Expr) for node in tree.body):
        return None
    return _imported(tree, module, root)


def sections(modules: Iterable[str], root: Path) -> set[str]:
    """The sections of params.yaml that modules name: ``params.video`` gives clip."""
    texts = [(root / module).read_text(encoding="utf-8") for module in modules]
    return {name for text in texts for name in re.findall(r"\bparams\.(\w+)", text)}


def covered(module: str, deps: Iterable[str]) -> bool:
    """Is the module one of the dependencies or in one of their folders?"""
    return any(module == dep or module.startswith(dep.rstrip("/") + "/") for dep in deps)


def _imported(tree: ast.AST, module: str, root: Path) -> set[str]:
    """Modules of vans that a source names in imports or as "vans.x.y:function" texts, with their packages."""
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                package = module.split("/")[: -node.level]
                base = ".".join([*package, *([base] if base else [])])
            names |= {base} | {f"{base}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            if node.value.startswith("vans.") and " " not in node.value:
                names.add(node.value.partition(":")[0])
    return {path for name in names if name.split(".")[0] == "vans" for path in _paths(name, root)}


def _paths(name: str, root: Path) -> set[str]:
    """A module's file and those of the packages it lies in, as far as they exist."""
    parts = name.split(".")
    found = set()
    for length in range(1, len(parts) + 1):
        stem = "/".join(parts[:length])
        found |= {path for path in (f"{stem}.py", f"{stem}/__init__.py") if (root / path).is_file()}
    return found
