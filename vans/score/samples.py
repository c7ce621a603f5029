"""What is measured of each sample: from its texts, from its video, and by the toy world's oracle."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from vans import similarity, template
from vans.answer.predictions import Predictions
from vans.score import metrics
from vans.toy import oracle, world
from vans.toy.render import SIZE

STILL = 0.5  # of the true amplitude


def oracle_can_read(captions: Sequence[str], clips: np.ndarray) -> bool:
    """True if every ground-truth caption is a sentence of the toy world and the clips have its size."""
    return clips.shape[2:4] == (SIZE, SIZE) and all(world.caption_events(text) for text in captions)


def of_texts(answers: Predictions, rows: pd.DataFrame) -> pd.DataFrame:
    """Per sample: names, caption, ground-truth caption, and everything that is computed from text alone."""
    scene = rows["scene"].astype("string").fillna("") if "scene" in rows else pd.Series("", index=rows.index)
    frame = pd.DataFrame(
        {
            "id": rows.index.astype(str),
            "kind": rows["kind"].to_numpy(),
            "group": np.where(scene == "", rows["video"].astype(str), scene),
            "truth": rows["caption"].to_numpy(),
            "caption": answers.captions,
        }
    )
    pairs = list(zip(frame["caption"], frame["truth"], strict=True))
    frame["rouge_l"] = [similarity.rouge_l(text, truth) for text, truth in pairs]
    if any(answers.texts):
        frame["format"] = [template.format_reward(text) for text in answers.texts]
        frame["think_words"] = [template.thinking_length(text) for text in answers.texts]
    statistics = metrics.bleu_statistics(list(frame["caption"]), list(frame["truth"]))
    return pd.concat([frame, statistics], axis=1)


def of_videos(clips: np.ndarray, target: np.ndarray, rows: pd.DataFrame, clip: Any) -> dict[str, Any]:
    """Per sample: CLIP similarities, PSNR and motion of a batch of answers."""
    seen, true = clip.image(torch.from_numpy(clips)), clip.image(torch.from_numpy(target))
    own = numpy(similarity.clip_score(seen, clip.text(list(rows["caption"]))))
    return {
        "clip_v": numpy(similarity.frame_similarity(seen, true)),
        "clip_t": numpy(similarity.clip_score(seen, clip.text(list(rows["truth"])))),
        "clip_t_own": np.where(rows["caption"].str.strip() == "", np.nan, own),
        "psnr": metrics.psnr(clips, target),
        "motion": metrics.motion(clips),
        "motion_gt": metrics.motion(target),
    }


def of_oracle(clips: np.ndarray, target: np.ndarray, source: np.ndarray, captions: list[str]) -> dict[str, Any]:
    """Per sample: what the oracle sees in answer, target and input, and whether the caption names it.

    static: no event is seen, and the object changes less than STILL times as much as in the true video (an event too
    blurred to be read is not a still picture).
    """
    seen, true, given = oracle.read(clips), oracle.read(target), oracle.read(source)
    named = [world.caption_events(text) for text in captions]
    kept = [(a.colour, a.shape) == (b.colour, b.shape) for a, b in zip(seen, given, strict=True)]
    return {
        "event": [reading.event for reading in true],
        "event_named": ["|".join(sorted(events)) for events in named],
        "event_seen": [reading.event for reading in seen],
        "caption_event": [float(t.event in events) for t, events in zip(true, named, strict=True)],
        "caption_renderable": [float(len(events) == 1) for events in named],
        "video_event": [float(a.event == b.event) for a, b in zip(seen, true, strict=True)],
        "identity": [float(same) for same in kept],
        "static": [
            float(a.event == "none" and a.change < STILL**2 * b.change) for a, b in zip(seen, true, strict=True)
        ],
    }


def clips_of(clips: Any) -> np.ndarray:
    """Clips as a contiguous uint8 array [N, T, H, W, 3], from numpy or torch."""
    return np.ascontiguousarray(numpy(clips), dtype=np.uint8)


def numpy(values: Any) -> np.ndarray:
    """A numpy array from numpy or torch."""
    return values.detach().cpu().numpy() if isinstance(values, torch.Tensor) else np.asarray(values)
