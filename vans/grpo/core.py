"""What stage 1 (tokens of the VLM) and stage 2 (denoising steps of the VDM) share: advantage, objective, KL.

A trajectory is one answer of a group: a row of tokens at stage 1, a row of SDE steps at stage 2. Everywhere
P is the number of prompts, G the number of answers of one prompt, N = P * G trajectories (or a micro-batch of
them) and L the tokens or steps of a trajectory.

Sources: GRPO is from DeepSeekMath (arXiv 2402.03300, eq. 3 and 4); Flow-GRPO (arXiv 2505.05470)
uses the same objective with denoising steps in the place of tokens; the paper (arXiv 2511.16669) uses both.

Deviations from the paper
1. The standard deviation of a group is the population's (divided by G). The paper does not say which one is
   meant; the sample's would make every advantage smaller by sqrt((G - 1) / G), 6 % at G = 8.
2. A group whose rewards agree to within `eps` has advantages of exactly 0 and is counted. eps is also added to the
   standard deviation, as its peers do (1e-4): rewards that differ by a renderer's rounding only make no full-size
   update.
3. An answer that a reward could not score is left out of its group's mean and deviation, and has advantage 0.
"""

from __future__ import annotations

import torch
from torch import Tensor


def group_advantages(rewards: Tensor, kept: Tensor | None = None, eps: float = 1e-4) -> tuple[Tensor, Tensor]:
    """(r_i - mean) / (std + eps) over the G answers of each prompt (DeepSeekMath, section 4.1.2; the paper's A_i).

    rewards: [P, G] finite, any float dtype, G >= 2. kept: bool [P, G], the answers that were scored (None: all).
    Returns the advantages [P, G] float32 and a mask [P] bool of degenerate groups (max - min <= eps, or fewer than two
    answers kept): their advantages are exactly 0. Computed in float64.
    Raises ValueError for another shape, for G < 2 and for rewards that are not finite.
    """
    if rewards.ndim != 2 or rewards.shape[1] < 2:
        raise ValueError(f"rewards must be [P, G] with G >= 2, got {tuple(rewards.shape)}")
    if not torch.isfinite(rewards).all():
        raise ValueError("rewards hold nan or inf; a reward term must be finite for every answer")
    r = rewards.detach().double()
    keep = torch.ones_like(r, dtype=torch.bool) if kept is None else kept.bool()
    count = keep.sum(dim=1, keepdim=True).clamp(min=1)  # [P, 1]
    centred = (r - r.masked_fill(~keep, 0.0).sum(dim=1, keepdim=True) / count).masked_fill(~keep, 0.0)  # [P, G]
    std = (centred.square().sum(dim=1, keepdim=True) / count).sqrt()  # [P, 1]
    inf = float("inf")
    spread = r.masked_fill(~keep, -inf).amax(dim=1) - r.masked_fill(~keep, inf).amin(dim=1)  # [P]
    degenerate = (spread <= eps) | (keep.sum(dim=1) < 2)
    return (centred / (std + eps)).masked_fill(degenerate[:, None], 0.0).float(), degenerate


def extremes(rewards: Tensor, kept: Tensor, count: int) -> Tensor:
    """The `count` answers of each prompt with the best and the worst rewards, in their own order: places [P, count].

    rewards: [P, G'], G' >= count. kept: bool [P, G']; what was not scored is taken last. Half of each end, of an odd
    count one more of the best; of equals the first. (DanceGRPO, arXiv 2505.07818, trains on such a choice.)
    """
    chosen = []
    for row, keep in zip(rewards.tolist(), kept.tolist(), strict=True):
        order = sorted((g for g in range(len(row)) if keep[g]), key=lambda g: (-row[g], g))
        best, worst = order[: (count + 1) // 2], order[(count + 1) // 2 :][::-1][: count // 2]
        lost = [g for g in range(len(row)) if not keep[g]]
        chosen.append(sorted([*best, *worst, *lost][:count]))
    return torch.tensor(chosen)


def clipped_objective(
    logp: Tensor, old_logp: Tensor, advantages: Tensor, clip_range: float, mask: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """min(ratio * A, ratio held in 1 - clip_range ... 1 + clip_range, times A), to be maximised (DeepSeekMath, eq. 3).

    logp: [N, L] float32, log-probability under the policy being trained (per token, or per step averaged over
    the latent's elements). old_logp: [N, L], under the policy that made the rollout; treated as a constant.
    advantages: [N], one per trajectory. mask: [N, L] bool, False on padding (None: nothing is padding).
    Returns (terms [N, L], 0 on padding; ratio [N, L] detached, 1 on padding; clip_fraction [] the share of
    real positions where the clipped side is the smaller one, i.e. where no gradient flows).
    Raises ValueError for shapes that do not fit, TypeError for log-probabilities in half precision.
    """
    _check_rows(logp, old_logp, mask)
    if advantages.shape != logp.shape[:1]:
        raise ValueError(f"advantages must be [{logp.shape[0]}], got {tuple(advantages.shape)}")
    if clip_range <= 0:
        raise ValueError(f"clip_range must be > 0, got {clip_range}")
    keep = torch.ones_like(logp, dtype=torch.bool) if mask is None else mask.bool()
    # Padding is set to 0 before the exponential: garbage there makes neither inf nor nan gradients.
    ratio = (logp - old_logp.detach()).masked_fill(~keep, 0.0).exp()
    a = advantages.detach().to(logp.dtype)[:, None]
    clipped = ratio.clamp(1.0 - clip_range, 1.0 + clip_range)
    terms = torch.minimum(ratio * a, clipped * a).masked_fill(~keep, 0.0)
    stopped = ((ratio > 1.0 + clip_range) & (a > 0)) | ((ratio < 1.0 - clip_range) & (a < 0))
    fraction = (stopped & keep).sum() / keep.sum().clamp(min=1)
    return terms, ratio.detach(), fraction.detach()


def kl_tokens(logp: Tensor, ref_logp: Tensor, mask: Tensor | None = None) -> Tensor:
    """exp(d) - d - 1, d = ref_logp - logp: the unbiased, never negative KL estimate (DeepSeekMath, eq. 4).

    logp, ref_logp: [N, L] float32; ref_logp (the policy at the start of the stage) is a constant.
    Returns [N, L] >= 0, and 0 on padding. For the VDM's Gaussian steps the KL has a closed form instead:
    see `flow_sde.gaussian_kl`.
    """
    _check_rows(logp, ref_logp, mask)
    d = ref_logp.detach() - logp
    if mask is not None:
        d = d.masked_fill(~mask.bool(), 0.0)
    return torch.expm1(d) - d


def grpo_loss(
    terms: Tensor, kl: Tensor, beta: float, mask: Tensor | None = None, trajectories: float | None = None
) -> Tensor:
    """-(mean over trajectories of the mean over tokens or steps of terms - beta * KL) (DeepSeekMath, eq. 3).

    terms, kl: [N, L]; mask: [N, L] bool. trajectories: what the sum over trajectories is divided by, N if
    None. For gradient accumulation and for several processes pass the size of the whole batch: the losses of
    the micro-batches then add up to the loss of the whole.
    Returns a scalar to minimise. Raises ValueError for shapes that do not fit.
    """
    if terms.shape != kl.shape or terms.ndim != 2:
        raise ValueError(f"terms and kl must both be [N, L], got {tuple(terms.shape)} and {tuple(kl.shape)}")
    if beta < 0:
        raise ValueError(f"beta must be >= 0, got {beta}")
    count = terms.shape[0] if trajectories is None else trajectories
    if count < 1:
        raise ValueError(f"trajectories must be >= 1, got {count}")
    return -row_means(terms - beta * kl, mask).sum() / count


def row_means(values: Tensor, mask: Tensor | None = None) -> Tensor:
    """Mean of each row over its real positions. values: [N, L]; mask: [N, L] bool. Returns [N].

    A row without any real position (an empty answer) has mean 0.
    """
    if mask is None:
        return values.mean(dim=1)
    keep = mask.bool()
    return values.masked_fill(~keep, 0.0).sum(dim=1) / keep.sum(dim=1).clamp(min=1)


def _check_rows(logp: Tensor, other: Tensor, mask: Tensor | None) -> None:
    if logp.ndim != 2 or logp.shape != other.shape:
        raise ValueError(f"both log-probabilities must be [N, L]: {tuple(logp.shape)}, {tuple(other.shape)}")
    if mask is not None and mask.shape != logp.shape:
        raise ValueError(f"mask must be {tuple(logp.shape)}, got {tuple(mask.shape)}")
    for values in (logp, other):
        if values.dtype not in (torch.float32, torch.float64):
            raise TypeError(f"log-probabilities must be float32 (the clip range is 1e-3), got {values.dtype}")
