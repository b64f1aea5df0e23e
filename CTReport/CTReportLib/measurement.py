"""A number read from a chest CT by a stated rule: what it is, how it was found, and how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass

from MedAILib.errors import InputError
from MedAILib.volume import Volume

LABEL = "measured by rule, not diagnosed"
"""Stands beside every measurement wherever one is shown."""

SIDES = ("", "left", "right", "both")


@dataclass(frozen=True, eq=False)
class Measurement:
    """One measured quantity.

    Attributes
    ----------
    finding_id : str
        The finding of `CTReportLib.findings` it speaks for; empty where it belongs to none (lung volume).
    name : str
        What was measured, with its side where it has one: ``"Emphysema index, left lung"``.
    value : float or None
        None where it could not be measured; `limits` then says why.
    unit : str
        ``"%"``, ``"ml"``, ``"mm"``, ``"HU"`` or empty for a ratio or a count.
    rule : str
        The rule with its numbers, one sentence.
    side : str
        The patient's ``"left"`` or ``"right"``, ``"both"``, or empty.
    place : str
        In words: ``"upper third of the left lung"``; empty where the quantity has no place.
    decision : bool or None
        Whether the rule's threshold was passed; None where there is no threshold or it cannot be judged.
    limits : str
        What this number does not say, one or two sentences.
    mask : Volume or None
        Where: uint8 0 and 1 on a grid of its own;
        ``MedAILib.grids.resampled(mask, volume.geometry, "nearest")`` brings it onto the CT's.
    threshold : float or None
        The value that `decision` rests on, in `unit`; None where the rule has none.
    model : str
        Id of the model that drew `mask`; empty: measured by rule.
    """

    finding_id: str
    name: str
    value: float | None
    unit: str
    rule: str
    side: str = ""
    place: str = ""
    decision: bool | None = None
    limits: str = ""
    mask: Volume | None = None
    threshold: float | None = None
    model: str = ""

    def __post_init__(self) -> None:
        if self.side not in SIDES:
            raise InputError(f"'{self.side}' is not a side; one of {', '.join(repr(side) for side in SIDES)} is.")
