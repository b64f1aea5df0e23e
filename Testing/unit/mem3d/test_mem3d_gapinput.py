"""What our network is shown: the working grid, the look of a structure, the numbers it is told."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from Mem3DPropagateLib.nets.gapengine import without_islands
from Mem3DPropagateLib.nets.gapinput import (
    BRIGHTEST,
    STRIDE,
    WIDEST_PX,
    Appearance,
    Whereabouts,
    WorkingGrid,
    shape_planes,
)
from Mem3DPropagateLib.shapes import signed_distance_mm


def disc(shape: tuple[int, int], centre: tuple[float, float], radius: float) -> np.ndarray:
    rows, columns = np.indices(shape)
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 <= radius**2


@settings(max_examples=40, deadline=None)
@given(
    radius=st.floats(1.0, 60.0),
    row=st.floats(20, 130),
    column=st.floats(20, 130),
    spacing=st.tuples(st.floats(0.2, 5.0), st.floats(0.2, 5.0)),
)
def test_the_working_grid_holds_the_structure_with_room_on_every_side(radius, row, column, spacing):
    mask = disc((150, 150), (row, column), radius)
    grid = WorkingGrid.around(mask[None], spacing)
    assert all(n % STRIDE == 0 and n <= WIDEST_PX + 3 * STRIDE for n in grid.shape)
    for axis in (0, 1):
        filled = np.flatnonzero(mask.any(axis=1 - axis))
        last = grid.origin_px[axis] + grid.step_px[axis] * (grid.shape[axis] - 1)
        assert grid.origin_px[axis] < filled[0]
        assert last > filled[-1]
        assert grid.step_px[axis] * spacing[axis] == pytest.approx(grid.pixel_mm)


def test_a_smooth_image_comes_back_from_the_working_grid_as_it_was():
    rows, columns = np.indices((80, 90))
    image = np.sin(rows / 12.0) + np.cos(columns / 15.0)
    grid = WorkingGrid.around(disc((80, 90), (40, 45), 20)[None], (1.0, 1.0))
    back = grid.back(grid.sample(image), (80, 90), np.nan)
    inside = ~np.isnan(back)
    assert inside.sum() > 3000
    np.testing.assert_allclose(back[inside], image[inside], atol=0.02)


def test_what_lies_beyond_the_working_grid_comes_back_as_told():
    grid = WorkingGrid.around(disc((200, 200), (100, 100), 5)[None], (1.0, 1.0))
    back = grid.back(np.ones(grid.shape, np.float32), (200, 200), -7.0)
    assert back[100, 100] == 1.0
    assert back[0, 0] == back[-1, -1] == -7.0


def test_a_window_of_the_slice_gives_the_same_samples_as_the_whole():
    random = np.random.default_rng(0)
    image = random.standard_normal((120, 140))
    grid = WorkingGrid.around(disc((120, 140), (60, 70), 40)[None], (1.0, 1.0))
    rows, columns = grid.within(image.shape, margin_px=8)
    part = grid.moved(rows.start, columns.start).sample(image[rows, columns])
    np.testing.assert_allclose(part, grid.sample(image), atol=1e-4)


def test_a_brightness_seen_only_inside_speaks_for_the_structure():
    mask = disc((64, 64), (32, 32), 12)
    image = np.where(mask, 300.0, 100.0).astype(np.float32)
    look = Appearance.of(image[None], signed_distance_mm(mask, (1.0, 1.0))[None])
    planes = look.planes(image[None], image[None], image[None])
    assert planes.shape == (1, 4, 64, 64)
    assert planes.dtype == np.float32
    assert (planes[0, 3][mask] > 0.5).all()
    assert (planes[0, 3][~mask] < -0.5).all()
    assert np.abs(planes[:, :3]).max() <= BRIGHTEST


@pytest.mark.parametrize("value", [0.0, -1000.0, 3e4])
def test_an_image_of_one_brightness_says_nothing(value):
    mask = disc((32, 32), (16, 16), 6)
    image = np.full((1, 32, 32), value, np.float32)
    look = Appearance.of(image, signed_distance_mm(mask, (1.0, 1.0))[None])
    planes = look.planes(image, image, image)
    assert np.isfinite(planes).all()
    assert np.abs(planes[0, 3]).max() < 0.05


def test_a_structure_that_fills_the_working_grid_still_has_a_look():
    image = np.random.default_rng(1).normal(100, 10, (1, 32, 32)).astype(np.float32)
    look = Appearance.of(image, np.full((1, 32, 32), 16.0, np.float32))
    assert np.isfinite(look.planes(image, image, image)).all()


@settings(max_examples=30, deadline=None)
@given(steps=st.integers(1, 500), near=st.floats(0, 1e4), far=st.one_of(st.none(), st.floats(0, 1e4)))
def test_the_numbers_told_are_finite_and_few(steps, near, far):
    told = Whereabouts(steps, near, far, near).scalars(np.full((16, 16), -1.0))
    assert told.shape == (7,)
    assert np.isfinite(told).all()
    assert told[2] == (far is None)


def test_parts_that_do_not_touch_what_geometry_foretold_are_taken_away():
    prior = signed_distance_mm(disc((60, 60), (25, 25), 8), (1.0, 1.0))
    grown = disc((60, 60), (25, 28), 9)
    level = np.where(grown | disc((60, 60), (50, 50), 4), 1.0, -1.0).astype(np.float32)
    np.testing.assert_array_equal(without_islands(level, prior) >= 0, grown)
    nothing = np.full((60, 60), -16.0, np.float32)
    np.testing.assert_array_equal(without_islands(level, nothing), level)


def test_a_drawn_shape_becomes_its_distance_and_its_mask():
    mask = disc((40, 40), (20, 20), 10)
    planes = shape_planes(signed_distance_mm(mask, (1.0, 1.0))[None])
    np.testing.assert_array_equal(planes[0, 1] > 0.5, mask)
    assert planes[0, 0].max() == pytest.approx(10 / 8, abs=0.1)
    assert planes[0, 0].min() >= -2.0
