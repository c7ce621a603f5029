"""What is printed and published: the tables, their comparison with the published ones, the README's region.

Numbers are copied from results/ by these functions, never typed.
"""

from pathlib import Path

from vans.errors import UserError
from vans.files import atomic_write_bytes, atomic_write_text
from vans.params import find_root
from vans.tables import machines

TABLES = ("main", "ablation")
HEADLINE = {"sft": "SFT", "stage1": "+ stage 1", "main": "+ stage 2: Joint-GRPO", "ceiling_main": "true captions"}
CLAIMS = "## Do the paper's orders hold?"  # the heading of the main table's verdicts
SUFFIXES = (".csv", ".md", ".png")
PICTURES = ("teaser.png",)  # README's, of a question answered by a video
IMAGES = ("pictures.csv", "pictures.md", "pictures.png")  # the small table of text to image
SEEDS = ("seeds.csv", "seeds.md", "seeds.png", "seeds_claims.png")  # made from docs/results/seeds/
PAGE, PUBLISHED_PAGE = "results/page.html", "docs/page.html"
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
    if (root / PAGE).exists():
        print(f"all on one page:    {PAGE}")
    print()
    show_comparison()


def publish_seeds() -> None:
    """Copy the table over seeds to docs/results/ and put README.md's headline anew; the published run stays as it is.

    It is made from docs/results/seeds/, so that it needs no run here.
    """
    from vans.tables import seeds_markdown
    from vans.tables.seeds_markdown import LEAST

    root, target = find_root(), find_root() / "docs/results"
    for name in SEEDS:
        if not (path := root / "results" / name).exists():
            raise UserError(f"{path}: missing; `dvc repro seeds` makes it")
    if not (path := target / "main.csv").exists():
        raise UserError(f"{path}: missing: nothing is published that the seeds could stand beside; `vans publish`")
    if seeds_markdown.headline(target, HEADLINE) is None:
        kept = target / "seeds"
        raise UserError(f"{kept}: a headline over trainings needs {LEAST} train seeds; `vans seeds` keeps what has run")
    readme = root / "README.md"
    fill(readme.read_text(encoding="utf-8"), "")  # it says what is missing there before anything is written
    for name in SEEDS:
        atomic_write_bytes(target / name, (root / "results" / name).read_bytes())
    atomic_write_text(readme, fill(readme.read_text(encoding="utf-8"), headline(target)))
    print("published in docs/results/ and README.md: seeds")


def publish() -> None:
    """Copy the tables to docs/results/, write the page anew beside them, put the headline between README.md's marks."""
    from vans.page.build import write

    root = find_root()
    tables = _tables(root / "results")
    for name in ("main.csv", "main.md"):
        if not (path := root / "results" / name).exists():
            raise UserError(f"{path}: missing, and README.md shows it; `dvc repro benchmarks` makes it")
    target = root / "docs/results"
    target.mkdir(parents=True, exist_ok=True)
    if target.samefile(root / "results"):
        raise UserError(f"{target}: is results/ itself; make it a folder of its own")
    readme = root / "README.md"
    old = []
    for name in (name for name in (*SEEDS, *IMAGES) if (root / "results" / name).exists()):
        atomic_write_bytes(target / name, (root / "results" / name).read_bytes())
    for name in [*(f"{table}{suffix}" for table in TABLES for suffix in SUFFIXES), *PICTURES, machines.NAME]:
        if (root / "results" / name).exists():
            atomic_write_bytes(target / name, (root / "results" / name).read_bytes())
        elif (target / name).exists():  # of another run: its numbers must not stand beside these
            (target / name).unlink()
            old.append(name)
    words = fill(readme.read_text(encoding="utf-8"), headline(target))
    atomic_write_text(readme, words)
    if old:
        print(f"removed from docs/results/, since results/ has none and they were of another run: {', '.join(old)}")
    if shown := [name for name in old if f"docs/results/{name}" in words]:
        print(f"README.md still shows {', '.join(shown)}: take the line out, or run what makes it and publish again")
    size, lacking = write(root, root / PUBLISHED_PAGE)
    print("\n".join([f"{PUBLISHED_PAGE}: {size / 1000:.0f} kB", *(f"not in it: {line}" for line in lacking)]))
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


def headline(folder: Path) -> str:
    """README's region from published tables: HEADLINE's rows in the paper's metrics over all samples, what became of
    the paper's orders, links to the whole. Over training seeds where enough of them are kept."""
    from vans import spreadsheet
    from vans.score.metrics import METRICS, PAPER_METRICS, cell
    from vans.tables import seeds_markdown
    from vans.tables.markdown import escaped, grid_of

    there = [name for name in (*TABLES, "seeds", "pictures") if (folder / f"{name}.md").exists()]
    *some, last = [f"[{name} table](docs/results/{name}.md)" for name in there]
    links = f"{', '.join(some)} and {last}" if some else last
    more = f"Every measure, kind of sample and difference with its interval, protocol, warnings: {links}."
    frame = spreadsheet.read(folder / "main.csv", ["kind", "row"])
    kind = "all" if "all" in set(frame["kind"]) else frame["kind"].iloc[0]
    lines = frame[(frame["kind"] == kind) & frame["n"].notna()].set_index("row")
    detector = str(lines["fvd_detector"].dropna().iloc[0]).removeprefix("detector: ").split(",")[0].split(";")[0]
    if over_seeds := seeds_markdown.headline(folder, HEADLINE):
        return f"{over_seeds}\n\nFVD by {escaped(detector)}. {more}"
    rows = [row for row in HEADLINE if row in lines.index]
    columns = []
    for name in PAPER_METRICS:  # one that was not measured is a column of dashes
        values = lines.reindex(columns=[name, f"{name}_lo", f"{name}_hi"]).loc[rows].to_numpy(float).tolist()
        columns.append([METRICS[name].heading, *(cell(v, lo, hi, METRICS[name]) for v, lo, hi in values)])
    head, *body = map(list, zip(["", *(HEADLINE[row] for row in rows)], *columns, strict=True))
    about = f"{int(lines['n'].max())} held-out samples, 95 % intervals in brackets; FVD by {escaped(detector)}."
    claims = short((folder / "main.md").read_text(encoding="utf-8")).partition(CLAIMS)[2].strip()
    return "\n\n".join(part for part in (grid_of(head, body), about, claims, more) if part)


def _folder(published: bool) -> Path:
    return find_root() / ("docs/results" if published else "results")


def _tables(folder: Path) -> list[Path]:
    """The Markdown tables of a folder; UserError if there is none."""
    found = [folder / f"{name}.md" for name in TABLES if (folder / f"{name}.md").exists()]
    if not found:
        raise UserError(f"{folder}: no tables there; `dvc repro benchmarks` makes the main one")
    return found
