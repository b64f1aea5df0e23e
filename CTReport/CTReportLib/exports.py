"""Result files: the finding table, the report as text and HTML, masks, a summary."""

from __future__ import annotations

import hashlib
import json
import math
import re
from dataclasses import asdict, fields, replace
from enum import Enum
from pathlib import Path
from typing import Any

from CTReportLib.document import document_of, sentence_note, unsaid_warnings, writable_text
from CTReportLib.label_nifti import write_label_nifti
from CTReportLib.measurement import LABEL, Measurement
from CTReportLib.reporthtml import html_report
from CTReportLib.request import RESEARCH_USE, Decision, Edit, FindingRow, ReportResult, Sentence
from MedAILib import __version__
from MedAILib.atomic import output_error, write_text
from MedAILib.imageio import write_label_map
from MedAILib.volume import LabelMap

SCHEMA = 1
_LONGEST_NAME_BYTES = 120
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
    write_text(written[-1], writable_text(_json(classification(result))))
    if result.sections:
        written += [out / f"{result.name}_report.txt", out / f"{result.name}_report.html"]
        write_text(written[-2], report_text(result))
        write_text(written[-1], html_report(result))
    if result.masks is not None and result.masks.segments:
        written.append(out / f"{result.name}_localization.seg.nrrd")
        write_label_map(_marked(result.masks), written[-1])
        labels = out / f"{result.name}_localization.nii.gz"
        written += [write_label_nifti(result.masks, labels, RESEARCH_USE), labels]
    written.append(summary_path(result.name, out))
    write_text(written[-1], summary_text(result))
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
        "edits": [asdict(edit) for edit in result.edits],
    }


def summary_text(result: ReportResult) -> str:
    """The summary as the text of a JSON file."""
    return writable_text(_json(summary(result)))


def report_text(result: ReportResult) -> str:
    """The report as plain text, for reading and for other systems; without sentences, the finding table."""
    document = document_of(result)
    lines = [f"CHEST CT: {result.name}", document.use, *(notice.upper() for notice in document.notices)]
    for section in result.sections:
        shown = [_line(sentence) for sentence in section.sentences if sentence.shown]
        if shown:
            lines += ["", section.title.upper(), *shown]
    if not result.sections:
        told = (" - ".join(part for part in (row.place or row.side, row.evidence) if part) for row in result.table)
        rows = zip(result.table, told, strict=True)
        lines += ["", "FINDINGS", *(f"- {row.name}: {row.decision.value}. {text}".rstrip() for row, text in rows)]
    remarks = unsaid_warnings(result)
    if remarks:
        lines += ["", "REMARKS", *(f"- {text}" for text in remarks)]
    if result.edits:
        lines += ["", "EDITS BY PEOPLE", *map(_edit, result.edits)]
    return writable_text("\n".join([*lines, ""]))


def safe_name(text: str) -> str:
    """A text as the start of file names: letters of any alphabet, digits, dots, dashes.

    One that is too long for a file's name is cut, and ends in a hash of the whole instead.
    """
    name = re.sub(r"[^\w.\-]+", "_", text).strip("._") or "ct"
    if len(name.encode("utf-8")) <= _LONGEST_NAME_BYTES:
        return name
    start = name.encode("utf-8")[:_LONGEST_NAME_BYTES].decode("utf-8", "ignore")
    return f"{start}_{hashlib.sha256(text.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def _line(sentence: Sentence) -> str:
    note = sentence_note(sentence)
    return f"- {sentence.text}{f' ({note})' if note else ''}"


def _edit(edit: Edit) -> str:
    who = edit.who or "unknown"
    return f'- {edit.when}, {who}, {edit.section}: "{edit.before}" became "{edit.after}"'


def _marked(masks: LabelMap) -> LabelMap:
    """With the intended use among the tags of each segment."""
    segments = (replace(info, tags={**info.tags, "MedAI.Use": RESEARCH_USE}) for info in masks.segments)
    return replace(masks, segments=tuple(segments))


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
