"""Words of another process, passed on to the streams of this one, which stay usable (`vans.terminal`)."""

import codecs
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

LATEST = 5.0  # s after the end of a process; what it has left running may hold its pipes for ever


@contextmanager
def passed_on(process: subprocess.Popen) -> Iterator[None]:
    """What a process writes into pipes goes to sys.stdout and sys.stderr as it comes, until it has ended."""
    pairs = [(process.stdout, sys.stdout), (process.stderr, sys.stderr)]
    threads = [threading.Thread(target=_copy, args=pair, daemon=True) for pair in pairs if pair[0] is not None]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        for thread in threads:
            thread.join(LATEST)


def _copy(pipe: Any, stream: Any) -> None:
    decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")
    while data := os.read(pipe.fileno(), 1 << 16):
        stream.write(decoder.decode(data))
        stream.flush()
