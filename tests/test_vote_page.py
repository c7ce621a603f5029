"""The page of `vans vote` in a real browser: clips in step, keys, a server that is killed, what it is told."""

import json
from itertools import pairwise

import pytest

from tests import vote_helpers
from tests.vote_helpers import ARMS, QUESTION, Vote

WATCH = """(seconds) => new Promise((then) => {
  const seen = [], end = performance.now() + 1000 * seconds;
  const look = () => {
    seen.push([...document.querySelectorAll("canvas")].map((c) => Number(c.dataset.frame)));
    performance.now() < end ? requestAnimationFrame(look) : then(seen);
  };
  requestAnimationFrame(look);
})"""
PIXEL = """() => [...document.querySelectorAll("#sides canvas")].map((c) => [c.clientWidth / c.width,
  getComputedStyle(c).imageRendering, [...c.getContext("2d").getImageData(16, 20, 1, 1).data].slice(0, 3)])"""


@pytest.fixture
def page(browser):
    """A page that remembers in `heard` all that it is sent and asks for, and in `wrong` what goes wrong in it."""
    one = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
    one.set_default_timeout(90_000)
    one.heard, one.wrong = [], []

    def hear(response):
        kind = response.headers.get("content-type", "")
        one.heard.append(response.url + ("" if kind.startswith("image/") else response.text()))

    one.on("response", hear)
    one.on("pageerror", lambda error: one.wrong.append(str(error)))
    yield one
    one.context.close()


def at(page, number):
    """Wait until a screen takes votes."""
    page.wait_for_selector(f"#count:text-matches('^{number} of')")
    page.wait_for_timeout(400)


def enter(page, name):
    page.fill("#name", name)
    page.keyboard.press("Enter")


def test_three_votes_a_killed_server_and_on_to_the_end(page, tmp_path):
    vote_helpers.make(tmp_path)
    options = ("--each", "1", "--checks", "3", "--captions")
    server, rater = Vote(tmp_path, *options), '<img src=x onerror="alert(1)">'
    try:
        page.goto(server.url)
        enter(page, rater)
        at(page, 1)
        assert page.inner_text("#rater") == rater and page.inner_text("#question") == QUESTION
        assert page.locator("img, #question b, .caption u").count() == 0, "words stay words"
        assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing sticks out on a phone"
        seen = page.evaluate(WATCH, 5)
        lengths = [max(frames) + 1 for frames in zip(*seen, strict=True)]
        assert lengths[0] == 4 and max(lengths) == 9
        assert all(frame == min(max(one), n - 1) for one in seen for frame, n in zip(one, lengths, strict=True)), (
            "in step"
        )
        assert any(max(a) == 8 and b == [0] * len(b) for a, b in pairwise(seen)), "all start again at once"
        for scale, rendering, colour in page.evaluate(PIXEL):
            assert rendering == "pixelated" and scale % 1 == 0 and max(colour) > 60
        page.keyboard.press("Space")
        still = page.evaluate(WATCH, 0.8)
        assert all(one == still[0] for one in still), "paused"
        page.keyboard.press("Space")
        pressed = ["1", "t", "2"]
        for number, key in enumerate(pressed, 1):
            at(page, number)
            page.keyboard.press(key)
        at(page, 4)
        server.kill()
        assert len(vote_helpers.rows(tmp_path / "votes.csv")) == 3
        page.keyboard.press("2")
        page.wait_for_selector("#notice:not([hidden])")
        server = Vote(tmp_path, *options, port=server.port)
        at(page, 5)
        page.reload()
        at(page, 5)
        page.keyboard.press("Backspace")
        at(page, 4)
        assert page.locator(".side.before .name").inner_text() == "2" or page.locator(".before").count() == 0
        page.keyboard.press("1")
        for number, key in ((5, "t"), (6, "2")):
            at(page, number)
            page.keyboard.press(key)
        page.wait_for_selector("#end:not([hidden])")
    finally:
        server.kill()
    cells = vote_helpers.rows(tmp_path / "votes.csv")
    assert [int(row["number"]) for row in cells] == [1, 2, 3, 4, 4, 5, 6] and {row["rater"] for row in cells} == {rater}
    for row, key in zip(cells, [*pressed, "2", "1", "t", "2"], strict=True):
        assert row["choice"] == ("tie" if key == "t" else json.loads(row["sides"])[int(key) - 1])
        assert 0.3 < float(row["seconds"]) < 600 and (row["right"] == "") == (row["check"] == "")
    assert sum(row["check"] != "" for row in cells if row["number"] != "4") >= 2
    told = "\n".join(page.heard)
    assert not page.wrong and not any(word in told for word in (*ARMS, ".avi", "votes.csv"))
    assert {"/".join(one.split("/")[:3]) + "/" for one in page.heard} == {server.url}, "nothing from anywhere else"


def test_marks_by_keys(page, tmp_path):
    vote_helpers.make(tmp_path, samples=2)
    server = Vote(tmp_path, "--form", "likert", "--checks", "0", arms=ARMS[:2])
    try:
        page.goto(server.url)
        enter(page, "ann")
        at(page, 1)
        assert page.is_disabled("#send")
        for key in ("1", "2", "3", "4", "5", "Backspace", "Backspace", "3", "5", "1", "Enter"):
            page.keyboard.press(key)
        at(page, 2)
        page.reload()
        at(page, 2)
        page.keyboard.press("Backspace")
        at(page, 1)
        assert page.locator("[aria-pressed=true]").all_inner_texts() == ["1", "2", "3", "3", "5", "1"]
        page.keyboard.press("ArrowRight")
        at(page, 2)
        for key in "555555":
            page.keyboard.press(key)
        page.keyboard.press("Enter")
        page.wait_for_selector("#end:not([hidden])")
    finally:
        server.kill()
    cells = vote_helpers.rows(tmp_path / "votes.csv")
    assert [json.loads(row["choice"]) for row in cells] == [[[1, 2, 3], [3, 5, 1]], [[5, 5, 5]] * 2] and not page.wrong
