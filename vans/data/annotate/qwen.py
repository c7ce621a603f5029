"""A local Qwen2.5-VL as annotator: the same prompts, in batches, through transformers and the model's own processor.

Clips are given to it as videos. Nothing is paid, but every answer is kept all the same: an interrupted run goes on
where it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm
from transformers import AutoConfig
from transformers.video_utils import VideoMetadata

from vans.data.annotate.base import Refused
from vans.data.annotate.llm import BROKEN, LLM, SAID, Query
from vans.devices import device_of
from vans.errors import UserError
from vans.llm import answers, prompts
from vans.llm.cache import Reply
from vans.models.vlm import VLM
from vans.models.whole import companion

RATE = 2.0  # pictures per second that the model is told; it places them in time by this alone


class Qwen(LLM):
    """The annotator `qwen`. UserError if the weights are not there, at once if it has never answered."""

    def __init__(self, params: Any, root: str | Path | None = None, progress: bool = True) -> None:
        super().__init__(params, root, progress)
        self.local = params.curate.qwen
        self.model = f"{self.local.repo}@{self.local.revision or ''}"
        if not self.meter.cache.knows(self.model):  # said before hours of decoding; kept answers need no weights
            try:
                companion(AutoConfig, self.local.repo, "config", "get it", revision=self.local.revision)
            except UserError as error:
                raise self._missing(error.__cause__ or error) from error

    @cached_property
    def vlm(self) -> VLM:
        """The model: bfloat16 on a GPU, float32 else."""
        device = device_of("auto", 0)
        try:
            vlm = VLM.load(
                self.local.repo, self.local.revision, torch.float32 if device.type == "cpu" else torch.bfloat16
            )
        except UserError as error:
            raise self._missing(error.__cause__ or error) from error
        vlm.sample_batch = self.local.batch  # a batch is not cut: its rows have a video each, or two, or none
        return vlm.to(device)

    def _missing(self, error: BaseException) -> UserError:
        place = f"scales.{self.params.scale}." if hasattr(self.params, "scale") else ""
        why = " ".join(str(error).split())[:200]
        return UserError(
            f"params.yaml: {place}curate.qwen.repo: {self.local.repo}: no weights ({why}); get them, or choose another "
            f"{place}curate.annotator"
        )

    def answer(self, keys: Sequence[str], queries: Sequence[Query]) -> list[Reply | Refused]:
        """Answer all, `batch` at a time; each sampled answer depends on its own query alone."""
        out: list[Reply | Refused] = []
        task, quiet = queries[0].task, not self.progress or len(queries) < SAID
        with tqdm(total=len(queries), desc=f"annotate, {task}", disable=quiet, mininterval=2.0) as bar:
            for start in range(0, len(queries), self.local.batch):
                part = slice(start, start + self.local.batch)
                out += self._batch(keys[part], queries[part])
                bar.update(len(keys[part]))
        return out

    def _batch(self, keys: Sequence[str], queries: Sequence[Query]) -> list[Reply | Refused]:
        out: list[Reply | Refused] = [Refused(BROKEN)] * len(queries)
        chats, videos, rows = [], [], []
        for i, query in enumerate(queries):
            try:
                chat, shown = self._chat(query)
            except ValueError as error:
                out[i] = Refused(BROKEN, detail=str(error))
                continue
            chats.append(chat)
            videos += shown
            rows.append(i)
        if not rows:
            return out
        inputs = self._inputs(chats, videos)
        said = self.vlm.sample(
            inputs,
            seeds=[(self.params.seed, keys[i]) for i in rows],
            max_new_tokens=self.llm.max_tokens,
            temperature=self.temperature(queries[rows[0]]),
        )
        read, written = inputs["attention_mask"].sum(1).tolist(), said.mask.sum(1).tolist()
        for row, i in enumerate(rows):
            out[i] = reply = Reply(answers.clean(said.texts[row]), "stop", int(read[row]), int(written[row]))
            self.meter.paid(keys[i], queries[i].task, self.model, reply)
        return out

    def _chat(self, query: Query) -> tuple[list[dict], list[torch.Tensor]]:
        """Messages with places for videos, and the videos uint8 [T, 3, h, w]. ValueError if a clip is damaged."""
        content, shown = [], []
        for kind, value in prompts.split(query.user):
            if kind == "text":
                content.append({"type": "text", "text": value + "\n"})
            elif value in query.clips:
                pictures = query.clips[value].pictures(query.most, self.llm.side)
                shown.append(torch.from_numpy(pictures.copy()).permute(0, 3, 1, 2))
                content.append({"type": "video"})
            else:
                content.append({"type": "text", "text": "(no pictures)\n"})
        system = {"role": "system", "content": [{"type": "text", "text": query.system}]}
        return [system, {"role": "user", "content": content}], shown

    def _inputs(self, chats: list[list[dict]], videos: list[torch.Tensor]) -> Any:
        """The processor's batch, padded on the left."""
        processor = self.vlm.processor
        texts = [processor.apply_chat_template(c, add_generation_prompt=True, tokenize=False) for c in chats]
        if not videos:
            return processor(text=texts, padding=True, return_tensors="pt").to(self.vlm.device)
        return processor(
            text=texts,
            videos=videos,
            video_metadata=[
                VideoMetadata(total_num_frames=len(v), fps=RATE, frames_indices=list(range(len(v)))) for v in videos
            ],
            do_sample_frames=False,
            cap_pixels_per_frame=False,
            padding=True,
            return_tensors="pt",
        ).to(self.vlm.device)
