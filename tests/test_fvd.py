"""The Fréchet distance against closed forms and the general matrix square root; the I3D file's checks."""

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from vans.errors import UserError
from vans.models.detector import I3D
from vans.score import bootstrap, fvd


def _by_square_root(a: np.ndarray, b: np.ndarray) -> float:
    """The textbook formula."""
    cov_a, cov_b = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    gap = a.mean(0) - b.mean(0)
    return float(gap @ gap + np.trace(cov_a + cov_b - 2 * sqrtm(cov_a @ cov_b).real))


def test_one_dimension_closed_form() -> None:
    a, b = (
        np.array([[1.0], [3.0]]),
        np.array([[10.0], [16.0]]),
    )  # means 2 and 13, deviations sqrt 2 and sqrt 18
    assert fvd.frechet_distance(a, b) == pytest.approx(11**2 + (18**0.5 - 2**0.5) ** 2)


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 12), (40, 60, 39), (300, 300, 3)])
def test_equals_the_matrix_square_root_where_that_is_sound(n: int, m: int, d: int) -> None:
    rng = np.random.default_rng(0)
    a = rng.normal(size=(n, d)) @ rng.normal(size=(d, d))
    b = rng.normal(size=(m, d)) @ rng.normal(size=(d, d)) + 0.5
    assert fvd.frechet_distance(a, b) == pytest.approx(_by_square_root(a, b), rel=1e-6)


def test_fewer_samples_than_features() -> None:
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=(8, 50)), rng.normal(size=(8, 50))
    distance = fvd.frechet_distance(a, b)
    cov = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    eps = np.eye(50) * 1e-10
    gap = a.mean(0) - b.mean(0)
    general = gap @ gap + np.trace(cov[0] + cov[1] - 2 * sqrtm((cov[0] + eps) @ (cov[1] + eps)).real)
    assert distance == pytest.approx(general, rel=1e-3)


def test_properties() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=(64, 10)), rng.normal(size=(64, 10)) * 2
    turn = np.linalg.qr(rng.normal(size=(10, 10)))[0]
    assert fvd.frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert fvd.frechet_distance(a, b) == pytest.approx(fvd.frechet_distance(b, a))
    assert fvd.frechet_distance(a @ turn, b @ turn) == pytest.approx(fvd.frechet_distance(a, b))
    assert fvd.frechet_distance(a, a + 3) == pytest.approx(10 * 9)
    constant = np.ones((5, 10))
    assert fvd.frechet_distance(constant, 2 * constant) == pytest.approx(10)


@pytest.mark.parametrize(
    ("a", "b", "match"),
    [
        (np.zeros((1, 3)), np.zeros((4, 3)), "two samples"),
        (np.zeros((4, 3)), np.zeros((4, 2)), "features must be"),
        (np.full((4, 3), np.nan), np.zeros((4, 3)), "nan"),
    ],
)
def test_bad_features_raise(a: np.ndarray, b: np.ndarray, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        fvd.frechet_distance(a, b)


def test_resampled_distances_take_pairs_together() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(size=(6, 2)), rng.normal(size=(6, 2))
    weights = np.array([[1, 1, 1, 1, 1, 1], [2, 0, 3, 0, 0, 1], [1, 0, 0, 0, 0, 0]], float)
    found = fvd.resampled_distances(a, b, weights)
    rows = [0, 0, 2, 2, 2, 5]
    assert found[0] == pytest.approx(fvd.frechet_distance(a, b))
    assert found[1] == pytest.approx(fvd.frechet_distance(a[rows], b[rows]))
    assert np.isnan(found[2])


def test_interval_of_one_arm_has_the_known_width() -> None:
    """In one dimension the distance is (mean gap)² + (gap of deviations)²; far apart, its standard error is that of the
    mean gap times 2 gap."""
    rng = np.random.default_rng(0)
    b = rng.normal(size=(400, 1))
    a = b + 5 + 0.5 * rng.normal(size=(400, 1))
    left_out = fvd.resampled_distances(a, b, bootstrap.leave_out([str(i) for i in range(400)], 400))
    found = bootstrap.jackknife(fvd.frechet_distance(a, b), left_out, 400)
    gap = (a - b).mean()
    assert found.hi - found.lo == pytest.approx(2 * 1.966 * 2 * gap * (a - b).std(ddof=1) / 20, rel=0.02)


def test_interval_of_one_arm_covers_what_the_bootstrap_overcovers() -> None:
    """The expected distance at this n, of 16 features of one distribution: the bootstrap's interval is about twice as
    wide as it should be, the jackknife's nearly right."""
    rng = np.random.default_rng(0)
    n = 48
    names = [str(i) for i in range(n)]
    left_out, draws = bootstrap.leave_out(names, n), bootstrap.draws(names, 40, 0)

    def pair() -> tuple[np.ndarray, np.ndarray]:
        true = rng.normal(size=(n, 16))
        return 0.8 * true + 0.6 * rng.normal(size=(n, 16)) + 0.15, true

    values = [fvd.frechet_distance(*pair()) for _ in range(400)]
    right = 2 * 1.96 * np.std(values)
    hits, narrow, wide = [], [], []
    for _ in range(60):
        a, b = pair()
        found = bootstrap.jackknife(fvd.frechet_distance(a, b), fvd.resampled_distances(a, b, left_out), n)
        hits.append(found.contains(float(np.mean(values))))
        narrow.append(found.hi - found.lo)
        old = bootstrap.percentile(found.value, fvd.resampled_distances(a, b, draws), n, centre=True)
        wide.append(old.hi - old.lo)
    assert np.mean(hits) >= 0.93
    assert 0.9 < np.mean(narrow) / right < 1.5 < np.mean(wide) / right


def test_warnings_for_few_samples() -> None:
    assert "no full rank" in (fvd.few_samples(64, 64) or "")
    assert "biased" in (fvd.few_samples(100, 64) or "")
    assert fvd.few_samples(640, 64) is None


class _Stub(torch.nn.Module):
    """Takes the options of the published file; its features are the mean colours, to see what reached it."""

    def forward(self, x, rescale: bool, resize: bool, return_features: bool):  # type: ignore[no-untyped-def]
        if not (rescale and return_features):
            raise RuntimeError("wrong options")
        return x.mean(dim=[2, 3, 4])


@pytest.fixture
def network(tmp_path: Path) -> tuple[Path, str]:
    path = tmp_path / "i3d.pt"
    torch.jit.save(torch.jit.script(_Stub()), str(path))
    return path, hashlib.sha256(path.read_bytes()).hexdigest()


def test_i3d_gets_channels_first_in_0_to_255(network: tuple[Path, str]) -> None:
    detector = I3D(*network)
    clips = np.zeros((3, 10, 8, 8, 3), np.uint8)
    clips[1, ..., 0], clips[2, ..., 2] = 255, 128
    found = detector.features(torch.from_numpy(clips), batch=2)
    assert found.numpy() == pytest.approx(np.array([[0, 0, 0], [255, 0, 0], [0, 0, 128]]))
    assert "I3D" in detector.name and "224" in detector.name and "squashed" in detector.name


def test_i3d_is_not_loaded_unless_its_checksum_fits(
    network: tuple[Path, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, _ = network
    monkeypatch.setattr(torch.jit, "load", lambda *a, **k: pytest.fail("loaded before the check"))
    with pytest.raises(UserError, match="sha256"):
        I3D(path, "0" * 64)
    with pytest.raises(UserError, match="missing"):
        I3D(tmp_path / "absent.pt", "0" * 64)
