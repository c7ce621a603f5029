"""Videos of numbered pictures in many containers and codecs, with the oddities that files in the wild have."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import av
import numpy as np

from tests.fuzz_helpers import numbered
from vans.answer.predictions import CAPTIONS, captions_csv
from vans.media import video

SIZE = (64, 64)  # px; the smallest that all encoders take
PIXELS = {"mjpeg": "yuvj420p", "prores_ks": "yuv422p10le", "huffyuv": "yuv422p"}
QUICK = {
    "libx264": {"preset": "ultrafast", "threads": "1"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none:pools=none:frame-threads=1"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8", "lag-in-frames": "0"},
    "libsvtav1": {"preset": "12", "svtav1-params": "lp=1"},
    "mpeg1video": {"b": "4000000"},
    "mpeg2video": {"b": "4000000"},
    "mpeg4": {"b": "2000000"},
}


@dataclass(frozen=True)
class Sound:
    """Silence. start: s, of the first packet, with what the encoder puts before the sound; seconds: about how long."""

    codec: str = "aac"
    start: float = 0.0
    seconds: float = 5.0
    rate: int = 48_000


@dataclass(frozen=True)
class Made:
    """What is made. times: s of each picture. base: of the encoder's clock, s. live: options of the container.

    lost: pictures that the file lacks at its begin. shuffled: pictures bear times in the order of decoding.
    """

    container: str
    codec: str
    times: Sequence[Fraction]
    rate: Fraction = Fraction(25)
    base: Fraction | None = None
    options: dict[str, str] = field(default_factory=dict)
    sound: Sound | None = None
    live: dict[str, str] = field(default_factory=dict)
    lost: int = 0
    shuffled: bool = False


def made(what: Made, pictures: Sequence[np.ndarray] | None = None) -> bytes:
    """The file, with pictures uint8 [H, W, 3] or else numbered ones."""
    pictures = list(numbered(len(what.times), *SIZE)) if pictures is None else pictures
    out = io.BytesIO()
    with av.open(out, "w", format=what.container, container_options=what.live) as container:
        options = QUICK.get(what.codec, {}) | {"g": "10"} | what.options
        stream = container.add_stream(what.codec, rate=what.rate, options=options)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = PIXELS.get(what.codec, "yuv420p")
        base = what.base or 1 / what.rate
        stream.codec_context.time_base = base
        heard = container.add_stream(what.sound.codec, rate=what.sound.rate) if what.sound else None
        packets = []
        for time, picture in zip(what.times, pictures, strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.time_base, frame.pts = base, round(time / base)
            packets += stream.encode(frame)
        packets = (packets + stream.encode(None))[what.lost :]
        if what.shuffled:
            for packet, time in zip(packets, sorted(p.pts for p in packets), strict=True):
                packet.pts = time
        if heard is not None and what.sound is not None:
            packets += _silence(heard, what.sound)
        for packet in sorted(packets, key=lambda p: (p.dts * p.time_base, p.stream.index)):
            container.mux(packet)
    return out.getvalue()


def _silence(stream, sound: Sound) -> list:
    packets, size = [], stream.codec_context.frame_size or 1024
    layout = "stereo"
    stream.codec_context.layout = layout
    form = stream.codec_context.format.name
    for n in range(int(sound.seconds * sound.rate) // size + 1):
        planar = form.endswith("p")
        kind = {"flt": np.float32, "dbl": np.float64, "s16": np.int16, "s32": np.int32}[form.rstrip("p")]
        zeros = np.zeros((2, size) if planar else (1, 2 * size), kind)
        frame = av.AudioFrame.from_ndarray(zeros, format=form, layout=layout)
        frame.sample_rate, frame.time_base = sound.rate, Fraction(1, sound.rate)
        frame.pts = n * size
        packets += stream.encode(frame)
    packets += stream.encode(None)
    move = round(sound.start / packets[0].time_base) - packets[0].pts
    for packet in packets:
        packet.pts, packet.dts = packet.pts + move, packet.dts + move
    return packets


def predictions(folder, ids, captions, clips, texts=None) -> None:
    """A predictions folder as `vans.answer.arm` writes it: clips uint8 [N, T, H, W, 3] at 3 pictures/s."""
    for name, clip in zip(ids, clips, strict=True):
        video.write(folder / "videos" / f"{name}.avi", clip, 3.0)
    table = captions_csv(ids, captions, texts or [""] * len(ids))
    (folder / CAPTIONS).write_text(table, encoding="utf-8", newline="")


def read(path) -> tuple[np.ndarray, float]:
    """All pictures of a video, uint8 [T, H, W, 3], and its fps."""
    opened = video.Video(path)
    return np.stack([picture for _, picture in opened.frames()]), opened.info.fps


def cut(path, start: float, count: int, fps: float, height: int, width: int) -> np.ndarray:
    """`count` pictures at start, start + 1/fps, ...: uint8 [count, height, width, 3]."""
    return video.Video(path).sample([start + i / fps for i in range(count)], height, width)
