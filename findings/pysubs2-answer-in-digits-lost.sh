#!/usr/bin/env bash
# Package: pysubs2 (reader of SubRip)
# Version: pysubs2 1.8.1
# Date: 2026-11-28
# Behaviour: a last line of digits is taken off the last caption, as if it numbered a caption that follows, though
#   the file ends there. Even pysubs2's own output does not survive: what it writes, it reads back without the number.
#   With WebVTT cues that carry no numbers (the usual kind) every caption loses such a line, not just the last.
#   Counts, years, scores and answers to "how many?" vanish without a warning.
# Output seen:
#   written   'How many eggs?\\N3'
#   read back 'How many eggs?'
#   WebVTT without numbers: ['How many eggs?', 'How many cups?'], of 3 eggs and 2 cups
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet pysubs2==1.8.1
cd "$work"
cat >captions.vtt <<'VTT'
WEBVTT

00:01.000 --> 00:02.000
How many eggs?
3

00:05.000 --> 00:06.000
How many cups?
2
VTT
venv/bin/python - <<'PY'
import sys

import pysubs2

captions = pysubs2.SSAFile()
captions.append(pysubs2.SSAEvent(start=1000, end=2000, text="How many eggs?\\N3"))
captions.save("captions.srt")
read = pysubs2.load("captions.srt")[0].text
print("written  ", repr(captions[0].text))
print("read back", repr(read))
webvtt = [cue.text for cue in pysubs2.load("captions.vtt")]
print(f"WebVTT without numbers: {webvtt}, of 3 eggs and 2 cups")
sys.exit(0 if read == "How many eggs?" and webvtt == ["How many eggs?", "How many cups?"] else 1)
PY
