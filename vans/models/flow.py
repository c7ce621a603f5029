"""Wan's flow: the grid of noise levels and Euler's step along the probability-flow ODE.

x_sigma = (1 - sigma) * x_0 + sigma * noise; sigma falls from 1 to 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

Sigma = float | Tensor


def sigmas(steps: int, shift: float) -> Tensor:
    """The noise levels of `steps` denoising steps: [steps + 1] float64, from 1 down to 0, strictly falling.

    sigma' = shift * s / (1 + (shift - 1) * s) for s = 1, 1 - 1/steps, ..., 0 (Stable Diffusion 3's shift).
    The same numbers as diffusers' `FlowMatchEulerDiscreteScheduler(shift=shift)` given
    `sigmas = linspace(1, 1 / steps, steps)`.
    steps >= 1, shift > 0 (1: evenly spaced; 5 at the paper's scale), else ValueError.
    """
    if steps < 1:
        raise ValueError(f"steps must be >= 1, got {steps}")
    if shift <= 0:
        raise ValueError(f"shift must be > 0, got {shift}")
    s = torch.arange(steps, -1, -1, dtype=torch.float64) / steps
    return shift * s / (1 + (shift - 1) * s)


def in_interval(step: int, steps: int, interval: tuple[float, float]) -> bool:
    """Does the share of the steps from interval[0] to interval[1] hold this one (0 to steps - 1)?

    Guidance in an interval alone (arXiv 2404.07724), counted as the `start` and `stop` of diffusers' guiders.
    """
    return round(interval[0] * steps) <= step < round(interval[1] * steps)


def ode_step(x: Tensor, v: Tensor, sigma: Sigma, sigma_next: Sigma) -> Tensor:
    """x + v * dt, an Euler step of the probability-flow ODE. x, v: [B, ...]; returns [B, ...] in x's dtype.

    sigma, sigma_next: float, or [B]. Raises TypeError when x is in half precision.
    """
    check_precision(x, "the sample x")
    s, s_next = column(sigma, x), column(sigma_next, x)
    return x + v.to(x.dtype) * on(x, s_next - s)


def column(sigma: Sigma, x: Tensor) -> Tensor:
    """sigma as float64 [B or 1, 1, ...], in the form of x [B, ...]; a number stays on the CPU, see `on`."""
    s = torch.as_tensor(sigma, dtype=torch.float64)
    if s.ndim == 0:
        s = s[None]
    if s.ndim != 1 or s.shape[0] not in (1, x.shape[0]):
        raise ValueError(f"sigma must be a number or [{x.shape[0]}], got {tuple(s.shape)}")
    return s.view(-1, *[1] * (x.ndim - 1))


def on(x: Tensor, value: Tensor) -> Tensor:
    """A coefficient [B or 1, 1, ...] where x is, in its precision. A copy to a GPU would wait for all work before it;
    filling in a number does not.
    """
    if value.device != x.device and value.numel() == 1:
        return torch.full(value.shape, value.item(), dtype=x.dtype, device=x.device)
    return value.to(x)


def check_precision(values: Tensor, name: str) -> None:
    if values.dtype not in (torch.float32, torch.float64):
        raise TypeError(f"{name} must be float32, got {values.dtype}: the ratio would leave the clip range")
