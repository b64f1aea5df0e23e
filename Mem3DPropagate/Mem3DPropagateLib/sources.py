"""Where the level of a slice comes from: geometry alone, or our network over it.

A *level* is a signed distance in millimetres, 0 or more inside. A source knows which slices it reaches, and answers
them one by one in ascending order; what a slice rests on is said with it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Protocol

import numpy as np

from Mem3DPropagateLib.confidence import Bracket, bracket, half_width_mm
from Mem3DPropagateLib.geometry import FittedVariant, Variant
from Mem3DPropagateLib.interpolate import FAR_MM
from Mem3DPropagateLib.request import SliceMethod
from Mem3DPropagateLib.shapes import Stack, dice

if TYPE_CHECKING:
    from Mem3DPropagateLib.nets.gapmodel import LoadedGapNet

NETWORK_FROM = 1.0
"""Unless left-out references say otherwise, the network answers gaps at least so long in terms of the structure's half
width; shorter ones are left to geometry, which foretells them better. Chosen on training patients.
"""

MOST_TRIALS = 4
"""References left out to compare the network with geometry, at most."""


@dataclass(frozen=True, eq=False)
class SliceAnswer:
    """One slice that is not a reference.

    Attributes
    ----------
    level_mm : ndarray, shape (rows, columns), float32
    method : SliceMethod
    expected_dice : float or None
        What the network expects; None: it was not asked.
    """

    level_mm: np.ndarray
    method: SliceMethod
    expected_dice: float | None = None


class Source(Protocol):
    """Levels of one structure."""

    @property
    def span(self) -> tuple[int, int]:
        """First and last slice (inclusive) that may hold the structure; references included."""

    def answer(self, index: int, wanted: range) -> SliceAnswer:
        """A slice within the span; ``wanted`` are all that will be asked for."""


class GeometrySource:
    """The geometric method.

    Parameters
    ----------
    stack : Stack
    variant : Variant
    reach : int or None
        Slices beyond the outermost references; None: until the structure has closed.
    """

    def __init__(self, stack: Stack, variant: Variant, reach: int | None) -> None:
        self._fitted = FittedVariant(variant, stack, reach)
        self.span = self._fitted.span

    def answer(self, index: int, wanted: range) -> SliceAnswer:
        return SliceAnswer(self._fitted.level(index), SliceMethod.FALLBACK)


class NetworkSource:
    """Our network between references and beyond the outermost ones, geometry where that is better or all there is.

    Parameters
    ----------
    loaded : LoadedGapNet
    image : ndarray, shape (slices, rows, columns)
        Any view; rows and columns are the stack's.
    stack, variant, reach
        As for `GeometrySource`, which it asks for priors.
    within : range
        Slices that can be asked for: those of the volume, or of a correction.
    always : bool
        Leave nothing to geometry that the network can answer.
    check : callable
        May raise to cancel.
    """

    def __init__(
        self,
        loaded: LoadedGapNet,
        image: np.ndarray,
        stack: Stack,
        variant: Variant,
        reach: int | None,
        within: range,
        always: bool,
        check: Callable[[], None],
    ) -> None:
        from Mem3DPropagateLib.nets.gapengine import GapPropagation

        self._stack, self._always = stack, always
        self._geometry = FittedVariant(variant, stack, 0)
        self._network = GapPropagation(loaded, image, stack, self._geometry.level)
        drawn = stack.slices[stack.holds]
        first, last = int(stack.slices[0]), int(stack.slices[-1])
        roll = partial(self._network.roll_out, until_it_vanishes=reach is None, check=check)
        # Only where the outermost reference holds the structure: one drawn empty says that it has ended before.
        below, above = first - within.start, within.stop - 1 - last
        if reach is not None:
            below, above = min(below, reach), min(above, reach)
        if drawn[0] == first and below > 0:
            first -= roll(-1, below)
        if drawn[-1] == last and above > 0:
            last += roll(1, above)
        # As with geometry, a structure still open at the edge of the volume reaches beyond it.
        ends_open = reach is None and first < stack.slices[0], reach is None and last > stack.slices[-1]
        self.span = (-1 if ends_open[0] and not first else first, last + (ends_open[1] and last == len(image) - 1))

    def answer(self, index: int, wanted: range) -> SliceAnswer:
        if self._always or self._is_long(bracket(self._stack.slices, index)):
            found = self._network.answer(index, wanted)
            if found is not None:
                return SliceAnswer(found.level_mm, SliceMethod.MEMORY, found.expected_dice)
        return SliceAnswer(self._geometry.level(index), SliceMethod.FALLBACK)

    def _is_long(self, around: Bracket) -> bool:
        """Whether the slice lies beyond the outermost reference, or in a gap that is long for the structure's width."""
        if len(around.positions) < 2:
            return True
        masks = [self._stack.masks[position] for position in around.positions]
        widths_mm = [half_width_mm(mask, self._stack.pixel_mm) if mask.any() else 0.0 for mask in masks]
        return sum(around.steps) * self._stack.slice_mm >= NETWORK_FROM * sum(widths_mm) / len(widths_mm)


def network_gain(
    loaded: LoadedGapNet, image: np.ndarray, stack: Stack, variant: Variant, left_out_dice: Mapping[int, float]
) -> float | None:
    """Dice that the network gains over geometry on references left out in turn; None where too few are drawn.

    The user's own drawing so decides between the two, as it does between the ways of geometry.

    Parameters
    ----------
    loaded, image, stack, variant
        As for `NetworkSource`.
    left_out_dice : mapping of int to float
        Of geometry (`Choice.left_out_dice`).
    """
    from Mem3DPropagateLib.nets.gapengine import GapPropagation

    known = sorted(left_out_dice)
    gains = []
    for index in known[:: max(-(-len(known) // MOST_TRIALS), 1)]:
        position = int(np.searchsorted(stack.slices, index))
        others = stack.without(position)
        propagation = GapPropagation(loaded, image, others, FittedVariant(variant, others).level)
        answer = propagation.answer(index, range(index, index + 1))
        if answer is not None:
            gains.append(dice(answer.level_mm >= 0, stack.masks[position]) - left_out_dice[index])
    return float(np.mean(gains)) if gains else None


class PredictedSource:
    """Slices that a space-time memory network has predicted beforehand.

    Parameters
    ----------
    stack : Stack
    predicted : mapping of int to (ndarray, float or None)
        By slice, its level (rows and columns of the stack) and the overlap the network expects.
    """

    def __init__(self, stack: Stack, predicted: Mapping[int, tuple[np.ndarray, float | None]]) -> None:
        self._shape = stack.masks.shape[1:]
        self._predicted = predicted
        known = [int(stack.slices[0]), int(stack.slices[-1]), *predicted]
        self.span = (min(known), max(known))

    def answer(self, index: int, wanted: range) -> SliceAnswer:
        if index not in self._predicted:
            return SliceAnswer(np.full(self._shape, FAR_MM), SliceMethod.NO_MEMORY)
        level, overlap = self._predicted[index]
        # The network's head states intersection over union.
        expected = None if overlap is None else 2 * overlap / (1 + overlap)
        return SliceAnswer(level.astype(np.float32), SliceMethod.MEMORY, expected)
