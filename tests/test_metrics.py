"""Metrics against published implementations and values computed by hand."""

import numpy as np
import pandas as pd
import pytest
from sacrebleu.metrics import BLEU

from vans.score import metrics
from vans.score.metrics import METRICS, ORACLE, summarise

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
    return metrics.bleu_statistics(answers, truth)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("rows", [[0], [1], [0, 1], [0, 1, 2, 3], [2, 3], [3], [0, 0, 0, 2]])
def test_corpus_bleu_equals_sacrebleu(order: int, rows: list[int]) -> None:
    weights = np.bincount(rows, minlength=4)[None].astype(float)
    ours = summarise(METRICS[f"bleu{order}"], _table(), weights)[0]
    theirs = BLEU(max_ngram_order=order).corpus_score([ANSWERS[i] for i in rows], [[TRUTH[i] for i in rows]])
    assert ours == pytest.approx(theirs.score / 100, abs=1e-12)


def test_bleu_of_the_truth_is_one_and_of_nothing_zero() -> None:
    every = np.ones((1, 4))
    assert summarise(METRICS["bleu4"], _table(TRUTH), every)[0] == pytest.approx(1.0)
    assert summarise(METRICS["bleu1"], _table([""] * 4), every)[0] == 0.0


def test_bleu_signature_names_version_and_smoothing() -> None:
    signature = metrics.bleu_signature()
    assert "smooth:exp" in signature and "tok:13a" in signature and "version:" in signature


def test_psnr_by_hand() -> None:
    black = np.zeros((2, 3, 4, 4, 3), np.uint8)
    grey = black.copy()
    grey[1] = 51  # a fifth of the range: 10 log10(25)
    assert metrics.psnr(grey, black) == pytest.approx([metrics.PSNR_MAX, 10 * np.log10(25)])
    with pytest.raises(ValueError, match="shape"):
        metrics.psnr(grey, black[:, :2])


def test_motion_by_hand() -> None:
    clips = np.zeros((3, 3, 2, 2, 3), np.uint8)
    clips[1, 1:] = 255  # one of two changes is total
    clips[2, 1] = 51  # up a fifth and down a fifth: unsigned arithmetic would see 205
    assert metrics.motion(clips) == pytest.approx([0, 0.5, 0.2])
    clips[2, 1] = metrics.VISIBLE - 1  # flicker
    assert metrics.motion(clips)[2] == 0
    assert metrics.motion(clips[:, :1]) == pytest.approx([0, 0, 0])


def test_motion_ratio_is_of_sums_not_of_samples() -> None:
    frame = pd.DataFrame({"motion": [0.0, 0.3], "motion_gt": [0.1, 0.2]})
    weights = np.array([[1.0, 1.0], [2.0, 0.0], [0.0, 0.0]])
    assert summarise(METRICS["motion_ratio"], frame, weights) == pytest.approx(
        [1.0, 0.0, np.nan], nan_ok=True
    )


def test_weighted_mean_leaves_empty_cells_out() -> None:
    frame = pd.DataFrame({"clip_t_own": [0.2, np.nan, 0.6]})
    weights = np.array([[1.0, 1.0, 1.0], [3.0, 5.0, 1.0], [0.0, 2.0, 0.0]])
    assert summarise(METRICS["clip_t_own"], frame, weights) == pytest.approx([0.4, 0.3, np.nan], nan_ok=True)


def test_metrics_that_the_columns_do_not_give_are_left_out() -> None:
    frame = _table().assign(rouge_l=1.0, clip_t_own=np.nan)
    names = {metric.name for metric in metrics.available(frame, has_features=False)}
    assert names == {"bleu1", "bleu2", "bleu3", "bleu4", "rouge_l"}
    assert not names & {metric.name for metric in ORACLE}


def test_fvd_is_not_computed_from_columns() -> None:
    with pytest.raises(ValueError, match="per-sample"):
        summarise(METRICS["fvd"], _table(), np.ones((1, 4)))
