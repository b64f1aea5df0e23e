"""The label maps inside a segmentation node: where they lie, and their voxels as arrays.

A segmentation keeps its segments' voxels in *layers*: label images, cropped to what they hold, that one
or more segments share; within its layer a segment is the voxels of its label value.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import slicer
from vtk.util.numpy_support import vtk_to_numpy

from MedAILib.errors import InputError
from MedAILib.grids import resampled
from MedAILib.mrml.lattice import Index, LatticeMap, lattice_map, overlap, shape_of, window
from MedAILib.mrml.nodes import array_from_matrix, matrix_from_array, node_to_world
from MedAILib.mrml.volumes import image_from_array
from MedAILib.volume import Geometry, LabelMap

BINARY_LABELMAP = "Binary labelmap"


@dataclass(frozen=True, eq=False)
class Layer:
    """One label image of a segmentation.

    Attributes
    ----------
    image : vtkOrientedImageData
    segment_ids : tuple of str
        The segments it holds.
    label_values : tuple of int
        Their values in it.
    start_kji : tuple of int
        Index of the array's first voxel on the image's own lattice.
    array : ndarray, shape (k, j, i)
        Its voxels; a writable view. Empty where nothing is drawn.
    ijk_to_world : ndarray, shape (4, 4)
        From indices on that lattice to world RAS millimetres.
    """

    image: Any
    segment_ids: tuple[str, ...]
    label_values: tuple[int, ...]
    start_kji: Index
    array: np.ndarray
    ijk_to_world: np.ndarray

    @property
    def is_empty(self) -> bool:
        return self.array.size == 0

    def label_of(self, segment_id: str) -> int:
        return self.label_values[self.segment_ids.index(segment_id)]

    def map_to(self, geometry: Geometry) -> LatticeMap | None:
        """How the grid lies on this layer's lattice; None where it does not."""
        return lattice_map(self.ijk_to_world, geometry.ijk_to_ras, geometry.shape_kji)


def segmentation_of(node: Any) -> Any:
    """The vtkSegmentation of a node, checked to keep its segments as label maps.

    Raises
    ------
    InputError
        Where the node is no segmentation, or its source representation is a surface or fractional.
    """
    if node is None or not node.IsA("vtkMRMLSegmentationNode"):
        found = "nothing" if node is None else f"'{node.GetName()}', a {node.GetClassName()}"
        raise InputError(f"A segmentation is needed, got {found}.")
    segmentation = node.GetSegmentation()
    source = segmentation.GetSourceRepresentationName()
    if segmentation.GetNumberOfSegments() and source != BINARY_LABELMAP:
        raise InputError(
            f"The segmentation '{node.GetName()}' is stored as '{source}', not as label maps.",
            why="It was imported from models or another program.",
            todo="In the Segmentations module make 'Binary labelmap' its source representation.",
        )
    return segmentation


def segment_of(node: Any, segment_id: str) -> Any:
    """The vtkSegment of that id; `InputError` naming the segments there are, where it is missing."""
    segmentation = segmentation_of(node)
    segment = segmentation.GetSegment(segment_id)
    if segment is None:
        ids = segmentation.GetSegmentIDs()
        known = ", ".join(f"{known} ({segmentation.GetSegment(known).GetName()})" for known in ids) or "none"
        raise InputError(
            f"The segmentation '{node.GetName()}' has no segment '{segment_id}'.",
            todo=f"Its segments are: {known}.",
        )
    return segment


def layers(node: Any) -> tuple[Layer, ...]:
    """All layers of a segmentation, in the order of their first segments; empty ones too."""
    segmentation = segmentation_of(node)
    world = node_to_world(node)
    members: dict[Any, list[str]] = {}
    for segment_id in segmentation.GetSegmentIDs():
        image = segmentation.GetSegment(segment_id).GetRepresentation(BINARY_LABELMAP)
        if image is not None:
            members.setdefault(image, []).append(segment_id)
    return tuple(_layer(segmentation, image, ids, world) for image, ids in members.items())


def layer_of(node: Any, segment_id: str) -> Layer:
    """The layer that holds a segment."""
    segment_of(node, segment_id)
    for layer in layers(node):
        if segment_id in layer.segment_ids:
            return layer
    raise InputError(f"The segment '{segment_id}' of '{node.GetName()}' has no label map.")


def labels_in_box(layer: Layer, index: LatticeMap, start: Index, end: Index) -> np.ndarray:
    """Label values within a box of a grid on the layer's lattice; a copy.

    Parameters
    ----------
    layer : Layer
    index : LatticeMap
        From `Layer.map_to` for that grid.
    start, end : tuple of int
        The box on the grid, k, j, i, end exclusive.
    """
    found = np.zeros(shape_of(start, end), dtype=layer.array.dtype)
    if layer.is_empty:
        return found
    origin, view = index.to_target(layer.start_kji, layer.array)
    shared = overlap(origin, view.shape, start, found.shape)
    if shared is not None:
        found[window(*shared, start)] = view[window(*shared, origin)]
    return found


def resampled_labels(layer: Layer, geometry: Geometry) -> np.ndarray:
    """Label values of a layer on any grid, by the nearest voxel; shape (k, j, i)."""
    start = np.eye(4)
    start[:3, 3] = layer.start_kji[::-1]
    labels = LabelMap((layer.array,), layer.ijk_to_world @ start, segments=())
    return resampled(labels, geometry).layers[0]


def labels_on(node: Any, layer: Layer, geometry: Geometry) -> np.ndarray:
    """Label values of a layer on a grid: copied where both share a lattice, else by the nearest voxel."""
    if layer.is_empty:
        return np.zeros(geometry.shape_kji, dtype=np.uint8)
    index = layer.map_to(geometry)
    if index is None:
        return resampled_labels(layer, geometry)
    return labels_in_box(layer, index, (0, 0, 0), geometry.shape_kji)


def image_voxels(image: Any) -> tuple[Index, np.ndarray]:
    """Start index and voxels of an oriented image, as a writable view in k, j, i order."""
    i_first, i_last, j_first, j_last, k_first, k_last = image.GetExtent()
    shape = (k_last - k_first + 1, j_last - j_first + 1, i_last - i_first + 1)
    scalars = image.GetPointData().GetScalars()
    if min(shape) < 1 or scalars is None:
        return (0, 0, 0), np.zeros((0, 0, 0), dtype=np.uint8)
    return (k_first, j_first, i_first), vtk_to_numpy(scalars).reshape(shape)


def oriented_image(array_kji: np.ndarray, start_kji: Sequence[int], ijk_to_ras: np.ndarray) -> Any:
    """A vtkOrientedImageData holding a copy of a block.

    Parameters
    ----------
    array_kji : ndarray, shape (k, j, i)
    start_kji : sequence of int
        Index of its first voxel on the lattice.
    ijk_to_ras : ndarray, shape (4, 4)
        From indices on the lattice to the segmentation's own RAS millimetres.
    """
    plain = image_from_array(array_kji)
    image = slicer.vtkOrientedImageData()
    image.ShallowCopy(plain)
    k, j, i = (int(value) for value in start_kji)
    nk, nj, ni = array_kji.shape
    image.SetExtent(i, i + ni - 1, j, j + nj - 1, k, k + nk - 1)
    image.SetGeometryFromImageToWorldMatrix(matrix_from_array(ijk_to_ras))
    return image


def _layer(segmentation: Any, image: Any, segment_ids: list[str], world: np.ndarray) -> Layer:
    matrix = matrix_from_array(np.eye(4))
    image.GetImageToWorldMatrix(matrix)
    start, array = image_voxels(image)
    return Layer(
        image=image,
        segment_ids=tuple(segment_ids),
        label_values=tuple(int(segmentation.GetSegment(known).GetLabelValue()) for known in segment_ids),
        start_kji=start,
        array=array,
        ijk_to_world=world @ array_from_matrix(matrix),
    )
