"""Any endpoint that speaks OpenAI's chat completions over HTTP: Gemini, vLLM and many others.

httpx and tenacity rather than the package `openai`: both are in the environment anyway; whole-answer deadlines, token
and money limits and one pause for all threads would have to be built around that package's own retries; and its
exceptions carry the request with the key in it. Threads rather than asyncio: curation runs inside notebooks, where
an event loop is already running.

The key comes from the environment variable that `curate.llm.key_variable` names, goes into one header, and is
blotted out of everything that comes back, before it is kept or shown.
"""

import base64
import email.utils
import io
import json
import os
import random
import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import tenacity
from PIL import Image
from tqdm import tqdm

from vans.data.annotate import answers, prompts
from vans.data.annotate.base import Refused
from vans.data.annotate.cache import Reply
from vans.data.annotate.limits import Clock, Limiter, Stop, Stopped
from vans.data.annotate.llm import BROKEN, LLM, SAID, Query
from vans.errors import UserError
from vans.params import check_url, is_local

QUALITY = 90  # of the JPEG pictures
LARGEST = 8 * 2**20  # bytes of an answer
MOST_TOKENS = 10**9  # of one call; an endpoint that counts more has miscounted, and the estimate is taken
SLOWEST = 60.0  # s, the longest wait between two attempts
PATIENCE = 300.0  # s; an endpoint that asks to wait longer has a quota that is used up
IN_A_ROW = 5  # calls that fail one after the other, each after all its retries, before the run stops
FORMATS = ("json_schema", "json_object", "text")  # of answers, best first; the first that the endpoint takes is used
NO_ANSWER = "the annotator's endpoint gave no answer"
NOT_TAKEN = "the annotator's endpoint did not take the request"


class Again(Exception):
    """Worth another attempt. wait: s that the endpoint asks for. limited: it says that calls come too fast."""

    def __init__(self, why: str, wait: float = 0.0, limited: bool = False) -> None:
        super().__init__(why)
        self.wait, self.limited = wait, limited


class OpenAI(LLM):
    """The annotator `openai`. Raises UserError if there is no key, or the URL is not safe to send one to."""

    def __init__(
        self, params: Any, root: str | Path | None = None, progress: bool = True, clock: Clock | None = None
    ) -> None:
        llm = params.curate.llm
        try:
            self.url = check_url(llm.url, llm.plain_http) + "/chat/completions"
        except ValueError as error:
            raise UserError(f"params.yaml: curate.llm: {error}") from None
        self.host = urlsplit(self.url).hostname or ""
        self._key_text = read_key(llm.key_variable, needed=not is_local(self.host))
        super().__init__(params, root, progress)
        self.model = llm.model
        self.clock = clock or Clock()
        self.limiter = Limiter(llm.requests_per_minute, llm.tokens_per_minute, self.clock)
        self.client = self._client()
        self._lock = threading.Lock()
        self._format, self._format_works, self._failed = 0, False, 0

    def answer(self, keys: Sequence[str], queries: Sequence[Query]) -> list[Reply | Refused]:
        """Answer all, `concurrency` at a time; what was answered before an error is kept."""
        out: list[Reply | Refused] = [Refused(NO_ANSWER)] * len(queries)
        stop = Stop()
        task, quiet = queries[0].task, not self.progress or len(queries) < SAID
        bar = tqdm(total=len(queries), desc=f"annotate, {task}", unit="call", disable=quiet, mininterval=2.0)
        with ThreadPoolExecutor(self.llm.concurrency) as pool, bar:
            jobs = {pool.submit(self._one, k, q, stop): i for i, (k, q) in enumerate(zip(keys, queries))}
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

    def _client(self) -> httpx.Client:
        """One for all threads and batches, so that connections are used again."""
        headers = {"Authorization": f"Bearer {self._key_text}"} if self._key_text else {}
        limits = httpx.Limits(max_connections=self.llm.concurrency)
        proxies = not is_local(self.host)  # no proxy can reach this machine's own ports
        return httpx.Client(headers=headers, timeout=self.llm.timeout, limits=limits, trust_env=proxies)

    # --------------------------------------------------------------------------------------------- one question
    def _one(self, key: str, query: Query, stop: Stop) -> Reply | Refused:
        try:
            if stop.is_set():
                raise Stopped
            return self._asked(key, query, stop)
        except BaseException as error:
            stop.because(error)  # here, not in the main thread: no other call is to begin before that wakes up
            raise

    def _asked(self, key: str, query: Query, stop: Stop) -> Reply | Refused:
        try:
            messages = self._messages(query)
        except ValueError as error:
            return Refused(BROKEN, detail=str(error))
        retrying = tenacity.Retrying(
            retry=tenacity.retry_if_exception_type(Again),
            stop=tenacity.stop_after_attempt(self.llm.retries + 1),
            wait=_wait,
            sleep=lambda seconds: self.clock.sleep(seconds, stop),
            reraise=True,
        )
        try:
            reply = retrying(self._attempt, key, messages, query, stop)
        except Again as error:
            if error.limited:
                raise UserError(
                    f"{self.host}: calls come too fast for it ({error}); every answer so far is kept: lower "
                    "curate.llm.requests_per_minute, tokens_per_minute or concurrency and run again"
                ) from None
            self._count_failure(str(error))
            return Refused(NO_ANSWER, detail=str(error))
        if isinstance(reply, Refused):
            self._count_failure(reply.detail)
            return reply
        with self._lock:
            self._failed = 0
        return reply

    def _count_failure(self, why: str) -> None:
        with self._lock:
            self._failed += 1
            failed = self._failed
        if failed >= IN_A_ROW:
            raise UserError(
                f"{self.host}: {failed} calls in a row failed, the last one: {why}; every answer so far is kept: "
                "see to the endpoint (curate.llm.url, model) and run again"
            )

    def _attempt(self, key: str, messages: list[dict], query: Query, stop: Stop) -> Reply | Refused:
        """One attempt, in the best format that the endpoint takes. Raises Again, Stopped or UserError."""
        first, works = self._format, self._format_works
        for number in range(first, first + 1 if works else len(FORMATS)):
            with self._turn(query, stop) as entry:
                status, data, headers = self._post(self._body(messages, query, FORMATS[number]), query)
                if status in (400, 422) and not works and number + 1 < len(FORMATS):
                    continue
                reply = self._understood(status, data, headers, query)
                if isinstance(reply, Reply):
                    with self._lock:
                        self._format, self._format_works = number, True
                    self.limiter.correct(entry, reply.input + reply.output)
                    self.meter.paid(key, query.task, self.model, reply)
                return reply
        raise AssertionError("the last format always returns")

    @contextmanager
    def _turn(self, query: Query, stop: Stop) -> Iterator[list[float]]:
        """Wait until budget and rates allow a call."""
        tokens = self.tokens(query)
        with self.meter.room(tokens, stop):
            entry = self.limiter.enter(tokens + self.llm.answer_tokens, stop)
            if stop.is_set():
                raise Stopped
            yield entry

    def _post(self, body: dict, query: Query) -> tuple[int, bytes, httpx.Headers]:
        """(status, body, headers), the whole of it within `timeout` s. Raises Again if there is none."""
        deadline = time.monotonic() + self.llm.timeout
        data = bytearray()
        try:
            with self.client.stream("POST", self.url, json=body) as response:
                for piece in response.iter_bytes():
                    data += piece
                    if len(data) > LARGEST:
                        raise Again(f"the answer is larger than {LARGEST >> 20} MB")
                    if time.monotonic() > deadline:
                        raise httpx.ReadTimeout("slow")
                return response.status_code, bytes(data), response.headers
        except Again:
            self.meter.may_be_paid(self.tokens(query))
            raise
        except (httpx.ConnectError, httpx.ConnectTimeout) as error:
            raise Again(f"no connection ({self._safe(str(error))})") from None
        except httpx.TimeoutException:
            self.meter.may_be_paid(self.tokens(query))
            raise Again(f"no whole answer within {self.llm.timeout:g} s") from None
        except (httpx.HTTPError, httpx.StreamError) as error:
            self.meter.may_be_paid(self.tokens(query))
            raise Again(f"the connection broke ({self._safe(str(error)) or type(error).__name__})") from None

    # ------------------------------------------------------------------------------------------ what goes there
    def _messages(self, query: Query) -> list[dict]:
        """System and user message, pictures as JPEG in data URLs. ValueError if a clip is damaged."""
        content: list[dict] = []
        for kind, value in prompts.split(query.user):
            if kind == "text":
                content.append({"type": "text", "text": value})
            elif value in query.clips:
                for picture in query.clips[value].pictures(query.most, self.llm.side):
                    content.append({"type": "image_url", "image_url": {"url": _data_url(picture)}})
            else:
                content.append({"type": "text", "text": "(no pictures)"})
        return [{"role": "system", "content": query.system}, {"role": "user", "content": content}]

    def _body(self, messages: list[dict], query: Query, form: str) -> dict:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "temperature": self.temperature(query),
            "max_tokens": self.llm.max_tokens,
        }
        if form == "json_schema":
            shape = {"name": query.task, "strict": True, "schema": answers.schema(query.fields)}
            body["response_format"] = {"type": form, "json_schema": shape}
        elif form == "json_object":
            body["response_format"] = {"type": form}
        return {name: value for name, value in {**body, **self.llm.extra}.items() if value is not None}

    # ------------------------------------------------------------------------------------------ what comes back
    def _understood(self, status: int, data: bytes, headers: httpx.Headers, query: Query) -> Reply | Refused:
        """A reply, or a refusal of this one request. Raises Again, or UserError where no request will succeed."""
        text = data.decode("utf-8", "replace")
        said = f"{status}: {self._short(text)}"
        if status in (401, 403):
            raise UserError(
                f"{self.host}: refuses the key ({said}); put a valid one into the environment variable "
                f"{self.llm.key_variable} and run again: every answer so far is kept"
            )
        if status == 402 or (status == 429 and "insufficient_quota" in text):
            raise UserError(f"{self.host}: nothing left to pay with ({said}); every answer so far is kept")
        if status in (404, 405):
            raise UserError(f"{self.host}: no such model or address ({said}); see curate.llm.url and curate.llm.model")
        if status == 413:
            raise UserError(f"{self.host}: requests are too large ({said}); lower curate.llm.frames or side")
        if 300 <= status < 400:
            raise UserError(f"{self.host}: redirects ({status}), which is not followed with a key; set curate.llm.url")
        if status in (408, 409, 425, 429) or status >= 500:
            wait = retry_after(headers.get("retry-after"))
            if wait > PATIENCE:
                raise UserError(
                    f"{self.host}: asks to wait {wait:.0f} s ({said}); every answer so far is kept: run again then"
                )
            if wait:
                self.limiter.pause(wait)
            raise Again(said, wait, limited=status == 429)
        if status >= 400:
            return Refused(NOT_TAKEN, detail=said)
        try:
            return self._reply(json.loads(text), query)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
            self.meter.may_be_paid(self.tokens(query))
            raise Again(f"not the answer of a chat endpoint: {self._short(text)}") from None

    def _reply(self, tree: Any, query: Query) -> Reply:
        """The answer in a chat completion; token counts are the endpoint's, or estimated where it gives none."""
        choice = tree["choices"][0]
        message, finish = choice["message"], choice.get("finish_reason") or "stop"
        content = message.get("content") or ""
        if isinstance(content, list):  # some give parts
            content = "".join(part.get("text") or "" for part in content)
        if not content and message.get("refusal"):
            content, finish = message["refusal"], "refusal"
        text = answers.clean(self._safe(str(content)))
        usage = tree.get("usage") or {}
        input = _tokens(usage.get("prompt_tokens"))
        output = _tokens(usage.get("completion_tokens"))
        if (total := _tokens(usage.get("total_tokens"))) and input is not None:
            output = max(output or 0, total - input)  # some leave hidden thinking out of completion_tokens
        if input is None:
            input = self.tokens(query)
        finish = answers.one_line(self._safe(str(finish)))[:40]
        return Reply(text, finish, input, len(text.encode()) // 4 + 1 if output is None else output)

    def _safe(self, text: str) -> str:
        """Without the key. (One of fewer than six characters, such as EMPTY, is no secret.)"""
        return text.replace(self._key_text, "***") if len(self._key_text) >= 6 else text

    def _short(self, text: str) -> str:
        """An endpoint's message in one short line."""
        try:
            tree = json.loads(text)
            error = tree[0] if isinstance(tree, list) else tree
            error = error.get("error", error)
            text = str(error["message"] if isinstance(error, dict) else error)
        except (ValueError, LookupError, AttributeError, RecursionError):
            pass
        line = answers.one_line(self._safe(text))
        return line if len(line) <= 200 else line[:200] + " ..."


def read_key(variable: str, needed: bool) -> str:
    """The key from the environment ("" if there is none and none is needed). UserError names the variable, no more."""
    key = os.environ.get(variable, "").strip()
    if not key and needed:
        raise UserError(f"no key: set the environment variable {variable} (named by curate.llm.key_variable)")
    if not key.isascii() or not key.isprintable() or " " in key:
        raise UserError(f"the environment variable {variable} holds no key: spaces or signs that no key has")
    return key


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


def _data_url(picture: Any) -> str:
    out = io.BytesIO()
    Image.fromarray(picture).save(out, "JPEG", quality=QUALITY)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()
