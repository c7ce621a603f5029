"""A demo without a wait: models that say what they were asked and paint it, a server in this process or its own."""

import hashlib
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch

from tests import smoke, vote_helpers
from vans.answer.live import Cancelled, Thought
from vans.answer.watch import Watched
from vans.demo.desk import Desk
from vans.demo.samples import Sample, Samples
from vans.demo.server import COOKIE, Server
from vans.demo.session import Session
from vans.demo.shelf import Shelf
from vans.demo.source import Source
from vans.models.protocol import Protocol
from vans.params import load
from vans.toy.render import Scene, render_event
from vans.vote.sheets import sheet


def colour(*what: Any) -> list[int]:
    """What the models paint a video in."""
    return list(hashlib.sha256("/".join(map(str, what)).encode()).digest()[:3])


class Models:
    """In the place of `Answerer`. gate: closed, it holds before every step; done: steps of all runs."""

    def __init__(self) -> None:
        self.params, self.protocol = load(smoke.ROOT), Protocol()
        self.gate = threading.Event()
        self.gate.set()
        self.done, self.fails = 0, False

    def think(self, seen: Any, questions: list[str], seed: Any, progress: Any, cancel: Any) -> list[Thought]:
        if self.fails:
            raise RuntimeError("/home/me/models: broken")
        return [Thought(q, f"because of {q}", f"{q} and {seed}", False) for q in questions]

    def render(self, seen: Any, captions: list[str], seed: Any, steps: int, guidance: Any, progress: Any, cancel: Any):
        for step in range(steps):
            self.gate.wait(20)
            if cancel.is_set():
                raise Cancelled
            self.done += 1
            progress("rendering", step + 1, steps)
        paint = torch.tensor([colour(caption, seed, steps, guidance) for caption in captions], dtype=torch.uint8)
        return paint[:, None, None, None].expand(-1, 9, 32, 32, -1).clone()


def a_source(number: int = 0) -> Source:
    """A sample of the toy world."""
    clip = render_event(Scene(shape="ball", colour="red", wall=number % 4), None, 9)
    frames = torch.from_numpy(clip)
    return Source(f"s{number}", "sample", Watched(frames, 3.0, frames, 3.0), sheet(clip, 3.0))


@contextmanager
def serving(folder: Path, models: Any = None, most: int = 2_000_000) -> Iterator[SimpleNamespace]:
    """A server in this process: .port, .models, .desk, .shelf, .server."""
    models = models or Models()
    shelf = Shelf(folder)
    desk = Desk(models, shelf)
    samples = Samples([Sample("s0", ["what happens next ?", "and if the wind blows ?"], a_source())], ["and then ?"])
    with Server() as server:
        server.session = Session(desk, samples, most)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield SimpleNamespace(port=server.server_port, models=models, desk=desk, shelf=shelf, server=server)
        finally:
            if isinstance(models, Models):
                models.gate.set()
            desk.close()
            server.shutdown()
            thread.join()
            shelf.close()


class Browser:
    """One person's: it has the page's cookie."""

    def __init__(self, port: int) -> None:
        self.port = port
        status, headers, self.page = vote_helpers.request(port, "GET", "/")
        assert status == 200
        self.cookie = headers["Set-Cookie"].partition(";")[0]
        assert self.cookie.startswith(f"{COOKIE}=")

    def send(self, method: str, path: str, given: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
        """As `vote_helpers.request`."""
        return vote_helpers.request(self.port, method, path, given, **{"Cookie": self.cookie, **headers})

    def ask(self, what: str, **given: Any) -> dict[str, Any]:
        """The answer of a POST, which has to succeed."""
        status, _, body = self.send("POST", f"/{what}", given)
        told = vote_helpers.json.loads(body)
        assert status == 200, told
        return told

    def refused(self, what: str, **given: Any) -> str:
        """The words of a POST that is refused."""
        status, _, body = self.send("POST", f"/{what}", given)
        assert status == 409, body
        return vote_helpers.json.loads(body)["error"]

    def run(self, *questions: str, source: str = "sample-0", **settings: Any) -> str:
        """Ask; the run's id. settings: seed, steps, guidance where they are others than 0, 3 and 1."""
        given = {"seed": 0, "steps": 3, "guidance": 1.0, **settings}
        return self.ask("ask", source=source, questions=list(questions), **given)["run"]

    def until(self, *ids: str, states: tuple[str, ...] = ("done", "stopped", "failed")) -> list[dict[str, Any]]:
        """What is told of runs as soon as all are in one of these states."""
        told: dict[str, Any] = {}
        news = {"version": 0}
        end = time.monotonic() + 60
        while not all(id in told and told[id]["state"] in states for id in ids):
            assert time.monotonic() < end, told
            news = self.ask("news", version=news["version"])
            told |= {run["id"]: run for run in news["runs"]}  # type: ignore[attr-defined]
        return [told[id] for id in ids]

    def bring(self, data: bytes, name: str = "a.mp4", **headers: str) -> tuple[int, dict[str, Any]]:
        """A file: status, what is told."""
        sent = {"Content_Type": "application/octet-stream", "X_Name": name, **headers}
        status, _, body = self.send("POST", "/bring", data, **sent)
        return status, vote_helpers.json.loads(body)

    def clip(self, told: dict[str, Any]) -> np.ndarray:
        """A clip's pictures as the page draws them, uint8 [T, H, W, 3]."""
        status, _, body = self.send("GET", f"/clip/{told['token']}")
        assert status == 200, body
        return vote_helpers.pictures(body, told)


class Demo:
    """`vans demo` as a process, on 127.0.0.1. folder: a repository with models."""

    def __init__(self, folder: Path, *options: str, port: int = 0) -> None:
        command = [sys.executable, "-m", "vans.cli", "demo", "--port", str(port), *options]
        environment = {**os.environ, "PYTHONPATH": str(smoke.ROOT)}
        self.process = subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)
        self.said = ""
        assert self.process.stdout is not None
        while not (found := re.search(r"open (http://127\.0\.0\.1:(\d+)/)", self.said)):
            line = self.process.stdout.readline()
            assert line, f"the server ended: {self.said}"
            self.said += line
        self.url, self.port = found[1], int(found[2])

    def kill(self) -> None:
        """As `kill -9`."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()  # type: ignore[union-attr]
