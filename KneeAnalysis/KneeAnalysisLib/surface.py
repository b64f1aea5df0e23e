"""Points on the surface of a segmented structure, without building a mesh."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MedAILib.grids import bounding_box
from MedAILib.volume import Geometry

_SMOOTHING_MM = 0.7
"""SD of the blur that turns voxel steps into a surface; about the slice distance of knee protocols."""


@dataclass(frozen=True, eq=False)
class SurfacePoints:
    """Points on a surface and their outward normals, each of shape (n, 3), RAS (mm; unit length)."""

    points_ras_mm: np.ndarray
    normals_ras: np.ndarray


def surface_points(mask: np.ndarray, geometry: Geometry, smoothing_mm: float = _SMOOTHING_MM) -> SurfacePoints:
    """Where the blurred mask crosses one half between neighbouring voxels.

    A face that the image's border cuts through the structure is no surface and has no points.

    Parameters
    ----------
    mask : ndarray, shape (k, j, i), bool
        Not empty.
    geometry : Geometry
    smoothing_mm : float
        SD of the Gaussian blur.

    Returns
    -------
    SurfacePoints
    """
    from scipy import ndimage

    spacing_kji_mm = geometry.spacing_kji_mm
    box = bounding_box(mask, margin_mm=4.0 * smoothing_mm, spacing_kji_mm=spacing_kji_mm)
    assert box is not None
    sigma = [smoothing_mm / spacing for spacing in spacing_kji_mm]
    level = ndimage.gaussian_filter(mask[box.slices].astype(np.float32), sigma, truncate=2.5, mode="nearest")
    inside = level >= 0.5
    places, slopes = [], []
    for axis in range(3):
        at, share = _crossings(level, inside, axis)
        places.append(at + share[:, None] * np.eye(3)[axis])
        slopes.append(_slope(level, np.rint(places[-1]).astype(np.intp)))
    place_kji = np.concatenate(places) + np.array(box.start_kji)
    matrix = geometry.ijk_to_ras
    points_ras_mm = place_kji[:, ::-1] @ matrix[:3, :3].T + matrix[:3, 3]
    outward = -np.concatenate(slopes)[:, ::-1] @ np.linalg.inv(matrix[:3, :3])
    length = np.linalg.norm(outward, axis=1, keepdims=True)
    return SurfacePoints(points_ras_mm, outward / np.maximum(length, 1e-12))


def _crossings(level: np.ndarray, inside: np.ndarray, axis: int) -> tuple[np.ndarray, np.ndarray]:
    """Voxels (n, 3) before a crossing along an axis, and how far (0..1) towards the next voxel it is."""
    before = tuple(slice(None, -1) if a == axis else slice(None) for a in range(3))
    after = tuple(slice(1, None) if a == axis else slice(None) for a in range(3))
    at = np.nonzero(inside[before] != inside[after])
    low, high = level[before][at], level[after][at]
    return np.stack(at, axis=1), (0.5 - low) / (high - low)


def _slope(level: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Central differences per voxel step, at voxels (n, 3)."""
    slope = np.empty(at.shape)
    for axis in range(3):
        forward, backward = at.copy(), at.copy()
        forward[:, axis] = np.minimum(at[:, axis] + 1, level.shape[axis] - 1)
        backward[:, axis] = np.maximum(at[:, axis] - 1, 0)
        steps = forward[:, axis] - backward[:, axis]
        slope[:, axis] = (level[tuple(forward.T)] - level[tuple(backward.T)]) / steps
    return slope
