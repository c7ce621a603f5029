"""The flow-matching ODE of the video model turned into an SDE with the same marginals (Flow-GRPO).

Convention of flow matching: x_sigma = (1 - sigma) * data + sigma * noise, the model predicts the velocity
v = noise - data, sigma runs from 1 (noise) down to 0 (data), dt = sigma_next - sigma < 0.

Source: Flow-GRPO (arXiv 2505.05470), its discretised SDE sampler; its noise level sigma_t is called s
here, because sigma is the time of the flow. The paper (arXiv 2511.16669) uses it in stage 2:
    s    = eta * sqrt(sigma / (1 - sigma))
    mean = x * (1 + s^2 / (2 sigma) * dt) + v * (1 + s^2 (1 - sigma) / (2 sigma)) * dt
    x'   = mean + s * sqrt(-dt) * noise

At sigma = 1 the s above is infinite; there, and only there, the next sigma stands in for the sigma in the
denominator: s = eta * sqrt(1 / (1 - sigma_next)). The standard deviation of that step is then eta, whatever
its length, and the variance comes out eta^4 / 4 too large (6 % at eta 0.7), which later steps draw in. The
last step, to sigma = 0, is `ode_step`: not stochastic, and not trained on.

Precision: samples and means must be float32 (or float64), a half-precision one raises TypeError. At 50 steps,
shift 5 and a clip range of 1e-3, a bfloat16 cast of sample and mean moves the probability ratio by up to 3e-4
at eta 0.7 and 1.6e-3 at eta 0.3; the whole step in bfloat16 moves it by up to 5e-3 (tests/test_flow_sde.py).
The velocity may come out of the model in any float dtype and is cast up. Coefficients are float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from vans.models.flow import Sigma, check_precision, column, ode_step, on, sigmas  # noqa: F401 (the sampler that it perturbs)


def noise_level(sigma: Sigma, sigma_next: Sigma, eta: float) -> Tensor:
    """s = eta * sqrt(sigma / (1 - sigma)) as float64, with sigma_next in the denominator where sigma = 1."""
    s = torch.as_tensor(sigma, dtype=torch.float64)
    s_next = torch.as_tensor(sigma_next, dtype=torch.float64, device=s.device)
    return eta * torch.sqrt(s / (1 - torch.where(s == 1.0, s_next, s)))


def sde_mean_std(x: Tensor, v: Tensor, sigma: Sigma, sigma_next: Sigma, eta: float) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of the Gaussian from which the SDE draws its next sample.

    x: [B, ...] float32 sample at `sigma`. v: [B, ...] velocity predicted there (gradients flow through it).
    sigma, sigma_next: float, or [B] when the batch mixes steps; 1 >= sigma > sigma_next > 0.
    eta: noise level >= 0; 0 gives the ODE's step and a standard deviation of 0.
    Returns (mean [B, ...], std [B, 1, ...] = s * sqrt(-dt)), in x's dtype.
    Raises ValueError out of these ranges (the last step, sigma_next = 0, is `ode_step`), TypeError when x is
    in half precision.
    """
    check_precision(x, "the sample x")
    if v.shape != x.shape:
        raise ValueError(f"x and v must have one shape, got {tuple(x.shape)} and {tuple(v.shape)}")
    if eta < 0:
        raise ValueError(f"eta must be >= 0, got {eta}")
    sig, sig_next = column(sigma, x), column(sigma_next, x)
    if not _holds((sig <= 1) & (sig > sig_next) & (sig_next > 0)):
        raise ValueError(f"need 1 >= sigma > sigma_next > 0 (to 0: ode_step), got {sigma} and {sigma_next}")
    dt = sig_next - sig
    s = noise_level(sig, sig_next, eta)
    of_x = 1 + s**2 / (2 * sig) * dt
    of_v = (1 + s**2 * (1 - sig) / (2 * sig)) * dt
    mean = x * on(x, of_x) + v.to(x.dtype) * on(x, of_v)
    return mean, on(x, s * torch.sqrt(-dt))


def sde_step(
    x: Tensor, v: Tensor, sigma: Sigma, sigma_next: Sigma, eta: float, noise: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """One step of a rollout: x' = mean + std * noise, and the log-probability of having drawn it.

    As `sde_mean_std`, with eta > 0 and noise: [B, ...] standard normal in x's dtype.
    Returns (x' [B, ...], logp [B], mean [B, ...], std [B, 1, ...]).
    """
    if eta <= 0:
        raise ValueError(f"a stochastic step needs eta > 0, got {eta}; without noise use ode_step")
    check_precision(noise, "the noise")
    mean, std = sde_mean_std(x, v, sigma, sigma_next, eta)
    x_next = mean + std * noise
    return x_next, log_prob(x_next, mean, std), mean, std


def log_prob(x_next: Tensor, mean: Tensor, std: Tensor) -> Tensor:
    """log N(x_next; mean, std^2), *averaged* over the latent's elements: [B] (Flow-GRPO, the paper).

    x_next: [B, ...] float32, what the rollout drew: data, no gradient flows into it. mean: [B, ...] float32.
    std: [B, 1, ...] or a scalar tensor, > 0.
    The mean, not the sum: over 506,880 elements (paper scale) a sum would need another clip range than 1e-3.
    Raises TypeError when a sample or mean is in half precision, ValueError when std is not positive.
    """
    check_precision(x_next, "the sample x_next")
    check_precision(mean, "the mean")
    _check_positive(std)
    z = (x_next.detach() - mean) / std
    elements = -0.5 * z**2 - torch.log(std) - 0.5 * math.log(2 * math.pi)
    return elements.flatten(1).mean(dim=1)


def gaussian_kl(mean: Tensor, mean_ref: Tensor, std: Tensor) -> Tensor:
    """KL of two SDE steps from the same sample, (mean - mean_ref)^2 / (2 std^2), averaged over elements: [B].

    std = s * sqrt(-dt), so dt is in it: the paper's (mean - mean_ref)^2 / (2 s^2 (-dt)). mean_ref is a
    constant. Both steps have the same standard deviation, which leaves this one term of the Gaussian KL.
    """
    check_precision(mean, "the mean")
    check_precision(mean_ref, "the starting policy's mean")
    _check_positive(std)
    return ((mean - mean_ref.detach()) ** 2 / (2 * std**2)).flatten(1).mean(dim=1)


def _holds(condition: Tensor) -> bool:
    """Is it so everywhere? Taken for so on a GPU: the look would wait for all work before it, in every step."""
    return condition.device.type != "cpu" or bool(condition.all())


def _check_positive(std: Tensor) -> None:
    if not _holds(std > 0):
        raise ValueError("std must be > 0: a step without noise has no log-probability")
