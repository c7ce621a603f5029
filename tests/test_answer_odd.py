"""`vans answer` on what people bring: videos of odd kinds, pictures, several questions, chains of events."""

from fractions import Fraction
from pathlib import Path
from threading import Event
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tests import media_helpers
from tests.media_helpers import Made, Sound, made
from vans import cli
from vans.answer import ask, live
from vans.answer.watch import watch
from vans.errors import UserError
from vans.media import picture, video
from vans.models.protocol import RELEASE, Protocol
from vans.params import load

QUESTION = "what happens next ?"
CLIP = SimpleNamespace(frames=9, height=32, width=32, fps=3.0)


@pytest.fixture(scope="module")
def models(untrained):
    return live.Answerer(load(untrained), untrained, "sft")


def pictures(count: int, height: int, width: int, most: int = 255) -> list[np.ndarray]:
    """A bright bar that moves to the right."""
    out = np.zeros((count, height, width, 3), np.uint8)
    for i, one in enumerate(out):
        at = i * (width - width // 4) // max(count - 1, 1)
        one[:, at : at + width // 4] = most
    return list(out)


def times(count: int, seconds: float) -> list[Fraction]:
    return [Fraction(i) * Fraction(seconds) / count for i in range(count)]


def turned(data: bytes) -> bytes:
    """An MP4 whose pictures are to be turned by 90 degrees: the matrix of its track's header."""
    at = data.index(b"tkhd") + 44
    matrix = (0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30)
    return data[:at] + b"".join(value.to_bytes(4, "big", signed=True) for value in matrix) + data[at + 36 :]


MS = Fraction(1, 1000)
ODD: dict[str, tuple[Made, list[np.ndarray], bool]] = {  # name -> what it is, its pictures, is it turned?
    "portrait.mp4": (Made("mp4", "libx264", times(9, 3.0), Fraction(3)), pictures(9, 128, 72), False),
    "portrait_by_matrix.mp4": (Made("mp4", "libx264", times(9, 3.0), Fraction(3)), pictures(9, 72, 128), True),
    "dark.mp4": (Made("mp4", "libx264", times(9, 3.0), Fraction(3)), pictures(9, 72, 128, most=6), False),
    "black.mp4": (Made("mp4", "libx264", times(9, 3.0), Fraction(3)), pictures(9, 72, 128, most=0), False),
    "large.mp4": (Made("mp4", "libx264", times(3, 3.0), Fraction(1)), pictures(3, 1152, 2048), False),
    "long_36_s.mkv": (Made("matroska", "libx264", times(72, 36.0), Fraction(2)), pictures(72, 72, 128), False),
    "an_hour.mkv": (Made("matroska", "libx264", times(180, 3600.0), Fraction(1, 20), MS), pictures(180, 64, 64), False),
    # screen recordings: a picture only where something changes, odd rates, no length in the header, very wide
    "screen_still.webm": (
        Made("webm", "libvpx", [Fraction(0), Fraction(1), Fraction(44), Fraction(45)], Fraction(30), MS),
        pictures(4, 72, 128),
        False,
    ),
    "screen_live.webm": (
        Made("webm", "libvpx-vp9", times(20, 2.0), Fraction(10), MS, live={"live": "1"}),
        pictures(20, 72, 128),
        False,
    ),
    "screen_wide.mp4": (Made("mp4", "libx264", times(9, 3.0), Fraction(3)), pictures(9, 64, 640), False),
    "one_picture.mp4": (Made("mp4", "libx264", [Fraction(0)], Fraction(25)), pictures(1, 72, 128), False),
    "sound_first.mov": (
        Made("mov", "mpeg4", [t + 2 for t in times(9, 3.0)], Fraction(3), sound=Sound("aac", 0.0, 6.0)),
        pictures(9, 72, 128),
        False,
    ),
}


@pytest.mark.parametrize("name", ODD)
def test_a_video_of_an_odd_kind_is_answered_at_the_first_try(tmp_path, models, name):
    what, shown, is_turned = ODD[name]
    data = made(what, shown)
    (tmp_path / name).write_bytes(turned(data) if is_turned else data)
    seen = models.watch(tmp_path / name)
    assert seen.clip.shape == (9, 32, 32, 3) and np.isfinite(seen.rate) and seen.rate > 0
    if shown[0].max() > 20:
        assert seen.clip.float().max() > 120, "its bar is seen"
    if is_turned:
        across, along = seen.clip[0].float().mean((0, 2)), seen.clip[0].float().mean((1, 2))
        assert along.std() > 2 * across.std(), "it is upright no more"
    (answer,) = models.answer(seen, [QUESTION])
    assert answer.caption and answer.frames.shape == (9, 32, 32, 3)
    looked = watch(tmp_path / name, CLIP, RELEASE).looked
    assert looked.shape[0] == 6 and looked.shape[1] * looked.shape[2] <= (RELEASE.pixels or 0)


# -------------------------------------------------------------------------------------------------- pictures
def test_a_picture_is_a_clip_at_rest(tmp_path, models):
    shown = pictures(1, 48, 48)[0]
    Image.fromarray(shown).save(tmp_path / "a.png")
    video.write(tmp_path / "a.avi", np.repeat(shown[None], 9, axis=0), 3.0)
    still, moving = models.watch(tmp_path / "a.png"), models.watch(tmp_path / "a.avi")
    assert torch.equal(still.clip, moving.clip) and still.rate == moving.rate == 3.0
    assert torch.equal(still.looked, moving.looked)
    assert models.answer(still, [QUESTION])[0].caption == models.answer(moving, [QUESTION])[0].caption


def kinds(folder: Path) -> dict[str, np.ndarray]:
    """Picture files, and what they show: red on the left, white on the right."""
    right = np.full((20, 30, 3), 255, np.uint8)
    right[:, :15] = (200, 0, 0)
    image = Image.fromarray(right)
    turned_ = Image.Exif()
    turned_[0x0112] = 6  # to be turned clockwise
    image.rotate(90, expand=True).save(folder / "turned.jpg", exif=turned_, quality=95)
    image.save(folder / "plain.bmp")
    image.save(folder / "name_of_a_video.mp4", format="WEBP", lossless=True)
    image.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    image.quantize(4).save(folder / "palette.gif")
    clear = np.dstack([right, np.where(right[..., 1] == 255, 0, 255).astype(np.uint8)])
    clear[..., :3][clear[..., 3] == 0] = 0  # what cannot be seen is black
    Image.fromarray(clear).save(folder / "clear.png")
    grey = np.where(right[..., 1] == 255, 65535, 10_000).astype(np.uint16)
    Image.fromarray(grey).save(folder / "deep.png")
    deep = np.where(right == 255, 255, 39).astype(np.uint8)
    return {path.name: deep if path.name == "deep.png" else right for path in folder.iterdir()}


def test_pictures_of_every_kind_are_seen_as_they_are_shown(tmp_path):
    for name, right in kinds(tmp_path).items():
        found = picture.read(tmp_path / name)
        assert found is not None and found.shape == right.shape, name
        assert np.abs(found.astype(int) - right)[:, [3, 26]].mean() < 12, name


def test_a_picture_that_cannot_be_taken_is_one_line(tmp_path, monkeypatch):
    Image.fromarray(pictures(1, 64, 64)[0]).save(tmp_path / "a.png")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:-30])
    two = [Image.fromarray(one) for one in pictures(2, 16, 16)]
    two[0].save(tmp_path / "moves.gif", save_all=True, append_images=two[1:])
    for name, message in (("cut.png", "cannot be read as a picture"), ("moves.gif", "moves; make a video of it")):
        with pytest.raises(UserError, match=message) as caught:
            watch(tmp_path / name, CLIP, Protocol())
        assert "\n" not in str(caught.value)
    monkeypatch.setattr(picture, "MAX_PIXELS", 1000)
    with pytest.raises(UserError, match="64 x 64 pixels are more than 1000"):
        picture.read(tmp_path / "a.png")
    (tmp_path / "text").write_text("P6 1 1 255\n")  # a format that is not asked for
    assert picture.read(tmp_path / "text") is None


# ------------------------------------------------------------------------------------ several questions, chains
def test_several_questions_are_answered_side_by_side(there, capsys):
    assert cli.main(["answer", "x.avi", QUESTION, "what then ?", "-o", "a.avi", "--events", "2"]) == 0
    said = capsys.readouterr().out
    assert said.count("caption: ") == 4 and "question: what then ?" in said
    assert "written: a.avi, a-1.avi, a-2.avi, a.png\n" in said
    both = media_helpers.read(there / "a.avi")[0]
    assert both.shape == (18, 32, 66, 3) and (both[:, :, 32:34] == 255).all()
    for n, part in ((1, both[:, :, :32]), (2, both[:, :, 34:])):
        assert np.array_equal(media_helpers.read(there / f"a-{n}.avi")[0], part)
    assert Image.open(there / "a.png").width > 1000


def test_an_answer_is_the_same_alone_and_the_first_of_a_chain(models, there):
    seen = models.watch(there / "x.avi")
    (alone,) = models.answer(seen, [QUESTION])
    chain = list(models.chain(seen, [QUESTION, "what then ?"], 3))
    assert torch.equal(alone.frames, chain[0][0].frames) and alone.caption == chain[0][0].caption
    following = live.of_frames(chain[0][0].frames, 3.0)
    (second,) = models.answer(following, [QUESTION], name="answer/1")
    assert second.caption == chain[1][0].caption
    torch.testing.assert_close(second.frames.float(), chain[1][0].frames.float(), atol=1, rtol=0)
    assert not torch.equal(chain[0][0].frames, chain[1][0].frames)
    other = models.answer(seen, [QUESTION], seed=5, steps=3)[0]
    assert other.caption != alone.caption


def test_no_output_of_several_is_refused_late(there, monkeypatch):
    monkeypatch.setattr(ask, "watch", lambda *_: pytest.fail("it was watched"))
    (there / "a-2.avi").mkdir()
    with pytest.raises(UserError, match="a-2.avi: is a folder"):
        ask.answer("x.avi", [QUESTION, QUESTION], "a.avi", "sft")
    (there / "x.avi").rename(there / "a.png")
    with pytest.raises(UserError, match="a.png: is a.png, which is read"):
        ask.answer("a.png", [QUESTION], "a.avi", "sft", events=2)
    with pytest.raises(UserError, match="--events is 0; ask for one or more"):
        ask.answer("a.png", [QUESTION], "a.avi", "sft", events=0)
    with pytest.raises(UserError, match="--seed is -1; use a whole number from 0 up"):
        ask.answer("a.png", [QUESTION], "a.avi", "sft", seed=-1)
    with pytest.raises(UserError, match="the question is empty; ask one"):
        ask.answer("a.png", [QUESTION, " "], "a.avi", "sft")


# ---------------------------------------------------------------------------------- progress, cancel, own captions
def test_progress_is_told_and_what_is_cancelled_ends_within_a_step(models, there):
    seen, told = models.watch(there / "x.avi"), []
    heard: list[live.Thought] = []
    models.answer(seen, [QUESTION] * 2, steps=4, progress=lambda *now: told.append(now), heard=heard.extend)
    assert [now for now in told if now[0] == "rendering"] == [("rendering", n, 4) for n in range(1, 5)]
    thinking = [now for now in told if now[0] == "thinking"]
    assert len(thinking) > 2 and all(done <= most for _, done, most in thinking)
    assert [one.question for one in heard] == [QUESTION] * 2

    for part, at in (("thinking", 3), ("rendering", 2)):
        cancel, told = Event(), []

        def stop(*now: Any, part: str = part, at: int = at, cancel: Event = cancel, told: list = told) -> None:
            told.append(now)
            if now[:2] == (part, at):
                cancel.set()

        with pytest.raises(live.Cancelled):
            models.answer(seen, [QUESTION], steps=4, progress=stop, cancel=cancel)
        assert told[-1][:2] == (part, at)
    assert models.answer(seen, [QUESTION], steps=4)[0].caption, "the models are as they were"


def test_a_caption_of_ones_own_is_rendered(models, there):
    seen = models.watch(there / "x.avi")
    (answer,) = models.answer(seen, [QUESTION])
    assert torch.equal(models.render(seen, [answer.caption])[0], answer.frames)
    models.render(seen, ["</s> <pad> &amp;"])
    with pytest.raises(UserError, match="the caption is not in UTF-8"):
        models.render(seen, ["\ud800"])
    with pytest.raises(UserError, match="steps"):
        models.render(seen, ["x"], steps=0)
