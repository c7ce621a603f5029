"""Source folders `data/<name>/`, each in one of the known layouts, read into records.

| the folder holds | layout (readers: layouts.py) |
|---|---|
| triplets.csv (and COIN.json or annotations.json for the times) | published table of VANS-Data-100K |
| youcookii_annotations_trainval.json | YouCook2 |
| shorts.json | films without timestamps |
| COIN.json or annotations.json | COIN |
| only videos | nothing known: shots are searched |

The first that fits counts. Videos are found by name anywhere in the folder. To add a layout, write one reader
and add it to LAYOUTS.
"""

from collections.abc import Callable
from pathlib import Path

from vans.data import layouts
from vans.data.layouts import COIN_NAMES, SHORTS_NAME, TABLE_NAME, YOUCOOK2_NAME, Videos
from vans.data.records import Found
from vans.errors import UserError
from vans.video import VIDEO_SUFFIXES

LAYOUTS: tuple[tuple[tuple[str, ...], Callable[[Path, Videos, Found], None]], ...] = (
    ((TABLE_NAME,), layouts.table),
    ((YOUCOOK2_NAME,), layouts.youcook2),
    ((SHORTS_NAME,), layouts.shorts),
    (COIN_NAMES, layouts.coin),
)


def discover(data_dir: str | Path) -> Found:
    """Read all source folders. Raises UserError if there is none or an annotation file is not readable.

    A data_dir that itself holds annotations or videos is taken as one source folder.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"{data_dir}: no such folder; `vans world` makes the toy world, or bring your own")
    folders = sorted(p for p in data_dir.iterdir() if p.is_dir() and not p.name.startswith("."))
    if any(_is_video(p) for p in data_dir.iterdir()) or _reader(data_dir):
        folders = [data_dir.resolve()]
    if not folders:
        raise UserError(f"{data_dir}: holds no source folder; put videos into {data_dir}/<name>/")
    found = Found()
    for folder in folders:
        _read_folder(folder, found)
    return found


def _read_folder(folder: Path, found: Found) -> None:
    videos, reader = videos_of(folder), _reader(folder)
    if reader is None and not videos:
        found.dropped.append(("video", folder.name, "folder without annotations and videos"))
        return
    records, dropped = len(found.records), len(found.dropped)
    (reader or layouts.plain)(folder, videos, found)
    used = {r.name for r in found.records[records:]} | {
        n.partition("/")[2] for _, n, _ in found.dropped[dropped:]
    }
    cut = {file for r in found.records[records:] for g in r.given for file in g.files}
    for name, path in videos.items():
        if name not in used and path not in cut:
            found.dropped.append(("video", f"{folder.name}/{name}", "not in the annotations"))


def _reader(folder: Path) -> Callable[[Path, Videos, Found], None] | None:
    return next((r for names, r in LAYOUTS if any((folder / n).is_file() for n in names)), None)


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES and path.is_file()


def videos_of(folder: Path) -> Videos:
    """The folder's videos by name without suffix, in order; where two share a name, the later by its path."""
    videos: Videos = {}
    for path in sorted(p for p in folder.rglob("*") if _is_video(p)):
        relative = str(path.relative_to(folder).with_suffix(""))
        videos[relative if path.stem in videos else path.stem] = path
    return videos
