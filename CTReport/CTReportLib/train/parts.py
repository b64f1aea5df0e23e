"""Who learns what from whom: patients to learn from, patients kept apart, findings with enough labels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from CTReportLib.findings import FINDINGS
from CTReportLib.train.ctrate import CtCase, CtData, split_by_patient
from CTReportLib.train.request import TrainRequest
from MedAILib.errors import InputError

VALIDATION, KEPT_APART = "valid", ("valid", "test")
FEWEST_SCANS = 5
"""With a finding, and without it, that a classifier needs to learn it."""


@dataclass(frozen=True)
class Parts:
    """Who learns what from whom.

    Attributes
    ----------
    learning, held : tuple of CtCase
    findings : tuple of str
        Ids of what the classifier learns.
    remarks : tuple of str
    """

    learning: tuple[CtCase, ...]
    held: tuple[CtCase, ...]
    findings: tuple[str, ...]
    remarks: tuple[str, ...]


def parts_of(data: CtData, request: TrainRequest) -> Parts:
    """Which cases are learned from and which are kept apart, and what there is to learn.

    Raises
    ------
    InputError
        Nobody is left to learn from.
    """
    if request.split:
        asked = data.of_split(request.split)
        learning, held = split_by_patient(asked, request.held_share, request.seed)
    else:
        asked = tuple(case for case in data.cases if case.split not in KEPT_APART) or data.cases
        validating = tuple(case for case in data.cases if case.split == VALIDATION and case not in asked)
        seen = {case.patient for case in asked}
        held = tuple(case for case in validating if case.patient not in seen)
        learning = asked
        if not held:
            learning, held = split_by_patient(asked, request.held_share, request.seed)
    if not learning:
        raise InputError("No patient is left to learn from.", todo="Give more data, or lower the held share.")
    findings, few = _learnable(learning)
    remarks = list(data.remarks)
    if few:
        remarks.append(
            f"Fewer than {FEWEST_SCANS} scans with or without them, so the classifier does not learn: {', '.join(few)}."
        )
    if not held:
        remarks.append("No patient is kept apart: nothing is calibrated.")
    return Parts(learning, held, findings, tuple(remarks))


def _learnable(cases: Sequence[CtCase]) -> tuple[tuple[str, ...], list[str]]:
    labels = np.array([case.labels for case in cases])
    there, absent = (labels == 1).sum(axis=0), (labels == 0).sum(axis=0)
    enough = (there >= FEWEST_SCANS) & (absent >= FEWEST_SCANS)
    few = [one.name for one, good, a, b in zip(FINDINGS, enough, there, absent, strict=True) if not good and (a or b)]
    return tuple(one.id for one, good in zip(FINDINGS, enough, strict=True) if good), few


def facts_of(parts: Parts) -> list[list[Any]]:
    """What the data is, as plain JSON values: names, sizes and labels of its files."""
    return sorted(
        [case.name, case.volume.stat().st_size, list(case.labels), case in parts.held]
        for case in (*parts.learning, *parts.held)
    )


def patients_of(cases: Sequence[CtCase]) -> tuple[str, ...]:
    """Their names, sorted."""
    return tuple(sorted({case.patient for case in cases}))
