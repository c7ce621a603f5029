"""What a finished training leaves: its result, kept until the whole stage is written; and what it depended on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

from vans import files
from vans.parallel import Group
from vans.train.feed import shards_identity
from vans.train.loop import Run


def fingerprint(root: str | Path, params, *uses: str) -> dict:
    """Everything that decides a training's numbers: parameters, data, and the models that it starts from.

    uses: a section of the parameters ("stage1"), or a folder below root ("models/sft"), whose files are hashed.
    """
    root = Path(root)
    config = params.resolved()
    used: dict = {k: config[k] for k in ("seed", "scale", "machine", "clip", "models")}
    used["triplets"] = files.sha256_file(root / "triplets" / "manifest.parquet")
    used["shards"] = shards_identity(root / "triplets")
    for name in uses:
        if name in config:
            used[name] = config[name]
        else:
            weights = sorted(p for p in (root / name).rglob("*") if p.suffix in (".safetensors", ".json"))
            used[name] = {str(p.relative_to(root)): files.sha256_file(p) for p in weights}
    return used


def finish_part(
    root: str | Path, name: str, run: Run, group: Group, out: str | Path, save: Callable[[Path], None]
) -> list[dict]:
    """Save a finished part to runs/<name>.done (whole or not at all) and copy it to `out`; drop its checkpoints."""
    kept = Path(root) / "runs" / f"{name}.done"
    if group.main:
        with files.atomic_dir(kept) as partial:
            save(partial / "model")
            drop_paths(partial / "model")
            groups = run.folder / "groups"
            if groups.exists():
                shutil.copytree(groups, partial / "model" / "groups")
            record = {"fingerprint": run.fingerprint, "history": run.history}
            (partial / "run.json").write_text(json.dumps(record))
        shutil.copytree(kept / "model", out, dirs_exist_ok=True)
    group.barrier()
    run.finish()
    return run.history


def drop_paths(folder: Path) -> None:
    """Take out of saved configurations where the models were loaded from: the same model is the same bytes
    wherever its repository lies."""
    for path in sorted(folder.rglob("*config.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: value for key, value in config.items() if key != "_name_or_path"}
        if kept.get("base_model_name_or_path") is not None:
            kept["base_model_name_or_path"] = None
        if kept != config:
            path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def kept_part(root: str | Path, name: str, settings: dict, out: str | Path, group: Group) -> list[dict] | None:
    """The history of a part that an interrupted stage had finished already (its result is copied to `out`)."""
    from vans.train.loop import run_fingerprint

    kept = Path(root) / "runs" / f"{name}.done"
    record = kept / "run.json"
    if not record.exists():
        return None
    saved = json.loads(record.read_text())
    if saved["fingerprint"] != run_fingerprint(settings, group.size):
        return None
    if group.main:
        shutil.copytree(kept / "model", out, dirs_exist_ok=True)
    group.barrier()
    return saved["history"]


def drop_kept(root: str | Path, stage: str, cell: str | None = None) -> None:
    """The stage is over, its pictures included: forget what was kept of it, so that it trains when it is run again.

    Until then a failing cell costs nothing: the finished training is taken up, not repeated.
    """
    place = Path(root) / "runs" / stage
    for left in [place / cell, place / f"{cell}.done"] if cell else [place, place.with_name(f"{stage}.done")]:
        shutil.rmtree(left, ignore_errors=True)
