"""The results: a CSV file that grows by a line a vote. What was confirmed to a rater is on the disk.

A vote that was changed is a later line with the same rater and number. A line that was cut off in the middle (the power
failed) was never confirmed and is taken away when the file is opened again.
"""

import csv
import fcntl
import io
import json
import os
import threading
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd

from vans import spreadsheet
from vans.errors import UserError
from vans.files import check_readable, is_full
from vans.vote.plan import TIE, Plan, Trial, well_marked

COLUMNS = (
    *("rater", "number", "sample", "arms", "sides", "choice", "seconds", "check", "right"),
    *("form", "seed", "plan", "version", "at"),
)
TEXTS = ("rater", "sample", "arms", "sides", "choice", "check", "right", "form", "plan", "version", "at")


def row(plan: Plan, rater: str, number: int, trial: Trial, choice: Any, seconds: float) -> dict[str, Any]:
    """One vote as `read` gives it. number: from 1, in the rater's order. choice: a name, "tie", or marks per side."""
    right = trial.right(choice)
    return {
        "rater": rater,
        "number": number,
        "sample": plan.samples[trial.sample].id,
        "arms": sorted(set(trial.names)),
        "sides": trial.names,
        "choice": choice,
        "seconds": round(seconds, 2),
        "check": trial.check,
        "right": "" if right is None else "right" if right else "wrong",
        "form": plan.form,
        "seed": plan.seed,
        "plan": plan.name,
        "version": _version(),
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


@cache
def _version() -> str:
    return f"vans {version('vans')}"


class Ballots:
    """The file, open for this process alone; votes[rater][number] is the last line of each."""

    def __init__(self, path: str | Path, plan: Plan) -> None:
        """Raises UserError if it is another's: of another plan, no results at all, or written by a process now."""
        self.path, self._lock = Path(path), threading.Lock()
        self.votes: dict[str, dict[int, dict[str, Any]]] = {}
        check_readable(self.path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            self._take()
            for one in read(self.path).to_dict("records") if os.fstat(self._handle).st_size else []:
                if one["plan"] != plan.name:
                    fix = "name another file with --out, or the same folders and options as before"
                    raise UserError(f"{self.path}: holds votes of another plan ({one['plan']}); {fix}")
                self.votes.setdefault(one["rater"], {})[one["number"]] = one
            if not os.fstat(self._handle).st_size:
                self._append(dict(zip(COLUMNS, COLUMNS, strict=True)))
        except BaseException:
            self.close()
            raise

    def _take(self) -> None:
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise UserError(
                f"{self.path}: another `vans vote` writes it; stop that one, or name another --out"
            ) from error
        size, own = os.fstat(self._handle).st_size, (",".join(COLUMNS) + "\n").encode()
        if os.pread(self._handle, len(own), 0) != own[:size]:
            raise UserError(f"{self.path}: is there and holds no votes; name another file with --out")
        tail = os.pread(self._handle, min(size, 1 << 16), max(0, size - (1 << 16)))
        if tail and not tail.endswith(b"\n"):
            os.ftruncate(self._handle, size - len(tail) + tail.rfind(b"\n") + 1)

    def add(self, vote: Mapping[str, Any]) -> None:
        """Append one vote; when it returns, the vote is on the disk. UserError if there is no room; then nothing of it
        is there."""
        with self._lock:
            self._append(vote)
            self.votes.setdefault(vote["rater"], {})[vote["number"]] = dict(vote)

    def _append(self, cells: Mapping[str, Any]) -> None:
        values = [cells[name] for name in COLUMNS]
        values = [json.dumps(v, ensure_ascii=False) if isinstance(v, list) else v for v in values]
        texts = list(map(spreadsheet.guarded, values))
        file = io.StringIO()
        csv.writer(file, lineterminator="\n", quoting=spreadsheet.quoting(texts)).writerow(texts)
        data, size = file.getvalue().encode(), os.fstat(self._handle).st_size
        try:
            if os.write(self._handle, data) != len(data):
                raise OSError(28, "No space left on device")
            os.fsync(self._handle)
        except OSError as error:
            os.ftruncate(self._handle, size)
            if is_full(error):
                raise UserError(f"{self.path}: no space left on the disk; free some and vote again") from error
            raise

    def close(self) -> None:
        """Let others have the file."""
        os.close(self._handle)


def read(path: str | Path) -> pd.DataFrame:
    """All lines of a results file, arms and sides as lists, marks as lists of lists; UserError if it is none."""
    path = check_readable(path)
    if not path.is_file():
        raise UserError(f"{path}: no such file of votes")
    try:
        frame = spreadsheet.read(path, TEXTS)
        if missing := [name for name in COLUMNS if name not in frame]:
            raise UserError(f"{path}: column {missing[0]!r} is missing; it must be a file that `vans vote` wrote")
        for name in ("arms", "sides"):
            frame[name] = [_list(text) for text in frame[name]]
        marks = frame["form"] == "likert"
        frame["choice"] = [_list(c) if m else c for c, m in zip(frame["choice"], marks, strict=True)]
        frame["number"], frame["seconds"] = frame["number"].astype(int), frame["seconds"].astype(float)
        for sides, choice in zip(frame["sides"], frame["choice"], strict=True):
            if not (choice in (TIE, *sides) if isinstance(choice, str) else well_marked(choice, len(sides))):
                raise ValueError(f"the choice {str(choice)[:40]!r} does not belong to {', '.join(map(str, sides))}")
    except (ValueError, TypeError) as error:  # pandas' and json's errors are ValueErrors
        raise UserError(f"{path}: cannot be read ({error}); it must be a file that `vans vote` wrote") from error
    return frame


def _list(text: str) -> list:
    found = json.loads(text)
    if not isinstance(found, list):
        raise ValueError(f"{text[:40]!r} is no list")
    return found
