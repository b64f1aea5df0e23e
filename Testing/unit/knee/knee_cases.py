"""Requests of small knees, for the tests of the chain."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from knee_phantoms import knee_label_map

from KneeAnalysisLib.echoes import EchoKind, EchoSeries
from KneeAnalysisLib.request import ALL_STEPS, KneeRequest, Step
from MedAILib.volume import LabelMap, Volume

NO_REPORT = tuple(step for step in ALL_STEPS if step is not Step.REPORT)
"""The pictures of the report take seconds."""
SPACING_KJI_MM = (1.4, 0.5, 0.5)


def a_label_map() -> LabelMap:
    return replace(knee_label_map(spacing_kji_mm=SPACING_KJI_MM), name="Knie ü")


def a_request(out: Path | None = None, **changes: Any) -> KneeRequest:
    """A whole analysis of a small knee, without T2 and report."""
    settings: dict[str, Any] = {"label_map": a_label_map(), "labels": "canonical", "steps": NO_REPORT, "out": out}
    return KneeRequest(**(settings | changes))


def some_echoes(label_map: LabelMap, t2_ms: float = 40.0) -> EchoSeries:
    """Eight echoes of a body with one T2 on the label map's grid."""
    times = tuple(6.5 * number for number in range(1, 9))
    echoes = tuple(
        Volume(np.full(label_map.geometry.shape_kji, 1000 * np.exp(-t / t2_ms), np.float32), label_map.ijk_to_ras)
        for t in times
    )
    return EchoSeries(echoes, times, EchoKind.SPIN_ECHO, name="MESE")
