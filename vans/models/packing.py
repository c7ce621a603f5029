"""Several answers behind one prompt as one sequence: the prompt is read once, and each answer sees it and itself alone.

    prompt  answer 0  answer 1  ...          the tree mask: a token attends to the prompt and to its own answer, up to
                                             itself; all answers go on from the prompt's last position

What a forward pass of every answer behind a prompt of its own computes, with the prompt's share divided by their
number: exact but for the order of sums. Without padding inside: prompts and answers stand at their own lengths.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


@dataclass
class Packed:
    """P sequences of T tokens. inputs: of the model's forward. keep: the last positions that logits are needed of.

    rows, from, at, each [K]: token `at` of answer `rows` is predicted by the `come` [K] of P x keep logits.
    """

    inputs: dict
    keep: int
    rows: Tensor
    at: Tensor
    come: Tensor


def pack(
    prompts: Any, places: Tensor, following: Tensor, ids: Tensor, mask: Tensor, pad_token: int, of: Sequence[int]
) -> Packed:
    """P prompts (padded on the left) and N answers, of the prompts `of` [N], as P sequences padded on the right.

    prompts: the processor's batch, or with video features. places [3, P, S], following [P]: `positions`. ids, mask:
    [N, L], each row's real tokens first.
    """
    real = prompts["attention_mask"].bool()  # [P, S]
    device = real.device
    lengths = mask.sum(1).tolist()  # N
    heads = real.sum(1).tolist()  # P
    mine = [[n for n, owned in enumerate(of) if owned == p] for p in range(len(heads))]  # answers of each prompt
    size = max(head + sum(lengths[n] for n in some) for head, some in zip(heads, mine, strict=True))
    tokens = torch.full((len(heads), size), pad_token, device=device)
    owner = torch.full((len(heads), size), -1, device=device)  # 0: the prompt, n + 1: answer n, -1: padding
    where = torch.zeros((3, len(heads), size), dtype=torch.long, device=device)
    keep = size - min(heads) + 1
    rows, at, come = [], [], []
    for p, head in enumerate(heads):
        tokens[p, :head], owner[p, :head] = prompts["input_ids"][p][real[p]], 0
        where[:, p, :head] = places[:, p, real[p]]
        start = head
        for n in mine[p]:
            length = lengths[n]
            end = start + length
            tokens[p, start:end], owner[p, start:end] = ids[n, :length], n + 1
            where[:, p, start:end] = following[p] + torch.arange(length, device=device)
            before = torch.arange(start - 1, end - 1)
            if length:
                before[0] = head - 1  # the first token of each answer is predicted by the prompt's last
            rows.append(torch.full((length,), n))
            at.append(torch.arange(length))
            come.append(p * keep + before - (size - keep))
            start = end
    tree = None  # one answer each: causal attention alone, and padding stands behind what could see it
    if max(map(len, mine)) > 1:
        earlier = torch.ones(size, size, dtype=torch.bool, device=device).tril()
        seen = earlier & ((owner[:, None, :] == 0) | (owner[:, None, :] == owner[:, :, None]))  # [P, T, T]
        tree = {"full_attention": seen[:, None]}
    videos = {k: prompts[k] for k in ("pixel_values_videos", "video_grid_thw", "video_features") if k in prompts}
    inputs = {
        **videos,
        "input_ids": tokens,
        "position_ids": where,
        "attention_mask": tree,  # [P, 1, T, T]
    }
    return Packed(inputs, keep, *(torch.cat(part).to(device) for part in (rows, at, come)))
