"""Which code decides a stage's numbers: its entry module and everything of vans that this imports, without docstrings.

`python -m vans.notebooks strip` writes one small file for each stage, `stripped/code/<stage>.txt`, with a line for each
module: its digest and its path. A stage of dvc.yaml depends on that file. So a stage goes stale when code changes that
it runs, and only then: not for a docstring, a comment, a picture, or a reward term that its preset does not use. The
lines tell which module it was (`dvc diff`, or `git diff --no-index` of two copies).

Read from the sources; nothing is imported or run. Imports inside functions count, and so do texts such as
"vans.train.sft:train_vlm" (what `vans.parallel.launch` calls).
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import tokenize
from collections.abc import Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from vans.errors import UserError

# Cannot change what a stage writes: parameters are declared one by one; the rest writes, prints and starts.
PLUMBING = (
    "vans/__init__",
    "vans/arguments",
    "vans/cli",
    "vans/code",
    "vans/devices",
    "vans/ending",
    "vans/cpu",  # no stage sees on which machine it runs: vans/tables/compare.py says it
    "vans/errors",
    "vans/files",
    "vans/grid",
    "vans/meter",
    "vans/notebooks",
    "vans/params",
    "vans/plan/",
    "vans/preflight",
    "vans/setup",
    "vans/show/",
    "vans/tables/machines",
    "vans/tables/report",
    "vans/warm",
    "vans/toy/sources",  # the toy world's generator: its product is data/, a dependency of its own
    "vans/data/engine",  # where and when curation's work is done, not what comes of it
    "vans/data/store",
)
# Chosen by a parameter: only the annotator in use counts (see `entries`).
PLUGS = ("vans.data.annotate.",)
# What a module reads beside itself.
DATA = {
    "vans/data/annotate/llm.py": "prompts/*.md",
    "vans/rewards/terms/judge.py": "judge.md",
    "vans/answer/outsiders.py": "cascade.md",
    "vans/tables/orders.py": "paper.csv",
    "vans/page/build.py": "template/*",
    "vans/vote/server.py": "page/*",
    "vans/demo/server.py": "page/*",
    "vans/local/server.py": "*.js",
}
# What of the judge's settings can change its answers; the rest is speed, cost and access.
ASKED = ("url", "model", "extra", "mode", "temperature", "max_tokens", "frames", "side", "attempts")

# What of the sampling of answers stage 2's anchors depend on; the rest is evaluation's.
ANCHOR = ("temperature", "top_p", "max_new_tokens")

# What writes a stage's outputs. The rest of its notebook looks at them: an executed notebook is nobody's input.
ENTRIES = {
    "curate": ["vans/data/curate.py"],
    "base": ["vans/train/base.py"],
    "sft": ["vans/train/sft.py"],
    "stage1": ["vans/train/stage1.py"],
    "stage2": ["vans/train/stage2.py"],
    "all_in_one": ["vans/train/all_in_one.py"],
    "answer": ["vans/answer/arm.py"],
    "systems": ["vans/train/systems.py"],
    "systems_answer": ["vans/answer/systems.py"],
    "score": ["vans/score/run.py"],
    "pictures": ["vans/train/pictures.py", "vans/tables/pictures.py"],
}


def lines(entries: Iterable[str], root: Path, plumbing: tuple[str, ...] = PLUMBING) -> str:
    """A line "digest  path" for each module that stands behind these, in the order of their paths."""
    paths = behind(entries, root, plumbing)
    for module in paths & DATA.keys():
        paths |= {str(path.relative_to(root)) for path in (root / module).parent.glob(DATA[module])}
    return "".join(f"{of_module(root / path)[:16]}  {path}\n" for path in sorted(paths))


def digest(entries: Iterable[str], root: Path) -> str:
    """One digest over all of them: runs of equal digests run the same code."""
    return hashlib.sha256(lines(entries, root).encode()).hexdigest()


def of_term(name: str, root: Path, params: Any = None) -> str:
    """The lines of one reward term: a module of vans, a function of one's own, an executable, or an address.

    params: of the judge, whose settings (those that can change an answer) count as its code does.
    """
    if "://" in name:
        return f"{name}\n"
    if "/" in name:
        path = root / name
        return f"{hashlib.sha256(path.read_bytes()).hexdigest()[:16] if path.is_file() else 'missing'}  {name}\n"
    module, _, function = name.partition(":")
    if not function:
        text = lines([f"vans/rewards/terms/{name}.py"], root)
        if name == "judge" and params is not None:
            text += _settings("judge", {key: getattr(params.judge, key) for key in ASKED})
        return text
    if (found := _paths(module, root)) and module.startswith("vans."):
        return lines(found, root)
    try:
        spec = find_spec(module)
    except Exception:  # of a package of one's own, which is imported for this; who calls the function says why
        spec = None
    if spec is None or spec.origin is None or not Path(spec.origin).is_file():
        return f"missing  {name}\n"
    return f"{of_module(Path(spec.origin))[:16]}  {name}\n"


def of_curation(params: Any, root: Path) -> str:
    """The line of the settings that can change curation's outcome: of an annotator that is not in use none, of an
    endpoint what is asked of it, of CLIP and the device something only where CLIP judges, of a list what it holds."""
    settings = params.curate.resolved()
    llm, qwen = settings.pop("llm"), settings.pop("qwen")
    if params.curate.annotator != "rules":
        settings["llm"] = {key: llm[key] for key in (*ASKED, "choose_frames") if key in llm}
    if params.curate.annotator not in ("rules", "openai"):
        settings["qwen"] = qwen
    if settings["held_out"] and (path := root / Path(settings["held_out"]).expanduser()).is_file():
        settings["held_out"] = hashlib.sha256(path.read_bytes()).hexdigest()
    settings["clip"] = params.models.clip.repo is None
    if params.curate.agreement == "clip":
        settings |= {"clip": params.models.clip.resolved(), "device": params.machine.device}
    return _settings("curate", settings)


def _settings(name: str, values: Any) -> str:
    return f"{hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]}  params.yaml: {name}\n"


def of_notebook(path: Path) -> str:
    """Digest of a notebook's code cells; its prose, outputs and formatting do not count."""
    try:
        return hashlib.sha256("\x1f".join(map(essence, _cells(path))).encode()).hexdigest()
    except (SyntaxError, ValueError, tokenize.TokenError) as error:
        raise UserError(f"{path}: a cell is not Python ({error}); get it back from git") from error


def _cells(path: Path) -> list[str]:
    """The sources of a notebook's code cells; what papermill puts into an executed copy is not one of them."""
    try:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        own = (cell for cell in cells if "injected-parameters" not in ((cell.get("metadata") or {}).get("tags") or []))
        return ["".join(cell.get("source") or "") for cell in own if cell.get("cell_type") == "code"]
    except (OSError, ValueError, TypeError, LookupError, AttributeError, RecursionError) as error:
        raise UserError(f"{path}: not a notebook ({type(error).__name__}: {error}); get it back from git") from error


def behind(entries: Iterable[str], root: Path, plumbing: tuple[str, ...] = PLUMBING) -> set[str]:
    """The modules and everything of vans that they import; without plumbing and packages that only have a docstring."""
    todo, seen = list(entries), set()
    while todo:
        module = todo.pop()
        if module in seen or module.startswith(plumbing):
            continue
        names = _imports_of(module, root, (root / module).stat().st_mtime_ns)
        if names is not None:
            seen.add(module)
            todo += names
    return seen


def of_module(path: Path) -> str:
    """SHA-256 of a module's essence, or of a data file."""
    text = path.read_text(encoding="utf-8")
    return hashlib.sha256((essence(text) if path.suffix == ".py" else text).encode()).hexdigest()


@cache
def essence(source: str) -> str:
    """A source without docstrings, comments and empty lines (those inside of texts stay)."""
    rows = source.splitlines()
    inside: set[int] = set()  # rows that end inside of a text
    begun = []
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        name = tokenize.tok_name[token.type]
        if token.type == tokenize.COMMENT:
            line, column = token.start
            rows[line - 1] = rows[line - 1][:column]
        elif token.type == tokenize.STRING:
            inside |= set(range(token.start[0] - 1, token.end[0] - 1))
        elif name == "FSTRING_START":  # Python 3.12 and later: a text of several tokens
            begun.append(token.start[0] - 1)
        elif name == "FSTRING_END":
            inside |= set(range(begun.pop(), token.end[0] - 1))
    for node in ast.walk(_tree(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                start, end = first.lineno - 1, (first.end_lineno or first.lineno) - 1
                inside -= set(range(start, end))
                rest = rows[end].encode()[first.end_col_offset :].decode()  # code may stand before it and behind it
                rows[start : end + 1] = [rows[start].encode()[: first.col_offset].decode(), *[""] * (end - start)]
                rows[end] += rest
    kept = (row if i in inside else row.rstrip() for i, row in enumerate(rows) if row.strip() or i in inside)
    return "\n".join(kept)


_tree = cache(ast.parse)


@cache
def _imports_of(module: str, root: Path, changed: int) -> frozenset[str] | None:
    """What a module imports of vans; None if it is empty but for a docstring."""
    tree = _tree((root / module).read_text(encoding="utf-8"))
    if all(isinstance(node, ast.Expr) for node in tree.body):
        return None
    return frozenset(imported(tree, module, root))


def imported(tree: ast.AST, module: str, root: Path) -> set[str]:
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
            text = node.value.partition(":")[0]
            if text.startswith("vans.") and " " not in node.value and not text.startswith(PLUGS):
                names.add(text)
    return {path for name in names if name.split(".")[0] == "vans" for path in _paths(name, root)}


def _paths(name: str, root: Path) -> set[str]:
    """A module's file and those of the packages it lies in, as far as they exist."""
    parts = name.split(".")
    found = set()
    for length in range(1, len(parts) + 1):
        stem = "/".join(parts[:length])
        found |= {path for path in (f"{stem}.py", f"{stem}/__init__.py") if (root / path).is_file()}
    return found


def write(root: Path, out: Path, params) -> None:
    """All files of ``out``: one for each stage, one for each preset of rewards, one for each table's notebook."""
    from vans.data.annotate import ANNOTATORS
    from vans.files import atomic_write_text

    annotator = ANNOTATORS[params.curate.annotator].partition(":")[0]
    texts = {}
    for stage, entries in ENTRIES.items():
        extra = sorted(_paths(annotator, root)) if stage == "curate" else []
        texts[stage] = lines([*entries, *extra], root)
    texts["curate"] += of_curation(params, root)
    texts["stage2"] += _settings("generate", {key: getattr(params.generate, key) for key in ANCHOR})
    for stage in ("stage1", "stage2", "all_in_one"):
        for preset, terms in getattr(params.rewards, stage).items():
            texts[f"rewards/{stage}.{preset}"] = "".join(of_term(name, root, params) for name in sorted(terms))
    pictures = [
        str(p.relative_to(root)) for room in ("tables", "show") for p in sorted((root / "vans" / room).glob("*.py"))
    ]
    texts["tables"] = lines(pictures, root, tuple(name for name in PLUMBING if name != "vans/show/"))
    texts["score"] += "".join(of_term(name, root) for name in params.evaluate.metrics)
    for notebook in sorted((root / "notebooks").glob("*.ipynb")):
        name = notebook.stem
        texts[f"notebooks/{name}"] = f"{of_notebook(notebook)[:16]}  notebooks/{name}.ipynb\n"
    for name, text in texts.items():
        path = out / f"{name}.txt"
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            atomic_write_text(path, text)
    for old in out.rglob("*.txt"):
        if str(old.relative_to(out).with_suffix("")) not in texts:
            old.unlink()
