"""From raw numbers to probabilities: slopes, intercepts, thresholds, and what is said where they cannot be had."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from CTReportLib.nets.heads_calibration import (
    UNDECIDED,
    UNKNOWN,
    calibration_error,
    described,
    fit_calibration,
    probabilities,
)
from MedAILib.errors import InputError
from MedAILib.models.heads import Activation, ClassInfo, Head, HeadTask
from MedAILib.models.records import Problems


def sigmoid(values: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-values))


def a_multi_label_head(count: int) -> Head:
    classes = tuple(ClassInfo(index, f"finding {index}") for index in range(count))
    return Head("findings", HeadTask.MULTI_LABEL, classes, Activation.SIGMOID)


def drawn(slopes: list[float], intercepts: list[float], count: int = 4000, seed: int = 0) -> tuple[np.ndarray, ...]:
    """Raw numbers, and labels drawn with the probabilities that these slopes and intercepts make of them."""
    random = np.random.default_rng(seed)
    raw = random.normal(0, 2, (count, len(slopes)))
    return raw, (random.random(raw.shape) < sigmoid(raw * slopes + intercepts)).astype(int)


def test_slopes_and_intercepts_that_made_the_labels_are_found_again() -> None:
    slopes, intercepts = [0.4, 1.0, 3.0], [-2.0, 0.0, 1.0]
    fitted = fit_calibration(*drawn(slopes, intercepts))
    assert [item.slope for item in fitted] == pytest.approx(slopes, rel=0.12)
    assert [item.intercept for item in fitted] == pytest.approx(intercepts, abs=0.2)
    assert all(item.calibrated for item in fitted)
    raw, labels = drawn(slopes, intercepts, seed=1)
    found = probabilities(described(a_multi_label_head(3), fitted), raw)
    for index in range(3):
        assert calibration_error(found[:, index], labels[:, index]) < 0.03
    assert calibration_error(sigmoid(raw[:, 0]), labels[:, 0]) > 0.15


def test_the_error_is_told_before_and_after() -> None:
    (item,) = fit_calibration(*drawn([0.3], [-1.5]))
    assert item.error_before > 0.15
    assert item.error_after < 0.03
    assert item.positives + item.negatives == 4000


def test_the_fit_is_the_one_of_largest_likelihood() -> None:
    raw, labels = drawn([0.7], [-0.5], count=300)
    (item,) = fit_calibration(raw, labels)
    positives = labels.sum()
    wanted = np.where(labels == 1, (positives + 1) / (positives + 2), 1 / (300 - positives + 2))

    def loss(slope: float, intercept: float) -> float:
        chance = sigmoid(slope * raw + intercept)
        return -float((wanted * np.log(chance) + (1 - wanted) * np.log(1 - chance)).sum())

    best = loss(item.slope, item.intercept)
    for d_slope, d_intercept in ((0.01, 0), (-0.01, 0), (0, 0.01), (0, -0.01), (0.01, 0.01), (-0.01, 0.01)):
        assert loss(item.slope + d_slope, item.intercept + d_intercept) > best


def test_findings_that_are_told_apart_perfectly_keep_finite_numbers() -> None:
    raw = np.concatenate([np.linspace(-9, -1, 30), np.linspace(1, 9, 30)])[:, None] * 1000
    (item,) = fit_calibration(raw, (raw > 0).astype(int))
    assert np.isfinite([item.slope, item.intercept]).all()
    assert item.calibrated
    assert ((sigmoid(item.slope * raw + item.intercept) >= item.threshold) == (raw > 0)).all()


def test_a_finding_with_too_few_volumes_is_marked_and_takes_the_slope_of_all() -> None:
    raw, labels = drawn([0.5, 0.5, 0.5], [0.0, 0.0, 0.0])
    labels[:, 1] = 0
    labels[:9, 1] = 1
    labels[:, 2] = UNKNOWN
    fitted = fit_calibration(raw, labels)
    assert [item.calibrated for item in fitted] == [True, False, False]
    assert (fitted[1].positives, fitted[2].positives, fitted[2].negatives) == (9, 0, 0)
    assert fitted[1].slope == fitted[2].slope
    assert (fitted[1].threshold, fitted[1].intercept) == (UNDECIDED, 0.0)
    assert np.isnan(fitted[2].error_after)
    head = described(a_multi_label_head(3), fitted)
    assert head.uncalibrated == ("finding 1", "finding 2")
    assert head.calibrated_on


def test_numbers_that_fall_with_the_finding_are_not_turned_round() -> None:
    raw, labels = drawn([-1.0, 1.0], [0.0, 0.0], count=500)
    fitted = fit_calibration(raw, labels)
    assert [item.calibrated for item in fitted] == [False, True]
    assert fitted[0].slope > 0


def test_a_head_of_which_nothing_could_be_calibrated_does_not_claim_to_be() -> None:
    raw, labels = drawn([1.0], [0.0], count=12)
    head = described(a_multi_label_head(1), fit_calibration(raw, labels, fewest=10))
    assert (head.calibrated_on, head.uncalibrated, head.thresholds) == ("", (), (UNDECIDED,))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(25, 60), st.integers(2, 12), st.sampled_from([0.5, 0.9, 1.0]))
def test_thresholds_are_the_best_there_are(seed: int, count: int, levels: int, sensitivity: float) -> None:
    random = np.random.default_rng(seed)
    raw = random.integers(0, levels, (count, 1)).astype(float)  # many equal ones
    labels = (random.random((count, 1)) < 0.2 + 0.6 * raw / levels).astype(int)
    (best,) = fit_calibration(raw, labels, fewest=3)
    (sure,) = fit_calibration(raw, labels, fewest=3, sensitivity=sensitivity)
    if not best.calibrated:
        return
    found = sigmoid(best.slope * raw + best.intercept)

    def f1(threshold: float) -> float:
        taken = found >= threshold
        return 2 * float((taken & (labels == 1)).sum()) / float(taken.sum() + labels.sum())

    assert f1(best.threshold) == pytest.approx(max(f1(value) for value in np.unique(found)))
    hits = float(((found >= sure.threshold) & (labels == 1)).sum()) / labels.sum()
    assert hits >= sensitivity - 1e-9
    larger = [value for value in np.unique(found) if value > sure.threshold]
    if len(larger) > 1:
        assert float(((found >= larger[1]) & (labels == 1)).sum()) / labels.sum() < sensitivity


def test_the_calibration_error_is_the_gap_weighted_by_volumes() -> None:
    probability = np.array([0.05, 0.05, 0.95, 0.95, 1.0])
    labels = np.array([0, 1, 1, 1, 1])
    assert calibration_error(probability, labels) == pytest.approx((2 * 0.45 + 3 * abs(2.9 / 3 - 1)) / 5)
    assert np.isnan(calibration_error(np.empty(0), np.empty(0)))


def test_numbers_beyond_any_exponent_become_probabilities_without_a_warning() -> None:
    with np.errstate(all="raise", under="ignore"):
        found = probabilities(a_multi_label_head(2), np.array([[1e5, -1e5]]))
    assert found.tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize(
    ("raw", "labels", "sensitivity", "said"),
    [
        (np.zeros((3, 2)), np.zeros((3, 1)), None, "shape"),
        (np.zeros(3), np.zeros(3), None, "shape"),
        (np.full((3, 1), np.nan), np.zeros((3, 1)), None, "not finite"),
        (np.zeros((3, 1)), np.full((3, 1), 2), None, "labels must be"),
        (np.zeros((3, 1)), np.zeros((3, 1)), 0.0, "sensitivity"),
        (np.zeros((3, 1)), np.zeros((3, 1)), 1.5, "sensitivity"),
    ],
)
def test_what_cannot_be_calibrated_is_said(
    raw: np.ndarray, labels: np.ndarray, sensitivity: float | None, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        fit_calibration(raw, labels, sensitivity=sensitivity)


def test_a_calibration_belongs_to_its_own_head_only() -> None:
    fitted = fit_calibration(*drawn([1.0, 1.0], [0.0, 0.0], count=100))
    binary = Head("b", HeadTask.BINARY, (ClassInfo(0, "no"), ClassInfo(1, "yes")), Activation.SIGMOID)
    for wrong in (a_multi_label_head(3), binary):
        with pytest.raises(InputError):
            described(wrong, fitted)
    with pytest.raises(InputError):
        probabilities(a_multi_label_head(2), np.zeros((1, 3)))
    with pytest.raises(InputError, match="finite: False"):
        probabilities(a_multi_label_head(1), np.array([[np.inf]]))


def test_a_description_with_a_calibration_that_cannot_be_names_each_problem() -> None:
    head = a_multi_label_head(2)
    assert not _problems(Head(**{**vars(head), "slopes": (1.0, 2.0), "intercepts": (0.0, 0.0)}))
    wrong = Head(**{**vars(head), "slopes": (1.0, -2.0), "intercepts": (0.0,), "uncalibrated": ("no such",)})
    text = " ".join(_problems(wrong))
    for part in ("$.slopes", "$.intercepts", "$.uncalibrated"):
        assert part in text
    binary = Head("b", HeadTask.BINARY, (ClassInfo(0, "no"), ClassInfo(1, "yes")), slopes=(1.0, 1.0))
    assert any("multi-label head only" in line for line in _problems(binary))


def _problems(head: Head) -> list[str]:
    problems = Problems()
    head.check("$", problems)
    return list(problems)
