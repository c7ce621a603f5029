#!/usr/bin/env bash
# Package: PyAV (encoding of RGB pictures)
# Version: av 18.1.0, numpy 2.4.6
# Date: 2026-11-28
# Behaviour: encode() turns RGB pictures into the stream's pixel format by itself, but does so by BT.601 whatever
#   the colour space that the stream was given. A stream told to be BT.709 (as HD video should be) is written with
#   BT.709 in its heading and BT.601 in its pixels: every reader that honours the heading, PyAV too, shows other
#   colours than went in. A stream that was told nothing comes back right. Models then train on, or are scored
#   against, shifted colours.
# Around it: frame.reformat(format="yuv420p", dst_colorspace="ITU709") before encode().
# Output seen (the picture that went in: 200 40 40):
#   no colour space given         heading 2  read 198 39 38
#   BT.709, encode() converts     heading 1  read 212 54 36
#   BT.709, converted by hand     heading 1  read 199 39 40
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

COLOUR = (200, 40, 40)
BT709 = 1


def through_file(name, tagged, by_hand):
    with av.open("clip.mkv", "w") as file:
        stream = file.add_stream("libx264", rate=10, options={"crf": "1"})
        stream.width, stream.height, stream.pix_fmt = 1280, 720, "yuv420p"
        if tagged:
            stream.codec_context.colorspace = BT709
        for _ in range(3):
            frame = av.VideoFrame.from_ndarray(np.full((720, 1280, 3), COLOUR, np.uint8), "rgb24")
            if by_hand:
                frame = frame.reformat(format="yuv420p", dst_colorspace="ITU709")
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    with av.open("clip.mkv") as file:
        frame = next(file.decode(video=0))
        seen = frame.to_ndarray(format="rgb24")[360, 640].astype(int)
    print(f"{name:29} heading {int(frame.colorspace)}  read", *seen)
    return np.abs(seen - COLOUR).max()


plain = through_file("no colour space given", tagged=False, by_hand=False)
tagged = through_file("BT.709, encode() converts", tagged=True, by_hand=False)
by_hand = through_file("BT.709, converted by hand", tagged=True, by_hand=True)
sys.exit(0 if plain <= 3 and tagged >= 10 and by_hand <= 3 else 1)
PY
