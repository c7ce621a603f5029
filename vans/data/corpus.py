"""What the toy-sized base models read: descriptions of the training clips, and the language without its rules.

It stands in for the web data that real base models have seen. Only clips of the training split are in it.
"""

from __future__ import annotations

import numpy as np

from vans.data.triplets import Triplets
from vans.toy import oracle, world

RESTS = 0.15  # share of single pictures in which nothing happens yet
SALIENT = 0.8  # of the largest difference from the first picture: what the others show
EXERCISES = ("describe the video .", "what was seen ?", "ask a question .", "tell a story .")


class Corpus:
    """Texts about the training clips of some triplets."""

    def __init__(self, triplets: Triplets, flowery: float = 0.03):
        self.triplets, self.flowery = triplets, flowery
        self.ids = triplets.select(split="train")
        self._colours: dict[str, dict[str, str]] = {}
        self._sentences = {
            which: triplets.frame[f"{which}_sentence"].to_dict() for which in ("input", "target")
        }
        train = set(self.ids)
        self.classes = sorted({s for table in self._sentences.values() for i, s in table.items() if i in train})
        self._class = {s: i for i, s in enumerate(self.classes)}

    def vocabulary(self) -> list[str]:
        """Every word that a model may have to read or write: the toy world's and those of the training texts."""
        words = set(world.vocabulary()) | set(world.COLOURS) | {"a", "is", "this"}
        words |= {w for text in EXERCISES for w in text.split()}
        frame = self.triplets.frame.loc[self.ids]
        for column in ("question", "reasoning", "caption", "input_sentence", "target_sentence"):
            words |= {w for text in frame[column] for w in str(text).split()}
        return sorted(words)

    def sentence(self, id: str, which: str) -> str:
        """The annotated label of a clip."""
        return self._sentences[which][id]

    def class_of(self, id: str, which: str) -> int:
        """The label as a class number (for the FVD detector)."""
        return self._class[self.sentence(id, which)]

    def colour(self, id: str, which: str) -> str:
        """The object's colour, read from the pixels (of all training clips at the first call)."""
        if which not in self._colours:
            readings = [r for part in _blocks(self.ids) for r in oracle.read(self.triplets.clips(part, which))]
            self._colours[which] = {i: r.colour for i, r in zip(self.ids, readings, strict=True)}
        return self._colours[which][id]

    def describe(self, id: str, which: str, draw: np.random.Generator, other: float = 0.5) -> str:
        """A description of a clip: with colour, in a plain wording, or (rarely) in a flowery one.

        other: share of the plain ones that have the word which labels never have.
        """
        sentence = self.sentence(id, which)
        known = world.read_label(sentence)
        if known is None:
            return sentence
        u = draw.random()
        if u < self.flowery:
            return world.caption(*known, "flowery", int(draw.integers(2)))
        plain = world.caption(*known, "plain", int(draw.random() < other))
        return self._coloured(plain, id, which) if u < 0.4 else plain

    def _coloured(self, text: str, id: str, which: str) -> str:
        return text.replace("the ", f"a {self.colour(id, which)} ", 1)

    def moment(
        self, id: str, which: str, clip: np.ndarray, draw: np.random.Generator
    ) -> tuple[int, str]:
        """(frame, what is said of it), as pictures on the web have it: what is spoken of can be seen.

        clip: uint8 [T, H, W, 3]. The frame is one of those that differ most from the first one, with the clip's
        description; or (a share of RESTS) the first one, in which nothing happens.
        """
        known = world.read_label(self.sentence(id, which))
        if known is not None and draw.random() < RESTS:
            text = world.still(known[0])
            return 0, self._coloured(text, id, which) if draw.random() < 0.4 else text
        change = np.abs(clip.astype(np.int16) - clip[0]).mean(axis=(1, 2, 3))
        return int(draw.choice(np.flatnonzero(change >= SALIENT * change.max()))), self.describe(id, which, draw)

    def exercise(
        self, id: str, which: str, draw: np.random.Generator, tags: tuple[str, ...]
    ) -> tuple[str, str]:
        """(instruction, answer) for the VLM: say what this clip shows, or speak the language about what is made up."""
        known = world.read_label(self.sentence(id, which))
        u = draw.random()
        if known is None or u < 0.35:
            return EXERCISES[0], f"this is {self.describe(id, which, draw)}"
        if u < 0.7:
            return EXERCISES[1], f"the {known[0]} was {world.GERUND[known[1]]} ."
        kind = ("procedural", "predictive")[int(draw.integers(2))]
        topics = tuple(world.ROUTINES) if kind == "procedural" else world.CONDITIONS
        topic = topics[int(draw.integers(len(topics)))]
        if u < 0.78:
            return EXERCISES[2], world.question(kind, topic, int(draw.integers(2)))
        seen, following = (world.EVENTS[int(draw.integers(8))] for _ in range(2))
        shape = world.SHAPES[int(draw.integers(3))]
        thinking = world.reasoning(kind, topic, shape, seen, following)
        style = "flowery" if draw.random() < 0.35 else "plain"
        caption = world.caption(shape, following, style, int(draw.integers(2)))
        return EXERCISES[3], f"{tags[0]} {thinking} {tags[1]} {tags[2]} {caption} {tags[3]}"


def _blocks(ids: list[str], size: int = 256) -> list[list[str]]:
    return [ids[i : i + size] for i in range(0, len(ids), size)]
