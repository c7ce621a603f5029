"""Which clips fit the video models: VAE factor x patch, from a configuration or a model's own files."""

from __future__ import annotations

import json
import os
from functools import cache
from pathlib import Path
from typing import Any

WAN = (4, 8, (1, 2, 2))  # time and space factor of Wan2.1's VAE, patch of its DiT


def sizes(repo: str | None, revision: str | None, config: dict[str, Any]) -> dict[str, tuple[int, int]]:
    """For frames, height and width: (unit, rest) so that a size fits where size % unit == rest."""
    time, space, (t, h, w) = _factors(repo, revision, config)
    return {
        "frames": (time * t, 1 if t == 1 else time * (t - 1) + 1),
        "height": (space * h, 0),
        "width": (space * w, 0),
    }


def latents(repo: str | None, revision: str | None, config: dict[str, Any], frames: int) -> int:
    """Latents along time of a clip of so many frames."""
    return (frames - 1) // _factors(repo, revision, config)[0] + 1


def _factors(repo: str | None, revision: str | None, config: dict[str, Any]) -> tuple[int, int, tuple[int, ...]]:
    if repo is None:
        vae, dit = config.get("vae"), config.get("dit")
    else:
        vae, dit = config_file(repo, revision, "vae"), config_file(repo, revision, "transformer")
    vae, dit = (part if isinstance(part, dict) else {} for part in (vae, dit))
    time, space = vae.get("scale_factor_temporal", WAN[0]), vae.get("scale_factor_spatial", WAN[1])
    patch = dit.get("patch_size", WAN[2])
    whole = isinstance(patch, list | tuple) and len(patch) == 3
    if not whole or not all(type(n) is int and n > 0 for n in (time, space, *patch)):
        raise ValueError("models.vdm: scale_factor_temporal, scale_factor_spatial and patch_size are not whole numbers")
    return time, space, tuple(patch)


@cache
def config_file(repo: str, revision: str | None, part: str) -> Any:
    """config.json of a part of a model in a folder or in the hub's cache; None where it is not on this machine."""
    home = Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser()
    hub = Path(os.environ.get("HF_HUB_CACHE", home / "hub"))
    cached = hub / f"models--{repo.replace('/', '--')}" / "snapshots" / str(revision)
    try:
        return json.loads(((Path(repo) if Path(repo).is_dir() else cached) / part / "config.json").read_bytes())
    except (OSError, ValueError):
        return None
