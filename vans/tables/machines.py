"""On which machines results came about: results/machine.json, published beside the tables.

A list of machines, each with its stages: `record` files a stage that has run, so that stages of two machines are seen.
Without names or paths: what `vans.cpu.describe` says.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from vans.errors import UserError
from vans.files import atomic_write_text

NAME = "machine.json"


def record(folder: Path, stage: str, machine: dict[str, Any]) -> None:
    """Write into the folder's file that this stage has run on this machine, and on no other."""
    machines = [{**each, "stages": [name for name in each["stages"] if name != stage]} for each in read(folder)]
    found = next((each for each in machines if _same(each, machine)), None)
    if found is None:
        machines.append(found := {**machine, "stages": []})
    found["stages"] = sorted([*found["stages"], stage])
    folder.mkdir(parents=True, exist_ok=True)
    atomic_write_text(folder / NAME, json.dumps([each for each in machines if each["stages"]], indent=2) + "\n")


def read(folder: Path) -> list[dict[str, Any]]:
    """The machines of a folder's results; empty if nobody has recorded them."""
    path = folder / NAME
    try:
        machines = json.loads(path.read_text(encoding="utf-8"))
        for each in machines:
            line(each)
    except FileNotFoundError:
        return []
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: not a list of machines ({error!r}); remove it, the next stage writes it") from error
    return machines


def line(machine: dict[str, Any]) -> str:
    """A machine in one line."""
    caps = ", ".join(f"{name}={value}" for name, value in machine["caps"].items()) or "none"
    versions = ", ".join(f"{name} {machine[name]}" for name in ("python", "torch", "numpy", "scipy"))
    return (
        f"{machine['cpu']} ({machine['instructions']}, {machine['system']}), {machine['processes']} processes of "
        f"{machine['threads']} threads, {versions}; caps: {caps} ({len(machine['stages'])} stages)"
    )


def text(measured: list[dict[str, Any]], published: list[dict[str, Any]]) -> str:
    """Which machines made the tables that are compared, and whether the same bytes can be expected of them."""
    lines = []
    for title, machines in (("measured", measured), ("published", published)):
        lines += [f"{title} on {line(each)}" for each in machines] or [f"{title} on a machine that nobody recorded"]
    if measured and published:
        first = measured[0]
        others = [each for each in measured + published if not _same(each, first)]
        keys = {key for each in others for key in first if key != "stages" and each.get(key) != first[key]}
        lines.append(f"they differ in: {', '.join(sorted(keys))}" if keys else "the same kind of machine")
    return "\n".join(lines)


def _same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    return {**one, "stages": 0} == {**two, "stages": 0}
