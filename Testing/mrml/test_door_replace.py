"""Segments of a node replaced by others, and where to look for one; where a volume came from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from MedAILib.errors import InputError
from MedAILib.grids import middle_voxel_kji
from MedAILib.mrml.dicom import dicom_instance_uids, dicom_modality, dicom_source_file
from MedAILib.mrml.label_maps import label_map_from_segmentation, replace_segments
from MedAILib.mrml.nodes import matrix_from_array
from MedAILib.mrml.segmentations import segment_fingerprint, segment_ids, segment_mask, segment_middle_ras_mm
from MedAILib.mrml.volumes import write_volume
from MedAILib.volume import Geometry, LabelMap, SegmentInfo, Volume

GRID = Geometry((6, 8, 10), np.diag([2.0, 1.0, 3.0, 1.0]))


def block(*slices: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(GRID.shape_kji, bool)
    mask[tuple(slice(*one) for one in slices)] = True
    return mask


def label_map(**masks: np.ndarray) -> LabelMap:
    layers = tuple(mask.astype(np.uint8) for mask in masks.values())
    infos = tuple(SegmentInfo(name, name.title(), 1, place) for place, name in enumerate(masks))
    return LabelMap(layers, GRID.ijk_to_ras, infos)


def test_segments_are_replaced_and_named_ones_stay(scene: Any, a_segmentation: Callable[..., Any]) -> None:
    mine, old, new = block((0, 2), (0, 3), (0, 3)), block((2, 4), (2, 5), (2, 5)), block((3, 6), (4, 8), (5, 9))
    node = a_segmentation(GRID, {"mine": mine, "old": old})
    segmentation = node.GetSegmentation()
    count = scene.GetNumberOfNodes()
    given = replace_segments(node, label_map(new=new, mine=old), keep=["mine"])
    assert node.GetSegmentation() is segmentation and scene.GetNumberOfNodes() == count
    assert len(segment_ids(node)) == 3 and {"new", "mine"} < set(segment_ids(node))
    np.testing.assert_array_equal(segment_mask(node, "mine", GRID), mine)
    np.testing.assert_array_equal(segment_mask(node, "new", GRID), new)
    (other,) = set(segment_ids(node)) - {"new", "mine"}
    assert given == ("new", other)
    np.testing.assert_array_equal(segment_mask(node, other, GRID), old)
    assert node.GetSegmentation().GetSegment("mine").GetName() == "Mine"


def test_what_cannot_replace_leaves_the_node_alone(a_segmentation: Callable[..., Any]) -> None:
    node = a_segmentation(GRID, {"old": block((0, 2), (0, 2), (0, 2))})
    twice = LabelMap(
        (np.zeros(GRID.shape_kji, np.uint8),), GRID.ijk_to_ras, (SegmentInfo("a", "A", 1), SegmentInfo("b", "B", 1))
    )
    with pytest.raises(InputError):
        replace_segments(node, twice)
    assert segment_ids(node) == ("old",)


def test_under_a_transform_the_new_segments_lie_in_the_nodes_own_space(
    scene: Any, a_segmentation: Callable[..., Any]
) -> None:
    node = a_segmentation(GRID, {"old": block((0, 2), (0, 2), (0, 2))})
    move = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    shift = np.eye(4)
    shift[:3, 3] = 10, 20, 30
    move.SetMatrixTransformToParent(matrix_from_array(shift))
    node.SetAndObserveTransformNodeID(move.GetID())
    new = block((3, 6), (4, 8), (5, 9))
    replace_segments(node, label_map(new=new))
    moved = Geometry(GRID.shape_kji, shift @ GRID.ijk_to_ras)
    np.testing.assert_array_equal(label_map_from_segmentation(node, moved).mask("new"), new)
    assert segment_middle_ras_mm(node, "new") == (10 + 2 * 6, 20 + 5, 30 + 3 * 4)


def test_the_middle_of_a_curved_segment_is_in_it(a_segmentation: Callable[..., Any]) -> None:
    ring = block((0, 6), (0, 8), (0, 10)) & ~block((1, 5), (1, 7), (1, 9))
    node = a_segmentation(GRID, {"ring": ring})
    middle = segment_middle_ras_mm(node, "ring")
    index = np.rint(np.linalg.solve(GRID.ijk_to_ras, [*middle, 1.0])[:3]).astype(int)
    assert ring[tuple(index[::-1])]
    assert middle_voxel_kji(ring) == tuple(index[::-1])
    assert middle_voxel_kji(np.zeros((2, 2, 2), bool)) is None
    empty = a_segmentation(GRID, {"none": np.zeros(GRID.shape_kji, bool)})
    assert segment_middle_ras_mm(empty, "none") is None


def test_the_fingerprint_of_a_segment_is_of_its_shape_alone(a_segmentation: Callable[..., Any]) -> None:
    here, there = block((0, 2), (1, 4), (1, 4)), block((3, 5), (4, 7), (2, 5))
    node = a_segmentation(GRID, {"here": here, "there": there}, {"here": 0, "there": 1})
    assert segment_fingerprint(node, "here") == segment_fingerprint(node, "there") != ""
    there[3, 4, 2] = False
    other = a_segmentation(GRID, {"there": there, "none": np.zeros(GRID.shape_kji, bool)})
    assert segment_fingerprint(other, "there") != segment_fingerprint(node, "there")
    assert segment_fingerprint(other, "none") == ""


class Database:
    """Answers as ctkDICOMDatabase does: the path of an instance, or an empty text."""

    def __init__(self, files: dict[str, str]) -> None:
        self.files = files

    def fileForInstance(self, uid: str) -> str:
        return self.files.get(uid, "")


def test_the_file_of_a_slice_is_found_where_it_still_is(scene: Any, tmp_path: Path) -> None:
    import slicer

    node = write_volume(scene, Volume(np.zeros((2, 2, 2), np.int16), np.eye(4), "CT"))
    here = tmp_path / "ä 2.dcm"
    here.write_bytes(b"")
    database = Database({"1.1": str(tmp_path / "gone.dcm"), "1.2": str(here)})
    assert dicom_source_file(node, database) is None and dicom_instance_uids(node) == ()
    node.SetAttribute("DICOM.instanceUIDs", "1.0 1.1 1.2")
    assert dicom_source_file(node, database) == here
    assert dicom_source_file(node, None) is None and dicom_source_file(node, Database({})) is None
    assert dicom_modality(node) == ""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    hierarchy.SetItemAttribute(hierarchy.GetItemByDataNode(node), "DICOM.Modality", "CT")
    assert dicom_modality(node) == "CT"
