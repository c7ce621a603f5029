#!/usr/bin/env bash
# Package: papermill (command line)
# Version: papermill 2.7.0
# Date: 2026-11-28
# Behaviour: -p NAME VALUE guesses a type from the value's letters alone; the type of the default in the notebook's
#   parameters cell (here text) does not count. A short git commit such as 63e1234 is a number in exponent form to it
#   and reaches the notebook as infinity; 0012345 loses its zeros, clip 007 becomes 7, an underscore is dropped (1_000
#   is 1000) and a clip named nan is no text either. About one short commit in eighteen (digits alone, or digits
#   around one e) is changed so: a report that names its commit is right most of the time.
# Around it: -r (raw) instead of -p.
# Output seen:
#   commit = float('inf')
#   parent = 12345
#   clip = 7
#   recording = 1000
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet papermill==2.7.0
cd "$work"
cat >report.ipynb <<'JSON'
{"cells": [{"cell_type": "code", "id": "first", "metadata": {"tags": ["parameters"]}, "outputs": [],
  "execution_count": null, "source": "commit = ''\nparent = ''\nclip = ''\nrecording = ''"}],
 "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"},
  "language_info": {"name": "python"}}, "nbformat": 4, "nbformat_minor": 5}
JSON
venv/bin/papermill --prepare-only --log-level ERROR report.ipynb out.ipynb \
    -p commit 63e1234 -p parent 0012345 -p clip 007 -p recording 1_000
venv/bin/python - <<'PY'
import json
import sys

with open("out.ipynb") as file:
    cells = json.load(file)["cells"]
lines = "".join(cells[1]["source"]).splitlines()[1:]
print("\n".join(lines))
sys.exit(0 if lines == ["commit = float('inf')", "parent = 12345", "clip = 7", "recording = 1000"] else 1)
PY
