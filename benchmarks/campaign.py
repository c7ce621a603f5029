"""Kills, full disks, two of everything at once: does every run end in the same bytes, and is nothing lost?

    python benchmarks/campaign.py                        # the full figures: hours of CPU
    python benchmarks/campaign.py --quick                # a few of each: minutes
    python benchmarks/campaign.py --only kills --stages sft,stage2 --kills 50 --seed 7

kills: a stage of a small world is killed (SIGKILL) at a random file operation below its folder (where it flushes a
file, half of that file is lost, too); started again it is killed again, and so on until it ends. Its outputs are then
those of a run that nobody killed, byte for byte, and nothing half-written lies beside them. Every second round trains
in two processes. aimed: only at deletions and renames. dvc: the same under `dvc repro`, at a random moment.
disk: an operation says "no space left", or no file may grow beyond some size: one clear line, the old result is there,
and once there is space the stage ends in the same bytes. pairs: two processes that run a stage on the same folders at
the same time, or fill one cache. soak: many answers in one process; its memory and descriptors. cost: the share of CPU
time that listing and checking files takes in a training.

What means harm or is damaged (folders, adapters, manifests, questions, servers): `benchmarks/hostile.py`.
The stage "loop" is a training that costs nothing, with all that stands around one: thousands of its kills cost minutes.
Every stage runs in a child forked from this process, which has its libraries imported, so that a kill costs a second.
Linux only. The program ends with 1 if anything went wrong, and names the seed of the case.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.ground import STAGES, WORLD, Ground, Knife, Run, digests, expect, prepare
from tests import smoke
from vans import files
from vans.visible import terminal

CHECKS = {  # what looks after files, weights and texts, and computes nothing
    "vans.files": (
        *("seal", "sealed", "sweep", "remove_leftovers", "discard", "usual_permissions"),
        *("check_readable", "check_free_space"),
    ),
    "vans.template": ("special_tokens", "plain"),
    "vans.data.manifest": ("_check_schema", "_check_rows", "_check_places"),
    "vans.models.whole": ("check_finite", "_account", "_check_files"),
    "vans.llm.answers": ("clean",),
}


def clocked(work: Callable[[], Any]) -> Callable[[], list[float]]:
    """The work with a clock: CPU seconds in CHECKS, and of all."""
    clock, spent, inside = time.process_time, [0.0], [False]

    def timed(function: Callable) -> Callable:
        def call(*given: Any, **named: Any) -> Any:
            if inside[0]:
                return function(*given, **named)
            began, inside[0] = clock(), True
            try:
                return function(*given, **named)
            finally:
                inside[0] = False
                spent[0] += clock() - began

        return call

    def run() -> list[float]:
        for module, names in CHECKS.items():
            for name in names:
                function = getattr(importlib.import_module(module), name)
                clocked_one = timed(function)
                for other in [m for n, m in list(sys.modules.items()) if n.startswith("vans.")]:
                    for key in [k for k, v in list(vars(other).items()) if v is function]:
                        setattr(other, key, clocked_one)
        began = clock()
        work()
        return [spent[0], clock() - began]

    return run


# ------------------------------------------------------------------------------------------------ the campaigns
class Campaign:
    """Cases, their outcomes, and what went wrong."""

    def __init__(self, ground: Ground, seed: int, until: float = float("inf")):
        self.ground, self.seed, self.until = ground, seed, until
        self.figures: dict[str, dict] = {}
        self.wrong: list[str] = []

    def over(self) -> bool:
        return time.monotonic() > self.until

    def fault(self, case: str, why: Any) -> None:
        self.wrong.append(f"{case}: {why}")
        print(self.wrong[-1], flush=True)

    def part(self, name: str, stages: list[str], count: int) -> None:
        """One of PARTS, so many times."""
        if name == "cost":
            self.cost()
        elif count and name in ("kills", "aimed"):
            self.kills(stages, count, name == "aimed")
        elif count:
            getattr(self, name)(*([stages] if name in ("disk", "pairs") else []), count)

    def kills(self, stages: list[str], count: int, aimed: bool = False) -> None:
        """`count` kills in turn over the stages, each chain of them to its end."""
        name, right, number = "aimed" if aimed else "kills", Counter[str](), 0
        while sum(right.values()) < count and not self.over() and len(self.wrong) < 20:
            stage = stages[number % len(stages)]
            processes = 2 if not aimed and number // len(stages) % 2 and stage not in ("loop", "curate", "score") else 1
            case = f"{name} {stage} x {processes}, seed {self.seed}, chain {number}"
            draw, number = random.Random(f"{self.seed}/{name}/{number}"), number + 1
            killed, why = self.chain(stage, processes, draw, aimed)
            if why:
                self.fault(case, why)
                right["wrong"] += killed
            else:
                right[f"{stage} x {processes}"] += killed
        done = sum(right.values())
        self.figures[name] = {"killed": done, "same bytes": done - right["wrong"], **right}
        print(f"{name}: {done - right['wrong']} of {done} killed runs end in the same bytes; {dict(right)}", flush=True)

    def chain(self, stage: str, processes: int, draw: random.Random, aimed: bool) -> tuple[int, str]:
        """Kill a stage again and again until it ends; how often, and what is wrong with what it made."""
        root, killed = self.ground.copy(stage, done=draw.random() < 0.5), 0
        if processes > 1:
            self.ground.twice(stage)
        most = self._operations(stage, aimed)
        while True:
            blade = Knife(root, "kill", draw.randint(1, most), aimed) if killed < 6 else None
            how, value, _ = Run(self.ground.work(stage, root, processes), root, blade).wait()
            if how == "line" and processes > 1 and "a worker process failed" in value:
                how = "killed"  # the other rank was it
            if how != "killed":
                break
            killed += 1
        why = str(value) if how != "done" else self.ground.wrong(stage, root, processes)
        if not why:
            shutil.rmtree(root)
        return killed, why

    def _operations(self, stage: str, aimed: bool) -> int:
        if (stage, aimed) not in self.ground.operations:
            root = self.ground.copy(stage, done=True)
            ended = Run(self.ground.work(stage, root), root, Knife(root, aimed=aimed)).wait()
            self.ground.operations[stage, aimed] = expect(ended, stage)[2]
            shutil.rmtree(root)
        return self.ground.operations[stage, aimed]

    def disk(self, stages: list[str], count: int) -> None:
        """`count` runs of a stage that is done already on a disk that gets full."""
        seen: Counter[str] = Counter()
        for number in range(count):
            if self.over():
                break
            stage, draw = stages[number % len(stages)], random.Random(f"{self.seed}/disk/{number}")
            root = self.ground.copy(stage, done=True)
            case = f"disk {stage}, seed {self.seed}, case {number}"
            if number // len(stages) % 2:  # what libraries write, too
                sizes = sorted(p.stat().st_size for p in (root / STAGES[stage][0][0]).rglob("*") if p.is_file())
                how, value, _ = Run(self.ground.work(stage, root), root, None, draw.choice(sizes[1:]) - 1).wait()
            else:
                blade = Knife(root, "full", draw.randint(1, self._operations(stage, False)))
                how, value, _ = Run(self.ground.work(stage, root), root, blade).wait()
            seen[how] += 1
            if how == "fault" or (how == "line" and "\n" in value):
                self.fault(case, value)
            elif how == "line" and (why := self._lost(stage, root)):
                self.fault(case, f"the old result is not kept: {why}")
            else:
                expect(Run(self.ground.work(stage, root), root).wait(), case)
                if why := self.ground.wrong(stage, root):
                    self.fault(case, why)
            shutil.rmtree(root)
        self.figures["disk"] = dict(seen)
        print(f"disk: {seen['line']} of {seen['line'] + seen['fault']} in one line, {seen['done']} needed no space "
              "there", flush=True)  # fmt: skip

    def _lost(self, stage: str, root: Path) -> str:
        """What is missing of the old outputs. A stage's several outputs are replaced one after the other."""
        found, expected = digests(root, STAGES[stage][0]), self.ground.bytes[stage]
        return ", ".join(sorted(k for k in expected if found.get(k) != expected[k])[:3])

    def pairs(self, stages: list[str], count: int) -> None:
        """Two processes at the same stage on the same folders; of curation and trainings also on one cache alone."""
        faults = number = 0
        while number < count and not self.over():
            stage, draw = stages[number % len(stages)], random.Random(f"{self.seed}/pairs/{number}")
            case, number = f"pairs {stage}, seed {self.seed}, case {number}", number + 1
            roots = [self.ground.copy(stage)] * 2
            if draw.random() < 0.5:
                roots = [roots[0], self.ground.copy(stage)]
                for root in roots:
                    (root / "cache").symlink_to(self.ground.folder / f"cache{number}")
                (self.ground.folder / f"cache{number}").mkdir()
            late = draw.random() * 0.5
            both = [Run(self.ground.work(stage, r, seconds=s), r) for r, s in zip(roots, (0.0, late), strict=True)]
            ended = [run.wait() for run in both]
            why = [str(value) for how, value, _ in ended if how != "done"]
            why += [w for root in {*roots} if (w := self.ground.wrong(stage, root))]
            if why:
                faults += 1
                self.fault(case, why[0])
            for root in {*roots}:
                shutil.rmtree(root)
            shutil.rmtree(self.ground.folder / f"cache{number}", ignore_errors=True)
        self.figures["pairs"] = {"pairs": number, "faults": faults}
        print(f"pairs: {faults} faults in {number} concurrent pairs", flush=True)

    def soak(self, count: int) -> None:
        """`count` answers in one process; memory (MB) and descriptors after a tenth of them and at the end."""
        root = self.ground.copy("answer")
        from vans.answer import ask

        video = next((self.ground.whole / "data").rglob("*.avi"))

        def work() -> list:
            seen = []
            for i in range(count):
                ask.answer(video, "what happens next ?", root / "a.avi", "sft", root)
                if i + 1 in (max(1, count // 10), count):
                    pages = int(Path("/proc/self/statm").read_text().split()[1])
                    seen.append([pages * resource.getpagesize() // 2**20, len(os.listdir("/proc/self/fd"))])
            return seen

        how, value, _ = Run(work, root).wait()
        if how != "done" or value[-1][1] != value[0][1] or value[-1][0] > 1.1 * value[0][0] + 20:
            self.fault("soak", value)
        self.figures["soak"] = {"answers": count, "MB and descriptors, early and at the end": value}
        print(f"soak: {count} answers; MB and descriptors after a tenth and at the end: {value}", flush=True)

    def cost(self) -> None:
        """CPU seconds in checks, of a training's and of a curation's."""
        works = {"training": ("sft", self._longer), "curation": ("curate", self._larger)}
        for what, (stage, work) in works.items():
            root = self.ground.copy(stage)
            _, (checks, whole), _ = expect(Run(clocked(work(root)), root).wait(), "cost")
            self.figures[f"cost of a {what}"] = {"checks": round(checks, 4), "whole": round(whole, 2)}
            print(f"cost: {checks:.3f} of {whole:.2f} CPU s of a {what}, {checks / whole:.2%}", flush=True)

    def _longer(self, root: Path) -> Callable[[], Any]:
        """A training of a hundred steps, with its checkpoints."""
        from vans.train import sft

        parts = {"steps": 50, "batch": 8, "micro_batch": 8}
        params = self.ground.params.with_(keep={"checkpoints": {"sft": 50}}, sft={"vlm": parts, "vdm": parts})
        return lambda: sft.train(params, root)

    def _larger(self, root: Path) -> Callable[[], Any]:
        """A curation of some more sources."""
        from vans.data.curate import curate
        from vans.toy import world

        params = self.ground.params.with_(world=dict.fromkeys(WORLD, 24))
        made = Run(lambda: world.generate(self.ground.folder / "larger", params.world), root)
        expect(made.wait(), "world")
        return lambda: curate(self.ground.folder / "larger", root / "triplets", params, progress=False)

    def dvc(self, count: int) -> None:
        """`dvc repro sft` in a clone, killed with all its processes at a random moment, until it ends."""
        clone = smoke.clone(self.ground.folder / "clone")
        command, environment = [sys.executable, "-m", "dvc", "repro", "sft"], smoke.environment(clone)
        quiet: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
        smoke.run(*command, cwd=clone)
        again, began = [*command, "--force", "--single-item"], time.monotonic()
        smoke.run(*again, cwd=clone)
        whole, seconds = digests(clone, STAGES["sft"][0]), time.monotonic() - began
        draw, killed, right = random.Random(f"{self.seed}/dvc"), 0, 0
        while killed < count and not self.over():
            for name in ("models/sft", "curves/sft"):
                shutil.rmtree(clone / name)
            shutil.rmtree(clone / ".dvc/cache/runs", ignore_errors=True)  # else it would bring back what it has seen
            for stretched in itertools.count():  # other work on the machine must not keep a run from its end for good
                process = subprocess.Popen(again, cwd=clone, env=environment, start_new_session=True, **quiet)
                try:
                    code = process.wait(draw.uniform(0.2, 1.0) * seconds * 1.2**stretched)
                    break
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)
                    process.wait()
                    killed += 1
            if code or digests(clone, STAGES["sft"][0]) != whole:
                self.fault(f"dvc, seed {self.seed}, after {killed} kills", f"exit code {code}")
            else:
                right = killed
        self.figures["dvc"] = {"killed": killed, "same bytes": right}
        print(f"dvc: {right} of {killed} killed `dvc repro` end in the same bytes", flush=True)


FULL = {"kills": 300, "aimed": 100, "disk": 64, "pairs": 200, "soak": 200, "dvc": 20}
QUICK = {"kills": 16, "aimed": 8, "disk": 16, "pairs": 6, "soak": 10, "dvc": 0}
PARTS = (*FULL, "cost")


def main() -> int:
    """Run what is asked for and print the figures; 1 if anything went wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few of each")
    parser.add_argument("--only", help=f"some of {','.join(PARTS)}")
    parser.add_argument("--stages", default=",".join(STAGES), help="some of %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="begin no case after so long")
    parser.add_argument("--folder", type=Path, help="where to work (the temporary folder)")
    parser.add_argument("--out", type=Path, help="write the figures into this JSON file")
    for name, number in FULL.items():
        parser.add_argument(f"--{name}", type=int, help=f"how many ({number}, quick {QUICK[name]})")
    given = parser.parse_args()
    stages, parts = given.stages.split(","), given.only.split(",") if given.only else PARTS
    numbers = QUICK if given.quick else FULL
    prepare()
    with tempfile.TemporaryDirectory(prefix=files.temporary("campaign"), dir=given.folder) as folder:
        campaign = Campaign(Ground(Path(folder)), given.seed, time.monotonic() + 60 * given.minutes)
        for part in parts:
            count = getattr(given, part, None)
            try:
                campaign.part(part, stages, numbers.get(part, 1) if count is None else count)
            except AssertionError as error:  # a run that nothing disturbed
                campaign.fault(part, error)
    print(f"\n{len(campaign.wrong)} cases went wrong")
    if given.out:
        found = {"figures": campaign.figures, "wrong": campaign.wrong}
        files.atomic_write_text(given.out, json.dumps(found, indent=1) + "\n")
    return 1 if campaign.wrong else 0


if __name__ == "__main__":
    with terminal():  # who reads along may go: the figures are written all the same
        code = main()
    sys.exit(code)
