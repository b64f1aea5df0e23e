"""Deep and superficial halves of cartilage by relative depth.

Relative depth is 0 on the bone and 1 on the articular surface: d_bone / (d_bone + d_articular), each the distance of
a voxel's centre from that surface.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from KneeAnalysisLib.frame import voxel_points_ras_mm
from KneeAnalysisLib.knee import Knee
from KneeAnalysisLib.labels import CARTILAGES_OF, Region, Tissue
from KneeAnalysisLib.surface import SurfacePoints, surface_points
from MedAILib.grids import bounding_box, cropped
from MedAILib.volume import LabelMap

DEEP, SUPERFICIAL = 100, 200
"""Added to a region's value."""

HALF = 0.5

_SMOOTHING_MM = 0.45
"""SD of the blur of bone and cartilage; less than for whole bones, since cartilage is thin."""
_BONE_MARGIN_MM = 8.0
"""Bone farther from the cartilage than this is not looked at."""
_FACES_AWAY = 0.4
"""Cosine between the outward normals of cartilage and of the nearest bone from which on a point of the cartilage's
surface is articular: about 1 there, 0 on the rim, -1 towards the bone."""

_ASIDE_MM = 0.6
"""Points of a surface are at most a voxel apart, and so is the nearest from a place straight above it."""


@dataclass(frozen=True, eq=False)
class DepthSplit:
    """Where in its thickness each cartilage voxel lies.

    Attributes
    ----------
    relative_depth : ndarray, shape (k, j, i), float32
        0 at the bone to 1 at the articular surface; not a number where there is no cartilage or no bone under it.
    missing : tuple of Tissue
        Cartilages without their bone, which have no depth.
    """

    relative_depth: np.ndarray
    missing: tuple[Tissue, ...] = ()

    def labels(self, regions: np.ndarray) -> np.ndarray:
        """Region labels with 100 added in the deep and 200 in the superficial half, 0 elsewhere: uint8.

        Parameters
        ----------
        regions : ndarray, shape (k, j, i), uint8
            Values up to 55.
        """
        known = np.isfinite(self.relative_depth) & (regions > 0)
        split = np.zeros(regions.shape, np.uint8)
        split[known] = regions[known] + np.where(self.relative_depth[known] < HALF, DEEP, SUPERFICIAL).astype(np.uint8)
        return split


def depth_split(knee: Knee) -> DepthSplit:
    """Relative depth of every voxel of the knee's cartilages that lie on a segmented bone."""
    depth = np.full(knee.labels.shape, np.nan, np.float32)
    missing = []
    for bone, cartilages in CARTILAGES_OF.items():
        for cartilage in cartilages:
            if cartilage not in knee.present:
                continue
            if bone in knee.present:
                _fill(depth, knee, bone, cartilage)
            else:
                missing.append(cartilage)
    depth.setflags(write=False)
    return DepthSplit(depth, tuple(missing))


def depth_regions(regions: Iterable[Region]) -> tuple[Region, ...]:
    """The deep and the superficial part of each region, as regions of `DepthSplit.labels`."""
    return tuple(
        Region(
            f"{region.key}_{name}",
            region.value + added,
            f"{region.title}, {name}",
            region.bone,
            tuple(member + added for member in region.members),
        )
        for region in regions
        for name, added in (("deep", DEEP), ("superficial", SUPERFICIAL))
    )


def _fill(depth: np.ndarray, knee: Knee, bone: Tissue, cartilage: Tissue) -> None:
    """Write the relative depth of one cartilage."""
    label_map = LabelMap((knee.labels,), knee.geometry.ijk_to_ras, ())
    box = bounding_box(knee.mask(cartilage), margin_mm=_BONE_MARGIN_MM, spacing_kji_mm=knee.geometry.spacing_kji_mm)
    assert box is not None
    block = cropped(label_map, box)
    own, bone_mask = block.layers[0] == cartilage, block.layers[0] == bone
    if not bone_mask.any():
        return
    bone_surface = surface_points(bone_mask, block.geometry, _SMOOTHING_MM)
    places = voxel_points_ras_mm(own, block.geometry)
    from_bone_mm = _distance_mm(bone_surface, places)
    articular = _articular(surface_points(own, block.geometry, _SMOOTHING_MM), bone_surface)
    if not len(articular.points_ras_mm):
        return
    from_surface_mm = _distance_mm(articular, places)
    depth[box.slices][own] = from_bone_mm / np.maximum(from_bone_mm + from_surface_mm, 1e-6)


def _articular(cartilage: SurfacePoints, bone: SurfacePoints) -> SurfacePoints:
    """The points of a cartilage's surface that face away from the bone."""
    from scipy.spatial import cKDTree

    _, nearest = cKDTree(bone.points_ras_mm).query(cartilage.points_ras_mm)
    facing = np.einsum("nc,nc->n", cartilage.normals_ras, bone.normals_ras[nearest])
    away = facing > _FACES_AWAY
    return SurfacePoints(cartilage.points_ras_mm[away], cartilage.normals_ras[away])


def _distance_mm(surface: SurfacePoints, places_ras_mm: np.ndarray) -> np.ndarray:
    """Distance of places from a surface given as points: from the tangent plane at the nearest one, where that point
    lies straight below, else (beyond an edge of the surface) from the point."""
    from scipy.spatial import cKDTree

    to_point_mm, nearest = cKDTree(surface.points_ras_mm).query(places_ras_mm)
    towards = places_ras_mm - surface.points_ras_mm[nearest]
    to_plane_mm = np.abs(np.einsum("nc,nc->n", towards, surface.normals_ras[nearest]))
    aside_mm = np.sqrt(np.maximum(np.square(to_point_mm) - np.square(to_plane_mm), 0.0))
    return np.where(aside_mm <= _ASIDE_MM, to_plane_mm, to_point_mm)
