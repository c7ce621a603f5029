"""What code decides a stage's numbers: what counts as a change of it, and what stands behind each stage."""

import json
import sys
from pathlib import Path

import pytest

from vans import code
from vans.params import load

ROOT = Path(__file__).resolve().parents[1]
SOURCE = '''"""What it does."""

# a note
def f(x):
    """Doubles."""
    return 2 * x  # twice

class C:
    """A class."""

    text = "# not a comment"
'''


@pytest.mark.parametrize(
    "old, new, same",
    [
        ("What it does.", "Something else,\nin two lines.", True),
        ("Doubles.", "Doubles x.", True),
        ("# a note\n", "", True),
        ("  # twice", "  # two times", True),
        ("\n\nclass", "\n\n\n\nclass", True),
        ("A class.", "Another.", True),
        ("2 * x", "3 * x", False),
        ("# not a comment", "# nor this", False),
    ],
)
def test_docstrings_and_comments_do_not_count(old, new, same):
    assert old in SOURCE
    assert (code.essence(SOURCE) == code.essence(SOURCE.replace(old, new))) is same


def test_a_function_of_nothing_but_a_docstring():
    assert code.essence('def f():\n    """Nothing."""\n') == "def f():"


@pytest.mark.parametrize(
    "old, new, same",
    [
        ('def f(x): "Ä."; return 2', 'def f(x): "Doubles."; return 2', True),
        ('def f(x): "Ä."; return 2', 'def f(x): "Ä."; return 3', False),
        ('def f(x): "Ä."', 'def f(x, y): "Ä."', False),
        ('t = """a\n\nb"""', 't = """a\nb"""', False),
        ('t = """a \nb"""', 't = """a\nb"""', False),
        ('t = f"""a\n\n{x}"""', 't = f"""a\n{x}"""', False),
        ('"""a\n\nb"""\nx = 1', '"""a"""\nx = 1', True),
    ],
)
def test_code_beside_a_docstring_and_lines_inside_of_a_text_count(old, new, same):
    assert (code.essence(old) == code.essence(new)) is same


@pytest.fixture
def copy(tmp_path):
    """The library's sources, to be changed."""
    for path in [p for p in (ROOT / "vans").rglob("*.*") if p.suffix in (".py", ".md", ".csv")]:
        target = tmp_path / path.relative_to(ROOT)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    (tmp_path / "notebooks").mkdir()
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        (tmp_path / "notebooks" / path.name).write_bytes(path.read_bytes())
    return tmp_path


def written(root: Path, name: str, **sections) -> dict[str, str]:
    code.write(root, root / name, load(ROOT).with_(**sections))
    return {str(p.relative_to(root / name).with_suffix("")): p.read_text() for p in (root / name).rglob("*.txt")}


def changed(root: Path) -> set[str]:
    """What goes stale by what has been done since `before`."""
    before, after = written_before[root], written(root, "after")
    return {name for name in {*before, *after} if before.get(name) != after.get(name)}


written_before: dict[Path, dict[str, str]] = {}
TRAINED = {"base", "sft", "stage1", "stage2", "all_in_one"}
SYSTEMS = {"systems", "systems_answer"}


def test_every_stage_has_its_file(copy):
    names = set(written(copy, "before"))
    assert set(code.ENTRIES) | {"tables"} <= names
    assert {"rewards/stage1.full", "rewards/stage2.no_c2", "rewards/all_in_one.full"} <= names
    assert {f"notebooks/{p.stem}" for p in (ROOT / "notebooks").glob("*.ipynb")} <= names


@pytest.mark.parametrize(
    "path, stale",
    [
        ("vans/rewards/terms/t1.py", {"rewards/stage1.full", "rewards/stage1.no_v1", "rewards/all_in_one.full"}),
        ("vans/rewards/terms/c2.py", {"rewards/stage2.full", "rewards/stage2.no_v2", "rewards/all_in_one.full"}),
        ("vans/rewards/terms/oracle.py", set()),  # no preset uses it
        ("vans/rewards/terms/motion.py", {"stage2", "all_in_one", "pictures"}),  # its energy is logged there
        ("vans/rewards/plugs.py", {"stage1", "stage2", "all_in_one", "pictures"}),
        ("vans/grpo/core.py", {"stage1", "stage2", "all_in_one", "pictures"}),
        ("vans/grpo/flow_sde.py", {"stage2", "all_in_one", "pictures"}),
        ("vans/train/sft.py", {"sft", "pictures"}),
        ("vans/train/systems.py", {"systems"}),
        ("vans/train/stage1.py", {"stage1", "all_in_one", "pictures"}),
        ("vans/show/style.py", {"tables"}),
        ("vans/tables/report.py", set()),  # prints
        ("vans/data/annotate/rulebook.py", {"curate"}),
        ("vans/data/sources/coin.py", {"curate"}),
        ("vans/data/shots.py", {"curate"}),
        ("vans/toy/sources.py", set()),  # its product is data/
        ("vans/cli.py", set()),
        ("vans/ending.py", set()),
        ("vans/params/sections.py", set()),
        ("vans/models/vlm.py", {*TRAINED, "answer", *SYSTEMS, "pictures"}),
        ("vans/models/connector.py", SYSTEMS),
        ("vans/answer/arm.py", {"answer", "pictures"}),
        ("vans/answer/batchwise.py", {"answer", "systems_answer", "pictures"}),
    ],
)
def test_what_a_change_makes_stale(copy, path, stale):
    written_before[copy] = written(copy, "before")
    with open(copy / path, "a") as file:
        file.write("\nADDED = 1\n")
    assert changed(copy) == stale
    (copy / path).write_text((ROOT / path).read_text() + "\n# a comment\n")
    assert changed(copy) == set()


@pytest.mark.parametrize(
    "path, sections, stale",
    [
        ("vans/data/annotate/prompts/write.md", {"curate": {"annotator": "openai"}}, {"curate"}),
        ("vans/data/annotate/prompts/write.md", {}, set()),  # the rules ask nobody
        ("vans/rewards/terms/judge.md", {"rewards": {"stage1": {"judged": {"judge": 1.0}}}}, {"rewards/stage1.judged"}),
        ("vans/tables/paper.csv", {}, {"tables", "pictures"}),
    ],
)
def test_a_file_that_a_module_reads_counts_with_it(copy, path, sections, stale):
    before = written(copy, "before", **sections)
    with open(copy / path, "a") as file:
        file.write("\n")
    after = written(copy, "after", **sections)
    assert {name for name in after if after[name] != before[name]} == stale


def test_every_file_beside_the_modules_counts_with_one():
    files = {p for p in (ROOT / "vans").rglob("*.*") if p.is_file() and p.suffix not in (".py", ".pyc")}
    assert files == {p for module, pattern in code.DATA.items() for p in (ROOT / module).parent.glob(pattern)}


def test_of_the_judge_count_the_settings_that_can_change_an_answer(copy):
    preset = {"stage1": {"judged": {"judge": 1.0}}}
    before = written(copy, "before", rewards=preset)
    for judge, stale in (({"model": "x/y"}, {"rewards/stage1.judged"}), ({"retries": 1, "cache": "c"}, set())):
        after = written(copy, "after", rewards=preset, judge=judge)
        assert {name for name in after if after[name] != before[name]} == stale


def test_a_new_term_changes_only_the_presets_that_use_it(copy):
    written_before[copy] = written(copy, "before")
    (copy / "vans/rewards/terms/flow.py").write_text((copy / "vans/rewards/terms/motion.py").read_text())
    assert changed(copy) == set()


def test_a_term_of_ones_own_counts_by_its_source(tmp_path, monkeypatch):
    monkeypatch.delitem(sys.modules, "mine", raising=False)  # another test's
    (tmp_path / "mine.py").write_text("def f(r):\n    return 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    before = code.of_term("mine:f", ROOT)
    (tmp_path / "mine.py").write_text("def f(r):\n    '''One.'''\n    return 1\n")
    assert code.of_term("mine:f", ROOT) == before
    (tmp_path / "mine.py").write_text("def f(r):\n    return 2\n")
    assert code.of_term("mine:f", ROOT) != before
    program = tmp_path / "judge.sh"
    program.write_text("#!/bin/sh\n")
    assert code.of_term(str(program), ROOT) != code.of_term("./gone.sh", ROOT) == "missing  ./gone.sh\n"
    assert code.of_term("https://example.org/score", ROOT) == "https://example.org/score\n"
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken/__init__.py").write_text("1 / 0\n")
    for name in ("no_such.package:f", "broken.part:f"):  # the stage that uses it says why, in one line
        assert code.of_term(name, ROOT) == f"missing  {name}\n"


def test_an_executed_copy_of_a_notebook_is_the_same_code(tmp_path):
    path = ROOT / "notebooks/04_stage1.ipynb"
    notebook = json.loads(path.read_text())
    injected = {"cell_type": "code", "metadata": {"tags": ["injected-parameters"]}, "source": ["cell = 'x'"]}
    for cell in notebook["cells"]:
        if cell["cell_type"] == "code":
            cell |= {"outputs": [{"output_type": "stream", "name": "stdout", "text": ["1"]}], "execution_count": 1}
    notebook["cells"].insert(2, injected | {"outputs": [], "execution_count": 2})
    (tmp_path / "executed.ipynb").write_text(json.dumps(notebook))
    assert code.of_notebook(tmp_path / "executed.ipynb") == code.of_notebook(path)
