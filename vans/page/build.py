"""The page of a run: what there is of its results, and a line for what there is not."""

import base64
import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from pathlib import Path
from typing import Any

import jinja2

from vans.errors import UserError
from vans.files import atomic_write_text, check_output
from vans.page import cite, draw, numbers
from vans.page.clips import Put, figure, put
from vans.page.origin import Origins
from vans.params import load
from vans.score.score import Scores
from vans.score.score import load as load_scores
from vans.show.arms import TITLES, answers
from vans.show.style import ARM_COLOURS
from vans.tables import machines
from vans.visible import visible

ARMS = ("sft", "stage1", "main", "no_c2")  # what the grid shows beside input and truth
BEST = "main"  # whose answers the page is about
DRAWN, SIDE = 8, 6  # samples in the grid; successes, and as many failures
MOST = 5_000_000  # bytes of a page
SIDES = (192, 144, 112, 80)  # px: large clips get smaller until the page is small enough
FIGURES = {  # file -> (title, the stage that draws it); the main table is drawn by the page itself
    "ablation": ("The ablations", "ablations"),
    "seeds": ("Every training seed", "seeds"),
    "seeds_claims": ("The claimed differences, over training seeds", "seeds"),
}
UNREADABLE = (OSError, ValueError, LookupError, UserError)


@dataclass
class Run:
    """A run's results as far as they are there. lacking: a line for each thing that is not, by the part of the page
    that would show it."""

    root: Path
    seed: int
    lacking: dict[str, list[str]] = field(default_factory=dict)

    def tried(self, part: str, stage: str, what: Callable[[], Any]) -> Any:
        """What a function gives; None, and a line that names the stage, where a file is missing or broken."""
        try:
            return what()
        except UNREADABLE as error:
            if isinstance(error, OSError) and error.filename is not None:
                name = Path(error.filename)
                name = name.relative_to(self.root) if name.is_relative_to(self.root) else name
                said = f"{name}: not there" if isinstance(error, FileNotFoundError) else f"{name}: {error.strerror}"
            else:
                said = " ".join(str(error).replace(f"{self.root}/", "").split())
                said = said if isinstance(error, UserError) else f"{stage}: unreadable ({type(error).__name__}: {said})"
            makes = f"`dvc repro {stage}`"
            line = said if makes in said else f"{said}; {makes} makes it"
            if line not in self.lacking.setdefault(part, []):
                self.lacking[part].append(line)
            return None


def write(root: Path, out: Path, seed: int = 0) -> tuple[int, list[str]]:
    """Write the page; returns its size in bytes and the lines on what is missing. seed: of the draw.

    UserError if nothing at all has been made yet, or the file cannot be written.
    """
    if not (root / "triplets").is_dir() and not any((root / "results").glob("*.csv")):
        raise UserError(f"{root / 'results'}: nothing to show yet; `dvc repro benchmarks` makes the main table")
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"{out}: a page is called .html; name it so")
    check_output(out)
    run = Run(root, seed)
    facts = _facts(run)
    show = _samples(run)
    for side in SIDES:
        text = _rendered({**facts, **show(put(side)), "lacking": run.lacking})
        if len(text.encode()) <= MOST:
            break
    out.parent.mkdir(parents=True, exist_ok=True)
    atomic_write_text(out, text)
    return len(text.encode()), [line for some in run.lacking.values() for line in some]


def _rendered(given: dict[str, Any]) -> str:
    """The template with words escaped; script and style by their digests, so that nothing else can run."""
    own = files("vans.page") / "template"
    css, script = ((own / name).read_text(encoding="utf-8").strip() for name in ("page.css", "page.js"))
    colours = "".join(f".arm-{arm}{{--arm:{colour}}}" for arm, colour in ARM_COLOURS.items())
    style = f"{css}\n{colours}"
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    environment.filters["tidy"] = lambda text: re.sub(r" (?=[.,;:?!])", "\u00a0", text)
    template = environment.from_string((own / "page.html").read_text(encoding="utf-8"))
    return visible(
        template.render(given, style=style, script=script, hashes={"style": _sha(style), "script": _sha(script)})
    )


def _sha(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


# ------------------------------------------------------------------------------------- numbers and figures
def _facts(run: Run) -> dict[str, Any]:
    """Everything but the clips."""
    origins, folder = Origins(run.root), run.root / "results"
    tables = []
    for name, stage in (("main", "benchmarks"), ("ablation", "ablations")):
        if found := run.tried("numbers", stage, partial(numbers.of_arms, folder, name)):
            tables.append({"name": name, "table": found, "origin": origins.of(f"results/{name}.csv", stage)})
    seeds = run.tried("seeds", "seeds", partial(numbers.of_seeds, folder))
    if seeds and seeds.seeds < 2:
        run.lacking["seeds"] = [
            f"Trainings that are kept: {seeds.seeds}; a spread over them needs two (docs/seeds.md)."
        ]
    pictures = []
    for name, (title, stage) in FIGURES.items():
        if name.startswith("seeds") and (not seeds or seeds.seeds < 2):
            continue
        content = run.tried("figures", stage, (folder / f"{name}.png").read_bytes)
        if content and (drawn := run.tried("figures", stage, partial(figure, content))):
            about = {"title": title, "src": drawn[0], "width": drawn[1], "height": drawn[2]}
            pictures.append({**about, "origin": origins.of(f"results/{name}.png", stage)})
    made = run.tried("machine", "benchmarks", partial(machines.read, folder)) or []
    cff = cite.read(run.root / "CITATION.cff")
    scale = run.tried("scale", "benchmarks", lambda: load(run.root).scale)
    run.lacking.pop("scale", None)
    return {
        "tables": tables,
        "seeds": seeds if seeds and seeds.seeds > 1 else None,
        "seeds_origin": origins.of("results/seeds.csv", "seeds"),
        "figures": pictures,
        "machines": [machines.line(each) for each in made],
        "cff": cff or {},
        "entries": cite.entries(cff) if cff else [],
        "dois": cite.doi(cff) if cff else [],
        "scale": scale,
        "answered": [origins.of(f"predictions/{arm}", f"answer@{arm}") for arm in ARMS],
        "head": origins.head,
        "titles": TITLES,
    }


# --------------------------------------------------------------------------------------------------- clips
def _samples(run: Run) -> Callable[[Put], dict[str, Any]]:
    """What is shown of which samples, read once; the function gives it with clips of a size."""
    empty: dict[str, Any] = {"opening": None, "drawn": [], "good": [], "bad": [], "clips": [], "verdict": None}
    empty |= {"seed": run.seed, "opened": "", "of": 0, "arms": [], "best": TITLES[BEST]}

    def triplets_of() -> Any:
        from vans.data.triplets import Triplets

        return Triplets(run.root / "triplets")

    if (triplets := run.tried("clips", "curate", triplets_of)) is None:
        return lambda put: empty
    folder = run.root / "results/scores"
    scores: dict[str, Scores] = {}
    for arm in ARMS:
        if (run.root / "predictions" / arm).is_dir():
            if (one := run.tried("clips", f"score@{arm}", partial(load_scores, folder, arm))) is not None:
                scores[arm] = one
    held = scores[BEST].frame["id"].tolist() if BEST in scores else triplets.select(split="test")
    order = draw.order((id for id in held if id in triplets.frame.index), run.seed)
    if not order:
        run.lacking.setdefault("clips", []).append("triplets: no held-out sample; `dvc repro curate` makes them")
        return lambda put: empty
    verdict = draw.decide(scores[BEST]) if BEST in scores else None
    opening, opened = draw.opening(triplets.frame, order, verdict)
    drawn = order[:DRAWN]
    good, bad = draw.sides(verdict, order[DRAWN:], SIDE) if verdict else ([], [])
    ids = list(dict.fromkeys([*opening, *drawn, *good, *bad]))
    given = {}
    for arm in ARMS:
        some = ids if arm == BEST else drawn
        if (found := run.tried("clips", f"answer@{arm}", partial(_answers, run.root, triplets, some, arm))) is not None:
            given[arm] = found
    marks = {arm: draw.decide(one) for arm, one in scores.items()}
    about = {**empty, "verdict": verdict, "opened": opened, "of": len(order)}
    about["arms"] = [TITLES[arm] for arm in ARMS if arm in given]

    def sized(put: Put) -> dict[str, Any]:
        page = _Clips(triplets, given, marks, put)
        parts = {"opening": page.samples(opening, [BEST]), "drawn": page.samples(drawn, ARMS)}
        parts |= {"good": page.samples(good, [BEST]), "bad": page.samples(bad, [BEST])}
        return {**about, **parts, "clips": page.clips}

    return sized


def _answers(root: Path, triplets: Any, ids: Sequence[str], arm: str) -> dict[str, tuple[str, Any]]:
    """id -> (caption, clip)."""
    if not (folder := root / "predictions" / arm).is_dir():
        raise UserError(f"{folder}: not there")
    captions, clips = answers(root / "predictions", triplets, ids, [arm])[TITLES[arm]]
    return {id: (captions[i], clips[i]) for i, id in enumerate(ids)}


class _Clips:
    """The clips of a page, each once, and what is said under them."""

    def __init__(self, triplets: Any, given: dict, marks: dict, put: Put) -> None:
        self.triplets, self.given, self.marks, self.put = triplets, given, marks, put
        self.clips: list[dict[str, Any]] = []
        self.places: dict[tuple[str, str], int] = {}

    def samples(self, ids: Sequence[str], arms: Sequence[str]) -> list[dict[str, Any]]:
        """Question, input, truth and answers of each; clips by their place in ``clips``."""
        found = []
        for id in ids:
            row = self.triplets.row(id)
            shown = [self._answer(id, arm) for arm in arms if arm in self.given]
            why = self.marks[BEST].why(id) if self.marks.get(BEST) else ""
            found.append(
                {
                    "id": id,
                    "kind": row["kind"],
                    "question": row["question"],
                    "caption": row["caption"],
                    "input": self._place("input", id),
                    "truth": self._place("target", id),
                    "answers": shown,
                    "why": why,
                }
            )
        return found

    def _answer(self, id: str, arm: str) -> dict[str, Any]:
        told = self.marks.get(arm)
        right = told.right.get(id) if told and told.oracle else None
        about = {"arm": arm, "title": TITLES[arm], "caption": self.given[arm][id][0], "right": right}
        return {**about, "clip": self._place(arm, id)}

    def _place(self, which: str, id: str) -> int:
        if (which, id) not in self.places:
            role = which if which in ("input", "target") else "target"
            clip = self.given[which][id][1] if which in self.given else self.triplets.clips([id], which)[0]
            (fps,) = self.triplets.rates([id], role, len(clip))
            self.places[which, id] = len(self.clips)
            self.clips.append(self.put(clip, fps))
        return self.places[which, id]
