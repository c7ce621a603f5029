"""Models that stay loaded and answer what comes: for `vans answer`, the demo, and chains of events.

    models = Answerer(params, root, arm="main")
    seen = models.watch("clip.mp4")                           # a video or a picture
    answers = models.answer(seen, ["what happens next ?"])    # one of each question
    answers[0].reasoning, answers[0].caption, answers[0].frames
    models.render(seen, ["another caption"], seed=1)          # a caption of one's own
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any

import torch
from torch import Tensor

from vans.answer.draw import render, write_answers
from vans.answer.watch import Watched, check_question, check_text, of_frames, watch
from vans.devices import device_of
from vans.grid import Grid
from vans.models.load import load_vdm, load_vlm
from vans.models.protocol import protocol_of
from vans.template import parse_answer

Progress = Callable[[str, int, int], object]  # part ("thinking": tokens, "rendering": steps), done, of at most
Heard = Callable[[list["Thought"]], object]  # what was thought, before it is rendered


class Cancelled(Exception):
    """`cancel` was set: what was begun is given up."""


@dataclass(frozen=True)
class Thought:
    """What the VLM says of a question. forced: its own answer broke the template and was decoded within it."""

    question: str
    reasoning: str
    caption: str
    forced: bool


@dataclass(frozen=True)
class Answer(Thought):
    """frames: the video, uint8 [T, H, W, 3] at the scale's rate."""

    frames: Tensor


class Answerer:
    """The two models of an arm, loaded once. One call at a time: who has several threads puts a lock around it.

    arm: a row of the tables (main, stage1, sft, …), see `Grid.answering`. UserError for one without a VLM, and for
    models that are not there.
    """

    def __init__(self, params: Any, root: Path, arm: str = "main") -> None:
        self.params, self.protocol = params, protocol_of(params)
        models = Grid(params, root).answering(arm)
        device = device_of("cpu" if params.machine.device == "cpu" else "auto", 0)
        torch.set_num_threads(params.machine.threads)
        self.vlm = load_vlm(params, root / "models/base", root / models.vlm_folder, device)
        self.vdm = load_vdm(params, root / "models/base", root / models.vdm_folder, device, True)

    def watch(self, path: str | Path) -> Watched:
        """A video or a picture as the models look at it; UserError for what is neither."""
        return watch(path, self.params.video, self.protocol)

    def answer(
        self,
        seen: Watched | Sequence[Watched],
        questions: Sequence[str],
        seed: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        progress: Progress | None = None,
        cancel: Event | None = None,
        heard: Heard | None = None,
        name: str | Sequence[str] = "answer",
    ) -> list[Answer]:
        """An answer to each question, about one input or one of each.

        seed, steps, guidance: others than the parameters' (UserError where out of range). All videos are rendered from
        the same noise, so that an answer does not depend on the other questions. name: of the random numbers, of all or
        of each. heard: is given the captions before they are rendered.
        cancel: may be set by another thread: Cancelled is raised within a token or a step of rendering.
        """
        seen = [seen] * len(questions) if isinstance(seen, Watched) else seen
        given: dict[str, Any] = {"seed": seed, "progress": progress, "cancel": cancel, "name": name}
        thoughts = self.think(seen, questions, **given)
        if heard is not None:
            heard(thoughts)
        videos = self.render(seen, [thought.caption for thought in thoughts], steps=steps, guidance=guidance, **given)
        return [Answer(**vars(thought), frames=video) for thought, video in zip(thoughts, videos, strict=True)]

    def think(
        self,
        seen: Watched | Sequence[Watched],
        questions: Sequence[str],
        seed: int | None = None,
        progress: Progress | None = None,
        cancel: Event | None = None,
        name: str | Sequence[str] = "answer",
    ) -> list[Thought]:
        """What the VLM says of each question; always something: what breaks the template is decoded again within it.

        UserError for a question that cannot be asked (`check_question`).
        """
        for question in questions:
            check_question(question)
        seen = [seen] * len(questions) if isinstance(seen, Watched) else seen
        params = self._with(seed)
        most = self.protocol.drawing(params.generate)["max_new_tokens"]
        found: dict[int, Thought] = {}
        with _watched_over(self.vlm.model, cancel, progress and (lambda n: progress("thinking", min(n, most), most))):
            for forced in (False, True):
                rest = [i for i in range(len(questions)) if i not in found]
                names = [f"{_each(name, questions)[i]}/{int(forced)}" for i in rest]
                asked = [seen[i] for i in rest], [questions[i] for i in rest]
                for i, text in zip(rest, self._texts(params, *asked, names, forced), strict=True):
                    if caption := self.protocol.caption(text):  # an empty one says nothing
                        found[i] = Thought(questions[i], parse_answer(text)[0], caption, forced)
        return [found[i] for i in range(len(questions))]

    def _texts(
        self, params: Any, seen: Sequence[Watched], questions: Sequence[str], names: Sequence[str], forced: bool
    ) -> list[str]:
        """The VLM's whole answers."""
        if not questions:
            return []
        clips, rates = torch.stack([one.looked for one in seen]), [one.looked_rate for one in seen]
        return write_answers(params, self.vlm, clips, list(questions), rates, list(names), forced)

    def render(
        self,
        seen: Watched | Sequence[Watched],
        captions: Sequence[str],
        seed: int | None = None,
        steps: int | None = None,
        guidance: float | None = None,
        progress: Progress | None = None,
        cancel: Event | None = None,
        name: str | Sequence[str] = "answer",
    ) -> Tensor:
        """The videos of captions, uint8 [N, T, H, W, 3], about one input or one of each."""
        for caption in captions:  # signs of the models' own are read as words (`VDM.embed`)
            check_text(caption, "the caption")
        seen = [seen] * len(captions) if isinstance(seen, Watched) else seen
        params = self._with(seed, steps, guidance)
        g, done = params.generate, 0
        total = g.steps * -(-len(captions) // g.batch)

        def stepped() -> None:
            nonlocal done
            done += 1
            if progress is not None:
                progress("rendering", done, total)

        clips = torch.stack([one.clip for one in seen])
        self.vdm.lowered(self.protocol.half, self.protocol.tile)  # before it is asked what computes
        with _watched_over(self.vdm.network, cancel):
            return render(params, self.vdm, clips, list(captions), _each(name, captions), stepped)

    def chain(
        self,
        seen: Watched | Sequence[Watched],
        questions: Sequence[str],
        events: int,
        name: str | Sequence[str] = "answer",
        **given: Any,
    ) -> Iterator[list[Answer]]:
        """Answers to each question, then to the same question about each answer, and so on: `events` times.

        given: as for `answer`. Each event has random numbers of its own; the first is what `answer` gives.
        """
        for event in range(events):
            answers = self.answer(seen, questions, **given, name=names_of(event, _each(name, questions)))
            yield answers
            seen = [of_frames(answer.frames, self.params.video.fps) for answer in answers]

    def _with(self, seed: int | None, steps: int | None = None, guidance: float | None = None) -> Any:
        drawn = {key: value for key, value in {"steps": steps, "guidance": guidance}.items() if value is not None}
        changes: dict[str, Any] = ({} if seed is None else {"seed": seed}) | ({"generate": drawn} if drawn else {})
        return self.params.with_(**changes) if changes else self.params


def names_of(event: int, names: Sequence[str]) -> list[str]:
    """The names of the random numbers of a chain's event (from 0 on)."""
    return [f"{name}/{event}" if event else name for name in names]


def _each(name: str | Sequence[str], of: Sequence[Any]) -> list[str]:
    return [name] * len(of) if isinstance(name, str) else list(name)


@contextlib.contextmanager
def _watched_over(
    model: torch.nn.Module, cancel: Event | None, count: Callable[[int], object] | None = None
) -> Iterator[None]:
    """Cancelled before the model's next call once `cancel` is set; count(n): before its n-th call is made."""
    calls = 0

    def look(*_: Any) -> None:
        nonlocal calls
        if cancel is not None and cancel.is_set():
            raise Cancelled
        if count is not None:
            calls += 1
            count(calls)

    handle = model.register_forward_pre_hook(look)
    try:
        yield
    finally:
        handle.remove()
