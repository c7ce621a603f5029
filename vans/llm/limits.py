"""Requests and tokens per minute, over all threads of a process; the clock can be replaced in tests."""

import threading
import time
from collections import deque

MINUTE = 60.0  # s
TICK = 1e-3  # s; shorter waits are rounding


class Stopped(Exception):
    """Somebody else has already said why everything stops."""


class Stop(threading.Event):
    """Set when nothing more is to begin; error: why, where an error is the reason."""

    error: BaseException | None = None

    def because(self, error: BaseException) -> None:
        """Stop; the first error is the one that counts."""
        if not isinstance(error, Stopped):
            self.error = self.error or error
        self.set()


class Timer:
    """Real time. `sleep` ends early, with Stopped, when `stop` is set."""

    def now(self) -> float:
        """s, from anywhere, never back."""
        return time.monotonic()

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        if stop.wait(seconds):
            raise Stopped


class Limiter:
    """In no 60 s do more than `requests` calls begin, nor calls of more than `tokens` tokens (None: no limit).

    A single call of more tokens than that waits until it is alone in its minute.
    """

    def __init__(self, requests: int | None, tokens: int | None, clock: Timer) -> None:
        self.requests, self.tokens, self.clock = requests, tokens, clock
        self._lock = threading.Lock()
        self._begun: deque[list[float]] = deque()  # [time, tokens] of the last minute
        self._closed_until = float("-inf")

    def enter(self, tokens: int, stop: threading.Event) -> list[float]:
        """Wait until a call of about `tokens` may begin; the entry can be corrected afterwards by `correct`."""
        while True:
            with self._lock:
                now = self.clock.now()
                wait = self._wait(now, tokens)
                if wait <= 0:
                    self._begun.append(entry := [now, float(tokens)])
                    return entry
            self.clock.sleep(max(wait, TICK), stop)

    def correct(self, entry: list[float], tokens: int) -> None:
        """The call took this many tokens in truth."""
        with self._lock:
            entry[1] = float(tokens)

    def pause(self, seconds: float) -> None:
        """No call begins for so long: the endpoint has asked for it."""
        with self._lock:
            self._closed_until = max(self._closed_until, self.clock.now() + seconds)

    def _wait(self, now: float, tokens: int) -> float:
        while self._begun and self._begun[0][0] <= now - MINUTE + TICK / 2:
            self._begun.popleft()
        wait = self._closed_until - now
        if self.requests is not None and len(self._begun) >= self.requests:
            wait = max(wait, self._begun[len(self._begun) - self.requests][0] + MINUTE - now)
        if self.tokens is not None:
            used = sum(entry[1] for entry in self._begun)
            for entry in self._begun:  # the oldest leave first
                if used + tokens <= self.tokens:
                    break
                used -= entry[1]
                wait = max(wait, entry[0] + MINUTE - now)
        return wait
