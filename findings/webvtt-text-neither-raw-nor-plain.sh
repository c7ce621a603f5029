#!/usr/bin/env bash
# Package: webvtt-py
# Version: webvtt-py 0.6.0
# Date: 2026-11-28
# Behaviour: Caption.text takes markup off a cue but leaves its escapes: for the valid cue "x &lt; 3 &amp; y &gt; 1"
#   it gives exactly those escapes back, which are no words of the speaker. The other way round it escapes nothing: a
#   caption made from the plain text "x < 3 and y > 1" is written as it is, and from then on the part between the two
#   signs counts as a tag and is gone from .text (even before the file is saved). So neither plain text nor escaped
#   text passes through the library.
# Around it: html.escape before Caption(...), html.unescape after .text.
# Output seen:
#   a valid file    'if <b>x &lt; 3</b> &amp; y &gt; 1' is read as 'if x &lt; 3 &amp; y &gt; 1'
#   plain text      'if x < 3 and y > 1' is read as 'if x  1'
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet webvtt-py==0.6.0
cd "$work"
cat >captions.vtt <<'VTT'
WEBVTT

00:01.000 --> 00:02.000
if <b>x &lt; 3</b> &amp; y &gt; 1
VTT
venv/bin/python - <<'PY'
import sys

import webvtt

cue = webvtt.read("captions.vtt")[0]
print(f"a valid file    {cue.raw_text!r} is read as {cue.text!r}")
plain = "if x < 3 and y > 1"
made = webvtt.WebVTT()
made.captions.append(webvtt.Caption("00:00:01.000", "00:00:02.000", plain))
made.save("made.vtt")
read = webvtt.read("made.vtt")[0].text
print(f"plain text      {plain!r} is read as {read!r}")
sys.exit(0 if cue.text == "if x &lt; 3 &amp; y &gt; 1" and read == "if x  1" else 1)
PY
