"""Chains of events: what should come by the toy world's rules, how readings become numbers, the figures."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from vans.answer import chain
from vans.answer.live import Answer, Answerer
from vans.errors import UserError
from vans.show import chains
from vans.toy import oracle, world

SCENES = {  # id -> (kind, topic, shape, colour, the event that the input shows)
    "a": ("procedural", "harbor", "cone", "blue", "left"),
    "b": ("procedural", "winter", "ball", "red", "grow"),
    "c": ("predictive", "the sun burns", "box", "green", "jump"),
    "d": ("predictive", "a bell rings", "box", "green", "jump"),
}


def clip(shape: str, colour: str, event: str) -> np.ndarray:
    return world.render_event(world.Scene(shape=shape, colour=colour), event)


class Triplets:
    """As many columns and clips as a chain asks for."""

    folder = "triplets"

    def __init__(self) -> None:
        told = {id: (*row[:2], f"q {id}", "one scene" if id in "cd" else id) for id, row in SCENES.items()}
        self.frame = pd.DataFrame.from_dict(told, "index", columns=["kind", "topic", "question", "scene"])

    def row(self, id: str) -> Any:
        return self.frame.loc[id]

    def clips(self, ids: Any, which: str) -> np.ndarray:
        return np.stack([clip(*SCENES[id][2:]) for id in ids])

    def rates(self, ids: Any, which: str, frames: int) -> list[float]:
        return [3.0] * len(ids)


class Perfect(Answerer):
    """Knows the rules and renders sharply, in `colour` where one is given; after `good` events it shows nothing."""

    def __init__(self, good: int = 99, colour: str | None = None) -> None:
        self.params: Any = SimpleNamespace(video=SimpleNamespace(fps=3.0))
        self.good, self.colour, self.asked = good, colour, list[list[str]]()

    def answer(self, seen, questions, *_, name="answer", **__):  # type: ignore[override]
        self.asked.append(list(name))
        out = []
        for one, question in zip(seen, questions, strict=True):
            kind, topic, shape, colour = SCENES[question[-1]][:4]
            before = oracle.read(one.clip[None].numpy())[0].event
            last = before if before != oracle.STATIC else world.EVENTS[0]
            event = world.successor(topic, last) if kind == "procedural" else world.outcome(topic, shape)
            frames = clip(shape, self.colour or colour, event)
            if len(self.asked) > self.good:
                frames = np.repeat(frames[:1], 9, axis=0)
            out.append(Answer(question, "", "", False, torch.from_numpy(frames)))
        return out


def test_what_should_come():
    assert chain.expected("procedural", "harbor", "cone", "shrink", 3) == ["squash", "left", "jump"]
    assert chain.expected("predictive", "the sun burns", "box", "left", 2) == ["fade", "fade"]


def test_a_perfect_chain_is_right_at_every_event():
    models = Perfect()
    frame = chain.measured(models, Triplets(), list(SCENES), 4)
    assert len(frame) == 16 and frame["event"].tolist() == [e for e in (1, 2, 3, 4) for _ in SCENES]
    assert (frame[["right", "identity"]] == 1).all(None) and (frame["blur"] < 0.01).all()
    assert (frame.loc[frame["kind"] == "procedural", "follows"] == 1).all()
    assert frame.loc[frame["kind"] == "predictive", "follows"].isna().all()
    assert frame["expected"].tolist()[::4] == ["jump", "grow", "fade", "right"] == frame["seen"].tolist()[::4]
    assert models.asked[0] == ["a", "b", "c", "d"] and models.asked[2][0] == "a/2", "numbers of each event's own"


def test_what_goes_wrong_is_told_apart():
    frame = chain.measured(Perfect(good=1, colour="yellow"), Triplets(), ["a", "b"], 3)
    by = frame.groupby("event")[["right", "follows", "identity"]].mean()
    assert by["right"].tolist() == [1, 0, 0] and by["follows"].tolist() == [1, 0, 0]
    assert by["identity"].tolist() == [0, 0, 0]


def test_the_truth_is_told_by_the_sources_labels():
    told: list[list[str]] = []

    class Painter(Perfect):
        def render(self, seen, captions, *_, **__):  # type: ignore[override]
            told.append(list(captions))
            read = [world.read_label(text) or ("", "") for text in captions]
            colours = [SCENES[id][3] for id in "ac"]
            return torch.from_numpy(np.stack([clip(s, c, e) for (s, e), c in zip(read, colours, strict=True)]))

    frame = chain.measured(Painter(), Triplets(), ["a", "c"], 2, told=True)
    assert (frame["right"] == 1).all()
    assert [captions[0] for captions in told] == [world.label("cone", "jump"), world.label("cone", "grow")]


def test_only_the_toy_world_has_rules():
    class Other(Triplets):
        def __init__(self) -> None:
            super().__init__()
            self.frame["topic"] = "coffee"

    with pytest.raises(UserError, match="only the toy world's rules tell what should come"):
        chain.measured(Perfect(), Other(), ["a"], 1)


def test_means_and_intervals_are_over_scenes():
    frame = chain.measured(Perfect(good=1), Triplets(), list(SCENES), 2).assign(arm="main")
    found = chain.summary(frame, 200, 0).set_index(["kind", "event", "measure"])
    assert found.loc[("all", 1, "right"), ["n", "value", "lo", "hi"]].tolist() == [4, 1, 1, 1]
    assert found.loc[("all", 2, "right"), "value"] == 0
    frame.loc[frame["id"].isin(["c", "d"]), "right"] = 0.0  # one scene
    some = chain.summary(frame, 200, 0).set_index(["kind", "event", "measure"])
    assert some.loc[("all", 1, "right"), ["value", "lo", "hi"]].tolist() == [0.5, 0, 1]
    assert some.loc[("predictive", 1, "right"), ["lo", "hi"]].tolist() == [0, 0]
    assert ("predictive", 1, "follows") not in some.index and ("all", 1, "follows") not in some.index


def test_the_figures_are_drawn():
    frame = chain.measured(Perfect(), Triplets(), list(SCENES), 2)
    both = pd.concat([frame.assign(arm="main"), frame.assign(arm=chain.TRUTH)])
    figure = chains.curves(chain.summary(both, 50, 0), {"main": "Joint-GRPO", chain.TRUTH: "true captions"}, 0.003)
    assert [axes.get_title(loc="left") for axes in figure.axes] == [title for *_, title in chains.PANELS]
    assert [line.get_label() for line in figure.axes[3].lines] == ["Joint-GRPO", "true captions", "true clips"]
    one = clip("cone", "blue", "left")
    short = chains.sheet(one, [("q", [("a", one)])])
    tall = chains.sheet(one, [("q", [("a", one)] * 3), ("p", [("b", one)] * 3)])
    assert tall.get_size_inches()[1] > 2 * short.get_size_inches()[1]
