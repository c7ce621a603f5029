"""The page's server: its files, a few questions, files that are brought, and clips of one's own runs.

    GET  /  /demo.js  /futures.js  /demo.css             the page, with a secret in a cookie
    POST /start  /news  /ask  /render  /stop  /forget    JSON, answered by `Session`
    POST /bring                                          the bytes of a file, X-Name: its name, percent-encoded
    GET  /clip/<token>  /film/<token>.mp4                a sheet of pictures, a video file

Everything but the page wants its cookie.
"""

from __future__ import annotations

import re
import secrets
import tempfile
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from vans.demo.session import Session, owner_of
from vans.files import no_space_is_a_user_error, temporary
from vans.local import server as local

PAGE = {"/": "demo.html", "/demo.js": "demo.js", "/futures.js": "futures.js", "/demo.css": "demo.css"}
ASKED = ("start", "news", "ask", "render", "stop", "forget")
CLIP, FILM, BRING = "/clip/", "/film/", "/bring"
COOKIE, YEAR = "vans-demo", 365 * 86_400
SECRET = re.compile(r"[\w-]{43}")
PIECE = 1 << 20  # bytes read at once
AT_ONCE = 4  # files that come at a time


class Server(local.Server):
    """Serves one session; see `vans.local.server.Server`."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """The port is taken; `session` is still to be set."""
        self.session: Session
        self.coming = threading.Semaphore(AT_ONCE)
        super().__init__(Handler, "vans.demo", PAGE, host, port)


class Handler(local.Handler):
    server: Server
    broken = f"{local.Handler.broken} (what was answered is kept)"

    def secret(self) -> str | None:
        """The browser's own; None if it has none."""
        for one in self.headers.get("Cookie", "").split(";"):  # others' cookies may be of any form
            name, _, value = one.strip().partition("=")
            if name == COOKIE and SECRET.fullmatch(value):
                return value
        return None

    def page_headers(self) -> Mapping[str, str]:
        secret = self.secret() or secrets.token_urlsafe(32)
        return {"Set-Cookie": f"{COOKIE}={secret}; Max-Age={YEAR}; Path=/; HttpOnly; SameSite=Lax"}

    def get(self) -> None:
        session = self.server.session
        for start, ask in ((CLIP, session.media), (FILM, session.film)):
            if self.path.startswith(start):
                return self._mine(lambda owner, ask=ask, start=start: ask(owner, self.path.removeprefix(start)))
        self.nothing()

    def post(self) -> None:
        asked = self.path.removeprefix("/")
        if self.path == BRING:
            self._bring()
        elif asked not in ASKED:
            self.nothing()
        elif (given := self.question()) is not None:
            self._mine(lambda owner: getattr(self.server.session, asked)(owner, given))

    def _mine(self, ask: Any) -> None:
        """Answer what an owner asks."""
        secret = self.secret()
        if secret is None:
            self.say(409, "this browser is not known here; allow cookies for this page and load it again")
        else:
            self.answer(lambda: ask(owner_of(secret)))

    def _bring(self) -> None:
        most = self.server.session.most
        length = self.length(most)
        if self.headers.get("Content-Type") != "application/octet-stream" or self.secret() is None:
            return self.refuse(400, "send a file's bytes")
        if not length:
            return self.refuse(413, f"a file of 1 byte to {most / 1e6:.0f} MB can be brought")
        if not self.server.coming.acquire(blocking=False):
            return self.refuse(429, "other files are just coming; try again in a moment")
        self.close_connection = True  # all of it may not be read
        try:
            self._mine(lambda owner: self._received(owner, length))
        finally:
            self.server.coming.release()

    def _received(self, owner: str, length: int) -> Any:
        """What the session says of a body of so many bytes."""
        with tempfile.TemporaryDirectory(prefix=temporary("brought")) as folder:
            path = Path(folder) / "file"
            with no_space_is_a_user_error(path), open(path, "wb") as file:
                while length:
                    piece = self.rfile.read(min(PIECE, length))
                    if not piece:
                        raise ConnectionError("the browser went away")
                    file.write(piece)
                    length -= len(piece)
            if _is_avi(path):
                path = path.rename(path.with_suffix(".avi"))
            name = unquote(self.headers.get("X-Name", ""), errors="replace")
            return self.server.session.bring(owner, name, path)


def _is_avi(path: Path) -> bool:
    """Is it an AVI, by how it begins? Its name says so then, as `vans.media.video` expects."""
    with open(path, "rb") as file:
        start = file.read(12)
    return start[:4] == b"RIFF" and start[8:] == b"AVI "
