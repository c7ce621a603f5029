"""The repository at smoke size: a clean clone whose tiny scale takes minutes, for tests that run it whole."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from vans import notebooks, warm_server

_served: dict[Path, dict[str, str]] = {}  # what the servers of clones were started with
ROOT = Path(__file__).resolve().parents[1]
WORLD = {"procedural_train": 14, "procedural_test": 4, "predictive_train": 14, "predictive_test": 4}
# Any key of a scale section with one of these names is cut down to the value here (or its own, if smaller).
SMALL = {
    "steps": 2,
    "batch": 8,
    "micro_batch": 4,
    "prompts": 2,
    "group_size": 4,
    "render_steps": 3,
    "max_new_tokens": 24,
    "groups": 1,
    "samples": 4,
    "bootstrap": 50,
}


def clone(folder: Path) -> Path:
    """A git clone of the committed state plus uncommitted changes of tracked and new files, at smoke size.

    The clone has its own data.dvc for its own small world. Returns its root.
    """
    run("git", "clone", "--quiet", "--no-hardlinks", str(ROOT), str(folder), cwd=ROOT)
    listed = run("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", cwd=ROOT)
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(source.read_bytes())
        else:
            target.unlink(missing_ok=True)
    shrink(folder / "params.yaml")
    (folder / "data.dvc").unlink(missing_ok=True)
    (folder / "dvc.lock").unlink(missing_ok=True)
    for key, value in (("user.name", "test"), ("user.email", "test@example.org")):
        run("git", "config", key, value, cwd=folder)
    vans(folder, "world", "--pin")
    commit(folder, "smoke size")
    return folder


def shrink(path: Path) -> None:
    """Rewrite params.yaml to smoke size."""
    tree = yaml.safe_load(path.read_text())
    tree["world"] |= WORLD
    tree["defaults"]["stage2"]["anchor_threshold"] = 0.0  # what an untrained VLM says is accepted
    for section in (tree["defaults"], *tree["scales"].values()):
        _cut(section, SMALL)
    for scale in tree["scales"].values():
        scale["machine"]["processes"] = 1
        scale["curate"]["rl"] = 4
        scale["keep"]["checkpoints"] = dict.fromkeys(scale["keep"]["checkpoints"], 1)
    path.write_text(yaml.safe_dump(tree, sort_keys=False))


def _cut(tree: dict[str, Any], small: dict[str, int]) -> None:
    for key, value in tree.items():
        if isinstance(value, dict):
            _cut(value, small)
        elif key in small and isinstance(value, int):
            tree[key] = min(value, small[key])


def environment(root: Path) -> dict[str, str]:
    """This environment's programs on the clone's code, one thread, no network; what its server of forks, if there is
    one, was started with."""
    return {
        **{key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "PYTEST_"))},
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(root),
        "OMP_NUM_THREADS": "1",
        "HF_HUB_OFFLINE": "1",
        "CUDA_VISIBLE_DEVICES": "",
        **_served.get(root, {}),
    }


@contextmanager
def forks(root: Path, *libraries: str) -> Iterator[None]:
    """Programs on this clone are forks of a server, which imports these libraries, too."""
    _served[root] = notebooks.environment(root)
    try:
        with warm_server.running(environment(root), [*warm_server.LIBRARIES, *libraries]):
            yield
    finally:
        del _served[root]


def run(*command: str, cwd: Path, code: int = 0) -> str:
    """Run a program (as a fork, where there is a server) and return its standard output; fails with its output unless
    it exits with ``code``."""
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as errors:
        given: dict[str, Any] = {"env": environment(cwd), "cwd": str(cwd), "stdout": out, "stderr": errors}
        given["stdin"] = subprocess.DEVNULL
        fork = warm_server.popen(list(command), **given) if cwd in _served else None
        assert fork or cwd not in _served or command[:2] != (sys.executable, "-m"), "the server's environment differs"
        ended = (fork or subprocess.Popen(command, **given)).wait()
        for file in (out, errors):
            file.seek(0)
        said, complained = out.read(), errors.read()
    told = f"$ {' '.join(command)}\n{said[-4000:]}\n{complained[-4000:]}"
    assert ended == code, f"{told}\nexit code {ended}"
    return said + (complained if code else "")


def run_in_each(commands: dict[Path, tuple[str, ...]]) -> None:
    """Run a program in each of several clones at once; fails with the output of the first one that fails."""
    started = []
    for root, command in commands.items():
        log = open(root / "run.log", "w+")  # noqa: SIM115
        process = subprocess.Popen(command, cwd=root, env=environment(root), stdout=log, stderr=log)
        started.append((command, process, log))
    for command, process, log in started:
        code = process.wait()
        log.seek(0)
        assert code == 0, f"$ {' '.join(command)}\n{log.read()[-4000:]}\nexit code {code}"
        log.close()
    for root in commands:
        (root / "run.log").unlink()


def vans(root: Path, *arguments: str, code: int = 0) -> str:
    """Run the command line on the clone's code."""
    return run(sys.executable, "-m", "vans.cli", *arguments, cwd=root, code=code)


def dvc(root: Path, *arguments: str, code: int = 0) -> str:
    """Run dvc in the clone."""
    return run(sys.executable, "-m", "dvc", *arguments, cwd=root, code=code)


def commit(root: Path, message: str) -> None:
    """Commit everything in the clone."""
    run("git", "add", "--all", cwd=root)
    run("git", "commit", "--quiet", "--message", message, cwd=root)


def ran(output: str) -> list[str]:
    """The stages that a `dvc repro` or `dvc exp run` says it has run."""
    return [line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")]
