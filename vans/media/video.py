"""Read, cut, fit and write videos; audio is ignored, rotation and the shape of the pixels are honoured.

Times are seconds as in a player (clock.py). The picture "at time t" is the last frame whose time is <= t (plus
1 ms, because annotations round to milliseconds), which is what a player shows. Pictures are uint8 [H, W, 3]
RGB.

What a damaged or hostile file can do is bounded: only FORMATS are opened and no other file or address is
followed (a text file named .mp4 may be a playlist), pictures are at most MAX_PIXELS large, a video at most
clock.LONGEST seconds and clock.MAX_PACKETS packets long, a read that hangs ends after PATIENCE seconds. A picture
that the decoder had to patch up, one that is held for longer than LONGEST_STILL and one behind the real end of a
file that was cut off are never handed out.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter
from PIL import Image

from vans.errors import UserError
from vans.media import avi, clock

H264 = {"crf": "17", "preset": "ultrafast", "threads": "1"}  # twice as fast to read as veryfast, half as large again
VP9 = {"crf": "18", "b": "0", "deadline": "good", "cpu-used": "4", "threads": "1"}
WRITTEN = {".mp4": "mp4", ".avi": "avi", ".mkv": "matroska", ".webm": "webm", ".mov": "mov", ".m4v": "mp4"}
SCALING = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.BITEXACT  # without, dark shots turn black
TOLERANCE = 1e-3  # s
HOLD = 0.5  # s that the first and the last picture may stand in for missing neighbours
LONGEST_STILL = 30.0  # s between two pictures of what is curated; a screen's recording may rest for longer
MAX_PIXELS = 8192 * 8192
AT_ONCE = 2**30  # bytes of a file that may be read as a whole
PATIENCE = 120.0  # s for opening a file or reading one packet of it
SEEK_BACK = (0.0, 1.0, 5.0, 30.0)  # s before the wanted time; some files' indices point too late
FORMATS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg"
OPTIONS = {"format_whitelist": FORMATS, "protocol_whitelist": "file"}
VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mov", ".mkv", ".webm", ".m4v"),
    *(".mpg", ".mpeg", ".ts", ".flv", ".wmv", ".3gp", ".ogv"),
)
BROKEN = (av.error.FFmpegError, EOFError, OSError, ValueError, ArithmeticError, MemoryError, IndexError)


@dataclass(frozen=True)
class Info:
    """height, width: px as shown (after rotation); fps: average; duration: s, from the first picture to the last one's
    end; start: s, when the first is shown (later than 0 where sound begins before the pictures).
    """

    height: int
    width: int
    fps: float
    duration: float
    start: float = 0.0

    @property
    def end(self) -> float:
        """When the last picture ends, s."""
        return self.start + self.duration


class Video:
    """One readable video; UserError if the file is missing, unreadable or holds no picture. longest_still: s between
    two pictures up to which the file's times are believed."""

    def __init__(self, path: str | Path, longest_still: float = LONGEST_STILL) -> None:
        self.path, self.longest_still = Path(path), longest_still
        self._raw: np.ndarray | None = None
        self._scaler, self._colours = VideoReformatter(), VideoReformatter()  # each keeps its last set-up
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such video")
        try:
            if decoded := self._uncompressed():
                self._raw, fps = decoded
                count, height, width, _ = self._raw.shape
                self.info = Info(height, width, fps, count / fps)
            else:
                self.info = self._probe()
        except BROKEN as error:
            raise self._unreadable(error) from error

    def _unreadable(self, error: object) -> UserError:
        return UserError(f"{self.path}: cannot be read as a video ({error}); replace or remove it")

    def _uncompressed(self) -> tuple[np.ndarray, float] | None:
        """The whole file if it is a small AVI of our own kind; ValueError if it is cut short."""
        if self.path.suffix.lower() != ".avi" or self.path.stat().st_size > AT_ONCE:
            return None
        with open(self.path, "rb") as file:
            if not avi.is_ours(file.read(avi.HEADER)):
                return None
        return avi.decode(self.path.read_bytes())

    @contextmanager
    def _open(self) -> Iterator[tuple[Any, Any]]:
        """(container, its first moving video stream), ready to decode; UserError where reading fails."""
        try:
            with av.open(
                str(self.path), options=dict(OPTIONS), metadata_errors="replace", timeout=PATIENCE
            ) as container:
                still = av.stream.Disposition.attached_pic  # the cover of a song
                streams = [s for s in container.streams.video if not s.disposition & still]
                if not streams:
                    raise UserError(f"{self.path}: holds no video stream; replace or remove it")
                stream = streams[0]
                if stream.codec_context is None:
                    raise ValueError("its codec is not known")
                stream.thread_type = "NONE"
                stream.codec_context.options = {"max_pixels": str(MAX_PIXELS)}
                yield container, stream
        except BROKEN as error:
            raise self._unreadable(error) from error

    def _probe(self) -> Info:
        with self._open() as (container, stream):
            found = clock.read(container, stream)
            if found is None:
                raise UserError(f"{self.path}: holds no picture; replace or remove it")
            self._clock, first = found
            aspect = float(stream.sample_aspect_ratio or 1)
            self._aspect = aspect if 0.25 <= aspect <= 4 else 1.0
            height, width = self.picture(first).shape[:2]
        start, end = self._clock.start, self._clock.end
        if end <= start or end > clock.LONGEST:
            raise self._unreadable(f"its times reach to {end:g} s")
        return Info(height, width, self._clock.rate, end - start, start)

    def _decode(self, start: float) -> Iterator[tuple[float, Any]]:
        """(time, frame) from the last key frame at or before `start` on; frames are still to be converted."""
        if self._raw is not None:
            for i in range(max(0, int(start * self.info.fps) - 1), len(self._raw)):
                yield i / self.info.fps, self._raw[i]
            return
        for back in SEEK_BACK if start > 0 else ():
            early = True
            for time, frame in self._decode_from(start - back):
                if early and time > start + TOLERANCE:
                    break
                early = False
                yield time, frame
            else:
                if not early:
                    return
        yield from self._decode_from(0.0)

    def _decode_from(self, start: float) -> Iterator[tuple[float, Any]]:
        """(time, frame) from where seeking to `start` leads."""
        with self._open() as (container, stream):
            if start > 0:
                try:
                    container.seek(int((Fraction(start) + self._clock.origin) * av.time_base), backward=True)
                except av.error.FFmpegError:
                    return
            frames = clock.frames(clock.packets(container, stream), stream)
            last = -math.inf
            for time, frame in clock.ascending(self._timed(frames), self._clock.depth):
                last = max(time, last) if time > last - HOLD else time  # a few that have changed places
                yield last, frame

    def _timed(self, frames: Iterator[Any]) -> Iterator[tuple[float, Any]]:
        """(time, frame); where a frame does not tell its time it follows the one before."""
        last = -1 / self._clock.rate
        for frame in frames:
            time = clock.seconds(frame)
            last = last + 1 / self._clock.rate if time is None else float(time - self._clock.origin)
            yield last, frame

    def shown_of(self, start: float, end: float) -> tuple[float, float]:
        """What of a stretch, s, there are pictures of; the first one stands in for what misses less than HOLD."""
        return self.info.start if self.info.start > start + HOLD else start, min(end, self.info.end)

    def picture(self, frame: Any, height: int | None = None, width: int | None = None) -> np.ndarray:
        """A decoded frame as it is shown, uint8 [H, W, 3], or fitted to height x width; UserError if it cannot be."""
        if isinstance(frame, np.ndarray):
            return frame if height is None or width is None else fit(frame, height, width)
        try:
            turned = round(frame.rotation / 90) % 2
            high, wide = frame.height, max(1, round(frame.width * self._aspect))  # before it is turned
            if height is None or width is None:
                return _upright(self._rgb(frame, high, wide), frame.rotation)
            to_high, to_wide = (width, height) if turned else (height, width)
            scale = max(to_high / high, to_wide / wide)
            cover = max(to_high, round(high * scale)), max(to_wide, round(wide * scale))
            if cover[0] * cover[1] > 4 * max(high * wide, height * width):  # a strip: cropped before it is scaled
                return fit(_upright(self._rgb(frame, high, wide), frame.rotation), height, width)
            top, left = (cover[0] - to_high) // 2, (cover[1] - to_wide) // 2
            picture = self._rgb(frame, *cover)[top : top + to_high, left : left + to_wide]
            return np.ascontiguousarray(_upright(picture, frame.rotation))
        except BROKEN as error:
            raise self._unreadable(error) from error

    def _rgb(self, frame: Any, height: int, width: int) -> np.ndarray:
        """A decoder's frame, scaled: uint8 [height, width, 3]."""
        if (frame.height, frame.width) != (height, width):  # straight to three bytes, scaling is twice as slow
            size = {"width": width, "height": height}
            frame = self._scaler.reformat(frame, format="gbrp", interpolation=SCALING, threads=1, **size)
        return np.asarray(self._colours.reformat(frame, format="rgb24", threads=1).to_ndarray())

    def frames(self, start: float = 0.0, longest: int | None = None) -> Iterator[tuple[float, np.ndarray]]:
        """(time, picture) from the key frame at or before `start` on; UserError where decoding fails.

        longest: px, the longer side is scaled down to it. Damaged pictures are among them; all have one size,
        whatever the file does.
        """
        high, wide = self.info.height, self.info.width
        scale = min(1.0, (longest or math.inf) / max(high, wide))
        size = max(1, round(high * scale)), max(1, round(wide * scale))
        for time, frame in self._decode(start):
            yield time, self.picture(frame, *size)

    def sample(self, times: Sequence[float] | np.ndarray, height: int, width: int) -> np.ndarray:
        """The pictures at ascending times, fitted to height x width: uint8 [T, height, width, 3].

        Raises UserError if the video ends before the last time, is damaged where it is looked at, or its
        times cannot be believed; ValueError if the times do not ascend.
        """
        return np.stack(list(self.pictures(times, height, width)))

    def pictures(self, times: Sequence[float] | np.ndarray, height: int, width: int) -> Iterator[np.ndarray]:
        """As `sample`, one picture uint8 [height, width, 3] after the other (in memory: only one)."""
        before: tuple[Any, np.ndarray] | None = None
        for frame, time in self.shown(times):
            if before is None or before[0] is not frame:
                before = frame, self.fitted(frame, time, height, width)
            yield before[1]

    def shown(self, times: Sequence[float] | np.ndarray) -> Iterator[tuple[Any, float]]:
        """(frame, its own time) that is shown at each of ascending times, to be given to `fitted`.

        Nothing is converted, so that what nobody looks at costs no more than decoding. Errors as `sample`.
        """
        wanted = [float(t) + TOLERANCE for t in times]
        if not wanted or any(b < a for a, b in pairwise(wanted)) or not math.isfinite(sum(wanted)):
            raise ValueError(f"times must ascend and hold at least one, got {list(times)[:5]}")
        shown: Any = None
        done, last, step = 0, 0.0, 0.0
        for time, frame in self._decode(wanted[0]):
            if shown is not None:
                step = time - last
                if step < 0:
                    raise UserError(f"{self.path}: its times run backwards at {last:.2f} s; replace or remove it")
                while time > wanted[done]:
                    if step > self.longest_still and wanted[done] > last + HOLD:
                        raise UserError(f"{self.path}: no picture from {last:.2f} to {time:.2f} s; replace it")
                    yield shown, last
                    done += 1
                    if done == len(wanted):
                        return
            elif time > wanted[0] + HOLD:
                raise UserError(f"{self.path}: no picture before {time:.2f} s; cut the annotation")
            shown, last = frame, time
        # The last picture is shown to the end; how long that is, a file that was cut off does not know.
        own = max(1 / self.info.fps, self._length(shown) or min(step, HOLD))
        held = min(max(last + own, self.info.end), last + own + HOLD) + 2 * TOLERANCE
        if shown is None or wanted[-1] > held:
            raise UserError(f"{self.path}: ends at {last:.2f} s, before {wanted[-1]:.2f} s; cut the annotation")
        for _ in wanted[done:]:
            yield shown, last

    def fitted(self, frame: Any, time: float, height: int, width: int) -> np.ndarray:
        """A frame to look at, uint8 [height, width, 3]; UserError if the decoder had to patch it up."""
        if getattr(frame, "is_corrupt", False):
            raise UserError(f"{self.path}: damaged at {time:.2f} s; replace or remove it")
        return self.picture(frame, height, width)

    def _length(self, frame: Any) -> float:
        """How long a frame says that it is shown, s; 0 if it says nothing or nothing believable."""
        ticks, base = getattr(frame, "duration", None), getattr(frame, "time_base", None)
        seconds = float(ticks * base) if ticks and base else 0.0
        return seconds if 0 < seconds <= LONGEST_STILL else 0.0


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
    return _coded(frames, fps, "mp4"), ".mp4"


def _coded(frames: np.ndarray, fps: float, container: str) -> bytes:
    """Frames uint8 [T, H, W, 3] of even sizes as H.264, or VP9 where the container is WebM."""
    frames = np.asarray(frames)
    if frames.dtype != np.uint8 or frames.ndim != 4 or frames.shape[-1] != 3 or 0 in frames.shape:
        raise ValueError(f"frames must be uint8 [T, H, W, 3], got {frames.dtype} {list(frames.shape)}")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"{container} needs an even height and width, got {height} x {width}")
    out = io.BytesIO()
    with av.open(out, "w", format=container, options={"fflags": "+bitexact"} if container != "mp4" else {}) as file:
        coder, options = ("libvpx-vp9", VP9) if container == "webm" else ("libx264", H264)
        stream = file.add_stream(coder, rate=Fraction(fps).limit_denominator(1000), options=options)
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for picture in frames:
            for packet in stream.encode(av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")):
                file.mux(packet)
        for packet in stream.encode():
            file.mux(packet)
    return out.getvalue()


def decode(data: bytes) -> tuple[np.ndarray, float]:
    """The bytes of a small video file -> (frames uint8 [T, H, W, 3], fps). ValueError if unreadable."""
    if (decoded := avi.decode(data)) is not None:
        return decoded
    try:
        with av.open(io.BytesIO(data), options=dict(OPTIONS), metadata_errors="replace") as container:
            stream = container.streams.video[0]
            to = VideoReformatter()
            rgb = ((to.reformat(f, format="rgb24", threads=1), f.rotation) for f in container.decode(stream))
            frames = [_upright(frame.to_ndarray(), rotation) for frame, rotation in rgb]
            return np.stack(frames), float(stream.average_rate or 25)
    except BROKEN as error:
        raise ValueError(f"not a readable video ({error})") from error


def write(path: str | Path, frames: np.ndarray, fps: float) -> None:
    """Write uint8 [T, H, W, 3], whole or not at all; what the suffix (of WRITTEN) asks for. .avi is without loss."""
    from vans.files import atomic_write_bytes

    path = Path(path)
    container = WRITTEN.get(path.suffix.lower())
    if container is None:
        raise UserError(f"{path}: use a name that ends in one of {', '.join(WRITTEN)}")
    atomic_write_bytes(path, avi.encode(frames, fps) if container == "avi" else _coded(frames, fps, container))


def grid(start: float, end: float, fps: float) -> np.ndarray:
    """The times start, start + 1/fps, ... whose whole 1/fps slot lies in [start, end], s."""
    return start + np.arange(max(0, int((end - start) * fps + 0.02))) / fps
