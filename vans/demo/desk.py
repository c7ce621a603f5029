"""Who asked what, in order: one run after the other through the models, each of them told of, stopped or kept."""

from __future__ import annotations

import secrets
import sys
import threading
import time
import traceback
from collections import deque
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import torch

from vans.answer.live import Answerer, Cancelled
from vans.answer.watch import of_frames
from vans.demo.pace import Clock, Pace
from vans.demo.shelf import Kept, Shelf
from vans.demo.source import Source
from vans.errors import UserError
from vans.local.server import Refused

WARM = 2  # steps of the answer that nobody sees
WAITING = 64  # runs that may wait
LEFT = 64  # runs that were stopped or failed and are still told of
OFTEN = 0.1  # s between two tellings of how far a run is
OVER = ("done", "stopped", "failed")
WRONG = "something went wrong; the terminal of `vans demo` says what"


@dataclass(frozen=True)
class Settings:
    """How an answer is drawn."""

    seed: int
    steps: int
    guidance: float


@dataclass
class Part:
    """One future. caption: None until the VLM has said one; where it is given, nothing is thought. own: what the VLM
    said where somebody has changed it. same: a video that is there already."""

    question: str
    caption: str | None = None
    reasoning: str = ""
    forced: bool = False
    own: str | None = None
    same: Kept | None = None

    def told(self) -> dict[str, Any]:
        """For the page and the shelf."""
        return {name: getattr(self, name) for name in ("question", "caption", "reasoning", "forced", "own")}


@dataclass(eq=False)
class Run:
    """owner: a digest of the browser's secret. version: of what there is to tell, see `Desk.since`."""

    owner: str
    source: Source
    settings: Settings
    parts: list[Part]
    id: str = field(default_factory=lambda: secrets.token_hex(16))
    made: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="microseconds"))
    state: str = "waiting"
    stage: str = ""
    share: float = 0.0
    error: str = ""
    version: int = 0
    clock: Clock | None = None
    stop: threading.Event = field(default_factory=threading.Event)

    def kept(self) -> dict[str, Any]:
        """For the shelf."""
        return {
            **{"id": self.id, "owner": self.owner, "made": self.made, **vars(self.settings)},
            "parts": [part.told() for part in self.parts],
        }


class Desk:
    """One queue before one Answerer. Safe to be used by several threads.

    arm: whose models they are, told beside each answer.
    """

    def __init__(self, models: Answerer, shelf: Shelf, arm: str = "") -> None:
        self.models, self.shelf, self.arm, self.pace = models, shelf, arm, Pace()
        self.runs: dict[str, Run] = {}  # all that are not on the shelf
        self._waiting: deque[Run] = deque()
        self._changed = threading.Condition()
        self._version = 1
        self._fresh = dict.fromkeys(shelf.runs, 1)  # version of what is on the shelf
        self._gone: dict[str, tuple[str, int]] = {}  # forgotten: owner, version
        self._closed = False
        self._worker = threading.Thread(target=self._work, name="answers", daemon=True)
        self._worker.start()

    # -------------------------------------------------------------------------------------------------- asking
    def ask(self, run: Run) -> None:
        """Put a run into the queue; Refused if that is too long."""
        with self._changed:
            if len(self._waiting) >= WAITING:
                raise Refused(f"{WAITING} runs are waiting already; try again when some are done")
            self.runs[run.id] = run
            self._waiting.append(run)
            self._tell(*self._waiting)

    def halt(self, id: str, owner: str) -> None:
        """Stop a run: at once if it waits, within a token or a step if it is under way."""
        with self._changed:
            run = self.runs.get(id)
            if run is None or run.owner != owner:
                return
            run.stop.set()
            if run in self._waiting:
                self._waiting.remove(run)
                run.state = "stopped"
                self._tell(run, *self._waiting)

    def forget(self, id: str, owner: str) -> None:
        """Take a run that is over away, from the disk, too."""
        with self._changed:
            if (run := self.runs.get(id)) is not None and run.owner == owner and run.state in OVER:
                del self.runs[id]
            elif (told := self.shelf.runs.get(id)) is not None and told["owner"] == owner:
                self.shelf.drop(id)
            else:
                return
            self._version += 1
            self._gone[id] = owner, self._version
            while len(self._gone) > LEFT:
                del self._gone[next(iter(self._gone))]
            self._changed.notify_all()

    # -------------------------------------------------------------------------------------------------- telling
    def since(self, owner: str, version: int, patience: float = 0.0) -> dict[str, Any]:
        """What has changed for an owner since a version: runs, oldest first, and ids of those forgotten; waits for it.

        patience: s. Returns the version to ask with the next time.
        """
        end = time.monotonic() + patience
        with self._changed:
            while True:
                kept = [id for id, told in self.shelf.runs.items() if told["owner"] == owner]
                runs = [self._of_shelf(id) for id in kept if self._fresh.get(id, 0) > version]
                open_ = [run for run in self.runs.values() if run.owner == owner and run.version > version]
                gone = [id for id, (whose, at) in self._gone.items() if whose == owner and at > version]
                left = end - time.monotonic()
                if runs or open_ or gone or left <= 0 or self._closed:
                    told = sorted([*runs, *map(self._of_run, open_)], key=lambda one: one["made"])
                    return {"version": self._version, "runs": told, "gone": gone}
                self._changed.wait(left)

    def _of_shelf(self, id: str) -> dict[str, Any]:
        told = self.shelf.runs[id]
        pairs = enumerate(zip(told["parts"], told["clips"], strict=True))
        parts = [{**part, "clip": {"token": f"{id}-{k}", **clip}} for k, (part, clip) in pairs]
        source = told["source"]
        shown = {"token": f"{id}-input", **source["shown"]}
        about = {name: told[name] for name in ("id", "made", "seed", "steps", "guidance", "seconds", "arm")}
        return {**about, "state": "done", "name": source["name"], "input": shown, "parts": parts}

    def _of_run(self, run: Run) -> dict[str, Any]:
        busy = any(one.state == "running" for one in self.runs.values())
        ahead = self._waiting.index(run) + busy if run in self._waiting else 0
        parts = []
        for k, part in enumerate(run.parts):
            clip = None if part.same is None else {"token": f"{run.id}-{k}", **part.same.strip.described()}
            parts.append({**part.told(), "clip": clip})
        about = {name: getattr(run, name) for name in ("id", "made", "state", "stage", "share", "error")}
        shown = {"token": f"{run.id}-input", **run.source.shown.described()}
        left = None if run.state in OVER else self._left(run)
        about |= {**vars(run.settings), "ahead": ahead, "left": left, "name": run.source.name, "arm": self.arm}
        return {**about, "input": shown, "parts": parts}

    def _left(self, run: Run) -> float | None:
        """Seconds until a run is done, with all that are before it."""
        total = 0.0
        before = [one for one in self.runs.values() if one.state == "running"]
        for one in [*before, *self._waiting]:
            todo = [part for part in one.parts if part.same is None]
            think = sum(part.caption is None for part in todo)
            left = one.clock.left() if one.clock else self.pace.whole(think, len(todo), one.settings.steps)
            if left is None:
                return None
            total += left
            if one is run:
                break
        return round(total, 1)

    def _tell(self, *runs: Run) -> None:
        """Something of these has changed (the lock is held)."""
        self._version += 1
        for run in runs:
            run.version = self._version
        self._changed.notify_all()

    # -------------------------------------------------------------------------------------------------- working
    def _work(self) -> None:
        torch.set_num_threads(self.models.params.machine.threads)  # of this thread
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if self._closed:
                    return
                run = self._waiting.popleft()
                run.state = "running"
                todo = [part for part in run.parts if part.same is None]
                run.clock = Clock(self.pace, sum(p.caption is None for p in todo), len(todo), run.settings.steps)
                self._tell(run, *self._waiting)
            self._do(run, todo)
            run.clock = None

    def _do(self, run: Run, todo: list[Part]) -> None:
        state, error = "failed", WRONG
        try:
            self._answer(run, todo)
            return
        except Cancelled:
            state, error = "stopped", ""
        except UserError as problem:
            print(f"vans: {problem}", file=sys.stderr, flush=True)
        except Exception as problem:
            traceback.print_exc()
            if isinstance(problem, torch.OutOfMemoryError):
                error = "the GPU's memory does not suffice; ask fewer questions at once"
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
        with self._changed:
            run.state, run.error = state, error
            over = [one for one in self.runs.values() if one.state in OVER]
            for one in over[: max(0, len(over) - LEFT)]:
                del self.runs[one.id]
            self._tell(run)

    def _answer(self, run: Run, todo: list[Part]) -> None:
        clock, told = run.clock, 0.0
        assert clock is not None

        def progress(part: str, done: int, of: int) -> None:
            nonlocal told
            if part == "rendering":
                clock.stepped(done, of)
            now = time.monotonic()
            if now - told >= OFTEN or done == of:
                told = now
                with self._changed:
                    run.stage, run.share = part, done / of
                    self._tell(run)

        how: dict[str, Any] = {"seed": run.settings.seed, "progress": progress, "cancel": run.stop}
        new = [part for part in todo if part.caption is None]
        if new:
            thoughts = self.models.think(run.source.seen, [part.question for part in new], **how)
            for part, said in zip(new, thoughts, strict=True):
                part.caption, part.reasoning, part.forced = said.caption, said.reasoning, said.forced
        clock.thought()
        with self._changed:
            run.stage, run.share = "rendering", 0.0
            self._tell(run)
        how |= {"steps": run.settings.steps, "guidance": run.settings.guidance}
        videos = iter(self.models.render(run.source.seen, [str(part.caption) for part in todo], **how))
        fps = self.models.params.video.fps
        clips = [part.same or (next(videos).numpy(), fps) for part in run.parts]
        record = {**run.kept(), "arm": self.arm, "seconds": round(clock.over(), 2)}
        record = self.shelf.write(run.id, record, run.source, clips)
        with self._changed:  # now it is on the shelf and nowhere else
            self._version += 1
            del self.runs[run.id]
            self.shelf.add(record)
            self._fresh[run.id] = self._version
            for id in self._fresh.keys() - self.shelf.runs.keys():  # the oldest went
                del self._fresh[id]
            self._changed.notify_all()

    def warm(self) -> None:
        """A short answer that nobody sees, before the first run: libraries set themselves up, and it is known how long
        one takes."""
        clip = self.models.params.video
        seen = of_frames(torch.zeros(clip.frames, clip.height, clip.width, 3, dtype=torch.uint8), clip.fps)
        clock = Clock(self.pace, 1, 1, WARM)
        (said,) = self.models.think(seen, ["what happens next ?"])
        clock.thought()
        self.models.render(seen, [said.caption], steps=WARM, progress=lambda part, done, of: clock.stepped(done, of))
        clock.over()

    def close(self) -> None:
        """Stop what is under way and wait for it."""
        with self._changed:
            self._closed = True
            for run in self.runs.values():
                run.stop.set()
            self._changed.notify_all()
        self._worker.join()
