"""A training's log: seconds by part, its lines, and what should not be; none of it among the run's results."""

import csv
import math
from types import SimpleNamespace

import pytest
import torch

from vans import meter
from vans.meter import Alarms, Meter, span, timer
from vans.parallel import Ranks
from vans.plan.gpus import GPUS
from vans.plan.work import Work
from vans.train.runs import Run

ALONE = Ranks(0, 1, torch.device("cpu"))


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on by hand: clock(3.0)."""
    now = [100.0]

    def forward(seconds: float) -> None:
        now[0] += seconds

    monkeypatch.setattr(meter.time, "perf_counter", lambda: now[0])
    yield forward
    monkeypatch.setattr(meter, "_current", None)


def metered(tmp_path, total: int, position: int = 0, videos: int = 0) -> tuple[Meter, list[str]]:
    said: list[str] = []
    run = SimpleNamespace(name="stage1/full", folder=tmp_path, position=position, settings={}, ranks=ALONE)
    return Meter(run, total, Work(videos), said.append), said


def rows(tmp_path) -> list[dict[str, float]]:
    with (tmp_path / meter.FILE).open() as file:
        return [{key: float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def test_each_second_counts_for_one_part(tmp_path, clock):
    it, _ = metered(tmp_path, 2)
    it.start()
    for step, scale in ((0, 1), (1, 10)):
        clock(1 * scale)
        with timer("render"):
            clock(2 * scale)
            with timer("decode"):
                clock(4 * scale)
            clock(8 * scale)
        with timer("update"):
            clock(16 * scale)
        with pytest.raises(KeyError), timer("reward"):
            clock(32 * scale)
            raise KeyError
        it.step([{"step": step, "loss": 1.0}])
    first = {"step": 0, "generate": 0, "render": 10, "decode": 4, "reward": 32, "update": 16, "save": 0, "rest": 1}
    assert rows(tmp_path) == [first, {k: 10 * v for k, v in first.items()} | {"step": 1}]
    it.stop()
    with timer("update"):  # nobody counts: nothing happens
        clock(1)


def test_the_lines_of_a_log(tmp_path, clock):
    it, said = metered(tmp_path, 20, position=3, videos=64)
    it.flop, it.gpu = 989e12 * 40, GPUS["h100"]
    it.start()
    assert said == [
        "stage1/full: step 4 of 20 begins, of 64 videos, 39.6 PFLOP: about 100 s at 40 % of the peak of 1 x h100"
    ]
    for step in range(3, 20):
        with timer("render"):
            clock(80)
        with timer("reward"):
            clock(0.1)
        clock(20)
        it.step([{"step": step}])
    # what a part of the first step took; then the first, one after ten minutes, another, and the last
    told = [line.partition(": ")[2] for line in said[1:]]
    assert told[0] == "first step: render took 80 s"
    assert [line.partition(":")[0] for line in told[1:]] == [f"step {n} of 20" for n in (4, 10, 16, 20)]
    assert told[2].startswith(
        "step 10 of 20: 100 s (render 80 s), 0.639 videos/s, 395 TFLOP/s a GPU, 40% of h100's peak, "
    )
    assert told[2].endswith(" GB, 16.7 min left") and told[-1].endswith(" 0 s left")


def test_a_cpu_has_no_peak_and_nothing_is_reckoned(tmp_path):
    def never() -> float:
        raise AssertionError

    run = SimpleNamespace(name="x", folder=tmp_path, position=0, settings={}, ranks=ALONE)
    assert Meter(run, 1, Work(3, never)).flop is None
    assert 1e7 < meter.memory(ALONE.device) < 1e12


def test_spans():
    assert [span(s) for s in (0.321, 9.96, 41.2, 119, 120, 7199, 7200, 43200)] == [
        *("0.32 s", "10 s", "41 s", "119 s", "2 min", "120 min", "2 h", "12 h")
    ]


KL = [{"step": i, "kl": 1e-3 * (i + 1)} for i in range(20)]
WRONG = {
    "nan": ([], {"loss": math.nan}, "loss: no number any more"),
    "inf": ([], {"loss": 1.0, "grad_norm": math.inf}, "grad_norm: no number any more"),
    "equal": ([], {"equal_groups": 1.0}, "all rewards of every group are equal"),
    "ratio": ([], {"ratio_first": 2e-4}, "ratio_first is 0.0002: the first update does not start"),
    "both": ([], {"vdm_ratio_first": 2e-4}, "vdm_ratio_first is 0.0002"),
    "gap": ([], {"sampler_gap": 0.01}, "sampler_gap is 0.01: the first update"),
    "kl": ([], {"kl": 1.5}, "kl runs away: 1.5; raise beta"),
    "kl grows": (KL, {"vlm_kl": 0.9, "kl": 0.2}, "kl runs away: 0.2"),
}
WELL = {
    "a group that is equal": ([], {"equal_groups": 0.5}),
    "rounding": ([], {"ratio_first": 5e-5, "sampler_gap": 1e-5, "ratio_last": 0.9}),
    "a KL that spreads": (KL, {"kl": 0.09}),
    "a KL that begins": (KL[:5], {"kl": 0.3}),
    "a small KL": ([{"step": i, "kl": 1e-6} for i in range(20)], {"kl": 0.002}),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_should_not_be_is_said_once_in_fifty_steps(what):
    before, row, said = WRONG[what]
    alarms = Alarms({"stage2": {"clip_range": 1e-3}, "machine": {"dtype": "float32"}})
    (line,) = alarms.look([*before, {"step": 20, **row}])
    assert line.startswith(said)
    assert alarms.look([*before, {"step": 69, **row}]) == []
    assert len(alarms.look([*before, {"step": 70, **row}])) == 1


@pytest.mark.parametrize("what", WELL)
def test_what_may_be_is_not_said(what):
    before, row = WELL[what]
    assert Alarms({}).look([*before, {"step": 20, **row}]) == []
    assert Alarms({"machine": {"dtype": "bfloat16"}}).look([{"step": 0, "sampler_gap": 0.3}]) == []


def test_a_runs_results_hold_nothing_of_it(tmp_path, capsys):
    model = torch.nn.Linear(2, 2)
    run = Run(tmp_path, "stage1/full", {"a": 1}, ALONE, every=2)
    run.attach({"m": model}, {})
    for step in run.steps(3, Work(8)):
        with timer("update"):
            pass
        run.log(step, loss=float(step), equal_groups=1.0)
    history = run.finish(tmp_path / "out", lambda folder: folder.mkdir(parents=True))
    assert history == [{"step": i, "loss": float(i), "equal_groups": 1.0} for i in range(3)]
    assert len(rows(run.folder)) == 3 and not list((tmp_path / "out").rglob("*.csv"))
    said = capsys.readouterr().out
    assert "stage1/full: step 1 of 3 begins, of 8 videos\n" in said
    assert said.count("all rewards of every group are equal") == 1 and "stage1/full: step 3 of 3: " in said
    assert meter._current is None


def test_what_a_run_took_is_read_from_its_last_line(tmp_path, clock):
    from benchmarks import takes

    it, said = metered(tmp_path, 2, videos=4)
    it.start()
    for step, seconds in ((0, 7.0), (1, 180.0)):
        clock(seconds)
        it.step([{"step": step, "loss": 1.0}])
    notebook = {"cells": [{"source": ""}, {"outputs": [{"text": [f"{line}\n" for line in said]}]}]}
    [(name, (seconds, memory))] = takes.said(notebook).items()
    assert (name, seconds) == ("stage1/full", 180.0) and memory > 0
