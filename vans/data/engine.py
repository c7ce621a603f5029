"""A map over sources: in this process, in several, or on a cluster; the same results in the same order.

    for task, result in zip(tasks, run(function, tasks, "local", workers=2)): …

function: importable by name, task -> result, both picklable. `machine.engine` says where it runs: `local` (worker
processes of this machine; a single one may be this very process) or `ray` (plain Ray tasks; the cluster that
RAY_ADDRESS names, else this machine; data, cache and code must be there under the same paths). Ray's tasks
and not its datasets: the results are small and wanted in order, blocks and shuffles would be in the way.

A task that takes its worker process down with it (a decoder can crash) gives CRASHED; all others are done. Tasks
that may do so never run in this process, so that the results do not depend on the number of workers.
"""

import logging
import multiprocessing
import os
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from itertools import islice
from typing import Any

from tqdm import tqdm

from vans.errors import UserError

AHEAD = 16  # tasks under way per worker: one slow task does not hold up the others
FEW = 64  # tasks for which starting a process is worth it
FEW_HEAVY = 4  # of those that take about a second or more
KNOCK = 10.0  # s to wait for a cluster's answer
CRASHED = "crashed"


def cores() -> int:
    """The cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run(
    function: Callable[[Any], Any],
    tasks: Sequence[Any],
    engine: str = "local",
    workers: int = 1,
    progress: str = "",
    heavy: bool = False,
) -> Iterator[Any]:
    """Yield function(task) of each task, in order.

    workers: 0 for all cores, as far as it is worth starting them. progress: what the bar on standard error says
    ("": no bar). heavy: tasks take long and may crash: never in this process. Raises what a task raises; UserError
    if the engine is not there.
    """
    workers = min(workers or min(cores(), len(tasks) // (FEW_HEAVY if heavy else FEW)), len(tasks)) or 1
    if engine == "ray":
        results = _ray(function, tasks, workers)
    else:
        results = map(function, tasks) if workers == 1 and not heavy else _processes(function, tasks, workers)
    bar = tqdm(total=len(tasks), desc=progress, unit="video", file=sys.stderr, mininterval=2.0, disable=not progress)
    with bar:
        for result in results:
            bar.update()
            yield result


# ------------------------------------------------------------------------------------------- worker processes
def _processes(function: Callable[[Any], Any], tasks: Sequence[Any], workers: int) -> Iterator[Any]:
    done = 0
    while done < len(tasks):
        pool = _pool(workers)
        try:
            for result in _ordered(pool, function, islice(tasks, done, None), workers * AHEAD):
                yield result
                done += 1
            return
        except BrokenProcessPool:  # one of those under way did it
            for result in _one_by_one(function, tasks[done : done + workers * AHEAD]):
                yield result
                done += 1
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _ordered(pool: Any, function: Callable[[Any], Any], tasks: Iterator[Any], ahead: int) -> Iterator[Any]:
    waiting: deque[Future] = deque(pool.submit(function, task) for task in islice(tasks, ahead))
    while waiting:
        result = waiting.popleft().result()
        for task in islice(tasks, 1):
            waiting.append(pool.submit(function, task))
        yield result


def _one_by_one(function: Callable[[Any], Any], tasks: Sequence[Any]) -> Iterator[Any]:
    """In one process, so that the task that ends it is known."""
    pool = _pool(1)
    try:
        for task in tasks:
            try:
                result = pool.submit(function, task).result()
            except BrokenProcessPool:
                result = CRASHED
                pool.shutdown()
                pool = _pool(1)
            yield result
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _pool(workers: int) -> ProcessPoolExecutor:
    """Worker processes that have started. UserError if they cannot: then no task is to blame."""
    pool = ProcessPoolExecutor(
        workers, mp_context=multiprocessing.get_context("spawn"), initializer=_stay_with, initargs=(os.getpid(),)
    )
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})  # a worker that is starting would cry out
    try:
        for started in [pool.submit(os.getpid) for _ in range(workers)]:  # each starts a worker
            started.result()
    except BrokenProcessPool as error:
        raise UserError(
            "worker processes do not start: is memory short (try machine.workers: 1)? A script that curates has to "
            "do it below `if __name__ == '__main__':`"
        ) from error
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return pool


def _stay_with(parent: int) -> None:
    """A worker must not outlive the process that started it, which may be killed without warning.

    Ctrl-C reaches workers too: they end without a word, and the parent says what there is to say.
    """
    if signal.getsignal(signal.SIGINT) != signal.SIG_IGN:  # as it is for a run in the background
        signal.signal(signal.SIGINT, lambda *_: os._exit(130))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # blocked by the parent until here

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


# -------------------------------------------------------------------------------------------------------- Ray
def _knock(address: str) -> None:
    """OSError if nobody listens at a cluster's host:port, of which Ray itself makes sure for some minutes."""
    host, colon, port = address.rpartition("://")[2].rpartition(":")
    if colon and port.isdigit():
        with socket.create_connection((host.strip("[]"), int(port)), timeout=KNOCK):
            pass


def _ray(function: Callable[[Any], Any], tasks: Sequence[Any], workers: int) -> Iterator[Any]:
    try:
        import ray
    except ImportError:
        raise UserError(
            "params.yaml: machine.engine: ray needs Ray; `pip install 'vans[ray]'`, or use engine: local"
        ) from None
    started = not ray.is_initialized()
    if started:
        code = os.pathsep.join(path for path in sys.path if path)
        settings: dict[str, Any] = {"runtime_env": {"env_vars": {"PYTHONPATH": code}}}
        if not os.environ.get("RAY_ADDRESS"):
            settings |= {"num_cpus": workers, "include_dashboard": False}
        try:
            _knock(os.environ.get("RAY_ADDRESS", ""))
            ray.init(log_to_driver=False, logging_level=logging.ERROR, **settings)
        except (OSError, RuntimeError, TimeoutError, ValueError) as error:
            where = os.environ.get("RAY_ADDRESS")
            fix = f"check RAY_ADDRESS ({where})" if where else "see to this machine"
            why = " ".join(str(error).split())[:200]
            raise UserError(f"Ray does not start ({why}); {fix}, or set machine.engine: local in params.yaml") from None
    try:
        remote = ray.remote(num_cpus=1, max_retries=1)(function)
        ahead = AHEAD * max(workers, int(ray.cluster_resources().get("CPU", 1)))
        todo = iter(tasks)
        waiting = deque(remote.remote(task) for task in islice(todo, ahead))
        while waiting:
            try:
                result = ray.get(waiting.popleft())
            except (ray.exceptions.WorkerCrashedError, ray.exceptions.OutOfMemoryError):
                result = CRASHED
            for task in islice(todo, 1):
                waiting.append(remote.remote(task))
            yield result
    finally:
        if started:
            ray.shutdown()
