"""Bone and cartilage surfaces from a knee's label map (VTK).

A mask is cropped to its surroundings, smoothed, and its surface taken at one half. Points are RAS
millimetres, triangles run counter-clockwise seen from outside. Of VTK only the parts in use are imported:
all of it would take a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from KneeAnalysisLib.fields import LEVEL, Field, smoothed
from KneeAnalysisLib.knee import Knee
from KneeAnalysisLib.labels import Tissue
from MedAILib.errors import InputError
from MedAILib.grids import Box, bounding_box

if TYPE_CHECKING:
    from vtkmodules.vtkCommonDataModel import vtkPolyData


@dataclass(frozen=True)
class MeshOptions:
    """How surfaces are made; the reference pipeline's settings where not given.

    Attributes
    ----------
    bone_variance_mm2 : float
        Variance of the Gaussian that smooths bones, mm².
    cartilage_variance_mm2 : float
        The same for cartilage, 0 to 2 mm²; 0 leaves the voxels' steps.
    femur_crop, tibia_crop : float or None
        Length of bone kept from the joint, as a multiple of the bone's medial-lateral width; None keeps all.
    smallest_part : float
        Separate pieces of a bone with less area than this share of its largest are dropped, as are the
        walls of holes inside it.
    """

    bone_variance_mm2: float = 0.5
    cartilage_variance_mm2: float = 0.3125
    femur_crop: float | None = 0.8
    tibia_crop: float | None = 0.8
    smallest_part: float = 0.05

    def validate(self) -> None:
        """Raise `InputError` that names every setting out of range."""
        wrong = []
        if not 0 <= self.bone_variance_mm2 <= 4:
            wrong.append(f"bone smoothing {self.bone_variance_mm2} mm² (0 to 4)")
        if not 0 <= self.cartilage_variance_mm2 <= 2:
            wrong.append(f"cartilage smoothing {self.cartilage_variance_mm2} mm² (0 to 2)")
        wrong += [
            f"{name} length {share} (above 0, or none)"
            for name, share in (("femur", self.femur_crop), ("tibia", self.tibia_crop))
            if share is not None and share <= 0
        ]
        if not 0 <= self.smallest_part <= 1:
            wrong.append(f"smallest part {self.smallest_part} (0 to 1)")
        if wrong:
            raise InputError("Mesh settings are out of range: " + "; ".join(wrong) + ".")


@dataclass(frozen=True, eq=False)
class SurfaceMesh:
    """A triangle surface.

    Attributes
    ----------
    points_ras_mm : ndarray, shape (N, 3), float32
    triangles : ndarray, shape (M, 3), int32
        Indices of points, counter-clockwise seen from outside.
    """

    points_ras_mm: np.ndarray
    triangles: np.ndarray

    def __len__(self) -> int:
        return len(self.points_ras_mm)

    @cached_property
    def triangle_normals_mm2(self) -> np.ndarray:
        """Outward normals as long as the triangles' areas: (M, 3), float64."""
        corners = self.points_ras_mm.astype(np.float64)[self.triangles]
        return np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]) / 2

    @cached_property
    def normals(self) -> np.ndarray:
        """Outward unit normals at the points, the mean of their triangles' by area: (N, 3), float64."""
        summed = np.stack([self._at_points(component) for component in self.triangle_normals_mm2.T], axis=1)
        length = np.linalg.norm(summed, axis=1, keepdims=True)
        return np.divide(summed, length, out=np.zeros_like(summed), where=length > 0)

    @cached_property
    def point_areas_mm2(self) -> np.ndarray:
        """Area that belongs to each point, a third of each of its triangles: (N,), float64."""
        return self._at_points(np.linalg.norm(self.triangle_normals_mm2, axis=1) / 3)

    @property
    def area_mm2(self) -> float:
        return float(self.point_areas_mm2.sum())

    @property
    def volume_mm3(self) -> float:
        """Enclosed volume; negative for the wall of a hole."""
        corners = self.points_ras_mm.astype(np.float64)[self.triangles[:, 0]]
        return float((corners * self.triangle_normals_mm2).sum() / 3)

    @cached_property
    def edges(self) -> np.ndarray:
        """Pairs of neighbouring points, each twice or more: (3M, 2)."""
        return np.concatenate([self.triangles[:, [0, 1]], self.triangles[:, [1, 2]], self.triangles[:, [2, 0]]])

    def parts(self, among: np.ndarray | None = None) -> np.ndarray:
        """Number of the connected piece each point belongs to, within a choice of points: (N,), -1 elsewhere."""
        from scipy.sparse import coo_matrix
        from scipy.sparse.csgraph import connected_components

        chosen = np.ones(len(self), dtype=bool) if among is None else among
        edges = self.edges[chosen[self.edges].all(axis=1)]
        graph = coo_matrix((np.ones(len(edges), dtype=np.int8), edges.T), shape=(len(self), len(self)))
        _, part = connected_components(graph, directed=False)
        _, compact = np.unique(part[chosen], return_inverse=True)
        numbers = np.full(len(self), -1)
        numbers[chosen] = compact
        return numbers

    def of_points(self, kept: np.ndarray) -> SurfaceMesh:
        """The triangles whose points are all kept."""
        new_index = np.cumsum(kept) - 1
        triangles = self.triangles[kept[self.triangles].all(axis=1)]
        return SurfaceMesh(self.points_ras_mm[kept], new_index[triangles].astype(np.int32))

    def _at_points(self, per_triangle: np.ndarray) -> np.ndarray:
        return sum(np.bincount(self.triangles[:, corner], per_triangle, minlength=len(self)) for corner in range(3))  # type: ignore[return-value]


def bone_mesh(knee: Knee, bone: Tissue, options: MeshOptions = MeshOptions()) -> SurfaceMesh:
    """The surface of a bone, its shaft cut off as the options say.

    Raises
    ------
    InputError
        The knee has no such bone, or nothing is left of it after smoothing.
    """
    options.validate()
    mask = cropped_bone(knee, bone, options)
    mesh = surface_of(block_field(knee, mask, options.bone_variance_mm2))
    return _without_small_parts(_some(mesh, bone), options.smallest_part)


def cartilage_mesh(knee: Knee, cartilage: Tissue, options: MeshOptions = MeshOptions()) -> SurfaceMesh:
    """The closed surface of a cartilage, all its pieces.

    Raises
    ------
    InputError
        The knee has no such cartilage, or nothing is left of it after smoothing.
    """
    options.validate()
    return _some(surface_of(block_field(knee, knee.mask(cartilage), options.cartilage_variance_mm2)), cartilage)


def cropped_bone(knee: Knee, bone: Tissue, options: MeshOptions) -> np.ndarray:
    """Mask of a bone up to some way from the joint: bool, shape (k, j, i).

    The length kept is a multiple of the bone's medial-lateral width, measured on its bounding box;
    the femur's from its distal end, the tibia's from its proximal end.
    """
    mask = knee.mask(bone)
    share = {Tissue.FEMUR: options.femur_crop, Tissue.TIBIA: options.tibia_crop}.get(bone)
    box = bounding_box(mask)
    if share is None or box is None:
        return mask
    across_mm, down_mm, _ = knee.geometry.spacing_kji_mm
    rows = round(share * box.shape_kji[0] * across_mm / down_mm)
    first, last = box.start_kji[1], box.stop_kji[1]
    if bone is Tissue.FEMUR:
        mask[:, : max(last - rows, first)] = False
    else:
        mask[:, first + rows :] = False
    return mask


def block_field(
    knee: Knee, mask: np.ndarray, variance_mm2: float, box: Box | None = None, margin_mm: float = 4.0
) -> Field | None:
    """A smoothed mask on the block of voxels around it, or around a box given; None where the mask is empty.

    The block is padded with empty voxels, so that a tissue cut by the image's border is closed there.
    """
    spacing = knee.geometry.spacing_kji_mm
    box = box or bounding_box(mask, margin_mm=margin_mm, spacing_kji_mm=spacing)
    if box is None:
        return None
    return Field(smoothed(padded_block(mask, box), spacing, variance_mm2), padded_matrix(knee.geometry.ijk_to_ras, box))


_PADDING = 2


def padded_block(array: np.ndarray, box: Box) -> np.ndarray:
    """The voxels of a box with empty ones around."""
    return np.pad(array[box.slices], _PADDING)


def padded_matrix(ijk_to_ras: np.ndarray, box: Box) -> np.ndarray:
    """IJK-to-RAS matrix of the padded block that `padded_block` makes of a box."""
    matrix = ijk_to_ras.copy()
    start_ijk = np.array(box.start_kji[::-1]) - _PADDING
    matrix[:3, 3] += ijk_to_ras[:3, :3] @ start_ijk
    return matrix


def surface_of(smooth: Field | None) -> SurfaceMesh | None:
    """The surface of a field at one half, by flying edges; None where it never reaches that."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, vtk_to_numpy
    from vtkmodules.vtkCommonDataModel import vtkImageData
    from vtkmodules.vtkFiltersCore import vtkFlyingEdges3D

    if smooth is None or float(smooth.values.max()) <= LEVEL:
        return None
    image = vtkImageData()
    image.SetDimensions(smooth.values.shape[::-1])
    values = np.ascontiguousarray(smooth.values)
    image.GetPointData().SetScalars(numpy_to_vtk(values.ravel()))
    edges = vtkFlyingEdges3D()
    edges.SetInputData(image)
    edges.SetValue(0, LEVEL)
    edges.ComputeNormalsOff()
    edges.ComputeGradientsOff()
    edges.ComputeScalarsOff()
    edges.Update()
    surface = edges.GetOutput()
    if surface.GetNumberOfPolys() == 0:
        return None
    matrix = smooth.ijk_to_ras
    points = vtk_to_numpy(surface.GetPoints().GetData()) @ matrix[:3, :3].T + matrix[:3, 3]
    triangles = vtk_to_numpy(surface.GetPolys().GetConnectivityArray()).reshape(-1, 3).astype(np.int32)
    if np.linalg.det(matrix[:3, :3]) < 0:
        triangles = triangles[:, ::-1].copy()
    return SurfaceMesh(points.astype(np.float32), triangles)


def polydata(mesh: SurfaceMesh, arrays: Mapping[str, np.ndarray] | None = None) -> vtkPolyData:
    """A mesh as VTK holds it, with arrays on its points (the first one active) and its normals."""
    from vtkmodules.util.numpy_support import numpy_to_vtk, numpy_to_vtkIdTypeArray
    from vtkmodules.vtkCommonCore import vtkPoints
    from vtkmodules.vtkCommonDataModel import vtkCellArray, vtkPolyData

    data = vtkPolyData()
    points = vtkPoints()
    points.SetData(numpy_to_vtk(np.ascontiguousarray(mesh.points_ras_mm, dtype=np.float32), deep=True))
    data.SetPoints(points)
    cells = vtkCellArray()
    offsets = np.arange(0, 3 * len(mesh.triangles) + 1, 3, dtype=np.int64)
    cells.SetData(
        numpy_to_vtkIdTypeArray(offsets, deep=True),
        numpy_to_vtkIdTypeArray(np.ascontiguousarray(mesh.triangles.ravel(), dtype=np.int64), deep=True),
    )
    data.SetPolys(cells)
    normals = numpy_to_vtk(mesh.normals.astype(np.float32), deep=True)
    normals.SetName("Normals")
    data.GetPointData().SetNormals(normals)
    for index, (name, values) in enumerate((arrays or {}).items()):
        array = numpy_to_vtk(np.ascontiguousarray(values), deep=True)
        array.SetName(name)
        data.GetPointData().AddArray(array)
        if index == 0:
            data.GetPointData().SetActiveScalars(name)
    return data


def _some(mesh: SurfaceMesh | None, tissue: Tissue) -> SurfaceMesh:
    if mesh is None:
        raise InputError(
            f"There is no {tissue.title.lower()} to make a surface of.",
            why="The label map does not hold it, or it is thinner than the smoothing.",
            todo="Choose less smoothing, or check the segmentation.",
        )
    return mesh


def _without_small_parts(mesh: SurfaceMesh, smallest: float) -> SurfaceMesh:
    """Drop pieces much smaller than the largest, and walls of holes inside the bone."""
    part = mesh.parts()
    count = int(part.max()) + 1
    if count == 1:
        return mesh
    of_triangle = part[mesh.triangles[:, 0]]
    areas = np.bincount(of_triangle, np.linalg.norm(mesh.triangle_normals_mm2, axis=1), minlength=count)
    heights = (mesh.points_ras_mm[mesh.triangles[:, 0]] * mesh.triangle_normals_mm2).sum(axis=1)
    volumes = np.bincount(of_triangle, heights, minlength=count)
    good = (areas >= smallest * areas.max()) & (volumes > 0)
    return mesh if good.all() or not good.any() else mesh.of_points(good[part])
