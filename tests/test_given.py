"""Somebody else's answers: words alone, videos alone, and a row of both tables with its own protocol line."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from tests import media_helpers
from tests.test_tables import FAST, FakeClip, FakeDetector, FakeTriplets, save
from vans.errors import UserError
from vans.media import video
from vans.score import anyone, score
from vans.score.metrics import METRICS
from vans.score.score import Scores
from vans.show import oracle
from vans.show import tables as drawn
from vans.tables import markdown, others, tables

TEXT = {*(f"bleu{k}" for k in range(1, 5)), "rouge_l", "format", "think_words"}
CAPTIONS = {"caption_event", "caption_renderable", "both_captions"}


@pytest.fixture(scope="module")
def triplets() -> FakeTriplets:
    return FakeTriplets()


def scored(folder: Path, triplets: FakeTriplets, **more) -> Scores:
    return score.score(folder, triplets, FakeClip(), FakeDetector(), FAST, **more)


@pytest.fixture
def whole(triplets: FakeTriplets, tmp_path: Path) -> Path:
    return save(tmp_path / "predictions/whole", triplets, right=5, noise=8.0)


def test_words_alone_have_the_metrics_of_text_and_those_as_before(whole, triplets):
    before = scored(whole, triplets)
    shutil.rmtree(whole / "videos")
    words = scored(whole, triplets)
    assert set(words.summary["metrics"]["predictive"]) == TEXT | CAPTIONS
    for kind in before.kinds:
        for name in TEXT:
            assert words.interval(kind, name) == before.interval(kind, name)
    assert list(words.frame["event_named"]) == list(before.frame["event_named"])
    assert words.summary["protocol"]["videos"] == "none: the words alone were scored"
    assert not {"fvd", "kvd", "clip", "clips"} & set(words.summary["protocol"]) and not words.summary["warnings"]
    assert "videos" not in before.summary["protocol"] and "event_seen" not in words.frame


def test_videos_alone_have_no_metric_of_text(whole, triplets):
    """A 0 would say that its words are bad; it writes none."""
    before = scored(whole, triplets)
    media_helpers.predictions(whole, ids := triplets.select(), [""] * 16, triplets.clips(ids, "input"))
    silent = scored(whole, triplets)
    assert set(before.summary["metrics"]["all"]) - set(silent.summary["metrics"]["all"]) == {
        *TEXT, *CAPTIONS, "clip_t_own"
    }  # fmt: skip
    assert silent.interval("all", "clip_v") is not None and set(silent.frame["caption"]) == {""}
    assert oracle.blame(silent.frame)[["vlm", "lucky"]].sum() == pytest.approx(1.0)


def test_one_caption_among_empty_ones_is_a_system_that_writes(whole, triplets):
    """All of a batch may be empty: they count as wrong, not as missing."""
    ids = triplets.select()
    truth = list(triplets.frame["caption"])
    media_helpers.predictions(whole, ids, [truth[0], *[""] * 15], triplets.clips(ids, "input"))
    found = scored(whole, triplets).interval("all", "rouge_l")
    assert found is not None and found.value == pytest.approx(1 / 16)


def test_texts_that_all_break_the_template_are_wrong_and_not_missing(whole, triplets):
    ids = triplets.select()
    media_helpers.predictions(whole, ids, [""] * 16, triplets.clips(ids, "input"), ["no tags at all"] * 16)
    with_videos = scored(whole, triplets)
    shutil.rmtree(whole / "videos")
    for found in (with_videos, scored(whole, triplets)):
        for name in ("rouge_l", "format", "caption_event"):
            interval = found.interval("all", name)
            assert interval is not None and interval.value == 0.0 and interval.n == 16
    assert with_videos.interval("all", "clip_t_own") is None


def test_neither_words_nor_videos_is_one_line(tmp_path, triplets):
    (tmp_path / "none").mkdir()
    (tmp_path / "none/captions.csv").write_text("id,caption\n" + "".join(f"{i},\n" for i in triplets.select()))
    with pytest.raises(UserError, match="none: neither a caption nor a video; there is nothing to score"):
        scored(tmp_path / "none", triplets)


def test_a_folder_with_some_videos_still_needs_all(whole, triplets):
    next((whole / "videos").iterdir()).unlink()
    with pytest.raises(UserError, match="no video for 'p"):
        scored(whole, triplets)


# ---------------------------------------------------------------------------------------------------- rows
@pytest.fixture
def kept(whole, triplets, tmp_path) -> Path:
    """Scores of an arm and, in others/, of somebody's answers of other sizes and of somebody's words."""
    for arm in ("sft", "main"):
        scored(whole, triplets, arm=arm).save(tmp_path / "scores")
    clip = np.zeros((5, 24, 48, 3), np.uint8)
    for id in triplets.select()[:3]:
        (whole / f"videos/{id}.avi").unlink()
        video.write(whole / f"videos/{id}.avi", clip, 3.0)
    scored(whole, triplets, arm="theirs", made="0, 1 and 2").save(tmp_path / "others")
    shutil.rmtree(whole / "videos")
    scored(whole, triplets, arm="talkers", made="").save(tmp_path / "others")
    return tmp_path


def test_a_row_in_both_tables_and_figures_with_its_own_protocol_line(kept):
    for layout in (tables.MAIN, tables.ABLATION):
        table = tables.build(kept / "scores", layout, given=kept / "others")
        assert [row.name for row in table.layout.rows][-2:] == ["talkers", "theirs"]
        lines = table.frame[table.frame["kind"] == "procedural"].set_index("row")
        assert lines.at["theirs", "clip_v"] > 0 and np.isnan(lines.at["talkers", "clip_v"])
        assert lines.at["talkers", "rouge_l"] == lines.at["theirs", "rouge_l"] == lines.at["sft", "rouge_l"]
        text = markdown.markdown(table)
        made = "13 videos of 9 frames of 32 x 32, 3 videos of 5 frames of 24 x 48; seeds: 0, 1 and 2"
        assert f"- theirs: {made}." in text and "- talkers: words alone; seeds: not told." in text
        page = drawn.figure(table)
        assert "theirs" in [label.get_text() for label in page.axes[0].get_yticklabels()]
        assert [row.name for row in layout.rows][-1] != "theirs"  # the layout itself is as it was


def test_words_alone_in_the_first_place_leave_fvd_its_detector(kept):
    table = tables.build(kept / "scores", tables.MAIN, given=kept / "others")
    first = dict(sorted(table.scores.items(), key=lambda item: item[0] != "talkers"))
    assert markdown.detector(first, short=True) == "corner colours"


def test_a_row_scored_on_other_samples_stays_empty_and_says_why(kept):
    path = kept / "others/theirs.json"
    tree = json.loads(path.read_text())
    tree["resampling"]["seed"] += 1
    path.write_text(json.dumps(tree))
    table = tables.build(kept / "scores", tables.MAIN, given=kept / "others")
    lines = table.frame[table.frame["kind"] == "all"].set_index("row")
    assert np.isnan(lines.at["theirs", "clip_v"]) and "theirs" not in table.scores
    assert "scored on other samples than this table: `vans score … --as theirs` again" in table.layout.rows[-1].note


def test_a_row_never_stands_in_the_place_of_an_arm(kept):
    for end in ("csv", "json"):
        (kept / f"others/theirs.{end}").rename(kept / f"others/sft.{end}")
    with pytest.raises(UserError, match="others/sft.json: the tables have sft of their own"):
        tables.build(kept / "scores", tables.MAIN, given=kept / "others")


def test_a_metric_of_ones_own_that_looks_at_videos_is_not_asked_about_words(whole, triplets, monkeypatch):
    def brightness(batch):
        return batch.videos.mean(axis=(1, 2, 3, 4))

    own = replace(METRICS["psnr"], name="brightness", measure=brightness, columns=("brightness",))
    monkeypatch.setitem(METRICS, "brightness", own)
    shutil.rmtree(whole / "videos")
    assert "brightness" not in scored(whole, triplets).summary["metrics"]["all"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"row": "main"}, "--as main: the tables have a row of that name; choose another"),
        ({"row": "sft_best"}, "--as sft_best: the tables have a row of that name"),
        ({"row": "cascade"}, "--as cascade: the tables have a row of that name"),
        ({"row": "unified"}, "--as unified: the tables have a row of that name"),
        ({"row": "a/b"}, "--as 'a/b': the scores' files are called by it"),
        ({"row": "theirs", "out": "x"}, "--as: names the row .*; leave out --name and --out"),
        ({"seeds": "3"}, "--seeds: is said of a row of the tables; name it with --as NAME"),
    ],
)
def test_a_row_that_cannot_be_kept_is_refused_before_anything_is_scored(monkeypatch, given, message):
    monkeypatch.chdir(Path(__file__).parents[1])
    monkeypatch.setattr(anyone.run, "score_arm", lambda *_, **__: pytest.fail("it was scored"))
    with pytest.raises(UserError, match=message):
        anyone.score_folder("predictions/theirs", **given)


def test_a_row_is_kept_where_the_tables_look_for_it(monkeypatch, tmp_path, whole, triplets, capsys):
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copyfile(Path(__file__).parents[1] / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)

    def score_arm(folder, root, name, made):
        return scored(folder, triplets, arm=name, made=made)

    monkeypatch.setattr(anyone.run, "score_arm", score_arm)
    anyone.score_folder(whole, row="theirs", seeds="7")
    said = capsys.readouterr().out
    assert score.load(tmp_path / others.FOLDER, "theirs").summary["answers"].endswith("seeds: 7")
    assert "seeds: 7" in said and "then: dvc repro benchmarks ablations" in said
