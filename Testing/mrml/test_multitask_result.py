"""A multi-task prediction in the scene: segmentation, table, run id, and where to look."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from slanted import oblique_matrix

from MedAILib.errors import InputError
from MedAILib.mrml.multitask_result import COLUMNS, slice_point_ras_mm, write_multitask_result
from MedAILib.mrml.nodes import run_id
from MedAILib.mrml.segmentations import TERMINOLOGY_TAG, reference_geometry, segment_ids, segment_info, segment_mask
from MedAILib.mrml.tables import read_table
from MedAILib.mrml.volumes import volume_geometry, write_volume
from MedAILib.multitask.volume_task import SliceFinding, VolumeResult
from MedAILib.volume import LabelMap, SegmentInfo, Volume

SHAPE = (6, 5, 4)
MATRIX = oblique_matrix((0.7, 1.5, 2.0), (0.3, -0.5), (12.5, -40.0, 7.25), left_handed=True)
TERM = "Segmentation category and type - DICOM master list~SCT^49755003^Morphologically Altered Structure~"
TERM += "SCT^4147007^Mass~^^~Anatomic codes - DICOM master list~^^~^^"


def a_result(axis: str = "k") -> VolumeResult:
    labels = np.zeros(SHAPE, np.uint8)
    labels[3, 1:4, 1:3] = 1
    segments = (SegmentInfo("Segment_1", "Tumor", 1, 0, (1.0, 0.0, 0.0), {TERMINOLOGY_TAG: TERM}),)
    count = SHAPE["kji".index(axis)]
    findings = tuple(
        SliceFinding(n, (float(n), 1.0, 2.0), 0.1 + 0.1 * n, n == 3, n == 3, 6.3 * (n == 3)) for n in range(count)
    )
    return VolumeResult(
        mask=LabelMap((labels,), MATRIX, segments, "Tumour"),
        axis=axis,
        slices=findings,
        most_suspicious=(3, 2),
        volume_mm3={"Tumor": 12.6},
        classification_threshold=0.5,
        segmentation_threshold=0.5,
        calibrated=False,
        model={"model_id": "small", "weights_sha256": "ab12"},
    )


@pytest.fixture
def a_volume_node(scene: Any) -> Any:
    return write_volume(scene, Volume(np.zeros(SHAPE, np.int16), MATRIX, "FLAIR"))


def _names(scene: Any) -> list[str]:
    return [scene.GetNthNode(n).GetID() for n in range(scene.GetNumberOfNodes())]


def test_the_mask_becomes_a_segment_on_the_volumes_own_grid(scene: Any, a_volume_node: Any) -> None:
    result = a_result()
    nodes = write_multitask_result(scene, result, a_volume_node, "run 1")
    (one,) = segment_ids(nodes.segmentation)
    info = segment_info(nodes.segmentation, one)
    assert (info.name, info.color_rgb, info.tags[TERMINOLOGY_TAG]) == ("Tumor", (1.0, 0.0, 0.0), TERM)
    mask = segment_mask(nodes.segmentation, one, volume_geometry(a_volume_node), resample=False)
    assert np.array_equal(mask, result.mask.layers[0] == 1)
    geometry = reference_geometry(nodes.segmentation)
    assert geometry is not None and geometry.same_grid_as(volume_geometry(a_volume_node))
    role = nodes.segmentation.GetReferenceImageGeometryReferenceRole()
    assert nodes.segmentation.GetNodeReference(role) is a_volume_node


def test_the_table_has_a_row_for_every_slice(scene: Any, a_volume_node: Any) -> None:
    columns, rows = read_table(write_multitask_result(scene, a_result(), a_volume_node, "run 1").table)
    assert columns == COLUMNS and len(rows) == SHAPE[0]
    assert rows[3] == (3, pytest.approx(0.4), pytest.approx(6.3), True, True) and rows[0][3:] == (False, False)


def test_both_nodes_say_which_run_and_model_made_them(scene: Any, a_volume_node: Any) -> None:
    nodes = write_multitask_result(scene, a_result(), a_volume_node, "run 1")
    for node in (nodes.segmentation, nodes.table):
        assert run_id(node) == "run 1" and node.GetName().startswith("FLAIR tumour")
        assert node.GetAttribute("MedAI.Model") == "small sha256:ab12"
        assert node.GetAttribute("MedAI.Calibrated") == "no"


def test_a_second_result_does_not_touch_the_first(scene: Any, a_volume_node: Any) -> None:
    first = write_multitask_result(scene, a_result(), a_volume_node, "1")
    second = write_multitask_result(scene, a_result(), a_volume_node, "2")
    assert first.segmentation is not second.segmentation
    assert first.segmentation.GetName() != second.segmentation.GetName() and run_id(first.table) == "1"


def test_the_nodes_lie_beside_the_volume_in_the_subject_hierarchy(scene: Any, a_volume_node: Any) -> None:
    import slicer

    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    study = hierarchy.CreateStudyItem(hierarchy.GetSceneItemID(), "A study")
    hierarchy.SetItemParent(hierarchy.GetItemByDataNode(a_volume_node), study)
    nodes = write_multitask_result(scene, a_result(), a_volume_node, "1")
    item = hierarchy.GetItemByDataNode(nodes.segmentation)
    assert hierarchy.GetItemParent(item) == study


def test_a_volume_that_has_left_the_scene_gets_no_result(scene: Any, a_volume_node: Any) -> None:
    scene.RemoveNode(a_volume_node)
    before = _names(scene)
    with pytest.raises(InputError, match="not taken over"):
        write_multitask_result(scene, a_result(), a_volume_node, "1")
    assert _names(scene) == before


def test_a_volume_that_was_moved_meanwhile_gets_no_result(scene: Any, a_volume_node: Any) -> None:
    a_volume_node.SetOrigin(1.0, 2.0, 3.0)
    before = _names(scene)
    with pytest.raises(InputError, match="does not fit 'FLAIR' any more"):
        write_multitask_result(scene, a_result(), a_volume_node, "1")
    assert _names(scene) == before


def test_a_result_that_cannot_be_written_whole_is_not_written_at_all(scene: Any, a_volume_node: Any) -> None:
    broken = replace(a_result(), slices=(replace(a_result().slices[0], index=2**40),))
    before = _names(scene)
    with pytest.raises(InputError):
        write_multitask_result(scene, broken, a_volume_node, "1")
    assert not set(_names(scene)) - set(before)


@pytest.mark.parametrize(("axis", "index"), [("k", 3), ("j", 2), ("i", 1)])
def test_a_slice_is_looked_at_where_something_is_segmented(axis: str, index: int) -> None:
    result = a_result(axis)
    point = slice_point_ras_mm(result, index)
    i, j, k = np.round((np.linalg.inv(MATRIX) @ (*point, 1.0))[:3], 6)
    assert {"i": i, "j": j, "k": k}[axis] == index
    assert result.mask.layers[0][int(k), int(j), int(i)] == 1


def test_an_empty_slice_is_looked_at_in_its_middle() -> None:
    assert slice_point_ras_mm(a_result(), 0) == (0.0, 1.0, 2.0)
    with pytest.raises(InputError, match="no slice 99"):
        slice_point_ras_mm(replace(a_result(), mask=_long(100)), 99)


def _long(count: int) -> LabelMap:
    return LabelMap((np.zeros((count, 2, 2), np.uint8),), MATRIX, (), "Tumour")
