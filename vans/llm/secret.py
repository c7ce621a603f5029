"""The key of an endpoint, and whether a text holds it, however it is written."""

import base64
import codecs
import html
import os
import re
import unicodedata
from collections.abc import Iterable
from urllib.parse import unquote_plus

from vans.errors import UserError

SHORTEST = 6  # characters; fewer, such as EMPTY, are no secret
ENOUGH = (
    12  # letters and digits in a row that tell a key (every half of them begins a piece): part of it is refused too
)
SIGNS = bytes(code for code in range(128) if not chr(code).isalnum())
LAYERS = 5  # of escapes in escapes
TAGGED = {0xE0000 + code: code for code in range(0x20, 0x7F)}  # letters that nobody sees
NUMBERED = re.compile(r"(?<![0-9A-Za-z])\d{1,3} ?[.:)=-] ?(?=\S)")  # "1. s 2. k" or "1:s 2:k"
ESCAPE = re.compile(
    r"\\(?:u([0-9a-fA-F]{4})|u\{([0-9a-fA-F]{1,6})\}|x([0-9a-fA-F]{2})|([0-3][0-7]{2})|(.))"
    r"|(?<![0-9A-Za-z])(?:0[xX]|[uU]\+)([0-9a-fA-F]{2,8})(?![0-9a-zA-Z])",
    re.S,
)


class Secret:
    """A key; "" for none. It shows itself to nobody: `repr` and pickles are without it."""

    def __init__(self, key: str = "") -> None:
        self._key = key if len(key) >= SHORTEST else ""
        plain = _bare(self._key)
        if len(plain) < ENOUGH:
            self._pieces: frozenset[str] = frozenset()
            return
        data = self._key.encode()
        forms = {plain, plain[::-1], codecs.encode(plain, "rot13"), data.hex(), "".join(str(code) for code in data)}
        forms.add(_bare(base64.b32encode(data).rstrip(b"=")[:-1]))
        for shift in range(3):  # wherever the key begins within a longer text that was encoded
            whole = base64.b64encode(b"\0" * shift + data).decode().rstrip("=")
            forms.add(_bare(whole[4 if shift else 0 : -1]))
        starts = {form: {*range(0, len(form) - ENOUGH, ENOUGH // 2), len(form) - ENOUGH} for form in forms}
        self._pieces = frozenset(form[i : i + ENOUGH] for form in forms for i in starts[form] if i >= 0)

    @classmethod
    def of(cls, variable: str) -> "Secret":
        """The one in an environment variable, which may be unset."""
        return cls(os.environ.get(variable, "").strip())

    def inside(self, text: str) -> bool:
        """Is the key in the text: as it is, escaped (JSON, HTML, URL, also several times), with signs in between or in
        other cases, backwards, numbered, as hexadecimal, code points, base64 or base32; or a good part of it?
        """
        if not self._key:
            return False
        for _ in range(LAYERS):
            if self._key in text:
                return True
            for bare in {_bare(text), _bare(NUMBERED.sub("", text))}:
                if any(piece in bare for piece in self._pieces):
                    return True
            opened = unquote_plus(html.unescape(ESCAPE.sub(_opened, text)))
            if opened == text:
                break
            text = opened
        return False

    def blot(self, text: str) -> str:
        """For messages: *** for the key, or nothing at all of a text that holds it otherwise."""
        text = text.replace(self._key, "***") if self._key else text
        return "(a message that holds the key)" if self.inside(text) else text

    def check(self, texts: Iterable[str], where: str) -> None:
        """Raises UserError if one of the texts that are about to be written holds the key."""
        if self._key and any(self.inside(text) for text in texts):
            raise UserError(f"{where}: the endpoint's key stands in it; nothing was written: ask another endpoint")

    def __repr__(self) -> str:
        return "Secret(***)" if self._key else "Secret()"

    def __reduce__(self) -> tuple:
        return type(self), ()


def _bare(text: str | bytes) -> str:
    """Letters and digits alone, in one case and one form, without accents."""
    text = text.decode("ascii") if isinstance(text, bytes) else text
    if text.isascii():
        return text.lower().encode().translate(None, SIGNS).decode()
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKD", text.translate(TAGGED)))).lower()


def _opened(match: re.Match) -> str:
    if code := match[1] or match[2] or match[3] or match[6]:
        return chr(min(int(code, 16), 0x10FFFF))
    return chr(int(match[4], 8)) if match[4] else {"n": "\n", "t": "\t", "r": "\r"}.get(match[5], match[5])
