"""Terms that live outside of this process: an executable, or an HTTP endpoint.

Executable (`./judge.sh`, `/usr/bin/judge`; a path with a slash): once for each rollout. Its standard input is one JSON
object with ids, questions, truth [P], answers and captions [P][G] and, where it needs videos, the paths of `videos.npy`
(uint8 [P, G, T, H, W, 3]), `inputs.npy` and `targets.npy` ([P, T, H, W, 3]). It prints {"scores": [[...], ...]}, [P][G]
numbers, null where it could not score.

Endpoint (`http://127.0.0.1:8000/score`): once for each answer. POST of {"id", "question", "truth", "answer", "caption"}
and, where it needs videos, "video", "input" and "target" as base64 of MP4 files; the answer is
{"score": number or null}.

What exits with an error, answers nonsense or takes longer than `timeout` seconds drops its answers.
"""

from __future__ import annotations

import base64
import json
import os
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from vans.errors import UserError
from vans.rewards.rollout import Rollout

PARALLEL = 8  # answers asked for at once


class Failed(Exception):
    """A term that could score nothing of a rollout; the message says why."""


def is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def is_path(name: str) -> bool:
    return "/" in name and not is_url(name)


class Executable:
    """A program that scores a rollout. Raises UserError if there is none."""

    def __init__(self, path: str, timeout: float):
        self.path, self.timeout = Path(path).absolute(), timeout
        if not self.path.is_file() or not os.access(self.path, os.X_OK):
            raise UserError(f"reward {path}: no program that can be run there; `chmod +x` it, or correct its path")

    def __call__(self, rollout: Rollout) -> list[list[float | None]]:
        with tempfile.TemporaryDirectory(prefix="vans-reward-") as folder:
            request = {key: getattr(rollout, key) for key in ("ids", "questions", "truth", "answers", "captions")}
            if rollout.has_videos:
                for name in ("videos", "inputs", "targets"):
                    np.save(Path(folder) / f"{name}.npy", getattr(rollout, name).numpy())
                    request[name] = str(Path(folder) / f"{name}.npy")
            try:
                done = subprocess.run(
                    [str(self.path)], input=json.dumps(request), capture_output=True, text=True, timeout=self.timeout
                )
            except subprocess.TimeoutExpired:
                raise Failed(f"took longer than {self.timeout:g} s") from None
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["without a message"])[-1]
            raise Failed(f"exit code {done.returncode}: {last}")
        try:
            return _matrix(json.loads(done.stdout)["scores"], rollout.shape)
        except (ValueError, KeyError, TypeError) as error:
            raise Failed(f"did not print {{'scores': [P][G] numbers}}: {error}") from None


class Endpoint:
    """An address that scores one answer at a time; one that it does not score is dropped, the others stay."""

    def __init__(self, url: str, timeout: float):
        import httpx

        from vans.params import check_url, is_local

        try:
            check_url(url)
        except ValueError as error:
            raise UserError(f"reward: {error}") from None
        host = httpx.URL(url).host
        self.url, self.client = url, httpx.Client(timeout=timeout, trust_env=not is_local(host))

    def __call__(self, rollout: Rollout) -> list[list[float | None]]:
        p, g = rollout.shape
        videos = self._films(rollout) if rollout.has_videos else None
        with ThreadPoolExecutor(PARALLEL) as pool:
            flat = list(pool.map(lambda i: self._one(rollout, i // g, i % g, videos), range(p * g)))
        return [flat[i * g : (i + 1) * g] for i in range(p)]

    def _one(self, rollout: Rollout, p: int, g: int, videos: Any) -> float | None:
        body: dict[str, Any] = {"id": rollout.ids[p], "question": rollout.questions[p], "truth": rollout.truth[p]}
        body |= {"answer": rollout.answers[p][g], "caption": rollout.captions[p][g]}
        if videos is not None:
            body |= {"video": videos["videos"][p][g], "input": videos["inputs"][p], "target": videos["targets"][p]}
        try:
            reply = self.client.post(self.url, json=body)
            reply.raise_for_status()
            value = reply.json()["score"]
            return None if value is None else _number(value)
        except Exception:  # of the network, of the other side, of what it says: this answer has no score
            return None

    @staticmethod
    def _films(rollout: Rollout) -> dict[str, Any]:
        from vans.media import video

        def film(clip: Any) -> str:
            return base64.b64encode(video.encode(clip.numpy(), rollout.fps, "h264")[0]).decode()

        return {
            "videos": [[film(clip) for clip in row] for row in rollout.videos],
            "inputs": [film(clip) for clip in rollout.inputs],
            "targets": [film(clip) for clip in rollout.targets],
        }


def _matrix(values: Any, shape: tuple[int, int]) -> list[list[float | None]]:
    rows = [[None if x is None else _number(x) for x in row] for row in values]
    if (len(rows), *{len(row) for row in rows}) != shape:
        raise ValueError(f"scores must be {shape[0]} lists of {shape[1]}")
    return rows


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    return float(value)
