"""Pictures: what they show is computed right, they can be drawn from odd inputs, and their bytes are
stable."""

import io
import json
import re
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text
from PIL import Image, WebPImagePlugin
from safetensors.numpy import save_file

from tests import media_helpers
from vans.score import score
from vans.score.bootstrap import Interval
from vans.show import arms, curves, frames, groups, oracle, page, sheets, style, teaser, videos
from vans.show import tables as drawn
from vans.tables import markdown, tables
from vans.tables.terms import Gain
from vans.toy import world
from vans.toy.render import Scene, render_event

SCENE = Scene(shape="cone", colour="purple", x=15.0)
CLIP = render_event(SCENE, "jump")


class FakeTriplets:
    """Three samples, two of one scene."""

    def __init__(self) -> None:
        events = ("jump", "left", "grow")
        self.frame = pd.DataFrame(
            {
                "id": ["a", "b", "c"],
                "kind": ["procedural", "predictive", "predictive"],
                "scene": [None, "s", "s"],
                "question": ["what is next ?", "what happens if the wind blows ?", "and if a magnet pulls ?"],
                "reasoning": ["because " * 60, "so", ""],
                "caption": [world.caption("cone", event) for event in events],
                "style": ["plain", "flowery", "given"],
                "recipe_type": ["harbor", None, None],
                "condition": [None, "the wind blows", "a magnet pulls"],
            }
        ).set_index("id", drop=False)
        self._clips = {"input": [CLIP] * 3, "target": [render_event(SCENE, event) for event in events]}

    def row(self, name: str) -> pd.Series:
        return self.frame.loc[name]

    def clips(self, ids: list[str], which: str) -> np.ndarray:
        return np.stack([self._clips[which]["abc".index(name)] for name in ids])


def _pixels(figure: Figure, scale: float = 1.0) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(style.png(figure, scale))).convert("RGB"))


def _words(figure: Figure) -> str:
    return " ".join(text.get_text() for axes in figure.axes for text in axes.texts)


# ---------------------------------------------------------------- frames


def test_strip_picks_first_and_last_and_separates_with_white() -> None:
    clip = np.arange(9, dtype=np.uint8)[:, None, None, None] * np.ones((1, 64, 80, 3), np.uint8)
    shown = frames.strip(clip, 3)
    assert shown.shape == (64, 80 * 3 + 2 * 2, 3)
    assert [shown[0, x, 0] for x in (0, 82, 164)] == [0, 4, 8] and (shown[:, 80:82] == 255).all()
    assert frames.strip_size(clip, 3, 8) == (8 * 244 / 64, 8)
    assert len(frames.pick(clip[:2], 5)) == 2


def test_a_grid_fills_its_last_line_with_white() -> None:
    clip = np.arange(5, dtype=np.uint8)[:, None, None, None] * np.ones((1, 32, 40, 3), np.uint8)
    page = frames.grid(clip, 5, 3)
    assert page.shape == (65, 40 * 3 + 2, 3)
    assert [page[0, x, 0] for x in (0, 41, 82)] == [0, 1, 2] and [page[33, x, 0] for x in (0, 41)] == [3, 4]
    assert (page[33:, 81:] == 255).all() and (page[32] == 255).all()


def test_wide_clips_show_fewer_frames_and_then_lower_ones() -> None:
    clip = np.zeros((9, 30, 60, 3), np.uint8)  # 120 px wide at 60 px, and no gap to speak of
    assert frames.fitting(clip, 4, 60, 1000) == (4, 60)
    assert frames.fitting(clip, 4, 60, 300) == (2, 60)
    assert frames.fitting(clip, 4, 60, 60) == (1, 30)


def test_enlarging_keeps_every_pixel_a_square() -> None:
    large = frames.enlarge(CLIP, 3)
    assert large.shape == (9, 96, 96, 3) and (large[:, ::3, ::3] == CLIP).all() and (large[:, 2::3, 1::3] == CLIP).all()


def test_shrinking_averages_blocks() -> None:
    clip = np.zeros((1, 4, 6, 3), np.uint8)
    clip[:, ::2] = 100
    assert (frames.shrink(clip, 3) == 50).all() and frames.shrink(clip, 3).shape == (1, 2, 3, 3)
    assert frames.shrink(clip, 6) is clip


def test_only_clips_are_clips() -> None:
    assert frames.as_clip(torch.from_numpy(CLIP)).shape == CLIP.shape
    for bad in (CLIP.astype(float), CLIP[0], CLIP[..., :1]):
        with pytest.raises(ValueError, match="uint8"):
            frames.as_clip(bad)


# ---------------------------------------------------------------- style


def test_pictures_show_themselves_and_their_bytes_are_stable() -> None:
    one, two = (sheets.triplets_sheet(FakeTriplets(), ["a", "b"]) for _ in range(2))
    assert style.png(one) == style.png(two)
    assert b"matplotlib" not in style.png(one).lower()
    assert isinstance(one, style.Picture)
    data, about = one._repr_mimebundle_()
    assert set(data) == {"image/png", "text/plain"} and about["image/png"]["width"] == 1000 + 2 * style.MARGIN


def test_wrap_ends_in_an_ellipsis_and_never_exceeds_the_lines() -> None:
    assert style.wrap("one two", 10, 1000, 1) == ["one two"]
    wrapped = style.wrap("word " * 50, 10, 100, 2)
    assert len(wrapped) == 2 and wrapped[-1].endswith("…")
    assert style.wrap("", 10, 100, 2) == [""]


def test_saving_is_atomic_and_in_pixels(tmp_path) -> None:
    figure = curves.bars({"kept": 3, "too short": 1}, "segments")
    style.save(figure, tmp_path / "deep" / "x.png", scale=1)
    size = Image.open(tmp_path / "deep" / "x.png").size
    assert size == tuple(round(side * style.DPI) for side in figure.get_size_inches())


# ---------------------------------------------------------------- sheets, groups, curves


def test_contact_sheet_shows_frames_and_words() -> None:
    figure = sheets.triplets_sheet(FakeTriplets(), ["a", "b", "c"])
    words = _words(figure)
    for part in ("what is next ?", "procedural · harbor · plain wording", "predictive · a magnet pulls", "…"):
        assert part in words
    assert "nan" not in words and "None" not in words
    purple = np.abs(_pixels(figure).astype(int) - (156, 44, 196)).sum(-1) < 30
    assert purple[:, :300].any() and purple[:, 720:].any()  # the object is seen on both sides


def test_long_words_make_a_row_higher_instead_of_running_into_the_next() -> None:
    class Wordy(FakeTriplets):
        def row(self, name: str) -> dict:
            return {**super().row(name), "question": "why " * 30, "reasoning": "since " * 60, "caption": "and so " * 60}

    figure = sheets.triplets_sheet(Wordy(), ["a", "b"])
    places = [(t.get_position()[1], t.get_text()) for t in figure.axes[0].texts]
    second = max(y for y, text in places if " · " in text)  # the second row's tag
    above = [y for y, text in places if y < second]
    assert len(above) > 3 + 8 and second - max(above) > 12
    assert figure.get_size_inches()[1] > sheets.triplets_sheet(FakeTriplets(), ["a", "b"]).get_size_inches()[1]


@pytest.mark.parametrize("shape", [(352, 640), (640, 352), (32, 32)])
def test_words_keep_their_room_beside_clips_of_every_shape(shape, monkeypatch) -> None:
    clips = np.zeros((2, 9, *shape, 3), np.uint8)
    monkeypatch.setattr(FakeTriplets, "clips", lambda self, ids, which: clips[: len(ids)])
    rooms: list[float] = []
    text = style.Canvas.text

    def spied(self, x, y, words, *about, **more):
        if "width" in more and "caption" in words:
            rooms.append(more["width"])
        return text(self, x, y, words, *about, **more)

    monkeypatch.setattr(style.Canvas, "text", spied)
    monkeypatch.setattr(FakeTriplets, "row", lambda self, name: {**self.frame.loc[name], "caption": "a caption"})
    sheets.triplets_sheet(FakeTriplets(), ["a", "b"])
    assert rooms and min(rooms) >= sheets.WORDS
    rooms.clear()
    sheets.answers_sheet(FakeTriplets(), ["a", "b"], {"SFT": (["a caption", "a caption"], clips)})
    assert rooms and min(rooms) >= sheets.ANSWER


def test_a_histogram_leaves_out_what_holds_no_number() -> None:
    figure = curves.histogram({"none": [], "some": [1.0, 2.0, np.nan], "lost": [np.nan]}, "x", "s")
    heights = [p.get_height() for p in figure.axes[0].patches if isinstance(p, Rectangle)]
    assert not figure.axes[0].get_legend() and sum(heights) == 2
    assert "nothing to show" in _words(curves.histogram({"none": []}))
    assert "nothing to show" in _words(curves.histogram({}))


def test_answers_of_arms_with_marks() -> None:
    given = {"SFT": (["the cone moves to the left .", ""], np.stack([CLIP, CLIP]))}
    figure = sheets.answers_sheet(FakeTriplets(), ["a", "b"], given, {"SFT": [True, False]})
    assert _words(figure).count("✓") == 1 and _words(figure).count("✗") == 1
    assert "✗" not in _words(sheets.answers_sheet(FakeTriplets(), ["a", "b"], given))


def _group(**changes: object) -> dict[str, object]:
    answers = [
        "[Think]a b[/Think][Ans]the cone jumps[/Ans]",
        "[Think]no end",
        "[Think]c[/Think][Ans]it grows[/Ans]",
    ]
    whole = {
        "step": 7,
        "question": "what is next ?",
        "truth": "the cone jumps up",
        "answers": answers,
        "terms": {"format": [1, 0, 1], "t1": [0.9, 0.2, 0.4]},
        "total": [1.9, 0.2, 1.4],
        "advantage": [1.0, -1.3, 0.3],
    }
    return whole | changes


def test_rollout_group_is_sorted_by_advantage_and_writes_every_term() -> None:
    figure = groups.rollout_group(_group(clips=np.stack([CLIP] * 3), source=CLIP, target=CLIP), "stage 1")
    words = _words(figure)
    assert words.index("the cone jumps ") < words.index("it grows") < words.index("[Think]no end")
    for part in ("step 7", "ROUGE-L (t1)", "0.200 – 0.900", "+1.00", "−1.30", "1.900"):
        assert part in words


def test_rollout_group_of_equal_rewards_and_without_videos() -> None:
    same = _group(terms={"v2": [0.5] * 3}, total=[0.5] * 3, advantage=[0.0] * 3, answers=["one caption"] * 3)
    words = _words(groups.rollout_group(SimpleNamespace(**same)))
    assert "all 0.5" in words and words.count("+0.00") == 3


def test_stage_2_group_says_its_caption_once() -> None:
    same = _group(answers=["the anchor ."] * 3, clips=torch.from_numpy(np.stack([CLIP] * 3)))
    assert _words(groups.rollout_group(groups.of(same))).count("the anchor .") == 1


def test_groups_that_a_training_kept(tmp_path) -> None:
    record = {
        "step": 5,
        "id": "a",
        "question": "q",
        "truth": "t",
        "total": [1.0, 3.0],
        "advantages": [-1.0, 1.0],
    }
    record |= {"terms": {"v2": [1.0, 3.0]}, "texts": ["x", "y"], "captions": ["the cone jumps up .", None]}
    (tmp_path / "step-00005.json").write_text(json.dumps(record))
    save_file({"clips": np.stack([CLIP, CLIP])}, tmp_path / "step-00005.safetensors")
    (tmp_path / "step-00000.json").write_text(json.dumps(record | {"step": 0, "total": [1, 1]}))
    found = groups.load(tmp_path, FakeTriplets())
    assert [group.step for group in found] == [0, 5]
    assert found[0].clips is None and list(found[0].answers) == ["x", "y"]
    assert list(found[1].captions) == ["the cone jumps up .", None]
    assert np.array_equal(np.asarray(found[1].clips), [CLIP, CLIP])
    assert np.array_equal(np.asarray(found[1].source), CLIP)
    assert groups.most_telling(found).step == 5
    assert groups.load(tmp_path / "none") == []


def test_a_term_of_ones_own_is_named_by_its_last_part() -> None:
    names = ("t1", "oracle", "my.rewards:length", "./judge.sh", "http://localhost:8000/score/")
    assert list(map(groups.term_title, names)) == ["ROUGE-L (t1)", "oracle", "length", "judge.sh", "score"]


def test_running_mean_by_hand() -> None:
    assert curves.smooth([0, 3, 6, 9], 3) == pytest.approx([1.5, 3, 6, 7.5])
    assert curves.smooth([1, np.nan, 3], 3) == pytest.approx([1, 2, 3])


def test_curves_leave_out_what_the_history_does_not_have() -> None:
    history = pd.DataFrame({"step": range(40), "t1": np.linspace(0, 1, 40), "empty": np.nan})
    figure = curves.curves(history, {"t1": "ROUGE-L", "v1": "CLIP-V", "empty": "nothing"}, title="stage 1")
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["ROUGE-L"]


# ---------------------------------------------------------------- videos


def test_small_clips_play_without_loss_at_a_whole_factor() -> None:
    picture = WebPImagePlugin.WebPImageFile(io.BytesIO(videos.webp(CLIP, 3.0, size=100)))
    assert picture.size == (96, 96) and picture.info["loop"] == 0
    played, durations = [], []
    for number in range(picture.n_frames):  # equal neighbours are stored once, for longer
        picture.seek(number)
        played.append(np.asarray(picture.convert("RGB"))[::3, ::3])
        durations.append(picture.info["duration"])
    assert sum(durations) == 9 * 333 + 500 and all((picture == CLIP).all((1, 2, 3)).any() for picture in played)
    assert (played[0] == CLIP[0]).all() and (played[-1] == CLIP[-1]).all()


def test_large_clips_are_made_small() -> None:
    clip = np.random.default_rng(0).integers(0, 255, (4, 352, 640, 3), dtype=np.uint8)
    picture = WebPImagePlugin.WebPImageFile(io.BytesIO(videos.webp(clip, 11.0)))
    assert max(picture.size) <= videos.LONGEST and picture.n_frames == 4


def test_gallery_escapes_words_and_embeds_videos() -> None:
    page = videos.gallery([{"video": torch.from_numpy(CLIP), "caption": "<b>&"}, {"caption": "only words"}], 3.0)
    assert page._repr_html_().count("data:image/webp;base64,") == 1
    assert "&lt;b&gt;&amp;" in page.text and "<b>" not in page.text
    answered = videos.answers(FakeTriplets(), ["a"], {"SFT": (["x"], CLIP[None])}, 3.0)
    assert len(re.findall("<img", answered.text)) == 3


# ---------------------------------------------------------------- oracle and tables


def _oracle_frame() -> pd.DataFrame:
    return pd.DataFrame(
        {
            "id": list("abcde"),
            "event": ["left", "left", "jump", "jump", "grow"],
            "event_named": ["left", "left|right", "jump", "dive|jump", None],
            "event_seen": ["left", "left", "none", "dive", "fade"],
        }
    )


def test_who_is_to_blame() -> None:
    found = oracle.blame(_oracle_frame())
    assert list(found) == pytest.approx([0.2] * 5) and list(found.index) == [
        "right",
        "lucky",
        "vdm",
        "vague",
        "vlm",
    ]
    assert oracle.blame(_oracle_frame().iloc[:0]).sum() == 0


def test_oracle_pictures() -> None:
    frame = {"SFT": _oracle_frame(), "stage 1": _oracle_frame()}
    assert _pixels(oracle.blame_bars(frame)).std() > 0
    counts = [text.get_text() for text in oracle.confusion(frame).axes[0].texts]
    assert sorted(counts) == ["1", "1", "1", "2"]


@pytest.fixture
def scored(tmp_path) -> str:
    """Scores of two arms made up from seeded numbers, in the files that scoring writes."""
    for number, arm in enumerate(("sft", "main")):
        rng = np.random.default_rng(number)
        frame = pd.DataFrame(
            {
                "id": ["a", "b", "c"],
                "kind": ["procedural", "predictive", "predictive"],
                "group": ["a", "s", "s"],
                "rouge_l": rng.random(3),
                "clip_v": 0.9 + 0.1 * rng.random(3),
                "video_event": [0.0, 1.0, float(number)],
                "caption_renderable": 1.0,
                "identity": 1.0,
            }
        )
        values, draws = score.summarise(frame, {"fvd": rng.normal(size=(2, 3, 4))}, score.Resampling(0, 50, 5))
        about = {
            "protocol": {"fvd": "detector: fake, x"},
            "warnings": [],
            "resampling": vars(score.Resampling(0, 50, 5)),
        }
        summary = {"arm": arm, "n": 3, "metrics": values, **about, **draws}
        score.Scores(arm, frame, summary).save(tmp_path / "scores")
        media_helpers.predictions(tmp_path / "pred" / arm, "abc", "xyz", [CLIP] * 3)
    return str(tmp_path)


@pytest.mark.parametrize("layout", [tables.MAIN, tables.ABLATION])
def test_table_figure_keeps_the_paper_s_figures_apart(scored: str, layout: tables.Layout) -> None:
    table = tables.build(f"{scored}/scores", layout)
    figure = drawn.figure(table)
    panel = next(axes for axes in figure.axes if axes.get_title(loc="left").startswith("ROUGE-L"))
    grey = {text.get_text() for text in panel.texts if text.get_fontstyle() == "italic"}
    ours = {text.get_text() for text in panel.texts if text.get_fontstyle() == "normal"}
    assert {"paper", "0.281", "0.363"} <= grey and "0.281" not in ours
    assert f"{table.scores['main'].interval('procedural', 'rouge_l').value:.3f}" in ours  # type: ignore[union-attr]
    foot = " ".join(text.get_text() for text in figure.texts)
    assert "not the same quantity" in foot and "FVD: fake, x" in foot
    assert _pixels(figure).std() > 0 and _pixels(drawn.differences(table)).std() > 0
    assert style.png(drawn.figure(table)) == style.png(figure)


def test_bars_start_at_zero() -> None:
    assert drawn._limits(np.array([0.92, np.nan]), np.array([0.91]), np.array([0.93])) == (0.0, 0.93)
    assert drawn._limits(np.array([-0.2, 0.1])) == (-0.2, 0.1)
    assert drawn._limits(np.array([0.3]), share=True) == (0.0, 1.0)
    assert drawn._limits(np.array([np.nan])) == (0.0, 1.0)


@pytest.mark.parametrize("layout", [tables.MAIN, tables.ABLATION])
def test_no_number_of_a_table_s_figure_is_overprinted(scored: str, layout: tables.Layout) -> None:
    figure = drawn.figure(tables.build(f"{scored}/scores", layout))
    style.png(figure)
    renderer = figure.canvas.get_renderer()  # type: ignore[attr-defined]
    for axes in figure.axes:
        assert axes.get_xlim()[0] == 0
        boxes = [text.get_window_extent(renderer) for text in axes.texts if text.get_text()]
        bars = [patch.get_window_extent(renderer) for patch in axes.patches]
        room = axes.get_window_extent(renderer)
        for number, box in enumerate(boxes):
            assert not any(box.overlaps(other) for other in [*boxes[number + 1 :], *bars])
            assert box.x1 <= room.x1 + 0.5
    words = {text.get_text() for axes in figure.axes for text in axes.texts}
    assert "—" in words and (layout is tables.ABLATION or "236.38" in words)


def test_only_what_is_resolved_after_correction_is_coloured(scored: str) -> None:
    table = tables.build(f"{scored}/scores", tables.MAIN)
    sure = [replace(order, ours=Interval(0.5, 0.4, 0.6, 3), adjusted=0.01) for order in table.orders]
    unsure = [replace(order, ours=Interval(0.5, 0.4, 0.6, 3), adjusted=0.2) for order in table.orders]
    for orders, colours in ((sure, {style.BLUE, style.RED}), (unsure, {style.FAINT})):
        figure = drawn.differences(replace(table, orders=orders))
        found = {line.get_color() for axes in figure.axes for line in axes.get_lines() if line.get_linewidth() == 2}
        assert found == colours


def test_samples_to_look_at_go_both_ways(scored: str) -> None:
    sft, main = (score.load(f"{scored}/scores", arm) for arm in ("sft", "main"))
    assert arms.changed(sft, main) == (["c"], []) and arms.changed(main, sft) == ([], ["c"])
    assert arms.both_ways(sft, main, 2) == ["c"]
    assert arms.right({"sft": sft}, ["c", "b"]) == {"SFT": [False, True]}
    assert arms.spread(list("abcdef"), 3) == ["a", "c", "e"] and arms.spread(["a"], 3) == ["a"]


def test_teaser_takes_a_scene_with_two_right_answers(scored: str) -> None:
    main = score.load(f"{scored}/scores", "main")
    words = _words(teaser.from_predictions(f"{scored}/pred", FakeTriplets(), main))
    assert "wind" in words and "magnet" in words and "what is next" not in words


def test_markdown_of_the_same_scores(scored: str, tmp_path) -> None:
    markdown.write(tables.build(f"{scored}/scores", tables.MAIN), tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "main.csv",
        "main.md",
        "metrics.json",
    ]


# ---------------------------------------------------------------- words from anywhere

MARKUP = "<script>alert(1)</script> $\\frac$ & $x_ **bold**"


def _inert(text: str) -> bool:
    return "<script" not in text and "&lt;script&gt;" in text


def test_markup_is_shown_and_not_run_in_tables_and_lists() -> None:
    frame = pd.DataFrame({MARKUP: [MARKUP, None], "n": [1.23456, np.nan]}, index=[MARKUP, "b"])
    shown = page.table(frame.rename_axis(index=MARKUP, columns=MARKUP), digits=2).text
    assert _inert(shown) and "1.23" in shown and shown.count("—") == 2
    several = pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([(MARKUP, MARKUP)], names=[MARKUP, MARKUP]))
    assert _inert(page.table(several).text) and _inert(page.bullets([MARKUP])._repr_html_())
    assert _inert(pd.DataFrame({"caption": [MARKUP]}).style.hide(axis="index").to_html())
    assert "x" * 300 in page.table(pd.DataFrame({"caption": ["x" * 300]})).text


def test_markup_is_shown_and_not_run_in_galleries() -> None:
    class Hostile(FakeTriplets):
        def row(self, name: str) -> dict:
            return {**super().row(name), "question": MARKUP, "caption": MARKUP}

    assert _inert(videos.gallery([{MARKUP: MARKUP}], 3.0).text)
    assert _inert(videos.answers(Hostile(), ["a"], {MARKUP: ([MARKUP], CLIP[None])}, 3.0).text)


def test_dollars_in_words_stop_no_picture(scored: str) -> None:
    class Hostile(FakeTriplets):
        def row(self, name: str) -> dict:
            return {**super().row(name), **dict.fromkeys(("question", "caption", "reasoning", "topic"), MARKUP)}

    broken = _oracle_frame()
    table = tables.build(f"{scored}/scores", tables.MAIN)
    odd = replace(table, frame=table.frame.assign(title=MARKUP))
    history = pd.DataFrame({"step": range(4), MARKUP: range(4)})
    figures = [
        curves.bars({MARKUP: 1, "$\\q$": 2}, MARKUP, MARKUP),
        curves.histogram({MARKUP: [1, 2], "$\\q$": [2, 3]}, MARKUP, MARKUP),
        curves.curves(history, {MARKUP: MARKUP}, title=MARKUP),
        oracle.blame_bars({MARKUP: broken}),
        oracle.confusion({MARKUP: broken}),
        sheets.triplets_sheet(Hostile(), ["a"]),
        sheets.answers_sheet(Hostile(), ["a"], {MARKUP: ([MARKUP], CLIP[None])}),
        groups.rollout_group(_group(question=MARKUP, truth=MARKUP, answers=[MARKUP] * 3), MARKUP),
        drawn.figure(odd),
        drawn.differences(replace(table, orders=[replace(order, claim=MARKUP) for order in table.orders])),
        drawn.gains([Gain(MARKUP, MARKUP, "b", None, Interval(1, 0, 2, 3), None, None)]),
    ]
    for figure in figures:
        assert style.png(figure, scale=0.3)
        texts = [text for text in figure.findobj(Text) if "frac" in text.get_text()]
        assert texts and not any(text.get_parse_math() for text in texts)
