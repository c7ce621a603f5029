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
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vans import warm_server
from vans.ending import end_below
from vans.errors import UserError
from vans.params import find_root

if TYPE_CHECKING:
    import psutil

POLL = 10.0  # s between two looks
STOPPING = 3.0  # the same while it stops
PATIENCE = 60.0  # s for which a task may be without a process, or a worker that is to stop without a task
DEAF = 3.0  # s after which a worker that was told to stop has noticed
TRIES = 5  # starts of workers that all end before one has taken a task

GOES_ON = "what runs goes on to its end, the rest stays queued; Ctrl-C again ends what runs"


@dataclass(frozen=True)
class Standing:
    """The tasks in DVC's queue, by what it says of them: revision -> name."""

    waits: Mapping[str, str]
    runs: Mapping[str, str]
    failed: Mapping[str, str]
    done: Mapping[str, str]

    def __str__(self) -> str:
        told = [("waiting", self.waits), ("running", self.runs), ("done", self.done), ("failed", self.failed)]
        return ", ".join(f"{len(names)} {what}" for what, names in told if names or what == "waiting")


def look(repo: Any) -> Standing:
    """What DVC's queue holds now."""
    found: dict[str, dict[str, str]] = {"Queued": {}, "Running": {}, "Failed": {}, "Success": {}}
    for task in repo.experiments.celery_queue.status():
        found.setdefault(task["status"], {})[task["rev"]] = task["name"] or task["rev"][:7]
    return Standing(*(found[name] for name in ("Queued", "Running", "Failed", "Success")))


def workers(repo: Any) -> "list[psutil.Process]":
    """DVC's workers on this queue, whether or not they answer it yet."""
    import psutil

    found = []
    for path in Path(repo.experiments.celery_queue.wdir).glob("dvc-exp-worker-*.json"):
        with contextlib.suppress(psutil.Error, OSError, ValueError, KeyError):
            process = psutil.Process(json.loads(path.read_text(encoding="utf-8"))["pid"])
            if "queue-worker" in process.cmdline():
                found.append(process)
    return found


def process_of(repo: Any, task: str) -> "psutil.Process | None":
    """Of a task (its revision) the process that runs it; None where none is started yet or it has ended.

    Also where nobody asked how it ended (below the first process of many a container it stays a zombie, which has no
    command), and where another process has its number now.
    """
    import psutil

    with contextlib.suppress(psutil.Error, OSError):
        if note := repo.experiments.celery_queue.proc.get(task):
            process = psutil.Process(note.pid)
            command = " ".join(process.cmdline())
            return process if "exec-run" in command and task in command else None
    return None


def run(jobs: int, poll: float = POLL, patience: float = PATIENCE) -> int:
    """Run what is queued, ``jobs`` tasks at a time, until nothing waits or runs; the exit code.

    poll: seconds between two looks at it; patience: seconds after which a task without a process has failed.
    0: all of them are done; 1: one failed; 130, 143: stopped. Raises UserError outside of DVC, or if no worker starts.
    """
    from dvc.exceptions import NotDvcRepoError
    from dvc.repo import Repo

    root, signals = find_root(), list[int]()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        for number, handler in before.items():
            if handler is not signal.SIG_IGN:
                signal.signal(number, lambda number, _: signals.append(number))
        try:
            opened = Repo(str(root))
        except NotDvcRepoError as error:
            raise UserError(f"{root}: no DVC repository; `dvc init`, or clone this one with git") from error
        with opened as repo:
            start = look(repo)
            if not start.waits and not start.runs:
                print("nothing is queued; `dvc exp run --queue …` first")
                return 0
            with warm_server.for_stages() as env:
                return _Run(repo, jobs, poll, patience, env, signals).to_the_end(start)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@dataclass
class _Run:
    repo: Any
    jobs: int
    poll: float
    patience: float
    env: Mapping[str, str]
    signals: list[int]  # that came; the first SIGINT lets what runs end
    missed: dict[str, float] = field(default_factory=dict)  # task -> since when it has no process
    told: dict[int, float] = field(default_factory=dict)  # worker that is to stop -> since when
    busy: dict[int, float] = field(default_factory=dict)  # … -> when anything last ran
    ended: set[int] = field(default_factory=set)  # processes of tasks
    why: dict[str, str] = field(default_factory=dict)  # task -> what is known of its failure
    word: str = ""  # the last said about what runs
    starts: int = 0  # of workers, since the queue last changed

    def to_the_end(self, start: Standing) -> int:
        said, heard, idle, now = "", 0, 0, start
        while idle < 2:  # a task on its way from waiting to running is seen as neither
            now = look(self.repo)
            if str(now) != said:
                said, self.starts = str(now), 0
                print(f"{time.strftime('%H:%M:%S')} {said}", flush=True)
            there = workers(self.repo)
            if self.signals:
                if not heard:
                    print("stopping …", flush=True)
                heard = len(self.signals)
                self._stop(now, there)
            self._fail(self._lost(now, there))
            idle = idle + 1 if not now.runs and not (there if self.signals else now.waits) else 0
            if now.waits and not self.signals and len(now.runs) < self.jobs:
                self._start(there)
            if idle < 2:
                self._wait(1.0 if idle else min(self.poll, STOPPING) if self.signals else self.poll, heard)
        failed = {task: name for task, name in now.failed.items() if task not in start.failed}
        for task, name in failed.items():
            why = self.why.get(task, f"failed; `dvc queue logs {name}` tells why")
            print(f"vans: {name}: {why}", file=sys.stderr)
        if self.signals:
            return 128 + self.signals[-1]
        return 1 if failed else 0

    def _wait(self, seconds: float, heard: int) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until and len(self.signals) == heard:
            time.sleep(min(0.2, seconds))

    def _start(self, there: Collection[Any]) -> None:
        """As many workers as are missing. They outlive this process, so they get none of its streams.

        DVC starts again whoever does not answer it within a second, also who is merely busy or begins; so all that are
        there must have answered.
        """
        if len(there) >= self.jobs or len(self.repo.experiments.celery_queue.worker_status()) < len(there):
            return
        self.starts += not there
        if self.starts > TRIES:
            log = Path(self.repo.experiments.celery_queue.wdir) / "dvc-exp-worker-1.out"
            raise UserError(f"{log}: DVC's workers end before they take a task; its last lines tell why")
        code = self._dvc("queue", "start", "-q", "-j", str(self.jobs))
        if code and not self.signals:
            raise UserError(f"`dvc queue start -j {self.jobs}` failed; type it to see why")

    def _stop(self, now: Standing, there: "Collection[psutil.Process]") -> None:
        """No worker takes another task (SIGTERM lets it finish its own), and from the second signal on what runs ends.

        Not by `dvc queue stop`, which workers that begin or are busy do not hear: they take the next task. One whose
        task ends just then may take the next and not run it (celery 5.7): DVC says that it runs, `_lost` ends that.
        """
        import psutil

        clock = time.monotonic()
        for worker in there:
            with contextlib.suppress(psutil.Error):
                if worker.pid not in self.told:
                    self.told[worker.pid] = self.busy[worker.pid] = clock
                    worker.terminate()
                elif now.runs:
                    self.busy[worker.pid] = clock
                elif clock > self.busy[worker.pid] + self.patience:
                    worker.kill()
        if self._hears(there):
            return
        gently = self.signals == [signal.SIGINT]
        word = GOES_ON if gently else "what runs is ended and has failed; its finished stages are kept"
        if now.runs and word != self.word:
            self.word = word
            print(word, flush=True)
        if gently:
            return
        for task in now.runs:
            process = process_of(self.repo, task)
            if process is not None and process.pid not in self.ended:
                self.ended.add(process.pid)
                self.why[task] = "stopped before its end"
                end_below(process.pid)

    def _hears(self, there: Collection[Any]) -> bool:
        """May a worker not know yet that it is to stop? It looks every two seconds (celery 5), and answers until then;
        with its task ended before, it would take the next."""
        since = [time.monotonic() - self.told[worker.pid] for worker in there]
        if not since or max(since) > PATIENCE:
            return False
        return min(since) < DEAF or bool(self.repo.experiments.celery_queue.worker_status())

    def _lost(self, now: Standing, there: Collection[Any]) -> list[str]:
        """Tasks that run by what DVC says, and have had neither process nor worker for a while: the machine went down,
        or they were killed. A worker has one task, and for a while no process of it, before it and after."""
        without = [task for task in now.runs if process_of(self.repo, task) is None]
        if len(now.runs) <= len(there):
            without = []
        self.missed = {task: self.missed.get(task, time.monotonic()) for task in without}
        late = [task for task in without if time.monotonic() > self.missed[task] + self.patience]
        notes = self.repo.experiments.celery_queue.proc
        return sorted(late, key=lambda task: notes.get(task) is None)[: len(now.runs) - len(there)]

    def _fail(self, tasks: list[str]) -> None:
        """Have DVC note that these tasks have failed.

        Without an exit code in its notes it would signal whoever has the number now, and take a zombie, too, for alive
        (dvc-task 0.40).
        """
        notes = self.repo.experiments.celery_queue.proc
        for task in tasks:
            if (note := notes.get(task)) and note.returncode is None:
                note.returncode = -1
                notes[task] = note
            self.why[task] = "failed: it had neither process nor worker any more; queue it again"
        if tasks:
            self._dvc("queue", "kill", *tasks)

    def _dvc(self, *words: str) -> int:
        """In a session of its own: Ctrl-C is for this process."""
        nothing: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        command = ["dvc", *words]
        return subprocess.run(command, env=self.env, start_new_session=True, check=False, **nothing).returncode
