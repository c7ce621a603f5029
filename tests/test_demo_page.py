"""The page of `vans demo` in a real browser, before real models that know nothing: a video is dropped and its futures
play in step, a caption is changed, a run is cancelled, the history outlives a reload and a server that is killed."""

import base64
import re
from itertools import pairwise

import pytest

from tests.demo_helpers import Demo
from tests.test_vote_page import WATCH
from vans.media import video
from vans.toy.render import Scene, render_event

DROP = """([data, name]) => {
  const bytes = Uint8Array.from(atob(data), (sign) => sign.charCodeAt(0));
  const held = new DataTransfer();
  held.items.add(new File([bytes], name, { type: "video/mp4" }));
  for (const kind of ["dragenter", "dragover", "drop"]) {
    const told = { dataTransfer: held, bubbles: true, cancelable: true };
    document.querySelector("#drop").dispatchEvent(new DragEvent(kind, told));
  }
}"""
NAME = "<b>a film<b>.mp4"
QUESTIONS = ("<img src=x onerror=alert(1)> then ?", "what happens next ?")


@pytest.fixture(scope="module")
def server(untrained):
    started = [Demo(untrained)]
    yield started
    started[-1].kill()


@pytest.fixture(scope="module")
def page(browser, server, untrained):
    """A phone's; in `heard` all that it asks for, in `wrong` what goes wrong in it. A video was dropped, two questions
    were asked, and their futures are there."""
    frames = render_event(Scene(shape="cone", colour="blue"), "left").repeat(5, 1).repeat(5, 2)
    video.write(untrained / "film.mp4", frames, 3.0)
    one = browser.new_context(viewport={"width": 390, "height": 844}).new_page()
    one.set_default_timeout(90_000)
    one.heard, one.wrong = [], []
    one.on("request", lambda request: one.heard.append(request.url))
    one.on("pageerror", lambda error: one.wrong.append(str(error)))
    one.on("console", lambda message: one.wrong.append(message.text))
    one.goto(server[0].url)
    one.wait_for_selector("#questions input")
    one.evaluate(DROP, [base64.b64encode((untrained / "film.mp4").read_bytes()).decode(), NAME])
    one.wait_for_selector("#seen canvas[data-frame]")
    for k, question in enumerate(QUESTIONS):
        one.locator("#questions input").nth(k).fill(question)
    one.click("#go")
    shown(one)
    yield one
    one.context.close()


def shown(page):
    """Wait until the futures of a run stand on the stage, and nothing is under way."""
    page.wait_for_selector("#doing", state="hidden")
    page.wait_for_selector("#futures .k1 canvas[data-frame]")


def at(page) -> str:
    """The run on the stage."""
    return re.sub(".*#", "", page.url)


def test_a_dropped_video_is_answered_and_its_futures_play_in_step(page, server):
    assert page.inner_text("#about") == NAME and page.locator("#futures canvas").count() == 3
    assert page.locator("#futures .ask").all_inner_texts() == ["What you showed", *QUESTIONS]
    assert page.locator("img, #about b").count() == 0, "words stay words"
    assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing sticks out on a phone"
    seen = [frames[1:4] for frames in page.evaluate(WATCH, 4.5)]  # the first is what will be asked about
    assert all(len(set(frames)) == 1 for frames in seen), "input and futures in the same frame"
    played = [frames[0] for frames in seen]
    assert set(played) == set(range(9)) and any(a == 8 and b == 0 for a, b in pairwise(played))
    page.click("#play")
    still = page.evaluate(WATCH, 0.6)
    assert all(frames == still[0] for frames in still) and page.inner_text("#verb") == "play"
    page.click("#play")
    captions = page.locator("#futures textarea").evaluate_all("all => all.map((one) => one.value)")
    assert all(captions) and page.locator("#futures .why").count() >= 3 and page.is_hidden("#notice")
    with page.expect_download() as saved:
        page.locator("#futures .k0 a").click()
    assert video.Video(saved.value.path()).info.height == 32
    assert not page.wrong and all(url.startswith((server[-1].url, "data:", "blob:")) for url in page.heard)


def test_a_caption_is_edited_and_rendered_again(page):
    first, other = at(page), page.locator("#futures .k0 canvas").evaluate("one => one.toDataURL()")
    box = page.locator("#caption-1")
    own = box.input_value()
    assert page.is_hidden(".k1 .again")
    box.fill("the cone grows <u>")
    page.locator(".k1 .plain").click()
    assert box.input_value() == own and page.is_hidden(".k1 .again")
    box.fill("the cone grows <u>")
    box.press("Enter")
    page.wait_for_selector('.k1 .why:has-text("The model\'s own caption")')
    shown(page)
    assert at(page) != first and page.locator("#caption-1").input_value() == "the cone grows <u>"
    assert page.locator(".k1 .why").first.inner_text().endswith(own)
    assert page.locator(".past").count() == 2 and "edited" in page.locator(".past").first.inner_text()
    assert page.locator("#futures .k0 canvas").count() == 1 and other.startswith("data:image/png")
    assert not page.wrong


def test_a_run_is_cancelled(page):
    before = page.locator(".past").count()
    page.locator("summary").click()
    page.fill("#steps", "200")
    page.fill("#guidance", "2")
    page.click("#go")
    page.wait_for_selector("#doing:not([hidden])")
    page.wait_for_selector("#saying:has-text('rendering')")
    assert page.locator("#futures .waiting").count() == 2 and page.locator("#futures textarea").count() == 2
    page.click("#stop")
    page.wait_for_selector("#futures .stopped")
    assert page.locator("#futures .stopped").all_inner_texts() == ["Cancelled."] * 2 and page.is_hidden("#doing")
    page.fill("#steps", "2")
    page.click("#go")
    page.wait_for_selector(f".past >> nth={before + 1}")
    shown(page)
    page.locator(".past:has-text('cancelled') .drop").click()
    page.wait_for_selector(".past:has-text('cancelled')", state="detached")
    assert not page.wrong


def test_the_history_outlives_a_reload_and_a_server_that_is_killed(page, server, untrained):
    shown(page)
    run, count = at(page), page.locator(".past").count()
    captions = page.locator("#futures textarea").evaluate_all("all => all.map((one) => one.value)")
    page.reload()
    shown(page)
    assert at(page) == run and page.locator(".past").count() == count and page.inner_text("#about") == NAME
    assert page.locator("#futures textarea").evaluate_all("all => all.map((one) => one.value)") == captions
    assert page.locator("#questions input").nth(0).input_value() == QUESTIONS[0]
    server[-1].kill()
    page.wait_for_selector("#notice:not([hidden])")
    server.append(Demo(untrained, port=server[-1].port))
    page.wait_for_selector("#notice", state="hidden")
    page.locator(".past .open").last.click()
    shown(page)
    assert at(page) != run and page.locator(".past").count() == count
    page.click("#go")
    page.wait_for_selector(f".past >> nth={count}")
    shown(page)
    assert page.locator(".past canvas").count() == 2 * (count + 1)


def test_what_is_brought_last_is_asked_about_however_long_it_is_looked_at(page, untrained):
    drawn = render_event(Scene(shape="ball", colour="red"), "jump").repeat(5, 1).repeat(5, 2)
    video.write(untrained / "other.mp4", drawn, 3.0)
    data = base64.b64encode((untrained / "other.mp4").read_bytes()).decode()
    held = []
    page.route("**/bring", lambda route: held.append(route))
    for name in ("first.mp4", "second.mp4"):
        with page.expect_request("**/bring"):
            page.evaluate(DROP, [data, name])
    assert page.inner_text("#about") == "looking at second.mp4 …"
    with page.expect_request("**/ask") as asked:
        page.click("#go")
        with page.expect_response("**/bring"):
            held[0].continue_()
        with page.expect_response("**/bring") as brought:
            held[1].continue_()
    page.unroute("**/bring")
    assert asked.value.post_data_json["source"] == brought.value.json()["source"]
    shown(page)
    assert page.inner_text("#about") == "second.mp4"
