"""The page's server: three files, three questions and the videos that were handed out; nothing else can be asked for.

    GET  /  /vote.js  /vote.css       the page
    POST /start  /trial  /vote        JSON, answered by `Session`
    GET  /clip/<token>                a sheet of pictures

A request whose Host is none of ours (a foreign name that was pointed here) or whose Origin is another page is refused.
"""

import ipaddress
import json
import socket
import sys
import traceback
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from vans.errors import UserError
from vans.vote.session import Refused, Session

PAGE = {
    "/": ("vote.html", "text/html"),
    "/vote.js": ("vote.js", "text/javascript"),
    "/vote.css": ("vote.css", "text/css"),
}
ASKED = ("start", "trial", "vote")
CLIP = "/clip/"
BODY = 16_384  # bytes
PATIENCE = 30  # s for a request to come
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
BROKEN = "something is wrong with the server; tell who runs it (your votes are kept)"


class Server(ThreadingHTTPServer):
    """Serves one session. host: an address or name of this machine; port 0: any that is free.

    Raises UserError if it cannot be had.
    """

    daemon_threads = True

    def __init__(self, session: Session, host: str = "127.0.0.1", port: int = 0) -> None:
        self.session, self.host = session, host
        self.content = {path: (files("vans.vote") / "page" / name).read_bytes() for path, (name, _) in PAGE.items()}
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise UserError(f"{host}, port {port}: {reason}; name another with --port (0: any) or --host") from error

    @property
    def url(self) -> str:
        """Where the page is."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.server_port}/"

    def knows(self, host: str | None) -> bool:
        """Is a Host header one of ours? A name that leads here may be anyone's; a number or this machine's is not."""
        try:
            name = urlsplit(f"//{host or ''}").hostname or ""
            port = urlsplit(f"//{host or ''}").port or 80
        except ValueError:
            return False
        if port != self.server_port or "@" in (host or ""):
            return False
        if name in ("localhost", self.host.lower()):
            return True
        try:
            local = ipaddress.ip_address(name).is_loopback
        except ValueError:
            return not self._loopback and name == socket.gethostname().lower()
        return local or not self._loopback

    @property
    def _loopback(self) -> bool:
        return ipaddress.ip_address(self.server_address[0]).is_loopback  # type: ignore[arg-type]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A browser that goes away is no error."""
        if not isinstance(sys.exception(), OSError):
            super().handle_error(request, client_address)


class Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    server_version, sys_version = "vans", ""

    def do_GET(self) -> None:
        if not self._ours():
            return
        if self.path in PAGE:
            self._send(200, PAGE[self.path][1] + "; charset=utf-8", self.server.content[self.path])
        elif self.path.startswith(CLIP):
            self._answer(lambda: self.server.session.media(self.path.removeprefix(CLIP)))
        else:
            self._say(404, "there is nothing here")

    def do_POST(self) -> None:
        if not self._ours():
            return
        if self.path.removeprefix("/") not in ASKED:
            self.close_connection = True  # its body is still to come
            self._say(404, "there is nothing here")
        elif (given := self._body()) is None:
            self.close_connection = True
            self._say(400, f"send an object of JSON of at most {BODY} bytes")
        else:
            self._answer(lambda: getattr(self.server.session, self.path.removeprefix("/"))(given))

    def _ours(self) -> bool:
        """Host and Origin are this server's own; else the request is refused."""
        host, origin = self.headers.get_all("Host", []), self.headers.get("Origin")
        site = self.headers.get("Sec-Fetch-Site", "same-origin")
        if len(host) == 1 and self.server.knows(host[0]) and origin in (None, f"http://{host[0]}"):
            if site in ("same-origin", "none") or (self.command == "GET" and self.path == "/"):
                return True
        self.close_connection = True
        self._say(403, "this page can only be used from its own address")
        return False

    def _body(self) -> dict[str, Any] | None:
        length = self.headers.get("Content-Length", "")
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip()
        digits = length.isascii() and length.isdigit() and len(length) <= len(str(BODY))  # Python reads no longer ones
        if not digits or int(length) > BODY or kind != "application/json":
            return None
        try:
            given = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):
            return None
        return given if isinstance(given, dict) else None

    def _answer(self, ask: Any) -> None:
        """Send what the session says; what goes wrong in it is told here and not to the browser: it may hold a path."""
        try:
            found = ask()
        except Refused as refused:
            return self._say(409, str(refused))
        except UserError as error:
            print(f"vans: {error}", file=sys.stderr, flush=True)
            return self._say(500, BROKEN)
        except Exception:
            traceback.print_exc()
            return self._say(500, BROKEN)
        if isinstance(found, dict):
            return self._send(200, "application/json", json.dumps(found).encode())
        return self._send(200, found.kind, found.data)

    def _say(self, code: int, text: str) -> None:
        self._send(code, "application/json", json.dumps({"error": text}).encode())

    def _send(self, code: int, kind: str, data: bytes) -> None:
        self.send_response(code)
        for name, value in {**HEADERS, "Content-Type": kind, "Content-Length": str(len(data))}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Errors of the protocol, without repeating what was asked."""
        self.close_connection = True
        self._say(code, message or "not understood")

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads a line for every picture."""
