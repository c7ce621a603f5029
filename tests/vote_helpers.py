"""A tiny vote: three questions, arms whose videos the toy world renders, a server in a process of its own."""

import csv
import http.client
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests import smoke
from vans.media import video
from vans.toy.render import EVENTS, Scene, render_event

ARMS = ("zebra", "quokka", "okapi")
QUESTION = "<b>the wind</b> blows & what then ?"


def scene(number: int) -> Scene:
    """Object and room of a sample; no two of the first three are alike."""
    shape, colour = ("ball", "box", "cone")[number % 3], ("red", "green", "blue", "yellow", "purple")[number % 5]
    return Scene(shape=shape, colour=colour, wall=number % 4)


def make(folder: Path, samples: int = 3, arms: dict[str, int] | None = None, truths: bool = True) -> Path:
    """Prediction folders and questions.csv. arms: name -> for how many of the samples its video is right (all)."""
    rows = [["id", "question", "input", "truth", "caption"]]
    for i in range(samples):
        own, truth = f"s{i}-input.avi", f"s{i}-truth.avi" if truths else ""
        video.write(folder / own, render_event(scene(i), None, 4), 3.0)
        if truths:
            video.write(folder / truth, render_event(scene(i), EVENTS[i % 8], 9), 3.0)
        rows.append([f"s{i}", QUESTION, own, truth, f"it does <i>{i}</i>"])
    with open(folder / "questions.csv", "w", newline="") as file:
        csv.writer(file).writerows(rows)
    for arm, right in (arms or dict.fromkeys(ARMS, samples)).items():
        for i in range(samples):
            event = EVENTS[(i if i < right else i + 3) % 8]
            video.write(folder / arm / "videos" / f"s{i}.avi", render_event(scene(i), event, 9 if i else 6), 3.0)
        with open(folder / arm / "captions.csv", "w", newline="") as file:
            csv.writer(file).writerows([["id", "caption"], *([f"s{i}", f"=says <u>{i}</u>"] for i in range(samples))])
    return folder


class Vote:
    """`vans vote` on a folder of `make`, as a process; asked over HTTP."""

    def __init__(self, folder: Path, *options: str, arms: tuple[str, ...] = ARMS, port: int = 0) -> None:
        self.folder = folder
        command = [sys.executable, "-m", "vans.cli", "vote", *arms, "--questions", "questions.csv", *options]
        environment = {**os.environ, "PYTHONPATH": str(smoke.ROOT)}
        self.process = subprocess.Popen(
            [*command, "--port", str(port)], cwd=folder, env=environment, stdout=subprocess.PIPE, text=True
        )
        self.said = ""
        assert self.process.stdout is not None
        while not (found := re.search(r"open (http://127\.0\.0\.1:(\d+)/)", self.said)):
            line = self.process.stdout.readline()
            assert line, f"the server ended: {self.said}"
            self.said += line
        self.url, self.port = found[1], int(found[2])

    def ask(self, what: str, **given: Any) -> dict[str, Any]:
        """The answer of a POST."""
        return json.loads(request(self.port, "POST", f"/{what}", given)[2])

    def kill(self) -> None:
        """As `kill -9`."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()  # type: ignore[union-attr]


def request(port: int, method: str, path: str, given: Any = None, **headers: str) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body). given: sent as JSON, bytes as they are; headers with _ for -."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    body = given if given is None or isinstance(given, bytes) else json.dumps(given).encode()
    if body is not None:
        sent.setdefault("Content-Type", "application/json")
    try:
        connection.putrequest(method, path, skip_host="Host" in sent, skip_accept_encoding=True)
        for name, value in {**sent, **({"Content-Length": str(len(body))} if body is not None else {})}.items():
            connection.putheader(name, value)
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()
    finally:
        connection.close()


def rows(path: Path) -> list[dict[str, str]]:
    """The results as a reader of CSV sees them."""
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def pictures(sheet: bytes, told: dict[str, Any]) -> np.ndarray:
    """A sheet's frames, uint8 [T, H, W, 3], cut as the page cuts them."""
    import io

    from PIL import Image

    whole = np.asarray(Image.open(io.BytesIO(sheet)).convert("RGB"))
    high, wide, columns = told["height"], told["width"], told["columns"]
    places = [(n // columns * high, n % columns * wide) for n in range(told["frames"])]
    return np.stack([whole[y : y + high, x : x + wide] for y, x in places])
