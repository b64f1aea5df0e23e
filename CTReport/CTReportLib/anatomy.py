"""What is known of a chest without weights: lungs, where the image cuts them, and the coarse regions between them."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from CTReportLib.lungs import BONE_HU, Lungs, find_lungs
from CTReportLib.workgrid import WorkGrid, working_grid
from MedAILib.grids import axis_code
from MedAILib.volume import LabelMap, SegmentInfo, Volume

SMALLEST_LUNGS_ML = 250.0
"""Less aerated lung than this is not taken for a chest."""
_CUT_MM2 = 400.0
AORTA_DEPTH_MM = 28.0
"""How far in front of the spine the descending aorta is looked for, and behind which the heart is not."""
_DIRECTIONS = {"R": "right", "L": "left", "A": "anterior", "P": "posterior", "S": "superior", "I": "inferior"}
_OPPOSITE = dict(zip("RLAPSI", "LRPAIS", strict=True))


@dataclass(frozen=True, eq=False)
class Anatomy:
    """A chest on the working grid.

    Attributes
    ----------
    grid : WorkGrid
    lungs : Lungs
    cut_at : tuple of str
        The edges of the image that cut a lung: ``"superior"``, ``"inferior"``, ``"left"`` ...; empty where
        the lungs lie wholly inside.
    """

    grid: WorkGrid
    lungs: Lungs
    cut_at: tuple[str, ...]

    @property
    def lung_ml(self) -> tuple[float, float]:
        """Volume of the left and of the right lung."""
        left, right = (float(side.sum()) * self.grid.voxel_ml for side in (self.lungs.left, self.lungs.right))
        return left, right

    @property
    def is_chest(self) -> bool:
        """Whether enough aerated lung was found for a chest."""
        return sum(self.lung_ml) >= SMALLEST_LUNGS_ML

    @property
    def whole_lungs(self) -> bool:
        """Whether both lungs were found and none is cut."""
        return self.is_chest and min(self.lung_ml) > 0 and not self.cut_at

    @property
    def middle_i(self) -> float:
        """The column (i) of the patient's middle; of the image where it was not found (`Lungs.sides_known`)."""
        return self.grid.hu.shape[2] / 2 if self.lungs.middle_i is None else self.lungs.middle_i

    @cached_property
    def between(self) -> np.ndarray:
        """The mediastinum, coarsely: in each row of an axial slice what lies between the lungs; bool (k, j, i)."""
        left, right = self.lungs.left, self.lungs.right
        after_left = np.maximum.accumulate(left, axis=2)
        before_right = np.maximum.accumulate(right[:, :, ::-1], axis=2)[:, :, ::-1]
        last_left = ~np.maximum.accumulate(left[:, :, ::-1], axis=2)[:, :, ::-1]
        first_right = ~np.maximum.accumulate(right, axis=2)
        gap: np.ndarray = after_left & before_right & last_left & first_right & ~self.lungs.airways
        return gap

    @cached_property
    def bone(self) -> np.ndarray:
        """Spine, ribs and sternum, roughly: large bodies brighter than 200 HU; bool (k, j, i).

        Contrast-filled vessels and the heart may be among them.
        """
        from scipy import ndimage

        labels, _ = ndimage.label((self.grid.hu > BONE_HU) & self.lungs.body)
        sizes = np.bincount(labels.ravel()) * self.grid.voxel_ml
        sizes[0] = 0
        large: np.ndarray = (sizes > 5.0)[labels]
        return large

    @cached_property
    def spine_front_j(self) -> int | None:
        """The row (j) of the front of the vertebral bodies, about; None where no spine is found."""
        half = round(12.0 / self.grid.spacing_mm)
        middle = round(self.middle_i)
        band = self.bone[:, :, max(middle - half, 0) : middle + half + 1]
        rows = np.flatnonzero(self.lungs.both.any(axis=(0, 2)))
        if rows.size == 0:
            return None
        centre = (rows[0] + rows[-1]) // 2
        hits: np.ndarray = np.any(band[:, :centre], axis=2)
        fronts = [int(np.flatnonzero(hits[k])[-1]) for k in np.flatnonzero(hits.any(axis=1))]
        return round(float(np.median(fronts))) if fronts else None

    @cached_property
    def heart_slices(self) -> tuple[int, int] | None:
        """First and last slice (k) in which the heart lies between the lungs; None where a lung is missing.

        From 25 mm below the carina (else the middle of the lungs) down to where the right lung has lost a
        third of its largest area to the diaphragm.
        """
        if min(self.lung_ml) <= 0:
            return None
        area = self.lungs.right.sum(axis=(1, 2)).astype(float)
        rows = np.flatnonzero(self.lungs.both.any(axis=(1, 2)))
        carina = self.lungs.carina_k
        top = round(carina - 25.0 / self.grid.spacing_mm) if carina is not None else int(rows.mean())
        low = np.flatnonzero(area > area.max() * 2 / 3)
        bottom = int(low[0])
        top = min(max(top, bottom), int(rows[-1]))
        return (bottom, top) if top - bottom >= 15.0 / self.grid.spacing_mm else None

    @cached_property
    def heart_region(self) -> np.ndarray:
        """Where the heart is, coarsely: between the lungs, before the aorta, in the heart's slices; bool (k, j, i).

        Rows in which a lung is less than 30 mm wide are left out: there, in front and behind, the lungs taper
        off, and the gap between them is no longer the heart's.
        """
        region = np.zeros_like(self.lungs.left)
        slices, front = self.heart_slices, self.spine_front_j
        if slices is None or front is None:
            return region
        first, last = slices
        start = front + round(AORTA_DEPTH_MM / self.grid.spacing_mm)
        rows = np.flatnonzero(self.lungs.both.any(axis=(0, 2)))
        stop = round(rows[0] + 0.85 * (rows[-1] - rows[0]))
        region[first : last + 1, start:stop] = self.between[first : last + 1, start:stop]
        narrower = np.minimum(self.lungs.left.sum(axis=2), self.lungs.right.sum(axis=2))
        region[narrower * self.grid.spacing_mm < 30.0] = False
        return region

    @cached_property
    def aorta_region(self) -> np.ndarray:
        """Where the thoracic aorta runs, coarsely; bool (k, j, i).

        The descending part beside the spine, on its left; arch and ascending part between the lungs above the heart.
        """
        from scipy import ndimage

        region = np.zeros_like(self.lungs.left)
        front, slices = self.spine_front_j, self.heart_slices
        if front is None or slices is None:
            return region
        mm = 1.0 / self.grid.spacing_mm
        middle = round(self.middle_i)
        columns = slice(max(middle - round(45 * mm), 0), middle + round(8 * mm))
        rows = slice(max(front - round(20 * mm), 0), front + round(AORTA_DEPTH_MM * mm))
        lung_rows = np.flatnonzero(self.lungs.both.any(axis=(1, 2)))
        top = round((self.lungs.carina_k or slices[1]) + 45 * mm)
        region[lung_rows[0] : top + 1, rows, columns] = True
        region[slices[1] + 1 : top + 1, front:] |= self.between[slices[1] + 1 : top + 1, front:]
        # closing the lungs may have taken a spot of calcium at the aorta's border with it
        deep = ndimage.binary_erosion(self.lungs.both, iterations=max(1, round(4 * mm)))
        region &= self.lungs.body & ~deep & ~self.heart_region
        return region

    def label_map(self) -> LabelMap:
        """Left lung 1, right lung 2, airways 3, on the working grid."""
        labels = self.lungs.left * np.uint8(1) + self.lungs.right * np.uint8(2)
        labels[self.lungs.airways] = 3
        named = (("left_lung", "Left lung"), ("right_lung", "Right lung"), ("airways", "Airways"))
        segments = tuple(SegmentInfo(key, name, n) for n, (key, name) in enumerate(named, start=1))
        return LabelMap((labels,), self.grid.geometry.ijk_to_ras, segments, "Lungs")


def find_anatomy(volume: Volume) -> Anatomy:
    """Lungs and landmarks of a chest CT.

    Parameters
    ----------
    volume : Volume
        In Hounsfield units, any orientation. Not checked here: see `CTReportLib.checks`.
    """
    grid = working_grid(volume)
    lungs = find_lungs(grid)
    return Anatomy(grid, lungs, _cut_edges(grid, lungs.both))


def _cut_edges(grid: WorkGrid, lungs: np.ndarray) -> tuple[str, ...]:
    """The edges of the CT that lung lies against."""
    from scipy import ndimage

    surface = np.argwhere(lungs & ~ndimage.binary_erosion(lungs))
    if len(surface) == 0:
        return ()
    index = grid.source_index_kji(surface.astype(float))
    spacing, shape = grid.source.spacing_kji_mm, grid.source.shape_kji
    code = axis_code(grid.source)[::-1]
    cut = []
    for axis in range(3):
        reach = (0.5 * grid.spacing_mm + 0.25 * spacing[axis]) / spacing[axis]
        for letter, near in (
            (_OPPOSITE[code[axis]], index[:, axis] <= reach),
            (code[axis], index[:, axis] >= shape[axis] - 1 - reach),
        ):
            if near.sum() * grid.spacing_mm**2 >= _CUT_MM2:
                cut.append(_DIRECTIONS[letter])
    return tuple(sorted(cut, key=list(_DIRECTIONS.values()).index))
