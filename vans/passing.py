"""Words of another process, passed on to the streams of this one, which stay usable (`vans.terminal`), and signals of
this one, passed on to the other."""

import codecs
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from vans.ending import end_below

LATEST = 5.0  # s after the end of a process; what it has left running may hold its pipes for ever


def run(command: Sequence[str], env: Mapping[str, str]) -> int:
    """Run a command to its end; its exit code, or 128 + SIGTERM if that came for this process.

    What is no terminal gets the command's words from here: it never meets a closed pipe or a log on a full disk.
    Ctrl-C reaches it by itself, and is waited for; SIGTERM ends it and all processes below it.
    """
    out, err = (None if stream.isatty() else subprocess.PIPE for stream in (sys.stdout, sys.stderr))
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    told: list[int] = []
    started: list[int] = []

    def end(number: int, _: Any) -> None:
        told.append(number)
        for pid in started:
            end_below(pid)

    try:
        if before[signal.SIGINT] is not signal.SIG_IGN:
            signal.signal(signal.SIGINT, lambda *_: None)
        signal.signal(signal.SIGTERM, end)
        with subprocess.Popen(command, env=env, stdout=out, stderr=err) as process, passed_on(process):
            started.append(process.pid)
            if told:
                end_below(process.pid)
            code = process.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    return 128 + told[0] if told else code


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
