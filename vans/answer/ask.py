"""`vans answer VIDEO "QUESTION"`: one video that somebody brings, answered by a caption and a video."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import torch
from tqdm import tqdm

from vans import files
from vans.devices import device_of
from vans.errors import UserError
from vans.grid import Grid
from vans.media import video as media
from vans.models.protocol import Protocol, protocol_of
from vans.params import find_root, load
from vans.template import check_words, parse_answer
from vans.visible import words


def answer(video: str | Path, question: str, output: str | Path, arm: str = "main", root: Path | None = None) -> str:
    """Watch `video`, write the caption of what comes next, render it to `output`; shows progress.

    output: a video file, or a folder (see `output_file`); everything about it, and the question, is checked before
    anything is computed.
    arm: whose models answer (a row of the tables: sft, stage1, main, ...). The whole video is watched: as many
    pictures as the scale's clip has, evenly spaced. An answer always comes: one that breaks the template is decoded
    again under the template's grammar, and that is said. Returns the caption.
    Raises UserError for a video that cannot be read, an output that cannot be written, and models that are not there.
    """
    root = root or find_root()
    params = load(root)
    check_question(question)
    out = output_file(output)
    files.check_readable(video)
    clip = params.video
    files.check_output(out, reads=[video], size=clip.frames * clip.height * clip.width * 3)
    models = Grid(params, root).arm(arm)
    if models.captions != "vlm":
        raise UserError(f"arm {arm!r} has no VLM that could answer a question; use main, stage1 or sft")
    if models.best_of:
        raise UserError(f"arm {arm!r} chooses among several answers to the held-out questions; use main, stage1 or sft")
    protocol = protocol_of(params)
    seen, fps = watch(video, clip)
    looked, rate = watched(video, clip, protocol) if protocol.pixels else (seen, fps)
    from vans.answer.arm import render  # the heavy libraries: what is wrong with the video is said before
    from vans.models.load import load_vdm, load_vlm

    base = Path(root) / "models/base"
    device = device_of("cpu" if params.machine.device == "cpu" else "auto", 0)
    torch.set_num_threads(max(params.machine.threads, params.machine.processes))
    vlm = load_vlm(params, base, Path(root) / models.vlm_folder, device)
    vdm = load_vdm(params, base, Path(root) / models.vdm_folder, device)
    began = time.perf_counter()
    print("watching and thinking ...", flush=True)
    thinking, caption, forced = think(params, vlm, looked, question, rate)
    middle = time.perf_counter()
    if forced:
        print("the VLM's own answer broke the template: this one was forced into it, word by word", flush=True)
    print(f"thinking ({middle - began:.1f} s): {words(thinking)}", flush=True)
    with tqdm(total=params.generate.steps, desc="rendering", ncols=100) as bar:
        frames = render(params, vdm, seen, [caption], ["answer"], lambda: bar.update(1))
    media.write(out, frames[0].numpy(), clip.fps)
    print(f"rendered in {time.perf_counter() - middle:.1f} s", flush=True)
    print(f"written: {out}", flush=True)
    return caption


def check_question(question: str) -> None:
    """UserError for a question that no model can be asked: bytes that are no text, signs of the models' own."""
    if any("\ud800" <= sign <= "\udfff" for sign in question):
        raise UserError(f"the question is not in UTF-8: {question[:400]!r}; type it in a terminal that writes UTF-8")
    check_words(question, "the question")


def output_file(output: str | Path) -> Path:
    """Where the answer goes: a file whose suffix says what is written, or answer.mp4 in a folder ("there/" or one
    that is there). UserError for a suffix that is not written."""
    out = Path(output)
    if str(output).endswith(os.sep) or os.path.isdir(out):
        out /= "answer.mp4"
    if out.suffix.lower() not in media.WRITTEN:
        raise UserError(f"{out}: the answer is a video; end its name in one of {', '.join(media.WRITTEN)}")
    return out


def think(params, vlm, clip: torch.Tensor, question: str, fps: float) -> tuple[str, str, bool]:
    """(thinking, caption, forced): the VLM's own answer or, where that breaks the template, one decoded within it."""
    from vans.answer.arm import write_answers
    for forced in (False, True):
        name = f"answer/{int(forced)}"
        text = write_answers(params, vlm, clip, [question], [fps], [name], within_template=forced)[0]
        caption = protocol_of(params).caption(text)
        if caption is not None:
            return parse_answer(text)[0], caption, forced
    raise AssertionError(f"an answer within the template breaks it: {text!r}")


def watch(video: str | Path, clip) -> tuple[torch.Tensor, float]:
    """A whole video as one input clip uint8 [1, T, H, W, 3], evenly spaced over it, and their rate."""
    source = media.Video(video)
    times = source.info.start + (np.arange(clip.frames) + 0.5) * source.info.duration / clip.frames
    pictures = torch.from_numpy(source.sample(times, clip.height, clip.width))[None]
    return pictures, clip.frames / source.info.duration


def watched(video: str | Path, clip, protocol: Protocol) -> tuple[torch.Tensor, float]:
    """The pictures that the VLM sees where they keep the video's own shape, uint8 [1, frames, H, W, 3], with the first
    and the last, and their rate. H and W: as the video's, made smaller to `protocol.pixels` where they are more.
    """
    source = media.Video(video)
    info, count = source.info, protocol.frames or clip.frames
    times = np.linspace(info.start, max(info.start, info.end - 1 / info.fps), count)
    smaller = min(1.0, ((protocol.pixels or np.inf) / (info.height * info.width)) ** 0.5)
    height, width = (max(1, int(side * smaller)) for side in (info.height, info.width))
    pictures = torch.from_numpy(source.sample(times, height, width))[None]
    return pictures, max(count - 1, 1) / max(times[-1] - times[0], 1 / info.fps)
