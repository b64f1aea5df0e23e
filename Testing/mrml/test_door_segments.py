"""Reading segments: masks and slices on any grid, names, colours, tags, geometry."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import slicer
import vtk
from slanted import oblique_matrix

from MedAILib.errors import GeometryMismatch, InputError
from MedAILib.grids import resampled
from MedAILib.mrml.nodes import matrix_from_array
from MedAILib.mrml.segmentations import (
    TERMINOLOGY_TAG,
    add_segment,
    get_tag,
    get_tag_json,
    is_on_grid,
    reference_geometry,
    segment_ids,
    segment_info,
    segment_mask,
    segment_slices,
    segment_tags,
    set_reference_geometry,
    set_tag,
    set_tag_json,
)
from MedAILib.mrml.volumes import write_volume
from MedAILib.volume import Geometry, LabelMap, Volume

KIDNEY = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure"
    "~SCT^64033007^Kidney~SCT^7771000^Left~Anatomic codes - DICOM master list~^^~^^"
)
ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


def a_block(geometry: Geometry, start, end) -> np.ndarray:
    mask = np.zeros(geometry.shape_kji, bool)
    mask[tuple(slice(s, e) for s, e in zip(start, end, strict=True))] = True
    return mask


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_a_segment_is_the_same_voxels_in_the_world_in_all_48_orientations(scene, a_segmentation, axes, signs):
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3)[:, list(axes)] * signs) @ np.diag([0.5, 2.0, 3.0])
    matrix[:3, 3] = (10, -20, 30)
    geometry = Geometry((6, 7, 8), matrix)
    mask = np.zeros(geometry.shape_kji, bool)
    mask[1, 2, 5] = True
    node = a_segmentation(geometry, {"marker": mask})
    np.testing.assert_array_equal(segment_mask(node, "marker", geometry), mask)
    np.testing.assert_allclose(node.GetSegmentCenterRAS("marker"), (matrix @ [5, 2, 1, 1])[:3], atol=1e-6)
    # and a volume stored along other axes sees it at the same place
    other = Geometry((30, 30, 30), np.diag([0.5, 0.5, 0.5, 1]) + _at(matrix @ [5, 2, 1, 1] - np.array([7, 7, 7, 0])))
    found = np.argwhere(segment_mask(node, "marker", other))
    centre = other.ijk_to_ras @ [*found.mean(axis=0)[::-1], 1]
    np.testing.assert_allclose(centre, matrix @ [5, 2, 1, 1], atol=0.3)


def _at(position) -> np.ndarray:
    matrix = np.zeros((4, 4))
    matrix[:3, 3] = position[:3]
    return matrix


def test_a_volume_with_exchanged_and_reversed_axes_sees_every_voxel_exactly(scene, a_segmentation, an_oblique_grid):
    mask = np.random.default_rng(1).random(an_oblique_grid.shape_kji) < 0.3
    node = a_segmentation(an_oblique_grid, {"a": mask})
    k, j, i = an_oblique_grid.shape_kji
    turn = np.array([[0, -1, 0, i - 1], [0, 0, 1, 0], [-1, 0, 0, k - 1], [0, 0, 0, 1]])
    turned = Geometry((j, i, k), an_oblique_grid.ijk_to_ras @ turn)
    assert is_on_grid(node, "a", turned)
    np.testing.assert_array_equal(segment_mask(node, "a", turned), mask[::-1, :, ::-1].transpose(1, 2, 0))
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        expected = np.flatnonzero(segment_mask(node, "a", turned).any(axis=others))
        assert segment_slices(node, "a", turned, axis) == tuple(expected)


def test_the_host_itself_agrees_on_the_mask_of_an_oblique_cropped_segment(scene, a_segmentation, an_oblique_grid):
    mask = a_block(an_oblique_grid, (3, 4, 2), (6, 9, 4))
    node = a_segmentation(an_oblique_grid, {"a": mask})
    assert node.GetBinaryLabelmapInternalRepresentation("a").GetExtent() == (2, 3, 4, 8, 3, 5)
    volume = write_volume(scene, Volume(np.zeros(an_oblique_grid.shape_kji), an_oblique_grid.ijk_to_ras))
    np.testing.assert_array_equal(slicer.util.arrayFromSegmentBinaryLabelmap(node, "a", volume) > 0, mask)
    np.testing.assert_array_equal(segment_mask(node, "a", an_oblique_grid), mask)
    assert segment_slices(node, "a", an_oblique_grid, 0) == (3, 4, 5)
    assert segment_slices(node, "a", an_oblique_grid, 1) == (4, 5, 6, 7, 8)
    assert segment_slices(node, "a", an_oblique_grid, 2) == (2, 3)


def test_three_segments_of_one_layer_and_an_overlapping_one_are_told_apart(scene, a_segmentation, an_oblique_grid):
    masks = {
        "a": a_block(an_oblique_grid, (0, 0, 0), (4, 4, 4)),
        "b": a_block(an_oblique_grid, (4, 0, 0), (8, 10, 8)),
        "c": a_block(an_oblique_grid, (8, 5, 3), (12, 6, 4)),
        "d": a_block(an_oblique_grid, (2, 2, 2), (10, 6, 6)),
    }
    node = a_segmentation(an_oblique_grid, masks, {"a": 0, "b": 0, "c": 0, "d": 1})
    assert node.GetSegmentation().GetNumberOfLayers() == 2
    for name, mask in masks.items():
        np.testing.assert_array_equal(segment_mask(node, name, an_oblique_grid), mask)
        assert segment_slices(node, name, an_oblique_grid, 0) == tuple(np.flatnonzero(mask.any(axis=(1, 2))))
    assert [segment_info(node, name).layer for name in "abcd"] == [0, 0, 0, 1]


def test_a_volume_that_covers_part_of_a_segment_sees_that_part(scene, a_segmentation, an_oblique_grid):
    mask = a_block(an_oblique_grid, (2, 2, 2), (10, 8, 6))
    node = a_segmentation(an_oblique_grid, {"a": mask})
    shift = np.eye(4)
    shift[:3, 3] = (3, 4, 5)
    part = Geometry((4, 3, 20), an_oblique_grid.ijk_to_ras @ shift)
    expected = np.zeros((4, 3, 20), bool)
    expected[:, :, :5] = mask[5:9, 4:7, 3:8]
    np.testing.assert_array_equal(segment_mask(node, "a", part), expected)
    assert segment_slices(node, "a", part, 0) == (0, 1, 2, 3)
    assert segment_slices(node, "a", part, 2) == (0, 1, 2)


def test_a_segment_on_another_grid_is_read_by_the_nearest_voxel_or_refused(scene, a_segmentation, an_oblique_grid):
    mask = a_block(an_oblique_grid, (2, 2, 2), (10, 8, 6))
    node = a_segmentation(an_oblique_grid, {"a": mask})
    fine = Geometry((30, 31, 32), oblique_matrix((0.5, 0.55, 0.6), (0.1, 0.2), tuple(node.GetSegmentCenterRAS("a"))))
    assert not is_on_grid(node, "a", fine)
    found = segment_mask(node, "a", fine)
    label_map = LabelMap((mask.astype(np.uint8),), an_oblique_grid.ijk_to_ras, ())
    np.testing.assert_array_equal(found, resampled(label_map, fine).layers[0] > 0)
    assert found.any() and not found.all()
    assert segment_slices(node, "a", fine, 0) == tuple(np.flatnonzero(found.any(axis=(1, 2))))
    with pytest.raises(GeometryMismatch, match="does not lie on the voxels"):
        segment_mask(node, "a", fine, resample=False)


def test_a_transform_on_the_segmentation_moves_its_voxels(scene, a_segmentation, an_oblique_grid):
    mask = np.random.default_rng(2).random(an_oblique_grid.shape_kji) < 0.3
    node = a_segmentation(an_oblique_grid, {"a": mask})
    move = oblique_matrix((1, 1, 1), (0.4, 0.3), (30, -10, 5))
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "T")
    transform.SetMatrixTransformToParent(matrix_from_array(move))
    node.SetAndObserveTransformNodeID(transform.GetID())
    moved = Geometry(an_oblique_grid.shape_kji, move @ an_oblique_grid.ijk_to_ras)
    assert is_on_grid(node, "a", moved)
    assert not is_on_grid(node, "a", an_oblique_grid)
    np.testing.assert_array_equal(segment_mask(node, "a", moved), mask)
    assert reference_geometry(node).same_grid_as(moved)


def test_an_empty_segment_is_empty_on_every_grid(scene, a_segmentation, an_oblique_grid):
    node = a_segmentation(an_oblique_grid, {"a": np.zeros(an_oblique_grid.shape_kji, bool)})
    assert not segment_mask(node, "a", an_oblique_grid).any()
    assert segment_slices(node, "a", an_oblique_grid, 1) == ()
    assert is_on_grid(node, "a", Geometry((2, 2, 2), np.eye(4)))


def test_unknown_segments_and_other_nodes_are_named_in_the_error(scene, a_segmentation, an_oblique_grid):
    node = a_segmentation(an_oblique_grid, {"liver": np.ones(an_oblique_grid.shape_kji, bool)})
    with pytest.raises(InputError, match=r"no segment 'spleen'.*liver \(Liver\)"):
        segment_mask(node, "spleen", an_oblique_grid)
    for other in (None, scene.AddNewNodeByClass("vtkMRMLModelNode", "M")):
        with pytest.raises(InputError, match="A segmentation is needed"):
            segment_ids(other)


def test_a_segmentation_made_of_surfaces_is_refused_with_what_to_do(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Surfaces")
    sphere = vtk.vtkSphereSource()
    sphere.Update()
    node.SetSourceRepresentationToClosedSurface()
    node.AddSegmentFromClosedSurfaceRepresentation(sphere.GetOutput(), "ball", [1, 0, 0])
    with pytest.raises(InputError, match="source representation"):
        segment_mask(node, segment_ids_of_any(node)[0], Geometry((2, 2, 2), np.eye(4)))


def segment_ids_of_any(node) -> tuple[str, ...]:
    return node.GetSegmentation().GetSegmentIDs()


def test_a_new_segment_has_the_name_colour_and_terminology_it_was_given(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    segment_id = add_segment(
        node, "Linke Niere ü", segment_id="kidney", color_rgb=(0.25, 0.5, 1.0), tags={TERMINOLOGY_TAG: KIDNEY}
    )
    assert segment_ids(node) == ("kidney",)
    info = segment_info(node, segment_id)
    assert (info.name, info.color_rgb) == ("Linke Niere ü", (0.25, 0.5, 1.0))
    assert info.tags[TERMINOLOGY_TAG] == KIDNEY
    segment = node.GetSegmentation().GetSegment("kidney")
    assert not segment.GetNameAutoGenerated()
    assert not segment.GetColorAutoGenerated()
    assert add_segment(node, "Another", segment_id="kidney") != "kidney"


def test_all_tags_are_listed_whoever_set_them(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    add_segment(node, "A", segment_id="a")
    before = segment_tags(node, "a")
    segment = node.GetSegmentation().GetSegment("a")
    segment.SetTag("Other.Program", "two\n      lines: here\nand more")
    segment.SetTag("DICOM.x y", "ü ~^ 1")
    set_tag(node, "a", "Empty", "")
    added = {"Other.Program": "two\n      lines: here\nand more", "DICOM.x y": "ü ~^ 1", "Empty": ""}
    assert segment_tags(node, "a") == {**before, **added}
    set_tag(node, "a", "Empty", None)
    assert get_tag(node, "a", "Empty") is None


def test_plain_values_come_back_from_a_tag_and_nothing_in_it_can_break_a_file(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    add_segment(node, "A", segment_id="a")
    value = {"references": [1, 5, 9], "text": 'a|b:c "ü"\n\\', "confidence": [0.25, None, True]}
    set_tag_json(node, "a", "MedAI.Test", value)
    text = get_tag(node, "a", "MedAI.Test")
    assert "|" not in text and "\n" not in text and text.isascii()
    assert get_tag_json(node, "a", "MedAI.Test") == value
    assert get_tag_json(node, "a", "MedAI.None") is None
    set_tag(node, "a", "MedAI.Bad", "{")
    with pytest.raises(InputError, match="not JSON"):
        get_tag_json(node, "a", "MedAI.Bad")


@pytest.mark.parametrize(("tag", "value"), [("a", "x|y"), ("a|b", "x"), ("a:b", "x"), ("", "x")])
def test_a_tag_that_a_file_would_lose_is_refused(scene, tag, value):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    add_segment(node, "A", segment_id="a")
    with pytest.raises(InputError, match="would be lost"):
        set_tag(node, "a", tag, value)


def test_the_reference_geometry_is_the_volumes_or_the_grid_given(scene, an_oblique_grid):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    assert reference_geometry(node) is None
    set_reference_geometry(node, an_oblique_grid)
    assert reference_geometry(node).same_grid_as(an_oblique_grid)
    volume = write_volume(scene, Volume(np.zeros((2, 3, 4)), np.diag([2, 2, 2, 1])))
    set_reference_geometry(node, volume)
    assert reference_geometry(node).same_grid_as(Geometry((2, 3, 4), np.diag([2, 2, 2, 1])))
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is volume
