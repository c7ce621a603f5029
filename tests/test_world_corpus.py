"""What the base models read of the toy world: CLIP single moments, the VDM one of an event's two words."""

from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from vans.data.corpus import EXERCISES, RESTS, Corpus
from vans.toy import world
from vans.toy.render import EVENTS, Scene, render_event
from vans.train.sft import texts_of


class Clips:
    """One training clip of each event, all of a red box."""

    def __init__(self):
        labels = [world.label("box", event) for event in EVENTS]
        self.frame = pd.DataFrame({"input_sentence": labels, "target_sentence": labels}, index=list(EVENTS))

    def select(self, split):
        return list(EVENTS)

    def clips(self, ids, which):
        return np.stack([render_event(Scene("box", "red"), i, 9, 2, 4) for i in ids])


@pytest.fixture(scope="module")
def corpus():
    return Corpus(Clips(), flowery=0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize(("other", "share"), [(0.0, 0.0), (0.15, 0.15), (0.5, 0.5)])
def test_the_vdm_reads_the_words_of_labels_and_the_others_either(corpus, other, share):
    draw = np.random.default_rng(0)
    words = [_word(corpus.describe(event, "target", draw, other), event) for event in EVENTS for _ in range(100)]
    assert np.mean(words) == pytest.approx(share, abs=0.06)


def _word(text: str, event: str) -> int:
    """Which of the event's two words a text has."""
    return next(n for n, word in enumerate(world.WORDS[event]) if word in text.split())


def test_clip_sees_single_moments_that_show_what_is_said_and_some_of_rest(corpus):
    draw, rests, total = np.random.default_rng(0), 0, 0
    for event, clip in zip(EVENTS, Clips().clips(EVENTS, "target"), strict=True):
        change = np.abs(clip.astype(int) - clip[0]).mean((1, 2, 3))
        for _ in range(100):
            frame, text = corpus.moment(event, "target", clip, draw)
            total += 1
            if text in (world.still("box"), "a red box is at rest ."):
                rests += 1
                assert frame == 0
            else:
                assert world.caption_events(text.replace("a red", "the")) == {event}
                assert change[frame] >= 0.8 * change.max()
    assert rests / total == pytest.approx(RESTS, abs=0.04)


@pytest.mark.parametrize(("labels", "dropped"), [(0.0, 0.0), (0.8, 0.0), (0.8, 0.1), (1.0, 0.0)])
def test_sft_tells_the_vdm_the_sources_labels_in_the_share_that_is_asked(labels, dropped):
    rows = [{"caption": "said", "target_sentence": "labelled"}] * 4000
    settings = SimpleNamespace(labels=labels, drop_caption=dropped)
    said = texts_of(rows, settings, "", np.random.default_rng(0))
    shares = [said.count(text) / len(rows) for text in ("labelled", "said", "")]
    assert shares == pytest.approx([labels * (1 - dropped), (1 - labels) * (1 - dropped), dropped], abs=0.02)


def test_the_vlm_looks_at_clips_in_most_exercises_and_hears_of_no_rule_in_them(corpus):
    draw = np.random.default_rng(0)
    asked: dict[str, list[tuple[str, str]]] = {}
    for event in EVENTS * 100:
        instruction, answer = corpus.exercise(event, "input", draw, ("[Think]", "[/Think]", "[Ans]", "[/Ans]"))
        asked.setdefault(instruction, []).append((event, answer))
    assert set(asked) == set(EXERCISES)
    looked = [asked[instruction] for instruction in EXERCISES[:2]]
    assert sum(map(len, looked)) / 800 == pytest.approx(0.7, abs=0.04)
    assert all(answer == f"the box was {world.GERUND[event]} ." for event, answer in asked["what was seen ?"])
    assert all(
        world.caption_events(answer.removeprefix("this is ").replace("a red", "the")) == {event}
        for event, answer in asked["describe the video ."]
    )
