"""Terms that live outside of this process: an executable, or an HTTP endpoint.

Executable (a path with a slash, `./judge.sh` from the repository's root): once for each rollout. Its standard input is
one JSON object with ids, questions, truth [P], answers and captions [P][G] and, where it needs videos, the paths of
`videos.npy` (uint8 [P, G, T, H, W, 3]), `inputs.npy` and `targets.npy` ([P, T, H, W, 3]). It prints
{"scores": [[...], ...]}, [P][G] numbers, null where it could not score.

Endpoint (`http://127.0.0.1:8000/score`): once for each answer. POST of {"id", "question", "truth", "answer", "caption"}
and, where it needs videos, "video", "input" and "target" as base64 of MP4 files; the answer is
{"score": number or null}.

What exits with an error, answers nonsense or takes longer than `timeout` seconds drops its answers.
"""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np

from vans.errors import UserError
from vans.files import no_space_is_a_user_error, temporary
from vans.llm.answers import one_line
from vans.llm.net import check_url
from vans.params import find_root
from vans.rewards.rollout import Rollout

PARALLEL = 8  # answers asked for at once
MOST = 200  # characters of what the other side says, in a message


class Failed(Exception):
    """A term that could score nothing of a rollout; the message says why."""


def report(name: str, why: list[str], asked: int) -> None:
    """One line if some answers have no score."""
    if why:
        print(f"reward {name}: no score for {len(why)} of {asked} answers ({why[-1]})", flush=True)


def is_url(name: str) -> bool:
    return name.startswith(("http://", "https://"))


def is_path(name: str) -> bool:
    return "/" in name and not is_url(name)


class Executable:
    """A program that scores a rollout. Raises UserError if there is none."""

    def __init__(self, path: str, timeout: float):
        self.path, self.timeout = find_root() / path, timeout
        if not self.path.is_file() or not os.access(self.path, os.X_OK):
            raise UserError(f"reward {path}: no program that can be run there; `chmod +x` it, or correct its path")

    def __call__(self, rollout: Rollout) -> list[list[float | None]]:
        place = tempfile.gettempdir()
        with no_space_is_a_user_error(place), tempfile.TemporaryDirectory(prefix=temporary("reward")) as folder:
            request = {key: getattr(rollout, key) for key in ("ids", "questions", "truth", "answers", "captions")}
            if rollout.has_videos:
                for name in ("videos", "inputs", "targets"):
                    request[name] = str(Path(folder) / f"{name}.npy")
                    _save(request[name], getattr(rollout, name).numpy())
            code, out, err = self._run(json.dumps(request).encode())
        if code:
            last = (err.decode("utf-8", "replace").strip().splitlines() or ["without a message"])[-1]
            raise Failed(f"exit code {code}: {one_line(last)[:MOST]}")
        try:
            return _matrix(json.loads(out)["scores"], rollout.shape)
        except (ValueError, LookupError, TypeError, RecursionError) as error:
            raise Failed(f"did not print {{'scores': [P][G] numbers}}: {one_line(str(error))[:MOST]}") from None

    def _run(self, request: bytes) -> tuple[int, bytes, bytes]:
        """(exit code, standard output and error). What it has started ends with it."""
        pipe = subprocess.PIPE
        try:
            process = subprocess.Popen([self.path], stdin=pipe, stdout=pipe, stderr=pipe, start_new_session=True)
        except OSError as error:
            raise UserError(f"reward {self.path}: does not start ({error}); is its first line `#!...`?") from None
        try:
            out, err = process.communicate(request, self.timeout)
            return process.returncode, out, err
        except BaseException as error:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            if isinstance(error, subprocess.TimeoutExpired):
                raise Failed(f"took longer than {self.timeout:g} s") from None
            raise


class Endpoint:
    """An address that scores one answer at a time; one that it does not score is dropped, the others stay."""

    def __init__(self, url: str, timeout: float):
        from vans.llm.http import client

        try:
            check_url(url)
        except ValueError as error:
            raise UserError(f"reward: {error}") from None
        self.url, self.timeout = url, timeout
        self.client = client(urlsplit(url).hostname or "", timeout=timeout)

    def __call__(self, rollout: Rollout) -> list[list[float | None]]:
        p, g = rollout.shape
        videos = self._films(rollout) if rollout.has_videos else None
        with ThreadPoolExecutor(PARALLEL) as pool:
            found = list(pool.map(lambda i: self._one(rollout, i // g, i % g, videos), range(p * g)))
        report(self.url, [why for _, why in found if why], len(found))
        flat = [value for value, _ in found]
        return [flat[i * g : (i + 1) * g] for i in range(p)]

    def _one(self, rollout: Rollout, p: int, g: int, videos: Any) -> tuple[float | None, str]:
        """(score, "") or (None, why there is none)."""
        from vans.llm.http import post

        body: dict[str, Any] = {"id": rollout.ids[p], "question": rollout.questions[p], "truth": rollout.truth[p]}
        body |= {"answer": rollout.answers[p][g], "caption": rollout.captions[p][g]}
        if videos is not None:
            body |= {"video": videos["videos"][p][g], "input": videos["inputs"][p], "target": videos["targets"][p]}
        try:
            status, data, _ = post(self.client, self.url, body, self.timeout)
            if status != 200:
                return None, f"status {status}"
            value = json.loads(data)["score"]
            return (None, "it said null") if value is None else (_number(value), "")
        except Exception as error:  # of the network, of the other side, of what it says: this answer has no score
            return None, f"{type(error).__name__}: {one_line(str(error))[:MOST]}"

    @staticmethod
    def _films(rollout: Rollout) -> dict[str, Any]:
        from vans.media import video

        def film(frames: Any) -> str:
            return base64.b64encode(video.encode(frames.numpy(), rollout.fps, "h264")[0]).decode()

        return {
            "videos": [list(map(film, row)) for row in rollout.videos],
            "inputs": list(map(film, rollout.inputs)),
            "targets": list(map(film, rollout.targets)),
        }


def _save(path: str, array: np.ndarray) -> None:
    """As `np.save`, which loses the end of an array on a full disk without a word (numpy 2.4.6, findings/)."""
    with open(path, "wb") as file:
        np.lib.format.write_array_header_1_0(file, np.lib.format.header_data_from_array_1_0(array))
        file.write(memoryview(np.ascontiguousarray(array)).cast("B"))  # type: ignore[arg-type]


def _matrix(values: Any, shape: tuple[int, int]) -> list[list[float | None]]:
    rows = [[None if x is None else _number(x) for x in row] for row in values]
    if (len(rows), *{len(row) for row in rows}) != shape:
        raise ValueError(f"scores must be {shape[0]} lists of {shape[1]}")
    return rows


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{value!r} is not a number")
    try:
        return float(value)
    except OverflowError:
        raise ValueError("a number is too large") from None
