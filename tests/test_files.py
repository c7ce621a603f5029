"""Files that are whole or absent: what a crash, a full disk or an exception leaves behind."""

import errno
import os
import subprocess
import sys
import textwrap

import pytest

from vans import files
from vans.errors import UserError


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
    with pytest.raises(NotADirectoryError):
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
