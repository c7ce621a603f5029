"""Files that are either whole or absent: atomic writes, checksums, free space.

Everything is written beside its final place, flushed to the disk and renamed, so that a run that is killed
at any point leaves nothing half-written in place of something whole.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vans.errors import UserError

PARTIAL = ".partial-"


@contextmanager
def no_space_is_a_user_error(path: Path) -> Iterator[None]:
    """Turn "no space left" (and "quota exceeded") into one clear line; other errors pass unchanged.

    The error of safetensors is no OSError: it says what the system said in its text only.
    """
    try:
        yield
    except Exception as error:
        codes = (errno.ENOSPC, errno.EDQUOT)
        said = type(error).__name__ == "SafetensorError" and any(f"os error {code}" in str(error) for code in codes)
        if said or (isinstance(error, OSError) and error.errno in codes):
            raise UserError(f"{path}: no space left on the disk; free some and run again") from error
        raise


def atomic_write_bytes(path: str | Path, data: bytes) -> None:
    """Write ``data`` to ``path``: after a crash the file holds the old bytes or the new ones, never a mix.

    Parent folders are made. Raises UserError when the disk is full; the old file is then still there.
    """
    path = Path(path)
    partial = _partial_of(path)
    with no_space_is_a_user_error(path):
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(partial, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
            _sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)


def atomic_write_text(path: str | Path, text: str) -> None:
    """Like ``atomic_write_bytes``, for UTF-8 text with ``\\n`` line ends."""
    atomic_write_bytes(path, text.encode("utf-8"))


@contextmanager
def atomic_dir(path: str | Path) -> Iterator[Path]:
    """Fill a folder as a whole: yields an empty temporary folder beside ``path`` that replaces it on success.

    On any exception the temporary folder is removed and what stood at ``path`` before still stands there.
    Leftovers of runs that were killed are removed first.
    """
    path = Path(path)
    partial = _partial_of(path)
    with no_space_is_a_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_leftovers(path)
        partial.mkdir()
        try:
            yield partial
            usual_permissions(partial)
            for file in partial.rglob("*"):
                if file.is_file():
                    _sync_file(file)
            _swap(partial, path)
        finally:
            shutil.rmtree(partial, ignore_errors=True)


def usual_permissions(path: str | Path) -> None:
    """Give a file, or all below a folder, the permissions that a new file has (safetensors makes its files 0600)."""
    for file in (Path(path), *Path(path).rglob("*")):
        if file.is_file() and not file.is_symlink():
            file.chmod(file.parent.stat().st_mode & 0o666 | file.stat().st_mode & 0o111)


def check_readable(path: str | Path) -> Path:
    """Raise UserError if a file is there but is no regular file, or may not be read; what is not there passes."""
    path = Path(path)
    if path.exists() and not path.is_file():
        raise UserError(f"{path}: is no regular file; replace it")
    if path.exists() and not os.access(path, os.R_OK):
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
    for left in sorted(path.parent.glob(f".{path.name}{PARTIAL}*")):
        if left.name.endswith("-old") and not path.exists():  # killed between the two renames of _swap
            os.rename(left, path)
            continue
        pid = left.name.rpartition(PARTIAL)[2]
        if pid.isdigit() and int(pid) != os.getpid() and _alive(int(pid)):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


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
    return path.with_name(f".{path.name}{PARTIAL}{os.getpid()}")


def _swap(new: Path, path: Path) -> None:
    """Put folder ``new`` where ``path`` is; what was there is removed afterwards."""
    old = path.with_name(f"{new.name}-old") if path.exists() else None
    if old is not None:
        os.rename(path, old)
    os.rename(new, path)
    _sync_folder(path.parent)
    if old is not None and old.is_dir():
        shutil.rmtree(old, ignore_errors=True)
    elif old is not None:
        old.unlink()


def _sync_file(path: Path) -> None:
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
    if not path.exists():
        return
    away = path.with_name(f".{path.name}{PARTIAL}{os.getpid()}-gone")
    shutil.rmtree(away, ignore_errors=True)
    os.rename(path, away)
    _sync_folder(path.parent)
    if away.is_dir():
        shutil.rmtree(away, ignore_errors=True)
    else:
        away.unlink()


def sweep(folder: str | Path) -> None:
    """Remove what killed processes left half-written or half-deleted in a folder."""
    for left in sorted(Path(folder).glob(f".*{PARTIAL}*")):
        pid = left.name.rpartition(PARTIAL)[2].split("-")[0]
        if pid.isdigit() and int(pid) != os.getpid() and _alive(int(pid)):
            continue
        if left.is_dir():
            shutil.rmtree(left, ignore_errors=True)
        else:
            left.unlink(missing_ok=True)


@contextmanager
def atomic_file(path: str | Path) -> Iterator[Path]:
    """Write a file by a library that wants a name: yields a temporary one beside ``path`` that replaces it on
    success.
    """
    path = Path(path)
    partial = _partial_of(path)
    with no_space_is_a_user_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            yield partial
            usual_permissions(partial)
            _sync_file(partial)
            os.replace(partial, path)
            _sync_folder(path.parent)
        finally:
            partial.unlink(missing_ok=True)
