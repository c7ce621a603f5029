"""CLIP for rewards and metrics, by open_clip: unit-length features of frames and texts.

Scores computed from them (frame-wise similarity, CLIPScore) stand in `vans.similarity`.
"""

from __future__ import annotations

import html
import json
import re
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP as OpenCLIP
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import interpolate, normalize

from vans.errors import UserError
from vans.files import check_readable, usual_permissions
from vans.models.whole import BROKEN, NO_CODE
from vans.template import plain


class CLIP:
    """A frozen (or, at toy scale, trainable) open_clip model with its tokenizer."""

    def __init__(self, model: OpenCLIP, tokenizer, config: dict, mean: tuple, std: tuple):
        self.model, self.tokenizer, self.config = model, tokenizer, config
        self.mean, self.std = tuple(mean), tuple(std)

    @classmethod
    def scratch(cls, config: dict, tokenizer, seed: int) -> CLIP:
        """`config` is open_clip's own model_cfg: embed_dim, vision_cfg, text_cfg."""
        torch.manual_seed(seed)
        text = {
            "vocab_size": len(tokenizer),
            "hf_tokenizer_name": "local",
            "pool_type": "eos",
            "eos_id": tokenizer.eos_token_id,
            "pad_id": tokenizer.pad_token_id,
            **config["text_cfg"],
        }
        config = {**config, "text_cfg": text}
        built = {**config, "text_cfg": {k: v for k, v in text.items() if k != "hf_tokenizer_name"}}
        model = OpenCLIP(**built)
        length = text["context_length"]

        def tokenize(texts: list[str]) -> Tensor:
            return tokenizer(
                texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt"
            ).input_ids

        setattr(tokenize, "tokenizer", tokenizer)  # noqa: B010 (open_clip's own tokenizers have this attribute)
        return cls(model, tokenize, config, (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)).frozen()

    @classmethod
    def load(cls, source: str | Path, revision: str | None = None) -> CLIP:
        """A folder in open_clip's layout (open_clip_config.json + open_clip_model.safetensors), or a hub repository.

        OpenAI's weights need quick-GELU: their hub configuration says so, and open_clip follows it.
        """
        path, fix = Path(source), "check models.clip.repo in params.yaml"
        try:
            if not path.is_dir():
                from huggingface_hub import snapshot_download

                wanted = ["*.json", "*.safetensors", "*.txt"]
                path = Path(snapshot_download(str(source), revision=revision, allow_patterns=wanted))
            for name in ("open_clip_model.safetensors", "open_clip_config.json"):
                if not check_readable(path / name).exists():
                    raise UserError(f"{path}: {name} is missing; {fix}")
            config = json.loads((path / "open_clip_config.json").read_text(encoding="utf-8"))["model_cfg"]
            _check_parts(config)
            model, _ = open_clip.create_model_from_pretrained(f"local-dir:{path}")
            code = NO_CODE if config["text_cfg"].get("hf_tokenizer_name") else {}
            tokenizer = open_clip.get_tokenizer(f"local-dir:{path}", **code)  # said here: the config may say otherwise
            settings = open_clip.get_model_preprocess_cfg(model)
            mean, std = (tuple(float(x) for x in settings[name]) for name in ("mean", "std"))
        except BROKEN as error:
            why = " ".join(str(error).split())[:200]
            raise UserError(f"{source}: no CLIP weights ({why}); {fix}") from error
        return cls(model, tokenizer, config, mean, std).frozen()

    def save(self, folder: str | Path) -> None:
        """Write the layout that `load` and open_clip's `local-dir:` read."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        state = {k: v.detach().cpu().contiguous() for k, v in self.model.state_dict().items()}
        save_file(state, folder / "open_clip_model.safetensors", metadata={"format": "pt"})
        statistics = {"mean": list(self.mean), "std": list(self.std)}
        preprocess = {**statistics, "interpolation": "bicubic", "resize_mode": "squash"}
        settings = {"model_cfg": self.config, "preprocess_cfg": preprocess}
        (folder / "open_clip_config.json").write_text(json.dumps(settings, indent=2) + "\n")
        self.tokenizer.tokenizer.save_pretrained(folder)
        usual_permissions(folder)

    def frozen(self) -> CLIP:
        self.model.eval().requires_grad_(False)
        return self

    def to(self, device) -> CLIP:
        self.model.to(device)
        return self

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    def pixels(self, clips: Tensor) -> Tensor:
        """uint8 [N, T, H, W, 3] -> normalised float [N*T, 3, S, S] at the model's input size."""
        frames = clips.to(self.device).flatten(0, 1).permute(0, 3, 1, 2).float() / 255.0
        size = self.model.visual.image_size
        size = (size, size) if isinstance(size, int) else tuple(size)
        if frames.shape[-2:] != size:
            frames = interpolate(frames, size=size, mode="bicubic", antialias=True, align_corners=False).clamp(0, 1)
        mean = torch.tensor(self.mean, device=self.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=self.device).view(1, 3, 1, 1)
        return (frames - mean) / std

    def image_features(self, clips: Tensor) -> Tensor:
        """Differentiable unit-length features of every frame: uint8 [N, T, H, W, 3] -> [N, T, D]."""
        return normalize(self.model.encode_image(self.pixels(clips)), dim=-1).unflatten(0, clips.shape[:2])

    def text_features(self, texts: list[str]) -> Tensor:
        """Differentiable unit-length features of texts: [N, D]; a sign of the models' own is read as words."""
        words = [plain(html.unescape(html.unescape(text))) for text in texts]  # open_clip's tokenizer unescapes, too
        return normalize(self.model.encode_text(self.tokenizer(words).to(self.device)), dim=-1)

    @torch.no_grad()
    def image(self, clips: Tensor, batch: int = 64) -> Tensor:
        """uint8 [N, T, H, W, 3] -> [N, T, D], on the CPU."""
        return torch.cat([self.image_features(part).float().cpu() for part in clips.split(batch)])

    @torch.no_grad()
    def text(self, texts: list[str]) -> Tensor:
        """[N, D], on the CPU. CLIP's own limit of 77 tokens truncates longer captions."""
        return self.text_features(texts).float().cpu()


def _check_parts(config: dict) -> None:
    """ValueError for an open_clip config that takes parts from elsewhere, whose code or pickles would be loaded."""
    if config["text_cfg"].get("hf_model_name"):
        raise ValueError("its text_cfg takes hf_model_name from elsewhere, which is not loaded")
    vision = config["vision_cfg"]
    if vision.get("timm_model_pretrained") or re.search("[:/]", str(vision.get("timm_model_name", ""))):
        raise ValueError("its vision_cfg takes timm_model_name from elsewhere, which is not loaded")


def load_clip(params: Any, base: Path, device: Any = "cpu") -> CLIP:
    """The CLIP of `base` (or of the hub), frozen."""
    model = params.models.clip
    return CLIP.load(model.repo or Path(base) / "clip", model.revision).to(device)
