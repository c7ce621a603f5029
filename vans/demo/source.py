"""What is asked about: looked at once, kept as what the models and the page need of it.

A file that somebody brings is read by a process of its own, which it may hang, fill or take down: forked for it from
one that has the libraries, under limits of memory and time. Only what `vans.answer.watch` can read is read, as
carefully as in curation; the file itself is not kept.
"""

from __future__ import annotations

import json
import math
import multiprocessing
import re
import resource
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vans.answer.watch import Watched, watch
from vans.errors import UserError
from vans.media import avi, picture, video
from vans.models.protocol import Protocol
from vans.vote.sheets import Sheet, sheet

SIDE = 480  # px of what the page shows of it at most
MEMORY, SECONDS, WRITTEN = 6 * 2**30, 90, 2**30  # bytes, s, bytes of a file: what reading one may take
TOLD = "told.json"
LIMITS = (
    *((resource.RLIMIT_DATA, MEMORY), (resource.RLIMIT_CPU, SECONDS)),
    *((resource.RLIMIT_FSIZE, WRITTEN), (resource.RLIMIT_CORE, 0)),
)

_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


@dataclass(frozen=True, eq=False)
class Source:
    """seen: for the models. shown: for the page. kind: video, picture or sample."""

    name: str
    kind: str
    seen: Watched
    shown: Sheet

    def save(self, folder: Path) -> dict[str, Any]:
        """Into a folder; returns what `load` needs beside it."""
        own = self.seen.looked is not self.seen.clip
        (folder / "input.avi").write_bytes(avi.encode(self.seen.clip.numpy(), 1))
        if own:
            (folder / "looked.avi").write_bytes(avi.encode(self.seen.looked.numpy(), 1))
        rates = {"rate": self.seen.rate, "looked_rate": self.seen.looked_rate, "own_look": own}
        return {"name": self.name, "kind": self.kind, **rates, "shown": put_sheet(folder / "input.sheet", self.shown)}


def load(folder: Path, told: dict[str, Any]) -> Source:
    """What `Source.save` has left in a folder, with what it returned."""
    clip = _frames(folder / "input.avi")
    looked = _frames(folder / "looked.avi") if told["own_look"] else clip
    seen = Watched(clip, told["rate"], looked, told["looked_rate"])
    return Source(told["name"], told["kind"], seen, get_sheet(folder / "input.sheet", told["shown"]))


def put_sheet(path: Path, one: Sheet) -> dict[str, Any]:
    """Write a sheet's bytes; returns the rest of it."""
    path.write_bytes(one.data)
    return {key: value for key, value in asdict(one).items() if key != "data"}


def get_sheet(path: Path, told: dict[str, Any]) -> Sheet:
    """The sheet of `put_sheet`."""
    return Sheet(data=path.read_bytes(), **told)


def _frames(path: Path) -> torch.Tensor:
    return torch.from_numpy(avi.decode(path.read_bytes())[0])  # type: ignore[index]


# ------------------------------------------------------------------------------------------------- files of others
def look(path: Path, name: str, clip: Any, protocol: Protocol, folder: Path) -> Source:
    """The source of a file; folder: an empty one, to work in. clip: the section `video` of the parameters.

    UserError, which calls the file `name`, for one that cannot be read, within the limits.
    """
    process = _processes.Process(target=_look, args=(path, clip, protocol, folder), daemon=True)
    process.start()
    process.join(SECONDS)
    if process.is_alive():
        process.kill()
        process.join()
        raise UserError(f"{name}: takes too long to read; bring a shorter one")
    try:
        told = json.loads((folder / TOLD).read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{name}: cannot be read; bring another one") from error
    if "error" in told:
        raise UserError(_to_who_brought_it(told["error"], str(path), name))
    return load(folder, told | {"name": name})


def _to_who_brought_it(error: str, path: str, name: str) -> str:
    """What curation says of a file, said to somebody who can bring another one."""
    if error.startswith(f"{path}: cannot be read as a video ("):
        return f"{name}: cannot be read as a video or a picture; bring another one"
    return re.sub("; replace (or remove )?it$", "; bring another one", error.replace(path, name))


def ready() -> None:
    """Start the process that others are forked from."""
    process = _processes.Process(target=int)
    process.start()
    process.join()


def _look(path: Path, clip: Any, protocol: Protocol, folder: Path) -> None:
    """In the other process."""
    bound()
    try:
        seen = watch(path, clip, protocol)
        still = picture.read(path)
        shown = _shown(path, clip.frames) if still is None else video.fit(still, *_within(*still.shape[:2]))[None]
        kind = "video" if still is None else "picture"
        told = Source("", kind, seen, sheet(shown, clip.fps)).save(folder)
    except UserError as error:
        told = {"error": str(error)}
    except MemoryError:
        told = {"error": f"{path}: takes too much memory to read; bring a smaller one"}
    (folder / TOLD).write_text(json.dumps(told))


def bound() -> None:
    """From now on this process may take what LIMITS say."""
    for limit, most in LIMITS:
        resource.setrlimit(limit, (most, most))


def _shown(path: Path, count: int) -> np.ndarray:
    """The pictures that the models see, in the video's own shape."""
    source = video.Video(path, longest_still=math.inf)  # as `watch`
    info = source.info
    times = info.start + (np.arange(count) + 0.5) * info.duration / count
    return source.sample(times, *_within(info.height, info.width))


def _within(height: int, width: int) -> tuple[int, int]:
    scale = min(1.0, SIDE / max(height, width))
    return max(1, round(height * scale)), max(1, round(width * scale))
