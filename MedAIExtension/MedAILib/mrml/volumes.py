"""Volume nodes <-> `Volume`."""

from __future__ import annotations

from typing import Any

import numpy as np
import vtk
from vtk.util.numpy_support import get_vtk_array_type, numpy_to_vtk, vtk_to_numpy

from MedAILib.errors import InputError
from MedAILib.mrml.nodes import array_from_matrix, matrix_from_array, node_to_world, node_to_write
from MedAILib.volume import Geometry, Volume


def read_volume(node: Any) -> Volume:
    """A scalar volume node as a value, without copying a voxel.

    Parameters
    ----------
    node : vtkMRMLScalarVolumeNode
        Label map volumes too. Linear parent transforms go into the matrix: the result is in world RAS.

    Returns
    -------
    Volume
        Its array is a read-only view of the node's memory, in k, j, i order. It outlives the node, and it
        shows what others write into the node later: copy it where that matters.

    Raises
    ------
    InputError
        Without voxels, with several components per voxel (colour, vectors, tensors, time), or under a
        transform that is not linear.
    """
    image = _scalar_image(node)
    shape, scalars = _shape_kji(image), image.GetPointData().GetScalars()
    return Volume(vtk_to_numpy(scalars).reshape(shape), _image_to_world(node, image), node.GetName() or "")


def read_channels(node: Any) -> tuple[Volume, ...]:
    """The components of a volume node as volumes on one grid: one of a scalar volume, three of a colour image.

    Raises
    ------
    InputError
        As for `read_volume`, but for several components.
    """
    if node is not None and node.IsA("vtkMRMLTensorVolumeNode") and node.GetImageData() is not None:
        image = node.GetImageData()
        scalars, matrix = image.GetPointData().GetScalars(), _image_to_world(node, image)
        if scalars is not None and scalars.GetNumberOfTuples():
            values = vtk_to_numpy(scalars).reshape(*_shape_kji(image), scalars.GetNumberOfComponents())
            name = node.GetName() or ""
            return tuple(Volume(values[..., index], matrix, name) for index in range(values.shape[-1]))
    return (read_volume(node),)


def volume_geometry(node: Any) -> Geometry:
    """The voxel grid of a scalar volume node in world RAS; errors as for `read_volume`."""
    image = _scalar_image(node)
    return Geometry(_shape_kji(image), _image_to_world(node, image))


def write_volume(
    scene: Any, volume: Volume, *, node: Any = None, name: str | None = None, label_map: bool = False
) -> Any:
    """Put a volume into the scene.

    Parameters
    ----------
    scene : vtkMRMLScene
    volume : Volume
        Its voxels are copied.
    node : vtkMRMLScalarVolumeNode, optional
        Written to; a new node otherwise. A window and level set by hand stay, and so does a linear parent
        transform: the voxels lie in the world where the volume says.
    name : str, optional
        Of the node; the volume's own name by default, and an existing node keeps its name.
    label_map : bool
        Make a label map volume. For a new node.

    Returns
    -------
    vtkMRMLScalarVolumeNode

    Raises
    ------
    InputError
        Where the node is of another kind or its transform is not linear; nothing is changed then.
    """
    world = np.eye(4) if node is None else node_to_world(node)
    if node is not None and (node.IsA("vtkMRMLTensorVolumeNode") or node.IsA("vtkMRMLMultiVolumeNode")):
        raise InputError(f"'{node.GetName()}' is a {node.GetClassName()}; a scalar volume cannot be written into it.")
    image = image_from_array(volume.array)
    matrix = matrix_from_array(np.linalg.solve(world, volume.ijk_to_ras))
    class_name = "vtkMRMLLabelMapVolumeNode" if label_map else "vtkMRMLScalarVolumeNode"
    with node_to_write(scene, node, class_name, name or volume.name or "Volume") as target:
        if name is not None:
            target.SetName(name)
        target.SetIJKToRASMatrix(matrix)
        target.SetAndObserveImageData(image)
        if target.GetDisplayNode() is None:
            target.CreateDefaultDisplayNodes()
    return target


def image_from_array(array_kji: np.ndarray) -> Any:
    """An array in k, j, i order, copied into a vtkImageData of unit spacing.

    Types that VTK or Slicer's writers lack are widened: bool to uint8, float16 to float32, 64 bit
    integers to int32 where they fit and to float64 otherwise.
    """
    array = _storable(np.asarray(array_kji))
    scalars = numpy_to_vtk(array.ravel(), deep=True, array_type=get_vtk_array_type(array.dtype))
    scalars.SetName("ImageScalars")
    image = vtk.vtkImageData()
    image.SetDimensions(*array.shape[::-1])
    image.GetPointData().SetScalars(scalars)
    return image


def _storable(array: np.ndarray) -> np.ndarray:
    kind = array.dtype
    if kind.kind == "b":
        kind = np.dtype(np.uint8)
    elif kind == np.float16:
        kind = np.dtype(np.float32)
    elif kind in (np.int64, np.uint64):
        limits = np.iinfo(np.int32)
        fits = array.size == 0 or (int(array.min()) >= limits.min and int(array.max()) <= limits.max)
        kind = np.dtype(np.int32 if fits else np.float64)
    elif kind.kind not in "iuf" or kind.itemsize > 8:
        raise InputError(f"Voxels of type {array.dtype} cannot be put into a volume node.")
    return np.ascontiguousarray(array, dtype=kind.newbyteorder("="))


def _scalar_image(node: Any) -> Any:
    if node is None or not node.IsA("vtkMRMLScalarVolumeNode"):
        found = "nothing" if node is None else f"'{node.GetName()}', a {node.GetClassName()}"
        raise InputError(
            f"A scalar volume is needed, got {found}.",
            todo="Choose a scalar volume; of a sequence, the volume that shows its current time point.",
        )
    image = node.GetImageData()
    scalars = None if image is None else image.GetPointData().GetScalars()
    if scalars is None or scalars.GetNumberOfTuples() == 0:
        raise InputError(
            f"The volume '{node.GetName()}' has no voxels.",
            why="Its file was not found or has not been loaded.",
            todo="Load the volume again.",
        )
    components = scalars.GetNumberOfComponents()
    if components > 1 or node.IsA("vtkMRMLTensorVolumeNode"):
        raise InputError(
            f"The volume '{node.GetName()}' has {components} values per voxel.",
            why="It is a colour image, a vector or tensor field, or a time series.",
            todo="Take one component or one time point out of it first (Vector to Scalar Volume, Sequences).",
        )
    return image


def _shape_kji(image: Any) -> tuple[int, int, int]:
    i, j, k = image.GetDimensions()
    return k, j, i


def _image_to_world(node: Any, image: Any) -> np.ndarray:
    matrix = vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    start = np.eye(4)
    start[:3, 3] = image.GetExtent()[::2]
    return node_to_world(node) @ array_from_matrix(matrix) @ start
