"""The VLM as a policy over tokens: clipped updates on one rollout of N = P * G sampled answers (stage 1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from vans.grpo import core
from vans.grpo.rollout import numbers, zero
from vans.models.prompts import pick
from vans.models.vlm import VLM, Completions
from vans.parallel import Ranks
from vans.sharding import update


def vlm_updates(
    vlm: VLM,
    start: Any,
    prompts: Any,
    answers: Completions,
    advantages: Tensor,
    s: Any,
    optim: Optimizer,
    trained: Sequence[Tensor],
    ranks: Ranks,
) -> dict[str, float]:
    """`s.inner_updates` optimiser steps on one rollout; returns what to log.

    start: the model with the weights of the stage's start. prompts: the processor's batch of P prompts. answers: N
    rows, sampled. advantages: [N]. s: group_size, micro_batch, temperature, clip_range, beta, inner_updates, grad_clip.
    """
    device, mask = vlm.device, answers.mask  # [N, L]
    rows = [slice(i, i + s.micro_batch) for i in range(0, mask.shape[0], s.micro_batch)]
    parts = [of_part(prompts, answers, row, s.group_size) for row in rows]
    for part in parts:
        part["packed"] = vlm.packed(**part)
    old: list[Tensor] = []  # of [M, L]: the first update's own, before it
    with torch.no_grad():
        ref = [vlm.log_probs(**part, temperature=s.temperature, model=start) for part in parts]  # of [M, L]
    off = {"ratio_last": zero(device), "sampler_gap": zero(device)}
    for inner in range(s.inner_updates):
        optim.zero_grad()
        clipped, kl_mean = zero(device), zero(device)
        for i, (part, row, ref_logp) in enumerate(zip(parts, rows, ref, strict=True)):
            with vlm.recomputing():
                logp = vlm.log_probs(**part, temperature=s.temperature)  # [M, L]
            if inner == 0:
                old.append(logp.detach())
                gap = (logp.detach() - answers.drawn[row]).masked_fill(~mask[row].bool(), 0)  # type: ignore[index]
                off["sampler_gap"] = off["sampler_gap"].maximum(gap.abs().max().double())
            advantage = advantages[row].to(device)  # [M]
            terms, ratio, fraction = core.clipped_objective(logp, old[i], advantage, s.clip_range, mask[row])  # [M, L]
            kl = core.kl_tokens(logp, ref_logp, mask[row])  # [M, L]
            loss = core.grpo_loss(terms, kl, s.beta, mask[row], trajectories=mask.shape[0])  # []
            loss.backward()
            share = logp.shape[0] / mask.shape[0]
            clipped += fraction.double() * share
            kl_mean += core.row_means(kl.detach(), mask[row]).mean().double() * share
            far = (ratio - 1).abs().masked_fill(~mask[row].bool(), 0).max()  # first: 0
            off["ratio_last"] = off["ratio_last"].maximum(far.double())
        norm = update(optim, trained, ranks, s.grad_clip)
    return numbers(off | {"clipped": clipped, "kl": kl_mean, "grad_norm": norm})


def of_part(prompts: Any, answers: Completions, row: slice, group_size: int) -> dict[str, Any]:
    """What `VLM.log_probs` takes of a slice of the answers: the prompts that they answer, each once."""
    of = [i // group_size for i in range(*row.indices(len(answers.ids)))]  # M
    some = sorted(set(of))
    return {
        "inputs": pick(prompts, some),
        "completions": Completions(answers.ids[row], answers.mask[row], answers.texts[row]),
        "of": [some.index(i) for i in of],
    }
