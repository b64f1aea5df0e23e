"""Confidence: a number that means expected Dice."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantoms import ball, blob, propagated_one, tube

from Mem3DPropagateLib.confidence import (
    CALIBRATION_FILE,
    FEATURES,
    bracket,
    expected_dice,
    half_width_px,
    load_calibration,
    slice_features,
)
from Mem3DPropagateLib.request import Axis
from Mem3DPropagateLib.shapes import Stack

TUBE = tube((61, 40, 40), (0, 20, 20), (60, 20, 20), 9)


def a_stack(mask: np.ndarray, slices: list[int]) -> Stack:
    return Stack(np.array(slices), mask[slices], (1.0, 1.0), 1.0)


def confidences(segment) -> np.ndarray:
    return np.array([q.confidence for q in segment.slices])


def test_references_are_certain() -> None:
    segment, _ = propagated_one(TUBE, Axis.K, (0, 20, 60))
    assert [q.confidence for q in segment.slices if q.is_reference] == [1.0, 1.0, 1.0]


def test_confidence_falls_from_a_reference_to_the_middle_of_a_gap_and_rises_again() -> None:
    segment, _ = propagated_one(TUBE, Axis.K, (0, 60))
    found = confidences(segment)
    assert (np.diff(found[:31]) < 0).all() and (np.diff(found[30:]) > 0).all()
    np.testing.assert_allclose(found, found[::-1])


def test_the_middle_of_a_wider_gap_is_less_certain() -> None:
    middles = [confidences(propagated_one(TUBE, Axis.K, (30 - n, 30 + n))[0])[n] for n in (2, 5, 10, 20, 30)]
    assert middles == sorted(middles, reverse=True) and middles[0] > middles[-1] + 0.1


def test_confidence_falls_on_and_on_beyond_the_last_reference() -> None:
    segment, _ = propagated_one(TUBE, Axis.K, (0, 20), extend=30)
    assert (np.diff(confidences(segment)[20:]) < 0).all()


def test_one_sided_slices_are_less_certain_than_bracketed_ones() -> None:
    bracketed = propagated_one(TUBE, Axis.K, (20, 30))[0].slices[5]
    beyond = propagated_one(TUBE, Axis.K, (20,), extend=5)[0].slices[-1]
    assert bracketed.distance_to_nearest_mm == beyond.distance_to_nearest_mm == 5
    assert bracketed.confidence > beyond.confidence + 0.05


def test_more_references_never_make_the_whole_less_certain() -> None:
    mask = ball((61, 60, 60), (30, 30, 30), 29)
    means = [
        propagated_one(mask, Axis.K, np.linspace(2, 58, count).round().astype(int))[0].confidence
        for count in (3, 5, 9, 15)
    ]
    assert means == sorted(means) and means[-1] > 0.93


def test_a_thin_structure_is_less_certain_than_a_thick_one() -> None:
    thin = tube((61, 40, 40), (0, 20, 20), (60, 20, 20), 2)
    assert propagated_one(thin, Axis.K, (0, 60))[0].confidence < propagated_one(TUBE, Axis.K, (0, 60))[0].confidence


def test_confidence_follows_millimetres_not_slices() -> None:
    fine, coarse = (
        propagated_one(TUBE, Axis.K, (0, 20), np.diag([1.0, 1.0, slice_mm, 1.0]))[0].confidence
        for slice_mm in (0.5, 5.0)
    )
    assert fine > coarse + 0.1


@given(seed=st.integers(0, 10_000), other=st.integers(0, 10_000), left_out=st.none() | st.floats(0, 1))
def test_the_features_of_any_slice_are_finite_and_its_confidence_a_share(seed, other, left_out) -> None:
    mask, here = blob(seed, (9, 14, 16)), blob(other, (1, 14, 16))[0]
    slices = [n for n in (0, 2, 5, 8) if n in (0, 8) or mask[n].any()]
    if not mask[slices].any():
        mask[0, 5, 5] = True
    stack = a_stack(mask, slices)
    for index in sorted(set(range(9)) - set(slices)):
        empty = expected_dice(stack, index, np.zeros_like(here), left_out)
        assert 0.0 <= empty <= 1.0
        if bracket(stack.slices, index).only(stack.holds).positions:
            features = slice_features(stack, index, here, left_out)
            assert features.shape == (len(FEATURES),) and np.isfinite(features).all()
            assert 0.0 <= expected_dice(stack, index, here, left_out) <= 1.0


def test_an_empty_slice_between_two_empty_references_is_certain() -> None:
    mask = TUBE.copy()
    mask[20:41] = False
    stack = a_stack(mask, [0, 10, 20, 40, 50, 60])
    nothing = np.zeros((40, 40), bool)
    assert expected_dice(stack, 30, nothing, None) == 1.0


def test_emptiness_is_the_less_certain_the_nearer_the_drawn_reference_is() -> None:
    mask = TUBE.copy()
    mask[20:] = False
    stack = a_stack(mask, [0, 10, 20])
    found = [expected_dice(stack, n, np.zeros((40, 40), bool), None) for n in range(11, 20)]
    assert found == sorted(found) and found[0] == pytest.approx(0.1) and found[-1] == pytest.approx(0.9)


def test_brackets_name_the_nearest_reference_on_each_side() -> None:
    slices = np.array([3, 10, 20])
    assert (bracket(slices, 12).positions, bracket(slices, 12).steps) == ((1, 2), (2, 8))
    assert (bracket(slices, 1).positions, bracket(slices, 1).steps) == ((0,), (2,))
    assert (bracket(slices, 25).positions, bracket(slices, 25).steps) == ((2,), (5,))


def test_the_half_width_of_a_disc_is_about_its_radius_and_of_a_line_about_its_thickness() -> None:
    disc = ball((1, 60, 60), (0, 30, 30), 20)[0]
    line = np.zeros((60, 60), bool)
    line[10, :] = True
    assert half_width_px(disc) == pytest.approx(20, rel=0.2)
    assert half_width_px(line) == pytest.approx(2.0)


def test_the_shipped_calibration_has_a_weight_for_every_feature_and_says_where_it_is_from() -> None:
    stored = json.loads(CALIBRATION_FILE.read_text(encoding="utf-8"))
    assert set(stored["weights"]) == set(FEATURES)
    assert "confidence.py" in stored["fitted_by"] and stored["fitted_on"] and stored["slices"] > 10_000
    calibration = load_calibration()
    assert len(calibration.weights) == len(FEATURES)
    assert np.isfinite([calibration.intercept, *calibration.weights]).all()


def test_distance_and_disagreement_never_raise_the_confidence() -> None:
    weights = dict(zip(FEATURES, load_calibration().weights, strict=True))
    for name in FEATURES[:6]:
        assert weights[name] <= 0.0, name
