"""Where a bone's surface bears cartilage, of which region, and where it has lost it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from KneeAnalysisLib.fields import Rays
from KneeAnalysisLib.knee import Knee
from KneeAnalysisLib.labels import CARTILAGES_OF, Tissue, label_counts
from KneeAnalysisLib.measures import nearest_voxels
from KneeAnalysisLib.meshes import SurfaceMesh, padded_block, padded_matrix
from MedAILib.errors import GeometryMismatch
from MedAILib.grids import Box, bounding_box

_SAMPLES = 16
_BEYOND_MM = 0.5
"""Labels are looked up a little beyond the measured piece: voxels' steps may hide a thin layer."""


@dataclass(frozen=True, eq=False)
class RegionBlock:
    """Regions of a bone's cartilages on the block of voxels around them.

    Attributes
    ----------
    values : ndarray, shape (k, j, i), uint8
    ijk_to_ras : ndarray, shape (4, 4), float64
        Of this block.
    """

    values: np.ndarray
    ijk_to_ras: np.ndarray

    @property
    def counts(self) -> np.ndarray:
        """Voxels of each region: (256,)."""
        return label_counts(self.values)


def region_block(knee: Knee, bone: Tissue, regions: np.ndarray | None) -> RegionBlock:
    """Region of every voxel of a bone's cartilages, the cartilage itself where no region is given.

    Raises
    ------
    GeometryMismatch
        The regions do not have the knee's shape.
    """
    if regions is not None and regions.shape != knee.labels.shape:
        raise GeometryMismatch(
            f"The sub-regions have {regions.shape} voxels and the knee {knee.labels.shape}.",
            todo="Make the sub-regions on the knee's own grid.",
        )
    mask = knee.mask(*CARTILAGES_OF[bone])
    box = bounding_box(mask) or Box((0, 0, 0), (1, 1, 1))
    values = np.where(mask[box.slices], knee.labels[box.slices], np.uint8(0))
    if regions is not None:
        part = regions[box.slices]
        values = np.where((values > 0) & (part > 0), part, values).astype(np.uint8)
    return RegionBlock(padded_block(values, Box((0, 0, 0), values.shape)), padded_matrix(knee.geometry.ijk_to_ras, box))


def values_along(
    block: RegionBlock,
    points_ras_mm: np.ndarray,
    normals: np.ndarray,
    start_mm: np.ndarray,
    thickness_mm: np.ndarray,
) -> np.ndarray:
    """The value met most often on each measured piece, 0 where it meets none or is empty.

    Parameters
    ----------
    block : RegionBlock
    points_ras_mm, normals : ndarray, shape (N, 3)
    start_mm, thickness_mm : ndarray, shape (N,)

    Returns
    -------
    ndarray, shape (N,), uint8
    """
    winners = np.zeros(len(points_ras_mm), dtype=np.uint8)
    measured = np.flatnonzero(thickness_mm > 0)
    rays = Rays.along(points_ras_mm[measured], normals[measured], block.ijk_to_ras)
    share = np.linspace(0, 1, _SAMPLES)
    length = thickness_mm[measured] + 2 * _BEYOND_MM
    distances = start_mm[measured, None] - _BEYOND_MM + share * length[:, None]
    index, inside = nearest_voxels(rays.sampled(distances), block.values.shape)
    met = np.where(inside, block.values.ravel()[index], 0)
    most = np.zeros(measured.size, dtype=np.int64)
    chosen = np.zeros(measured.size, dtype=np.uint8)
    for value in np.flatnonzero(np.bincount(met.ravel(), minlength=256)):
        votes = (met == value).sum(axis=1) if value else most
        chosen[votes > most] = value
        most = np.maximum(most, votes)
    winners[measured] = chosen
    return winners


def covered_points(mesh: SurfaceMesh, labelled: np.ndarray, certain: np.ndarray, rim_mm: float) -> np.ndarray:
    """Points with cartilage: those that are certain, and labelled ones away from the labels' edge.

    Parameters
    ----------
    labelled : ndarray, shape (N,), bool
        A ray from the point meets voxels of cartilage.
    certain : ndarray, shape (N,), bool
        The smoothed cartilage itself reaches one half over the point.
    rim_mm : float
    """
    from scipy.spatial import cKDTree

    unsure = np.flatnonzero(labelled & ~certain)
    outside = ~(labelled | certain)
    if unsure.size == 0 or not outside.any():
        return labelled | certain
    points = mesh.points_ras_mm
    distance_mm, _ = cKDTree(points[_beside(mesh, outside)]).query(points[unsure], distance_upper_bound=rim_mm)
    covered = certain.copy()
    covered[unsure[np.isinf(distance_mm)]] = True
    return covered


def enclosed_holes(mesh: SurfaceMesh, covered: np.ndarray, cut: np.ndarray, largest_mm2: float) -> np.ndarray:
    """Bare points in pieces that cartilage encloses: bool, shape (N,).

    Pieces larger than a limit are left out, and those with a point on a cut, where the image or the
    cropping ends the bone.
    """
    holes = np.zeros(len(mesh), dtype=bool)
    if not covered.any():
        return holes
    part = mesh.parts(among=~covered)
    bare = part >= 0
    areas = np.bincount(part[bare], mesh.point_areas_mm2[bare])
    if areas.size < 2:
        return holes
    small = areas <= largest_mm2
    small[areas.argmax()] = False
    small[part[bare & cut]] = False
    holes[bare] = small[part[bare]]
    return holes


def at_border(knee: Knee, points_ras_mm: np.ndarray) -> np.ndarray:
    """Points within about a voxel of where the image ends: bool, shape (N,)."""
    ras_to_ijk = np.linalg.inv(knee.geometry.ijk_to_ras)
    ijk = points_ras_mm @ ras_to_ijk[:3, :3].T + ras_to_ijk[:3, 3]
    last = np.array(knee.geometry.shape_kji[::-1]) - 1
    return np.any((ijk < 0.5) | (ijk > last - 0.5), axis=1)


def nearest_labels(mesh: SurfaceMesh, labels: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """The labels with those of wanted points taken from the nearest labelled point."""
    from scipy.spatial import cKDTree

    filled = labels.copy()
    source = np.flatnonzero(labels > 0)
    if source.size and wanted.any():
        _, nearest = cKDTree(mesh.points_ras_mm[source]).query(mesh.points_ras_mm[wanted])
        filled[wanted] = labels[source[nearest]]
    return filled


def _beside(mesh: SurfaceMesh, outside: np.ndarray) -> np.ndarray:
    """Outside points that have a neighbour inside: enough to measure a distance to the edge."""
    edges = mesh.edges
    mixed = edges[outside[edges[:, 0]] != outside[edges[:, 1]]]
    if not mixed.size:
        return outside
    beside = np.zeros(len(mesh), dtype=bool)
    beside[mixed.ravel()] = True
    return beside & outside
