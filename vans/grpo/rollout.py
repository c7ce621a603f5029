"""What rollouts of both stages share: initial noise, the policy at the start of the stage, captions rendered in a
batch.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import functional_call

from vans.meter import timer
from vans.models.vdm import VDM
from vans.rng import noise
from vans.sharding import Exchanged, sharded


def frozen_copy(module) -> dict[str, Tensor]:
    """The trainable tensors as they are now: the policy at the start of the stage, for the KL."""
    return {name: p.detach().clone() for name, p in module.named_parameters() if p.requires_grad}


class WithTensors:
    """`module` called with other values for some of its parameters; the module itself is not touched.

    Without gradient: where activations are recomputed, they would be with the module's own parameters. ValueError for
    a module that is cut up over ranks: it would silently compute with its own (see `reference`).
    """

    def __init__(self, module, tensors: dict[str, Tensor]):
        if sharded(module):
            raise ValueError("the module is cut up over ranks, where functional_call changes nothing; use reference()")
        self.module, self.tensors = module, tensors

    @torch.no_grad()
    def __call__(self, *args, **kwargs):
        return functional_call(self.module, self.tensors, args, kwargs)


def reference(module) -> WithTensors | Exchanged:
    """The policy as it is now, at the start of the stage: what the KL is to."""
    return Exchanged(module) if sharded(module) else WithTensors(module, frozen_copy(module))


def zero(device: torch.device) -> Tensor:
    """What a number is added up in on its device, float64: as Python would, without asking the device each time."""
    return torch.zeros((), dtype=torch.float64, device=device)


def numbers(values: dict[str, Tensor]) -> dict[str, float]:
    """Tensors of one number each, which the device is asked for once."""
    return dict(zip(values, torch.stack([v.double() for v in values.values()]).tolist(), strict=True))


def initial_noise(shape: tuple, ids: list[str], group_size: int, share: bool, *keys: object) -> Tensor:
    """[P * G, *shape]: each video of a group has its own noise, or (share) all videos of a group the same."""
    names = [f"{i}/0" if share else f"{i}/{g}" for i in ids for g in range(group_size)]
    return noise(shape, names, *keys, "initial")


def render_captions(
    vdm: VDM,
    captions: list[list[str | None]],
    reference: Tensor,
    start: Tensor,
    negative: Tensor,
    *,
    size: tuple[int, int, int],
    steps: int,
    guidance: float,
    distinct: bool = True,
    interval: tuple[float, float] = (0.0, 1.0),
) -> Tensor:
    """Videos uint8 [P, G, T, H, W, 3] of P groups of G captions, rendered as one batch; zeros where there is no
    caption.

    reference: reference latents [P, C, n, H', W']. start: initial noise [P * G, C, T', H', W']. size: T, H, W.
    interval: the share of the steps that are guided.
    With `distinct`, equal captions of a group share one render (with the noise of the first of them): the policy under
    test is the VLM's, and the same words must not be told apart by luck.
    """
    group_size = len(captions[0])
    place: dict[tuple, int] = {}  # what is rendered -> its row
    rows: list[tuple[int, int, str]] = []  # prompt, answer, caption
    use: list[int] = []  # row of each answer, -1: none
    for p, texts in enumerate(captions):
        for g, caption in enumerate(texts):
            key = (p, caption) if distinct else (p, g)
            if caption is not None and key not in place:
                place[key] = len(rows)
                rows.append((p, g, caption))
            use.append(-1 if caption is None else place[key])
    videos = torch.zeros((len(captions) * group_size, *size, 3), dtype=torch.uint8)
    if not rows and sharded(vdm.dit):
        rows = [(0, 0, "")]  # for the other ranks' sake
    if rows:
        with torch.no_grad():
            text = vdm.embed([caption for _, _, caption in rows])  # [R, L, D]
        latents = vdm.render_latents(
            text,
            torch.stack([reference[p] for p, _, _ in rows]),
            torch.stack([start[p * group_size + g] for p, g, _ in rows]),
            steps,
            guidance,
            negative,
            interval=interval,
        )  # [R, C, T', H', W']
        with timer("decode"):
            rendered = vdm.decode(latents)  # [R, T, H, W, 3]
        for i, row in enumerate(use):
            if row >= 0:
                videos[i] = rendered[row]
    return videos.unflatten(0, (len(captions), group_size))
