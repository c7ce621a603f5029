"""The sections of params.yaml: one class each, one field a parameter; its comment is the help."""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from vans.errors import one_of
from vans.net import check_url
from vans.params.section import Section, Whole

TERM = re.compile(r"[a-z][a-z0-9_]*|[A-Za-z_][\w.]*:[A-Za-z_]\w*|https?://\S+|[^\s:]*/\S+")


class World(Section):
    """The toy world's generator: what ``data/`` holds."""

    seed: Whole = Field(ge=0)
    procedural_train: Whole = Field(ge=0)  # videos
    procedural_test: Whole = Field(ge=0)
    predictive_train: Whole = Field(ge=0)  # scenes; two sources each
    predictive_test: Whole = Field(ge=0)
    surprise: float = Field(ge=0, le=1)  # probability of a condition's other outcome


class Machine(Section):
    """What the scale runs on. Of these, device, processes, threads and dtype can change the last bits of a number."""

    device: Literal["auto", "cpu", "cuda"]
    processes: Whole = Field(ge=1)  # data-parallel workers (GPUs at the paper scale)
    threads: Whole = Field(ge=1)  # CPU threads per worker
    dtype: Literal["float32", "bfloat16"]
    gradient_checkpointing: bool  # recompute activations: less memory, a third more time
    grid: bool  # may the ablation grid be trained at this scale?
    engine: Literal["local", "ray"]  # what maps the curation over sources (vans/data/engine.py)
    workers: Whole = Field(ge=0)  # its processes; 0: one per core
    vae_batch: Whole = Field(ge=1)  # clips that the VAE encodes or decodes at once
    dit_batch: Whole = Field(ge=1)  # videos that are rendered at once


class Checkpoints(Section):
    """Steps between two checkpoints."""

    base: Whole = Field(ge=1)
    sft: Whole = Field(ge=1)
    stage1: Whole = Field(ge=1)  # all-in-one, too
    stage2: Whole = Field(ge=1)


class Keep(Section):
    """What is kept while training; it changes no number."""

    checkpoints: Checkpoints
    groups: Whole = Field(ge=1)  # every so many steps one rollout group is kept for the pictures


class Video(Section):
    """Every clip, input and target."""

    frames: Whole = Field(ge=1)
    height: Whole = Field(ge=8)  # pixels
    width: Whole = Field(ge=8)
    fps: float = Field(gt=0)


class RLWeights(Section):
    """Weights of the terms of the RL subset's score (vans/data/quality.py)."""

    agreement: float = Field(ge=0)
    motion: float = Field(ge=0)
    length: float = Field(ge=0)
    self_check: float = Field(ge=0)


class Endpoint(Section):
    """An endpoint that speaks OpenAI's chat completions. The key is in no file: it comes from the environment."""

    url: str  # the endpoint's address, up to and without /chat/completions
    model: str
    key_variable: str  # name of the environment variable that holds the key
    plain_http: bool  # may http:// go to other machines?
    extra: dict[str, Any]  # further fields of each request; null takes one away
    temperature: float = Field(ge=0, le=2)
    max_tokens: Whole = Field(ge=16)  # of an answer
    side: Whole = Field(ge=16)  # px, longer side of a picture
    concurrency: Whole = Field(ge=1)  # calls under way at once
    timeout: float = Field(gt=0)  # s, for a whole answer
    retries: Whole = Field(ge=0)  # of a call that failed on the way
    requests_per_minute: Whole | None = Field(ge=1)
    tokens_per_minute: Whole | None = Field(ge=1)
    budget: float | None = Field(ge=0)  # in the prices' currency, for all runs together
    price_input: float | None = Field(ge=0)  # of a million tokens
    price_output: float | None = Field(ge=0)
    image_tokens: Whole = Field(ge=0)  # estimate for a picture
    answer_tokens: Whole = Field(ge=1)  # estimate for an answer

    @model_validator(mode="after")
    def _check(self) -> Endpoint:
        check_url(self.url, self.plain_http)
        if self.budget is not None and (self.price_input is None or self.price_output is None):
            raise ValueError("a budget needs price_input and price_output (your provider's, per million tokens)")
        if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", self.key_variable):  # a key put here by mistake is not shown
            raise ValueError("key_variable must be the name of an environment variable, such as VANS_API_KEY")
        if kept := sorted({"model", "messages", "stream", "n"} & set(self.extra)):
            raise ValueError(f"extra.{kept[0]}: cannot be set here")
        return self


class LLM(Endpoint):
    """A multimodal LLM that annotates (docs/annotate.md)."""

    choose_frames: Whole = Field(ge=2)  # pictures of a segment whose best clip is wanted
    frames: Whole = Field(ge=1)  # pictures of each clip that is written about
    attempts: Whole = Field(ge=1)  # answers asked for until one can be used
    cache: str  # file of kept answers


class Judge(Endpoint):
    """The reward term `judge`: a multimodal LLM that looks at rendered videos."""

    mode: Literal["yes_no", "grade"]  # the likelihood of "yes", or a grade from 0 to 10
    frames: Whole = Field(ge=1)  # pictures of each clip


class LocalVLM(Section):
    """The local Qwen2.5-VL that annotates; prompts, pictures and attempts are curate.llm's."""

    repo: str  # of the hub, or a folder
    revision: str | None
    batch: Whole = Field(ge=1)  # queries of one forward pass


class Curate(Section):
    """From source videos to triplets."""

    min_segment: float = Field(gt=0)  # s
    input_seconds: float = Field(gt=0)  # s, longest input clip; of a shorter segment the whole
    target_seconds: float = Field(gt=0)
    codec: Literal["raw", "h264"]
    annotator: str  # one of vans.data.annotate.ANNOTATORS
    llm: LLM
    qwen: LocalVLM
    flowery: float = Field(ge=0, le=1)  # toy world: share of flowery training captions; held-out ones are plain
    rl: Whole = Field(ge=0)  # triplets of the RL subset
    rl_weights: RLWeights
    rl_motion: float = Field(gt=0)  # mean change of a pixel per frame (0..1) that counts as full motion
    agreement: Literal["none", "clip"]  # of target clip and caption; clip: by models.clip.repo
    near_duplicate: float = Field(ge=0, le=1)  # distance up to which two videos are one (vans/data/duplicates.py)
    shot_threshold: float = Field(gt=0)

    @model_validator(mode="after")
    def _check(self) -> Curate:
        from vans.data.annotate import ANNOTATORS

        if self.annotator not in ANNOTATORS:
            raise ValueError(f"annotator: {self.annotator!r} is unknown; use {one_of(ANNOTATORS)}")
        return self


class Model(Section):
    """One model: built from ``config`` and trained from scratch, or loaded from ``repo`` at ``revision``."""

    repo: str | None
    revision: str | None
    config: dict[str, Any]

    @model_validator(mode="after")
    def _pinned(self) -> Model:
        if self.repo is not None and not self.revision:
            raise ValueError("repo needs a pinned revision (a commit id), so that the same weights come back")
        return self


class VLMModel(Model):
    system: str  # system prompt: says how to answer


class VDMModel(Model):
    references: Whole = Field(ge=1)  # n reference latents of the input video
    shift: float = Field(gt=0)  # flow shift
    max_text: Whole = Field(ge=2)  # tokens of a caption
    negative_prompt: str

    def factors(self) -> tuple[int, int]:
        """(time, space): pictures of a latent after the first, and pixels of a DiT token's side.

        Those of `config`; Wan2.1's where it says nothing.
        """
        vae, dit = self.config.get("vae", {}), self.config.get("dit", {})
        patch = dit.get("patch_size", [1, 2, 2])[-1]
        return vae.get("scale_factor_temporal", 4), vae.get("scale_factor_spatial", 8) * patch


class Detector(Section):
    """FVD's network: the toy world's own (``path`` null), or the I3D TorchScript in a file."""

    path: str | None
    sha256: str | None
    config: dict[str, Any]


class Models(Section):
    vlm: VLMModel
    vdm: VDMModel
    clip: Model
    detector: Detector


class Fit(Section):
    """A supervised training."""

    steps: Whole = Field(ge=1)
    batch: Whole = Field(ge=1)  # samples of a step, over all processes
    optimizer: Literal["adamw", "muon"]
    lr: float = Field(gt=0)
    adam_lr: float = Field(gt=0)  # muon only: of what is not a matrix
    warmup: Whole = Field(ge=0)  # steps
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
    micro_batch: Whole = Field(ge=1)  # samples of one forward pass
    lora_rank: Whole = Field(ge=1)
    lora_alpha: Whole = Field(ge=1)


class SftVDM(Fit):
    micro_batch: Whole = Field(ge=1)
    drop_caption: float = Field(ge=0, le=1)


class Sft(Section):
    vlm: SftVLM
    vdm: SftVDM


class Term(Section):
    """The weight of a reward term; what it looks at and how long it may take are said for terms outside of vans."""

    weight: float
    needs: Literal["text", "video"] | None = None
    timeout: float = Field(default=60.0, gt=0)  # s; of an executable for a rollout, of an endpoint for an answer


def _terms(given: Any) -> Any:
    """A preset: {term: weight, or a section}; its terms' names are checked."""
    from vans.rewards import names

    if not isinstance(given, dict):
        return given
    for name in given:
        if not TERM.fullmatch(str(name)):
            raise ValueError(f"{name!r} is no term; use {one_of(names())}, package.module:function, ./program or a URL")
        if re.fullmatch(r"[a-z][a-z0-9_]*", name) and name not in names():
            raise ValueError(f"{name!r} is no reward term; use {one_of(names())}, or package.module:function")
    return {n: {"weight": w} if isinstance(w, int | float) and not isinstance(w, bool) else w for n, w in given.items()}


Preset = Annotated[dict[str, Term], BeforeValidator(_terms)]


class Rewards(Section):
    """Presets of reward weights (lambda), by stage. A preset names all of its terms."""

    stage1: dict[str, Preset]
    stage2: dict[str, Preset]
    all_in_one: dict[str, Preset]


class GRPO(Section):
    """What both stages of GRPO have."""

    reward: str  # preset of the main arm
    steps: Whole = Field(ge=1)
    prompts: Whole = Field(ge=1)  # P, of a step, over all processes
    group_size: Whole = Field(ge=2)  # G, answers of each prompt
    lr: float = Field(gt=0)
    warmup: Whole = Field(ge=0)  # steps
    beta: float = Field(ge=0)  # weight of the KL to the policy at the start of the stage
    clip_range: float = Field(gt=0)
    inner_updates: Whole = Field(ge=1)  # optimiser steps on one rollout
    grad_clip: float = Field(gt=0)
    render_steps: Whole = Field(ge=2)
    guidance: float = Field(ge=1)
    share_noise: bool  # one initial noise for all videos of a group


class Stage1(GRPO):
    """Stage 1: GRPO on the VLM, VDM frozen."""

    micro_batch: Whole = Field(ge=1)  # answers of one differentiated forward pass
    temperature: float = Field(gt=0)  # of the rollout
    top_p: float = Field(gt=0, le=1)
    max_new_tokens: Whole = Field(ge=4)
    render_distinct: bool  # equal captions of a group are rendered once

    @model_validator(mode="after")
    def _check(self) -> Stage1:
        if self.top_p != 1.0:
            raise ValueError("top_p must be 1.0: log-probabilities are of the whole distribution")
        return self


class Stage2(GRPO):
    """Stage 2: GRPO on the VDM, tuned VLM frozen as the anchor."""

    micro_batch: Whole = Field(ge=1)  # videos of one differentiated forward pass (and of a rollout's)
    noise_level: float = Field(gt=0)  # eta of the SDE
    train_steps: Whole = Field(ge=0)  # SDE steps trained on, a window from the noisy end; 0: all but the last
    guidance_grad: Literal["both", "conditional"]
    lora_rank: Whole = Field(ge=0)  # 0: the whole DiT trains
    anchor_threshold: float = Field(ge=0, le=1)  # ROUGE-L that an anchor caption must reach
    anchor_attempts: Whole = Field(ge=1)  # samples before the prompt is given up

    @model_validator(mode="after")
    def _check(self) -> Stage2:
        if self.train_steps >= self.render_steps:
            raise ValueError(
                f"train_steps is {self.train_steps}, but of {self.render_steps} render_steps the last is not "
                f"stochastic; use 1 to {self.render_steps - 1}, or 0 for all of these"
            )
        return self


class AllInOne(Section):
    """Both models in one stage, on one shared reward; everything else is stage 1's and stage 2's."""

    steps: Whole = Field(ge=1)
    prompts: Whole = Field(ge=1)


class Generate(Section):
    """How answers are made at evaluation."""

    temperature: float = Field(ge=0)
    top_p: float = Field(gt=0, le=1)
    max_new_tokens: Whole = Field(ge=4)
    steps: Whole = Field(ge=1)  # denoising steps
    guidance: float = Field(ge=1)
    batch: Whole = Field(ge=1)


class Evaluate(Section):
    samples: Whole = Field(ge=2)  # of each kind
    bootstrap: Whole = Field(ge=10)  # resamples
    metrics: list[str]  # further ones, package.module:function


class Params(Section):
    """Everything that applies at the current scale."""

    scale: str
    seed: Whole = Field(ge=0)  # of everything
    train_seed: Whole = Field(ge=0)  # of SFT and GRPO: data, base models and evaluation stay the same
    world: World
    machine: Machine
    keep: Keep
    video: Video
    curate: Curate
    judge: Judge
    models: Models
    base: Base
    sft: Sft
    rewards: Rewards
    stage1: Stage1
    stage2: Stage2
    all_in_one: AllInOne
    generate: Generate
    evaluate: Evaluate

    @model_validator(mode="after")
    def _check(self) -> Params:
        self._check_shares()
        self._check_sizes()
        for stage in ("stage1", "stage2"):
            presets, reward = getattr(self.rewards, stage), getattr(self, stage).reward
            if reward not in presets:
                raise ValueError(f"{stage}.reward: {reward!r} is unknown; use {one_of(presets)}")
        return self

    def _check_shares(self) -> None:
        """Batches that the processes can share evenly."""
        batches = {f"base.{n}.batch": getattr(self.base, n).batch for n in ("vae", "clip", "detector", "vdm", "vlm")}
        batches |= {"sft.vlm.batch": self.sft.vlm.batch, "sft.vdm.batch": self.sft.vdm.batch}
        batches |= {f"{s}.prompts": getattr(self, s).prompts for s in ("stage1", "stage2", "all_in_one")}
        for name, batch in batches.items():
            if batch % self.machine.processes:
                raise ValueError(
                    f"{name} is {batch}, which {self.machine.processes} processes cannot share evenly; "
                    "make it a multiple of machine.processes"
                )

    def _check_sizes(self) -> None:
        """Clips that the models take as they are, before anything is curated or trained."""
        video, (time, space) = self.video, self.models.vdm.factors()
        if (video.frames - 1) % time:
            lower = (video.frames - 1) // time * time + 1
            raise ValueError(
                f"video.frames: {video.frames} does not fit models.vdm, whose VAE makes a latent of the first picture "
                f"and of every {time} after it; use {lower} or {lower + time}"
            )
        for side in ("height", "width"):
            size = getattr(video, side)
            if size % space:
                near = [n for n in (size // space * space, (size // space + 1) * space) if n]
                raise ValueError(
                    f"video.{side}: {size} does not fit models.vdm, whose tokens are {space} pixels wide (VAE factor "
                    f"x DiT patch); use {one_of(near)}"
                )
        latents, references = (video.frames - 1) // time + 1, self.models.vdm.references
        if references > latents:
            raise ValueError(
                f"models.vdm.references: {references}, but {video.frames} frames have {latents} latents; "
                f"use 1 to {latents}"
            )
        if self.curate.codec == "h264" and (video.height % 2 or video.width % 2):
            raise ValueError(
                f"video is {video.height} x {video.width}, but curate.codec: h264 needs an even height and width; "
                "make both even"
            )

    def resolved(self) -> dict[str, Any]:
        """A plain nested dict (JSON and YAML can hold it), equal for equal parameters."""
        return self.model_dump()

    @classmethod
    def from_resolved(cls, tree: dict[str, Any]) -> Params:
        """The parameters again, exactly: what a worker process gets."""
        return cls.model_validate(tree)
