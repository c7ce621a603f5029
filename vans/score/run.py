"""Scoring with the models of the current scale: one arm of the grid, or anyone's predictions (anyone.py)."""

from pathlib import Path
from typing import Any

import pandas as pd
import torch

from vans.answer.predictions import is_empty, open_folder
from vans.data.batches import held_out
from vans.data.triplets import Triplets
from vans.models.clip import load_clip
from vans.models.detector import load_detector
from vans.parallel import device_of
from vans.params import Params, load
from vans.preflight import preflight
from vans.score.metrics import METRICS, NONE, cell, use
from vans.score.score import Resampling, Scores, of_nothing, score

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


def score_arm(
    folder: str | Path, root: Path, name: str | None = None, params: Params | None = None, made: str | None = None
) -> Scores:
    """Score a predictions folder on root's held-out samples; ``name``: of the arm (the folder's); ``made``: see
    `score`. Of an empty one (a system that was not run at this scale) the scores are empty, too."""
    params, triplets = params or load(root), Triplets(root / "triplets")
    use(own_metrics(params))
    if is_empty(folder):
        return of_nothing(name or Path(folder).name, resampling(params))
    ids = held_out(triplets, params.evaluate.samples)
    preflight(params, root, "score", ["models/base/clip"])
    open_folder(folder, ids, words=True).check()  # before anything is loaded, let alone computed
    clip, detector = judges(params, root)
    return score(folder, triplets, clip, detector, resampling(params), arm=name, ids=ids, progress=_say, made=made)


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
    parts += [f"answers: {scores.summary['answers']}"] if "answers" in scores.summary else []
    parts += [f"warning: {warning}" for warning in scores.summary["warnings"]]
    return "\n".join(parts)


def _say(done: int, of: int) -> None:
    if done == of or done % 128 == 0:
        print(f"scored {done} of {of}", flush=True)
