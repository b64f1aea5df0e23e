"""What a bar chart shows, as values; drawn by `MedAILib.ui.bar_chart`. Needs no Qt."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class BarKind(Enum):
    """What a bar's colour says."""

    CHOSEN = "chosen"
    """What was decided for: the predicted class, the route that was taken."""
    OTHER = "other"
    """Nothing was decided by it."""
    WITHIN = "within"
    """A value on the good side of its threshold."""
    BEYOND = "beyond"
    """A value on the other side."""


@dataclass(frozen=True)
class Bar:
    """One row of a bar chart.

    Attributes
    ----------
    name : str
    share : float
        Length, 0..1 of the chart.
    text : str
        The value in words.
    kind : BarKind
    mark : float or None
        Place of a threshold, 0..1.
    hatched : bool
        Drawn as a pattern: a value that means less than it seems to.
    faded : bool
        Name and text in a pale colour: nothing is said of it.
    """

    name: str
    share: float
    text: str
    kind: BarKind = BarKind.OTHER
    mark: float | None = None
    hatched: bool = False
    faded: bool = False
