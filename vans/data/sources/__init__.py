"""Source folders `data/<name>/`, each in one of the known layouts, read into records.

A layout is one module here: which files name it, and a few lines that turn an entry of its annotations into a
Record (interface: source.SourceLayout). To add one, write such a module and add it to LAYOUTS; docs/data.md tells
users what to download and where to put it.

A source that cannot be read at all (no JSON, a column missing, two sources in one folder) is the user's to put
right: UserError. One bad entry, row or event is dropped with its reason, and the rest is read.
"""

import difflib
from pathlib import Path

from vans.data.records import Found
from vans.data.sources.activitynet import ACTIVITYNET
from vans.data.sources.coin import COIN
from vans.data.sources.plain import PLAIN
from vans.data.sources.shorts import SHORTS
from vans.data.sources.source import Source, SourceLayout
from vans.data.sources.tables import TABLES
from vans.data.sources.v1_33k import V1_33K
from vans.data.sources.values import entry_json
from vans.data.sources.video_holmes import VIDEO_HOLMES
from vans.data.sources.videos import folders_in, is_video, no_link, unseen
from vans.data.sources.youcook2 import YOUCOOK2
from vans.errors import UserError
from vans.media.video import VIDEO_SUFFIXES

NEAR = 0.87  # likeness of two file names from which on one is taken for the other misspelt (val_ids and val_1: 0.82)
LAYOUTS = (TABLES, YOUCOOK2, SHORTS, ACTIVITYNET, VIDEO_HOLMES, V1_33K, COIN)


def discover(data_dir: str | Path) -> Found:
    """Read all source folders. Raises UserError if there is none or an annotation file is not readable.

    A data_dir that itself holds annotations or videos is taken as one source folder. Annotations that would not be
    read, because they lie deeper than their source's folder, are a UserError too.
    """
    data_dir = Path(data_dir)
    if not data_dir.is_dir():
        raise UserError(f"{data_dir}: no such folder; `vans world` makes the toy world, or bring your own")
    folders = sorted(p for p in data_dir.iterdir() if p.is_dir() and not unseen(p.name))
    for folder in (data_dir, *folders):
        no_link(folder)
    if any(is_video(p) for p in data_dir.iterdir()) or _layouts(data_dir):
        folders = [data_dir.resolve()]
    if not folders:
        raise UserError(f"{data_dir}: holds no source folder; put videos into {data_dir}/<name>/")
    found = Found()
    for folder in folders:
        layout = layout_of(folder)
        _check_names(folder, layout)
        if layout is PLAIN or folder == data_dir.resolve():
            _check_depth(folder, data_dir)
        source = Source(folder, found)
        found.layouts[source.name] = layout.title
        source.read(layout)
    return found


def layout_of(folder: Path) -> SourceLayout:
    """The layout of a source folder. UserError if it holds the annotations of two sources."""
    layouts = _layouts(folder)
    if layouts and layouts[0] is TABLES:  # COIN's and YouCook2's annotations give the tables' times
        layouts = [x for x in layouts if x not in (COIN, YOUCOOK2)]
    if len(layouts) > 1:
        files = ([n for n in x.files if (folder / n).is_file()] for x in layouts[:2])
        names = " and ".join((n or [f"tables of {x.title}"])[0] for n, x in zip(files, layouts))
        raise UserError(f"{folder}: holds {names}; give each source a folder of its own")
    return layouts[0] if layouts else PLAIN


def _check_names(folder: Path, layout: SourceLayout) -> None:
    """UserError for an annotation file with a name that is almost a known one: it would be passed over."""
    layouts = LAYOUTS if layout is PLAIN else (layout,)
    wanted = [file for known in layouts for file in (*(() if known is COIN else known.files), *known.more)]
    wanted += COIN.files if layout is PLAIN else ()
    missing = {file.lower(): file for file in wanted if not (folder / file).is_file()}
    files = sorted(folder.iterdir())
    videos = {path.stem for path in files if path.suffix.lower() in VIDEO_SUFFIXES}
    for path in files:
        name = path.name.lower()
        if not name.endswith((".json", ".csv")) or path.name in wanted or path.stem in videos or not path.is_file():
            continue
        near = difflib.get_close_matches(name, list(missing), n=1, cutoff=NEAR)
        if near and (name == near[0] or _like_annotations(path)):
            raise UserError(
                f"{path}: would not be read; if it is {missing[near[0]]}, rename it, else move it out of this folder"
            )


def _like_annotations(path: Path) -> bool:
    """Is a file built like one of the known annotation files?"""
    if path.suffix.lower() == ".csv":
        return True
    try:
        content = entry_json(path)
    except ValueError:
        return False
    if not isinstance(content, dict | list) or not content:
        return False
    first = content[0] if isinstance(content, list) else next(iter(content.values()))
    known = isinstance(first, dict) and bool({"timestamps", "video_path", "video ID"} & set(first))
    return known or (isinstance(content, dict) and "database" in content)


def _check_depth(folder: Path, data_dir: Path) -> None:
    """UserError if annotations lie below a folder of bare videos, or below data_dir if it is a source itself.

    They would be passed over without a word.
    """
    for inner in folders_in(folder):
        if inner == folder or not (below := _layouts(inner)):
            continue
        title = below[0].title
        if folder == data_dir.resolve() and inner.parent == folder:
            named = {file for layout in LAYOUTS for file in layout.files}
            loose = (p for p in sorted(folder.iterdir()) if is_video(p) or p.name in named or p.suffix == ".csv")
            stray = next(loose).name
            raise UserError(f"{data_dir}: {stray} lies beside {inner.name}/, a source ({title}); put it into a folder")
        raise UserError(f"{inner}: annotations of {title} too deep to be read; move this folder to {data_dir}/<name>/")


def _layouts(folder: Path) -> list[SourceLayout]:
    return [layout for layout in LAYOUTS if layout.is_in(folder)]
