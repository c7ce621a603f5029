"""What is asked of an annotator and what it answers; when a question gives the answer away."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

STOP = frozenset(
    """a an and are as at be by do does for from has have he her his i if in into is it its me my next of off
    on one onto or out over she so some that the their them then there they this to up was what when which
    who will with you your happens happen comes come step""".split()  # noqa: SIM905
)


class Refused(Exception):
    """Nothing usable can be made of this; the text is the reason, one of a few (reports count them).

    questions: those that were thrown away on the way. detail: what exactly happened, for a log.
    """

    def __init__(self, reason: str, questions: tuple[str, ...] = (), detail: str = "") -> None:
        super().__init__(reason)
        self.questions, self.detail = questions, detail


@dataclass(frozen=True, eq=False)
class Candidate:
    """A segment whose best clip is wanted.

    label: what happens in it ("" if nobody said). times: s, ascending, one per picture. frames: uint8 [n, H, W, 3].
    """

    id: str
    label: str
    times: np.ndarray
    frames: np.ndarray


@dataclass(frozen=True)
class Request:
    """A pair to write texts for.

    topic: routine, recipe or condition in words; condition: the same if it is one ("the wind blows").
    given: (question, think, caption) of a published table.
    clips: the files of the input and the target clip (`vans.media.video.decode` reads them). split: train | test.
    told: the step between the two clips, which the question says ("" where they follow each other).
    """

    id: str
    kind: str
    topic: str
    input_label: str
    target_label: str
    given: tuple[str, str, str] | None = None
    clips: tuple[bytes, bytes] | None = None
    split: str = "train"
    condition: str = ""
    told: str = ""


@dataclass(frozen=True)
class Annotation:
    """style: plain | flowery | given | written. refused: questions that were thrown away before this one."""

    question: str
    reasoning: str
    caption: str
    style: str
    refused: tuple[str, ...] = ()


class Annotator(Protocol):
    """Answers stand in the order of what was asked.

    chooses: what it picks the best clip of a segment from: (number of pictures, px of their longer side at most);
    None: it does not.
    """

    chooses: tuple[int, int] | None

    def choose(self, candidates: Sequence[Candidate]) -> list[float | Refused]:
        """Where the best clip of each segment begins: s, on the clock of the candidate's `times`."""
        ...

    def write(self, requests: Sequence[Request]) -> list[Annotation | Refused]:
        """Question, reasoning and caption of each pair, or why there are none."""
        ...


def content_words(text: str) -> set[str]:
    """The words of a text that carry meaning, lower case, plural and verb endings cut."""
    words = re.findall(r"[^\W_]+", text.lower())
    return {re.sub(r"(?<=\w{3})(ing|es|ed|s)$", "", w) for w in words if w not in STOP}


def leaks(question: str, request: Request) -> bool:
    """Does the question give the answer away? True if it holds at least half of what only the answer says."""
    known = content_words(request.input_label) | content_words(request.topic) | content_words(request.told)
    answer = content_words(request.target_label)
    telling = (answer - known) or answer
    return bool(telling) and 2 * len(telling & content_words(question)) >= len(telling)


def telling(question: str, told: str) -> str:
    """The question behind the step that it tells: its label as a sentence of its own ("": the question alone)."""
    return f"{told if told.endswith('.') else told + '.'} {question}" if told else question


def keep_given(request: Request) -> Annotation:
    """Texts of a published table or a user as they are. Raises Refused if one is empty or the question leaks."""
    assert request.given is not None
    question, think, caption = request.given
    if not (question and think and caption):
        raise Refused("question, reasoning or caption empty")
    if leaks(question, request):
        raise Refused("the question gives the answer away")
    return Annotation(question, think, caption, "given")
