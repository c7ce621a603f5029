"""What is printed and published: the tables, their comparison with the published ones, the README's region.

Numbers are copied from results/ by these functions, never typed.
"""

import shutil
from pathlib import Path

from vans.errors import UserError
from vans.files import atomic_write_text
from vans.params import find_root

TABLES = ("main", "ablation")
SUFFIXES = (".csv", ".md", ".png")
PICTURES = ("teaser.png",)  # README's, of a question answered by a video
BEGIN, END = "<!-- results: begin (written by `vans publish`) -->", "<!-- results: end -->"


def show_tables(published: bool = False) -> None:
    """Print the Markdown tables of results/ (or docs/results/), without details and protocol."""
    for path in _tables(_folder(published)):
        print(short(path.read_text(encoding="utf-8")))
        print(f"\n(every measure and difference, protocol, warnings: {path})\n")


def show_comparison() -> None:
    """Print how results/ compares with docs/results/."""
    from vans.tables.compare import compare

    root = find_root()
    if not any((root / "docs/results").glob("*.csv")):
        print("docs/results/ holds no published tables yet: nothing to compare with")
        return
    print(compare(root / "results", root / "docs/results"))


def summary() -> None:
    """Tables, where pictures and notebooks are, the comparison with the published tables."""
    root = find_root()
    show_tables()
    pictures = sorted(path.relative_to(root) for path in (root / "results").rglob("*.png"))
    print("pictures:           " + ", ".join(map(str, pictures)))
    print("executed notebooks: executed/*.ipynb, the same as web pages: executed/*.html")
    print("videos:             predictions/<arm>/videos/")
    print()
    show_comparison()


def publish() -> None:
    """Copy the tables to docs/results/ and put their Markdown into README.md between its two marks."""
    root = find_root()
    tables = _tables(root / "results")
    target = root / "docs/results"
    target.mkdir(parents=True, exist_ok=True)
    if target.samefile(root / "results"):
        raise UserError(f"{target}: is results/ itself; make it a folder of its own")
    for name in [f"{table}{suffix}" for table in TABLES for suffix in SUFFIXES] + [*PICTURES]:
        if (root / "results" / name).exists():
            shutil.copyfile(root / "results" / name, target / name)
    text = "\n\n".join(section(path.read_text(encoding="utf-8"), f"docs/results/{path.name}") for path in tables)
    readme = root / "README.md"
    atomic_write_text(readme, fill(readme.read_text(encoding="utf-8"), text))
    print(f"published in docs/results/ and README.md: {', '.join(path.stem for path in tables)}")


def fill(readme: str, text: str) -> str:
    """The README with ``text`` in place of what stands between its two marks."""
    if readme.count(BEGIN) != 1 or readme.count(END) != 1 or readme.index(BEGIN) > readme.index(END):
        raise UserError(f"README.md: needs one line `{BEGIN}` and after it one line `{END}`")
    head, rest = readme.split(BEGIN)
    return f"{head}{BEGIN}\n\n{text}\n\n{END}{rest.split(END)[1]}"


def short(text: str) -> str:
    """A table's Markdown without its details and protocol."""
    return text.split("\n## Details")[0].strip()


def section(text: str, link: str) -> str:
    """A table's Markdown as a section of the README: shorter, headings two levels down, a link to the whole."""
    lines = [f"##{line}" if line.startswith("#") else line for line in short(text).splitlines()]
    return (
        "\n".join(lines) + f"\n\nEvery measure and difference with its interval, protocol, warnings: [{link}]({link})."
    )


def _folder(published: bool) -> Path:
    return find_root() / ("docs/results" if published else "results")


def _tables(folder: Path) -> list[Path]:
    """The Markdown tables of a folder; UserError if there is none."""
    found = [folder / f"{name}.md" for name in TABLES if (folder / f"{name}.md").exists()]
    if not found:
        raise UserError(f"{folder}: no tables there; `dvc repro benchmarks` makes the main one")
    return found
