"""What a model says of a finding, as a plain value: the finding table and every face read it without torch."""

from __future__ import annotations

import math
from dataclasses import dataclass

from CTReportLib.findings import find
from MedAILib.errors import InputError


@dataclass(frozen=True)
class Prediction:
    """A model's answer for one finding.

    Attributes
    ----------
    finding : str
        Its id in `CTReportLib.findings`.
    probability : float
        0..1.
    calibrated : bool
        Whether it was fitted to frequencies on volumes held out; else its size means little beyond the threshold.
    threshold : float
        Probability from which the finding is taken as present, 0..1.
    model : str
        Id of the model that answered.

    Raises
    ------
    InputError
        No such finding, or numbers that are no probabilities.
    """

    finding: str
    probability: float
    calibrated: bool
    threshold: float
    model: str

    def __post_init__(self) -> None:
        known = find(self.finding)
        if known is None or known.id != self.finding:
            raise InputError(f"'{self.finding}' is no id of a finding.", todo="See CTReportLib.findings.")
        if not all(math.isfinite(part) and 0 <= part <= 1 for part in (self.probability, self.threshold)):
            raise InputError(
                f"The model '{self.model}' answered what is no probability of {known.name}: {self.probability} "
                f"at the threshold {self.threshold}.",
                todo="Take another model: this one's weights or its calibration are damaged.",
            )

    @property
    def present(self) -> bool:
        """Whether the model takes the finding as present."""
        return self.probability >= self.threshold
