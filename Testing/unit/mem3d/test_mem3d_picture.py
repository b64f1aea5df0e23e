"""The picture: upright however the volume lies, with contours where the structure is."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from phantoms import a_request, ball, propagated

from MedAILib.grids import axis_code, reoriented
from MedAILib.volume import Volume
from Mem3DPropagateLib.picture import TILE_PX, _View, draw_picture, slices_to_show
from Mem3DPropagateLib.request import Axis, PropagateResult

SIZE = 24
CODES = ["".join(letters) for order in permutations(("RL", "AP", "SI")) for letters in product(*order)]
BRIGHT_AT = {
    # array axis in an RAS volume: what must be bright where on the screen
    "axial": {"up": "A", "left": "R"},
    "coronal": {"up": "S", "left": "R"},
    "sagittal": {"up": "S", "left": "A"},
}


def a_marked_volume(towards: str) -> Volume:
    """An RAS volume that is bright on one anatomical side."""
    array = np.zeros((SIZE, SIZE, SIZE), np.int16)
    side = slice(SIZE * 3 // 4, None) if towards in "RAS" else slice(0, SIZE // 4)
    planes = np.moveaxis(array, 2 - ("RL", "AP", "SI").index({"R": "RL", "A": "AP", "S": "SI"}[towards]), 0)
    planes[side] = 100
    return Volume(array, np.eye(4))


def plane_across(volume: Volume, anatomical: str) -> Axis:
    """The axis of a volume that runs along an anatomical direction."""
    return Axis("ijk"[next(n for n, letter in enumerate(axis_code(volume.geometry)) if letter in anatomical)])


def a_tile(volume: Volume, axis: Axis) -> np.ndarray:
    view = _View(volume, axis, np.ones(volume.array.shape, bool))
    return np.asarray(view.tile(SIZE // 2, ())).astype(float).mean(axis=-1)


@pytest.mark.parametrize("plane", BRIGHT_AT)
def test_superior_or_anterior_is_up_and_right_or_anterior_is_left_in_all_48_orientations(plane) -> None:
    across = {"axial": "SI", "coronal": "AP", "sagittal": "RL"}[plane]
    for code in CODES:
        up, left = (reoriented(a_marked_volume(BRIGHT_AT[plane][where]), code) for where in ("up", "left"))
        assert axis_code(up.geometry) == code
        tile = a_tile(up, plane_across(up, across))
        assert tile[: TILE_PX // 2].sum() > 10 * tile[TILE_PX // 2 :].sum(), (code, "up")
        tile = a_tile(left, plane_across(left, across))
        assert tile[:, : TILE_PX // 2].sum() > 10 * tile[:, TILE_PX // 2 :].sum(), (code, "left")


def test_all_48_orientations_were_tried() -> None:
    assert len(set(CODES)) == 48


def test_a_volume_turned_by_any_angle_has_a_side_for_every_edge() -> None:
    for angle in np.linspace(0, np.pi, 13):
        matrix = np.eye(4)
        matrix[:3, :3] = [
            [np.cos(angle), -np.sin(angle), 0],
            [np.sin(angle) * 0.8, np.cos(angle) * 0.8, -0.6],
            [np.sin(angle) * 0.6, np.cos(angle) * 0.6, 0.8],
        ]
        for axis in Axis:
            assert a_tile(Volume(a_marked_volume("S").array, matrix), axis).shape == (TILE_PX, TILE_PX)


def test_anisotropic_slices_are_shown_in_true_proportions() -> None:
    cube = np.zeros((12, 48, 48), np.int16)
    cube[2:10, 8:40, 8:40] = 100
    view = _View(Volume(cube, np.diag([1.0, 1.0, 4.0, 1.0])), Axis.J, cube > 0)
    bright = np.asarray(view.tile(24, ())).mean(axis=-1) > 128
    rows, columns = (np.flatnonzero(bright.any(axis=a)) for a in (1, 0))
    assert abs(np.ptp(rows) - np.ptp(columns)) <= 4


def a_picture(masks: dict[str, np.ndarray], truths=(), references=(2, 10, 18)):
    shape = next(iter(masks.values())).shape
    array = np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)
    result = propagated(a_request(masks, Axis.K, references))
    return draw_picture(Volume(array, np.eye(4)), result, [(1.0, 0.0, 0.0), (0.0, 1.0, 0.0)][: len(masks)], truths)


def test_a_contour_is_drawn_in_the_segment_s_colour() -> None:
    picture = np.asarray(a_picture({"a": ball((21, 40, 40), (10, 20, 20), 9)}))
    assert (picture == (255, 0, 0)).all(axis=-1).sum() > 500
    assert picture.shape[2] == 3


def test_every_segment_has_a_strip_of_its_own() -> None:
    one = ball((21, 40, 60), (10, 20, 18), 9)
    other = ball((21, 40, 60), (10, 20, 42), 9)
    assert a_picture({"a": one, "b": other}).height > a_picture({"a": one}).height + 60


def test_the_expert_s_contour_is_drawn_where_there_is_one() -> None:
    mask = ball((21, 40, 40), (10, 20, 20), 9)
    assert np.asarray(a_picture({"a": mask}, [mask])).sum() != np.asarray(a_picture({"a": mask})).sum()


@pytest.mark.parametrize("references", [(10,), tuple(range(2, 19))])
def test_a_single_reference_and_a_full_drawing_can_be_drawn(references) -> None:
    assert a_picture({"a": ball((21, 40, 40), (10, 20, 20), 9)}, references=references).width > 400


def test_a_structure_at_the_corner_of_a_flat_volume_can_be_drawn() -> None:
    mask = np.zeros((21, 40, 40), bool)
    mask[2:19, :3, :2] = True
    assert a_picture({"a": mask}).width > 400
    volume = Volume(np.zeros((21, 40, 40), np.uint8), np.eye(4))
    draw_picture(volume, propagated(a_request({"a": mask}, Axis.K, (2, 10, 18))), [(1.0, 0.0, 0.0)])


@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("error")
def test_voxels_that_are_no_numbers_are_drawn_around(odd) -> None:
    mask = ball((21, 40, 40), (10, 20, 20), 9)
    array = np.random.default_rng(0).normal(100, 20, mask.shape).astype(np.float32)
    result = propagated(a_request({"a": mask}, Axis.K, (2, 10, 18)))
    clean = np.asarray(draw_picture(Volume(array.copy(), np.eye(4)), result, [(1.0, 0.0, 0.0)])).astype(int)
    array[:, :4], array[10, 20, 20] = odd, odd
    found = np.asarray(draw_picture(Volume(array, np.eye(4)), result, [(1.0, 0.0, 0.0)])).astype(int)
    assert np.median(np.abs(found - clean)) <= 4
    array[:] = odd
    draw_picture(Volume(array, np.eye(4)), result, [(1.0, 0.0, 0.0)])


def test_of_a_short_structure_all_slices_are_shown_and_of_a_long_one_a_montage_with_its_references() -> None:
    mask = ball((61, 40, 40), (30, 20, 20), 19)

    def shown(references: list[int]) -> list[int]:
        result: PropagateResult = propagated(a_request({"a": mask}, Axis.K, references))
        return slices_to_show(result.segments)

    assert shown([27, 30, 35]) == list(range(27, 36))
    assert len(shown([12, 25, 30, 40, 48])) == 12 and {12, 25, 30, 40, 48} <= set(shown([12, 25, 30, 40, 48]))
    assert len(shown(list(range(12, 49)))) <= 12
