"""What decides a training's numbers: parameters, data, the models that it starts from, and code."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from vans import code, cpu, files
from vans.data.shards import identity as shards_identity
from vans.models.protocol import protocol_of
from vans.parallel import Ranks

# What of it moves last bits; the sampler moves all.
MACHINE = ("dtype", "threads", "vae_batch", "dit_batch", "sample_batch", "decoding", "compile", "sampler")


def settings_of(
    params: Any, root: Path, ranks: Ranks, entry: str, keys: Iterable[str], models: Iterable[str] = (), **more: Any
) -> dict:
    """The settings of a run (see `vans.train.runs.Run`): nothing that leaves its numbers as they are.

    ranks: on what it really runs. entry: the trainer's module, whose code counts. keys: the parameters that it uses,
    sections or single ones ("sft.vlm", "train_seed"); "-stage1.reward" leaves a part out again. models: the folders
    below root whose files are hashed. more: what else decides (such as the reward terms of the cell).
    """
    tree: dict[str, Any] = params.resolved()
    used: dict[str, Any] = {}
    for key in keys:
        *sections, last = key.removeprefix("-").split(".")
        place, source = used, tree
        for section in sections:
            place, source = place.setdefault(section, {}), source[section]
        if key.startswith("-"):
            del place[last]
        else:
            place[last] = source[last]
    used["machine"] = {key: tree["machine"][key] for key in MACHINE}
    used["machine"] |= {"device": ranks.device.type, "processes": ranks.size}
    if caps := cpu.caps_set():  # unfinished runs are not continued with other instructions
        used["machine"]["caps"] = caps
    used["triplets"] = files.sha256_file(root / "triplets" / "manifest.parquet")
    used["shards"] = shards_identity(root / "triplets")
    used["code"] = code.digest([entry], Path(__file__).resolve().parents[2])
    for name in models:
        weights = sorted(p for p in (root / name).rglob("*") if p.suffix in (".safetensors", ".json"))
        used[name] = {str(p.relative_to(root)): files.sha256_file(p) for p in weights if "groups" not in p.parts}
    if params.models.protocol != "ours":  # texts of the release's repository, too
        used["protocol"] = asdict(protocol_of(params))
    return used | more
