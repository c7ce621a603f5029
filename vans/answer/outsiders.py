"""Models that others made, as they are, in the cascade: a VLM behind an OpenAI-compatible endpoint, and any pipeline of
diffusers that renders text, or text and a picture, as a video.
"""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.llm import prompts
from vans.llm.answers import one_line
from vans.llm.cache import Cache, Reply
from vans.llm.client import DECLINES, KEY_INSIDE, Ask, Client
from vans.llm.cost import Meter, text_tokens
from vans.llm.pictures import data_url, pictures
from vans.models.load import frozen_dtype
from vans.models.protocol import ANSWER
from vans.models.whole import BROKEN, first_line
from vans.rng import generator
from vans.template import parse_answer

PROMPT = Path(__file__).with_name("cascade.md")
SECTION = "arms.cascade.endpoint"
TRAINED_ON = "arms.cascade.vdm"


def caption_of(text: str) -> str:
    """The caption in an answer of a model that was not taught the template: what stands between the tags, else all of
    it, in one line."""
    found = parse_answer(text)[1] or ((match := ANSWER.search(text)) and match[1].strip()) or text
    return one_line(found)


# ---------------------------------------------------------------------------------------------- the endpoint
def captions_of_endpoint(params: Any, triplets: Triplets, ids: Sequence[str], root: Path) -> dict[str, str]:
    """Whole answers to the held-out questions by id; the same question is not asked, or paid for, twice.

    One that breaks the template is asked for again, `attempts` times in all; then the last answer counts as it is. One
    that does not come, is declined or holds the endpoint's key is "". UserError if none comes.
    """
    at = params.arms.cascade
    llm, cache = at.endpoint, Cache(root / Path(at.endpoint.cache).expanduser())
    client = Client(llm, SECTION, Meter(llm, cache, SECTION))
    said, todo = dict.fromkeys(ids, ""), list(ids)
    for attempt in range(llm.attempts):
        asked = [_ask(llm, at.system, triplets, id, attempt) for id in todo]
        kept = [cache.get(ask.key) for ask in asked]
        new = iter(client.ask([a for a, k in zip(asked, kept, strict=True) if k is None], "cascade's captions"))
        for id, old in zip(list(todo), kept, strict=True):
            reply = next(new) if old is None else old
            if not isinstance(reply, Reply) or reply.finish in (*DECLINES, KEY_INSIDE):
                todo.remove(id)
                continue
            said[id] = reply.text
            if parse_answer(reply.text)[1] is not None:
                todo.remove(id)
        if not todo:
            break
    if not any(said.values()):
        raise UserError(f"params.yaml: {SECTION}: none of {len(said)} questions was answered; see to url and model")
    silent, broken = sum(not text for text in said.values()), len(todo)
    print(f"cascade: {len(said)} questions, {silent} without an answer, {broken} answers break the template")
    return said


def _ask(llm: Any, system: str, triplets: Triplets, id: str, attempt: int) -> Ask:
    prompt, row = prompts.load(PROMPT), triplets.row(id)
    told = prompt.fill("system", system=system)
    user = prompt.fill("user", question=row["question"])

    def content() -> list[dict]:
        clip = np.asarray(triplets.clips([id], "input")[0])
        return prompts.content(user, lambda _: [data_url(p) for p in pictures(clip, llm.frames, llm.side)])

    shown = hashlib.sha256(triplets.file(id, "input")).hexdigest()
    settings = [llm.url, llm.model, llm.temperature, llm.max_tokens, llm.frames, llm.side, llm.extra]
    key = hashlib.sha256(repr((told, user, shown, settings, attempt)).encode()).hexdigest()
    tokens = text_tokens(told + user) + llm.frames * llm.image_tokens
    return Ask(key, "cascade", told, content, tokens, llm.temperature if attempt else 0.0)


# ---------------------------------------------------------------------------------------------- the pipeline
class Pipeline:
    """A diffusers pipeline of `arms.cascade.vdm`: prompt, and the input's last picture where its call takes an image,
    to a video. Of what it is told (size, frames, steps, guidance, generator) it gets what its call has a name for;
    `arms.cascade.options` come last. Weights are safetensors, and no code of the repository is run.
    """

    def __init__(self, params: Any, device: Any):
        from diffusers import DiffusionPipeline

        self.params, at = params, params.arms.cascade
        where = f"params.yaml: {TRAINED_ON}: {at.vdm}"
        here = Path(at.vdm).is_dir()
        try:
            self.pipe: Any = DiffusionPipeline.from_pretrained(
                at.vdm,
                revision=None if here else at.vdm_revision,
                torch_dtype=frozen_dtype(params),
                use_safetensors=True,
                trust_remote_code=False,
            ).to(device)
        except BROKEN as error:
            raise UserError(f"{where}: no pipeline of diffusers here ({first_line(error)}); correct it") from error
        self.pipe.set_progress_bar_config(disable=True)
        self.takes = set(inspect.signature(self.pipe.__call__).parameters)
        if not {"prompt", "num_frames"} <= self.takes:
            raise UserError(f"{where}: {type(self.pipe).__name__} renders no video of a prompt; name one that does")
        if unknown := sorted(set(at.options) - self.takes):
            raise UserError(f"params.yaml: arms.cascade.options: {type(self.pipe).__name__} takes no {unknown[0]}")

    def render(self, clips: Tensor, captions: Sequence[str], names: Sequence[str]) -> list[Tensor]:
        """One video uint8 [T, H, W, 3] for each caption, the sample's noise from (seed, name)."""
        g, c = self.params.generate, self.params.video
        told: dict[str, Any] = {
            "height": c.height,
            "width": c.width,
            "num_frames": c.frames,
            "num_inference_steps": g.steps,
            "guidance_scale": g.guidance,
            "negative_prompt": self.params.models.vdm.negative_prompt,
            "output_type": "np",
        } | dict(self.params.arms.cascade.options)
        out = []
        for clip, caption, name in zip(clips, captions, names, strict=True):
            given = told | {"prompt": caption, "generator": generator(self.params.seed, "answer", name)}
            if "image" in self.takes:
                given["image"] = Image.fromarray(clip[-1].numpy())
            with torch.no_grad():
                frames = self.pipe(**{key: value for key, value in given.items() if key in self.takes}).frames
            video = torch.from_numpy(np.asarray(frames[0]))
            out.append((video.float().clamp(0, 1) * 255).round().to(torch.uint8))
        return out
