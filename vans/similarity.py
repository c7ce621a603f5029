"""Similarities that are rewards and metrics alike: ROUGE-L of captions, CLIP of two videos, CLIP of video and caption.

ROUGE-L is the F-measure without stemming (rouge_score). It sees only a-z and 0-9 (upper case is folded): captions in
another script score 0.
"""

from __future__ import annotations

from functools import lru_cache

import torch.nn.functional as F
from rouge_score import rouge_scorer
from torch import Tensor


def rouge_l(candidate: str, reference: str) -> float:
    """ROUGE-L F-measure in [0, 1] of two captions, symmetric (rouge_score, no stemming). Empty text: 0."""
    return float(_scorer().score(reference, candidate)["rougeL"].fmeasure)


@lru_cache(maxsize=1)
def _scorer() -> rouge_scorer.RougeScorer:
    return rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)


def frame_similarity(fa: Tensor, fb: Tensor) -> Tensor:
    """CLIP-V: mean over frames of cosine(frame t of a, of b). fa, fb: [N, T, D]; returns [N] in [-1, 1].

    Features need not be normalised. Raises ValueError for shapes that differ.
    """
    if fa.ndim != 3 or fa.shape != fb.shape:
        raise ValueError(f"both must be [N, T, D], got {tuple(fa.shape)} and {tuple(fb.shape)}")
    return F.cosine_similarity(fa.float(), fb.float(), dim=-1).mean(dim=1)


def clip_score(frames: Tensor, text: Tensor) -> Tensor:
    """CLIP-T: mean over frames of cosine(frame, text). [N, T, D] and [N, D]; returns [N] in [-1, 1]."""
    if frames.ndim != 3 or text.ndim != 2 or frames.shape[::2] != text.shape:
        raise ValueError(f"need [N, T, D] and [N, D], got {tuple(frames.shape)} and {tuple(text.shape)}")
    return F.cosine_similarity(frames.float(), text.float()[:, None], dim=-1).mean(dim=1)
