"""A report as JSON and back: the same, without voxels and pictures."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from chest_phantoms import ChestSpec, make_chest

from CTReportLib.record import ReportRecord, read_record_text, record_text, without_voxels
from CTReportLib.request import Edit, ReportRequest, ReportResult
from CTReportLib.task import ReportTask
from MedAILib.errors import UnreadableFile
from MedAILib.jobs.task import Context


@pytest.fixture(scope="module")
def result() -> ReportResult:
    chest = make_chest(ChestSpec(effusion="right", nodules_mm=((-70.0, 0.0, 30.0, 16.0),))).volume
    return ReportTask().run(ReportRequest(chest, modality="CT", name="Müller"), Context())


def test_a_report_is_read_back_as_it_was(result: ReportResult) -> None:
    edited = replace(result, edits=(Edit("2026-01-01T10:00:00Z", "Zoë", "Findings", "a", "ß"),))
    record = ReportRecord(edited, "run-1", {"Fluid": (1.0, -2.5, 3.0)})
    again = read_record_text(record_text(record))
    plain = without_voxels(edited)
    for name in ("name", "table", "sections", "complete", "warnings", "edits"):
        assert getattr(again.result, name) == getattr(plain, name), name
    assert dict(again.result.provenance) == dict(plain.provenance)
    assert [vars(one) for one in again.result.measurements] == [vars(one) for one in plain.measurements]
    assert again.run_id == "run-1" and again.places == {"Fluid": (1.0, -2.5, 3.0)}
    assert again.result.masks is None and again.result.pictures == ()


def test_the_record_says_what_it_is_for_and_keeps_letters_readable(result: ReportResult) -> None:
    data = json.loads(record_text(ReportRecord(result)))
    assert "Research use only" in data["research_use"] and data["result"]["name"] == "Müller"
    assert len(data["result"]["table"]) == 18
    assert "Müller" in record_text(ReportRecord(result))


@pytest.mark.parametrize(
    ("text", "why"),
    [("", "not JSON"), ("[]", "must be an object"), ('{"result": {"name": 3}}', "must be a text")],
)
def test_what_is_no_record_is_said(text: str, why: str) -> None:
    with pytest.raises(UnreadableFile, match=why):
        read_record_text(text)


def test_a_record_of_a_later_version_is_not_misread(result: ReportResult) -> None:
    later = record_text(replace(ReportRecord(result), schema=99, medai="9.9"))
    with pytest.raises(UnreadableFile, match=r"MedAI 9\.9"):
        read_record_text(later)
