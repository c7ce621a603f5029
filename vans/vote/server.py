"""The page's server: its files, three questions and the videos that were handed out; nothing else can be asked for.

    GET  /  /vote.js  /vote.css       the page
    POST /start  /trial  /vote        JSON, answered by `Session`
    GET  /clip/<token>                a sheet of pictures
"""

from vans.local import server as local
from vans.vote.session import Session

PAGE = {"/": "vote.html", "/vote.js": "vote.js", "/vote.css": "vote.css"}
ASKED = ("start", "trial", "vote")
CLIP = "/clip/"


class Server(local.Server):
    """Serves one session; see `vans.local.server.Server`."""

    def __init__(self, session: Session, host: str = "127.0.0.1", port: int = 0) -> None:
        self.session = session
        super().__init__(Handler, "vans.vote", PAGE, host, port)


class Handler(local.Handler):
    server: Server
    broken = f"{local.Handler.broken} (your votes are kept)"

    def get(self) -> None:
        if not self.path.startswith(CLIP):
            return self.nothing()
        self.answer(lambda: self.server.session.media(self.path.removeprefix(CLIP)))

    def post(self) -> None:
        asked = self.path.removeprefix("/")
        if asked not in ASKED:
            return self.nothing()
        if (given := self.question()) is not None:
            self.answer(lambda: getattr(self.server.session, asked)(given))
