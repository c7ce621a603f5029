"""The videos of a source folder, found by name.

Names and paths in annotations are looked up among the files that lie in the folder, and never joined to it, so
that no id can lead out of it, whatever it holds. They are compared in Unicode's composed form (NFC), since some systems
write é as one letter and some as two. What DVC does not see is not read: a link to a folder is refused.
"""

import os
import re
import shlex
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

from vans.data.sources.values import composed
from vans.errors import UserError
from vans.media.video import VIDEO_SUFFIXES

IGNORED = ("__pycache__", "*.partial-*", "*.egg-info")  # of .dvcignore, but for hidden ones
TEXT_SUFFIXES = frozenset({".json", ".jsonl", ".csv", ".tsv", ".srt", ".vtt", ".txt"})


def is_video(path: Path) -> bool:
    """Is it a file with a video's suffix (and not passed over)?"""
    return path.suffix.lower() in VIDEO_SUFFIXES and not unseen(path.name) and path.is_file()


def beside_video(path: Path) -> bool:
    """Is there a video of the same name beside a file, whose sidecar that is?"""
    return any(p.stem == path.stem and is_video(p) for p in path.parent.iterdir())


class Videos:
    """The videos below a folder.

    named: path of each by its shortest unused name, in order: the file's name, with its folder, with its suffix.
    odd: (name, reason) of what looks like a video and cannot be one. texts: files that may be annotations, in order.
    """

    def __init__(self, folder: Path) -> None:
        self.named: dict[str, Path] = {}
        self.odd: list[tuple[str, str]] = []
        self._exact: dict[str, Path] = {}
        self._tails: dict[str, Path] = {}
        self._inside: dict[str, list[Path]] = {}
        self._used: set[Path] = set()
        self.texts: list[Path] = []
        for path in sorted(_files(folder)):
            relative = path.relative_to(folder)
            if path.suffix.lower() in TEXT_SUFFIXES:
                self.texts.append(path)
                continue
            if reason := _oddness(path):
                self.odd.append((str(relative), reason))
                continue
            parts = tuple(composed(part) for part in relative.with_suffix("").parts)
            names = (parts[-1], "/".join(parts), composed(str(relative)))
            if names[-1] in self.named:
                self.odd.append((str(relative), "its name is there twice, in two forms of Unicode"))
                continue
            self.named[next((n for n in names if n not in self.named), names[-1])] = path
            self._exact.setdefault("/".join(parts), path)
            for i in range(len(parts)):
                self._tails.setdefault("/".join(parts[i:]), path)
                self._inside.setdefault("/".join(parts[i:-1]), []).append(path)

    def find(self, name: str) -> Path | None:
        """The video of that name: a file's, or a path's end; None if there is none. It counts as used."""
        key = composed(name).replace("\\", "/").strip("/")
        if Path(key).suffix.lower() in VIDEO_SUFFIXES and key not in self._tails:
            key = key[: key.rindex(".")]
        path = self._exact.get(key) or self._tails.get(key)
        if path is not None:
            self._used.add(path)
        return path

    def inside(self, name: str) -> list[Path]:
        """The videos of the folder of that name, in order (clip2 before clip10). They count as used."""
        paths = self._inside.get(composed(name), []) if name else []
        self._used.update(paths)
        return sorted(paths, key=lambda p: [int(x) if x.isdigit() else x for x in re.split(r"(\d+)", p.stem)])

    def odd_inside(self, name: str) -> bool:
        """Is something in the folder of that name that should be a video and cannot be one?"""
        return any(f"/{composed(odd)}".rpartition("/")[0].endswith(f"/{composed(name)}") for odd, _ in self.odd)

    def use(self, path: Path) -> None:
        """Somebody asked for this video."""
        self._used.add(path)

    def unused(self) -> Iterator[str]:
        """Names of the videos that nobody asked for."""
        return (name for name, path in self.named.items() if path not in self._used)


def folders_in(folder: Path) -> Iterator[Path]:
    """A folder and all below it, but for hidden ones. UserError if one is closed, or a link."""
    return (place for place, _ in _walk(folder))


def _files(folder: Path) -> Iterator[Path]:
    """What has a video's or an annotation's suffix below a folder."""
    for place, files in _walk(folder):
        for name in files:
            if Path(name).suffix.lower() in {*VIDEO_SUFFIXES, *TEXT_SUFFIXES}:
                yield place / name


def _walk(folder: Path) -> Iterator[tuple[Path, list[str]]]:
    """(folder, names of its files) of a folder and all below it."""

    def closed(error: OSError) -> None:
        raise UserError(f"{error.filename}: cannot be opened ({error.strerror}); change its rights or remove it")

    for place, folders, files in os.walk(folder, onerror=closed):
        folders[:] = sorted(name for name in folders if not unseen(name))
        for name in folders:
            no_link(Path(place) / name)
        yield Path(place), [name for name in files if not unseen(name)]


def unseen(name: str) -> bool:
    """Is a file or folder of that name passed over: hidden, or ignored by DVC (.dvcignore), half a download say?"""
    return name.startswith(".") or any(fnmatch(name, pattern) for pattern in IGNORED)


def no_link(folder: Path) -> None:
    """UserError if a folder is a link: DVC neither keeps what lies behind it nor sees it change."""
    if folder.is_symlink():
        here, there = (shlex.quote(str(path)) for path in (folder, os.path.realpath(folder)))
        raise UserError(
            f"{folder}: is a link to a folder, and DVC does not see what lies behind it; link its files instead: "
            f"`rm {here} && cp -rs {there} {here}` (docs/data.md, Data on another disk)"
        )


def _oddness(path: Path) -> str:
    """Why a path cannot be a video; '' if it can."""
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError:
        return "its name is not in UTF-8"
    if not path.exists():
        return "a link to a file that is not there"
    if not path.is_file():
        return "not a file"
    return "" if os.access(path, os.R_OK) else "may not be read"
