"""A resumable training: atomic checkpoints, history, curves. The loops themselves stay plain `for` loops.

    run = Run(root, "stage1/full", settings, ranks, every=10)
    if run.done:
        return run.take(out)
    run.attach({"vlm": model}, {"vlm": optim})      # and go on from the last checkpoint
    for step in run.steps(total):
        ...                                         # one visible optimiser step
        run.log(step, loss=..., reward=...)         # and a checkpoint every `every` steps
    return run.finish(out, save)

A checkpoint holds what trains (model and optimiser tensors as safetensors), the position and the history; it is written
while the next steps compute, and the last two are kept (vans/train/checkpoints.py). There is no random state to keep:
all randomness is a function of (seed, stage, step, sample), see `vans.rng`. A run that is killed at any point goes on
from its last checkpoint and ends in the same bytes as one that was not (on CPUs, with as many processes; on a GPU as
far as its kernels are deterministic).

What a run keeps, checkpoints and results, lists its files with their digests and is believed only if they are right.
A second process that comes to the same training waits for the first.

Runs stand in runs/<name>/<digest of their settings>/. Settings are what can change a run's numbers: parameters, data,
models, code (`vans.train.settings`). A run with other settings is never deleted: it is set aside under a name that says
when and which key differs, and taken up again when the key goes back. The number of processes, which changes the order
of sums and nothing else, may change on the way: that is said, and settings.json and the result's record list them.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from filelock import FileLock, Timeout
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim import Optimizer
from tqdm import tqdm

from vans import files
from vans.meter import Meter, timer
from vans.parallel import Ranks
from vans.plan.work import Work
from vans.sharding import make_whole
from vans.train.checkpoints import Checkpoints

ASIDE = "aside-"
_held: dict[Path, FileLock] = {}  # of this process


class Run:
    """One training of settings that decide its numbers."""

    def __init__(self, root: str | Path, name: str, settings: dict, ranks: Ranks, every: int):
        self.name, self.settings, self.ranks, self.every = name, settings, ranks, every
        self.digest = files.digest(_deciding(settings))[:12]
        self.folder = Path(root) / "runs" / name / self.digest
        self.history: list[dict] = []
        self._told: dict = {}
        self.position = self.total = 0
        self.checkpoints = Checkpoints(self.folder, ranks)
        self.meter: Meter | None = None
        if ranks.main:
            _alone(self.folder.parent, self.name)
            self._place()
        ranks.barrier()
        self.done = ranks.gather((self.folder / "done").exists() if ranks.main else None)[0]  # one rank looks

    # ------------------------------------------------------------------ the loop
    def attach(self, modules: dict[str, nn.Module], optimizers: Mapping[str, Optimizer]) -> None:
        """What trains; it gets the state of the last checkpoint, if there is one."""
        self.checkpoints.attach(modules, optimizers)
        found = sorted(self.folder.glob("step-*")) if self.ranks.main else []
        last = self.ranks.gather(found[-1].name if found else None)[0]  # one rank looks: shared disks show it late
        if last is not None:
            self.position, self.history = self.checkpoints.load(last)
            if self.ranks.main:
                print(f"{self.name}: goes on at step {self.position}")

    def steps(self, total: int, work: Work | None = None) -> Iterator[int]:
        """The steps that are still to do. work: what one makes, for the log."""
        self.total, bar = total, None
        if self.ranks.main and self.position < total:
            self.meter = Meter(self, total, work)
            self.meter.start()
        if self.ranks.main:
            bar = tqdm(total=total, initial=self.position, desc=self.name, file=sys.stdout, mininterval=2, ncols=100)
        for step in range(self.position, total):
            yield step
            if bar is not None:
                bar.set_postfix({k: f"{v:.3g}" for k, v in list(self.history[-1].items())[1:5]}, refresh=False)
                bar.update(1)
        self.checkpoints.settle()
        if self.meter is not None:
            self.meter.stop()
        if bar is not None:
            bar.close()

    def log(self, step: int, **values: float | Tensor) -> None:
        """End of a step: note its values, and save if it is time to.

        A number is averaged over the ranks that have it, a tensor over all its elements on all ranks (a rank may have
        fewer prompts than the others, or none; an element that is nan is none).
        """
        mine = {k: v[~v.isnan()].float().tolist() if isinstance(v, Tensor) else [float(v)] for k, v in values.items()}
        gathered, reports = zip(*self.ranks.gather((mine, self.checkpoints.report())), strict=True)
        self.checkpoints.appear(reports)
        names = list(dict.fromkeys(k for g in gathered for k in g))
        every = {k: [x for g in gathered for x in g.get(k, [])] for k in names}
        self.history.append({"step": step, **{k: sum(x) / len(x) for k, x in every.items() if x}})
        self.position = step + 1
        if self.position % self.every == 0 or self.position == self.total:
            with timer("save"):
                self.checkpoints.save(self.position, self.history)
        if self.meter is not None:
            self.meter.step(self.history)

    def keep_group(self, step: int, record: dict, videos: Tensor | None) -> None:
        """Keep one rollout group for the pictures: a JSON file, and its videos uint8 [G, T, H, W, 3] beside it."""
        if not self.ranks.main:
            return
        folder = self.folder / "groups"
        folder.mkdir(parents=True, exist_ok=True)
        if videos is not None:
            data = {"clips": videos.contiguous()}
            with files.atomic_file(folder / f"step-{step:05d}.safetensors") as partial:
                save_file(data, partial)
        files.atomic_write_text(folder / f"step-{step:05d}.json", json.dumps({"step": step, **record}, indent=1) + "\n")

    @property
    def has_groups(self) -> bool:
        return any((self.folder / "groups").glob("*.json"))

    # ------------------------------------------------------------------ the end
    def finish(self, out: str | Path, save: Callable[[Path], None]) -> list[dict]:
        """Save the result in the run's folder, whole or not at all, and copy it to `out`; returns the history.

        It stays there until the whole stage is written (`forget`), so that a stage that fails later does not train
        again.
        """
        for model in self.checkpoints.modules.values():
            make_whole(model, self.ranks.main)
        if self.ranks.main:
            with files.atomic_dir(self.folder / "done") as partial:
                save(partial / "model")
                drop_paths(partial / "model")
                if self.has_groups:
                    shutil.copytree(self.folder / "groups", partial / "model" / "groups")
                files.seal(partial, {"history": self.history, "processes": self._told["processes"]})
        self.ranks.barrier()
        self.done = True
        return self.take(out)

    def take(self, out: str | Path) -> list[dict]:
        """Copy a finished result to `out`; returns its history."""
        done = self.folder / "done"
        if self.ranks.main:
            shutil.copytree(done / "model", out, dirs_exist_ok=True)
        self.ranks.barrier()
        record = self.ranks.gather(json.loads((done / files.LISTED).read_text()) if self.ranks.main else None)[0]
        history = record["history"]
        if self.ranks.main:
            if record.get("processes", [self._processes]) != [self._processes]:
                print(f"{self.name}: trained with {record['processes']} processes, not with {self._processes}")
            _release(self.folder.parent)
        return history

    # ------------------------------------------------------------------ runs beside each other
    @property
    def _processes(self) -> int:
        return self.settings.get("machine", {}).get("processes", self.ranks.size)

    def _took_part(self) -> list[int]:
        """The numbers of processes with which this run has trained, in order; says where another one goes on."""
        path, now = self.folder / "settings.json", self._processes
        kept = any(self.folder.glob("step-*")) and not (self.folder / "done").exists()
        before = json.loads(path.read_text()).get("processes", []) if kept and path.exists() else []
        if before and before[-1] != now:
            print(f"{self.name}: {now} processes go on where {before[-1]} were: sums are added in another order")
        return before if before and before[-1] == now else [*before, now]

    def _place(self) -> None:
        """Set other runs of this name aside, find this one again if it was, and begin it if it is new."""
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        for folder in (self.folder.parent, self.folder, self.folder / "groups"):
            files.sweep(folder)
        for other in sorted(p for p in self.folder.parent.iterdir() if p.is_dir()):
            if other.name.startswith(ASIDE):
                if other.name.endswith(self.digest) and not self.folder.exists():
                    other.rename(self.folder)
                    print(f"{self.name}: the run that was set aside as {other.name} is taken up again")
            elif other != self.folder and (other / "settings.json").exists():
                if not any(other.glob("step-*")) and not (other / "done").exists():
                    files.discard(other)  # it had not come to its first checkpoint
                    continue
                was = _deciding(json.loads((other / "settings.json").read_text()))
                keys = _differing(was, _deciding(self.settings))
                aside = (
                    f"{ASIDE}{time.strftime('%Y%m%d-%H%M%S')}-{re.sub(r'[^A-Za-z0-9_.]+', '-', keys[0])}-{other.name}"
                )
                other.rename(other.with_name(aside))
                print(f"{self.name}: an unfinished run with other settings ({', '.join(keys[:3])}) is kept as {aside}")
        done = self.folder / "done"
        for kept in (done, *self.folder.glob("step-*")):
            if kept.exists() and files.sealed(kept) is None:
                what = "a finished run" if kept == done else f"checkpoint {kept.name}"
                print(f"{self.name}: {what} is damaged on the disk; it goes on from what is whole")
                files.discard(kept)
        if not any(self.folder.glob("step-*")) and not done.exists():
            files.discard(self.folder / "groups")  # pictures of a run that ended before its first checkpoint
        self._told = {"processes": self._took_part()}
        files.atomic_write_text(self.folder / "settings.json", json.dumps(self.settings | self._told, indent=1) + "\n")


def _deciding(settings: dict) -> dict:
    """Settings without the number of processes: the same draws and, but for the order of sums, the same numbers."""
    told = {key: value for key, value in settings.items() if key != "processes"}
    if "machine" in told:
        told["machine"] = {key: value for key, value in told["machine"].items() if key != "processes"}
    return told


def forget(root: str | Path, name: str) -> None:
    """The stage is over, its pictures included: drop its finished runs, so that it trains when it is run again.

    name: of the stage ("sft"), or of one of its cells ("stage1/full"). Runs set aside stay.
    """
    for done in sorted((Path(root) / "runs" / name).rglob("done")):
        if not done.parent.name.startswith(ASIDE):
            folder = done.parent.parent
            _alone(folder, str(folder.relative_to(Path(root) / "runs")))  # another process may be copying it
            files.discard(done.parent)
            files.sweep(folder)
            _release(folder)


def _alone(folder: Path, name: str) -> None:
    """Wait until no other process trains here. The lock goes with its process, however that ends; who has it already,
    such as a cell that is run a second time, has it."""
    if (key := folder.absolute()) in _held:
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(key.with_name(f".{key.name}.lock"), thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        print(f"{name}: another process is at it; this one waits for it", flush=True)
        lock.acquire()
    _held[key] = lock


def _release(folder: Path) -> None:
    if lock := _held.pop(folder.absolute(), None):
        Path(lock.lock_file).unlink(missing_ok=True)  # who waits for it sees that, and makes a new one
        lock.release()


def drop_paths(folder: Path) -> None:
    """Take out of saved configurations where the models were loaded from: the same model is the same bytes
    wherever its repository lies."""
    for path in sorted(folder.rglob("*config.json")):
        config = json.loads(path.read_text(encoding="utf-8"))
        kept = {key: value for key, value in config.items() if key != "_name_or_path"}
        if kept.get("base_model_name_or_path") is not None:
            kept["base_model_name_or_path"] = None
        if kept != config:
            path.write_text(json.dumps(kept, indent=2) + "\n", encoding="utf-8")


def _differing(first: dict, second: dict, key: str = "") -> list[str]:
    """Dotted keys in which two settings differ."""
    found = []
    for name in sorted({*first, *second}, key=str):
        a, b, where = first.get(name), second.get(name), f"{key}.{name}" if key else str(name)
        if isinstance(a, dict) and isinstance(b, dict):
            found += _differing(a, b, where)
        elif json.loads(json.dumps(a)) != json.loads(json.dumps(b)):
            found.append(where)
    return found or (["nothing"] if not key else [])
