"""How a command ends: an exit code, and one line of what the user can put right."""

import sys
import traceback
from collections.abc import Callable
from contextlib import suppress

from vans.errors import UserError
from vans.files import is_full
from vans.visible import terminal


def guarded(command: Callable[[], object], verbose: bool = False, to_print: bool = True) -> int:
    """Run ``command`` and turn how it ends into an exit code: 0, 1 (one line), 130 (Ctrl-C).

    One line is a UserError, or a file that the system refuses. Standard output that cannot be written to ends nothing:
    the command goes on to its end, and the code is 141 if the reader of a pipe (head, less) has gone, else 1.
    to_print: is what it prints its purpose? A stage's is its files: then the code is 0, else DVC would throw them away.
    """
    with terminal() as out:
        try:
            command()
        except KeyboardInterrupt:
            print("vans: stopped", file=sys.stderr)
            return 130
        except Exception as error:
            if (line := _line(error)) is None:
                raise
            if verbose:
                traceback.print_exc()
            print(f"vans: {line}", file=sys.stderr)
            return 1
        out.flush()
        if out.failed is None or not to_print:
            return 0
        if isinstance(out.failed, BrokenPipeError):
            return 141
        print(f"vans: standard output: {out.failed.strerror}; the command itself is done", file=sys.stderr)
        return 1


def end_below(pid: int, patience: float = 10.0) -> None:
    """SIGTERM to all processes below this one and then to itself: it may still say what became of them.

    patience: seconds that those below have for it.
    """
    import psutil

    with suppress(psutil.NoSuchProcess):
        top = psutil.Process(pid)
        below = top.children(recursive=True)
        for process in below:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        psutil.wait_procs(below, timeout=patience)
        top.terminate()


def _line(error: Exception) -> str | None:
    """What there is to say of an error that the user can put right; None of any other."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"no space left on the disk ({error}); free some and run again" if is_full(error) else None
