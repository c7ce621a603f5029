"""The toy world's language, rules and source videos.

Words: captions name the shape and the event, never colour, size, place or scene. Two events make a *pair*, which is
spoken of alike but for one word; for that word there are two, equally right and equally frequent in captions. The
sources' own labels have only the first of the two, and other captioners from which video models learn mostly: a caption
with the second means the same and is harder to render, which no comparison of texts can tell (the gap between meaning
and picture; notebook 3 measures it). Each pair has two flowery wordings as well, which fit both of its events: that
gap, texts can tell, since references for the eye are plain. Rules: three named routines say which event follows which
(procedural); a table of condition x shape says what happens next (predictive), and one time in five (`surprise`) a
fixed second outcome happens instead. `generate` (sources.py) writes the sources.
"""

from functools import lru_cache
from pathlib import Path
from typing import Any

from vans.toy.render import COLOURS as RENDER_COLOURS
from vans.toy.render import EVENTS, SHAPES, Pose, Scene, render_event  # noqa: F401 (one door to the world)

COLOURS = tuple(RENDER_COLOURS)
PAIRS = {
    "journey": ("left", "right"),
    "height": ("jump", "dive"),
    "stature": ("grow", "shrink"),
    "presence": ("fade", "squash"),
}

WORDS = {  # of each event: the word of labels, and another of the same meaning (on a map, left is west)
    "left": ("left", "west"),
    "right": ("right", "east"),
    "jump": ("jumps", "leaps"),
    "dive": ("dips", "ducks"),
    "grow": ("grows", "swells"),
    "shrink": ("shrinks", "dwindles"),
    "fade": ("fades", "pales"),
    "squash": ("flattens", "crumples"),
}
SPOKEN = {  # predicates of the two events of a pair; "the {shape} {predicate} ."
    "journey": "moves to the {} and stays",
    "height": "{} for a moment and returns",
    "stature": "{} to another size",
    "presence": "{} and soon looks as before",
}
PLAIN = {e: tuple(SPOKEN[name].format(w) for w in WORDS[e]) for name, pair in PAIRS.items() for e in pair}
FLOWERY = {
    "journey": ("sets out upon a silent journey", "wanders wherever its longing calls"),
    "height": ("leaves the height it knew so well", "bids farewell to its quiet resting place"),
    "stature": ("discovers another measure of itself", "takes on a stature never known before"),
    "presence": ("surrenders its proud form to time", "becomes a mere memory of what was"),
}
GERUND = {
    "left": "moving left",
    "right": "moving right",
    "jump": "jumping",
    "dive": "dipping",
    "grow": "growing",
    "shrink": "shrinking",
    "fade": "fading",
    "squash": "flattening",
}
ROUTINES = {  # cycles: the event after ROUTINES[name][i] is ROUTINES[name][i + 1]
    "harbor": ("left", "jump", "grow", "fade", "right", "dive", "shrink", "squash"),
    "meadow": ("left", "grow", "dive", "squash", "jump", "right", "fade", "shrink"),
    "winter": ("left", "shrink", "jump", "dive", "fade", "grow", "squash", "right"),
}
CONDITIONS = (
    "the wind blows",
    "a magnet pulls",
    "the rain falls",
    "the sun burns",
    "a bell rings",
    "the lights go out",
    "an engine starts",
    "someone claps",
)
_FIRST = {  # the usual outcome: each column is a permutation of the events, no row has two equal entries
    "ball": ("right", "left", "dive", "grow", "jump", "fade", "squash", "shrink"),
    "box": ("left", "dive", "shrink", "fade", "grow", "squash", "jump", "right"),
    "cone": ("squash", "jump", "fade", "shrink", "right", "grow", "left", "dive"),
}
_SECOND = {  # the surprise: another event than the usual one of that cell
    "ball": ("jump", "squash", "shrink", "fade", "right", "grow", "left", "dive"),
    "box": ("fade", "jump", "squash", "grow", "left", "shrink", "right", "dive"),
    "cone": ("left", "grow", "dive", "right", "jump", "shrink", "squash", "fade"),
}
QUESTIONS = {
    "procedural": (
        "what is the next step of the {topic} routine ?",
        "this is the {topic} routine . what comes next ?",
    ),
    "predictive": ("what happens next if {topic} ?", "{topic} . what will happen ?"),
}


def successor(routine: str, event: str) -> str:
    """The event that follows `event` in the named routine."""
    cycle = ROUTINES[routine]
    return cycle[(cycle.index(event) + 1) % len(cycle)]


def outcome(condition: str, shape: str, surprise: bool = False) -> str:
    """What happens to a shape under a condition, usually or by surprise."""
    return (_SECOND if surprise else _FIRST)[shape][CONDITIONS.index(condition)]


def pair_of(event: str) -> str:
    """The name of the pair of events that an event belongs to."""
    return next(name for name, pair in PAIRS.items() if event in pair)


def caption(shape: str, event: str, style: str = "plain", wording: int = 0) -> str:
    """A caption, style plain or flowery, wording 0 or 1: `the ball jumps for a moment and returns .`"""
    predicate = PLAIN[event][wording] if style == "plain" else FLOWERY[pair_of(event)][wording]
    return f"the {shape} {predicate} ."


def label(shape: str, event: str) -> str:
    """What annotators of the sources write: the first plain wording."""
    return caption(shape, event)


def still(shape: str) -> str:
    """What is said of a picture in which nothing happens."""
    return f"the {shape} is at rest ."


def read_label(text: str) -> tuple[str, str] | None:
    """(shape, event) of a label or plain caption, None if the text is not one of the toy world's."""
    words = _normal(text)
    events = caption_events(text)
    if len(events) != 1:
        return None
    return words.split()[0], next(iter(events))


def question(kind: str, topic: str, wording: int = 0) -> str:
    """The question about a routine (kind procedural) or a condition (kind predictive)."""
    return QUESTIONS[kind][wording].format(topic=topic)


def reasoning(kind: str, topic: str, shape: str, seen: str, following: str) -> str:
    """The short thinking between question and caption."""
    if kind == "procedural":
        return (
            f"the {shape} was {GERUND[seen]} . in the {topic} routine "
            f"{GERUND[seen]} is followed by {GERUND[following]} ."
        )
    return f"this is a {shape} . if {topic} the {shape} starts {GERUND[following]} ."


def _normal(text: str) -> str:
    """Lower case, letters only, single spaces, without a leading article."""
    words = "".join(c if "a" <= c <= "z" else " " for c in text.lower()).split()
    return " ".join(words[1:] if words[:1] == ["the"] else words)


@lru_cache(maxsize=1)
def _known() -> dict[str, frozenset[str]]:
    known = {}
    for shape in SHAPES:
        for event in EVENTS:
            for wording in PLAIN[event]:
                known[_normal(f"{shape} {wording}")] = frozenset([event])
        for pair, wordings in FLOWERY.items():
            for wording in wordings:
                known[_normal(f"{shape} {wording}")] = frozenset(PAIRS[pair])
    return known


def caption_events(text: str) -> frozenset[str]:
    """The events that a caption may mean: one (plain), two (flowery), none (not the toy world's language)."""
    return _known().get(_normal(text), frozenset())


def wording(text: str) -> str:
    """How a caption says it: `first word` or `second word` (of the event's two), `flowery`, or `other`."""
    events = caption_events(text)
    if len(events) != 1:
        return "flowery" if events else "other"
    first, _ = WORDS[next(iter(events))]
    return "first word" if first in _normal(text).split() else "second word"


@lru_cache(maxsize=1)
def vocabulary() -> list[str]:
    """All words of the toy world, sorted, punctuation included."""
    texts = [
        c
        for e in EVENTS
        for w in (0, 1)
        for s in SHAPES
        for c in (caption(s, e, "plain", w), caption(s, e, "flowery", w))
    ]
    texts += [still(s) for s in SHAPES]
    topics = {"procedural": tuple(ROUTINES), "predictive": CONDITIONS}
    for kind in QUESTIONS:
        for topic in topics[kind]:
            texts += [question(kind, topic, w) for w in (0, 1)]
            texts += [reasoning(kind, topic, s, e, f) for s in SHAPES for e in EVENTS for f in EVENTS]
            texts += [leaking_question(kind, topic, "ball", e) for e in EVENTS]
    return sorted({word for text in texts for word in text.split()})


def leaking_question(kind: str, topic: str, shape: str, following: str) -> str:
    """A badly written question that gives the answer away, as annotators do now and then."""
    return f"{question(kind, topic)[:-2]} so that the {shape} {PLAIN[following][0]} ?"


def generate(out_dir: str | Path, params: Any) -> dict:
    """Write the source videos and annotations into out_dir; see `vans.toy.sources.generate`."""
    from vans.toy import sources as toy_sources

    return toy_sources.generate(out_dir, params)


def verify(data_dir: str | Path, params: Any) -> dict:
    """Check data_dir against what `generate` would write; see `vans.toy.sources.verify`."""
    from vans.toy import sources as toy_sources

    return toy_sources.verify(data_dir, params)
