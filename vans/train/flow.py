"""The flow-matching loss of the VDM, for base training and SFT alike."""

from __future__ import annotations

import torch
from torch import Tensor

from vans.models.vdm import VDM


def training_sigmas(count: int, shift: float, generator: torch.Generator) -> Tensor:
    """Noise levels of a batch, float32 [count] in (0, 1): logit-normal, then Wan's flow shift s*u / (1 + (s-1)*u).

    Stratified over the batch (one draw in each of `count` equal parts), which lowers the loss's variance.
    """
    u = (torch.arange(count) + torch.rand(count, generator=generator)) / count
    u = torch.special.ndtri(u.double().clamp(1e-4, 1 - 1e-4)).sigmoid().float()
    u = u[torch.randperm(count, generator=generator)]
    return shift * u / (1 + (shift - 1) * u)


def flow_matching_loss(
    vdm: VDM, x: Tensor, eps: Tensor, text: Tensor, reference: Tensor | None, sigma: Tensor
) -> Tensor:
    """Mean of |v(x_sigma, sigma) - (eps - x)|^2, x_sigma = (1 - sigma) x + sigma eps (Lipman et al. 2022).

    x, eps: clean latents and noise [N, C, T', H', W'] float32; text [N, L, D]; reference [N, C, n, H', W'] or None;
    sigma: noise levels [N] in (0, 1).
    """
    sigma = sigma.to(x.device)
    level = sigma.view(-1, 1, 1, 1, 1)
    eps = eps.to(x)
    v = vdm.velocity((1 - level) * x + level * eps, sigma, text, reference)
    return (v - (eps - x)).square().mean()
