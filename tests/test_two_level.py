"""Intervals over trainings and samples against hand-computed tables and a simulation."""

import numpy as np
import pytest
from scipy import stats

from vans.score import bootstrap
from vans.score.two_level import Spread, pseudo_values, spread


def test_components_of_a_table_computed_by_hand():
    """Rows 2, 4, 3 on average, columns 1, 3, 5; mean 3.

    Sum of squares of rows 3 (1 + 1 + 0) = 6, of columns 3 (4 + 0 + 4) = 24, of residuals 1 in six cells = 6:
    mean squares 3, 12 and 6 / 4 = 1.5; components (3 - 1.5) / 3, (12 - 1.5) / 3, 1.5.
    """
    residual = np.array([[1.0, -1.0, 0.0], [-1.0, 0.0, 1.0], [0.0, 1.0, -1.0]])
    table = np.array([2.0, 4.0, 3.0])[:, None] + np.array([-2.0, 0.0, 2.0]) + residual
    found = spread(table)
    assert (found.seed, found.group, found.both) == pytest.approx((0.5, 3.5, 1.5))
    error, freedom = found.error()
    variance = (3 + 12 - 1.5) / 9
    assert error**2 == pytest.approx(variance) == pytest.approx(0.5 / 3 + 3.5 / 3 + 1.5 / 9)
    assert freedom == pytest.approx(variance**2 / ((3 / 9) ** 2 / 2 + (12 / 9) ** 2 / 2 + (1.5 / 9) ** 2 / 4))
    half = stats.t.ppf(0.975, freedom) * error
    interval = found.interval(3.0, 9)
    assert (interval.lo, interval.hi, interval.n) == pytest.approx((3 - half, 3 + half, 9))
    assert found.p_value(half) == pytest.approx(0.05)


def test_components_of_large_tables_are_those_they_were_drawn_with():
    draw = np.random.default_rng(0).normal
    found = spread(3 * draw(size=(300, 1)) + 2 * draw(size=(1, 400)) + draw(size=(300, 400)))
    assert (found.seed, found.group, found.both) == pytest.approx((9, 4, 1), rel=0.2)


def test_trainings_that_agree_have_the_error_of_the_samples_alone():
    values = np.tile(np.random.default_rng(1).normal(size=50), (4, 1))
    found = spread(values)
    assert (found.seed, found.both) == pytest.approx((0, 0), abs=1e-12)
    error, freedom = found.error()
    assert error == pytest.approx(values[0].std(ddof=1) / np.sqrt(50)) and freedom == pytest.approx(49)


def test_trainings_that_agree_by_chance_have_the_t_interval_over_them():
    """Where samples add nothing of their own and the seeds' means agree far better than what is left lets expect,
    Satterthwaite's degrees of freedom would be 0.0002, and the interval 1e150 long."""
    draw = np.random.default_rng(6).normal(size=(3, 200))
    rest = draw - draw.mean(1, keepdims=True) - draw.mean(0) + draw.mean()
    means = np.array([0.101, 0.100, 0.099])
    found = spread(rest + means[:, None])
    error = means.std(ddof=1) / np.sqrt(3)
    assert found.seed < 0 and found.group == 0 and found.error() == pytest.approx((error, 2))
    assert found.interval(0.1, 200).hi == pytest.approx(0.1 + stats.t.ppf(0.975, 2) * error)


def test_nothing_that_varies_is_no_difference_and_one_seed_has_no_interval():
    assert spread(np.zeros((3, 4))).p_value(0.0) == 1.0
    assert spread(np.full((3, 4), 2.0)).p_value(2.0) == 0.0
    alone = spread(np.ones((1, 5)))
    assert np.isnan([alone.error()[0], alone.interval(1.0, 5).lo, alone.p_value(1.0)]).all()


def test_how_many_seeds_would_decide():
    """σ_a = 1 alone: n seeds have p = 0.05 at t(n - 1) = √n × value: 1.5 needs 5 (t 2.776 < 3.35), 4 do not (3.18)."""
    alone = Spread(3, 100, 1.0, 0.0, 0.0)
    assert alone.seeds_for(1.5, 0.05) == 5
    assert stats.t.ppf(0.975, 3) > 2 * 1.5 and np.sqrt(5) * 1.5 > stats.t.ppf(0.975, 4)
    assert Spread(3, 100, 1.0, 100.0, 0.0).seeds_for(1.5, 0.05) is None, "the samples' own error is 1"


def test_pseudo_values_of_a_mean_are_the_groups_means():
    y = np.array([3.0, 5.0, 10.0, 0.0])
    without = [(y.sum() - value) / 3 for value in y]
    assert pseudo_values(y.mean(), without) == pytest.approx(y)


def test_pseudo_values_have_the_jackknifes_interval():
    """Two seeds that agree to the last bit: the two-level error is the jackknife's."""
    y = np.random.default_rng(2).gamma(2.0, size=30)
    without = np.array([np.delete(y, i).std() for i in range(30)])
    found = spread(np.tile(pseudo_values(y.std(), without), (2, 1))).interval(y.std(), 30)
    jackknife = bootstrap.jackknife(y.std(), without, 30)
    assert (found.lo, found.hi) == pytest.approx((jackknife.lo, jackknife.hi))


@pytest.mark.parametrize("seeds", [5, 10])
@pytest.mark.parametrize("of_seeds", [0.0, 0.05, 0.15])
def test_the_interval_covers(seeds, of_seeds):
    rng, hits = np.random.default_rng(3), 0
    for _ in range(600):
        values = 0.5 * rng.normal(size=(1, 60)) + rng.normal(size=(seeds, 60)) + of_seeds * rng.normal(size=(seeds, 1))
        hits += spread(values).interval(float(values.mean()), 60).contains(0.0)
    assert 0.93 <= hits / 600 <= 0.97
