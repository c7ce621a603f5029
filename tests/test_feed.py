"""The cache of latents and embeddings, while several jobs fill it."""

import pytest
import torch
from safetensors.torch import load_file, save_file

from vans import files
from vans.train import feed


class Second:
    """Rank 1 of two; what rank 0 has seen is `first`."""

    rank, size, main = 1, 2, False

    def __init__(self, first: list[int]):
        self.first = first

    def gather(self, value):
        return [self.first, value]

    def share(self, items: list) -> list:
        return items[len(items) // 2 :]

    def barrier(self) -> None:
        pass


class Alone(Second):
    rank, size, main = 0, 1, True

    def gather(self, value):
        return [value]

    def share(self, items: list) -> list:
        return items


@pytest.fixture
def filled(tmp_path, monkeypatch):
    """Fills a folder with four chunks of one item as some rank; returns the items that were computed."""
    monkeypatch.setattr(feed, "CHUNK", 1)

    def fill(ranks) -> list[int]:
        seen: list[int] = []

        def compute(chunk: list[int]) -> dict[str, torch.Tensor]:
            seen.extend(chunk)
            return {"latents": torch.full((1, 8), float(chunk[0]))}

        feed._fill(tmp_path, [0, 1, 2, 3], compute, ranks, "test")
        return seen

    return fill


def test_ranks_share_what_rank_0_has_seen(tmp_path, filled):
    """Another job has written chunks 0 and 1 since rank 0 looked: chunk 2 must not be left to nobody."""
    for i in (0, 1):
        save_file({"latents": torch.zeros(1, 8)}, tmp_path / f"chunk-{i:05d}.safetensors")
    assert filled(Second([0, 1, 2, 3])) == [2, 3]


@pytest.mark.parametrize("size", [0, 20, 90])
def test_a_chunk_that_is_cut_short_is_made_again(tmp_path, filled, size):
    filled(Alone([]))
    chunk = tmp_path / "chunk-00002.safetensors"
    chunk.write_bytes(chunk.read_bytes()[:size])
    left = tmp_path / f".chunk-00003.safetensors{files.PARTIAL}{files.HOST}-999999999"
    left.touch()
    assert filled(Alone([])) == [2] and filled(Alone([])) == []
    assert load_file(chunk)["latents"].tolist() == [[2.0] * 8] and not left.exists()
