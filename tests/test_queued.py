"""`vans queue`: DVC's queue to its last task, with a server of imported libraries, and two ways to stop."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from dvc.repo import Repo

from tests import smoke
from vans import queued
from vans.errors import UserError

JOB = """
import os, pathlib, sys, time, yaml
seed, folder = yaml.safe_load(open("params.yaml"))["train_seed"], pathlib.Path(sys.argv[1])
(folder / f"pid{seed}").write_text(str(os.getpid()))
while (folder / "wait").exists():
    time.sleep(0.1)
server = os.environ.get("VANS_WARM_SERVER", "")
(folder / f"seen{seed}").write_text(str(os.path.exists(server)))
pathlib.Path("a").write_text(str(seed))
sys.exit(seed == 3)
"""
SCRIPT = """
import functools, signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from vans import queued, warm_server
warm_server.GPUS = ()
warm_server.running = functools.partial(warm_server.running, libraries=["json"])
sys.exit(queued.run(2, 0.5, 3.0))
"""


@pytest.fixture
def repository(tmp_path):
    """A repository with one stage; returns a function that puts train seeds into its queue."""
    root, folder = tmp_path / "root", tmp_path / "seen"
    root.mkdir()
    folder.mkdir()
    (root / "params.yaml").write_bytes((smoke.ROOT / "params.yaml").read_bytes())
    (root / "job.py").write_text(JOB)
    (root / "dvc.yaml").write_text(
        f"stages:\n  a:\n    cmd: '{sys.executable} job.py {folder}'\n    params: [train_seed]\n    outs: [a]\n"
    )
    (root / ".gitignore").write_text("/a\n")
    for command in (["git", "init", "-q"], ["git", "config", "user.email", "a@b"], ["git", "config", "user.name", "t"]):
        smoke.run(*command, cwd=root)
    smoke.dvc(root, "init", "-q")
    smoke.commit(root, "start")

    def put(first, last):
        smoke.dvc(root, "exp", "run", "-q", "--queue", "-S", f"train_seed=range({first},{last})")
        return root, folder

    yield put
    for process in psutil.process_iter(["cwd"]):  # DVC's workers outlive who started them
        if process.info["cwd"] and Path(process.info["cwd"]).is_relative_to(root):
            with contextlib.suppress(psutil.Error):
                process.kill()


@contextlib.contextmanager
def _started(root):
    """`vans queue` in that folder and the file that it prints to; it ends with the block, whatever happened in it."""
    with (root.parent / "out").open("w") as out, (root.parent / "err").open("w") as err:
        command = [sys.executable, "-c", SCRIPT]
        given = {"cwd": root, "env": smoke.environment(smoke.ROOT), "start_new_session": True}
        process = subprocess.Popen(command, stdout=out, stderr=err, **given)
    try:
        yield process, Path(out.name)
    finally:
        process.kill()
        process.wait()


def _ended(root, process):
    """Its exit code and what it printed, once it has ended."""
    code = process.wait(timeout=300)
    return code, (root.parent / "out").read_text(), (root.parent / "err").read_text()


def _wait_for(seen, what):
    until = time.monotonic() + 200
    while not seen():
        assert time.monotonic() < until, f"{what} never came"
        time.sleep(0.1)


def _begins(path):
    _wait_for(path.exists, path)
    _wait_for(path.read_text, path)


def _gone(pid):
    """In a container whose first process waits for nobody an orphan stays a zombie."""
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def _standing(root):
    with Repo(str(root)) as repo:
        return queued.look(repo)


def test_all_that_is_queued_runs_below_the_server_and_what_failed_is_named(repository):
    root, folder = repository(1, 4)
    with _started(root) as (process, _):
        code, out, err = _ended(root, process)
    assert code == 1, err
    served = str(sys.platform == "linux")
    assert [(folder / f"seen{seed}").read_text() for seed in (1, 2, 3)] == [served] * 3
    now = _standing(root)
    assert (len(now.waits), len(now.runs), len(now.done), len(now.failed)) == (0, 0, 2, 1)
    (name,) = now.failed.values()
    assert err.strip() == f"vans: {name}: failed; `dvc queue logs {name}` tells why"
    assert out.splitlines()[0].endswith(" 3 waiting") and out.splitlines()[-1].endswith(" 0 waiting, 2 done, 1 failed")
    with _started(root) as (process, _):
        assert _ended(root, process) == (0, "nothing is queued; `dvc exp run --queue …` first\n", "")


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_it_lets_what_runs_end_and_terminated_it_ends_it(repository, number, code):
    root, folder = repository(4, 8)
    (folder / "wait").touch()
    with _started(root) as (process, said):
        for seed in (4, 5):
            _begins(folder / f"pid{seed}")
        process.send_signal(number)
        if number == signal.SIGINT:
            _wait_for(lambda: "what runs goes on to its end" in said.read_text(), "the answer")
            (folder / "wait").unlink()
        ended, out, err = _ended(root, process)
    assert ended == code, (out, err)
    now = _standing(root)
    assert len(now.waits) == 2 and not now.runs
    if number == signal.SIGINT:
        assert len(now.done) == 2 and (folder / "seen4").exists() and (folder / "seen5").exists()
    else:
        assert set(err.splitlines()) == {f"vans: {name}: stopped before its end" for name in now.failed.values()}
        assert len(now.failed) == 2
        assert all(_gone(int((folder / f"pid{seed}").read_text())) for seed in (4, 5))


def test_stopped_while_workers_begin_it_leaves_none_that_would_take_a_task(repository):
    """Ctrl-C goes to the whole group: not to `dvc queue start`, either."""
    root, _ = repository(4, 8)
    with _started(root) as (process, _):
        celery = root / ".dvc/tmp/exps/celery"
        _wait_for(lambda: list(celery.glob("dvc-exp-worker-*.json")), "a worker")
        os.killpg(process.pid, signal.SIGINT)
        code, out, err = _ended(root, process)
    assert (code, err) == (130, ""), out
    now = _standing(root)
    assert now.waits and not now.runs and not now.failed and len(now.waits) + len(now.done) == 4
    with Repo(str(root)) as repo:
        assert not queued.workers(repo)


@pytest.fixture
def orphans():
    """Orphans become children of this process, which does not wait for them: they stay zombies, as in many a container
    and (Linux alone can) here."""
    if sys.platform != "linux":
        yield
        return
    heir, libc = 36, ctypes.CDLL(None)  # PR_SET_CHILD_SUBREAPER
    assert libc.prctl(heir, 1, 0, 0, 0) == 0
    yield
    libc.prctl(heir, 0, 0, 0, 0)
    for child in psutil.Process().children():
        if child.status() == psutil.STATUS_ZOMBIE:
            os.waitpid(child.pid, 0)


def test_a_task_whose_process_is_gone_has_failed_and_the_rest_goes_on(repository, orphans):
    """As after a power cut: DVC would say for ever that it runs."""
    root, folder = repository(4, 6)
    (folder / "wait").touch()
    smoke.dvc(root, "queue", "start", "-q", "-j", "1")
    _begins(folder / "pid4")
    below = psutil.Process(int((folder / "pid4").read_text()))
    family = [p for p in below.parents() if "exec-run" in p.cmdline() or "queue-worker" in p.cmdline()]
    assert len(family) == 2
    for process in (*reversed(family), below):
        process.kill()
    (folder / "wait").unlink()
    with _started(root) as (process, _):
        code, out, err = _ended(root, process)
    now = _standing(root)
    assert (code, len(now.failed), len(now.done)) == (1, 1, 1), (out, err)
    assert err.startswith(f"vans: {next(iter(now.failed.values()))}: failed: it had neither process nor worker")


def test_a_tasks_process_is_the_one_that_runs_it():
    """Not a zombie, and not whoever has its number now."""
    task = "0123456789abcdef"
    notes: dict = {}
    repo = SimpleNamespace(experiments=SimpleNamespace(celery_queue=SimpleNamespace(proc=notes)))
    assert queued.process_of(repo, task) is None
    notes[task] = SimpleNamespace(pid=os.getpid())
    assert queued.process_of(repo, task) is None
    command = [sys.executable, "-c", "input()", "exec-run", "--infofile", f"run/{task}/{task}.json"]
    with subprocess.Popen(command, stdin=subprocess.PIPE) as child:
        notes[task] = SimpleNamespace(pid=child.pid)
        _wait_for(psutil.Process(child.pid).cmdline, "its command")  # empty for a moment of its start
        assert queued.process_of(repo, task) == psutil.Process(child.pid)
        assert queued.process_of(repo, "f" * 16) is None
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert psutil.pid_exists(child.pid) and queued.process_of(repo, task) is None
    assert queued.process_of(repo, task) is None


def _told(monkeypatch, *seen, there=(), patience=60.0):
    """A run that sees these queues one after the other, the last one for ever; what it asked of DVC."""
    asked, looks = [], iter(seen)

    def dvc(*words):
        asked.append(" ".join(words))
        return 0

    monkeypatch.setattr(queued, "look", lambda _: next(looks, seen[-1]))
    monkeypatch.setattr(queued, "workers", lambda _: there)
    queue = SimpleNamespace(wdir="celery", proc={}, worker_status=lambda: {n: [] for n in range(len(there))})
    repo = SimpleNamespace(experiments=SimpleNamespace(celery_queue=queue))
    run = queued._Run(repo, 1, 0.0, patience, {}, [])
    monkeypatch.setattr(run, "_wait", lambda *_: None)
    monkeypatch.setattr(run, "_dvc", dvc)
    return run, asked, seen[0]


def _queue(waits="", runs="", failed="", done=""):
    return queued.Standing(*(dict.fromkeys(tasks, "mine") for tasks in (waits, runs, failed, done)))


def test_tasks_of_one_name_are_told_apart(monkeypatch, capsys):
    run, _, start = _told(monkeypatch, _queue("b", failed="a"), _queue(failed="ab"))
    assert run.to_the_end(start) == 1
    assert capsys.readouterr().err == "vans: mine: failed; `dvc queue logs mine` tells why\n"


def test_a_task_between_waiting_and_running_is_waited_for(monkeypatch, capsys):
    begins = [_queue("a"), _queue("a"), _queue(), _queue(runs="a"), _queue(runs="a"), _queue(done="a")]
    run, _, start = _told(monkeypatch, *begins, there=("worker",))
    assert run.to_the_end(start) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith("0 waiting, 1 done")


def test_workers_that_end_at_once_are_not_started_for_ever(monkeypatch):
    run, asked, start = _told(monkeypatch, _queue("a"))
    with pytest.raises(UserError, match=r"^celery/dvc-exp-worker-1.out: DVC's workers end before they take a task"):
        run.to_the_end(start)
    assert asked == ["queue start -q -j 1"] * queued.TRIES


def test_as_many_tasks_are_lost_as_have_no_worker(monkeypatch):
    """Who has a worker begins, or its answers are fetched: it has no process, either."""
    run, asked, start = _told(monkeypatch, _queue(runs="ab"), there=("worker",), patience=-1.0)
    run.repo.experiments.celery_queue.proc["b"] = SimpleNamespace(pid=0, returncode=None)
    monkeypatch.setattr(queued, "process_of", lambda *_: None)
    assert run._lost(start, ("worker",)) == ["b"] and run._lost(start, ("worker", "other")) == []
    run._fail(["b"])
    assert run.repo.experiments.celery_queue.proc["b"].returncode == -1 and asked == ["queue kill b"]


def test_outside_of_dvc_it_says_so(tmp_path, monkeypatch):
    for name in ("params.yaml", "dvc.yaml"):
        (tmp_path / name).write_bytes((smoke.ROOT / name).read_bytes())
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match=r"no DVC repository; `dvc init`, or clone this one with git$"):
        queued.run(1)
