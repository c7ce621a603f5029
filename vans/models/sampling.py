"""What a token is drawn from: the model's logits, some of them suppressed, and each answer's own noise."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import (
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    RepetitionPenaltyLogitsProcessor,
    TopKLogitsWarper,
)

from vans.rng import generator

TOP_K = 50  # of transformers' generate where nobody says otherwise


class Suppress(LogitsProcessor):
    """-inf at the given token ids."""

    def __init__(self, ids: list[int]):
        self.ids = torch.tensor(ids)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.index_fill(1, self.ids.to(scores.device), float("-inf"))


class Behind(LogitsProcessor):
    """A processor that counts the tokens of the prompts, too."""

    def __init__(self, prompts: Tensor, processor: LogitsProcessor):
        self.prompts, self.processor = prompts, processor

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return self.processor(torch.cat([self.prompts, input_ids], 1), scores)


def named_by(config: GenerationConfig, prompts: Tensor) -> LogitsProcessorList:
    """What transformers' own `generate` would add for prompts [N, L]: the repetition penalty and the top-k of a model's
    generation config (of 50 where it names none).
    """
    penalty, most = config.repetition_penalty or 1.0, TOP_K if config.top_k is None else config.top_k
    found = LogitsProcessorList()
    if penalty != 1.0:
        found.append(Behind(prompts, RepetitionPenaltyLogitsProcessor(penalty)))
    if most:
        found.append(TopKLogitsWarper(most))
    return found


class GumbelSampler(LogitsProcessor):
    """argmax(logits / temperature + Gumbel noise) is a sample; the noise comes from each row's own generator."""

    def __init__(self, seeds: list[tuple], temperature: float, top_p: float):
        self.generators = [generator(*seed) for seed in seeds]
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        scores = scores.float() / self.temperature
        if self.top_p < 1.0:
            ordered, index = scores.sort(dim=-1, descending=True)
            probability = ordered.softmax(-1)
            outside = probability.cumsum(-1) - probability > self.top_p
            scores = scores.scatter(1, index, ordered.masked_fill(outside, float("-inf")))
        uniform = torch.stack([torch.rand(scores.shape[1], generator=g) for g in self.generators])
        return scores - torch.log(-torch.log(uniform.clamp(1e-20, 1 - 1e-7))).to(scores.device)
