"""What was answered, on the disk: a folder a run, whole or absent, found again after a reload and a restart.

    runs/demo/<id>/run.json  input.avi  input.sheet  answer-0.mp4  answer-0.sheet  …

Ids are drawn, and only those that were read at the start or put since are known: nothing else can be asked for. The
oldest runs go when there are more than COUNT, or they take more than ROOM.
"""

from __future__ import annotations

import fcntl
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vans import files
from vans.demo.source import Source, get_sheet, load, put_sheet
from vans.errors import UserError
from vans.media import video
from vans.vote.sheets import Sheet, sheet

ID = re.compile(r"[0-9a-f]{32}")
Film = tuple[np.ndarray, float]  # uint8 [T, H, W, 3], pictures per second
COUNT, ROOM = 200, 4 * 2**30  # runs, bytes
LOCK = ".lock"


class Kept(NamedTuple):
    """A video as it stands on the shelf: an .mp4, and for the page."""

    film: bytes
    strip: Sheet


class Shelf:
    """runs: id -> what is told of each (the record of its folder), oldest first. For one process at a time; whoever
    changes `runs` (`add`, `drop`) has to see to it that nobody else goes through them."""

    def __init__(self, folder: Path) -> None:
        """UserError if another process has it, or it cannot be written."""
        self.folder = folder
        files.check_output(folder / LOCK)
        folder.parent.mkdir(parents=True, exist_ok=True)
        folder.mkdir(0o700, exist_ok=True)  # what was asked is nobody else's on this machine
        self._handle = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(self._handle)
            fix = "stop that one, or name another folder with --history"
            raise UserError(f"{folder}: another `vans demo` writes it; {fix}") from error
        files.sweep(folder)
        there = [path for path in folder.iterdir() if ID.fullmatch(path.name) and not path.is_symlink()]
        found = {path.name: told for path in there if (told := files.sealed(path)) is not None}
        self.runs: dict[str, dict[str, Any]] = dict(sorted(found.items(), key=lambda item: item[1]["made"]))
        self._sizes = {id: _size(told) for id, told in self.runs.items()}

    def write(self, id: str, told: dict[str, Any], source: Source, videos: Sequence[Kept | Film]) -> dict[str, Any]:
        """Write a run; returns its record, for `add`: `told` with its source and what its clips look like.

        videos: new ones, or ones that are there already. UserError if there is no room.
        """
        with files.atomic_dir(self.folder / id) as partial:
            kept: dict[str, Any] = {**told, "source": source.save(partial), "clips": []}
            for k, one in enumerate(videos):
                film = partial / f"answer-{k}.mp4"
                if isinstance(one, Kept):
                    film.write_bytes(one.film)
                else:
                    video.write(film, *one)
                strip = one.strip if isinstance(one, Kept) else sheet(*one)
                kept["clips"].append(put_sheet(partial / f"answer-{k}.sheet", strip))
            files.seal(partial, kept)
        record = files.sealed(self.folder / id)
        if record is None:
            raise UserError(f"{self.folder / id}: was changed while it was written")
        return record

    def add(self, record: dict[str, Any]) -> None:
        """A written run is there from now on; the oldest may have to go."""
        self.runs[record["id"]], self._sizes[record["id"]] = record, _size(record)
        while len(self.runs) > COUNT or (sum(self._sizes.values()) > ROOM and len(self.runs) > 1):
            self.drop(next(iter(self.runs)))

    def drop(self, id: str) -> None:
        """Forget a run."""
        self.runs.pop(id, None)
        self._sizes.pop(id, None)
        files.discard(self.folder / id)

    def source(self, id: str) -> Source:
        """What a run was asked about. KeyError for an unknown one."""
        return load(self.folder / id, self.runs[id]["source"])

    def shown(self, id: str) -> Sheet:
        """The same, for the page."""
        return get_sheet(self.folder / id / "input.sheet", self.runs[id]["source"]["shown"])

    def clip(self, id: str, number: int) -> Sheet:
        """An answer of a run, for the page. KeyError, IndexError for an unknown one."""
        return get_sheet(self.folder / id / f"answer-{number}.sheet", self.runs[id]["clips"][number])

    def kept(self, id: str, number: int) -> Kept:
        """The same, with its video file."""
        strip = self.clip(id, number)
        return Kept((self.folder / id / f"answer-{number}.mp4").read_bytes(), strip)

    def close(self) -> None:
        """Let others have the folder."""
        os.close(self._handle)


def _size(told: dict[str, Any]) -> int:
    """Bytes of a run's files."""
    return sum(size for size, _ in told["files"].values())
