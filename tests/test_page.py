"""`vans page`: what it shows is what the files say, nothing of them becomes markup, and it plays in a real browser."""

import base64
import hashlib
import html
import io
import json
import re
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests import media_helpers, smoke
from tests.test_vote_page import WATCH
from vans.data import triplets
from vans.errors import UserError
from vans.page import build, cite, clips, draw, numbers
from vans.page.origin import Origins
from vans.score.score import Scores
from vans.toy.render import EVENTS, Scene, render_event

COUNT = 24
HOSTILE = '</script><img src=x onerror="alert(1)"> & <b>it</b> falls .'
IDS = [f"s{i:02d}" for i in range(COUNT)]


REAL = triplets.Triplets


class Triplets:
    """Held-out samples of the toy world; two questions to a scene. large: real-looking clips instead."""

    def __init__(self, folder: object, large: bool = False) -> None:
        self.large = large
        rows = [
            {
                "id": id,
                "kind": "predictive",
                "scene": f"v{i // 2}",
                "caption": HOSTILE,
                "question": f"<i>{i}</i> then ?",
            }
            for i, id in enumerate(IDS)
        ]
        self.frame = pd.DataFrame(rows).set_index("id", drop=False)

    def select(self, split: str) -> list[str]:
        return IDS

    def row(self, id: str) -> pd.Series:
        return self.frame.loc[id]

    def rates(self, ids, which, frames) -> list[float]:
        return [3.0] * len(ids)

    def clips(self, ids, which) -> np.ndarray:
        if self.large:
            noise = np.random.default_rng(0).integers(0, 255, (6, 10, 16, 3), np.uint8)
            return np.stack([noise.repeat(16, 1).repeat(16, 2)] * len(ids))
        return np.stack([answer(IDS.index(id), which == "target") for id in ids])


def answer(i: int, right: bool) -> np.ndarray:
    return render_event(Scene(shape="ball", colour="red", wall=i % 4), EVENTS[(i + (not right)) % len(EVENTS)], 9)


def make(root: Path, monkeypatch, oracle: bool = True, large: bool = False, arms=("sft", "stage1", "main")) -> Path:
    """A run whose ablations and answers without r_c2 are missing. Every third answer of main is wrong."""
    monkeypatch.setattr(triplets, "Triplets", lambda folder: Triplets(folder, large))
    for name in ("dvc.yaml", "params.yaml", "CITATION.cff"):
        shutil.copy(smoke.ROOT / name, root / name)
    (root / "triplets").mkdir()
    world = Triplets(None, large)
    for place, arm in enumerate(arms):
        good = [i % 3 > 0 and place > 0 for i in range(COUNT)]
        videos = [world.clips([id], "target")[0] if large else answer(i, good[i]) for i, id in enumerate(IDS)]
        media_helpers.predictions(root / "predictions" / arm, IDS, [f"{arm} says {HOSTILE}"] * COUNT, videos)
        frame = pd.DataFrame({"id": IDS, "kind": "predictive", "clip_v": np.linspace(0.1, 0.9, COUNT)})
        if oracle:
            events = [EVENTS[i % len(EVENTS)] for i in range(COUNT)]
            seen = [event if ok else "none" for event, ok in zip(events, good, strict=True)]
            frame = frame.assign(event=events, event_named=events, event_seen=seen, video_event=np.array(good, float))
        Scores(arm, frame, {"arm": arm}).save(root / "results/scores")
    head = {"kind": "all", "n": 24}
    rows = [
        {
            **head,
            "row": "sft",
            "title": "VANS <SFT>",
            "arm": "sft",
            "rouge_l": 0.5,
            "rouge_l_lo": 0.45,
            "rouge_l_hi": 0.55,
        },
        {
            **head,
            "row": "main",
            "title": "VANS",
            "arm": "main",
            "rouge_l": 0.8125,
            "rouge_l_lo": 0.75,
            "rouge_l_hi": 0.9,
        },
        {"kind": "all", "n": None, "row": "omni", "title": "Omni", "arm": None},
    ]
    pd.DataFrame(rows).to_csv(root / "results/main.csv", index=False)
    said = "## Do the paper's orders hold?\n\n*Holds*: so.\n\n- r_t1 of \\`<u>\\`: holds.\n"
    text = f"in brackets the 95% interval\n\n{said}"
    (root / "results/main.md").write_text(text)
    return root


def written(root: Path, **more) -> tuple[str, list[str]]:
    out = root / "results/page.html"
    size, lacking = build.write(root, out, **more)
    assert size == out.stat().st_size
    return out.read_text(encoding="utf-8"), lacking


def drawn(page: str) -> dict[str, list[str]]:
    """Section -> the ids that it shows, in order."""
    parts = re.findall(r'<section id="(\w+)"(.*?)</section>', page, re.S)
    return {name: re.findall(r'class="id"><code>(\w+)', body) for name, body in parts}


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        yield make(tmp_path_factory.mktemp("run"), patch)


@pytest.fixture(scope="module")
def whole(root):
    return written(root)


def test_what_stands_in_it_is_what_the_files_say(root, whole):
    page, lacking = whole
    assert "0.812 <span>[0.750, 0.900]</span>" in page or "0.813 <span>[0.750, 0.900]</span>" in page
    assert "24 held-out samples; in brackets 95 % intervals" in page and "VANS &lt;SFT&gt;" in page
    assert "<em>Holds</em>: so." in page and "<li>r_t1 of `&lt;u&gt;`: holds.</li>" in page
    assert "16 of 24 held-out answers are right (66.7%), 8 are wrong: caption right, video wrong 8." in page
    order = sorted(IDS, key=lambda id: hashlib.sha256(f"0/{id}".encode()).digest())
    good, bad = ([id for id in order[8:] if (IDS.index(id) % 3 > 0) is right] for right in (True, False))
    room = min(6, len(good), len(bad))
    assert drawn(page)["answers"] == order[:8] and room > 0
    assert drawn(page)["sides"] == [*good[:room], *bad[:room]], "failures have as much room"
    assert drawn(written(root, seed=1)[0])["answers"] != order[:8]
    assert "happened, nothing is seen" in page and 'title="the event is seen"' in page
    assert len(lacking) == 4 and "results/ablation.csv: not there; `dvc repro ablations` makes it" in lacking
    assert "predictions/no_c2: not there; `dvc repro answer@no_c2` makes it" in lacking
    assert "results/seeds.csv: not there; `dvc repro seeds` makes it" in lacking
    assert all(html.escape(line) in page for line in lacking)
    assert "dvc repro benchmarks" in page and "author = {{The vans developers}}" in page


def test_other_systems_are_not_taken_for_those_that_are_published(root, whole):
    path, words = root / "results/main.csv", "a system of that kind, not that system"
    before = path.read_text()
    rows = pd.read_csv(path)
    more = rows[rows["arm"] == "main"].assign(row="filmweaver", title="cascade", arm="cascade")
    try:
        pd.concat([rows, more]).to_csv(path, index=False)
        assert words not in whole[0] and words in written(root)[0]
    finally:
        path.write_text(before)


def test_nothing_of_it_is_markup_or_asks_for_anything(whole):
    page, _ = whole
    assert 'onerror="' not in page and "<b>it</b>" not in page and "<i>" not in page
    assert "&lt;img src=x onerror=&#34;alert(1)&#34;&gt;" in page
    assert len(page) < 500_000 and page.count("</script>") == 2
    for tag, name, address in re.findall(r'<(\w+)[^>]* (src|href)="([^"]*)"', page):
        assert address.startswith(("data:", "#")) or (tag, name) == ("a", "href"), address
    assert not re.search(r"url\(|@import|fetch\(|XMLHttp", page)
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    for kind, tag in (("style", "style"), ("script", "script")):
        text = re.findall(rf"<{tag}>(.*?)</{tag}>", page, re.S)[-1]
        told = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
        assert f"{kind}-src &#39;sha256-{told}&#39;".replace("&#39;", "'") in policy.replace("&#39;", "'")
    assert policy.startswith("default-src") and "unsafe" not in policy and ' style="' not in page


def test_clips_keep_their_pixels():
    pixels = answer(1, True)
    one = clips.put(192)(pixels, 3.0)
    sheet = np.asarray(Image.open(io.BytesIO(base64.b64decode(one["src"].partition(",")[2]))).convert("RGB"))
    back = sheet.reshape(32, 9, 32, 3).swapaxes(0, 1)
    assert (one["frames"], one["columns"], one["small"], one["fps"]) == (9, 9, True, 3.0)
    assert np.abs(back.astype(int) - pixels).max() <= clips.STEP // 2
    assert (clips.rounded(np.array([0, 255, 251, 252], np.uint8)) == [0, 255, 248, 255]).all()


def test_large_clips_get_smaller_and_keep_their_time_and_clip_decides_where_no_oracle_does(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "MOST", 1)  # never small enough
    monkeypatch.setattr(clips, "LONGEST", 4)
    page, _ = written(make(tmp_path, monkeypatch, oracle=False, large=True, arms=("main",)))
    told = json.loads(re.findall(r'id="clips">(.*?)</script>', page, re.S)[0])
    assert {(one["frames"], one["fps"]) for one in told} == {(4, 2.0)}
    assert max(one["width"] for one in told) <= 80 and not any(one["small"] for one in told)
    assert (
        "whose CLIP-V with the true video is highest, failures of the quarter where it is lowest (6 of 24 each)" in page
    )
    verdict = draw.decide(Scores("a", pd.DataFrame({"id": IDS, "clip_v": np.linspace(0.1, 0.9, COUNT)}), {}))
    assert verdict is not None
    good, bad = draw.sides(verdict, IDS, 6)
    assert good == IDS[-6:] and bad == IDS[:6] and "✗" not in page


def test_over_seeds(tmp_path):
    rows = [
        {"row": "main", "metric": "fvd", "seeds": 5, "value": 31.5, "lo": 20.25, "hi": 40.0, "kind": "all"},
        {"row": "sft", "metric": "fvd", "seeds": 5, "value": 42.0, "lo": 30.0, "hi": 50.0, "kind": "all"},
        {"row": "main", "metric": "fvd", "seeds": 4, "value": 9.0, "lo": 9.0, "hi": 9.0, "kind": "predictive"},
        {
            "row": "",
            "claim": "stage 2",
            "metric": "fvd",
            "seeds": 5,
            "value": -9.0,
            "lo": -9.0,
            "hi": 9.0,
            "kind": "all",
        },
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "seeds.csv", index=False)
    found = numbers.of_seeds(tmp_path)
    assert found.seeds == 5 and [line.value for line in found.blocks[0].lines] == ["31.50", "42.00"]
    assert found.blocks[0].lines[0].interval == "[20.25, 40.00]"
    assert found.grid == [["", "FVD ↓"], ["Joint-GRPO, full", "31.50 [20.25, 40.00]"], ["SFT", "42.00 [30.00, 50.00]"]]
    line = found.blocks[0].lines[1]
    assert 2 <= line.left < line.at < line.right == 98


def test_what_made_it(tmp_path):
    git = ("git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b")
    (tmp_path / "results").mkdir()
    (tmp_path / "results/main.csv").write_text("1")
    digest = hashlib.md5(b"1").hexdigest()
    assert Origins(tmp_path).of("results/main.csv", "benchmarks").commit == "dvc.lock does not know it"
    lock = f"stages:\n  tables@x:\n    cmd: run it\n    outs:\n    - path: results/main.csv\n      md5: {digest}\n"
    (tmp_path / "dvc.lock").write_text(lock)
    subprocess.run([*git, "init", "-q"], check=True)
    (tmp_path / "params.yaml").write_text("a: 1\n")
    subprocess.run([*git, "add", "params.yaml"], check=True)
    subprocess.run([*git, "commit", "-qm", "one"], check=True)
    found = Origins(tmp_path).of("results/main.csv", "benchmarks")
    assert (found.command, found.runs, found.digest) == ("dvc repro tables@x", "run it", digest[:8])
    assert found.commit.startswith("dvc.lock not committed yet, on top of commit ") and "changes" not in found.commit
    subprocess.run([*git, "add", "dvc.lock"], check=True)
    subprocess.run([*git, "commit", "-qm", "two"], check=True)
    head = subprocess.run([*git, "log", "-1", "--format=%h"], check=True, capture_output=True, text=True).stdout.strip()
    (tmp_path / "params.yaml").write_text("a: 2\n")
    subprocess.run([*git, "commit", "-qam", "three"], check=True)
    assert Origins(tmp_path).of("results/main.csv", "benchmarks").commit.startswith(f"commit {head} (")
    (tmp_path / "params.yaml").write_text("a: 3\n")
    assert Origins(tmp_path).head.endswith(", with changes")
    (tmp_path / "results/main.csv").write_text("2")
    assert Origins(tmp_path).of("results/main.csv", "x").commit == f"not what dvc.lock pins ({digest[:8]})"


def test_how_to_cite(tmp_path):
    path = tmp_path / "CITATION.cff"
    path.write_text("title: A_b & 100% {c}\nauthors: [{family-names: Öz, given-names: A}]\nyear: 2026\n")
    assert cite.entries(cite.read(path) or {}) == [
        "@misc{z2026,\n  title = {A\\_b \\& 100\\% \\{c\\}},\n  author = {Öz, A},\n  year = {2026}\n}"
    ]
    path.write_text("a: [")
    assert cite.read(path) is None and cite.read(tmp_path / "none") is None


def test_what_is_missing_is_a_line_each(tmp_path, monkeypatch):
    monkeypatch.setattr(triplets, "Triplets", REAL)
    (tmp_path / "dvc.yaml").touch()
    with pytest.raises(UserError, match=r"results: nothing to show yet; `dvc repro benchmarks` makes the main table"):
        written(tmp_path)
    (tmp_path / "results").mkdir()
    (tmp_path / "results/main.csv").write_text("kind,row\nall")
    with pytest.raises(UserError, match=r"main\.csv: a page is called \.html"):
        build.write(tmp_path, tmp_path / "results/main.csv")
    page, lacking = written(tmp_path)
    assert any(line.startswith("benchmarks: unreadable (") for line in lacking)
    assert any("triplets" in line and "`dvc repro curate`" in line for line in lacking)
    assert "CITATION.cff: not there" in page and page.count('class="missing"') >= len(lacking)
    assert str(tmp_path) not in page


@pytest.fixture
def one(browser, root, whole):
    """Opens the page in a browser as it is set: what it asks for is in `asked`, what goes wrong in `wrong`."""

    def open_it(width: int, **settings):
        page = browser.new_context(viewport={"width": width, "height": 844}, **settings).new_page()
        page.set_default_timeout(60_000)
        page.asked, page.wrong = [], []
        page.on("request", lambda request: page.asked.append(request.url))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("console", lambda message: page.wrong.append(message.text))
        page.goto((root / "results/page.html").as_uri())
        page.wait_for_selector("canvas:not([data-frame])", state="detached")
        return page

    return open_it


def test_it_plays_in_step_from_a_file(one):
    page = one(390)
    assert page.evaluate("document.documentElement.scrollWidth") == 390, "nothing sticks out on a phone"
    top = page.locator("#top canvas").count()
    seen = page.evaluate(WATCH, 3.0)
    first, rest = [frames[1:top] for frames in seen], [frames[top:] for frames in seen]
    assert all(len(set(frames)) == 1 for frames in (*first, *rest)), "answers and truth in the same frame"
    assert len({frames[0] for frames in rest}) > 4
    sizes = page.evaluate("""[...document.querySelectorAll("canvas")].map((c) =>
        [c.clientWidth / c.width, getComputedStyle(c).imageRendering, c.parentElement.clientWidth >= c.clientWidth])""")
    assert all(scale >= 2 and scale % 1 == 0 and way == "pixelated" and fits for scale, way, fits in sizes)
    page.click("#play")
    still = page.evaluate(WATCH, 0.8)
    assert all(frames == still[0] for frames in still) and page.inner_text("#saying") == "play"
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Space")
    assert page.inner_text("#saying") == "pause"
    assert (
        page.locator("figcaption", has_text="<b>it</b> falls").count() > 10
        and page.locator("figcaption img").count() == 0
    )
    assert not page.wrong and {url.partition(":")[0] for url in page.asked} <= {"file", "data"}
    assert sum(url.startswith("file") for url in page.asked) == 1
    page.context.close()


def test_it_stands_still_where_motion_is_not_wanted_and_is_dark_where_that_is(one):
    page = one(1280, reduced_motion="reduce", color_scheme="dark")
    still = page.evaluate(WATCH, 0.6)
    assert all(frames == still[0] for frames in still) and set(still[0][1:]) == {4}, "the middle of the answers"
    assert page.inner_text("#saying") == "play" and page.evaluate("document.documentElement.scrollWidth") == 1280
    page.fill("#time", "0")
    page.wait_for_selector("article:first-of-type canvas[data-frame='0']")
    page.click("#play")
    page.wait_for_selector("article:first-of-type canvas[data-frame='1']")
    red = "getComputedStyle(document.body).backgroundColor.match(/\\d+/)[0]"
    assert int(page.evaluate(red)) < 60 and not page.wrong
    page.context.close()
