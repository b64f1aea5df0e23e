"""A report as JSON that can be read back: everything but voxels and pictures. For the scene, where those have nodes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from CTReportLib.request import RESEARCH_USE, ReportResult
from MedAILib import __version__
from MedAILib.errors import UnreadableFile
from MedAILib.models.records import Problems, read_record, record_to_json

SCHEMA = 1
Point = tuple[float, float, float]


@dataclass(frozen=True, eq=False)
class ReportRecord:
    """What a scene keeps of a report.

    Attributes
    ----------
    result : ReportResult
        Without masks and pictures, those of measurements included.
    run_id : str
        Of the run that computed it.
    places : mapping of str to tuple of float
        From a measurement's name to the middle of its mask, in the CT node's own RAS millimetres (under its transform).
    medai : str
        Version that wrote it.
    research_use : str
    schema : int
    """

    result: ReportResult
    run_id: str = ""
    places: Mapping[str, Point] = field(default_factory=dict)
    medai: str = __version__
    research_use: str = RESEARCH_USE
    schema: int = SCHEMA


def without_voxels(result: ReportResult) -> ReportResult:
    """The result without masks and pictures."""
    measurements = tuple(replace(one, mask=None) for one in result.measurements)
    return replace(result, masks=None, pictures=(), measurements=measurements)


def record_text(record: ReportRecord) -> str:
    """The record as JSON, UTF-8, in one text."""
    plain = replace(record, result=without_voxels(record.result))
    return json.dumps(record_to_json(plain), indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def read_record_text(text: str) -> ReportRecord:
    """What `record_text` wrote.

    Raises
    ------
    UnreadableFile
        It is something else, or of a later version.
    """
    problems = Problems()
    try:
        data: Any = json.loads(text)
    except ValueError as error:
        raise _unreadable(f"It is not JSON: {error}.") from error
    found = read_record(ReportRecord, data, problems)
    if found is None:
        raise _unreadable(" ".join(problems))
    if found.schema > SCHEMA:
        raise _unreadable(f"It was written by MedAI {found.medai}, which is later than this one ({__version__}).")
    return found


def _unreadable(why: str) -> UnreadableFile:
    return UnreadableFile(
        "The record of the report cannot be read.",
        why=why,
        todo="Its text and its table are as they were; to have the evidence again, make the report anew.",
    )
