"""Rollouts: G captions of a prompt rendered as one batch (stage 1), or G videos of a caption by the SDE (stage 2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call

from vans.grpo import flow_sde
from vans.models.vdm import VDM
from vans.rng import noise


def frozen_copy(module) -> dict[str, Tensor]:
    """The trainable tensors as they are now: the policy at the start of the stage, the KL's reference."""
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


class WithTensors:
    """`module` called with other values for some of its parameters; the module itself is not touched."""

    def __init__(self, module, tensors: dict[str, Tensor]):
        self.module, self.tensors = module, tensors

    def __call__(self, *args, **kwargs):
        return functional_call(self.module, self.tensors, args, kwargs)


@dataclass
class Trajectories:
    """N stochastic trajectories of the SDE.

    states: K + 1 tensors [N, C, T', H', W'] float32, from noise to the state after the last trained step.
    sigmas: the K + 1 noise levels that belong to them. old_logp, [N, K]: mean log-prob of each step.
    reference_means: K tensors, the frozen policy's mean of each step. final: the clean latents.
    """

    states: list[Tensor]
    sigmas: list[float]
    old_logp: Tensor
    reference_means: list[Tensor]
    final: Tensor


def initial_noise(shape: tuple, prompts: list[str], group: int, share: bool, *keys: object) -> Tensor:
    """[P * G, *shape]: each video of a group has its own noise, or (share) all videos of a group the same."""
    names = [f"{p}/0" if share else f"{p}/{g}" for p in prompts for g in range(group)]
    return noise(shape, names, *keys, "initial")


@torch.no_grad()
def sde_rollout(
    vdm: VDM,
    text: Tensor,
    reference: Tensor,
    start: Tensor,
    names: list[str],
    keys: tuple,
    *,
    steps: int,
    trained: int,
    eta: float,
    guidance: float,
    negative: Tensor | None,
    micro_batch: int,
    frozen=None,
) -> Trajectories:
    """Sample N trajectories: `trained` stochastic steps from the noisy end (0: all but the last), then the ODE.

    text [N, L, D], reference [N, C, n, H', W'], start [N, C, T', H', W'] at sigma 1. Runs in micro-batches of the
    geometry in which the update recomputes the log-probs, so that the first ratio is exactly 1. `frozen` is the
    reference policy (the same network with other tensors); without it the means are the policy's own.
    """
    grid = [float(s) for s in flow_sde.sigmas(steps, vdm.shift)]
    trained = trained or steps - 1
    if not 1 <= trained <= steps - 1:
        raise ValueError(f"trained steps must be 1 to {steps - 1} (the last step is not stochastic), got {trained}")
    parts = []
    for first in range(0, start.shape[0], micro_batch):
        part = slice(first, first + micro_batch)
        x = start[part].to(vdm.device, torch.float32)
        cond, ref = text[part].to(vdm.device), reference[part].to(vdm.device)
        states, logps, means = [x], [], []
        for k in range(steps):
            sigma = torch.full((x.shape[0],), grid[k], device=x.device)
            v = vdm.guided_velocity(x, sigma, cond, ref, guidance, negative)
            if k >= trained:
                x = flow_sde.ode_step(x, v, grid[k], grid[k + 1])
                continue
            mean, std = flow_sde.sde_mean_std(x, v, grid[k], grid[k + 1], eta)
            eps = noise(tuple(x.shape[1:]), names[part], *keys, "sde", k).to(x)
            after = mean + std * eps
            logps.append(flow_sde.log_prob(after, mean, std).cpu())
            if frozen is None:
                means.append(mean.cpu())
            else:
                v0 = vdm.guided_velocity(x, sigma, cond, ref, guidance, negative, dit=frozen)
                means.append(flow_sde.sde_mean_std(x, v0, grid[k], grid[k + 1], eta)[0].cpu())
            x = after
            states.append(x)
        parts.append(([s.cpu() for s in states], torch.stack(logps, 1), means, x.cpu()))
    return Trajectories(
        states=[torch.cat(s) for s in zip(*(p[0] for p in parts), strict=True)],
        sigmas=grid[: trained + 1],
        old_logp=torch.cat([p[1] for p in parts]),
        reference_means=[torch.cat(m) for m in zip(*(p[2] for p in parts), strict=True)],
        final=torch.cat([p[3] for p in parts]),
    )


@dataclass
class Rendered:
    """Videos of P x G captions: clips uint8 [P * G, T, H, W, 3] (zeros where nothing was rendered), mask [P * G]."""

    clips: Tensor
    mask: Tensor
    distinct: int


def render_captions(
    vdm: VDM,
    captions: list[list[str | None]],
    reference: Tensor,
    prompts: list[str],
    keys: tuple,
    settings,
    shape: tuple,
    size: tuple[int, int, int],
    negative: Tensor | None,
) -> Rendered:
    """Render P groups of G captions as one batch; answers without a caption get no video.

    With `settings.render_distinct`, equal captions of a group share one render (with the noise of the first of
    them): the policy under test is the VLM's, and the same words must not be told apart by luck.
    """
    group = len(captions[0])
    start = initial_noise(shape, prompts, group, settings.share_noise, *keys)
    place: dict[tuple, int] = {}
    use: list[int] = []
    rows: list[tuple[int, int, str]] = []
    for p, texts in enumerate(captions):
        for g, caption in enumerate(texts):
            key = (p, caption) if settings.render_distinct else (p, g)
            if caption is None:
                use.append(-1)
                continue
            if key not in place:
                place[key] = len(rows)
                rows.append((p, g, caption))
            use.append(place[key])
    clips = torch.zeros((len(captions) * group, *size, 3), dtype=torch.uint8)
    if rows:
        with torch.no_grad():
            text = vdm.embed([c for _, _, c in rows])
        final = vdm.render_latents(
            text,
            torch.stack([reference[p] for p, _, _ in rows]),
            torch.stack([start[p * group + g] for p, g, _ in rows]),
            settings.render_steps,
            settings.guidance,
            negative,
        )
        videos = vdm.decode(final)
        for i, source in enumerate(use):
            if source >= 0:
                clips[i] = videos[source]
    mask = torch.tensor([u >= 0 for u in use])
    return Rendered(clips, mask, len(rows))
