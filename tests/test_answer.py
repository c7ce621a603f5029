"""`vans answer` and `vans score` as a person types them: outputs checked first, nothing overwritten, names of any kind,
printing that fails, predictions that are not what they should be."""

import os
import shutil
import subprocess
import sys
import tracemalloc
import unicodedata
from pathlib import Path

import numpy as np
import pytest

from tests import fuzz_helpers as fuzz
from tests import media_helpers, smoke
from tests.data_helpers import real_clips
from vans import cli, files
from vans.answer import ask, live, predictions
from vans.errors import UserError
from vans.media import video
from vans.params import load
from vans.score import anyone, run
from vans.toy import world

QUESTION = "what happens next ?"


@pytest.mark.parametrize("suffix", video.WRITTEN)
def test_every_suffix_that_is_offered_is_written_and_read(tmp_path, suffix):
    frames = world.render_event(world.Scene(shape="cone", colour="blue"), "left")
    for name in (f"a{suffix}", f"b{suffix.upper()}"):
        video.write(tmp_path / name, frames, 3.0)
        again, fps = media_helpers.read(tmp_path / name)
        assert again.shape == frames.shape and fps == pytest.approx(3)
        assert np.abs(again.astype(int) - frames).mean() < (1 if suffix == ".avi" else 12)
    assert (tmp_path / f"a{suffix}").read_bytes() == (tmp_path / f"b{suffix.upper()}").read_bytes()
    if suffix != ".avi":
        with pytest.raises(ValueError, match="even height and width"):
            video.write(tmp_path / f"c{suffix}", frames[:, :31], 3.0)


def left(folder: Path) -> set[str]:
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}


# --------------------------------------------------------------------------------------------------- answers
@pytest.mark.parametrize("name", ["a.MKV", "a.webm", "new/deep/"])
def test_an_answer_is_written_as_its_name_asks(there, capsys, name):
    assert cli.main(["answer", "x.avi", QUESTION, "-o", name]) == 0
    said = capsys.readouterr().out
    path = there / (f"{name}answer.mp4" if name.endswith("/") else name)
    frames, fps = media_helpers.read(path)
    assert frames.shape == (9, 32, 32, 3) and fps == pytest.approx(3)
    assert "forced into it" in said and said.index("rendered in") < said.index("written: ") < said.index("caption: ")
    caption = said.split("caption: ")[1].strip()
    assert caption and "[" not in caption
    assert "models: of the arm sft\n" in said  # the furthest that is trained there
    assert not [name for name in left(there) if files.PARTIAL in name]


def test_names_and_questions_may_begin_with_a_dash(there, capsys):
    (there / "x.avi").rename(there / "-x.avi")
    assert cli.main(["answer", "-x.avi", "-5 degrees , what now ?", "--output", "-o.mp4"]) == 0
    assert media_helpers.read(there / "-o.mp4")[0].shape[0] == 9
    with pytest.raises(SystemExit):
        cli.main(["answer", "-x.avi", "q", "--arn", "main"])  # no further question
    assert "unrecognized arguments: --arn\n" in capsys.readouterr().err


def a_link(there):
    (there / "link.avi").symlink_to(there / "x.avi")
    return "link.avi"


def a_hard_link(there):
    os.link(there / "x.avi", there / "hard.avi")
    return "hard.avi"


def a_file_in_the_way(there):
    (there / "file").write_text("a file")
    return "file/a.mp4"


def a_pipe(there):
    os.mkfifo(there / "pipe.mp4")
    return "pipe.mp4"


OUTPUTS = {
    "the input": (lambda _: "x.avi", "is x.avi, which is read"),
    "the input by another way": (lambda there: f"../{there.name}/./x.avi", "is x.avi, which is read"),
    "a link to the input": (a_link, "is x.avi, which is read"),
    "a hard link": (a_hard_link, "is x.avi, which is read"),
    "a suffix that is not written": (lambda _: "a.gif", "end its name in one of .mp4, .avi, .mkv"),
    "no suffix": (lambda _: "a", "end its name in one of"),
    "below a file": (a_file_in_the_way, "cannot be written \\(Not a directory\\)"),
    "a pipe": (a_pipe, "is no regular file"),
    "too long": (lambda _: f"{'a' * 300}.mp4", "cannot be written \\(File name too long\\)"),
    "a folder too long": (lambda _: f"new/{'a' * 300}/a.mp4", "cannot be written \\(File name too long\\)"),
    "a zero byte": (lambda _: "a\0.mp4", "cannot be written \\(embedded null byte\\)"),
}


@pytest.mark.parametrize("kind", OUTPUTS)
def test_an_output_is_refused_before_anything_is_computed(there, capsys, monkeypatch, kind):
    make, message = OUTPUTS[kind]
    output = make(there)
    before, content = left(there), (there / "x.avi").read_bytes()
    monkeypatch.setattr(ask, "watch", lambda *_: pytest.fail("it was watched"))
    with pytest.raises(UserError, match=message) as caught:
        ask.answer("x.avi", [QUESTION], output, "sft")
    assert "\n" not in str(caught.value)
    assert left(there) == before and (there / "x.avi").read_bytes() == content
    assert cli.main(["answer", "x.avi", QUESTION, "-o", output]) == 1
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_a_videos_name_that_is_too_long_is_one_line(there, capsys):
    for name in (f"{'a' * 300}.mp4", f"b/{'a' * 300}/c.mp4", "a\0.mp4"):
        with pytest.raises(UserError, match="File name too long|no such video|no file's name holds"):
            ask.answer(name, [QUESTION], "a.mp4", "sft")
        assert cli.main(["answer", name, QUESTION, "-o", "a.mp4"]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.parametrize("question, why", [("what\udcff ?", "is not in UTF-8"), ("what </s> ?", "holds </s>, a sign")])
def test_a_question_that_cannot_be_asked_is_refused_before_anything_is_computed(there, monkeypatch, question, why):
    monkeypatch.setattr(ask, "watch", lambda *_: pytest.fail("it was watched"))
    with pytest.raises(UserError, match=f"the question {why}") as caught:
        ask.answer("x.avi", [question], "a.mp4", "sft")
    assert "\n" not in str(caught.value) and str(caught.value).isprintable() and not (there / "a.mp4").exists()


def test_an_input_named_answer_is_not_overwritten_in_its_folder(there):
    (there / "x.avi").rename(there / "answer.mp4")
    with pytest.raises(UserError, match="answer.mp4: is answer.mp4, which is read"):
        ask.answer("answer.mp4", [QUESTION], ".", "sft")


def test_a_full_disk_and_a_folder_of_others_are_said_first(there, monkeypatch):
    monkeypatch.setattr(ask, "watch", lambda *_: pytest.fail("it was watched"))
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda _: type("Usage", (), {"free": 100}))
        with pytest.raises(UserError, match="GB are needed and"):
            ask.answer("x.avi", [QUESTION], "a.mp4", "sft")

    def refused(path, **_):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "touch", refused)
    with pytest.raises(UserError, match="a.mp4: cannot be written \\(Permission denied\\)"):
        ask.answer("x.avi", [QUESTION], "a.mp4", "sft")


def test_missing_models_are_said_before_the_vlm_thinks(there, monkeypatch):
    monkeypatch.setattr(live.Answerer, "think", lambda *_, **__: pytest.fail("it thought"))
    with pytest.raises(UserError, match="run the stage that trains it"):
        ask.answer("x.avi", [QUESTION], "a.mp4", "main")


def test_every_real_clip_and_question_gets_an_answer(untrained):
    models = live.Answerer(load(untrained), untrained, "sft")
    for path in sorted(real_clips().glob("*.mp4")):
        for found in models.answer(models.watch(path), [QUESTION, "[Ans] [/Think] ¿"]):
            assert found.reasoning and found.caption and found.forced and found.frames.shape == (9, 32, 32, 3)


# -------------------------------------------------------------------------------------------------- printing
def _vans(cwd: Path, shell: str, **environment: str) -> subprocess.CompletedProcess:
    env = smoke.environment(smoke.ROOT) | {"VANS": f"{sys.executable} -m vans.cli"} | environment
    return subprocess.run(["bash", "-c", shell], cwd=cwd, env=env, capture_output=True, text=True, check=False)


LONG = "import sys; from vans import cli; sys.exit(cli.guarded(lambda: [print('é' * 9999), open('done', 'w').close()]))"


@pytest.mark.parametrize(
    ("name", "shell", "code"),
    [
        ("pipe", 'set -o pipefail; $PYTHON -c "$LONG" | true', 141),
        ("full", '$PYTHON -c "$LONG" > /dev/full', 1),
        ("full, little", '$PYTHON -m vans.cli --help > /dev/null; $PYTHON -c "${LONG/9999/9}" > /dev/full', 1),
        ("closed", '$PYTHON -c "$LONG" >&- 2>&-', 0),
        ("both full", '$PYTHON -c "$LONG" > /dev/full 2> /dev/full', 1),
        ("ascii", 'PYTHONIOENCODING=ascii $PYTHON -c "$LONG"', 0),
    ],
)
def test_printing_never_ends_a_command(tmp_path, name, shell, code):
    env = smoke.environment(smoke.ROOT) | {"PYTHON": sys.executable, "LONG": LONG}
    done = subprocess.run(["bash", "-c", shell], cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == code and (tmp_path / "done").exists(), done.stderr
    assert "Traceback" not in done.stderr and "Exception ignored" not in done.stderr
    if name.startswith("full"):
        assert done.stderr == "vans: standard output: No space left on device; the command itself is done\n"


def test_a_stage_whose_files_are_written_is_done_whoever_reads_along(monkeypatch):
    """DVC throws the outputs of any other exit code away."""
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.guarded(lambda: print("x" * 9999), to_print=False) == 0


def test_an_answer_outlives_its_terminal(there, monkeypatch, capsys):
    with open("/dev/full", "w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert cli.main(["answer", "x.avi", QUESTION, "-o", "a.avi"]) == 1
        assert sys.stdout is full
    assert media_helpers.read(there / "a.avi")[0].shape == (9, 32, 32, 3)


def test_what_a_terminal_cannot_show_is_escaped(tmp_path, monkeypatch):
    with open(tmp_path / "seen", "w", encoding="ascii") as terminal:
        monkeypatch.setattr(sys, "stdout", terminal)
        assert cli.guarded(lambda: print("Fréchet \udce9")) == 0
    assert (tmp_path / "seen").read_text() == "Fr\\xe9chet \\udce9\n"


def test_a_file_that_the_system_refuses_is_one_line(capsys):
    def fails():
        raise PermissionError(13, "Permission denied", "data/x.csv")

    def bug():
        raise OSError("of no file")

    assert cli.guarded(fails) == 1
    assert capsys.readouterr().err == "vans: data/x.csv: Permission denied\n"
    with pytest.raises(OSError, match="of no file"):
        cli.guarded(bug)


# ------------------------------------------------------------------------------------------------ predictions
IDS = ["a", "b", "-c", unicodedata.normalize("NFC", "é")]
CLIP = np.zeros((9, 32, 32, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    media_helpers.predictions(tmp_path / "mine", IDS, ["x, y", 'say "z"', "two\nlines", "w"], [CLIP] * 4)
    return tmp_path / "mine"


def rewrite(text):
    return lambda folder: (folder / "captions.csv").write_text(text, encoding="utf-8")


def fifo(name):
    def make(folder):
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return make


def other_spelling(folder):
    shutil.copyfile(folder / "videos/é.avi", folder / "videos" / unicodedata.normalize("NFD", "é.avi"))


HEAD = "id,caption,text\n"
ROWS = "b,x,\n-c,x,\né,x,\n"
WRONG = {
    "a pipe of captions": (fifo("captions.csv"), "captions.csv: is no regular file"),
    "a pipe of a video": (fifo("videos/a.avi"), "a.avi: is no regular file"),
    "two files of an id": (
        lambda f: shutil.copyfile(f / "videos/a.avi", f / "videos/a.mp4"),
        "a.avi and a.mp4 are both",
    ),
    "two spellings of an id": (other_spelling, "are both the video of 'é'"),
    "a short row": (rewrite(f"{HEAD}a\n{ROWS}"), "line 2: 'a' has 1 values for 3 columns"),
    "a row without its text": (rewrite(f"{HEAD}a,x\n{ROWS}"), "line 2: 'a' has 2 values for 3 columns"),
    "a comma too many": (rewrite(f"{HEAD}a,x, y,\n{ROWS}"), "line 2: 'a' has 4 values .*quote what holds a comma"),
    "a quote to the end": (
        rewrite(f'{HEAD}a,"x,\n{ROWS}'),
        "the row of line 2: unexpected end of data; close or double",
    ),
    "a quote to the next": (
        rewrite(f'{HEAD}a,"x,\nb,y",\n-c,x,\né,x,\n'),
        "line 3: a quote in 'a' swallows the row of 'b'",
    ),
    "a quote inside": (rewrite(f'{HEAD}a,"x" y,\n{ROWS}'), "the row of line 2: .*; close or double its quotes"),
    "a row twice": (rewrite(f"{HEAD}a,x,\na,y,\n{ROWS}"), "'a' stands twice"),
    "two spellings of a row": (rewrite(f"{HEAD}a,x,\n{ROWS}{unicodedata.normalize('NFD', 'é')},y,\n"), "stands twice"),
    "a field without end": (rewrite(f"{HEAD}a,{'x' * 200_000},\n{ROWS}"), "field larger than"),
    "an empty file": (rewrite(""), "column 'id' is missing"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_predictions_that_are_not_what_they_should_be(folder, kind):
    change, message = WRONG[kind]
    change(folder)
    with pytest.raises(UserError, match=message) as caught:
        predictions.open_folder(folder, IDS)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


def test_whole_predictions_of_any_spelling_are_read(folder):
    found = predictions.open_folder(folder, IDS)
    assert found.captions == ["x, y", 'say "z"', "two\nlines", "w"]
    assert found.clips(IDS, (9, 32, 32))[1] == 0
    (folder / "videos/é.avi").rename(folder / "videos" / unicodedata.normalize("NFD", "é.AVI"))
    text = (folder / "captions.csv").read_text(encoding="utf-8")
    (folder / "captions.csv").write_text(unicodedata.normalize("NFD", text), encoding="utf-8")
    assert predictions.open_folder(folder, IDS).captions == found.captions


def test_a_long_and_large_video_is_scored_a_picture_at_a_time(folder):
    """A film of 300 pictures of 240 x 320 would be 69 MB; what is picked is what picking from the whole gives."""
    times = [fuzz.Fraction(i, 30) for i in range(300)]
    (folder / "videos/a.avi").unlink()
    (folder / "videos/a.mp4").write_bytes(fuzz.video_bytes(".mp4", times, size=(240, 320)))
    found = predictions.open_folder(folder, IDS)
    found.clips(["a"], (3, 8, 8))
    tracemalloc.start()
    clips, fitted = found.clips(["a"], (9, 32, 32))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    whole = media_helpers.read(folder / "videos/a.mp4")[0]
    picked = np.linspace(0, len(whole) - 1, 9).round().astype(int)
    assert fitted == 1 and len(whole) == 300
    assert np.array_equal(clips[0], np.stack([video.fit(whole[i], 32, 32) for i in picked]))
    assert peak < 10e6


def test_a_short_video_is_repeated_evenly(folder):
    video.write(folder / "videos/a.avi", np.arange(2, dtype=np.uint8)[:, None, None, None] + CLIP[:2], 3.0)
    clips, fitted = predictions.open_folder(folder, IDS).clips(["a"], (9, 32, 32))
    assert fitted == 1 and clips[0, :, 0, 0, 0].tolist() == [0, 0, 0, 0, 0, 1, 1, 1, 1]


# ---------------------------------------------------------------------------------------------------- scores
class Scored:
    arm = "mine"

    def save(self, out):
        files.atomic_write_text(Path(out) / "mine.csv", "scores")


def test_scores_are_saved_before_they_are_printed(untrained, tmp_path, monkeypatch):
    def broken(_):
        raise UnicodeEncodeError("ascii", "→", 0, 1, "cannot")

    monkeypatch.chdir(untrained)
    monkeypatch.setattr(run, "score_arm", lambda *_, **__: Scored())
    monkeypatch.setattr(run, "text", broken)
    with pytest.raises(UnicodeEncodeError):
        anyone.score_folder("predictions/mine", out=tmp_path / "out")
    assert (tmp_path / "out/mine.csv").read_text() == "scores"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"out": "predictions/mine", "name": "captions"}, "captions.csv: lies in predictions/mine, which is read"),
        ({"out": "predictions/mine/new"}, "lies in predictions/mine, which is read"),
        ({"out": "triplets"}, "lies in .*triplets, which is read"),
        ({"out": "models/base"}, "lies in .*models, which is read"),
        ({"out": "out", "name": "../triplets/x"}, "--name '../triplets/x'"),
        ({"out": "out", "name": ""}, "--name ''"),
        ({"out": "params.yaml"}, "cannot be written \\(Not a directory\\)"),
        ({"out": "o" * 300}, "cannot be written \\(File name too long\\)"),
    ],
)
def test_where_scores_go_is_checked_before_anything_is_scored(untrained, monkeypatch, given, message):
    monkeypatch.chdir(untrained)
    (untrained / "triplets").mkdir(exist_ok=True)
    (untrained / "predictions/mine").mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(run, "score_arm", lambda *_, **__: pytest.fail("it was scored"))
    with pytest.raises(UserError, match=message):
        anyone.score_folder("predictions/mine", **given)
    assert not (untrained / "out").exists() and not (untrained / "predictions/mine/new").exists()


# ----------------------------------------------------------------------------------------------------- world
@pytest.mark.parametrize("out", [".", "file", "full", "file/below", "w" * 300])
def test_a_world_is_rendered_into_an_empty_place_only(there, capsys, out):
    (there / "file").write_text("a file")
    (there / "full").mkdir()
    (there / "full/mine").touch()
    before = left(there)
    assert cli.main(["world", "--out", out]) == 1
    said = capsys.readouterr()
    assert len(said.err.splitlines()) == 1 and left(there) == before


def test_a_video_that_cannot_be_opened_is_said_before_anything_is_loaded(tmp_path, monkeypatch):
    folder = tmp_path / "given"
    clips = np.zeros((2, 9, 32, 32, 3), np.uint8)
    media_helpers.predictions(folder, ["a", "b"], ["x", "y"], clips)
    (folder / "videos/b.avi").write_bytes(b"no video")
    monkeypatch.setattr(run, "Triplets", lambda _: None)
    monkeypatch.setattr(run, "held_out", lambda *_: ["a", "b"])
    monkeypatch.setattr(run, "judges", lambda *_: pytest.fail("models were loaded"))
    monkeypatch.setattr(run, "preflight", lambda *_, **__: None)
    with pytest.raises(UserError, match="b.avi: cannot be read as a video"):
        run.score_arm(folder, tmp_path, params=load(smoke.ROOT))


def test_answers_for_which_there_is_no_room_are_not_begun(tmp_path, monkeypatch):
    from vans.answer import arm

    params = load(smoke.ROOT)
    monkeypatch.setattr(arm, "Triplets", lambda _: None)
    monkeypatch.setattr(arm, "held_out", lambda *_: ["a"] * 10)
    monkeypatch.setattr(arm, "launch", lambda *_, **__: pytest.fail("it was computed"))
    monkeypatch.setattr(arm, "preflight", lambda *_, **__: None)
    monkeypatch.setattr(files.shutil, "disk_usage", lambda _: type("Usage", (), {"free": 10 * 9 * 32 * 32 * 3 - 1})())
    with pytest.raises(UserError, match="predictions/sft: .* are needed and"):
        arm.predict(params, arm.Arm("sft", "sft", "sft"), tmp_path)
