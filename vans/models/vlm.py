"""The vision-language model: Qwen2.5-VL watches the input video and answers [Think]…[/Think][Ans]caption[/Ans].

How it is built, loaded and saved, and what it is asked; how it answers, and what an answer's probability is, stands in
vans/models/policy.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from peft import LoraConfig, PeftModel, get_peft_model
from torch import Tensor, nn
from transformers import (
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
from vans.models.policy import Completions as Completions
from vans.models.policy import Policy
from vans.models.prompts import spread, together
from vans.models.vision import batch_windows
from vans.models.whole import companion, load_adapter, pretrained
from vans.sharding import shard
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


class VLM(Policy):
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
        self.sample_batch, self.decoding, self.engine = 64, "dynamic", None  # `vans.models.load` sets the scale's
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

    def train_lora(self, cut: Any = None) -> list[nn.Parameter]:
        """Let the adapter train, and nothing else; returns its parameters. cut: the ranks over which all but the vision
        tower is cut up (vans/sharding.py)."""
        for name, p in self.model.named_parameters():
            p.requires_grad_("lora_" in name)
        if cut is not None:
            shard(self.model, self.network.language_model.layers, cut, whole=self.network.visual)
            self.to(cut.device)
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
        texts = [self.prompt(q) for q in questions]
        batch = self.processor(
            text=texts,
            videos=videos,
            video_metadata=metadata,
            do_sample_frames=False,
            cap_pixels_per_frame=False,
            padding=True,
            return_tensors="pt",
        ).to(self.device)
        if self.engine is not None:
            parts = zip(texts, clips.numpy(), rates, strict=True)
            batch["shown"] = [{"text": text, "clip": clip, "fps": rate} for text, clip, rate in parts]
        return batch

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
