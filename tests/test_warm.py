"""Forks of the server that has imported the libraries: they do what a newly started Python would."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from argparse import Namespace
from pathlib import Path

import pytest

from tests import smoke
from vans import cli, files, warm_server

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


def test_ctrl_c_reaches_a_fork_through_the_process_that_it_stands_for(server, folder):
    """The terminal sends it to this process's group, and the fork is in the server's."""
    (folder / "naps.py").write_text(
        "import sys, time\nprint('here', flush=True)\n"
        "try:\n    time.sleep(600)\nexcept KeyboardInterrupt:\n    sys.exit(130)"
    )
    stands = (
        "import signal, sys\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"  # ignored in the background
        "from vans import warm_server\nsys.exit(warm_server.instead('naps'))"
    )
    env = {**server, "PYTHONPATH": os.pathsep.join([*sys.path, str(folder)])}
    command = [sys.executable, "-c", stands]
    with subprocess.Popen(command, env=env, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            assert process.stdout is not None and process.stdout.readline() == "here\n"
            os.killpg(process.pid, signal.SIGINT)
            assert process.wait(60) == 130
        finally:
            process.kill()


def test_vans_repro_waits_for_dvc_when_it_is_stopped(tmp_path, monkeypatch):
    """Killed, dvc would leave its stage behind; it ends by itself, when the stage has."""
    (tmp_path / "dvc").write_text(
        f"#!{sys.executable}\nimport os, signal, sys, time\nsignal.signal(signal.SIGINT, signal.SIG_IGN)\n"
        "for _ in range(20):\n    os.kill(os.getppid(), signal.SIGINT)\n    time.sleep(0.03)\nsys.exit(7)\n"
    )
    (tmp_path / "dvc").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(warm_server, "running", lambda _: contextlib.nullcontext())
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(SystemExit) as ended:
            cli.repro(Namespace(arguments=[]))
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended.value.code == 7


def test_vans_repro_ends_dvc_and_its_stage_when_it_is_terminated(tmp_path):
    (tmp_path / "params.yaml").write_bytes((smoke.ROOT / "params.yaml").read_bytes())
    (tmp_path / "dvc.yaml").write_text("stages:\n  a: {cmd: 'echo here $$; exec sleep 600', outs: [a]}\n")
    smoke.run("dvc", "init", "-q", "--no-scm", cwd=tmp_path)
    script = (
        "import contextlib, sys\nfrom vans import cli, warm_server\n"
        "warm_server.running = lambda _: contextlib.nullcontext()\nsys.exit(cli.main(['repro']))"
    )
    env = smoke.environment(smoke.ROOT)
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, cwd=tmp_path, env=env, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            pid = next(int(line.split()[1]) for line in process.stdout if line.startswith("here"))
            process.terminate()
            assert process.wait(60) == 128 + signal.SIGTERM
        finally:
            process.kill()
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    assert not (tmp_path / "dvc.lock").exists()


@pytest.mark.parametrize("given, code", [("| true", 141), ("> /dev/full 2>&1", 1)])
def test_what_dvc_has_done_is_kept_also_where_nobody_reads_along(tmp_path, given, code):
    """By itself it gives up, and its lock file with it, as soon as it cannot print."""
    (tmp_path / "params.yaml").write_bytes((smoke.ROOT / "params.yaml").read_bytes())
    (tmp_path / "dvc.yaml").write_text("stages:\n  a: {cmd: 'echo said; echo x > a', outs: [{a: {cache: false}}]}\n")
    script = (
        "import contextlib, sys\nfrom vans import cli, warm_server\n"
        "warm_server.running = lambda _: contextlib.nullcontext()\nsys.exit(cli.main(['repro']))"
    )
    shell = f'set -o pipefail; dvc init -q --no-scm && "$PYTHON" -c "$SCRIPT" {given}'
    env = smoke.environment(smoke.ROOT) | {"PYTHON": sys.executable, "SCRIPT": script}
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code and "Traceback" not in done.stderr, done.stderr
    assert (tmp_path / "a").read_text() == "x\n" and "path: a" in (tmp_path / "dvc.lock").read_text()


def test_a_fork_that_ends_at_once_is_not_taken_for_killed():
    """Its exit code may come before anybody has read its process id, and two threads may ask for it."""
    ours, theirs = socket.socketpair()
    with theirs:
        theirs.sendall(b"12\n3")
    job = warm_server.Process(ours)
    assert job.pid == 12 and job.poll() == 3
    job.returncode = None  # as the other thread saw it
    assert job.wait(0) == 3


ENDS = """
import atexit, sys
class Taken:
    def __del__(self):
        print("taken apart", flush=True)
kept = Taken()
atexit.register(print, "last words")
print("begun")
if sys.argv[1].startswith("none"):
    sys.stdout = None
if sys.argv[1].startswith("closed"):
    sys.stdout.close()
code = {"nothing": None, "seven": 7, "none, seven": 7, "words": "out of luck", "no words": ""}
sys.exit(code.get(sys.argv[1], 0))
"""


@pytest.mark.parametrize(
    ("how", "said"),
    [
        ("nothing", "begun\nlast words\n"),
        ("zero", "begun\nlast words\n"),
        ("seven", "begun\nlast words\n"),
        ("words", "begun\nlast words\n"),
        ("no words", "begun\nlast words\n"),
        ("none, seven", "begun\n"),
        ("closed", "begun\n"),
    ],
)
def test_a_fork_ends_as_python_does_but_takes_nothing_apart(server, folder, how, said):
    (folder / "ends.py").write_text(ENDS)
    with open(folder / "out", "w") as out, open(folder / "errors", "w") as errors:
        command = [sys.executable, "-m", "ends", how]
        env = {**server, "PYTHONPATH": str(folder)}
        job = warm_server.popen(command, env, cwd=str(folder), stdout=out, stderr=errors)
        assert job is not None
        code = job.wait()
    env.pop("PYTHONUNBUFFERED", None)
    python = subprocess.run(command, env=env, cwd=folder, capture_output=True, text=True)
    assert code == python.returncode
    assert (folder / "out").read_text() == said == python.stdout.removesuffix("taken apart\n")
    if how != "closed":
        assert (folder / "errors").read_text() == python.stderr


def test_a_fork_that_cannot_write_its_last_words_says_so(server, folder):
    (folder / "ends.py").write_text(ENDS)
    with open("/dev/full", "w") as full:
        command, env = [sys.executable, "-m", "ends", "seven"], {**server, "PYTHONPATH": str(folder)}
        job = warm_server.popen(command, env, cwd=str(folder), stdout=full, stderr=subprocess.DEVNULL)
        assert job is not None
        code = job.wait()
        env.pop("PYTHONUNBUFFERED", None)
        assert code == subprocess.run(command, env=env, cwd=folder, stdout=full, stderr=subprocess.DEVNULL).returncode


def test_forks_have_random_numbers_of_their_own(tmp_path):
    (tmp_path / "draws.py").write_text("import numpy, random\nprint(numpy.random.rand(), random.random(), flush=True)")
    with warm_server.running({**os.environ, "PYTHONHASHSEED": "0"}, ["numpy"]):
        for name in ("one", "two"):
            with open(tmp_path / name, "w") as out:
                env = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(tmp_path)}
                job = warm_server.popen([sys.executable, "-m", "draws"], env, stdout=out)
                assert job is not None and job.wait(60) == 0
    one, two = ((tmp_path / name).read_text().split() for name in ("one", "two"))
    assert one[0] != two[0] and one[1] != two[1]


def test_there_is_no_server_where_there_is_a_gpu(tmp_path, monkeypatch):
    monkeypatch.delenv(warm_server.VARIABLE, raising=False)
    assert "/dev/nvidiactl" in warm_server.GPUS and "/dev/dxg" in warm_server.GPUS  # Linux, and Linux within Windows
    (tmp_path / "gpu").touch()
    for name, there in (("gpu", False), ("none", True)):
        monkeypatch.setattr(warm_server, "GPUS", (str(tmp_path / name),))
        with warm_server.running(os.environ, ["json"]):
            assert (warm_server.VARIABLE in os.environ) == there


def test_there_is_no_server_where_a_sockets_name_would_be_too_long(monkeypatch):
    monkeypatch.delenv(warm_server.VARIABLE, raising=False)
    with tempfile.TemporaryDirectory(dir="/tmp") as short:  # pytest's own folder may be too long already
        for spare, there in ((0, True), (-1, False)):
            below = f"/{files.temporary('warm')}12345678/socket"
            place = Path(short, "x" * (107 - spare - len(below) - len(os.fsencode(short)) - 1))
            place.mkdir()
            monkeypatch.setattr(tempfile, "tempdir", str(place))
            with warm_server.running(os.environ, ["json"]):
                assert (warm_server.VARIABLE in os.environ) == there


def test_what_a_fork_could_not_be_is_started_the_usual_way(server, folder, monkeypatch):
    assert _popen({**server, "OMP_NUM_THREADS": "7"}, folder, "0") is None  # torch has read another number
    assert _popen({**server, "PYTHONHASHSEED": "1"}, folder, "0") is None
    assert _popen({**server, "NPY_DISABLE_CPU_FEATURES": "X86_V4"}, folder, "0") is None
    assert warm_server.popen(["false"]) is None
    monkeypatch.delenv(warm_server.VARIABLE)
    assert _popen(server, folder, "0") is None
    monkeypatch.setenv(warm_server.VARIABLE, str(folder / "gone"))
    assert _popen(server, folder, "0") is None
