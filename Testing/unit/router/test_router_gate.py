"""The Mahalanobis gate, on features with known statistics."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from MedAILib.errors import FileMissing, InvalidWeights
from MedMNISTRouterLib.gate import MahalanobisGate


def features(images: int, count: int, seed: int = 0, classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    centres = np.random.default_rng(99).normal(0, 5, (classes, count))
    turned = np.linalg.qr(np.random.default_rng(98).normal(0, 1, (count, count)))[0]
    mixing = turned * np.linspace(0.5, 2, count)
    labels = rng.integers(0, classes, images)
    return centres[labels] + rng.normal(0, 1, (images, count)) @ mixing, labels


def test_the_distance_is_mahalanobis_of_the_nearest_class() -> None:
    x, labels = features(4000, 6)
    gate = MahalanobisGate.fit(x, labels)
    means = np.stack([x[labels == k].mean(axis=0) for k in range(3)])
    centred = x - means[labels]
    inverse = np.linalg.inv(centred.T @ centred / len(x))
    probe = np.random.default_rng(1).normal(0, 6, (50, 6))
    expected = np.min([np.einsum("ni,ij,nj->n", probe - m, inverse, probe - m) for m in means], axis=0)

    assert gate.distances(probe) == pytest.approx(np.sqrt(expected / 6), rel=0.02)


def test_a_typical_image_lies_at_about_one_whatever_the_number_of_features() -> None:
    for count in (8, 64, 300):
        x, labels = features(3000, count)
        held_out, _ = features(500, count, seed=1)
        typical = np.median(MahalanobisGate.fit(x, labels).distances(held_out))
        assert 0.8 < typical < 1.3, count


def test_the_threshold_lets_the_asked_share_of_held_out_images_pass() -> None:
    x, labels = features(2000, 20)
    gate = MahalanobisGate.fit(x, labels)
    held_out, _ = features(1000, 20, seed=1)
    threshold = gate.threshold(held_out, 0.95)

    assert (gate.distances(held_out) <= threshold).mean() == pytest.approx(0.95, abs=0.002)


def test_what_leaves_the_space_of_the_training_images_is_far_although_few_directions_are_kept() -> None:
    rng = np.random.default_rng(0)
    basis = np.linalg.qr(rng.normal(0, 1, (200, 10)))[0]
    x = rng.normal(0, 3, (500, 10)) @ basis.T + rng.normal(0, 0.01, (500, 200))
    gate = MahalanobisGate.fit(x, rank=16)
    outside = x[:1] + 2 * np.linalg.qr(np.c_[basis, rng.normal(0, 1, (200, 1))])[0][:, -1]

    assert gate.distances(outside)[0] > 5 * gate.distances(x[:50]).max()


def test_more_features_than_images_give_no_infinite_distances() -> None:
    x = np.random.default_rng(0).normal(0, 1, (30, 100))
    gate = MahalanobisGate.fit(x, np.arange(30) % 2)

    assert np.isfinite(gate.distances(np.random.default_rng(1).normal(0, 1, (10, 100)))).all()


def test_features_that_never_vary_do_not_divide_by_zero() -> None:
    x = np.zeros((20, 4))
    x[:, 0] = np.arange(20)
    distances = MahalanobisGate.fit(x).distances(np.array([[9.5, 0, 0, 0], [9.5, 1, 0, 0]]))

    assert np.isfinite(distances).all()
    assert distances[1] > 10 * distances[0]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_feature_that_is_no_number_is_infinitely_far(bad: float) -> None:
    x, labels = features(100, 5)
    probe = x[:2].copy()
    probe[1, 3] = bad
    distances = MahalanobisGate.fit(x, labels).distances(probe)

    assert np.isfinite(distances[0])
    assert distances[1] == np.inf


@given(count=st.integers(2, 40), rank=st.integers(1, 50), classes=st.integers(1, 4), seed=st.integers(0, 99))
def test_a_gate_comes_back_from_its_file_to_the_bit(
    count: int, rank: int, classes: int, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    x, labels = features(60, count, seed, classes)
    gate = MahalanobisGate.fit(x, labels, rank=rank)
    path = tmp_path_factory.mktemp("gate") / "Tür 1.npz"
    gate.save(path)

    assert np.array_equal(MahalanobisGate.load(path).distances(x), gate.distances(x))


@pytest.mark.parametrize("content", [b"", b"no zip", b"PK\x03\x04 cut short"])
def test_a_damaged_file_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "gate.npz").write_bytes(content)
    with pytest.raises(InvalidWeights, match=r"gate\.npz"):
        MahalanobisGate.load(tmp_path / "gate.npz")


def test_arrays_that_do_not_fit_each_other_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "gate.npz"
    np.savez(path, means=np.zeros((2, 5)), directions=np.zeros((4, 3)), deviations=np.ones(3), rest=0.0)
    with pytest.raises(InvalidWeights, match="do not fit"):
        MahalanobisGate.load(path)


def test_a_missing_file_is_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises(FileMissing):
        MahalanobisGate.load(tmp_path / "gate.npz")


def test_features_that_are_no_numbers_cannot_be_fitted() -> None:
    with pytest.raises(ValueError, match="finite"):
        MahalanobisGate.fit(np.array([[1.0, np.nan], [0.0, 1.0]]))


def test_kinds_that_vary_more_get_more_room_when_the_gate_is_scaled() -> None:
    rng = np.random.default_rng(0)
    kinds = np.arange(400) % 2
    x = rng.normal(0, 1, (400, 6)) * np.where(kinds, 1.4, 1.0)[:, None] + 20.0 * kinds[:, None]
    plain = MahalanobisGate.fit(x, kinds)
    scaled = plain.scaled(x, kinds, np.array([0, 1]))
    shares = [
        [np.mean(gate.distances(x[kinds == kind]) <= gate.threshold(x)) for kind in (0, 1)] for gate in (plain, scaled)
    ]

    assert plain.scales is None
    assert scaled.scales is not None
    assert scaled.scales[1] > 1 > scaled.scales[0]
    assert shares[0][0] - shares[0][1] > shares[1][0] - shares[1][1] >= 0


def test_kinds_of_which_few_images_were_held_out_keep_the_common_scale() -> None:
    x, labels = features(100, 5)
    scaled = MahalanobisGate.fit(x, labels).scaled(x[:19], np.zeros(19, int), np.arange(len(np.unique(labels))))

    assert scaled.scales is not None
    assert (scaled.scales == 1).all()


def test_scales_come_back_from_the_file_and_must_fit(tmp_path: Path) -> None:
    x, labels = features(100, 5)
    gate = MahalanobisGate.fit(x, labels).scaled(x, labels, np.unique(labels))
    gate.save(tmp_path / "gate.npz")
    assert np.array_equal(MahalanobisGate.load(tmp_path / "gate.npz").distances(x), gate.distances(x))

    arrays = dict(np.load(tmp_path / "gate.npz"))
    for wrong in (np.ones(7, np.float32), np.zeros(len(gate.means), np.float32)):
        np.savez(tmp_path / "wrong.npz", **{**arrays, "scales": wrong})
        with pytest.raises(InvalidWeights, match="do not fit"):
            MahalanobisGate.load(tmp_path / "wrong.npz")
