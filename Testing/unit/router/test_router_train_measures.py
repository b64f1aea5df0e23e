"""Accuracy, AUC, calibration, kappa, thresholds."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from MedMNISTRouterLib.datasets import DatasetTask
from MedMNISTRouterLib.train import measures

EXCLUSIVE = (DatasetTask.MULTI_CLASS, DatasetTask.BINARY, DatasetTask.ORDINAL)


@pytest.mark.parametrize("task", EXCLUSIVE)
def test_probabilities_of_exclusive_classes_sum_to_one(task: DatasetTask) -> None:
    logits = np.array([[1000.0, -1000.0], [0.0, 0.0]])
    found = measures.probabilities(logits, task)
    np.testing.assert_allclose(found.sum(axis=1), 1)
    np.testing.assert_allclose(found[1], 0.5)


def test_probabilities_of_labels_are_independent_and_never_overflow() -> None:
    found = measures.probabilities(np.array([[800.0, -800.0, 0.0]]), DatasetTask.MULTI_LABEL)
    np.testing.assert_allclose(found, [[1.0, 0.0, 0.5]])


@settings(max_examples=6)
@given(temperature=st.floats(0.3, 4.0), several=st.booleans(), seed=st.integers(0, 50))
def test_the_fitted_temperature_finds_the_one_that_answers_were_sharpened_by(
    temperature: float, several: bool, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    honest = rng.normal(0, 2, (1500, 3))
    if several:
        task, labels = DatasetTask.MULTI_LABEL, (rng.random((1500, 3)) < 1 / (1 + np.exp(-honest))).astype(int)
    else:
        task = DatasetTask.MULTI_CLASS
        chance = measures.probabilities(honest, task).cumsum(axis=1)
        labels = (rng.random((1500, 1)) > chance).sum(axis=1).clip(0, 2)
    assert measures.fitted_temperature(honest * temperature, labels, task) == pytest.approx(temperature, rel=0.2)


def test_a_calibration_error_is_the_distance_between_sure_and_right() -> None:
    probability = np.array([[0.1, 0.9]] * 10)
    labels = np.array([1] * 7 + [0] * 3)
    assert measures.expected_calibration_error(probability, labels, DatasetTask.BINARY) == pytest.approx(0.2)


def test_the_calibration_error_of_labels_counts_each_label() -> None:
    probability = np.array([[0.8, 0.2], [0.8, 0.2]])
    labels = np.array([[1, 0], [1, 0]])
    assert measures.expected_calibration_error(probability, labels, DatasetTask.MULTI_LABEL) == pytest.approx(0.2)


def test_kappa_is_one_where_grades_agree_and_zero_for_one_constant_answer() -> None:
    labels = np.array([0, 1, 2, 3, 4, 4])
    assert measures.quadratic_kappa(labels, labels, 5) == pytest.approx(1)
    assert measures.quadratic_kappa(np.full(6, 2), labels, 5) == pytest.approx(0)


def test_kappa_blames_far_errors_more_than_near_ones() -> None:
    labels = np.array([0, 1, 2, 3, 4] * 4)
    near, far = labels.copy(), labels.copy()
    near[0], far[0] = 1, 4
    assert measures.quadratic_kappa(near, labels, 5) > measures.quadratic_kappa(far, labels, 5)


def test_thresholds_of_labels_are_where_f1_is_highest() -> None:
    probability = np.array([[0.05, 0.9], [0.2, 0.8], [0.3, 0.7], [0.02, 0.6]])
    labels = np.array([[0, 1], [1, 0], [1, 0], [0, 0]])
    first, second = measures.fitted_thresholds(probability, labels)
    assert 0.05 < first < 0.2
    assert 0.8 < second < 0.9


def test_a_label_that_nobody_has_keeps_one_half_as_its_threshold() -> None:
    assert measures.fitted_thresholds(np.array([[0.9], [0.2]]), np.zeros((2, 1), int)) == (0.5,)


def test_measures_of_two_classes_take_class_one_as_positive() -> None:
    logits = np.array([[2.0, 0.0], [0.0, 2.0], [0.0, 1.0], [1.0, 0.0]])
    found = measures.measured(logits, np.array([0, 1, 0, 1]), DatasetTask.BINARY, 1.0)
    assert (found["accuracy"], found["sensitivity"], found["specificity"]) == (0.5, 0.5, 0.5)
    assert found["auc"] == pytest.approx(0.75)


def test_measures_of_grades_report_kappa_and_the_error_of_the_expected_grade() -> None:
    logits = 40.0 * np.eye(5)
    found = measures.measured(logits, np.arange(5), DatasetTask.ORDINAL, 1.0)
    assert found["kappa"] == pytest.approx(1)
    assert found["mean_grade_error"] == pytest.approx(0, abs=1e-9)
