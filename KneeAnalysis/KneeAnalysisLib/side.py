"""Left or right knee, from what lies medial and what lateral."""

from __future__ import annotations

from enum import Enum

import numpy as np

from KneeAnalysisLib.labels import Tissue


class Side(Enum):
    LEFT = "left"
    RIGHT = "right"

    @property
    def other(self) -> Side:
        return Side.LEFT if self is Side.RIGHT else Side.RIGHT


_PAIRS = (
    (Tissue.MEDIAL_TIBIAL_CARTILAGE, Tissue.LATERAL_TIBIAL_CARTILAGE),
    (Tissue.MEDIAL_MENISCUS, Tissue.LATERAL_MENISCUS),
    (Tissue.TIBIA, Tissue.FIBULA),
)
"""What lies nearer the other leg, and what farther from it; the first pair that is complete decides."""


def detected_side(labels: np.ndarray) -> Side | None:
    """The side of a knee by its tibial cartilages, else menisci, else tibia and fibula.

    Parameters
    ----------
    labels : ndarray, shape (k, j, i), uint8
        Canonical tissues; k runs from the patient's left to right.

    Returns
    -------
    Side or None
        None where no pair is complete.
    """
    for medial, lateral in _PAIRS:
        places = [_mean_slice(labels == tissue) for tissue in (medial, lateral)]
        if None not in places and places[0] != places[1]:
            return Side.RIGHT if places[0] < places[1] else Side.LEFT  # type: ignore[operator]
    return None


def _mean_slice(mask: np.ndarray) -> float | None:
    counts = mask.sum(axis=(1, 2))
    return float((counts * np.arange(counts.size)).sum() / counts.sum()) if counts.any() else None
