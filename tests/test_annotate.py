"""Annotators: the HTTP one against a server on localhost that misbehaves in every known way, the local one with a toy
model; what is kept, counted, refused and never shown."""

import base64
import codecs
import dataclasses
import email.utils
import io
import json
import logging
import os
import pickle
import re
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import traceback
import unicodedata
from importlib import resources
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.llm_server import Answer, Call, Server, failed, good, said
from vans import params as params_module
from vans import template
from vans.data import annotate
from vans.data.annotate import ANNOTATORS, Annotation, Candidate, Refused, Request, annotator, endpoint, llm
from vans.data.annotate.estimate import Work, count, describe, expected
from vans.data.sources import discover
from vans.data.sources.tables import COLUMNS
from vans.errors import UserError
from vans.llm import answers, client, http
from vans.llm import prompts as prompt_files
from vans.llm.cache import Cache, Reply
from vans.llm.cost import Meter, estimate, text_tokens
from vans.llm.limits import Limiter, Stopped, Timer
from vans.llm.net import check_url
from vans.llm.secret import Secret
from vans.media import video
from vans.params import load
from vans.rewards.terms import judge
from vans.toy import world

ROOT = Path(__file__).resolve().parents[1]
KEY = "sk-5ecret-0f-the-test/+"


class FakeClock(Timer):
    """Time that passes only by sleeping; sleeps are written down."""

    def __init__(self) -> None:
        self.time, self.sleeps, self._lock = 1000.0, list[float](), threading.Lock()

    def now(self) -> float:
        with self._lock:
            return self.time

    def sleep(self, seconds: float, stop: threading.Event) -> None:
        if stop.is_set():
            raise Stopped
        with self._lock:
            self.time += seconds
            self.sleeps.append(seconds)


@pytest.fixture(autouse=True)
def _key(monkeypatch):
    monkeypatch.setenv("VANS_API_KEY", KEY)


def settings(url: str = "http://127.0.0.1:1/v1", name: str = "openai", **changes):
    """Parameters of the tiny scale with another curate.llm."""
    params = load(ROOT, "tiny")
    base = {"url": url, "model": "toy", "frames": 3, "choose_frames": 6, "timeout": 20.0, "retries": 3}
    changed = params.curate.llm.with_(**{**base, "cache": "answers.sqlite", **changes})
    return params.with_(curate={"annotator": name, "llm": changed})


def asking(server: Server, folder: Path, **changes) -> endpoint.OpenAI:
    return endpoint.OpenAI(settings(server.url, **changes), folder, progress=False, clock=FakeClock())


def requests(count: int, **changes) -> list[Request]:
    return [Request(f"r{i}", "procedural", "tea", "pour the water", f"event{i}", **changes) for i in range(count)]


def captions(written) -> list[str]:
    return [w.caption if isinstance(w, Annotation) else f"refused: {w}" for w in written]


def clip(count: int = 9, height: int = 40, width: int = 60, seed: int = 0) -> bytes:
    frames = np.random.default_rng(seed).integers(0, 255, (count, height, width, 3), dtype=np.uint8)
    return video.encode(frames, 3.0)[0]


EVENTS = [f"Now event{i}." for i in range(99)]


# ------------------------------------------------------------------------------------------ registry and rules
def test_every_annotator_is_accepted_and_an_unknown_one_is_named():
    for name in ANNOTATORS:
        assert settings(name=name).curate.annotator == name
    tree = params_module.read(ROOT / "params.yaml")
    tree["scales"]["paper"]["curate"]["annotator"] = "gemini"
    with pytest.raises(UserError, match="curate: annotator: 'gemini' is unknown; use rules, openai or qwen"):
        params_module.from_dict(tree)


class Mine:
    chooses = None

    def __init__(self, params, root=None, progress=True):
        pass


def test_one_class_and_one_line_add_an_annotator(monkeypatch):
    monkeypatch.setitem(ANNOTATORS, "mine", "tests.test_annotate:Mine")
    assert type(annotator(settings(name="mine"))).__name__ == "Mine"


def test_rules_answer_in_order_with_refusals_in_their_places():
    params = SimpleNamespace(seed=0, curate=SimpleNamespace(annotator="rules", flowery=1.0))
    toy = Request("a", "predictive", "the wind blows", world.label("ball", "jump"), world.label("ball", "left"))
    asked = [toy, Request("b", "predictive", "", "", ""), dataclasses.replace(toy, split="test")]
    rules = annotator(params)
    flowery, refused, plain = rules.write(asked)
    assert not rules.chooses
    assert isinstance(refused, Refused) and "no label" in str(refused)
    assert flowery == annotate.rules(toy, 0, 1.0) and flowery.style == "flowery"
    assert plain == annotate.rules(toy, 0, 0.0) and plain.style == "plain"
    assert all(isinstance(r, Refused) for r in rules.choose([Candidate("a", "", np.zeros(1), np.zeros((1, 2, 2, 3)))]))


# ------------------------------------------------------------------------------------------------- it all works
def test_what_is_sent_and_what_is_made_of_the_answer(tmp_path):
    request = dataclasses.replace(requests(1)[0], clips=(clip(), clip(5, 200, 100)))
    with Server() as server:
        (made,) = asking(server, tmp_path, side=50).write([request])
    assert made == Annotation("What comes next?", "So it goes: event0.", "Now event0.", "written")
    write, check = server.calls
    assert (write.task, check.task) == ("write", "check")
    assert write.headers["Authorization"] == f"Bearer {KEY}"
    assert write.body["model"] == "toy" and write.body["max_tokens"] == 1024
    assert write.body["response_format"]["json_schema"]["schema"]["required"] == ["question", "reasoning", "caption"]
    pictures = [Image.open(io.BytesIO(base64.b64decode(p.split("base64,")[1]))) for p in write.pictures]
    assert [p.size for p in pictures] == [(50, 33)] * 3 + [(25, 50)] * 3
    assert all(p.format == "JPEG" for p in pictures) and not check.pictures
    assert "tea" in write.text and "pour the water" in write.text and "What comes next?" in check.text
    parts = [part["type"] for part in write.body["messages"][1]["content"]]
    assert parts == ["text", *["image_url"] * 3, "text", *["image_url"] * 3, "text"]  # each clip at its place


def test_many_are_under_way_at_once_and_the_order_is_that_of_the_requests(tmp_path):
    together, turns = threading.Barrier(6, timeout=10), [threading.Event() for _ in range(7)]
    turns[6].set()

    def behave(call: Call) -> Answer:
        if call.task == "check":
            return good(call)
        together.wait()  # nobody is answered before six are here
        i = int(re.findall(r"event(\d)", call.text)[0])
        turns[i + 1].wait(10)  # the last request is answered first
        turns[i].set()
        return good(call)

    with Server(behave) as server:
        made = asking(server, tmp_path, concurrency=6).write(requests(6))
    assert captions(made) == EVENTS[:6]


def test_no_more_are_under_way_than_allowed(tmp_path):
    under_way, most, lock = 0, 0, threading.Lock()

    def behave(call: Call) -> Answer:
        nonlocal under_way, most
        with lock:
            under_way += 1
            most = max(most, under_way)
        time.sleep(0.005)
        with lock:
            under_way -= 1
        return good(call)

    with Server(behave) as server:
        asking(server, tmp_path, concurrency=3).write(requests(20))
    assert most <= 3


def test_given_texts_are_kept_without_asking(tmp_path):
    asked = requests(1, given=("What now?", "So.", "It boils."))
    asked += requests(1, given=("Is it event0?", "So.", "It is event0."))
    asked += [Request("n", "predictive", "", "", "")]
    with Server() as server:
        made = asking(server, tmp_path).write(asked)
    assert not server.calls
    assert made[0] == Annotation("What now?", "So.", "It boils.", "given")
    assert [str(m) for m in made[1:]] == ["the question gives the answer away", llm.NO_SOURCE]


def test_a_damaged_clip_is_refused_alone(tmp_path):
    asked = requests(2)
    asked[0] = dataclasses.replace(asked[0], clips=(clip()[:2000], clip()))
    with Server() as server:
        made = asking(server, tmp_path).write(asked)
    assert captions(made) == [f"refused: {llm.BROKEN}", EVENTS[1]]


# ---------------------------------------------------------------------------------------------------- choosing
def candidate(count: int = 11, step: float = 1.0, start: float = 20.0) -> Candidate:
    frames = np.arange(count * 8 * 8 * 3, dtype=np.uint32).astype(np.uint8).reshape(count, 8, 8, 3)
    return Candidate("c", "stir", start + step * np.arange(count), frames)


@pytest.mark.parametrize(
    "picture, start",
    [(1, 20.0), (2, 22.0), ("3", 24.0), (6, 28.0)],  # six of eleven are shown; a clip of 3 s must fit before 31 s
)
def test_the_chosen_picture_is_the_start(tmp_path, picture, start):
    with Server(lambda call: said({"usable": True, "picture": picture})) as server:
        assert asking(server, tmp_path).choose([candidate()]) == [start]
    assert len(server.calls[0].pictures) == 6
    assert "0.0, 2.0, 4.0, 6.0, 8.0, 10.0" in server.calls[0].text and "stir" in server.calls[0].text
    assert server.calls[0].body["temperature"] == 0


def test_the_best_clip_is_as_long_as_a_target_whatever_the_models_clip_is(tmp_path):
    with Server(lambda call: said({"usable": True, "picture": 6})) as server:
        params = settings(server.url)
        params = params.with_(curate={"target_seconds": 5.0})
        made = endpoint.OpenAI(params, tmp_path, progress=False, clock=FakeClock()).choose([candidate()])
    assert made == [26.0] and "Choose the 5 seconds" in server.calls[0].text  # a clip of 5 s must fit before 31 s


def test_a_picture_that_is_not_there_is_asked_for_again(tmp_path):
    replies = iter([{"usable": True, "picture": 7}, {"usable": True}, {"usable": True, "picture": 1}])
    with Server(lambda call: said(next(replies))) as server:
        assert asking(server, tmp_path).choose([candidate()]) == [20.0]
    assert "there is no picture 7" in server.calls[1].text and "picture was missing" in server.calls[2].text


def test_a_segment_without_anything_to_see_is_refused(tmp_path):
    with Server(lambda call: said({"usable": False, "picture": None})) as server:
        (made,) = asking(server, tmp_path).choose([candidate(1)])
    assert isinstance(made, Refused) and str(made) == llm.UNUSABLE and server.count() == 1


# ------------------------------------------------------------------------------------------ the server misbehaves
BROKEN_BODIES = {
    "html": Answer(b"<!doctype html><title>Welcome to this network</title>", headers={"Content-Type": "text/html"}),
    "not json": Answer(b"surely"),
    "empty": Answer(b""),
    "no choices": Answer(b'{"choices": []}'),
    "a list": Answer(b"[1, 2]"),
    "an error with status 200": Answer(b'{"error": {"message": "overloaded"}}'),
    "choices that are none": Answer(b'{"choices": ["x"], "usage": 3}'),
    "half": dataclasses.replace(good(Call(0, "check", "", {}, {}, [])), cut=40),
    "half the headers' promise, nothing sent": dataclasses.replace(said("x"), cut=0),
    "deep": Answer(b'{"a":' * 50_000),
    "500": failed(500),
    "503 with nonsense in Retry-After": failed(503, Retry_After="soon"),
    "429": failed(429),
}


@pytest.mark.parametrize("name", BROKEN_BODIES)
def test_a_broken_answer_is_asked_for_again(tmp_path, name):
    def behave(call: Call) -> Answer:
        return BROKEN_BODIES[name] if call.number < 2 else good(call)

    with Server(behave) as server:
        asked = asking(server, tmp_path)
        assert captions(asked.write(requests(1))) == EVENTS[:1]
    assert server.count("write") == 3 and server.count("check") == 1
    sleeps = asked.client.clock.sleeps  # type: ignore[attr-defined]
    assert len(sleeps) == 2 and all(0 <= s <= client.SLOWEST for s in sleeps)


def test_a_late_answer_is_asked_for_again_and_counted_as_perhaps_paid(tmp_path):
    released = threading.Event()

    def behave(call: Call) -> Answer:
        if call.number == 0:
            released.wait(10)
        return good(call)

    with Server(behave) as server:
        asked = asking(server, tmp_path, timeout=0.3, price_input=1.0, price_output=1.0)
        made = asked.write(requests(1))
        released.set()
    assert captions(made) == EVENTS[:1] and server.count("write") == 2
    spent = asked.spent()
    assert spent["calls"] == 3 and spent["lost calls"] == 1
    assert spent["cost"] == pytest.approx((spent["tokens in"] + spent["tokens out"]) / 1e6)


def test_an_answer_that_trickles_is_late_too(tmp_path, monkeypatch):
    """Each piece arrives in time; the whole does not."""
    times = iter([0.0, *[100.0 * i for i in range(1, 99)]])
    monkeypatch.setattr(http, "time", SimpleNamespace(monotonic=lambda: next(times)))
    with Server() as server:
        asked = asking(server, tmp_path, retries=0)
        (made,) = asked.write(requests(1))
    assert str(made) == endpoint.NO_ANSWER and "no whole answer within 20 s" in made.detail  # type: ignore[union-attr]


def test_an_endless_answer_is_cut(tmp_path, monkeypatch):
    monkeypatch.setattr(http, "LARGEST", 1 << 20)

    def behave(call: Call) -> Answer:
        return said("x" * (1 << 21)) if call.number == 0 else good(call)

    with Server(behave) as server:
        assert captions(asking(server, tmp_path).write(requests(1))) == EVENTS[:1]
    assert server.count("write") == 2


def test_retry_after_is_honoured_for_all_threads(tmp_path):
    def behave(call: Call) -> Answer:
        return failed(429, Retry_After="17") if call.number == 0 else good(call)

    with Server(behave) as server:
        asked = asking(server, tmp_path, concurrency=1)
        assert captions(asked.write(requests(2))) == EVENTS[:2]
    clock = asked.client.clock
    assert isinstance(clock, FakeClock) and 17 <= clock.sleeps[0] <= max(18, client.SLOWEST)
    limiter, stop = Limiter(None, None, clock := FakeClock()), threading.Event()
    limiter.pause(17)
    limiter.enter(1, stop)
    assert clock.now() == 1017


def test_retry_after_in_every_form():
    soon = email.utils.formatdate(time.time() + 30, usegmt=True)
    assert 25 < client.retry_after(soon) <= 30
    past = email.utils.formatdate(time.time() - 30, usegmt=True)
    table = {"3": 3, "0.5": 0.5, "-4": 0, past: 0, "": 0, None: 0, "soon": 0, "nan": 0, "Mon, 99 Foo": 0}
    assert {value: client.retry_after(value) for value in table} == table


def test_an_endpoint_that_stays_too_busy_stops_the_run(tmp_path):
    message = "too fast.*slow down.*lower curate.llm.requests_per_minute"
    with Server(lambda call: failed(429, "slow down")) as server, pytest.raises(UserError, match=message) as caught:
        asking(server, tmp_path, retries=2, concurrency=1).write(requests(3))
    assert server.count() == 3 and "\n" not in str(caught.value)


def test_a_quota_that_is_used_up_stops_at_once(tmp_path):
    for answer, message in (
        (failed(429, Retry_After="86400"), "asks to wait 86400 s"),
        (failed(429, "insufficient_quota: pay first"), "nothing left to pay with"),
        (failed(402), "nothing left to pay with"),
    ):
        with Server(lambda call, answer=answer: answer) as server, pytest.raises(UserError, match=message):  # type: ignore[misc]
            asking(server, tmp_path, concurrency=1).write(requests(3))
        assert server.count() == 1


def test_single_failures_are_refused_and_many_in_a_row_stop_the_run(tmp_path):
    def behave(call: Call) -> Answer:
        return failed(500) if "event1" in call.text else good(call)

    with Server(behave) as server:
        asked = asking(server, tmp_path, retries=1, concurrency=1)
        assert captions(asked.write(requests(3))) == [EVENTS[0], f"refused: {endpoint.NO_ANSWER}", EVENTS[2]]
        server.behave, before = good, server.count()
        assert captions(asked.write(requests(3))) == EVENTS[:3]  # only what had no answer is asked again
        assert server.count() == before + 2
        server.behave = lambda call: failed(500, "worn out")
        other = [dataclasses.replace(r, topic="coffee") for r in requests(9)]
        with pytest.raises(UserError, match="5 calls in a row failed, the last one: 500: worn out"):
            asked.write(other)


def test_no_server_at_all_is_one_clear_line(tmp_path):
    asked = endpoint.OpenAI(settings(retries=1, concurrency=2), tmp_path, progress=False, clock=FakeClock())
    with pytest.raises(UserError, match="127.0.0.1: 5 calls in a row failed, the last one: no connection") as caught:
        asked.write(requests(9))
    assert "\n" not in str(caught.value)
    assert asked.spent()["calls"] == 0  # nothing can have been charged


@pytest.mark.parametrize(
    "status, message",
    [
        (401, "refuses the key .401: bad key ....; put a valid one into the environment variable VANS_API_KEY"),
        (403, "refuses the key"),
        (404, "no such model or address"),
        (413, "requests are too large"),
        (307, "redirects .307."),
    ],
)
def test_what_no_request_will_survive_stops_at_once(tmp_path, status, message):
    answer = failed(status, f"bad key {KEY}", Location="http://127.0.0.1:1/")
    with Server(lambda call: answer) as server, pytest.raises(UserError, match=message) as caught:
        asking(server, tmp_path, concurrency=1).write(requests(20))
    assert server.count() == 1 and "\n" not in str(caught.value) and KEY not in str(caught.value)


def test_a_request_that_is_not_taken_is_refused_alone(tmp_path):
    def behave(call: Call) -> Answer:
        return failed(400, "unsafe picture") if "event1" in call.text else good(call)

    with Server(behave) as server:
        made = asking(server, tmp_path, concurrency=1).write(requests(3))
    assert captions(made) == [EVENTS[0], f"refused: {endpoint.NOT_TAKEN}", EVENTS[2]]
    assert made[1].detail == "400: unsafe picture"  # type: ignore[union-attr]
    assert server.count("write") == 3  # a format that works is not doubted again


def test_an_endpoint_without_structured_answers_gets_plain_requests(tmp_path):
    def behave(call: Call) -> Answer:
        return failed(400, "unknown field") if "response_format" in call.body else good(call)

    with Server(behave) as server:
        asked = asking(server, tmp_path, concurrency=1)
        assert captions(asked.write(requests(3))) == EVENTS[:3]
    formats = [call.body.get("response_format", {}).get("type") for call in server.calls]
    assert formats == ["json_schema", "json_object"] + [None] * 6


def test_extra_fields_are_sent_and_taken_away(tmp_path):
    with Server() as server:
        extra = {"reasoning_effort": "none", "max_tokens": None, "max_completion_tokens": 9}
        asking(server, tmp_path, extra=extra).write(requests(1))
    body = server.calls[0].body
    assert (body["reasoning_effort"], body["max_completion_tokens"]) == ("none", 9) and "max_tokens" not in body


# --------------------------------------------------------------------------------------------- the model misbehaves
TEXTS = {"question": "What comes next?", "reasoning": "So.", "caption": "It boils."}
FORMS = {
    "plain": json.dumps(TEXTS),
    "fenced": f"```json\n{json.dumps(TEXTS, indent=2)}\n```",
    "talk around it": f"Sure {{here}} you go: {json.dumps(TEXTS)} I hope that helps {{}}.",
    "thinking first": f'<think>{{"question": "draft"}} or {{"x": 1}}</think>{json.dumps(TEXTS)}',
    "a draft before": json.dumps({**TEXTS, "caption": "Draft."}) + json.dumps(TEXTS),
    "more fields": json.dumps({**TEXTS, "note": [1, {"a": 2}]}),
    "white space": json.dumps({**TEXTS, "caption": " It \n\u0000boils. "}),
}


@pytest.mark.parametrize("name", FORMS)
def test_json_is_found_wherever_it_stands(name):
    assert answers.read(FORMS[name], answers.WRITE) == TEXTS


BAD_FORMS = {
    "": "it was empty",
    "I cannot see a video.": "it held no JSON object",
    "{'question': 'x'}": "it held no JSON object",
    "[1, 2]": "it held no JSON object",
    json.dumps({k: TEXTS[k] for k in ("question", "caption")}): "reasoning was missing",
    json.dumps({**TEXTS, "caption": " "}): "caption was empty",
    json.dumps({**TEXTS, "caption": ["It boils."]}): "caption was not a text",
    json.dumps({**TEXTS, "caption": None}): "caption was not a text",
    json.dumps({**TEXTS, "question": "x" * 401}): "question was longer than 400 characters",
    json.dumps(TEXTS)[:-5]: "it held no JSON object",
    "{" * 5_000: "it held no JSON object",
    '{"a":' * 5_000: "it held no JSON object",
    "x" * 60_000: "it was far too long",
}


@pytest.mark.parametrize("text", BAD_FORMS, ids=range(len(BAD_FORMS)))
def test_what_cannot_be_used_is_said_and_asked_for_again(tmp_path, text):
    def behave(call: Call) -> Answer:
        return said(text) if call.number == 0 else good(call)

    with Server(behave) as server:
        assert captions(asking(server, tmp_path).write(requests(1))) == EVENTS[:1]
    assert BAD_FORMS[text] in server.calls[1].text and "could not be used" not in server.calls[0].text


def test_numbers_and_booleans_in_every_form():
    fields: answers.Fields = {"usable": bool, "picture": int}
    for text in (
        '{"usable": true, "picture": 3}',
        '{"usable": "True", "picture": "3"}',
        '{"usable":true,"picture":3.0}',
    ):
        assert answers.read(text, fields) == {"usable": True, "picture": 3}
    for value in ('"x"', "null", "2.5", "true", "NaN", "1e999", "[]"):
        with pytest.raises(ValueError, match="picture was not a whole number"):
            answers.read(f'{{"usable": true, "picture": {value}}}', fields)
    with pytest.raises(ValueError, match="usable was neither"):
        answers.read('{"usable": 1, "picture": 3}', fields)


def test_who_never_answers_in_form_is_refused(tmp_path):
    with Server(lambda call: said("hm")) as server:
        asked = asking(server, tmp_path, attempts=3)
        made = asked.write(requests(2))
        assert captions(made) == [f"refused: {llm.UNREADABLE}"] * 2 and server.count() == 6
        assert captions(asked.write(requests(2))) == captions(made) and server.count() == 6  # paid for once


@pytest.mark.parametrize("finish, content", [("content_filter", None), ("stop", "refusal")])
def test_who_declines_is_refused_and_not_asked_again(tmp_path, finish, content):
    answer = said(None, finish)
    if content:
        tree = json.loads(answer.data)
        tree["choices"][0]["message"]["refusal"] = "I would rather not."
        answer = Answer(json.dumps(tree).encode())
    with Server(lambda call: answer) as server:
        for _ in range(2):
            assert captions(asking(server, tmp_path).write(requests(1))) == [f"refused: {llm.DECLINED}"]
    assert server.count() == 1


# -------------------------------------------------------------------------------------------------- the self-check
def test_a_question_that_leaks_by_the_rule_is_refused_and_counted(tmp_path):
    leaking = {**TEXTS, "question": "When does event0 come?"}

    def behave(call: Call) -> Answer:
        return said(leaking) if call.number == 0 else good(call)

    with Server(behave) as server:
        (made,) = asking(server, tmp_path).write(requests(1))
    assert isinstance(made, Annotation) and made.refused == ("When does event0 come?",)
    assert [call.task for call in server.calls] == ["write", "write", "check"]  # the rule costs nothing
    assert 'gives the answer away: "When does event0 come?"' in server.calls[1].text


def test_a_question_that_leaks_by_the_models_own_check_is_refused_and_counted(tmp_path):
    def behave(call: Call) -> Answer:
        if call.task == "check":
            return said({"why": "it hints", "leaks": call.number < 2})
        return said({**TEXTS, "question": f"What comes next, number {call.number}?"})

    with Server(behave) as server:
        (made,) = asking(server, tmp_path).write(requests(1))
    assert isinstance(made, Annotation) and made.question == "What comes next, number 2?"
    assert made.refused == ("What comes next, number 0?",)


def test_questions_that_all_leak_are_refused_with_all_of_them(tmp_path):
    def behave(call: Call) -> Answer:
        return said({"leaks": True}) if call.task == "check" else said({**TEXTS, "question": f"Why {call.number}?"})

    with Server(behave) as server:
        (made,) = asking(server, tmp_path, attempts=2).write(requests(1))
    assert isinstance(made, Refused) and str(made) == llm.LEAK and made.questions == ("Why 0?", "Why 2?")


def test_without_a_label_the_caption_is_the_answer(tmp_path):
    def behave(call: Call) -> Answer:
        if call.task == "check":
            return good(call)
        return said({**TEXTS, "question": "Will the kettle boil over?", "caption": "The kettle boils over."})

    request = Request("u", "predictive", "", "", "", clips=(clip(), clip(seed=1)))
    with Server(behave) as server:
        (made,) = asking(server, tmp_path, attempts=1).write([request])
    assert str(made) == llm.LEAK


# -------------------------------------------------------------------------------------------------- kept answers
def test_a_second_run_pays_for_nothing_and_says_the_same(tmp_path):
    asked = [*requests(4), *requests(2, clips=(clip(), clip(seed=1)))]
    with Server() as server:
        first = asking(server, tmp_path).write(asked)
        calls = server.count()
        again = asking(server, tmp_path, concurrency=1, timeout=9.0, requests_per_minute=3, retries=0)
        assert again.write(asked) == first and server.count() == calls
        spent = again.spent()
    assert spent["calls"] == 0 and spent["kept answers"] == calls == 10  # two pairs of checks are the same


def test_equal_questions_are_asked_once(tmp_path):
    with Server() as server:
        made = asking(server, tmp_path).write(requests(1) * 5)
    assert captions(made) == EVENTS[:1] * 5 and server.count() == 2


def test_an_answer_belongs_to_all_that_it_depends_on_and_to_nothing_else(tmp_path):
    asked = asking(Server(), tmp_path)
    request = dataclasses.replace(requests(1)[0], clips=(clip(), clip(seed=1)))

    def key(request=request, attempt=0, again="", **changes) -> str:
        other = endpoint.OpenAI(settings(**changes), tmp_path, progress=False) if changes else asked
        return other._key(other._writing(request, llm.Draft(again=again), attempt))

    assert key() == key() == key(url="http://localhost:9/v1", concurrency=3, timeout=1.0, price_input=2.0)
    changed = [
        key(attempt=1),
        key(again="x"),
        key(model="other"),
        key(temperature=0.1),
        key(max_tokens=99),
        key(frames=2),
        key(side=16),
        key(extra={"reasoning_effort": "low"}),
        key(dataclasses.replace(request, topic="coffee")),
        key(dataclasses.replace(request, clips=(clip(seed=1), clip()))),
        key(dataclasses.replace(request, clips=(clip(seed=2), clip(seed=1)))),
    ]
    assert len({key(), *changed}) == len(changed) + 1


def test_a_changed_prompt_is_asked_anew(tmp_path, monkeypatch):
    with Server() as server:
        asking(server, tmp_path).write(requests(1))
        folder = tmp_path / "prompts"
        folder.mkdir()
        for name in ("choose", "write", "check"):
            text = (llm.FOLDER / f"{name}.md").read_text()
            (folder / f"{name}.md").write_text(text.replace("plain English", "plainest English"))
        monkeypatch.setattr(llm, "FOLDER", folder)
        asking(server, tmp_path).write(requests(1))
    assert server.count("write") == 2 and server.count("check") == 1


SCRIPT = """
import sys
from pathlib import Path
from tests.test_annotate import requests, settings
from vans.data.annotate import annotator
annotator(settings(sys.argv[1], concurrency=2), Path(sys.argv[2]), progress=False).write(requests(8))
"""


def test_after_kill_9_only_what_is_missing_is_asked(tmp_path):
    gate = threading.Event()

    def behave(call: Call) -> Answer:
        if call.number >= 5:
            gate.wait(60)
        return good(call)

    with Server(behave) as server:
        command = [sys.executable, "-c", SCRIPT, server.url, str(tmp_path)]
        env = {**os.environ, "PYTHONPATH": str(ROOT)}
        process = subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        try:
            deadline = time.monotonic() + 60
            while _rows(tmp_path) < 5 or server.count() < 7:  # five answers are kept, two calls are under way
                assert process.poll() is None and time.monotonic() < deadline, process.stderr
                time.sleep(0.02)
        finally:
            os.kill(process.pid, signal.SIGKILL)
            process.wait()
            assert process.stderr is not None
            process.stderr.close()
        gate.set()
        before = server.count()
        made = asking(server, tmp_path).write(requests(8))
    assert before == 7 and server.count() - before == 16 - 5
    assert captions(made) == EVENTS[:8]


def _rows(folder: Path) -> int:
    try:
        with sqlite3.connect(f"file:{folder / 'answers.sqlite'}?mode=ro", uri=True) as base:
            return base.execute("SELECT count(*) FROM answers").fetchone()[0]
    except sqlite3.Error:
        return 0


def test_what_was_under_way_at_an_error_is_kept(tmp_path):
    started, ended = threading.Barrier(2, timeout=10), threading.Event()

    def behave(call: Call) -> Answer:
        if call.number >= 2:
            return good(call)
        started.wait()
        if "event0" in call.text:
            ended.set()
            return failed(401)
        ended.wait(10)
        time.sleep(0.2)  # the other call's error is there first
        return good(call)

    with Server(behave) as server:
        with pytest.raises(UserError, match="refuses the key"):
            asking(server, tmp_path, concurrency=2).write(requests(8))
        assert server.count() == 2 and _rows(tmp_path) == 1


def test_a_file_that_holds_no_answers_is_a_user_error(tmp_path):
    (tmp_path / "answers.sqlite").write_bytes(b"not a database at all" * 100)
    with pytest.raises(UserError, match="answers.sqlite: the answers kept here cannot be used .*move the file away"):
        Cache(tmp_path / "answers.sqlite")
    with pytest.raises(UserError, match="cannot be used"):
        Cache(tmp_path / "answers.sqlite" / "below" / "a.sqlite")


def test_two_processes_share_the_file_and_the_sum(tmp_path):
    first, second = Cache(tmp_path / "a.sqlite"), Cache(tmp_path / "a.sqlite")
    first.put("k", "write", "m", Reply("x", "stop", 3, 4), 0.5)
    second.put("l", "write", "m", Reply("y", "length", 1, 1), 0.25)
    second.lost(10, 20, 1.0)
    assert second.get("k") == Reply("x", "stop", 3, 4) and first.get("l") == Reply("y", "length", 1, 1)
    assert first.get("m") is None
    assert dataclasses.astuple(first.spent()) == (3, 14, 25, 1.75, 1)


# ------------------------------------------------------------------------------------------------- rates and money
def run_threads(count: int, function) -> None:
    threads = [threading.Thread(target=function, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)


@pytest.mark.parametrize("limit, tokens", [(5, None), (None, 1000), (4, 1000)])
def test_no_minute_holds_more_requests_or_tokens_than_allowed(limit, tokens):
    limiter, stop, begun = Limiter(limit, tokens, FakeClock()), threading.Event(), []
    sizes = np.random.default_rng(0).integers(100, 600, 40)

    def work(i: int) -> None:
        for size in sizes[i::4]:
            begun.append((limiter.enter(int(size), stop)[0], int(size)))

    run_threads(4, work)
    assert len(begun) == 40
    for at, _ in begun:
        window = [size for when, size in begun if at <= when < at + 59.99]
        assert limit is None or len(window) <= limit
        assert tokens is None or sum(window) <= tokens
    last = max(when for when, _ in begun) - 1000
    fewest = (40 / limit - 1) * 60 if limit else 0
    assert last >= fewest and last <= 40 * 61  # slow enough, and not asleep


def test_a_call_of_more_tokens_than_a_minute_may_hold_goes_alone():
    clock, stop = FakeClock(), threading.Event()
    limiter = Limiter(None, 100, clock)
    assert [limiter.enter(n, stop)[0] for n in (50, 500, 50)] == [1000, 1060, 1120]


def test_tokens_are_corrected_by_what_the_endpoint_counts():
    clock, stop = FakeClock(), threading.Event()
    limiter = Limiter(None, 100, clock)
    limiter.correct(limiter.enter(90, stop), 10)
    assert limiter.enter(90, stop)[0] == 1000


def test_retries_count_for_the_rate_too(tmp_path):
    def behave(call: Call) -> Answer:
        return failed(500) if call.number % 2 == 0 else good(call)

    with Server(behave) as server:
        asked = asking(server, tmp_path, requests_per_minute=1, concurrency=1)
        asked.write(requests(2))
    assert server.count() == 8 and asked.client.clock.now() - 1000 >= 7 * 60


def test_a_limit_that_sleeps_is_woken_by_an_error():
    stop = threading.Event()
    limiter = Limiter(1, None, Timer())
    limiter.enter(1, stop)
    threading.Timer(0.05, stop.set).start()
    began = time.monotonic()
    with pytest.raises(Stopped):
        limiter.enter(1, stop)
    assert time.monotonic() - began < 30


USAGE = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1500}  # 400 of hidden thinking


def test_cost_is_counted_by_the_endpoints_usage(tmp_path):
    def behave(call: Call) -> Answer:
        tree = json.loads(good(call).data)
        return Answer(json.dumps({**tree, "usage": USAGE}).encode())

    with Server(behave) as server:
        asked = asking(server, tmp_path, price_input=2.0, price_output=10.0)
        asked.write(requests(3))
    spent = asked.spent()
    assert (spent["calls"], spent["tokens in"], spent["tokens out"]) == (6, 6000, 3000)
    assert spent["cost"] == spent["cost of all runs"] == pytest.approx(6 * (1000 * 2 + 500 * 10) / 1e6)


def test_without_usage_the_tokens_are_estimated(tmp_path):
    with Server(lambda call: Answer(json.dumps({"choices": [{"message": {"content": "hm"}}]}).encode())) as server:
        asked = asking(server, tmp_path, attempts=1)
        asked.write(requests(1))
        query = asked._writing(requests(1)[0], llm.Draft(), 0)
        assert asked.spent()["tokens in"] == asked.tokens(query) == text_tokens(query.system) + text_tokens(query.user)


@pytest.mark.parametrize("number", [2**63, 2**63 - 1, 10**30, -1, True, "12"])
def test_token_counts_that_cannot_be_are_estimated(tmp_path, number):
    usage = {"prompt_tokens": number, "completion_tokens": number, "total_tokens": number}
    with Server(lambda call: said("hm", usage=usage)) as server:
        for _ in range(2):  # the sums over all runs are kept too
            asked = asking(server, tmp_path, attempts=1)
            asked.write(requests(1))
    query = asked._writing(requests(1)[0], llm.Draft(), 0)
    assert asked.meter.cache.spent().input == asked.tokens(query) and server.count() == 1


@pytest.mark.parametrize("finish", ["\ud800 half", "a" * 10_000, f"\x00 {KEY}", ["stop", {"of": KEY}], 7])
def test_whatever_stands_for_the_end_of_an_answer_is_kept_clean(tmp_path, finish):
    with Server(lambda call: said("hm", finish)) as server:
        asked = asking(server, tmp_path, attempts=1)
        why = llm.ECHOED if KEY in str(finish) else llm.UNREADABLE
        assert captions(asked.write(requests(1))) == [f"refused: {why}"]
    with sqlite3.connect(tmp_path / "answers.sqlite") as base:
        ((kept,),) = base.execute("SELECT finish FROM answers")
    assert KEY not in kept and kept.isprintable() and len(kept) <= 40


def test_the_budget_stops_the_run_and_what_is_paid_for_is_kept(tmp_path):
    def behave(call: Call) -> Answer:
        tree = json.loads(good(call).data)
        return Answer(json.dumps({**tree, "usage": {"prompt_tokens": 0, "completion_tokens": 1000}}).encode())

    money = {"price_input": 0.0, "price_output": 1000.0, "max_tokens": 1000}  # each call costs 1.00
    with Server(behave) as server:
        with pytest.raises(UserError, match="curate.llm.budget: 7.00 of 7.50 are spent .*raise the budget") as caught:
            asking(server, tmp_path, budget=7.5, concurrency=4, **money).write(requests(9))
        assert server.count() == 7 == _rows(tmp_path) and "\n" not in str(caught.value)
        with pytest.raises(UserError, match="7.00 of 7.50"):  # it is for all runs together
            asking(server, tmp_path, budget=7.5, **money).write(requests(9))
        assert server.count() == 7
        made = asking(server, tmp_path, budget=18.0, **money).write(requests(9))
    assert captions(made) == EVENTS[:9] and server.count() == 18


def test_calls_under_way_hold_their_part_of_the_budget(tmp_path):
    params = settings(price_input=0.0, price_output=1.0, max_tokens=1_000_000, budget=2.0).curate.llm
    meter, stop = Meter(params, Cache(tmp_path / "a.sqlite")), threading.Event()
    with meter.room(0, stop), meter.room(0, stop):
        waiting = threading.Thread(target=lambda: meter.room(0, stop).__enter__())
        waiting.start()
        waiting.join(0.1)
        assert waiting.is_alive()
    waiting.join(10)
    assert not waiting.is_alive()


def test_the_estimate_before_the_run(tmp_path, capfd):
    params = settings(price_input=1.0, price_output=2.0, image_tokens=100, answer_tokens=50, max_tokens=500)
    made = estimate(params.curate.llm, [1000] * 10)
    assert (made.calls, made.input, made.output, made.output_most) == (10, 10_000, 500, 5000)
    assert (made.cost, made.cost_most) == pytest.approx((0.011, 0.020))
    work = expected(params.curate.llm, Work(segments=30, pairs=20))
    assert {task: e.calls for task, e in work.items()} == {"choose": 30, "write": 20, "check": 20, "all": 70}
    assert work["choose"].input - 30 * 6 * 100 < 30 * 800 and work["write"].input > 20 * 2 * 3 * 100
    assert sum(work[t].input for t in ("choose", "write", "check")) == work["all"].input
    assert "30 segments, 20 pairs" in describe(params, Work(30, 20))
    with Server() as server:
        asked = endpoint.OpenAI(settings(server.url, price_input=1.0, price_output=2.0), tmp_path)
        asked.write(requests(20))
        said_before = capfd.readouterr().err
        assert "annotate, write: 20 calls, about" in said_before and "cost 0." in said_before
        asked.write(requests(40))
    assert "annotate, write: 20 calls, about" in (again := capfd.readouterr().err)
    assert "(20 answers kept from before)" in again


def test_pairs_that_a_source_names_are_counted_and_missing_videos_are_not(tmp_path):
    def put(file: str, content: object = "") -> None:
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).write_text(content if isinstance(content, str) else json.dumps(content))

    events = {"duration": 40, "timestamps": [[0, 9], [8, 18], [9, 20], [18, 30]], "sentences": ["a", "b", "c", "d"]}
    put("activitynet/train.json", {"v_here": events, "v_gone": events})
    put("activitynet/here.mp4")
    cells = {"input_video_path": "/v/1.mp4", "output_video_path": "/v/2.mp4", "ENG_Instruction": "What next?"}
    cells |= {"ENG_Think": "So.", "ENG_GT_Caption": "It boils.", "name": "v", "target_id": "2"}
    put("vans/triplets.csv", ",".join(COLUMNS) + "\n" + ",".join(cells.get(c, "1") for c in COLUMNS) + "\n")
    put("vans/v/1.mp4")
    put("vans/v/2.mp4")
    put("films/shorts.json", {"database": {"film": {"scene": "s"}, "lost": {"scene": "s", "shots": ["a", "b"]}}})
    for shot in range(3):
        put(f"films/film/{shot}.mp4")
    named = [g for r in discover(tmp_path).records if r.path for g in r.given]
    assert len(named) == 2  # of ActivityNet's four events that overlap
    ids = {id for g in named for id in (g.input_id, g.target_id)}
    assert count(tmp_path, settings(), shots=8) == Work(len(ids) + 2 + 3, 2 + 0 + 2, 0)


def test_the_estimate_is_near_what_is_sent(tmp_path):
    """Tokens by text length: within a factor of two of the words and signs that are really there."""
    asked = asking(Server(), tmp_path, image_tokens=100)
    request = dataclasses.replace(requests(1)[0], clips=(clip(), clip(seed=1)))
    query = asked._writing(request, llm.Draft(), 0)
    pieces = len(re.findall(r"\w+|[^\w\s]", query.system + query.user))
    assert pieces / 2 < asked.tokens(query) - 2 * 3 * 100 < pieces * 2


# ------------------------------------------------------------------------------------------------------ the key
def test_the_key_appears_nowhere(tmp_path, caplog, capfd):
    """Everything written, logged, printed, raised or pickled is searched, while the server repeats the key back."""
    caplog.set_level(logging.DEBUG)
    logging.getLogger("httpcore").setLevel(logging.DEBUG)
    seen: list[str] = []
    repeat = {**TEXTS, "reasoning": f"the key is {KEY}"}

    def behave(call: Call) -> Answer:
        seen.append(call.headers["Authorization"])
        if call.number == 0:
            return failed(500, f"internal: {KEY}")
        return said(repeat) if call.number < 3 else failed(401, f"wrong key {KEY}")

    texts = []
    with Server(behave) as server:
        asked = endpoint.OpenAI(settings(server.url), tmp_path, progress=True, clock=FakeClock())
        made = asked.write(requests(1))
        assert isinstance(made[0], Refused) and str(made[0]) == llm.ECHOED
        for url, model in ((server.url, "b"), ("http://127.0.0.1:1/v1", "c")):
            other = endpoint.OpenAI(settings(url, model=model, retries=0), tmp_path, progress=True, clock=FakeClock())
            with pytest.raises(UserError) as caught:
                other.write(requests(20))
            texts.append("".join(traceback.format_exception(caught.value)))
        texts += [repr(asked), repr(vars(asked.meter)), repr(made), json.dumps(asked.params.resolved())]
    printed = capfd.readouterr()
    texts += [printed.out, printed.err, caplog.text, *(str(r.__dict__) for r in caplog.records)]
    blobs = [pickle.dumps(asked), *(p.read_bytes() for p in tmp_path.rglob("*") if p.is_file())]
    assert seen[0] == f"Bearer {KEY}" and len(blobs) > 1 and len(caplog.records) > 10  # the search is not of nothing
    pieces = [KEY, KEY.replace("/", "\\/"), base64.b64encode(KEY.encode()).decode()[:-4]]
    for piece in pieces:
        assert not any(piece in text for text in texts)
        assert not any(piece.encode() in blob for blob in blobs)


def _u(sign: str) -> str:
    return f"\\u{ord(sign):04x}"


def _spelt(text: str) -> str:
    return json.dumps({**TEXTS, "caption": text})


ECHOES = {
    "as it is": _spelt(KEY),
    "in a sentence": _spelt(f"Use {KEY}, then pour."),
    "slashes escaped": _spelt(KEY).replace("/", "\\/"),
    "slashes escaped twice": _spelt(KEY.replace("/", "\\/")),
    "one sign as \\u": _spelt(KEY).replace("5", _u("5")),
    "all signs as \\u": json.dumps({**TEXTS, "caption": "@"}).replace("@", "".join(map(_u, KEY))),
    "all signs as \\u, upper case": json.dumps({**TEXTS, "caption": "@"}).replace(
        "@", "".join(f"\\u{ord(c):04X}" for c in KEY)
    ),
    "\\u in \\u": _spelt("".join(map(_u, KEY))),
    "\\x": _spelt("".join(f"\\x{ord(c):02x}" for c in KEY)),
    "JSON in JSON": _spelt(json.dumps({"key": KEY.replace("/", "\\/")})),
    "HTML, decimal": _spelt("".join(f"&#{ord(c)};" for c in KEY)),
    "HTML, hexadecimal": _spelt("".join(f"&#x{ord(c):x};" for c in KEY)),
    "URL": _spelt("".join(f"%{ord(c):02X}" for c in KEY)),
    "base64": _spelt(base64.b64encode(KEY.encode()).decode()),
    "base64 of a header": _spelt(base64.b64encode(f"Bearer {KEY}!".encode()).decode()),
    "base64, another place": _spelt(base64.urlsafe_b64encode(f"x={KEY}, and so on".encode()).decode()),
    "base32": _spelt(base64.b32encode(KEY.encode()).decode()),
    "hexadecimal": _spelt(KEY.encode().hex(":")),
    "code points": _spelt(" ".join(str(ord(c)) for c in KEY)),
    "upper case": _spelt(KEY.upper()),
    "backwards": _spelt(KEY[::-1]),
    "rot13": _spelt(codecs.encode(KEY, "rot13")),
    "spaces in between": _spelt(" ".join(KEY)),
    "unseen signs in between": _spelt("\u200b".join(KEY)),
    "directions in between": _spelt("\u202e".join(KEY)),
    "control signs in between": _spelt("\x00".join(KEY)),
    "marks in between": _spelt("**".join(KEY)),
    "wide letters": _spelt("".join(chr(ord(c) + 0xFEE0) for c in KEY)),
    "a list of 0x": _spelt(", ".join(hex(ord(c)) for c in KEY)),
    "a list of U+": _spelt(" ".join(f"U+{ord(c):04X}" for c in KEY)),
    "one letter a line, numbered": _spelt("\n".join(f"{i}. {c}" for i, c in enumerate(KEY, 1))),
    "numbered": _spelt(" ".join(f"{i}:{c}" for i, c in enumerate(KEY))),
    "accents on every letter": _spelt("\u0301".join(KEY)),
    "letters that have accents": _spelt(unicodedata.normalize("NFC", "\u0301".join(KEY))),
    "letters that nobody sees": _spelt("So" + "".join(chr(0xE0000 + ord(c)) for c in KEY)),
    "over two lines": _spelt(KEY[:9] + "\n" + KEY[9:]),
    "without its end": _spelt(KEY[:-4]),
    "without its beginning": _spelt(KEY[3:]),
    "in the question": json.dumps({**TEXTS, "question": KEY + "?"}),
    "in pieces over two fields": json.dumps({**TEXTS, "question": f"So: {KEY[:9]}", "reasoning": KEY[9:]}),
    "in a field that is not asked for": json.dumps({"note": KEY, **TEXTS}),
    "in a field's name": json.dumps({KEY: 1, **TEXTS}),
    "before the object": f"{KEY} {json.dumps(TEXTS)}",
}


def test_an_answer_that_holds_the_key_in_whatever_form_is_refused_and_not_kept(tmp_path):
    """Also once more by the next run, from what is kept; a text without it is taken."""
    assert len(ECHOES) >= 20
    asked = requests(len(ECHOES) + 1)
    said_of = dict(zip((r.target_label for r in asked), [*ECHOES.values(), json.dumps(TEXTS)], strict=True))

    def behave(call: Call) -> Answer:
        return good(call) if call.task == "check" else said(said_of[re.findall(r"event\d+", call.text)[0]])

    with Server(behave) as server:
        for _ in range(2):
            made = asking(server, tmp_path, attempts=1).write(asked)
            refused = dict(zip(ECHOES, map(str, made), strict=False))
            assert refused == dict.fromkeys(ECHOES, llm.ECHOED)
            assert isinstance(made[-1], Annotation)
        assert server.count() == len(ECHOES) + 2
    with sqlite3.connect(tmp_path / "answers.sqlite") as base:
        kept = dict.fromkeys(text for (text,) in base.execute("SELECT text FROM answers"))
    assert kept.keys() == {"", json.dumps(TEXTS), '{"why": "it names nothing", "leaks": false}'}


def test_a_key_that_an_older_run_has_kept_is_refused(tmp_path):
    with Server() as server:
        asked = asking(server, tmp_path)
        key = asked._key(asked._writing(requests(1)[0], llm.Draft(), 0))
        asked.meter.cache.put(key, "write", "toy", Reply(ECHOES["all signs as \\u"]), 0.0)
        assert captions(asked.write(requests(1))) == [f"refused: {llm.ECHOED}"] and server.count() == 0


def test_texts_without_the_key_and_keys_that_are_none_are_left_alone():
    secret = Secret(KEY)
    texts = [json.dumps(TEXTS), "sk-5ecret", "\\u00e4 &amp; 100 %", "the secret of the test", "x" * 10_000, "\\"]
    assert not any(map(secret.inside, texts)) and secret.blot("The key") == "The key"
    assert not Secret("EMPTY").inside("It is EMPTY.") and not Secret("").inside("")
    assert Secret("not-needed").inside("a not-needed b") and not Secret("not-needed").inside("It is not needed.")
    assert secret.blot(f"a {KEY} b") == "a *** b" and secret.blot(KEY[::-1]) == "(a message that holds the key)"
    assert KEY not in repr(secret) and not pickle.loads(pickle.dumps(secret)).inside(KEY)


def test_what_curation_writes_is_searched_once_more():
    from vans.data import curate

    secret = Secret(KEY)
    rows = [{"id": "a", "question": "So: " + KEY[:9], "reasoning": KEY[9:]}]
    for tree in ({"x": [("pair", KEY)]}, [rows], {"details": [KEY.replace("/", "\\/")]}):
        with pytest.raises(UserError, match="t: the endpoint's key stands in it; nothing was written"):
            secret.check(curate._texts(tree), "t")
    secret.check(curate._texts([[{"id": "a", "question": "What?"}], {"n": 1, "m": None}]), "t")


UNSEEN = "\x80\x85\x9b\u202e\u2066\u2069\u200e\u061c\u200b\ufeff\u00ad\U000e0041\x07\u2028"


def test_signs_that_cannot_be_seen_or_turn_the_text_are_taken_out(tmp_path):
    texts = {name: text + "".join(f"{sign}b" for sign in UNSEEN) for name, text in TEXTS.items()}

    def behave(call: Call) -> Answer:
        return said(texts) if call.task == "write" else good(call)

    with Server(behave) as server:
        (made,) = asking(server, tmp_path).write(requests(1))
    assert isinstance(made, Annotation)
    for text in (made.question, made.reasoning, made.caption, *(c.text for c in server.calls[1:])):
        assert all(c == "\n" or unicodedata.category(c) not in ("Cc", "Cf", "Co", "Cs", "Zl", "Zp") for c in text)
    assert answers.clean("na\u0308h \u200d\u200c ok\n") == "na\u0308h \u200d\u200c ok\n"  # scripts need the joiners


@pytest.mark.parametrize("token", ["<|video_pad|>", "<|im_end|>", "<|IM_START|>", "</s>", "<extra_id_0>", "<pad>"])
def test_a_special_token_in_a_text_is_asked_for_again(tmp_path, token):
    def behave(call: Call) -> Answer:
        return said({**TEXTS, "question": f"What {token} next?"}) if call.number == 0 else good(call)

    with Server(behave) as server:
        assert captions(asking(server, tmp_path).write(requests(1))) == EVENTS[:1]
    assert f"question held < {token[1:]}, which models read as a sign of their own" in server.calls[1].text


MARKS = ["<|im_end|>", "<|video_pad|>", "</s>", "<start_of_turn>", "<｜User｜>", "<<SYS>>", "[/INST]", "[TOOL_CALLS]"]


@pytest.mark.parametrize("mark", MARKS)
def test_no_label_holds_a_sign_of_the_models_when_it_is_asked(tmp_path, mark):
    """The rule is that of every prompt's placeholders, the judge's as well."""
    apart = f"{mark[0]} {mark[1:].replace('<', '< ')}"
    labels: dict[str, Any] = {"topic": f"tea{mark}", "input_label": f"{mark} pours", "target_label": f"a{mark}b"}
    asked = dataclasses.replace(requests(1)[0], **labels)
    with Server() as server:
        asking(server, tmp_path).write([asked])
    for call in server.calls:
        assert mark not in call.text and f"tea{apart}" in call.text and f"{apart} pours" in call.text
    assert any(f"a{apart}b" in call.text for call in server.calls)
    of_judge = prompt_files.load(judge.PROMPT).fill("user", question=f"And{mark}?", caption=f"tea{mark}")
    assert mark not in of_judge and f"And{apart}?" in of_judge and f"tea{apart}" in of_judge
    assert prompt_files.words("5 < 6 [x] [[input]] a<5 é") == "5 < 6 [x] [[input]] a<5 é"


@pytest.mark.parametrize("field", ["question", "reasoning", "caption"])
def test_no_triplet_is_made_of_a_text_with_a_special_token_whoever_wrote_it(field):
    from vans.data import curate

    written = Annotation(TEXTS["question"], TEXTS["reasoning"], TEXTS["caption"], "given")
    assert curate._signs(written) == ""
    marked = dataclasses.replace(written, **{field: "It <|im_end|> boils"})  # type: ignore[arg-type]
    assert curate._signs(marked) == "<|im_end|>"
    tagged = dataclasses.replace(written, **{field: "It boils [/Ans]"})  # type: ignore[arg-type]
    assert curate._signs(tagged) == ("" if field == "question" else "[/Ans]")


def test_special_tokens_are_found_and_words_are_not():
    assert template.special_tokens("a <|im_end|> b </s>") == ["<|im_end|>", "</s>"]
    assert template.special_tokens("a < b | c > d <b> <| x", known=["<tool>"]) == []
    assert template.special_tokens("a <tool> b", known=["<tool>", "<|im_end|>"]) == ["<tool>"]


def test_another_process_reads_the_key_from_its_own_environment(tmp_path, monkeypatch):
    with Server() as server:
        data = pickle.dumps(asking(server, tmp_path))
        monkeypatch.setenv("VANS_API_KEY", "another-key")
        assert captions(pickle.loads(data).write(requests(1))) == EVENTS[:1]
    assert server.calls[0].headers["Authorization"] == "Bearer another-key"


@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "ALL_PROXY", "https_proxy"])
@pytest.mark.parametrize(
    "proxy", ["http://[::1", "htp://me:hidden@proxy:1", "http://me:hidden@proxy:port", "socks9://a:1"]
)
def test_a_proxy_that_is_none_is_one_line_without_its_password(tmp_path, monkeypatch, variable, proxy):
    monkeypatch.setenv(variable, proxy)
    with pytest.raises(UserError, match="HTTPS_PROXY, HTTP_PROXY or ALL_PROXY is no address of a proxy") as caught:
        endpoint.OpenAI(settings("https://models.example/v1"), tmp_path, progress=False)
    assert "hidden" not in "".join(traceback.format_exception_only(caught.value))


def test_keys_that_are_missing_or_wrong(monkeypatch):
    for value in ("", "   "):
        monkeypatch.setenv("VANS_API_KEY", value)
        with pytest.raises(UserError, match="no key: set the environment variable VANS_API_KEY"):
            client.read_key("VANS_API_KEY", "curate.llm.key_variable", needed=True)
        assert client.read_key("VANS_API_KEY", "", needed=False) == ""
    for value in ("two words", "se\ncret", "schlüssel"):
        monkeypatch.setenv("VANS_API_KEY", value)
        with pytest.raises(UserError, match="holds no key") as caught:
            client.read_key("VANS_API_KEY", "", needed=False)
        assert value not in str(caught.value)
    monkeypatch.setenv("VANS_API_KEY", f" {KEY}\n")
    assert client.read_key("VANS_API_KEY", "", needed=True) == KEY


def test_a_local_endpoint_needs_no_key(tmp_path, monkeypatch):
    monkeypatch.delenv("VANS_API_KEY")
    with Server() as server:
        assert captions(asking(server, tmp_path).write(requests(1))) == EVENTS[:1]
    assert "Authorization" not in server.calls[0].headers


@pytest.mark.parametrize(
    "url, why",
    [
        ("https://user:hush-hush@example.org/v1", "user name or password"),
        ("https://hush-hush@example.org/v1", "user name or password"),
        ("https://example.org/v1?key=hush-hush", "must not hold"),
        ("https://example.org/v1#hush-hush", "must not hold"),
        ("https://example.org:hush-hush/v1", "not an address"),
        ("http://example.org/hush-hush", "use https:// or set plain_http"),
        ("http://127.0.0.1.example.org/hush-hush", "use https:// or set plain_http"),
        ("http://localhost.example.org/hush-hush", "use https:// or set plain_http"),
        ("ftp://example.org/hush-hush", "begins with https://"),
        ("example.org/hush-hush", "begins with https://"),
        ("https:///hush-hush", "begins with https://"),
        ("https://exa mple.org/hush-hush", "begins with https://"),
        ("https://[hush-hush", "not an address"),
    ],
)
def test_addresses_that_are_refused_are_not_shown(tmp_path, url, why):
    with pytest.raises(UserError, match=re.escape(why)) as caught:
        endpoint.OpenAI(settings(url), tmp_path)
    assert "hush" not in str(caught.value)
    tree = params_module.read(ROOT / "params.yaml")
    tree["scales"]["tiny"]["curate"]["llm"]["url"] = url
    with pytest.raises(UserError, match=re.escape(why)) as caught:
        params_module.from_dict(tree)
    assert "hush" not in str(caught.value)


def test_addresses_that_are_taken():
    for url in ("http://localhost:8000/v1", "http://127.0.0.9/v1", "http://[::1]:80/v1", "https://example.org/v1"):
        assert check_url(url) == check_url(url + "/") == check_url(url + "/chat/completions") == url
    assert check_url("http://10.0.0.5:8000/v1", plain_http=True) == "http://10.0.0.5:8000/v1"


@pytest.mark.parametrize(
    "key, value, why",
    [
        ("key_variable", KEY, "must be the name of an environment variable"),
        ("budget", 5.0, "a budget needs price_input"),
        ("extra", {"model": "x"}, "extra.model: cannot be set here"),
    ],
)
def test_settings_that_contradict_themselves(key, value, why):
    tree = params_module.read(ROOT / "params.yaml")
    tree["scales"]["tiny"]["curate"]["llm"][key] = value
    with pytest.raises(UserError, match=why) as caught:
        params_module.from_dict(tree)
    assert KEY not in str(caught.value)


# ------------------------------------------------------------------------------------------------------ prompts
def test_prompts_are_in_the_package_and_complete():
    folder = resources.files("vans.data.annotate") / "prompts"
    assert {p.name for p in folder.iterdir()} == {"choose.md", "write.md", "check.md"}
    assert {name: set(llm.load(name).parts) for name in ("choose", "write", "check")} == {
        "choose": {"system", "user", "again: form"},
        "write": {"system", "user", "again: form", "again: leak"},
        "check": {"system", "user"},
    }
    assert '"vans.data.annotate" = ["prompts/*.md"]' in (ROOT / "pyproject.toml").read_text()


def test_a_label_cannot_move_the_pictures_or_reach_the_placeholders(tmp_path):
    label = "boil\n[[input]]\n$caption ${topic} \ud800\x00"
    request = Request("x", "procedural", label, label, label, clips=(clip(), clip(seed=1)))
    with Server() as server:
        (made,) = asking(server, tmp_path).write([request])
    assert isinstance(made, Annotation)
    assert "boil [[input]] $caption ${topic} ?" in server.calls[0].text and len(server.calls[0].pictures) == 6


def test_prompt_files_with_mistakes_are_user_errors(tmp_path):
    (tmp_path / "a.md").write_text("# User\nHello $nobody, that is $ 5")
    with pytest.raises(UserError, match="a.md: .*dollar sign"):
        prompt_files.load(tmp_path / "a.md").fill("user", nobody="you")
    (tmp_path / "b.md").write_text("# User\nHello $nobody")
    with pytest.raises(UserError, match=r"b.md: unknown placeholder \$nobody"):
        prompt_files.load(tmp_path / "b.md").fill("user", somebody="you")
    with pytest.raises(UserError, match="b.md: no part 'again: leak'"):
        prompt_files.load(tmp_path / "b.md").fill("again: leak")
    (tmp_path / "c.md").write_text("Hello")
    with pytest.raises(UserError, match="no part under the heading"):
        prompt_files.load(tmp_path / "c.md")
    with pytest.raises(UserError, match="d.md: cannot be read"):
        prompt_files.load(tmp_path / "d.md")


# -------------------------------------------------------------------------------------------------- the local model
def test_a_local_qwen_runs_through_the_same_steps(tmp_path):
    """Random weights at toy size through the real processor: it runs, in batches, and answers nothing usable."""
    pytest.importorskip("torch")
    from vans.models.tokenizer import chat_tokenizer
    from vans.models.vlm import VLM

    params = settings(name="qwen", frames=4, side=32, attempts=1, max_tokens=16)
    VLM.scratch(params.models.vlm.config, chat_tokenizer(world.vocabulary()), 0).save(tmp_path / "qwen")
    local = params.curate.qwen.with_(repo=str(tmp_path / "qwen"), revision=None, batch=2)
    params = params.with_(curate={"qwen": local})
    asked = [Request(str(i), "procedural", "tea", "pour", "stir", clips=(clip(4 + i), clip(9))) for i in range(2)]
    asked.append(Request("damaged", "procedural", "tea", "pour", "stir", clips=(b"nothing", clip())))
    asked.append(Request("text alone", "procedural", "tea", "pour", "stir"))
    first = annotator(params, tmp_path, progress=False)
    assert isinstance(first, llm.LLM) and first.chooses
    made = [str(m) for m in first.write(asked)]
    assert made == [llm.UNREADABLE, llm.UNREADABLE, llm.BROKEN, llm.UNREADABLE]
    assert [str(m) for m in first.choose([candidate()])] == [llm.UNREADABLE]
    spent = first.spent()
    assert spent["calls"] == 4 and spent["tokens out"] <= 4 * 16 and spent["cost"] == 0
    again = annotator(params, tmp_path, progress=False)
    assert [str(m) for m in again.write(asked)] == made and "vlm" not in vars(again)  # not even loaded
    many = params.with_(curate={"qwen": local.with_(batch=66)})  # more than are sampled at once elsewhere
    asked = [Request(f"{i}", "procedural", "tea", f"pour {i}", "stir", clips=(clip(4), clip(9))) for i in range(2)]
    asked += [Request(f"text {i}", "procedural", "tea", f"pour {i}", "stir") for i in range(64)]
    assert {str(m) for m in annotator(many, tmp_path, progress=False).write(asked)} == {llm.UNREADABLE}


def test_a_local_qwen_reads_a_text_in_a_batch_as_it_reads_it_alone(tmp_path):
    """Padding has no places: what comes next stands directly behind the last word, however long the others are."""
    torch = pytest.importorskip("torch")
    from vans.data.annotate.qwen import Qwen
    from vans.models.tokenizer import chat_tokenizer
    from vans.models.vlm import VLM
    from vans.toy import world

    params = settings(name="qwen")
    model = VLM.scratch(params.models.vlm.config, chat_tokenizer(world.vocabulary()), 0)
    for name, weight in model.model.named_parameters():
        if "q_proj" in name or "k_proj" in name:
            weight.mul_(12)  # attention that feels where a word stands
    model.save(tmp_path / "qwen")
    local = params.curate.qwen.with_(repo=str(tmp_path / "qwen"), revision=None)
    asked = annotator(params.with_(curate={"qwen": local}), tmp_path, progress=False)
    assert isinstance(asked, Qwen)
    chats = [[{"role": "user", "content": [{"type": "text", "text": text}]}] for text in ("the ball", "the cone " * 9)]
    seen: list = []
    asked.vlm.model.register_forward_hook(lambda *call: seen.append(call[-1].logits[0, -1]))
    for batch in (chats, chats[:1]):
        seeds = [(i,) for i in range(len(batch))]
        asked.vlm.sample(asked._inputs(batch, []), seeds=seeds, max_new_tokens=4, temperature=0)
    together, alone = torch.stack(seen).split(len(seen) // 2)
    assert not asked._inputs(chats, [])["attention_mask"].all()
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


def test_a_local_qwen_that_is_not_there_is_a_user_error(tmp_path):
    pytest.importorskip("torch")
    params = settings(name="qwen")
    local = params.curate.qwen.with_(repo=str(tmp_path / "nowhere"), revision=None)
    params = params.with_(curate={"qwen": local})
    with pytest.raises(UserError, match="curate.qwen.repo: .*nowhere: no weights .*choose another .*curate.annotator"):
        annotator(params, tmp_path, progress=False)
    cache = Cache(tmp_path / params.curate.llm.cache)
    cache.put("k", "write", "another", Reply("x"), 0.0)  # what others have answered is no help
    with pytest.raises(UserError, match="no weights"):
        annotator(params, tmp_path, progress=False)
    cache.put("l", "write", f"{local.repo}@", Reply("x"), 0.0)
    asked = annotator(params, tmp_path, progress=False)  # its own answers may be all that is needed
    with pytest.raises(UserError, match="no weights"):
        asked.write(requests(1))
