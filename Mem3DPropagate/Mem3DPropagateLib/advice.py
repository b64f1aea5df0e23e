"""Which slice is worth drawing next: the one expected to raise the volume's Dice most."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from Mem3DPropagateLib.request import Advice, SliceQuality

WORTH_DRAWING = 0.003
"""Expected rise of the volume Dice below which no slice is advised."""


def advise(qualities: Sequence[SliceQuality], areas_px: Sequence[int]) -> Advice:
    """Choose the next slice to draw.

    Drawing a slice makes it right and brings a reference nearer to its neighbours: each slice's expected
    error is taken to fall in proportion to its distance from the nearest reference.

    Parameters
    ----------
    qualities : sequence of SliceQuality
        All slices of the result, references included, ascending.
    areas_px : sequence of int
        Area of the result on each.
    """
    references = np.array(sorted({index for q in qualities for index in q.used_slices}))
    indices = np.array([q.index for q in qualities])
    open_ = np.array([not q.is_reference for q in qualities])
    if len(references) == 1 and not open_.any():
        return Advice(None, "Only one slice is drawn: draw the structure on a second one, best near its far end.", 1.0)
    if not open_.any():
        return Advice(None, "Every slice of the structure is drawn.")

    areas = np.array(areas_px, dtype=float)
    errors = (1.0 - np.array([q.confidence for q in qualities])) * areas * open_
    now = np.abs(indices[:, None] - references[None]).min(axis=1)
    gains = np.array(
        [
            (errors * (1.0 - np.minimum(now, np.abs(indices - candidate)) / np.maximum(now, 1))).sum()
            for candidate in indices[open_]
        ]
    ) / max(areas.sum(), 1.0)
    best = int(indices[open_][gains.argmax()])
    gain = float(gains.max())
    if gain < WORTH_DRAWING:
        return Advice(None, f"No slice is expected to raise the Dice by more than {WORTH_DRAWING:.3f}.", gain)
    return Advice(best, _reason(best, references, qualities, gain), gain)


def _reason(best: int, references: np.ndarray, qualities: Sequence[SliceQuality], gain: float) -> str:
    below, above = references[references < best], references[references > best]
    confidence = next(q.confidence for q in qualities if q.index == best)
    if len(below) and len(above):
        place = f"it lies between the drawn slices {below[-1]} and {above[0]}"
    else:
        nearest = int(below[-1] if len(below) else above[0])
        place = f"it lies beyond the last drawn slice {nearest}"
    return (
        f"Slice {best}: {place}, its expected Dice is {confidence:.2f}; "
        f"drawing it should raise the whole structure's by about {gain:.3f}."
    )
