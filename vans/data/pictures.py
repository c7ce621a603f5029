"""Triplets whose answer is one picture instead of a clip, made of those whose answer is a clip.

Of a target clip the picture that differs most from its first one is taken: what is told of can be seen in it. Inputs,
texts, split and the RL subset stay.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vans import files
from vans.data.shards import ShardWriter
from vans.data.triplets import Triplets
from vans.media import video


def telling(clip: np.ndarray) -> int:
    """Which picture of uint8 [T, H, W, 3] differs most from the first one; the first of equals."""
    change = np.abs(clip.astype(np.int16) - clip[0]).mean(axis=(1, 2, 3))
    return int(change.argmax())


def derive(source: Path, out: Path, params: Any) -> Path:
    """Write the derived triplets folder, whole or not at all; returns it."""
    triplets, codec = Triplets(source), params.curate.codec
    with files.atomic_dir(out) as partial:
        writer = ShardWriter(partial / "shards")
        rows: list[dict] = []
        for id in triplets.frame.index:
            clip = triplets.clips([id], "target")[0]
            at = telling(clip)
            picture, _ = video.encode(clip[at : at + 1], params.video.fps, codec)
            rows.append(triplets.row(id).to_dict() | writer.add(id, (triplets.file(id, "input"), picture), codec))
        writer.close()
        pd.DataFrame(rows).astype({"agreement": "float64"}).to_parquet(partial / "manifest.parquet", index=False)
    return out
