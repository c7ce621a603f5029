"""Imports without the garbage collector: it looks through thousands of modules again and again and finds nothing.

A sixth of a cold `vans answer` (`benchmarks/start.py --answer`).
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def uncollected() -> Iterator[None]:
    """Meanwhile no garbage is looked for."""
    before = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if before:
            gc.enable()
