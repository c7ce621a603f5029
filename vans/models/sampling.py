"""What a token is drawn from: the model's logits, some of them suppressed, and each answer's own noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers import LogitsProcessor

from vans.rng import generator


class Suppress(LogitsProcessor):
    """-inf at the given token ids."""

    def __init__(self, ids: list[int]):
        self.ids = torch.tensor(ids)

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        return scores.index_fill(1, self.ids.to(scores.device), float("-inf"))


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
