"""A process that has imported the libraries once, and forks: a stage starts Python and imports torch five times a
minute, and each time costs more than its first training step.

    with running(environment): ...      # `vans repro`; below it, `popen` finds the server by the environment (VARIABLE)
    popen([sys.executable, "-m", "vans.parallel", ...], env=...)    # a Process, or None: then start it the usual way

Nothing of vans is imported in the server, so that a fork runs the code that stands on the disk; and what libraries read
from the environment while they are imported (FIXED) must be the same, else there is no fork. A fork dies with the
process that asked for it. On Linux, and where there is no GPU.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import importlib
import json
import os
import runpy
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

VARIABLE, FORKED = "VANS_WARM_SERVER", "VANS_FORKED"
LIBRARIES = (
    "torch._dynamo",  # the optimisers' first step would import it
    "transformers.models.qwen2_5_vl.modeling_qwen2_5_vl",
    "transformers.models.umt5.modeling_umt5",
    "diffusers.models.transformers.transformer_wan",
    "diffusers.models.autoencoders.autoencoder_kl_wan",
    "diffusers.pipelines.wan.pipeline_wan",
    "peft",
    "open_clip",
    "pandas",
    "pyarrow.parquet",
    "matplotlib.pyplot",
    "av",
    "rouge_score.rouge_scorer",
    "ipykernel.kernelapp",
    "nbconvert",
    "bleach",
    "IPython.lib.lexers",
    "papermill",
)
FIXED = (
    *("OMP_", "MKL_", "OPENBLAS_", "ATEN_", "ONEDNN_", "DNNL_", "NPY_"),
    *("PYTHONHASHSEED", "HF_", "TRANSFORMERS_", "CUDA_", "MPL", "MATPLOTLIB"),
)
GPUS = ("/dev/nvidiactl", "/dev/dxg")  # there where a GPU is; the second within Windows
LONGEST = 107  # bytes of a socket's name
PARENTS = ("JPY_PARENT_PID", "VANS_PARENT")  # variables that hold the parent's process id: the keeper's, for a fork


# -------------------------------------------------------------------------------------------------- who asks
class Process:
    """A fork, with the part of subprocess.Popen's interface that is used here."""

    stdin = stdout = stderr = None

    def __init__(self, connection: socket.socket):
        self._connection = connection
        with connection.makefile("rb", buffering=0) as file:  # unbuffered: the exit code may stand behind the line
            self.pid = int(file.readline())
        self.returncode: int | None = None

    def __del__(self) -> None:
        self._connection.close()

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            # It stays there: two threads that ask at once read the same.
            self.returncode = int(self._connection.recv(64, socket.MSG_PEEK) or -signal.SIGKILL)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)


def popen(command: list[str], env: Mapping[str, str] | None = None, **options: Any) -> Process | None:
    """`[sys.executable, "-m", module, ...]` as a fork of the server; None where there is none that fits.

    options: cwd, stdin, stdout, stderr (files or descriptors), start_new_session, as for subprocess.Popen.
    """
    env, place = dict(os.environ if env is None else env), os.environ.get(VARIABLE)
    if place is None or command[:2] != [sys.executable, "-m"]:
        return None
    given = {k: v for k, v in options.items() if k in ("cwd", "start_new_session") and v}
    request = {"argv": command[2:], "env": env, "cwd": os.getcwd(), **given}
    files = [options.get(name) for name in ("stdin", "stdout", "stderr")]
    nothing = open(os.devnull, "r+b")  # noqa: SIM115
    handles = [
        number if file is None else nothing.fileno() if isinstance(file, int) and file < 0 else _number(file)
        for number, file in enumerate(files)
    ]
    connection = socket.socket(socket.AF_UNIX)
    with nothing, contextlib.suppress(OSError, ValueError):
        connection.connect(place)
        text = json.dumps(request).encode()
        socket.send_fds(connection, [len(text).to_bytes(4, "big")], handles)
        connection.sendall(text)
        return Process(connection)  # ValueError: refused
    connection.close()
    return None


def _number(file: Any) -> int:
    return file if isinstance(file, int) else file.fileno()


def instead(module: str) -> int | None:
    """Let a fork do what `python -m module` was started for; its exit code, or None where this process has to."""
    if os.environ.get(FORKED) == module:
        return None
    job: Process | None = None
    while True:
        try:
            job = job or popen([sys.executable, "-m", module, *sys.argv[1:]], {**os.environ, FORKED: module})
            if job is None:
                return None
            code = job.wait()
            return code if code >= 0 else 128 - code
        except KeyboardInterrupt:  # Ctrl-C does not reach the fork, which is in the server's session
            if job is None:
                return 128 + signal.SIGINT
            job.send_signal(signal.SIGINT)


@contextlib.contextmanager
def running(environment: Mapping[str, str], libraries: Sequence[str] = LIBRARIES) -> Iterator[None]:
    """A server with this environment, for this process and all that it starts."""
    from vans.files import temporary  # not at the top: see above

    prefix = temporary("warm")
    too_long = len(os.fsencode(f"{tempfile.gettempdir()}/{prefix}12345678/socket")) > LONGEST
    if too_long or not sys.platform.startswith("linux") or any(map(os.path.exists, GPUS)):
        yield
        return
    with tempfile.TemporaryDirectory(prefix=prefix) as folder:
        place = str(Path(folder) / "socket")
        with socket.socket(socket.AF_UNIX) as listening:
            listening.bind(place)
            listening.listen(64)  # who asks early waits for the imports
            handle = listening.fileno()
            code = "from vans import warm_server; warm_server.main()"
            command = [sys.executable, "-c", code, str(handle), str(os.getpid()), *libraries]
            # Ctrl-C is for the stages: a session of its own
            server = subprocess.Popen(command, env=dict(environment), pass_fds=[handle], start_new_session=True)
        before, os.environ[VARIABLE] = os.environ.get(VARIABLE), place
        try:
            yield
        finally:
            os.environ.pop(VARIABLE, None)
            if before is not None:
                os.environ[VARIABLE] = before
            server.kill()
            server.wait()


@contextlib.contextmanager
def for_stages() -> Iterator[dict[str, str]]:
    """A server for DVC's stages, and the environment in which DVC is to be started."""
    from vans.notebooks import environment
    from vans.params import find_root

    env = {**os.environ, **environment(find_root())}
    with running(env):
        yield {**env, VARIABLE: os.environ.get(VARIABLE, "")}


# ------------------------------------------------------------------------------------------------ the server
def serve(handle: int, parent: int, libraries: Sequence[str]) -> list[str]:
    """Fork for everyone who asks. Returns in the forks alone, with what is to be run."""
    _die_with(parent)
    own = {k: v for k, v in os.environ.items() if k.startswith(FIXED)}
    with socket.socket(fileno=handle) as server:
        for name in libraries:
            importlib.import_module(name)
        signal.signal(signal.SIGCHLD, _reap)
        while True:
            connection, _ = server.accept()
            if os.fork() == 0:
                break
            connection.close()
    return keep(connection, own)


def _reap(*_: object) -> None:
    """Keepers that have ended: waited for, so that their CPU time counts as this process's."""
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass


def keep(connection: socket.socket, own: Mapping[str, str]) -> list[str]:
    """Between who asked and the fork: tells the one how the other ends, and ends the other with the one."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    head, handles, _, _ = socket.recv_fds(connection, 4, 3)
    with connection.makefile("rb") as file:
        request = json.loads(file.read(int.from_bytes(head, "big")))
    if own != {k: v for k, v in request["env"].items() if k.startswith(FIXED)}:
        connection.sendall(b"refused\n")
        os._exit(0)
    keeper, read = os.getpid(), os.pipe()
    child = os.fork()
    if child == 0:
        connection.close()
        os.close(read[0])
        _become(request, handles, keeper)
        return request["argv"]
    os.close(read[1])  # the child alone holds it: it closes when the child ends
    for handle in handles:
        os.close(handle)
    with contextlib.suppress(OSError):
        connection.sendall(f"{child}\n".encode())
        watched: list[Any] = [connection, read[0]]
        if connection in select.select(watched, [], [])[0]:  # who asked is gone
            os.kill(child, signal.SIGKILL)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with contextlib.suppress(OSError):
        connection.sendall(str(code).encode())
    os._exit(0)


def _become(request: dict, handles: list[int], keeper: int) -> None:
    """Take the place that a newly started Python would have."""
    if request.get("start_new_session"):
        os.setsid()
    _die_with(keeper)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number, handle in enumerate(handles):
        os.dup2(handle, number)
        os.close(handle)
    for number, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        buffering = 1 if number == 2 or os.isatty(number) else -1
        stream = open(number, mode, buffering, encoding="utf-8", errors="surrogateescape", closefd=False)  # noqa: SIM115
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    os.chdir(request["cwd"])
    ours = set(filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep)))
    theirs = list(filter(None, request["env"].get("PYTHONPATH", "").split(os.pathsep)))
    sys.path[:] = [os.getcwd(), *theirs, *(path for path in sys.path[1:] if path not in ours)]
    os.environ.clear()
    os.environ.update(request["env"] | {k: str(keeper) for k in PARENTS if k in request["env"]})
    for name in [name for name in sys.modules if name.split(".")[0] == "vans"]:
        del sys.modules[name]
    importlib.invalidate_caches()
    if "numpy" in sys.modules:  # its global generator, seeded while it was imported; that of `random` is seeded anew
        sys.modules["numpy"].random.seed()


def _die_with(parent: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        os._exit(1)


_ended: list[int] = []  # the exit code of a fork that is over


def _leave() -> None:
    """The last that a fork does: taking torch and diffusers apart takes a second or two, and changes nothing."""
    if _ended:
        code = _ended[0]
        for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__):
            try:
                if stream is not None and not stream.closed:
                    stream.flush()
            except (OSError, ValueError):  # full, or nobody reads any more
                code = 120  # as Python does
        os._exit(code)


def main() -> None:
    """Serve, and run what a fork was made for."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    atexit.register(_leave)  # before the libraries register theirs: the first one is called last
    module, *rest = serve(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:])
    sys.argv = [module, *rest]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as error:  # Python prints what is no number
        code = 0 if error.code is None else error.code if isinstance(error.code, int) else 1
        _ended.append(code & 0xFF)
        raise
    _ended.append(0)
