"""The geometric method: several ways to interpolate a structure, and the choice between them.

No way is best for every anatomy: a structure that runs obliquely must be followed, one that branches
must not, two kidneys need following one by one. Each reference left out in turn (leave-one-reference-
out) shows on the user's own drawing which way foretells it best.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from Mem3DPropagateLib.interpolate import FAR_MM, Interpolant
from Mem3DPropagateLib.shapes import Stack, dice, holds, tracks, window_around

MOST_TRIALS = 8
"""References left out at most, spread over the stack: more tell nothing new."""

CLEARLY_BETTER = 0.02
"""Leave-one-out Dice a variant must gain over the default to be taken instead."""


@dataclass(frozen=True)
class Variant:
    """One way to interpolate.

    Attributes
    ----------
    name : str
    follow : float
        Share of the centre's motion followed (see `Interpolant`).
    by_parts : bool
        Each connected part on its own (see `tracks`), or all as one.
    """

    name: str
    follow: float
    by_parts: bool


PARTS = Variant("parts", 0.5, True)
STILL = Variant("whole-still", 0.0, False)
WHOLE = Variant("whole", 0.5, False)
FOLLOWING = Variant("whole-following", 1.0, False)
VARIANTS = (PARTS, STILL, WHOLE, FOLLOWING)
"""In the order of trust: a later one is taken only where it foretells clearly better than all before it."""

FOLLOWED = 0.5
"""Share of the drawn area that must lie in parts seen on every reference before parts are followed singly."""


class FittedVariant:
    """A variant on its references: levels for any slice.

    Parameters
    ----------
    variant : Variant
    stack : Stack
        At least one mask holds a voxel.
    reach : int or None
        Slices beyond the outermost references; None: until the structure has closed.
    """

    def __init__(self, variant: Variant, stack: Stack, reach: int | None = 0) -> None:
        self.variant = variant
        self._stack = stack
        self._windows: list[tuple[slice, slice]] = []
        self._parts: list[Interpolant] = []
        for masks in tracks(stack) if variant.by_parts else (stack.masks,):
            window = window_around(masks)
            part = stack.with_masks(stack.slices, np.ascontiguousarray(masks[:, *window]))
            self._windows.append(window)
            self._parts.append(Interpolant(part, variant.follow, reach))

    @property
    def span(self) -> tuple[int, int]:
        """First and last slice (inclusive) that may hold the structure; references included."""
        first, last = int(self._stack.slices[0]), int(self._stack.slices[-1])
        spans = [part.span for part in self._parts]
        return min([first, *(a for a, _ in spans)]), max([last, *(b for _, b in spans)])

    def level(self, index: int) -> np.ndarray:
        """Level of one slice, float32, shape (rows, columns): >= 0 inside."""
        level = np.full(self._stack.masks.shape[1:], FAR_MM)
        for window, part in zip(self._windows, self._parts, strict=True):
            np.maximum(level[window], part.level(index), out=level[window])
        return level


@dataclass(frozen=True)
class Choice:
    """The variant taken and the ground for it.

    Attributes
    ----------
    variant : Variant
    left_out_dice : dict of int to float
        For each reference left out, by its slice index: Dice of the variant's prediction. Empty with
        fewer than four references (leaving one of three out leaves nothing to learn from).
    """

    variant: Variant
    left_out_dice: dict[int, float]

    @property
    def mean_left_out_dice(self) -> float | None:
        values = list(self.left_out_dice.values())
        return float(np.mean(values)) if values else None


def choose_variant(stack: Stack) -> Choice:
    """Take the default variant, or another that foretells left-out references clearly better."""
    drawn = np.flatnonzero(stack.holds)
    inner = drawn[1:-1]
    if len(drawn) < 4:
        return Choice(_default_for_few(stack), {})
    trials = inner[np.unique(np.linspace(0, len(inner) - 1, MOST_TRIALS).round().astype(int))]
    scores = {variant: _left_out_dice(variant, stack, trials) for variant in VARIANTS}
    taken, taken_mean = PARTS, float(np.mean(list(scores[PARTS].values())))
    for variant in VARIANTS[1:]:
        mean = float(np.mean(list(scores[variant].values())))
        if mean > taken_mean + CLEARLY_BETTER:
            taken, taken_mean = variant, mean
    return Choice(taken, scores[taken])


def _default_for_few(stack: Stack) -> Variant:
    """With two or three references parts are followed only where they can be: on every reference."""
    drawn = stack.holds
    followed = sum(part.sum() for part in tracks(stack) if holds(part)[drawn].all())
    return PARTS if followed >= FOLLOWED * stack.masks.sum() else WHOLE


def _left_out_dice(variant: Variant, stack: Stack, trials: np.ndarray) -> dict[int, float]:
    scores = {}
    for position in trials:
        index = int(stack.slices[position])
        level = FittedVariant(variant, stack.without(int(position))).level(index)
        scores[index] = dice(level >= 0, stack.masks[position])
    return scores
