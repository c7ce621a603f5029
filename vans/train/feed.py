"""Frozen latents and text embeddings, computed once and kept.

Latents stand in cache/latents/<key>/ as float16, embeddings in cache/texts/<key>/ in the text encoder's own precision,
both in chunks that are memory-mapped; the key is a hash of the encoder's weights and of what was encoded. The cache can
be deleted at any time.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from vans import files
from vans.data.batches import clips_of
from vans.data.shards import identity as shards_identity
from vans.data.triplets import Triplets
from vans.models.vdm import VDM, prompt_clean
from vans.parallel import Ranks
from vans.template import plain

CHUNK = 256


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


def latents(root: Path, vdm: VDM, triplets: Triplets, ids: list[str], which: str, ranks: Ranks) -> Latents:
    """Encode what is not yet encoded (shared over ranks, kept chunk by chunk) and open it."""
    key = files.digest(
        {
            "vae": _weights_digest(vdm.vae),
            "clips": [[id, int(triplets.row(id)[f"{which}_offset"])] for id in ids],
            "shards": ranks.gather(shards_identity(triplets.folder) if ranks.main else None)[0],
            "which": which,
        }
    )[:16]
    key = ranks.gather(key)[0]  # sums of weights may differ in their last bit between unlike GPUs
    folder = root / "cache" / "latents" / key

    def encode(chunk: list[str]) -> dict[str, Tensor]:
        return {"latents": vdm.encode(clips_of(triplets, chunk, which)).half().cpu().contiguous()}

    _fill(folder, ids, encode, ranks, f"VAE latents ({which})")
    return Latents(folder, ids)


class Embeddings:
    """Text embeddings of many captions: `embeddings[captions] -> [N, L, D]`, zero beyond each caption's tokens."""

    def __init__(self, folder: Path, texts: list[str], length: int):
        self.folder, self.length = folder, length
        self.place = {text: divmod(i, CHUNK) for i, text in enumerate(texts)}
        self.open: dict[int, tuple[Any, list[int]]] = {}

    def __getitem__(self, texts: list[str]) -> Tensor:
        rows = [self._one(*self.place[text]) for text in texts]
        out = torch.zeros(len(rows), self.length, rows[0].shape[1], dtype=rows[0].dtype)
        for target, row in zip(out, rows, strict=True):
            target[: len(row)] = row
        return out

    def _one(self, chunk: int, row: int) -> Tensor:
        if chunk not in self.open:
            file = safe_open(str(self.folder / f"chunk-{chunk:05d}.safetensors"), "pt")
            self.open[chunk] = file.get_slice("tokens"), file.get_tensor("ends").tolist()
        tokens, ends = self.open[chunk]
        return tokens[ends[row - 1] if row else 0 : ends[row]]


def embeddings(root: Path, vdm: VDM, texts: list[str], ranks: Ranks) -> Embeddings:
    """Embed what is not yet embedded (as `latents` does) and open it; only the tokens that a text has are kept."""
    sizes = {"max_text": vdm.max_text, "vocabulary": files.digest(sorted(vdm.tokenizer.get_vocab().items()))}
    cleaned = [plain(prompt_clean(text)) for text in texts]
    dtype = str(next(vdm.text_encoder.parameters()).dtype)
    key = files.digest({"encoder": _weights_digest(vdm.text_encoder), "dtype": dtype, "texts": cleaned, **sizes})[:16]
    key = ranks.gather(key)[0]
    folder = root / "cache" / "texts" / key

    @torch.no_grad()
    def embed(chunk: list[str]) -> dict[str, Tensor]:
        rows = []
        for first in range(0, len(chunk), 32):
            for hidden in vdm.embed(chunk[first : first + 32]).cpu():
                used = hidden.ne(0).any(1).nonzero()
                rows.append(hidden[: int(used.max()) + 1 if len(used) else 0])
        return {"tokens": torch.cat(rows), "ends": torch.tensor([len(r) for r in rows]).cumsum(0)}

    _fill(folder, texts, embed, ranks, "text embeddings")
    return Embeddings(folder, texts, vdm.max_text)


def _fill(folder: Path, items: list, compute: Callable[[list], dict[str, Tensor]], ranks: Ranks, title: str) -> None:
    """Compute the chunks of `items` that are not yet in the folder, shared over ranks, each kept as it is done."""
    chunks = [items[i : i + CHUNK] for i in range(0, len(items), CHUNK)]
    if ranks.main:
        files.sweep(folder)
    todo = [i for i in range(len(chunks)) if not _readable(folder / f"chunk-{i:05d}.safetensors")]
    mine = ranks.share(ranks.gather(todo)[0])  # of rank 0: another job may fill the folder, too
    for index in tqdm(mine, desc=title, disable=not (ranks.main and mine), mininterval=2, ncols=100):
        value = compute(chunks[index])
        files.check_free_space(folder, 2 * sum(v.nbytes for v in value.values()))
        with files.atomic_file(folder / f"chunk-{index:05d}.safetensors") as partial:  # other jobs may fill it, too
            save_file(value, partial)
    ranks.barrier()


def _readable(chunk: Path) -> bool:
    """Is a chunk there, as long as its header says?"""
    try:
        with safe_open(str(chunk), "pt"):
            return True
    except (OSError, SafetensorError):
        return False


def _weights_digest(module) -> str:
    """A hash of a model's configuration and of sums over its weights (11 GB of them would take minutes to hash)."""
    total = {
        name: [list(v.shape), float(v.sum(dtype=torch.float64)), float(v.float().square().sum(dtype=torch.float64))]
        for name, v in module.state_dict().items()
    }
    config = module.config.to_dict() if hasattr(module.config, "to_dict") else dict(module.config)
    config = {k: v for k, v in config.items() if k not in ("_name_or_path", "transformers_version", "dtype")}
    return files.digest({"config": json.loads(json.dumps(config, default=str)), "sums": total})
