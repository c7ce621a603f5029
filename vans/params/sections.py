"""The sections of params.yaml. To add a parameter: one field here (its comment is the help), one line in params.yaml.

A field's type and bounds are its check; ``check`` says what no single field can. All scales are checked.
"""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vans.errors import one_of
from vans.params.arms import ArmsParams
from vans.params.base import Section, Wrong, validated
from vans.params.endpoint import EndpointParams
from vans.params.fit import latents, sizes
from vans.params.rewards import Rewards
from vans.params.training import AllInOne, Base, Evaluate, Generate, Sft, Stage1, Stage2


class World(Section):
    """The toy world's generator: what ``data/`` holds."""

    seed: int = Field(ge=0)
    procedural_train: int = Field(ge=0)  # videos
    procedural_test: int = Field(ge=0)
    predictive_train: int = Field(ge=0)  # scenes; two sources each
    predictive_test: int = Field(ge=0)
    surprise: float = Field(ge=0, le=1)  # probability of a condition's other outcome


class MachineParams(Section):
    """What the scale runs on."""

    device: Literal["auto", "cpu", "cuda"]
    processes: int = Field(ge=1)  # data-parallel workers (GPUs at the paper scale)
    threads: int = Field(ge=1)  # CPU threads per worker
    dtype: Literal["float32", "bfloat16"]
    gradient_checkpointing: Literal["none", "half", "all"]  # layers that recompute their activations: the same numbers
    shard: bool = False  # are weights, gradients and optimiser of what trains cut up over the processes?
    grid: bool  # may the ablation grid be trained at this scale?
    engine: Literal["local", "ray"]  # what maps the curation over sources (vans/data/engine.py)
    workers: int = Field(ge=0)  # its processes; 0: one per core
    vae_batch: int = Field(ge=1)  # clips that the VAE encodes or decodes at once
    dit_batch: int = Field(ge=1)  # videos that are rendered at once
    sample_batch: int = Field(ge=1)  # answers that are sampled at once
    decoding: Literal["dynamic", "static", "graph"]  # of their tokens: vans/models/decoding.py
    compile: bool  # the DiT's blocks by torch.compile
    sampler: Literal["vans", "vllm"]  # what draws the answers' tokens (vans/models/engine.py)
    vllm_memory: float = Field(gt=0, lt=1)  # share of a GPU's memory that vllm may take


class Checkpoints(Section):
    """Steps between two checkpoints."""

    base: int = Field(ge=1)
    sft: int = Field(ge=1)
    stage1: int = Field(ge=1)  # all-in-one, too
    stage2: int = Field(ge=1)


class Keep(Section):
    """What is kept while training; it changes no number, so nothing is stale for it."""

    checkpoints: Checkpoints
    groups: int = Field(ge=1)  # every so many steps one rollout group is kept for the pictures


class VideoParams(Section):
    """Every clip, input and target."""

    frames: int = Field(ge=1)
    height: int = Field(ge=8)  # pixels
    width: int = Field(ge=8)
    fps: float = Field(gt=0)


class RLWeights(Section):
    """Weights of the terms of the RL subset's score (vans/data/quality.py)."""

    agreement: float = Field(ge=0)
    motion: float = Field(ge=0)
    length: float = Field(ge=0)
    self_check: float = Field(ge=0)
    visual_gain: float = Field(ge=0)  # measured where it is not 0, by the CLIP of `agreement`


class LLMParams(EndpointParams):
    """A multimodal LLMParams that annotates (docs/annotate.md)."""

    max_tokens: int = Field(ge=16)  # of an answer
    choose_frames: int = Field(ge=2)  # pictures of a segment whose best clip is wanted


class JudgeParams(EndpointParams):
    """The model that the reward term ``judge`` asks."""

    mode: Literal["yes_no", "grade"]  # the likelihood of "yes" against "no", or a grade from 0 to 10


class LocalVLM(Section):
    """The local Qwen2.5-VL that annotates; prompts, pictures and attempts are curate.llm's."""

    repo: str  # of the hub, or a folder
    revision: str | None
    batch: int = Field(ge=1)  # queries of one forward pass


class Curate(Section):
    """From source videos to triplets."""

    min_segment: float = Field(gt=0)  # s
    input_seconds: float = Field(gt=0)  # s, longest input clip; of a shorter segment the whole
    target_seconds: float = Field(gt=0)
    codec: Literal["raw", "h264"]
    annotator: str  # one of vans.data.annotate.ANNOTATORS
    llm: LLMParams
    qwen: LocalVLM
    flowery: float = Field(ge=0, le=1)  # toy world: share of flowery training captions; held-out ones are plain
    rl: int = Field(ge=0)  # triplets of the RL subset
    rl_weights: RLWeights
    rl_motion: float = Field(gt=0)  # mean change of a pixel per frame (0..1) that counts as full motion
    agreement: Literal["none", "clip"]  # of target clip and caption; clip: by models.clip.repo
    near_duplicate: float = Field(ge=0, le=1)  # distance up to which two videos are one (vans/data/duplicates.py)
    shot_threshold: float = Field(gt=0)
    skipped_steps: bool  # training pairs across one dropped step, too, which the question then tells
    held_out: str | None  # a list of `vans split`: the held-out samples are these; null: by the sources' subsets

    @model_validator(mode="after")
    def check(self) -> Self:
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
    def check(self) -> Self:
        if self.repo is not None and not self.revision:
            raise ValueError("repo needs a pinned revision (a commit id), so that the same weights come back")
        return self


class VLMModel(Model):
    system: str  # system prompt: says how to answer
    positions: Literal["grid", "largest"]  # of text behind a video: vans/models/positions.py
    frames: int | None = Field(ge=1)  # pictures of a clip that it sees; null: as the protocol has it, ours: all


class VDMModel(Model):
    references: int = Field(ge=1)  # n reference latents of the input video
    shift: float = Field(gt=0)  # flow shift
    max_text: int = Field(ge=2)  # tokens of a caption
    negative_prompt: str


class DetectorParams(Section):
    """FVD's network: the toy world's own (``path`` null), or the I3D TorchScript in a file."""

    path: str | None
    sha256: str | None
    config: dict[str, Any]


class Models(Section):
    protocol: Literal["ours", "release"]  # how an answer is made (vans/models/protocol.py)
    prompts: str | None  # a checkout of the release's repository, whose prompts protocol: release takes
    vlm: VLMModel
    vdm: VDMModel
    clip: Model
    detector: DetectorParams


class Params(Section):
    """Everything that applies at the current scale."""

    scale: str
    seed: int = Field(ge=0)  # everything
    train_seed: int = Field(ge=0)  # SFT, stage 1, stage 2, all-in-one; same data, base models and evaluation noise
    rewards: Rewards
    world: World
    machine: MachineParams
    keep: Keep
    video: VideoParams
    curate: Curate
    models: Models
    base: Base
    sft: Sft
    stage1: Stage1
    stage2: Stage2
    all_in_one: AllInOne
    arms: ArmsParams
    judge: JudgeParams
    generate: Generate
    evaluate: Evaluate

    @classmethod
    def from_resolved(cls, tree: dict[str, Any]) -> Self:
        """The parameters whose ``resolved()`` this is, checked again."""
        return validated(cls, tree, ".".join, "parameters")

    @model_validator(mode="after")
    def check(self) -> Self:
        self._check_presets()
        self._check_shares()
        self._check_video()
        return self

    def _check_presets(self) -> None:
        for stage in ("stage1", "stage2"):
            reward, presets = getattr(self, stage).reward, getattr(self.rewards, stage)
            if reward not in presets:
                raise Wrong(f"{reward!r} is unknown; use {one_of(presets)}", stage, "reward")

    def _check_shares(self) -> None:
        """What the processes share divides evenly."""
        processes = self.machine.processes
        shared = {f"base.{n}.batch": getattr(self.base, n).batch for n in ("vae", "clip", "detector", "vdm", "vlm")}
        shared |= {"sft.vlm.batch": self.sft.vlm.batch, "sft.vdm.batch": self.sft.vdm.batch}
        shared |= {f"{n}.prompts": getattr(self, n).prompts for n in ("stage1", "stage2", "all_in_one")}
        for name, count in shared.items():
            if count % processes:
                raise ValueError(
                    f"{name} is {count}, which {processes} processes cannot share evenly; "
                    "make it a multiple of machine.processes"
                )

    def _check_video(self) -> None:
        """The clips fit the models, as far as is knowable before there are any."""
        v, vdm = self.video, self.models.vdm
        if self.curate.codec == "h264" and (v.height % 2 or v.width % 2):
            raise ValueError(
                f"video is {v.height} x {v.width}, but curate.codec: h264 needs an even height and width; "
                "make both even"
            )
        for name, (unit, rest) in sizes(vdm.repo, vdm.revision, vdm.config).items():
            value = getattr(v, name)
            if value % unit == rest % unit and value >= rest:
                continue
            low = value - (value - rest) % unit
            least = max(rest, {"frames": 1}.get(name, 8))
            fit = [n for n in (low, low + unit) if n >= least and n % unit == rest % unit]
            form = f"{unit}k + {rest}" if rest else f"a multiple of {unit}"
            raise Wrong(
                f"{value} does not fit the models (VAE factor x patch): must be {form}; the nearest are {one_of(fit)}",
                *("video", name),
            )
        shown = latents(vdm.repo, vdm.revision, vdm.config, v.frames)
        if vdm.references > shown:
            raise Wrong(
                f"{vdm.references} is more than the {shown} latents of a video of {v.frames} frames; "
                f"use a whole number from 1 to {shown}",
                *("models", "vdm", "references"),
            )
        if (self.models.vlm.frames or 1) > v.frames:
            raise Wrong(
                f"{self.models.vlm.frames} is more than the {v.frames} frames of a clip; use a whole number from 1 to "
                f"{v.frames}, or null for all",
                *("models", "vlm", "frames"),
            )
        if self.models.protocol == "release" and self.models.prompts is None:
            raise Wrong(
                "null, but protocol: release takes its prompts from your copy of the release's repository; name it",
                *("models", "prompts"),
            )
        if self.curate.rl_weights.visual_gain and self.curate.agreement == "none":
            raise Wrong(
                "is CLIP's opinion; use 0.0, or curate.agreement: clip beside it", "curate", "rl_weights", "visual_gain"
            )
        if self.curate.agreement == "clip" and self.models.clip.repo is None:
            raise Wrong(
                "clip needs models.clip.repo; this scale trains its CLIP after the curation, so write none",
                *("curate", "agreement"),
            )
        if self.machine.sampler == "vllm" and self.machine.shard:
            raise Wrong("takes whole adapters, and machine.shard cuts them up; use vans", "machine", "sampler")
        if self.stage2.explore_size and self.machine.shard:
            raise Wrong(
                "machine.shard needs all GPUs to render equally often, and candidates are not; use 0",
                *("stage2", "explore_size"),
            )
        if self.stage2.train_steps >= self.stage2.render_steps:
            raise Wrong(
                f"{self.stage2.train_steps} is out of range; use a whole number from 0 to "
                f"{self.stage2.render_steps - 1} (below render_steps: the last step is not stochastic)",
                *("stage2", "train_steps"),
            )
