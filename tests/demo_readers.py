"""Decoders that misbehave, in the place of `vans.demo.source._look`: for processes that import nothing heavy."""

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np

from vans.demo import source


def crash(*_: Any) -> None:
    """A decoder that takes its process down."""
    source.bound()  # no core is written
    os.kill(os.getpid(), signal.SIGSEGV)


def hang(*_: Any) -> None:
    """A decoder that does not come back."""
    time.sleep(60)


def fill(path: Path, clip: Any, protocol: Any, folder: Path) -> None:
    """A decoder that takes more memory than it may; `source.LIMITS` are of it, too."""
    source.bound()
    try:
        np.empty(source.MEMORY, np.uint8)
    except MemoryError:
        (folder / source.TOLD).write_text('{"error": "no more memory"}')
