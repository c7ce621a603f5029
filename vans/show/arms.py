"""Answers of several arms to the same questions, read from disk for pictures, and which samples to look
at."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vans.answer import predictions
from vans.score.score import Scores


class _Titles(dict[str, str]):
    """An arm without a title of its own is called by its name in dvc.yaml."""

    def __missing__(self, arm: str) -> str:
        return arm


TITLES = _Titles(
    {
        "copy": "copy of the input",
        "sft": "SFT",
        "vlm_only": "GRPO (VLM only)",
        "vdm_only": "GRPO (VDM only)",
        "vlm_vdm": "GRPO (VLM + VDM)",
        "no_t1": "stage 1 without r_t1",
        "stage1": "stage 1",
        "no_c2": "without r_c2",
        "no_v2": "without r_v2",
        "all_in_one": "all in one stage",
        "main": "Joint-GRPO",
        "sft_best": "SFT, best by CLIP",
        "sft_oracle": "SFT, best by oracle (ceiling)",
        "extension": "video extension",
        "cascade": "cascade",
        "unified": "unified",
        "textual": "text alone",
        "ceiling": "true captions, SFT VDM",
        "ceiling_main": "true captions, Joint-GRPO VDM",
    }
)


def answers(
    folder: str | Path, triplets: Any, ids: Sequence[str], arms: Sequence[str]
) -> dict[str, tuple[list[str], np.ndarray]]:
    """arm's title -> (captions, clips uint8 [N, T, H, W, 3]) of these samples, from ``folder``/<arm>."""
    geometry = np.asarray(triplets.clips(ids[:1], "target")).shape[1:4]
    found = {}
    for arm in arms:
        given = predictions.open_folder(Path(folder) / arm, ids)
        found[TITLES[arm]] = (given.captions, given.clips(ids, geometry)[0])
    return found


def right(scores: Mapping[str, Scores], ids: Sequence[str], metric: str = "video_event") -> dict[str, list[bool]]:
    """arm's title -> is the metric 1 for each of these samples? Arms without the metric are left out."""
    found = {}
    for arm, some in scores.items():
        if metric in some.frame:
            values = some.frame.set_index("id")[metric]
            found[TITLES[arm]] = [bool(values[name] == 1) for name in ids]
    return found


def changed(before: Scores, after: Scores, metric: str = "video_event") -> tuple[list[str], list[str]]:
    """(samples that became right, samples that became wrong) from one arm to the other, in the table's
    order."""
    first, second = (some.frame.set_index("id")[metric] for some in (before, after))
    step = second - first
    return list(step.index[step > 0]), list(step.index[step < 0])


def spread(ids: Sequence[str], count: int) -> list[str]:
    """``count`` of the ids, evenly spread; all of them if there are no more."""
    if len(ids) <= count:
        return list(ids)
    return [ids[i * len(ids) // count] for i in range(count)]


def both_ways(before: Scores, after: Scores, count: int) -> list[str]:
    """Samples to look at: ones that became right and ones that became wrong, in the proportion that they
    have.

    At least one of each where there is one. Without the oracle: an even spread over all samples.
    """
    if "video_event" not in before.frame or "video_event" not in after.frame:
        return spread(list(after.frame["id"]), count)
    better, worse = changed(before, after)
    total = len(better) + len(worse)
    if not total:
        return spread(list(after.frame["id"]), count)
    bad = min(len(worse), max(1, round(count * len(worse) / total)))
    return [*spread(better, count - bad), *spread(worse, bad)]
