"""What a token is drawn from: the model's logits, some of them suppressed, and a number of each answer's own."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
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

    def __init__(self, ids: list[int], device: torch.device):
        self.ids = torch.tensor(ids, device=device)

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


class Draws:
    """Tokens by the inverse of their distribution function at uniform numbers of each answer's own generator.

    One number a token, in float64 as the sums: no token of a large vocabulary is too rare to be drawn. seeds: of the N
    answers. length: tokens that an answer may have. temperature 0: the most likely token.
    """

    def __init__(self, seeds: list[tuple], length: int, temperature: float, top_p: float, device: torch.device):
        rows = [torch.rand(length, generator=generator(*seed), dtype=torch.float64) for seed in seeds]
        self.uniform = torch.stack(rows).to(device)  # [N, L]
        self.temperature, self.top_p = temperature, top_p

    def __call__(self, scores: Tensor, step: int) -> Tensor:
        """Logits [N, V], -inf where nothing may be drawn -> token `step` of each answer [N]."""
        if self.temperature == 0:
            return scores.argmax(-1)
        share = (scores.float() / self.temperature).softmax(-1).double()
        if self.top_p < 1.0:
            ordered, index = share.sort(dim=-1, descending=True, stable=True)
            outside = ordered.cumsum(-1) - ordered > self.top_p
            share = share.scatter(1, index, ordered.masked_fill(outside, 0.0))
        below = share.cumsum(-1)  # [N, V]
        total = below[:, -1:]
        point = (self.uniform[:, step, None] * total).minimum(total.nextafter(torch.zeros_like(total)))  # never total
        token = (below <= point).sum(-1)  # the first whose sum is above it: one that has a share,
        rounded = share.gather(1, token[:, None])[:, 0] == 0  # but where a device adds up in blocks
        return torch.where(rounded, share.argmax(-1), token)


def joined(parts: Sequence[Any], pad_token: int) -> Any:
    """Sampled answers (`vans.models.vlm.Completions`) of several batches as one, padded on the right to the longest."""
    length = max(part.ids.shape[1] for part in parts)

    def whole(tensors: Iterable[Tensor], value: float) -> Tensor:
        return torch.cat([pad(tensor, (0, length - tensor.shape[1]), value=value) for tensor in tensors])

    return dataclasses.replace(
        parts[0],
        ids=whole((part.ids for part in parts), pad_token),
        mask=whole((part.mask for part in parts), 0),
        texts=[text for part in parts for text in part.texts],
        drawn=whole((part.drawn for part in parts), 0.0),
    )
