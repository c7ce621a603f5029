"""Worker processes started early: they import their libraries while a notebook's first cell imports its own.

    warm.up(processes, threads, "vans.train.stage1")    # returns at once

A headless run does so by the environment of its kernel (VARIABLE), before the first cell. Nothing depends on it:
`vans.parallel.launch` takes the waiting workers if they fit, and starts others if not. They die with the process that
started them.
"""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from vans import warm_server
from vans.files import temporary

VARIABLE = "VANS_WARM"


@dataclass
class Workers:
    """Ranks 1, 2, ... of a job to come: they wait for job.json in `folder`."""

    folder: Path
    threads: int
    children: list[tuple[Any, IO[str]]]  # process, its log

    def close(self) -> None:
        """End what still runs, and remove the folder."""
        for child, log in self.children:
            if child.poll() is None:
                child.kill()
            child.wait()
            log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


_waiting: Workers | None = None


def up(size: int, threads: int, module: str) -> None:
    """Start ranks 1 to size - 1 of a job to come: they import `module` and wait."""
    global _waiting
    if _waiting is None and size > 1:
        _waiting = start(size, threads, module)


def as_told() -> None:
    """Start the workers that the environment asks for: "processes threads module"."""
    if told := os.environ.pop(VARIABLE, None):
        size, threads, module = told.split()
        up(int(size), int(threads), module)


def take(size: int, threads: int, module: str) -> Workers:
    """The waiting workers if they fit, else new ones. The caller closes them."""
    global _waiting
    waiting, _waiting = _waiting, None
    if waiting is not None:
        alive = all(child.poll() is None for child, _ in waiting.children)
        if alive and (len(waiting.children), waiting.threads) == (size - 1, threads):
            return waiting
        waiting.close()
    return start(size, threads, module)


def start(size: int, threads: int, module: str) -> Workers:
    """Start ranks 1 to size - 1 of a job."""
    folder = Path(tempfile.mkdtemp(prefix=temporary("ranks")))
    children: list[tuple[Any, IO[str]]] = []
    for rank in range(1, size):
        log = open(folder / f"rank{rank}.log", "w+")  # noqa: SIM115
        command = [sys.executable, "-m", "vans.parallel", str(folder), str(rank), module]
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "VANS_PARENT": str(os.getpid())}
        files: dict[str, Any] = {"stdout": log, "stderr": log, "env": environment}
        children.append((warm_server.popen(command, **files) or subprocess.Popen(command, **files), log))
    return Workers(folder, threads, children)


@atexit.register
def _close() -> None:
    if _waiting is not None:
        _waiting.close()
