"""The kernel video distance against the plain double loop and closed forms."""

import numpy as np
import pandas as pd
import pytest

from vans.score import bootstrap, kvd, score
from vans.score.score import Resampling


def _loop(a: np.ndarray, b: np.ndarray, taken: list[int]) -> float:
    """Mean over ordered pairs of different samples, of a resample `taken`."""

    def k(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / len(x) + 1) ** 3)

    pairs = [(i, j) for p, i in enumerate(taken) for q, j in enumerate(taken) if p != q and i != j]
    return float(np.mean([k(a[i], a[j]) + k(b[i], b[j]) - k(a[i], b[j]) - k(a[j], b[i]) for i, j in pairs]))


@pytest.mark.parametrize("taken", [[0, 1, 2, 3, 4], [0, 0, 1, 3, 3], [4, 2, 2, 2, 2]])
def test_equals_the_double_loop(taken: list[int]) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(5, 3)), rng.normal(0.3, 2.0, size=(5, 3))
    weights = np.bincount(taken, minlength=5)[None].astype(float)
    assert kvd.weighted(a, b, weights) == pytest.approx([_loop(a, b, taken)])
    assert kvd.kernel_distance(a, b) == pytest.approx(_loop(a, b, [0, 1, 2, 3, 4]))


def test_unbiased_where_answer_and_truth_depend_on_each_other() -> None:
    """In one dimension the squared distance is 3 (Δm1)² + 3 (Δm2)² + (Δm3)² of the raw moments m."""
    rng = np.random.default_rng(0)
    moments = np.array([0.5 + 0.0, 0.25 + 0.25, 0.125 + 3 * 0.5 * 0.25])  # of N(0.5, 0.5²)
    true = float(np.array([3, 3, 1]) @ (moments - np.array([0, 0.25, 0])) ** 2)  # and N(0, 0.5²)
    found = []
    for _ in range(4000):
        b = rng.normal(0, 0.5, (6, 1))
        found.append(kvd.kernel_distance(b + 0.5, b))  # six samples, each the copy of its truth moved by 0.5
    error = np.std(found) / len(found) ** 0.5
    assert abs(np.mean(found) - true) < 3 * error and error < 0.05 * true


def test_the_truth_itself_is_at_0_and_one_sample_has_no_distance() -> None:
    a = np.random.default_rng(2).normal(size=(6, 4))
    assert kvd.kernel_distance(a, a.copy()) == 0
    assert np.isnan(kvd.weighted(a, a, np.array([[1.0, 0, 0, 0, 0, 0], [3.0, 0, 0, 0, 0, 0]]))).all()


def test_the_detector_s_scale_does_not_matter() -> None:
    rng = np.random.default_rng(5)
    a, b = rng.normal(0.5, 1, (9, 4)), rng.normal(size=(9, 4))
    unit = float(np.sqrt((b**2).mean()))
    assert kvd.kvd(a, b) == pytest.approx(kvd.kernel_distance(a / unit, b / unit))
    assert kvd.kvd(9 * a, 9 * b) == pytest.approx(kvd.kvd(a, b))
    assert kvd.kvd(a, 0 * b) == pytest.approx(kvd.kernel_distance(a, 0 * b))


@pytest.mark.parametrize("b", [np.zeros((5, 4)), np.zeros((6, 3)), np.full((6, 4), np.nan)])
def test_what_cannot_be_compared_raises(b: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"row i of one sample|nan or inf"):
        kvd.kernel_distance(np.zeros((6, 4)), b)


def _scored(a: np.ndarray, b: np.ndarray, resampling: Resampling) -> dict:
    frame = pd.DataFrame({"id": range(len(a)), "kind": "procedural", "group": [str(i // 2) for i in range(len(a))]})
    sets = np.stack([a, b]).astype(np.float32)
    return score.summarise(frame, {"fvd": sets, "kvd": sets}, resampling)[0]["all"]


def test_an_unbiased_distance_may_have_an_end_below_0() -> None:
    rng = np.random.default_rng(3)
    seen, true = rng.normal(size=(2, 40, 4))
    found = _scored(seen, true, Resampling(0, 100, 20))
    assert found["fvd"]["lo"] >= 0 and found["kvd"]["lo"] < 0 < found["kvd"]["hi"]


def test_the_jackknife_covers_the_true_distance() -> None:
    """Of N(0.5, 1) against N(0, 1) in 4 dimensions, answers tied to their truths; 95 % wanted."""
    rng, inside = np.random.default_rng(4), 0
    big = rng.normal(size=(2, 200_000, 4))
    one, two = 0.6 * big[0] + 0.8 * big[1] + 0.5, big[0]
    true = kvd.kernel_distance(one[:3000], two[:3000])
    groups = [str(i // 2) for i in range(128)]
    left_out = np.concatenate([np.ones((1, 128)), bootstrap.leave_out(groups, 300)])
    for start in range(3000, 3000 + 150 * 128, 128):
        value, *without = kvd.weighted(one[start : start + 128], two[start : start + 128], left_out)
        inside += bootstrap.jackknife(value, np.array(without), 128).contains(true)
    assert 0.88 <= inside / 150 <= 0.99
