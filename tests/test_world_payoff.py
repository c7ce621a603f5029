"""Standing still pays under r_v2 alone, where an event is transient and its moment untold, and not with r_c2."""

import importlib.util
import sys
from pathlib import Path

import pytest
import torch
from torch.nn.functional import normalize

PATH = Path(__file__).parents[1] / "benchmarks/payoff.py"
spec = importlib.util.spec_from_file_location("payoff", PATH)
assert spec is not None and spec.loader is not None
bench = importlib.util.module_from_spec(spec)
sys.modules["payoff"] = bench
spec.loader.exec_module(bench)


class Eyes:
    """A CLIP that sees rest or event in a frame: the cosine with the caption is `rest` or 0.75.

    Those of the base CLIP in a development world were 0.01 to 0.42 at rest, 0.72 to 0.82 at an event's end, and 0.56 to
    0.79 in a transient event's first and last frame.
    """

    def __init__(self, rest: float) -> None:
        self.rest = rest

    def image(self, clips):
        change = (clips.float() - clips[:, :1].float()).abs().mean((2, 3, 4))  # N T
        away = (change > 0.5 * change.amax(1, keepdim=True))[..., None].float()
        rest, event = (torch.tensor([c, s * (1 - c * c) ** 0.5]) for c, s in ((self.rest, 1), (0.75, -1)))
        return normalize(rest * (1 - away) + event * away, dim=-1)

    def text(self, captions):
        return torch.tensor([[1.0, 0.0]]).expand(len(captions), -1)


@pytest.fixture(scope="module")
def table():
    return bench.table(Eyes(0.2), 8, bench.SEED)


def test_a_still_pays_under_r_v2_and_not_with_r_c2(table):
    found = table["the world's transient events"]
    assert found.v2 > 0.01 and found.both < -0.05


def test_it_does_not_pay_where_the_moment_is_known_or_the_event_lasts(table):
    assert table["always from frame 3"].v2 < -0.05
    assert table["the world's lasting events"].v2 < -0.05
    assert all(row.both < 0 for row in table.values())


def test_a_clip_that_is_blind_to_the_event_leaves_the_still_where_it_was():
    blind = bench.payoff(Eyes(0.75), *bench.ROWS["the world's transient events"], n=8, seed=bench.SEED)
    assert blind.v2 > 0.01 and blind.both > 0.0
