"""Many calls at once to any endpoint that speaks OpenAI's chat completions over HTTP: Gemini, vLLM and many others.

httpx and tenacity rather than the package `openai`: both are in the environment anyway; whole-answer deadlines, token
and money limits and one pause for all threads would have to be built around that package's own retries; and its
exceptions carry the request with the key in it. Threads rather than asyncio: callers run inside notebooks, where
an event loop is already running.

The key comes from the environment variable that `key_variable` names and goes into one header. A message that repeats
it is blotted out before it is shown; an answer that holds it is thrown away.
"""

import email.utils
import json
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import httpx
import tenacity
from tqdm import tqdm

from vans.errors import UserError
from vans.llm import answers, http
from vans.llm.cache import Reply
from vans.llm.cost import Meter
from vans.llm.http import TooLarge, post
from vans.llm.limits import Limiter, Stop, Stopped, Timer
from vans.llm.net import check_url, is_local
from vans.llm.secret import Secret

MOST_TOKENS = 10**9  # of one call; an endpoint that counts more has miscounted, and the estimate is taken
SLOWEST = 60.0  # s, the longest wait between two attempts
PATIENCE = 300.0  # s; an endpoint that asks to wait longer has a quota that is used up
IN_A_ROW = 5  # calls that fail one after the other, each after all its retries, before everything stops
DECLINES = ("content_filter", "refusal")  # of `Reply.finish`
KEY_INSIDE = "key"  # the same, of an answer that held the key and whose text was thrown away
NO_ANSWER, NOT_TAKEN, BROKEN = "gave no answer", "did not take the request", "nothing to send"


@dataclass(frozen=True)
class Ask:
    """One call. key: of the kept answer ("": none is kept). tokens: that it will take, about.

    content: makes the user message's parts, when its turn has come; ValueError if it cannot. forms: further fields of
    the request, best first; the first that the endpoint takes is used for all that follow.
    """

    key: str
    task: str
    system: str
    content: Callable[[], list[dict]]
    tokens: int
    temperature: float
    forms: tuple[dict[str, Any], ...] = ({},)


@dataclass(frozen=True)
class Unanswered:
    """why: NO_ANSWER, NOT_TAKEN or BROKEN. detail: what happened, in one line without the key."""

    why: str
    detail: str = ""


class Again(Exception):
    """Worth another attempt. wait: s that the endpoint asks for. limited: it says that calls come too fast."""

    def __init__(self, why: str, wait: float = 0.0, limited: bool = False) -> None:
        super().__init__(why)
        self.wait, self.limited = wait, limited


class Client:
    """section: where `llm` stands in params.yaml. meter: counts and keeps what is answered. safe: what a message says
    of what is done so far. patient: calls that fail are only told, however many; else IN_A_ROW of them stop the run.

    Raises UserError if there is no key, or the URL is not safe to send one to.
    """

    def __init__(
        self,
        llm: Any,
        section: str,
        meter: Meter,
        clock: Timer | None = None,
        safe: str = "every answer so far is kept",
        patient: bool = False,
    ) -> None:
        self.llm, self.section, self.meter, self.safe, self.patient = llm, section, meter, safe, patient
        try:
            self.url = check_url(llm.url, llm.plain_http) + "/chat/completions"
        except ValueError as error:
            raise UserError(f"params.yaml: {section}: {error}") from None
        self.host = urlsplit(self.url).hostname or ""
        key = read_key(llm.key_variable, f"{section}.key_variable", needed=not is_local(self.host))
        self.secret = Secret(key)
        self.clock = clock or Timer()
        self.limiter = Limiter(llm.requests_per_minute, llm.tokens_per_minute, self.clock)
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        limits = httpx.Limits(max_connections=llm.concurrency)
        self.client = http.client(self.host, headers=headers, timeout=llm.timeout, limits=limits)
        self._lock = threading.Lock()
        self._form, self._form_works, self._failed = 0, False, 0

    def ask(self, asked: Sequence[Ask], progress: str = "") -> list[Reply | Unanswered]:
        """Answer all, `concurrency` at a time; what was answered before an error is kept. progress: a bar's name."""
        out: list[Reply | Unanswered] = [Unanswered(NO_ANSWER)] * len(asked)
        stop = Stop()
        bar = tqdm(total=len(asked), desc=progress, unit="call", disable=not progress, mininterval=2.0)
        with ThreadPoolExecutor(self.llm.concurrency) as pool, bar:
            jobs = {pool.submit(self._one, ask, stop): i for i, ask in enumerate(asked)}
            try:
                for job in as_completed(jobs):
                    out[jobs[job]] = job.result()
                    bar.set_postfix_str(f"cost {self.meter.cost:.2f}", refresh=False)
                    bar.update()
            except BaseException as error:
                stop.because(error)
                pool.shutdown(wait=True, cancel_futures=True)  # calls under way end, and their answers are kept
                raise stop.error or error from None
        return out

    # --------------------------------------------------------------------------------------------- one question
    def _one(self, ask: Ask, stop: Stop) -> Reply | Unanswered:
        try:
            if stop.is_set():
                raise Stopped
            return self._asked(ask, stop)
        except BaseException as error:
            stop.because(error)  # here, not in the main thread: no other call is to begin before that wakes up
            raise

    def _asked(self, ask: Ask, stop: Stop) -> Reply | Unanswered:
        try:
            user = {"role": "user", "content": ask.content()}
        except ValueError as error:
            return Unanswered(BROKEN, str(error))
        messages = [{"role": "system", "content": ask.system}, user]
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Again),
            stop=tenacity.stop_after_attempt(self.llm.retries + 1),
            wait=_wait,
            sleep=lambda seconds: self.clock.sleep(seconds, stop),
            reraise=True,
        )
        try:
            reply = retrying(self._attempt, ask, messages, stop)
        except Again as error:
            if error.limited and not self.patient:
                raise UserError(
                    f"{self.host}: calls come too fast for it ({error}); {self.safe}: lower "
                    f"{self.section}.requests_per_minute, tokens_per_minute or concurrency and run again"
                ) from None
            reply = Unanswered(NO_ANSWER, str(error))
        self._count(reply)
        return reply

    def _count(self, reply: Reply | Unanswered) -> None:
        with self._lock:
            self._failed = failed = self._failed + 1 if isinstance(reply, Unanswered) else 0
        if isinstance(reply, Unanswered) and failed >= IN_A_ROW and not self.patient:
            raise UserError(
                f"{self.host}: {failed} calls in a row failed, the last one: {reply.detail}; {self.safe}: "
                f"see to the endpoint ({self.section}.url, model) and run again"
            )

    def _attempt(self, ask: Ask, messages: list[dict], stop: Stop) -> Reply | Unanswered:
        """One attempt, in the best form that the endpoint takes. Raises Again, Stopped or UserError."""
        first, works = self._form, self._form_works
        for number in range(first, first + 1 if works else len(ask.forms)):
            with self._turn(ask, stop) as entry:
                status, data, headers = self._post(self._body(messages, ask, number), ask)
                if status in (400, 422) and not works and number + 1 < len(ask.forms):
                    continue
                reply = self._understood(status, data, headers, ask)
                if isinstance(reply, Reply):
                    with self._lock:
                        self._form, self._form_works = number, True
                    self.limiter.correct(entry, reply.input + reply.output)
                    self.meter.paid(ask.key, ask.task, self.llm.model, reply)
                return reply
        raise AssertionError("the last form always returns")

    @contextmanager
    def _turn(self, ask: Ask, stop: Stop) -> Iterator[list[float]]:
        """Wait until budget and rates allow a call."""
        with self.meter.room(ask.tokens, stop):
            entry = self.limiter.enter(ask.tokens + self.llm.answer_tokens, stop)
            if stop.is_set():
                raise Stopped
            yield entry

    def _post(self, body: dict, ask: Ask) -> tuple[int, bytes, httpx.Headers]:
        """(status, body, headers), the whole of it within `timeout` s. Raises Again if there is none."""
        try:
            return post(self.client, self.url, body, self.llm.timeout)
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Again(f"no connection ({self.secret.blot(str(error))})") from None
        except TooLarge as error:
            why = str(error)
        except httpx.TimeoutException:
            why = f"no whole answer within {self.llm.timeout:g} s"
        except (httpx.HTTPError, httpx.StreamError) as error:
            why = f"the connection broke ({self.secret.blot(str(error)) or type(error).__name__})"
        self.meter.may_be_paid(ask.tokens)
        raise Again(why)

    def _body(self, messages: list[dict], ask: Ask, number: int) -> dict:
        body: dict[str, Any] = {
            "model": self.llm.model,
            "messages": messages,
            "temperature": ask.temperature,
            "max_tokens": self.llm.max_tokens,
            **ask.forms[number],
        }
        return {name: value for name, value in {**body, **self.llm.extra}.items() if value is not None}

    # ------------------------------------------------------------------------------------------ what comes back
    def _understood(self, status: int, data: bytes, headers: httpx.Headers, ask: Ask) -> Reply | Unanswered:
        """A reply, or a refusal of this one request. Raises Again, or UserError where no request will succeed."""
        text = data.decode("utf-8", "replace")
        said, section = f"{status}: {self._short(text)}", self.section
        if status in (401, 403):
            raise UserError(
                f"{self.host}: refuses the key ({said}); put a valid one into the environment variable "
                f"{self.llm.key_variable} and run again: {self.safe}"
            )
        if status == 402 or (status == 429 and "insufficient_quota" in text):
            raise UserError(f"{self.host}: nothing left to pay with ({said}); {self.safe}")
        if status in (404, 405):
            raise UserError(f"{self.host}: no such model or address ({said}); see {section}.url and {section}.model")
        if status == 413:
            raise UserError(f"{self.host}: requests are too large ({said}); lower {section}.frames or side")
        if 300 <= status < 400:
            raise UserError(f"{self.host}: redirects ({status}), which is not followed with a key; set {section}.url")
        if status in (408, 409, 425, 429) or status >= 500:
            wait = retry_after(headers.get("retry-after"))
            if wait > PATIENCE:
                raise UserError(f"{self.host}: asks to wait {wait:.0f} s ({said}); {self.safe}: run again then")
            if wait:
                self.limiter.pause(wait)
            raise Again(said, wait, limited=status == 429)
        if status >= 400:
            return Unanswered(NOT_TAKEN, said)
        return self._parsed(text, ask)

    def _parsed(self, text: str, ask: Ask) -> Reply:
        try:
            return self._reply(json.loads(text), ask)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            self.meter.may_be_paid(ask.tokens)
            raise Again(f"not the answer of a chat endpoint: {self._short(text)}") from None

    def _reply(self, tree: Any, ask: Ask) -> Reply:
        """The answer in a chat completion; token counts are the endpoint's, or estimated where it gives none."""
        choice = tree["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason") or "stop"
        content = message.get("content") or ""
        if isinstance(content, list):  # some give parts
            content = "".join(part.get("text") or "" for part in content)
        if not content and message.get("refusal"):
            content, finish = message["refusal"], "refusal"
        usage = tree.get("usage") or {}
        input, output = _tokens(usage.get("prompt_tokens")), _tokens(usage.get("completion_tokens"))
        if (total := _tokens(usage.get("total_tokens"))) and input is not None:
            output = max(output or 0, total - input)  # some leave hidden thinking out of completion_tokens
        text = answers.clean(str(content))
        input = ask.tokens if input is None else input
        output = len(text.encode()) // 4 + 1 if output is None else output
        if holds(self.secret, str(content)) or self.secret.inside(str(finish)) or self.secret.inside(text):
            return Reply("", KEY_INSIDE, input, output)
        return Reply(text, answers.one_line(str(finish))[:40], input, output, likely(choice))

    def _short(self, text: str) -> str:
        """An endpoint's message in one short line."""
        try:
            tree = json.loads(text)
            error = tree[0] if isinstance(tree, list) else tree
            error = error.get("error", error)
            text = str(error["message"] if isinstance(error, dict) else error)
        except (ValueError, LookupError, AttributeError, RecursionError):
            pass
        line = answers.one_line(self.secret.blot(text))
        return line if len(line) <= 200 else line[:200] + " ..."


def read_key(variable: str, named: str, needed: bool) -> str:
    """The key from the environment ("" if there is none and none is needed). UserError names the variable, no more."""
    key = os.environ.get(variable, "").strip()
    if not key and needed:
        raise UserError(f"no key: set the environment variable {variable} (named by {named})")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"the environment variable {variable} holds no key: spaces or signs that no key has")
    return key


def holds(secret: Secret, text: str) -> bool:
    """Is the key in an answer, or in the decoded fields of an object in it, in pieces too?"""
    found = answers.objects(text) if len(text) <= answers.LONGEST_ANSWER else ()  # longer ones are never read
    fields = ("".join(value for value in each.values() if isinstance(value, str)) for each in found)
    return secret.inside(text) or any(map(secret.inside, fields))


def likely(choice: dict) -> tuple[dict[str, float], ...]:
    """For each token of an answer the likeliest ones and their log-probabilities; () where nothing (sound) is given."""
    try:
        rows = []
        for place in choice["logprobs"]["content"]:
            found = {}
            for token in [place, *(place.get("top_logprobs") or [])]:
                if math.isfinite(value := float(token["logprob"])) and value <= 1e-3:
                    found[str(token["token"])] = value
            rows.append(found)
        return tuple(rows)
    except (LookupError, TypeError, ValueError, AttributeError):
        return ()


def retry_after(value: str | None) -> float:
    """The header Retry-After, seconds or a date, as s from now; 0 if it says nothing that can be understood."""
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return max(0.0, seconds) if seconds == seconds else 0.0


def _wait(state: tenacity.RetryCallState) -> float:
    """Exponential with full jitter; at least what the endpoint asks for, and then not all threads at once."""
    backoff = tenacity.wait_random_exponential(multiplier=1.0, max=SLOWEST)(state)
    error = state.outcome.exception() if state.outcome else None
    asked = error.wait if isinstance(error, Again) else 0.0
    return max(backoff, asked + random.random()) if asked else backoff


def _tokens(value: Any) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= MOST_TOKENS else None
