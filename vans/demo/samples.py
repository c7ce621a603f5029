"""Held-out samples to try: a few clips of a project's triplets, with questions that fit them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from vans.answer.watch import Watched
from vans.demo.source import Source
from vans.local.server import Refused
from vans.vote import sheets
from vans.vote.sheets import Sheet, sheet

COUNT = 12
OFTEN = 4  # videos that a question is asked about at least, to fit any of them
COMMON = 24  # such questions at most
QUESTIONS = 3


class Sample(NamedTuple):
    """id: of the triplet. questions: its own first, then others about the same video, or that fit any."""

    id: str
    questions: list[str]
    source: Source


class Samples:
    """common: questions that are asked of many videos, which anyone may take."""

    def __init__(self, found: Sequence[Sample] = (), common: Sequence[str] = ()) -> None:
        self.found, self.common = list(found), list(common)

    def told(self) -> list[dict[str, Any]]:
        """For the page."""
        names = [f"sample-{n}" for n in range(len(self.found))]
        clips = [{"token": name, **self.found[n].source.shown.described()} for n, name in enumerate(names)]
        asked = [one.questions for one in self.found]
        return [{"source": s, "questions": q, "clip": c} for s, q, c in zip(names, asked, clips, strict=True)]

    def source(self, number: int) -> Source:
        """Refused for a number that is none."""
        if number >= len(self.found):
            raise Refused("no such sample; load the page again")
        return self.found[number].source

    def shown(self, number: int) -> Sheet:
        """Of a sample, for the page; Refused for a number that is none."""
        return self.source(number).shown


def of_triplets(folder: Path) -> Samples:
    """Of the held-out triplets of a project, one of a video, most of them predictive; none where there are none."""
    from vans.data.triplets import Triplets

    triplets = Triplets(folder)
    frame = triplets.frame[triplets.frame["split"] == "test"]
    asked: dict[str, list[str]] = {}
    for scene, question in zip(frame["scene"], frame["question"], strict=True):
        asked.setdefault(scene, []).append(question)
    often = Counter(question for questions in asked.values() for question in set(questions))
    first = frame.drop_duplicates("scene")
    common = {
        kind: [q for q in dict.fromkeys(frame.loc[frame["kind"] == kind, "question"]) if often[q] >= OFTEN][:COMMON]
        for kind in ("predictive", "procedural")
    }
    found = []
    for kind, many in (("predictive", COUNT * 2 // 3), ("procedural", COUNT - COUNT * 2 // 3)):
        ids = first.loc[first["kind"] == kind, "id"].tolist()
        for n, id in enumerate(ids[i * len(ids) // many] for i in range(min(many, len(ids)))):
            row = triplets.row(id)
            fit = common[kind][n:] + common[kind][:n]
            questions = list(dict.fromkeys([row["question"], *asked[row["scene"]], *fit]))[:QUESTIONS]
            clip, fps = sheets.decoded(triplets.file(id, "input"), f"{folder}: input clip of {id}")
            (rate,) = triplets.rates([id], "input", len(clip))
            frames = torch.from_numpy(clip)
            one = Source(id, "sample", Watched(frames, rate, frames, rate), sheet(clip, fps))
            found.append(Sample(id, questions, one))
    return Samples(found, common["predictive"] or common["procedural"])
