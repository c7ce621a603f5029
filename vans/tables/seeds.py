"""What is kept of each training seed: a small file in docs/results/seeds/ from which tables are made without training.

`vans seeds` writes them, from results/ and from DVC's experiments. A file holds the scores per sample of every arm,
what distances such as FVD are without each block of groups, and a digest of each stage behind them: of its code,
parameters and data, both seeds left out, as dvc.lock has them. Files whose digests differ are never mixed.

``train_seed`` varies the trainings on the same base models. A run with another ``seed`` as well varies everything, base
models, curation and evaluation noise included: it stands beside the others, in no mean.
"""

import gzip
import hashlib
import json
import tempfile
import zlib
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import yaml

from vans.errors import UserError
from vans.files import atomic_write_bytes, temporary
from vans.params import load as parameters
from vans.score.bootstrap import leave_out
from vans.score.metrics import METRICS, use
from vans.score.score import Scores, load_all
from vans.score.two_level import pseudo_values

FOLDER = "docs/results/seeds"
SHARED = ("triplets", "models/base")  # what all train seeds start from
MADE = ("models/", "predictions/", "results/")  # by training, so different for each seed
SAMPLES = ("id", "kind", "group")
DRAWN = ("seed", "train_seed", "machine.processes")
DIGITS = 5
Lock = Mapping[str, Mapping[str, Any]]  # `stages` of dvc.lock


@dataclass(frozen=True)
class Seed:
    """One run: its seeds, the digest of each stage, the hashes of what all train seeds share, and its arms' scores.

    ``samples``: id, kind and group, [N]. ``arms``: arm -> column -> [N]. ``distances``: arm -> name -> kind ->
    its value, then without each block of groups. ``blocks``: at most so many of them.
    """

    seed: int
    train_seed: int
    stages: dict[str, str]
    shared: dict[str, str]
    blocks: int
    samples: pd.DataFrame
    arms: dict[str, pd.DataFrame]
    distances: dict[str, dict[str, dict[str, list[float]]]]

    @property
    def name(self) -> str:
        return f"seed{self.seed}_train{self.train_seed}.json.gz"

    def statistic(self, arm: str, metric: str, kind: str) -> tuple[float, np.ndarray] | None:
        """A metric and its pseudo-values, one a block of groups [G]; None where this run does not have it."""
        rows = np.flatnonzero((self.samples["kind"] == kind) | (kind == "all"))
        if arm not in self.arms or not len(rows):
            return None
        if METRICS[metric].distance:
            found = self.distances.get(arm, {}).get(metric, {}).get(kind)
        elif set(METRICS[metric].columns) <= set(self.arms[arm].columns):
            left_out = leave_out(self.samples["group"].iloc[rows], self.blocks)
            weights = np.concatenate([np.ones((1, len(rows))), left_out])
            found = METRICS[metric].of(self.arms[arm].iloc[rows], weights).tolist()
        else:
            found = None
        if found is None or len(found) < 3 or not np.isfinite(found).all():
            return None
        return found[0], pseudo_values(found[0], found[1:])

    def bytes(self) -> bytes:
        """The file: the same run gives the same bytes."""
        columns = {arm: {name: [_number(x) for x in frame[name]] for name in frame} for arm, frame in self.arms.items()}
        tree = {
            "seed": self.seed,
            "train_seed": self.train_seed,
            "stages": self.stages,
            "shared": self.shared,
            "blocks": self.blocks,
            "samples": {name: self.samples[name].tolist() for name in SAMPLES},
            "arms": columns,
            "distances": self.distances,
        }
        text = json.dumps(tree, ensure_ascii=False, separators=(",", ":"))
        return gzip.compress(text.encode(), mtime=0)

    def save(self, folder: Path) -> Path:
        path = folder / self.name
        if not path.exists() or path.read_bytes() != self.bytes():
            atomic_write_bytes(path, self.bytes())
        return path


def read(path: Path) -> Seed:
    """One file; UserError if it is none."""
    try:
        tree = json.loads(gzip.decompress(path.read_bytes()))
        samples = pd.DataFrame(tree.pop("samples"))
        arms = {arm: pd.DataFrame(columns, dtype=np.float64) for arm, columns in tree.pop("arms").items()}
        found = Seed(samples=samples[list(SAMPLES)], arms=arms, **tree)
        if found.name != path.name or any(len(frame) != len(samples) for frame in arms.values()):
            raise ValueError("its name or its lengths do not fit")
    except (OSError, EOFError, zlib.error, ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: no whole scores of a seed ({error}); `git checkout` it, or `vans seeds`") from error
    return found


def load(folder: Path) -> list[Seed]:
    """All files of a folder, in the order of their seeds. UserError names one that may not be mixed with the others."""
    paths = sorted(folder.glob("*.json.gz"))
    found = {path: read(path) for path in paths}
    for stage in dict.fromkeys(stage for each in found.values() for stage in each.stages):
        _agree(found, {path: each.stages[stage] for path, each in found.items() if stage in each.stages}, stage)
    for seed in {each.seed for each in found.values()}:
        same = {path: each for path, each in found.items() if each.seed == seed}
        for name in SHARED:
            _agree(found, {path: each.shared[name] for path, each in same.items()}, name)
        ids = {path: hashlib.sha256(each.samples.to_csv().encode()).hexdigest() for path, each in same.items()}
        _agree(found, ids, "the evaluated samples")
    return sorted(found.values(), key=lambda each: (each.seed, each.train_seed))


def _agree(found: Mapping[Path, Seed], digests: Mapping[Path, str], what: str) -> None:
    """UserError for the first file whose digest is not that of most."""
    counted = list(digests.values())
    most = max(dict.fromkeys(counted), key=counted.count, default="")
    for path, digest in digests.items():
        if digest != most:
            others = sorted(found[p].train_seed for p, d in digests.items() if d == most)
            raise UserError(
                f"{path}: {what}: made by other code, parameters or data than train seed "
                f"{', '.join(map(str, others))}; remove the file, or run train seed {found[path].train_seed} again"
            )


# ------------------------------------------------------------------------------------------------ from a run
def of_run(lock: Lock, scores: Mapping[str, Scores], cache: Path | None = None) -> tuple[Seed, dict[str, str]]:
    """A run as it is kept, and of each arm that is left out the reason.

    ``lock``: the stages of its dvc.lock; ``cache``: DVC's, which knows what lies in a folder. Left out are arms whose
    models or answers are of another run: a lock keeps the stages that were not run this time. UserError where no arm is
    left.
    """
    if "sft" not in lock:
        raise UserError("dvc.lock: sft is not there; `dvc repro` first")
    seeds = {key: int(lock["sft"]["params"]["params.yaml"][key]) for key in ("seed", "train_seed")}
    behind = {arm: _behind(lock, f"score@{arm}") for arm in scores}
    reasons = {arm: reason for arm, stages in behind.items() if (reason := _stale(lock, stages, seeds, cache))}
    kept = {arm: one for arm, one in scores.items() if arm not in reasons}
    if not kept:
        raise UserError(f"dvc.lock: no arm belongs to one run ({next(iter(reasons.values()), 'nothing is scored')})")
    stages = sorted({stage for arm in kept for stage in behind[arm]})
    first = next(iter(kept.values()))
    for arm, one in kept.items():
        if list(one.frame["id"]) != list(first.frame["id"]):
            raise UserError(f"results/scores: {arm} and {first.arm} were scored on other samples; score both again")
    read = (dep for stage in stages for dep in lock[stage].get("deps", ()))
    shared = {dep["path"]: dep["md5"] for dep in read if dep["path"] in SHARED}
    found = Seed(
        **seeds,
        stages={stage: _digest(lock[stage]) for stage in stages},
        shared={name: shared[name] for name in SHARED},
        blocks=first.resampling.fvd_resamples,
        samples=first.frame[list(SAMPLES)],
        arms={arm: _columns(one) for arm, one in kept.items()},
        distances={arm: _distances(one) for arm, one in kept.items()},
    )
    return found, reasons


def _behind(lock: Lock, name: str) -> list[str]:
    """A stage and all before it, but for `strip`."""
    made = {out["path"]: stage for stage, entry in lock.items() if stage != "strip" for out in entry.get("outs", ())}
    todo, found = [name], []
    while todo:
        stage = todo.pop()
        if stage in found:
            continue
        found.append(stage)
        for dep in lock.get(stage, {}).get("deps", ()):
            todo += [other for path, other in made.items() if f"{dep['path']}/".startswith(f"{path}/")]
    return found


def _stale(lock: Lock, stages: list[str], seeds: Mapping[str, int], cache: Path | None) -> str:
    """Why these stages are not of one run; "" if they are."""
    if missing := [stage for stage in stages if stage not in lock]:
        return f"{missing[0]} is not in dvc.lock"
    made = {out["path"]: out["md5"] for stage in stages for out in lock[stage].get("outs", ())}
    for stage in stages:
        params = lock[stage].get("params", {}).get("params.yaml", {})
        for key, value in seeds.items():
            if params.get(key, value) != value:
                return f"{stage} was run with {key} {params[key]}"
        for path, md5 in ((dep["path"], dep["md5"]) for dep in lock[stage].get("deps", ())):
            for out, whole in made.items():
                inside = path[len(out) + 1 :] if path.startswith(f"{out}/") else None
                now = whole if path == out else _part(whole, inside, cache) if inside else None
                if now not in (None, md5):
                    return f"{stage} was run with another {path}"
    return ""


def _part(md5: str, inside: str, cache: Path | None) -> str | None:
    """DVC's hash of a folder in a folder, from the list that its cache has of the outer one; None if it has none."""
    listed = cache / md5[:2] / md5[2:] if cache else None
    if listed is None or not listed.is_file():
        return None
    files = [(entry["relpath"], entry["md5"]) for entry in json.loads(listed.read_text(encoding="utf-8"))]
    part = [(path[len(inside) + 1 :], md5) for path, md5 in files if path.startswith(f"{inside}/")]
    rows = [{"md5": md5, "relpath": path} for path, md5 in sorted(part, key=lambda each: each[0].split("/"))]
    return hashlib.md5(json.dumps(rows, sort_keys=True).encode()).hexdigest() + ".dir"


def _digest(entry: Mapping[str, Any]) -> str:
    """Of a stage's command, parameters and what it reads, without seeds and what differs with them, and without the
    number of processes: it changes the last bits of sums, as a seed does, not what is drawn from."""
    params = entry.get("params", {}).get("params.yaml", {})
    told = {
        "cmd": entry["cmd"],
        "params": {key: value for key, value in params.items() if not key.endswith(DRAWN)},
        "deps": {
            dep["path"]: dep["md5"]
            for dep in entry.get("deps", ())
            if dep["path"] not in SHARED and not dep["path"].startswith(MADE)
        },
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()[:12]


def _columns(one: Scores) -> pd.DataFrame:
    """The numbers of each sample that metrics are made from."""
    names = dict.fromkeys(name for metric in METRICS.values() for name in metric.columns if name in one.frame)
    return one.frame[list(names)].astype(np.float64).map(lambda x: float(f"{x:.{DIGITS}g}"))


def _distances(one: Scores) -> dict[str, dict[str, list[float]]]:
    """Of each distance and kind: its value, then without each block of groups."""
    found: dict[str, dict[str, list[float]]] = {}
    for name in (metric.name for metric in METRICS.values() if metric.distance):
        by_kind = one.summary.get(f"{name}_left_out", {})
        values = {kind: one.summary["metrics"][kind][name]["value"] for kind in by_kind}
        found[name] = {kind: [values[kind], *some] for kind, some in by_kind.items() if None not in some}
    return found


def _number(value: float) -> float | int | None:
    """As short as JSON can say it; null where there is none."""
    if not np.isfinite(value):
        return None
    return int(value) if value == int(value) else float(value)


# --------------------------------------------------------------------------------------- from everything that ran
def collect(root: Path) -> list[str]:
    """Keep this run and every DVC experiment whose code, parameters and data are those of this run's dvc.lock; returns
    a line for each. Nothing is applied to the workspace. UserError where nothing could be kept.
    """
    from dvc.repo import Repo

    use(parameters(root).evaluate.metrics)
    with Repo(str(root)) as repo:
        cache = Path(repo.cache.local.path)
        runs: dict[str, str | None] = {"this run": None}
        listed = repo.experiments.ls(all_commits=True)
        runs |= {f"experiment {name}": rev for some in listed.values() for name, rev in some}
        lines: list[str] = []
        kept: dict[str, Seed] = {}
        now: dict[str, str] | None = None
        for name, rev in runs.items():
            try:
                found, reasons = _of_revision(root, rev, cache)
            except UserError as error:
                lines.append(f"{name}: left out: {error}")
                continue
            now = found.stages if now is None and rev is None else now
            other = next((s for s, d in found.stages.items() if now and now.get(s, d) != d), None)
            if other:
                lines.append(f"{name}: left out: {other} has other code, parameters or data than this run")
                continue
            before = kept.get(found.name)
            if before is None or len(found.arms) > len(before.arms):
                kept[found.name] = found
            some = f"; without {', '.join(reasons)}: {next(iter(reasons.values()))}" if reasons else ""
            lines.append(f"{name}: {found.name}, {len(found.arms)} arms{some}")
    if not kept:
        raise UserError("; ".join(lines) + "; `dvc repro` first")
    before_it = {name: _there(root / FOLDER / name) for name in kept}
    for name, found in kept.items():
        there = before_it[name]
        if there is not None and not _same(there, found) and len(there.arms) > len(found.arms):
            raise UserError(
                f"{root / FOLDER / name}: holds {len(there.arms)} arms of other code, parameters or data; remove it "
                f"(git has it if it was committed), then this run's {len(found.arms)} take its place"
            )
    for name, found in kept.items():
        there = before_it[name]
        if there is not None and len(there.arms) > len(found.arms):
            lines.append(f"{name}: stays as it is, with more arms of the same training")
            continue
        if there is not None and not _same(there, found):
            lines.append(f"{name}: in the place of one of other code, parameters or data")
        found.save(root / FOLDER)
    load(root / FOLDER)
    return lines


def _there(path: Path) -> Seed | None:
    try:
        return read(path)
    except UserError:  # missing, or no whole file
        return None


def _same(there: Seed, found: Seed) -> bool:
    """Made by the same code, parameters and data? Of the two the one may have more stages."""
    both = there.stages.keys() & found.stages.keys()
    return there.shared == found.shared and all(there.stages[stage] == found.stages[stage] for stage in both)


def _of_revision(root: Path, rev: str | None, cache: Path) -> tuple[Seed, dict[str, str]]:
    """A run of the workspace (None) or of an experiment's commit."""
    if rev is None:
        return of_run(_lock((root / "dvc.lock").read_text(encoding="utf-8")), load_all(root / "results/scores"), cache)
    from dvc.api import DVCFileSystem

    with tempfile.TemporaryDirectory(prefix=temporary("seeds")) as folder:
        files = DVCFileSystem(str(root), rev=rev)
        lock = _lock(files.read_text("dvc.lock"))
        for out in (out["path"] for stage, entry in lock.items() if stage[:6] == "score@" for out in entry["outs"]):
            with suppress(FileNotFoundError):
                files.get_file(out, str(Path(folder) / Path(out).name))
        return of_run(lock, load_all(folder), cache)


def _lock(text: str) -> Lock:
    return yaml.load(text, yaml.CSafeLoader)["stages"]
