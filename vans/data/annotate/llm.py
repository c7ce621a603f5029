"""The steps of annotation by a multimodal LLM, whoever it is: choose the best clip; write; check; write again.

A subclass says how queries are answered (over HTTP, or by a model in this process). Every answer is kept, also one
that could not be used: the next run walks the same steps over the kept answers and asks only what was never
answered. Answers depend on nothing but what was asked, and stand in the order of the requests.
"""

import hashlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vans.data.annotate.base import Annotation, Candidate, Refused, Request, keep_given, leaks, telling
from vans.files import digest
from vans.llm import answers, prompts
from vans.llm.cache import Cache, Reply
from vans.llm.client import DECLINES, KEY_INSIDE, holds
from vans.llm.cost import Meter, estimate, text_tokens
from vans.llm.pictures import pictures, spread
from vans.llm.secret import Secret
from vans.media import video
from vans.params import find_root

# Reasons of refusals; reports count them.
LEAK = "every question gives the answer away"
UNREADABLE = "the annotator's answers could not be read"
DECLINED = "the annotator declined to answer"
UNUSABLE = "the annotator finds nothing usable in the segment"
NO_SOURCE = "neither a label nor pictures to write from"
BROKEN = "the clip to annotate is damaged"
ECHOED = "the annotator's answer holds the endpoint's key"

FOLDER = Path(__file__).parent / "prompts"
SAID = 16  # smaller batches are worked off without a word
NOBODY = "(nobody said)"


@dataclass(frozen=True, eq=False)
class Clip:
    """Pictures to show: a clip's file, or pictures uint8 [n, H, W, 3]."""

    content: bytes | np.ndarray

    @cached_property
    def digest(self) -> str:
        """Equal for equal content."""
        if isinstance(self.content, bytes):
            return hashlib.sha256(self.content).hexdigest()
        return hashlib.sha256(repr(self.content.shape).encode() + self.content.tobytes()).hexdigest()

    def pictures(self, most: int, side: int) -> np.ndarray:
        """At most so many, evenly spread, none longer than `side` px: uint8 [n, h, w, 3]. ValueError if damaged."""
        frames = video.decode(self.content)[0] if isinstance(self.content, bytes) else self.content
        return pictures(frames, most, side)


@dataclass(frozen=True)
class Query:
    """One question to the model. user: text with places for `clips` by name ([[input]]). most: pictures of a clip."""

    task: str
    system: str
    user: str
    fields: answers.Fields
    most: int
    attempt: int
    clips: dict[str, Clip] = field(default_factory=dict)


@dataclass
class Draft:
    """What has come of one request so far. again: what to add to the next question."""

    questions: list[str] = field(default_factory=list)
    again: str = ""
    reason: str = UNREADABLE


def load(name: str) -> prompts.Prompt:
    """prompts/<name>.md."""
    return prompts.load(FOLDER / f"{name}.md")


class LLM:
    """Annotator over any model. Subclasses answer queries; `model` is what answers depend on beside the query."""

    model = ""
    secret = Secret()

    def __init__(self, params: Any, root: str | Path | None = None, progress: bool = True) -> None:
        self.params, self.root, self.progress = params, Path(root or find_root()), progress
        self.llm = params.curate.llm
        self.chooses: tuple[int, int] | None = (self.llm.choose_frames, self.llm.side)
        self.meter = Meter(self.llm, Cache(self.root / Path(self.llm.cache).expanduser()))
        self.kept = 0  # answers that were there from before

    def __reduce__(self) -> tuple:
        """Another process opens its own files and reads the key from its own environment."""
        return type(self), (self.params, self.root, self.progress)

    def answer(self, keys: Sequence[str], queries: Sequence[Query]) -> list[Reply | Refused]:
        """Answer all, each reply given to `self.meter.paid` as soon as it is there. UserError: nothing more can be."""
        raise NotImplementedError

    # ------------------------------------------------------------------------------------------- the two tasks
    def choose(self, candidates: Sequence[Candidate]) -> list[float | Refused]:
        """Where the best clip of each segment begins: s, on the clock of `times`, early enough for a whole clip."""
        shown = [spread(len(c.times), self.llm.choose_frames) for c in candidates]
        out: list[float | Refused | None] = [None] * len(candidates)
        drafts = [Draft() for _ in candidates]
        for attempt in range(self.llm.attempts):
            todo = [i for i, made in enumerate(out) if made is None]
            asked = [self._choosing(candidates[i], shown[i], drafts[i], attempt) for i in todo]
            for i, reply in zip(todo, self._ask(asked), strict=True):
                out[i] = self._chosen(reply, candidates[i], shown[i], drafts[i])
        return [Refused(d.reason) if made is None else made for made, d in zip(out, drafts, strict=True)]

    def write(self, requests: Sequence[Request]) -> list[Annotation | Refused]:
        """Question, reasoning and caption of each pair; texts that a table gives are kept, not written again."""
        out: list[Annotation | Refused | None] = [self._unasked(request) for request in requests]
        drafts = [Draft() for _ in requests]
        for attempt in range(self.llm.attempts):
            todo = [i for i, made in enumerate(out) if made is None]
            replies = self._ask([self._writing(requests[i], drafts[i], attempt) for i in todo])
            texts: dict[int, dict[str, str]] = {}
            for i, reply in zip(todo, replies, strict=True):
                if isinstance(reply, Refused):
                    out[i] = reply
                elif (found := self._written(reply, requests[i], drafts[i])) is not None:
                    texts[i] = found
            checks = self._ask([self._checking(requests[i], texts[i], attempt) for i in texts])
            for i, reply in zip(texts, checks, strict=True):
                out[i] = self._checked(reply, texts[i], drafts[i])
        return [
            Refused(d.reason, tuple(d.questions)) if made is None else made for made, d in zip(out, drafts, strict=True)
        ]

    def spent(self) -> dict[str, Any]:
        """This run's calls, answers from before, tokens and cost; and the cost of all runs so far."""
        meter = self.meter
        return {
            "calls": meter.calls,
            "kept answers": self.kept,
            "lost calls": meter.lost,
            "tokens in": meter.input,
            "tokens out": meter.output,
            "cost": meter.cost,
            "cost of all runs": meter.cache.spent().cost,
        }

    # ------------------------------------------------------------------------------------------------ choosing
    def _choosing(self, candidate: Candidate, shown: np.ndarray, draft: Draft, attempt: int) -> Query:
        prompt = load("choose")
        times = np.asarray(candidate.times, dtype=float)
        values = {
            "count": len(shown),
            "times": ", ".join(f"{t - times[0]:.1f}" for t in times[shown]),
            "label": candidate.label or NOBODY,
            "seconds": f"{self._seconds:g}",
        }
        user = prompt.fill("user", **values) + draft.again
        clips = {"segment": Clip(np.ascontiguousarray(candidate.frames[shown]))}
        return Query("choose", prompt.fill("system"), user, answers.CHOOSE, len(shown), attempt, clips)

    def _chosen(
        self, reply: Reply | Refused, candidate: Candidate, shown: np.ndarray, draft: Draft
    ) -> float | Refused | None:
        if isinstance(reply, Refused):
            return reply
        try:
            if not answers.read(reply.text, {"usable": bool})["usable"]:
                return Refused(UNUSABLE)
            found = answers.read(reply.text, answers.CHOOSE)
            if not 1 <= found["picture"] <= len(shown):
                raise ValueError(f"there is no picture {found['picture']}")
        except ValueError as error:
            draft.again = "\n\n" + load("choose").fill("again: form", why=error, count=len(shown))
            return None
        times = np.asarray(candidate.times, dtype=float)
        step = (times[-1] - times[0]) / (len(times) - 1) if len(times) > 1 else 0.0
        latest = max(float(times[0]), float(times[-1]) + step - self._seconds)
        return min(float(times[shown[found["picture"] - 1]]), latest)

    @property
    def _seconds(self) -> float:
        """Length of the clip that is wanted, s: a target's; an input may be longer and begins at the same place."""
        return self.params.curate.target_seconds

    # ------------------------------------------------------------------------------------------------- writing
    def _unasked(self, request: Request) -> Annotation | Refused | None:
        """What needs no model: texts that are given, pairs that nothing is known of."""
        if request.given is not None:
            try:
                return keep_given(request)
            except Refused as reason:
                return reason
        return Refused(NO_SOURCE) if request.clips is None and not request.target_label else None

    def _writing(self, request: Request, draft: Draft, attempt: int) -> Query:
        prompt = load("write")
        user = prompt.fill("user", kind=request.kind, **_labels(request), target_label=request.target_label or NOBODY)
        clips = {}
        if request.clips is not None:
            clips = {"input": Clip(request.clips[0]), "target": Clip(request.clips[1])}
        fields, most = answers.WRITE, self.llm.frames
        return Query("write", prompt.fill("system"), user + draft.again, fields, most, attempt, clips)

    def _written(self, reply: Reply, request: Request, draft: Draft) -> dict[str, str] | None:
        """The texts, or None and what to say in the next attempt."""
        prompt = load("write")
        try:
            texts = answers.read(reply.text, answers.WRITE)
        except ValueError as error:
            draft.again, draft.reason = "\n\n" + prompt.fill("again: form", why=error), UNREADABLE
            return None
        texts["question"] = telling(texts["question"], request.told)
        answer = replace(request, target_label=request.target_label or texts["caption"])
        if leaks(texts["question"], answer):
            self._leaked(texts, draft)
            return None
        return texts

    def _leaked(self, texts: dict[str, str], draft: Draft) -> None:
        draft.questions.append(texts["question"])
        draft.again = "\n\n" + load("write").fill("again: leak", question=texts["question"])
        draft.reason = LEAK

    def _checking(self, request: Request, texts: dict[str, str], attempt: int) -> Query:
        prompt = load("check")
        user = prompt.fill("user", question=texts["question"], caption=texts["caption"], **_labels(request))
        return Query("check", prompt.fill("system"), user, answers.CHECK, 0, attempt)

    def _checked(self, reply: Reply | Refused, texts: dict[str, str], draft: Draft) -> Annotation | Refused | None:
        if isinstance(reply, Refused):
            return reply
        try:
            leaking = answers.read(reply.text, answers.CHECK)["leaks"]
        except ValueError:
            draft.again, draft.reason = "", UNREADABLE
            return None
        if leaking:
            self._leaked(texts, draft)
            return None
        refused = tuple(draft.questions)
        return Annotation(texts["question"], texts["reasoning"], texts["caption"], "written", refused)

    # -------------------------------------------------------------------------------------------------- asking
    def _ask(self, queries: Sequence[Query]) -> list[Reply | Refused]:
        """Answers in order: kept ones from the disk, the others (each only once) from the model."""
        keys = [self._key(query) for query in queries]
        replies: dict[str, Reply | Refused] = {k: r for k in set(keys) if (r := self.meter.cache.get(k)) is not None}
        missing = {key: query for key, query in zip(keys, queries, strict=True) if key not in replies}
        self.kept += len(replies)
        if missing:
            inputs = [self.tokens(query) for query in missing.values()]
            if self.progress and len(missing) >= SAID:
                said = f"{len(replies)} answers kept from before" if replies else "nothing kept from before"
                task = queries[0].task
                print(f"annotate, {task}: {estimate(self.llm, inputs)} ({said})", file=sys.stderr, flush=True)
            replies |= zip(missing, self.answer(list(missing), list(missing.values())), strict=True)
        return [_opened(replies[key], self.secret) for key in keys]

    def tokens(self, query: Query) -> int:
        """About how many tokens a query takes."""
        shown = [len(c.content) if isinstance(c.content, np.ndarray) else query.most for c in query.clips.values()]
        return text_tokens(query.system) + text_tokens(query.user) + self.llm.image_tokens * sum(shown)

    def temperature(self, query: Query) -> float:
        """Texts are to vary, judgements are not, unless the first one could not be read."""
        return self.llm.temperature if query.task == "write" or query.attempt else 0.0

    def _key(self, query: Query) -> str:
        """What an answer depends on: every word and picture of the query, the model and how it samples."""
        llm = self.llm
        return digest(
            {
                "asked": [query.task, query.system, query.user, query.attempt],
                "pictures": [[name, clip.digest] for name, clip in query.clips.items()],
                "shown": [query.most, llm.side] if query.clips else [],
                "model": [self.model, self.temperature(query), llm.max_tokens, llm.extra],
            }
        )


def _labels(request: Request) -> dict[str, str]:
    topic = request.topic or NOBODY
    if request.told:
        topic += f"; between what the clip shows and the answer this happens, and the question says so: {request.told}"
    return {"topic": topic, "input_label": request.input_label or NOBODY}


def _opened(reply: Reply | Refused, secret: Secret) -> Reply | Refused:
    """A reply in which the model or its filter declined, or that holds the endpoint's key, is a refusal."""
    if not isinstance(reply, Reply):
        return reply
    if reply.finish == KEY_INSIDE or holds(secret, reply.text):  # of runs before, too
        return Refused(ECHOED)
    return Refused(DECLINED, detail=reply.text) if reply.finish in DECLINES else reply
