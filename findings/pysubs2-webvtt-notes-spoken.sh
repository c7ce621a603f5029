#!/usr/bin/env bash
# Package: pysubs2 (reader of WebVTT)
# Version: pysubs2 1.8.1
# Date: 2026-11-28
# Behaviour: WebVTT has comments (a block that starts with NOTE) and lets a cue carry any one-line name above its
#   times. pysubs2 knows neither: it takes all that stands between two lines of times as words of the earlier cue. A
#   comment and the name of the NEXT cue so become spoken text of the cue before, and the file loads without a
#   warning. Only a name made of digits alone is taken off. Captions used as training text or as reference answers
#   then hold words nobody said.
# Output seen:
#   1000 2000 'Chop the onion\n\nNOTE second take, check the sound\n\nadd-salt'
#   5000 6000 'Add salt'
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pysubs2==1.8.1
cd "$work"
cat >captions.vtt <<'VTT'
WEBVTT

chop
00:01.000 --> 00:02.000
Chop the onion

NOTE second take, check the sound

add-salt
00:05.000 --> 00:06.000
Add salt
VTT
venv/bin/python - <<'PY'
import sys

import pysubs2

cues = list(pysubs2.load("captions.vtt"))
for cue in cues:
    print(cue.start, cue.end, repr(cue.plaintext))
as_described = "NOTE second take" in cues[0].plaintext and cues[0].plaintext.endswith("add-salt")
sys.exit(0 if as_described else 1)
PY
