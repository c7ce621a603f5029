#!/usr/bin/env bash
# Package: numpy (np.save, ndarray.tofile)
# Version: numpy 2.4.6
# Date: 2026-11-28
# Behaviour: both hand the values to a buffer of C's standard library and do not look at whether its last part reaches
#   the disk. Where the file cannot grow (full disk, quota, or here a limit on the size of files), a small array, or
#   the end of a large one, is lost without any error: np.save returns and leaves half a file, and what tofile wrote
#   np.fromfile reads back as fewer values, again without a word. If more than the last buffer is missing there is an
#   OSError, but its errno is None, so a handler that looks for ENOSPC, EDQUOT or EFBIG passes it by. file.write and
#   np.savez raise the usual error with its number at every size.
# Around it: np.save into an io.BytesIO, then file.write of its value (or np.savez).
# Output seen (room for 1024 bytes, in the second line for 798720):
#   tofile, 400 values        no error, np.fromfile reads 128
#   tofile, 100000 values     no error, np.fromfile reads 99840
#   np.save, 400 values       no error, the file has 1024 of 3328 bytes
#   np.save, 5000 values      OSError, errno None
#   np.savez, 400 values      OSError, errno 27
#   write, 400 values         OSError, errno 27
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet numpy==2.4.6
cd "$work"
venv/bin/python - <<'PY'
import os
import resource
import sys
from pathlib import Path

import numpy as np


def with_room(room, write):
    """What happens if no file may grow beyond room bytes; Python itself ignores the signal that goes with it."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        write()
        return "no error"
    except OSError as error:
        return f"OSError, errno {error.errno}"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


few, more, many = np.arange(400.0), np.arange(5000.0), np.arange(100_000.0)
seen = [with_room(1024, lambda: few.tofile("few")) + f", np.fromfile reads {len(np.fromfile('few'))}"]
seen += [with_room(798_720, lambda: many.tofile("many")) + f", np.fromfile reads {len(np.fromfile('many'))}"]
seen += [with_room(1024, lambda: np.save("few.npy", few))]
np.save("whole.npy", few)
seen[-1] += f", the file has {os.path.getsize('few.npy')} of {os.path.getsize('whole.npy')} bytes"
seen += [with_room(1024, lambda: np.save("more.npy", more))]
seen += [with_room(1024, lambda: np.savez("few.npz", few))]
seen += [with_room(1024, lambda: Path("few.bin").write_bytes(few.tobytes()))]
calls = ["tofile, 400", "tofile, 100000", "np.save, 400", "np.save, 5000", "np.savez, 400", "write, 400"]
for call, what in zip(calls, seen):
    print(f"{call + ' values':25} {what}")
expected = [
    "no error, np.fromfile reads 128",
    "no error, np.fromfile reads 99840",
    "no error, the file has 1024 of 3328 bytes",
    "OSError, errno None",
    "OSError, errno 27",
    "OSError, errno 27",
]
sys.exit(0 if seen == expected else 1)
PY
