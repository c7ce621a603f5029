"""The sections of params.yaml for training, for how answers are made and for scores; the others: sections.py."""

from __future__ import annotations

import re
from typing import Literal, Self

from pydantic import Field, model_validator

from vans.params.base import Section, Wrong


class Fit(Section):
    """A supervised training."""

    steps: int = Field(ge=1)
    batch: int = Field(ge=1)  # samples of a step, over all processes
    optimizer: Literal["adamw", "muon"]
    lr: float = Field(gt=0)
    adam_lr: float = Field(gt=0)  # muon only: of what is not a matrix
    warmup: int = Field(ge=0)  # steps
    decay: float = Field(ge=0, le=1)  # share of the steps over which lr falls to 0
    grad_clip: float = Field(gt=0)


class Base(Section):
    vae: Fit
    clip: Fit
    detector: Fit
    vdm: Fit
    vlm: Fit
    drop_caption: float = Field(ge=0, le=1)  # share of captions left out, for guidance


class SftVLM(Fit):
    micro_batch: int = Field(ge=1)  # samples of one forward pass
    lora_rank: int = Field(ge=1)
    lora_alpha: int = Field(ge=1)


class SftVDM(Fit):
    micro_batch: int = Field(ge=1)
    drop_caption: float = Field(ge=0, le=1)
    labels: float = Field(ge=0, le=1)  # share of captions replaced by the source's own label of the clip


class Sft(Section):
    vlm: SftVLM
    vdm: SftVDM


class GRPO(Section):
    """What both stages of GRPO have."""

    reward: str  # preset of the main arm
    steps: int = Field(ge=1)
    prompts: int = Field(ge=1)  # P, of a step, over all processes
    group_size: int = Field(ge=2)  # G, answers of each prompt
    micro_batch: int = Field(ge=1)  # answers, or videos, of one differentiated forward pass
    lr: float = Field(gt=0)
    warmup: int = Field(ge=0)  # steps
    beta: float = Field(ge=0)  # weight of the KL to the policy at the start of the stage
    clip_range: float = Field(gt=0)
    inner_updates: int = Field(ge=1)  # optimiser steps on one rollout
    grad_clip: float = Field(gt=0)
    render_steps: int = Field(ge=2)
    guidance: float = Field(ge=1)
    share_noise: bool  # one initial noise for all videos of a group
    # Approximations, off by default (docs/approximations.md). guidance in [start, stop) of the denoising steps alone:
    guidance_start: float = Field(ge=0, le=1)  # share of the steps
    guidance_stop: float = Field(ge=0, le=1)
    explore_size: int = Field(ge=0)  # G' > G candidates of a prompt, of which the best and the worst are kept; 0: none
    explore_steps: int = Field(ge=1)  # denoising steps by which candidates are compared

    @model_validator(mode="after")
    def _approximations(self) -> Self:
        if self.guidance_stop < self.guidance_start:
            raise Wrong(f"{self.guidance_stop:g} is before guidance_start; use a number from it to 1", "guidance_stop")
        if self.explore_size and self.explore_size <= self.group_size:
            raise Wrong(f"{self.explore_size} is not more than group_size; use more, or 0 for none", "explore_size")
        if self.explore_size and self.explore_steps > self.render_steps:
            raise Wrong(f"{self.explore_steps} is more than render_steps; use fewer", "explore_steps")
        return self


class Stage1(GRPO):
    """Stage 1: GRPO on the VLM, VDM frozen."""

    temperature: float = Field(gt=0)  # of the rollout
    top_p: float = Field(gt=0, le=1)
    max_new_tokens: int = Field(ge=4)
    render_distinct: bool  # equal captions of a group are rendered once
    fp8: bool  # approximation: the frozen DiT's matrix products in float8 (vans/models/float8.py)

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.top_p != 1.0:
            raise ValueError("top_p must be 1.0: log-probabilities are of the whole distribution")
        return self


class Stage2(GRPO):
    """Stage 2: GRPO on the VDM, tuned VLM frozen as the anchor."""

    noise_level: float = Field(gt=0)  # eta of the SDE
    train_steps: int = Field(ge=0)  # SDE steps trained on, a window from the noisy end; 0: all but the last
    guidance_grad: Literal["both", "conditional"]
    lora_rank: int = Field(ge=0)  # 0: the whole DiT trains
    anchor_threshold: float = Field(ge=0, le=1)  # ROUGE-L that an anchor caption must reach
    anchor_attempts: int = Field(ge=1)  # samples before the prompt is given up

    @model_validator(mode="after")
    def check(self) -> Self:
        if self.explore_size and self.share_noise:
            raise Wrong("all candidates would be one video; use 0, or share_noise: false", "explore_size")
        return self


class AllInOne(Section):
    """Both models in one stage, on one shared reward; everything else is stage 1's and stage 2's."""

    steps: int = Field(ge=1)
    prompts: int = Field(ge=1)


class Generate(Section):
    """How answers are made at evaluation."""

    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    max_new_tokens: int = Field(ge=4)
    steps: int = Field(ge=1)  # denoising steps
    guidance: float = Field(ge=1)
    batch: int = Field(ge=1)


class Evaluate(Section):
    samples: int = Field(ge=2)  # of each kind
    bootstrap: int = Field(ge=10)  # resamples
    metrics: list[str]  # further ones: package.module:function

    @model_validator(mode="after")
    def check(self) -> Self:
        for name in self.metrics:
            if not re.fullmatch(r"([A-Za-z_]\w*\.)*[A-Za-z_]\w*:[A-Za-z_]\w*", name):
                raise Wrong(f"{name!r} is no metric of your own; write package.module:function", "metrics")
        return self
