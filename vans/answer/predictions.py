"""Predictions on disk: one caption and one video per sample, in a layout that anyone can write.

    <folder>/captions.csv      id,caption,text   (text: the whole answer with its thinking; may be left out)
    <folder>/videos/<id>.avi   or .mp4, .mkv, .webm, .mov

Answers of another size or length than the ground truth are fitted to it (frames picked evenly, cover and
crop) and counted, so that the scores can say so.
"""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vans.errors import UserError
from vans.files import atomic_dir, atomic_write_text
from vans.media import video

CAPTIONS = "captions.csv"
COLUMNS = ("id", "caption", "text")
Row = tuple[str, str, str]  # id, caption, whole answer
SUFFIXES = (".avi", ".mp4", ".mkv", ".webm", ".mov")


@dataclass(frozen=True)
class Predictions:
    """Answers in the order of ``ids``; videos are read when asked for. ``texts`` are empty where not
    given."""

    ids: list[str]
    captions: list[str]
    texts: list[str]
    paths: dict[str, Path]

    def clips(self, ids: Sequence[str], geometry: tuple[int, ...]) -> tuple[np.ndarray, int]:
        """The videos of some samples as uint8 [N, T, H, W, 3] of the given (T, H, W), and how many had to be
        fitted.

        Raises UserError for a video that cannot be read.
        """
        frames, height, width = geometry
        out, changed = [], 0
        for name in ids:
            clip, _ = video.read(self.paths[name])
            if clip.shape[:3] != (frames, height, width):
                clip, changed = _fit(clip, frames, height, width), changed + 1
            out.append(clip)
        return np.stack(out), changed


def save(
    folder: str | Path,
    ids: Sequence[str],
    captions: Sequence[str],
    texts: Sequence[str],
    clips: np.ndarray,
    fps: float,
    codec: str = "raw",
) -> None:
    """Write a predictions folder as a whole: clips uint8 [N, T, H, W, 3] at ``fps``; ``texts`` may hold "".

    ``codec``: raw (AVI without loss) or h264 (mp4). What stood there before is replaced at the end.
    """
    rows = list(zip(ids, captions, texts, strict=True))
    with atomic_dir(folder) as partial:
        write_predictions(partial, rows, clips, fps, codec)
        write_captions(partial, rows)


def write_predictions(folder: str | Path, rows: Sequence[Row], clips: np.ndarray, fps: float, codec: str) -> None:
    """The videos of some rows (id, caption, text); several processes may each write theirs to one folder.

    Not atomic by itself: call it inside ``atomic_dir``, as ``save`` does.
    """
    if len(rows) != len(clips):
        raise ValueError(f"{len(rows)} rows and {len(clips)} clips")
    videos = Path(folder) / "videos"
    videos.mkdir(parents=True, exist_ok=True)
    for (name, _, _), clip in zip(rows, clips, strict=True):
        data, suffix = video.encode(clip, fps, codec)
        (videos / f"{name}{suffix}").write_bytes(data)


def write_captions(folder: str | Path, rows: Sequence[Row]) -> None:
    """captions.csv of all rows, sorted by id, so that its bytes do not depend on who wrote which."""
    ids, captions, texts = zip(*sorted(rows), strict=True) if rows else ((), (), ())
    atomic_write_text(Path(folder) / CAPTIONS, captions_csv(ids, captions, texts))


def captions_csv(ids: Sequence[str], captions: Sequence[str], texts: Sequence[str]) -> str:
    """The text of captions.csv."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    writer.writerows(zip(ids, captions, texts, strict=True))
    return file.getvalue()


def open_folder(folder: str | Path, ids: Sequence[str]) -> Predictions:
    """Check a predictions folder and give the answers to ``ids``, in that order; others in it are ignored.

    Raises UserError if the folder, a column, a caption's row or a video is missing, or an id stands twice.
    """
    folder = Path(folder)
    rows = _read_captions(folder / CAPTIONS)
    if missing := [name for name in ids if name not in rows]:
        raise UserError(f"{folder / CAPTIONS}: no row for {_some(missing)}; every held-out sample needs one")
    paths = {path.stem: path for path in sorted((folder / "videos").glob("*")) if path.suffix in SUFFIXES}
    if missing := [name for name in ids if name not in paths]:
        raise UserError(f"{folder / 'videos'}: no video for {_some(missing)}; name each <id>.avi or <id>.mp4")
    captions, texts = ([rows[name][column] for name in ids] for column in (0, 1))
    return Predictions(list(ids), captions, texts, {name: paths[name] for name in ids})


def _read_captions(path: Path) -> dict[str, tuple[str, str]]:
    """id -> (caption, text); a byte-order mark in front of the first column's name is ignored."""
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file)
            table = list(reader)
            names = reader.fieldnames or []
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UserError(f"{path}: cannot be read ({error}); it must be a CSV with the columns id,caption") from error
    for column in COLUMNS[:2]:
        if column not in names:
            raise UserError(f"{path}: column {column!r} is missing; it has {', '.join(map(str, names)) or 'none'}")
    rows: dict[str, tuple[str, str]] = {}
    for row in table:
        if row["id"] in rows:
            raise UserError(f"{path}: {row['id']!r} stands twice; keep one row per sample")
        rows[row["id"]] = (row["caption"] or "", row.get("text") or "")
    return rows


def _fit(clip: np.ndarray, frames: int, height: int, width: int) -> np.ndarray:
    """[T, H, W, 3] of any size -> [frames, height, width, 3]: frames picked evenly, then cover and crop."""
    picked = np.linspace(0, len(clip) - 1, frames).round().astype(int)
    return np.stack([video.fit(clip[i], height, width) for i in picked])


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 1} more" if len(names) > 1 else ""
    return f"{names[0]!r}{more}"
