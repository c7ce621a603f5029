"""The vision-language model: Qwen2.5-VL watches the input video and answers [Think]…[/Think][Ans]caption[/Ans].

Sampling and log-probabilities belong together here, because the policy ratio is only right if both speak of the
same distribution: log-probs are of softmax(logits / temperature) with special tokens suppressed, dropout off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn
from transformers import (
    LogitsProcessorList,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2_5_VLProcessor,
    Qwen2VLImageProcessor,
    Qwen2VLVideoProcessor,
)
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.video_utils import VideoMetadata

from vans.errors import UserError
from vans.files import usual_permissions
from vans.models import tower
from vans.models.grammar import Grammar, WithinTemplate
from vans.models.packing import pack
from vans.models.positions import positions
from vans.models.prompts import arguments, in_parts, pick, spread, together
from vans.models.sampling import Draws, Suppress, joined, named_by
from vans.models.vision import batch_windows
from vans.models.whole import companion, load_adapter, pretrained
from vans.template import check_words

LORA_TARGETS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LORA_PATTERN = r".*\.(" + "|".join(LORA_TARGETS) + ")"  # of the vision tower, too
PROMPT_BYTES = 2**30  # of clips' features that are kept
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n"
    "{% for c in m['content'] %}{% if c['type'] == 'video' %}<|vision_start|><|video_pad|><|vision_end|>"
    "{% else %}{{ c['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@dataclass
class Completions:
    """Answers: ids [B, L] (padded on the right), mask [B, L] (1 up to and including the end token), texts; of sampled
    ones the log-probability of each token as it was drawn (before top-p) [B, L] float32, 0 where masked.
    """

    ids: Tensor
    mask: Tensor
    texts: list[str]
    drawn: Tensor | None = None


class VLM:
    """Qwen2.5-VL with its processor, optionally under a LoRA adapter.

    frames: pictures of a clip that it sees, evenly spread, both ends included; None: all. seconds: what each step of
    its temporal grid is said to last; None: as the clip's rate has it. position_rule: see vans/models/positions.py.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        system: str = "",
        autocast: torch.dtype | None = None,
        frames: int | None = None,
        seconds: float | None = None,
        position_rule: str = "largest",
    ):
        self.model, self.processor, self.system, self.autocast_dtype = batch_windows(model), processor, system, autocast
        self.frames, self.seconds, self.position_rule = frames, seconds, position_rule
        self.recomputed = "none"
        self.sample_batch = 64  # answers at once; `vans.models.load` sets the scale's
        self.tokenizer = processor.tokenizer
        self.prompts: dict[tuple, dict] = {}  # of one each, see `kept`
        self.vision: dict[str, Tensor] = {}  # the adapter's part that is merged into the tower

    # ------------------------------------------------------------------ build, load, save
    @classmethod
    def scratch(cls, config: dict, tokenizer, seed: int, system: str = "", **options) -> VLM:
        """The same class at toy size; `config` has text_config, vision_config and the processor's patch sizes."""
        torch.manual_seed(seed)
        vision = config["vision_config"]
        tokens = {f"{kind}_token_id": tokenizer.convert_tokens_to_ids(f"<|{kind}_pad|>") for kind in ("image", "video")}
        ends = {f"vision_{e}_token_id": tokenizer.convert_tokens_to_ids(f"<|vision_{e}|>") for e in ("start", "end")}
        text = {
            "vocab_size": len(tokenizer),
            **config["text_config"],
            "bos_token_id": None,
            "eos_token_id": tokenizer.eos_token_id,
            "pad_token_id": tokenizer.pad_token_id,
        }
        model = Qwen2_5_VLForConditionalGeneration(
            Qwen2_5_VLConfig(
                text_config=text,
                vision_config={**vision, "out_hidden_size": text["hidden_size"]},
                tie_word_embeddings=config.get("tie_word_embeddings", True),
                **tokens,
                **ends,
            )
        )
        patch = {
            "patch_size": vision["patch_size"],
            "merge_size": vision["spatial_merge_size"],
            "temporal_patch_size": vision["temporal_patch_size"],
        }
        unit = vision["patch_size"] * vision["spatial_merge_size"]
        size = {"shortest_edge": unit * unit, "longest_edge": 16384 * unit * unit}
        processor = Qwen2_5_VLProcessor(
            image_processor=Qwen2VLImageProcessor(**patch, size=size),
            video_processor=Qwen2VLVideoProcessor(**patch, size=size),
            tokenizer=tokenizer,
            chat_template=CHAT_TEMPLATE,
        )
        return cls(model, processor, system, **options).frozen()

    @classmethod
    def load(
        cls,
        source: str | Path,
        revision: str | None = None,
        dtype: torch.dtype | None = None,
        system: str = "",
        **options,
    ) -> VLM:
        """From a folder or hub repository in the layout of Qwen/Qwen2.5-VL-3B-Instruct (safetensors only)."""
        fix = "check models.vlm.repo and revision in params.yaml, or run the stage that makes them"
        model = pretrained(
            Qwen2_5_VLForConditionalGeneration, source, "VLM", fix, revision=revision, dtype=dtype or torch.float32
        )
        processor = companion(Qwen2_5_VLProcessor, source, "VLM processor", fix, revision=revision)
        processor.tokenizer.padding_side = "left"
        autocast = dtype if dtype is not None and dtype != torch.float32 else None
        return cls(model, processor, system, autocast, **options).frozen()

    def save(self, folder: str | Path) -> None:
        """The base model (without adapter) in the hub's layout."""
        self.model.save_pretrained(Path(folder), safe_serialization=True)
        self.processor.save_pretrained(Path(folder))
        usual_permissions(folder)

    def add_lora(self, rank: int, alpha: int, seed: int) -> VLM:
        """A fresh LoRA (B = 0, so the model is unchanged) on the language model's linear layers; only it trains."""
        torch.manual_seed(seed)
        pattern = r".*language_model.*\.(" + "|".join(LORA_TARGETS) + ")"
        config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=0.0, target_modules=pattern, task_type="CAUSAL_LM")
        self.model = get_peft_model(self.model, config)
        return self

    def load_lora(self, folder: str | Path) -> VLM:
        """A saved adapter on top of the base model; trainable. UserError unless it fits in every tensor.

        A vision part of it is merged into the tower, which stays frozen, and is saved again with the rest.
        """
        self.model = load_adapter(self.model, folder)
        self.vision = tower.merge(self.model)
        return self

    def train_lora(self) -> list[nn.Parameter]:
        """Let the adapter train, and nothing else; returns its parameters."""
        for name, p in self.model.named_parameters():
            p.requires_grad_("lora_" in name)
        return [p for p in self.model.parameters() if p.requires_grad]

    def save_lora(self, folder: str | Path) -> None:
        """peft's layout: adapter_config.json and adapter_model.safetensors."""
        self.model.save_pretrained(str(folder), safe_serialization=True)
        (Path(folder) / "README.md").unlink(missing_ok=True)  # peft's model card names local paths
        tower.put_back(Path(folder), self.vision)
        usual_permissions(folder)

    def checkpoint_activations(self, layers: str = "all") -> VLM:
        """Recompute the activations of "all", "half" or "none" of the layers in the backward pass, in `recomputing`."""
        self.recomputed = layers
        if layers != "none":
            self.model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        return self

    @contextmanager
    def merged(self):
        """The adapter added to the weights, where they are float32: a token costs a third of the calls.

        The weights come back as they were, bit for bit. In bfloat16 it is left out: what a young adapter adds is less
        than half a step of most weights and would be rounded away: the model sampled would be the one without it.
        """
        layers = [layer for layer in self.model.modules() if isinstance(layer, LoraLayer)]
        weights = [layer.get_base_layer().weight for layer in layers]
        before = [weight.data for weight in weights] if all(w.dtype == torch.float32 for w in weights) else []
        try:
            for layer, weight, data in zip(layers, weights, before, strict=False):
                weight.data = data.clone()
                layer.merge()  # type: ignore[operator]
            yield
        finally:
            for layer, weight, data in zip(layers, weights, before, strict=False):
                layer.unmerge()  # type: ignore[operator]
                weight.data = data

    @contextmanager
    def recomputing(self):
        """transformers checkpoints the activations of layers in train mode: of the layers alone, so that no dropout
        of the model or of its adapter wakes (sampler and policy would be two distributions).
        """
        layers = [m for m in self.model.modules() if isinstance(m, GradientCheckpointingLayer)]
        for layer in layers[:: 2 if self.recomputed == "half" else 1]:
            layer.training = self.recomputed != "none"
        try:
            yield
        finally:
            self.model.eval()

    def frozen(self) -> VLM:
        self.model.eval().requires_grad_(False)
        return self

    def to(self, device) -> VLM:
        self.model.to(device)
        return self

    @property
    def network(self) -> Any:
        """Vision tower and language model, without head and adapter."""
        return (self.model.get_base_model() if isinstance(self.model, PeftModel) else self.model).model

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def autocast(self):
        """bf16 arithmetic over float32 adapters where the scale asks for it."""
        if self.autocast_dtype is None:
            return nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)

    # ------------------------------------------------------------------ inputs
    def prompt(self, question: str) -> str:
        """The chat text of one prompt, with a single video placeholder.

        UserError for a question that holds one of the model's own signs (`<|im_end|>`): it would end the question.
        """
        check_words(question, "the question", self.tokenizer.all_special_tokens)
        messages = [{"role": "system", "content": [{"type": "text", "text": self.system}]}] if self.system else []
        messages.append({"role": "user", "content": [{"type": "video"}, {"type": "text", "text": question}]})
        try:
            return self.processor.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        except (TemplateError, ValueError, TypeError) as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(f"the VLM's chat template cannot be filled in ({why}); get its folder anew") from error

    def inputs(self, clips: Tensor, questions: list[str], fps: float | Sequence[float]):
        """uint8 clips [N, T, H, W, 3] and N questions -> the processor's batch, padded on the left.

        fps: pictures per second, of all clips or of each.
        """
        rates = [float(fps)] * len(clips) if isinstance(fps, (int, float)) else [float(f) for f in fps]
        clips, rates = spread(clips, rates, self.frames)
        videos = [clip.permute(0, 3, 1, 2) for clip in clips]
        frames = clips.shape[1]
        if self.seconds is not None:
            rates = [self.processor.video_processor.temporal_patch_size / self.seconds] * len(videos)
        shown = list(range(frames))
        metadata = [VideoMetadata(total_num_frames=frames, fps=rate, frames_indices=shown) for rate in rates]
        return self.processor(
            text=[self.prompt(q) for q in questions],
            videos=videos,
            video_metadata=metadata,
            do_sample_frames=False,
            cap_pixels_per_frame=False,
            padding=True,
            return_tensors="pt",
        ).to(self.device)

    @torch.no_grad()
    def see(self, inputs) -> dict:
        """The processor's batch with `video_features`, N tensors [tokens, D], in the place of the pixels.

        For a frozen vision tower: what looks at a prompt several times encodes its clip once. Each clip is encoded by
        itself, so that its features do not depend on the batch.
        """
        grids = inputs["video_grid_thw"]
        clips = zip(inputs["pixel_values_videos"].split(grids.prod(1).tolist()), grids.split(1), strict=True)
        with self.autocast():
            seen = [self.model.get_video_features(*clip, return_dict=True).pooler_output[0] for clip in clips]
        return {key: value for key, value in inputs.items() if key != "pixel_values_videos"} | {"video_features": seen}

    def kept(self, key: tuple, make: Callable[[], Any]) -> dict:
        """The prompt (of one) of this key with its clip's features: made when it is first asked for, and kept up to
        PROMPT_BYTES in all.
        """
        if key in self.prompts:
            return self.prompts[key]
        prompt = self.see(make())
        if (len(self.prompts) + 1) * prompt["video_features"][0].nbytes <= PROMPT_BYTES:
            self.prompts[key] = prompt
        return prompt

    def together(self, prompts: list[dict]) -> dict:
        """Kept prompts as one batch."""
        return together(prompts, self.tokenizer.pad_token_id)

    def positions(self, inputs) -> tuple[Tensor, Tensor]:
        """(places [3, N, S], next [N]) of N prompts: see vans/models/positions.py."""
        return positions(inputs, self.model.config, self.position_rule)

    def special_ids(self) -> list[int]:
        """Tokens that an answer may never hold (a sampled video token would crash the next forward pass)."""
        ids = set(self.tokenizer.all_special_ids) | {
            i for t, i in self.tokenizer.get_added_vocab().items() if t.startswith("<|")
        }
        config = self.model.config
        ids |= {config.image_token_id, config.video_token_id}
        return sorted(ids - {self.tokenizer.eos_token_id})

    # ------------------------------------------------------------------ sampling
    @cached_property
    def grammar(self) -> Grammar:
        """The answer's template over this model's tokens."""
        return Grammar(self.tokenizer, self.model.config.get_text_config().vocab_size, self.special_ids())

    @torch.no_grad()
    def sample(
        self,
        inputs,
        *,
        seeds: list[tuple],
        max_new_tokens: int,
        temperature: float,
        top_p: float = 1.0,
        within_template: bool = False,
        hub_defaults: bool = False,
    ) -> Completions:
        """One answer per seed; with G seeds per prompt row, `seeds` is ordered prompt-major and rows are repeated.

        Exact ancestral sampling with one generator per answer, so that an answer depends on its own seed and not on
        what else is in the batch: at most `sample_batch` rows are sampled at once, whole prompts where they fit.
        temperature 0 decodes greedily. within_template: only
        tokens that keep to the answer's template, which is whole within max_new_tokens (UserError if it has no room);
        the log-probs here know nothing of it, so rollouts go without. hub_defaults: with the repetition penalty and the
        top-k that the model's own folder (or transformers, by default) names; rollouts go without, too.
        """
        rows = inputs["input_ids"].shape[0]
        if len(seeds) % rows:
            raise ValueError(f"{len(seeds)} seeds for {rows} prompts")
        times, eos = len(seeds) // rows, self.tokenizer.eos_token_id
        if len(seeds) > self.sample_batch:
            options: dict[str, Any] = {"temperature": temperature, "top_p": top_p, "max_new_tokens": max_new_tokens}
            options |= {"within_template": within_template, "hub_defaults": hub_defaults}
            parts = [
                self.sample(pick(inputs, which), seeds=seeds[some], **options)
                for which, some in in_parts(rows, times, self.sample_batch)
            ]
            return joined(parts, self.tokenizer.pad_token_id)
        allowed, processors = Suppress(self.special_ids()), LogitsProcessorList()
        if hub_defaults:
            processors += named_by(self.model.generation_config, inputs["input_ids"].repeat_interleave(times, 0))
        if within_template:
            processors.append(WithinTemplate(self.grammar, eos, max_new_tokens))
        draw = Draws(seeds, max_new_tokens, temperature, top_p, self.device)
        with self.autocast(), self.merged():  # each prompt is read once, and its keys and values are every answer's
            places, following = self.positions(inputs)
            out = self.model(**arguments(inputs), position_ids=places, use_cache=True, logits_to_keep=1)
            cache, logits = out.past_key_values, out.logits.repeat_interleave(times, 0)
            cache.batch_repeat_interleave(times)
            mask = inputs["attention_mask"].repeat_interleave(times, 0)
            place = following.repeat_interleave(times)[None, :, None].expand(3, -1, 1)  # [3, N, 1]
            ids, drawn = mask.new_empty(len(seeds), 0), []
            ended = torch.zeros(len(seeds), dtype=torch.bool, device=mask.device)
            while True:
                scores = allowed(ids, logits[:, -1].float())  # [N, V]
                token = draw(processors(ids, scores), ids.shape[1])
                drawn.append((scores / (temperature or 1.0)).log_softmax(-1).gather(1, token[:, None]))
                token = token.masked_fill(ended, self.tokenizer.pad_token_id)[:, None]
                ids, ended = torch.cat([ids, token], 1), ended | (token[:, 0] == eos)
                if ids.shape[1] == max_new_tokens or ended.all():
                    break
                mask = torch.cat([mask, torch.ones_like(token)], 1)
                at = place + ids.shape[1] - 1
                logits = self.model(
                    input_ids=token, attention_mask=mask, position_ids=at, past_key_values=cache, use_cache=True
                ).logits
        ended = (ids == self.tokenizer.eos_token_id).long().cumsum(1)
        mask = ((ended == 0) | ((ended == 1) & (ids == self.tokenizer.eos_token_id))).long()
        return Completions(ids, mask, self.decode(ids, mask), torch.cat(drawn, 1).masked_fill(mask == 0, 0.0))

    def decode(self, ids: Tensor, mask: Tensor) -> list[str]:
        """Token ids -> texts without padding and end token."""
        rows = [row[keep.bool()].tolist() for row, keep in zip(ids, mask, strict=True)]
        return [
            self.tokenizer.decode([t for t in row if t != self.tokenizer.eos_token_id], skip_special_tokens=False)
            for row in rows
        ]

    def encode_answers(self, texts: list[str]) -> Completions:
        """Given answers as completions (for SFT): ids and mask with the end token, padded on the right.

        UserError for one that holds a sign of the model's own: it would teach to end there.
        """
        for text in texts:
            check_words(text, "an answer to learn from", self.tokenizer.all_special_tokens)
        rows = [self.tokenizer(t, add_special_tokens=False).input_ids + [self.tokenizer.eos_token_id] for t in texts]
        length = max(map(len, rows))
        pad = self.tokenizer.pad_token_id
        ids = torch.tensor([r + [pad] * (length - len(r)) for r in rows], device=self.device)
        mask = torch.tensor([[1] * len(r) + [0] * (length - len(r)) for r in rows], device=self.device)
        return Completions(ids, mask, texts)

    # ------------------------------------------------------------------ log-probabilities
    def log_probs(
        self,
        inputs,
        completions: Completions,
        temperature: float = 1.0,
        model: nn.Module | None = None,
        suppress=True,
        of: Sequence[int] | None = None,
    ) -> Tensor:
        """log pi(token | prompt, tokens before) float32 [B, L], zero where masked.

        of: the row of the prompt of each answer; None: B = prompts x G, prompt-major. The answers of a prompt stand
        behind it in one sequence (vans/models/packing.py).
        """
        ids, mask, rows = completions.ids, completions.mask, len(inputs["input_ids"])
        of = [n * rows // len(ids) for n in range(len(ids))] if of is None else of
        packed = pack(inputs, *self.positions(inputs), ids, mask, self.tokenizer.pad_token_id, of)
        if packed.inputs["attention_mask"] is not None and self.model.config._attn_implementation != "sdpa":
            raise ValueError(f"the tree mask is for sdpa, not for {self.model.config._attn_implementation}")
        with self.autocast():
            out = (model or self.model)(**arguments(packed.inputs), use_cache=False, logits_to_keep=packed.keep)
            logits = out.logits.flatten(0, 1)[packed.come].float()  # [K, V]
        if suppress:
            logits = logits.index_fill(1, torch.tensor(self.special_ids(), device=logits.device), float("-inf"))
        logp = torch.log_softmax(logits / max(temperature, 1e-6), dim=-1)
        chosen = logp.gather(1, ids[packed.rows, packed.at][:, None])[:, 0]  # [K]
        return logits.new_zeros(ids.shape).index_put((packed.rows, packed.at), chosen)
