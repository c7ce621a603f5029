"""What a browser is told and what it may ask: checked here, before anything waits for the models.

Who asks is known by a secret that the browser got with the page (a cookie, so that it outlives reloads and restarts);
everybody sees their own runs alone. Clips are asked for by the ids of runs, which are drawn, or by the numbers of the
held-out samples: no name of a file leads anywhere.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import tempfile
import threading
import unicodedata
from collections import OrderedDict
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from vans.answer.watch import check_question
from vans.demo import source
from vans.demo.desk import Desk, Part, Run, Settings
from vans.demo.samples import Samples
from vans.demo.source import Source
from vans.errors import UserError
from vans.files import temporary
from vans.local.server import Refused
from vans.vote.sheets import Sheet

QUESTIONS = 3  # at once
QUESTION, CAPTION, NAME = 500, 1000, 120  # characters
SEED, STEPS, GUIDANCE = 2**31 - 1, 200, 30.0  # at most
UPLOADS = 16  # files that were brought and can still be asked about
PATIENCE = 15.0  # s that a browser waits for news
TOKEN = re.compile(r"(?:(sample)-(\d{1,4})|([0-9a-f]{32})-(input|\d))")


@dataclass(frozen=True)
class File:
    """Something to send. headers: further ones."""

    kind: str
    data: bytes
    headers: dict[str, str] = field(default_factory=dict)


class Session:
    """A desk, the held-out samples, and the files that were brought. Safe to be used by several threads."""

    def __init__(self, desk: Desk, samples: Samples, most: int) -> None:
        """most: bytes of a file that is brought."""
        self.desk, self.samples, self.most = desk, samples, most
        self._brought: OrderedDict[str, tuple[str, Source]] = OrderedDict()  # id -> owner, source
        self._lock, self._eyes = threading.Lock(), threading.Semaphore(2)
        self._clip = lru_cache(maxsize=64)(self._clip_of_shelf)

    # --------------------------------------------------------------------------------------------------- answers
    def start(self, owner: str, given: dict[str, Any]) -> dict[str, Any]:
        """All that a page shows when it is opened."""
        g, models = self.desk.models.params.generate, self.desk.models
        return {
            "samples": self.samples.told(),
            "common": self.samples.common,
            "defaults": {"seed": models.params.seed, "steps": g.steps, "guidance": g.guidance},
            "most": {"bytes": self.most, "questions": QUESTIONS, "question": QUESTION, "caption": CAPTION}
            | {"seed": SEED, "steps": STEPS, "guidance": GUIDANCE},
            "scale": models.params.scale,
            **self.desk.since(owner, 0),
        }

    def news(self, owner: str, given: dict[str, Any]) -> dict[str, Any]:
        """What has changed since a version; waits some time for it."""
        version = given.get("version")
        if type(version) is not int:
            raise Refused("the version is no number; load the page again")
        return self.desk.since(owner, version, PATIENCE)

    def ask(self, owner: str, given: dict[str, Any]) -> dict[str, Any]:
        """Questions about a source: {run}, under way from now on."""
        asked = given.get("questions")
        if not isinstance(asked, list) or not 1 <= len(asked) <= QUESTIONS:
            raise Refused(f"ask 1 to {QUESTIONS} questions")
        parts = [Part(_question(one)) for one in asked]
        return self._ask(Run(owner, self._source(owner, given.get("source")), _settings(given), parts))

    def render(self, owner: str, given: dict[str, Any]) -> dict[str, Any]:
        """A run again with another caption in the place of one of its own: {run}. The other videos stay."""
        id, number = given.get("run"), given.get("number")
        caption = _text(given.get("caption"), CAPTION, "the caption")
        told = self.desk.shelf.runs.get(id) if isinstance(id, str) else None
        if told is None or told["owner"] != owner or type(number) is not int or not 0 <= number < len(told["parts"]):
            raise Refused("that answer is not there any more; load the page again")
        assert isinstance(id, str)
        settings = Settings(told["seed"], told["steps"], told["guidance"])
        try:
            parts = [Part(**one, same=self.desk.shelf.kept(id, k)) for k, one in enumerate(told["parts"])]
            asked = self.desk.shelf.source(id)
        except (OSError, KeyError) as error:
            raise Refused("that answer is not there any more; load the page again") from error
        before = parts[number]
        own = before.own or before.caption
        parts[number] = Part(before.question, caption, before.reasoning, before.forced, None if own == caption else own)
        return self._ask(Run(owner, asked, settings, parts))

    def stop(self, owner: str, given: dict[str, Any]) -> dict[str, Any]:
        """Stop a run."""
        self.desk.halt(_id(given), owner)
        return {}

    def forget(self, owner: str, given: dict[str, Any]) -> dict[str, Any]:
        """Take a run out of the history."""
        self.desk.forget(_id(given), owner)
        return {}

    def bring(self, owner: str, name: str, path: Path) -> dict[str, Any]:
        """A file that was brought: {source, name, kind, clip}."""
        name = _name(name)
        models = self.desk.models
        with self._eyes, tempfile.TemporaryDirectory(prefix=temporary("look")) as folder:
            try:
                found = source.look(path, name, models.params.video, models.protocol, Path(folder))
            except UserError as error:
                raise Refused(str(error)) from error
        id = secrets.token_hex(16)
        with self._lock:
            self._brought[id] = owner, found
            while len(self._brought) > UPLOADS:
                self._brought.popitem(last=False)
        clip = {"token": f"{id}-input", **found.shown.described()}
        return {"source": id, "name": name, "kind": found.kind, "clip": clip}

    def media(self, owner: str, token: str) -> Sheet:
        """The clip of a token; Refused if there is none."""
        match = TOKEN.fullmatch(token)
        if match is None:
            raise Refused("no such clip; load the page again")
        if match[1]:
            return self.samples.shown(int(match[2]))
        id, number = match[3], match[4]
        try:
            if number == "input" and (brought := self._mine(owner, id)) is not None:
                return brought.shown
            run = self.desk.runs.get(id)
            if run is not None and run.owner == owner:
                kept = None if number == "input" else run.parts[int(number)].same
                if number == "input" or kept is not None:
                    return run.source.shown if kept is None else kept.strip
            self._check(owner, id)
            return self._clip(id, number)
        except (KeyError, IndexError, OSError) as error:
            raise Refused("no such clip; load the page again") from error

    def film(self, owner: str, token: str) -> File:
        """The video file of an answer; Refused if there is none."""
        match = TOKEN.fullmatch(token.removesuffix(".mp4"))
        try:
            if match is None or not match[3] or match[4] == "input":
                raise KeyError(token)
            self._check(owner, match[3])
            data = self.desk.shelf.kept(match[3], int(match[4])).film
        except (KeyError, IndexError, OSError) as error:
            raise Refused("no such video; load the page again") from error
        return File("video/mp4", data, {"Content-Disposition": 'attachment; filename="answer.mp4"'})

    # ------------------------------------------------------------------------------------------------- what is asked
    def _ask(self, run: Run) -> dict[str, Any]:
        self.desk.ask(run)
        return {"run": run.id}

    def _source(self, owner: str, id: Any) -> Source:
        """Of something that was brought, of a sample, or what a run was about."""
        try:
            if isinstance(id, str) and id.startswith("sample-") and (match := TOKEN.fullmatch(id)):
                return self.samples.source(int(match[2]))
            if isinstance(id, str) and (brought := self._mine(owner, id)) is not None:
                return brought
            self._check(owner, id)
            return self.desk.shelf.source(id)
        except (KeyError, TypeError, OSError) as error:
            raise Refused("what you ask about is not there any more; bring it again") from error

    def _mine(self, owner: str, id: str) -> Source | None:
        with self._lock:
            whose, found = self._brought.get(id, ("", None))
            return found if whose == owner else None

    def _check(self, owner: str, id: Any) -> None:
        """KeyError unless a run of the shelf is the owner's."""
        if self.desk.shelf.runs[id]["owner"] != owner:
            raise KeyError(id)

    def _clip_of_shelf(self, id: str, number: str) -> Sheet:
        return self.desk.shelf.shown(id) if number == "input" else self.desk.shelf.clip(id, int(number))


def owner_of(secret: str) -> str:
    """What is kept of a browser's secret."""
    return hashlib.sha256(secret.encode()).hexdigest()[:32]


def _id(given: dict[str, Any]) -> str:
    return given["run"] if isinstance(given.get("run"), str) else ""


def _text(given: Any, most: int, what: str) -> str:
    """A text in one line, of so many characters at most."""
    text = " ".join(given.split()) if isinstance(given, str) else ""
    if not text or len(text) > most or any("\ud800" <= sign <= "\udfff" for sign in text):
        raise Refused(f"{what} has 1 to {most} characters")
    return text


def _question(given: Any) -> str:
    """The same, that the VLM can be asked."""
    text = _text(given, QUESTION, "a question")
    try:
        check_question(text)
    except UserError as error:
        raise Refused(str(error)) from error
    return text


def _settings(given: dict[str, Any]) -> Settings:
    seed, steps, guidance = (given.get(name) for name in ("seed", "steps", "guidance"))
    if type(seed) is not int or not 0 <= seed <= SEED:
        raise Refused(f"the seed is a whole number from 0 to {SEED}")
    if type(steps) is not int or not 1 <= steps <= STEPS:
        raise Refused(f"steps are a whole number from 1 to {STEPS}")
    if isinstance(guidance, bool) or not isinstance(guidance, int | float) or not 1 <= guidance <= GUIDANCE:
        raise Refused(f"guidance is a number from 1 to {GUIDANCE:g}")
    return Settings(seed, steps, float(guidance))


def _name(name: str) -> str:
    """The last part of a file's name in one line, to be shown and never to be opened."""
    last = re.split(r"[/\\]", unicodedata.normalize("NFC", name))[-1]
    return "".join(sign for sign in last if sign.isprintable())[:NAME] or "your file"
