"""params.yaml as typed, frozen objects: the only place where parameters are read.

    params = load()              # finds the root from the current folder
    params.stage1.steps          # the section of the current scale …
    params.stage1.reward         # … and the top-level section of that name, put together
    params.resolved()            # plain dict of everything that applies at this scale, saved with each run

To add a parameter: one field in the dataclass of its section below (its comment is the help) and one line in
each scale of params.yaml. A misspelt or unknown key, a missing one, a wrong type, a value out of range: a
UserError that names the key and the fix. All scales are checked, not only the current one.
"""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from vans.errors import UserError
from vans.llm.net import check_url
from vans.typed import FILE, above, between, build, choice, one_of, section


@dataclass(frozen=True)
class World:
    """The toy world's generator: what ``data/`` holds."""

    seed: int = between(0)
    procedural_train: int = between(0)  # videos
    procedural_test: int = between(0)
    predictive_train: int = between(0)  # scenes; two sources each
    predictive_test: int = between(0)
    surprise: float = between(0, 1)  # probability of a condition's other outcome


@dataclass(frozen=True)
class Machine:
    """What the scale runs on."""

    device: str = choice("auto", "cpu", "cuda")
    processes: int = between(1)  # data-parallel workers (GPUs at the paper scale)
    threads: int = between(1)  # CPU threads per worker
    dtype: str = choice("float32", "bfloat16")
    gradient_checkpointing: bool = choice(True, False)  # recompute activations: less memory, a third more time
    grid: bool = choice(True, False)  # may the ablation grid be trained at this scale?
    engine: str = choice("local", "ray")  # what maps the curation over sources (vans/data/engine.py)
    workers: int = between(0)  # its processes; 0: one per core


@dataclass(frozen=True)
class Clip:
    """Every clip, input and target."""

    frames: int = between(1)
    height: int = between(8)  # pixels
    width: int = between(8)
    fps: float = above(0)

    def check(self) -> None:
        if self.frames % 4 != 1:
            raise ValueError("frames must be 4k + 1 (the VAE compresses time by 4): 5, 9, 13, … 33, …")


@dataclass(frozen=True)
class RLWeights:
    """Weights of the terms of the RL subset's score (vans/data/quality.py)."""

    agreement: float = between(0)
    motion: float = between(0)
    length: float = between(0)
    self_check: float = between(0)


@dataclass(frozen=True)
class LLM:
    """A multimodal LLM that annotates (docs/annotate.md). The key is in no file: it comes from the environment."""

    url: str  # the endpoint's address, up to and without /chat/completions
    model: str
    key_variable: str  # name of the environment variable that holds the key
    plain_http: bool = choice(True, False)  # may http:// go to other machines?
    extra: dict[str, Any] = section()  # further fields of each request; null takes one away
    temperature: float = between(0, 2)
    max_tokens: int = between(16)  # of an answer
    choose_frames: int = between(2)  # pictures of a segment whose best clip is wanted
    frames: int = between(1)  # pictures of each clip that is written about
    side: int = between(16)  # px, longer side of a picture
    attempts: int = between(1)  # answers asked for until one can be used
    concurrency: int = between(1)  # calls under way at once
    timeout: float = above(0)  # s, for a whole answer
    retries: int = between(0)  # of a call that failed on the way
    requests_per_minute: int | None = between(1)
    tokens_per_minute: int | None = between(1)
    budget: float | None = between(0)  # in the prices' currency, for all runs together
    price_input: float | None = between(0)  # of a million tokens
    price_output: float | None = between(0)
    image_tokens: int = between(0)  # estimate for a picture
    answer_tokens: int = between(1)  # estimate for an answer
    cache: str = section()  # file of kept answers

    def check(self) -> None:
        check_url(self.url, self.plain_http)
        if self.budget is not None and (self.price_input is None or self.price_output is None):
            raise ValueError("a budget needs price_input and price_output (your provider's, per million tokens)")
        if not re.fullmatch(r"[A-Z][A-Z0-9_]{0,63}", self.key_variable):  # a key put here by mistake is not shown
            raise ValueError("key_variable must be the name of an environment variable, such as VANS_API_KEY")
        if kept := sorted({"model", "messages", "stream", "n"} & set(self.extra)):
            raise ValueError(f"extra.{kept[0]}: cannot be set here")


@dataclass(frozen=True)
class LocalVLM:
    """The local Qwen2.5-VL that annotates; prompts, pictures and attempts are curate.llm's."""

    repo: str  # of the hub, or a folder
    revision: str | None
    batch: int = between(1)  # queries of one forward pass


@dataclass(frozen=True)
class Curate:
    """From source videos to triplets."""

    min_segment: float = above(0)  # s
    input_seconds: float = above(0)  # s, longest input clip; of a shorter segment the whole
    target_seconds: float = above(0)
    codec: str = choice("raw", "h264")
    annotator: str = section()  # one of vans.data.annotate.ANNOTATORS
    llm: LLM = section()
    qwen: LocalVLM = section()
    flowery: float = between(0, 1)  # toy world: share of flowery training captions; held-out ones are plain
    rl: int = between(0)  # triplets of the RL subset
    rl_weights: RLWeights = section()
    rl_motion: float = above(0)  # mean change of a pixel per frame (0..1) that counts as full motion
    agreement: str = choice("none", "clip")  # of target clip and caption; clip: by models.clip.repo
    near_duplicate: float = between(0, 1)  # distance up to which two videos are one (vans/data/duplicates.py)
    shot_threshold: float = above(0)

    def check(self) -> None:
        from vans.data.annotate import ANNOTATORS

        if self.annotator not in ANNOTATORS:
            raise ValueError(f"annotator: {self.annotator!r} is unknown; use {one_of(ANNOTATORS)}")


@dataclass(frozen=True)
class Model:
    """One model: built from ``config`` and trained from scratch, or loaded from ``repo`` at ``revision``."""

    repo: str | None
    revision: str | None
    config: dict[str, Any]

    def check(self) -> None:
        if self.repo is not None and not self.revision:
            raise ValueError("repo needs a pinned revision (a commit id), so that the same weights come back")


@dataclass(frozen=True)
class VLMModel(Model):
    system: str  # system prompt: says how to answer


@dataclass(frozen=True)
class VDMModel(Model):
    references: int = between(1)  # n reference latents of the input video
    shift: float = above(0)  # flow shift
    max_text: int = between(2)  # tokens of a caption
    vae_batch: int = between(1)  # clips that the VAE encodes or decodes at once
    dit_batch: int = between(1)  # videos that are rendered at once
    negative_prompt: str = section()


@dataclass(frozen=True)
class Detector:
    """FVD's network: the toy world's own (``path`` null), or the I3D TorchScript in a file."""

    path: str | None
    sha256: str | None
    config: dict[str, Any]


@dataclass(frozen=True)
class Models:
    vlm: VLMModel
    vdm: VDMModel
    clip: Model
    detector: Detector


@dataclass(frozen=True)
class Fit:
    """A supervised training."""

    steps: int = between(1)
    batch: int = between(1)  # samples of a step, over all processes
    optimizer: str = choice("adamw", "muon")
    lr: float = above(0)
    adam_lr: float = above(0)  # muon only: of what is not a matrix
    warmup: int = between(0)  # steps
    decay: float = between(0, 1)  # share of the steps over which lr falls to 0
    grad_clip: float = above(0)


@dataclass(frozen=True)
class Base:
    vae: Fit
    clip: Fit
    detector: Fit
    vdm: Fit
    vlm: Fit
    drop_caption: float = between(0, 1)  # share of captions left out, for guidance
    checkpoint_every: int = between(1)


@dataclass(frozen=True)
class SftVLM(Fit):
    micro_batch: int = between(1)  # samples of one forward pass
    lora_rank: int = between(1)
    lora_alpha: int = between(1)
    checkpoint_every: int = between(1)


@dataclass(frozen=True)
class SftVDM(Fit):
    micro_batch: int = between(1)
    drop_caption: float = between(0, 1)
    checkpoint_every: int = between(1)


@dataclass(frozen=True)
class Sft:
    vlm: SftVLM
    vdm: SftVDM


@dataclass(frozen=True)
class Stage1:
    """Stage 1: GRPO on the VLM, VDM frozen."""

    weights: dict[str, Any]  # lambda of each reward term: format, t1, v1
    reward: str = choice("full", "no_t1", "no_v1")
    steps: int = between(1)
    prompts: int = between(1)  # of a step, over all processes
    group: int = between(2)  # G answers of each prompt
    micro_batch: int = between(1)  # answers of one differentiated forward pass
    lr: float = above(0)
    warmup: int = between(0)  # steps
    beta: float = between(0)  # weight of the KL to the policy at the start
    clip: float = above(0)
    inner_updates: int = between(1)  # optimiser steps on one rollout
    grad_clip: float = above(0)
    temperature: float = above(0)  # of the rollout
    top_p: float = above(0, 1)
    max_new_tokens: int = between(4)
    render_steps: int = between(2)
    guidance: float = between(1)
    share_noise: bool = choice(True, False)  # one initial noise for all videos of a group
    render_distinct: bool = choice(True, False)  # equal captions of a group are rendered once
    keep_groups: int = between(1)  # every so many steps one group is kept for the pictures
    checkpoint_every: int = between(1)

    def check(self) -> None:
        if self.top_p != 1.0:
            raise ValueError("top_p must be 1.0: log-probabilities are of the whole distribution")


@dataclass(frozen=True)
class Stage2:
    """Stage 2: GRPO on the VDM, tuned VLM frozen as the anchor."""

    weights: dict[str, Any]  # lambda of each reward term: v2, c2
    reward: str = choice("full", "no_c2", "no_v2")
    steps: int = between(1)
    prompts: int = between(1)
    group: int = between(2)
    micro_batch: int = between(1)  # videos of one differentiated forward pass (and of a rollout's)
    lr: float = above(0)
    warmup: int = between(0)  # steps
    beta: float = between(0)
    clip: float = above(0)
    inner_updates: int = between(1)
    grad_clip: float = above(0)
    noise_level: float = above(0)  # eta of the SDE
    render_steps: int = between(2)
    train_steps: int = between(0)  # SDE steps trained on, a window from the noisy end; 0: all but the last
    guidance: float = between(1)
    guidance_grad: str = choice("both", "conditional")
    share_noise: bool = choice(True, False)
    lora_rank: int = between(0)  # 0: the whole DiT trains
    anchor_threshold: float = between(0, 1)  # ROUGE-L that an anchor caption must reach
    anchor_attempts: int = between(1)  # samples before the prompt is given up
    keep_groups: int = between(1)
    checkpoint_every: int = between(1)


@dataclass(frozen=True)
class AllInOne:
    """Both models in one stage, on one shared reward; everything else is stage 1's and stage 2's."""

    steps: int = between(1)
    prompts: int = between(1)


@dataclass(frozen=True)
class Generate:
    """How answers are made at evaluation."""

    temperature: float = between(0)
    top_p: float = above(0, 1)
    max_new_tokens: int = between(4)
    steps: int = between(1)  # denoising steps
    guidance: float = between(1)
    batch: int = between(1)


@dataclass(frozen=True)
class Evaluate:
    samples: int = between(2)  # of each kind
    bootstrap: int = between(10)  # resamples


@dataclass(frozen=True)
class Params:
    """Everything that applies at the current scale."""

    scale: str
    seed: int = between(0)
    world: World = section()
    machine: Machine = section()
    clip: Clip = section()
    curate: Curate = section()
    models: Models = section()
    base: Base = section()
    sft: Sft = section()
    stage1: Stage1 = section()
    stage2: Stage2 = section()
    all_in_one: AllInOne = section()
    generate: Generate = section()
    evaluate: Evaluate = section()

    def check(self) -> None:
        fits: dict[str, Fit] = {f"base.{n}": getattr(self.base, n) for n in ("vae", "clip", "detector", "vdm", "vlm")}
        fits |= {"sft.vlm": self.sft.vlm, "sft.vdm": self.sft.vdm}
        for name, fit in fits.items():
            if fit.batch % self.machine.processes:
                raise ValueError(
                    f"{name}.batch is {fit.batch}, which {self.machine.processes} processes cannot share evenly; "
                    "make it a multiple of machine.processes"
                )
        if self.curate.codec == "h264" and (self.clip.height % 2 or self.clip.width % 2):
            raise ValueError(
                f"clip is {self.clip.height} x {self.clip.width}, but curate.codec: h264 needs an even height and "
                "width; make both even"
            )

    def resolved(self) -> dict[str, Any]:
        """A plain nested dict (JSON and YAML can hold it), equal for equal parameters."""
        return dataclasses.asdict(self)


# --------------------------------------------------------------------------------------------------- reading
def find_root(start: str | Path | None = None) -> Path:
    """The repository's root: the first folder with a dvc.yaml at or above ``start`` (the current folder).

    Never derived from where this package is installed: an experiment in a temporary copy of the repository
    must read and write that copy.
    """
    here = Path(start or Path.cwd()).absolute()
    for folder in (here, *here.parents):
        if (folder / "dvc.yaml").is_file():
            return folder
    raise UserError(f"{here}: no dvc.yaml here or above; change into the repository's folder and run again")


def load(root: str | Path | None = None, scale: str | None = None) -> Params:
    """Read and check ``params.yaml`` of ``root`` (found from the current folder when None).

    ``scale`` overrides the key of that name. Raises UserError for anything that is not right.
    """
    path = Path(root or find_root()) / FILE
    return from_dict(read(path), scale)


def read(path: Path) -> dict[str, Any]:
    """The file as nested dicts; UserError when it is missing or not YAML."""
    try:
        tree = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{path}: missing; get it back with `git checkout {FILE}`") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not valid YAML: {error}") from error
    if not isinstance(tree, dict):
        raise UserError(f"{path}: must hold keys with values; get it back with `git checkout {FILE}`")
    return tree


def from_dict(tree: dict[str, Any], scale: str | None = None) -> Params:
    """Typed parameters from the tree of ``params.yaml``; every scale is checked, one is returned."""
    tree = dict(tree)
    if not isinstance(scales := tree.pop("scales", None), dict) or not scales:
        raise UserError(f"{FILE}: scales: missing; it must hold a section for each scale")
    chosen = scale or tree.get("scale")
    if chosen not in scales:
        raise UserError(f"{FILE}: scale: {chosen!r} is unknown; use {one_of(list(scales))}")
    built = {name: build(Params, *_merged(tree, name, scales[name])) for name in scales}
    return built[chosen]


def _merged(tree: dict[str, Any], name: str, section: Any) -> tuple[dict[str, Any], dict[str, str]]:
    """Top-level keys and a scale's put together, and each scale section's full name for messages.

    A section may stand at both places (stage1.reward and scales.tiny.stage1.steps), a single key may not.
    """
    if not isinstance(section, dict):
        raise UserError(f"{FILE}: scales.{name}: must hold keys with values, not {section!r}")
    whole: dict[str, Any] = {**tree, "scale": name}
    sections = [f.name for f in dataclasses.fields(Params) if f.name not in tree]
    names = {key: f"scales.{name}.{key}" for key in sections}
    for key, value in section.items():
        names[key] = f"scales.{name}.{key}"
        if key not in tree:
            whole[key] = value
        elif isinstance(value, dict) and isinstance(tree[key], dict):
            if both := sorted(set(value) & set(tree[key])):
                raise UserError(f"{FILE}: {both[0]} stands in {key} and in {names[key]}; remove one of them")
            whole[key] = {**tree[key], **value}
            names |= {f"{key}.{sub}": f"{key}.{sub}" for sub in tree[key]}  # those stand at the top
        else:
            raise UserError(f"{FILE}: {key} stands at the top and in scales.{name}; remove one of the two")
    return whole, names
