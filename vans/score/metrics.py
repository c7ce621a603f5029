"""Metrics: what each one measures, per sample, and how samples are summed up.

Choices that the paper leaves open, numbered:

1. BLEU@k is corpus BLEU with orders 1..k (sacrebleu, its default settings), as a share of 1, not of 100. The
   per-sample columns hold its sufficient statistics, so that a resample of samples has an exact BLEU.
2. ROUGE-L is the F-measure of ``rouge_score`` without stemming, mean over samples. It lower-cases and keeps
   a-z and 0-9 only: text in another script scores 0.
3. CLIP-V is the mean over frames of the cosine between frame i of the answer and frame i of the ground truth.
4. CLIP-T compares the frames with the *ground-truth* caption, so that a video of the wrong event cannot score
   by agreeing with its own wrong caption. The other reading, agreement with the arm's own caption, is
   ``clip_t_own``.

The quantities that are rewards as well (ROUGE-L, both CLIP similarities) are defined in
``vans.grpo.rewards``.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from sacrebleu.metrics import BLEU

ORDERS = 4
PSNR_MAX = 100.0  # dB, given to identical clips
NONE = "—"  # stands where there is no number
VISIBLE = 10  # of 255: a smaller change between frames is not motion

BLEU_COLUMNS = [f"bleu_{part}{k}" for part in ("correct", "total") for k in range(1, ORDERS + 1)]
BLEU_COLUMNS += ["bleu_sys", "bleu_ref"]


@dataclass(frozen=True)
class Metric:
    """A named quantity of one arm.

    ``better``: "up", "down" or "one" (best near 1). ``how``: "mean" of the column of the same name, "bleu" of
    order ``order``, "ratio" of the sums of two ``columns``, or "fvd" of the features. ``about``: one line for
    the protocol. ``unit``: "" for a plain number, "%" for a share, or a unit's name.
    """

    name: str
    title: str
    better: str
    about: str
    how: str = "mean"
    digits: int = 3
    unit: str = ""
    order: int = 0
    columns: tuple[str, ...] = ()

    @property
    def arrow(self) -> str:
        return {"up": "↑", "down": "↓", "one": "→ 1"}[self.better]


def _bleu(k: int) -> Metric:
    about = f"corpus BLEU of the caption, n-gram orders 1 to {k}, as a share of 1"
    return Metric(f"bleu{k}", f"BLEU@{k}", "up", about, how="bleu", order=k)


TEXT = [_bleu(k) for k in range(1, ORDERS + 1)] + [
    Metric("rouge_l", "ROUGE-L", "up", "F-measure of the longest common subsequence, only a-z and 0-9 are read"),
]
VIDEO = [
    Metric("fvd", "FVD", "down", "Fréchet distance of video features", how="fvd", digits=2),
    Metric("clip_v", "CLIP-V", "up", "cosine of frame i with ground-truth frame i, mean over frames"),
    Metric("clip_t", "CLIP-T", "up", "cosine of the frames with the ground-truth caption, mean over frames"),
    Metric("clip_t_own", "CLIP-T own", "up", "cosine of the frames with the arm's own caption"),
    Metric("psnr", "PSNR", "up", "peak signal-to-noise ratio against the ground-truth clip", digits=1, unit="dB"),
    Metric(
        "motion_ratio",
        "motion",
        "one",
        "mean visible change between frames, as a multiple of the ground truth's; 0 is a still",
        how="ratio",
        columns=("motion", "motion_gt"),
        digits=2,
    ),
]
ORACLE = [
    Metric(
        "caption_event",
        "caption event",
        "up",
        "captions that may mean the true event (a flowery one fits two)",
        digits=1,
        unit="%",
    ),
    Metric("caption_renderable", "renderable", "up", "captions that name exactly one event", digits=1, unit="%"),
    Metric(
        "video_event",
        "video event",
        "up",
        "videos in which the oracle sees the true event",
        digits=1,
        unit="%",
    ),
    Metric("identity", "identity", "up", "videos that keep the input's colour and shape", digits=1, unit="%"),
    Metric("static", "static", "down", "no event, and less than half of the true change", digits=1, unit="%"),
]
ANSWER = [
    Metric("format", "format", "up", "answers that follow the template", digits=1, unit="%"),
    Metric("think_words", "thinking", "up", "words of thinking before the caption", digits=1, unit="words"),
]
METRICS = {metric.name: metric for metric in TEXT + VIDEO + ORACLE + ANSWER}
PAPER_METRICS = ("rouge_l", "fvd", "clip_v", "clip_t")


# ---------------------------------------------------------------- per sample


def bleu_statistics(predictions: Sequence[str], references: Sequence[str]) -> pd.DataFrame:
    """What corpus BLEU needs of each pair: matched and possible n-grams of order 1..4, and both lengths."""
    bleu = BLEU(effective_order=True)  # silences a warning; the counts do not depend on it
    scores = [bleu.sentence_score(text, [truth]) for text, truth in zip(predictions, references, strict=True)]
    rows = [[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores]
    return pd.DataFrame(np.array(rows, dtype=np.int64).reshape(-1, len(BLEU_COLUMNS)), columns=BLEU_COLUMNS)


def bleu_signature() -> str:
    """sacrebleu's signature of the corpus BLEU reported here."""
    bleu = BLEU()
    bleu.corpus_score(["a b c d"], [["a b c d"]])
    return str(bleu.get_signature())


def psnr(clips: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Peak signal-to-noise ratio in dB per clip: uint8 [N, T, H, W, 3] twice -> [N], at most PSNR_MAX."""
    if clips.shape != truth.shape:
        raise ValueError(f"clips {clips.shape} and ground truth {truth.shape} differ in shape")
    pairs = zip(clips, truth, strict=True)
    mse = np.array([np.square(a.astype(np.float32) - b.astype(np.float32)).mean() for a, b in pairs])
    return np.minimum(10 * np.log10(255.0**2 / np.maximum(mse, 1e-12)), PSNR_MAX)


def motion(clips: np.ndarray) -> np.ndarray:
    """Mean absolute change from frame to frame, uint8 [N, T, H, W, 3] -> [N] in [0, 1]; 0 for one frame.

    Changes below VISIBLE count as none, so that a generator's flicker is not taken for motion.
    """
    out = np.zeros(len(clips))
    for index, clip in enumerate(clips):
        change = np.abs(np.diff(clip.astype(np.int16), axis=0))
        out[index] = np.where(change < VISIBLE, 0, change).mean() / 255 if change.size else 0.0
    return out


# ---------------------------------------------------------------- summed up


def bleu_from_sums(sums: np.ndarray, order: int) -> np.ndarray:
    """Corpus BLEU@order from summed statistics [B, 10] (columns as BLEU_COLUMNS) -> [B] in [0, 1].

    sacrebleu's formula: brevity penalty times the geometric mean of the precisions, a precision of 0 replaced
    by 1 / (2^i total), i counting the zeros met so far ("exp" smoothing); 0 if nothing matches at all.
    """
    correct = sums[:, :order].astype(np.float64)
    total = sums[:, ORDERS : ORDERS + order].astype(np.float64)
    sys_len, ref_len = sums[:, -2].astype(np.float64), sums[:, -1].astype(np.float64)
    zeros = np.cumsum(correct == 0, axis=1)
    smoothed = np.where(correct > 0, correct, 0.5**zeros)
    with np.errstate(divide="ignore", invalid="ignore"):
        log_precision = np.log(smoothed / total).mean(1)
        penalty = np.where(sys_len < ref_len, np.exp(1 - ref_len / sys_len), 1.0)
    scored = correct.any(1) & (total > 0).all(1) & (sys_len > 0)
    return np.where(scored, penalty * np.exp(np.where(scored, log_precision, 0.0)), 0.0)


def summarise(metric: Metric, frame: pd.DataFrame, weights: np.ndarray) -> np.ndarray:
    """The metric of B weighted samples of a per-sample table: weights [B, N] (counts) -> [B].

    Rows where a mean's column is empty do not count. ``fvd`` is not a matter of columns: see ``fvd.py``.
    """
    if metric.how == "bleu":
        return bleu_from_sums(weights @ frame[BLEU_COLUMNS].to_numpy(np.float64), metric.order)
    if metric.how == "ratio":
        top, bottom = (weights @ frame[column].to_numpy(np.float64) for column in metric.columns)
        return np.divide(top, bottom, out=np.full(len(weights), np.nan), where=bottom > 0)
    if metric.how != "mean":
        raise ValueError(f"{metric.name} is not computed from per-sample columns")
    values = frame[metric.name].to_numpy(np.float64)
    known = np.isfinite(values)
    count = weights @ known.astype(np.float64)
    total = weights @ np.where(known, values, 0.0)
    return np.divide(total, count, out=np.full(len(weights), np.nan), where=count > 0)


def available(frame: pd.DataFrame, has_features: bool = True) -> list[Metric]:
    """The metrics that a per-sample table can give, in the order of METRICS."""
    columns = set(frame.columns[frame.notna().any()])
    needs = {
        "mean": lambda m: {m.name},
        "ratio": lambda m: set(m.columns),
        "bleu": lambda m: set(BLEU_COLUMNS),
        "fvd": lambda m: set() if has_features else {"no features"},
    }
    return [metric for metric in METRICS.values() if needs[metric.how](metric) <= columns]


# ---------------------------------------------------------------- as text


def cell(value: float, lo: float, hi: float, metric: Metric) -> str:
    """``0.563 [0.541, 0.586]``; shares in percent; a dash where there is no number."""
    if pd.isna(value):
        return NONE
    text, low, high = (number(x, metric) for x in (value, lo, hi))
    return text if pd.isna(lo) else f"{text} [{low}, {high}]"


def number(value: float, metric: Metric, sign: bool = False) -> str:
    """One number with the metric's digits; shares in percent."""
    if pd.isna(value):
        return NONE
    text = f"{100 * value if metric.unit == '%' else value:{'+' if sign else ''}.{metric.digits}f}"
    return text.replace("-", "−")
