"""Lungs and landmarks: on synthetic chests in every orientation, and on real CTs."""

from __future__ import annotations

from collections.abc import Callable
from itertools import permutations, product
from pathlib import Path

import numpy as np
import pytest
from chest_phantoms import Chest, ChestSpec, make_chest

from CTReportLib.anatomy import find_anatomy
from CTReportLib.landmarks import Place, locate, locate_points
from MedAILib.errors import InputError
from MedAILib.grids import Box, cropped, resampled
from MedAILib.imageio import read_label_map, read_volume
from MedAILib.volume import Geometry, Volume

ALL_48 = [
    "".join(letters)
    for order in permutations(("RL", "AP", "SI"))
    for letters in product(*order)
]  # fmt: skip
MARKERS_MM = {
    ("left", "upper"): (-75, 0, 80),
    ("left", "middle"): (-85, 0, 10),
    ("left", "lower"): (-95, 30, -80),
    ("right", "upper"): (75, 0, 80),
    ("right", "middle"): (85, 0, 10),
    ("right", "lower"): (95, 30, -80),
}


@pytest.fixture(scope="module")
def a_chest() -> Chest:
    return make_chest()


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    return 2 * float((one & other).sum()) / float(one.sum() + other.sum())


@pytest.mark.parametrize("axes", ALL_48)
def test_side_and_third_of_a_marker_are_right_in_every_orientation(a_chest: Chest, axes: str) -> None:
    turned = a_chest.turned(axes)
    anatomy = find_anatomy(turned)
    to_voxel = np.linalg.inv(turned.ijk_to_ras)
    for (side, third), point in MARKERS_MM.items():
        i, j, k = np.rint(to_voxel[:3, :3] @ point + to_voxel[:3, 3]).astype(int)
        marker = np.zeros(turned.array.shape, dtype=np.uint8)
        marker[k, j, i] = 1
        assert locate(anatomy, Volume(marker, turned.ijk_to_ras)) == Place(side, (third,))
    assert anatomy.cut_at == ()


def test_the_lungs_of_a_phantom_are_found_almost_to_the_voxel(a_chest: Chest) -> None:
    anatomy = find_anatomy(a_chest.volume)
    for found, true in ((anatomy.lungs.left, a_chest.left), (anatomy.lungs.right, a_chest.right)):
        there = resampled(anatomy.grid.volume_of(found), a_chest.volume.geometry, "nearest").array > 0
        assert _dice(there, true) > 0.99
    assert anatomy.lungs.airways.any()
    assert not (anatomy.lungs.left & anatomy.lungs.right).any()


def test_a_tilted_scan_gives_the_same_lungs(a_chest: Chest) -> None:
    angle = np.radians(18.0)
    tilt = np.eye(4)
    tilt[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    tilted = resampled(
        a_chest.volume, Geometry((100, 90, 88), tilt @ _shifted(a_chest.volume, (0, -13, -8))), fill=-1000
    )
    straight, oblique = find_anatomy(a_chest.volume), find_anatomy(tilted)
    assert oblique.lung_ml == pytest.approx(straight.lung_ml, rel=0.04)
    assert locate_points(oblique, np.array([[75.0, 0.0, 80.0]])) == Place("right", ("upper",))


def _shifted(volume: Volume, voxels: tuple[int, int, int]) -> np.ndarray:
    move = np.eye(4)
    move[:3, 3] = voxels
    return volume.ijk_to_ras @ move


@pytest.mark.parametrize(
    ("box", "edges"),
    [
        (Box((0, 0, 0), (60, 64, 88)), ("superior",)),
        (Box((30, 0, 0), (84, 64, 88)), ("inferior",)),
        (Box((0, 0, 25), (84, 64, 88)), ("left",)),
        (Box((0, 0, 0), (84, 64, 65)), ("right",)),
        (Box((0, 0, 0), (84, 40, 88)), ("anterior",)),
    ],
)
def test_the_edge_that_cuts_a_lung_is_named(a_chest: Chest, box: Box, edges: tuple[str, ...]) -> None:
    anatomy = find_anatomy(cropped(a_chest.volume, box))
    assert anatomy.cut_at == edges
    assert not anatomy.whole_lungs


def test_two_lungs_that_touch_in_front_are_parted_where_they_are_thinnest() -> None:
    chest = make_chest(ChestSpec(noise_hu=0.0))
    array = chest.volume.array.copy()
    array[50:56, 44:48, 38:50] = -860
    anatomy = find_anatomy(Volume(array, chest.volume.ijk_to_ras))
    left_ml, right_ml = (mask.sum() * 0.064 for mask in (chest.left, chest.right))
    assert anatomy.lung_ml == pytest.approx((left_ml, right_ml), rel=0.03)


def test_both_sides_are_named_where_something_lies_in_both(a_chest: Chest) -> None:
    anatomy = find_anatomy(a_chest.volume)
    both = np.array([[-75.0, 0.0, 80.0], [75.0, 0.0, 80.0], [75.0, 0.0, 5.0]])
    assert locate_points(anatomy, both).text == "upper and middle thirds, both sides"


def test_an_empty_mask_has_no_place(a_chest: Chest) -> None:
    anatomy = find_anatomy(a_chest.volume)
    with pytest.raises(InputError, match="no place"):
        locate(anatomy, anatomy.grid.volume_of(np.zeros_like(anatomy.lungs.left)))


def test_lungs_agree_with_an_experts_contours(shared_data: Callable[[str], Path]) -> None:
    volume = read_volume(shared_data("vol3d/chestct_lung1_001/image.nii.gz"))
    expert = read_label_map(shared_data("vol3d/chestct_lung1_001/mask.nii.gz")).layers[0]
    anatomy = find_anatomy(volume)
    left, right = (
        resampled(anatomy.grid.volume_of(mask), volume.geometry, "nearest").array > 0
        for mask in (anatomy.lungs.left, anatomy.lungs.right)
    )
    assert _dice(left | right, (expert == 1) | (expert == 2)) > 0.955
    assert _dice(left, expert == 1) > 0.95
    assert _dice(right, expert == 2) > 0.95
    assert anatomy.whole_lungs


def test_a_collapsed_lobe_leaves_a_smaller_right_lung(shared_data: Callable[[str], Path]) -> None:
    anatomy = find_anatomy(read_volume(shared_data("vol3d/chestct_lidc0314/image.nii.gz")))
    left_ml, right_ml = anatomy.lung_ml
    assert anatomy.whole_lungs
    assert 1850 < left_ml < 2000
    assert 900 < right_ml < 1000


def test_a_crop_is_said_not_to_hold_whole_lungs(shared_data: Callable[[str], Path]) -> None:
    anatomy = find_anatomy(read_volume(shared_data("dicom/ct_pat1_rtstruct")))
    assert anatomy.is_chest
    assert not anatomy.whole_lungs
    assert {"superior", "anterior"} <= set(anatomy.cut_at)
    assert anatomy.lung_ml[1] > 1000 > anatomy.lung_ml[0]
