"""From predictions on disk to tables: scoring, differences, Markdown, comparison, and what is wrong in
inputs."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib.text import Text
from sacrebleu.metrics import BLEU

from tests import media_helpers
from vans.answer import predictions
from vans.errors import UserError
from vans.grid import Arm
from vans.media import video
from vans.score import bootstrap, metrics, samples, score
from vans.score.bootstrap import Interval
from vans.score.fvd import frechet_distance
from vans.score.score import Resampling
from vans.show import tables as drawn
from vans.tables import compare, markdown, orders, tables, terms
from vans.toy import world
from vans.toy.render import COLOURS, EVENTS, SHAPES, Scene, render_event

FAST = Resampling(seed=3, resamples=200, fvd_resamples=20)


class FakeTriplets:
    """Eight procedural and eight predictive samples (two to a scene), rendered by the toy world."""

    def __init__(self) -> None:
        rows = []
        self._clips: dict[str, dict[str, np.ndarray]] = {"input": {}, "target": {}}
        colours = list(COLOURS)
        for i in range(16):
            scene = Scene(shape=SHAPES[i % 3], colour=colours[i % 6], x=14.0 + i % 4)
            seen, event = EVENTS[(i + 3) % 8], EVENTS[i % 8]
            kind = "procedural" if i < 8 else "predictive"
            name = f"{kind}_{i:02d}"
            self._clips["input"][name] = render_event(scene, seen)
            self._clips["target"][name] = render_event(scene, event)
            rows.append(
                {
                    "id": name,
                    "kind": kind,
                    "video": f"v{i}",
                    "scene": f"s{i // 2}" if i >= 8 else None,
                    "caption": world.caption(scene.shape, event),
                }
            )
        self.frame = pd.DataFrame(rows).set_index("id")

    def select(self, split: str | None = None) -> list[str]:
        return list(self.frame.index)

    def clips(self, ids: list[str], which: str) -> np.ndarray:
        return np.stack([self._clips[which][name] for name in ids])


class FakeClip:
    """Frames by their mean colours, texts by their letters: unit norm."""

    name = "mean colours"

    def image(self, clips: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.normalize(clips.float().mean(dim=(2, 3)), dim=-1)

    def text(self, texts: list[str]) -> torch.Tensor:
        letters = [[1.0 + text.count(letter) for letter in "aeo"] for text in texts]
        return torch.nn.functional.normalize(torch.tensor(letters), dim=-1)


class FakeDetector:
    """Mean colour of the first and of the last frame."""

    name = "corner colours, 2 frames"

    def features(self, clips: torch.Tensor) -> torch.Tensor:
        return clips[:, [0, -1]].float().mean(dim=(2, 3)).flatten(1)


@pytest.fixture(scope="module")
def triplets() -> FakeTriplets:
    return FakeTriplets()


def save(folder: Path, triplets: FakeTriplets, right: int, noise: float, seed: int = 0) -> Path:
    """Predictions of which the first ``right`` of each kind say and show the true event, the others a wrong
    one."""
    rng = np.random.default_rng(seed)
    ids, captions, clips = triplets.select(), [], []
    for i, name in enumerate(ids):
        truth = triplets.frame.at[name, "caption"]
        clip = triplets.clips([name], "target")[0]
        if i % 8 >= right:
            truth, clip = (
                world.caption(SHAPES[i % 3], EVENTS[(i + 1) % 8], "flowery"),
                np.repeat(clip[:1], 9, axis=0),
            )
        captions.append(truth)
        clips.append(np.clip(clip + rng.normal(0, noise, clip.shape), 0, 255).astype(np.uint8))
    texts = [f"[Think]so it is[/Think][Ans]{caption}[/Ans]" for caption in captions]
    media_helpers.predictions(folder, ids, captions, clips, texts)
    return folder


@pytest.fixture(scope="module")
def scored(triplets: FakeTriplets, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scores of three arms."""
    root = tmp_path_factory.mktemp("arms")
    for arm, right, noise in (("sft", 2, 12.0), ("stage1", 6, 12.0), ("main", 7, 3.0)):
        save(root / "predictions" / arm, triplets, right, noise)
        found = score.score(root / "predictions" / arm, triplets, FakeClip(), FakeDetector(), FAST)
        found.save(root / "scores")
    return root


# ---------------------------------------------------------------- scoring


def test_scores_of_the_truth_itself(triplets: FakeTriplets, tmp_path: Path) -> None:
    folder = save(tmp_path / "truth", triplets, right=8, noise=0)
    found = score.score(folder, triplets, FakeClip(), FakeDetector(), FAST)
    for kind, n in (("procedural", 8), ("predictive", 8), ("all", 16)):
        ones = (
            "bleu1",
            "bleu4",
            "rouge_l",
            "clip_v",
            "caption_event",
            "video_event",
            "identity",
            "motion_ratio",
        )
        for name in (*ones, "format", "caption_renderable"):
            interval = found.interval(kind, name)
            assert interval is not None and interval.n == n
            assert (interval.value, interval.lo, interval.hi) == pytest.approx((1, 1, 1), abs=1e-5), name
        assert found.interval(kind, "fvd").value == pytest.approx(0, abs=1e-6)  # type: ignore[union-attr]
        assert found.interval(kind, "kvd").value == 0  # type: ignore[union-attr]
        assert found.interval(kind, "dynamic").value == 1  # type: ignore[union-attr]
        assert found.interval(kind, "static").value == 0  # type: ignore[union-attr]
    for name in ("both_captions", "both_futures"):
        assert [found.interval(kind, name) for kind in ("predictive", "all")] == [Interval(1, 1, 1, 4)] * 2
        assert found.interval("procedural", name) is None
    assert found.interval("all", "no such metric") is None


def test_scores_against_values_computed_here(scored: Path, triplets: FakeTriplets) -> None:
    found = score.load(scored / "scores", "sft")
    answers = predictions.open_folder(scored / "predictions" / "sft", triplets.select())
    clips, fitted = answers.clips(triplets.select(), (9, 32, 32))
    assert fitted == 0
    target = triplets.clips(triplets.select(), "target")
    wanted = {
        "fvd": frechet_distance(*(FakeDetector().features(torch.from_numpy(x)).numpy() for x in (clips, target))),
        "bleu2": BLEU(max_ngram_order=2).corpus_score(answers.captions, [list(found.frame["truth"])]).score / 100,
        "caption_event": 4 / 16 + (found.frame["caption_event"].iloc[[*range(2, 8), *range(10, 16)]].sum()) / 16,
        "caption_renderable": 4 / 16,
        "video_event": 4 / 16,
        "static": 12 / 16,
        "no_event": 12 / 16,
        "both_futures": 1 / 4,  # of eight predictive answers the first two are right: one scene of four
        "clip_v": (FakeClip().image(torch.from_numpy(clips)) * FakeClip().image(torch.from_numpy(target)))
        .sum(-1)
        .mean(),
    }
    for name, value in wanted.items():
        assert found.interval("all", name).value == pytest.approx(float(value), rel=1e-5), name  # type: ignore[union-attr]
    assert found.summary["protocol"]["fvd"].startswith("detector: corner colours")
    assert any("full rank" in warning or "biased" in warning for warning in found.summary["warnings"])
    assert list(found.frame["group"].iloc[[0, 8, 9]]) == ["v0", "s4", "s4"]


def test_scoring_again_gives_the_same_bytes(scored: Path, triplets: FakeTriplets, tmp_path: Path) -> None:
    again = score.score(scored / "predictions" / "main", triplets, FakeClip(), FakeDetector(), FAST)
    again.save(tmp_path)
    for suffix in (".csv", ".json"):
        assert (tmp_path / f"main{suffix}").read_bytes() == (scored / "scores" / f"main{suffix}").read_bytes()
    assert len((tmp_path / "main.json").read_text().splitlines()) < 500  # lists stand on one line


def test_batches_do_not_change_scores(scored: Path, triplets: FakeTriplets, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(score, "BATCH", 5)
    done: list[int] = []
    found = score.score(
        scored / "predictions" / "main",
        triplets,
        FakeClip(),
        FakeDetector(),
        FAST,
        progress=lambda now, _: done.append(now),
    )
    assert found.summary == score.load(scored / "scores", "main").summary
    assert done == [5, 10, 15, 16]


def test_data_that_is_not_the_toy_world_has_no_oracle(triplets: FakeTriplets, tmp_path: Path) -> None:
    other = FakeTriplets()
    other.frame["caption"] = "a man raises his glass"
    found = score.score(save(tmp_path / "x", triplets, 8, 0), other, FakeClip(), FakeDetector(), FAST)
    assert found.interval("all", "video_event") is None and found.interval("all", "psnr") is not None


# ---------------------------------------------------------------- anyone's predictions


def test_other_sizes_are_fitted_and_counted(triplets: FakeTriplets, tmp_path: Path) -> None:
    folder = save(tmp_path / "other", triplets, 8, 0)
    name = triplets.select()[3]
    large = triplets.clips([name], "target")[0].repeat(2, axis=1).repeat(2, axis=2).repeat(2, axis=0)
    (folder / "videos" / f"{name}.avi").unlink()
    video.write(folder / "videos" / f"{name}.mp4", large, 6.0)
    found = score.score(folder, triplets, FakeClip(), FakeDetector(), FAST)
    assert found.summary["warnings"][0].startswith("1 answers had another size")
    assert found.frame.set_index("id").at[name, "video_event"] == 1


def test_byte_order_mark_missing_text_and_further_rows_are_fine(triplets: FakeTriplets, tmp_path: Path) -> None:
    folder = save(tmp_path / "bom", triplets, 8, 0)
    lines = ["id,caption", *(f"{name},the ball swells" for name in triplets.select()), "extra,more"]
    (folder / "captions.csv").write_text("\ufeff" + "\r\n".join(lines) + "\r\n", encoding="utf-8")
    answers = predictions.open_folder(folder, triplets.select())
    assert set(answers.captions) == {"the ball swells"} and not any(answers.texts)
    assert score.score(folder, triplets, FakeClip(), FakeDetector(), FAST).interval("all", "format") is None


@pytest.mark.parametrize(
    ("break_it", "match"),
    [
        (lambda f: (f / "captions.csv").unlink(), "captions.csv"),
        (lambda f: (f / "captions.csv").write_text("name,caption\n"), "column 'id' is missing"),
        (
            lambda f: (f / "captions.csv").write_text("id,caption\nprocedural_00,a\n"),
            "no row for 'procedural_01' and 14",
        ),
        (lambda f: (f / "captions.csv").write_bytes(b"\xff\xfe\x00id"), "captions.csv"),
        (lambda f: (f / "videos" / "procedural_00.avi").unlink(), "no video for 'procedural_00'"),
        (lambda f: (f / "videos" / "procedural_00.avi").write_bytes(b"junk"), "procedural_00.avi"),
        (
            lambda f: (f / "captions.csv").write_text("id,caption\nprocedural_00,a\nprocedural_00,b\n"),
            "stands twice",
        ),
    ],
)
def test_broken_predictions_are_one_clear_line(triplets: FakeTriplets, tmp_path: Path, break_it, match: str) -> None:
    folder = save(tmp_path / "broken", triplets, 8, 0)
    break_it(folder)
    with pytest.raises(UserError, match=match) as error:
        score.score(folder, triplets, FakeClip(), FakeDetector(), FAST)
    assert "\n" not in str(error.value)


# ---------------------------------------------------------------- orders


def test_paired_differences_see_what_apart_is_not_resolved(scored: Path) -> None:
    sft, stage1 = (score.load(scored / "scores", arm) for arm in ("sft", "stage1"))
    found = orders.difference(sft, stage1, "video_event", "all")
    assert found is not None and found.value == pytest.approx(0.5) and found.lo > 0
    same = orders.difference(sft, sft, "rouge_l", "all")
    assert same is not None and (same.value, same.lo, same.hi) == (0, 0, 0)


def test_arms_scored_on_other_samples_are_not_compared(scored: Path, triplets: FakeTriplets) -> None:
    sft = score.load(scored / "scores", "sft")
    part = score.score(
        scored / "predictions" / "main",
        triplets,
        FakeClip(),
        FakeDetector(),
        FAST,
        ids=triplets.select()[:12],
    )
    with pytest.raises(UserError, match="other samples"):
        orders.difference(sft, part, "rouge_l", "all")


def test_directions_follow_the_paper() -> None:
    assert orders.expected("sft", "vdm_only", "clip_t", "procedural")[1] == -1
    assert orders.expected("sft", "main", "fvd", "predictive")[1] == -1
    assert orders.expected("sft", "stage1", "rouge_l", "all") == (None, 1)  # given for procedural samples only
    assert orders.expected("stage1", "main", "rouge_l", "all") == (None, 0)  # equal in the paper
    assert orders.expected("stage1", "main", "video_event", "all") == (None, 1)  # not in the paper: the better side
    assert orders.expected("stage1", "main", "static", "all") == (None, -1)


def test_verdict_where_the_paper_sees_no_difference() -> None:
    def order(lo: float, hi: float) -> orders.Order:
        return orders.Order("c", "stage1", "main", "rouge_l", "all", 0.0, 0, Interval((lo + hi) / 2, lo, hi, 9))

    assert order(-1, 1).verdict == "equal within the interval"
    assert order(1, 2).verdict == "differs"


# ---------------------------------------------------------------- tables


def test_main_table(scored: Path, tmp_path: Path) -> None:
    table = tables.build(scored / "scores", tables.MAIN)
    markdown.write(table, tmp_path)
    frame = pd.read_csv(tmp_path / "main.csv").set_index(["kind", "row"])
    own = score.load(scored / "scores", "main").interval("predictive", "clip_v")
    assert own is not None
    assert frame.at[("predictive", "main"), "clip_v"] == pytest.approx(own.value)
    assert frame.at[("predictive", "main"), "clip_v_lo"] == pytest.approx(own.lo)
    assert frame.at[("procedural", "main"), "n"] == 8 and frame.at[("all", "main"), "n"] == 16
    assert frame.at[("predictive", "main"), "paper_rouge_l"] == 0.3058
    assert np.isnan(frame.at[("procedural", "omni"), "rouge_l"])  # the paper's figure never fills our column
    assert np.isnan(frame.at[("procedural", "copy"), "n"])  # not scored: the row stays, empty
    text = (tmp_path / "main.md").read_text(encoding="utf-8")
    assert "FVD ↓ (corner colours)" in text and "*paper* FVD" in text and "not the same quantity" in text
    assert "sacrebleu nrefs:1" in text and "a-z and 0-9" in text and "## Do the paper's orders hold?" in text
    blocks = [block.splitlines() for block in text.split("\n\n") if block.startswith("|")]
    assert len(blocks) == 9  # four for each kind, and the orders
    assert all(len({line.count("|") for line in block}) == 1 for block in blocks)


def test_every_number_in_markdown_is_one_of_the_csv(scored: Path) -> None:
    table = tables.build(scored / "scores", tables.MAIN)
    row = table.frame.set_index(["kind", "row"]).loc[("procedural", "stage1")]
    wanted = f"{row['rouge_l']:.3f} [{row['rouge_l_lo']:.3f}, {row['rouge_l_hi']:.3f}]"
    lines = [line for line in markdown.markdown(table).splitlines() if line.startswith("| VANS (stage 1 only)")]
    assert wanted in lines[0]


def test_ablation_table_has_the_paper_s_eleven_rows(scored: Path) -> None:
    table = tables.build(scored / "scores", tables.ABLATION)
    procedural = table.frame[table.frame["kind"] == "procedural"].set_index("row")
    assert len(procedural) == 11
    paper = procedural[[f"paper_{name}" for name in ("rouge_l", "fvd", "clip_v", "clip_t")]]
    assert list(paper.loc["no_v2"]) == [0.3631, 79.76, 0.7887, 0.3806]
    assert np.isnan(paper.at["stage1", "paper_clip_t"])
    text = markdown.markdown(table)
    assert "the same arm as *GRPO (VLM only)*" in text
    assert {order.claim for order in table.orders} == {"stage 2 improves on stage 1"}


def test_nothing_scored_is_a_clear_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="none of"):
        tables.build(tmp_path, tables.MAIN)
    (tmp_path / "sft.json").write_text("{")
    with pytest.raises(UserError, match="score@sft"):
        tables.build(tmp_path, tables.MAIN)


def test_metrics_for_experiments_are_plain_numbers(scored: Path) -> None:
    found = json.loads(tables.metrics_json(tables.build(scored / "scores", tables.MAIN)))
    assert set(found) == {"sft", "stage1", "main"}
    assert all(isinstance(value, float) for arm in found.values() for value in arm.values())
    assert found["main"]["video_event"] == pytest.approx(14 / 16)


@pytest.mark.parametrize(
    ("value", "metric", "expected"),
    [
        (0.12345, "rouge_l", "0.123"),
        (0.5, "static", "50.0"),
        (-0.25, "clip_t", "−0.250"),
        (np.nan, "fvd", "—"),
    ],
)
def test_numbers_as_text(value: float, metric: str, expected: str) -> None:
    assert metrics.number(value, metrics.METRICS[metric]) == expected


# ---------------------------------------------------------------- many claims, reward terms


def test_verdicts_of_a_table_are_corrected_together(scored: Path) -> None:
    table = tables.build(scored / "scores", tables.MAIN)
    p = np.array([order.p for order in table.orders])
    assert len(p) == 3 * 9 * 3 and [order.adjusted for order in table.orders] == pytest.approx(
        list(bootstrap.holm(p.tolist())), nan_ok=True
    )
    weak = [o for o in table.orders if o.ours.lo * o.ours.hi > 0 and o.adjusted > 0.05]
    assert weak and {order.verdict for order in weak if order.direction} == {"not resolved"}
    text = markdown.markdown(table)
    assert text.count("corrected for the 81 differences of this table (Holm") == 2
    assert any(order.verdict == "holds" for order in table.orders)


@pytest.fixture
def own_metric() -> Iterator[None]:
    metrics.metric("caption_words", "words", better="down", unit="words", digits=1)(
        lambda batch: [len(caption.split()) for caption in batch.captions]
    )
    yield
    del metrics.METRICS["caption_words"]


def test_a_new_metric_has_a_column_with_an_interval_a_claim_and_a_figure(
    own_metric: None, scored: Path, triplets: FakeTriplets, tmp_path: Path
) -> None:
    for arm in ("sft", "main"):
        folder = scored / "predictions" / arm
        score.score(folder, triplets, FakeClip(), FakeDetector(), FAST).save(tmp_path)
    table = tables.build(tmp_path, tables.MAIN)
    markdown.write(table, tmp_path)
    row = pd.read_csv(tmp_path / "main.csv").set_index(["kind", "row"]).loc[("all", "sft")]
    captions = pd.read_csv(tmp_path / "sft.csv")["caption"]
    assert row["caption_words"] == pytest.approx(captions.str.split().str.len().mean(), rel=1e-5)
    assert row["caption_words_lo"] < row["caption_words"] < row["caption_words_hi"]
    order = next(o for o in table.orders if (o.metric, o.kind) == ("caption_words", "all"))
    assert order.direction == -1 and order.claim == "Joint-GRPO improves on SFT"
    assert "words words ↓" in (tmp_path / "main.md").read_text(encoding="utf-8")
    figure = drawn.figure(table, metrics=["caption_words"])
    assert figure.axes[0].get_title(loc="left") == "words words ↓"


def _arm(arm: str, **columns: list[float]) -> score.Scores:
    frame = pd.DataFrame({"id": list("abcdefgh"), "kind": "procedural", "group": list("abcdefgh"), **columns})
    values, draws = score.summarise(frame, {}, FAST)
    return score.Scores(arm, frame, {"metrics": values, "resampling": vars(FAST), **draws})


def test_gains_by_term_show_a_hacked_reward() -> None:
    low, high, some = [0.1] * 8, [0.9] * 8, [0.5] * 8
    scores = {
        "sft": _arm("sft", rouge_l=low, clip_v=some, video_event=[1.0] * 8, format=low),
        "without": _arm("without", rouge_l=low, clip_v=some, video_event=[1.0] * 8, format=high),
        "with": _arm("with", rouge_l=high, clip_v=low, video_event=[0.0] * 8, format=high),
    }
    cells = {
        "with": terms.Trained("sft", ["format", "t1", "./judge.sh"]),
        "without": terms.Trained("sft", ["format", "./judge.sh"]),
        "absent": terms.Trained("sft", ["t1"]),
        "orphan": terms.Trained("absent", ["t1"]),
    }
    found = {(gain.arm, gain.term): gain for gain in terms.gains(scores, cells)}
    assert len(found) == 5
    t1 = found["with", "t1"]
    assert t1.against == "without" and t1.measure == "rouge_l"
    assert (t1.own.value, t1.clip.value, t1.oracle.value) == pytest.approx((0.8, -0.4, -1.0))  # type: ignore[union-attr]
    assert t1.reading == "hacked: the oracle's falls"
    assert found["without", "format"].against == "sft"
    assert found["without", "format"].reading == "only its own measure rises"
    assert found["with", "./judge.sh"].own is None and found["with", "./judge.sh"].reading == "not measured"
    text = terms.markdown(list(found.values()), {"with": "everything"})
    line = next(line for line in text.splitlines() if line.startswith("| t1"))
    assert "| everything | without" in line and "+0.800 [+0.800, +0.800]" in line and "−100.0 [−100.0, −100.0]" in line
    assert len(drawn.gains(list(found.values())).axes) == 3 and drawn.gains([])


@pytest.mark.parametrize(
    ("start", "end", "gain", "reading"),
    [(0.2, 0.6, 0.4, "both rise"), (1.5, 1.1, 0.4, "both rise"), (0.9, 1.3, -0.2, "its own measure falls")],
)
def test_a_gain_in_what_is_best_near_1_is_how_much_nearer_it_came(
    start: float, end: float, gain: float, reading: str
) -> None:
    rest = {"motion_gt": [1.0] * 8, "clip_v": [0.5] * 8}
    scores = {
        "sft": _arm("sft", motion=[start] * 8, video_event=[0.0] * 8, **rest),
        "moved": _arm("moved", motion=[end] * 8, video_event=[1.0] * 8, **rest),
    }
    (found,) = terms.gains(scores, {"moved": terms.Trained("sft", ["motion"])})
    assert found.own is not None and found.own.value == pytest.approx(gain)
    assert found.reading == reading and found.signs[0] == np.sign(gain)
    assert terms.rows([found])[0][3] == "motion, nearer to 1"


def test_less_of_what_is_better_down_is_a_gain() -> None:
    scores = {arm: _arm(arm, static=[still] * 8, clip_v=[0.5] * 8) for arm, still in (("sft", 1.0), ("moved", 0.0))}
    (found,) = terms.gains(scores, {"moved": terms.Trained("sft", ["static"])})
    assert found.own is not None and found.own.value == -1 and found.signs == (1, 0, 0)


def test_how_an_arm_was_trained_is_read_from_the_grid() -> None:
    def models(vlm: str, vdm: str, captions: str = "vlm", best_of: dict | None = None) -> SimpleNamespace:
        return SimpleNamespace(vlm=vlm, vdm=vdm, captions=captions, best_of=best_of)

    arms = {
        "sft_best": models("sft", "sft", best_of={"n": 2, "by": "clip_t_own"}),  # no start: it is chosen, not made
        "tuned_best": models("stage1/full", "sft", best_of={"n": 2, "by": "clip_t_own"}),
        "sft": models("sft", "sft"),
        "stage1": models("stage1/full", "sft"),
        "main": models("stage1/full", "stage2/main"),
        "together": models("all/full", "all/full"),
        "round3": models("stage1/again", "stage2/main"),
        "ceiling": models("sft", "stage2/main", "ground_truth"),
        "odd": models("sft", "stage2/lone"),
    }
    cells = {
        "stage1/full": models("sft", "sft"),
        "stage2/main": models("stage1/full", "sft"),
        "all/full": models("sft", "sft"),
        "stage2/lone": models("sft", "elsewhere"),
        "stage1/again": models("stage1/full", "stage2/main"),
    }
    rewards = {name: [name] for name in cells}
    found = terms.trained(arms, cells, rewards)
    assert {name: cell.start for name, cell in found.items()} == {
        "stage1": "sft",
        "main": "stage1",
        "together": "sft",
        "round3": "main",
    }
    assert found["round3"].terms == ("stage1/again",)


def test_captions_that_a_spreadsheet_would_compute_are_quoted_and_come_back(tmp_path: Path) -> None:
    words = ["=1+1", "'=x", "@sum", "-2", "+a", "plain", "it's", "\tx"]
    scores = _arm("x", rouge_l=[0.5] * 8)
    full = scores.frame.assign(truth="t", caption=words)
    score.Scores("x", full, scores.summary).save(tmp_path)
    saved = pd.read_csv(tmp_path / "x.csv")["caption"]
    assert not saved.str.match(r"[=+\-@\t\r]").any() and saved[5] == "plain"
    assert list(score.load(tmp_path, "x").frame["caption"]) == words


# ---------------------------------------------------------------- comparison with published tables


def test_comparison(scored: Path, tmp_path: Path) -> None:
    new, old = tmp_path / "results", tmp_path / "published"
    table = tables.build(scored / "scores", tables.MAIN)
    markdown.write(table, new)
    assert "no published table" in str(compare.compare(new, old))
    markdown.write(table, old)
    assert "same bytes" in str(compare.compare(new, old))

    other = pd.read_csv(old / "main.csv")
    line = (other["kind"] == "all") & (other["row"] == "main")
    other.loc[line, "clip_v"] = other.loc[line, "clip_v_lo"]  # still inside our interval
    other.loc[line, ["rouge_l", "rouge_l_lo", "rouge_l_hi"]] = [0.01, 0.0, 0.02]
    other = other[other["row"] != "stage1"]
    other.to_csv(old / "main.csv", index=False)
    found = compare.compare(new, old).tables[0]
    cells = found.cells.set_index(["kind", "title", "metric"])["status"]
    assert cells["all", "VANS (Joint-GRPO)", "clip_v"] == compare.WITHIN
    assert cells["all", "VANS (Joint-GRPO)", "rouge_l"] == compare.DIFFERS
    assert cells["all", "VANS (SFT)", "rouge_l"] == compare.SAME
    assert cells["all", "VANS (stage 1 only)", "rouge_l"] == compare.MISSING
    assert found.count(compare.DIFFERS) == 1
    assert "all, VANS (Joint-GRPO), ROUGE-L:" in str(found.text()) and "published 0.010" in found.text()


def test_comparison_without_tables(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="dvc repro"):
        compare.compare(tmp_path, tmp_path)
    (tmp_path / "main.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="not a table"):
        compare.compare(tmp_path, tmp_path)


# ---------------------------------------------------------------- samples


def test_what_is_unclear_is_not_still(triplets: FakeTriplets) -> None:
    """A still picture, also with noise over it, is static; one in which something unknown happens is not."""
    target = triplets.clips(triplets.select()[:1], "target")
    still = np.repeat(target[:, :1], 9, axis=1)
    noisy = np.clip(still + np.random.default_rng(0).normal(0, 12, still.shape), 0, 255).astype(np.uint8)
    odd = still.copy()
    odd[0, 1::2] = odd[0, 1::2, :, ::-1][:, ::-1]  # the object leaps to and fro, which no event does
    seen = samples.of_oracle(
        np.concatenate([still, noisy, odd]), np.repeat(target, 3, 0), target.repeat(3, 0), [""] * 3
    )
    assert seen["event_seen"] == ["none"] * 3
    assert seen["static"] == [1.0, 1.0, 0.0]


def test_an_arm_that_no_table_knows_gets_a_row_of_its_own(scored: Path) -> None:
    models: dict[str, Any] = {"vlm": "sft", "vdm": "sft"}
    told: dict[str, dict[str, Any]] = {"sft": {}, "ceiling": {"captions": "ground_truth"}}
    told |= {"round2": {"vlm": "stage1/round2"}}
    told |= {"x": {"best_of": {"n": 4, "by": "clip_t_own"}}, "y": {"best_of": {"n": 2, "by": "video_event"}}}
    told |= {"z": {"vdm": "stage2/lone", "best_of": {"n": 2, "by": "video_event"}}}
    layout = tables.with_arms(tables.ABLATION, {key: Arm(key, **{**models, **row}) for key, row in told.items()})
    assert [(row.name, row.title) for row in layout.rows[len(tables.ABLATION.rows) :]] == [
        ("round2", "round2"),
        ("x", "SFT, best of 4 by CLIP-T own"),
        ("y", "SFT, best of 2 by the oracle (ceiling)"),
        ("z", "z, best of 2 by the oracle (ceiling)"),
    ]
    text = markdown.markdown(tables.build(scored / "scores", layout))
    assert "- SFT, best of 2 by the oracle (ceiling): no method: who chooses knows the true event;" in text
    assert "- stage 1 without r_v1: the same arm as *GRPO (VLM only)*" in text  # with further rows, too


def test_names_of_rows_and_columns_fit_into_the_picture(scored: Path) -> None:
    row = tables.Row("sft", "the name of a row that is far longer than there is room for", "sft")
    names = ["static", "no_event", "dynamic", "motion_ratio", "psnr", "identity"]
    page = drawn.figure(tables.build(scored / "scores", replace(tables.ABLATION, rows=(row,))), ["all"], names)
    (line,) = page.axes[0].get_yticklabels()
    assert line.get_text() == row.title and line.get_window_extent().x0 >= 0
    heads = [metrics.METRICS[name].heading for name in names]
    found = [next(t for t in axes.findobj(Text) if t.get_text() in heads) for axes in page.axes]
    ends = [(text.get_window_extent().x0, text.get_window_extent().x1) for text in found]
    assert len(ends) == 6 and all(one[1] < two[0] for one, two in pairwise(ends))


def test_what_no_arm_has_of_a_kind_is_no_column(scored: Path) -> None:
    """Both futures are of predictive samples alone; the paper's metrics keep their columns."""
    text = markdown.markdown(tables.build(scored / "scores", tables.MAIN))
    parts = {line: text.split(f"### {line}")[1].split("###")[0] for line in re.findall(r"^### (.*)$", text, re.M)}
    oracle = "What the oracle reads in captions and videos"
    assert "both futures" in parts[f"{oracle}: predictive"] and "both futures" not in parts[f"{oracle}: procedural"]


def test_scores_of_an_arm_without_any_caption_come_back(scored: Path, tmp_path: Path) -> None:
    """`copy` answers with its input: a column of nothing, which pandas reads as numbers."""
    one = score.load(scored / "scores", "sft")
    empty = score.Scores("copy", one.frame.assign(caption=""), {**one.summary, "arm": "copy"})
    empty.save(tmp_path)
    assert set(score.load(tmp_path, "copy").frame["caption"]) == {""}
