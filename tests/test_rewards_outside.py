"""Reward terms outside of this process: executables, HTTP endpoints, and the judge; what each does to a rollout."""

import base64
import io
import json
import math
import os
import resource
import sys
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from tests.llm_server import Answer, Call, Server, failed, said
from tests.test_annotate import FakeClock
from vans.errors import UserError
from vans.media import video
from vans.rewards import names
from vans.rewards.plugs import IN_A_ROW, plugs, score
from vans.rewards.rollout import Rollout

KEY = "sk-5ecret-0f-the-judge/+"
P, G = 2, 3
CAPTIONS = [["a ball rolls", None, "a box grows"], ["it jumps", "it stops", "it stops"]]


class Clips:
    """Stands for the triplets."""

    def clips(self, ids, which):
        return np.random.default_rng(len(which)).integers(0, 255, (len(ids), 5, 16, 24, 3), dtype=np.uint8)


def rollout(videos: bool = True, captions=None) -> Rollout:
    """Videos 4 and 5 are the same, with the same caption."""
    shown = torch.randint(0, 255, (P, G, 5, 16, 24, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    shown[1, 2] = shown[1, 1]
    captions = captions or CAPTIONS
    answers = [[f"[Ans]{c}[/Ans]" if c else "?" for c in row] for row in captions]
    ids, questions, truth = ["one", "two"], ["What next?", "And then?"], ["a ball", "it stops"]
    return Rollout(ids, questions, truth, answers, captions, shown if videos else None, triplets=Clips(), fps=5.0)


def spec(weight: float = 1.0, needs: str | None = "text", timeout: float = 10.0) -> SimpleNamespace:
    return SimpleNamespace(weight=weight, needs=needs, timeout=timeout)


def term(name, params=None, renders=True, **changes):
    return plugs({str(name): spec(**changes)}, params, renders)


def values(terms, made: Rollout | None = None) -> list[list[float | None]]:
    """The scores of the only term, None where dropped; and what is dropped earns nothing."""
    scores = score(made or rollout(), terms)
    (found,) = scores.terms.values()
    assert torch.equal(scores.kept, ~found.isnan()) and not scores.total[~scores.kept].any()
    return [[None if math.isnan(x) else round(x, 4) for x in row] for row in found.tolist()]


# ---------------------------------------------------------------------------------------------------- executables
def program(folder, body: str):
    path = folder / "judge.py"
    path.write_text(f"#!{sys.executable} -I\nimport json, sys\nasked = json.load(sys.stdin)\n{body}\n")
    path.chmod(0o755)
    return path


def test_a_program_scores_a_rollout_of_texts(tmp_path):
    body = "print(json.dumps({'scores': [[c and len(c) / 10 for c in row] for row in asked['captions']]}))\n"
    body += "assert sorted(asked) == ['answers', 'captions', 'ids', 'questions', 'truth'], asked"
    made = values(term(program(tmp_path, body)), rollout(videos=False))
    assert made == [[1.2, None, 1.1], [0.8, 0.8, 0.8]]


def test_a_program_sees_the_videos_and_an_answer_it_does_not_score_is_counted(tmp_path):
    body = f"""
sys.path[:0] = {[p for p in sys.path if p]!r}
import numpy as np
videos, inputs, targets = (np.load(asked[name]) for name in ("videos", "inputs", "targets"))
assert videos.shape == (2, 3, 5, 16, 24, 3) and inputs.shape == targets.shape == (2, 5, 16, 24, 3)
print(json.dumps({{"scores": videos.reshape(2, 3, -1)[:, :, 0].tolist()[:1] + [[1, 2.5, None]]}}))"""
    made = rollout()
    scores = score(made, term(program(tmp_path, body), needs="video", weight=2.0))
    first = made.videos[0, :, 0, 0, 0, 0].float()
    assert torch.equal(scores.total, torch.cat([2 * first, torch.tensor([2.0, 5.0, 0.0])]).view(2, 3))
    assert scores.kept.tolist() == [[True] * 3, [True, True, False]]
    means = scores.means()
    assert means["dropped"].tolist() == pytest.approx([0, 1 / 3])
    assert means[str(tmp_path / "judge.py")].tolist() == pytest.approx([first.mean().item(), 1.75])  # of the kept ones


@pytest.mark.parametrize("room", [1000, 34687])  # of 34688 bytes
def test_a_full_temporary_folder_is_one_line(tmp_path, room):
    run = term(program(tmp_path, "print('{}')"), needs="video")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, limits[1]))  # no file may be larger
    try:
        with pytest.raises(UserError, match="no space left on the disk"):
            score(rollout(), run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


WRONG = {
    "exit code": ("sys.exit('no model here')", "exit code 1: no model here"),
    "no word": ("", "did not print"),
    "nonsense": ("print('0.5 0.5')", "did not print"),
    "not utf-8": ("sys.stdout.buffer.write(b'\\xff\\xfe')", "did not print"),
    "deep": ("print('[' * 100000)", "did not print"),
    "another object": ("print('[1, 2]')", "did not print"),
    "one list": ("print(json.dumps({'scores': [1, 2, 3]}))", "did not print"),
    "too few": ("print(json.dumps({'scores': [[1, 2, 3]]}))", "scores must be 2 lists of 3"),
    "ragged": ("print(json.dumps({'scores': [[1, 2, 3], [1, 2]]}))", "scores must be 2 lists of 3"),
    "words": ("print(json.dumps({'scores': [['1', 2, 3], [1, 2, 3]]}))", "'1' is not a number"),
    "yes": ("print(json.dumps({'scores': [[True, 2, 3], [1, 2, 3]]}))", "True is not a number"),
    "too large": ("print('{\"scores\": [[1' + '0' * 400 + ', 2, 3], [1, 2, 3]]}')", "too large"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_program_that_fails_drops_the_rollout_and_says_why(tmp_path, capfd, name):
    body, why = WRONG[name]
    assert values(term(program(tmp_path, body)), rollout(videos=False)) == [[None] * 3] * 2
    said_ = capfd.readouterr().out
    assert said_.count("\n") == 1 and why in said_


def test_a_program_that_takes_too_long_is_ended_with_all_that_it_started(tmp_path, capfd):
    path = tmp_path / "slow.sh"
    path.write_text("#!/bin/sh\nsleep 300 &\necho $! > $0.pid\nsleep 300\n")
    path.chmod(0o755)
    began = time.monotonic()
    assert values(term(path, timeout=0.5), rollout(videos=False)) == [[None] * 3] * 2
    assert "took longer than 0.5 s" in capfd.readouterr().out and time.monotonic() - began < 100
    child = int((tmp_path / "slow.sh.pid").read_text())
    with suppress(ProcessLookupError, FileNotFoundError):  # gone, or dead and not yet collected
        os.kill(child, 0)
        assert Path(f"/proc/{child}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_a_program_that_is_not_there_or_does_not_start_is_one_line(tmp_path):
    for path in (tmp_path / "none", tmp_path):
        with pytest.raises(UserError, match="no program that can be run there; `chmod"):
            term(path)
    path = tmp_path / "text"
    path.write_text("just words")
    with pytest.raises(UserError, match="no program that can be run there"):
        term(path)
    path.chmod(0o755)
    with pytest.raises(UserError, match="does not start .*`#!"):
        values(term(path))


def test_a_program_is_looked_for_in_the_repository_wherever_one_stands(tmp_path, monkeypatch):
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "notebooks").mkdir()
    program(tmp_path, "print(json.dumps({'scores': [[1, 2, 3], [4, 5, 6]]}))")
    monkeypatch.chdir(tmp_path / "notebooks")
    assert values(term("./judge.py"), rollout(videos=False)) == [[1, 2, 3], [4, 5, 6]]
    with pytest.raises(UserError, match="reward ../judge.py: no program"):
        term("../judge.py")


def test_three_rollouts_in_a_row_without_a_score_stop_with_one_line(tmp_path):
    terms = term(program(tmp_path, "sys.exit(2) if asked['questions'][0] == 'bad' else print('{\"scores\": "
                                   "[[1, null, null], [null, null, null]]}')"))  # fmt: skip
    good, bad = rollout(videos=False), rollout(videos=False)
    bad.questions[0] = "bad"
    for made in (bad, bad, good, bad, bad):  # one score in between is enough to go on
        score(made, terms)
    with pytest.raises(UserError, match=f"judge.py: gave no score at all for {IN_A_ROW} rollouts in a row") as caught:
        score(bad, terms)
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------ HTTP endpoints
class Scorer:
    """`with Scorer(behave) as scorer`: behave(body) -> (status, bytes); asked: all bodies."""

    def __init__(self, behave):
        self.asked: list[dict] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                outer.asked.append(body)
                status, data = behave(body)
                try:
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(data)))
                    self.end_headers()
                    self.wfile.write(data)
                except OSError:
                    pass

            def log_message(self, *args) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/score"

    def __enter__(self):
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()
        return self

    def __exit__(self, *error):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


def test_an_endpoint_scores_each_answer_and_sees_its_video():
    with Scorer(lambda body: (200, json.dumps({"score": len(body["caption"] or "") / 4}).encode())) as scorer:
        assert values(term(scorer.url, needs="video")) == [[3.0, 0.0, 2.75], [2.0, 2.0, 2.0]]
    asked = {(body["id"], body["caption"]): body for body in scorer.asked}
    body = asked["two", "it jumps"]
    assert len(scorer.asked) == 6 and body["question"] == "And then?" and body["truth"] == "it stops"
    assert body["answer"] == "[Ans]it jumps[/Ans]"
    for name in ("video", "input", "target"):
        assert video.decode(base64.b64decode(body[name]))[0].shape == (5, 16, 24, 3)
    seen = video.decode(base64.b64decode(body["video"]))[0].astype(float)
    assert np.abs(seen - rollout().videos[1, 0].numpy()).mean() < 60  # H.264 of noise
    with Scorer(lambda body: (200, b'{"score": 1}')) as scorer:
        assert values(term(scorer.url), rollout(videos=False)) == [[1.0] * 3] * 2
    assert "video" not in scorer.asked[0]


NOT_SCORED = {
    "500": ((500, b'{"score": 1}'), "status 500"),
    "404": ((404, b""), "status 404"),
    "redirect": ((302, b'{"score": 1}'), "status 302"),
    "null": ((200, b'{"score": null}'), "it said null"),
    "word": ((200, b'{"score": "0.5"}'), "'0.5' is not a number"),
    "no score": ((200, b"{}"), "KeyError"),
    "html": ((200, b"<html>"), "JSONDecodeError"),
    "list": ((200, b"[0.5]"), "TypeError"),
    "deep": ((200, b"[" * 100_000), "RecursionError"),
    "too large": ((200, b'{"score": 1' + b"0" * 400 + b"}"), "too large"),
}


@pytest.mark.parametrize("name", NOT_SCORED)
def test_an_answer_that_an_endpoint_does_not_score_is_dropped_alone_and_counted(capfd, name):
    reply, why = NOT_SCORED[name]
    with Scorer(lambda body: reply if body["caption"] == "it stops" else (200, b'{"score": 0.5}')) as scorer:
        terms = term(scorer.url)
        assert values(terms, rollout(videos=False)) == [[0.5] * 3, [0.5, None, None]]
        assert score(rollout(videos=False), terms).means()["dropped"].tolist() == pytest.approx([0, 2 / 3])
    said_ = capfd.readouterr().out.splitlines()
    assert len(said_) == 2 and "no score for 2 of 6 answers" in said_[0] and why in said_[0]


def test_a_slow_endpoint_drops_what_comes_too_late():
    released = threading.Event()

    def behave(body):
        if body["caption"] == "it jumps":
            released.wait(20)
        return 200, b'{"score": 0.5}'

    with Scorer(behave) as scorer:
        assert values(term(scorer.url, timeout=0.5), rollout(videos=False)) == [[0.5] * 3, [None, 0.5, 0.5]]
        released.set()


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_nan_stops_with_the_terms_name(number):
    with Scorer(lambda body: (200, b'{"score": ' + number.encode() + b"}")) as scorer:
        message = f"reward {scorer.url}: is (nan|inf|-inf) for one \\(caption 'a ball rolls'\\)"
        with pytest.raises(UserError, match=message):
            score(rollout(videos=False), term(scorer.url))


def test_nobody_at_the_address_stops_after_three_rollouts(capfd):
    terms = term("http://127.0.0.1:1/score")
    for _ in range(IN_A_ROW - 1):
        assert values(terms, rollout(videos=False)) == [[None] * 3] * 2
    with pytest.raises(UserError, match="gave no score at all for 3 rollouts in a row; see above for why"):
        score(rollout(videos=False), terms)
    assert capfd.readouterr().out.count("ConnectError") == IN_A_ROW


def test_a_proxy_that_is_none_is_one_line(monkeypatch):
    monkeypatch.setenv("HTTPS_PROXY", "http://someone:word@[::1")
    with pytest.raises(UserError, match="HTTPS_PROXY.* is no address of a proxy") as found:
        term("https://example.org/score")
    assert "word" not in str(found.value)


def test_an_unsafe_address_is_refused_and_not_shown():
    for url in ("http://example.org/hush", "https://hush:hush@example.org/score", "https://example.org/score?key=hush"):
        with pytest.raises(UserError, match="reward: url: ") as caught:
            term(url)
        assert "hush" not in str(caught.value)


# ------------------------------------------------------------------------------------------------- plugs of all kinds
@pytest.mark.parametrize(
    "name, why",
    [
        ("vv1", "reward 'vv1' is unknown; use one of "),
        ("tests.nowhere:f", "reward tests.nowhere:f: ModuleNotFoundError: No module named 'tests.nowhere'; it must be"),
        ("tests.test_rewards_outside:nothing", "AttributeError: .*no attribute 'nothing'; it must be"),
        ("broken_syntax:f", "reward broken_syntax:f: SyntaxError: "),
        ("broken_import:f", "reward broken_import:f: ZeroDivisionError: "),
        ("broken_class:f", "reward broken_class:f: KeyError: "),
        ("tests.test_rewards_outside:P", "reward tests.test_rewards_outside:P: is not a function"),
        ("needs_videos:f", "reward needs_videos:f: it needs videos, and this stage renders none; give the cell a VDM"),
        ("motion", "reward motion: it needs videos, and this stage renders none"),
    ],
)
def test_terms_that_cannot_be_are_refused_in_one_line(tmp_path, monkeypatch, name, why):
    (tmp_path / "broken_syntax.py").write_text("def f(:")
    (tmp_path / "broken_import.py").write_text("1 / 0")
    (tmp_path / "broken_class.py").write_text("class f:\n    def __init__(self, params):\n        {}['x']")
    mark = "from vans.rewards.rollout import term\n@term(needs='video')\ndef f(rollout):\n    return 0"
    (tmp_path / "needs_videos.py").write_text(mark)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(UserError, match=why) as caught:
        term(name, renders=False, needs=None)
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no term with a weight"):
        term(name, weight=0)


MINE = {
    "raise ValueError('no model')": (None, "no score at all (ValueError: no model)"),
    "return [[1, 2, 3]]": ("returned \\[1, 3\\], but the rollout is \\[2, 3\\]", ""),
    "return [[1, 2, 3], [1]]": ("returned no \\[P, G\\] numbers", ""),
    "return 'abc'": ("returned no \\[P, G\\] numbers", ""),
    "return None": ("returned no \\[P, G\\] numbers", ""),
    "return [[1, 2, float('nan')], [1, 2, 3]]": ("is nan for one", ""),
}


@pytest.mark.parametrize("body", MINE)
def test_a_function_of_the_users_own_that_fails_is_named(tmp_path, monkeypatch, capfd, body):
    name = f"mine_{list(MINE).index(body)}"
    (tmp_path / f"{name}.py").write_text(f"def f(rollout):\n    {body}")
    monkeypatch.syspath_prepend(tmp_path)
    terms, (stops, told) = term(f"{name}:f"), MINE[body]
    if stops is None:
        assert values(terms) == [[None] * 3] * 2 and told in capfd.readouterr().out
    else:
        with pytest.raises(UserError, match=f"reward {name}:f: {stops}"):
            score(rollout(), terms)


# -------------------------------------------------------------------------------------------------------- the judge
def judge(server, folder, monkeypatch, mode="yes_no", **changes):
    monkeypatch.setenv("VANS_API_KEY", KEY)
    monkeypatch.setattr("vans.llm.client.Timer", FakeClock)
    base = {"url": server.url, "model": "toy", "key_variable": "VANS_API_KEY", "plain_http": False, "extra": {}}
    base |= {"temperature": 0.7, "max_tokens": 64, "frames": 3, "side": 12, "attempts": 2, "concurrency": 4}
    base |= {"timeout": 10.0, "retries": 1, "requests_per_minute": None, "tokens_per_minute": None, "budget": None}
    base |= {"price_input": None, "price_output": None, "image_tokens": 50, "answer_tokens": 20}
    base |= {"cache": str(folder / "judge.sqlite"), "mode": mode}
    return term("judge", SimpleNamespace(judge=SimpleNamespace(**base | changes)), needs=None)


def likely(**words: float) -> dict:
    """Log-probabilities of one token, the likeliest first."""
    top = [{"token": word, "logprob": math.log(p)} for word, p in words.items()]
    return {"content": [{**top[0], "top_logprobs": top}]}


def test_yes_or_no_by_log_probabilities(tmp_path, monkeypatch, capfd):
    """p(yes) / (p(yes) + p(no)), whatever their spelling; the same video with the same caption is asked once."""
    masses = {
        "a ball rolls": {"Yes": 0.5, " yes": 0.1, "No": 0.2, "Maybe": 0.2},
        "a box grows": {"No": 0.9},
        "it jumps": {"yes": 0.03, "no": 0.01},
        "it stops": {"no": 0.75, "YES": 0.25},
    }

    def behave(call: Call) -> Answer:
        caption = call.text.split("Its answer in words: ")[1].splitlines()[0]
        return said(next(iter(masses[caption])), logprobs=likely(**masses[caption]))

    with Server(behave) as server:
        terms = judge(server, tmp_path, monkeypatch)
        assert values(terms) == [[0.75, 0.0, 0.0], [0.75, 0.25, 0.25]]  # no caption: 0, unasked
    assert terms[0].needs == "video" and len(server.calls) == 4 and not capfd.readouterr().out
    body = server.calls[0].body
    assert body["logprobs"] is True and body["top_logprobs"] == 5 and body["temperature"] == 0.0
    assert server.calls[0].headers["Authorization"] == f"Bearer {KEY}"
    call = next(c for c in server.calls if "it jumps" in c.text)
    shown = [Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))) for url in call.pictures]
    assert [p.size for p in shown] == [(12, 8)] * 6 and "And then?" in call.text and "yes or no" in call.text
    rows = [part["type"] for part in call.body["messages"][1]["content"]]
    assert rows == ["text", *["image_url"] * 3, "text", *["image_url"] * 3, "text"]


WORDS = {
    "Yes.": 1.0,
    "no": 0.0,
    "**No**, it shows a box.": 0.0,
    "Yes or no?": None,
    "I cannot tell.": None,
    "": None,
    "yesterday": None,
}


@pytest.mark.parametrize("broken", [None, {"content": None}, {"content": [{"token": "Yes"}]}, 7])
def test_without_log_probabilities_the_word_counts(tmp_path, monkeypatch, broken):
    for word, expected in list(WORDS.items())[: None if broken is None else 2]:

        def behave(call: Call, word: str = word) -> Answer:
            if "logprobs" in call.body and broken is None:
                return failed(400, "unknown field: logprobs")
            return said(word, logprobs=broken)

        with Server(behave) as server:
            made = values(judge(server, tmp_path, monkeypatch, concurrency=1))
            nothing = expected is None  # of the whole rollout
            assert made == [[expected, None if nothing else 0.0, expected], [expected] * 3]


def test_a_grade_from_0_to_10(tmp_path, monkeypatch, capfd):
    replies = {"a ball rolls": '{"why": "good", "grade": 7}', "a box grows": 'Well: {"grade": "2.5"} I think.'}
    replies |= {"it jumps": '{"grade": 11}', "it stops": '{"grade": 10}'}

    def behave(call: Call) -> Answer:
        return said(replies[call.text.split("Its answer in words: ")[1].splitlines()[0]])

    with Server(behave) as server:
        terms = judge(server, tmp_path, monkeypatch, mode="grade")
        assert values(terms) == [[0.7, 0.0, 0.25], [None, 1.0, 1.0]]
        assert server.calls[0].body["response_format"]["json_schema"]["schema"]["required"] == ["why", "grade"]
    assert len(server.calls) == 4 + 1  # what cannot be read is asked once more, and warmer
    assert [c.body["temperature"] for c in server.calls if "it jumps" in c.text] == [0.0, 0.7]
    assert "reward judge: no score for 1 of 4 answers (grade was 11, not from 0 to 10)" in capfd.readouterr().out


def _refusal() -> Answer:
    tree = json.loads(said(None).data)
    tree["choices"][0]["message"]["refusal"] = "I would rather not."
    return Answer(json.dumps(tree).encode())


LOST = {
    "refusal": (_refusal(), "the model declined", 1),
    "filter": (said("yes", "content_filter"), "the model declined", 1),
    "nonsense": (said("42"), "the answer said neither yes nor no", 2),
    "the key": (said(f"yes {KEY}"), "an answer holds the endpoint's key", 1),
    "the key, escaped": (said("yes " + "".join(f"\\u{ord(c):04x}" for c in KEY)), "holds the endpoint's key", 1),
    "400": (failed(422, f"bad {KEY}"), "did not take the request (422: bad ***)", 1),
    "500": (failed(500, f"{KEY[::-1]}"), "gave no answer (500: (a message that holds the key))", 2),
    "429": (failed(429, "slow down"), "gave no answer (429: slow down)", 2),
    "html": (Answer(b"<html>"), "gave no answer (not the answer of a chat endpoint: <html>)", 2),
}


@pytest.mark.parametrize("name", LOST)
def test_what_the_judge_does_not_say_is_dropped_alone_and_counted(tmp_path, monkeypatch, capfd, name):
    answer, why, asked = LOST[name]

    def behave(call: Call) -> Answer:
        return answer if "it jumps" in call.text else said("yes")

    with Server(behave) as server:
        terms = judge(server, tmp_path, monkeypatch, concurrency=1, extra={"logprobs": None, "top_logprobs": None})
        scores = score(rollout(), terms)
        assert sum("it jumps" in call.text for call in server.calls) == asked
    assert scores.terms["judge"].nan_to_num(-1).tolist() == [[1, 0, 1], [-1, 1, 1]]
    assert scores.means()["dropped"].tolist() == pytest.approx([0, 1 / 3]) and scores.total[1].tolist() == [0, 1, 1]
    printed = capfd.readouterr()
    assert why in printed.out and KEY not in printed.out + printed.err and printed.out.count("\n") == 1
    files = [path.read_bytes() for path in tmp_path.iterdir()]
    assert files and not any(part.encode() in data for data in files for part in (KEY, KEY[::-1], "it jumps"))


def test_a_judge_that_is_down_stops_after_three_rollouts_and_one_without_a_right_key_at_once(tmp_path, monkeypatch):
    with Server(lambda call: failed(503, "overloaded")) as server:
        terms = judge(server, tmp_path, monkeypatch, retries=0)
        for _ in range(IN_A_ROW - 1):
            assert values(terms) == [[None] * 3] * 2
        with pytest.raises(UserError, match="reward judge: gave no score at all for 3 rollouts in a row"):
            score(rollout(), terms)
    for status, why in ((401, "refuses the key"), (404, "see judge.url and judge.model"), (402, "nothing left to pay")):
        with Server(lambda call, status=status: failed(status, KEY)) as server:  # type: ignore[misc]
            with pytest.raises(UserError, match=why) as caught:
                score(rollout(), judge(server, tmp_path, monkeypatch))
            assert KEY not in str(caught.value) and "\n" not in str(caught.value)


def test_the_judges_budget_holds_over_runs(tmp_path, monkeypatch):
    usage = {"prompt_tokens": 0, "completion_tokens": 64}
    money = {"price_input": 0.0, "price_output": 1e6 / 64, "budget": 5.5, "concurrency": 1}  # each call costs 1.00
    with Server(lambda call: said("yes", usage=usage)) as server:
        assert values(judge(server, tmp_path, monkeypatch, **money)) == [[1.0, 0.0, 1.0], [1.0] * 3]
        with pytest.raises(UserError, match="judge.budget: 5.00 of 5.50 are spent .*raise the budget"):
            score(rollout(), judge(server, tmp_path, monkeypatch, **money))
        assert server.count() == 5


def test_a_judge_without_a_key_or_with_an_unsafe_address_is_refused_before_anything_is_rendered(tmp_path, monkeypatch):
    with pytest.raises(UserError, match="params.yaml: judge: url: http:// shows key and videos"):
        judge(SimpleNamespace(url="http://example.org/v1"), tmp_path, monkeypatch)
    monkeypatch.setattr(monkeypatch, "setenv", lambda *_: None)
    monkeypatch.delenv("VANS_API_KEY", raising=False)
    with pytest.raises(UserError, match="no key: set the environment variable VANS_API_KEY .named by judge.key_var"):
        judge(SimpleNamespace(url="https://example.org/v1"), tmp_path, monkeypatch)
    assert "judge" in names()
