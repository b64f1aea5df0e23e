"""How good a propagation is, where the truth is known."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from Mem3DPropagateLib.request import Axis, PropagatedSegment
from Mem3DPropagateLib.shapes import dice, holds


@dataclass(frozen=True)
class Evaluation:
    """Overlap of one segment with its truth, reference slices left out.

    Attributes
    ----------
    segment_id, name : str
    volume_dice : float
        Over all slices that hold the result or the truth and are not references.
    slice_dice : dict of int to float
        By slice index.
    """

    segment_id: str
    name: str
    volume_dice: float
    slice_dice: dict[int, float]


def placed(segment: PropagatedSegment, shape_kji: tuple[int, ...]) -> np.ndarray:
    """A propagated segment in its volume: bool, shape (k, j, i)."""
    mask = np.zeros(shape_kji, bool)
    window = tuple(slice(o, o + n) for o, n in zip(segment.origin_kji, segment.block.shape, strict=True))
    mask[window] = segment.block
    return mask


def evaluate(segment: PropagatedSegment, truth_kji: np.ndarray, axis: Axis) -> Evaluation:
    """Compare one segment with its true mask: bool, shape (k, j, i)."""
    result = np.moveaxis(placed(segment, truth_kji.shape), axis.array_axis, 0)
    truth = np.moveaxis(truth_kji, axis.array_axis, 0)
    references = [q.index for q in segment.slices if q.is_reference]
    held = np.flatnonzero(holds(result) | holds(truth))
    others = np.setdiff1d(held, references)
    return Evaluation(
        segment.segment_id,
        segment.name,
        dice(result[others], truth[others]),
        {int(index): dice(result[index], truth[index]) for index in others},
    )
