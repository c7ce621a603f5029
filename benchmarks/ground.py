"""What benchmarks/campaign.py works with: a small world, its stages, and processes that are killed in the middle."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import importlib
import io
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from tests import smoke
from vans import files, parallel, warm
from vans.errors import UserError
from vans.grid import Arm, Cell
from vans.params import load
from vans.train import loop, runs

CELLS = {
    "stage1": Cell("stage1", "full", "sft", "sft", "new"),
    "stage2": Cell("stage2", "main", "sft", "sft", "new"),
    "all_in_one": Cell("all_in_one", "full", "sft", "sft", "new"),
}
STAGES: dict[str, tuple[list[str], list[str]]] = {  # what a stage writes, and what it reads
    "loop": (["models/loop", "curves/loop"], []),
    "curate": (["triplets"], ["data"]),
    "base": (["models/base", "curves/base"], ["triplets"]),
    "sft": (["models/sft", "curves/sft"], ["triplets", "models/base"]),
    **{
        stage: ([f"models/{cell.name}", f"curves/{cell.name}"], ["triplets", "models/base", "models/sft"])
        for stage, cell in CELLS.items()
    },
    "answer": (["predictions/sft"], ["triplets", "models/base", "models/sft"]),
    "score": (["results/scores"], ["triplets", "models/base", "predictions/sft"]),
}
MODULES = {
    "curate": "vans.data.curate",
    "answer": "vans.answer.arm",
    "score": "vans.score.run",
    **{stage: f"vans.train.{stage}" for stage in ("base", "sft", *CELLS)},
}
WORLD = {"procedural_train": 4, "procedural_test": 2, "predictive_train": 4, "predictive_test": 2}
TINY = smoke.SMALL | {"steps": 3, "batch": 2, "micro_batch": 2, "prompts": 2, "group_size": 2, "render_steps": 2}
TINY |= {"max_new_tokens": 6, "samples": 2, "bootstrap": 20, "inner_updates": 1}
AIMED = ("os.rename", "os.remove", "os.rmdir")
CHANGES = (*AIMED, "os.mkdir", "os.chmod")
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT
PATIENCE = 600.0  # s for one run


# ------------------------------------------------------------------------------------------ one run in a child
class Knife:
    """Counts the file operations below a folder and, at the `at`-th, kills the process or says that the disk is full.

    what: "kill", "full" or "" (only count). aimed: only deletions and renames.
    """

    def __init__(self, folder: Path, what: str = "", at: int = 0, aimed: bool = False):
        self.folder, self.what, self.at, self.aimed, self.count = f"{folder}/", what, at, aimed, 0

    def saw(self, event: str, args: tuple) -> None:
        """An audit event, before it happens."""
        if event == "open":
            if self.aimed or not (args[2] & WRITES) or not self._inside(args[0]):
                return
        elif event not in (AIMED if self.aimed else CHANGES) or not (args[-1] != -1 or self._inside(args[0])):
            return  # (a name below an open folder is one of rmtree's)
        if self.what == "full" and event in ("os.remove", "os.rmdir"):
            return  # which needs no space
        self.operation()

    def operation(self, fd: int | None = None) -> None:
        """The next one; fd: of a file that is being flushed."""
        self.count += 1
        if self.count != self.at:
            return
        if self.what == "full":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self.what == "kill":
            if fd is not None and os.path.isfile(path := os.readlink(f"/proc/self/fd/{fd}")):
                self.at = 0
                os.truncate(path, os.path.getsize(path) // 2)
            os.kill(os.getpid(), signal.SIGKILL)

    def _inside(self, path: Any) -> bool:
        return isinstance(path, str | os.PathLike) and os.path.abspath(path).startswith(self.folder)


knife: Knife | None = None
_fsync = os.fsync


def _hook(event: str, args: tuple) -> None:
    if knife is not None and (event == "open" or event in CHANGES):
        knife.saw(event, args)


def _flush(fd: int) -> None:
    if knife is not None and not knife.aimed and knife._inside(os.readlink(f"/proc/self/fd/{fd}")):
        knife.operation(fd)
    _fsync(fd)


class Forked:
    """A worker process as `vans.warm` starts them, forked: what `vans.parallel` asks of a Popen."""

    def __init__(self, job: Callable[[], None]):
        self.returncode: int | None = None
        self.pid = os.fork()
        if not self.pid:
            code = 1
            try:
                job()
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)

    def poll(self) -> int | None:
        return self._ended(os.WNOHANG)

    def wait(self, timeout: float | None = None) -> int | None:
        end = time.monotonic() + (PATIENCE if timeout is None else timeout)
        while self.poll() is None:
            if time.monotonic() > end:
                raise subprocess.TimeoutExpired("worker", timeout or PATIENCE)
            time.sleep(0.01)
        return self.returncode

    def kill(self) -> None:
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)

    def _ended(self, how: int) -> int | None:
        if self.returncode is None:
            try:
                pid, status = os.waitpid(self.pid, how)
            except ChildProcessError:  # another thread has just seen it end
                return self.returncode
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode


def forked_workers(size: int, threads: int, module: str) -> warm.Workers:
    """`vans.warm.start`, without importing everything anew."""
    folder, parent = Path(tempfile.mkdtemp(prefix="vans-ranks-")), os.getpid()
    children: list = []
    for rank in range(1, size):
        log = open(folder / f"rank{rank}.log", "w+")  # noqa: SIM115

        def job(rank: int = rank, log: Any = log) -> None:
            sys.stdout = sys.stderr = log
            os.environ["VANS_PARENT"] = str(parent)
            parallel._worker(str(folder), str(rank), module)

        children.append((Forked(job), log))
    return warm.Workers(folder, threads, children)


class Run:
    """A function in a forked child. `wait()` -> (how it ended, what it returned or why it failed).

    Ended: "done", "line" (a UserError), "fault" (any other error), "killed".
    """

    def __init__(self, function: Callable[[], Any], folder: Path, blade: Knife | None = None, largest: int = 0):
        reader, writer = os.pipe()
        parent = os.getpid()
        self.pid, self.reader = os.fork(), reader
        if not self.pid:
            os.close(reader)
            parallel._die_with_parent(parent)
            self._child(function, folder, blade, largest, writer)
        os.close(writer)

    @staticmethod
    def _child(function: Callable, folder: Path, blade: Knife | None, largest: int, writer: int) -> None:
        global knife
        sys.stdout = sys.stderr = open(os.devnull, "w")  # noqa: SIM115
        os.chdir(folder)
        if largest:
            resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))
        knife, how, value = blade, "done", None
        try:
            value = function()
        except UserError as error:
            how, value = "line", str(error)
        except BaseException:
            how, value = "fault", traceback.format_exc()[-20_000:]
        knife = None
        os.write(writer, json.dumps([how, value, blade.count if blade else 0]).encode())
        os._exit(0)

    def wait(self) -> tuple[str, Any, int]:
        data = b""
        while part := os.read(self.reader, 65536):  # to the end: its workers, which hold the pipe, have died, too
            data += part
        os.close(self.reader)
        os.waitpid(self.pid, 0)
        return tuple(json.loads(data)) if data else ("killed", None, 0)


# -------------------------------------------------------------------------------------------------- the stages
def little(root: Path) -> None:
    """A training that costs nothing, with all that stands around one: parts, groups, checkpoints, result, curves."""
    ranks, histories = parallel.Ranks(0, 1, torch.device("cpu")), {}
    with files.atomic_dir(root / "models/loop") as partial:
        for part in ("vlm", "vdm"):
            run = runs.Run(root, f"loop/{part}", {"seed": 0}, ranks, every=1)
            if run.done:
                histories[part] = run.take(partial / part)
                continue
            torch.manual_seed(0)
            model = torch.nn.Linear(3, 1)
            optim = torch.optim.AdamW(model.parameters(), lr=0.1)
            run.attach({part: model}, {part: optim})
            for step in run.steps(4):
                optim.zero_grad()
                loss = (model(torch.full((1, 3), step + 1.0)) ** 2).sum()
                loss.backward()
                optim.step()
                run.keep_group(step, {"id": "a"}, torch.zeros(2, 1, 4, 4, 3, dtype=torch.uint8))
                run.log(step, loss=loss.item())
            histories[part] = run.finish(partial / part, lambda to, model=model: _save(to, model))
    loop.write_curves(root / "curves/loop", loop.columns(histories))


def _save(folder: Path, model: torch.nn.Module) -> None:
    folder.mkdir()
    safetensors.torch.save_file(model.state_dict(), folder / "model.safetensors")
    (folder / "config.json").write_text("{}\n")


class Ground:
    """A small world with every stage's outputs, made without interruption; and copies in which one is still to do."""

    def __init__(self, folder: Path):
        self.folder, self.whole = folder, folder / "whole"
        self.whole.mkdir(parents=True)
        for name in ("dvc.yaml", "params.yaml"):
            shutil.copyfile(smoke.ROOT / name, self.whole / name)
        path = self.whole / "params.yaml"
        smoke.shrink(path)
        self.params = small(self.whole)
        self.made = 0
        self.bytes: dict[str, dict[str, str]] = {}
        self.operations: dict[tuple[str, bool], int] = {}

    def need(self, stage: str) -> None:
        """Run a stage, and what it needs, without interruption, if that is not done yet."""
        if stage in self.bytes:
            return
        outs, reads = STAGES[stage]
        if "data" in reads:
            from vans.toy import world

            expect(Run(lambda: world.generate(self.whole / "data", self.params.world), self.whole).wait(), "world")
        for other, (made, _) in STAGES.items():
            if set(made) & set(reads):
                self.need(other)
        importlib.import_module(MODULES.get(stage, "vans.train.loop"))  # here, for all children to come
        began = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
        _, _, count = expect(Run(self.work(stage, self.whole), self.whole, Knife(self.whole)).wait(), stage)
        seconds = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - began
        print(f"{stage}: {seconds:.1f} CPU s, {count} file operations", flush=True)
        self.operations[stage, False] = count
        self.bytes[stage] = digests(self.whole, outs)
        if not self.bytes[stage]:
            raise AssertionError(f"{stage} wrote nothing")

    def work(self, stage: str, root: Path, processes: int = 1, seconds: float = 0.0) -> Callable[[], None]:
        """The stage as the notebooks run it."""
        params = self.params.with_(machine={"processes": processes}) if processes > 1 else self.params

        def work() -> None:
            time.sleep(seconds)
            module: Any = importlib.import_module(MODULES.get(stage, "vans.train.loop"))
            if stage == "loop":
                little(root)
            elif stage == "curate":
                module.curate(root / "data", root / "triplets", params, progress=False, cache=root / "cache/sources")
            elif stage == "answer":
                module.predict(params, Arm("sft", "sft", "sft"), root)
            elif stage == "score":
                module.score_arm(root / "predictions/sft", root, params=params).save(root / "results/scores")
            else:
                module.train(params, *([CELLS[stage]] if stage in CELLS else []), root)
            if MODULES.get(stage, "vans.train.").startswith("vans.train."):
                runs.forget(root, CELLS[stage].name if stage in CELLS else stage)

        return work

    def copy(self, stage: str, done: bool = False) -> Path:
        """A folder in which a stage is still to do, or done already."""
        self.need(stage)
        self.made += 1
        root = self.folder / f"{self.made:05d}"
        outs, reads = STAGES[stage]
        for name in ("dvc.yaml", "params.yaml"):
            root.mkdir(exist_ok=True)
            shutil.copyfile(self.whole / name, root / name)
        for name in reads:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            if name == "data":  # curation takes no link to a folder
                shutil.copytree(self.whole / name, root / name, copy_function=os.link)
            else:
                (root / name).symlink_to(self.whole / name)
        for name in outs if done else ():
            shutil.copytree(self.whole / name, root / name)
        return root

    def wrong(self, stage: str, root: Path, processes: int = 1) -> str:
        """Why the outputs are not those of a run that nobody killed; "" if they are."""
        outs = STAGES[stage][0]
        expected = self.bytes[stage] if processes == 1 else self.twice(stage)
        found = digests(root, outs)
        if found != expected:
            differing = sorted(k for k in {*found, *expected} if found.get(k) != expected.get(k))
            return f"{len(differing)} of {len(expected)} files differ: {', '.join(differing[:3])}"
        beside = [p for out in outs for p in (root / out).parent.iterdir() if files.PARTIAL in p.name]
        beside += [p for p in (root / "cache").rglob("*") if files.PARTIAL in p.name]
        kept = [p for p in (root / "runs").rglob("*") if p.is_file()]
        return f"left behind: {(beside + kept)[0]}" if beside + kept else ""

    def twice(self, stage: str) -> dict[str, str]:
        """The digests of a run in two processes (sums over batches have another order)."""
        key = f"{stage} x 2"
        if key not in self.bytes:
            root = self.copy(stage)
            expect(Run(self.work(stage, root, 2), root).wait(), key)
            self.bytes[key] = digests(root, STAGES[stage][0])
            shutil.rmtree(root)
        return self.bytes[key]


def small(root: Path) -> Any:
    """Parameters of seconds: three steps of each training, a checkpoint every step."""
    params = load(root).with_(world=WORLD)
    changes = _cut(params.resolved())
    preset = {"new": {"tests.reward_terms:by_pixels": 1.0}}
    changes["machine"] = {**changes.get("machine", {}), "processes": 1, "device": "cpu", "workers": 1}
    changes["keep"] = {"checkpoints": dict.fromkeys(("base", "sft", "stage1", "stage2"), 1), "groups": 1}
    changes["rewards"] = dict.fromkeys(("stage1", "stage2", "all_in_one"), preset)
    return params.with_(**changes)


def _cut(section: dict) -> dict:
    found: dict = {}
    for key, value in section.items():
        if isinstance(value, dict):
            if below := _cut(value):
                found[key] = below
        elif key in TINY and isinstance(value, int) and value > TINY[key]:
            found[key] = TINY[key]
    return found


def digests(root: Path, outs: list[str]) -> dict[str, str]:
    """SHA-256 of every file of some outputs."""
    paths = [p for out in outs for p in sorted((root / out).rglob("*")) if p.is_file()]
    return {str(p.relative_to(root)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def expect(ended: tuple[str, Any, int], what: str) -> tuple[str, Any, int]:
    if ended[0] != "done":
        raise AssertionError(f"{what}: {ended[0]}: {ended[1]}")
    return ended


def prepare() -> None:
    """What children inherit: the hook, forked workers, libraries that are imported late."""
    os.environ["CUDA_VISIBLE_DEVICES"] = ""
    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(io.StringIO()):
        little(Path(folder))
        runs.forget(folder, "loop")
    if os.fsync is not _flush:
        sys.addaudithook(_hook)
        os.fsync, warm.start = _flush, forked_workers
