"""`vans demo`: a queue that loses nothing and stops at once, what is kept, what can be asked for, files of others."""

import io
import json
import os
import shutil
import struct
import tempfile
import threading
import zlib

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests import demo_readers
from tests.demo_helpers import Browser, colour, serving
from vans.answer.live import Answerer
from vans.answer.watch import watch
from vans.data import triplets
from vans.demo import samples, shelf, source
from vans.demo.pace import Clock, Pace
from vans.demo.run import held_out
from vans.errors import UserError
from vans.files import temporary
from vans.media import avi, video
from vans.params import load
from vans.toy.render import Scene, render_event

HOSTILE = "<img src=x onerror=alert(1)> & </script>"


@pytest.fixture(scope="module", autouse=True)
def reader():
    """The process that others are forked from, which takes its time to start."""
    source.ready()


@pytest.fixture
def served(tmp_path):
    with serving(tmp_path / "kept") as one:
        yield one


@pytest.fixture
def me(served):
    return Browser(served.port)


# ---------------------------------------------------------------------------------------------------------- queue
def test_twenty_at_once_wait_in_a_queue_and_none_is_lost_or_mixed_up(served, me):
    served.models.gate.clear()
    ids: dict[int, str] = {}

    def one(n: int) -> None:
        ids[n] = me.run(f"question {n}", "and then ?", seed=n, steps=2 + n % 3, guidance=1 + n / 10)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    waiting = [run["ahead"] for run in me.ask("start")["runs"] if run["state"] == "waiting"]
    assert sorted(waiting) == list(range(1, 20)), "one is under way, the others know how many are before them"
    served.models.gate.set()
    for n, run in enumerate(me.until(*(ids[n] for n in range(20)))):
        assert (run["state"], run["seed"], run["steps"]) == ("done", n, 2 + n % 3)
        for part, question in zip(run["parts"], (f"question {n}", "and then ?"), strict=True):
            assert part["question"] == question and part["caption"] == f"{question} and {n}"
            assert part["reasoning"] == f"because of {question}" and part["own"] is None
            frames = me.clip(part["clip"])
            assert frames.shape == (9, 32, 32, 3) and frames[0, 0, 0].tolist() == frames[8, 31, 31].tolist()
            assert frames[0, 0, 0].tolist() == colour(part["caption"], n, 2 + n % 3, 1 + n / 10)
    assert len(me.ask("start")["runs"]) == 20 and not served.desk.runs


def test_a_queue_that_is_too_long_is_said(served, me, monkeypatch):
    monkeypatch.setattr("vans.demo.desk.WAITING", 2)
    served.models.gate.clear()
    first = me.run("a ?")
    me.until(first, states=("running",))
    me.run("b ?")
    me.run("c ?")
    given = {"source": "sample-0", "questions": ["d ?"], "seed": 0, "steps": 2, "guidance": 1}
    assert "2 runs are waiting already" in me.refused("ask", **given)


def test_a_run_is_stopped_within_a_step_and_the_next_goes_on(served, me):
    served.models.gate.clear()
    first, second, third = (me.run(f"{n} ?", steps=50) for n in range(3))
    me.until(first, states=("running",))
    me.ask("stop", run=second)
    assert me.until(second)[0]["state"] == "stopped", "one that waits stops at once"
    me.ask("stop", run=first)
    served.models.gate.set()
    stopped, done = me.until(first, third)
    assert stopped["state"] == "stopped" and stopped["parts"][0]["caption"] == "0 ? and 0"
    assert stopped["parts"][0]["clip"] is None and done["state"] == "done"
    assert served.models.done == 50, "no step of the one that was stopped"
    again = me.ask("start")["runs"]
    assert [run["state"] for run in again] == ["stopped", "stopped", "done"], "a reload still knows"
    assert list(served.shelf.runs) == [third], "only what is whole is kept"


def test_two_files_of_one_name_wait_and_the_second_is_stopped(served, me):
    brought = [me.bring(png(np.full((8, 8, 3), n, np.uint8)), "a.png")[1]["source"] for n in range(2)]
    served.models.gate.clear()
    me.until(me.run("a ?"), states=("running",))
    first, second = (me.run("a ?", source=source) for source in brought)
    me.ask("stop", run=second)
    served.models.gate.set()
    assert [run["state"] for run in me.until(first, second)] == ["done", "stopped"]


def test_the_real_models_stop_before_the_next_step(untrained, tmp_path):
    """The flag is set in the third step: no fourth one is computed, and the next run has the models."""
    models = Answerer(load(untrained), untrained, "sft")
    steps = 0

    def third(*_):
        nonlocal steps
        steps += 1
        if steps == 3:
            me.ask("stop", run=first)

    with serving(tmp_path / "kept", models) as served:
        me = Browser(served.port)
        handle = models.vdm.dit.register_forward_hook(third)
        first = me.run("what now ?", steps=8)
        assert me.until(first)[0]["state"] == "stopped" and steps == 3
        handle.remove()
        second, third_run = me.run("what now ?", "why ?", steps=2, seed=5), me.run("what now ?", steps=2, seed=5)
        both, alone = me.until(second, third_run)
        assert both["state"] == "done" and both["parts"][0]["forced"]
        one, other = me.clip(both["parts"][0]["clip"]), me.clip(alone["parts"][0]["clip"])
        assert both["parts"][0]["caption"] == alone["parts"][0]["caption"]
        assert np.abs(one.astype(int) - other).max() <= 2, "an answer does not depend on the other questions"


def test_what_fails_is_told_without_its_reasons_and_the_next_goes_on(served, me, capfd):
    served.models.fails = True
    failed = me.until(me.run("a ?"))[0]
    assert failed["state"] == "failed" and "/home" not in json.dumps(failed) and "terminal" in failed["error"]
    assert "/home/me/models: broken" in capfd.readouterr().err
    served.models.fails = False
    assert me.until(me.run("a ?"))[0]["state"] == "done"


def test_time_left():
    pace = Pace()
    assert pace.whole(1, 1, 8) is None
    for part, seconds in (("think", 2.0), ("step", 0.5), ("rest", 1.0)):
        pace.learn(part, 1, seconds)
    assert pace.whole(1, 1, 8) == pytest.approx(2 + 8 * 0.5 + 1) and pace.whole(0, 1, 8) == pytest.approx(5)
    assert pace.whole(3, 3, 8) == pytest.approx(3 * 7), "of more than was ever met: as many times as long, at most"
    pace.learn("step", 1, 1.5)
    assert pace.of("step", 1) == pytest.approx(0.5 + 0.3 * (1.5 - 0.5))
    clock = Clock(pace, 1, 1, 8)
    assert clock.left() == pytest.approx(2 + 8 * 0.8 + 1, abs=0.1)
    clock.thought()
    assert clock.left() == pytest.approx(8 * 0.8 + 1, abs=0.1)
    clock.stepped(8, 8)
    assert clock.left() == pytest.approx(1, abs=0.1)


# ---------------------------------------------------------------------------------------------------- what is kept
def test_a_caption_is_changed_and_rendered_again_beside_the_same_others(served, me):
    first = me.until(me.run("a ?", "b ?", "c ?", seed=7))[0]
    before = served.models.done
    second = me.until(me.ask("render", run=first["id"], number=1, caption=f" {HOSTILE}\n it falls ")["run"])[0]
    assert served.models.done == before + 3, "three steps of one video"
    changed = second["parts"][1]
    assert (changed["caption"], changed["own"]) == (f"{HOSTILE} it falls", "b ? and 7")
    assert me.clip(changed["clip"])[0, 0, 0].tolist() == colour(changed["caption"], 7, 3, 1.0)
    for k in (0, 2):
        assert {**second["parts"][k], "clip": 0} == {**first["parts"][k], "clip": 0}
        films = [me.send("GET", f"/film/{run['parts'][k]['clip']['token']}.mp4")[2] for run in (first, second)]
        assert films[0] == films[1]
        assert (me.clip(first["parts"][k]["clip"]) == me.clip(second["parts"][k]["clip"])).all()
    third = me.until(me.ask("render", run=second["id"], number=1, caption="b ? and 7")["run"])[0]
    assert third["parts"][1]["own"] is None, "as the model wrote it"
    assert (me.clip(third["parts"][1]["clip"]) == me.clip(first["parts"][1]["clip"])).all()
    me.ask("forget", run=first["id"])
    assert "not there any more" in me.refused("render", run=first["id"], number=1, caption="x")
    for number in (-1, 3, "1", None, True):
        me.refused("render", run=second["id"], number=number, caption="x")


def test_the_history_outlives_a_server_that_is_killed(tmp_path):
    folder = tmp_path / "kept"
    with serving(folder) as served:
        me = Browser(served.port)
        kept = me.until(*(me.run(f"{n} ?") for n in range(4)))
    (folder / f".{kept[0]['id']}.partial-deadbeef-1").mkdir()
    cut = folder / kept[1]["id"] / "answer-0.sheet"
    cut.write_bytes(cut.read_bytes()[:-1])
    outside = tmp_path / "outside"
    shutil.move(folder / kept[2]["id"], outside)
    (folder / kept[2]["id"]).symlink_to(outside)
    (folder / "letters.txt").write_text("mine")
    with serving(folder) as served:
        again = Browser(served.port)
        again.cookie = me.cookie
        told = again.ask("start")["runs"]
        assert told == [kept[0], kept[3]], "what is damaged, or a link to another place, is not shown"
        assert again.clip(told[0]["parts"][0]["clip"]).shape == (9, 32, 32, 3)
        assert again.clip(told[0]["input"]).shape == (9, 32, 32, 3)
        more = again.until(again.run("and then ?", source=kept[0]["id"]))[0]
        assert (again.clip(more["input"]) == again.clip(kept[0]["input"])).all(), "it can be asked about again"
        with pytest.raises(UserError, match="another `vans demo` writes it"):
            shelf.Shelf(folder)
        again.ask("forget", run=kept[0]["id"])
        assert not (folder / kept[0]["id"]).exists()
        gone = again.ask("news", version=told and again.ask("start")["version"] - 1)
        assert gone["gone"] == [kept[0]["id"]]


def test_a_history_is_for_its_owner_alone(tmp_path):
    shelf.Shelf(tmp_path / "runs/demo")
    assert (tmp_path / "runs/demo").stat().st_mode & 0o777 == 0o700


def test_the_oldest_go_when_there_are_too_many(served, me, monkeypatch):
    monkeypatch.setattr(shelf, "COUNT", 3)
    ids = [me.until(me.run(f"{n} ?"))[0]["id"] for n in range(5)]
    assert list(served.shelf.runs) == ids[2:] == [run["id"] for run in me.ask("start")["runs"]]
    assert {path.name for path in served.shelf.folder.iterdir()} == {shelf.LOCK, *ids[2:]}
    monkeypatch.setattr(shelf, "ROOM", 1)
    last = me.until(me.run("last ?"))[0]["id"]
    assert list(served.shelf.runs) == [last], "the newest stays, however large"


def test_memory_holds_no_more_than_it_should(served, me, monkeypatch):
    monkeypatch.setattr("vans.demo.session.UPLOADS", 2)
    monkeypatch.setattr("vans.demo.desk.LEFT", 2)
    served.models.fails = True
    for n in range(5):
        me.until(me.run(f"{n} ?"))
    assert len(served.desk.runs) == 2
    picture = png(np.zeros((8, 8, 3), np.uint8))
    brought = [me.bring(picture, "a.png")[1]["source"] for _ in range(3)]
    given = {"questions": ["a ?"], "seed": 0, "steps": 2, "guidance": 1}
    assert "bring it again" in me.refused("ask", source=brought[0], **given)
    assert me.ask("ask", source=brought[2], **given)["run"]


# --------------------------------------------------------------------------------------------- what can be asked for
def test_everybody_sees_their_own_alone(served, me):
    run = me.until(me.run("a secret ?"))[0]
    picture = me.bring(png(np.zeros((8, 8, 3), np.uint8)), "a.png")[1]
    other = Browser(served.port)
    assert other.cookie != me.cookie and other.ask("start")["runs"] == []
    given = {"questions": ["a ?"], "seed": 0, "steps": 2, "guidance": 1}
    id: object
    for id in (run["id"], picture["source"], "sample-1", "sample-99999", "../kept", "", None, 3, ["x"], {}):
        assert "bring it again" in other.refused("ask", source=id, **given) or id in ("sample-1",)
    for token in (run["input"]["token"], run["parts"][0]["clip"]["token"], picture["clip"]["token"]):
        assert other.send("GET", f"/clip/{token}")[0] == 409 and me.send("GET", f"/clip/{token}")[0] == 200
    assert other.send("GET", f"/film/{run['id']}-0.mp4")[0] == 409
    other.refused("render", run=run["id"], number=0, caption="x")
    other.ask("forget", run=run["id"])
    served.models.gate.clear()
    under = me.run("b ?")
    other.ask("stop", run=under)
    served.models.gate.set()
    assert me.until(under, run["id"])[0]["state"] == "done"
    status, headers, body = me.send("GET", f"/film/{run['id']}-0.mp4")
    assert status == 200 and headers["Content-Disposition"].startswith("attachment") and body[4:8] == b"ftyp"
    assert "HttpOnly" in str(Browser(served.port).send("GET", "/", Cookie="")[1]["Set-Cookie"])
    kept = me.send("GET", "/")[1]["Set-Cookie"].partition(";")[0]
    assert kept == me.cookie, "a reload is the same person"
    assert me.send("POST", "/start", {}, Cookie=f'theirs={{"a": [1]}}; {me.cookie}')[0] == 200, (
        "others' cookies of any form"
    )
    for cookie in ("", "vans-demo=short", "vans-demo=" + "a" * 5000, "vans-demo=../../x", "\x01;;="):
        assert me.send("POST", "/start", {}, Cookie=cookie)[0] == 409


def test_nothing_of_the_servers_files_can_be_asked_for(served, me):
    run = me.until(me.run("a ?"))[0]
    folder = served.shelf.folder
    for path in ("/", "/demo.js", "/futures.js", "/demo.css", "/player.js"):
        status, headers, body = me.send("GET", path)
        assert status == 200 and body and "default-src 'none'" in headers["Content-Security-Policy"]
        assert b"http" not in body and headers["X-Content-Type-Options"] == "nosniff"
    odd = ["/../demo.js", "/%2e%2e/run.py", "/demo.js?x", "/start", "*", "/page/demo.js", f"/{folder}", "/bring"]
    for start in ("/clip/", "/film/"):
        odd += [start, f"{start}{folder}/{run['id']}/run.json", f"{start}{run['id']}", f"{start}{run['id']}-run.json"]
        odd += [
            f"{start}{run['id']}-3",
            f"{start}..%2f{run['id']}-0",
            f"{start}{run['id']}-0/../../.lock",
            f"{start}%00",
        ]
        odd += [f"{start}{'0' * 32}-0", f"{start}{run['id'].upper()}-0", f"{start}sample-1", f"{start}sample--1"]
    for path in odd:
        status, _, body = me.send("GET", path)
        assert status in (404, 409) and json.loads(body).keys() == {"error"} and str(folder).encode() not in body, path
    link = folder / run["id"] / "answer-0.sheet"
    secret = folder.parent / "secret"
    secret.write_bytes(b"secret")
    link.unlink()
    link.symlink_to(secret)
    with serving(folder.parent / "other") as another:
        shutil.copytree(folder / run["id"], another.shelf.folder / run["id"], symlinks=True)
    with serving(folder.parent / "other") as another:
        again = Browser(another.port)
        again.cookie = me.cookie
        assert again.ask("start")["runs"] == [], "a link in the place of a file is not what was written"
    assert me.send("PUT", "/start", {})[0] == 501 and me.send("POST", "/media", {})[0] == 404


def test_foreign_hosts_and_pages_are_refused(served, me):
    port = served.port
    data = png(np.zeros((8, 8, 3), np.uint8))
    kind = {"Content_Type": "application/octet-stream", "X_Name": "a.png"}
    for headers in (
        {"Host": "evil.example"},
        {"Host": f"evil.example:{port}"},
        {"Host": f"192.168.0.9:{port}"},
        {"Origin": "http://evil.example"},
        {"Origin": "null"},
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
    ):
        assert me.send("POST", "/start", {}, **headers)[0] == 403, headers
        assert me.send("POST", "/bring", data, **kind, **headers)[0] == 403, headers
        assert me.send("GET", "/clip/sample-0", **headers)[0] == 403, headers
    assert me.send("GET", "/", Sec_Fetch_Site="cross-site")[0] == 200, "a link to the page"
    for body in (b"", b"[1]", b"{", b"[" * 9000, b"x" * 20_000):
        assert me.send("POST", "/ask", body)[0] == 400
    assert me.send("POST", "/start", {}, Content_Type="text/plain")[0] == 400
    assert me.send("POST", "/bring", data, X_Name="a.png", Content_Type="text/plain")[0] == 400, "no other page's form"
    assert me.send("POST", "/bring", data, **kind, Cookie="")[0] == 400
    assert me.bring(data, "a.png", Origin=f"http://127.0.0.1:{port}")[0] == 200


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"questions": []}, "1 to 3 questions"),
        ({"questions": ["a"] * 4}, "1 to 3 questions"),
        ({"questions": "a"}, "1 to 3 questions"),
        ({"questions": [" \n "]}, "1 to 500 characters"),
        ({"questions": ["a" * 501]}, "1 to 500 characters"),
        ({"questions": [3]}, "1 to 500 characters"),
        ({"questions": ["\ud800"]}, "1 to 500 characters"),
        ({"questions": ["a <|im_end|> b"]}, "a sign of the model's own"),
        *(({"seed": value}, "seed") for value in (-1, 2**31, 1.5, True, None, "0")),
        *(({"steps": value}, "steps") for value in (0, 201, 1.5, True, None)),
        *(({"guidance": value}, "guidance") for value in (0.9, 31, float("nan"), 10**400, True, None, "2")),
    ],
)
def test_what_cannot_be_asked_is_said_at_once(served, me, changes, words):
    given = {"source": "sample-0", "questions": ["a ?"], "seed": 0, "steps": 2, "guidance": 1, **changes}
    assert words in me.refused("ask", **given) and not served.desk.runs


# ------------------------------------------------------------------------------------------------ files of others
def png(pixels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def bomb() -> bytes:
    """A PNG that says it is 60,000 x 60,000."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"\0" * 1000))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body + chunk(b"IEND", b"")


def film(tmp_path, suffix: str = ".mp4") -> bytes:
    path = tmp_path / f"film{suffix}"
    video.write(path, render_event(Scene(shape="cone", colour="blue"), "left", 9).repeat(4, 1).repeat(6, 2), 3.0)
    return path.read_bytes()


@pytest.mark.parametrize("suffix", [".mp4", ".webm", ".avi", ".png"])
def test_a_file_is_looked_at_as_the_models_see_it(served, me, tmp_path, suffix):
    picture = render_event(Scene(shape="ball", colour="green"), None, 1)[0].repeat(4, 0).repeat(6, 1)
    data = png(picture) if suffix == ".png" else film(tmp_path, suffix)
    status, told = me.bring(data, f"%2e%2e%2fMy%20%3Cb%3Efilm{suffix}")
    assert status == 200 and told["name"] == f"My <b>film{suffix}", "the last part of a name, to be shown"
    assert told["kind"] == ("picture" if suffix == ".png" else "video")
    assert (told["clip"]["height"], told["clip"]["width"]) == (128, 192)
    path = tmp_path / f"again{suffix}"
    path.write_bytes(data)
    seen = watch(path, served.models.params.video, served.models.protocol)
    run = me.until(me.run("a ?", source=told["source"]))[0]
    kept = avi.decode((served.shelf.folder / run["id"] / "input.avi").read_bytes())
    assert kept is not None and (kept[0] == seen.clip.numpy()).all() and run["name"] == told["name"]
    assert served.shelf.source(run["id"]).seen.rate == seen.rate
    status, _, body = me.send("GET", f"/clip/{run['input']['token']}")
    assert status == 200 and body[:3] == b"\xff\xd8\xff"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n" + b" " * 400, "cannot be read"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "cannot be read"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>", "cannot be read"),
        (b"PK\x03\x04" + b"\0" * 500, "cannot be read"),
        (b"\x89PNG\r\n\x1a\n" + b"\0" * 50, "cannot be read"),
        (b"\0", "cannot be read"),
        ("bomb", "cannot be read as a picture"),
        ("cut", "cannot be read"),
    ],
)
def test_what_is_no_video_and_no_picture_is_refused_in_one_line(served, me, tmp_path, data, words):
    content = bomb() if data == "bomb" else film(tmp_path)[:700] if data == "cut" else data
    status, told = me.bring(content, "x.mp4")
    assert status == 409 and words in told["error"] and told["error"].startswith("x.mp4: ")
    assert "/tmp" not in told["error"] and "passwd" not in told["error"] and "\n" not in told["error"]
    assert told["error"].endswith("; bring another one") and "Errno" not in told["error"]


def test_a_decoder_that_crashes_or_hangs_takes_nothing_with_it(served, me, tmp_path, monkeypatch):
    monkeypatch.setattr(source, "_look", demo_readers.crash)
    assert me.bring(film(tmp_path))[1] == {"error": "a.mp4: cannot be read; bring another one"}
    monkeypatch.setattr(source, "_look", demo_readers.hang)
    monkeypatch.setattr(source, "SECONDS", 0.3)
    assert me.bring(film(tmp_path))[1] == {"error": "a.mp4: takes too long to read; bring a shorter one"}
    monkeypatch.setattr(source, "SECONDS", 90)
    monkeypatch.setattr(source, "_look", demo_readers.fill)
    assert me.bring(film(tmp_path))[1] == {"error": "no more memory"}
    assert me.ask("start")["runs"] == []


def test_uploads_are_bounded(served, me, tmp_path, monkeypatch):
    def left() -> list[str]:
        ours = (temporary("brought"), temporary("look"))
        return [name for name in os.listdir(tempfile.gettempdir()) if name.startswith(ours)]

    assert me.bring(b"")[0] == 413
    status, _, body = me.send("POST", "/bring", None, Content_Type="application/octet-stream", Content_Length="2000001")
    assert status == 413 and b"2 MB" in body, "before a byte of it is read"
    for _ in range(served.server.coming._value):
        served.server.coming.acquire()
    assert me.bring(film(tmp_path))[0] == 429
    for _ in range(2):  # an answer is there a moment before its place is free
        served.server.coming.release()
    assert me.bring(film(tmp_path))[0] == 200
    assert me.bring(b"no video")[0] == 409
    assert not left()


# -------------------------------------------------------------------------------------------------------- samples
class Triplets:
    """Eight scenes, two questions to each."""

    def __init__(self, folder):
        rows = [
            {"id": f"s{i}", "kind": ("predictive", "procedural")[i % 4 == 3], "scene": f"v{i // 2}", "split": "test",
             "question": f"own {i} ?" if i < 4 else f"common {i % 2} ?"}
            for i in range(16)
        ]  # fmt: skip
        self.frame = pd.DataFrame(rows).set_index("id", drop=False)

    def row(self, id):
        return self.frame.loc[id]

    def file(self, id, which):
        assert which == "input"
        return avi.encode(render_event(Scene(shape="ball", colour="red", wall=int(id[1:]) % 4), None, 4), 3.0)

    def rates(self, ids, which, frames):
        return [frames / 2.0] * len(ids)


def test_samples_are_of_different_videos_with_questions_that_fit(tmp_path, monkeypatch):
    monkeypatch.setattr(triplets, "Triplets", Triplets)
    found = samples.of_triplets(tmp_path)
    assert [one.id for one in found.found] == [f"s{i}" for i in range(0, 16, 2)], "one of a video"
    assert found.common == ["common 0 ?", "common 1 ?"]
    assert found.found[0].questions == ["own 0 ?", "own 1 ?", "common 0 ?"], "its own, its video's, then any"
    assert found.found[2].questions == ["common 0 ?", "common 1 ?"]
    seen = found.found[3].source.seen
    assert seen.rate == 2.0 and (seen.clip.numpy() == at_rest(6)).all()
    told = found.told()
    assert told[7]["source"] == told[7]["clip"]["token"] == "sample-7" and told[7]["clip"]["frames"] == 4


def at_rest(number: int) -> np.ndarray:
    return render_event(Scene(shape="ball", colour="red", wall=number % 4), None, 4)


def test_no_samples_where_there_is_no_data(tmp_path, capsys):
    assert held_out(tmp_path / "triplets").told() == [] and "no held-out samples" in capsys.readouterr().out
