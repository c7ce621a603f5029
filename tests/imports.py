"""Which modules of vans a notebook uses, directly or through others: read from the sources, nothing runs."""

import ast
from collections.abc import Iterable
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


def of_notebook(path: Path, root: Path, leave_out: tuple[str, ...] = ()) -> set[str]:
    """All modules of vans behind a notebook, as paths relative to ``root``.

    Left out, with what only they use: plumbing and modules in the folders ``leave_out``.
    """
    notebook = nbformat.read(path, as_version=4)
    sources = [cell.source for cell in notebook.cells if cell.cell_type == "code"]
    todo = [module for source in sources for module in _imported(ast.parse(source), "", root)]
    seen: set[str] = set()
    while todo:
        module = todo.pop()
        if module not in seen and module not in PLUMBING and not covered(module, leave_out):
            seen.add(module)
            todo += _imported(ast.parse((root / module).read_text(encoding="utf-8")), module, root)
    return seen


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
