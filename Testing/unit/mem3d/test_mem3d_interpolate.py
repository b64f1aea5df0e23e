"""Shape-based interpolation: between references, over gaps, and beyond the ends."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantoms import ball, blob, ellipsoid, tube

from Mem3DPropagateLib.geometry import FOLLOWING, PARTS, STILL, VARIANTS, WHOLE, FittedVariant, choose_variant
from Mem3DPropagateLib.interpolate import FAR_MM, Interpolant, cut_at_area
from Mem3DPropagateLib.shapes import Stack, dice


def a_stack(mask: np.ndarray, slices: list[int], slice_mm: float = 1.0) -> Stack:
    return Stack(np.array(slices), mask[slices], (1.0, 1.0), slice_mm)


def between(fitted: Interpolant | FittedVariant, slices: list[int]) -> np.ndarray:
    return np.stack([fitted.level(index) >= 0 for index in range(slices[0], slices[-1] + 1)])


@given(
    level=st.integers(0, 10_000).map(lambda seed: np.random.default_rng(seed).normal(size=(7, 9)).astype(np.float32)),
    area_px=st.floats(0, 80),
)
def test_a_level_is_cut_at_the_asked_area(level, area_px) -> None:
    found = cut_at_area(level, area_px)
    assert np.count_nonzero(found >= 0) == min(round(area_px), 63)
    assert (found == FAR_MM).all() or np.argmax(found) == np.argmax(level)


@given(seed=st.integers(0, 10_000), variant=st.sampled_from(VARIANTS))
def test_a_level_is_defined_on_every_slice_and_stays_within_the_span(seed, variant) -> None:
    mask = blob(seed, (12, 14, 16))
    slices = sorted({0, 3, 7, 11, int(np.flatnonzero(mask.any(axis=(1, 2)))[0])})
    for reach in (0, 2, None):
        fitted = FittedVariant(variant, a_stack(mask, slices), reach)
        first, last = fitted.span
        assert first <= slices[0] and last >= slices[-1]
        for index in range(-4, 17):
            level = fitted.level(index)
            assert level.shape == (14, 16) and level.dtype == np.float32 and np.isfinite(level).all()
            if not first <= index <= last:
                assert (level < 0).all()


@given(seed=st.integers(0, 10_000), variant=st.sampled_from(VARIANTS))
def test_between_two_equal_slices_the_shape_stays(seed, variant) -> None:
    plane = blob(seed, (1, 14, 16))[0]
    fitted = FittedVariant(variant, Stack(np.array([0, 6]), np.stack([plane, plane]), (1.0, 1.0), 1.0))
    for index in range(7):
        np.testing.assert_array_equal(fitted.level(index) >= 0, plane)


def test_the_area_grows_without_a_dip_between_growing_references() -> None:
    cone = np.stack([ball((1, 60, 60), (0, 30, 30), 4 + n / 2)[0] for n in range(41)])
    areas = between(Interpolant(a_stack(cone, [0, 13, 20, 40]), 0.5), [0, 40]).sum(axis=(1, 2))
    assert (np.diff(areas) >= 0).all()


def leaning(step_px: float) -> np.ndarray:
    """A disc that moves sideways from slice to slice."""
    row, column = np.ogrid[:40, :200]
    return np.stack([(row - 20) ** 2 + (column - 12 - step_px * n) ** 2 <= 81 for n in range(41)])


@pytest.mark.parametrize("step_px", [1, 2, 4])
def test_a_structure_that_moves_sideways_is_followed(step_px) -> None:
    stack = a_stack(leaning(step_px), [0, 40])
    still, half, following = (
        dice(between(FittedVariant(variant, stack), [0, 40]), leaning(step_px)) for variant in (STILL, WHOLE, FOLLOWING)
    )
    assert still < half < following and following > 0.99


def test_a_structure_that_moves_by_parts_of_a_pixel_stays_on_its_line() -> None:
    found = between(FittedVariant(FOLLOWING, a_stack(leaning(0.45), [0, 40])), [0, 40])
    centres = [np.nonzero(plane)[1].mean() for plane in found]
    np.testing.assert_allclose(centres, 12 + 0.45 * np.arange(41), atol=0.6)


# Ends


def test_a_structure_ends_half_way_to_an_empty_reference_on_either_side() -> None:
    mask = np.zeros((31, 30, 30), bool)
    mask[10:21] = ball((1, 30, 30), (0, 15, 15), 9)
    found = between(Interpolant(a_stack(mask, [0, 10, 20, 30]), 0.5), [0, 30])
    assert np.flatnonzero(found.any(axis=(1, 2))).tolist() == list(range(6, 25))


def test_a_lone_slice_between_two_empty_ones_becomes_a_lens() -> None:
    mask = np.zeros((21, 30, 30), bool)
    mask[10] = ball((1, 30, 30), (0, 15, 15), 9)
    found = between(Interpolant(a_stack(mask, [0, 10, 20]), 0.5), [0, 20])
    areas = found.sum(axis=(1, 2))
    assert np.flatnonzero(areas).tolist() == list(range(6, 15))
    np.testing.assert_array_equal(areas, areas[::-1])


@pytest.mark.parametrize("slice_mm", [0.5, 1.0, 3.0])
def test_an_open_end_closes_as_a_ball_of_its_size_would(slice_mm) -> None:
    radius = 12.0
    mask = ellipsoid((61, 40, 40), (30, 20, 20), (radius / slice_mm, radius, radius))
    fitted = Interpolant(a_stack(mask, [30], slice_mm), 0.5, reach=None)
    first, last = fitted.span
    assert abs((30 - first) * slice_mm - radius) <= 1.5 * slice_mm
    assert last - 30 == 30 - first
    assert dice(between(fitted, [0, 60]), mask) > 0.95


def test_an_end_that_already_tapers_closes_sooner_than_a_ball() -> None:
    cone = np.stack([ball((1, 60, 60), (0, 30, 30), max(20 - n, 0.1))[0] for n in range(31)])
    tapering = Interpolant(a_stack(cone, [0, 6, 12]), 0.5, reach=None)
    blunt = Interpolant(a_stack(cone[12:13].repeat(13, axis=0), [0, 6, 12]), 0.5, reach=None)
    assert 12 < tapering.span[1] < blunt.span[1]


def test_a_far_part_that_ends_does_not_end_the_others() -> None:
    shape = (21, 30, 60)
    long, short = tube(shape, (0, 15, 15), (20, 15, 15), 7), tube(shape, (0, 15, 45), (10, 15, 45), 6)
    mask = long | short
    mask[11:, :, 36:] = False
    found = between(FittedVariant(PARTS, a_stack(mask, [0, 10, 20])), [0, 20])
    assert found[:, 15, 15].all()
    assert found[14, 15, 45] and not found[15:, :, 36:].any()


# The choice of a variant


def test_with_three_references_there_is_nothing_to_compare() -> None:
    choice = choose_variant(a_stack(ball((41, 48, 48), (20, 24, 24), 18), [3, 20, 37]))
    assert choice.variant is PARTS and choice.mean_left_out_dice is None


def test_parts_without_a_counterpart_are_taken_as_a_whole_where_nothing_can_be_compared() -> None:
    masks = np.zeros((2, 30, 90), bool)
    masks[0, 5:12, 5:12] = masks[0, 18:25, 40:47] = True
    masks[1, 5:12, 78:85] = masks[1, 18:25, 60:67] = masks[1, 2:5, 2:5] = True
    assert choose_variant(Stack(np.array([0, 10]), masks, (1.0, 1.0), 1.0)).variant is WHOLE


def test_every_inner_reference_is_foretold_by_the_others() -> None:
    slices = [3, 10, 20, 30, 37]
    choice = choose_variant(a_stack(ball((41, 48, 48), (20, 24, 24), 18), slices))
    assert list(choice.left_out_dice) == slices[1:-1]
    assert choice.mean_left_out_dice == pytest.approx(np.mean(list(choice.left_out_dice.values())))
    assert choice.mean_left_out_dice > 0.9


def test_another_variant_is_taken_only_where_it_foretells_the_references_clearly_better() -> None:
    choice = choose_variant(a_stack(leaning(3), [0, 10, 20, 30, 40]))
    assert choice.variant is FOLLOWING and choice.mean_left_out_dice > 0.99
    straight = tube((61, 60, 60), (0, 30, 30), (60, 30, 30), 9)
    assert choose_variant(a_stack(straight, [0, 15, 30, 45, 60])).variant is PARTS


def test_comparing_many_references_leaves_out_a_few_of_them() -> None:
    mask = ball((61, 40, 40), (30, 20, 20), 19)
    choice = choose_variant(a_stack(mask, list(range(12, 49))))
    assert len(choice.left_out_dice) == 8
