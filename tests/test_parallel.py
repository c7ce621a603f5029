"""Several processes: a worker that dies ends the job within seconds, with one line that says which and why."""

import shutil
import threading
import time
from types import SimpleNamespace

import pytest
import torch

from vans import parallel, warm
from vans.errors import UserError
from vans.parallel import launch


def machine(processes: int, device: str = "cpu") -> SimpleNamespace:
    return SimpleNamespace(processes=processes, device=device, threads=1)


@pytest.fixture
def launched(tmp_path):
    """launched(target, processes) -> what `launch` raises, and how many seconds after the failure it does."""

    def call(target: str, processes: int) -> tuple[BaseException, float]:
        note = tmp_path / "note"
        with pytest.raises(Exception) as caught:
            launch(f"tests.ranks:{target}", machine(processes), note=str(note))
        return caught.value, time.time() - note.stat().st_mtime

    return call


@pytest.fixture(autouse=True)
def nothing_left():
    """No process group stays, and no exception is pending in this thread."""
    yield
    assert not torch.distributed.is_initialized()
    for _ in range(1000):
        time.sleep(0)
    assert not [t for t in threading.enumerate() if t.name.endswith("(_look)")]


def test_results_of_all_ranks():
    assert launch("tests.ranks:ranks_of", machine(2)) == [0, 1]


def test_a_worker_killed_in_a_collective(launched):
    error, seconds = launched("dies_in_a_collective", 2)
    assert isinstance(error, UserError)
    assert str(error) == "a worker process failed (rank 1 of 2): ended by SIGKILL, often for lack of memory"
    assert seconds < 20


def test_a_worker_killed_while_rank_0_waits_for_another(launched):
    error, seconds = launched("dies_while_rank_0_waits_for_another", 3)
    assert isinstance(error, UserError) and "(rank 2 of 3): ended by SIGKILL" in str(error)
    assert seconds < 20


def test_a_worker_that_fails_while_rank_0_computes(launched):
    error, seconds = launched("fails_while_rank_0_computes", 2)
    assert isinstance(error, UserError)
    assert str(error) == "a worker process failed (rank 1 of 2): data/x: missing; get it back"
    assert seconds < 30


def test_a_worker_that_fails_before_it_has_joined(monkeypatch):
    monkeypatch.setattr(parallel.sys, "executable", "false")
    with pytest.raises(UserError, match=r"a worker process failed \(rank 1 of 2\): exit code 1, no message"):
        launch("tests.ranks:ranks_of", machine(2))


def test_a_job_whose_folder_is_gone_waits_for_nobody(tmp_path):
    workers = warm.start(2, 1, "tests.ranks")
    shutil.rmtree(workers.folder)
    assert workers.children[0][0].wait(60) == 1
    workers.close()
    with pytest.raises(UserError, match="gone while the processes of this job started"):
        parallel._all_started(tmp_path / "gone", 2)


def test_an_error_of_rank_0_is_its_own(launched):
    error, seconds = launched("fails_on_rank_0", 2)
    assert isinstance(error, KeyError) and "its own" in str(error)
    assert seconds < 20


def test_a_rank_0_that_nothing_wakes_is_ended(monkeypatch):
    """The last resort: the line goes to standard error and the process ends (here: both are only noted)."""
    said, ended = [], threading.Event()
    monkeypatch.setattr(parallel.os, "write", lambda where, line: said.append((where, line.decode())))
    monkeypatch.setattr(parallel.os, "_exit", lambda code: ended.set())
    child = SimpleNamespace(poll=lambda: -9, returncode=-9, kill=lambda: None)
    watch = parallel.Watch([(child, None)])  # type: ignore[list-item]
    watch.interval = watch.grace = watch.last_resort = 0.05
    with pytest.raises(parallel._WorkerDied), watch:
        assert ended.wait(10)
        while True:
            time.sleep(0.01)
    watch.stop()
    assert said[0][0] == 2 and "rank 1 of 2" in said[0][1]
