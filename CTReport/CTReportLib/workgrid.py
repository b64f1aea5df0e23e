"""The working grid: isotropic voxels along the patient's axes, coarse enough to be quick.

Everything classical (lungs, landmarks, coarse regions) is found here. The axes are exactly right,
anterior and superior whatever the orientation of the CT, oblique and tilted ones included, so that
"left" and "upper" need no second thought further on.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from MedAILib.grids import Resampler
from MedAILib.volume import Geometry, Volume

FINEST_MM, COARSEST_MM = 2.0, 4.0
AIR_HU = -1000


@dataclass(frozen=True, eq=False)
class WorkGrid:
    """A CT on the working grid.

    Attributes
    ----------
    hu : ndarray, shape (k, j, i), float32
        Hounsfield units; k runs superior, j anterior, i to the patient's right. Air outside the CT.
    inside : ndarray, shape (k, j, i), bool
        Where the CT has voxels.
    geometry : Geometry
    source : Geometry
        The CT's own grid.
    """

    hu: np.ndarray
    inside: np.ndarray
    geometry: Geometry
    source: Geometry

    @property
    def spacing_mm(self) -> float:
        return float(self.geometry.ijk_to_ras[0, 0])

    @property
    def voxel_ml(self) -> float:
        return self.spacing_mm**3 / 1000.0

    def volume_of(self, mask: np.ndarray, name: str = "") -> Volume:
        """A mask of this grid as a volume of 0 and 1 (uint8)."""
        return Volume(mask.astype(np.uint8), self.geometry.ijk_to_ras, name)

    def source_index_kji(self, points_kji: np.ndarray) -> np.ndarray:
        """Where voxels (n, 3) of this grid lie in the CT: fractional k, j, i of its voxels."""
        to_source = np.linalg.inv(self.source.ijk_to_ras) @ self.geometry.ijk_to_ras
        ijk = points_kji[:, ::-1] @ to_source[:3, :3].T + to_source[:3, 3]
        return ijk[:, ::-1]


def working_grid(volume: Volume | Resampler, spacing_mm: float | None = None) -> WorkGrid:
    """A CT read (linearly) on the working grid.

    Parameters
    ----------
    volume : Volume, or a Resampler of one that is read elsewhere too
    spacing_mm : float, optional
        Where not given 2 mm, or the CT's own finest spacing up to 4 mm where that is coarser.
    """
    resampler = volume if isinstance(volume, Resampler) else Resampler(volume)
    source = resampler.volume.geometry
    spacing = spacing_mm or float(np.clip(min(source.spacing_ijk_mm), FINEST_MM, COARSEST_MM))
    geometry = axis_aligned(source, spacing)
    hu = resampler.at(geometry, fill=AIR_HU).array.astype(np.float32)
    hu[~np.isfinite(hu)] = AIR_HU
    return WorkGrid(hu, _covered(source, geometry), geometry, source)


def axis_aligned(source: Geometry, spacing_mm: float) -> Geometry:
    """The smallest isotropic grid along R, A and S that holds all voxel centres of another one."""
    corners_ijk = np.array(list(product(*((0, n - 1) for n in reversed(source.shape_kji)))), dtype=float)
    corners = corners_ijk @ source.ijk_to_ras[:3, :3].T + source.ijk_to_ras[:3, 3]
    low, high = corners.min(axis=0), corners.max(axis=0)
    counts = np.floor((high - low) / spacing_mm + 1e-6).astype(int) + 1
    matrix = np.diag([spacing_mm, spacing_mm, spacing_mm, 1.0])
    matrix[:3, 3] = low + (high - low - (counts - 1) * spacing_mm) / 2
    return Geometry((int(counts[2]), int(counts[1]), int(counts[0])), matrix)


def _covered(source: Geometry, grid: Geometry) -> np.ndarray:
    """Which voxels of `grid` lie within half a voxel of the source's."""
    to_source = np.linalg.inv(source.ijk_to_ras) @ grid.ijk_to_ras
    k, j, i = np.ogrid[tuple(slice(n) for n in grid.shape_kji)]
    covered = np.ones(grid.shape_kji, dtype=bool)
    for axis, size in enumerate(reversed(source.shape_kji)):
        a, b, c, d = (np.float32(x) for x in to_source[axis])
        index = a * i + b * j + c * k + d
        covered &= (index > -0.51) & (index < size - 0.49)
    return covered
