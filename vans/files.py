"""Files that are either whole or absent: atomic writes, checksums, free space.

Everything is written beside its final place, flushed to the disk and renamed, so that a run that is killed
at any point leaves nothing half-written in place of something whole.
"""

import errno
import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from vans.errors import UserError

PARTIAL = ".partial-"
HOST = hashlib.sha256(socket.gethostname().encode()).hexdigest()[:8]
OWNER = re.compile(r"(\w+)-(\d+)(-old|-gone)?")  # host, process, and what stands there
TEMPORARY = re.compile(rf"vans-\w+-{HOST}-(\d+)-\w+")
FORGOTTEN = 7 * 86_400.0  # s; after this long what another host has left unfinished is nobody's
LISTED = "run.json"  # of a sealed folder
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
# Errors of safetensors, of tokenizers and (where a file is short) of numpy are no OSError with a number: only their
# text says what the system said.
FULL_TEXT = re.compile(r"(os error |Errno )(28|122|27)\b|No space left on device|^\d+ requested and \d+ written$")


def is_full(error: BaseException | str) -> bool:
    """Does an error, whatever library raised it, or its text say that a disk, a quota or a file has no room?"""
    return (isinstance(error, OSError) and error.errno in FULL) or bool(FULL_TEXT.search(str(error)))


@contextmanager
def no_space_is_a_user_error(path: str | Path) -> Iterator[None]:
    """Turn "no space left" (or "quota exceeded", "file too large") into one clear line; all else passes unchanged."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        if is_full(error):
            raise UserError(f"{path}: no space left on the disk; free some and run again") from error
        raise


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path``: after a crash the file holds the old bytes or the new ones, never a mix.

    Parent folders are made. Raises UserError when the disk is full; the old file is then still there.
    """
    with atomic_file(path) as partial:
        partial.write_bytes(data)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Like ``atomic_write_bytes``, for UTF-8 text with ``\\n`` line ends."""
    atomic_write_bytes(path, text.encode("utf-8"))


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Write a file by a library that wants a name: yields a temporary one beside ``path`` that replaces it on
    success.

    Parent folders are made. Leftovers of runs that were killed are removed first. The file gets the permissions of any
    new file, whatever the library says (safetensors makes its files 0600).
    """
    path = Path(path)
    partial = _partial_of(path)
    with no_space_is_a_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        try:
            partial.touch()
            usual = partial.stat().st_mode & 0o777
            yield partial
            partial.chmod(usual)
            sync(partial)
            os.replace(partial, path)
            _sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: str | Path) -> Iterator[Path]:
    """Fill a folder as a whole: yields an empty temporary folder beside ``path`` that replaces it on success.

    On any exception the temporary folder is removed and what stood at ``path`` before still stands there.
    Leftovers of runs that were killed are removed first.
    """
    with no_space_is_a_user_error(path):
        partial = begin_dir(path)
        try:
            yield partial
            publish_dir(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def begin_dir(path: str | Path) -> Path:
    """An empty temporary folder beside ``path``, for `publish_dir`: what `atomic_dir` does, in two parts."""
    path = Path(path)
    partial = _partial_of(path)
    with no_space_is_a_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        partial.mkdir()
    return partial


def publish_dir(partial: Path, path: str | Path) -> None:
    """Flush a temporary folder to the disk and put it where ``path`` is."""
    with no_space_is_a_user_error(path):
        usual_permissions(partial)
        for file in partial.rglob("*"):
            sync(file) if file.is_file() else _sync_folder(file)
        _sync_folder(partial)
        _swap(partial, Path(path))


def usual_permissions(path: str | Path) -> None:
    """Give a file, or all below a folder, the permissions that a new file has (safetensors makes its files 0600)."""
    for file in (Path(path), *Path(path).rglob("*")):
        if file.is_file() and not file.is_symlink():
            file.chmod(file.parent.stat().st_mode & 0o666 | file.stat().st_mode & 0o111)


def check_readable(path: str | Path) -> Path:
    """Raise UserError if a file is there but is no regular file, or may not be read; what is not there passes."""
    path = Path(path)
    if "\0" in str(path):
        raise UserError(f"{path}: no file's name holds a zero byte")
    try:
        there = path.exists()
    except OSError as error:  # a name too long
        raise UserError(f"{path}: cannot be read ({error.strerror})") from error
    if there and not path.is_file():
        raise UserError(f"{path}: is no regular file; replace it")
    if there and not os.access(path, os.R_OK):
        raise UserError(f"{path}: you may not read it; its owner can allow it: chmod a+r '{path}'")
    return path


def check_output(path: str | Path, reads: Iterable[str | Path] = (), size: int = 0) -> None:
    """Everything about an output file that can be known before it is computed: UserError in one line, or nothing.

    It must be possible to write it (a trial that leaves nothing behind), with `size` bytes free. reads: files and
    folders that are read meanwhile; the output may not be one of them by any name, nor lie in such a folder.
    """
    path = Path(path)
    try:
        for read in map(Path, reads):
            inside = read.resolve() in path.resolve().parents
            if inside or path.resolve() == read.resolve() or (path.exists() and read.exists() and path.samefile(read)):
                raise UserError(f"{path}: {'lies in' if inside else 'is'} {read}, which is read; choose another name")
        if path.is_dir():
            raise UserError(f"{path}: is a folder; name a file in it")
        if path.exists() and not path.is_file():
            raise UserError(f"{path}: is there and is no regular file; choose another name")
        _try_to_write(path)
    except (OSError, ValueError, RuntimeError) as error:  # ValueError: a zero byte; RuntimeError: links in a circle
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"{path}: cannot be written ({reason}); choose another place") from error
    check_free_space(path, size)


def _try_to_write(path: Path) -> None:
    made: list[Path] = []
    partial = _partial_of(path)
    try:
        for folder in reversed(path.parents):
            if not folder.exists():
                folder.mkdir()
                made.append(folder)
        partial.touch()
        partial.unlink()
    finally:
        for folder in reversed(made):
            folder.rmdir()


def remove_leftovers(path: str | Path) -> None:
    """Remove temporary files and folders of ``path`` whose process is no longer alive."""
    path = Path(path)
    for left in _partials(path.parent):
        if not left.name.startswith(f".{_stem(path)}{PARTIAL}"):
            continue
        if left.name.endswith("-old") and not path.exists():  # killed between the two renames of _swap
            with suppress(OSError):
                os.rename(left, path)
        with suppress(OSError):  # another user's, in a folder that all may write to
            _remove(left)


def sweep(folder: str | Path) -> None:
    """Remove what killed processes left half-written or half-deleted in a folder."""
    for left in _partials(Path(folder)):
        with suppress(OSError):
            _remove(left)


def temporary(kind: str) -> str:
    """What the names of this process's temporary folders of a kind begin with, for `tempfile`; those that processes
    that are gone have left are removed first.
    """
    for left in Path(tempfile.gettempdir()).glob("vans-*"):
        owner = TEMPORARY.fullmatch(left.name)
        with suppress(OSError):  # another process may be sweeping
            if owner and not _alive(int(owner[1])) and left.lstat().st_uid == os.getuid():
                _remove(left)
    return f"vans-{kind}-{HOST}-{os.getpid()}-"


def sha256_file(path: str | Path) -> str:
    """Hex SHA-256 of a file's bytes, read in pieces."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def digest(value: Any) -> str:
    """Hex SHA-256 of a JSON-like value: equal values give equal digests, whatever the order of their keys.

    Paths, tuples and other values are taken as their text.
    """
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()


def check_free_space(path: str | Path, size: int) -> None:
    """Raise UserError unless the disk of ``path`` (which need not exist yet) has ``size`` bytes free."""
    folder = Path(path).absolute()
    while not folder.exists():
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < size:
        need = f"{size / 1e9:.2f} GB are needed and {free / 1e9:.2f} GB are free"
        raise UserError(f"{path}: {need}; free some space or choose another disk")


def _partial_of(path: Path) -> Path:
    """Beside it; of this host and process."""
    return path.with_name(f".{_stem(path)}{PARTIAL}{HOST}-{os.getpid()}")


def _stem(path: Path) -> str:
    """The name, or a digest of one that would be too long with what is added."""
    return path.name if len(os.fsencode(path.name)) < 200 else digest(path.name)


def _partials(folder: Path) -> list[Path]:
    """What is unfinished in a folder and has nobody who could still finish it."""
    try:
        return sorted(p for p in folder.iterdir() if p.name.startswith(".") and PARTIAL in p.name and _orphan(p))
    except OSError:
        return []


def _orphan(left: Path) -> bool:
    owner = OWNER.fullmatch(left.name.rpartition(PARTIAL)[2])
    if owner is not None and owner[1] != HOST:  # its processes cannot be asked
        try:
            return time.time() - left.stat().st_mtime > FORGOTTEN
        except OSError:
            return False
    return owner is None or int(owner[2]) == os.getpid() or not _alive(int(owner[2]))


def _swap(new: Path, path: Path) -> None:
    """Put folder ``new`` where ``path`` is; what was there is removed afterwards."""
    old = path.with_name(f"{new.name}-old")
    while True:
        with suppress(FileNotFoundError):
            os.rename(path, old)
        try:
            os.rename(new, path)
            break
        except OSError as error:  # another process has put its own there meanwhile
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
        _remove(old)
    _sync_folder(path.parent)
    _remove(old)


def _remove(path: Path) -> None:
    """Delete a file or folder that nobody looks for any more."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Flush a file to the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def _sync_folder(path: Path) -> None:
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:  # not every system can open a folder
        return
    try:
        os.fsync(handle)
    except OSError:
        pass
    finally:
        os.close(handle)


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def discard(path: str | Path) -> None:
    """Delete a file or folder (which may be absent): it is renamed away first, so that none of it is ever half
    there.
    """
    path = Path(path)
    partial = _partial_of(path)
    away = partial.with_name(f"{partial.name}-gone")
    _remove(away)
    try:
        os.rename(path, away)
    except FileNotFoundError:
        return
    _sync_folder(path.parent)
    _remove(away)


def seal(folder: str | Path, record: dict, kept: dict[str, list] | None = None) -> None:
    """Write a record into a folder, with the sizes and digests of all files in it; `sealed` reads it. kept: the
    `identity` of each where they are known."""
    folder = Path(folder)
    if kept is None:
        kept = {str(p.relative_to(folder)): identity(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    (folder / LISTED).write_text(json.dumps({**record, "files": kept}))


def sealed(folder: str | Path) -> dict | None:
    """The record of a folder that has all its files, to the byte; None if anything is missing or damaged."""
    folder = Path(folder)
    try:
        record = json.loads((folder / LISTED).read_text())
        return record if all(identity(folder / name) == kept for name, kept in record["files"].items()) else None
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return None


def identity(path: Path) -> list:
    """Size and digest of a file."""
    return [path.stat().st_size, sha256_file(path)]
