"""params.yaml as typed, frozen objects: the only place where parameters are read.

    params = load()                       # finds the root from the current folder
    params.stage1.steps                   # defaults, then what the scale says otherwise …
    params.stage1.reward                  # … and the top-level section of that name, put together
    params.stage1.with_(steps=5)          # other values, checked like the file
    params.with_(stage1={"steps": 5})     # the same, as the whole that a trainer takes
    params.resolved()                     # plain dict of everything that applies, saved with each run
    Params.from_resolved(...)             # and back

A misspelt or unknown key, a missing one, a wrong type, a value out of range, clips that do not fit the models: a
UserError that names the key where it stands and the fix. All scales are checked, not only the current one.
"""

import os
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML, YAMLError

from vans.errors import UserError, one_of
from vans.llm.net import check_url, is_local
from vans.params.base import merged, validated
from vans.params.rewards import Preset, Rewards, Term
from vans.params.sections import JudgeParams, LLMParams, Model, Params, VideoParams
from vans.params.training import Stage1, Stage2

__all__ = [
    "JudgeParams",
    "LLMParams",
    "Model",
    "Params",
    "Preset",
    "Rewards",
    "Stage1",
    "Stage2",
    "Term",
    "VideoParams",
    "check_url",
    "find_root",
    "from_dict",
    "is_local",
    "load",
    "read",
]
FILE = "params.yaml"
TOP = ("scale", "seed", "train_seed", "rewards", "world")  # stand at the top alone
EACH = {"base": ("vae", "clip", "detector", "vdm", "vlm"), "sft": ("vlm", "vdm")}  # parts that `each` holds for


def find_root(start: str | Path | None = None) -> Path:
    """The repository's root: the first folder with a dvc.yaml at or above ``start`` (the current folder).

    Never derived from where this package is installed: an experiment in a temporary copy of the repository
    must read and write that copy.
    """
    here = Path(start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise UserError(f"{here}: no dvc.yaml here or above; change into the repository's folder and run again")


def load(root: str | Path | None = None, scale: str | None = None) -> Params:
    """Read and check ``params.yaml`` of ``root`` (found from the current folder when None).

    ``scale`` overrides the key of that name. Raises UserError for anything that is not right.
    """
    path = Path(root or find_root()) / FILE
    try:
        return from_dict(read(path), scale)
    except UserError as error:
        if "DVC_EXP_NAME" in os.environ:  # `dvc exp run -S` has written its value before the stage could refuse it
            raise UserError(f"{error} (`git checkout {FILE}` takes back what -S wrote)") from error
        raise


def read(path: Path) -> dict[str, Any]:
    """The file as nested dicts, read as DVC reads it (YAML 1.2); UserError when it is missing or not YAML."""
    try:
        tree = YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; get it back with `git checkout {path.name}`") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: must hold keys with values; get it back with `git checkout {path.name}`")
    return tree


def from_dict(tree: dict[str, Any], scale: str | None = None) -> Params:
    """Typed parameters from the tree of ``params.yaml``; every scale is checked, one is returned."""
    tree = dict(tree)
    defaults = tree.pop("defaults", {})
    if not isinstance(scales := tree.pop("scales", None), dict) or not scales:
        raise UserError(f"{FILE}: scales: missing; it must hold a section for each scale")
    chosen = scale or tree.get("scale")
    if scale and scale not in scales:
        raise UserError(f"--scale {scale}: is unknown; use {one_of(scales)}")
    if chosen not in scales:
        raise UserError(f"{FILE}: scale: {chosen!r} is unknown; use {one_of(scales)}")
    built = {name: _built(tree, defaults, name, scales[name]) for name in scales}
    return built[chosen]


def _built(top: dict[str, Any], defaults: Any, name: str, scale: Any) -> Params:
    """One scale: defaults, the scale's own values over them, and the top-level keys, which stand nowhere else."""
    below = {"defaults": defaults, f"scales.{name}": scale}
    for where, tree in below.items():
        if not isinstance(tree, dict):
            raise UserError(f"{FILE}: {where}: must hold keys with values, not {tree!r}")
        for key in tree:
            _stands_once(top, tree, where, key)
    whole = merged(merged(_spread(defaults), _spread(scale)), {**top, "scale": name})

    def place(path: tuple[str, ...]) -> str:
        """What a key is called where it stands, or where it should."""
        if not path:
            return ""
        for where, tree in (("", top), (f"scales.{name}", scale), ("defaults", defaults)):
            for keys in (path, (path[0], "each", *path[2:])):
                if _holds(tree, keys):
                    return ".".join(([where] if where else []) + list(keys))
        if path[-1] == "weight":  # of a term whose weight is a number alone
            return ".".join(path[:-1])
        return ".".join(path if path[0] in TOP else (f"scales.{name}", *path))

    return validated(Params, whole, place, FILE)


def _stands_once(top: dict[str, Any], tree: dict[str, Any], where: str, key: str) -> None:
    if key not in top:
        return
    if not isinstance(tree[key], dict) or not isinstance(top[key], dict):
        raise UserError(f"{FILE}: {key} stands at the top and in {where}; remove one of the two")
    if both := sorted(set(tree[key]) & set(top[key])):
        raise UserError(f"{FILE}: {both[0]} stands in {key} and in {where}.{key}; remove one of them")


def _spread(tree: dict[str, Any]) -> dict[str, Any]:
    """`each` of base and sft written out into their parts."""
    tree = dict(tree)
    for section, parts in EACH.items():
        if isinstance(inner := tree.get(section), dict) and isinstance(each := inner.get("each"), dict):
            own = {key: value for key, value in inner.items() if key != "each"}
            tree[section] = own | {part: merged(each, own.get(part, {})) for part in parts}
    return tree


def _holds(tree: Any, path: tuple[str, ...]) -> bool:
    for key in path:
        if not isinstance(tree, dict) or key not in tree:
            return False
        tree = tree[key]
    return True
