"""Resampling by group, intervals and verdicts."""

import numpy as np
import pytest

from vans.score import bootstrap
from vans.score.bootstrap import Interval


def test_draws_are_seeded_and_keep_the_number_of_groups() -> None:
    groups = ["a", "a", "b", "c", "c", "c"]
    one, two = bootstrap.draws(groups, 50, 1), bootstrap.draws(groups, 50, 1)
    assert np.array_equal(one, two)
    assert not np.array_equal(one, bootstrap.draws(groups, 50, 2))
    assert (one[:, [0, 2, 3]].sum(1) == 3).all()  # three groups are drawn each time
    assert (one[:, 0] == one[:, 1]).all() and (one[:, 3] == one[:, 5]).all()  # and come as a whole
    assert one.max() > 1


def test_draws_do_not_depend_on_the_order_of_first_appearance() -> None:
    one = bootstrap.draws(["b", "a"], 20, 0)
    assert np.array_equal(one[:, ::-1], bootstrap.draws(["a", "b"], 20, 0))


def test_interval_of_a_mean_has_the_known_width() -> None:
    values = np.random.default_rng(0).normal(size=400)
    weights = bootstrap.draws([str(i) for i in range(400)], 4000, 0)
    found = bootstrap.percentile(values.mean(), weights @ values / weights.sum(1), 400)
    half = 1.96 * values.std() / 20
    assert found.lo == pytest.approx(values.mean() - half, abs=0.01)
    assert found.hi == pytest.approx(values.mean() + half, abs=0.01)


def test_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(5)
    weights = bootstrap.draws([str(i) for i in range(60)], 400, 3)
    samples = rng.normal(size=(300, 60))
    hit = [bootstrap.percentile(x.mean(), weights @ x / 60, 60).contains(0.0) for x in samples]
    assert 0.90 < np.mean(hit) < 0.98


def test_dependent_samples_widen_the_interval() -> None:
    values = np.repeat(np.random.default_rng(1).normal(size=50), 4)
    apart = bootstrap.draws([str(i) for i in range(200)], 1000, 0)
    together = bootstrap.draws([str(i // 4) for i in range(200)], 1000, 0)
    narrow, wide = (bootstrap.percentile(0, w @ values / 200, 200) for w in (apart, together))
    assert wide.hi - wide.lo > 1.6 * (narrow.hi - narrow.lo)


def test_centred_interval_stands_around_the_value() -> None:
    resampled = np.linspace(9, 11, 101)
    assert not bootstrap.percentile(5.0, resampled, 10).contains(5.0)
    found = bootstrap.percentile(5.0, resampled, 10, centre=True)
    assert (found.lo, found.hi) == pytest.approx((4.05, 5.95))


def test_no_samples_and_no_number() -> None:
    assert bootstrap.draws([], 3, 0).shape == (3, 0)
    found = bootstrap.percentile(float("nan"), np.array([np.nan, 1.0]), 0)
    assert np.isnan([found.value, found.lo, found.hi]).all()
    with pytest.raises(ValueError, match="resamples"):
        bootstrap.draws(["a"], 0, 0)


@pytest.mark.parametrize(
    ("lo", "hi", "direction", "expected"),
    [
        (0.1, 0.3, +1, "holds"),
        (0.1, 0.3, -1, "does not hold"),
        (-0.3, -0.1, -1, "holds"),
        (-0.3, -0.1, +1, "does not hold"),
        (-0.1, 0.3, +1, "not resolved"),
        (0.0, 0.3, +1, "not resolved"),
        (float("nan"), float("nan"), +1, "not measured"),
    ],
)
def test_verdicts(lo: float, hi: float, direction: int, expected: str) -> None:
    assert bootstrap.verdict(Interval((lo + hi) / 2, lo, hi, 9), direction) == expected
