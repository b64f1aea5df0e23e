"""Result files: the finding table, the report as text and HTML, masks, a summary."""

from __future__ import annotations

import json
import math
import re
from dataclasses import fields
from enum import Enum
from pathlib import Path
from typing import Any

from CTReportLib.measurement import LABEL, Measurement
from CTReportLib.reporthtml import html_report
from CTReportLib.request import RESEARCH_USE, Decision, FindingRow, ReportResult, Sentence
from MedAILib import __version__
from MedAILib.atomic import output_error, write_text
from MedAILib.imageio import write_label_map

SCHEMA = 1
RUN_REPORT_FILE = "run_report.json"


def write_results(result: ReportResult, out: Path) -> tuple[Path, ...]:
    """Write the files of a report into a folder, which is made where it does not exist; the summary last.

    Raises
    ------
    OutputError
        Nothing can be written there; no file is left half-written.
    """
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(out, error) from error
    written = [out / f"{result.name}_classification.json"]
    write_text(written[-1], _json(classification(result)))
    if result.sections:
        written += [out / f"{result.name}_report.txt", out / f"{result.name}_report.html"]
        write_text(written[-2], report_text(result))
        write_text(written[-1], html_report(result))
    if result.masks is not None and result.masks.segments:
        written.append(out / f"{result.name}_localization.seg.nrrd")
        write_label_map(result.masks, written[-1])
    written.append(summary_path(result.name, out))
    write_text(written[-1], _json(summary(result)))
    return tuple(written)


def summary_path(name: str, out: Path) -> Path:
    """Where the summary of a case lies: it is there when all other files are."""
    return out / f"{name}_summary.json"


def classification(result: ReportResult) -> dict[str, Any]:
    """The finding table for programs."""
    return {"research_use": RESEARCH_USE, "findings": [_row(row) for row in result.table]}


def summary(result: ReportResult) -> dict[str, Any]:
    """Everything but voxels and pictures, as plain JSON values."""
    return {
        "schema": SCHEMA,
        "medai": __version__,
        "name": result.name,
        "research_use": RESEARCH_USE,
        "complete": result.complete,
        "findings": [_row(row) for row in result.table],
        "measurements": [_measurement(one) for one in result.measurements],
        "measurements_are": LABEL,
        "report": [
            {"title": section.title, "sentences": [_sentence(one) for one in section.sentences]}
            for section in result.sections
        ],
        "segments": [{"id": s.id, "name": s.name} for s in result.masks.segments] if result.masks else [],
        "warnings": list(result.warnings),
        "provenance": dict(result.provenance),
    }


def report_text(result: ReportResult) -> str:
    """The report as plain text, for reading and for other systems."""
    lines = [f"CHEST CT: {result.name}", RESEARCH_USE]
    if not result.complete:
        lines.append("THIS REPORT IS NOT COMPLETE.")
    for section in result.sections:
        shown = [sentence.text for sentence in section.sentences if sentence.shown]
        if shown:
            lines += ["", section.title.upper(), *(f"- {text}" for text in shown)]
    return "\n".join([*lines, ""])


def safe_name(text: str) -> str:
    """A text as the start of file names: letters of any alphabet, digits, dots, dashes."""
    return re.sub(r"[^\w.\-]+", "_", text).strip("._") or "ct"


def _row(row: FindingRow) -> dict[str, Any]:
    """With the keys of the published layout (disease, probability, predicted) and ours."""
    known = row.decision is not Decision.NOT_JUDGED
    return {
        "disease": row.name,
        "predicted": row.decision is Decision.PRESENT if known else None,
        **{field.name: _plain(getattr(row, field.name)) for field in fields(row) if field.name != "name"},
    }


def _sentence(sentence: Sentence) -> dict[str, Any]:
    return {field.name: _plain(getattr(sentence, field.name)) for field in fields(sentence)}


def _measurement(one: Measurement) -> dict[str, Any]:
    return {field.name: _plain(getattr(one, field.name)) for field in fields(one) if field.name != "mask"}


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return list(value) if isinstance(value, tuple) else value


def _json(value: Any) -> str:
    return json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
