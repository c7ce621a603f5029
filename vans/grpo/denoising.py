"""The VDM as a policy over denoising steps: stochastic trajectories, and clipped updates on them (stage 2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from vans.grpo import core, flow_sde
from vans.grpo.rollout import numbers, zero
from vans.models.flow import in_interval
from vans.models.vdm import VDM
from vans.parallel import Ranks
from vans.rng import noise
from vans.sharding import rounds, update


@dataclass
class Conditions:
    """What N videos are rendered from: text [N, L, D], reference latents [N, C, n, H', W'], negative prompt [1, L,
    D].
    """

    text: Tensor
    reference: Tensor
    negative: Tensor


@dataclass
class Trajectories:
    """N stochastic trajectories of the SDE.

    states: K + 1 tensors [N, C, T', H', W'] float32, from noise to the state after the last trained step.
    sigmas: the K + 1 noise levels that belong to them. old_logp, [N, K]: mean log-prob of each step.
    ref_means: K tensors, the mean of each step under the policy at the start of the stage. final: the clean latents.
    unguided: K tensors, the velocity of the negative prompt at each step, where guidance needs it and no gradient flows
    through it (None in steps that are not guided): the first update's, before which the policy has not changed.
    All of it stays where it was computed: 2 MB a state and video at the paper's scale.
    """

    states: list[Tensor]
    sigmas: list[float]
    old_logp: Tensor
    ref_means: list[Tensor]
    final: Tensor
    unguided: list[Tensor | None]


@torch.no_grad()
def sde_rollout(
    vdm: VDM, given: Conditions, noises: Tensor, names: list[str], keys: tuple, s: Any, start: Any = None
) -> Trajectories:
    """Sample N trajectories: `s.train_steps` stochastic steps from the noisy end (0: all but the last), then the ODE.

    noises: [N, C, T', H', W'] at sigma 1. names: N names of the noise of each step. s: render_steps, train_steps,
    noise_level, guidance, guidance_start, guidance_stop, micro_batch. Runs in micro-batches of the geometry in which
    the update recomputes the log-probs, so that the first ratio is exactly 1. start: the network with the weights of
    the stage's start (None: its own).
    """
    grid = [float(sigma) for sigma in flow_sde.sigmas(s.render_steps, vdm.shift)]  # 1 ... 0
    trained = s.train_steps or s.render_steps - 1
    if not 1 <= trained <= s.render_steps - 1:
        raise ValueError(f"train_steps must be 1 to {s.render_steps - 1} (the last is not stochastic), got {trained}")
    reuses, scales = s.guidance != 1.0 and s.guidance_grad == "conditional", guidance_of(s)
    parts = []
    for part, own in rounds(vdm.dit, noises.shape[0], s.micro_batch):
        x = noises[part].to(vdm.device, torch.float32)  # [M, C, T', H', W']
        text, reference = given.text[part].to(vdm.device), given.reference[part].to(vdm.device)
        states, logps, ref_means, unguided = [x], [], [], []
        for k in range(s.render_steps):
            sigma = torch.full((x.shape[0],), grid[k], device=x.device)  # [M]
            base = vdm.unguided_velocity(x, sigma, reference, given.negative) if scales[k] != 1.0 else None
            v = vdm.guided_velocity(x, sigma, text, reference, scales[k], unguided=base)  # [M, C, T', H', W']
            if k >= trained:
                x = flow_sde.ode_step(x, v, grid[k], grid[k + 1])
                continue
            drawn = noise(tuple(x.shape[1:]), names[part], *keys, "sde", k).to(x)  # [M, C, T', H', W']
            after, logp, _, _ = flow_sde.sde_step(x, v, grid[k], grid[k + 1], s.noise_level, drawn)
            v0 = vdm.guided_velocity(x, sigma, text, reference, scales[k], given.negative, dit=start)
            if reuses:
                unguided.append(base)
            ref_means.append(flow_sde.sde_mean_std(x, v0, grid[k], grid[k + 1], s.noise_level)[0])
            logps.append(logp)  # [M]
            x = after  # [M, C, T', H', W']
            states.append(x)
        if own:
            parts.append((states, torch.stack(logps, 1), ref_means, x, unguided))
    return Trajectories(
        states=[torch.cat(state) for state in zip(*(p[0] for p in parts), strict=True)],
        sigmas=grid[: trained + 1],
        old_logp=torch.cat([p[1] for p in parts]),
        ref_means=[torch.cat(mean) for mean in zip(*(p[2] for p in parts), strict=True)],
        final=torch.cat([p[3] for p in parts]),
        unguided=[None if base[0] is None else torch.cat(base) for base in zip(*(p[4] for p in parts), strict=True)],
    )


def guidance_of(s: Any) -> list[float]:
    """The guidance of each denoising step: s.guidance in its interval, 1 (none) outside."""
    interval = (s.guidance_start, s.guidance_stop)
    return [s.guidance if in_interval(k, s.render_steps, interval) else 1.0 for k in range(s.render_steps)]


def vdm_updates(
    vdm: VDM,
    trajectories: Trajectories,
    given: Conditions,
    advantages: Tensor,
    s: Any,
    optim: Optimizer,
    trained: Sequence[Tensor],
    ranks: Ranks,
    total: float,
) -> dict[str, float]:
    """`s.inner_updates` optimiser steps on one rollout; each recomputes every trained step of every trajectory.

    advantages: [N]. s: render_steps, micro_batch, guidance, guidance_start, guidance_stop, guidance_grad, noise_level,
    clip_range, beta, inner_updates, grad_clip.
    total: what the mean over trajectories divides by: N, and more where groups were left out, which then count as
    zeros; infinity where all of it is for the other ranks' sake alone.
    """
    device = vdm.device
    count, steps = trajectories.old_logp.shape  # N, K
    scales = guidance_of(s)
    off = {"ratio_first": zero(device), "ratio_last": zero(device)}  # numbers wait for the end: each asks the GPU
    for inner in range(s.inner_updates):
        optim.zero_grad()
        clipped, kl_mean = zero(device), zero(device)
        for part, own in rounds(vdm.dit, count, s.micro_batch):
            text, reference = given.text[part].to(device), given.reference[part].to(device)
            advantage = advantages[part].to(device)  # [M]
            for k in range(steps):
                now, then = trajectories.sigmas[k], trajectories.sigmas[k + 1]
                x, after = (trajectories.states[i][part].to(device) for i in (k, k + 1))  # [M, C, T', H', W']
                sigma = torch.full((x.shape[0],), now, device=device)  # [M]
                base = trajectories.unguided[k] if inner == 0 and trajectories.unguided else None
                known = None if base is None else base[part].to(device)
                v = vdm.guided_velocity(
                    x, sigma, text, reference, scales[k], given.negative, None, s.guidance_grad, known
                )  # [M, C, T', H', W']
                mean, std = flow_sde.sde_mean_std(x, v, now, then, s.noise_level)
                logp = flow_sde.log_prob(after, mean, std)[:, None]  # [M, 1]
                old_logp = trajectories.old_logp[part, k : k + 1].to(device)  # [M, 1]
                terms, ratio, fraction = core.clipped_objective(logp, old_logp, advantage, s.clip_range)  # [M, 1]
                kl = flow_sde.gaussian_kl(mean, trajectories.ref_means[k][part].to(device), std)[:, None]  # [M, 1]
                # Mean over steps of the mean over trajectories: one step of one micro-batch at a time.
                loss = core.grpo_loss(terms, kl, s.beta, trajectories=total) / steps  # []
                (loss if own else 0.0 * loss).backward()
                if not own:
                    continue
                share = x.shape[0] / count / steps
                clipped += fraction.double() * share
                kl_mean += kl.detach().mean().double() * share
                key = "ratio_first" if inner == 0 else "ratio_last"
                off[key] = off[key].maximum((ratio - 1).abs().max().double())
        norm = update(optim, trained, ranks, s.grad_clip)
    return numbers(off | {"clipped": clipped, "kl": kl_mean, "grad_norm": norm})


def no_updates(s: Any, optim: Optimizer, trained: Sequence[Tensor], ranks: Ranks) -> dict[str, float]:
    """The updates of a process that has no trajectory: gradient 0, in step with the other processes."""
    for _ in range(s.inner_updates):
        for p in trained:
            p.grad = torch.zeros_like(p)
        norm = update(optim, trained, ranks, s.grad_clip)
    return numbers({"grad_norm": norm})
