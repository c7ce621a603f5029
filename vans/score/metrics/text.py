"""Captions against ground-truth captions: BLEU and ROUGE-L.

BLEU@k is corpus BLEU with orders 1..k (sacrebleu, its default settings), as a share of 1, not of 100. The per-sample
columns hold its sufficient statistics, so that a resample of samples has an exact BLEU. ROUGE-L is the F-measure of
``rouge_score`` without stemming, mean over samples; it lower-cases and keeps a-z and 0-9 only: text in another script
scores 0.
"""

from functools import partial

import numpy as np
from sacrebleu.metrics import BLEU

from vans import similarity
from vans.score.batch import Batch
from vans.score.metric import metric

ORDERS = 4
COLUMNS = (*(f"bleu_{part}{k}" for part in ("correct", "total") for k in range(1, ORDERS + 1)), "bleu_sys", "bleu_ref")


def bleu_statistics(batch: Batch) -> dict[str, np.ndarray]:
    """What corpus BLEU needs of each pair: matched and possible n-grams of order 1..4, and both lengths."""
    bleu = BLEU(effective_order=True)  # silences a warning; the counts do not depend on it
    scores = [bleu.sentence_score(text, [truth]) for text, truth in zip(batch.captions, batch.truth, strict=True)]
    rows = [[*score.counts, *score.totals, score.sys_len, score.ref_len] for score in scores]
    return dict(zip(COLUMNS, np.array(rows, dtype=np.int64).reshape(-1, len(COLUMNS)).T, strict=True))


def bleu_from_sums(sums: np.ndarray, order: int) -> np.ndarray:
    """Corpus BLEU@order from summed statistics [B, 10] (columns as COLUMNS) -> [B] in [0, 1].

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


def bleu_signature() -> str:
    """sacrebleu's signature of the corpus BLEU reported here."""
    bleu = BLEU()
    bleu.corpus_score(["a b c d"], [["a b c d"]])
    return str(bleu.get_signature())


for k in range(1, ORDERS + 1):
    metric(
        f"bleu{k}",
        f"BLEU@{k}",
        better="up",
        about=f"corpus BLEU of the caption, n-gram orders 1 to {k}, as a share of 1",
        columns=COLUMNS,
        sums=partial(bleu_from_sums, order=k),
        claim=False,
        needs=("captions",),
        group="BLEU",
    )(bleu_statistics)


@metric(
    "rouge_l",
    "ROUGE-L",
    better="up",
    about="F-measure of the longest common subsequence, only a-z and 0-9 are read",
    needs=("captions",),
)
def rouge_l(batch: Batch) -> np.ndarray:
    return np.array([similarity.rouge_l(text, truth) for text, truth in zip(batch.captions, batch.truth, strict=True)])
