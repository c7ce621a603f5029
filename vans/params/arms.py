"""The section `arms` of params.yaml: the other systems of the main table (vans/train/systems.py)."""

from __future__ import annotations

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from vans.params.base import Section, Wrong
from vans.params.endpoint import EndpointParams

ENDPOINT = "endpoint"  # in the place of a VLM's repository


class Cascade(Section):
    """A VLM that never met the VDM's data, and a VDM that never met the VLM's captions."""

    vlm: str | None  # null: trained here; endpoint: the one below; a hub id or folder of a Qwen2.5-VL
    vlm_revision: str | None
    vdm: str | None  # null: trained here; a hub id or folder of a diffusers pipeline: text, or text and image, to video
    vdm_revision: str | None
    options: dict[str, Any]  # further arguments of the pipeline's call
    system: str  # what a VLM that was not trained here is told
    endpoint: EndpointParams

    @model_validator(mode="after")
    def check(self) -> Self:
        for name in ("vlm", "vdm"):
            if getattr(self, name) not in (None, ENDPOINT) and not getattr(self, f"{name}_revision"):
                or_else = f"; or is {name}: {ENDPOINT} meant?" if name == "vlm" else ""
                words = f"needs a pinned revision (a commit id; of a folder any word){or_else}"
                raise Wrong(words, f"{name}_revision")
        if self.vdm == ENDPOINT:
            raise Wrong("an endpoint writes and does not render; name a diffusers pipeline, or null", "vdm")
        return self


class Unified(Section):
    """One model: the VLM's hidden states drive the DiT through a connector, both trained jointly."""

    steps: int = Field(ge=1)  # so many that both models' training takes the FLOPs of SFT
    tokens: int = Field(ge=1)  # of the prompt's end whose hidden states the DiT sees


class ArmsParams(Section):
    run: list[Literal["extension", "cascade", "unified", "textual"]]  # at this scale; the others' rows stay empty
    cascade: Cascade
    unified: Unified
