"""The report as a DICOM Enhanced SR: the tree that TID 2000 allows, all that the report says, and never verified."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pydicom
import pytest
from dicom_files import an_enhanced_file, save, save_series
from pydicom.sr.codedict import codes
from written_results import EDIT, EDITED, FLUID, STRUCK, a_written_result

from CTReportLib.documents import export
from CTReportLib.request import RESEARCH_USE, Decision, ReportResult
from MedAILib import __version__
from MedAILib.imageio import read_volume
from MedAILib.jobs.runner import InProcessRunner

hd = pytest.importorskip("highdicom", reason="highdicom is not installed")
from test_ct_dicom_seg import COMMON, a_volume  # noqa: E402  (needs highdicom)

Item = tuple[str, pydicom.Dataset, pydicom.Dataset | None]

ALLOWED = {  # PS3.16 TID 2000, 1204, 1001 to 1004, 2002, 2001 and 300: parent, relationship, child
    ("CONTAINER", "HAS CONCEPT MOD", "CODE"),
    ("CONTAINER", "HAS OBS CONTEXT", "CODE"),
    ("CONTAINER", "HAS OBS CONTEXT", "UIDREF"),
    ("CONTAINER", "HAS OBS CONTEXT", "TEXT"),
    ("CONTAINER", "CONTAINS", "CONTAINER"),
    ("CONTAINER", "CONTAINS", "TEXT"),
    ("CONTAINER", "CONTAINS", "CODE"),
    ("TEXT", "INFERRED FROM", "NUM"),
    ("CODE", "INFERRED FROM", "NUM"),
    ("CODE", "INFERRED FROM", "IMAGE"),
    ("NUM", "HAS CONCEPT MOD", "CODE"),
}


@pytest.fixture
def series(tmp_path: Path) -> Path:
    """A folder with an axial series of six slices."""
    save_series(tmp_path / "series", a_volume(), **COMMON)
    return tmp_path / "series"


@pytest.fixture
def result(series: Path) -> ReportResult:
    return a_written_result(read_volume(series).geometry)


def written(result: ReportResult, series: Path) -> pydicom.Dataset:
    path = export(result, "sr", series.parent, source=series)
    assert path.name.endswith("_report_sr.dcm")
    return pydicom.dcmread(path)


def walk(item: pydicom.Dataset) -> Iterator[tuple[pydicom.Dataset, pydicom.Dataset]]:
    """Every item of the tree with its parent."""
    for child in item.get("ContentSequence", ()):
        yield item, child
        yield from walk(child)


def name(item: pydicom.Dataset) -> str:
    return item.ConceptNameCodeSequence[0].CodeMeaning


def sections(report: pydicom.Dataset) -> dict[str, list[pydicom.Dataset]]:
    return {name(one): list(one.ContentSequence) for one in report.ContentSequence if one.ValueType == "CONTAINER"}


def texts(items: list[pydicom.Dataset]) -> list[str]:
    return [one.TextValue for one in items if one.ValueType == "TEXT"]


def value(code_item: pydicom.Dataset) -> tuple[str, str]:
    code = code_item.ConceptCodeSequence[0]
    return code.CodingSchemeDesignator, code.get("CodeValue") or code.LongCodeValue


def test_the_tree_is_one_that_the_template_allows(result, series) -> None:
    report = written(result, series)
    assert report.SOPClassUID == pydicom.uid.EnhancedSRStorage
    assert report.ContentTemplateSequence[0].TemplateIdentifier == "2000"
    assert value_of_name(report) == ("LN", "24627-2")
    for parent, child in walk(report):
        assert (parent.ValueType, child.RelationshipType, child.ValueType) in ALLOWED
        if child.ValueType == "CONTAINER":
            assert parent is report, "sections hold no sections"
    order = [child.RelationshipType for child in report.ContentSequence]
    assert order == sorted(order, key=["HAS CONCEPT MOD", "HAS OBS CONTEXT", "CONTAINS"].index)


def test_highdicom_reads_it_back(result, series) -> None:
    path = export(result, "sr", series.parent, source=series)
    report = hd.sr.srread(path)
    assert isinstance(report, hd.sr.EnhancedSR)
    found = hd.sr.utils.find_content_items(report, name=codes.DCM.Finding, recursive=True)
    assert {item.ValueType for item in found} == {"TEXT", "CODE"}
    numbers = hd.sr.utils.find_content_items(report, value_type=hd.sr.ValueTypeValues.NUM, recursive=True)
    assert all(isinstance(item, hd.sr.NumContentItem) for item in numbers)


def test_it_belongs_to_the_patient_and_study_of_the_series_and_names_its_slices(result, series) -> None:
    report = written(result, series)
    first = pydicom.dcmread(next(series.iterdir()))
    for attribute in ("PatientName", "PatientID", "PatientSex", "StudyInstanceUID", "StudyDate", "StudyID"):
        assert report.get(attribute) == first.get(attribute)
    assert report.SeriesInstanceUID != first.SeriesInstanceUID
    named = [
        *report.get("CurrentRequestedProcedureEvidenceSequence", ()),
        *report.get("PertinentOtherEvidenceSequence", ()),
    ]
    uids = {ref.ReferencedSOPInstanceUID for study in named for one in study.ReferencedSeriesSequence
            for ref in one.ReferencedSOPSequence}  # fmt: skip
    assert uids == {pydicom.dcmread(file).SOPInstanceUID for file in series.iterdir()}


def test_it_is_never_verified_and_a_part_of_a_report_says_so(result, series) -> None:
    for complete, flag in ((True, "COMPLETE"), (False, "PARTIAL")):
        report = written(replace(result, complete=complete), series)
        assert (report.VerificationFlag, report.CompletionFlag, report.PreliminaryFlag) == (
            "UNVERIFIED",
            flag,
            "PRELIMINARY",
        )
        assert "VerifyingObserverSequence" not in report
        told = texts(sections(report)["Intended use"])
        assert told[0] == RESEARCH_USE
        assert ("This report is not complete." in told) is not complete


def test_sections_hold_the_sentences_under_their_usual_headings(result, series) -> None:
    parts = sections(written(result, series))
    assert list(parts)[:4] == ["Intended use", "Current Procedure Descriptions", "Findings", "Impressions"]
    assert texts(parts["Current Procedure Descriptions"]) == ["CT of the chest.", "The lungs are cut."]
    shown = [one.text for section in result.sections for one in section.sentences if one.shown]
    told = [text for items in parts.values() for text in texts(items)]
    assert all(any(text.startswith(sentence) for text in told) for sentence in shown)
    assert not any(STRUCK.text in text for text in told)
    assert {name(one) for one in parts["Impressions"]} == {"Impression"}
    assert texts(parts["Remarks"]) == ["A warning that no sentence says."]
    assert "image sha256: " + "ab" * 32 in texts(parts["How it was made"])


def test_measured_values_stand_once_with_unit_side_and_method_and_what_was_not_measured_has_no_number(
    result, series
) -> None:
    numbers = {name(child): child for _, child in walk(written(result, series)) if child.ValueType == "NUM"}
    measured = {one.name: one for one in result.measurements if one.value is not None}
    assert set(numbers) == {*measured, "Probability by the model, calibrated"}
    count = sum(child.ValueType == "NUM" for _, child in walk(written(result, series)))
    assert count == len(numbers)
    units = {"ml": "mL", "mm": "mm", "mm³": "mm3", "%": "%", "HU": "[hnsf'U]", "": "1"}
    for key, one in measured.items():
        item = numbers[key].MeasuredValueSequence[0]
        code = item.MeasurementUnitsCodeSequence[0]
        assert float(item.FloatingPointValue) == one.value
        assert (code.CodingSchemeDesignator, code.CodeValue) == ("UCUM", units[one.unit])
        modifiers = {name(m): value(m)[1] for m in numbers[key].ContentSequence}
        side = {"left": "7771000", "right": "24028007", "both": "51440002"}.get(one.side)
        assert modifiers.get("Laterality") == side
        assert "Measurement Method" in modifiers
    assert any(
        "Emphysema index LAA-950: not measured" in text
        for text in texts(sections(written(result, series))["Measurements"])
    )


def test_a_sentence_is_inferred_from_the_measurement_it_names(result, series) -> None:
    pairs = [(parent, child) for parent, child in walk(written(result, series)) if child.ValueType == "NUM"]
    (parent,) = [parent for parent, child in pairs if name(child) == FLUID]
    assert parent.TextValue.startswith("Pleural effusion: present")


def test_only_what_is_present_has_a_code_and_shows_its_best_slice(result, series) -> None:
    coded = [one for one in sections(written(result, series))["Findings"] if one.ValueType == "CODE"]
    present = [row for row in result.table if row.decision is Decision.PRESENT]
    assert [value(one) for one in coded] == [
        ("99MEDAI", "lung_opacity") if row.finding == "lung_opacity" else
        ("SCT", "60046008") if row.finding == "pleural_effusion" else ("99MEDAI", row.finding)
        for row in present
    ]  # fmt: skip
    (effusion,) = [one for one in coded if value(one)[1] == "60046008"]
    (image,) = [one for one in effusion.ContentSequence if one.ValueType == "IMAGE"]
    mask = result.masks.mask("pleural_effusion_1")
    best = max(range(len(mask)), key=lambda k: mask[k].sum())
    referred = image.ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    (header,) = [h for h in map(pydicom.dcmread, series.iterdir()) if referred == h.SOPInstanceUID]
    place = result.masks.ijk_to_ras @ (0, 0, best, 1) * (-1, -1, 1, 1)
    assert list(map(float, header.ImagePositionPatient)) == pytest.approx(list(place[:3]), abs=1e-3)


def test_the_device_that_observed_and_the_language_are_told(result, series) -> None:
    report = written(result, series)
    told = {name(one): one for one in report.ContentSequence if one.RelationshipType.startswith("HAS")}
    assert value(told["Language of Content Item and Descendants"]) == ("RFC5646", "en")
    assert value(told["Observer Type"]) == ("DCM", "121007")
    assert __version__ in told["Device Observer Model Name"].TextValue
    again = written(result, series)
    uids = [next(one.UID for one in r.ContentSequence if one.ValueType == "UIDREF") for r in (report, again)]
    assert uids[0] == uids[1], "the device is the same, the objects are not"
    assert report.SOPInstanceUID != again.SOPInstanceUID


def test_what_people_edited_is_marked_and_listed(result, series) -> None:
    parts = sections(written(result, series))
    assert f"{EDITED.text} (edited by a person; not judged)" in texts(parts["Impressions"])
    (edit,) = texts(parts["Edits by people"])
    assert all(part in edit for part in (EDIT.when, EDIT.who, EDIT.before, EDIT.after))
    assert any("edited by people" in text for text in texts(parts["Intended use"]))


def test_findings_alone_become_a_sentence_each(result, series) -> None:
    parts = sections(written(replace(result, sections=()), series))
    assert len(texts(parts["Findings"])) == 18
    assert "Impressions" not in parts


def test_slices_of_a_multi_frame_file_are_named_by_frame(tmp_path) -> None:
    dataset = an_enhanced_file(a_volume(), [3, 0, 5, 4, 1, 2])
    for attribute, content in COMMON.items():
        setattr(dataset, attribute, content)
    save(dataset, tmp_path / "e.dcm")
    result = a_written_result(read_volume(tmp_path / "e.dcm").geometry)
    report = pydicom.dcmread(export(result, "sr", tmp_path, source=tmp_path / "e.dcm"))
    images = [(parent, child) for parent, child in walk(report) if child.ValueType == "IMAGE"]
    (image,) = [child for parent, child in images if value(parent)[1] == "60046008"]
    mask = result.masks.mask("pleural_effusion_1")
    best = max(range(len(mask)), key=lambda k: mask[k].sum())
    assert int(image.ReferencedSOPSequence[0].ReferencedFrameNumber) == [3, 0, 5, 4, 1, 2].index(best) + 1


def test_long_texts_and_every_letter_are_kept(result, series) -> None:
    long = "Ärger mit dem 漢 " * 300 + "\\ and a backslash."
    report = written(replace(result, warnings=(long,)), series)
    assert texts(sections(report)["Remarks"]) == [long]


def test_the_real_series_gives_a_report_of_its_patient(shared_data, tmp_path: Path) -> None:
    from CTReportLib.request import ReportRequest
    from CTReportLib.task import TASK

    source = shared_data("dicom/ct_pat1_rtstruct")
    with InProcessRunner() as runner:
        result = runner.run(TASK, ReportRequest(read_volume(source), modality="CT", name="pat1")).result
    for kind in ("sr", "seg"):
        back = pydicom.dcmread(export(result, kind, tmp_path, source=source))
        assert (back.PatientName, back.PatientID) == ("PAT1", "1")
    report = pydicom.dcmread(tmp_path / "pat1_report_sr.dcm")
    assert len(texts(sections(report)["Findings"])) > 3
    assert "not seen" in " ".join(texts(sections(report)["Impressions"]))


def value_of_name(item: pydicom.Dataset) -> tuple[str, str]:
    code = item.ConceptNameCodeSequence[0]
    return code.CodingSchemeDesignator, code.CodeValue
