"""What the trainers eat: batches of ids from (seed, step), and frozen latents computed once and kept.

Latents stand in cache/latents/<key>/ as float16, in chunks that are memory-mapped; the key is a hash of the VAE's
weights, the clips' shards and which clips they are. The cache can be deleted at any time.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from vans import files
from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.models.vdm import VDM
from vans.parallel import Group
from vans.rng import generator

CHUNK = 256


def batch_ids(ids: list[str], step: int, batch: int, *keys: object) -> list[str]:
    """The batch of a step: every id once per epoch, each epoch in an order of its own (seeded by keys and epoch)."""
    if not ids:
        raise UserError("no triplets to train on: check triplets/report.json, and curate.rl in params.yaml")
    out: list[str] = []
    position = step * batch
    while len(out) < batch:
        epoch, offset = divmod(position, len(ids))
        order = torch.randperm(len(ids), generator=generator(*keys, "epoch", epoch)).tolist()
        take = order[offset : offset + batch - len(out)]
        out += [ids[i] for i in take]
        position += len(take)
    return out


def clips_of(triplets: Triplets, ids: list[str], which: str) -> Tensor:
    """uint8 clips [N, T, H, W, 3] of these triplets."""
    return torch.from_numpy(triplets.clips(ids, which))


class Latents:
    """Normalised VAE latents of many clips by id: `latents[ids] -> float32 [N, C, T', H', W']`."""

    def __init__(self, folder: Path, ids: list[str]):
        self.folder = folder
        self.place = {id: divmod(i, CHUNK) for i, id in enumerate(ids)}
        self.open: dict[int, Any] = {}

    def __getitem__(self, ids: list[str]) -> Tensor:
        return torch.stack([self._one(*self.place[id]) for id in ids]).float()

    def _one(self, chunk: int, row: int) -> Tensor:
        if chunk not in self.open:
            file = safe_open(str(self.folder / f"chunk-{chunk:05d}.safetensors"), "pt")
            self.open[chunk] = file.get_slice("latents")
        return self.open[chunk][row : row + 1][0]


def latents(root: Path, vdm: VDM, triplets: Triplets, ids: list[str], which: str, group: Group) -> Latents:
    """Encode what is not yet encoded (shared over ranks, kept chunk by chunk) and open it."""
    key = files.digest(
        {
            "vae": _weights_digest(vdm),
            "clips": [[id, int(triplets.row(id)[f"{which}_offset"])] for id in ids],
            "shards": [files.sha256_file(p) for p in sorted((triplets.folder / "shards").iterdir())],
            "which": which,
        }
    )[:16]
    folder = root / "cache" / "latents" / key
    chunks = [ids[i : i + CHUNK] for i in range(0, len(ids), CHUNK)]
    todo = [i for i in range(len(chunks)) if not (folder / f"chunk-{i:05d}.safetensors").exists()]
    group.barrier()
    mine = group.share(todo)
    for index in tqdm(mine, desc=f"VAE latents ({which})", disable=not (group.main and mine), mininterval=2, ncols=100):
        value = vdm.encode(clips_of(triplets, chunks[index], which)).half().cpu().contiguous()
        files.check_free_space(folder, value.numel() * 4)
        folder.mkdir(parents=True, exist_ok=True)
        partial = folder / f".partial-{group.rank}"
        save_file({"latents": value}, partial)
        partial.rename(folder / f"chunk-{index:05d}.safetensors")
    group.barrier()
    return Latents(folder, ids)


def _weights_digest(vdm: VDM) -> str:
    state = vdm.vae.state_dict()
    total = {k: [list(v.shape), float(v.double().sum()), float(v.double().square().sum())] for k, v in state.items()}
    return files.digest({"config": json.loads(vdm.vae.to_json_string()), "sums": total})


def write_group(folder: Path, step: int, record: dict, clips: Tensor | None, main: bool) -> None:
    """Keep one rollout group for the pictures: step-XXXX.json, and its videos uint8 [G, T, H, W, 3] beside it."""
    if not main:
        return
    folder.mkdir(parents=True, exist_ok=True)
    if clips is not None:
        save_file({"clips": clips.contiguous()}, folder / f"step-{step:05d}.safetensors")
    files.atomic_write_text(folder / f"step-{step:05d}.json", json.dumps({"step": step, **record}, indent=1) + "\n")


def keep_groups(source: Path, out: Path) -> None:
    """Copy the kept groups of a run into its result."""
    if source.exists():
        shutil.copytree(source, out, dirs_exist_ok=True)
