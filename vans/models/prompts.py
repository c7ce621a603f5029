"""Batches of prompts for the VLM: repeated, picked, put together; with pixels, or with the features of their clips."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad
from transformers.modeling_outputs import BaseModelOutputWithPooling

PADDING = {"input_ids": None, "attention_mask": 0, "mm_token_type_ids": 0}  # on the left; None: the pad token


def spread(clips: Tensor, rates: list[float], frames: int | None) -> tuple[Tensor, list[float]]:
    """`frames` pictures of clips [N, T, H, W, 3], evenly spread with the first and the last, and their rates; None, or
    more than there are: all.
    """
    if frames is None or frames >= clips.shape[1]:
        return clips, rates
    last = clips.shape[1] - 1
    index = torch.linspace(0, last, frames).round().long()
    return clips[:, index], [rate * max(frames - 1, 1) / last for rate in rates]


def pick(prompts, index: list[int]) -> dict:
    """Some prompts of a batch, each as often as it is named, its video with it."""
    batch = {key: prompts[key][index] for key in ("input_ids", "attention_mask", "mm_token_type_ids", "video_grid_thw")}
    batch["second_per_grid_ts"] = torch.as_tensor(prompts["second_per_grid_ts"])[index]
    if "shown" in prompts:
        batch["shown"] = [prompts["shown"][i] for i in index]
    if "video_features" in prompts:
        return batch | {"video_features": [prompts["video_features"][i] for i in index]}
    patches = prompts["pixel_values_videos"].split(prompts["video_grid_thw"].prod(1).tolist())
    return batch | {"pixel_values_videos": torch.cat([patches[i] for i in index])}


def in_parts(prompts: int, times: int, most: int) -> list[tuple[list[int], slice]]:
    """How `times` answers to each prompt, in prompt order, are cut into batches of at most `most`.

    Of each batch the prompts, every one with equally many answers, and the place of its answers: several whole prompts,
    or a part of one's answers.
    """
    if times > most:
        cuts = [(p, g, min(g + most, times)) for p in range(prompts) for g in range(0, times, most)]
        return [([p], slice(p * times + begin, p * times + end)) for p, begin, end in cuts]
    whole = most // times
    firsts = range(0, prompts, whole)
    return [(list(range(p, min(p + whole, prompts))), slice(p * times, (p + whole) * times)) for p in firsts]


def arguments(batch: dict) -> dict:
    """What the model's forward takes of a batch of prompts: pixels, or features where there are some."""
    given = {key: value for key, value in batch.items() if key != "shown"}
    if seen := given.pop("video_features", None):
        given["mm_encoder_outputs"] = {"video": BaseModelOutputWithPooling(pooler_output=seen)}
    return given


def together(prompts: list[dict], pad_token: int) -> dict:
    """Prompts with `video_features`, of one each, as one batch, padded on the left."""
    length = max(prompt["input_ids"].shape[1] for prompt in prompts)
    batch: dict = {}
    for key, value in PADDING.items():
        value = pad_token if value is None else value
        batch[key] = torch.cat([pad(p[key], (length - p[key].shape[1], 0), value=value) for p in prompts])
    for key in ("video_grid_thw", "second_per_grid_ts"):
        batch[key] = torch.cat([torch.as_tensor(p[key]) for p in prompts])
    for key in ("video_features", "shown"):
        if key in prompts[0]:
            batch[key] = [p[key][0] for p in prompts]
    return batch
