"""The tokens of answers one at a time: a forward pass each, behind prompts that have been read.

    dynamic  keys and values grow by a token a pass: no two passes have the same shapes
    static   they have their final length from the start, and a mask says what of it there is yet
    graph    static, and the pass is captured once as a CUDA graph and replayed: one launch a token instead of
             thousands; dynamic where there is no CUDA, and for a model that is cut up over ranks: what gathers it
             has streams of its own, which no capture may hold

The same sums: masked places add exact zeros, so that they differ in the last bits at most, where a kernel adds up in
blocks of another length. A graph lives for one batch: weights that change between batches are met by the next capture.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import StaticCache

from vans.sharding import sharded
from vans.visible import words

BLOCK = 8  # places that the cache's length is a multiple of: masked attention reads aligned rows
LOOK = 8  # tokens between two looks, on a GPU, whether all answers have ended: each look waits for the GPU


class Growing:
    """dynamic. cache: keys and values of N prompts. mask [N, S], place [3, N, 1]: theirs, and of what follows them."""

    look = 1

    def __init__(self, model: Any, cache: Any, mask: Tensor, place: Tensor):
        self.model, self.cache, self.mask, self.place, self.done = model, cache, mask, place, 0

    def __call__(self, token: Tensor) -> Tensor:
        """The next token of each answer [N, 1] -> logits of the one behind it [N, 1, V]."""
        self.mask = torch.cat([self.mask, torch.ones_like(token)], 1)
        at = self.place + self.done
        self.done += 1
        given = {"attention_mask": self.mask, "position_ids": at, "past_key_values": self.cache}
        return self.model(input_ids=token, **given, use_cache=True).logits


class Fixed:
    """static and graph. As `Growing`; most: tokens of an answer. The prompts' own cache is emptied on the way.

    The logits that a call returns are overwritten by the next call.
    """

    def __init__(self, model: Any, cache: Any, mask: Tensor, place: Tensor, most: int, graph: bool, autocast: Any):
        self.model, self.autocast = model, autocast
        rows, self.read = mask.shape
        size = -(-(self.read + most) // BLOCK) * BLOCK
        self.look = LOOK if mask.device.type == "cuda" else 1
        self.cache = self._taken_over(cache, size)
        self.token = mask.new_zeros(rows, 1)
        self.at = place - 1  # [3, N, 1]
        self.seen = torch.zeros(rows, 1, 1, size, dtype=torch.bool, device=mask.device)
        self.seen[:, 0, 0, : self.read] = mask.bool()
        self.done = 0
        self.run: Callable[[], Tensor] = self._pass
        self.graph = graph

    def _taken_over(self, cache: Any, size: int) -> StaticCache:
        whole = StaticCache(config=self.model.config, max_cache_len=size)
        for layer, read in zip(whole.layers, cache.layers, strict=True):
            layer.lazy_initialization(read.keys, read.values)
            layer.keys[:, :, : self.read], layer.values[:, :, : self.read] = read.keys, read.values
            read.keys = read.values = None  # one layer is held twice, not all of them
        self._rewind(whole)
        return whole

    def _rewind(self, cache: StaticCache) -> None:
        for layer in cache.layers:
            layer.cumulative_length.fill_(self.read)

    def _pass(self) -> Tensor:
        given: dict[str, Any] = {"position_ids": self.at, "past_key_values": self.cache, "use_cache": True}
        with self.autocast():
            return self.model(input_ids=self.token, attention_mask={"full_attention": self.seen}, **given).logits

    def __call__(self, token: Tensor) -> Tensor:
        """As `Growing`'s."""
        self.token.copy_(token)
        self.at += 1
        self.seen[..., self.read + self.done] = True
        if self.graph and self.done == 0:
            self.run = captured(self._pass, lambda: self._rewind(self.cache))
        self.done += 1
        return self.run()


def captured(step: Callable[[], Tensor], rewind: Callable[[], None]) -> Callable[[], Tensor]:
    """A CUDA graph of `step`, to be called in its place; the step itself, with a line that says why, where it cannot be
    captured. rewind: takes back what a step does.
    """
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):  # libraries set themselves up in their first calls, which no graph may hold
                step()
                rewind()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = step()
    except RuntimeError as error:
        said = words(str(error).strip().partition("\n")[0][:200])
        print(
            f"machine.decoding: no CUDA graph of a token's pass ({said}); its kernels are launched singly", flush=True
        )
        rewind()
        return step

    def replay() -> Tensor:
        graph.replay()
        return out

    return replay


def decoder(policy: Any, cache: Any, mask: Tensor, place: Tensor, times: int, most: int) -> Growing | Fixed:
    """What makes `times` answers of at most `most` tokens behind each of P prompts, as `policy.decoding` says.

    cache, mask [P, S], place [3, P, 1]: of the prompts, as they were read.
    """
    cache.batch_repeat_interleave(times)
    mask, place = mask.repeat_interleave(times, 0), place.repeat_interleave(times, 1)
    graph = policy.decoding == "graph" and mask.device.type == "cuda" and not sharded(policy.model)
    if policy.decoding == "dynamic" or (policy.decoding == "graph" and not graph) or any(cache.is_sliding):
        return Growing(policy.model, cache, mask, place)
    return Fixed(policy.model, cache, mask, place, most, graph, lambda: policy.autocast(cache=not graph))
