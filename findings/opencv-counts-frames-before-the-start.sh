#!/usr/bin/env bash
# Package: opencv-python and PyAV (both on FFmpeg) with Matroska
# Version: opencv-python 5.0.0.93, av 18.1.0, numpy 2.4.6
# Date: 2026-11-28
# Behaviour: a recording whose clock starts late (a cut out of a longer one that kept its times) says in Matroska
#   how late it ENDS, and FFmpeg gives that as the duration, though for MP4 the duration is that of the pictures
#   alone. OpenCV, which has no count of pictures to read in Matroska, multiplies duration by rate: 2 s of video at 10
#   pictures a second that start at 60 s have a CAP_PROP_FRAME_COUNT of 620 instead of 20. np.linspace(0, count - 1,
#   n) then picks almost nothing but pictures that do not exist. The very same stream in MP4 is counted right.
# Output seen:
#   mkv  container.duration 62.0 s, start 60.0 s, CAP_PROP_FRAME_COUNT 620, pictures read 20
#   mp4  container.duration 2.0 s, start 60.0 s, CAP_PROP_FRAME_COUNT 20, pictures read 20
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet opencv-python==5.0.0.93 av==18.1.0 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PY'
import sys
from fractions import Fraction

import av
import cv2
import numpy as np


def look(kind):
    path = f"late.{kind}"
    with av.open(path, "w") as file:
        stream = file.add_stream("mpeg4", rate=10)
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for i in range(20):
            frame = av.VideoFrame.from_ndarray(np.full((96, 160, 3), 10 * i, np.uint8), "rgb24")
            frame.pts, frame.time_base = 600 + i, Fraction(1, 10)
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with av.open(path) as file:
        duration, start = file.duration / av.time_base, file.start_time / av.time_base
    capture = cv2.VideoCapture(path)
    count, read = int(capture.get(cv2.CAP_PROP_FRAME_COUNT)), 0
    while capture.read()[0]:
        read += 1
    print(f"{kind}  container.duration {duration} s, start {start} s, CAP_PROP_FRAME_COUNT {count}, ", end="")
    print(f"pictures read {read}")
    return duration, count, read


mkv, mp4 = look("mkv"), look("mp4")
sys.exit(0 if mkv == (62.0, 620, 20) and mp4 == (2.0, 20, 20) else 1)
PY
