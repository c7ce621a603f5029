"""Question, reasoning and caption by rules, from the labels that the sources carry."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vans.data.annotate.base import Annotation, Candidate, Refused, Request, keep_given, leaks, telling
from vans.data.draw import Draw
from vans.toy import world

LEAKY = 0.03  # share of toy questions whose first wording is bad on purpose, so that the check has work


class Rules:
    """The annotator of the toy world and of labelled sources: no model, no cost, no pictures looked at."""

    chooses = None

    def __init__(self, params: Any, root: str | Path | None = None, progress: bool = True) -> None:
        self.seed, self.flowery = params.seed, params.curate.flowery

    def choose(self, candidates: Sequence[Candidate]) -> list[float | Refused]:
        """Refuses all: rules see no pictures (`chooses` is None)."""
        return [Refused("the rule annotator chooses no clip") for _ in candidates]

    def write(self, requests: Sequence[Request]) -> list[Annotation | Refused]:
        """Texts in order; captions of the test split are plain."""
        return [self._one(request) for request in requests]

    def _one(self, request: Request) -> Annotation | Refused:
        try:
            return rules(request, self.seed, self.flowery if request.split == "train" else 0.0)
        except Refused as reason:
            return reason


def rules(request: Request, seed: int, flowery: float) -> Annotation:
    """Write by rules. Raises Refused if there is no label or every question leaks."""
    if request.given is not None:
        return keep_given(request)
    if not request.target_label:
        raise Refused("no label says what happens (the rule annotator needs one)")
    toy = _toy(request, seed, flowery) or _plain(request)
    candidates, reasoning, caption, style = toy
    candidates = [telling(question, request.told) for question in candidates]
    for i, question in enumerate(candidates):
        if not leaks(question, request):
            return Annotation(question, reasoning, caption, style, tuple(candidates[:i]))
    raise Refused("every question gives the answer away", tuple(candidates))


def _toy(request: Request, seed: int, flowery: float) -> tuple[list[str], str, str, str] | None:
    """(questions to try, reasoning, caption, style) in the toy world's language; None for other pairs."""
    seen, following = world.read_label(request.input_label), world.read_label(request.target_label)
    topics = world.ROUTINES if request.kind == "procedural" else world.CONDITIONS
    if seen is None or following is None or request.topic not in topics:
        return None
    draw = Draw(seed, "annotate", request.id)
    style = "flowery" if draw.chance(flowery) else "plain"
    wording, first, leaky = draw.below(2), draw.below(2), draw.chance(LEAKY)
    questions = [world.question(request.kind, request.topic, i) for i in (first, 1 - first)]
    if leaky:
        questions.insert(0, world.leaking_question(request.kind, request.topic, following[0], following[1]))
    last = world.read_label(request.told) or seen
    reasoning = world.reasoning(request.kind, request.topic, seen[0], last[1], following[1])
    return questions, reasoning, world.caption(following[0], following[1], style, wording), style


def _plain(request: Request) -> tuple[list[str], str, str, str]:
    """Stand-ins for any labelled pair: the label is the caption, whatever the video looks like."""
    topic = request.topic or "this video"
    target = request.target_label.strip().rstrip(".")
    if request.kind == "procedural":
        questions = [f"What is the next step of {topic}?", "What comes next?"]
        seen = f"The video shows: {request.input_label.strip().rstrip('.')}. " if request.input_label else ""
        seen += f"Then comes: {request.told.strip().rstrip('.')}. " if request.told else ""
        reasoning = f"{seen}In {topic} the step that follows is: {target}."
    else:
        questions = ["What happens next?", "What comes next?"]
        if request.condition:
            questions.insert(0, f"What happens next if {request.condition}?")
        elif request.topic:
            questions.insert(0, f"Topic: {topic}. What happens next?")
        reasoning = f"After this the most likely event is: {target}."
    return questions, reasoning, target[:1].upper() + target[1:] + ".", "plain"
