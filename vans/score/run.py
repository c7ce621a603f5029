"""Scoring with the models of the current scale: one arm of the grid, or anyone's predictions."""

import os
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from vans.answer.predictions import open_folder
from vans.data.batches import held_out
from vans.data.triplets import Triplets
from vans.errors import UserError
from vans.files import check_output
from vans.models.clip import load_clip
from vans.models.detector import load_detector
from vans.parallel import device_of
from vans.params import Params, find_root, load
from vans.preflight import preflight
from vans.score.metrics import METRICS, NONE, cell, use
from vans.score.score import Resampling, Scores, score

SIZE = 1 << 22  # bytes that an arm's scores may take
FVD_RESAMPLES = 300  # each costs a matrix decomposition


def judges(params: Params, root: Path) -> tuple[Any, Any]:
    """CLIP (with a ``name`` for the protocol) and FVD's detector of the current scale, on its device."""
    torch.set_num_threads(params.machine.threads)  # the same sums in a kernel that no stage has started
    base, device = root / "models/base", device_of(params.machine.device, 0)
    clip: Any = load_clip(params, base, device=device)
    model = params.models.clip
    clip.name = f"{model.repo} at {model.revision}" if model.repo else "CLIP trained on this world's own clips"
    return clip, load_detector(params, base, device=device)


def own_metrics(params: Params) -> list[str]:
    """The user's own metrics, each "package.module:function"."""
    return list(getattr(params.evaluate, "metrics", None) or [])


def resampling(params: Params) -> Resampling:
    """How intervals are made: ``evaluate.bootstrap`` resamples, at most FVD_RESAMPLES of them for FVD."""
    count = params.evaluate.bootstrap
    return Resampling(params.seed, count, min(count, FVD_RESAMPLES))


def score_arm(folder: str | Path, root: Path, name: str | None = None, params: Params | None = None) -> Scores:
    """Score a predictions folder on root's held-out samples; ``name``: of the arm (the folder's)."""
    params, triplets = params or load(root), Triplets(root / "triplets")
    use(own_metrics(params))
    ids = held_out(triplets, params.evaluate.samples)
    preflight(params, root, "score", ["models/base/clip"])
    open_folder(folder, ids).check()  # before anything is loaded, let alone computed
    clip, detector = judges(params, root)
    return score(folder, triplets, clip, detector, resampling(params), arm=name, ids=ids, progress=_say)


def score_folder(folder: str | Path, name: str | None = None, out: str | Path | None = None) -> Scores:
    """What ``vans score`` does: score, write the scores to ``out`` where one is named, then print them."""
    root = find_root()
    name = os.path.basename(os.path.abspath(folder)) if name is None else name
    if out is not None:
        check_name(name)
        for suffix in (".csv", ".json"):
            path = Path(out) / f"{name}{suffix}"
            check_output(path, reads=[folder, root / "triplets", root / "models", root / "data"], size=SIZE)
    scores = score_arm(folder, root, name)
    if out is not None:
        scores.save(out)
    print(text(scores))
    if out is not None:
        print(f"written: {Path(out) / scores.arm}.csv and .json")
    return scores


def check_name(name: str) -> None:
    """Raise UserError unless a row's name can be a file's."""
    if not name or "/" in name or "\\" in name or name.startswith(".") or not name.isprintable():
        raise UserError(f"--name {name!r}: the scores' files are called by it; use letters, digits, - and _")


def overview(scores: Scores) -> pd.DataFrame:
    """Every metric with its interval as text, one column a kind of sample."""
    lines: dict[str, dict[str, str]] = {}
    for metric in METRICS.values():
        found = {kind: scores.interval(kind, metric.name) for kind in scores.kinds}
        if any(interval is not None for interval in found.values()):
            words = {k: NONE if i is None else cell(i.value, i.lo, i.hi, metric) for k, i in found.items()}
            lines[metric.heading] = words
    return pd.DataFrame(lines).T


def text(scores: Scores) -> str:
    """The overview, the protocol and the warnings for a terminal."""
    parts = [f"{scores.arm}: {scores.summary['n']} samples", overview(scores).to_string()]
    parts += [f"{name}: {words}" for name, words in scores.summary["protocol"].items()]
    parts += [f"warning: {warning}" for warning in scores.summary["warnings"]]
    return "\n".join(parts)


def _say(done: int, of: int) -> None:
    if done == of or done % 128 == 0:
        print(f"scored {done} of {of}", flush=True)
