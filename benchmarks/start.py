"""From the start of a stage to its first training step, beside another revision: what a small change costs to try.

    python benchmarks/start.py --against d42d2bd [--root .] [--repeats 3] [--warm]
    python benchmarks/start.py --against d42d2bd --answer clip.mp4     # a cold `vans answer`, from start to end

Runs stage 1 of the current scale headless (`python -m vans.notebooks run 04_stage1 --cell full`) in two worktrees that
share the triplets, base models and SFT of `root`, in turns, and stops each when its first rollout group is written.
--warm: HEAD's as `vans repro` starts it, a fork of the process that has imported the libraries; without it by itself.
Prints seconds and, last, their ratio (medians); of answers processor seconds, too, which other work disturbs less.
Needs a repository in which `dvc repro sft` has run (for answers: the main arm's models), and nothing beside it.
"""

import argparse
import contextlib
import os
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from vans import warm_server
from vans.notebooks import environment

SHARED = ("data", "triplets", "cache", "models/base", "models/sft")
TUNED = ("models/stage1", "models/stage2")  # for answers
QUESTION = "what happens next ?"


def worktree(root: Path, revision: str, folder: Path, shared: tuple[str, ...] = SHARED) -> Path:
    """A checkout of a revision with links to what earlier stages have made."""
    subprocess.run(["git", "worktree", "add", "--quiet", "--detach", str(folder), revision], cwd=root, check=True)
    (folder / "models").mkdir()
    for name in shared:
        if (root / name).exists():
            (folder / name).symlink_to((root / name).resolve())
    return folder


def first_step(folder: Path, more: dict[str, str], limit: float = 600.0) -> float:
    """Seconds until the first rollout group stands on the disk. more: environment variables."""
    shutil.rmtree(folder / "runs", ignore_errors=True)
    env = {**os.environ, "PYTHONPATH": str(folder), "OMP_NUM_THREADS": "1", **more}
    command = [sys.executable, "-m", "vans.notebooks", "run", "04_stage1", "--cell", "full"]
    began = time.perf_counter()
    with open(folder / "start.log", "w") as log:
        process = subprocess.Popen(command, cwd=folder, env=env, stdout=log, stderr=log, start_new_session=True)
        try:
            while not any((folder / "runs").rglob("step-00000.json")):
                if process.poll() is not None or time.perf_counter() - began > limit:
                    sys.exit(f"{folder}: no first step; see {folder / 'start.log'}")
                time.sleep(0.01)
            return time.perf_counter() - began
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            process.wait()
            time.sleep(1)  # the kernel and its workers end with it


def answered(folder: Path, video: Path) -> tuple[float, float]:
    """(seconds, processor seconds) of one `vans answer`."""
    env = {**os.environ, "PYTHONPATH": str(folder)}
    command = [sys.executable, "-m", "vans.cli", "answer", str(video), QUESTION, "-o", str(folder / "answer.mp4")]
    before, began = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        sys.exit(f"{folder}: {done.stderr[-1000:]}")
    return seconds, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def answers(root: Path, against: str, video: Path, repeats: int) -> None:
    """Both revisions in turns, after one of each that fills the file system's cache."""
    with tempfile.TemporaryDirectory(prefix="vans-start-") as place:
        names = (against, "HEAD")
        trees = [worktree(root, name, Path(place) / f"tree{i}", SHARED + TUNED) for i, name in enumerate(names)]
        try:
            times: list[list[tuple[float, float]]] = [[], []]
            for repeat in range(repeats + 1):
                for name, tree, taken in zip(names, trees, times, strict=True):
                    taken.append(answered(tree, video))
                    what = "" if repeat else " (not counted)"
                    print(f"{name}: {taken[-1][0]:.1f} s, {taken[-1][1]:.1f} processor s{what}", flush=True)
        finally:
            for tree in trees:
                subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=root, check=False)
    for which, unit in enumerate(("s", "processor s")):
        before, after = (statistics.median(one[which] for one in taken[1:]) for taken in times)
        print(f"vans answer, cold, HEAD / {against}: {after:.1f} / {before:.1f} {unit} = {after / before:.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--against", required=True, help="the other revision")
    parser.add_argument("--root", type=Path, default=Path.cwd(), help="a repository in which SFT has run")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm", action="store_true", help="HEAD's under the server of `vans repro`")
    parser.add_argument("--answer", type=Path, metavar="VIDEO", help="time `vans answer` about it")
    given = parser.parse_args()
    root = given.root.resolve()
    if given.answer:
        return answers(root, given.against, given.answer.resolve(), given.repeats)
    with tempfile.TemporaryDirectory(prefix="vans-start-") as place:
        trees = {name: worktree(root, name, Path(place) / f"tree{i}") for i, name in enumerate((given.against, "HEAD"))}
        more: dict[str, dict[str, str]] = {name: {} for name in trees}
        server = contextlib.ExitStack()
        if given.warm:
            same = environment(trees["HEAD"])
            server.enter_context(warm_server.running({**os.environ, **same}))
            more["HEAD"] = {**same, warm_server.VARIABLE: os.environ.pop(warm_server.VARIABLE)}
        try:
            seconds: dict[str, list[float]] = {name: [] for name in trees}
            for _ in range(given.repeats):
                for name, tree in trees.items():
                    seconds[name].append(first_step(tree, more[name]))
                    print(f"{name}: {seconds[name][-1]:.1f} s", flush=True)
        finally:
            server.close()
            for tree in trees.values():
                subprocess.run(["git", "worktree", "remove", "--force", str(tree)], cwd=root, check=False)
    before, after = (statistics.median(times) for times in seconds.values())
    print(
        f"start to first step of stage 1, HEAD / {given.against}: {after:.1f} / {before:.1f} s = {after / before:.2f}"
    )


if __name__ == "__main__":
    main()
