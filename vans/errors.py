"""The one exception that is meant for the person at the keyboard."""


from collections.abc import Iterable


class UserError(Exception):
    """Something the user can put right: one line that names the file or key, and the fix.

    The command line shows the line alone and exits with 1 (``vans -v …`` adds the traceback).
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))


def one_of(values: Iterable[object]) -> str:
    """The choices of a message: "a, b or c"."""
    words = [str(value) for value in values]
    return words[0] if len(words) == 1 else ", ".join(words[:-1]) + " or " + words[-1]
