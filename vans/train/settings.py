"""What decides a training's numbers: parameters, data, the models that it starts from, and code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vans import code, cpu, files
from vans.train.feed import shards_identity

MACHINE = ("device", "dtype", "threads", "processes")


def settings_of(params: Any, root: str | Path, entry: str, *uses: str, **more: Any) -> dict:
    """The settings of a run (see `vans.train.runs.Run`).

    entry: the trainer's module, whose code counts. uses: a section of the parameters ("stage1"), or a folder below root
    ("models/sft/vlm"), whose files are hashed. more: what else decides (such as the reward terms of the cell).
    """
    root, config = Path(root), params.resolved()
    used: dict = {key: config[key] for key in ("seed", "train_seed", "video", "models")}
    used["machine"] = {key: config["machine"][key] for key in MACHINE}
    if caps := cpu.caps_set():  # unfinished runs are not continued with other instructions
        used["machine"]["caps"] = caps
    used["triplets"] = files.sha256_file(root / "triplets" / "manifest.parquet")
    used["shards"] = shards_identity(root / "triplets")
    used["code"] = code.digest([entry], Path(__file__).resolve().parents[2])
    for name in uses:
        if name in config:
            used[name] = config[name]
        else:
            weights = sorted(p for p in (root / name).rglob("*") if p.suffix in (".safetensors", ".json"))
            used[name] = {str(p.relative_to(root)): files.sha256_file(p) for p in weights if "groups" not in p.parts}
    return used | more

