"""How an answer is drawn: its text by the VLM, its video by the VDM, each from its own random numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from vans.models.protocol import protocol_of
from vans.rng import noise


def write_answers(
    params: Any,
    vlm: Any,
    clips: Tensor,
    questions: list[str],
    fps: Sequence[float],
    names: list[str],
    within_template: bool = False,
) -> list[str]:
    """The VLM's whole answers, one of each question; drawn from (seed, name). fps: of each clip, pictures/s.

    within_template: see `VLM.sample`.
    """
    answers = vlm.sample(
        vlm.inputs(clips, questions, fps),
        seeds=[(params.seed, "answer", n) for n in names],
        within_template=within_template,
        **protocol_of(params).drawing(params.generate),
    )
    return answers.texts


def render(
    params: Any,
    vdm: Any,
    clips: Tensor,
    captions: list[str],
    names: list[str],
    progress: Callable[[], object] | None = None,
) -> Tensor:
    """Videos uint8 [N, T, H, W, 3] of captions, given input clips [N, T, H, W, 3]; the noise is drawn from
    (seed, name). progress: called after each step of each batch.
    """
    g, c, protocol = params.generate, params.video, protocol_of(params)
    vdm.lowered(protocol.half, protocol.tile)
    shape = vdm.latent_shape(c.frames, c.height, c.width)
    with torch.no_grad():
        text = vdm.embed(captions)
        negative = vdm.embed([vdm.negative_prompt])
    reference = vdm.pick_references(vdm.encode(clips))
    if protocol.one_seed:
        same = torch.randn(shape, generator=torch.Generator().manual_seed(params.seed))
        start = same.expand(len(names), *shape)
    else:
        start = noise(shape, names, params.seed, "answer")
    final = vdm.render_latents(text, reference, start, g.steps, g.guidance, negative, g.batch, progress)
    return vdm.decode(final)
