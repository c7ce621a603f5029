"""What was made of each source, kept on the disk: finished sources are not done again.

One file per source and settings, named by a digest of everything that its content depends on; it is written
beside its place and renamed, and holds the digests of its parts, so that neither a run that was killed nor a
damaged disk can pass off a part for the whole. Any file, or the whole folder, can be deleted at any time.

A video is known by the SHA-256 of its content, not by its time or a sample of it: a copy or a checkout has
new times but is the same video, a download that was mended has the same size but is not; and hashing costs a
hundredth of decoding. Digests are remembered by (path, size, time, inode), so a file that has not been touched
is not read again.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vans.files import HOST, PARTIAL, atomic_write_text, no_space_is_a_user_error, sha256_file

MAGIC = "vans-source-1"
FRESH = 2.0  # s; a file changed so recently may change again within the same tick of its clock
STALE = 86_400.0  # s; partial files of runs that were killed


class Store:
    """Entries (meta: JSON value, blobs: bytes) by key, in <folder>/<first two digits>/<key>."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """Where an entry stands."""
        return self.folder / key[:2] / key

    def put(self, key: str, meta: Any, blobs: Sequence[bytes]) -> None:
        """Write an entry, whole or not at all. UserError if the disk is full."""
        sizes = [[len(blob), hashlib.sha256(blob).hexdigest()] for blob in blobs]
        head = json.dumps({"meta": meta, "blobs": sizes}).encode()
        path = self.path(key)
        partial = path.with_name(f"{PARTIAL}{HOST}-{os.getpid()}-{key}")

        def write() -> None:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "wb") as file:  # not flushed to the disk: what a crash leaves is seen by its digest
                file.write(f"{MAGIC} {hashlib.sha256(head).hexdigest()}\n".encode() + head + b"\n")
                file.writelines(blobs)
            os.replace(partial, path)

        with no_space_is_a_user_error(path):
            try:
                try:
                    write()
                except FileNotFoundError:  # a process with other code has swept the folder away meanwhile
                    write()
            finally:
                partial.unlink(missing_ok=True)

    def get(self, key: str, blobs: bool = True) -> tuple[Any, list[bytes]] | None:
        """(meta, blobs; none if not wanted), or None if the entry is missing or not whole."""
        try:
            with open(self.path(key), "rb") as file:
                magic, _, digest = file.readline(200).decode().strip().partition(" ")
                head = file.readline().removesuffix(b"\n")
                if magic != MAGIC or hashlib.sha256(head).hexdigest() != digest:
                    return None
                known = json.loads(head)
                if os.fstat(file.fileno()).st_size != file.tell() + sum(size for size, _ in known["blobs"]):
                    return None
                out = [file.read(size) for size, _ in known["blobs"]] if blobs else []
        except (OSError, ValueError):
            return None
        if any(hashlib.sha256(b).hexdigest() != d for b, (_, d) in zip(out, known["blobs"])):
            return None
        return known["meta"], out

    def prune(self, used: Iterable[str]) -> None:
        """Remove all other entries, and what killed runs have left."""
        keep = set(used)
        for path in self.folder.glob("??/*"):
            young = path.name.startswith(PARTIAL) and time.time() - _mtime(path) < STALE
            if path.name not in keep and not young:
                path.unlink(missing_ok=True)


def digests(files: Sequence[Path], memory: Path | None = None, threads: int = 1) -> dict[Path, str]:
    """SHA-256 of files. memory: JSON file in which digests are kept for the next time."""
    known: dict[str, list] = {}
    if memory is not None:
        try:
            known = json.loads(memory.read_text())
        except (OSError, ValueError):
            known = {}
    now = time.time()

    def one(path: Path) -> tuple[str, list]:
        stat = path.stat()
        name, state = str(path.resolve()), [stat.st_size, stat.st_mtime_ns, stat.st_ino]
        old = known.get(name)
        if isinstance(old, list) and old[:3] == state and len(old) == 4:
            return name, old
        fresh = now - stat.st_mtime < FRESH
        return name, [*state[:2], -1 if fresh else state[2], sha256_file(path)]

    with ThreadPoolExecutor(max_workers=threads) as pool:
        found = dict(zip(files, pool.map(one, files), strict=True))
    kept = dict(found.values())
    if memory is not None and kept != known:
        atomic_write_text(memory, json.dumps(kept))
    return {path: state[3] for path, (_, state) in found.items()}


def _mtime(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
