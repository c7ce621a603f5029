"""Where a training's time goes, and what goes wrong in it, said in its log.

    with timer("render"):       # in a training loop, or in what it calls
        ...

A line before the first step, one after it, and then one every ten minutes: seconds of each part, videos a second, the
share of the GPU's peak, memory, time left; and a line for what should not be: nan, rewards that are all equal, a first
update whose ratio is not 1, a KL that runs away. Every step's seconds stand in runs/<name>/<digest>/timing.csv. Nothing
of it is a stage's output, and nothing of it changes a number.
"""

from __future__ import annotations

import csv
import math
import resource
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from vans.errors import UserError
from vans.plan.gpus import found
from vans.plan.work import Work

PARTS = ("generate", "render", "decode", "reward", "update", "save", "rest")
EVERY = 600.0  # s between two lines
SLOW = 10.0  # s from which a part of the first step is told by itself
AGAIN = 50  # steps before the same is said again
FILE = "timing.csv"

_current: Meter | None = None


@contextmanager
def timer(part: str) -> Iterator[None]:
    """The seconds of this block belong to this part of the step under way; those of a block within, to that alone."""
    if (meter := _current) is None:
        yield
        return
    with meter.within(part):
        yield


class Meter:
    """Of one run of a training, in the process that talks."""

    def __init__(self, run: Any, total: int, work: Work | None, say: Callable[[str], None] = tqdm.write):
        """run: name, folder, position, settings, and ranks with size and device."""
        self.run, self.total, self.work, self.say = run, total, work or Work(0), say
        self.device: torch.device = run.ranks.device
        self.gpu = found(torch.cuda.get_device_name(self.device)) if self.device.type == "cuda" else None
        self.flop = self._reckoned()
        self.seconds = dict.fromkeys(PARTS, 0.0)
        self.stack = ["rest"]
        self.steps: list[float] = []
        self.alarms = Alarms(run.settings)
        self.mark = self.said = time.perf_counter()

    def _reckoned(self) -> float | None:
        """FLOPs of a step; None where nobody asks or nothing is known of the model."""
        if self.device.type != "cuda":
            return None
        try:
            return self.work.flop()
        except UserError:
            return None

    def start(self) -> None:
        """From here on it is this meter that counts."""
        global _current
        _current = self
        begun = f", of {self.work.videos} videos" if self.work.videos else ""
        self.say(f"{self.run.name}: step {self.run.position + 1} of {self.total} begins{begun}{self._expected()}")
        self.mark = self.said = time.perf_counter()

    def _expected(self) -> str:
        if not self.flop:
            return ""
        told = f", {self.flop / 1e15:.3g} PFLOP"
        if self.gpu is None:
            return told
        seconds = self.flop / (0.4 * self.gpu.peak * 1e12 * self.run.ranks.size)
        return f"{told}: about {span(seconds)} at 40 % of the peak of {self.run.ranks.size} x {self.gpu.name}"

    def stop(self) -> None:
        global _current
        if _current is self:
            _current = None

    # ------------------------------------------------------------------ parts
    @contextmanager
    def within(self, part: str) -> Iterator[None]:
        self._tick()
        self.stack.append(part)
        try:
            yield
        finally:
            self._tick()
            self.stack.pop()
            if not self.steps and self.seconds[part] >= SLOW and len(self.stack) == 1:
                self.say(f"{self.run.name}: first step: {part} took {span(self.seconds[part])}")

    def _tick(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        now = time.perf_counter()
        self.seconds[self.stack[-1]] = self.seconds.get(self.stack[-1], 0.0) + now - self.mark
        self.mark = now

    # ------------------------------------------------------------------ steps
    def step(self, history: Sequence[dict]) -> None:
        """The end of a step, the last of `history`: its line where one is due, and what is wrong with it."""
        self._tick()
        spent, self.seconds = self.seconds, dict.fromkeys(PARTS, 0.0)
        self.steps.append(sum(spent.values()))
        done = history[-1]["step"] + 1
        _append(self.run.folder / FILE, {"step": history[-1]["step"], **{k: round(v, 4) for k, v in spent.items()}})
        for line in self.alarms.look(history):
            self.say(f"{self.run.name}: step {done}: {line}")
        if len(self.steps) == 1 or done == self.total or self.mark - self.said >= EVERY:
            self.said = self.mark
            self.say(self._line(done, spent))

    def _line(self, done: int, spent: dict[str, float]) -> str:
        seconds = self.steps[-1]
        parts = ", ".join(f"{part} {span(v)}" for part, v in spent.items() if v >= 0.005 * seconds and part != "rest")
        told = [f"{self.run.name}: step {done} of {self.total}: {span(seconds)}" + (f" ({parts})" if parts else "")]
        if self.work.videos:
            told.append(f"{self.work.videos / max(seconds, 1e-9):.3g} videos/s")
        if self.flop:
            speed = self.flop / seconds / self.run.ranks.size / 1e12
            peak = f", {speed / self.gpu.peak:.0%} of {self.gpu.name}'s peak" if self.gpu else ""
            told.append(f"{speed:.3g} TFLOP/s a GPU{peak}")
        left = (self.total - done) * statistics.median(self.steps[-20:])
        return ", ".join([*told, f"{memory(self.device) / 1e9:.1f} GB", f"{span(left)} left"])


class Alarms:
    """What should not be, each kind once in AGAIN steps."""

    def __init__(self, settings: dict):
        self.settings = settings
        self.said: dict[str, int] = {}

    def look(self, history: Sequence[dict]) -> list[str]:
        """Lines on the last step of a history."""
        row, found = history[-1], []
        for kind, line in self._kinds(row, history[-21:-1]):
            if row["step"] >= self.said.get(kind, -AGAIN) + AGAIN:
                self.said[kind] = row["step"]
                found.append(line)
        return found

    def _kinds(self, row: dict, before: Sequence[dict]) -> Iterator[tuple[str, str]]:
        if wrong := [key for key, value in row.items() if not math.isfinite(value)]:
            yield (
                "nan",
                f"{', '.join(wrong)}: no number any more; stop it, and lower the learning rate or look at the data",
            )
        if row.get("equal_groups") == 1:
            yield (
                "equal",
                "all rewards of every group are equal: nothing is learnt from it (the groups in groups/ show why)",
            )
        for key, most in (("ratio_first", self._clip("stage2") / 10), ("sampler_gap", self._gap())):
            for name in (key, f"vlm_{key}", f"vdm_{key}"):
                if row.get(name, 0) > most:
                    yield (
                        key,
                        f"{name} is {row[name]:.2g}: the first update does not start from the policy that was sampled",
                    )
        for name in ("kl", "vlm_kl", "vdm_kl"):
            past = [old[name] for old in before if name in old]
            if row.get(name, 0) > 1 or (len(past) == 20 and row.get(name, 0) > max(0.01, 10 * statistics.median(past))):
                yield name, f"{name} runs away: {row[name]:.2g}; raise beta, or lower the learning rate"

    def _clip(self, stage: str) -> float:
        return self.settings.get(stage, {}).get("clip_range", 1e-3)

    def _gap(self) -> float:
        return 1e-3 if self.settings.get("machine", {}).get("dtype", "float32") == "float32" else 1.0


def span(seconds: float) -> str:
    """0.32 s, 41 s, 3.2 min, 12 h."""
    for size, unit in ((3600.0, "h"), (60.0, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def memory(device: torch.device) -> int:
    """Bytes that this process has held at most: of the GPU's memory, or of the machine's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def _append(path: Path, row: dict[str, float]) -> None:
    new = not path.exists()
    with path.open("a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row.keys())
        if new:
            writer.writeheader()
        writer.writerow(row)
