"""`vans answer INPUT "QUESTION" …`: a video or a picture that somebody brings, answered by captions and videos.

One question: one video. Several: a video of all answers side by side, each by itself (answer-1.mp4, …), and a sheet
(answer.png) with what was asked and said. `--events N`: of each question a chain, in which each answer is the next
input; its videos follow each other in the file, and the sheet has a line for each.
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from tqdm import tqdm

from vans import files
from vans.answer.watch import Watched, check_question, watch
from vans.errors import UserError
from vans.grid import Grid
from vans.media import video as media
from vans.models.protocol import protocol_of
from vans.params import find_root, load
from vans.visible import words

if TYPE_CHECKING:
    from vans.answer.live import Answer

GAP = 2  # px between two videos side by side


def answer(
    path: str | Path,
    questions: Sequence[str],
    output: str | Path,
    arm: str | None = None,
    root: Path | None = None,
    events: int = 1,
    seed: int | None = None,
) -> list[list[Answer]]:
    """Watch a video or a picture, write the caption of what comes next, render it to `output`; shows progress.

    output: a video file, or a folder (see `output_file`); everything about it, and the questions, is checked before
    anything is computed.
    arm: whose models answer (a row of the tables: sft, stage1, main, ...), None: the furthest trained. The whole video
    is watched: as many pictures as the scale's clip has, evenly spaced. An answer always comes: one that breaks the
    template is decoded again under the template's grammar, and that is said. Returns each question's answers, one an
    event.
    Raises UserError for an input that cannot be read, an output that cannot be written, and models that are not there.
    """
    root = root or find_root()
    params = load(root)
    for question in questions:
        check_question(question)
    if events < 1:
        raise UserError(f"--events is {events}; ask for one or more")
    if seed is not None and seed < 0:
        raise UserError(f"--seed is {seed}; use a whole number from 0 up")
    out = output_file(output)
    files.check_readable(path)
    clip = params.video
    size = clip.frames * clip.height * clip.width * 3 * len(questions) * events
    for file in outputs(out, len(questions), events):
        files.check_output(file, reads=[path], size=size)
    grid = Grid(params, root)
    arm = arm or grid.furthest()
    grid.answering(arm)
    seen = watch(path, clip, protocol_of(params))
    from vans.answer.live import Answerer  # the heavy libraries: what is wrong with the input is said before

    models = Answerer(params, root, arm)
    rows = _answered(models, seen, list(questions), events, seed)
    _write(out, seen, rows, clip.fps)
    print(f"written: {', '.join(str(file) for file in outputs(out, len(questions), events))}", flush=True)
    print(f"models: of the arm {arm}")
    for row in rows:
        if len(rows) > 1:
            print(f"question: {words(row[0].question)}")
        for one in row:
            print(f"caption: {words(one.caption)}")
    return rows


def output_file(output: str | Path) -> Path:
    """Where the answer goes: a file whose suffix says what is written, or answer.mp4 in a folder ("there/" or one
    that is there). UserError for a suffix that is not written."""
    out = Path(output)
    if str(output).endswith(os.sep) or os.path.isdir(out):
        out /= "answer.mp4"
    if out.suffix.lower() not in media.WRITTEN:
        raise UserError(f"{out}: the answer is a video; end its name in one of {', '.join(media.WRITTEN)}")
    return out


def outputs(out: Path, questions: int, events: int) -> list[Path]:
    """Every file that is written: the video, of several questions each one's, and the sheet where there is more than
    one answer."""
    each = [out.with_name(f"{out.stem}-{n + 1}{out.suffix}") for n in range(questions)] if questions > 1 else []
    return [out, *each, *([out.with_suffix(".png")] if questions * events > 1 else [])]


def _answered(models: Any, seen: Watched, questions: list[str], events: int, seed: int | None) -> list[list[Answer]]:
    """Each question's answers, one an event; says how they come."""
    began, bar = time.perf_counter(), None

    def heard(thoughts: list[Any]) -> None:
        nonlocal began
        for thought in thoughts:
            if thought.forced:
                print("the VLM's own answer broke the template: this one was forced into it, word by word")
            print(f"thinking ({time.perf_counter() - began:.1f} s): {words(thought.reasoning)}", flush=True)
        began = time.perf_counter()

    def progress(part: str, done: int, total: int) -> None:
        nonlocal bar
        if part == "rendering":
            bar = bar or tqdm(desc="rendering", total=total, ncols=100)
            bar.update(done - bar.n)

    rounds = []
    print("watching and thinking ...", flush=True)
    for answers in models.chain(seen, questions, events, seed=seed, progress=progress, heard=heard):
        bar = bar and bar.close()
        print(f"rendered in {time.perf_counter() - began:.1f} s", flush=True)
        rounds.append(answers)
        began = time.perf_counter()
    return [list(row) for row in zip(*rounds, strict=True)]


def _write(out: Path, seen: Watched, rows: list[list[Answer]], fps: float) -> None:
    """All files of `outputs`."""
    chains = [np.concatenate([one.frames.numpy() for one in row]) for row in rows]
    together, *rest = outputs(out, len(rows), len(rows[0]))
    media.write(together, side_by_side(chains), fps)
    if len(rows) > 1:
        for file, chain in zip(rest, chains, strict=False):
            media.write(file, chain, fps)
    if rest:
        from vans.show.chains import sheet
        from vans.show.style import save

        told = [(row[0].question, [(one.caption, one.frames.numpy()) for one in row]) for row in rows]
        save(sheet(seen.clip.numpy(), told), rest[-1])


def side_by_side(clips: Sequence[np.ndarray]) -> np.ndarray:
    """Videos uint8 [T, H, W, 3] of one size as one, white between them."""
    gap = np.full((*clips[0].shape[:2], GAP, 3), 255, np.uint8)
    parts = [part for clip in clips for part in (clip, gap)]
    return np.concatenate(parts[:-1], axis=2)
