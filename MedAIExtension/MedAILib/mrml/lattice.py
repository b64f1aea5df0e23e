"""When do two voxel grids hold the same points? Index arithmetic between them; numpy only.

Two grids share a lattice where one's voxel centres fall on the other's, whatever their extents, the
order of their axes and the direction these run in. Then voxels are moved by transposing, flipping and
shifting, and none is interpolated.

Boxes are pairs of a start index and an array (or a shape), in k, j, i order.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

Index = tuple[int, int, int]


@dataclass(frozen=True)
class LatticeMap:
    """Voxel indices of a *source* grid as seen from a *target* grid on the same lattice.

    ``source[axes[t]] = signs[t] * target[t] + offsets[t]`` for each target array axis ``t`` (0 is k).

    Attributes
    ----------
    axes : tuple of int
        The source array axis that runs along each target array axis.
    signs : tuple of int
        1 where both run in the same direction, else -1.
    offsets : tuple of int
        Source index of the target's voxel 0, per target axis.
    """

    axes: Index
    signs: Index
    offsets: Index

    def to_target(self, start_source: Index, array: np.ndarray) -> tuple[Index, np.ndarray]:
        """A block of the source in the target's axis order.

        Parameters
        ----------
        start_source : tuple of int
            Source index (k, j, i) of the block's first voxel.
        array : ndarray, 3D

        Returns
        -------
        start_target : tuple of int
        view : ndarray
            A view of ``array``: writing to it writes to the source.
        """
        view = array.transpose(self.axes)
        start = []
        for axis, (source_axis, sign, offset) in enumerate(zip(self.axes, self.signs, self.offsets, strict=True)):
            first = start_source[source_axis]
            last = first + array.shape[source_axis] - 1
            start.append(first - offset if sign > 0 else offset - last)
            if sign < 0:
                view = np.flip(view, axis)
        return (start[0], start[1], start[2]), view

    def inverse(self) -> LatticeMap:
        """The map with source and target exchanged."""
        axes, signs, offsets = [0, 0, 0], [1, 1, 1], [0, 0, 0]
        for target_axis, source_axis in enumerate(self.axes):
            axes[source_axis] = target_axis
            signs[source_axis] = self.signs[target_axis]
            offsets[source_axis] = -self.signs[target_axis] * self.offsets[target_axis]
        return LatticeMap(_index(axes), _index(signs), _index(offsets))


def lattice_map(
    source_ijk_to_ras: np.ndarray, target_ijk_to_ras: np.ndarray, shape_kji: Index, tolerance_voxels: float = 0.02
) -> LatticeMap | None:
    """How the target's voxels lie on the source's lattice; None where they do not.

    Parameters
    ----------
    source_ijk_to_ras, target_ijk_to_ras : ndarray, shape (4, 4)
        Voxel index (i, j, k) to RAS millimetres, both in the same space.
    shape_kji : tuple of int
        Shape of the target; the tolerance must hold at each of its corners.
    tolerance_voxels : float
        Allowed distance of a target voxel centre from a source voxel centre, in source voxels. Headers
        in single precision stay well below 0.02.
    """
    exact = np.linalg.solve(np.asarray(source_ijk_to_ras, float), np.asarray(target_ijk_to_ras, float))
    rounded = np.rint(exact)
    turn = rounded[:3, :3]
    if not (np.abs(turn).sum(axis=0) == 1).all() or not (np.abs(turn).sum(axis=1) == 1).all():
        return None
    corners_ijk = np.array([(i, j, k, 1) for k, j, i in product(*((0, count - 1) for count in shape_kji))])
    if np.abs(corners_ijk @ (exact - rounded).T).max() > tolerance_voxels:
        return None
    turn_kji, shift_kji = turn[::-1, ::-1], rounded[2::-1, 3]
    axes = np.argmax(np.abs(turn_kji), axis=0)
    signs = turn_kji[axes, np.arange(3)]
    return LatticeMap(_index(axes), _index(signs), _index(shift_kji[axes]))


def overlap(start_a: Index, shape_a: Index, start_b: Index, shape_b: Index) -> tuple[Index, Index] | None:
    """Start and end (exclusive) of the voxels that two boxes share; None where they share none."""
    start = _index(np.maximum(start_a, start_b))
    end = _index(np.minimum(np.add(start_a, shape_a), np.add(start_b, shape_b)))
    return (start, end) if all(e > s for s, e in zip(start, end, strict=True)) else None


def union(start_a: Index, shape_a: Index, start_b: Index, shape_b: Index) -> tuple[Index, Index]:
    """Start and end (exclusive) of the smallest box around two boxes."""
    end = np.maximum(np.add(start_a, shape_a), np.add(start_b, shape_b))
    return _index(np.minimum(start_a, start_b)), _index(end)


def window(start: Index, end: Index, origin: Index) -> tuple[slice, slice, slice]:
    """Slices of the box ``start``..``end`` within an array whose first voxel is ``origin``."""
    first, second, third = (slice(s - o, e - o) for s, e, o in zip(start, end, origin, strict=True))
    return first, second, third


def shape_of(start: Index, end: Index) -> Index:
    """Shape of the box from ``start`` to ``end`` (exclusive)."""
    return _index(np.subtract(end, start))


def _index(values: np.ndarray | list[int]) -> Index:
    first, second, third = (int(value) for value in values)
    return first, second, third
