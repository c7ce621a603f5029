"""Forks of the server that has imported the libraries: they do what a newly started Python would."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from vans import warm_server

JOB = """
import json, os, sys, time
import vans.rng
print(json.dumps({"argv": sys.argv, "cwd": os.getcwd(), "own": os.environ.get("OWN"), "here": "json" in sys.modules,
    "parent": os.environ.get("VANS_PARENT") == str(os.getppid()), "vans": vans.rng.__file__,
    "session": os.getsid(0) == os.getpid()}), flush=True)
if sys.argv[1] == "sleeps":
    time.sleep(600)
sys.exit(int(sys.argv[1]))
"""


@pytest.fixture(scope="module")
def server():
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    with warm_server.running(environment, ["json"]):
        yield {**environment, warm_server.VARIABLE: os.environ[warm_server.VARIABLE]}


@pytest.fixture
def folder(tmp_path):
    """Another copy of vans, and a module that says where it runs."""
    (tmp_path / "vans").mkdir()
    (tmp_path / "vans" / "__init__.py").touch()
    (tmp_path / "vans" / "rng.py").touch()
    (tmp_path / "job.py").write_text(JOB)
    return tmp_path


def _popen(env, folder, *arguments, **options):
    env = {**env, "PYTHONPATH": str(folder), "OWN": "1", "VANS_PARENT": str(os.getpid())}
    with open(folder / "out", "w") as out:
        command = [sys.executable, "-m", "job", *arguments]
        return warm_server.popen(command, env, cwd=str(folder), stdout=out, stderr=out, **options)


def _said(folder):
    while not (text := (folder / "out").read_text()).endswith("\n"):
        time.sleep(0.01)
    return json.loads(text)


def test_a_fork_runs_the_code_that_stands_there_and_says_how_it_ended(server, folder):
    job = _popen(server, folder, "3", "more")
    assert job is not None and job.wait(60) == 3 == job.poll()
    said = _said(folder)
    assert said["argv"][1:] == ["3", "more"] and said["cwd"] == str(folder) and said["own"] == "1"
    assert said["vans"] == str(folder / "vans" / "rng.py"), "nothing of vans is kept from the server"
    assert said["here"] and said["parent"] and not said["session"]


def test_a_fork_can_be_ended_and_has_a_session_of_its_own_where_it_is_asked_for(server, folder):
    job = _popen(server, folder, "sleeps", start_new_session=True)
    assert _said(folder)["session"] and job.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        job.wait(0.01)
    job.kill()
    assert job.wait(60) == -signal.SIGKILL


def test_a_fork_dies_with_the_process_that_asked_for_it(server, folder):
    asks = (
        "import os, sys, time\nfrom vans import warm_server\n"
        "print(warm_server.popen([sys.executable, '-m', 'job', 'sleeps']).pid, flush=True)\ntime.sleep(600)"
    )
    env = {**server, "PYTHONPATH": os.pathsep.join([*sys.path, str(folder)])}
    asker = subprocess.Popen([sys.executable, "-c", asks], env=env, stdout=subprocess.PIPE, text=True)
    assert asker.stdout is not None
    with asker.stdout as said:
        pid = int(said.readline())
    asker.kill()
    asker.wait()
    for _ in range(3000):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.01)
    raise AssertionError("it lives")


def test_what_a_fork_could_not_be_is_started_the_usual_way(server, folder, monkeypatch):
    assert _popen({**server, "OMP_NUM_THREADS": "7"}, folder, "0") is None  # torch has read another number
    assert _popen({**server, "PYTHONHASHSEED": "1"}, folder, "0") is None
    assert warm_server.popen(["false"]) is None
    monkeypatch.delenv(warm_server.VARIABLE)
    assert _popen(server, folder, "0") is None
    monkeypatch.setenv(warm_server.VARIABLE, str(folder / "gone"))
    assert _popen(server, folder, "0") is None
