"""The SDE against closed forms: its marginals are the ODE's, its densities torch.distributions'."""

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, UniPCMultistepScheduler

from vans.grpo import core, flow_sde

MEAN, STD = 1.5, 0.6  # Gaussian data, whose velocity field has a closed form


def velocity(x: torch.Tensor, sigma: float) -> torch.Tensor:
    """E[noise - data | x] for data ~ N(MEAN, STD^2) and x = (1 - sigma) data + sigma noise."""
    variance = (1 - sigma) ** 2 * STD**2 + sigma**2
    centred = x - (1 - sigma) * MEAN
    return sigma / variance * centred - (MEAN + (1 - sigma) * STD**2 / variance * centred)


# ---- schedule ------------------------------------------------------------------------------------
@pytest.mark.parametrize("steps", [1, 2, 6, 20, 50])
@pytest.mark.parametrize("shift", [1.0, 3.0, 5.0])
def test_sigmas_are_the_schedulers(steps, shift):
    ours = flow_sde.sigmas(steps, shift)
    euler = FlowMatchEulerDiscreteScheduler(shift=shift)
    euler.set_timesteps(sigmas=np.linspace(1, 1 / steps, steps))
    torch.testing.assert_close(ours.float(), euler.sigmas)
    assert ours[0] == 1 and ours[-1] == 0 and (ours.diff() < 0).all()


def test_sigmas_are_wans_to_its_rounding():
    """Wan's own scheduler starts at 0.9998 and not at 1; otherwise the levels are these."""
    unipc = UniPCMultistepScheduler(
        prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=5.0, num_train_timesteps=1000
    )
    unipc.set_timesteps(50)
    torch.testing.assert_close(flow_sde.sigmas(50, 5.0).float(), unipc.sigmas, atol=5e-3, rtol=0)


def test_sigmas_by_hand():
    # s = 2/3 and 1/3 at shift 3: 2 / (1 + 4/3) = 6/7 and 1 / (1 + 2/3) = 3/5
    expected = torch.tensor([1, 6 / 7, 3 / 5, 0], dtype=torch.float64)
    torch.testing.assert_close(flow_sde.sigmas(3, 3.0), expected)
    for bad in ((0, 3.0), (4, 0.0)):
        with pytest.raises(ValueError):
            flow_sde.sigmas(*bad)


# ---- marginals -----------------------------------------------------------------------------------
@pytest.mark.parametrize("eta", [0.3, 0.7, 1.0])
def test_sde_has_the_marginals_of_the_ode(eta):
    """Gaussian data, exact velocity, many small steps: mean and variance at every level, and at the end."""
    count, steps = 40_000, 300
    generator = torch.Generator().manual_seed(0)
    levels = (0.95 * flow_sde.sigmas(steps, 1.0)).tolist()  # below 1: at 1 the rule below holds instead
    x = _marginal(levels[0], count, generator)
    for i, (s, s_next) in enumerate(pairwise(levels[:-1])):
        noise = torch.randn(count, 1, generator=generator, dtype=torch.float64)
        x, _, _, _ = flow_sde.sde_step(x, velocity(x, s), s, s_next, eta, noise)
        if i % 20 == 0 or i == steps - 2:
            _expect_marginal(x, s_next)
    x = flow_sde.ode_step(x, velocity(x, levels[-2]), levels[-2], 0.0)
    _expect_marginal(x, 0.0)


def _marginal(sigma: float, count: int, generator: torch.Generator) -> torch.Tensor:
    mean, std = (1 - sigma) * MEAN, math.sqrt((1 - sigma) ** 2 * STD**2 + sigma**2)
    return mean + std * torch.randn(count, 1, generator=generator, dtype=torch.float64)


def _expect_marginal(x: torch.Tensor, sigma: float) -> None:
    """Five standard errors, and 1 % for the finite step."""
    mean, std = (1 - sigma) * MEAN, math.sqrt((1 - sigma) ** 2 * STD**2 + sigma**2)
    error = std / math.sqrt(len(x))
    assert abs(x.mean().item() - mean) < 5 * error + 0.01 * std, sigma
    assert abs(x.std().item() - std) < 5 * error / math.sqrt(2) + 0.01 * std, sigma


def test_a_wrong_drift_would_be_seen():
    """The test above can fail: the ODE's mean with the SDE's noise has another variance."""
    levels = (0.95 * flow_sde.sigmas(300, 1.0)).tolist()
    generator = torch.Generator().manual_seed(0)
    x = _marginal(levels[0], 10_000, generator)
    for s, s_next in pairwise(levels[:-1]):
        v = velocity(x, s)
        std = flow_sde.sde_mean_std(x, v, s, s_next, 0.7)[1]
        x = flow_sde.ode_step(x, v, s, s_next) + std * torch.randn(x.shape, generator=generator).double()
    with pytest.raises(AssertionError):
        _expect_marginal(x, levels[-2])


@pytest.mark.parametrize("steps", [6, 50, 1000])
def test_what_the_rule_at_sigma_one_costs(steps):
    """However small, the step from 1 adds noise of std eta, and its variance gains eta^4 / 4."""
    s_next = flow_sde.sigmas(steps, 3.0)[1].item()
    x, eta = torch.ones(1, 1, dtype=torch.float64), 0.7
    mean, std = flow_sde.sde_mean_std(x, torch.zeros_like(x), 1.0, s_next, eta)
    assert std.item() == pytest.approx(eta)
    assert mean.item() ** 2 + std.item() ** 2 == pytest.approx(1 + eta**4 / 4)  # 1.06


# ---- one step ------------------------------------------------------------------------------------
def test_eta_zero_is_the_ode():
    x, v = torch.randn(2, 3, 4), torch.randn(2, 3, 4)
    mean, std = flow_sde.sde_mean_std(x, v, 0.8, 0.5, eta=0.0)
    torch.testing.assert_close(mean, flow_sde.ode_step(x, v, 0.8, 0.5))
    torch.testing.assert_close(mean, x - 0.3 * v)
    assert (std == 0).all()


def test_step_by_hand():
    # sigma .8 -> .5, eta .5: s^2 = .25 * .8 / .2 = 1, dt = -.3
    # x: 1 - 1 / 1.6 * .3 = .8125; v: (1 + .2 / 1.6) * -.3 = -.3375; std = sqrt(.3)
    x, v = torch.full((1, 2), 2.0), torch.full((1, 2), 4.0)
    mean, std = flow_sde.sde_mean_std(x, v, 0.8, 0.5, eta=0.5)
    torch.testing.assert_close(mean, torch.full((1, 2), 2 * 0.8125 - 4 * 0.3375))
    torch.testing.assert_close(std, torch.full((1, 1), math.sqrt(0.3)))


def test_first_step_by_hand():
    # sigma 1 -> .8, eta .5: s^2 = .25 * 1 / (1 - .8) = 1.25 (next sigma in the denominator), dt = -.2
    # x: 1 - 1.25 / 2 * .2 = .875; v: 1 * -.2 since 1 - sigma = 0
    x, v = torch.full((1, 2), 2.0), torch.full((1, 2), 4.0)
    mean, std = flow_sde.sde_mean_std(x, v, 1.0, 0.8, eta=0.5)
    torch.testing.assert_close(mean, torch.full((1, 2), 2 * 0.875 - 4 * 0.2))
    torch.testing.assert_close(std, torch.full((1, 1), math.sqrt(1.25 * 0.2)))


def test_a_batch_may_mix_steps():
    x, v = torch.randn(3, 2, 4), torch.randn(3, 2, 4)
    now, after = torch.tensor([1.0, 0.8, 0.6]), torch.tensor([0.8, 0.6, 0.3])
    mean, std = flow_sde.sde_mean_std(x, v, now, after, 0.7)
    for i in range(3):
        one, one_std = flow_sde.sde_mean_std(x[i : i + 1], v[i : i + 1], now[i].item(), after[i].item(), 0.7)
        torch.testing.assert_close(mean[i : i + 1], one)
        torch.testing.assert_close(std[i : i + 1], one_std)


def test_the_last_step_has_no_noise():
    x = torch.randn(1, 4)
    with pytest.raises(ValueError, match="ode_step"):
        flow_sde.sde_mean_std(x, x, 0.3, 0.0, 0.7)
    data, noise = torch.randn(1, 4), torch.randn(1, 4)
    end = flow_sde.ode_step(0.7 * data + 0.3 * noise, noise - data, 0.3, 0.0)
    torch.testing.assert_close(end, data)


@pytest.mark.parametrize("sigmas", [(0.5, 0.8), (1.2, 0.8), (0.5, 0.5)])
def test_bad_levels_raise(sigmas):
    x = torch.zeros(1, 4)
    with pytest.raises(ValueError, match="sigma"):
        flow_sde.sde_mean_std(x, x, sigmas[0], sigmas[1], 0.7)
    with pytest.raises(ValueError, match="eta"):
        flow_sde.sde_step(x, x, 0.8, 0.5, 0.0, x)


# ---- densities -----------------------------------------------------------------------------------
def test_log_prob_is_the_normals_averaged():
    generator = torch.Generator().manual_seed(3)
    x, mean = torch.randn(2, 3, 4, 5, generator=generator), torch.randn(2, 3, 4, 5, generator=generator)
    std = torch.tensor([0.4, 1.7]).view(2, 1, 1, 1)
    expected = torch.distributions.Normal(mean, std).log_prob(x).flatten(1).mean(1)
    torch.testing.assert_close(flow_sde.log_prob(x, mean, std), expected)


def test_kl_is_the_normals_averaged_and_holds_dt():
    generator = torch.Generator().manual_seed(4)
    x, v, v_ref = (torch.randn(2, 3, 4, generator=generator) for _ in range(3))
    mean, std = flow_sde.sde_mean_std(x, v, 0.8, 0.5, 0.7)
    ref, _ = flow_sde.sde_mean_std(x, v_ref, 0.8, 0.5, 0.7)
    expected = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, std), torch.distributions.Normal(ref, std)
    )
    kl = flow_sde.gaussian_kl(mean, ref, std)
    torch.testing.assert_close(kl, expected.flatten(1).mean(1))
    s2 = 0.7**2 * 0.8 / 0.2
    torch.testing.assert_close(kl, ((mean - ref) ** 2 / (2 * s2 * 0.3)).flatten(1).mean(1))
    assert (flow_sde.gaussian_kl(mean, mean, std) == 0).all()  # at the start of a stage


def test_rollout_and_update_agree_to_the_bit_then_part():
    """Ratio exactly 1 at the first inner update, not 1 once the velocity has moved."""
    generator = torch.Generator().manual_seed(5)
    x, v, noise = (torch.randn(4, 16, 3, 4, 4, generator=generator) for _ in range(3))
    x_next, old, _, _ = flow_sde.sde_step(x, v, 0.9, 0.7, 0.7, noise)
    for change, is_one in ((0.0, True), (1e-2, False)):
        mean, std = flow_sde.sde_mean_std(x, v * (1 + change), 0.9, 0.7, 0.7)
        logp = flow_sde.log_prob(x_next, mean, std)
        _, ratio, _ = core.clipped_objective(logp[:, None], old[:, None], torch.ones(4), 1e-3)
        assert bool((ratio == 1).all()) is is_one


def test_gradient_by_hand():
    """d/dv log N = (x' - mean) / std^2 * of_v / elements, and nothing flows into the drawn sample."""
    x, noise = torch.tensor([[2.0, 1.0]]), torch.tensor([[0.5, -1.0]])
    v = torch.tensor([[4.0, 3.0]], requires_grad=True)
    _, logp, _, std = flow_sde.sde_step(x, v, 0.8, 0.5, 0.5, noise)
    logp.sum().backward()
    torch.testing.assert_close(v.grad, noise / std * -0.3375 / 2)


# ---- precision -----------------------------------------------------------------------------------
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_raises(dtype):
    x = torch.zeros(1, 4)
    std = torch.ones(1, 1)
    half = x.to(dtype)
    for call in (
        lambda: flow_sde.ode_step(half, x, 0.8, 0.5),
        lambda: flow_sde.sde_step(half, x, 0.8, 0.5, 0.7, x),
        lambda: flow_sde.sde_step(x, x, 0.8, 0.5, 0.7, half),
        lambda: flow_sde.log_prob(half, x, std),
        lambda: flow_sde.log_prob(x, half, std),
        lambda: flow_sde.gaussian_kl(x, half, std),
    ):
        with pytest.raises(TypeError, match="float32"):
            call()
    mean, _ = flow_sde.sde_mean_std(x, half, 0.8, 0.5, 0.7)  # a velocity may be half precision
    assert mean.dtype == torch.float32


def test_why_float32_a_bf16_cast_moves_the_ratio_by_more_than_the_clip_range():
    """50 steps, shift 5, paper-sized latents: float32 recomputes the ratio exactly, bfloat16 does not."""
    clip = 1e-3
    cast_low, cast_high, whole = _shift(0.3, cast=True), _shift(0.7, cast=True), _shift(0.7, cast=False)
    assert cast_low > clip  # samples and means cast, eta 0.3
    assert 0.1 * clip < cast_high < clip  # eta 0.7: still eats a good part of the range
    assert whole > 3 * clip  # the step computed in bfloat16


def _shift(eta: float, cast: bool) -> float:
    """Largest |ratio - 1| over the steps between a float32 rollout and an update with bfloat16 in it."""
    levels = flow_sde.sigmas(50, 5.0).tolist()
    generator = torch.Generator().manual_seed(6)
    data = torch.randn(2, 16, 9, 22, 40, generator=generator)
    worst = 0.0
    for s, s_next in list(pairwise(levels[:-1]))[::4]:
        noise, drawn = (torch.randn(data.shape, generator=generator) for _ in range(2))
        x, v = (1 - s) * data + s * noise, noise - data
        x_next, old, mean, std = flow_sde.sde_step(x, v, s, s_next, eta, drawn)
        if cast:
            logp = flow_sde.log_prob(x_next.bfloat16().float(), mean.bfloat16().float(), std)
        else:
            z = (x_next.bfloat16() - mean.bfloat16()) / std.bfloat16()
            elements = -0.5 * z**2 - std.bfloat16().log() - 0.5 * math.log(2 * math.pi)
            logp = elements.flatten(1).mean(1).float()
        worst = max(worst, ((logp - old).exp() - 1).abs().max().item())
    return worst
