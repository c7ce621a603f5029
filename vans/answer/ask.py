"""`vans answer VIDEO "QUESTION"`: one video that somebody brings, answered by a caption and a video."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from vans import grid
from vans.errors import UserError
from vans.media import video as media
from vans.params import find_root, load

ATTEMPTS = 8


def answer(video: str | Path, question: str, output: str | Path, arm: str = "main", root: Path | None = None) -> str:
    """Watch `video`, write the caption of what comes next, render it to `output`; shows progress.

    arm: whose models answer (a row of the tables: sft, stage1, main, ...). The whole video is watched: as many
    pictures as the scale's clip has, evenly spaced. Returns the caption.
    Raises UserError for a video that cannot be read, models that are not there, and an answer without a caption.
    """
    root = root or find_root()
    out = Path(output)
    params = load(root)
    models = grid.arm(params, arm)
    if models.vlm is None or models.vdm is None:
        raise UserError(f"arm {arm!r} has no VLM that could answer a question; use main, stage1 or sft")
    clip, fps = watch(video, params.clip)
    if out.suffix.lower() not in media.VIDEO_SUFFIXES:
        raise UserError(f"{out}: the answer is a video; name it .mp4 or .avi")
    from vans.answer.arm import render, write_answers
    from vans.models.load import load_vdm, load_vlm
    from vans.template import parse_answer  # the heavy libraries: what is wrong with the video is said before

    base = Path(root) / "models/base"
    device = "cuda" if params.machine.device != "cpu" and torch.cuda.is_available() else "cpu"
    torch.set_num_threads(max(params.machine.threads, params.machine.processes))
    began = time.perf_counter()
    print("watching and thinking ...", flush=True)
    writer = load_vlm(params, base, Path(root) / models.vlm / "vlm", device)
    for attempt in range(ATTEMPTS):  # sampled: an answer that breaks the template is thrown away
        text = write_answers(params, writer, clip, [question], [fps], [f"answer/{attempt}"])[0]
        thinking, caption = parse_answer(text)
        if caption is not None:
            break
    else:
        raise UserError(f"{ATTEMPTS} answers of the VLM broke the template, the last one is {text!r}; ask otherwise")
    middle = time.perf_counter()
    print(f"thinking ({middle - began:.1f} s): {thinking}", flush=True)
    painter = load_vdm(params, base, Path(root) / models.vdm / "vdm", device)
    with tqdm(total=params.generate.steps, desc="rendering", ncols=100) as bar:
        frames = render(params, painter, clip, [caption], ["answer"], lambda: bar.update(1))
    media.write(out, frames[0].numpy(), params.clip.fps)
    print(f"rendered in {time.perf_counter() - middle:.1f} s", flush=True)
    return caption


def watch(video: str | Path, clip) -> tuple[torch.Tensor, float]:
    """A whole video as one input clip uint8 [1, T, H, W, 3], evenly spaced over it, and their rate."""
    source = media.Video(video)
    times = source.info.start + (np.arange(clip.frames) + 0.5) * source.info.duration / clip.frames
    pictures = torch.from_numpy(source.sample(times, clip.height, clip.width))[None]
    return pictures, clip.frames / source.info.duration
