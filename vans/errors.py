"""The one exception that is meant for the person at the keyboard."""


class UserError(Exception):
    """Something the user can put right: one line that names the file or key, and the fix.

    The command line shows the line alone and exits with 1 (``vans -v …`` adds the traceback).
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(str(message).split()))
