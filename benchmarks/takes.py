"""What each thing took at the tiny scale, from a finished run; docs/scales.md shows it beside what is reckoned.

    python benchmarks/takes.py --root DIR                      # prints Markdown
    python benchmarks/takes.py --root DIR --page docs/scales.md

Seconds are those that papermill noted in executed/, imports, pictures and all. Seconds of a step and memory of a
process are what the training said at its end (vans/meter.py); a run of a version that did not say so has none. DIR is
only read.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from vans.errors import UserError
from vans.files import atomic_write_text
from vans.plan.report import gb, number, table
from vans.visible import terminal

BEGIN, END = "<!-- benchmarks/takes.py -->\n", "<!-- end of takes -->"
WHAT = {  # what is done -> its notebooks, the meter's names, what it leaves
    "SFT of both": (("03_sft",), ("sft/vlm", "sft/vdm"), ("models/sft",)),
    "stage 1": (("04_stage1.full",), ("stage1/full",), ("models/stage1/full",)),
    "stage 2": (("05_stage2.main",), ("stage2/main",), ("models/stage2/main",)),
    "evaluating one arm: answers": (("07_answer.main",), (), ("predictions/main",)),
    "evaluating one arm: scores": (("08_score.main",), (), ("results/scores/main.csv", "results/scores/main.json")),
}
LINE = re.compile(r"(\S+): step (\d+) of \2: ([\d.]+) (s|min|h)\b.*?([\d.]+) GB, ")
UNIT = {"s": 1.0, "min": 60.0, "h": 3600.0}


def said(notebook: dict) -> dict[str, tuple[float, float]]:
    """{training: (seconds of its last step, GB of a process)} from what an executed notebook printed."""
    texts = ["".join(out.get("text", "")) for cell in notebook["cells"] for out in cell.get("outputs", ())]
    found = LINE.finditer("\n".join(texts))
    return {line[1]: (float(line[3]) * UNIT[line[4]], float(line[5])) for line in found}


def size(path: Path) -> int:
    """Bytes of a file or a folder."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(p.stat().st_size for p in files)


def rows(root: Path) -> list[tuple[str, ...]]:
    """One for each of WHAT. UserError where the run is not finished."""
    found: list[tuple[str, ...]] = []
    for name, (notebooks, trainings, left) in WHAT.items():
        seconds, told = 0.0, dict[str, tuple[float, float]]()
        for notebook in notebooks:
            path = root / "executed" / f"{notebook}.ipynb"
            if not path.is_file():
                raise UserError(f"{path}: missing; name a finished run with --root")
            tree = json.loads(path.read_text(encoding="utf-8"))
            seconds += tree["metadata"]["papermill"]["duration"]
            told |= said(tree)
        steps = ", ".join(number(told[t][0]) for t in trainings if t in told) or "—"
        memory = number(max(told[t][1] for t in trainings if t in told)) if set(trainings) & set(told) else "—"
        found.append((name, memory, steps, f"{seconds:.0f}", gb(sum(size(root / path) for path in left))))
    return found


def report(root: Path) -> str:
    machine = json.loads((root / "results/machine.json").read_text(encoding="utf-8"))[0]
    heads = ("what it took, measured", "GB of a process", "s a step", "s in all", "GB left on the disk")
    where = f"{machine['cpu']}, {machine['processes']} processes of {machine['threads']} thread each"
    told = f"Scale `tiny` on {where}, other work beside it; — was not noted."
    return "\n".join([*table(heads, rows(root)), "", told, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, default=Path(), help="a finished run (the current folder); only read")
    parser.add_argument("--page", type=Path, help="put the table into this page, between its marks")
    given = parser.parse_args()
    text = report(given.root)
    print(text, end="")
    if given.page:
        page = given.page.read_text(encoding="utf-8")
        start, end = page.index(BEGIN) + len(BEGIN), page.index(END)
        atomic_write_text(given.page, page[:start] + text + page[end:])


if __name__ == "__main__":
    with terminal():  # who reads along may go: the figures are written all the same
        main()
