"""Advantage, clipped objective, KL and loss against hand-computed values."""

import math

import pytest
import torch

from vans.grpo import core


# ---- advantages ----------------------------------------------------------------------------------
def test_advantages_by_hand():
    rewards = torch.tensor([[0.0, 1.0, 2.0, 3.0]])  # mean 1.5, population variance 5 / 4
    advantages, degenerate = core.group_advantages(rewards)
    expected = torch.tensor([[-1.5, -0.5, 0.5, 1.5]]) / (math.sqrt(1.25) + 1e-4)
    torch.testing.assert_close(advantages, expected, atol=1e-6, rtol=0)
    assert not degenerate.any()
    assert advantages.dtype == torch.float32


def test_advantages_are_per_prompt_and_blind_to_offset_and_scale():
    generator = torch.Generator().manual_seed(0)
    rewards = torch.rand(5, 8, generator=generator)
    advantages, _ = core.group_advantages(rewards)
    moved, _ = core.group_advantages(rewards * torch.arange(1, 6)[:, None] + torch.arange(5)[:, None])
    torch.testing.assert_close(advantages, moved, atol=1e-3, rtol=0)
    torch.testing.assert_close(advantages.mean(1), torch.zeros(5), atol=1e-6, rtol=0)
    torch.testing.assert_close(advantages.std(1, correction=0), torch.ones(5), atol=1e-3, rtol=0)


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0, 1e4])
def test_equal_rewards_give_exactly_zero_and_are_counted(value):
    rewards = torch.stack([torch.full((8,), value), torch.arange(8.0)])
    advantages, degenerate = core.group_advantages(rewards)
    assert degenerate.tolist() == [True, False]
    assert (advantages[0] == 0).all()
    assert torch.isfinite(advantages).all() and advantages[1].abs().sum() > 0


def test_rounding_noise_is_not_blown_up():
    advantages, degenerate = core.group_advantages(torch.tensor([[0.8, 0.8 + 6e-8, 0.8, 0.8]]))
    assert degenerate.all() and (advantages == 0).all()


def test_answers_that_were_not_scored_are_left_out():
    rewards = torch.tensor([[1.0, 99.0, 3.0, 5.0], [1.0, 99.0, 99.0, 99.0], [2.0, 2.0, 99.0, 99.0]])
    kept = torch.tensor([[True, False, True, True], [True, False, False, False], [True, True, False, False]])
    advantages, degenerate = core.group_advantages(rewards, kept)
    alone, _ = core.group_advantages(torch.tensor([[1.0, 3.0, 5.0]]))
    assert advantages[0, [0, 2, 3]].tolist() == alone[0].tolist() and advantages[0, 1] == 0
    assert degenerate.tolist() == [False, True, True] and (advantages[1:] == 0).all()


@pytest.mark.parametrize("bad", [torch.zeros(8), torch.zeros(2, 1), torch.tensor([[0.0, float("nan")]])])
def test_bad_rewards_raise(bad):
    with pytest.raises(ValueError, match="reward"):
        core.group_advantages(bad)


# ---- clipped objective ---------------------------------------------------------------------------
# (ratio, advantage, min(r A, clip(r) A) by hand, d/dlogp by hand) at clip 0.2; dr/dlogp = r.
CASES = [
    (1.0, 2.0, 2.0, 2.0),  # inside: r A, gradient r A
    (1.1, 2.0, 2.2, 2.2),
    (1.5, 2.0, 2.4, 0.0),  # above, A > 0: 1.2 A, stopped
    (0.5, 2.0, 1.0, 1.0),  # below, A > 0: the unclipped side is smaller, gradient flows
    (0.5, -2.0, -1.6, 0.0),  # below, A < 0: 0.8 A, stopped
    (1.5, -2.0, -3.0, -3.0),  # above, A < 0: unclipped, gradient flows
    (1.5, 0.0, 0.0, 0.0),
]


@pytest.mark.parametrize(("ratio", "advantage", "value", "gradient"), CASES)
def test_objective_and_its_gradient_by_hand(ratio, advantage, value, gradient):
    old = torch.tensor([[-1.3]], dtype=torch.float64)
    logp = (old + math.log(ratio)).requires_grad_()
    terms, seen, stopped = core.clipped_objective(logp, old, torch.tensor([advantage]).double(), clip_range=0.2)
    terms.sum().backward()
    assert seen.item() == pytest.approx(ratio)
    assert terms.item() == pytest.approx(value)
    assert logp.grad is not None and logp.grad.item() == pytest.approx(gradient, abs=1e-12)
    assert stopped.item() == float(gradient == 0.0 and advantage != 0.0)


def test_first_inner_update_has_ratio_exactly_one_and_reinforce_gradient():
    generator = torch.Generator().manual_seed(1)
    old = torch.randn(4, 6, generator=generator)
    logp = old.clone().requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 0.5, 0.0])
    terms, ratio, stopped = core.clipped_objective(logp, old, advantages, clip_range=1e-3)
    assert (ratio == 1.0).all() and stopped == 0
    core.grpo_loss(terms, torch.zeros_like(terms), beta=0.0).backward()
    expected = -advantages[:, None].expand(4, 6) / (4 * 6)
    torch.testing.assert_close(logp.grad, expected)


def test_old_policy_and_advantage_are_constants():
    logp, old = torch.zeros(1, 2, requires_grad=True), torch.zeros(1, 2, requires_grad=True)
    advantages = torch.ones(1, requires_grad=True)
    core.clipped_objective(logp, old, advantages, clip_range=0.2)[0].sum().backward()
    assert logp.grad is not None and old.grad is None and advantages.grad is None


def test_padding_counts_nowhere_and_its_garbage_is_harmless():
    mask = torch.tensor([[True, True, False], [True, False, False]])
    logp = torch.tensor([[0.1, 0.0, 900.0], [0.3, -900.0, float("inf")]], requires_grad=True)
    old = torch.zeros(2, 3)
    terms, ratio, stopped = core.clipped_objective(logp, old, torch.tensor([1.0, 1.0]), 0.2, mask)
    kl = core.kl_tokens(logp, old, mask)
    core.grpo_loss(terms, kl, 0.1, mask).backward()
    assert (terms[~mask] == 0).all() and (kl[~mask] == 0).all() and (ratio[~mask] == 1).all()
    assert stopped.item() == pytest.approx(1 / 3)  # exp(0.3) > 1.2, one of three real positions
    assert logp.grad is not None and (logp.grad[~mask] == 0).all() and torch.isfinite(logp.grad).all()


def test_half_precision_and_bad_shapes_raise():
    z = torch.zeros(2, 3)
    with pytest.raises(TypeError, match="float32"):
        core.clipped_objective(z.bfloat16(), z, torch.zeros(2), 0.2)
    with pytest.raises(TypeError, match="float32"):
        core.kl_tokens(z, z.half())
    with pytest.raises(ValueError, match="advantages"):
        core.clipped_objective(z, z, torch.zeros(3), 0.2)
    with pytest.raises(ValueError, match="mask"):
        core.clipped_objective(z, z, torch.zeros(2), 0.2, torch.ones(2, 2))
    with pytest.raises(ValueError, match="clip"):
        core.clipped_objective(z, z, torch.zeros(2), 0.0)
    with pytest.raises(ValueError, match="beta"):
        core.grpo_loss(z, z, -1.0)


# ---- KL ------------------------------------------------------------------------------------------
def test_kl_by_hand_and_zero_at_the_start():
    logp, ref = torch.tensor([[-1.0, -1.0]]), torch.tensor([[-1.0, -3.0]])
    expected = torch.tensor([[0.0, math.exp(-2.0) + 2.0 - 1.0]])
    torch.testing.assert_close(core.kl_tokens(logp, ref), expected)
    assert (core.kl_tokens(logp, logp) == 0).all()


def test_kl_estimate_is_unbiased():
    p = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    q = torch.tensor([0.2, 0.2, 0.6], dtype=torch.float64)
    exact = torch.distributions.kl_divergence(torch.distributions.Categorical(p), torch.distributions.Categorical(q))
    each = core.kl_tokens(p.log()[None], q.log()[None])[0]  # the estimate for every token that p may draw
    assert (each >= 0).all()
    torch.testing.assert_close((p * each).sum(), exact)


def test_kl_gradient_by_hand():
    logp = torch.tensor([[-1.0]], requires_grad=True)
    core.kl_tokens(logp, torch.tensor([[-3.0]])).sum().backward()
    assert logp.grad is not None and logp.grad.item() == pytest.approx(1 - math.exp(-2.0))


# ---- loss ----------------------------------------------------------------------------------------
def test_loss_is_mean_over_trajectories_of_mean_over_tokens():
    terms = torch.tensor([[1.0, 3.0, 0.0], [5.0, 0.0, 0.0]])
    mask = torch.tensor([[1, 1, 0], [1, 0, 0]]).bool()
    kl = torch.full((2, 3), 0.5)
    # rows: (1 + 3) / 2 - .1 * .5 = 1.95 and 5 - .05 = 4.95; not the mean over the three tokens (3 - .05)
    assert core.grpo_loss(terms, kl, 0.1, mask).item() == pytest.approx(-(1.95 + 4.95) / 2)


def test_micro_batches_add_up_to_the_whole():
    generator = torch.Generator().manual_seed(2)
    terms, kl = torch.randn(8, 5, generator=generator), torch.rand(8, 5, generator=generator)
    mask = torch.rand(8, 5, generator=generator) > 0.3
    whole = core.grpo_loss(terms, kl, 0.04, mask)
    rows = [slice(i, i + 1) for i in range(8)]
    parts = sum(core.grpo_loss(terms[r], kl[r], 0.04, mask[r], trajectories=8) for r in rows)
    torch.testing.assert_close(whole, torch.as_tensor(parts))


def test_an_empty_answer_is_not_nan():
    mask = torch.tensor([[False, False], [True, True]])
    loss = core.grpo_loss(torch.ones(2, 2), torch.zeros(2, 2), 0.0, mask)
    assert loss.item() == pytest.approx(-0.5)
