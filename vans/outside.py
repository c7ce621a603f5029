"""Ranks that somebody else has started: torchrun on one machine or several, or SLURM's srun.

    with joined(params.machine) as ranks:       # None: nobody has; `launch` then starts this machine's ranks itself
        if ranks is None or ranks.main:
            stage1.train(params, cell, root)    # as ever; what it launches, the other ranks do within `joined`

Rank 0 runs the stage. The others wait in `joined` for what it launches, do it as that rank, and come out when rank 0
does. All must see the repository at the same place (a shared file system). torch's own process group does the rest:
gloo on CPUs, NCCL on GPUs.
"""

from __future__ import annotations

import importlib
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist

from vans.errors import UserError

SLURM = {"RANK": "SLURM_PROCID", "WORLD_SIZE": "SLURM_NTASKS", "LOCAL_RANK": "SLURM_LOCALID"}
_ranks: Any = None  # of this process while it is joined


def place() -> tuple[int, int, int] | None:
    """(rank, ranks, rank on this machine) as torchrun or srun say it; None if neither has started this process. One
    rank is a place, too: of a job of one process.

    Raises UserError where srun has, but nobody says where the ranks meet.
    """
    names = list(SLURM) if "RANK" in os.environ else list(SLURM.values())
    if not all(name in os.environ for name in names):
        return None
    rank, size, local = (int(os.environ[name]) for name in names)
    if size > 1 and not all(name in os.environ for name in ("MASTER_ADDR", "MASTER_PORT")):
        raise UserError(
            f"{names[1]} is {size}, but MASTER_ADDR and MASTER_PORT are not set: export the first machine's name and a "
            "free port (docs/cluster.md), or unset it to run on this machine alone"
        )
    return rank, size, local


def current() -> Any:
    """The ranks that this process has joined, as a `vans.parallel.Ranks`; None: no others."""
    return _ranks


@contextmanager
def joined(machine: Any) -> Iterator[Any]:
    """See above. machine: has device and threads. Yields this process's `Ranks`, or None."""
    global _ranks
    from vans.parallel import Ranks, device_of

    at = place()
    if at is None or at[1] == 1:
        yield None
        return
    rank, size, local = at
    os.environ.update(RANK=str(rank), WORLD_SIZE=str(size), LOCAL_RANK=str(local))  # as torch reads it
    torch.set_num_threads(machine.threads)
    device = device_of(machine.device, local)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        init_method="env://",
        timeout=timedelta(hours=2),
    )
    _ranks = Ranks(rank, size, device)
    try:
        if rank:
            while (job := _told(None)) is not None:
                _do(job)
        yield _ranks
        if rank == 0:
            _told({})
    finally:
        _ranks = None
        dist.destroy_process_group()


def share(target: str, params: Any, arguments: dict) -> Any:
    """`vans.parallel.launch` on the ranks that were joined; called by rank 0."""
    job = {"target": target, "arguments": arguments, "params": None if params is None else params.resolved()}
    _told(job)
    return _do(job, params)


def _told(job: dict | None) -> dict | None:
    """What rank 0 says, as text; None: nothing more."""
    box = [None if job is None else json.dumps(job)]
    dist.broadcast_object_list(box, src=0)
    return json.loads(box[0] or "{}") or None


def _do(job: dict, params: Any = None) -> Any:
    if params is None and job["params"] is not None:
        from vans.params import Params

        params = Params.from_resolved(job["params"])
    module, name = job["target"].split(":")
    given = () if params is None else (params,)
    result = getattr(importlib.import_module(module), name)(_ranks, *given, **job["arguments"])
    dist.barrier()
    return result
