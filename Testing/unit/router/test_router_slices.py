"""Slices of volumes: the same picture whatever way the voxels lie."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from MedAILib.errors import InputError
from MedAILib.grids import reoriented
from MedAILib.volume import Volume
from MedMNISTRouterLib.slices import (
    Cut,
    all_cuts,
    cut_at,
    middle_cut,
    pictures_of,
    plane_of,
    shown_range,
    upright,
    voxel_axis,
)

CODES = ["".join(code) for axes in permutations(("RL", "AP", "SI")) for code in product(*axes)]
LPS = np.diag([-1.0, -1.0, 1.0, 1.0])


def a_head() -> Volume:
    """Voxel values that say where they lie: x (to the left), y (to posterior), z (to superior), 1 mm cubes."""
    z, y, x = np.mgrid[:4, :5, :6]
    return Volume((x + 10 * y + 100 * z).astype(np.int16), LPS, "head")


@given(st.sampled_from(CODES), st.sampled_from(("axial", "coronal", "sagittal")))
def test_a_slice_looks_the_same_however_the_voxels_are_ordered(code: str, plane: str) -> None:
    turned = reoriented(a_head(), code)
    axis = voxel_axis(turned.geometry, plane)
    assert plane_of(turned.geometry, axis) == plane
    towards_lps = code["ijk".index(axis)] in "LPS"
    index = 1 if towards_lps else {"axial": 4, "coronal": 5, "sagittal": 6}[plane] - 2
    pixels, spacing = upright(turned, axis, index)
    top_left, top_right, bottom_left = int(pixels[0, 0]), int(pixels[0, -1]), int(pixels[-1, 0])
    assert (top_left, top_right, bottom_left) == {
        "axial": (100, 105, 140),  # patient's right and anterior first
        "coronal": (310, 315, 10),  # superior first
        "sagittal": (301, 341, 1),  # anterior left, superior first
    }[plane]
    assert spacing == (1.0, 1.0)


def test_the_coarsest_axis_is_chosen_and_the_only_slice_of_a_flat_image() -> None:
    coarse_j = Volume(np.zeros((9, 9, 9), np.uint8), np.diag([1.0, 4.0, 1.5, 1.0]))
    assert voxel_axis(coarse_j.geometry) == "j"
    assert voxel_axis(a_head().geometry) == "k"
    flat = Volume(np.zeros((9, 1, 9), np.uint8), np.diag([1.0, 1.0, 4.0, 1.0]))
    assert voxel_axis(flat.geometry) == "j"
    with pytest.raises(InputError, match="no axis 'oblique'"):
        voxel_axis(flat.geometry, "oblique")


def test_pixels_become_square() -> None:
    tall = Volume(np.zeros((8, 20, 30), np.uint8), np.diag([1.0, 1.0, 4.0, 1.0]))
    (axial,) = pictures_of(tall, [Cut("k", 0)])
    (coronal,) = pictures_of(tall, [Cut("j", 0)])
    assert axial.image.pixels.shape == (20, 30)
    assert coronal.image.pixels.shape == (32, 30)


def test_a_window_says_what_is_black_and_white_and_eight_bits_need_none() -> None:
    values = np.array([[[-1000, -160, 40, 240, 3000]]], np.int16)
    (picture,) = pictures_of(Volume(values, LPS), [Cut("k", 0)], (-160.0, 240.0), "CT")
    assert picture.image.pixels.tolist() == [[0, 0, 128, 255, 255]]
    assert (picture.image.modality, picture.notes) == ("CT", ())
    grey = np.array([[[0, 3, 255]]], np.uint8)
    (same,) = pictures_of(Volume(grey, LPS), [Cut("k", 0)])
    assert same.image.pixels.tolist() == [[0, 3, 255]] and same.notes == ()
    with pytest.raises(InputError, match="lower and a higher"):
        pictures_of(Volume(values, LPS), [Cut("k", 0)], (5.0, 5.0))


def test_what_is_shown_leaves_out_the_brightest_and_survives_odd_values() -> None:
    values = np.linspace(0, 1000, 1000).reshape(10, 10, 10)
    low, high = shown_range(values)
    assert low == pytest.approx(5, abs=1) and high == pytest.approx(995, abs=1)
    values[0, 0, 0] = np.nan
    assert np.isfinite(shown_range(values)).all()
    assert shown_range(np.full((2, 2, 2), np.inf)) == (0.0, 1.0)
    assert shown_range(np.full((2, 2, 2), 7.0)) == (7.0, 8.0)
    spot = np.zeros((9, 9, 9))
    spot[4, 4, 4] = 3.0
    assert shown_range(spot) == (0.0, 3.0)
    (picture,) = pictures_of(Volume(values, LPS), [Cut("k", 0)])
    assert picture.image.pixels.dtype == np.uint8


def test_the_view_decides_by_its_nearest_axis_and_an_oblique_one_is_said() -> None:
    head = a_head()
    view = np.eye(4)
    view[:3, 3] = (-2.0, -2.0, 2.2)
    assert cut_at(head.geometry, view) == Cut("k", 2)
    angle = np.radians(20)
    view[:3, 2] = (0.0, np.sin(angle), np.cos(angle))
    assert cut_at(head.geometry, view).notes == (
        "The view is turned by 20 degrees; the closest slice along k, 2, was taken.",
    )
    view[:3, 2] = (0.0, -1.0, 0.0)  # seen from behind: the same slices
    assert cut_at(head.geometry, view) == Cut("j", 2)
    view[:3, 3] = (0.0, 40.0, 0.0)
    with pytest.raises(InputError, match="does not show"):
        cut_at(head.geometry, view)


def test_a_slanted_gantry_is_cut_along_its_own_slices() -> None:
    slanted = LPS.copy()
    slanted[:3, 2] = (0.0, 0.4, 1.0)
    volume = Volume(a_head().array, slanted)
    view = np.eye(4)
    view[:3, 3] = (slanted @ (3, 2, 1, 1))[:3]
    cut = cut_at(volume.geometry, view)
    assert (cut.axis, cut.index, cut.notes) == ("k", 1, ())


def test_the_middle_is_said_where_there_are_others() -> None:
    geometry = a_head().geometry
    assert middle_cut(geometry, "k") == Cut("k", 2, ("Of 4 slices along k the middle one, 2, was taken.",))
    assert [cut.index for cut in all_cuts(geometry, "j")] == [0, 1, 2, 3, 4]
    one = Volume(np.zeros((1, 5, 5), np.uint8), LPS).geometry
    assert middle_cut(one, "k").notes == ()
    with pytest.raises(InputError, match="no slice -1"):
        upright(a_head(), "k", -1)
