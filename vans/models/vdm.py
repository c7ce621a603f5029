"""The video diffusion model: Wan's VAE, umT5 text encoder and DiT, with reference latents.

Coupling (paper, section 3.1): n reference latents, evenly picked along time from the VAE latents of the input
video, stand before the noisy latents on the time axis; all positions share one timestep, as in the released model;
the output at the reference positions is dropped.

Shapes: clips uint8 [N, T, H, W, 3]; latents float32 [N, C, T', H', W'], normalised by the VAE's own mean and std;
text [N, L, D], zero after each text's last token (as Wan's pipeline does).

Deviations from the paper: none in the mechanism. Toy scale: the same classes, built from a config.
"""

from __future__ import annotations

import json
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderKLWan, DPMSolverMultistepScheduler, WanTransformer3DModel
from diffusers.pipelines.wan.pipeline_wan import prompt_clean
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoTokenizer, UMT5Config, UMT5EncoderModel

from vans import files
from vans.errors import UserError
from vans.models.flow import in_interval, ode_step, sigmas
from vans.models.masters import Halved
from vans.models.whole import companion, pretrained
from vans.sharding import rounds, shard, sharded
from vans.template import plain


@dataclass
class VDM:
    """Wan2.1 as three modules and a tokenizer. `dit` is what SFT and stage 2 train; the rest stays frozen."""

    dit: WanTransformer3DModel
    vae: AutoencoderKLWan
    text_encoder: UMT5EncoderModel
    tokenizer: Any
    references: int  # n reference latents
    shift: float  # flow shift of the noise schedule
    max_text: int  # tokens a caption may have
    negative_prompt: str
    autocast_dtype: torch.dtype | None = None  # arithmetic of the DiT; its weights are float32 all the same
    halved: bool = True  # that arithmetic by a copy of the weights; False: by autocast, which suits sharded ones
    compiled: bool = False  # its blocks one by one, by torch.compile
    vae_batch: int = 16  # clips that the VAE holds at once
    dit_batch: int = 64  # videos that are rendered at once
    picking: str = "nearest"  # the references' places among the latents, rounded: to the "nearest", or "down"
    recomputed: str = "none"  # layers whose activations the backward pass computes again
    _copy: Halved | None = field(default=None, init=False, repr=False)

    # ------------------------------------------------------------------ build, load, save
    @classmethod
    def scratch(cls, config: dict, tokenizer, seed: int, **options) -> VDM:
        """The same classes at toy size with random weights; `config` has the sections vae, text_encoder, dit."""
        torch.manual_seed(seed)
        vocabulary = len(tokenizer)
        text = UMT5Config(**{"vocab_size": vocabulary, "is_encoder_decoder": False, **config["text_encoder"]})
        vae = config["vae"]
        neutral = {"latents_mean": [0.0] * vae["z_dim"], "latents_std": [1.0] * vae["z_dim"]}
        return cls(
            dit=WanTransformer3DModel(**{"text_dim": text.d_model, **config["dit"]}),
            vae=AutoencoderKLWan(**{**neutral, **vae}),
            text_encoder=UMT5EncoderModel(text),
            tokenizer=tokenizer,
            **options,
        ).frozen()

    @classmethod
    def load(cls, source: str | Path, revision: str | None = None, dtype: torch.dtype | None = None, **options) -> VDM:
        """From a folder or hub repository in the layout of Wan-AI/Wan2.1-T2V-1.3B-Diffusers (safetensors only).

        `dtype` is the text encoder's. DiT and VAE are float32: what stage 1 renders with is bit for bit what stage 2
        starts from, and the DiT's arithmetic is lowered in a copy (`network`), its own weights are not rounded.
        """
        fix = "check models.vdm.repo and revision in params.yaml, or run the stage that makes them"

        def part(model, folder, dtype=torch.float32):
            return pretrained(model, source, "VDM", fix, folder, revision=revision, torch_dtype=dtype)

        tokenizer = companion(AutoTokenizer, source, "tokenizer", fix, revision=revision, subfolder="tokenizer")
        return cls(
            dit=part(WanTransformer3DModel, "transformer"),
            vae=part(AutoencoderKLWan, "vae"),
            text_encoder=part(UMT5EncoderModel, "text_encoder", dtype or torch.float32),
            tokenizer=tokenizer,
            **options,
        ).frozen()

    def save(self, folder: str | Path) -> None:
        """Write the exact layout that `load` and diffusers' WanPipeline read.

        The scheduler is for the pipeline alone (`sigmas` and `ode_step` are what is used here): DPM-Solver++ of first
        order, which on a flow is Euler's step, on Wan's grid from 0.999 to 0 with the shift applied once (diffusers'
        FlowMatchEulerDiscreteScheduler applies it a second time to the end of its grid).
        """
        folder = Path(folder)
        parts = {
            "scheduler": DPMSolverMultistepScheduler(
                solver_order=1, prediction_type="flow_prediction", use_flow_sigmas=True, flow_shift=self.shift
            ),
            "text_encoder": self.text_encoder,
            "tokenizer": self.tokenizer,
            "transformer": self.dit,
            "vae": self.vae,
        }
        index: dict[str, Any] = {"_class_name": "WanPipeline"}
        self._tokens([""])  # a tokenizer's file says how it was called last: as here, also where nothing was read yet
        for name, part in parts.items():
            part.save_pretrained(folder / name)
            index[name] = [type(part).__module__.split(".")[0], type(part).__name__]
        files.atomic_write_text(folder / "model_index.json", json.dumps(index, indent=2) + "\n")
        files.usual_permissions(folder)

    def frozen(self) -> VDM:
        """All parts in eval mode without gradients (trainers switch on what they train)."""
        for part in (self.dit, self.vae, self.text_encoder):
            part.eval().requires_grad_(False)
        return self

    def checkpoint_activations(self, layers: str = "all") -> VDM:
        """Recompute the activations of "all", "half" or "none" of the DiT's layers in the backward pass."""
        self.recomputed = layers
        return self.again()

    def again(self) -> VDM:
        """After a change of the DiT's modules, or of how it is computed: `network` is made anew."""
        self._copy = None
        self._set_up(self.dit)
        return self

    def _set_up(self, dit: Any) -> Any:
        again = set(list(dit.blocks)[:: 2 if self.recomputed == "half" else 1])

        def run(block: nn.Module, *args: Any) -> Any:
            return checkpoint(block, *args, use_reentrant=False) if block in again else block(*args)

        if self.recomputed == "none":
            dit.disable_gradient_checkpointing()
        else:
            dit.enable_gradient_checkpointing(run)
        if self.compiled:
            dit.compile_repeated_blocks()
        return dit

    @property
    def network(self) -> Any:
        """What computes velocities: the DiT, or a copy in the precision of the arithmetic (vans/models/masters.py)."""
        if self.autocast_dtype is None or not self.halved:
            return self.dit
        if self._copy is None or self._copy.masters is not self.dit:
            self._copy = Halved(self.dit, self.autocast_dtype)
            self._set_up(self._copy.network)
        return self._copy.network

    def shard(self, ranks: Any) -> VDM:
        """The DiT cut up over the ranks (vans/sharding.py), the rest whole on each rank's device."""
        shard(self.dit, self.dit.blocks, ranks)
        self.halved = False  # a copy would hold all of it
        return self.to(ranks.device)

    def to(self, device) -> VDM:
        self._copy = None
        for part in (self.dit, self.vae, self.text_encoder):
            part.to(device)
        return self

    def rounded(self) -> VDM:
        """For rendering alone: the DiT gives its float32 weights up for those of its copy. The numbers stay those of
        `network`; what is rounded is not to be trained or saved. Where there is no copy it stays as it is.
        """
        if self.again().network is not self.dit and self._copy is not None:
            for master, half in self._copy.pairs:
                master.data = half.data
        return self

    def lowered(self, half: bool, tile: tuple[int, int] | None) -> VDM:
        """For answers alone, as the method's release makes them: weights, latents and time step in bfloat16 (half), and
        the VAE in tiles of so many latents, half of which overlap, in bfloat16. Neither (None): as it is.
        """
        if half:
            for weights in self.dit.parameters():  # not its tables of positions
                weights.data = weights.data.to(torch.bfloat16)
            self.autocast_dtype = self._copy = None
        if tile is not None:
            high, wide = (side * self.vae.config.scale_factor_spatial for side in tile)
            self.vae.to(torch.bfloat16).enable_tiling(high, wide, high // 2, wide // 2)
        return self

    def autocast(self):
        """bf16 arithmetic where the scale asks for it and no copy of the weights has it already; samples, means and
        log-probs stay float32 outside of it.
        """
        if self.autocast_dtype is None or self.halved:
            return nullcontext()
        cast_once = not sharded(self.dit)  # else all its blocks would be kept, cast, as they are gathered
        return torch.autocast(self.device.type, dtype=self.autocast_dtype, cache_enabled=cast_once)

    @property
    def device(self) -> torch.device:
        return self.dit.device

    @property
    def dtype(self) -> torch.dtype:
        """Of latents and time steps: float32, unless `lowered`."""
        return torch.float32 if self.autocast_dtype else self.dit.dtype

    # ------------------------------------------------------------------ latents and text
    def _statistics(self) -> tuple[Tensor, Tensor]:
        shape = (1, -1, 1, 1, 1)
        mean = torch.tensor(self.vae.config.latents_mean, device=self.device).view(shape)
        std = torch.tensor(self.vae.config.latents_std, device=self.device).view(shape)
        return mean, std

    @torch.no_grad()
    def encode(self, clips: Tensor, batch: int | None = None) -> Tensor:
        """uint8 [N, T, H, W, 3] -> normalised latents float32 [N, C, T', H', W'] (the posterior's mode).

        batch: clips at once, `vae_batch` where None.
        """
        mean, std = self._statistics()
        out = []
        for chunk in clips.split(batch or self.vae_batch):
            pixels = to_model(chunk.to(self.device)).to(self.vae.dtype)
            z = self.vae.encode(pixels).latent_dist.mode().float()
            out.append((z - mean) / std)
        return torch.cat(out)

    @torch.no_grad()
    def decode(self, latents: Tensor, batch: int | None = None) -> Tensor:
        """Normalised latents [N, C, T', H', W'] -> uint8 clips [N, T, H, W, 3] on the CPU."""
        mean, std = self._statistics()
        out = [
            from_model(self.vae.decode((chunk.to(self.device).float() * std + mean).to(self.vae.dtype)).sample).cpu()
            for chunk in latents.split(batch or self.vae_batch)
        ]
        return torch.cat(out)

    def embed(self, texts: list[str]) -> Tensor:
        """Captions -> text embeddings [N, L, D], zero beyond each text's tokens. Differentiable (for base training).

        Texts are cleaned as the pipeline cleans them (broken Unicode, HTML entities, white space); a sign of the
        models' own, such as </s>, is read as words.
        """
        tokens = self._tokens([plain(prompt_clean(text)) for text in texts]).to(self.device)
        hidden = self.text_encoder(tokens.input_ids, attention_mask=tokens.attention_mask).last_hidden_state
        return hidden * tokens.attention_mask.unsqueeze(-1).to(hidden.dtype)

    def _tokens(self, texts: list[str]) -> Any:
        return self.tokenizer(
            texts, padding="max_length", truncation=True, max_length=self.max_text, return_tensors="pt"
        )

    def pick_references(self, latents: Tensor) -> Tensor:
        """n latents evenly spaced over the input video's T' latents, first and last included: [N, C, n, H', W']."""
        frames = latents.shape[2]
        if not 1 <= self.references <= frames:
            raise UserError(f"models.vdm.references is {self.references}; the input video has {frames} latents")
        index = torch.linspace(0, frames - 1, self.references)
        index = (index.round() if self.picking == "nearest" else index).long()
        return latents[:, :, index.to(latents.device)]

    # ------------------------------------------------------------------ the flow model
    def velocity(
        self, x: Tensor, sigma: Tensor, text: Tensor, reference: Tensor | None, dit: nn.Module | None = None
    ) -> Tensor:
        """v(x, sigma | caption, references): x [N, C, T', H', W'], sigma [N] in (0, 1] -> float32 like x.

        A compiled network runs as it does for gradients, also where none are wanted: torch compiles another program for
        that, which rounds elsewhere, and rollout and update would be two policies.
        """
        network = dit or self.network
        start = 0 if reference is None else reference.shape[2]
        hidden = x if reference is None else torch.cat([reference.to(x), x], dim=2)
        dtype = self.autocast_dtype if self.autocast_dtype and self.halved else self.dtype
        learns = torch.is_grad_enabled()
        with torch.set_grad_enabled(learns or (self.compiled and dit is None)), self.autocast():
            out = network(
                hidden_states=hidden.to(dtype),
                timestep=(sigma.to(x.device) * 1000.0).to(self.dtype),  # of 1000 bfloat16 tells 4 apart
                encoder_hidden_states=text.to(x.device, dtype),
                return_dict=False,
            )[0]
        v = out[:, :, start:].float()
        return v if learns else v.detach()

    def guided_velocity(
        self,
        x: Tensor,
        sigma: Tensor,
        text: Tensor,
        reference: Tensor | None,
        guidance: float,
        negative: Tensor | None = None,
        dit: nn.Module | None = None,
        grad_through: str = "both",
        unguided: Tensor | None = None,
    ) -> Tensor:
        """Classifier-free guidance: v_n + g (v_c - v_n); g = 1 needs, and computes, the conditional branch only.

        `grad_through`: "both" branches are differentiated, or the "conditional" one alone. The value is the same
        either way (so the ratio of the first update is 1); the second costs a forward pass less to differentiate.
        `unguided`: v_n where it is known (`unguided_velocity`); nothing flows through it.
        """
        v = self.velocity(x, sigma, text, reference, dit)
        if guidance == 1.0:
            return v
        if unguided is None:
            with torch.set_grad_enabled(torch.is_grad_enabled() and grad_through == "both"):
                unguided = self.unguided_velocity(x, sigma, reference, negative, dit)
        return unguided + guidance * (v - unguided)

    def unguided_velocity(
        self, x: Tensor, sigma: Tensor, reference: Tensor | None, negative: Tensor | None, dit: nn.Module | None = None
    ) -> Tensor:
        """v_n, of the negative prompt [1, L, D]: see `guided_velocity`."""
        if negative is None:
            raise ValueError("guidance other than 1 needs the negative prompt's embedding")
        return self.velocity(x, sigma, negative.expand(x.shape[0], -1, -1), reference, dit)

    @torch.no_grad()
    def render_latents(
        self,
        text: Tensor,
        reference: Tensor,
        noise: Tensor,
        steps: int,
        guidance: float,
        negative: Tensor | None = None,
        batch: int | None = None,
        progress=None,
        interval: tuple[float, float] = (0.0, 1.0),
    ) -> Tensor:
        """Integrate the ODE from noise [N, C, T', H', W'] (sigma 1) to the target's latents (sigma 0), Euler steps.

        batch: videos at once, `dit_batch` where None. interval: the share of the steps that are guided.
        """
        grid = sigmas(steps, self.shift)
        batch = batch or self.dit_batch
        out = []
        for part, own in rounds(self.dit, noise.shape[0], batch):
            x = noise[part].to(self.device, self.dtype)
            ref, cond = reference[part].to(self.device), text[part].to(self.device)
            for k, (now, then) in enumerate(pairwise(grid.tolist())):
                sigma = torch.full((x.shape[0],), float(now), device=self.device)
                scale = guidance if in_interval(k, steps, interval) else 1.0
                v = self.guided_velocity(x, sigma, cond, ref, scale, negative)
                x = ode_step(x.float(), v, float(now), float(then)).to(x.dtype)
                if progress is not None:
                    progress()
            if own:
                out.append(x)
        return torch.cat(out).float()

    def latent_shape(self, frames: int, height: int, width: int) -> tuple[int, int, int, int]:
        """(C, T', H', W') of a clip of this size under this VAE."""
        time, space = self.vae.config.scale_factor_temporal, self.vae.config.scale_factor_spatial
        return (self.vae.config.z_dim, (frames - 1) // time + 1, height // space, width // space)


def to_model(clips: Tensor) -> Tensor:
    """uint8 [N, T, H, W, 3] -> float32 [N, 3, T, H, W] in [-1, 1]."""
    return clips.permute(0, 4, 1, 2, 3).float() / 127.5 - 1.0


def from_model(video: Tensor) -> Tensor:
    """float [N, 3, T, H, W] in [-1, 1] -> uint8 [N, T, H, W, 3]."""
    return ((video.float().clamp(-1, 1) + 1.0) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 4, 1)
