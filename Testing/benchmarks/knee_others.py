"""Femurs of two other people, from meshes with thickness and regions per vertex, as knees of voxels."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from KneeAnalysisLib.knee import Knee
from KneeAnalysisLib.labels import Tissue
from KneeAnalysisLib.side import Side
from MedAILib.volume import Geometry

if TYPE_CHECKING:
    import vtk

SPACING_KJI_MM = (0.7, 0.3646, 0.3646)
MARGIN_MM = 18.0
THICKEST_MM = 5.0

_LPS = np.array([-1.0, -1.0, 1.0])


@dataclass(frozen=True, eq=False)
class MeasuredFemur:
    """A femur's surface with what is known at its vertices.

    Attributes
    ----------
    polydata : vtkPolyData
        In LPS.
    points_ras_mm, normals_ras : ndarray, shape (n, 3)
    regions : ndarray, shape (n,)
        11..15 where there is cartilage.
    thickness_mm : ndarray, shape (n,)
    """

    polydata: vtk.vtkPolyData
    points_ras_mm: np.ndarray
    normals_ras: np.ndarray
    regions: np.ndarray
    thickness_mm: np.ndarray


def read_femur(path: Path) -> MeasuredFemur:
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    reader = vtk.vtkPolyDataReader()
    reader.SetFileName(str(path))
    reader.ReadAllScalarsOn()
    normals = vtk.vtkPolyDataNormals()
    normals.SetInputConnection(reader.GetOutputPort())
    normals.SplittingOff()
    normals.AutoOrientNormalsOn()
    normals.Update()
    mesh = normals.GetOutput()
    arrays = mesh.GetPointData()
    return MeasuredFemur(
        mesh,
        vtk_to_numpy(mesh.GetPoints().GetData()) * _LPS,
        vtk_to_numpy(arrays.GetNormals()) * _LPS,
        vtk_to_numpy(arrays.GetArray("Cartilage Region")),
        vtk_to_numpy(arrays.GetArray("thickness (mm)")),
    )


def voxel_knee(femur: MeasuredFemur) -> Knee:
    """Femur and femoral cartilage as voxels: cartilage is what lies nearer to the bone than it is thick there."""
    from scipy.spatial import cKDTree

    geometry = _grid_around(femur.points_ras_mm)
    labels = np.zeros(geometry.shape_kji, np.uint8)
    labels[_inside(femur.polydata, geometry)] = Tissue.FEMUR
    tree = cKDTree(femur.points_ras_mm)
    for k in range(geometry.shape_kji[0]):
        outside = np.argwhere(labels[k] == 0)
        places = np.stack([outside[:, 1], outside[:, 0], np.full(len(outside), k)], axis=1)
        points = places @ geometry.ijk_to_ras[:3, :3].T + geometry.ijk_to_ras[:3, 3]
        distance_mm, nearest = tree.query(points, distance_upper_bound=THICKEST_MM)
        near = np.isfinite(distance_mm)
        thickness_mm = femur.thickness_mm[nearest[near]]
        cartilage = outside[near][(thickness_mm > 0) & (distance_mm[near] <= thickness_mm)]
        labels[k, cartilage[:, 0], cartilage[:, 1]] = Tissue.FEMORAL_CARTILAGE
    return Knee(labels, geometry, Side.RIGHT)


def _grid_around(points_ras_mm: np.ndarray) -> Geometry:
    low, high = points_ras_mm.min(axis=0) - MARGIN_MM, points_ras_mm.max(axis=0) + MARGIN_MM
    across, down, back = SPACING_KJI_MM
    matrix = np.eye(4)
    matrix[:3, :3] = np.array([[0.0, 0.0, across], [-back, 0.0, 0.0], [0.0, -down, 0.0]])
    matrix[:3, 3] = low[0], high[1], high[2]
    right, anterior, superior = high - low
    return Geometry((int(right / across), int(superior / down), int(anterior / back)), matrix)


def _inside(polydata: vtk.vtkPolyData, geometry: Geometry) -> np.ndarray:
    import vtk
    from vtk.util.numpy_support import vtk_to_numpy

    to_ijk = vtk.vtkTransform()
    to_ijk.SetMatrix((np.linalg.inv(geometry.ijk_to_ras) @ np.diag([*_LPS, 1.0])).ravel())
    moved = vtk.vtkTransformPolyDataFilter()
    moved.SetInputData(polydata)
    moved.SetTransform(to_ijk)
    k, j, i = geometry.shape_kji
    stencil = vtk.vtkPolyDataToImageStencil()
    stencil.SetInputConnection(moved.GetOutputPort())
    stencil.SetOutputSpacing(1.0, 1.0, 1.0)
    stencil.SetOutputWholeExtent(0, i - 1, 0, j - 1, 0, k - 1)
    image = vtk.vtkImageData()
    image.SetDimensions(i, j, k)
    image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 1)
    image.GetPointData().GetScalars().Fill(1)
    cut = vtk.vtkImageStencil()
    cut.SetInputData(image)
    cut.SetStencilConnection(stencil.GetOutputPort())
    cut.SetBackgroundValue(0.0)
    cut.Update()
    return vtk_to_numpy(cut.GetOutput().GetPointData().GetScalars()).reshape(k, j, i) > 0
