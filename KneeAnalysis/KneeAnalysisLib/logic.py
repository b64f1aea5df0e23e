"""A knee in the scene: nodes as a request, and a result as a folder of nodes, whole or not at all."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer
import vtk

from KneeAnalysisLib.charts import write_charts, write_rows
from KneeAnalysisLib.exports import safe_name
from KneeAnalysisLib.labels import BONES, Tissue, tissue_segments
from KneeAnalysisLib.meshes import SurfaceMesh, polydata
from KneeAnalysisLib.pictures import BARE, COLOR_STOPS, THICKEST_MM
from KneeAnalysisLib.request import KneeRequest
from KneeAnalysisLib.results import KneeResult
from KneeAnalysisLib.table import rows
from KneeAnalysisLib.terminology import with_terminology
from KneeAnalysisLib.thickness import THICKNESS_ARRAY, BoneThickness
from MedAILib.errors import InputError
from MedAILib.grids import middle_voxel_kji
from MedAILib.jobs.execute import Outcome
from MedAILib.mrml.label_maps import label_map_from_segmentation, segmentation_from_label_map
from MedAILib.mrml.nodes import new_node, set_run_id
from MedAILib.mrml.segmentations import reference_geometry, segment_ids
from MedAILib.mrml.volumes import read_volume, volume_geometry, write_volume
from MedAILib.volume import LabelMap, SegmentInfo, Volume

TASK = "KneeAnalysisLib.task:KneeTask"
SIDE_ATTRIBUTE = "MedAI.Knee.Side"
COLOR_NODE = "MedAIKneeThickness"
T2_RANGE_MS = (10.0, 80.0)


@dataclass(eq=False)
class KneeNodes:
    """What a result has become in the scene.

    Attributes
    ----------
    name : str
    folder : int
        Item in the subject hierarchy; 0 where the scene has none.
    segmentation, regions : vtkMRMLSegmentationNode or None
    models : dict of str to vtkMRMLModelNode
        By tissue key.
    t2 : vtkMRMLScalarVolumeNode or None
    table : vtkMRMLTableNode or None
    charts : list of vtkMRMLPlotChartNode
    result : KneeResult
    all : list
        Every node, in the order they were made.
    """

    name: str
    result: KneeResult
    folder: int = 0
    segmentation: Any = None
    regions: Any = None
    models: dict[str, Any] = field(default_factory=dict)
    t2: Any = None
    table: Any = None
    charts: list[Any] = field(default_factory=list)
    all: list[Any] = field(default_factory=list)


@dataclass(frozen=True, eq=False)
class ScenePlan:
    """A request and the node it came from.

    Attributes
    ----------
    request : KneeRequest
    volume_node : vtkMRMLScalarVolumeNode or None
    """

    request: KneeRequest
    volume_node: Any = None


def segments_of(node: Any) -> list[tuple[str, str]]:
    """Id and name of every segment of a segmentation, or label value of a label map volume; none of other nodes."""
    if node is None:
        return []
    if node.IsA("vtkMRMLLabelMapVolumeNode"):
        return [(info.id, info.name) for info in label_map_of(node).segments]
    if not node.IsA("vtkMRMLSegmentationNode"):
        return []
    return [(one, node.GetSegmentation().GetSegment(one).GetName()) for one in segment_ids(node)]


def label_map_of(node: Any, volume_node: Any = None) -> LabelMap:
    """A segmentation or label map volume as a value.

    Parameters
    ----------
    node : vtkMRMLSegmentationNode or vtkMRMLLabelMapVolumeNode
    volume_node : vtkMRMLScalarVolumeNode, optional
        On its grid; else on the segmentation's own.

    Raises
    ------
    InputError
        The node is of another kind, or has no grid of its own and no volume is given.
    """
    if node is not None and node.IsA("vtkMRMLLabelMapVolumeNode"):
        return _from_label_volume(read_volume(node))
    if node is None or not node.IsA("vtkMRMLSegmentationNode"):
        raise InputError("A segmentation is needed.", todo="Choose a segmentation or a label map volume.")
    geometry = volume_geometry(volume_node) if volume_node is not None else reference_geometry(node)
    if geometry is None:
        raise InputError(
            f"The segmentation '{node.GetName()}' does not say on which voxels it was drawn.",
            todo="Choose its volume as well.",
        )
    return label_map_from_segmentation(node, geometry)


def image_of(node: Any) -> Volume:
    """A scalar volume node as a value; `InputError` where there is none."""
    if node is None or not node.IsA("vtkMRMLScalarVolumeNode"):
        raise InputError("A volume is needed.", todo="Choose the MRI of the knee.")
    return read_volume(node)


def example_knee(scene: Any) -> Any:
    """A segmentation of blocks that lie as the tissues of a right knee do, with 3 mm of cartilage, for tests."""
    labels = np.zeros((40, 60, 40), np.uint8)
    for tissue, (k, j, i) in _BLOCKS.items():
        labels[slice(*k), slice(*j), slice(*i)] = tissue
    matrix = np.array([[0, 0, 1, -20], [-1, 0, 0, 20], [0, -1, 0, 30], [0, 0, 0, 1]], dtype=float)
    example = LabelMap((labels,), matrix, tissue_segments(labels), "Example knee")
    return segmentation_from_label_map(scene, example)


_BLOCKS = {
    Tissue.FEMUR: ((4, 36), (4, 24), (6, 34)),
    Tissue.FEMORAL_CARTILAGE: ((6, 34), (24, 27), (8, 32)),
    Tissue.MEDIAL_TIBIAL_CARTILAGE: ((6, 18), (29, 32), (8, 32)),
    Tissue.LATERAL_TIBIAL_CARTILAGE: ((22, 34), (29, 32), (8, 32)),
    Tissue.TIBIA: ((4, 36), (32, 56), (6, 34)),
}


def result_name(*nodes: Any) -> str:
    """The start of file names from the first node given."""
    return safe_name(next((node.GetName() for node in nodes if node is not None), "knee"))


def write_knee(scene: Any, outcome: Outcome[KneeResult], volume_node: Any = None) -> KneeNodes:
    """Put a result into the scene: a folder with all its nodes, whole or not at all.

    Parameters
    ----------
    scene : vtkMRMLScene
    outcome : Outcome
        Of `KneeAnalysisLib.task.KneeTask`.
    volume_node : vtkMRMLScalarVolumeNode, optional
        The MRI; it becomes the segmentations' source volume.

    Returns
    -------
    KneeNodes
        The run's id is an attribute of each.
    """
    result = outcome.result
    nodes = KneeNodes(scene.GenerateUniqueName(f"{result.name} knee"), result)
    with _all_or_nothing(scene, nodes):
        _write_segmentations(scene, nodes, volume_node)
        _write_models(scene, nodes)
        if result.t2 is not None:
            nodes.t2 = _kept(nodes, write_volume(scene, result.t2.t2_ms, name=f"{nodes.name} T2 (ms)"))
            _show_t2(nodes.t2)
        found = rows(result)
        if found:
            nodes.table = _kept(nodes, write_rows(scene, found, f"{nodes.name} regions"))
            drawn = write_charts(scene, nodes.name, nodes.table, found, result.bones)
            nodes.charts = drawn.charts
            nodes.all += drawn.all
        for node in nodes.all:
            set_run_id(node, outcome.report.run_id)
            node.SetAttribute(SIDE_ATTRIBUTE, result.side or "unknown")
        nodes.folder = _into_folder(scene, nodes)
    return nodes


def show_region(nodes: KneeNodes, key: str) -> tuple[float, float, float]:
    """Let the slice views show the middle of a region, and only this region be drawn in full in the sub-regions.

    Returns
    -------
    tuple of float
        The place, RAS mm.

    Raises
    ------
    InputError
        The result has no such region, or its nodes have left the scene.
    """
    row = next((one for one in rows(nodes.result) if one.key == key), None)
    if row is None:
        raise InputError(f"This result has no region '{key}'.")
    members = _members(key)
    place = _middle_ras_mm(nodes.result, members)
    node = nodes.regions or nodes.segmentation
    if node is None or node.GetScene() is None:
        raise InputError("The result has left the scene.", todo="Run the analysis again.")
    slicer.vtkMRMLSliceNode.JumpAllSlices(node.GetScene(), *place)
    _emphasise(node, members)
    return place


def chosen_segments(nodes: KneeNodes) -> list[str]:
    """Ids of the segments that `show_region` has emphasised."""
    node = nodes.regions or nodes.segmentation
    display = node.GetDisplayNode()
    return [one for one in node.GetSegmentation().GetSegmentIDs() if display.GetSegmentOpacity2DFill(one) > _FAINT]


# Nodes


def _from_label_volume(volume: Volume) -> LabelMap:
    array = volume.array
    if array.dtype.kind not in "iu" or (array.size and (array.min() < 0 or array.max() > np.iinfo(np.uint16).max)):
        raise InputError(f"'{volume.name}' holds values that are no labels.", todo="Choose a label map.")
    layer = array.astype(np.uint16)
    values = np.flatnonzero(np.bincount(layer.ravel()))
    infos = tuple(SegmentInfo(str(value), str(value), int(value)) for value in values if value)
    return LabelMap((layer,), volume.ijk_to_ras, infos, volume.name)


_FAINT = 0.15


@contextmanager
def _all_or_nothing(scene: Any, nodes: KneeNodes) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for node in reversed(nodes.all):
            displays = _display_nodes(node)
            scene.RemoveNode(node)
            for display in displays:  # a legend would keep them in the scene
                scene.RemoveNode(display)
        raise


def _display_nodes(node: Any) -> list[Any]:
    count = node.GetNumberOfDisplayNodes() if node.IsA("vtkMRMLDisplayableNode") else 0
    return [node.GetNthDisplayNode(index) for index in reversed(range(count))]


def _kept(nodes: KneeNodes, node: Any) -> Any:
    nodes.all.append(node)
    return node


def _write_segmentations(scene: Any, nodes: KneeNodes, volume_node: Any) -> None:
    result = nodes.result
    tissues = with_terminology(result.segmented.labels, result.side)
    nodes.segmentation = _kept(nodes, segmentation_from_label_map(scene, tissues, name=f"{nodes.name} tissues"))
    if result.regions is not None:
        only = [info for info in result.regions.segments if info.label_value not in (*BONES, *_OTHERS)]
        regions = with_terminology(_with_segments(result.regions, only), result.side)
        nodes.regions = _kept(nodes, segmentation_from_label_map(scene, regions, name=f"{nodes.name} sub-regions"))
        nodes.segmentation.GetDisplayNode().SetVisibility(False)
    for node in (nodes.segmentation, nodes.regions):
        if node is not None and volume_node is not None and volume_node.GetScene() is scene:
            node.SetNodeReferenceID(node.GetReferenceImageGeometryReferenceRole(), volume_node.GetID())


_OTHERS = (Tissue.MEDIAL_MENISCUS, Tissue.LATERAL_MENISCUS, Tissue.FIBULA)


def _with_segments(label_map: LabelMap, segments: list[Any]) -> LabelMap:
    return LabelMap(label_map.layers, label_map.ijk_to_ras, tuple(segments), label_map.name)


def _write_models(scene: Any, nodes: KneeNodes) -> None:
    measured = {bone.bone: bone for bone in nodes.result.bones}
    surfaces = nodes.result.surfaces
    for surface in (*surfaces.bones, *surfaces.cartilages) if surfaces is not None else ():
        bone = measured.get(surface.tissue)
        model = _kept(nodes, _model(scene, f"{nodes.name} {surface.tissue.title.lower()}", surface.mesh, bone))
        nodes.models[surface.tissue.key] = model
        display = model.GetDisplayNode()
        if bone is None:
            display.SetColor(*surface.tissue.color_rgb)
            display.SetVisibility(surface.tissue in BONES)
        else:
            _color_by_thickness(scene, display)


def _model(scene: Any, name: str, mesh: SurfaceMesh, bone: BoneThickness | None) -> Any:
    with new_node(scene, "vtkMRMLModelNode", name) as node:
        node.SetAndObservePolyData(polydata(mesh, None if bone is None else bone.arrays))
        node.CreateDefaultDisplayNodes()
    return node


def _color_by_thickness(scene: Any, display: Any) -> None:
    display.SetAndObserveColorNodeID(_color_node(scene).GetID())
    display.SetActiveScalar(THICKNESS_ARRAY, vtk.vtkAssignAttribute.POINT_DATA)
    display.SetScalarRangeFlag(slicer.vtkMRMLDisplayNode.UseManualScalarRange)
    display.SetScalarRange(0.0, THICKEST_MM)
    display.SetScalarVisibility(True)
    legend = slicer.modules.colors.logic().AddDefaultColorLegendDisplayNode(display)
    if legend is not None:
        legend.SetTitleText("Thickness (mm)")
        legend.SetLabelFormat("%.1f")


def _color_node(scene: Any) -> Any:
    """The colours of thickness: one node for all knees of the scene."""
    found = scene.GetSingletonNode(COLOR_NODE, "vtkMRMLProceduralColorNode")
    if found is not None:
        return found
    node = slicer.vtkMRMLProceduralColorNode()
    node.SetSingletonTag(COLOR_NODE)
    node.SetName("Cartilage thickness (mm)")
    node.SetType(slicer.vtkMRMLColorNode.User)
    node.SetAndObserveColorTransferFunction(_thickness_colors())
    node.SetAttribute("Category", "MedAI")
    return scene.AddNode(node)


def _thickness_colors() -> Any:
    """The colours of the report's pictures as a VTK function; bare bone at 0."""
    colors = vtk.vtkColorTransferFunction()
    for share, code in COLOR_STOPS:
        colors.AddRGBPoint(share * THICKEST_MM, *(channel / 255 for channel in bytes.fromhex(code)))
    colors.SetClamping(True)
    colors.AddRGBPoint(0.05, *colors.GetColor(0.05))
    colors.AddRGBPoint(0.0, *BARE)
    return colors


def _show_t2(node: Any) -> None:
    display = node.GetDisplayNode()
    color = node.GetScene().GetFirstNodeByName("PET-Rainbow2") or node.GetScene().GetFirstNodeByName("Rainbow")
    if color is not None:
        display.SetAndObserveColorNodeID(color.GetID())
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(*T2_RANGE_MS)
    display.SetApplyThreshold(True)
    display.SetLowerThreshold(1.0)


# Places


def _into_folder(scene: Any, nodes: KneeNodes) -> int:
    """A folder in the subject hierarchy with all the nodes; 0 where the scene has no hierarchy."""
    hierarchy = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    if hierarchy is None:
        return 0
    folder = int(hierarchy.CreateFolderItem(hierarchy.GetSceneItemID(), nodes.name))
    for node in nodes.all:
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.SetItemParent(item, folder)
    return folder


def _members(key: str) -> tuple[int, ...]:
    from KneeAnalysisLib.finer import FINER_REGIONS
    from KneeAnalysisLib.labels import REGIONS

    return next((region.members for region in (*REGIONS, *FINER_REGIONS) if region.key == key), ())


def _middle_ras_mm(result: KneeResult, members: tuple[int, ...]) -> tuple[float, float, float]:
    """A voxel of the region near its middle: the region's own middle may lie outside of a curved sheet."""
    for label_map in (result.finer_regions, result.regions, result.segmented.labels):
        if label_map is None:
            continue
        index = middle_voxel_kji(np.isin(label_map.layers[0], members))
        if index is not None:
            right, anterior, superior, _ = label_map.ijk_to_ras @ (*index[::-1], 1.0)
            return float(right), float(anterior), float(superior)
    raise InputError("The region has no voxels.")


def _emphasise(node: Any, members: tuple[int, ...]) -> None:
    """Draw the segments of a region in full and all others faintly."""
    display, segmentation = node.GetDisplayNode(), node.GetSegmentation()
    for one in segmentation.GetSegmentIDs():
        chosen = segmentation.GetSegment(one).GetLabelValue() in members
        display.SetSegmentOpacity2DFill(one, 1.0 if chosen else _FAINT)
        display.SetSegmentOpacity3D(one, 1.0 if chosen else _FAINT)
