"""The small table of text to image: the arms in the metrics that a picture has, and what each stage changes."""

from pathlib import Path

from vans import spreadsheet
from vans.files import atomic_write_text
from vans.score.metrics import METRICS
from vans.tables import markdown
from vans.tables.orders import adjust
from vans.tables.tables import Layout, Row, Table, build

SHOWN = ("rouge_l", "clip_v", "clip_t", "clip_t_own", "psnr")
LAYOUT = Layout(
    "pictures",
    "Text to image",
    (  # names of their own, so that the paper's figures of clips do not stand beside them
        Row("picture_sft", "SFT", "sft"),
        Row("picture_stage1", "+ stage 1", "stage1"),
        Row("picture_main", "+ stage 2: Joint-GRPO", "main"),
        Row("picture_ceiling", "true captions, Joint-GRPO", "ceiling"),
    ),
    (
        ("picture_sft", "picture_stage1", "stage 1 improves on SFT"),
        ("picture_stage1", "picture_main", "stage 2 improves on stage 1"),
        ("picture_sft", "picture_main", "Joint-GRPO improves on SFT"),
    ),
)
ABOUT = (
    "The same two stages with one picture in the place of a clip (notebook 14): the VLM writes what happens next, the "
    "renderer shows it in one picture. In brackets the 95 % intervals."
)


def of(folder: str | Path) -> Table:
    """From a folder of scores; of claims those in the shown metrics."""
    table = build(folder, LAYOUT)
    kept = [order for order in table.orders if order.metric in SHOWN]
    return Table(LAYOUT, table.scores, table.frame, adjust(kept))


def write(table: Table, folder: str | Path) -> None:
    """pictures.csv and pictures.md."""
    columns = [f"{name}{end}" for name in SHOWN for end in ("", "_lo", "_hi")]
    frame = table.frame[["kind", "row", "title", "n", *(name for name in columns if name in table.frame)]]
    atomic_write_text(Path(folder) / "pictures.csv", spreadsheet.write(frame, "%.6g"))
    atomic_write_text(Path(folder) / "pictures.md", text(table))


def text(table: Table) -> str:
    parts = [f"# {LAYOUT.title}", ABOUT]
    for kind in table.kinds:
        names = tuple(name for name in SHOWN if name in table.frame)
        parts += [f"## {kind.capitalize()}", markdown.grid(table, kind, names, with_paper=False)]
    parts += ["## What each stage changes", markdown.claims(table)]
    about = [f"- {METRICS[name].title}: {METRICS[name].about}." for name in SHOWN if name in table.frame]
    return "\n\n".join([*parts, "\n".join(about)]) + "\n"
