"""A rollout group laid open: the G answers to one prompt, each reward term, the total and the advantage."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from vans.show.frames import as_clip, fitting, strip, strip_size
from vans.show.style import BLUE, FAINT, GREEN, INK, LINE, MUTED, RED, TERM_COLOURS, WASH, Canvas
from vans.template import parse_answer

WIDTH = 1000
TERM_TITLES = {
    "t1": "ROUGE-L (t1)",
    "v1": "CLIP-V (v1)",
    "v2": "CLIP-V (v2)",
    "c2": "CLIP-T (c2)",
}
WORDS = 260  # the least that an answer is given, in pixels
EQUAL = 1e-6


@dataclass(frozen=True)
class Group:
    """What one prompt gave at one step.

    ``answers``: G texts, whole answers or captions. ``captions``: those of the answers, None where the template is
    broken (empty: they are read from the answers). ``terms``: name -> G values. ``total``: G weighted sums.
    ``advantage``: G values (all 0 where the rewards are equal). ``clips``: uint8 [G, T, H, W, 3], or None
    where nothing was rendered. ``source`` and ``target``: the prompt's input clip and the true answer.
    """

    step: int
    question: str
    truth: str
    answers: Sequence[str]
    terms: Mapping[str, Sequence[float]]
    total: Sequence[float]
    advantage: Sequence[float]
    source: np.ndarray | None = None
    target: np.ndarray | None = None
    clips: np.ndarray | None = None
    captions: Sequence[str | None] = ()
    name: str = ""
    notes: Sequence[str] = field(default_factory=tuple)


def term_title(name: str) -> str:
    """What is written above a reward term; of a function, a file or an address of the user's own, its last part."""
    return TERM_TITLES.get(name) or re.split(r"[/:]", name.rstrip("/"))[-1]


def rollout_group(group: Any, title: str = "") -> Figure:
    """The prompt on top, then one row an answer, the best advantage first.

    A term's bar runs from the group's lowest value (short) to its highest (full); the ends are written above
    it. The advantage is that of the objective: positive answers are made more likely, negative ones less.
    ``group``: a Group, or anything with the same names as keys or attributes.
    """
    group = of(group)
    order = np.argsort(-np.asarray(group.advantage, float), kind="stable")
    with_clips = group.clips is not None
    same = with_clips and len(set(_captions(group))) == 1 and len(order) > 1
    frames, height = (9, 58) if same else (6, 42)
    advantage_width = 128
    term_width = min(86, (WIDTH - advantage_width - WORDS - 134) // (len(group.terms) + 1))
    terms_start = WIDTH - advantage_width - term_width * (len(group.terms) + 1) - 6
    strip_width = 0.0
    if with_clips:
        frames, _ = fitting(group.clips[0], frames, height, terms_start - (16 if same else WORDS))  # type: ignore[index]
        strip_width = strip_size(group.clips[0], frames, height)[0]  # type: ignore[index]
    row_height, top = max(height, 34) + 10, 118 if group.source is not None else 70
    page = Canvas(WIDTH, top + 34 + row_height * len(order) + 8)
    _prompt(page, group, title)
    words = strip_width + 16 if with_clips else 0
    page.rule(top - 4)
    _head(page, group, top, words, terms_start, term_width, same)
    for number, index in enumerate(order):
        y = top + 34 + number * row_height
        if number % 2 == 0:
            page.box(0, y - 5, WIDTH, row_height, WASH)
        if with_clips:
            page.image(strip(group.clips[index], frames), 0, y, strip_width, height)  # type: ignore[index]
        if not same:
            _answer(page, group.answers[index], words, y, terms_start - words - 12, height)
        middle = y + height / 2
        for place, (name, values) in enumerate({**group.terms, "total": group.total}.items()):
            x = terms_start + place * term_width
            _bar(
                page,
                x,
                middle,
                term_width - 16,
                np.asarray(values, float),
                int(index),
                TERM_COLOURS.get(name, BLUE),
            )
        _advantage(page, WIDTH - advantage_width, middle, advantage_width, group.advantage, int(index))
    return page.figure


def _prompt(page: Canvas, group: Group, title: str) -> None:
    name = f"{title or 'rollout group'} · step {group.step}" + (f" · {group.name}" if group.name else "")
    page.text(0, 0, name, 10, FAINT)
    page.text(0, 16, group.question, 14, INK, bold=True)
    note = f"true caption: {group.truth}" + "".join(f"   ·   {note}" for note in group.notes)
    page.text(0, 38, note, 11.5, BLUE)
    if group.source is not None:
        frames, _ = fitting(group.source, 9, 46, (WIDTH - 44) / 2)
        width, height = strip_size(group.source, frames, 46)
        page.image(strip(group.source, frames), 0, 60, width, height)
        if group.target is not None:
            page.text(width + 14, 74, "→", 18, MUTED)
            page.image(strip(group.target, frames), width + 44, 60, width, height)


def _head(page: Canvas, group: Group, y: float, words: float, start: float, width: float, same: bool) -> None:
    page.text(
        0,
        y + 4,
        "answers, best first" if not same else f"videos of: {_captions(group)[0]}",
        10.5,
        MUTED,
        width=start - 16,
        lines=1,
    )
    for place, (name, values) in enumerate({**group.terms, "total": group.total}.items()):
        low, high = float(np.min(values)), float(np.max(values))
        page.text(start + place * width, y, term_title(name), 10, INK, bold=name == "total")
        span = f"all {high:.3g}" if high - low < EQUAL else f"{low:.3f} – {high:.3f}"
        page.text(start + place * width, y + 14, span, 9, FAINT)
    page.text(WIDTH - 64, y, "advantage", 10, INK, bold=True, align="center")


def _captions(group: Group) -> list[str]:
    """The caption of each answer; the answer itself where the template is broken."""
    captions = group.captions or [parse_answer(text)[1] for text in group.answers]
    return [caption or text for caption, text in zip(captions, group.answers, strict=True)]


def _answer(page: Canvas, text: str, x: float, y: float, width: float, height: float) -> None:
    thinking, caption = parse_answer(text)
    size = 10.5
    if caption is None:
        page.text(x, y + 2, text, size, RED if "[" in text else INK, width=width, lines=3)
        return
    below = page.text(x, y - 1, thinking, 8.5, FAINT, width=width, lines=1 if height < 50 else 2)
    page.text(x, below, caption, size, INK, width=width, lines=2)


def _bar(page: Canvas, x: float, middle: float, width: float, values: np.ndarray, index: int, colour: str) -> None:
    low, high = values.min(), values.max()
    flat = high - low < EQUAL
    share = 1.0 if flat else 0.06 + 0.94 * (values[index] - low) / (high - low)
    page.box(x, middle - 1, width, 9, LINE)
    page.box(x, middle - 1, width * share, 9, FAINT if flat else colour)
    page.text(x, middle - 15, f"{values[index]:.3f}", 9.5, MUTED if flat else INK)


def _advantage(page: Canvas, x: float, middle: float, width: float, values: Sequence[float], index: int) -> None:
    largest = max(1e-9, float(np.abs(np.asarray(values, float)).max()))
    value, half = float(values[index]), width / 2 - 6
    centre, length = x + width / 2, half * abs(value) / largest
    colour = GREEN if value > 0 else RED if value < 0 else FAINT
    page.box(centre if value >= 0 else centre - length, middle - 1, length, 9, colour)
    page.box(centre - 0.5, middle - 5, 1, 17, FAINT)
    page.text(
        centre + 5 if value >= 0 else centre - 5,
        middle - 15,
        f"{value:+.2f}".replace("-", "−"),
        9.5,
        INK,
        align="left" if value >= 0 else "right",
    )


def load(folder: str | Path, triplets: Any = None) -> list[Group]:
    """The groups that a training kept, by step: step-<n>.json and, where videos were rendered,
    step-<n>.safetensors.

    With ``triplets`` each group gets its prompt's input and target clip. An empty list if none were kept.
    """
    from safetensors.numpy import load_file

    found = []
    for path in sorted(Path(folder).rglob("step-*.json")):
        record = json.loads(path.read_text(encoding="utf-8"))
        videos = path.with_suffix(".safetensors")
        clips = load_file(videos)["clips"] if videos.is_file() else None
        source, target = (
            None if triplets is None else np.asarray(triplets.clips([record["id"]], which)[0])
            for which in ("input", "target")
        )
        group = Group(
            step=record["step"],
            question=record["question"],
            truth=record["truth"],
            answers=record["texts"],
            captions=record["captions"],
            terms=record["terms"],
            total=record["total"],
            advantage=record["advantages"],
            source=source,
            target=target,
            clips=clips,
            name=record["id"],
        )
        found.append(group)
    return sorted(found, key=lambda group: group.step)


def most_telling(groups: Sequence[Group]) -> Group:
    """The group whose answers differ most in their reward: where a reader sees what GRPO does. Ties: the
    first."""
    return max(groups, key=lambda group: float(np.std(np.asarray(group.total, float))))


def of(group: Any) -> Group:
    """A Group from anything with the same names as attributes or keys."""
    if isinstance(group, Group):
        return group
    names = Group.__dataclass_fields__
    if isinstance(group, Mapping):
        return Group(**{name: group[name] for name in names if name in group})
    found = Group(**{name: getattr(group, name) for name in names if hasattr(group, name)})
    for clip in (found.source, found.target):
        if clip is not None:
            as_clip(clip)
    return found
