"""Metrics against published implementations and values computed by hand."""

import numpy as np
import pandas as pd
import pytest
from sacrebleu.metrics import BLEU

from vans.errors import UserError
from vans.score import metric, metrics
from vans.score.batch import Batch
from vans.score.metrics import METRICS, pixels

TRUTH = [
    "the ball moves to the left .",
    "the box jumps up and lands again .",
    "the cone fades out of sight .",
    "the ball grows to a bigger size .",
]
ANSWERS = [
    "the ball moves to the left .",
    "the box drops below the floor .",
    "a cone vanishes",
    "",
]


def _table(answers=ANSWERS, truth=TRUTH) -> pd.DataFrame:
    return metrics.measure(
        Batch([str(i) for i in range(len(truth))], answers, truth), [METRICS["bleu1"], METRICS["bleu4"]]
    )[0]


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [[0], [1], [0, 1], [0, 1, 2, 3], [2, 3], [3], [0, 0, 0, 2]])
def test_corpus_bleu_equals_sacrebleu(order: int, rows: list[int]) -> None:
    weights = np.bincount(rows, minlength=4)[None].astype(float)
    ours = METRICS[f"bleu{order}"].of(_table(), weights)[0]
    theirs = BLEU(max_ngram_order=order).corpus_score([ANSWERS[i] for i in rows], [[TRUTH[i] for i in rows]])
    assert ours == pytest.approx(theirs.score / 100, abs=1e-12)


def test_bleu_of_the_truth_is_one_and_of_nothing_zero() -> None:
    every = np.ones((1, 4))
    assert METRICS["bleu4"].of(_table(TRUTH), every)[0] == pytest.approx(1.0)
    assert METRICS["bleu1"].of(_table([""] * 4), every)[0] == 0.0


def test_bleu_signature_names_version_and_smoothing() -> None:
    signature = metrics.text.bleu_signature()
    assert "smooth:exp" in signature and "tok:13a" in signature and "version:" in signature


def test_psnr_by_hand() -> None:
    black = np.zeros((2, 3, 4, 4, 3), np.uint8)
    grey = black.copy()
    grey[1] = 51  # a fifth of the range: 10 log10(25)
    assert pixels.psnr(grey, black) == pytest.approx([pixels.PSNR_MAX, 10 * np.log10(25)])
    with pytest.raises(ValueError, match="shape"):
        pixels.psnr(grey, black[:, :2])


def test_motion_by_hand() -> None:
    clips = np.zeros((3, 3, 2, 2, 3), np.uint8)
    clips[1, 1:] = 255  # one of two changes is total
    clips[2, 1] = 51  # up a fifth and down a fifth: unsigned arithmetic would see 205
    assert pixels.motion(clips) == pytest.approx([0, 0.5, 0.2])
    clips[2, 1] = pixels.VISIBLE - 1  # flicker
    assert pixels.motion(clips)[2] == 0
    assert pixels.motion(clips[:, :1]) == pytest.approx([0, 0, 0])


def test_motion_ratio_is_of_sums_not_of_samples() -> None:
    frame = pd.DataFrame({"motion": [0.0, 0.3], "motion_gt": [0.1, 0.2]})
    weights = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    assert METRICS["motion_ratio"].of(frame, weights) == pytest.approx([1.0, 0.0, np.nan], nan_ok=True)


def test_weighted_mean_leaves_empty_cells_out() -> None:
    frame = pd.DataFrame({"clip_t_own": [0.2, np.nan, 0.6]})
    weights = np.array([[1.0, 1.0, 1.0], [3.0, 5.0, 1.0], [0.0, 2.0, 0.0]])
    assert METRICS["clip_t_own"].of(frame, weights) == pytest.approx([0.4, 0.3, np.nan], nan_ok=True)


def test_metrics_that_the_columns_do_not_give_are_left_out() -> None:
    frame = _table().assign(rouge_l=1.0, clip_t_own=np.nan)
    names = {metric.name for metric in metrics.available(frame)}
    assert names == {"bleu1", "bleu2", "bleu3", "bleu4", "rouge_l"}
    assert "fvd" in {metric.name for metric in metrics.available(frame, {"fvd": None})}


def test_fvd_is_not_computed_from_columns() -> None:
    with pytest.raises(ValueError, match="per-sample"):
        METRICS["fvd"].of(_table(), np.ones((1, 4)))


# ---------------------------------------------------------------- plugs


@pytest.fixture
def registry(monkeypatch: pytest.MonkeyPatch) -> dict[str, metric.Metric]:
    """Metrics that a test registers are gone after it."""
    some = dict(METRICS)
    monkeypatch.setattr(metric, "METRICS", some)
    return some


def test_the_order_of_the_columns() -> None:
    assert list(METRICS) == [
        *("bleu1", "bleu2", "bleu3", "bleu4", "rouge_l", "fvd", "kvd", "clip_v", "clip_t", "clip_t_own"),
        *("psnr", "motion_ratio", "caption_event", "caption_renderable", "video_event", "identity", "static"),
        *("format", "think_words", "both_captions", "both_futures", "no_event", "dynamic"),
    ]


def test_a_metric_is_one_function_and_a_line(registry: dict[str, metric.Metric]) -> None:
    @metric.metric("bright", "brightness", better="up")
    def bright(batch: Batch) -> np.ndarray:
        """Mean of all pixels."""
        return batch.videos.mean(axis=(1, 2, 3, 4)) / 255

    made = registry["bright"]
    assert (made.heading, made.about, made.columns) == ("brightness ↑", "Mean of all pixels", ("bright",))
    videos = np.zeros((2, 1, 1, 1, 3), np.uint8)
    videos[1] = 51
    frame, features = metric.measure(Batch("ab", ["", ""], ["", ""], videos), [made])
    assert list(frame["bright"]) == pytest.approx([0, 0.2]) and not features
    assert made.of(frame, np.array([[1.0, 3.0]])) == pytest.approx([0.15])


def test_functions_that_several_metrics_share_are_called_once(registry: dict[str, metric.Metric]) -> None:
    calls = []

    def both(batch: Batch) -> dict[str, list[float]]:
        calls.append(1)
        return {"x": [1.0, 2.0], "y": [4.0, 4.0]}

    metric.metric("x", "x", needs=())(both)
    metric.metric("xy", "x per y", columns=("x", "y"), sums=metric.ratio, needs=())(both)
    frame, _ = metric.measure(Batch("ab", "ab", "ab"), [registry["x"], registry["xy"]])
    assert calls == [1] and registry["xy"].of(frame, np.ones((1, 2))) == pytest.approx([3 / 8])


@pytest.mark.parametrize("given", [[1.0], [[1.0], [2.0]], 3.0])
def test_a_metric_that_gives_anything_else_than_one_value_a_sample(given, registry: dict[str, metric.Metric]) -> None:
    metric.metric("odd", "odd", needs=())(lambda batch: given)
    with pytest.raises(UserError, match="metric odd: gave shape"):
        metric.measure(Batch("ab", "ab", "ab"), [registry["odd"]])


def test_own_metrics(tmp_path, monkeypatch: pytest.MonkeyPatch, registry: dict[str, metric.Metric]) -> None:
    (tmp_path / "mine.py").write_text(
        "from vans.score.metric import metric\n"
        "@metric('caption_words', 'words', better='down', unit='words')\n"
        "def words(batch):\n    return [len(c.split()) for c in batch.captions]\n"
        "def plain(batch):\n    'A number.'\n    return [1.0] * len(batch)\n"
        "def psnr(batch):\n    return [1.0] * len(batch)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    metric.use(["mine:words", "mine:plain", "mine:words"])
    assert list(registry)[-2:] == ["caption_words", "plain"]
    assert registry["plain"].about == "A number" and registry["plain"].better == ""
    broken = {"syntax": "def (", "name": "x = y", "leaves": "raise SystemExit(3)", "wrong": "raise ValueError('a\\nb')"}
    for name, text in broken.items():
        (tmp_path / f"{name}.py").write_text(text)
    (tmp_path / "number.py").write_text("x = 3")
    for bad in ("mine:absent", "nowhere.at.all:x", "mine", "", *(f"{name}:x" for name in broken), "number:x"):
        with pytest.raises(UserError, match="evaluate.metrics: .*package.module:function") as caught:
            metric.use([bad])
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="there is a metric psnr already"):
        metric.use(["mine:psnr"])


def test_a_distance_is_given_for_every_batch_or_for_none(registry: dict[str, metric.Metric]) -> None:
    def seldom(batch: Batch) -> tuple[np.ndarray, np.ndarray] | None:
        return None if batch.ids[0] == "b" else (np.ones((1, 2)), np.zeros((1, 2)))

    metric.metric("far", "far", distance=lambda a, b: 0.0, needs=())(seldom)
    metric.metric("near", "near", distance=lambda a, b: 1.0, needs=())(seldom)  # the same features, for two distances
    parts = [metric.measure(Batch(i, i, i), [registry["far"], registry["near"]])[1] for i in "aba"]
    assert list(parts[0]) == ["far", "near"] and not parts[1]
    assert metric.joined(parts[::2])["near"].tolist() == [[[1, 1], [1, 1]], [[0, 0], [0, 0]]]
    assert metric.joined(parts[1:2]) == {}
    with pytest.raises(UserError, match=r"^metric far: gave no features for 1 of 3 batches; .*every batch, or None"):
        metric.joined(parts)


def test_rows_that_a_sum_has_no_numbers_for_do_not_count() -> None:
    frame = pd.DataFrame({"motion": [0.3, np.nan, 0.1], "motion_gt": [0.1, 0.2, 0.1]})
    assert METRICS["motion_ratio"].of(frame, np.ones((1, 3))) == pytest.approx([2.0])
    assert METRICS["motion_ratio"].count(frame) == 2


# ---------------------------------------------------------------- of the table of all samples


def _asked(*rows: tuple[str, str, str, float]) -> pd.DataFrame:
    """kind, group, true event, is the video right?"""
    frame = pd.DataFrame(rows, columns=["kind", "group", "event", "video_event"])
    return frame.assign(caption_event=1.0, event_seen=np.where(frame["video_event"] == 1, frame["event"], "none"))


def test_both_futures_are_right_only_together() -> None:
    p = "predictive"
    frame = _asked(
        *((p, "a", "left", 1.0), (p, "b", "jump", 1.0), (p, "a", "grow", 1.0), (p, "b", "dive", 0.0)),
        *((p, "same", "left", 1.0), (p, "same", "left", 1.0), (p, "lone", "fade", 1.0)),
        *(("procedural", "film", "left", 1.0), ("procedural", "film", "grow", 1.0)),
    )
    table = metric.measure_table(frame)
    assert table["both_futures"].tolist() == pytest.approx([1, 0, *[np.nan] * 7], nan_ok=True)  # once for each input
    assert table["both_captions"].tolist() == pytest.approx([1, 1, *[np.nan] * 7], nan_ok=True)
    assert METRICS["both_futures"].count(table) == 2
    of = METRICS["both_futures"].of(table, np.array([[1.0] * 9, [2.0, 0.0, 2.0, 0.0, *[1.0] * 5], [0.0] * 9]))
    assert of == pytest.approx([0.5, 1.0, np.nan], nan_ok=True)
    assert "both_futures" not in metric.measure_table(frame.drop(columns="event"))
    assert table["no_event"].mean() == pytest.approx(1 / 9)


def test_an_answer_that_does_not_heed_the_question_is_never_right_about_both() -> None:
    rows = [("predictive", str(i // 2), ("left", "grow")[i % 2], float(i % 2 == 0)) for i in range(20)]
    table = metric.measure_table(_asked(*rows))
    assert table["video_event"].mean() == 0.5 and table["both_futures"].mean() == 0.0


def test_dynamic_degree_by_hand() -> None:
    frame = pd.DataFrame({"motion": [0.0, 0.049, 0.05, 0.3, 0.2], "motion_gt": [0.1, 0.1, 0.1, 0.1, 0.0]})
    table = metric.measure_table(frame)
    assert table["dynamic"].tolist() == pytest.approx([0, 0, 1, 1, np.nan], nan_ok=True)
    assert "no_event" not in table and "both_futures" not in table


def test_a_metric_of_the_table_gives_one_value_a_sample(registry: dict[str, metric.Metric]) -> None:
    metric.metric("odd", "odd", table=True)(lambda frame: [1.0])
    with pytest.raises(UserError, match="metric odd: gave shape"):
        metric.measure_table(pd.DataFrame({"id": ["a", "b"]}))
