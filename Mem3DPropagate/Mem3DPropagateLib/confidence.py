"""Confidence of a propagated slice: its expected Dice overlap, calibrated on real structures.

A logistic curve over a few things known without the truth: how far the next reference is in terms of
the structure's own width, how much the slice changed against it, how well left-out references were
foretold. Coefficients come from ``Testing/benchmarks/confidence.py``, which also prints how expected
and true Dice agree on patients it was not fitted on.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from scipy import ndimage

from Mem3DPropagateLib.request import SliceQuality
from Mem3DPropagateLib.shapes import Stack, dice

CALIBRATION_FILE = Path(__file__).with_name("confidence_calibration.json")
NETWORK_CALIBRATION_FILE = Path(__file__).with_name("confidence_network.json")
"""For slices that our network answered: the same features and what the network itself expects."""

FEATURES = (
    "log(1 + distance / half width)",
    "log(1 + distance in slices)",
    "1 - Dice with the nearest reference",
    "pixel / half width",
    "drawn on one side only",
    "1 - Dice of left-out references",
    "one reference drawn",
    "two references drawn",
    "three references drawn",
    "|log half-width ratio| of the bracketing references",
)
NETWORK_FEATURES = (*FEATURES, "log-odds of the Dice that the network expects")


@dataclass(frozen=True)
class Bracket:
    """The references around a slice.

    Attributes
    ----------
    positions : tuple of int
        Positions in the stack of the nearest reference on each side: one or two.
    steps : tuple of int
        Slices to each.
    """

    positions: tuple[int, ...]
    steps: tuple[int, ...]

    def only(self, wanted: np.ndarray) -> Bracket:
        """The references among these whose entry in ``wanted``, shape (references,), is True."""
        kept = [(p, n) for p, n in zip(self.positions, self.steps, strict=True) if wanted[p]]
        return Bracket(tuple(p for p, _ in kept), tuple(n for _, n in kept))


def bracket(slices: np.ndarray, index: int) -> Bracket:
    """The references around a slice that is not one itself."""
    after = int(np.searchsorted(slices, index))
    positions = tuple(p for p in (after - 1, after) if 0 <= p < len(slices))
    return Bracket(positions, tuple(abs(int(slices[p]) - index) for p in positions))


def expected_dice(
    stack: Stack, index: int, mask: np.ndarray, left_out_dice: float | None, told: float | None = None
) -> float:
    """Expected Dice, 0..1, of a propagated slice with what the user would have drawn.

    Parameters
    ----------
    stack : Stack
        All references.
    index : int
        The slice; not a reference.
    mask : ndarray, shape (rows, columns), bool
        Its propagated mask.
    left_out_dice : float or None
        Mean Dice of left-out references (`Choice.mean_left_out_dice`).
    told : float or None
        The Dice a network expects; None: none was asked, or it does not say.
    """
    if mask.any():
        features = slice_features(stack, index, mask, left_out_dice)
        if told is None:
            return load_calibration().expected_dice(features)
        return load_calibration(NETWORK_CALIBRATION_FILE).expected_dice(with_told(features, told))
    # An empty slice is right where the structure has ended: certain between two references drawn empty,
    # and between one drawn empty and one drawn full the end may lie anywhere.
    around = bracket(stack.slices, index)
    full = around.only(stack.holds)
    return sum(full.steps) / sum(around.steps) if full.positions else 1.0


def overall(qualities: Sequence[SliceQuality], areas_px: Sequence[int]) -> tuple[float, float]:
    """Confidence and quality score of a segment.

    Parameters
    ----------
    qualities : sequence of SliceQuality
    areas_px : sequence of int
        Area of the segment on each slice.

    Returns
    -------
    confidence : float
        Mean expected Dice of the propagated slices that are not empty, weighted by their areas.
    quality_score : float
        The lowest of them. Both are 1 where nothing was propagated.
    """
    filled = [(q.confidence, a) for q, a in zip(qualities, areas_px, strict=True) if a and not q.is_reference]
    if not filled:
        return 1.0, 1.0
    return sum(c * a for c, a in filled) / sum(a for _, a in filled), min(c for c, _ in filled)


def slice_features(stack: Stack, index: int, mask: np.ndarray, left_out_dice: float | None) -> np.ndarray:
    """What is known of a propagated slice that is not empty: float64, shape (len(FEATURES),).

    Parameters are those of `expected_dice`.
    """
    around = bracket(stack.slices, index).only(stack.holds)
    steps, nearest = min(zip(around.steps, around.positions, strict=True))
    pixel_mm = float(np.sqrt(stack.pixel_mm[0] * stack.pixel_mm[1]))
    here_mm = half_width_mm(mask, stack.pixel_mm)
    sides_mm = [half_width_mm(stack.masks[p], stack.pixel_mm) for p in around.positions]
    return np.array(
        [
            np.log1p(steps * stack.slice_mm / here_mm),
            np.log1p(steps),
            1.0 - dice(mask, stack.masks[nearest]),
            pixel_mm / here_mm,
            float(len(around.positions) == 1),
            0.0 if left_out_dice is None else 1.0 - left_out_dice,
            *(float(np.count_nonzero(stack.holds) == count) for count in (1, 2, 3)),
            abs(np.log(sides_mm[0] / sides_mm[-1])),
        ]
    )


def with_told(features: np.ndarray, told: float) -> np.ndarray:
    """Features of a slice and the Dice that a network expects of it: float64, shape (len(NETWORK_FEATURES),)."""
    likely = min(max(told, 0.001), 0.999)
    return np.append(features, np.log(likely / (1 - likely)))


def half_width_mm(mask: np.ndarray, pixel_mm: tuple[float, float]) -> float:
    """`half_width_px` in millimetres, pixels taken as squares of the same area."""
    return float(np.sqrt(pixel_mm[0] * pixel_mm[1])) * half_width_px(mask)


def half_width_px(mask: np.ndarray) -> float:
    """Twice the area over the outline's length: a disc's radius, little for what is thin or folded."""
    outline = np.count_nonzero(mask & ~ndimage.binary_erosion(mask))
    return 2.0 * np.count_nonzero(mask) / outline


@dataclass(frozen=True)
class Calibration:
    """Logistic curve from features to expected Dice.

    Attributes
    ----------
    intercept : float
    weights : tuple of float
        One per entry of `FEATURES`, or of `NETWORK_FEATURES`.
    """

    intercept: float
    weights: tuple[float, ...]

    def expected_dice(self, features: np.ndarray) -> float:
        """Expected Dice, 0..1, of a slice with these features."""
        return float(1.0 / (1.0 + np.exp(-(self.intercept + np.dot(self.weights, features)))))


@lru_cache(maxsize=2)
def load_calibration(path: Path = CALIBRATION_FILE) -> Calibration:
    """A calibration shipped with the module."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    names = FEATURES if path == CALIBRATION_FILE else NETWORK_FEATURES
    return Calibration(stored["intercept"], tuple(stored["weights"][name] for name in names))
