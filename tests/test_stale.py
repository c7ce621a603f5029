"""What each kind of change makes stale, as DVC itself says it: no more than what runs other code or other numbers.

The graph stands there as if everything had run: what stages write is made up, and `dvc commit` takes it for theirs.
"""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests import smoke
from vans import code, notebooks
from vans.grid import TRAINED, Grid
from vans.params import load

ROOT = smoke.ROOT
GRID = Grid(load(ROOT), ROOT)
ANSWERS = {f"answer@{arm}" for arm in GRID.arms} | {f"systems_answer@{key}" for key in GRID.systems} | {"pictures"}
OURS = {each for each in ANSWERS if not each.startswith("systems")}
SCORES = {f"score@{arm}" for arm in [*GRID.arms, *GRID.systems]} | {"pictures"}
SYSTEMS = {f"systems@{key}" for key in ("extension", "cascade", "unified")}
CELLS = {stage: {f"{s}@{key}" for s, key in GRID.cells if s == stage} for stage in TRAINED}
GRPO = set().union(*CELLS.values()) | {"pictures"}
TABLES = {"benchmarks", "ablations", "seeds"}


class Committed:
    """A repository in which everything has run."""

    def __init__(self, root: Path):
        from dvc.repo import Repo

        self.root = root
        for folder in ("vans", "notebooks"):
            shutil.copytree(ROOT / folder, root / folder, ignore=shutil.ignore_patterns("__pycache__"))
        for name in ("dvc.yaml", "params.yaml", ".dvcignore"):
            shutil.copyfile(ROOT / name, root / name)
        for folder in ("data", "docs/results/seeds", "docs/results/others"):
            (root / folder).mkdir(parents=True)
        self.repo = Repo.init(str(root), no_scm=True)
        self._strip()
        for out in (Path(out.fs_path) for stage in self.repo.index.stages for out in stage.outs):
            if out.name != "stripped":
                file = out if out.suffix else out / "vlm" / "made_up"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(str(out.relative_to(root)))
                if not out.suffix:
                    shutil.copytree(out / "vlm", out / "vdm")
        self.repo.commit(force=True)

    def _strip(self) -> None:
        """The stage `strip`, here and now."""
        notebooks.strip(self.root / "notebooks", self.root / "stripped")
        code.write(self.root, self.root / "stripped/code", load(self.root))

    def stale(self) -> set[str]:
        """The stages that DVC would run, once `strip` has."""
        self._strip()
        return set(self.repo.status()) - {"strip"}

    def after(self, changes: dict[str, Callable[[str], str]]) -> set[str]:
        """What is stale after these changes of files (of "" where there is none); then everything is as it was."""
        before = {path: path.read_bytes() if path.exists() else None for path in map(self.root.joinpath, changes)}
        for (path, old), change in zip(before.items(), changes.values(), strict=True):
            path.write_text(change("" if old is None else old.decode()))
        try:
            return self.stale()
        finally:
            for path, old in before.items():
                path.unlink() if old is None else path.write_bytes(old)


@pytest.fixture(scope="module")
def committed(tmp_path_factory):
    root = tmp_path_factory.mktemp("committed")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)  # where DVC looks for stages by their names
        yield Committed(root)


def more(text: str) -> str:
    """Another line of code."""
    return text + "\nADDED = 1\n"


def put(old: str, new: str) -> Callable[[str], str]:
    """One thing in the place of another, which must be there once."""

    def change(text: str) -> str:
        assert len(re.findall(old, text, re.M)) == 1, old
        return re.sub(old, new, text, flags=re.M)

    return change


def moved(line: str, before: str) -> Callable[[str], str]:
    """A line taken out and put, two columns to the left, in front of another one."""
    return lambda text: put(f"^{before}", line[2:] + before)(put(f"^{line}", "")(text))


def value(key: str, new: Any) -> Callable[[str], str]:
    """Another value of a key of params.yaml ("scales.tiny.keep.groups")."""
    import yaml

    def change(text: str) -> str:
        tree = yaml.safe_load(text)
        *sections, last = key.split(".")
        place = tree
        for section in sections:
            place = place[section]
        assert last in place and place[last] != new
        place[last] = new
        return yaml.safe_dump(tree, sort_keys=False)

    return change


def cell(n: int, change: Callable[[str], str], kind: str) -> Callable[[str], str]:
    """Another n-th cell of a kind in a notebook."""

    def changed(text: str) -> str:
        tree = json.loads(text)
        chosen = [c for c in tree["cells"] if c["cell_type"] == kind][n]
        chosen["source"] = change("".join(chosen["source"]))
        return json.dumps(tree)

    return changed


def test_nothing_is_stale_when_everything_has_run(committed):
    assert committed.stale() == set()


NOTHING: dict[str, Callable[[str], str]] = {
    "vans/rewards/terms/flow.py": lambda _: (ROOT / "vans/rewards/terms/motion.py").read_text(),  # a new term
    "vans/rewards/terms/oracle.py": more,  # no preset uses it
    "vans/grpo/core.py": put("^    Returns a scalar to minimise.*$", "    What to minimise."),  # a docstring
    "vans/train/stage1.py": put("# 2. their videos.*$", "# 2. videos"),  # a comment
    "vans/models/vdm.py": lambda text: text.replace("\n\n\n", "\n\n\n\n"),  # empty lines
    "vans/data/annotate/endpoint.py": more,  # another annotator than the one in use
    "vans/data/annotate/prompts/write.md": more,
    "vans/toy/sources.py": more,  # data/ is its product
    "vans/cli.py": more,
    "vans/params/sections.py": more,
    "notebooks/04_stage1.ipynb": cell(0, more, "markdown"),
}


def test_what_makes_nothing_stale(committed):
    assert committed.after(NOTHING) == set()


def test_parameters_that_change_no_number_make_nothing_stale(committed):
    tiny = "scales.tiny"
    keys = {f"{tiny}.keep.checkpoints": {"base": 7, "sft": 7, "stage1": 7, "stage2": 7}, f"{tiny}.keep.groups": 3}
    keys |= {f"{tiny}.machine.{key}": 2 for key in ("dit_batch", "vae_batch", "sample_batch", "threads")}
    keys |= {f"{tiny}.machine.grid": False, "defaults.machine.workers": 3, "defaults.judge.retries": 1}
    keys |= {f"{tiny}.machine.decoding": "static", "defaults.machine.compile": True}
    keys |= {"defaults.curate.llm.retries": 1, f"{tiny}.machine.device": "cpu"}

    def all_of_them(text: str) -> str:
        for key, new in keys.items():
            text = value(key, new)(text)
        return text

    assert committed.after({"params.yaml": all_of_them}) == set()


STALE: dict[str, tuple[dict[str, Callable[[str], str]], set[str]]] = {
    "a term of a reward": (
        {"vans/rewards/terms/c2.py": more},
        {"stage2@main", "stage2@no_v2", "stage2@vdm_only", *CELLS["all_in_one"], "pictures"},
    ),
    "a weight": ({"params.yaml": value("rewards.stage2.no_c2.v2", 2.0)}, {"stage2@no_c2", "ablations"}),
    "the main arm's reward": ({"params.yaml": value("stage2.reward", "no_c2")}, {"stage2@main"}),
    "the mathematics of GRPO": ({"vans/grpo/core.py": more}, GRPO),
    "a trainer": ({"vans/train/stage2.py": more}, CELLS["stage2"] | CELLS["all_in_one"] | {"pictures"}),
    "another system's trainer": ({"vans/train/systems.py": more}, SYSTEMS),
    "another system's endpoint": (
        {"params.yaml": value("defaults.arms.cascade.endpoint.temperature", 0.1)},
        SYSTEMS | {f"systems_answer@{key}" for key in GRID.systems},
    ),
    "somebody else's answers": ({"docs/results/others/theirs.json": more}, {"benchmarks", "ablations"}),
    "a new metric": (
        {"vans/score/metrics/new.py": more, "vans/score/metrics/__init__.py": more},
        SCORES | TABLES,
    ),
    "a metric of one's own": (
        {"params.yaml": value("defaults.evaluate.metrics", ["vans.score.metrics.text:rouge_l"])},
        SCORES,
    ),
    "the resampling": ({"params.yaml": value("defaults.evaluate.bootstrap", 10)}, SCORES),
    "a picture": ({"vans/show/frames.py": more}, TABLES),
    "the paper's numbers": ({"vans/tables/paper.csv": lambda text: text + "\n"}, TABLES | {"pictures"}),
    "a layout of sources": (
        {"vans/data/sources/new.py": more, "vans/data/sources/__init__.py": more},
        {"curate"},
    ),
    "an annotator": ({"vans/data/annotate/new.py": more, "vans/data/annotate/__init__.py": more}, {"curate"}),
    "how answers are rendered": ({"vans/answer/draw.py": more}, ANSWERS),
    "how an arm answers": ({"vans/answer/arm.py": more}, OURS),
    "a notebook's code": ({"notebooks/05_stage2.ipynb": cell(-1, more, "code")}, CELLS["stage2"]),
    # What a section holds may stand in defaults; of a single key DVC says that it is gone from the scale.
    "the video, in defaults": (
        {"params.yaml": value("defaults.video", {"fps": 4.0})},
        {"curate", *GRPO, *ANSWERS},
    ),
    "CLIP, in defaults": (
        {"params.yaml": value("defaults.models.clip", {"config": {"embed_dim": 32}})},
        {"base", *GRPO, *OURS, *SCORES},
    ),
    "the detector's hash, filled in": ({"params.yaml": value("defaults.models.detector.sha256", "0" * 64)}, SCORES),
    "the detector's architecture": (
        {"params.yaml": value("scales.tiny.models.detector.config.width", 8)},
        {"base", *SCORES},
    ),
    "how anchors are sampled": (
        {"params.yaml": value("defaults.generate", {"temperature": 0.5, "top_p": 0.9})},
        {*CELLS["stage2"], *ANSWERS},
    ),
    "how answers are rendered, by a parameter": ({"params.yaml": value("scales.tiny.generate.steps", 4)}, ANSWERS),
    "the clips' length": ({"params.yaml": value("scales.tiny.curate.target_seconds", 2.0)}, {"curate"}),
    "who annotates": ({"params.yaml": value("defaults.curate.annotator", "openai")}, {"curate"}),
    "a key moved to defaults": (
        {"params.yaml": moved("      dtype: float32\n", "    workers: 0")},
        {"base", "sft", *SYSTEMS, *GRPO, *ANSWERS},
    ),
    "the training's seed": ({"params.yaml": value("train_seed", 1)}, {"sft", *SYSTEMS, *GRPO}),
}


@pytest.mark.parametrize("what", STALE)
def test_what_a_change_makes_stale(committed, what):
    changes, stale = STALE[what]
    assert committed.after(changes) == stale
