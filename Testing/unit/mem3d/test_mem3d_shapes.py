"""Plane shapes: distances, windows, and the tracks of separate parts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from phantoms import ball

from Mem3DPropagateLib.shapes import (
    MOST_TRACKS,
    Stack,
    centre_px,
    dice,
    equivalent_radius_mm,
    signed_distance_mm,
    tracks,
    window_around,
)


def a_stack(masks: np.ndarray) -> Stack:
    return Stack(np.arange(len(masks)) * 5, masks, (1.0, 1.0), 1.0)


def discs(*circles: tuple[float, float, float], shape: tuple[int, int] = (40, 60)) -> np.ndarray:
    """Discs (row, column, radius) in one plane."""
    row, column = np.ogrid[: shape[0], : shape[1]]
    return np.logical_or.reduce([(row - r) ** 2 + (column - c) ** 2 <= radius**2 for r, c, radius in circles])


masks_of_noise = st.builds(
    lambda seed, count, share: np.random.default_rng(seed).random((count, 12, 14)) < share,
    st.integers(0, 10_000),
    st.integers(1, 5),
    st.sampled_from([0.02, 0.2, 0.5, 0.95]),
)


@given(mask=masks_of_noise.map(lambda masks: masks[0]).filter(lambda mask: mask.any()))
def test_a_signed_distance_is_positive_exactly_inside(mask) -> None:
    distance = signed_distance_mm(mask, (0.8, 1.5))
    assert distance.dtype == np.float32
    np.testing.assert_array_equal(distance > 0, mask)
    assert np.abs(distance).min() >= 0.39


def test_a_signed_distance_is_in_millimetres_on_both_axes() -> None:
    mask = np.zeros((21, 21), bool)
    mask[8:13, 8:13] = True
    distance = signed_distance_mm(mask, (2.0, 0.5))
    assert distance[10, 10] == pytest.approx(1.5 - 0.25)  # three columns of half a millimetre to the side
    assert distance[15, 10] == pytest.approx(0.25 - 6.0)


def test_centre_and_radius_of_a_disc() -> None:
    mask = discs((12, 31, 9))
    np.testing.assert_allclose(centre_px(mask), (12, 31))
    assert equivalent_radius_mm(mask.sum(), (1.0, 1.0)) == pytest.approx(9, abs=0.1)
    assert equivalent_radius_mm(mask.sum(), (2.0, 0.5)) == pytest.approx(9, abs=0.1)


def test_dice_of_two_empty_masks_is_perfect() -> None:
    empty, full = np.zeros((3, 3), bool), np.ones((3, 3), bool)
    assert (dice(empty, empty), dice(empty, full), dice(full, full)) == (1.0, 0.0, 1.0)


@given(masks=masks_of_noise.filter(lambda masks: masks.any()))
def test_a_window_holds_everything_drawn_and_stays_in_the_plane(masks) -> None:
    rows, columns = window_around(masks)
    assert masks[:, rows, columns].sum() == masks.sum()
    assert 0 <= rows.start < rows.stop <= 12 and 0 <= columns.start < columns.stop <= 14


@given(masks=masks_of_noise.filter(lambda masks: masks.any()))
def test_tracks_take_every_pixel_once_and_cut_no_component(masks) -> None:
    from scipy import ndimage

    parts = tracks(a_stack(masks))
    assert 1 <= len(parts) <= MOST_TRACKS
    np.testing.assert_array_equal(np.sum(parts, axis=0), masks)
    sizes = [part.sum() for part in parts]
    assert sizes[:-1] == sorted(sizes[:-1], reverse=True)
    for part in parts:
        for index, mask in enumerate(masks):
            labels, _ = ndimage.label(mask)
            inside = np.unique(labels[part[index]])
            np.testing.assert_array_equal(part[index], np.isin(labels, inside[inside > 0]))


def test_two_parts_that_overlap_from_slice_to_slice_are_two_tracks() -> None:
    masks = np.stack([discs((10, 10 + n, 5), (28, 45 - n, 6)) for n in range(4)])
    parts = tracks(a_stack(masks))
    assert len(parts) == 2
    np.testing.assert_array_equal(parts[0], np.stack([discs((28, 45 - n, 6)) for n in range(4)]))


def test_a_small_part_that_jumps_further_than_it_is_wide_is_still_followed_where_it_is_the_only_one() -> None:
    masks = np.stack([discs((10, 10, 3)), discs((30, 45, 3))])
    assert len(tracks(a_stack(masks))) == 1


def test_of_several_parts_only_near_ones_are_paired() -> None:
    masks = np.stack([discs((8, 8, 3), (30, 50, 3)), discs((8, 16, 3), (30, 20, 3))])
    parts = tracks(a_stack(masks))
    assert len(parts) == 3
    assert any(part[0, 8, 8] and part[1, 8, 16] for part in parts)


def test_a_part_that_splits_stays_one_track() -> None:
    masks = np.stack([discs((20, 30, 12)), discs((20, 22, 5), (20, 38, 5)), discs((20, 30, 12))])
    assert len(tracks(a_stack(masks))) == 1


def test_what_is_too_much_to_follow_is_followed_together() -> None:
    masks = np.zeros((2, 40, 60), bool)
    masks[:, 1::4, 1::4] = True
    masks[:, 0:7, 0:7] = True
    parts = tracks(a_stack(masks))
    assert len(parts) == MOST_TRACKS
    assert parts[0][0, 3, 3] and parts[-1].sum() > 100


def test_an_empty_reference_ends_a_track() -> None:
    masks = ball((3, 20, 20), (1, 10, 10), 6)
    masks[1] = False
    assert len(tracks(a_stack(masks))) == 2
