"""Checkpoints: written by every rank its part, in the background, while the next steps compute.

    step-0000100/run.json                               position, history, and digests of the files (vans.files.seal)
    step-0000100/state-00001-of-00002.safetensors       a rank's part of the tensors

A part holds the rows that the rank has of what is cut up over ranks, and its share of what every rank has whole. Where
a tensor's part begins stands in the file's header, as torch.distributed.checkpoint writes it (KEY): its safetensors
reader reads these folders, too. They are written and read here all the same: its default format is a pickle, its
safetensors writer holds a part in memory three times over, and its ranks talk to each other in the background. Here a
rank reports with its next step that its part is on the disk; when all have, rank 0 lets the folder appear, whole.
Any number of ranks can read what another number has written.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer

from vans import files
from vans.errors import UserError
from vans.parallel import Ranks
from vans.sharding import mine, rows

KEY = "DCP_SHARDING_INFO"
KEPT = 2  # and for a while one more, until it is whole
Report = tuple[str, Any]  # (file's name, its size and digest) or ("", what went wrong)


_writer = ThreadPoolExecutor(1, "checkpoint")  # of this process: one at a time


def _renewed() -> None:
    """A fork has no threads of its parent."""
    global _writer
    _writer = ThreadPoolExecutor(1, "checkpoint")


os.register_at_fork(after_in_child=_renewed)


class Checkpoints:
    """Those of one run, as one rank sees them. What is marked (*) all ranks call."""

    def __init__(self, folder: Path, ranks: Ranks):
        self.folder, self.ranks = folder, ranks
        self.modules: dict[str, nn.Module] = {}
        self.optimizers: Mapping[str, Optimizer] = {}
        self.partial, self.place = Path(), Path()  # of the one that is being written
        self.record: dict = {}
        self.writing: Future[Report] | None = None
        wait([_writer.submit(int)])  # what a run that was stopped in this process had begun is over

    def attach(self, modules: dict[str, nn.Module], optimizers: Mapping[str, Optimizer]) -> None:
        """What is to be saved; UserError if the disk has no room for as many checkpoints as there will be."""
        self.modules, self.optimizers = modules, optimizers
        if self.ranks.main:  # of each weights and two moments
            size = 3 * sum(p.nbytes for p in self.trainable().values())
            there = sum(p.stat().st_size for p in self.folder.glob("step-*/*"))
            files.check_free_space(self.folder, max(size, (KEPT + 1) * size - there))

    def trainable(self) -> dict[str, Tensor]:
        return {
            f"model.{m}.{n}": p
            for m, module in self.modules.items()
            for n, p in module.named_parameters()
            if p.requires_grad
        }

    # ------------------------------------------------------------------ writing
    def save(self, position: int, history: list[dict]) -> None:
        """(*) Copy what trains as it is now, and have it written."""
        self.settle()
        tensors, offsets = self._part()
        sizes = self.ranks.gather(sum(tensor.nbytes for tensor in tensors.values()))
        self.place = self.folder / f"step-{position:07d}"
        if self.ranks.main:
            files.check_free_space(self.folder, sum(sizes))
        self.partial = Path(self.ranks.gather(str(files.begin_dir(self.place)) if self.ranks.main else None)[0])
        self.record = {"position": position, "history": list(history)}
        part = self.partial / f"state-{self.ranks.rank + 1:05d}-of-{self.ranks.size:05d}.safetensors"
        self.writing = _writer.submit(_write, part, tensors, offsets, self.place)

    def report(self) -> Report | None:
        """How this rank's part went; None while it is being written, or if none is."""
        if self.writing is None or not self.writing.done():
            return None
        error = self.writing.exception()
        return self.writing.result() if error is None else ("", str(error))

    def appear(self, reports: Sequence[Report | None]) -> None:
        """Let the checkpoint appear if all ranks have reported; raise what went wrong if something has."""
        if self.writing is None or (None in reports and all(told is None or told[0] for told in reports)):
            return
        writing, self.writing = self.writing, None
        parts = dict(told for told in reports if told is not None)
        if "" in parts:
            if self.ranks.main:
                shutil.rmtree(self.partial, ignore_errors=True)
            if writing.done():
                writing.result()  # raises this rank's own
            raise UserError(f"another process: {parts['']}")
        if self.ranks.main:
            try:
                with files.no_space_is_a_user_error(self.place):
                    files.seal(self.partial, self.record, parts)
                    files.publish_dir(self.partial, self.place)
            finally:
                shutil.rmtree(self.partial, ignore_errors=True)
            for old in sorted(self.folder.glob("step-*"))[:-KEPT]:
                files.discard(old)

    def settle(self) -> None:
        """(*) Wait until what is being written is there, if something is."""
        if self.writing is not None:
            wait([self.writing])
            self.appear(self.ranks.gather(self.report()))

    def _part(self) -> tuple[dict[str, Tensor], dict[str, dict]]:
        """What this rank writes, copied to the CPU, and where in the whole tensors each begins."""
        state: dict[str, tuple[Tensor, Tensor]] = {name: (p, p) for name, p in self.trainable().items()}
        for name, optim in self.optimizers.items():
            for index, p in enumerate(_parameters(optim)):
                state |= {f"optim.{name}.{index}.{key}": (value, p) for key, value in optim.state.get(p, {}).items()}
        tensors, offsets = {}, {}
        for count, (name, (value, p)) in enumerate(state.items()):
            value = torch.as_tensor(value)
            cut = mine(p) is not p and value.ndim > 0
            if mine(value).numel() if cut else count % self.ranks.size == self.ranks.rank:
                tensors[name] = mine(value).detach().to("cpu", copy=True).contiguous()
                offsets[name] = {"saved_offsets": [rows(p)[0] if cut and not axis else 0 for axis in range(value.ndim)]}
        return tensors, offsets

    # ------------------------------------------------------------------ reading
    def load(self, name: str) -> tuple[int, list[dict]]:
        """Give what is attached the state of a checkpoint; returns its position and history."""
        folder = self.folder / name
        parts = _Parts(folder)
        with torch.no_grad():
            for key, p in self.trainable().items():
                mine(p).copy_(parts.rows(key, *rows(p)))
        for name, optim in self.optimizers.items():
            whole, own, prefix = optim.state_dict(), _parameters(optim), f"optim.{name}."
            whole["state"] = {}
            for key in sorted(key for key in parts.at if key.startswith(prefix)):
                index, field = key[len(prefix) :].split(".", 1)
                whole["state"].setdefault(int(index), {})[field] = parts.rows(key, *rows(own[int(index)]))
            optim.load_state_dict(whole)
        record = json.loads((folder / files.LISTED).read_text())
        return record["position"], record["history"]


class _Parts:
    """The tensors of a checkpoint's files, by name: where each part begins, and its file's slice of that name."""

    def __init__(self, folder: Path):
        self.at: dict[str, list[tuple[int, Any]]] = {}
        for path in sorted(folder.glob("state-*.safetensors")):
            file = safe_open(str(path), "pt")
            offsets = json.loads(file.metadata()[KEY])
            for name in file.keys():  # noqa: SIM118 (it is no dict)
                start = (offsets[name]["saved_offsets"] or [0])[0]
                self.at.setdefault(name, []).append((start, file.get_slice(name)))

    def rows(self, name: str, first: int, end: int) -> Tensor:
        """[first, end) of a whole tensor; a number as it is."""
        parts = sorted(self.at[name], key=lambda part: part[0])
        if not parts[0][1].get_shape():
            return parts[0][1][...]
        cut = [part[max(first - at, 0) : max(end - at, 0)] for at, part in parts if at < max(end, 1)]
        return torch.cat([some for some in cut if len(some)] or cut[:1])


def _parameters(optim: Optimizer) -> list[Tensor]:
    """In the order in which a state_dict counts them."""
    return [p for group in optim.param_groups for p in group["params"]]


def _write(path: Path, tensors: dict[str, Tensor], offsets: dict[str, dict], place: Path) -> Report:
    with files.no_space_is_a_user_error(place):
        save_file(tensors, path, {"format": "pt", KEY: json.dumps(offsets)})
        files.usual_permissions(path)
        files.sync(path)
        return path.name, files.identity(path)
