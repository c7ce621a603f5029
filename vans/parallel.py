"""One job in several processes: the laptop's two cores and a node's GPUs by the same few lines.

`launch` runs a function as rank 0 in this very process (so that a notebook shows its progress and its errors) and as
ranks 1, 2, … in child processes, which die with their parent; where torchrun or srun has started the ranks, on those
(vans/outside.py). Gradients are averaged over ranks by one flat all-reduce; a batch is cut by rank, a group never is.
Nothing here is needed when there is one process.

A child that dies ends the job within seconds, whatever rank 0 is waiting for (a dead peer alone would not wake it from
an NCCL kernel, nor from the meeting at the start): `Watch` sees it, frees rank 0 and has it raise one clear line.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import IO, Any

import torch
import torch.distributed as dist
from torch import Tensor

from vans import files, outside, warm
from vans.devices import device_of as device_of
from vans.errors import UserError
from vans.terminal import steady

MEETING, COLLECTIVE = timedelta(minutes=10), timedelta(hours=2)  # ranks wait for each other: first, later
PREFIX = re.compile(r"^(\[rank\d+\]: )?(vans\.errors\.UserError: )?")  # of a traceback's last line


@dataclass(frozen=True)
class Ranks:
    """This process's place: rank of `size`, on `device`."""

    rank: int
    size: int
    device: torch.device

    @property
    def main(self) -> bool:
        """Does this process write files and talk?"""
        return self.rank == 0

    def share(self, items: list) -> list:
        """This rank's part of a list: a contiguous block, so that prompt order is kept by `gather`."""
        bounds = [round(len(items) * r / self.size) for r in range(self.size + 1)]
        return items[bounds[self.rank] : bounds[self.rank + 1]]

    def average_gradients(self, params: Iterable[Tensor]) -> None:
        """Mean over ranks of every gradient, in place: one flat float32 all-reduce."""
        if self.size == 1:
            return
        if not (params := [p for p in params if p.requires_grad]):
            return
        grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in params]
        flat = torch.cat([g.float().flatten() for g in grads])
        dist.all_reduce(flat)
        flat /= self.size
        start = 0
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad.copy_(flat[start : start + p.numel()].view_as(p))
            start += p.numel()

    def gather(self, value: Any) -> list:
        """[value of rank 0, of rank 1, …] on every rank. Values: numbers, strings, CPU tensors and lists of them."""
        if self.size == 1:
            return [value]
        values: list = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def collect(self, items: list) -> list:
        """The lists of all ranks, put together in rank order."""
        return [item for part in self.gather(items) for item in part]

    def barrier(self) -> None:
        if self.size > 1:
            dist.barrier()


def processes(machine: Any) -> int:
    """How many processes a job has: `machine.processes`, fewer where "auto" finds fewer GPUs. The number divides
    `machine.processes`, so that batches are still shared evenly. As many as there are where somebody else started them.
    """
    if (ranks := outside.current()) is not None:
        return ranks.size
    if machine.device != "auto" or not torch.cuda.is_available():
        return machine.processes
    most = min(machine.processes, torch.cuda.device_count())
    return next(size for size in range(most, 0, -1) if machine.processes % size == 0)


def launch(target: str, machine: Any, params: Any = None, **arguments) -> Any:
    """Call `module:function(ranks, params, **arguments)` on `processes(machine)` ranks; return rank 0's result.

    target: "package.module:function". machine: has device, processes, threads. params: a Params; every rank gets
    exactly these values (without them the function is called without them). arguments: JSON values only (they cross to
    the child processes as text, nothing is pickled).
    Raises whatever rank 0 raises, and UserError with the last lines of a child that failed.
    """
    if outside.current() is not None:
        return outside.share(target, params, arguments)
    size = processes(machine)
    torch.set_num_threads(machine.threads)
    if size == 1:
        return _call(target, Ranks(0, 1, device_of(machine.device, 0)), params, arguments)
    workers = warm.take(size, machine.threads, target.split(":")[0])
    spec = {
        "target": target,
        "size": size,
        "device": machine.device,
        "threads": machine.threads,
        "store": str(workers.folder / "store"),
        "arguments": arguments,
        "params": None if params is None else params.resolved(),
    }
    files.atomic_write_text(workers.folder / "job.json", json.dumps(spec))
    watch = Watch(workers.children)
    try:
        with watch:
            _all_started(workers.folder, size)
            result = _ranked(spec, 0, params)
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) or not (watch.struck or _in_collective(error)):
            raise
        if not watch.died(within=3.0):
            raise
        raise UserError(watch.obituary()) from error
    finally:
        watch.stop()
        failed = sys.exc_info()[0] is not None
        for child, _ in workers.children:
            with contextlib.suppress(subprocess.TimeoutExpired):
                child.wait(timeout=0.1 if failed else 10)
        workers.close()
    return result


class _WorkerDied(BaseException):
    """Raised in rank 0's thread, wherever it is; `launch` turns it into a UserError."""


class Watch:
    """While rank 0 works in a `with` block of this, a thread looks after the children (process, log file).

    When one dies with an error, rank 0 has `grace` seconds to notice by itself, in a collective that fails. Then the
    other children are killed, the communicator is aborted, and `_WorkerDied` is raised in rank 0's thread. If even that
    does not wake it within `last_resort` seconds, the process ends with the line that says why.
    """

    interval, grace, last_resort = 0.2, 2.0, 120.0  # s

    def __init__(self, children: Sequence[tuple[subprocess.Popen, IO[str]]]):
        self.children = children
        self.struck = False  # has `_WorkerDied` been raised?
        self._dead: int | None = None  # which child failed first
        self._lock = threading.Lock()
        self._over = threading.Event()

    def __enter__(self) -> Watch:
        self._ward = ctypes.c_ulong(threading.get_ident())
        threading.Thread(target=self._look, daemon=True).start()
        return self

    def __exit__(self, *_) -> None:
        self.stop()

    def stop(self) -> None:
        """From here on nothing is raised, and what is pending is taken back."""
        with self._lock:
            self._over.set()
            ctypes.pythonapi.PyThreadState_SetAsyncExc(self._ward, None)

    def died(self, within: float = 0.0) -> bool:
        """Has a child failed, or does one within these seconds?"""
        end = time.monotonic() + within
        while self._dead is None:
            failed = (i for i, (child, _) in enumerate(self.children) if child.poll() not in (None, 0))
            self._dead = next(failed, None)
            if time.monotonic() >= end:
                break
            time.sleep(0.05)
        return self._dead is not None

    def obituary(self) -> str:
        """One line on why a child ended: the last one that it wrote, or the signal that ended it."""
        assert self._dead is not None
        child, log = self.children[self._dead]
        who = f"a worker process failed (rank {self._dead + 1} of {len(self.children) + 1})"
        if child.returncode < 0:
            name = signal.Signals(-child.returncode).name
            return f"{who}: ended by {name}" + (", often for lack of memory" if name == "SIGKILL" else "")
        log.seek(0)
        lines = [line.strip() for line in log.read().splitlines() if line.strip()]
        last = lines[-1] if lines else f"exit code {child.returncode}, no message"
        return f"{who}: {PREFIX.sub('', last)}"

    def _look(self) -> None:
        while not self.died():
            if self._over.wait(self.interval):
                return
        if self._over.wait(self.grace):
            return
        for child, _ in self.children:  # wakes a rank 0 that waits for another one of them
            child.kill()
        self._strike()
        if torch.cuda.is_available() and dist.is_initialized():  # wakes one that waits for an NCCL kernel
            with contextlib.suppress(Exception):
                dist.distributed_c10d._abort_process_group()
        end = time.monotonic() + self.last_resort
        while not self._over.wait(self.grace):
            self._strike()  # again: it is lost where it meets a destructor or an `except` for everything
            if time.monotonic() > end:
                with contextlib.suppress(OSError):
                    os.write(2, f"error: {self.obituary()}; nothing woke rank 0, so it ends too\n".encode())
                os._exit(1)

    def _strike(self) -> None:
        with self._lock:
            if not self._over.is_set():
                self.struck = True
                ctypes.pythonapi.PyThreadState_SetAsyncExc(self._ward, ctypes.py_object(_WorkerDied))


def _in_collective(error: BaseException) -> bool:
    """Was it raised by torch.distributed? Then it says that another rank has left, not what was wrong."""
    trace = error.__traceback__
    while trace is not None:
        if f"torch{os.sep}distributed" in trace.tb_frame.f_code.co_filename:
            return True
        trace = trace.tb_next
    return isinstance(error, dist.DistError)


def _all_started(folder: Path, size: int) -> None:
    """Rank 0 waits here, where it can be woken, until every child is about to join the process group."""
    while not all((folder / f"started{rank}").exists() for rank in range(1, size)):
        if not folder.exists():
            raise UserError(f"{folder}: gone while the processes of this job started; start it again")
        time.sleep(0.02)


def _call(target: str, ranks: Ranks, params: Any, arguments: dict) -> Any:
    module, name = target.split(":")
    given = () if params is None else (params,)
    return getattr(importlib.import_module(module), name)(ranks, *given, **arguments)


def _ranked(spec: dict, rank: int, params: Any = None) -> Any:
    """Join the process group, call the function, leave the group."""
    device = device_of(spec["device"], rank)
    if sys.platform.startswith("linux"):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    if device.type == "cuda":
        torch.cuda.set_device(device)
        # NCCL's own watchdog ends a process whose peers hang. That is right for the children, and `Watch` then frees
        # rank 0; in rank 0 it would end the notebook's process at the moment when `Watch` aborts the communicator.
        os.environ["TORCH_NCCL_ASYNC_ERROR_HANDLING"] = "0" if rank == 0 else "3"
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo",
        init_method=f"file://{spec['store']}",
        rank=rank,
        world_size=spec["size"],
        timeout=MEETING,
    )
    dist.set_timeout(COLLECTIVE)
    try:
        result = _call(spec["target"], Ranks(rank, spec["size"], device), params, spec["arguments"])
        dist.barrier()
        return result
    finally:
        dist.destroy_process_group()


def _die_with_parent(parent: int) -> None:
    """A worker must not outlive the process that started it (which may be killed without warning)."""
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    else:

        def watch() -> None:
            while os.getppid() == parent:
                time.sleep(1)
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
    if os.getppid() != parent:  # it died while this process was starting
        os._exit(1)


def _worker(place: str, rank: str, module: str) -> None:
    """A rank: import what the job will need, wait for the job, do it."""
    _die_with_parent(int(os.environ["VANS_PARENT"]))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is rank 0's to handle; it then ends this process
    importlib.import_module(module)
    job = Path(place) / "job.json"
    while not job.exists():
        if not job.parent.exists():
            raise UserError(f"{job.parent}: gone while this process waited for its job; start it again")
        time.sleep(0.01)
    spec = json.loads(job.read_text())
    params = None
    if spec["params"] is not None:
        from vans.params import Params

        params = Params.from_resolved(spec["params"])
    torch.set_num_threads(spec["threads"])
    device_of(spec["device"], int(rank))
    (job.parent / f"started{rank}").touch()
    with steady():  # its log is a file, on a disk that may be full
        _ranked(spec, int(rank), params)


if __name__ == "__main__":
    _worker(*sys.argv[1:])
