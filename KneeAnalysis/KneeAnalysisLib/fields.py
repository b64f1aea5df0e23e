"""Smoothed masks as continuous fields in space, read at points and along rays.

A mask smoothed by a Gaussian crosses 0.5 where the edge of the tissue is. The field between voxel
centres is trilinear, so a surface taken at 0.5 and a ray that looks for 0.5 meet in the same place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

LEVEL = 0.5
"""Where a smoothed mask has its surface."""

_KERNEL_ERROR = 0.01
"""Share of the Gaussian's weight that its kernel may cut off; the reference's filter uses the same."""
_LARGEST_RADIUS = 16


@dataclass(frozen=True, eq=False)
class Field:
    """A scalar on a block of voxels, zero outside it.

    Attributes
    ----------
    values : ndarray, shape (k, j, i), float32
    ijk_to_ras : ndarray, shape (4, 4), float64
        Of this block.
    """

    values: np.ndarray
    ijk_to_ras: np.ndarray

    def __add__(self, other: Field) -> Field:
        return Field(self.values + other.values, self.ijk_to_ras)

    def at(self, places_kji: np.ndarray) -> np.ndarray:
        """Trilinear values at voxel coordinates, shape (3, ...) to shape (...), float32."""
        from scipy.ndimage import map_coordinates

        flat = places_kji.reshape(3, -1)
        values = map_coordinates(self.values, flat, output=np.float32, order=1, mode="grid-constant")
        return values.reshape(places_kji.shape[1:])


@dataclass(frozen=True, eq=False)
class Rays:
    """Rays in the voxel coordinates of a block.

    Attributes
    ----------
    origins_kji : ndarray, shape (3, N)
    steps_kji : ndarray, shape (3, N)
        Voxels per millimetre along the ray.
    """

    origins_kji: np.ndarray
    steps_kji: np.ndarray

    @classmethod
    def along(cls, points_ras_mm: np.ndarray, directions: np.ndarray, ijk_to_ras: np.ndarray) -> Rays:
        """Rays from points along unit vectors, shape (N, 3) both, in the block of that matrix."""
        ras_to_ijk = np.linalg.inv(ijk_to_ras)
        origins = points_ras_mm @ ras_to_ijk[:3, :3].T + ras_to_ijk[:3, 3]
        steps = directions @ ras_to_ijk[:3, :3].T
        return cls(np.ascontiguousarray(origins.T[::-1]), np.ascontiguousarray(steps.T[::-1]))

    def __len__(self) -> int:
        return self.origins_kji.shape[1]

    def __getitem__(self, chosen: np.ndarray | slice) -> Rays:
        return Rays(self.origins_kji[:, chosen], self.steps_kji[:, chosen])

    def at(self, distances_mm: np.ndarray | float) -> np.ndarray:
        """Voxel coordinates at a distance along each ray, (N,) or one for all: to (3, N)."""
        return self.origins_kji + self.steps_kji * distances_mm

    def sampled(self, distances_mm: np.ndarray) -> np.ndarray:
        """Voxel coordinates at several distances, (S,) for all rays or (N, S): to (3, N, S)."""
        return self.origins_kji[:, :, None] + self.steps_kji[:, :, None] * distances_mm


def smoothed(mask_kji: np.ndarray, spacing_kji_mm: Sequence[float], variance_mm2: float) -> np.ndarray:
    """A mask blurred by the discrete Gaussian of that variance; what lies outside counts as empty.

    Parameters
    ----------
    mask_kji : ndarray, shape (k, j, i), bool
    spacing_kji_mm : sequence of three floats
    variance_mm2 : float
        In square millimetres; 0 leaves the mask as it is.

    Returns
    -------
    ndarray, shape (k, j, i), float32
        0..1.
    """
    from scipy.ndimage import correlate1d

    values = np.ascontiguousarray(mask_kji, dtype=np.float32)
    if variance_mm2 <= 0:
        return values
    for axis in (2, 1, 0):
        kernel = gaussian_kernel(variance_mm2 / spacing_kji_mm[axis] ** 2)
        if kernel.size > 1:
            values = correlate1d(values, kernel, axis=axis, mode="constant")
    return values


def gaussian_kernel(variance_voxels2: float) -> np.ndarray:
    """Weights of the discrete Gaussian, symmetric, of sum 1.

    Lindeberg's discrete analogue: the modified Bessel functions exp(-t) I_n(t). Unlike a sampled Gaussian it
    keeps its variance for voxels larger than its width.
    T. Lindeberg, Scale-space for discrete signals, IEEE PAMI 12(3), 1990, 234-254.
    """
    from scipy.special import ive

    weights = ive(np.arange(_LARGEST_RADIUS + 1), variance_voxels2)
    inside = weights[0] + 2 * np.concatenate([[0.0], np.cumsum(weights[1:])])
    radius = min(int(np.searchsorted(inside, 1 - _KERNEL_ERROR)), _LARGEST_RADIUS)
    half = weights[: radius + 1]
    kernel = np.concatenate([half[:0:-1], half])
    return kernel / kernel.sum()


def falls(profile: np.ndarray) -> np.ndarray:
    """Where values along rays go from at least `LEVEL` to below it: (N, S) to (N, S-1), bool."""
    inside = profile >= LEVEL
    return inside[:, :-1] & ~inside[:, 1:]


def rises(profile: np.ndarray) -> np.ndarray:
    """Where values along rays go from below `LEVEL` to at least it: (N, S) to (N, S-1), bool."""
    inside = profile >= LEVEL
    return ~inside[:, :-1] & inside[:, 1:]


def crossing_mm(
    field: Field, rays: Rays, profile: np.ndarray, index: np.ndarray, distances_mm: np.ndarray
) -> np.ndarray:
    """Distance along each ray where the field crosses `LEVEL` between two samples.

    Parameters
    ----------
    field, rays
    profile : ndarray, shape (N, S)
        The field at `distances_mm` along the rays.
    index : ndarray, shape (N,)
        The crossing lies between samples index and index + 1.
    distances_mm : ndarray, shape (S,)
        Equally spaced.

    Returns
    -------
    ndarray, shape (N,), float64
    """
    row = np.arange(len(rays))
    low, high = distances_mm[index].astype(float), distances_mm[index + 1].astype(float)
    at_low, at_high = profile[row, index] - LEVEL, profile[row, index + 1] - LEVEL
    for _ in range(_REFINEMENTS):
        middle = _chord(low, high, at_low, at_high)
        at_middle = field.at(rays.at(middle)) - LEVEL
        left = (at_middle >= 0) == (at_low >= 0)
        # the end that stays counts half (the Illinois rule), so that both ends close in
        low, at_low, at_high = (
            np.where(left, middle, low),
            np.where(left, at_middle, at_low * 0.5),
            np.where(left, at_high * 0.5, at_middle),
        )
        high = np.where(left, high, middle)
    return _chord(low, high, at_low, at_high)


_REFINEMENTS = 2


def _chord(low: np.ndarray, high: np.ndarray, at_low: np.ndarray, at_high: np.ndarray) -> np.ndarray:
    slope = at_low - at_high
    share = np.divide(at_low, slope, out=np.full(slope.shape, 0.5), where=slope != 0)
    return low + (high - low) * np.clip(share, 0.0, 1.0)
