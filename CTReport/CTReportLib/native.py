"""From the working grid back to the CT's own voxels, for what must be read there: densities and small bright spots."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from CTReportLib.workgrid import WorkGrid
from MedAILib.grids import Box, cropped, resampled
from MedAILib.volume import Volume


@dataclass(frozen=True, eq=False)
class NativeRegion:
    """The block of a CT around a region, in its own voxels.

    Attributes
    ----------
    volume : Volume
        The block (a view of the CT).
    mask : ndarray, shape (k, j, i), bool
        The region in it.
    """

    volume: Volume
    mask: np.ndarray

    @property
    def voxel_ml(self) -> float:
        return float(abs(np.linalg.det(self.volume.ijk_to_ras[:3, :3]))) / 1000.0

    def as_volume(self, mask: np.ndarray, name: str = "") -> Volume:
        """A mask of this block as a volume of 0 and 1 (uint8)."""
        return Volume(mask.astype(np.uint8), self.volume.ijk_to_ras, name)


def native_region(volume: Volume, grid: WorkGrid, mask: np.ndarray) -> NativeRegion | None:
    """The part of a CT that a mask of the working grid covers; None where it is empty."""
    if not mask.any():
        return None
    hits = [np.flatnonzero(mask.any(axis=tuple({0, 1, 2} - {axis}))) for axis in range(3)]
    corners = np.array(np.meshgrid(*[(h[0] - 0.5, h[-1] + 0.5) for h in hits])).reshape(3, -1).T
    index = grid.source_index_kji(corners)
    start = np.clip(np.floor(index.min(axis=0)).astype(int), 0, np.array(volume.array.shape) - 1)
    stop = np.clip(np.ceil(index.max(axis=0)).astype(int) + 1, start + 1, volume.array.shape)
    block = cropped(volume, Box(tuple(int(n) for n in start), tuple(int(n) for n in stop)))  # type: ignore[arg-type]
    there = resampled(grid.volume_of(mask), block.geometry, "nearest").array
    return NativeRegion(block, there > 0)
