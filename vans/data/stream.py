"""Curated triplets as an endless stream of batches: shuffled, resumable anywhere, cut over processes and workers.

    stream = Stream("triplets", batch=64, keys=(seed, "sft"), split="train", rank=0, size=8)
    for batch in Loader(stream, workers=4):     # or torch's own DataLoader(stream, batch_size=None, num_workers=4)
        batch["input"], batch["target"], batch["caption"], …
        state = loader.state_dict()             # JSON; a later loader.load_state_dict(state) goes on after this batch

Order. Each epoch is one exact permutation of all chosen triplets, seeded by `keys` and the epoch: the manifest knows
every clip's offset, so no sample has to be near another one to be read. (Shuffling whole shards with a buffer is for
stores that can only be read from front to back; benchmarks/reader.py measures what the exact order costs on a disk.)
Batch k holds the positions k * batch to (k + 1) * batch of the epochs laid end to end, so an epoch's last batch is
filled from the next epoch, and nothing is dropped. Rank r takes its contiguous share of each batch, and of these shares
worker w of W prepares every W-th. Hence the same batches for any number of ranks and workers, no sample twice and none
lost, and one number, the position, says where everybody is. They are the batches of `vans.data.batches.batch_ids`.

Memory: offsets as numpy arrays, texts as Arrow columns, 0.1 GB for 100,000 triplets, shared by forked workers.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from vans import files
from vans.data import manifest
from vans.errors import UserError
from vans.media import video
from vans.rng import generator

TEXTS = ("question", "reasoning", "caption")
OPEN_SHARDS = 64


class Stream(IterableDataset):
    """Batches of one rank. A batch is a dict: id and each of `texts` (lists of str), `position` (int, of all ranks: how
    many samples are over after this batch), and each of `which` as uint8 [N, T, H, W, 3], or with decode=False as a
    list of the files' bytes.

    batch: samples over all ranks. split, kind, rl: as in `Triplets.select`. epochs: where it ends (None: never); the
    last batch is then what is left, and where that is less than one sample a rank, some ranks get empty lists.
    count: triplets in an epoch. Raises UserError for a folder that is not whole (see `vans.data.manifest`), an empty
    choice, and, while it is read, for a clip that is damaged.
    """

    def __init__(
        self,
        folder: str | Path,
        batch: int,
        keys: tuple,
        *,
        split: str | None = None,
        kind: str | None = None,
        rl: bool | None = None,
        rank: int = 0,
        size: int = 1,
        epochs: int | None = None,
        which: Sequence[str] = ("input", "target"),
        texts: Sequence[str] = TEXTS,
        decode: bool = True,
    ):
        if not 0 <= rank < size or batch < 1 or (epochs is not None and epochs < 1):
            raise ValueError(f"needs 0 <= rank < size, batch >= 1 and epochs >= 1: {rank}, {size}, {batch}, {epochs}")
        if unknown := set(which) - {"input", "target"}:
            raise ValueError(f"which holds input and target, not {sorted(unknown)}")
        self.folder, self.batch, self.keys, self.rank, self.size = Path(folder), batch, tuple(keys), rank, size
        self.epochs, self.which, self.texts, self.decode = epochs, tuple(which), tuple(texts), decode
        self.position = 0  # samples that are over, on all ranks together
        table = manifest.read(self.folder)
        for name, value in (("split", split), ("kind", kind), ("rl", rl)):
            table = table if value is None else table.filter(pc.equal(table[name], value))
        if not len(table):
            raise UserError(f"{self.folder / 'manifest.parquet'}: no triplet of {split=}, {kind=}, {rl=}")
        names = table["shard"].unique().to_pylist()
        self.shards = names
        self.count = len(table)
        self.shard = pc.index_in(table["shard"], pa.array(names, table["shard"].type)).to_numpy()
        self.places = {w: [table[f"{w}_{x}"].to_numpy() for x in ("offset", "size")] for w in self.which}
        self.words = table.select(["id", *self.texts]).combine_chunks()
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0))
        self._open: OrderedDict[int, int] = OrderedDict()  # shard -> file descriptor, of this process
        self._owner = os.getpid()

    # ------------------------------------------------------------------ position
    def state_dict(self) -> dict[str, Any]:
        """Where it stands, as JSON values: of all ranks alike, whatever their number and that of the workers."""
        return {"position": self.position, "epoch": self.position // self.count, **self._identity()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on there. UserError where the state is of other triplets or of another seed."""
        mine = self._identity()
        for name, text in (("triplets", "other triplets"), ("keys", "another seed")):
            if state[name] != mine[name]:
                raise UserError(f"{self.folder}: the position to go on from is of {text}; start anew, without it")
        self.position = int(state["position"])

    def _identity(self) -> dict[str, Any]:
        return {"keys": [str(k) for k in self.keys], "triplets": files.digest(self.words["id"].to_pylist())[:16]}

    # ------------------------------------------------------------------ order
    def order(self, epoch: int) -> np.ndarray:
        """The rows of the manifest's choice in the order of this epoch, int64 [len]."""
        if self._order[0] != epoch:
            self._order = epoch, torch.randperm(self.count, generator=generator(*self.keys, "epoch", epoch)).numpy()
        return self._order[1]

    def rows(self, start: int, stop: int) -> list[int]:
        """The rows at these positions of the epochs laid end to end."""
        out: list[int] = []
        while start < stop:
            epoch, offset = divmod(start, self.count)
            taken = self.order(epoch)[offset : offset + stop - start].tolist()
            out += taken
            start += len(taken)
        return out

    def __iter__(self) -> Iterator[dict[str, Any]]:
        info = get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        end = None if self.epochs is None else self.epochs * self.count
        start = self.position + worker * self.batch
        while end is None or start < end:
            stop = start + self.batch if end is None else min(start + self.batch, end)
            first, last = (start + round((stop - start) * r / self.size) for r in (self.rank, self.rank + 1))
            yield self.read(self.rows(first, last), stop)
            start += workers * self.batch

    # ------------------------------------------------------------------ reading
    def read(self, rows: list[int], position: int = 0) -> dict[str, Any]:
        """The batch of these rows."""
        words = self.words.take(pa.array(rows, pa.int64()))
        out: dict[str, Any] = {name: words[name].to_pylist() for name in ("id", *self.texts)}
        for which in self.which:
            clips = [self._clip(row, which, id) for row, id in zip(rows, out["id"], strict=True)]
            # default_collate stacks into shared memory when it is called in a worker
            out[which] = default_collate([torch.from_numpy(c) for c in clips]) if self.decode and clips else clips
        return {**out, "position": position}

    def _clip(self, row: int, which: str, id: str) -> Any:
        offset, size = (int(column[row]) for column in self.places[which])
        data = os.pread(self._file(int(self.shard[row])), size, offset)
        try:
            if len(data) < size:
                raise ValueError("the shard ends before it")
            return video.decode(data)[0] if self.decode else data
        except ValueError as error:
            shard = self.folder / "shards" / self.shards[self.shard[row]]
            raise UserError(f"{shard}: {which} clip of {id} is damaged ({error}); `dvc repro -f curate`") from error

    def _file(self, shard: int) -> int:
        if self._owner != os.getpid():  # a forked worker has descriptors of its own
            self._open, self._owner = OrderedDict(), os.getpid()
        if shard not in self._open:
            if len(self._open) >= OPEN_SHARDS:
                os.close(self._open.popitem(last=False)[1])
            self._open[shard] = os.open(self.folder / "shards" / self.shards[shard], os.O_RDONLY)
        self._open.move_to_end(shard)
        return self._open[shard]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}

    def __del__(self) -> None:
        if getattr(self, "_owner", None) == os.getpid():
            for descriptor in self._open.values():
                os.close(descriptor)


class Loader:
    """A stream read ahead by worker processes (0: in this one); it knows the position of the batch handed out last."""

    def __init__(self, stream: Stream, workers: int = 0, ahead: int = 2, pin_memory: bool = False):
        self.stream = stream
        self.options: dict[str, Any] = {"num_workers": workers, "pin_memory": pin_memory}
        if workers:
            self.options["prefetch_factor"] = ahead

    def __iter__(self) -> Iterator[dict[str, Any]]:
        batches = iter(DataLoader(self.stream, batch_size=None, **self.options))
        while True:
            try:
                batch = next(batches, None)
            except UserError as error:  # a worker's comes with its traceback before it
                raise UserError(str(error).rpartition("UserError: ")[2]) from error
            if batch is None:
                return
            self.stream.position = batch["position"]
            yield batch

    def state_dict(self) -> dict[str, Any]:
        """The position after the batch that was handed out last, as JSON values."""
        return self.stream.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """The next iteration goes on after that batch."""
        self.stream.load_state_dict(state)
