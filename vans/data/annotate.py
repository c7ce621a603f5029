"""Question, reasoning and caption for a pair of segments; the question must not tell the answer.

Deviation 1 from the paper: rules write the texts, from the labels that the sources carry, where the paper
asks a multimodal LLM. To add an annotator, write one function (Request, seed, flowery) -> Annotation, add it
to ANNOTATORS and to the choices of `curate.annotator`.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass

from vans.data import world
from vans.data.draw import Draw

LEAKY = 0.03  # share of toy questions whose first wording is bad on purpose, so that the check has work
STOP = frozenset(
    """a an and are as at be by do does for from has have he her his i if in into is it its me my next of off
    on one onto or out over she so some that the their them then there they this to up was what when which
    who will with you your happens happen comes come step""".split()  # noqa: SIM905
)


class Refused(Exception):
    """No triplet can be made of this pair; the text is the reason."""


@dataclass(frozen=True)
class Request:
    """A pair to write texts for.

    topic: routine, recipe or condition in words. given: (question, think, caption) of a published table.
    """

    id: str
    kind: str
    topic: str
    input_label: str
    target_label: str
    given: tuple[str, str, str] | None = None


@dataclass(frozen=True)
class Annotation:
    """style: plain | flowery | given. refused: questions that were thrown away before this one."""

    question: str
    reasoning: str
    caption: str
    style: str
    refused: tuple[str, ...] = ()


def content_words(text: str) -> set[str]:
    """The words of a text that carry meaning, lower case, plural and verb endings cut."""
    words = re.findall(r"[^\W_]+", text.lower())
    return {re.sub(r"(?<=\w{3})(ing|es|ed|s)$", "", w) for w in words if w not in STOP}


def leaks(question: str, request: Request) -> bool:
    """Does the question give the answer away? True if it holds at least half of what only the answer says."""
    known = content_words(request.input_label) | content_words(request.topic)
    answer = content_words(request.target_label)
    telling = (answer - known) or answer
    return bool(telling) and 2 * len(telling & content_words(question)) >= len(telling)


def rules(request: Request, seed: int, flowery: float) -> Annotation:
    """Write by rules. Raises Refused if there is no label or every question leaks."""
    if request.given is not None:
        question, think, caption = request.given
        if not (question and caption):
            raise Refused("question or caption empty")
        if leaks(question, request):
            raise Refused("the question gives the answer away")
        return Annotation(question, think, caption, "given")
    if not request.target_label:
        raise Refused("no label says what happens (the rule annotator needs one)")
    toy = _toy(request, seed, flowery) or _plain(request)
    candidates, reasoning, caption, style = toy
    for i, question in enumerate(candidates):
        if not leaks(question, request):
            return Annotation(question, reasoning, caption, style, tuple(candidates[:i]))
    raise Refused("every question gives the answer away")


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
    reasoning = world.reasoning(request.kind, request.topic, seen[0], seen[1], following[1])
    return questions, reasoning, world.caption(following[0], following[1], style, wording), style


def _plain(request: Request) -> tuple[list[str], str, str, str]:
    """The same for any labelled pair."""
    topic = request.topic or "this video"
    target = request.target_label.strip().rstrip(".")
    if request.kind == "procedural":
        questions = [f"What is the next step of {topic}?", "What comes next?"]
        seen = f"The video shows: {request.input_label.strip().rstrip('.')}. " if request.input_label else ""
        reasoning = f"{seen}In {topic} the step that follows is: {target}."
    else:
        questions = [
            f"What happens next if {topic}?" if request.topic else "What happens next?",
            "What comes next?",
        ]
        reasoning = f"After this the most likely event is: {target}."
    return questions, reasoning, target[:1].upper() + target[1:] + ".", "plain"


ANNOTATORS: dict[str, Callable[[Request, int, float], Annotation]] = {"rules": rules}
