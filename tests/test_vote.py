"""Blind votes: who sees what, what is kept, what the server tells, what the votes say."""

import hashlib
import importlib.util
import json
import os
import re
import socket
import types
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from tests import smoke, vote_helpers
from tests.vote_helpers import ARMS, QUESTION, Vote, request
from vans.cli import main
from vans.errors import UserError
from vans.media import video
from vans.show import style
from vans.toy import oracle
from vans.vote import ballots, figure, plan, report, resample, samples, sheets
from vans.vote.plan import IDENTICAL, LIKERT, OTHER, TIE, TRUTH, Side, Trial
from vans.vote.server import Server
from vans.vote.session import NAME, Refused, Session


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return vote_helpers.make(tmp_path_factory.mktemp("vote"))


def planned(folder: Path, **settings: Any) -> plan.Plan:
    found = samples.of_csv(folder / "questions.csv")
    return plan.make([str(folder / arm) for arm in ARMS], found, **settings)


@pytest.fixture
def session(folder, tmp_path):
    made = planned(folder)
    file = ballots.Ballots(tmp_path / "votes.csv", made)
    yield Session(made, file)
    file.close()


# ------------------------------------------------------------------------------------------------- who sees what
def test_everyone_sees_every_pair_in_an_order_and_on_sides_of_ones_own(folder):
    made = planned(folder)
    ann, bob = made.trials("ann"), made.trials("bob")
    assert made.trials("ann") == ann != bob, "from the name alone"
    assert planned(folder, seed=1).trials("ann") != ann
    for trials in (ann, bob):
        shown = Counter((t.sample, *sorted(side.arm for side in t.sides)) for t in trials if not t.check)
        assert len(shown) == 3 * 3 and set(shown.values()) == {1}
        assert Counter(t.check for t in trials if t.check) == {OTHER: 2, IDENTICAL: 2}
    first = [
        t.sides[0].arm == min(side.arm for side in t.sides)
        for n in range(30)
        for t in made.trials(f"r{n}")
        if not t.check
    ]
    assert 0.4 < np.mean(first) < 0.6, "no side has an arm more often"
    places = [n for r in range(30) for n, t in enumerate(made.trials(f"r{r}")) if t.check]
    assert {place * 4 // 13 for place in places} == {0, 1, 2, 3}, "checks are spread over the order"


def test_a_check_shows_copies_or_the_truth_of_the_sample_that_looks_least_like_it(folder):
    made = planned(folder, at_once=3, checks=6)
    found = [trial for trial in made.trials("ann") if trial.check]
    for trial in found:
        assert len(trial.sides) == 3
        if trial.check == IDENTICAL:
            assert len(set(trial.sides)) == 1 and trial.right(TIE) and not trial.right(trial.names[0])
        else:
            other = made.unlike[trial.sample]
            assert sorted(trial.sides) == sorted([Side(TRUTH, trial.sample), Side(TRUTH, other), Side(TRUTH, other)])
            assert sorted(trial.names) == [OTHER, OTHER, TRUTH]
            assert trial.right(TRUTH) and not trial.right(OTHER) and not trial.right(TIE)
    assert made.unlike.keys() == {"s0", "s1", "s2"} and all(a != b for a, b in made.unlike.items())


def test_marks_right_and_wrong():
    copies = Trial("a", (Side("x", "a"),) * 2, IDENTICAL)
    assert copies.right([[3, 4, 4], [4, 4, 3]]) and not copies.right([[3, 4, 4], [5, 4, 4]])
    strange = Trial("a", (Side(TRUTH, "b"), Side(TRUTH, "a")), OTHER)
    assert strange.right([[5, 5, 1], [1, 1, 2]]) and not strange.right([[1, 1, 2], [5, 5, 2]])
    assert Trial("a", (Side("x", "a"), Side("y", "a"))).right("x") is None


def test_without_truths_checks_are_copies(tmp_path):
    made = planned(vote_helpers.make(tmp_path, truths=False), checks=5)
    assert [t.check for t in made.trials("a") if t.check] == [IDENTICAL] * 5


def test_a_part_of_the_comparisons_and_marks_of_each_arm_once(folder):
    some = planned(folder, each=1).trials("ann")
    assert sorted(t.sample for t in some if not t.check) == ["s0", "s1", "s2"]
    marked = planned(folder, form=LIKERT, at_once=2).trials("ann")
    shown = Counter(side for t in marked if not t.check for side in t.sides)
    assert shown == {Side(arm, f"s{i}"): 1 for arm in ARMS for i in range(3)}


def test_samples_are_drawn_by_the_seed_among_those_that_all_have(tmp_path):
    vote_helpers.make(tmp_path, samples=8)
    (tmp_path / "okapi/videos/s5.avi").unlink()
    drawn = {tuple(planned(tmp_path, count=4, seed=seed).samples) for seed in range(6)}
    assert len(drawn) > 3 and all(len(ids) == 4 and "s5" not in ids for ids in drawn)


def test_what_cannot_be_compared_is_one_line(folder, tmp_path, monkeypatch, capsys):
    asked = samples.of_csv(folder / "questions.csv")
    for folders, words in (
        (["zebra"], "two or more"),
        (["zebra", "zebra"], "cannot be called 'zebra' here; give it another name: NAME=zebra"),
        (["zebra", "truth=quokka"], "NAME=quokka"),
        (["zebra", "a\u202eb=quokka"], "NAME=quokka"),
        (["zebra", "lion"], "no such folder"),
    ):
        monkeypatch.chdir(folder)
        with pytest.raises(UserError, match=words):
            plan.make(folders, asked)
    assert list(plan.make(["zebra", "b=quokka"], asked).arms) == ["zebra", "b"]
    for settings, words in (({"at_once": 4}, "2 to 3"), ({"each": 0}, "--each 0"), ({"count": 0}, "--samples 0")):
        with pytest.raises(UserError, match=words):
            planned(folder, **settings)
    with pytest.raises(UserError, match="no sample of which all"):
        plan.make(["zebra", "quokka"], {"other": asked["s0"]})
    assert main(["vote", "zebra", "quokka", "--form", "stars", "--questions", "questions.csv"]) == 1
    assert capsys.readouterr().err == "vans: --form stars: choice or likert\n"
    for text, words in (
        ("id,input\na,b\n", "column 'question'"),
        ("id,question\na,b,c\n", "line 2"),
        ("id,question\na,b\na,c\n", "twice"),
        ("id,question,truth\na,b,lost.mp4\n", "lost.mp4 is not there"),
        ("id,question\n", "no sample"),
        ('id,question\na,"b\n', "cannot be read"),
    ):
        (tmp_path / "q.csv").write_text(text)
        with pytest.raises(UserError, match=words):
            samples.of_csv(tmp_path / "q.csv")


def test_a_sheet_holds_every_picture_and_small_ones_exactly(tmp_path, monkeypatch):
    rng = np.random.default_rng(0)
    clip = rng.integers(0, 256, (4, 5, 3000, 3), dtype=np.uint8)
    for frames, exact in ((clip[:, :, :60], True), (clip, False)):
        found = sheets.sheet(frames, 4.0)
        back = vote_helpers.pictures(found.data, found.described())
        assert back.shape == frames.shape and found.fps == 4.0 and found.columns <= 8192 // frames.shape[2]
        assert np.array_equal(back, frames) if exact else np.abs(back - frames.astype(float)).mean() < 12
    video.write(tmp_path / "long.avi", np.zeros((500, 4, 4, 3), np.uint8), 25)
    short, fps = sheets.read(tmp_path / "long.avi")
    assert len(short) == sheets.LONGEST and fps == pytest.approx(12.0), "as long as it was"
    monkeypatch.setattr(sheets, "ROOM", 20_000)
    video.write(tmp_path / "big.avi", np.zeros((10, 60, 80, 3), np.uint8), 10)
    small, fps = sheets.read(tmp_path / "big.avi")
    assert small.shape == (10, 38, 51, 3) and fps == 10, "no larger than a browser holds"


# -------------------------------------------------------------------------------------------------- what is kept
def vote(made: plan.Plan, number: int = 1, rater: str = "ann", choice: Any = TIE) -> dict[str, Any]:
    return ballots.row(made, rater, number, made.trials(rater)[number - 1], choice, 1.234)


def test_a_vote_is_a_line_that_a_spreadsheet_takes_for_words(folder, tmp_path):
    made = planned(folder)
    path = tmp_path / "deep/votes.csv"
    file = ballots.Ballots(path, made)
    file.add(vote(made, rater="=cmd()"))
    file.add(vote(made, rater='a "b", c'))
    file.add(vote(made, rater='a "b", c', choice=made.trials('a "b", c')[0].names[0]))
    file.close()
    cells = vote_helpers.rows(path)
    assert list(cells[0]) == list(ballots.COLUMNS) and cells[0]["rater"] == "'=cmd()"
    trial = made.trials("=cmd()")[0]
    assert json.loads(cells[0]["sides"]) == trial.names and json.loads(cells[0]["arms"]) == sorted(set(trial.names))
    assert cells[0]["right"] == ("" if not trial.check else "right" if trial.check == IDENTICAL else "wrong")
    assert (cells[0]["seconds"], cells[0]["seed"], cells[0]["plan"]) == ("1.23", "0", made.name)
    assert cells[0]["version"].startswith("vans ")
    frame = ballots.read(path)
    assert list(frame["rater"]) == ["=cmd()", 'a "b", c', 'a "b", c'] and list(frame["sides"][0]) == trial.names
    again = ballots.Ballots(path, made)
    assert again.votes['a "b", c'][1]["choice"] == cells[2]["choice"], "the last line counts"
    again.close()


def test_a_line_cut_short_is_taken_away_and_what_was_confirmed_stays(folder, tmp_path):
    made, path = planned(folder), tmp_path / "votes.csv"
    file = ballots.Ballots(path, made)
    file.add(vote(made))
    whole = path.read_bytes()
    file.add(vote(made, 2))
    file.close()
    for cut in (1, 30):
        path.write_bytes(path.read_bytes()[:-cut])
        file = ballots.Ballots(path, made)
        assert list(file.votes["ann"]) == [1] and path.read_bytes() == whole
        file.add(vote(made, 2))
        file.close()
    path.write_bytes(whole[:20])
    ballots.Ballots(path, made).close()
    assert path.read_bytes() == (",".join(ballots.COLUMNS) + "\n").encode(), "a header cut short is written again"


def test_a_full_disk_leaves_no_half_line(folder, tmp_path, monkeypatch):
    made, path = planned(folder), tmp_path / "votes.csv"
    file = ballots.Ballots(path, made)
    file.add(vote(made))
    whole, write = path.read_bytes(), os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:9]))
    with pytest.raises(UserError, match="no space left"):
        file.add(vote(made, 2))
    assert path.read_bytes() == whole and list(file.votes["ann"]) == [1]
    monkeypatch.undo()
    file.add(vote(made, 2))
    file.close()
    assert list(ballots.read(path)["number"]) == [1, 2]


def test_a_file_of_another_vote_or_process_or_kind_is_left_alone(folder, tmp_path):
    made, path = planned(folder), tmp_path / "votes.csv"
    file = ballots.Ballots(path, made)
    file.add(vote(made))
    with pytest.raises(UserError, match="another `vans vote` writes it"):
        ballots.Ballots(path, made)
    file.close()
    for other in (planned(folder, seed=1), planned(folder, checks=5), planned(folder, form=LIKERT)):
        with pytest.raises(UserError, match="another plan"):
            ballots.Ballots(path, other)
    for text in (b"my thesis, without a line end", b"a,b\n1,2\n"):
        (tmp_path / "own.txt").write_bytes(text)
        with pytest.raises(UserError, match="holds no votes"):
            ballots.Ballots(tmp_path / "own.txt", made)
        assert (tmp_path / "own.txt").read_bytes() == text
    for lines, words in (("a,b\n1,2\n", "column 'rater'"), ("", "cannot be read")):
        (tmp_path / "own.csv").write_text(lines)
        with pytest.raises(UserError, match=words):
            ballots.read(tmp_path / "own.csv")


def test_an_answer_that_was_rendered_again_is_another_plan(tmp_path):
    first = planned(vote_helpers.make(tmp_path)).name
    assert planned(tmp_path).name == first
    path = tmp_path / "zebra/videos/s1.avi"
    path.write_bytes((tmp_path / "zebra/videos/s2.avi").read_bytes())
    assert planned(tmp_path).name != first


@pytest.mark.parametrize("film", ["s1-input.avi", "s1-truth.avi"])
def test_a_plan_is_another_if_what_is_asked_about_or_what_happened_is(tmp_path, film):
    first = planned(vote_helpers.make(tmp_path)).name
    second = (tmp_path / film).with_name(film.replace("s1", "s2")).read_bytes()
    (tmp_path / film).write_bytes(second)
    assert planned(tmp_path).name != first


def test_a_film_of_no_drawn_sample_is_not_of_the_plan(tmp_path):
    first = planned(vote_helpers.make(tmp_path), count=2)
    assert first.name
    (other,) = {"s0", "s1", "s2"} - set(first.samples)
    (tmp_path / f"{other}-truth.avi").write_bytes(b"")
    assert planned(tmp_path, count=2).name == first.name


def test_a_plan_is_another_if_more_is_shown_or_folders_stand_in_another_order(folder):
    found = samples.of_csv(folder / "questions.csv")
    made = [planned(folder), planned(folder, truth=True), planned(folder, captions=True)]
    made.append(plan.make([str(folder / arm) for arm in reversed(ARMS)], found))
    assert [one.trials("ann") for one in made[:2]] != [one.trials("ann") for one in made[2:]]  # the order is seen
    assert len({one.name for one in made}) == len(made)


def test_a_film_in_a_shard_is_known_by_its_bytes(tmp_path):
    triplets = types.SimpleNamespace(folder=tmp_path, file=lambda id, which: f"{id} {which}".encode())
    assert samples._in_shard(triplets, "s1", "target").digest() == hashlib.sha256(b"s1 target").hexdigest()


# ---------------------------------------------------------------------------------------------- what is told
def test_a_rater_goes_on_where_the_votes_end_and_may_go_back(session):
    ann = {"rater": "  ann ", "plan": session.plan.name}
    started = session.start(ann)
    assert started == {"rater": "ann", "next": 1, "of": 13, "plan": session.plan.name, "asked": []}
    with pytest.raises(Refused, match="turn"):
        session.vote({**ann, "number": 2, "choice": 1, "seconds": 1})
    assert session.trial({**ann, "number": 2})["number"] == 2, "to have it in time"
    with pytest.raises(Refused, match="turn"):
        session.trial({**ann, "number": 3})
    assert session.vote({**ann, "number": 1, "choice": 0, "seconds": 1})["next"] == 2
    assert session.trial({**ann, "number": 1})["before"] == 0
    assert session.start({"rater": "bob"})["next"] == 1
    assert session.vote({**ann, "number": 1, "choice": 2, "seconds": 1e9})["next"] == 2, "changed"
    assert list(ballots.read(session.file.path)["seconds"]) == [1, 86400]
    for number in range(2, 14):
        session.vote({**ann, "number": number, "choice": 1, "seconds": 0})
    assert session.start(ann)["next"] == 14
    with pytest.raises(Refused, match="turn"):
        session.trial({**ann, "number": 14})


@pytest.mark.parametrize(
    "given",
    [
        {"number": True},
        {"number": "1"},
        {"number": 0},
        {"number": -1},
        {"choice": 3},
        {"choice": -1},
        {"choice": "zebra"},
        {"choice": None},
        {"choice": True},
        {"seconds": None},
        {"seconds": float("nan")},
        {"seconds": "1"},
        {"seconds": 10**400, "choice": 7},
        {"plan": "other"},
        {"rater": ""},
        {"rater": 7},
        {"rater": "a\u202eb"},
        {"rater": "a\x1bb"},
        {"rater": "a" * (NAME + 1)},
    ],
)
def test_what_is_no_vote_is_refused_and_nothing_is_written(session, given):
    whole = session.file.path.read_bytes()
    with pytest.raises(Refused):
        session.vote({"rater": "ann", "plan": session.plan.name, "number": 1, "choice": 1, "seconds": 1, **given})
    assert session.file.path.read_bytes() == whole


def test_marks_are_whole_or_refused(folder, tmp_path):
    made = planned(folder, form=LIKERT, truth=True, captions=True)
    file = ballots.Ballots(tmp_path / "votes.csv", made)
    session, ann = Session(made, file), {"rater": "ann", "plan": made.name, "number": 1, "seconds": 1}
    shown = session.trial(ann)
    assert len(shown["sides"]) == 3 and session.start(ann)["asked"] == ["semantic", "visual", "overall"]
    assert shown["truth"]["caption"].startswith("it does <i>") and all(side["caption"] for side in shown["sides"])
    good = [[1, 2, 3], [4, 5, 1], [3, 3, 3]]
    for bad in (
        1,
        None,
        good[:2],
        [[1, 2], *good[1:]],
        [[0, 2, 3], *good[1:]],
        [[1, 2, 6], *good[1:]],
        [[1, 2, 3.0], *good[1:]],
    ):
        with pytest.raises(Refused):
            session.vote({**ann, "choice": bad})
    session.vote({**ann, "choice": good})
    assert session.trial(ann)["before"] == good and ballots.read(file.path)["choice"][0] == good
    file.close()


def test_no_name_of_an_arm_is_told_and_no_token_tells_two_sides_alike(session):
    ann, tokens = {"rater": "ann", "plan": session.plan.name}, []
    for number in range(1, session.start(ann)["of"] + 1):
        told = [session.trial({**ann, "number": number}) for _ in range(2)]
        for one in told:
            assert not any(word in json.dumps(one) for word in (*ARMS, "avi", "truth", "identical"))
            tokens += [clip["token"] for clip in (one["input"], *one["sides"])]
        session.vote({**ann, "number": number, "choice": 1, "seconds": 1})
    assert len(set(tokens)) == len(tokens)
    assert session.media(tokens[-1]).kind == "image/png"
    with pytest.raises(Refused):
        session.media("zebra/s0")


@pytest.fixture
def served(session):
    import threading

    with Server(session) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_nothing_but_the_page_and_what_was_handed_out(served, folder):
    port = served.server_port
    for path in ("/", "/vote.js", "/vote.css"):
        status, headers, body = request(port, "GET", path)
        assert status == 200 and body and "default-src 'none'" in headers["Content-Security-Policy"]
        assert b"http" not in body.replace(b"http-equiv", b""), "nothing is loaded from anywhere"
        assert headers["Cache-Control"] == "no-store" and "Python" not in headers["Server"]
    inside = [
        f"/{folder}/zebra/videos/s0.avi",
        "/clip/",
        f"/clip/{folder}/zebra/videos/s0.avi",
        "/votes.csv",
        "/page/vote.js",
    ]
    odd = ["/../vote.js", "/%2e%2e/run.py", "/clip/../../vote.js", "/vote.js?x", "/start", "*", "/clip/%00"]
    for path in (*inside, *odd):
        status, _, body = request(port, "GET", path)
        assert status in (404, 409) and json.loads(body).keys() == {"error"} and b"zebra" not in body
    assert request(port, "PUT", "/start", {})[0] == 501 and request(port, "POST", "/media", {})[0] == 404
    shown = json.loads(
        request(port, "POST", "/trial", {"rater": "a", "plan": served.session.plan.name, "number": 1})[2]
    )
    status, headers, body = request(port, "GET", f"/clip/{shown['input']['token']}")
    assert (status, headers["Content-Type"], headers["X-Content-Type-Options"]) == (200, "image/png", "nosniff")
    assert vote_helpers.pictures(body, shown["input"]).shape == (4, 32, 32, 3)


def test_foreign_hosts_pages_and_bodies_are_refused(served):
    port, start = served.server_port, {"rater": "a"}
    for name in (f"127.0.0.1:{port}", f"localhost:{port}", f"LOCALHOST:{port}", f"[::1]:{port}"):
        assert request(port, "POST", "/start", start, Host=name)[0] == 200, name
        assert request(port, "POST", "/start", start, Host=name, Origin=f"http://{name}")[0] == 200, name
    for name in (
        "evil.example",
        f"evil.example:{port}",
        f"127.0.0.1.evil.example:{port}",
        "127.0.0.1:1",
        "",
        f"a@127.0.0.1:{port}",
        f"192.168.0.9:{port}",
    ):
        assert request(port, "POST", "/start", start, Host=name)[0] == 403, name
        assert request(port, "GET", "/", Host=name)[0] == 403, name
    for origin in ("http://evil.example", "null", f"https://127.0.0.1:{port}", f"http://localhost:{port}"):
        assert request(port, "POST", "/start", start, Origin=origin)[0] == 403, origin
    assert request(port, "POST", "/start", start, Sec_Fetch_Site="cross-site")[0] == 403
    assert request(port, "GET", "/", Sec_Fetch_Site="cross-site")[0] == 200, "a link to the page"
    for body in (b"", b"[1]", b"{", b"[" * 9000, b'{"a": ' + b"9" * 9000 + b"}", b"x" * 20_000):
        assert request(port, "POST", "/start", body)[0] == 400
    with socket.create_connection(("127.0.0.1", port), timeout=20) as raw:  # a length that Python does not read
        long = f"POST /start HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {'9' * 5000}\r\n\r\n"
        raw.sendall(long.encode())
        assert raw.recv(100).startswith(b"HTTP/1.1 400 ")
    assert request(port, "POST", "/start", start, Content_Type="text/plain")[0] == 400, "no form of another page"
    assert request(port, "POST", "/start", start)[0] == 200


def test_a_server_for_others_takes_its_own_names(session, monkeypatch):

    with Server(session, "0.0.0.0") as server:
        at = server.server_port
        assert server.knows(f"192.168.0.9:{at}") and server.knows(f"{socket.gethostname()}:{at}")
        assert not server.knows(f"evil.example:{at}") and not server.knows(None)
        with pytest.raises(UserError, match="--port"):
            Server(session, "0.0.0.0", at)
    for host, port in (("no such host", 0), ("127.0.0.1", 70_000)):
        with pytest.raises(UserError, match="--port"):
            Server(session, host, port)


def test_what_goes_wrong_inside_is_not_told_to_the_browser(served, capfd, monkeypatch):
    def fails(*_):
        raise UserError("/home/me/predictions/zebra/videos/s0.avi: damaged")

    monkeypatch.setattr(served.session, "trial", fails)
    status, _, body = request(served.server_port, "POST", "/trial", {})
    assert status == 500 and b"zebra" not in body and "zebra/videos/s0.avi: damaged" in capfd.readouterr().err


def test_an_oracle_votes_and_the_server_is_killed_between(tmp_path):
    """Three arms that are right 8, 4 and 0 times of 8: their order comes back, whatever is killed."""
    arms = {"zebra": 0, "quokka": 8, "okapi": 4}
    vote_helpers.make(tmp_path, samples=8, arms=arms)
    options = ("--each", "2", "--out", "v.csv")
    told = {
        f"s{i}": oracle.read(
            np.stack([vote_helpers.render_event(vote_helpers.scene(i), e, 9) for e in [vote_helpers.EVENTS[i]]])
        )[0]
        for i in range(8)
    }
    expected: list[tuple[str, int]] = []
    server = Vote(tmp_path, *options)
    made = plan.make([str(tmp_path / arm) for arm in ARMS], samples.of_csv(tmp_path / "questions.csv"), each=2)
    try:
        state = server.ask("start", rater="oracle")
        while state["next"] <= state["of"]:
            number = state["next"]
            if number in (5, 12):
                server.kill()
                server = Vote(tmp_path, *options, port=server.port)
                assert server.ask("start", rater="oracle") == state, "nothing is lost"
            shown = server.ask("trial", rater="oracle", plan=state["plan"], number=number)
            clips = [
                vote_helpers.pictures(request(server.port, "GET", f"/clip/{side['token']}")[2], side)
                for side in shown["sides"]
            ]
            truth = told[made.trials("oracle")[number - 1].sample]
            seen = [oracle.read(clip[None])[0] for clip in clips]
            marks = [sum(getattr(one, k) == getattr(truth, k) for k in ("event", "colour", "shape")) for one in seen]
            choice = 0 if marks[0] == marks[1] else int(np.argmax(marks)) + 1
            expected.append((TIE if not choice else made.trials("oracle")[number - 1].names[choice - 1], number))
            state = server.ask("vote", rater="oracle", plan=state["plan"], number=number, choice=choice, seconds=2)
    finally:
        server.kill()
    frame = ballots.read(tmp_path / "v.csv")
    assert list(zip(frame["choice"], frame["number"], strict=True)) == expected and len(frame) == 16 + 4
    assert set(frame["right"]) == {"", "right"}, "the oracle passes every check"
    found = report.analyse(frame, resamples=20)
    assert found.arms == ["quokka", "okapi", "zebra"] and not found.left_out


# --------------------------------------------------------------------------------------------- what votes say
@pytest.fixture(scope="module")
def simulated():
    spec = importlib.util.spec_from_file_location("votes", smoke.ROOT / "benchmarks/votes.py")
    module = importlib.util.module_from_spec(spec)  # type: ignore[arg-type]
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def said(rows: list[tuple], form: str = "choice") -> pd.DataFrame:
    """Votes as read: (rater, number, sample, sides, choice, check, right)."""
    names = ("rater", "number", "sample", "sides", "choice", "check", "right")
    frame = pd.DataFrame([dict(zip(names, row, strict=False)) for row in rows])
    for name in ("check", "right"):
        frame[name] = frame[name].fillna("") if name in frame else ""
    return frame.assign(form=form, plan="p", seconds=1.0)


def test_strengths_of_two_arms_in_closed_form():
    """Seven wins, two losses and two ties: log((7 + 1 + PRIOR) / (2 + 1 + PRIOR)) apart."""
    choices = ["a"] * 7 + ["b"] * 2 + [TIE] * 2
    votes = said([("r", n, f"s{n}", ["b", "a"] if n % 2 else ["a", "b"], c) for n, c in enumerate(choices)])
    found = report.analyse(votes, resamples=50)
    apart = np.log((8 + report.PRIOR) / (3 + report.PRIOR))
    assert found.arms == ["a", "b"] and found.ties == 2
    assert found.measures["strength"]["a"].value == pytest.approx(apart / 2, abs=1e-5)
    assert found.steps["strength"][0].value == pytest.approx(apart, abs=1e-5)
    assert found.wins.tolist() == [[0, 8], [3, 0]] and found.met.tolist() == [[0, 11], [11, 0]]


def test_the_best_of_three_beats_the_two_others_and_a_tie_is_half_of_each():
    found = report.analyse(
        said([("r", 1, "s", ["a", "b", "c"], "b"), ("r", 2, "t", ["a", "b", "c"], TIE)]), resamples=5
    )
    assert found.arms[0] == "b"
    at = {arm: n for n, arm in enumerate(found.arms)}
    wins = {(x, y): found.wins[at[x], at[y]] for x in "abc" for y in "abc" if x != y}
    assert wins == {
        ("b", "a"): 1.5,
        ("b", "c"): 1.5,
        ("a", "b"): 0.5,
        ("c", "b"): 0.5,
        ("a", "c"): 0.5,
        ("c", "a"): 0.5,
    }


def test_changed_votes_count_once_and_raters_who_fail_are_left_out():
    rows: list[tuple] = [("ann", n, f"s{n}", ["a", "b"], "a") for n in range(6)]
    rows += [("eve", n, f"s{n}", ["a", "b"], "b") for n in range(6)]
    rows += [("ann", 6, "s0", ["a", "a"], TIE, IDENTICAL, "right"), ("bob", 0, "s0", ["b", "a"], "a")]
    rows += [
        ("eve", 6, "s0", ["a", "a"], TIE, IDENTICAL, "right"),
        ("eve", 7, "s0", [TRUTH, OTHER], OTHER, OTHER, "wrong"),
    ]
    rows += [("ann", 0, "s0", ["a", "b"], TIE)]
    found = report.analyse(said(rows), least=0.7, resamples=5)
    assert (found.left_out, found.unchecked, found.raters) == ({"eve": 0.5}, ["bob"], ["ann", "bob"])
    assert found.votes == 7 and found.wins.tolist() == [[0, 6.5], [0.5, 0]]
    assert "left out, fewer than 70% of their attention checks right: 1: eve (50%)" in found.text()
    assert report.analyse(said(rows), least=0.5, resamples=5).left_out == {}
    alone = report.analyse(said([("a", 1, "s", ["a", "b"], "a")]), resamples=5).text()
    assert "Krippendorff's alpha: choice —;" in alone and "nan" not in alone.split("preferred, row")[1]
    with pytest.raises(UserError, match="no votes are left: .* leave out 1 of 1 raters; --right says"):
        report.analyse(said([("a", 1, "s", ["a", "b"], "a"), ("a", 2, "s", ["a", "a"], "a", IDENTICAL, "wrong")]))
    with pytest.raises(UserError, match="one at a time"):
        report.analyse(pd.concat([said(rows), said(rows, "likert").assign(plan="q")]))


def test_agreement_is_one_zero_and_does_not_hang_on_names(simulated):
    ids, pairs = [f"s{n}" for n in range(60)], [("a", "b"), ("a", "c"), ("b", "c")]
    places = [(sample, list(pair)) for sample in ids for pair in pairs]
    rng = np.random.default_rng(0)
    same = said([(r, n, s, p[:: 1 if r == "x" else -1], p[0]) for r in "xyz" for n, (s, p) in enumerate(places)])
    dice = said([(r, n, s, p, p[rng.integers(2)]) for r in "xyz" for n, (s, p) in enumerate(places)])
    assert report.analyse(same, resamples=2).alpha == {"choice": pytest.approx(1.0)}
    assert abs(report.analyse(dice, resamples=2).alpha["choice"]) < 0.1, "chance agreement is not agreement"
    assert np.isnan(report.analyse(said([("x", 1, "s", ["a", "b"], "a")]), resamples=2).alpha["choice"])


def test_marks_are_means_with_agreement_per_question():
    rows: list[tuple] = []
    for r, rater in enumerate("xy"):
        rows += [(rater, n, f"s{n}", ["b", "a"], [[1, 2, 1 + r], [5, 4 - (n % 2), 5]]) for n in range(4)]
    found = report.analyse(said(rows, "likert"), resamples=40)
    means = {name: {arm: one.value for arm, one in each.items()} for name, each in found.measures.items()}
    assert means == {"semantic": {"a": 5, "b": 1}, "visual": {"a": 3.5, "b": 2}, "overall": {"a": 5, "b": 1.5}}
    assert found.alpha["semantic"] == found.alpha["visual"] == pytest.approx(1.0) and found.alpha["overall"] < 1
    assert found.arms == ["a", "b"] and found.wins.tolist() == [[0, 8], [0, 0]]
    one = found.measures["semantic"]["a"]
    assert one.lo == one.hi == 5 and "semantic" in found.text()


def test_three_variances_of_a_mean_are_those_of_theory():
    """y = rater + sample + noise, the mean over 12 × 16: each bootstrap's variance against its expectation."""
    rng = np.random.default_rng(0)
    raters, ids = 12, 16
    values = rng.normal(size=(raters, 1)) + 2 * rng.normal(size=(1, ids)) + rng.normal(size=(raters, ids))
    voted = np.ones((raters, ids), bool)
    found = resample.covariance(lambda w: np.array([(w * values).sum() / w.sum()]), voted, resamples=4000).ravel()
    exact = [values.mean(1).var() / raters, values.mean(0).var() / ids, values.var() / values.size]
    assert found == pytest.approx(exact, rel=0.12)
    half = resample.half(found.reshape(3, 1, 1), np.ones(1), voted)
    assert half == pytest.approx(2.201 * np.sqrt(found[0] + found[1] - found[2]), rel=1e-3), "t with 11 degrees"
    alone = resample.half(found.reshape(3, 1, 1), np.ones(1), np.ones((1, 16), bool))
    assert np.isfinite(alone) and np.isnan(resample.half(found.reshape(3, 1, 1), np.ones(1), np.ones((1, 1), bool)))


def test_simulated_people_of_known_skill(simulated):
    assert simulated.orders(4, None, 1.0) == 1.0
    truth = simulated.limit((0.0, 0.0), draws=100_000)
    made = simulated.plan_of(list(simulated.ARMS), [f"s{i}" for i in range(20)], checks=4)
    rng = np.random.default_rng(3)
    people = simulated.People(simulated.utilities((6, 20), (0.0, 0.0), rng), rng)
    dice = simulated.People(people.utilities, rng, slips=1.0)
    orders = [made.trials(f"r{i}") for i in range(6)]
    frame = simulated.votes(made, people, orders)
    found = report.analyse(frame, resamples=60)
    assert found.arms == list("abcde") and not found.left_out
    inside = [found.measures["strength"][arm].contains(value) for arm, value in zip("abcde", truth, strict=True)]
    assert sum(inside) >= 4
    with_dice = pd.concat([frame, simulated.votes(made, dice, orders[:2]).assign(rater=lambda f: "x" + f["rater"])])
    assert set(report.analyse(with_dice, resamples=2).left_out) == {"xr0", "xr1"}


def test_the_report_of_the_command_line(folder, tmp_path, capsys, simulated):
    for form in ("choice", LIKERT):
        made = planned(folder, form=form, checks=2)
        path = tmp_path / f"{form}.csv"
        file = ballots.Ballots(path, made)
        for rater in ("ann", "bob"):
            for number, trial in enumerate(made.trials(rater), 1):
                marks = [[1 + (n + len(side.arm)) % 5] * 3 for n, side in enumerate(trial.sides)]
                file.add(vote(made, number, rater, trial.names[0] if form == "choice" else marks))
        file.close()
        assert main(["vote", "--report", str(path), "--right", "0"]) == 0
        out = capsys.readouterr().out
        assert "Krippendorff's alpha" in out and "zebra" in out and path.with_suffix(".png").stat().st_size > 5000
        broken = {"choice": (",zebra,", ",gnu,"), LIKERT: (r"\[(\d), \1, \1\]", r"[\1, \1]")}[form]
        for kind, wrong in (broken, (",1.23,", ",long,")):
            path.write_text(re.sub(kind, wrong, whole := path.read_text(), count=1))
            assert path.read_text() != whole and main(["vote", "--report", str(path), "--right", "0"]) == 1
            assert "it must be a file that `vans vote` wrote" in capsys.readouterr().err
            path.write_text(whole)
        assert main(["vote", "--report", str(path), "--right", "nan"]) == 1
        assert "--right nan: a share from 0 to 1" in capsys.readouterr().err
    assert main(["vote", "--report", str(tmp_path / "none.csv")]) == 1
    assert "no such file of votes" in capsys.readouterr().err


def test_signs_of_names_are_shown_in_text_and_figure():
    odd = "a\u202e\x1b$\\frac$"
    found = report.analyse(said([(odd, n, f"s{n}", [odd, "b"], odd) for n in range(3)]), resamples=3)
    assert "\\u202e" in found.text() and not {"\u202e", "\x1b"} & set(found.text())
    assert style.png(figure.draw(found), scale=0.3)


def test_questions_are_told_as_they_are(session):
    told = session.trial({"rater": "a", "plan": session.plan.name, "number": 1})
    assert told["question"] == QUESTION, "the page sets it as text"
