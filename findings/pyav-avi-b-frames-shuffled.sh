#!/usr/bin/env bash
# Package: PyAV with the FFmpeg in its wheel, AVI container
# Version: av 18.1.0, numpy 2.4.6
# Date: 2026-11-28
# Behaviour: an AVI file holds no presentation times. For H.264 with B-frames in AVI, PyAV hands the pictures out in
#   the right order but with the times of their packets, which are in coding order: frame.time goes forth and back,
#   and pictures sorted or picked by time are shuffled; the first picture is at 0.1 s, not 0. The same pictures and
#   settings in Matroska get the right times. Nothing warns; the file plays well in a player that goes by order.
# Output seen (10 pictures a second, number of the picture: its time in tenths of a second):
#   avi 0:1 1:3 2:4 3:2 4:6 5:7 6:5 7:9 8:10 9:8 10:12 11:11
#   mkv 0:0 1:1 2:2 3:3 4:4 5:5 6:6 7:7 8:8 9:9 10:10 11:11
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet av==18.1.0 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PY'
import sys

import av
import numpy as np


def times(path):
    """Write 12 ever brighter pictures with two B-frames between the others; the time of each when read, in tenths."""
    with av.open(path, "w") as file:
        stream = file.add_stream("libx264", rate=10, options={"bf": "2", "x264-params": "b-adapt=0"})
        stream.width, stream.height, stream.pix_fmt = 160, 96, "yuv420p"
        for i in range(12):
            grey = np.full((96, 160, 3), 10 + 20 * i, np.uint8)
            file.mux(stream.encode(av.VideoFrame.from_ndarray(grey, "rgb24")))
        file.mux(stream.encode(None))
    with av.open(path) as file:
        shown = []
        for frame in file.decode(video=0):
            number = round((frame.to_ndarray(format="rgb24").mean() - 10) / 20)
            shown.append((number, round(frame.time * 10)))
    print(path.rpartition(".")[2], *(f"{number}:{time}" for number, time in shown))
    return shown


avi, mkv = times("clip.avi"), times("clip.mkv")
right_order = [number for number, _ in avi] == list(range(12))
shuffled = [time for _, time in avi] != sorted(time for _, time in avi)
mkv_right = all(number == time for number, time in mkv) and len(mkv) == 12
sys.exit(0 if right_order and shuffled and avi[0][1] == 1 and mkv_right else 1)
PY
