"""A segmented knee turned or mirrored in the scanner, and how much of each region stays what it was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from KneeAnalysisLib.alignment import turned
from KneeAnalysisLib.knee import Knee
from KneeAnalysisLib.labels import FEMORAL_REGIONS
from KneeAnalysisLib.subregions import SubRegions, subregions
from MedAILib.grids import resampled
from MedAILib.volume import Geometry, LabelMap

AXES = ("left-right", "anterior-posterior", "superior-inferior")
MIRROR = np.diag([-1.0, 1.0, 1.0])


@dataclass(frozen=True, eq=False)
class Move:
    """A rotation or mirroring about the middle of the image: name and matrix (3, 3)."""

    name: str
    matrix: np.ndarray

    def about(self, centre_ras_mm: np.ndarray) -> np.ndarray:
        """The 4x4 matrix."""
        whole = np.eye(4)
        whole[:3, :3] = self.matrix
        whole[:3, 3] = centre_ras_mm - self.matrix @ centre_ras_mm
        return whole


@dataclass(frozen=True, eq=False)
class Stability:
    """What a move did to the regions, Dice by region value.

    Attributes
    ----------
    there_and_back : dict
        Regions of the moved knee, moved back, against those of the knee. Resampled twice.
    ceiling : dict
        The same for the knee's own regions moved there and back: what nearest-neighbour resampling alone costs.
    assigned : dict
        Regions of the moved knee against the knee's own moved regions, on the moved grid: the borders alone.
    turn_error_deg : float
        Angle between the axes found in the moved knee and the moved axes.
    seconds : float
        Processor time of finding the sub-regions.
    """

    there_and_back: dict[int, float]
    ceiling: dict[int, float]
    assigned: dict[int, float]
    turn_error_deg: float
    seconds: float


def rotations(degrees: Iterable[float]) -> Iterator[Move]:
    """Each angle about each patient axis."""
    for axis, name in enumerate(AXES):
        for angle in degrees:
            yield Move(f"{angle:+g} deg {name}", turned(axis, angle))


def moved(labels: np.ndarray, geometry: Geometry, move: Move) -> LabelMap:
    """Labels as the scanner would show them on the same grid had the knee lain otherwise (nearest neighbour)."""
    placed = LabelMap((labels,), move.about(centre_of(geometry)) @ geometry.ijk_to_ras, ())
    return resampled(placed, geometry)


def moved_knee(knee: Knee, move: Move) -> Knee:
    """The knee after the move; a mirrored one is of the other side."""
    there = moved(knee.labels, knee.geometry, move)
    side = knee.side.other if knee.side and np.linalg.det(move.matrix) < 0 else knee.side
    return Knee(there.layers[0], there.geometry, side)


def stability(knee: Knee, base: SubRegions, move: Move) -> Stability:
    """Move a knee, find its sub-regions, and compare with those of the knee as it was."""
    from time import process_time

    other = moved_knee(knee, move)
    other.voxels  # noqa: B018  counted once for all uses, not part of the time
    start = process_time()
    found = subregions(other)
    seconds = process_time() - start
    back = Move("back", np.linalg.inv(move.matrix))
    own_there = moved(base.labels, knee.geometry, move)
    assert found.frame is not None and base.frame is not None
    axes = base.frame.axes_ras @ move.matrix.T
    cosine = (np.trace(found.frame.axes_ras @ axes.T) - 1.0) / 2.0
    return Stability(
        there_and_back=dice_by_region(base.labels, moved(found.labels, other.geometry, back).layers[0]),
        ceiling=dice_by_region(base.labels, moved(own_there.layers[0], knee.geometry, back).layers[0]),
        assigned=dice_by_region(own_there.layers[0], found.labels),
        turn_error_deg=float(np.degrees(np.arccos(np.clip(cosine, -1.0, 1.0)))),
        seconds=seconds,
    )


def dice_by_region(one: np.ndarray, other: np.ndarray) -> dict[int, float]:
    """Dice of each femoral region of two label arrays on one grid."""
    return {region.value: _dice(one == region.value, other == region.value) for region in FEMORAL_REGIONS}


def centre_of(geometry: Geometry) -> np.ndarray:
    """The middle of a grid, RAS mm."""
    middle_ijk = (np.array(geometry.shape_kji[::-1]) - 1.0) / 2.0
    return geometry.ijk_to_ras[:3] @ np.append(middle_ijk, 1.0)


def _dice(one: np.ndarray, other: np.ndarray) -> float:
    total = int(one.sum()) + int(other.sum())
    return 2.0 * int((one & other).sum()) / total if total else 1.0
