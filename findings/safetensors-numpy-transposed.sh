#!/usr/bin/env bash
# Package: safetensors (its numpy interface)
# Version: safetensors 0.8.0, numpy 2.4.6
# Date: 2026-11-28
# Behaviour: safetensors.numpy.save writes an array's memory as it lies and its shape as numpy states it. For an
#   array that is not in C order (a transpose, np.asfortranarray, the result of many linear algebra routines) the two
#   do not agree: the numbers come back in another order under the right shape and type, with no error and no warning,
#   at saving or at loading. A transposed weight matrix or a feature table turned on its side is silently scrambled.
# Around it: np.ascontiguousarray before saving.
# Output seen:
#   saved   [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
#   loaded  [[0.0, 1.0], [2.0, 3.0], [4.0, 5.0]]
#   Fortran order: comes back changed
#   np.ascontiguousarray first: comes back as saved
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet safetensors==0.8.0 numpy==2.4.6
cd "$work"
venv/bin/python - <<'PY'
import sys

import numpy as np
from safetensors.numpy import load_file, save_file


def through_file(array):
    save_file({"w": array}, "w.safetensors")
    return load_file("w.safetensors")["w"]


weights = np.arange(6, dtype=np.float32).reshape(2, 3)
turned = weights.T
loaded = through_file(turned)
print("saved  ", turned.tolist())
print("loaded ", loaded.tolist())
fortran = np.asfortranarray(weights)
fortran_kept = np.array_equal(through_file(fortran), fortran)
print("Fortran order: comes back", "as saved" if fortran_kept else "changed")
copied_kept = np.array_equal(through_file(np.ascontiguousarray(turned)), turned)
print("np.ascontiguousarray first: comes back", "as saved" if copied_kept else "changed")
as_described = loaded.tolist() == [[0, 1], [2, 3], [4, 5]] and not fortran_kept and copied_kept
sys.exit(0 if as_described else 1)
PY
