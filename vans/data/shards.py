"""Triplets on disk: tar files whose members are read by offset, and a manifest that knows the offsets.

Where a shard ends is decided by the ids of its triplets and not by counting from the first shard: what is added
or taken away in one place changes the shard there and perhaps the next one, all others keep their bytes, and
DVC stores only what is new.
"""

import io
import tarfile
from pathlib import Path

from vans import files
from vans.data.draw import Draw

HASHED_BYTES = 2**31  # larger data sets are known by size and time of their shards
PER_SHARD = 2048  # triplets in one tar file at most
FEWEST = 1024  # and at least, the last one aside
MEAN = 512  # after the fewest, one id in so many begins a new shard
SUFFIX = {"raw": "avi", "h264": "mp4"}
COLUMNS = (
    *("id", "source", "kind", "split", "rl", "video", "scene", "group", "subset"),
    *("input_start", "input_end", "target_start", "target_end"),  # s, in the source video
    *("input_sentence", "target_sentence", "recipe_type", "condition", "topic"),
    *("question", "reasoning", "caption", "style"),
    *("motion", "agreement", "caption_words", "questions_refused"),  # what the RL subset's score is made of
    *("rl_score", "rl_reason"),
    *("shard", "input_offset", "input_size", "target_offset", "target_size"),  # bytes
)


def begins(name: str) -> bool:
    """Does this triplet begin a new shard, if the one before it has the fewest?"""
    return Draw("shard begins", name).below(MEAN) == 0


class ShardWriter:
    """Writes triplets' clips into <folder>/00000.tar, ...; the bytes depend on names and contents only."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.folder.mkdir(parents=True)
        self.count = self.shards = 0
        self.shard = ""
        self.tar: tarfile.TarFile | None = None

    def add(self, name: str, clips: tuple[bytes, bytes], codec: str) -> dict:
        """Append (input, target) clip files of one triplet; returns the manifest's storage columns."""
        if self.tar is None or self.count == PER_SHARD or (self.count >= FEWEST and begins(name)):
            self.close()
            self.shard = f"{self.shards:05d}.tar"
            self.tar = tarfile.TarFile(self.folder / self.shard, "w", format=tarfile.USTAR_FORMAT)
            self.count, self.shards = 0, self.shards + 1
        assert self.tar is not None
        self.count += 1
        place: dict = {"shard": self.shard}
        for which, data in zip(("input", "target"), clips, strict=True):
            member = tarfile.TarInfo(f"{name}.{which}.{SUFFIX[codec]}")
            member.size = len(data)
            place[f"{which}_offset"] = self.tar.offset + tarfile.BLOCKSIZE
            place[f"{which}_size"] = len(data)
            self.tar.addfile(member, io.BytesIO(data))
        return place

    def close(self) -> None:
        """Finish the open tar file."""
        if self.tar is not None:
            self.tar.close()
            self.tar = None


def identity(folder: Path) -> list:
    """What the shards of a triplets folder hold: their hashes; of more than HASHED_BYTES, names, sizes and times."""
    shards = sorted((folder / "shards").iterdir())
    if sum(p.stat().st_size for p in shards) < HASHED_BYTES:
        return [files.sha256_file(p) for p in shards]
    return [[p.name, p.stat().st_size, p.stat().st_mtime_ns] for p in shards]
