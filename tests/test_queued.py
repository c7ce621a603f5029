"""`vans queue`: DVC's queue to its last task, with a server of imported libraries, and two ways to stop."""

import os
import signal
import subprocess
import sys
import time

import psutil
import pytest
from dvc.repo import Repo

from tests import smoke
from vans import queued

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
import functools, sys
from vans import queued, warm_server
warm_server.running = functools.partial(warm_server.running, libraries=["json"])
sys.exit(queued.run(2, 0.5))
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

    return put


def _started(root, **options):
    command = [sys.executable, "-c", SCRIPT]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=root, env=smoke.environment(smoke.ROOT), stdout=pipe, stderr=pipe, text=True, **options
    )


def _wait_for(path):
    until = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < until, f"{path} never came"
        time.sleep(0.1)


def _standing(root):
    with Repo(str(root)) as repo:
        return queued.look(repo)


def test_all_that_is_queued_runs_below_the_server_and_what_failed_is_named(repository):
    root, folder = repository(1, 4)
    with _started(root) as process:
        out, err = process.communicate(timeout=300)
    assert process.returncode == 1, err
    assert [(folder / f"seen{seed}").read_text() for seed in (1, 2, 3)] == ["True"] * 3
    now = _standing(root)
    assert (len(now.waits), len(now.runs), len(now.done), len(now.failed)) == (0, 0, 2, 1)
    assert err.strip() == f"vans: {now.failed[0]}: failed; `dvc queue logs {now.failed[0]}` tells why"
    assert out.splitlines()[0].endswith(" 3 waiting") and out.splitlines()[-1].endswith(" 0 waiting, 2 done, 1 failed")
    with _started(root) as process:
        out, err = process.communicate(timeout=100)
    assert (process.returncode, out) == (0, "nothing is queued; `dvc exp run --queue …` first\n"), err


@pytest.mark.parametrize("number, code", [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_stopped_it_lets_what_runs_end_and_terminated_it_ends_it(repository, number, code):
    root, folder = repository(4, 8)
    (folder / "wait").touch()
    with _started(root) as process:
        for seed in (4, 5):
            _wait_for(folder / f"pid{seed}")
        process.send_signal(number)
        if number == signal.SIGINT:
            assert any("what runs goes on to its end" in line for line in process.stdout)
            (folder / "wait").unlink()
        out, err = process.communicate(timeout=200)
    assert process.returncode == code, (out, err)
    now = _standing(root)
    assert len(now.waits) == 2 and not now.runs
    if number == signal.SIGINT:
        assert len(now.done) == 2 and (folder / "seen4").exists() and (folder / "seen5").exists()
    else:
        assert len(now.failed) == 2
        for seed in (4, 5):
            with pytest.raises(ProcessLookupError):
                os.kill(int((folder / f"pid{seed}").read_text()), 0)


def test_a_task_whose_process_is_gone_has_failed_and_the_rest_goes_on(repository):
    """As after a power cut: DVC would say for ever that it runs."""
    root, folder = repository(4, 6)
    (folder / "wait").touch()
    smoke.dvc(root, "queue", "start", "-q", "-j", "1")
    _wait_for(folder / "pid4")
    below = psutil.Process(int((folder / "pid4").read_text()))
    family = [p for p in below.parents() if "exec-run" in p.cmdline() or "queue-worker" in p.cmdline()]
    assert len(family) == 2
    for process in (*reversed(family), below):
        process.kill()
    (folder / "wait").unlink()
    with _started(root) as process:
        out, err = process.communicate(timeout=300)
    now = _standing(root)
    assert (process.returncode, len(now.failed), len(now.done)) == (1, 1, 1), (out, err)
    assert err.startswith(f"vans: {now.failed[0]}: failed")
