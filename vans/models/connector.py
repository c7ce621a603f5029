"""What lets a VLM drive a DiT without a caption in between: its hidden states, brought into the text's space."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn.functional import gelu

from vans import files
from vans.errors import UserError
from vans.models.prompts import arguments

WEIGHTS, CONFIG = "connector.safetensors", "connector.json"
TRAIN = "`dvc repro systems@unified` trains it"


class Connector(nn.Module):
    """LayerNorm and two linear layers: hidden states [N, K, D] -> what the DiT takes for text [N, K, E]."""

    def __init__(self, hidden: int, text: int):
        super().__init__()
        self.norm = nn.LayerNorm(hidden)
        self.first = nn.Linear(hidden, text)
        self.second = nn.Linear(text, text)

    def forward(self, hidden: Tensor) -> Tensor:
        return self.second(gelu(self.first(self.norm(hidden))))

    @classmethod
    def between(cls, vlm: Any, vdm: Any, seed: int) -> Connector:
        """A fresh one for these two models."""
        torch.manual_seed(seed)
        return cls(vlm.model.config.get_text_config().hidden_size, vdm.dit.config.text_dim)

    def save(self, folder: str | Path) -> None:
        sizes = {"hidden": self.first.in_features, "text": self.first.out_features}
        save_file({k: v.detach().cpu().contiguous() for k, v in self.state_dict().items()}, Path(folder) / WEIGHTS)
        files.atomic_write_text(Path(folder) / CONFIG, json.dumps(sizes) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> Connector:
        """A saved one, frozen; UserError if it is not there or not whole."""
        try:
            sizes = json.loads((Path(folder) / CONFIG).read_text(encoding="utf-8"))
            made = cls(int(sizes["hidden"]), int(sizes["text"]))
            made.load_state_dict(load_file(Path(folder) / WEIGHTS))
        except (OSError, ValueError, LookupError, TypeError, RuntimeError, SafetensorError) as error:
            raise UserError(f"{folder}: no whole connector here ({str(error).splitlines()[0]}); {TRAIN}") from error
        return made.eval().requires_grad_(False)


def driven(vlm: Any, prompts: Any, connector: Connector, tokens: int) -> Tensor:
    """What the VLM has understood of N prompts, as the DiT takes it, float32 [N, tokens, E].

    Of the last layer's hidden states those of the prompt's last tokens, which stand behind the video and have seen all
    of it; zero where a prompt is shorter. Differentiable in both. prompts: as `vlm.together` gives them.
    """
    places, _ = vlm.positions(prompts)
    with vlm.autocast():
        out = vlm.network(**arguments(prompts), position_ids=places, use_cache=False)
        hidden = connector(out.last_hidden_state[:, -tokens:])
    return hidden.float() * prompts["attention_mask"][:, -tokens:, None].to(hidden.device)
