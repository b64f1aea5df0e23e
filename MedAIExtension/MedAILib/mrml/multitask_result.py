"""The result of a multi-task prediction -> a segmentation and a table of its slices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from MedAILib.errors import InputError
from MedAILib.jobs.task import weights_text
from MedAILib.mrml.label_maps import segmentation_from_label_map
from MedAILib.mrml.nodes import set_run_id
from MedAILib.mrml.segmentations import set_reference_geometry
from MedAILib.mrml.tables import Column, write_table
from MedAILib.mrml.volumes import volume_geometry
from MedAILib.multitask.volume_task import SliceFinding, VolumeResult

MODEL_ATTRIBUTE = "MedAI.Model"
CALIBRATED_ATTRIBUTE = "MedAI.Calibrated"
COLUMNS = (
    Column("Slice", int),
    Column("Probability", float),
    Column("Area", float, "mm2"),
    Column("Suspicious", bool),
    Column("Segmented", bool),
)
_ARRAY_AXIS = {"k": 0, "j": 1, "i": 2}


@dataclass(frozen=True, eq=False)
class MultitaskNodes:
    """What a prediction has become in the scene.

    Attributes
    ----------
    result : VolumeResult
    segmentation : vtkMRMLSegmentationNode
    table : vtkMRMLTableNode
        A row per slice, by ascending index.
    """

    result: VolumeResult
    segmentation: Any
    table: Any


def write_multitask_result(scene: Any, result: VolumeResult, volume_node: Any, run_id: str) -> MultitaskNodes:
    """Put a prediction into the scene, whole or not at all.

    Parameters
    ----------
    scene : vtkMRMLScene
    result : VolumeResult
    volume_node : vtkMRMLScalarVolumeNode
        The volume that was predicted on; it becomes the segmentation's source volume.
    run_id : str

    Returns
    -------
    MultitaskNodes
        New nodes, beside the volume in the subject hierarchy where the scene has one.

    Raises
    ------
    InputError
        Where the volume has left the scene, or was moved or resampled since the run began.
    """
    _check_volume(scene, result, volume_node)
    name = volume_node.GetName() or "Volume"
    segmentation = segmentation_from_label_map(scene, result.mask, name=scene.GenerateUniqueName(f"{name} tumour"))
    try:
        set_reference_geometry(segmentation, volume_node)
        table = write_table(scene, COLUMNS, _rows(result), name=scene.GenerateUniqueName(f"{name} tumour slices"))
    except BaseException:
        scene.RemoveNode(segmentation)
        raise
    for node in (segmentation, table):
        set_run_id(node, run_id)
        node.SetAttribute(MODEL_ATTRIBUTE, _model_text(result))
        node.SetAttribute(CALIBRATED_ATTRIBUTE, "yes" if result.calibrated else "no")
        _place_beside(scene, node, volume_node)
    return MultitaskNodes(result, segmentation, table)


def slice_point_ras_mm(result: VolumeResult, index: int) -> tuple[float, float, float]:
    """Where to look on a slice: the middle of what is segmented on it, or of the slice where nothing is.

    Parameters
    ----------
    index : int
        Along `VolumeResult.axis`.

    Returns
    -------
    tuple of float
        Right, anterior, superior in mm.
    """
    axis = _ARRAY_AXIS[result.axis]
    plane = np.take(result.mask.layers[0], index, axis=axis) > 0
    if not plane.any():
        return _finding(result, index).centre_ras_mm
    found = np.argwhere(plane)
    # A voxel of the segment, not its centre of gravity, which may lie outside a ring.
    nearest = found[np.argmin(((found - found.mean(axis=0)) ** 2).sum(axis=1))]
    point_kji = np.insert(nearest, axis, index)
    right, anterior, superior, _ = result.mask.ijk_to_ras @ (*point_kji[::-1], 1.0)
    return float(right), float(anterior), float(superior)


def _finding(result: VolumeResult, index: int) -> SliceFinding:
    found = next((finding for finding in result.slices if finding.index == index), None)
    if found is None:
        raise InputError(f"The result has no slice {index}.")
    return found


def _check_volume(scene: Any, result: VolumeResult, volume_node: Any) -> None:
    if volume_node is None or volume_node.GetScene() is not scene:
        raise InputError(
            "The prediction was not taken over.",
            why="Its volume has left the scene.",
            todo="Load the volume again, then run again.",
        )
    if not result.mask.geometry.same_grid_as(volume_geometry(volume_node)):
        raise InputError(
            f"The prediction was not taken over: it does not fit '{volume_node.GetName()}' any more.",
            why="The volume was moved, or other voxels were loaded into it, while the prediction ran.",
            todo="Run again.",
        )


def _rows(result: VolumeResult) -> list[tuple[int, float, float, bool, bool]]:
    return [(one.index, one.tumor_probability, one.area_mm2, one.suspicious, one.segmented) for one in result.slices]


def _model_text(result: VolumeResult) -> str:
    return weights_text(result.model.get("model_id", ""), result.model.get("weights_sha256", ""))


def _place_beside(scene: Any, node: Any, volume_node: Any) -> None:
    """Under the same parent, such as the patient's study; scenes without a subject hierarchy are left alone."""
    hierarchy = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    if hierarchy is None:
        return
    item, volume_item = hierarchy.GetItemByDataNode(node), hierarchy.GetItemByDataNode(volume_node)
    if item and volume_item:
        hierarchy.SetItemParent(item, hierarchy.GetItemParent(volume_item))
