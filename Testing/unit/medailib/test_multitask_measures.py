"""The measures that training and calibration rest on, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from MedAILib.multitask.train.measures import auc, dice, fitted_temperature, fitted_threshold

SCORED = st.lists(st.tuples(st.integers(0, 6), st.booleans()), min_size=2, max_size=30)


def parts(scored: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray]:
    scores, truth = zip(*scored, strict=True)
    return np.array(scores, float), np.array(truth)


@given(SCORED)
def test_the_auc_is_the_share_of_pairs_in_order(scored: list[tuple[int, bool]]) -> None:
    scores, truth = parts(scored)
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[truth] for b in scores[~truth]]
    expected = np.mean(pairs) if pairs else None
    assert auc(scores, truth) == (pytest.approx(expected) if expected is not None else None)


@given(SCORED)
def test_no_threshold_is_better_than_the_fitted_one(scored: list[tuple[int, bool]]) -> None:
    scores, truth = parts([*scored, (3, True), (3, False)])

    def youden(threshold: float) -> float:
        found = scores >= threshold
        return float(found[truth].mean() + (~found[~truth]).mean())

    best = max(youden(threshold) for threshold in np.arange(-0.5, 7.5, 0.5))
    assert youden(fitted_threshold(scores, truth)) == pytest.approx(best)


def test_a_threshold_between_two_groups_is_midway() -> None:
    probabilities = np.array([0.1, 0.2, 0.8, 0.9])
    assert fitted_threshold(probabilities, probabilities > 0.5) == pytest.approx(0.5)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_the_temperature_of_overconfident_answers_is_found(temperature: float) -> None:
    rng = np.random.default_rng(0)
    margin = rng.normal(0, 3, 40_000)
    truth = rng.random(margin.size) < 1 / (1 + np.exp(-margin / temperature))
    logits = np.stack([np.zeros_like(margin), margin], axis=1)
    assert fitted_temperature(logits, truth) == pytest.approx(temperature, rel=0.05)


def test_separable_answers_give_the_lowest_temperature_and_no_error() -> None:
    logits = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert fitted_temperature(logits, np.array([False, True])) == pytest.approx(0.05, rel=1e-3)


def test_dice_of_two_empty_masks_is_one() -> None:
    empty, full = np.zeros((2, 2), bool), np.ones((2, 2), bool)
    assert dice(empty, empty) == 1.0
    assert dice(empty, full) == 0.0
    assert dice(full, np.array([[True, True], [False, False]])) == pytest.approx(2 / 3)
