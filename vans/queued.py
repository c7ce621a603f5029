"""DVC's queue of experiments, run to its last one: `vans queue`.

DVC's own workers run the tasks. What is added: a server of imported libraries below them (`vans.warm_server`), a line
whenever something changes, new workers where one has ended while tasks wait (DVC 3.67 ends a worker now and then), a
way to stop that ends nothing that runs, and an end to tasks that say they run after their process has gone.
"""

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from vans import warm_server
from vans.ending import end_below
from vans.errors import UserError
from vans.params import find_root

POLL = 10.0  # s between two looks
PATIENCE = 6  # looks for which a task may be without a process


@dataclass(frozen=True)
class Standing:
    """Names of the tasks in DVC's queue, by what it says of them."""

    waits: tuple[str, ...]
    runs: tuple[str, ...]
    failed: tuple[str, ...]
    done: tuple[str, ...]

    def __str__(self) -> str:
        told = [("waiting", self.waits), ("running", self.runs), ("done", self.done), ("failed", self.failed)]
        return ", ".join(f"{len(names)} {what}" for what, names in told if names or what == "waiting")


def look(repo: Any) -> Standing:
    """What DVC's queue holds now."""
    found: dict[str, list[str]] = {"Queued": [], "Running": [], "Failed": [], "Success": []}
    for task in repo.experiments.celery_queue.status():
        found.setdefault(task["status"], []).append(task["name"] or task["rev"][:7])
    return Standing(*(tuple(found[name]) for name in ("Queued", "Running", "Failed", "Success")))


def lost(repo: Any) -> list[str]:
    """Tasks that run by what DVC says, and have no process: the machine went down, they were killed, or just begin."""
    return [name for name, pid in _processes(repo).items() if pid is None or _gone(pid)]


def _gone(pid: int) -> bool:
    """Has this process ended? Also where nobody asked how: below the first process of many a container it stays a
    zombie."""
    import psutil

    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _processes(repo: Any) -> dict[str, int | None]:
    """Of each task that runs the process, or None where none was started yet."""
    queue = repo.experiments.celery_queue
    notes = {_name(entry): queue.proc.get(entry.stash_rev) for entry in queue.iter_active()}
    return {name: note.pid if note else None for name, note in notes.items()}


def _name(entry: Any) -> str:
    return entry.name or entry.stash_rev[:7]


def _fail(repo: Any, names: list[str], env: Mapping[str, str]) -> None:
    """Have DVC note that these tasks have failed.

    It takes whom it can send a signal for alive, a zombie too (dvc-task 0.40), unless an exit code stands in its notes.
    """
    queue = repo.experiments.celery_queue
    for entry in queue.iter_active():
        note = queue.proc.get(entry.stash_rev)
        if _name(entry) in names and note and note.returncode is None and _gone(note.pid):
            note.returncode = -1
            queue.proc[entry.stash_rev] = note
    # of what a worker still has in hand DVC refuses it; then it is no news
    subprocess.run(["dvc", "queue", "kill", *names], env=env, capture_output=True, check=False)


def run(jobs: int, poll: float = POLL) -> int:
    """Run what is queued, ``jobs`` tasks at a time, until nothing waits or runs; the exit code.

    0: all of them are done; 1: one failed; 130, 143: stopped. A task whose process is gone has failed.
    """
    from dvc.repo import Repo

    signals: list[int] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, lambda number, _: signals.append(number))
    try:
        with Repo(str(find_root())) as repo:
            start = look(repo)
            if not start.waits and not start.runs:
                print("nothing is queued; `dvc exp run --queue …` first")
                return 0
            with warm_server.for_stages() as env:
                return _to_the_end(repo, jobs, poll, env, start, signals)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _to_the_end(repo: Any, jobs: int, poll: float, env: Mapping[str, str], start: Standing, signals: list[int]) -> int:
    said, stopping = "", 0
    dead: dict[str, int] = {}
    while True:
        now = look(repo)
        if str(now) != said:
            said = str(now)
            print(f"{time.strftime('%H:%M:%S')} {said}", flush=True)
        if len(signals) > stopping:
            stopping = _stop(repo, signals, env)
        if not now.runs and (stopping or not now.waits):
            break
        dead = {name: dead.get(name, 0) + 1 for name in lost(repo)}
        if names := [name for name, looks in dead.items() if looks >= PATIENCE]:
            _fail(repo, names, env)
            dead = {}
        if now.waits and not stopping and len(now.runs) < jobs and _missing(repo, jobs):
            _start(jobs, env)
        until = time.monotonic() + (min(poll, 1.0) if stopping else poll)
        while time.monotonic() < until and len(signals) == stopping:
            time.sleep(0.2)
    failed = [name for name in now.failed if name not in start.failed]
    for name in failed:
        print(f"vans: {name}: failed; `dvc queue logs {name}` tells why", file=sys.stderr)
    if stopping:
        return 128 + signals[-1]
    return 1 if failed else 0


def _missing(repo: Any, jobs: int) -> bool:
    """Are there fewer workers than ``jobs``? DVC starts again whoever does not answer it within a second, also who is
    merely busy; so all that are there must have answered."""
    import psutil

    queue, there = repo.experiments.celery_queue, 0
    for path in Path(queue.wdir).glob("dvc-exp-worker-*.json"):
        with contextlib.suppress(psutil.Error, OSError, ValueError, KeyError):
            there += "queue-worker" in psutil.Process(json.loads(path.read_text(encoding="utf-8"))["pid"]).cmdline()
    return there < jobs and len(queue.worker_status()) >= there


def _start(jobs: int, env: Mapping[str, str]) -> None:
    """As many workers as are missing. They outlive this process, so they get none of its streams."""
    nothing = subprocess.DEVNULL
    command = ["dvc", "queue", "start", "-q", "-j", str(jobs)]
    if subprocess.run(command, env=env, stdin=nothing, stdout=nothing, stderr=nothing, check=False).returncode:
        raise UserError(f"`{' '.join(command)}` failed; type it without -q to see why")


def _stop(repo: Any, signals: list[int], env: Mapping[str, str]) -> int:
    """Let what runs end by itself (the first Ctrl-C), or end it; how many signals are answered by that.

    Not by `dvc queue stop --kill`: a worker that has not heard of it yet takes the next task when its own is killed.
    """
    answered = len(signals)
    subprocess.run(["dvc", "queue", "stop", "-q"], env=env, check=False)
    until = time.monotonic() + PATIENCE * POLL
    while repo.experiments.celery_queue.worker_status() and time.monotonic() < until:
        pass  # each asks for a second
    if answered == 1 and signal.SIGTERM not in signals:
        print("what runs goes on to its end, the rest stays queued; Ctrl-C again ends what runs", flush=True)
        return answered
    for pid in filter(None, _processes(repo).values()):
        end_below(pid)
    print("what ran has failed; queue it again: its finished stages come from DVC's cache", flush=True)
    return answered
