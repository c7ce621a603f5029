"""How long a run still takes, from how long others took."""

from __future__ import annotations

import time

NEW = 0.3  # weight of the latest


class Pace:
    """Seconds of thinking, of a step of rendering and of what comes after, each for so many answers at once."""

    def __init__(self) -> None:
        self._known: dict[tuple[str, int], float] = {}

    def learn(self, part: str, answers: int, seconds: float) -> None:
        """part: think, step, rest."""
        before = self._known.get((part, answers), seconds)
        self._known[part, answers] = before + NEW * (seconds - before)

    def of(self, part: str, answers: int) -> float | None:
        """Expected seconds; of another number of answers where this one was never met (not more than as many times
        longer); None if nothing is known."""
        if answers == 0:
            return 0.0
        if (known := self._known.get((part, answers))) is not None:
            return known
        others = [(n, seconds) for (name, n), seconds in self._known.items() if name == part]
        if not others:
            return None
        n, seconds = min(others, key=lambda other: abs(other[0] - answers))
        return seconds * max(1.0, answers / n)

    def whole(self, think: int, render: int, steps: int) -> float | None:
        """Seconds of a run with so many answers to think of and to render."""
        parts = (self.of("think", think), self.of("step", render), self.of("rest", render))
        return None if None in parts else parts[0] + steps * parts[1] + parts[2]  # type: ignore[operator]


class Clock:
    """Of one run under way; tells `pace` what was learned."""

    def __init__(self, pace: Pace, think: int, render: int, steps: int) -> None:
        self.pace, self.think, self.render, self.steps = pace, think, render, steps
        self.begun = self._at = time.monotonic()
        self._done, self._of = 0, 0

    def thought(self) -> None:
        """Thinking is over."""
        now = time.monotonic()
        if self.think:
            self.pace.learn("think", self.think, now - self._at)
        self._at, self._of = now, self.steps

    def stepped(self, done: int, of: int) -> None:
        """A step of rendering is over. of: of all batches."""
        self._done, self._of = done, of
        if done == of:
            self.pace.learn("step", self.render, (time.monotonic() - self._at) / self.steps)
            self._at = time.monotonic()

    def over(self) -> float:
        """All is over; its seconds."""
        now = time.monotonic()
        self.pace.learn("rest", self.render, now - self._at)
        return now - self.begun

    def left(self) -> float | None:
        """Seconds to come, as far as one can know."""
        gone = time.monotonic() - self._at
        if not self._of:  # thinking
            whole = self.pace.whole(self.think, self.render, self.steps)
            return None if whole is None else max(whole - gone, whole - (self.pace.of("think", self.think) or 0.0))
        rest = self.pace.of("rest", self.render) or 0.0
        if self._done == self._of:
            return max(0.0, rest - gone)
        step = gone / self._done * (self._of / self.steps) if self._done else self.pace.of("step", self.render)
        return None if step is None else max(0.0, step * self.steps - gone) + rest
