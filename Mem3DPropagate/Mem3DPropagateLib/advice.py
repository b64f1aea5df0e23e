"""Which slice is worth drawing next: the middle of the stretch without a drawn slice that holds most of the doubt.

Stretches reach from drawn slice to drawn slice, and from the outermost ones a little beyond the predicted ends: where a
structure ends is what propagation knows least.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from Mem3DPropagateLib.request import Advice, SliceQuality

WORTH_DRAWING = 0.003
"""Expected rise of the volume Dice below which no slice is advised."""
_BEYOND = 0.15
"""Share of the predicted length by which a structure may be longer at either end."""
_LEAST_BEYOND = 2
_REACH = 0.5
"""Share of its own radius by which a structure goes on beyond the outermost drawn slice, where no more is predicted."""
_UNSEEN_DICE = 0.7
"""Taken as expected Dice beyond a predicted end."""
_DOUBT = 0.15
"""Added to one minus the expected Dice: also what looks certain may be wrong, the more the longer the stretch."""


def advise(
    qualities: Sequence[SliceQuality],
    areas_px: Sequence[int],
    room: tuple[int, int] = (0, 0),
    pixel_slices: float = 0.0,
) -> Advice:
    """Choose the next slice to draw.

    Drawing a slice makes it right and brings a reference nearer to its neighbours: for the rise of the Dice, each
    slice's expected error is taken to fall in proportion to its distance from the nearest reference.

    Parameters
    ----------
    qualities : sequence of SliceQuality
        All slices of the result, references included, ascending.
    areas_px : sequence of int
        Area of the result on each.
    room : tuple of int
        Slices of the volume before the first and after the last of them into which the structure may go on; 0 where
        its ends are given.
    pixel_slices : float
        Side of a pixel (of a square of its area) over the distance of slices; 0: not known.
    """
    references = np.array(sorted({index for q in qualities for index in q.used_slices}))
    if not qualities:
        return Advice(None, "Nothing is drawn.")
    doubt = _doubt(qualities, np.array(areas_px, dtype=float), references, room, pixel_slices)
    if np.isin(doubt.indices, references).all():
        if len(references) == 1:
            text = "Only one slice is drawn: draw the structure on a second one, best near its far end."
            return Advice(None, text, 1.0)
        return Advice(None, "Every slice of the structure is drawn.")
    best = _middle_of_worst(doubt, references)
    now = np.abs(doubt.indices[:, None] - references[None]).min(axis=1)
    fall = 1.0 - np.minimum(now, np.abs(doubt.indices - best)) / np.maximum(now, 1)
    gain = min(float((doubt.errors_px * fall).sum()) / max(sum(areas_px), 1.0), 1.0)
    if gain < WORTH_DRAWING:
        return Advice(None, f"No slice is expected to raise the Dice by more than {WORTH_DRAWING:.3f}.", gain)
    return Advice(best, _reason(best, references, qualities, gain), gain)


def pixel_slices(pixel_mm: tuple[float, float], slice_mm: float) -> float:
    """Side of a square of a pixel's area over the distance of slices."""
    return float(np.sqrt(pixel_mm[0] * pixel_mm[1])) / slice_mm


@dataclass(frozen=True, eq=False)
class _Doubt:
    """What may be wrong on each slice, those just beyond the predicted ends included; arrays of one length.

    Attributes
    ----------
    indices : ndarray of int
        Ascending, without gaps.
    errors_px : ndarray of float
        Expected wrong area.
    weights : ndarray of float
        Of the slices of a stretch, in the choice between stretches.
    """

    indices: np.ndarray
    errors_px: np.ndarray
    weights: np.ndarray


def _doubt(
    qualities: Sequence[SliceQuality],
    areas_px: np.ndarray,
    references: np.ndarray,
    room: tuple[int, int],
    pixel_slices: float,
) -> _Doubt:
    first, last = qualities[0].index, qualities[-1].index
    radii = np.sqrt(areas_px / np.pi) * pixel_slices
    drawn = [n for n, q in enumerate(qualities) if q.is_reference and areas_px[n]]
    gaps = int(references[0]) - first, last - int(references[-1])
    reach = (radii[drawn[0]], radii[drawn[-1]]) if drawn else (0.0, 0.0)
    before, after = (
        min(_margin(len(areas_px), gap, radius), here) for gap, radius, here in zip(gaps, reach, room, strict=True)
    )
    mean_px = max(float(areas_px.mean()), 1.0)
    expected = np.array([q.confidence for q in qualities])
    inside = (1.0 - expected) * areas_px * [not q.is_reference for q in qualities]
    errors = [(1.0 - _UNSEEN_DICE) * mean_px * (1.0 - np.arange(1, n + 1) / (n + 1)) for n in (before, after)]
    weights = (_DOUBT + 1.0 - expected) * np.sqrt(areas_px / mean_px)
    unseen = _DOUBT + 1.0 - _UNSEEN_DICE
    return _Doubt(
        np.arange(first - before, last + after + 1),
        np.concatenate([errors[0][::-1], inside, errors[1]]),
        np.concatenate([np.full(before, unseen), weights, np.full(after, unseen)]),
    )


def _margin(length: int, gap: int, radius: float) -> int:
    """Slices by which a structure may be longer than predicted at an end.

    Parameters
    ----------
    length : int
        As predicted.
    gap : int
        Slices from the outermost drawn one to the predicted end; below 0: the end lies within what is drawn.
    radius : float
        Of the outermost drawn slice, in slices.
    """
    if gap < 0:
        return 0
    return max(min(max(_LEAST_BEYOND, round(_BEYOND * length)), gap), round(_REACH * radius) - gap)


def _middle_of_worst(doubt: _Doubt, references: np.ndarray) -> int:
    """The middle of the stretch without a drawn slice whose weights add up to most."""
    ends = sorted({int(doubt.indices[0]) - 1, *references.tolist(), int(doubt.indices[-1]) + 1})

    def weight(stretch: tuple[int, int]) -> float:
        inside = (doubt.indices > stretch[0]) & (doubt.indices < stretch[1])
        return float(doubt.weights[inside].sum()) if inside.any() else -1.0

    before, after = max(itertools.pairwise(ends), key=weight)
    return (before + after) // 2


def _reason(best: int, references: np.ndarray, qualities: Sequence[SliceQuality], gain: float) -> str:
    below, above = references[references < best], references[references > best]
    if len(below) and len(above):
        place = f"it lies between the drawn slices {below[-1]} and {above[0]}"
    else:
        nearest = int(below[-1] if len(below) else above[0])
        place = f"it lies beyond the last drawn slice {nearest}"
    confidence = next((q.confidence for q in qualities if q.index == best), None)
    expected = f"its expected Dice is {confidence:.2f}" if confidence is not None else "the structure may reach it"
    return f"Slice {best}: {place}, {expected}; drawing it should raise the whole structure's by about {gain:.3f}."
