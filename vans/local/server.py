"""What the pages' servers share: a page's own files, JSON questions, and whom they answer.

A request whose Host is none of ours (a foreign name that was pointed here) or whose Origin is another page is refused.
What goes wrong inside is told on the terminal and not to the browser: it may hold a path.
"""

import ipaddress
import json
import socket
import sys
import traceback
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

from vans.errors import UserError

KINDS = {"html": "text/html", "js": "text/javascript", "css": "text/css"}
PLAYER = "/player.js"  # of every page
BODY = 16_384  # bytes of a question
PATIENCE = 30  # s for a request to come
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}


class Refused(Exception):
    """What a browser asked for and does not get; shown to the person."""


class Server(ThreadingHTTPServer):
    """page: address -> file of `package`'s folder page/. host: an address or name of this machine; port 0: any free.

    Raises UserError if it cannot be had.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self, handler: type["Handler"], package: str, page: Mapping[str, str], host: str = "127.0.0.1", port: int = 0
    ) -> None:
        self.host = host
        self.content = {path: (files(package) / "page" / name).read_bytes() for path, name in page.items()}
        self.content[PLAYER] = (files("vans.local") / PLAYER.strip("/")).read_bytes()
        self.kinds = {path: KINDS[name.rpartition(".")[2]] for path, name in (*page.items(), (PLAYER, PLAYER))}
        if ":" in host:
            self.address_family = socket.AF_INET6
        try:
            super().__init__((host, port), handler)
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
    """A page says in `get` and `post` what there is beside its files; both end in `say`, `send` or `answer`."""

    server: Server
    protocol_version = "HTTP/1.1"
    timeout = PATIENCE
    server_version, sys_version = "vans", ""
    broken = "something is wrong with the server; tell who runs it"

    def get(self) -> None:
        """A GET of what is no file of the page."""
        self.nothing()

    def post(self) -> None:
        """A POST; its body is still to be read."""
        self.nothing()

    def page_headers(self) -> Mapping[str, str]:
        """More headers of the page itself."""
        return {}

    def do_GET(self) -> None:
        if not self._ours():
            return
        if self.path in self.server.content:
            more = self.page_headers() if self.path == "/" else {}
            self.send(200, self.server.kinds[self.path] + "; charset=utf-8", self.server.content[self.path], more)
        else:
            self.get()

    def do_POST(self) -> None:
        if self._ours():
            self.post()

    def _ours(self) -> bool:
        """Host and Origin are this server's own; else the request is refused."""
        host, origin = self.headers.get_all("Host", []), self.headers.get("Origin")
        site = self.headers.get("Sec-Fetch-Site", "same-origin")
        if len(host) == 1 and self.server.knows(host[0]) and origin in (None, f"http://{host[0]}"):
            if site in ("same-origin", "none") or (self.command == "GET" and self.path == "/"):
                return True
        self.refuse(403, "this page can only be used from its own address")
        return False

    def length(self, most: int) -> int | None:
        """Of the body, bytes; None if nobody says, or it is more."""
        told = self.headers.get("Content-Length", "")
        return int(told) if told.isascii() and told.isdigit() and len(told) < 16 and int(told) <= most else None

    def question(self) -> dict[str, Any] | None:
        """The body's object of JSON; None, and refused, if it is none."""
        length = self.length(BODY)
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip()
        given = None
        if length is not None and kind == "application/json":
            try:
                given = json.loads(self.rfile.read(length))
            except (ValueError, RecursionError):
                given = None
        if isinstance(given, dict):
            return given
        self.refuse(400, f"send an object of JSON of at most {BODY} bytes")
        return None

    def answer(self, ask: Any) -> None:
        """Send what `ask()` says: a dict, or something with `kind`, `data`, and perhaps `headers`."""
        try:
            found = ask()
        except Refused as refused:
            return self.say(409, str(refused))
        except UserError as error:
            print(f"vans: {error}", file=sys.stderr, flush=True)
            return self.say(500, self.broken)
        except (ConnectionError, TimeoutError):
            raise  # the browser went away: nobody is there to be told
        except Exception:
            traceback.print_exc()
            return self.say(500, self.broken)
        if isinstance(found, dict):
            return self.send(200, "application/json", json.dumps(found).encode())
        return self.send(200, found.kind, found.data, getattr(found, "headers", {}))

    def nothing(self) -> None:
        """There is no such thing; a body that may be on its way is not waited for."""
        if self.command == "POST":
            self.close_connection = True
        self.say(404, "there is nothing here")

    def refuse(self, code: int, text: str) -> None:
        """An error after which the connection ends: a body may still be on its way."""
        self.close_connection = True
        self.say(code, text)

    def say(self, code: int, text: str) -> None:
        """An error in words."""
        self.send(code, "application/json", json.dumps({"error": text}).encode())

    def send(self, code: int, kind: str, data: bytes, more: Mapping[str, str] | None = None) -> None:
        """An answer as a whole."""
        self.send_response(code)
        about = {"Content-Type": kind, "Content-Length": str(len(data))}
        for name, value in {**HEADERS, **about, **(more or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(data)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Errors of the protocol, without repeating what was asked."""
        self.refuse(code, message or "not understood")

    def log_message(self, format: str, *args: Any) -> None:
        """Nobody reads a line for every picture."""
