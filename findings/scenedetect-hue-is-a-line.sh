#!/usr/bin/env bash
# Package: scenedetect (PySceneDetect, ContentDetector)
# Version: scenedetect 0.7.2, opencv-python 5.0.0.93, av 18.1.0 (writes the clip), numpy 2.4.6
# Date: 2026-11-28
# Behaviour: hue is a circle (0 to 179 in OpenCV, red at both ends), but ContentDetector subtracts hues as if they
#   lay on a line. Two reds that the eye cannot tell apart (5 of 255 in one channel) are the greatest change there can
#   be and make a cut at the default threshold of 27; a change of the whole picture from saturated green to saturated
#   red is 60 of 180 and stays far below it, so the cut is missed. Reddish scenes (skin, food, sunset) break into
#   shots that are not there.
# Output seen:
#   red to nearly the same red   score 59.3  shots 2
#   saturated green to red       score 20.0  shots 1
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet scenedetect==0.7.2 opencv-python==5.0.0.93 numpy==2.4.6 av==18.1.0
cd "$work"
venv/bin/python - <<'PY'
import sys

import av
import numpy as np
from scenedetect import ContentDetector, SceneManager, StatsManager, open_video


def shots(name, first, second):
    """Two flat colours (blue, green, red), 50 frames each, kept without loss; the score of the change and the shots."""
    path = "clip.mkv"
    with av.open(path, "w") as file:
        stream = file.add_stream("ffv1", rate=25)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "bgr0"
        for colour in [first] * 50 + [second] * 50:
            picture = av.VideoFrame.from_ndarray(np.full((96, 128, 3), colour, np.uint8), "bgr24")
            file.mux(stream.encode(picture.reformat(format="bgr0")))
        file.mux(stream.encode(None))
    stats = StatsManager()
    manager = SceneManager(stats)
    manager.add_detector(ContentDetector())
    manager.detect_scenes(open_video(path))
    score = float(stats.get_metrics(50, ["content_val"])[0])
    count = len(manager.get_scene_list(start_in_scene=True))
    print(f"{name:28} score {score:.1f}  shots {count}")
    return score, count


same = shots("red to nearly the same red", (0, 5, 200), (5, 0, 200))
other = shots("saturated green to red", (0, 200, 0), (0, 0, 200))
sys.exit(0 if same[1] == 2 and other[1] == 1 and same[0] > 50 and other[0] < 27 else 1)
PY
