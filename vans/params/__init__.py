"""params.yaml as typed, frozen objects: the only place where parameters are read.

    params = load()                                # finds the root from the current folder
    params.stage1.steps                            # what applies at the current scale
    params = params.with_(stage1={"steps": 5})     # tried in a cell: trainers take this object, on every process
    params.resolved()                              # plain dict, saved with each run

What applies: `defaults`, overlaid by `scales.<scale>`, beside the sections that stand at the top (seeds, rewards,
world, and `stage1.reward` and `stage2.reward`, which `dvc exp run -S` changes).

To add a parameter: one field in its section (vans/params/sections.py; its comment is the help) and a line in
`defaults`. A misspelt or unknown key, a missing one, a wrong type, a value out of range, clips that the models cannot
take: a UserError that names the key where it stands, and the fix. All scales are checked, not only the current one.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from vans.errors import UserError, one_of
from vans.net import check_url, is_local
from vans.params.section import Section, build, merged
from vans.params.sections import Params

__all__ = ["FILE", "Params", "Section", "check_url", "find_root", "from_dict", "is_local", "load", "read"]

FILE = "params.yaml"


class _Loader(yaml.SafeLoader):
    """Reads numbers as DVC writes them: 5e-05 is one, as in YAML 1.2 (YAML 1.1 wants 5.0e-05)."""


_Loader.yaml_implicit_resolvers = {
    key: [(tag, pattern) for tag, pattern in resolvers if tag != "tag:yaml.org,2002:float"]
    for key, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\d+\.\d*|\.\d+|\d+)(?:[eE][-+]?\d+)?$|[-+]?\.(?:inf|Inf|INF)$|\.(?:nan|NaN|NAN)$"),
    list("-+0123456789."),
)


def find_root(start: str | Path | None = None) -> Path:
    """The repository's root: the first folder with a dvc.yaml at or above ``start`` (the current folder).

    Never derived from where this package is installed: an experiment in a temporary copy of the repository must read
    and write that copy.
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
    return from_dict(read(Path(root or find_root()) / FILE), scale)


def read(path: Path) -> dict[str, Any]:
    """The file as nested dicts; UserError when it is missing or not YAML."""
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except FileNotFoundError:
        raise UserError(f"{path}: missing; get it back with `git checkout {FILE}`") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {' '.join(str(error).split())}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: must hold keys with values; get it back with `git checkout {FILE}`")
    return tree


def from_dict(tree: dict[str, Any], scale: str | None = None) -> Params:
    """Typed parameters from the tree of ``params.yaml``; every scale is checked, one is returned."""
    top = dict(tree)
    scales, defaults = top.pop("scales", None), top.pop("defaults", {})
    if not isinstance(scales, dict) or not scales:
        raise UserError(f"{FILE}: scales: missing; it must hold a section for each scale")
    if not isinstance(defaults, dict):
        raise UserError(f"{FILE}: defaults: must hold keys with values, not {defaults!r}")
    chosen = scale or top.get("scale")
    if chosen not in scales:
        raise UserError(f"{FILE}: scale: {chosen!r} is unknown; use {one_of(list(scales))}")
    built = {name: _one(top, defaults, name, section) for name, section in scales.items()}
    return built[chosen]


def _one(top: dict[str, Any], defaults: dict[str, Any], name: str, section: Any) -> Params:
    """The parameters of one scale."""
    own = f"scales.{name}"
    if not isinstance(section, dict):
        raise UserError(f"{FILE}: {own}: must hold keys with values, not {section!r}")
    for place, part in ((own, section), ("defaults", defaults)):
        _refuse_twice(top, part, place)

    def where(key: str) -> str:
        """A key as it stands in the file; one that is missing, where its section stands."""
        names = key.split(".")
        for length in range(len(names), 0, -1):
            for place, part in ((own, section), ("", top), ("defaults", defaults)):
                if _has(part, names[:length]) and (length == len(names) or place != "" or names[0] not in section):
                    return f"{place}.{key}" if place else key
        return f"{own}.{key}" if key else key

    return build(Params, {**merged(merged(defaults, section), top), "scale": name}, where, FILE)


def _refuse_twice(top: dict[str, Any], part: dict[str, Any], place: str) -> None:
    """A section may stand at the top and in a scale (stage1.reward and scales.tiny.stage1.steps), a single key may
    not.
    """
    for key, value in part.items():
        if key not in top:
            continue
        if not isinstance(value, dict) or not isinstance(top[key], dict):
            raise UserError(f"{FILE}: {key} stands at the top and in {place}; remove one of the two")
        if both := sorted(set(value) & set(top[key])):
            raise UserError(f"{FILE}: {both[0]} stands in {key} and in {place}.{key}; remove one of them")


def _has(tree: Any, names: list[str]) -> bool:
    for name in names:
        if not isinstance(tree, dict) or name not in tree:
            return False
        tree = tree[name]
    return True
