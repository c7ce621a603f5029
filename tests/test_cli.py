"""The command line: one clear line and an exit code for whatever goes wrong; data, tables, README."""

import re
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests import smoke
from vans import cli, files, setup
from vans.errors import UserError
from vans.media import video as media
from vans.tables import report

COMMANDS = (
    *("world", "check", "plan", "preflight", "repro", "estimate", "answer", "import", "export", "score", "vote"),
    *("demo", "split", "tables", "compare", "page", "publish", "queue", "seeds", "summary", "targets"),
)


def test_help_names_every_command_and_loads_nothing_heavy():
    script = "import sys, vans.cli; vans.cli.parser().print_help(); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, "vans --help must not import torch"
    assert all(f"  {command} " in done.stdout for command in COMMANDS)


def test_help_says_what_a_command_does_and_not_how():
    parser: Any = cli.parser()
    told = {action.dest: action.help for action in parser._subparsers._group_actions[0]._choices_actions}
    assert sorted(told) == sorted(COMMANDS)
    assert told["repro"] == "Run `dvc repro` with these arguments; the stages' libraries are imported once"


def test_help_names_every_suffix_that_is_written():
    parser: Any = cli.parser()
    help_of = parser._subparsers._group_actions[0].choices["answer"].format_help()
    assert all(suffix in help_of for suffix in media.WRITTEN)


def test_exit_codes(capsys):
    def fails():
        raise UserError("data/x.avi: empty;\n give another one")

    def interrupted():
        raise KeyboardInterrupt

    assert cli.guarded(lambda: None) == 0
    assert cli.guarded(fails) == 1
    assert capsys.readouterr().err == "vans: data/x.avi: empty; give another one\n"
    assert cli.guarded(fails, verbose=True) == 1
    assert "Traceback" in capsys.readouterr().err
    assert cli.guarded(interrupted) == 130


def test_a_full_disk_is_one_line_wherever_it_is_noticed(capsys):
    def full():
        raise OSError(28, "No space left on device")  # of a write, which knows no file

    assert cli.guarded(full) == 1
    said = "vans: no space left on the disk ([Errno 28] No space left on device); free some and run again\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize("arguments", [["--help"], ["score", "--help"], ["wrold"]])
def test_help_needs_nobody_who_reads_it(arguments):
    command = [sys.executable, "-m", "vans.cli", *arguments]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode in (0, 2) and "Traceback" not in done.stderr and "Exception ignored" not in done.stderr


def test_an_unexpected_error_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        cli.guarded(lambda: 1 / 0)  # type: ignore[arg-type]


def test_an_unknown_command_is_refused(capsys):
    with pytest.raises(SystemExit) as caught:
        cli.main(["wrold"])
    assert caught.value.code == 2
    assert capsys.readouterr().err.endswith("there is no command 'wrold'; did you mean world?\n")
    with pytest.raises(SystemExit):
        cli.main(["qqq"])
    assert "'qqq'" in capsys.readouterr().err


def test_targets_of_a_seed_are_scores_of_our_arms(monkeypatch, capsys):
    monkeypatch.chdir(smoke.ROOT)
    printed = {}
    for of in ("chain", "grid"):
        assert cli.main(["targets", of]) == 0
        printed[of] = capsys.readouterr().out.split()
    chain = ["copy", "sft", "stage1", "main", "ceiling", "ceiling_main"]
    assert printed["chain"] == [f"score@{arm}" for arm in chain]
    stages = yaml.safe_load((smoke.ROOT / "dvc.yaml").read_text())["stages"]
    assert printed["grid"] == [f"score@{arm}" for arm in stages["answer"]["foreach"]]


def test_a_misspelt_parameter_is_one_line(tmp_path):
    text = (smoke.ROOT / "params.yaml").read_text().replace("surprise:", "suprise:")
    (tmp_path / "params.yaml").write_text(text)
    (tmp_path / "dvc.yaml").touch()
    command = [sys.executable, "-m", "vans.cli", "targets"]
    env = smoke.environment(smoke.ROOT)
    done = subprocess.run(command, cwd=tmp_path, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr == "vans: params.yaml: world.suprise: unknown key; did you mean surprise?\n"


# ------------------------------------------------------------------------------------------------------ data
@pytest.fixture
def repository(tmp_path):
    """A small repository with DVC and a world of a few videos, without data."""
    root = tmp_path / "repository"
    (root / ".dvc").mkdir(parents=True)
    for name in ("params.yaml", "dvc.yaml", ".gitignore", ".dvcignore", ".dvc/config", ".dvc/.gitignore"):
        shutil.copyfile(smoke.ROOT / name, root / name)
    smoke.shrink(root / "params.yaml")
    (root / "vans").symlink_to(smoke.ROOT / "vans")
    smoke.run("git", "init", "--quiet", cwd=root)
    return root


def _bytes(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_data_is_rendered_once_verified_and_then_left_alone(repository):
    assert "data.dvc: missing" in smoke.vans(repository, "world", code=1)
    assert not (repository / "data").exists()
    smoke.vans(repository, "world", "--pin")
    pinned, made = (repository / "data.dvc").read_bytes(), _bytes(repository / "data")
    shutil.rmtree(repository / "data")
    assert "byte for byte" in smoke.vans(repository, "world")
    assert _bytes(repository / "data") == made and (repository / "data.dvc").read_bytes() == pinned
    # data of the user's own
    shutil.rmtree(repository / "data")
    (repository / "data").mkdir()
    (repository / "data/own.mp4").write_bytes(b"mine")
    said = smoke.vans(repository, "world")
    assert "left as it is" in said and "differs from data.dvc" in said
    assert _bytes(repository / "data") == {"own.mp4": b"mine"}
    assert (repository / "data.dvc").read_bytes() == pinned


def test_other_bytes_than_pinned_are_refused_and_data_dvc_is_kept(repository):
    smoke.vans(repository, "world", "--pin")
    pinned = (repository / "data.dvc").read_bytes()
    shutil.rmtree(repository / "data")
    path = repository / "params.yaml"
    path.write_text(path.read_text().replace("surprise: 0.2", "surprise: 0.9"))
    said = smoke.vans(repository, "world", code=1)
    assert "data.dvc: pins other data" in said and "dvc checkout" in said
    assert (repository / "data.dvc").read_bytes() == pinned and not (repository / "data").exists()


def test_refused_data_goes_at_once_so_that_no_half_of_it_is_taken_for_ones_own(tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    def rendered(folder):
        for name in ("a.avi", "b.avi"):
            files.atomic_write_bytes(folder / name, b"video")

    def killed(path, **_):
        if path.exists():
            (path / "a.avi").unlink()
            raise Killed

    (tmp_path / "data.dvc").touch()
    monkeypatch.setattr(setup, "render", rendered)
    monkeypatch.setattr(setup, "_dvc", lambda *_, **__: 1)
    monkeypatch.setattr("shutil.rmtree", killed)
    with pytest.raises(Killed):
        setup.data(root=tmp_path)
    assert not (tmp_path / "data").exists()


@pytest.mark.skipif(not (smoke.ROOT / "data.dvc").exists(), reason="no data.dvc")
def test_the_generator_makes_the_bytes_that_the_committed_data_dvc_pins(repository):
    for name in ("params.yaml", "data.dvc"):
        shutil.copyfile(smoke.ROOT / name, repository / name)
    assert "byte for byte" in smoke.vans(repository, "world")


def test_a_failing_dvc_is_one_line(tmp_path):
    with pytest.raises(UserError, match="`dvc add data` failed: "):
        setup._dvc(tmp_path, "add", "data")


# ---------------------------------------------------------------------------------------------------- report
def test_the_readme_region_is_filled_again_and_again():
    readme = f"# head\n{report.BEGIN}\nold\n{report.END}\ntail\n"
    once = report.fill(readme, "| a |")
    assert once == f"# head\n{report.BEGIN}\n\n| a |\n\n{report.END}\ntail\n"
    assert report.fill(once, "| a |") == once


B, E = report.BEGIN, report.END


@pytest.mark.parametrize("readme", ["", B, E + B, B + B + E])
def test_a_readme_without_its_marks_is_refused(readme):
    with pytest.raises(UserError, match=r"README\.md: needs one line"):
        report.fill(readme, "x")


def test_the_committed_readme_shows_what_is_published():
    readme = (smoke.ROOT / "README.md").read_text()
    assert report.fill(readme, report.headline(smoke.ROOT / "docs/results")) == readme


def test_the_committed_readme_is_short_and_its_links_lead_somewhere():
    assert len((smoke.ROOT / "README.md").read_text().split()) < 2400
    for page in (smoke.ROOT / "README.md", *sorted((smoke.ROOT / "docs").glob("*.md"))):
        for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
            path, _, anchor = link.partition("#")
            there = page.parent / path if path else page
            assert "://" in link or there.exists(), (page.name, link)
            assert not anchor or anchor in _anchors(there), (page.name, link)


def _anchors(page: Path) -> set[str]:
    """Of the headings, as GitHub makes them."""
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


PUBLISHED = """\
kind,row,title,arm,n,rouge_l,rouge_l_lo,rouge_l_hi,fvd,fvd_lo,fvd_hi,clip_v,clip_v_lo,clip_v_hi,clip_t,fvd_detector
procedural,sft,x,sft,3,0.9,0.8,1,1,0,2,0.5,0.4,0.6,0.25,"detector: D, 64 features"
all,omni,y,,,,,,,,,,,,,
all,copy,z,copy,6,0,0,0,9,8,10,0.1,0,0.2,0.1,"detector: D, 64 features"
all,sft,x,sft,6,0.59125,0.55,0.63,-0.5,-1,2,0.5,0.4,0.6,0.25,"detector: D, 64 features"
"""
REGION = """\
|     | ROUGE-L ↑            | FVD ↓               | CLIP-V ↑             | CLIP-T ↑ |
| --- | -------------------- | ------------------- | -------------------- | -------- |
| SFT | 0.591 [0.550, 0.630] | −0.50 [−1.00, 2.00] | 0.500 [0.400, 0.600] | 0.250    |

6 held-out samples, 95 % intervals in brackets; FVD by D.

About them.

- It holds.

"""


def test_publish_copies_the_tables_and_shows_the_headline(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    with pytest.raises(UserError, match="no tables there; `dvc repro benchmarks`"):
        report.publish()
    (tmp_path / "results").mkdir()
    text = f"# Table\n\n## All\n\nwide\n\n{report.CLAIMS}\n\nAbout them.\n\n- It holds.\n\n## Details\n\nverbose\n"
    (tmp_path / "results/main.md").write_text(text)
    (tmp_path / "README.md").write_text(f"{report.BEGIN}\n{report.END}\n")
    with pytest.raises(UserError, match=r"main\.csv: missing, and README\.md shows it; `dvc repro"):
        report.publish()
    (tmp_path / "results/main.csv").write_text(PUBLISHED)
    (tmp_path / "results/main.png").touch()
    report.publish()
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith(f"{report.BEGIN}\n\n{REGION}Every measure, ") and "wide" not in readme
    assert "0.591 <span>[0.550, 0.630]</span>" in (tmp_path / "docs/page.html").read_text()
    assert "warnings: [main table](docs/results/main.md).\n\n<!--" in readme
    assert {p.name for p in (tmp_path / "docs/results").iterdir()} == {"main.csv", "main.md", "main.png"}
    (tmp_path / "docs/results/ablation.md").touch()  # of an earlier run
    (tmp_path / "docs/results/ablation.png").touch()
    (tmp_path / "README.md").write_text(f"{readme}![bars](docs/results/ablation.png)\n")
    capsys.readouterr()
    report.publish()
    assert {p.name for p in (tmp_path / "docs/results").iterdir()} == {"main.csv", "main.md", "main.png"}
    said = capsys.readouterr().out
    assert "removed from docs/results/" in said and "ablation.md, ablation.png\n" in said
    assert "README.md still shows ablation.png: take the line out" in said
    report.show_tables(published=True)
    assert "It holds." in (said := capsys.readouterr().out) and "verbose" not in said


def test_the_table_over_seeds_is_published_beside_a_run_that_stays(tmp_path, monkeypatch):
    """In a clone that has run none of it, only the kept scores of the seeds."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "results").mkdir()
    (tmp_path / "docs/results").mkdir(parents=True)
    (tmp_path / "README.md").write_text(f"{report.BEGIN}\n{report.END}\n")
    with pytest.raises(UserError, match=r"results/seeds\.csv: missing; `dvc repro seeds` makes it"):
        report.publish_seeds()
    for name in report.SEEDS:
        (tmp_path / "results" / name).write_text(name)
    with pytest.raises(UserError, match=r"docs/results/main\.csv: missing: nothing is published"):
        report.publish_seeds()
    (tmp_path / "docs/results/main.csv").write_text(PUBLISHED)
    (tmp_path / "docs/results/main.md").write_text(f"# Table\n\n{report.CLAIMS}\n\nAbout them.\n\n- It holds.\n")
    (tmp_path / "docs/results/ablation.png").write_text("of the run")
    kept = tmp_path / "docs/results/seeds"
    kept.mkdir()
    for seed in range(3):
        with pytest.raises(UserError, match=r"docs/results/seeds: a headline over trainings needs 3 train seeds"):
            report.publish_seeds()
        assert not (tmp_path / "docs/results/seeds.csv").exists()
        shutil.copy(smoke.ROOT / f"docs/results/seeds/seed0_train{seed}.json.gz", kept)
    report.publish_seeds()
    there = {p.name: p.read_text() for p in (tmp_path / "docs/results").iterdir() if p.is_file()}
    assert {name: there[name] for name in report.SEEDS} == {name: name for name in report.SEEDS}
    assert there["main.csv"] == PUBLISHED and there["ablation.png"] == "of the run"
    readme = (tmp_path / "README.md").read_text()
    assert readme.startswith(f"{report.BEGIN}\n\n|")
    assert "\n3 training seeds (0, 1, 2) on the same base models" in readme
    assert "[seeds table](docs/results/seeds.md)" in readme


def test_a_full_disk_leaves_what_was_published(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    for folder, word in (("results", "new"), ("docs/results", "old")):
        (tmp_path / folder).mkdir(parents=True)
        for name in ("main.csv", "main.md"):
            (tmp_path / folder / name).write_text(f"{word}\n" * 1000)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))  # no file may be larger
    try:
        with pytest.raises(UserError, match="main.csv: no space left"):
            report.publish()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "docs/results/main.csv").read_text() == "old\n" * 1000


def test_tables_are_not_published_onto_themselves(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    (tmp_path / "results").mkdir()
    (tmp_path / "results/main.md").write_text("# Table\n")
    (tmp_path / "results/main.csv").touch()
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/results").symlink_to(tmp_path / "results")
    with pytest.raises(UserError, match="docs/results: is results/ itself"):
        report.publish()
    assert (tmp_path / "results/main.md").read_text() == "# Table\n"


def test_nothing_published_yet_is_said(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dvc.yaml").touch()
    report.show_comparison()
    assert "no published tables yet" in capsys.readouterr().out


# ---------------------------------------------------------------------------------------------------- answer
@pytest.mark.parametrize("content", [None, b"", b"not a video"], ids=["missing", "empty", "text"])
def test_a_video_that_cannot_be_read_is_one_line(tmp_path, content):
    path = tmp_path / "input.mp4"
    if content is not None:
        path.write_bytes(content)
    said = smoke.vans(smoke.ROOT, "answer", str(path), "what happens next ?", "-o", str(tmp_path / "a.mp4"), code=1)
    last = said.strip().splitlines()[-1]
    assert last.startswith("vans: ") and "input.mp4" in last and "Traceback" not in said
    assert not (tmp_path / "a.mp4").exists()


# ------------------------------------------------------------------------------------------------------ make
def _make(folder: Path, *arguments: str) -> subprocess.CompletedProcess:
    for name in ("Makefile", "requirements.txt", "pyproject.toml"):
        shutil.copy2(smoke.ROOT / name, folder / name)
    command = ["make", "--no-print-directory", "setup", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


def test_an_old_python_is_named(tmp_path):
    old = tmp_path / "oldpython"
    old.write_text('#!/bin/sh\n[ "$1" = --version ] && echo "Python 3.9.1" && exit 0\nexit 1\n')
    old.chmod(0o755)
    done = _make(tmp_path, f"PYTHON={old}")
    assert done.returncode != 0 and not (tmp_path / ".venv").exists()
    assert "vans needs Python 3.11 or later; this is Python 3.9.1" in done.stdout


def test_lab_takes_options_of_jupyter():
    command = ["make", "--no-print-directory", "-n", "lab", "LAB=--no-browser"]
    done = subprocess.run(command, cwd=smoke.ROOT, capture_output=True, text=True, check=False)
    assert done.stdout.strip().endswith("--LabApp.default_url=/lab/tree/notebooks --no-browser")


def test_set_up_is_done_once(tmp_path):
    (tmp_path / ".venv").mkdir()
    (tmp_path / ".venv/.installed").touch()
    done = _make(tmp_path)
    assert done.returncode == 0 and "Nothing to be done" in done.stdout
