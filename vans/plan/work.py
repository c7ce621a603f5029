"""How much each stage computes: parts of a step with their FLOPs, steps, hours.

Reckoned with
1. An answer has `ANSWER` tokens, or stage1.max_new_tokens if those are fewer; a prompt its clip's tokens and TEXT more.
2. A backward pass costs two forward ones where weights train, one and two attentions under a LoRA; with
   machine.gradient_checkpointing one forward pass more.
3. Anchors of stage 2 are found at the first attempt, captions of a group differ, every prompt's clip is read anew.
4. The cascade's own VDM is reckoned as the others are, though it has no reference latents.
5. CLIP, FVD's network, the optimisers and what CPUs do are left out, and what an endpoint computes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from vans.grid import Arm, Cell, Grid
from vans.models.flow import in_interval
from vans.params.arms import ENDPOINT
from vans.plan import flops, meta, released
from vans.plan.gpus import GPU

ANSWER, TEXT = 200, 100  # tokens of an answer; of a prompt beside its clip
PARTS = ("generate", "render", "decode", "update")


@dataclass(frozen=True)
class Part:
    """Of a step or a sample: FLOPs, and the bytes of weights that must be read for them where that is what takes time.

    kind: "bf16", or "tf32" for the VAE.
    """

    name: str
    flop: float
    kind: str = "bf16"
    read: float = 0.0

    def seconds(self, gpu: GPU, count: int, fraction: float) -> float:
        """On so many GPUs that reach this fraction of their peaks."""
        peak = gpu.peak * 1e12 * (0.5 if self.kind == "tf32" else 1.0)
        return max(self.flop / peak, self.read / (gpu.bandwidth * 1e12)) / fraction / count


@dataclass(frozen=True)
class Work:
    """What a step makes, and its FLOPs, which are only reckoned where they are asked for."""

    videos: int
    flop: Callable[[], float] = lambda: 0.0


@dataclass(frozen=True)
class Stage:
    """A stage of the graph: `steps` times its parts, and once what comes before them."""

    name: str
    steps: int
    parts: tuple[Part, ...]
    once: tuple[Part, ...] = ()

    @property
    def flop(self) -> float:
        return self.steps * sum(p.flop for p in self.parts) + sum(p.flop for p in self.once)

    def hours(self, gpu: GPU, count: int, fraction: float) -> float:
        step, once = (sum(p.seconds(gpu, count, fraction) for p in parts) for parts in (self.parts, self.once))
        return (self.steps * step + once) / 3600


class Models:
    """The architectures of a scale, and what one pass of each costs at its clips' size."""

    def __init__(self, params: Any):
        self.params = params
        self.vdm = released.vdm_config(params.models.vdm)
        self.vlm = released.vlm_config(params.models.vlm)
        self.language, self.vision = self.vlm["text_config"], self.vlm["vision_config"]
        if "vocab_size" not in self.language:  # a toy's: as many words as its world has
            from vans.models.tokenizer import chat_tokenizer, text_tokenizer
            from vans.toy import world

            words, ends = world.vocabulary(), dict.fromkeys(("bos_token_id", "eos_token_id", "pad_token_id"))
            self.language = {**self.language, "vocab_size": len(chat_tokenizer(words)), **ends}
            self.vlm = {**self.vlm, "text_config": self.language}
            text = {**self.vdm["text_encoder"], "vocab_size": len(text_tokenizer(words))}
            self.vdm = {**self.vdm, "text_encoder": text}
        clip, vae = params.video, self.vdm["vae"]
        self.size = (clip.frames, clip.height, clip.width)
        time, space = vae.get("scale_factor_temporal", 4), vae.get("scale_factor_spatial", 8)
        latents = (clip.frames - 1) // time + 1
        self.latents = (vae["z_dim"], latents, clip.height // space, clip.width // space)  # C, T', H', W'
        t, h, w = self.vdm["dit"]["patch_size"]
        self.shown = (self.latents[0], latents + params.models.vdm.references, *self.latents[2:])  # with the references
        self.tokens = (self.shown[1] // t) * (self.latents[2] // h) * (self.latents[3] // w)
        unit = self.vision["patch_size"] * self.vision["spatial_merge_size"]
        high, wide = (max(1, round(side / unit)) * self.vision["spatial_merge_size"] for side in self.size[1:])
        self.grid = (-(-clip.frames // self.vision["temporal_patch_size"]), high, wide)
        self.patches = self.grid[0] * high * wide
        self.seen = self.patches // self.vision["spatial_merge_size"] ** 2  # tokens of a clip
        self.prompt = self.seen + TEXT
        self.answer = min(ANSWER, params.stage1.max_new_tokens)

    # ------------------------------------------------------------------ one pass, for one video or answer
    @cached_property
    def dit(self) -> float:
        return flops.dit(self.vdm["dit"], self.tokens, self.params.models.vdm.max_text)

    @cached_property
    def text(self) -> float:
        return flops.text_encoder(self.vdm["text_encoder"], self.params.models.vdm.max_text)

    @cached_property
    def vae(self) -> tuple[float, float]:
        """Encoding and decoding a clip."""
        return meta.vae_flop(self.vdm["vae"], self.size)

    @cached_property
    def tower(self) -> float:
        return flops.tower(self.vision, self.language["hidden_size"], self.grid)

    @cached_property
    def read_prompt(self) -> float:
        return self.tower + flops.language(self.language, self.prompt, 1)

    def scored(self, together: int = 1) -> float:
        """Log-probabilities of an answer, where so many stand behind one prompt."""
        rows = together * self.answer
        return flops.language(self.language, self.prompt + rows, rows + 1) / together

    def learnt(self, together: int = 1) -> float:
        """The same with its gradient under a LoRA."""
        rows, scored = self.prompt + together * self.answer, self.scored(together)
        linears, scores = (part / together for part in flops.language_layers(self.language, rows, rows))
        return scored * (1 + self.again) + scored - linears - scores + linears + 2 * scores

    @property
    def again(self) -> float:
        """Forward passes that recomputing adds: the share of the layers that do."""
        return recomputed(self.params.machine.gradient_checkpointing)

    # ------------------------------------------------------------------ parts of steps
    def generate(self, prompts: int, answers: int) -> Part:
        """Sampled answers: of each batch the weights are read once a token."""
        g, machine = flops.generated(self.language, self.prompt, self.answer), self.params.machine
        batches = max(machine.processes, -(-answers // machine.sample_batch))
        weights = meta.parameters(meta.VLM, self.vlm) * bytes_of(machine.dtype)
        flop = prompts * self.read_prompt + answers * g
        return Part("generate", flop, read=batches * self.answer * weights)

    def render(self, videos: int, steps: int, guidance: float) -> Part:
        return Part("render", videos * (self.text + steps * branches(guidance) * self.dit))

    def rendered(self, prompts: int, s: Any) -> Part:
        """Stage 1's videos: of G answers, and before that of G' candidates where some are chosen."""
        flop = prompts * s.group_size * (self.text + sum(dit_passes(s, s.render_steps)) * self.dit)
        return Part("render", flop + prompts * s.explore_size * (self.text + self._candidate(s)))

    def rollout(self, videos: int, s: Any) -> Part:
        """Stochastic steps: the policy's velocity in all, the reference's in those that are trained; G' candidates."""
        of_steps = dit_passes(s, s.render_steps)
        passes = sum(of_steps) + sum(of_steps[: trained_steps(s)])
        candidates = videos / s.group_size * s.explore_size
        return Part("render", videos * (self.text + passes * self.dit) + candidates * self._candidate(s))

    def _candidate(self, s: Any) -> float:
        return sum(dit_passes(s, s.explore_steps)) * self.dit

    def decode(self, videos: int) -> Part:
        return Part("decode", videos * self.vae[1], "tf32")

    def vlm_update(self, answers: int, s: Any) -> Part:
        together = min(s.micro_batch, s.group_size)  # behind a prompt that is read once
        return Part("update", answers * (self.scored(together) + s.inner_updates * self.learnt(together)))

    def dit_learnt(self, lora: bool) -> float:
        return self.dit * (1 + self.again + (1 if lora else 2))

    def vdm_update(self, videos: int, s: Any) -> Part:
        learnt = self.dit_learnt(s.lora_rank > 0)
        guided = sum(dit_passes(s, s.render_steps)[: trained_steps(s)]) - trained_steps(s)  # steps
        # without a gradient the first update's is the rollout's
        other = s.inner_updates * learnt if s.guidance_grad == "both" else (s.inner_updates - 1) * self.dit
        return Part("update", videos * (trained_steps(s) * s.inner_updates * learnt + guided * other))

    # ------------------------------------------------------------------ stages
    def step(self, stage: str, renders: bool = True, anchored: bool = True) -> tuple[Part, ...]:
        """The parts of one step of "sft/vlm", "sft/vdm", "stage1", "stage2" or "all_in_one", over all processes.

        renders: does a term of stage 1's reward look at videos? anchored: does a VLM write stage 2's captions?
        """
        p = self.params
        s1, s2 = p.stage1, p.stage2
        if stage == "sft/vlm":
            return (Part("update", p.sft.vlm.batch * (self.tower + self.learnt())),)
        if stage == "sft/vdm":
            return (Part("update", p.sft.vdm.batch * self.dit_learnt(lora=False)),)
        if stage == "stage1":
            n = s1.prompts * s1.group_size
            candidates = s1.prompts * s1.explore_size
            shown = (self.rendered(s1.prompts, s1), self.decode(candidates + n)) if renders else ()
            return (self.generate(s1.prompts, candidates or n), *shown, self.vlm_update(n, s1))
        if stage == "stage2":
            n = s2.prompts * s2.group_size
            anchor = (self.generate(s2.prompts, s2.prompts),) if anchored else ()
            shown = n + s2.prompts * s2.explore_size
            return (*anchor, self.rollout(n, s2), self.decode(shown), self.vdm_update(n, s2))
        n, s2 = p.all_in_one.prompts * s1.group_size, s2.with_(explore_size=0)
        updates = Part("update", self.vlm_update(n, s1).flop + self.vdm_update(n, s2).flop)
        return (self.generate(p.all_in_one.prompts, n), self.rollout(n, s2), self.decode(n), updates)

    def encoded(self, clips: int) -> Part:
        return Part("encode", clips * self.vae[0], "tf32")

    def cell(self, cell: Cell) -> Stage:
        """A run of GRPO."""
        from vans.rewards.plugs import plugs

        terms = plugs(getattr(self.params.rewards, cell.stage)[cell.reward], self.params)
        renders = cell.stage != "stage1" or any(plug.needs == "video" for plug in terms)
        parts = self.step(cell.stage, renders, cell.captions == "vlm")
        once = (self.encoded(self.params.curate.rl),) if renders else ()
        return Stage(cell.name, cell.steps or getattr(self.params, cell.stage).steps, parts, once)

    def arm(self, arm: Arm) -> Stage:
        """An arm's answers to the held-out questions of both kinds."""
        g, samples = self.params.generate, 2 * self.params.evaluate.samples
        draws = arm.best_of["n"] if arm.best_of else 1
        parts: tuple[Part, ...] = ()
        if arm.captions == "vlm":
            parts += (self.generate(1, 1),)
        if arm.captions != "none":
            parts += (self.encoded(1), self.render(1, g.steps, g.guidance), self.decode(1))
        return Stage(f"answer/{arm.key}", samples * draws, parts)

    def system(self, key: str) -> list[Stage]:
        """What another system of the main table is trained with, a stage for each run of its own (see
        vans/train/systems.py).
        """
        p, name = self.params, f"systems/{key}"
        sft = {part: (getattr(p.sft, part).steps, self.step(f"sft/{part}")) for part in ("vlm", "vdm")}
        if key == "extension":
            return [Stage(name, *sft["vdm"])]
        if key == "cascade":
            ours = [part for part in sft if getattr(p.arms.cascade, part) is None]
            return [Stage(f"{name} {part.upper()}", *sft[part]) for part in ours]
        from vans.train.systems import flops as of_unified

        return [Stage(name, p.arms.unified.steps, (Part("update", of_unified(p)),))]

    def answering(self, key: str) -> Stage:
        """Another system's answers. What an endpoint or a pipeline of the cascade computes is not known."""
        p, g = self.params, self.params.generate
        at = p.arms.cascade if key == "cascade" else None
        parts: list[Part] = []
        if key != "extension" and not (at and at.vlm == ENDPOINT):
            parts.append(self.generate(1, 1))
        if key == "unified":
            parts.append(Part("connect", self.read_prompt))
        if key != "textual" and not (at and at.vdm):
            guidance = 1.0 if key == "extension" else g.guidance
            parts += [self.encoded(1), self.render(1, g.steps, guidance), self.decode(1)]
        return Stage(f"answer/{key}", 2 * p.evaluate.samples, tuple(parts))

    def stages(self, grid: Grid, triplets: int) -> tuple[list[Stage], list[Stage]]:
        """(main chain, the rest of the grid), in the order in which they can run; of the other systems those of
        `arms.run`.
        """
        p, chain = self.params, grid.main_chain()
        vdm_once = (self.encoded(2 * triplets), Part("text", triplets * self.text))
        first = [
            Stage("sft/vlm", p.sft.vlm.steps, self.step("sft/vlm")),
            Stage("sft/vdm", p.sft.vdm.steps, self.step("sft/vdm"), vdm_once),
        ]
        told = [(f"{c.stage}@{c.key}", self.cell(c)) for c in grid.cells.values()]
        told += [(f"answer@{key}", self.arm(arm)) for key, arm in grid.arms.items()]
        told += [(f"systems@{key}", s) for key in grid.systems_run(trained=True) for s in self.system(key)]
        told += [(f"systems_answer@{key}", self.answering(key)) for key in grid.systems_run()]
        return first + [s for name, s in told if name in chain], [s for name, s in told if name not in chain]


def of_step(params: Any, stage: str, renders: bool = True, anchored: bool = True) -> Work:
    """What one step of a training does (see `Models.step`), for the line in its log."""
    p = params
    made = {
        "sft/vlm": p.sft.vlm.batch,
        "sft/vdm": p.sft.vdm.batch,
        "stage1": p.stage1.prompts * p.stage1.group_size,
        "stage2": p.stage2.prompts * p.stage2.group_size,
        "all_in_one": p.all_in_one.prompts * p.stage1.group_size,
    }
    return Work(made[stage], lambda: sum(part.flop for part in Models(params).step(stage, renders, anchored)))


def branches(guidance: float) -> int:
    """Passes of the DiT for one guided velocity."""
    return 1 if guidance == 1 else 2


def dit_passes(s: Any, steps: int) -> list[int]:
    """Passes of the DiT of each of so many denoising steps."""
    interval = (s.guidance_start, s.guidance_stop)
    return [branches(s.guidance) if in_interval(k, steps, interval) else 1 for k in range(steps)]


def trained_steps(s: Any) -> int:
    """Stochastic steps of a trajectory: all but the last, or a window."""
    return s.train_steps or s.render_steps - 1


def recomputed(setting: bool | str) -> float:
    """The share of layers that recompute their activations, by machine.gradient_checkpointing."""
    return {False: 0, "none": 0, "half": 0.5, True: 1, "all": 1}[setting]


def bytes_of(dtype: str) -> int:
    return {"float32": 4, "bfloat16": 2}[dtype]
