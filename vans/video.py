"""Read, cut, fit and write videos; audio is ignored, rotation honoured.

Times are seconds from the file's start. The picture "at time t" is the last frame whose time is <= t (plus
1 ms, because annotations round to milliseconds), which is what a player shows. Pictures are uint8 [H, W, 3]
RGB.
"""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
from PIL import Image

from vans.data import avi
from vans.errors import UserError

TOLERANCE = 1e-3  # s
VIDEO_SUFFIXES = (".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v")
BROKEN = (av.error.FFmpegError, EOFError)


@dataclass(frozen=True)
class Info:
    """height, width: px as shown (after rotation); fps: average; duration: s, the end of the last frame."""

    height: int
    width: int
    fps: float
    duration: float


class Video:
    """One readable video; UserError if the file is missing, unreadable or holds no picture."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._raw: np.ndarray | None = None
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such video")
        try:
            if self.path.suffix.lower() == ".avi" and (decoded := avi.decode(self.path.read_bytes())):
                self._raw, fps = decoded
                count, height, width, _ = self._raw.shape
                self.info = Info(height, width, fps, count / fps)
            else:
                self.info = self._probe()
        except (*BROKEN, ValueError) as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: Exception) -> UserError:
        return UserError(f"{self.path}: cannot be read as a video ({error}); replace or remove it")

    def _probe(self) -> Info:
        with av.open(str(self.path)) as container:
            if not container.streams.video:
                raise UserError(f"{self.path}: holds no video stream; replace or remove it")
            stream = container.streams.video[0]
            first = next(container.decode(stream), None)
            if first is None:
                raise UserError(f"{self.path}: holds no picture; replace or remove it")
            fps = float(stream.average_rate or stream.guessed_rate or 25)
            if stream.duration and stream.time_base:
                duration = float(stream.duration * stream.time_base)
            elif container.duration:
                duration = container.duration / av.time_base
            else:
                duration = (stream.frames or 1) / fps
            height, width = _upright(first.to_ndarray(format="rgb24"), first.rotation).shape[:2]
            return Info(height, width, fps, duration)

    def frames(self, start: float = 0.0) -> Iterator[tuple[float, np.ndarray]]:
        """(time, picture) from the key frame at or before `start` on; UserError where decoding fails."""
        if self._raw is not None:
            for i in range(max(0, int(start * self.info.fps) - 1), len(self._raw)):
                yield i / self.info.fps, self._raw[i]
            return
        try:
            with av.open(str(self.path)) as container:
                stream = container.streams.video[0]
                stream.thread_type = "NONE"
                origin = Fraction(container.start_time or 0, av.time_base)
                if start > 0:
                    container.seek(int((Fraction(start) + origin) * av.time_base), backward=True)
                for picture in container.decode(stream):
                    if picture.pts is None:
                        continue
                    time = float(picture.pts * picture.time_base - origin)
                    yield time, _upright(picture.to_ndarray(format="rgb24"), picture.rotation)
        except BROKEN as error:
            raise self._unreadable(error) from error

    def sample(self, times: list[float] | np.ndarray, height: int, width: int) -> np.ndarray:
        """The pictures at ascending times, fitted to height x width: uint8 [T, height, width, 3].

        Raises UserError if the video ends before the last time, ValueError if the times do not ascend.
        """
        wanted = [float(t) + TOLERANCE for t in times]
        if not wanted or any(b < a for a, b in pairwise(wanted)):
            raise ValueError(f"times must ascend and hold at least one, got {list(times)[:5]}")
        out: list[np.ndarray] = []
        shown: np.ndarray | None = None
        last = step = 0.0
        for time, picture in self.frames(wanted[0]):
            while len(out) < len(wanted) and shown is not None and time > wanted[len(out)]:
                out.append(fit(shown, height, width))
            if len(out) == len(wanted):
                break
            step = time - last if shown is not None else 0.0
            shown, last = picture, time
        held = max(last + step, self.info.duration) + TOLERANCE  # the last picture is shown to the end
        while shown is not None and len(out) < len(wanted) and wanted[len(out)] <= held + TOLERANCE:
            out.append(fit(shown, height, width))
        if len(out) < len(wanted):
            raise UserError(
                f"{self.path}: ends at {last:.2f} s, before {wanted[-1]:.2f} s; cut the annotation"
            )
        return np.stack(out)


def _upright(picture: np.ndarray, rotation: int) -> np.ndarray:
    """Turn a picture as its file says; rotation: degrees, counter-clockwise."""
    turns = round(rotation / 90) % 4
    return np.ascontiguousarray(np.rot90(picture, turns)) if turns else picture


def fit(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """Cover and crop: the middle of uint8 [H, W, 3] that has the wanted aspect ratio, scaled to the size."""
    old_h, old_w = picture.shape[:2]
    if (old_h, old_w) == (height, width):
        return picture
    cut_h = min(float(old_h), old_w * height / width)
    cut_w = min(float(old_w), old_h * width / height)
    left, top = (old_w - cut_w) / 2, (old_h - cut_h) / 2
    box = (left, top, left + cut_w, top + cut_h)
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC, box=box))


def encode(frames: np.ndarray, fps: float, codec: str = "raw") -> tuple[bytes, str]:
    """Frames uint8 [T, H, W, 3] -> (bytes, suffix). codec raw: AVI without loss; h264: mp4, even sizes."""
    if codec == "raw":
        return avi.encode(frames, fps), ".avi"
    if codec != "h264":
        raise ValueError(f"unknown codec {codec!r}; raw or h264")
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"h264 needs an even height and width, got {height} x {width}")
    out = io.BytesIO()
    with av.open(out, "w", format="mp4") as container:
        stream = container.add_stream(
            "libx264",
            rate=Fraction(fps).limit_denominator(1000),
            options={"crf": "14", "preset": "veryfast", "threads": "1"},
        )
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for picture in frames:
            for packet in stream.encode(
                av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            ):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return out.getvalue(), ".mp4"


def decode(data: bytes) -> tuple[np.ndarray, float]:
    """The bytes of a small video file -> (frames uint8 [T, H, W, 3], fps). ValueError if unreadable."""
    if (decoded := avi.decode(data)) is not None:
        return decoded
    try:
        with av.open(io.BytesIO(data)) as container:
            stream = container.streams.video[0]
            frames = [_upright(f.to_ndarray(format="rgb24"), f.rotation) for f in container.decode(stream)]
            return np.stack(frames), float(stream.average_rate or 25)
    except (*BROKEN, IndexError, ValueError) as error:
        raise ValueError(f"not a readable video ({error})") from error


def write(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """Write uint8 [T, H, W, 3], whole or not at all; by suffix: .avi without loss, .mp4 as H.264."""
    from vans.files import atomic_write_bytes

    codecs = {".avi": "raw", ".mp4": "h264"}
    path = Path(path)
    if path.suffix.lower() not in codecs:
        raise UserError(f"{path}: use a name that ends in .avi or .mp4")
    atomic_write_bytes(path, encode(frames, fps, codecs[path.suffix.lower()])[0])


def read(path: str | Path) -> tuple[np.ndarray, float]:
    """All frames of a video, uint8 [T, H, W, 3], and its fps. UserError if it is missing or unreadable."""
    video = Video(path)
    if video._raw is not None:
        return video._raw, video.info.fps
    pictures = [picture for _, picture in video.frames()]
    return np.stack(pictures), video.info.fps


def cut(path: str | Path, start: float, count: int, fps: float, height: int, width: int) -> np.ndarray:
    """`count` pictures at start, start + 1/fps, ...: uint8 [count, height, width, 3]; errors as sample."""
    return Video(path).sample([start + i / fps for i in range(count)], height, width)


def grid(start: float, end: float, fps: float) -> np.ndarray:
    """The times start, start + 1/fps, ... whose whole 1/fps slot lies in [start, end], s."""
    return start + np.arange(max(0, int((end - start) * fps + 0.02))) / fps
