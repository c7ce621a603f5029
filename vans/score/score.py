"""Scores of one arm, from its predictions on disk: per sample, summed up with intervals, and the protocol.

Works on anyone's predictions in the layout of ``vans.answer.predictions``. Clips are read a few at a time,
so that memory does not grow with the number of samples. What is measured is a plug: ``vans.score.metric``.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vans import spreadsheet
from vans.answer import predictions
from vans.errors import UserError
from vans.files import atomic_write_text
from vans.rng import seed_of
from vans.score import bootstrap, fvd, metrics
from vans.score.batch import Batch, clips_of
from vans.score.bootstrap import Interval
from vans.score.metric import joined, measure_table
from vans.score.metrics import METRICS

KINDS = ("procedural", "predictive", "all")
BATCH = 32  # clips read at a time
WORDS = ("id", "group", "truth", "caption")  # columns of text


@dataclass(frozen=True)
class Resampling:
    """How intervals are made. ``fvd_resamples`` is smaller because each one costs a matrix decomposition; it also
    limits the blocks of FVD's jackknife."""

    seed: int = 0
    resamples: int = 2000
    fvd_resamples: int = 300
    level: float = bootstrap.LEVEL

    def draws(self, frame: pd.DataFrame, kind: str) -> np.ndarray:
        """The same for every arm that is scored on the same samples."""
        return bootstrap.draws(frame["group"], self.resamples, seed_of(self.seed, "bootstrap", kind))


@dataclass(frozen=True)
class Scores:
    """One arm's scores.

    ``frame``: one row per sample. ``summary``: what is written as JSON: arm, n, metrics by kind, protocol,
    warnings, resampling, and the FVD of each resample by kind (so that arms can be compared without
    features).
    """

    arm: str
    frame: pd.DataFrame
    summary: dict[str, Any]

    @property
    def resampling(self) -> Resampling:
        return Resampling(**self.summary["resampling"])

    @property
    def kinds(self) -> list[str]:
        return [kind for kind in KINDS if kind in self.summary["metrics"]]

    def interval(self, kind: str, metric: str) -> Interval | None:
        """A metric with its interval; None if this arm does not have it."""
        found = self.summary["metrics"].get(kind, {}).get(metric)
        if found is None:
            return None
        value, lo, hi = (float("nan") if found[key] is None else found[key] for key in ("value", "lo", "hi"))
        return Interval(value, lo, hi, found["n"])

    def resampled(self, kind: str, metric: str) -> np.ndarray:
        """The metric in each resample [B], the same resamples for every arm that has the same samples."""
        if METRICS[metric].distance:
            return np.array(self.summary[f"{metric}_draws"][kind], dtype=np.float64)
        rows = _of_kind(self.frame, kind)
        return METRICS[metric].of(rows, self.resampling.draws(rows, kind))

    def save(self, folder: str | Path) -> None:
        """Write ``<arm>.csv`` (per sample), then ``<arm>.json`` (the summary)."""
        folder = Path(folder)
        atomic_write_text(folder / f"{self.arm}.csv", spreadsheet.write(self.frame, "%.6g"))
        summary = json.dumps(self.summary, indent=2, ensure_ascii=False) + "\n"
        atomic_write_text(folder / f"{self.arm}.json", _lists_on_one_line(summary))


def load(folder: str | Path, arm: str) -> Scores:
    """Read what ``Scores.save`` wrote; UserError if it is missing or broken."""
    path = Path(folder) / f"{arm}.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
        frame = spreadsheet.read(path.with_name(f"{arm}.csv"), WORDS)
    except (OSError, ValueError) as error:
        fix = f"run `dvc repro score@{arm}`"
        raise UserError(f"{path}: no whole scores of {arm} ({error}); {fix}") from error
    return Scores(arm, frame, summary)


def load_all(folder: str | Path, arms: Sequence[str] | None = None) -> dict[str, Scores]:
    """The scores that a folder holds, of all arms or of those named that are there; without those of nothing."""
    there = sorted(path.stem for path in Path(folder).glob("*.json"))
    found = {arm: load(folder, arm) for arm in (there if arms is None else arms) if arm in there}
    return {arm: scores for arm, scores in found.items() if scores.summary.get("n") != 0}


def of_nothing(arm: str, resampling: Resampling) -> Scores:
    """The scores of an arm that was not run at this scale: no sample, no number, no row of its own."""
    frame = pd.DataFrame(columns=["id", "kind", "group", "truth", "caption"])
    summary = {"arm": arm, "n": 0, "metrics": {}, "protocol": {"samples": "none: not run"}, "warnings": []}
    return Scores(arm, frame, {**summary, "resampling": vars(resampling)})


def score(
    folder: str | Path,
    triplets: Any,
    clip: Any,
    detector: fvd.Detector,
    resampling: Resampling | None = None,
    arm: str | None = None,
    ids: Sequence[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    made: str | None = None,
) -> Scores:
    """Score the predictions in ``folder`` against the held-out triplets; without a folder videos/ their words alone.

    ``clip``: ``.image(uint8 [N, T, H, W, 3]) -> [N, T, D]`` and ``.text(list) -> [N, D]``, unit norm.
    ``ids``: which samples (default: all of the test split; each must have a prediction). ``arm``: the name to
    give (default: the folder's). ``progress(done, of)`` is called after each batch. ``made``: of somebody else's, how
    they say that the answers came about (their seeds); it stands in the summary with the videos' own length and size.
    Raises UserError for predictions that are missing or cannot be read.
    """
    ids = list(triplets.select(split="test") if ids is None else ids)
    if not ids:
        raise UserError("triplets/manifest.parquet: the test split is empty; there is nothing to score")
    answers = predictions.open_folder(folder, ids, words=True)
    rows = triplets.frame.loc[ids]
    frame, toy = _names(rows, answers.captions), None
    writes = any(text.strip() for text in (*answers.captions, *answers.texts))  # texts may all break the template
    captions = answers.captions if writes else None
    if captions is None and not answers.paths:
        raise UserError(f"{folder}: neither a caption nor a video; there is nothing to score")
    texts = answers.texts if any(answers.texts) else None
    parts, features, adapted = [], [], 0
    for start in range(0, len(ids), BATCH):
        some, here = ids[start : start + BATCH], slice(start, start + BATCH)
        target = clips_of(triplets.clips(some, "target"))
        toy = metrics.oracle.can_read(frame["truth"], target) if toy is None else toy
        clips, changed = answers.clips(some, target.shape[1:4]) if answers.paths else (None, 0)
        adapted += changed
        batch = Batch(
            some,
            captions and captions[here],
            frame["truth"][here],
            clips,
            questions=rows["question"][here] if "question" in rows else (),
            answers=texts and texts[here],
            targets=target,
            triplets=triplets,
            clip=clip,
            detector=detector,
            toy=toy,
        )
        columns, sets = metrics.measure(batch)
        parts.append(columns)
        features.append(sets)
        if progress is not None:
            progress(min(start + BATCH, len(ids)), len(ids))
    frame = measure_table(pd.concat([frame, pd.concat(parts, ignore_index=True)], axis=1))
    resampling, both = resampling or Resampling(), joined(features)
    about = protocol(frame, both, clip, detector, resampling, target.shape[1:4], adapted)
    if made is not None:
        about["answers"] = made_of(answers.shapes, made)
    values, draws = summarise(frame, both, resampling)
    summary = {
        "arm": arm or Path(folder).name,
        "n": len(ids),
        "metrics": values,
        **about,
        "resampling": vars(resampling),
        **draws,
    }
    return Scores(summary["arm"], frame, summary)


def summarise(
    frame: pd.DataFrame, features: dict[str, np.ndarray], resampling: Resampling
) -> tuple[dict[str, dict[str, Any]], dict[str, dict[str, list[float | None]]]]:
    """Every available metric with its interval, by kind and for all together; and, as ``<name>_draws`` and
    ``<name>_left_out``, what distances such as FVD are in each resample and without each block of groups, by kind.

    ``features``: of each distance, [2, N, D] of answers and ground truth in the order of the rows. A distance's
    interval is a jackknife's: drawing with replacement repeats samples and so makes it too wide.
    """
    values: dict[str, dict[str, Any]] = {}
    parts = ("draws", "left_out")
    distances: dict[str, dict[str, list[float | None]]] = {f"{name}_{part}": {} for name in features for part in parts}
    for kind in KINDS:
        rows = _of_kind(frame, kind)
        if not len(rows):
            continue
        draws = resampling.draws(rows, kind)
        values[kind] = {}
        for metric in metrics.available(rows, features):
            if metric.distance:
                seen, true = features[metric.name][:, rows.index.to_numpy()].astype(np.float64)
                of = metric.weighted or partial(fvd.resampled_distances, distance=metric.distance)
                resampled = of(seen, true, draws[: resampling.fvd_resamples])
                distances[f"{metric.name}_draws"][kind] = [_round(x) for x in resampled]
                left_out = bootstrap.leave_out(rows["group"], resampling.fvd_resamples)
                value, *without = of(seen, true, np.concatenate([np.ones((1, len(rows))), left_out]))
                distances[f"{metric.name}_left_out"][kind] = [_round(x) for x in without]
                found = bootstrap.jackknife(value, np.array(without), metric.count(rows), resampling.level)
                lo = found.lo if metric.signed else max(found.lo, 0.0)
            else:
                value = float(metric.of(rows, np.ones((1, len(rows))))[0])
                found = bootstrap.percentile(value, metric.of(rows, draws), metric.count(rows), resampling.level)
                lo = found.lo
            ends = {"value": _round(value), "lo": _round(lo), "hi": _round(found.hi), "n": found.n}
            values[kind][metric.name] = ends
    return values, distances


def protocol(
    frame: pd.DataFrame,
    features: dict[str, np.ndarray],
    clip: Any,
    detector: fvd.Detector,
    resampling: Resampling,
    geometry: tuple[int, ...],
    adapted: int,
) -> dict[str, Any]:
    """How the numbers were made, in words (``protocol``), and what to beware of (``warnings``)."""
    frames, height, width = geometry
    seen = "fvd" in features  # are there videos?
    size = features["fvd"].shape[2] if seen else 0
    groups = frame["group"].nunique()
    words = {
        "samples": f"{len(frame)} held out, in {groups} independent groups (one scene or source video each)",
        "clips": f"{frames} frames of {height} x {width}, every frame is used, none is resampled",
        "videos": "none: the words alone were scored",
        "fvd": f"detector: {detector.name}; {size} features, unbiased covariances",
        "kvd": "the same features / the truth's root mean square, kernel (x·y / D + 1)^3, unbiased: may be < 0",
        "bleu": f"sacrebleu {metrics.text.bleu_signature()}, BLEU@k with max_ngram_order=k, as a share of 1",
        "rouge_l": "rouge_score F-measure, no stemming; reads only a-z and 0-9 (other scripts score 0)",
        "clip": f"{getattr(clip, 'name', type(clip).__name__)}; CLIP-T against the ground-truth caption",
        "intervals": f"{resampling.level:.0%} bootstrap by group, {resampling.resamples} resamples, "
        f"seed {resampling.seed}; of one arm's FVD or KVD by delete-one-group jackknife (at most "
        f"{resampling.fvd_resamples} blocks of groups); of a difference of two by {resampling.fvd_resamples} paired "
        "resamples, centred",
    }
    for key in ("videos",) if seen else ("clips", "fvd", "kvd", "clip"):
        del words[key]
    warnings = []
    if adapted:
        warnings.append(f"{adapted} answers had another size or length and were cropped and resampled to fit")
    for kind in KINDS:
        n = len(_of_kind(frame, kind))
        warning = fvd.few_samples(n, size) if n and seen else None
        if warning:
            warnings.append(f"{kind}: {warning}")
    return {"protocol": words, "warnings": warnings}


def made_of(shapes: Mapping[tuple[int, int, int], int], seeds: str) -> str:
    """How somebody's answers came about, in words: length and size of their videos, most of them first, and seeds."""
    sizes = sorted(shapes.items(), key=lambda item: (-item[1], item[0]))
    told = [f"{n} videos of {t} frames of {h} x {w}" for (t, h, w), n in sizes[:3]]
    more = f", {sum(n for _, n in sizes[3:])} of other sizes" if len(sizes) > 3 else ""
    return f"{', '.join(told) or 'words alone'}{more}; seeds: {seeds or 'not told'}"


# ---------------------------------------------------------------- parts


def _names(rows: pd.DataFrame, captions: Sequence[str]) -> pd.DataFrame:
    """id, kind, group (samples of one group are not independent), truth and caption of each sample."""
    scene = rows["scene"].astype("string").fillna("") if "scene" in rows else pd.Series("", index=rows.index)
    return pd.DataFrame(
        {
            "id": rows.index.astype(str),
            "kind": rows["kind"].to_numpy(),
            "group": np.where(scene == "", rows["video"].astype(str), scene),
            "truth": rows["caption"].to_numpy(),
            "caption": captions,
        }
    )


def _of_kind(frame: pd.DataFrame, kind: str) -> pd.DataFrame:
    return frame if kind == "all" else frame[frame["kind"] == kind]


def _lists_on_one_line(text: str) -> str:
    """Indented JSON with each list of numbers on a line of its own (strings hold no line ends)."""
    return re.sub(r"\[\n[^\[\]{}\"]*\]", lambda found: " ".join(found[0].split()), text)


def _round(value: float) -> float | None:
    """Six significant digits; None where there is no number (JSON has no nan)."""
    return float(f"{value:.6g}") if np.isfinite(value) else None
