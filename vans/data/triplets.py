"""Reading curated triplets: the manifest as a table, clips by their offset in the shards."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from vans.data import manifest
from vans.errors import UserError
from vans.media import video

KEEP_BYTES = 256 * 2**20


class Triplets:
    """Curated triplets. `Triplets(dir)` raises UserError unless the folder is whole (see `vans.data.manifest`).

    frame: pandas table of the manifest, indexed by id, in the manifest's order.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self._kept: dict[tuple[str, str], np.ndarray] = {}
        self.frame = manifest.read(self.folder).to_pandas().set_index("id", drop=False)

    def __len__(self) -> int:
        return len(self.frame)

    def select(
        self,
        split: str | None = None,
        kind: str | None = None,
        rl: bool | None = None,
        limit: int | None = None,
    ) -> list[str]:
        """Ids in the manifest's order; limit takes an even spread over it, so that all sources are in it."""
        chosen = self.frame
        for column, value in (("split", split), ("kind", kind), ("rl", rl)):
            if value is not None:
                chosen = chosen[chosen[column] == value]
        ids = chosen["id"].tolist()
        if limit is not None and limit < len(ids):
            ids = [ids[i * len(ids) // limit] for i in range(limit)]
        return ids

    def row(self, id: str) -> pd.Series:
        """One triplet's manifest row. Raises KeyError for an unknown id."""
        return self.frame.loc[id]

    def rates(self, ids: Sequence[str], which: str, frames: int) -> list[float]:
        """Pictures per second of clips of `frames` pictures, by the time that each spans in its video.

        which: input | target.
        """
        rows = self.frame.loc[list(ids)]
        spans = rows[f"{which}_end"] - rows[f"{which}_start"]
        return [max(0.001, round(frames / span, 3)) for span in spans]  # 0 is no rate, however long a clip says it is

    def file(self, id: str, which: str) -> bytes:
        """The bytes of one clip's file; which: input | target."""
        row = self.row(id)
        with open(self.folder / "shards" / row["shard"], "rb") as shard:
            shard.seek(int(row[f"{which}_offset"]))
            return shard.read(int(row[f"{which}_size"]))

    def _keep(self, id: str, which: str, clip: np.ndarray) -> None:
        """Small data sets are decoded once: clips stay in memory up to KEEP_BYTES in all."""
        if (len(self._kept) + 1) * clip.nbytes <= KEEP_BYTES:
            self._kept[id, which] = clip

    def clips(self, ids: Sequence[str], which: str) -> np.ndarray:
        """Clips uint8 [N, T, H, W, 3] of ids; which: input | target. Raises UserError if one is damaged."""
        if which not in ("input", "target"):
            raise ValueError(f"which must be input or target, got {which!r}")
        pictures = []
        for id in ids:
            if (id, which) in self._kept:
                pictures.append(self._kept[id, which])
                continue
            try:
                pictures.append(video.decode(self.file(id, which))[0])
                self._keep(id, which, pictures[-1])
            except ValueError as error:
                raise UserError(
                    f"{self.folder}: {which} clip of {id} is damaged; `dvc repro -f curate`"
                ) from error
        return np.stack(pictures)
