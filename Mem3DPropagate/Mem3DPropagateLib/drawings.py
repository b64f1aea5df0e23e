"""From masks to drawings: along which axis was drawn, and on which slices."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from MedAILib.errors import InputError, NothingDrawn
from Mem3DPropagateLib.request import Axis, Drawing
from Mem3DPropagateLib.shapes import holds

LONGEST_RUN = 4
"""Neighbouring slices drawn on average, above which a drawing is taken for a whole structure in parts."""


def filled_slices(mask_kji: np.ndarray, axis: Axis) -> tuple[int, ...]:
    """Indices of the slices along the axis that hold a voxel, ascending."""
    across = tuple(a for a in range(3) if a != axis.array_axis)
    return tuple(int(i) for i in np.flatnonzero(mask_kji.any(axis=across)))


def guess_axis(masks_kji: Iterable[np.ndarray]) -> Axis:
    """The axis across which single slices were drawn.

    A structure drawn on a few slices fills one slice at a time along the axis it was drawn on, and runs
    of many along the others.

    Raises
    ------
    NothingDrawn
    InputError
        Along each axis the drawing is without a gap, or fills longer runs than `LONGEST_RUN` slices.
    """
    together: np.ndarray | None = None
    for mask in masks_kji:
        together = mask.copy() if together is None else np.logical_or(together, mask, out=together)
    if together is None or not together.any():
        raise NothingDrawn(
            "No slice holds a drawing.",
            why="All chosen segments are empty.",
            todo="Draw the structure on three to five slices first, its middle and its ends among them.",
        )

    def mean_run_and_fill(axis: Axis) -> tuple[float, float]:
        filled = np.array(filled_slices(together, axis))
        runs = 1 + np.count_nonzero(np.diff(filled) > 1)
        return len(filled) / runs, len(filled) / (filled[-1] - filled[0] + 1)

    best = min(Axis, key=mean_run_and_fill)
    mean_run, fill = mean_run_and_fill(best)
    if mean_run > LONGEST_RUN or (fill == 1.0 and mean_run > 1):
        raise InputError(
            "It cannot be told along which axis was drawn: no axis has single slices with gaps between them.",
            why="The segment is already whole, or neighbouring slices were drawn.",
            todo="Name the axis (i, j or k), and the reference slices if the segment is whole.",
        )
    return best


def take_drawing(
    segment_id: str, name: str, mask_kji: np.ndarray, axis: Axis, references: Sequence[int] | None = None
) -> Drawing:
    """One segment's references out of its mask.

    Parameters
    ----------
    segment_id, name : str
    mask_kji : ndarray, shape (k, j, i), bool
    axis : Axis
    references : sequence of int, optional
        Slices on which the drawing is complete: where the mask is empty the structure is taken to be
        absent. By default every slice that holds a voxel.

    Raises
    ------
    InputError
        A reference lies outside the volume.
    """
    slices = tuple(sorted(set(references))) if references is not None else filled_slices(mask_kji, axis)
    count = mask_kji.shape[axis.array_axis]
    outside = [index for index in slices if not 0 <= index < count]
    if outside:
        raise InputError(
            f"Reference slices {', '.join(map(str, outside))} lie outside the volume.",
            why=f"Along {axis.value} it has slices 0 to {count - 1}, counted from 0.",
            todo="Give slice indices within that range.",
        )
    masks = np.take(mask_kji, slices, axis=axis.array_axis)
    return Drawing(segment_id, name, slices, np.ascontiguousarray(np.moveaxis(masks, axis.array_axis, 0)))


def default_extent(drawings: Iterable[Drawing]) -> int | None:
    """Slices to go on beyond the outermost references where the user does not say.

    None (until the structure has closed) where some segment is drawn on a single slice only: there is
    nothing to fill between; else 0.
    """
    return None if any(np.count_nonzero(holds(d.masks)) < 2 for d in drawings) else 0
