"""Test-time choice among several answers: which is kept, which draws are made, who judges."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from vans.answer import arm, best, predictions
from vans.errors import UserError
from vans.grid import Arm
from vans.models.protocol import Protocol
from vans.rng import noise
from vans.toy.render import Scene, render_event

SCORES = {  # by question: of each draw
    "a": [0.1, 0.3, 0.2],
    "b": [0.5, 0.5, 0.5],
    "c": [float("nan"), -1.0, float("nan")],
    "d": [1.0, 2.0, 3.0],
}


def _chosen(n: int, **more) -> tuple[list[str], list[tuple[list[str], int]]]:
    drawn = []

    def draw(ids: list[str], k: int) -> list[best.Answer]:
        drawn.append((ids, k))
        return [(f"{i}{k}", "", torch.zeros(0)) for i in ids]

    judge = best.Judge(
        lambda ids, answers: [SCORES[i][int(c[-1])] for i, (c, *_) in zip(ids, answers, strict=True)], **more
    )
    return [caption for caption, *_ in best.best_of(n, judge, list(SCORES), draw)], drawn


def test_the_best_is_kept_and_of_equals_the_first() -> None:
    assert _chosen(3) == (["a1", "b0", "c1", "d2"], [([*"abcd"], 0), ([*"abcd"], 1), ([*"abcd"], 2)])
    assert _chosen(2)[0] == ["a1", "b0", "c1", "d1"]


def test_what_cannot_be_bettered_is_not_drawn_again() -> None:
    kept, drawn = _chosen(3, most=0.5)
    assert kept == ["a1", "b0", "c1", "d0"] and drawn == [([*"abcd"], 0), ([*"ac"], 1), ([*"ac"], 2)]


def _clips(*events: str) -> np.ndarray:
    return np.stack([render_event(Scene(shape="ball", colour="red"), event) for event in events])


def test_the_oracle_asks_for_the_true_event() -> None:
    triplets = SimpleNamespace(clips=lambda ids, which: _clips("left", "grow"))
    judge = best.judge("video_event", None, Path(), triplets, "cpu")
    videos = torch.from_numpy(_clips("left", "shrink"))
    answers = [("", "", video) for video in videos]
    assert judge.scores(["a", "b"], answers) == [1.0, 0.0] and judge.most == 1
    triplets.clips = lambda ids, which: np.zeros((2, 9, 16, 16, 3), np.uint8)
    with pytest.raises(UserError, match="video_event reads the toy world alone"):
        judge.scores(["a", "b"], answers)


def test_clip_compares_a_video_with_its_own_caption(monkeypatch: pytest.MonkeyPatch) -> None:
    class Model:
        def image(self, clips: torch.Tensor) -> torch.Tensor:
            return clips.float().mean(dim=(2, 3))

        def text(self, captions: list[str]) -> torch.Tensor:
            return torch.eye(3)[["rgb".index(caption.strip() or "r") for caption in captions]]

    monkeypatch.setattr(best, "load_clip", lambda *_: Model())
    red = torch.zeros(2, 4, 4, 3, dtype=torch.uint8)
    red[..., 0] = 200
    judge = best.judge("clip_t_own", None, Path(), None, "cpu")
    found = judge.scores(["a"] * 3, [("r", "", red), ("g", "", red), (" ", "", red)])
    assert found == pytest.approx([1, 0, np.nan], nan_ok=True) and judge.most == float("inf")


def test_draws_are_named_so_that_the_first_is_the_answer_without_a_choice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What an arm writes, by the names that text and noise are drawn from."""
    ids = ["x-1", "y-2", "z-3"]
    frame = pd.DataFrame({"question": "q", "caption": "c"}, index=ids)
    triplets = SimpleNamespace(row=frame.loc.__getitem__, rates=lambda some, which, n: [1.0] * len(some))

    def write_answers(params, vlm, clips, questions, rates, names):
        return [f"[Think]so[/Think][Ans]{name}[/Ans]" for name in names]

    def render(params, vdm, clips, captions, names):
        assert captions == names
        return (noise((1, 2, 2, 3), names, 0) * 40 + 128).clamp(0, 255).byte()

    fakes = {
        "Triplets": lambda _: triplets,
        "held_out": lambda *_: ids,
        "load_vlm": lambda *_: 1,
        "load_vdm": lambda *_: 1,
    }
    fakes |= {"clips_of": lambda _, some, which: torch.zeros(len(some), 1, 2, 2, 3), "write_answers": write_answers}
    fakes |= {"protocol_of": lambda _: Protocol(), "identity": lambda *_: "known"}
    for name, fake in {**fakes, "render": render}.items():
        monkeypatch.setattr(arm, name, fake)
    wanted = {"x-1": "x-1", "y-2": "y-2/2", "z-3": "z-3/1"}
    by_name = best.Judge(
        lambda some, answers: [float(wanted[i] == c) for i, (c, *_) in zip(some, answers, strict=True)]
    )
    monkeypatch.setattr(arm, "judge", lambda *_: by_name)
    params = SimpleNamespace(
        generate=SimpleNamespace(batch=2), evaluate=SimpleNamespace(samples=3), curate=SimpleNamespace(codec="raw"),
        video=SimpleNamespace(fps=3.0),
    )  # fmt: skip
    ranks: Any = SimpleNamespace(share=lambda some: some, device="cpu", main=True, collect=lambda rows: rows)
    ranks.gather, ranks.barrier = lambda value: [value], lambda: None
    written = {}
    for name, best_of in (("plain", None), ("best", {"n": 3, "by": "clip_t_own"})):
        (tmp_path / name / "videos").mkdir(parents=True)
        shutil.rmtree(tmp_path / "runs", ignore_errors=True)  # what the other one kept
        told = Arm("k", "sft", "sft", best_of=best_of).plain()
        arm.predict_share(ranks, params, str(tmp_path), str(tmp_path / name), told)
        written[name] = predictions.open_folder(tmp_path / name, ids)
    assert written["plain"].captions == ids
    assert written["best"].captions == list(wanted.values())
    assert written["best"].texts[1] == "[Think]so[/Think][Ans]y-2/2[/Ans]"
    first, again = (some.clips(["x-1"], (1, 2, 2))[0] for some in written.values())
    assert np.array_equal(first, again)
    drawn = written["best"].clips(["y-2"], (1, 2, 2))[0]
    assert np.array_equal(drawn[0], render(None, None, None, ["y-2/2"], ["y-2/2"])[0].numpy())
