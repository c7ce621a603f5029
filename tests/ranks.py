"""Functions for `vans.parallel.launch` to call: child processes see no monkeypatch, so what differs is put in here."""

import os
import signal
import time
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist

from vans.errors import UserError
from vans.parallel import Ranks


def dies_in_a_collective(ranks: Ranks, note: str) -> None:
    """Rank 1 kills itself while rank 0 waits for it."""
    ranks.barrier()
    if ranks.rank == 1:
        _dies(note)
    ranks.barrier()


def dies_while_rank_0_waits_for_another(ranks: Ranks, note: str) -> None:
    """Rank 2 kills itself; rank 0 waits for rank 1, which is alive and never answers."""
    if ranks.rank == 2:
        _dies(note)
    if ranks.rank == 1:
        time.sleep(600)
    dist.recv(torch.zeros(1), src=1)


def fails_while_rank_0_computes(ranks: Ranks, note: str) -> None:
    if ranks.rank == 1:
        Path(note).touch()
        raise UserError("data/x: missing; get it back")
    while True:
        torch.zeros(10).sum()


def fails_on_rank_0(ranks: Ranks, note: str) -> None:
    if ranks.main:
        Path(note).touch()
        raise KeyError("its own")
    ranks.barrier()


def ranks_of(ranks: Ranks) -> list[int]:
    return ranks.gather(ranks.rank)


def _dies(note: str) -> None:
    Path(note).touch()
    os.kill(os.getpid(), signal.SIGKILL)


def stage2_some_anchors(ranks: Ranks, params, **arguments) -> list[dict]:
    """`vans.train.stage2:train_vdm` where only the first prompt of the first step has an anchor: of two processes the
    second one has nothing to do."""
    from vans.data.batches import batch_ids  # the other functions here do without these imports, which take seconds
    from vans.template import answer_text
    from vans.train import stage2

    def draw(self, steps) -> dict[str, list]:
        every = self.triplets.select(split="train", rl=True)
        first = batch_ids(every, 0, params.stage2.prompts, params.seed, params.train_seed, "stage2")[0]
        row = self.triplets.row(first)
        found = {first: answer_text(row["reasoning"], row["caption"])}
        mine = {step: self.rollouts.batch(step, params.stage2.prompts)[0] for step in steps}
        return {f"{step}/{i}": [found.get(i), 1] for step, ids in mine.items() for i in ids}

    with patch.object(stage2.Anchor, "draw", draw):
        return stage2.train_vdm(ranks, params, **arguments)


def cublas_of(ranks: Ranks) -> list[str | None]:
    return ranks.gather(os.environ.get("CUBLAS_WORKSPACE_CONFIG"))
