"""Printing that never ends a command: ASCII terminals, closed pipes, full disks behind standard output."""

import errno
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any


class Steady:
    """A text stream that stays usable: what it cannot encode is escaped; once it fails, it swallows the rest.

    failed: why it could not be written to, None as long as it can.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = open(os.devnull, "w") if stream is None else stream  # noqa: SIM115
        self.failed: OSError | None = None
        if hasattr(self.stream, "reconfigure"):
            self.stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        self._try("write", text)
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def _try(self, method: str, *given: str) -> None:
        if self.failed is not None:
            return
        try:
            getattr(self.stream, method)(*given)
        except (OSError, ValueError) as error:  # ValueError: closed
            self.failed = error if isinstance(error, OSError) else OSError(errno.EBADF, str(error))
            self._drain()

    def _drain(self) -> None:
        """Lead the stream nowhere, so that what stands in its buffer is no error when Python ends."""
        with suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), self.stream.fileno())

    def __getattr__(self, name: str) -> Any:
        return getattr(self.stream, name)


@contextmanager
def steady() -> Iterator[Steady]:
    """sys.stdout and sys.stderr are Steady meanwhile; yields the first."""
    before = sys.stdout, sys.stderr
    out, err = Steady(sys.stdout), Steady(sys.stderr)
    sys.stdout, sys.stderr = out, err  # type: ignore[assignment]
    try:
        yield out
    finally:
        out.flush()
        err.flush()
        sys.stdout, sys.stderr = before
