"""Files that are whole or absent: what a crash, a full disk or an exception leaves behind."""

import errno
import io
import os
import resource
import shutil
import subprocess
import sys
import tarfile
import tempfile
import textwrap
from pathlib import Path

import nbformat
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from vans import files, notebooks, warm
from vans.errors import UserError
from vans.media import video as media
from vans.score.score import Scores
from vans.show import style
from vans.tables import machines, seeds_markdown


def test_text_and_bytes_are_written_whole_and_folders_made(tmp_path):
    files.atomic_write_text(tmp_path / "a/b.txt", "grüße\n")
    assert (tmp_path / "a/b.txt").read_bytes() == "grüße\n".encode()
    files.atomic_write_bytes(tmp_path / "a/b.txt", b"new")
    assert [path.name for path in (tmp_path / "a").iterdir()] == ["b.txt"]
    assert (tmp_path / "a/b.txt").read_bytes() == b"new"


def test_a_full_disk_leaves_the_old_file_and_says_so(tmp_path, monkeypatch):
    path = tmp_path / "table.csv"
    path.write_text("old")

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(UserError, match=r"table\.csv: no space left on the disk; free some"):
        files.atomic_write_text(path, "new")
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]
    with pytest.raises(UserError, match="no space left"), files.atomic_dir(tmp_path / "model") as folder:
        (folder / "weights").write_text("x")
    assert list(tmp_path.iterdir()) == [path]


def test_other_errors_pass_unchanged(tmp_path):
    with pytest.raises(FileExistsError):
        (tmp_path / "file").touch()
        files.atomic_write_text(tmp_path / "file" / "below", "x")


def test_a_folder_appears_only_when_it_is_whole(tmp_path):
    with files.atomic_dir(tmp_path / "x/model") as folder:
        (folder / "sub").mkdir()
        (folder / "sub/weights").write_text("1")
        assert not (tmp_path / "x/model").exists()
    assert (tmp_path / "x/model/sub/weights").read_text() == "1"
    assert [path.name for path in (tmp_path / "x").iterdir()] == ["model"]


def test_an_exception_keeps_what_was_there(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/old").touch()
    with pytest.raises(ZeroDivisionError), files.atomic_dir(tmp_path / "model") as folder:
        (folder / "new").touch()
        1 / 0  # noqa: B018
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]


def test_a_folder_that_is_there_is_replaced_as_a_whole(tmp_path):
    (tmp_path / "model").mkdir()
    (tmp_path / "model/old").touch()
    with files.atomic_dir(tmp_path / "model") as folder:
        (folder / "new").touch()
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_killed_run_leaves_nothing_in_place_and_the_next_one_tidies_up(tmp_path):
    script = f"""
        import os, signal
        from vans.files import atomic_dir
        with atomic_dir({str(tmp_path / "model")!r}) as folder:
            (folder / "half").touch()
            os.kill(os.getpid(), signal.SIGKILL)
    """
    done = subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=False)
    assert done.returncode == -9
    left = list(tmp_path.iterdir())
    assert len(left) == 1 and files.PARTIAL in left[0].name and not (tmp_path / "model").exists()
    with files.atomic_dir(tmp_path / "model") as folder:
        (folder / "whole").touch()
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "whole"]


def test_a_kill_between_the_two_renames_loses_nothing(tmp_path):
    """The old folder has moved aside, the new one is not in place yet: the old one is put back."""
    aside = tmp_path / f".model{files.PARTIAL}{files.HOST}-999999999-old"
    aside.mkdir()
    (aside / "old").touch()
    files.remove_leftovers(tmp_path / "model")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "old"]


def test_results_are_written_over_what_a_killed_process_has_left_of_them(tmp_path):
    gone = f"{files.PARTIAL}{files.HOST}-999999999"
    (tmp_path / "from").mkdir()
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_markdown_cell("# words")])
    nbformat.write(notebook, tmp_path / "from/a.ipynb")
    writers = {
        "a.png": lambda folder: style.save(style.new_figure(100, 50), folder / "a.png"),
        "machine.json": lambda folder: machines.record(folder, "sft", {"cpu": "x"}),
        "main.json": lambda folder: Scores("main", pd.DataFrame({"id": ["a"]}), {"n": 1}).save(folder),
        "seeds.csv": lambda folder: seeds_markdown.write([], folder),
        "a.ipynb": lambda folder: notebooks.strip(tmp_path / "from", folder),
        "a.html": lambda folder: notebooks.write_html(folder / "a.ipynb"),
    }
    for name, write in writers.items():
        folder = tmp_path / "to" / name
        folder.mkdir(parents=True)
        (folder / f".{name}{gone}").touch()
        if name == "a.html":
            shutil.copyfile(tmp_path / "from/a.ipynb", folder / "a.ipynb")
        write(folder)
        assert (folder / name).exists() and [p.name for p in folder.iterdir() if files.PARTIAL in p.name] == [], name


def test_a_file_has_the_permissions_of_any_new_file_whatever_its_folder_and_library_say(tmp_path):
    (tmp_path / "all").mkdir()
    (tmp_path / "all").chmod(0o777)
    (tmp_path / "usual").touch()
    files.atomic_write_bytes(tmp_path / "all/bytes", b"1")
    with files.atomic_file(tmp_path / "all/file") as partial:
        partial.unlink()
        partial.touch(0o600)
    usual = (tmp_path / "usual").stat().st_mode
    assert [(tmp_path / "all" / name).stat().st_mode for name in ("bytes", "file")] == [usual, usual]


@pytest.mark.parametrize("name", ["a.csv", "b.avi"])
def test_whatever_writes_a_file_removes_what_killed_processes_left_of_it(tmp_path, name):
    (tmp_path / f".{name}{files.PARTIAL}{files.HOST}-999999999").touch()
    if name == "a.csv":
        files.atomic_write_text(tmp_path / name, "1")
    else:
        media.write(tmp_path / name, np.zeros((2, 8, 8, 3), np.uint8), 4.0)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_leftovers_of_a_live_process_are_left_alone(tmp_path):
    theirs = tmp_path / f".model{files.PARTIAL}{files.HOST}-{os.getppid()}"
    theirs.mkdir()
    files.remove_leftovers(tmp_path / "model")
    assert theirs.exists()


def test_digests(tmp_path):
    assert files.digest({"a": 1, "b": [1, 2]}) == files.digest({"b": (1, 2), "a": 1})
    assert files.digest({"a": 1}) != files.digest({"a": 1.5})
    (tmp_path / "x").write_bytes(b"abc")
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"  # FIPS 180-2, B.1
    assert files.sha256_file(tmp_path / "x") == expected


def test_free_space(tmp_path):
    files.check_free_space(tmp_path / "not/there/yet", 1)
    with pytest.raises(UserError, match="are needed and"):
        files.check_free_space(tmp_path, 10**18)


def test_an_output_is_tried_and_nothing_is_left(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in/x").write_text("x")
    (tmp_path / "link").symlink_to(tmp_path / "in")
    before = sorted(tmp_path.rglob("*"))
    files.check_output(tmp_path / "new/deep/y", reads=[tmp_path / "in", tmp_path / "absent"], size=1)
    files.check_output(tmp_path / "in/x", size=1)  # what is there may be replaced
    for output, read in (
        ("in/x", "in/x"),
        ("link/x", "in/x"),
        ("in/x", "link/x"),
        ("link/new/y", "in"),
        ("in/y", "link"),
    ):
        with pytest.raises(UserError, match="which is read; choose another name"):
            files.check_output(tmp_path / output, reads=[tmp_path / read])
    with pytest.raises(UserError, match="is a folder"):
        files.check_output(tmp_path / "in")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    with pytest.raises(UserError, match="cannot be written"):
        files.check_output(tmp_path / "round/y")
    (tmp_path / "round").unlink()
    assert sorted(tmp_path.rglob("*")) == before


def test_permissions_are_those_of_a_new_file(tmp_path):
    private, script, plain = tmp_path / "private", tmp_path / "script", tmp_path / "plain"
    for path, mode in ((private, 0o600), (script, 0o700)):
        path.touch()
        path.chmod(mode)
    plain.touch()
    (tmp_path / "link").symlink_to("/dev/null")
    files.usual_permissions(tmp_path)
    usual = plain.stat().st_mode & 0o777
    assert private.stat().st_mode & 0o777 == usual and script.stat().st_mode & 0o777 == usual | 0o100


def test_a_file_that_is_none_or_not_to_be_read(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "private").touch()
    assert not files.check_readable(tmp_path / "absent").exists()
    with pytest.raises(UserError, match="is no regular file"):
        files.check_readable(tmp_path / "pipe")
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="private: you may not read it; .*chmod a\\+r"):
        files.check_readable(tmp_path / "private")


def test_a_user_error_is_one_line():
    assert str(UserError("a\n  b\tc")) == "a b c"


# ------------------------------------------------------------------------------------------------- full disks
def _safetensors(path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(5000)}, path)


def _tokenizers(path):
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel

    Tokenizer(WordLevel({str(i): i for i in range(5000)}, "0")).save(str(path))


def _tar(path):
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("a")
        member.size = 5000
        tar.addfile(member, io.BytesIO(bytes(5000)))


WRITERS = {
    "python": lambda path: path.write_bytes(bytes(5000)),
    "shutil": lambda path: shutil.copyfile(np.__file__, path),
    "numpy": lambda path: np.save(path.with_suffix(".npy"), np.zeros(5000)),
    "csv": lambda path: pd.DataFrame({"a": range(5000)}).to_csv(path),
    "parquet": lambda path: pd.DataFrame({"a": np.random.default_rng(0).random(5000)}).to_parquet(path),
    "png": lambda path: Image.effect_noise((200, 200), 50).save(path, "png"),
    "safetensors": _safetensors,
    "tokenizers": _tokenizers,
    "tar": _tar,
}


@pytest.mark.parametrize("writer", WRITERS)
def test_no_room_is_one_line_whatever_library_writes(tmp_path, writer):
    with files.atomic_dir(tmp_path / "out") as folder:
        (folder / "old").write_text("whole")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # no file may be larger
    try:
        full = pytest.raises(UserError, match=r"out: no space left on the disk; free some and run again$")
        with full, files.atomic_dir(tmp_path / "out") as folder:
            WRITERS[writer](folder / "new")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["out", "out/old"]


def test_other_errors_are_not_taken_for_a_full_disk():
    for error in (OSError(errno.EACCES, "Permission denied"), ValueError("28"), OSError("of no file")):
        assert not files.is_full(error)


# ---------------------------------------------------------------------------------------------- several processes
def test_partial_files_carry_host_and_process(tmp_path):
    with files.atomic_file(tmp_path / "chunk") as partial:
        assert partial.name == f".chunk{files.PARTIAL}{files.HOST}-{os.getpid()}"
        partial.write_text("x")


def test_what_another_host_has_begun_is_left_for_a_week(tmp_path):
    theirs = tmp_path / f".model{files.PARTIAL}0123abcd-999999999"
    theirs.mkdir()
    files.remove_leftovers(tmp_path / "model")
    files.sweep(tmp_path)
    assert theirs.exists()
    os.utime(theirs, (0, 0))
    files.sweep(tmp_path)
    assert not theirs.exists()


def test_temporary_folders_of_processes_that_are_gone_are_swept(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    mine = Path(tempfile.mkdtemp(prefix=files.temporary("ranks")))
    gone = [tmp_path / f"vans-{kind}-{files.HOST}-999999999-ab12_x" for kind in ("ranks", "warm")]
    others = ["vans-mine", "other", f"vans-ranks-{files.HOST}-{os.getppid()}-x", "vans-ranks-0a0a0a0a-999999999-x"]
    for folder in (*gone, *(tmp_path / name for name in others)):
        folder.mkdir()
        (folder / "rank1.log").touch()
    job = warm.start(1, 1, "vans.rng")
    assert job.folder.name.startswith(f"vans-ranks-{files.HOST}-{os.getpid()}-")
    assert mine.is_dir() and not any(folder.exists() for folder in gone)
    assert all((tmp_path / name).is_dir() for name in others)
    job.close()


def test_the_old_folder_of_a_live_process_is_not_taken_from_it(tmp_path):
    """It is between its two renames: putting the old one back would make its second one fail."""
    aside = tmp_path / f".model{files.PARTIAL}{files.HOST}-{os.getppid()}-old"
    aside.mkdir()
    files.remove_leftovers(tmp_path / "model")
    assert aside.exists() and not (tmp_path / "model").exists()


def test_a_folder_that_comes_between_the_two_renames_is_replaced(tmp_path, monkeypatch):
    rename = os.rename
    renamed: list = []

    def busy(source, target):
        if target == tmp_path / "model" and not renamed:
            renamed.append(target)
            target.mkdir()
            (target / "theirs").touch()
        rename(source, target)

    monkeypatch.setattr(os, "rename", busy)
    with files.atomic_dir(tmp_path / "model") as folder:
        (folder / "ours").touch()
    assert [str(p.relative_to(tmp_path)) for p in sorted(tmp_path.rglob("*"))] == ["model", "model/ours"]


def test_two_processes_may_write_the_same_folder_and_file(tmp_path):
    script = f"""
        import sys
        from pathlib import Path
        from vans import files
        for i in range(60):
            with files.atomic_dir({str(tmp_path / "model")!r}) as folder:
                for name in "ab":
                    (folder / name).write_text(sys.argv[1] * 100)
            with files.atomic_file({str(tmp_path / "chunk")!r}) as partial:
                partial.write_text(sys.argv[1] * 100)
            files.discard({str(tmp_path / "chunk")!r})
            files.sweep({str(tmp_path)!r})
    """
    code = textwrap.dedent(script)
    both = [subprocess.Popen([sys.executable, "-c", code, who], stderr=subprocess.PIPE) for who in "12"]
    for process in both:
        assert not process.communicate()[1] and process.returncode == 0
    assert [p.name for p in tmp_path.iterdir()] == ["model"]
    assert len({p.read_text() for p in (tmp_path / "model").iterdir()}) == 1, "one's folder, or the other's"


def test_a_name_may_be_as_long_as_the_system_allows(tmp_path):
    name = "x" * 251 + ".mp4"
    files.check_output(tmp_path / name)
    files.atomic_write_bytes(tmp_path / name, b"1")
    assert [p.name for p in tmp_path.iterdir()] == [name]


# --------------------------------------------------------------------------------------------------- sealed folders
def test_a_sealed_folder_has_all_its_files_to_the_byte(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/x").write_text("abc")
    assert files.sealed(tmp_path) is None, "not sealed yet"
    files.seal(tmp_path, {"position": 3})
    digest = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert files.sealed(tmp_path) == {"position": 3, "files": {"sub/x": [3, digest]}}
    for text in ("abd", "ab", ""):
        (tmp_path / "sub/x").write_text(text)
        assert files.sealed(tmp_path) is None
    (tmp_path / "sub/x").write_text("abc")
    for record in ("", "{", "[]", '{"files": 1}', '{"files": {"none": [0, ""]}}'):
        (tmp_path / files.LISTED).write_text(record)
        assert files.sealed(tmp_path) is None
