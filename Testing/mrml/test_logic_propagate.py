"""A first propagation in the scene: drawn slices stay, segments keep out of each other."""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from phantoms import ball, blob, ellipsoid, on_slices
from propagating import DRAWN, GRID, ORGAN, SHAPE, draw, mask_of, propagate, scene_of
from slanted import oblique_matrix

from MedAILib.errors import GeometryMismatch, InputError, NothingDrawn
from MedAILib.mrml.nodes import matrix_from_array, run_id
from MedAILib.mrml.segmentations import (
    segment_mask,
)
from MedAILib.mrml.volumes import read_volume
from MedAILib.volume import Geometry
from Mem3DPropagateLib.logic import (
    load_drawing,
    middle_of_slice_ras_mm,
    read_record,
    read_records,
)
from Mem3DPropagateLib.request import Axis, PropagateResult
from Mem3DPropagateLib.shapes import dice

# A first propagation


def test_the_structure_comes_out_whole_and_drawn_slices_stay(drawn) -> None:
    node, volume = drawn
    result = propagate(node, volume)
    found = mask_of(node)
    assert dice(found[4:37], ORGAN[4:37]) > 0.97
    np.testing.assert_array_equal(found[list(DRAWN)], ORGAN[list(DRAWN)])
    assert not found[:4].any() and not found[37:].any()
    assert [q.index for q in result.segment("organ").slices] == list(range(4, 37))


def test_what_was_done_is_remembered_in_the_segment(drawn) -> None:
    node, volume = drawn
    result = propagate(node, volume)
    record = read_record(node, "organ")
    assert record.references == DRAWN and record.axis is Axis.K and record.run_id == run_id(node)
    assert record.advice == result.segments[0].advice and record.variant == result.segments[0].variant
    assert [q.index for q in record.slices] == [q.index for q in result.segments[0].slices]
    assert read_records(node) == [("organ", "Organ", record)]
    assert read_records(node, ["other"]) == []


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=15)
@given(seed=st.integers(0, 9999), axis=st.sampled_from(Axis), extend=st.sampled_from([0, 2, "auto"]))
def test_drawn_slices_stay_to_the_last_voxel_on_any_axis_of_a_turned_grid(
    scene, a_volume, a_segmentation, an_oblique_grid, seed, axis, extend
) -> None:
    structure = blob(seed, an_oblique_grid.shape_kji)
    filled = np.flatnonzero(np.moveaxis(structure, axis.array_axis, 0).any(axis=(1, 2)))
    slices = filled[::3].tolist()
    before = on_slices(structure, slices, axis)
    node, volume = a_segmentation(an_oblique_grid, {"a": before}), a_volume(an_oblique_grid)
    propagate(node, volume, axis=axis, extend=extend)
    found = np.moveaxis(mask_of(node, "a", an_oblique_grid), axis.array_axis, 0)
    np.testing.assert_array_equal(found[slices], np.moveaxis(before, axis.array_axis, 0)[slices])
    scene.RemoveNode(node)
    scene.RemoveNode(volume)


def test_an_oblique_left_handed_grid_gives_the_voxels_of_a_straight_one(a_volume, a_segmentation, drawn) -> None:
    node, volume = drawn
    propagate(node, volume)
    turned = Geometry(SHAPE, oblique_matrix((0.9, 0.9, 1.5), (0.7, -0.4), (10, -30, 5), left_handed=True))
    other = a_segmentation(turned, {"organ": on_slices(ORGAN, DRAWN)})
    propagate(other, a_volume(turned))
    np.testing.assert_array_equal(mask_of(other, grid=turned), mask_of(node))


def test_a_drawing_kept_on_a_cropped_extent_is_continued_beyond_it(a_volume, a_segmentation) -> None:
    cropped = Geometry(
        (25, 30, 34), GRID.ijk_to_ras @ np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 8], [0, 0, 0, 1]])
    )
    node = a_segmentation(cropped, {"organ": on_slices(ORGAN, (12, 20, 28))[8:33]})
    propagate(node, a_volume(), extend=6)
    found = mask_of(node)
    assert np.flatnonzero(found.any(axis=(1, 2))).tolist() == list(range(6, 35))
    assert dice(found[12:29], ORGAN[12:29]) > 0.97


def test_a_drawing_on_another_grid_is_refused(a_volume, a_segmentation) -> None:
    other = Geometry(SHAPE, GRID.ijk_to_ras @ np.diag([1.1, 1, 1, 1]))
    node = a_segmentation(other, {"organ": on_slices(ORGAN, DRAWN)})
    before = scene_of(node)
    with pytest.raises(GeometryMismatch) as error:
        propagate(node, a_volume())
    assert error.value.todo and scene_of(node) == before


def test_both_under_one_linear_transform_is_propagated_as_without(scene, drawn) -> None:
    node, volume = drawn
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = oblique_matrix((1, 1, 1), (0.4, 0.2), (7, 8, 9))
    transform.SetMatrixTransformToParent(matrix_from_array(matrix))
    for one in (node, volume):
        one.SetAndObserveTransformNodeID(transform.GetID())
    propagate(node, volume)
    found = segment_mask(node, "organ", read_volume(volume).geometry)
    assert dice(found[4:37], ORGAN[4:37]) > 0.97
    point = middle_of_slice_ras_mm(node, "organ", volume, 20)
    np.testing.assert_allclose(point, (matrix @ GRID.ijk_to_ras @ (15, 15, 20, 1))[:3], atol=0.1)


def test_a_moved_segmentation_is_refused(scene, drawn) -> None:
    node, volume = drawn
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(matrix_from_array(oblique_matrix((1, 1, 1), (0.1, 0), (0, 0, 0))))
    node.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(GeometryMismatch):
        propagate(node, volume)


def test_a_volume_of_one_slice_stays_as_it_is(a_volume, a_segmentation) -> None:
    flat = Geometry((1, 30, 34), GRID.ijk_to_ras)
    node = a_segmentation(flat, {"organ": ORGAN[20:21]})
    propagate(node, a_volume(flat))
    np.testing.assert_array_equal(mask_of(node, grid=flat), ORGAN[20:21])


def test_a_single_drawn_slice_becomes_a_ball(a_volume, a_segmentation) -> None:
    grid = Geometry((41, 40, 40), np.eye(4))
    node = a_segmentation(grid, {"ball": on_slices(ball((41, 40, 40), (20, 20, 20), 14), (20,))})
    propagate(node, a_volume(grid))
    assert dice(mask_of(node, "ball", grid), ball((41, 40, 40), (20, 20, 20), 14)) > 0.96


def test_with_every_slice_drawn_nothing_changes(a_volume, a_segmentation) -> None:
    node = a_segmentation(GRID, {"organ": ORGAN})
    propagate(node, a_volume(), axis=Axis.K)
    np.testing.assert_array_equal(mask_of(node), ORGAN)
    assert read_record(node, "organ").advice.slice is None


def test_nothing_drawn_is_refused(a_volume, a_segmentation) -> None:
    node = a_segmentation(GRID, {"organ": np.zeros(SHAPE, bool)})
    for ids in (None, ["organ"]):
        for options in ({}, {"axis": Axis.K}):
            with pytest.raises(NothingDrawn):
                propagate(node, a_volume(), ids, **options)


def test_a_segmentation_without_a_segment_is_refused(scene, a_volume) -> None:
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    with pytest.raises(InputError, match="no segment"):
        propagate(node, a_volume())


def test_an_unknown_segment_is_refused_with_those_there_are(drawn) -> None:
    with pytest.raises(InputError, match="organ"):
        propagate(*drawn, ["liver"])


def test_named_references_outside_the_volume_are_refused(drawn) -> None:
    with pytest.raises(InputError, match="0 to 40"):
        propagate(*drawn, references=(4, 99))


# Several segments


def test_segments_that_are_not_chosen_never_lose_a_voxel(a_volume, a_segmentation) -> None:
    wall = np.zeros(SHAPE, bool)
    wall[:, 15, :] = True
    node = a_segmentation(GRID, {"organ": on_slices(ORGAN & ~wall, DRAWN), "wall": wall})
    propagate(node, a_volume(), ["organ"], axis=Axis.K)
    np.testing.assert_array_equal(mask_of(node, "wall"), wall)
    assert not (mask_of(node, "organ") & wall).any()
    assert dice(mask_of(node, "organ")[4:37], (ORGAN & ~wall)[4:37]) > 0.95


def test_two_touching_segments_share_no_voxel_even_where_they_push_each_other(a_volume, a_segmentation) -> None:
    left = ORGAN & (np.arange(34) < 15 + 5 * np.sin(np.arange(41) / 4)[:, None, None])
    node = a_segmentation(GRID, {"left": on_slices(left, DRAWN), "right": on_slices(ORGAN & ~left, DRAWN)})
    volume = a_volume()
    propagate(node, volume)
    assert not (mask_of(node, "left") & mask_of(node, "right")).any()
    draw(node, "left", 24, ORGAN[24])
    draw(node, "right", 24, np.zeros(SHAPE[1:], bool))
    propagate(node, volume)
    assert not (mask_of(node, "left") & mask_of(node, "right")).any()
    np.testing.assert_array_equal(mask_of(node, "left")[24], ORGAN[24])


def overlapping(a_segmentation) -> tuple[Any, np.ndarray]:
    tumour = ball(SHAPE, (20, 15, 18), 7)
    masks = {"organ": on_slices(ORGAN, DRAWN), "tumour": on_slices(tumour, (14, 20, 26))}
    masks["tumour"] |= on_slices(tumour & ORGAN, (12,))
    wall = np.zeros(SHAPE, bool)
    wall[5:36, 4:26, 27] = True
    wall[list(DRAWN)] = False
    return a_segmentation(GRID, {**masks, "wall": wall}, {"organ": 0, "tumour": 1, "wall": 0}), wall


def test_segments_drawn_over_each_other_stay_so_and_no_other_overlap_is_made(a_volume, a_segmentation) -> None:
    node, wall = overlapping(a_segmentation)
    propagate(node, a_volume(), ["organ", "tumour"], axis=Axis.K)
    organ, tumour = mask_of(node, "organ"), mask_of(node, "tumour")
    assert (organ & tumour)[16].sum() > 0.9 * tumour[16].sum() > 0
    np.testing.assert_array_equal(mask_of(node, "wall"), wall)
    assert not (organ & wall).any() and not (tumour & wall).any()


def test_a_segment_propagated_alone_keeps_its_overlap_with_the_others(a_volume, a_segmentation) -> None:
    node, wall = overlapping(a_segmentation)
    volume = a_volume()
    before = mask_of(node, "organ")
    propagate(node, volume, ["tumour"], axis=Axis.K)
    np.testing.assert_array_equal(mask_of(node, "organ"), before)
    propagate(node, volume, ["organ"], axis=Axis.K)
    organ, tumour = mask_of(node, "organ"), mask_of(node, "tumour")
    assert (organ & tumour)[16].sum() > 0.9 * tumour[16].sum() > 0
    np.testing.assert_array_equal(organ[list(DRAWN)], ORGAN[list(DRAWN)])
    assert not (organ & wall).any()


def test_correcting_one_of_two_overlapping_segments_keeps_the_overlap(a_volume, a_segmentation) -> None:
    node, _ = overlapping(a_segmentation)
    volume = a_volume()
    propagate(node, volume, ["organ", "tumour"], axis=Axis.K)
    tumour = mask_of(node, "tumour")
    draw(node, "organ", 16, ORGAN[16])
    propagate(node, volume, ["organ", "tumour"])
    np.testing.assert_array_equal(mask_of(node, "tumour"), tumour)
    assert (mask_of(node, "organ") & tumour)[18].sum() > 0.9 * tumour[18].sum() > 0


def test_twelve_segments_at_once(a_volume, a_segmentation) -> None:
    grid = Geometry((15, 48, 64), np.eye(4))
    masks = {f"s{n}": ellipsoid(grid.shape_kji, (7, 8 + 16 * (n % 3), 8 + 16 * (n // 3)), (7, 6, 6)) for n in range(12)}
    slices = (1, 4, 7, 10, 13)
    node = a_segmentation(grid, {name: on_slices(mask, slices) for name, mask in masks.items()})
    result = propagate(node, a_volume(grid))
    assert len(result.segments) == 12
    for name, mask in masks.items():
        assert dice(mask_of(node, name, grid)[1:14], mask[1:14]) > 0.94
        assert read_record(node, name).references == slices


# Around it


def test_the_sample_is_loaded_and_propagated(scene, repository) -> None:
    folder = repository / "Mem3DPropagate" / "Resources" / "SampleData"
    volume, node = load_drawing(
        scene,
        folder / "Mem3DPropagateHippocampus.nii.gz",
        folder / "Mem3DPropagateHippocampusDrawing.seg.nrrd",
    )
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume
    result: PropagateResult = propagate(node, volume)
    assert result.axis is Axis.J and len(result.segments[0].slices) == 39


def test_the_middle_of_a_slice_is_where_the_structure_is(drawn) -> None:
    node, volume = drawn
    propagate(node, volume)
    point = np.linalg.solve(GRID.ijk_to_ras, (*middle_of_slice_ras_mm(node, "organ", volume, 16), 1))
    np.testing.assert_allclose(point[:3], (15, 15, 16), atol=0.5)
    point = np.linalg.solve(GRID.ijk_to_ras, (*middle_of_slice_ras_mm(node, "organ", volume, 0), 1))
    np.testing.assert_allclose(point[:3], (16.5, 14.5, 0))


def test_a_correction_in_a_large_volume_is_quick(a_volume, a_segmentation) -> None:
    grid = Geometry((150, 200, 200), np.eye(4))
    big = ellipsoid(grid.shape_kji, (75, 100, 100), (70, 80, 90))
    node = a_segmentation(grid, {"big": on_slices(big, range(9, 140, 11))})
    volume = a_volume(grid)
    propagate(node, volume)
    draw(node, "big", 50, big[50], grid=grid)
    started = time.process_time()
    propagate(node, volume)
    assert time.process_time() - started < 6.0
