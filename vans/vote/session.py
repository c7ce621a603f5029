"""What the browser is told and what it may say: no name of an arm, no path, no trial before its turn.

Videos are asked for by tokens. Each is drawn anew whenever a screen is handed out, so that neither two screens nor two
sides of one can be told to show the same video; what was not handed out cannot be asked for.
"""

import math
import secrets
import threading
import unicodedata
from collections import OrderedDict
from functools import lru_cache
from typing import Any

from vans.local.server import Refused
from vans.visible import words
from vans.vote import ballots
from vans.vote.plan import ASKED, INPUT, LIKERT, TIE, TRUTH, Plan, Side, Trial, well_marked
from vans.vote.sheets import Sheet, sheet

TOKENS = 4096  # handed out and still known
NAME = 60  # characters of a rater's name
LONGEST = 86_400.0  # s that a vote may have taken


class Session:
    """One plan, its file of votes, and the raters who come and go. Safe to be used by several threads."""

    def __init__(self, plan: Plan, file: ballots.Ballots) -> None:
        self.plan, self.file = plan, file
        self._tokens: OrderedDict[str, Side] = OrderedDict()
        self._lock = threading.Lock()
        self._sheet = lru_cache(maxsize=64)(lambda side: sheet(*plan.clip(side)))
        self.trials = lru_cache(maxsize=256)(plan.trials)

    # ------------------------------------------------------------------------------------------------- answers
    def start(self, given: dict[str, Any]) -> dict[str, Any]:
        """Where a rater is: the number of the next trial, from 1, of how many; what the form asks."""
        rater = self.rater(given)
        plan = self.plan
        asked = list(ASKED) if plan.form == LIKERT else []
        return {
            "rater": rater,
            "next": self._next(rater),
            "of": len(self.trials(rater)),
            "plan": plan.name,
            "asked": asked,
        }

    def trial(self, given: dict[str, Any]) -> dict[str, Any]:
        """One screen: question, clips, candidates; and the vote that was given there before.

        Up to the one after the next may be asked for, so that it is loaded in time.
        """
        rater, number, trial = self._asked(given, ahead=1)
        sample = self.plan.samples[trial.sample]
        before = self.file.votes.get(rater, {}).get(number)
        shown = {"number": number, "question": words(sample.question), "before": self._before(trial, before)}
        shown["input"] = None if sample.input is None else self._clip(Side(INPUT, trial.sample))
        if self.plan.truth and sample.truth is not None:
            shown["truth"] = {**self._clip(Side(TRUTH, trial.sample)), "caption": words(sample.caption)}
        shown["sides"] = [{**self._clip(side), "caption": self._caption(side)} for side in trial.sides]
        return shown

    def vote(self, given: dict[str, Any]) -> dict[str, Any]:
        """Write a vote down; answers like `start`. An earlier one may be changed."""
        rater, number, trial = self._asked(given)
        seconds = given.get("seconds")
        if not isinstance(seconds, int | float) or not -math.inf < seconds < math.inf:
            raise Refused("the time is no number")
        choice = self._choice(trial, given.get("choice"))
        self.file.add(ballots.row(self.plan, rater, number, trial, choice, min(max(seconds, 0.0), LONGEST)))
        return self.start(given)

    def media(self, token: str) -> Sheet:
        """The clip of a token; Refused if there is none."""
        with self._lock:
            side = self._tokens.get(token)
        if side is None:
            raise Refused("no such video; load the page again")
        return self._sheet(side)

    # ------------------------------------------------------------------------------------------------ what is asked
    def rater(self, given: dict[str, Any]) -> str:
        """A name in NFC, in one line."""
        name = given.get("rater")
        name = unicodedata.normalize("NFC", " ".join(name.split())) if isinstance(name, str) else ""
        if not name or len(name) > NAME or not name.isprintable():
            raise Refused(f"give a name of 1 to {NAME} letters")
        return name

    def _asked(self, given: dict[str, Any], ahead: int = 0) -> tuple[str, int, Trial]:
        rater, number = self.rater(given), given.get("number")
        if given.get("plan") != self.plan.name:
            raise Refused("this page is of another vote; load it again")
        trials = self.trials(rater)
        if type(number) is not int or not 1 <= number <= min(self._next(rater) + ahead, len(trials)):
            raise Refused("it is not that one's turn; load the page again")
        return rater, number, trials[number - 1]

    def _next(self, rater: str) -> int:
        """The first number without a vote."""
        given = self.file.votes.get(rater, {})
        return next(number for number in range(1, len(given) + 2) if number not in given)

    def _choice(self, trial: Trial, choice: Any) -> Any:
        """A side's name or "tie" (from 1, 2, … and 0); or marks per side."""
        if self.plan.form != LIKERT:
            if type(choice) is not int or not 0 <= choice <= len(trial.sides):
                raise Refused("no such choice")
            return TIE if choice == 0 else trial.names[choice - 1]
        if not well_marked(choice, len(trial.sides)):
            raise Refused("give every candidate 1 to 5 in every line")
        return choice

    def _before(self, trial: Trial, vote: dict[str, Any] | None) -> Any:
        """A former choice as the page gives it; None where there is none, or where copies hide which it was."""
        if vote is None or isinstance(vote["choice"], list):
            return None if vote is None else vote["choice"]
        if trial.names.count(vote["choice"]) > 1:
            return None
        return 0 if vote["choice"] == TIE else trial.names.index(vote["choice"]) + 1

    # ------------------------------------------------------------------------------------------------------- clips
    def _clip(self, side: Side) -> dict[str, Any]:
        with self._lock:
            token = secrets.token_urlsafe(16)
            self._tokens[token] = side
            while len(self._tokens) > TOKENS:
                self._tokens.popitem(last=False)
        return {"token": token, **self._sheet(side).described()}

    def _caption(self, side: Side) -> str:
        if not self.plan.captions:
            return ""
        sample = self.plan.samples[side.sample]
        if side.arm == TRUTH:
            return words(sample.caption)
        found = self.plan.arms[side.arm]
        return words(found.captions[found.ids.index(sample.id)])
