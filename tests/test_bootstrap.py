"""Resampling by group, intervals and verdicts."""

import numpy as np
import pytest
from scipy import stats

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


def test_jackknife_of_a_mean_is_the_known_interval() -> None:
    values = np.random.default_rng(0).normal(size=30)
    left_out = bootstrap.leave_out([str(i) for i in range(30)], 300)
    assert left_out.shape == (30, 30) and (left_out.sum(1) == 29).all()
    found = bootstrap.jackknife(values.mean(), left_out @ values / 29, 30)
    half = 2.0452296421 * values.std(ddof=1) / 30**0.5  # t(29)
    assert (found.lo, found.hi) == pytest.approx((values.mean() - half, values.mean() + half))
    assert np.isnan(bootstrap.jackknife(1.0, np.array([1.0]), 3).lo)


def test_jackknife_leaves_whole_groups_out_in_at_most_so_many_blocks() -> None:
    groups = ["b", "a", "b", "c"]
    assert bootstrap.leave_out(groups, 300).tolist() == [[1, 0, 1, 1], [0, 1, 0, 1], [1, 1, 1, 0]]
    assert bootstrap.leave_out(groups, 2).tolist() == [[1, 0, 1, 0], [0, 1, 0, 1]]


def test_holm_by_hand() -> None:
    assert bootstrap.holm([0.01, 0.04, np.nan, 0.03, 0.005]) == pytest.approx(
        [0.03, 0.06, np.nan, 0.06, 0.02], nan_ok=True
    )
    assert list(bootstrap.holm([])) == [] and list(bootstrap.holm([0.9, 0.8])) == [1.0, 1.0]


def test_p_of_a_difference() -> None:
    resampled = np.random.default_rng(0).normal(2, 1, size=20000)
    assert bootstrap.p_value(1.96, resampled) == pytest.approx(0.05, abs=0.002)
    assert bootstrap.p_value(0.0, np.zeros(5)) == 1.0 and bootstrap.p_value(0.3, np.full(5, 0.3)) == 0.0
    assert np.isnan(bootstrap.p_value(np.nan, resampled))


def test_false_verdicts_of_many_claims_are_rare_only_when_corrected() -> None:
    """240 claims about nothing, 200 times over: how often is at least one called resolved?"""
    z = np.random.default_rng(0).normal(size=(200, 240))
    p = 2 * stats.norm.sf(abs(z))
    assert (p <= 0.05).any(1).mean() > 0.99
    assert np.mean([(bootstrap.holm(row) <= 0.05).any() for row in p]) < 0.09


def test_a_verdict_needs_interval_and_corrected_p() -> None:
    clear = Interval(0.2, 0.1, 0.3, 9)
    assert bootstrap.verdict(clear, 1, p=0.05) == "holds" and bootstrap.verdict(clear, 1, p=0.06) == "not resolved"
