"""The reward terms of both stages, their presets, and how to add one.

The paper (arXiv 2511.16669), with all weights 1:
    stage 1   r1 = format + t1 (ROUGE-L of the caption) + v1 (CLIP similarity of rendered and true video)
    stage 2   r2 = v2 (CLIP similarity of both videos) + c2 (CLIPScore of video and anchor caption)

To add a reward: write one function here under `@term("name")`, from a `Rollout` to [P, G], and give it a
weight under the stage's `weights` in params.yaml. Each term that has a weight is computed, logged and summed.

Deviations from the paper
1. c2 is the plain cosine, averaged over frames, not 2.5 * max(cosine, 0) (Hessel et al. 2021): the paper's
   CLIP-T of 0.30 to 0.38 are plain cosines, and a factor is the weight's business.
2. An answer that breaks the template has no caption: its t1 and v1 are 0, whatever text it holds.
3. ROUGE-L is the F-measure without stemming (rouge_score). It sees only a-z and 0-9 (upper case is folded):
   captions in another script score 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from vans.similarity import clip_score, frame_similarity, rouge_l
from vans.template import format_reward, parse_answer

# Preset -> the terms that it leaves out (their weight becomes 0; everything else keeps params.yaml's weight).
STAGE1: dict[str, frozenset[str]] = {
    "full": frozenset(),
    "no_t1": frozenset({"t1"}),
    "no_v1": frozenset({"v1"}),
}
STAGE2: dict[str, frozenset[str]] = {
    "full": frozenset(),
    "no_c2": frozenset({"c2"}),
    "no_v2": frozenset({"v2"}),
}


@dataclass(frozen=True)
class Rollout:
    """What rewards may look at: P prompts, G answers each. Fields that a stage does not have stay None.

    texts: P lists of G whole answers of the VLM. truth: P ground-truth captions.
    frames: [P, G, T, D] CLIP features of the rendered videos' frames. rendered: [P, G] bool, False where
    nothing was rendered (its features are ignored and its video rewards are 0); None: everything was.
    truth_frames: [P, T, D]. caption_features: [P, D] CLIP text features of the anchor captions.
    """

    texts: list[list[str]] | None = None
    truth: list[str] | None = None
    frames: Tensor | None = None
    rendered: Tensor | None = None
    truth_frames: Tensor | None = None
    caption_features: Tensor | None = None


Term = Callable[[Rollout], Tensor]
REGISTRY: dict[str, Term] = {}


def term(name: str) -> Callable[[Term], Term]:
    """Registers a reward term under the name that params.yaml gives its weight."""

    def register(function: Term) -> Term:
        if name in REGISTRY:
            raise ValueError(f"reward term {name!r} is defined twice")
        REGISTRY[name] = function
        return function

    return register


# ---- terms ---------------------------------------------------------------------------------------


@term("format")
def _format(rollout: Rollout) -> Tensor:
    """The whole answer follows the template: 1, else 0."""
    return torch.tensor([[format_reward(t) for t in group] for group in _need(rollout, "texts")])


@term("t1")
def _caption_rouge(rollout: Rollout) -> Tensor:
    """ROUGE-L of the caption with the true one; 0 without a caption."""
    groups = zip(_need(rollout, "texts"), _need(rollout, "truth"), strict=True)
    return torch.tensor([[rouge_l(parse_answer(t)[1] or "", true) for t in texts] for texts, true in groups])


@term("v1")
@term("v2")
def _video_similarity(rollout: Rollout) -> Tensor:
    """CLIP similarity of the rendered video with the true one, frame by frame; 0 if nothing was rendered."""
    frames, truth = _need(rollout, "frames"), _need(rollout, "truth_frames")
    p, g = frames.shape[:2]
    same = truth[:, None].expand_as(frames)
    return _where_rendered(rollout, frame_similarity(frames.flatten(0, 1), same.flatten(0, 1)).view(p, g))


@term("c2")
def _video_caption_score(rollout: Rollout) -> Tensor:
    """CLIPScore of the video with the anchor caption; 0 if nothing was rendered."""
    frames, text = _need(rollout, "frames"), _need(rollout, "caption_features")
    p, g = frames.shape[:2]
    same = text[:, None].expand(p, g, text.shape[-1])
    return _where_rendered(rollout, clip_score(frames.flatten(0, 1), same.flatten(0, 1)).view(p, g))


def _where_rendered(rollout: Rollout, values: Tensor) -> Tensor:
    if rollout.rendered is None:
        return values
    return values.masked_fill(~rollout.rendered.to(values.device), 0.0)


def _need(rollout: Rollout, field: str) -> Any:
    value = getattr(rollout, field)
    if value is None:
        raise ValueError(f"this reward needs Rollout.{field}; give its weight only in a stage that has it")
    return value


# ---- together ------------------------------------------------------------------------------------


def preset_weights(
    presets: Mapping[str, frozenset[str]], name: str, weights: Mapping[str, float]
) -> dict[str, float]:
    """The weights of params.yaml with 0 for the terms that the preset leaves out.

    presets: STAGE1 or STAGE2. Raises ValueError for an unknown preset or an unknown term.
    """
    if name not in presets:
        raise ValueError(f"reward {name!r} is unknown; one of {', '.join(presets)}")
    for key in weights:
        if key not in REGISTRY:
            raise ValueError(f"weight {key!r} names no reward term; one of {', '.join(REGISTRY)}")
    return {key: 0.0 if key in presets[name] else float(weight) for key, weight in weights.items()}


def score(rollout: Rollout, names: list[str]) -> dict[str, Tensor]:
    """The named terms of a rollout, each [P, G] float32 on the CPU."""
    return {name: REGISTRY[name](rollout).detach().float().cpu() for name in names}


def combine(terms: Mapping[str, Tensor], weights: Mapping[str, float]) -> Tensor:
    """Sum of weight * term: [P, G]. A term without a weight is left out; a weight without its term raises."""
    missing = [name for name, weight in weights.items() if weight != 0 and name not in terms]
    if missing:
        raise ValueError(f"no reward term was computed for the weight of {', '.join(missing)}")
    total = torch.zeros_like(next(iter(terms.values())))
    for name, weight in weights.items():
        if weight != 0:
            total = total + weight * terms[name]
    return total
