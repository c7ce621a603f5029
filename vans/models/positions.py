"""Where the VLM's tokens stand: three numbers each (time, height, width), of which rotary embeddings are made.

    grid     text goes on behind the larger side of the video's grid: transformers 5.23's own rule
    largest  text goes on behind the largest position so far, time included: the rule from transformers 4.49, with which
             Qwen2.5-VL came out, to 4.57; taken for that of its training and of the published VANS weights

They differ where a video is longer, in time steps, than its grid is wide (at the paper's size over about 12 s: by 7
positions at 15 s, 16 at 20 s). They are made here, by one function, and given to every forward pass: the model's own
`rope_deltas` (5.23) count from the largest position, also where its positions follow the grid, so that tokens placed by
them do not stand where a pass over the whole sequence has them. Times keep their fractions, as in 5.23 and 4.49 (4.57
cuts the seconds of a grid to a whole number: 33 pictures over 5, 10 or 15 s all stand at time 0).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

RULES = ("grid", "largest")


def positions(prompts: Any, config: Any, rule: str) -> tuple[Tensor, Tensor]:
    """(places [3, N, S], next [N]): of each token of N prompts, 0 on padding, and of the first token behind each.

    prompts: attention_mask [N, S]; where they hold pictures or videos, mm_token_type_ids [N, S] (0 text, 1 image,
    2 video), image_grid_thw and video_grid_thw [.., 3] in patches, second_per_grid_ts [..] of the videos. config: the
    model's, with vision_config. rule: see above. Raises ValueError for another rule.
    """
    if rule not in RULES:
        raise ValueError(f"no rule {rule!r} of positions; one of {', '.join(RULES)}")
    vision, mask = config.vision_config, prompts["attention_mask"].bool()
    merge, per_second = vision.spatial_merge_size, vision.tokens_per_second
    kinds = prompts["mm_token_type_ids"] if "mm_token_type_ids" in prompts else torch.zeros_like(prompts["input_ids"])
    images = _grids(prompts, "image_grid_thw", [1] * len(prompts.get("image_grid_thw", ())), 1, merge)
    seconds = torch.as_tensor(prompts.get("second_per_grid_ts", ())).tolist()
    videos = _grids(prompts, "video_grid_thw", seconds, per_second, merge)
    places = torch.zeros((3, *mask.shape), dtype=torch.long, device=mask.device)
    following = []
    for row in range(len(mask)):
        now, parts = 0, []
        for kind, run in groupby(kinds[row][mask[row]].tolist()):
            count = len(list(run))
            if kind == 0:
                parts.append(torch.arange(count).expand(3, -1) + now)
                now += count
            else:
                grid = next(videos if kind == 2 else images)  # [3, t h w]
                parts.append(grid + now)
                now += int((grid[1:] if rule == "grid" else grid).max()) + 1
        places[:, row, mask[row]] = torch.cat(parts, 1).to(mask.device)
        following.append(now)
    return places, torch.tensor(following, device=mask.device)


def _grids(prompts: Any, key: str, seconds: Sequence[float], per_second: float, merge: int) -> Iterator[Tensor]:
    """Of each picture or video: time, height and width [3, t h w] of its tokens, from 0."""
    for (t, h, w), step in zip(torch.as_tensor(prompts.get(key, ())).tolist(), seconds, strict=True):
        time = (torch.arange(t) * (per_second * step)).long()
        axes = (time, torch.arange(h // merge), torch.arange(w // merge))
        yield torch.stack(torch.meshgrid(*axes, indexing="ij")).flatten(1)
