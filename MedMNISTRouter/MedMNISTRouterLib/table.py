"""Answers as rows, for a table in the scene and for a CSV file."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass

from MedMNISTRouterLib.request import Answer
from MedMNISTRouterLib.summary import state_of


@dataclass(frozen=True)
class Row:
    """One picture's answer in plain cells; the fields are the columns.

    Attributes
    ----------
    image, state, dataset : str
    router_confidence : float or None
    class_index : int or None
    class_name : str
    class_confidence : float or None
    positives : str
        Of a multi-label expert, as ``name 0.87``, separated by semicolons.
    expected_grade : float or None
    calibrated, recognised : bool
    distance, threshold : float or None
    why : str
        Reason, error, warnings.
    milliseconds : float or None
    model, sha256 : str
        Of the expert that answered, else of the router.
    """

    image: str
    state: str
    dataset: str
    router_confidence: float | None
    class_index: int | None
    class_name: str
    class_confidence: float | None
    positives: str
    expected_grade: float | None
    calibrated: bool
    recognised: bool
    distance: float | None
    threshold: float | None
    why: str
    milliseconds: float | None
    model: str
    sha256: str


COLUMNS = tuple(Row.__dataclass_fields__)
UNITS = {"milliseconds": "ms"}


def row_of(answer: Answer) -> Row:
    model = answer.models[-1] if answer.models else None
    return Row(
        image=answer.image,
        state=state_of(answer).value,
        dataset=answer.routed_dataset,
        router_confidence=answer.router_confidence,
        class_index=answer.predicted_class_index,
        class_name=answer.predicted_class_name,
        class_confidence=answer.predicted_class_confidence,
        positives="; ".join(f"{one.name} {one.probability:.2f}" for one in answer.positives),
        expected_grade=answer.expected_grade,
        calibrated=answer.calibrated,
        recognised=answer.recognised,
        distance=answer.distance,
        threshold=answer.threshold,
        why=" ".join(part for part in (answer.error, answer.reason, *answer.warnings) if part),
        milliseconds=answer.milliseconds.get("total"),
        model=model.id if model is not None else "",
        sha256=model.sha256 if model is not None else "",
    )


def csv_bytes(answers: Sequence[Answer]) -> bytes:
    """A CSV file (UTF-8 with a mark that spreadsheets heed) with one row per picture."""
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(COLUMNS)
    for answer in answers:
        row = row_of(answer)
        writer.writerow(_cell(getattr(row, name)) for name in COLUMNS)
    return text.getvalue().encode("utf-8-sig")


def _cell(value: object) -> object:
    if value is None:
        return ""
    if isinstance(value, bool):
        return int(value)
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return f"'{text}" if text.startswith(("=", "+", "-", "@")) else text  # a spreadsheet would compute it
