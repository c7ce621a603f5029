"""params.yaml as typed, frozen objects: the only place where parameters are read.

    params = load()              # finds the root from the current folder
    params.stage1.steps          # the section of the current scale …
    params.stage1.reward         # … and the top-level section of that name, put together
    params.resolved()            # plain dict of everything that applies at this scale, to be saved with a run

To add a parameter: one field in the dataclass of its section below (its comment is the help), one line in each
scale of params.yaml. A misspelt or unknown key, a missing one, a wrong type, a value out of range: a UserError
that names the key and the fix. All scales are checked, not only the current one.
"""

import dataclasses
import difflib
import math
import types
import typing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import yaml

from vans.errors import UserError

FILE = "params.yaml"
T = TypeVar("T")


# ---------------------------------------------------------------------------------------------- field kinds
def between(low: float | None = None, high: float | None = None) -> Any:
    """A required number (or each number of a list) in [low, high]; None: no bound on that side."""
    return field(metadata={"low": low, "high": high})


def above(low: float, high: float | None = None) -> Any:
    """A required number in (low, high]."""
    return field(metadata={"low": low, "high": high, "open": True})


def choice(*values: Any) -> Any:
    """A required value that is one of ``values``."""
    return field(metadata={"choices": values})


# ------------------------------------------------------------------------------------------------- sections
@dataclass(frozen=True)
class World:
    """The toy world's generator: what ``data/`` holds."""

    seed: int = between(0)
    procedural_train: int = between(0)  # videos
    procedural_test: int = between(0)
    predictive_train: int = between(0)  # scenes; two sources each
    predictive_test: int = between(0)
    surprise: float = between(0, 1)  # probability of a condition's other outcome


@dataclass(frozen=True)
class Machine:
    """What the scale runs on."""

    device: str = choice("auto", "cpu", "cuda")
    processes: int = between(1)  # data-parallel workers (GPUs at the paper scale)
    threads: int = between(1)  # CPU threads per worker
    dtype: str = choice("float32", "bfloat16")
    grid: bool = choice(True, False)  # may the ablation grid be trained at this scale?


@dataclass(frozen=True)
class Clip:
    """Every clip, input and target."""

    frames: int = between(1)
    height: int = between(8)  # pixels
    width: int = between(8)
    fps: float = above(0)

    def check(self) -> None:
        if self.frames % 4 != 1:
            raise ValueError("frames must be 4k + 1 (the VAE compresses time by 4): 5, 9, 13, … 33, …")


@dataclass(frozen=True)
class Curate:
    """From source videos to triplets."""

    min_segment: float = above(0)  # s
    codec: str = choice("raw", "h264")
    annotator: str = choice("rules")
    flowery: float = between(0, 1)  # share of captions in the flowery wording
    rl: int = between(0)  # triplets of the RL subset
    shot_threshold: float = above(0)


@dataclass(frozen=True)
class Model:
    """One model: built from ``config`` and trained from scratch, or loaded from ``repo`` at ``revision``."""

    repo: str | None
    revision: str | None
    config: dict[str, Any]

    def check(self) -> None:
        if self.repo is not None and not self.revision:
            raise ValueError("repo needs a pinned revision (a commit id), so that the same weights come back")


@dataclass(frozen=True)
class Models:
    vlm: Model
    vdm: Model
    clip: Model


@dataclass(frozen=True)
class Stage1:
    """Stage 1: GRPO on the VLM, VDM frozen."""

    reward: str = choice("full", "no_t1", "no_v1")


@dataclass(frozen=True)
class Stage2:
    """Stage 2: GRPO on the VDM, tuned VLM frozen as the anchor."""

    reward: str = choice("full", "no_c2", "no_v2")


@dataclass(frozen=True)
class Params:
    """Everything that applies at the current scale."""

    scale: str
    seed: int = between(0)
    world: World = field()
    machine: Machine = field()
    clip: Clip = field()
    curate: Curate = field()
    models: Models = field()
    stage1: Stage1 = field()
    stage2: Stage2 = field()

    def resolved(self) -> dict[str, Any]:
        """A plain nested dict (JSON and YAML can hold it), equal for equal parameters."""
        return dataclasses.asdict(self)


# --------------------------------------------------------------------------------------------------- reading
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
    return from_dict(read(path), scale)


def read(path: Path) -> dict[str, Any]:
    """The file as nested dicts; UserError when it is missing or not YAML."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; get it back with `git checkout {FILE}`") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: must hold keys with values; get it back with `git checkout {FILE}`")
    return tree


def from_dict(tree: dict[str, Any], scale: str | None = None) -> Params:
    """Typed parameters from the tree of ``params.yaml``; every scale is checked, one is returned."""
    tree = dict(tree)
    if not isinstance(scales := tree.pop("scales", None), dict) or not scales:
        raise UserError(f"{FILE}: scales: missing; it must hold a section for each scale")
    chosen = scale or tree.get("scale")
    if chosen not in scales:
        raise UserError(f"{FILE}: scale: {chosen!r} is unknown; use {_one_of(list(scales))}")
    built = {name: build(Params, *_merged(tree, name, scales[name])) for name in scales}
    return built[chosen]


def build(kind: type[T], tree: Any, keys: dict[str, str], key: str = "") -> T:
    """Make dataclass ``kind`` from a mapping; ``keys`` gives a section's name in params.yaml for messages."""
    where = keys.get(key, key)
    if not isinstance(tree, dict):
        raise UserError(f"{FILE}: {where}: must hold keys with values, not {tree!r}")
    fields = {f.name: f for f in dataclasses.fields(kind)}  # type: ignore[arg-type]
    for name in tree:
        if name not in fields:
            raise UserError(f"{FILE}: {_join(where, name)}: unknown key; {_nearest(str(name), list(fields))}")
    hints = typing.get_type_hints(kind)
    values = {}
    for name, spec in fields.items():
        if name in tree:
            values[name] = _value(tree[name], hints[name], spec.metadata, keys, _join(key, name))
        elif spec.default is dataclasses.MISSING and spec.default_factory is dataclasses.MISSING:
            place = keys.get(_join(key, name), _join(where, name))
            raise UserError(f"{FILE}: {place}: missing; add it ({_describe(hints[name], spec.metadata)})")
    made = kind(**values)
    if hasattr(made, "check"):
        try:
            made.check()
        except ValueError as error:
            raise UserError(f"{FILE}: {where + ': ' if where else ''}{error}") from error
    return made


def _merged(tree: dict[str, Any], name: str, section: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Top-level keys and a scale's put together, and each scale section's full name for messages.

    A section may stand at both places (stage1.reward and scales.tiny.stage1.steps), a single key may not.
    """
    if not isinstance(section, dict):
        raise UserError(f"{FILE}: scales.{name}: must hold keys with values, not {section!r}")
    whole: dict[str, Any] = {**tree, "scale": name}
    sections = [f.name for f in dataclasses.fields(Params) if f.name not in tree]
    names = {key: f"scales.{name}.{key}" for key in sections}
    for key, value in section.items():
        names[key] = f"scales.{name}.{key}"
        if key not in tree:
            whole[key] = value
        elif isinstance(value, dict) and isinstance(tree[key], dict):
            if both := sorted(set(value) & set(tree[key])):
                raise UserError(f"{FILE}: {both[0]} stands in {key} and in {names[key]}; remove one of the two")
            whole[key] = {**tree[key], **value}
        else:
            raise UserError(f"{FILE}: {key} stands at the top and in scales.{name}; remove one of the two")
    return whole, names


def _value(value: Any, hint: Any, meta: Any, keys: dict[str, str], key: str) -> Any:
    """One value, of the type and in the range that its field asks for."""
    top, _, rest = key.partition(".")
    where = keys.get(key) or (f"{keys[top]}.{rest}" if top in keys else key)
    if dataclasses.is_dataclass(hint):
        return build(hint, value, {**keys, key: where}, key)  # type: ignore[arg-type]
    if isinstance(hint, types.UnionType):
        if value is None and type(None) in hint.__args__:
            return None
        hint = next(kind for kind in hint.__args__ if kind is not type(None))
    if typing.get_origin(hint) is tuple:
        if not isinstance(value, list | tuple):
            raise UserError(f"{FILE}: {where}: {value!r} is not {_describe(hint, meta)}")
        kind = typing.get_args(hint)[0]
        return tuple(_scalar(item, kind, meta, where) for item in value)
    if typing.get_origin(hint) is dict or hint is dict:
        if not isinstance(value, dict):
            raise UserError(f"{FILE}: {where}: {value!r} is not {_describe(hint, meta)}")
        return value
    return _scalar(value, hint, meta, where)


def _scalar(value: Any, kind: Any, meta: Any, where: str) -> Any:
    right = isinstance(value, kind) and not (isinstance(value, bool) and kind is not bool)
    if kind is float and isinstance(value, int) and not isinstance(value, bool):
        value, right = float(value), True
    if not right:
        hint = ""
        if kind is float and isinstance(value, str) and _is_number(value):
            hint = f"; write it with a point and a sign, like {float(value):.1e}"
        raise UserError(f"{FILE}: {where}: {value!r} is not {_describe(kind, meta)}{hint}")
    if kind is float and not math.isfinite(value):
        raise UserError(f"{FILE}: {where}: {value!r} is not {_describe(kind, meta)}")
    choices, low, high = meta.get("choices"), meta.get("low"), meta.get("high")
    if choices is not None and value not in choices:
        raise UserError(f"{FILE}: {where}: {value!r} is unknown; use {_one_of(choices)}")
    too_low = low is not None and (value <= low if meta.get("open") else value < low)
    if too_low or (high is not None and value > high):
        raise UserError(f"{FILE}: {where}: {value!r} is out of range; use {_describe(kind, meta)}")
    return value


# -------------------------------------------------------------------------------------------------- wording
NAMES = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}


def _describe(hint: Any, meta: Any) -> str:
    """What a field wants, for messages: "a number from 0 to 1"."""
    if dataclasses.is_dataclass(hint):
        return "a section with " + ", ".join(f.name for f in dataclasses.fields(hint))
    if isinstance(hint, types.UnionType):
        kinds = [kind for kind in hint.__args__ if kind is not type(None)]
        return _describe(kinds[0], meta) + " or null"
    if typing.get_origin(hint) is tuple:
        return "a list, each " + _describe(typing.get_args(hint)[0], meta)
    if typing.get_origin(hint) is dict or hint is dict:
        return "a section of keys with values"
    if meta.get("choices") is not None and hint is not bool:
        return _one_of(meta["choices"])
    low, high = meta.get("low"), meta.get("high")
    above_or_from = "above" if meta.get("open") else "from"
    text = NAMES.get(hint, str(hint))
    if low is not None:
        text += f" {above_or_from} {low:g}" + ("" if high is not None or meta.get("open") else " up")
    return text + (f" to {high:g}" if high is not None else "")


def _one_of(values: Any) -> str:
    values = [str(value) for value in values]
    return values[0] if len(values) == 1 else ", ".join(values[:-1]) + " or " + values[-1]


def _nearest(name: str, valid: list[str]) -> str:
    close = difflib.get_close_matches(name, valid, n=1, cutoff=0.5)
    return f"did you mean {close[0]}?" if close else f"valid keys are {', '.join(valid)}"


def _join(*parts: str) -> str:
    return ".".join(str(part) for part in parts if part)


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
