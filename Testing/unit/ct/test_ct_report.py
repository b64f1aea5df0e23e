"""The finding table, the template and the files made of them."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from ct_tables import some_table

from CTReportLib.exports import classification, report_text, summary, write_results
from CTReportLib.findings import FINDINGS
from CTReportLib.measurement import LABEL, Measurement
from CTReportLib.report import ANATOMY, IMPRESSION, TECHNIQUE, Facts, number_text, template_report
from CTReportLib.reporthtml import html_report
from CTReportLib.request import (
    RESEARCH_USE,
    Basis,
    Decision,
    ReportRequest,
    ReportResult,
    ReportSection,
    Sentence,
    Verdict,
)
from CTReportLib.table import NOBODY_JUDGED, finding_table
from MedAILib.errors import ConfigError
from MedAILib.volume import LabelMap, SegmentInfo, Volume


def fluid(side: str, value: float | None, decision: bool | None, limits: str = "") -> Measurement:
    place = f"lower third, {side}" if decision else ""
    return Measurement(
        "pleural_effusion", f"Fluid beside the {side} lung", value, "ml", "a rule", side, place, decision, limits
    )


def row_of(*measured: Measurement):
    (row,) = [row for row in finding_table(measured) if row.finding == (measured[0].finding_id if measured else "")]
    return row


def test_the_table_has_every_finding_in_order_and_judges_none_without_a_measurement() -> None:
    table = finding_table(())
    assert [row.finding for row in table] == [finding.id for finding in FINDINGS]
    assert {(row.decision, row.evidence) for row in table} == {(Decision.NOT_JUDGED, NOBODY_JUDGED)}


def test_a_finding_is_present_where_a_side_passes_its_rule_and_its_side_and_place_are_those_measured() -> None:
    row = row_of(fluid("left", 120.0, True), fluid("right", 0.0, False))
    assert (row.decision, row.side, row.place) == (Decision.PRESENT, "left", "lower third, left")
    assert (row.value, row.volume_ml, row.basis) == (120.0, 120.0, Basis.RULE)
    both = row_of(fluid("left", 120.0, True), fluid("right", 80.0, True))
    assert (both.side, both.volume_ml) == ("both", 200.0)
    assert both.place == "lower third, left; lower third, right"


def test_a_finding_is_absent_only_where_every_side_was_judged() -> None:
    assert row_of(fluid("left", 0.0, False), fluid("right", 0.0, False)).decision is Decision.ABSENT
    row = row_of(fluid("left", 0.0, False), fluid("right", None, None, "It is cut off. It may be more."))
    assert (row.decision, row.evidence, row.side) == (Decision.NOT_JUDGED, "it is cut off", "")


def test_candidates_are_no_finding() -> None:
    candidate = Measurement("lung_nodule", "Nodule candidate 1", 8.1, "mm", "a rule", "right", "middle third, right")
    (row,) = [row for row in finding_table((candidate,)) if row.finding == "lung_nodule"]
    assert (row.decision, row.candidate) == (Decision.NOT_JUDGED, True)
    sections = {s.title: s.text for s in template_report(finding_table((candidate,)), (candidate,), Facts())}
    assert "8.1 mm, middle third, right" in sections["Findings: Lungs and airways"]
    assert "not a finding (lung nodule)" in sections[IMPRESSION]


def test_calcium_in_a_coarse_region_is_worth_a_look_and_its_absence_is_absence() -> None:
    def calcium(value: float, decision: bool) -> Measurement:
        name = "Calcium in the heart's region"
        return Measurement(
            "coronary_artery_wall_calcification", name, value, "mm³", "a rule", "", "heart region", decision
        )

    found, none = row_of(calcium(90.0, True)), row_of(calcium(0.0, False))
    assert (found.decision, found.candidate) == (Decision.NOT_JUDGED, True)
    assert (none.decision, none.candidate) == (Decision.ABSENT, False)


def test_the_report_speaks_of_each_finding_once_where_it_belongs() -> None:
    for number in range(30):
        table = some_table(random.Random(number))
        sections = template_report(table, (), Facts(("CT.",)))
        assert sections[0].title == TECHNIQUE
        told = [f for s in sections if s.title not in (IMPRESSION,) for one in s.sentences for f in one.findings]
        assert sorted(told) == sorted(finding.id for finding in FINDINGS)
        for section in sections:
            for one in section.sentences:
                if section.title.startswith("Findings: "):
                    assert set(one.findings) <= set(ANATOMY[section.title.removeprefix("Findings: ")])
                assert one.verdict is Verdict.SUPPORTED


def test_the_impression_lists_what_is_present_and_never_calls_the_rest_normal() -> None:
    table = finding_table((fluid("left", 120.0, True),))
    impression = template_report(table, (), Facts((), ("The lungs are cut.",)))[-1]
    assert impression.title == IMPRESSION
    assert f"Pleural effusion, lower third, left ({LABEL})." in impression.text
    assert "17 of 18 findings were not judged" in impression.text
    assert "does not hold the whole chest" in impression.text
    assert impression.sentences[-1].text == RESEARCH_USE


def test_measured_values_are_labelled_and_what_is_absent_shows_the_largest_value() -> None:
    table = finding_table((fluid("left", 3.0, False), fluid("right", 7.0, False)))
    text = " ".join(section.text for section in template_report(table, (), Facts()))
    assert f"No pleural effusion found by rule (at most 7 ml; {LABEL})." in text


@pytest.mark.parametrize(
    ("value", "unit", "text"), [(12.34, "%", "12.3 %"), (0.4821, "", "0.48"), (310.6, "ml", "311 ml"), (3.0, "", "3")]
)
def test_numbers_are_rounded_to_what_their_unit_deserves(value: float, unit: str, text: str) -> None:
    assert number_text(value, unit) == text


@pytest.fixture
def a_result() -> ReportResult:
    measured = (fluid("left", 120.0, True), Measurement("", "Volume of the left lung", 2100.0, "ml", "voxels"))
    table = finding_table(measured)
    sections = template_report(table, measured, Facts(("CT of the chest.",)))
    labels = LabelMap((np.eye(3, dtype=np.uint8)[None],), np.eye(4), (SegmentInfo("fluid", "Fluid <b>", 1),))
    struck = Sentence("The <b>liver</b> is bad.", verdict=Verdict.STRUCK, reason="no evidence speaks for it")
    return ReportResult(
        "a name", table, (*sections, ReportSection("Findings", (struck,))), measured, masks=labels, warnings=("W.",)
    )


def test_the_text_holds_shown_sentences_only_and_says_research_use(a_result: ReportResult) -> None:
    text = report_text(a_result)
    assert text.count(RESEARCH_USE) == 2
    assert "liver" not in text
    assert "NOT COMPLETE" not in text
    assert "THIS REPORT IS NOT COMPLETE" in report_text(replace(a_result, complete=False))


def test_html_leads_from_each_sentence_to_its_row_and_escapes_everything(a_result: ReportResult) -> None:
    page = html_report(a_result)
    assert 'href="#pleural_effusion"' in page
    assert '<tr id="pleural_effusion" class="present">' in page
    assert "<b>liver" not in page
    assert "Struck by the guard" in page
    assert page.count(RESEARCH_USE) >= 2
    assert "This report is not complete" in html_report(replace(a_result, complete=False))


def test_json_has_the_published_keys_and_ours(a_result: ReportResult) -> None:
    (row,) = [r for r in classification(a_result)["findings"] if r["finding"] == "pleural_effusion"]
    assert (row["disease"], row["predicted"], row["probability"]) == ("Pleural effusion", True, None)
    assert (row["decision"], row["side"], row["calibrated"]) == ("present", "left", False)
    unknown = [r["predicted"] for r in classification(a_result)["findings"] if r["decision"] == "not judged"]
    assert unknown == [None] * 17
    told = summary(a_result)
    assert told["research_use"] == RESEARCH_USE
    assert told["measurements_are"] == LABEL
    assert told["report"][-1]["sentences"][0]["verdict"] == "struck"


def test_all_files_are_written_under_the_name_and_the_summary_last(a_result: ReportResult, tmp_path: Path) -> None:
    out = tmp_path / "ein Ordner für Ö"
    written = write_results(a_result, out)
    reports, places = ("classification.json", "report.txt", "report.html"), ("seg.nrrd", "json", "nii.gz")
    kinds = (*reports, *(f"localization.{end}" for end in places), "summary.json")
    assert [path.name for path in written] == [f"a name_{kind}" for kind in kinds]
    assert json.loads(written[-1].read_text(encoding="utf-8"))["name"] == "a name"


def test_without_sentences_no_report_file_is_written(a_result: ReportResult, tmp_path: Path) -> None:
    written = write_results(replace(a_result, sections=()), tmp_path)
    assert not [path for path in written if "report" in path.name]


def test_a_request_says_every_problem_at_once() -> None:
    volume = Volume(np.zeros((2, 3, 4)), np.eye(4))
    other = LabelMap((np.zeros((2, 3, 5), np.uint8),), np.eye(4), ())
    request = ReportRequest(volume, masks=other, engine="oracle", window_hu=(100.0, -100.0), name="a/b")
    with pytest.raises(ConfigError) as raised:
        request.validate()
    for part in ("no engine 'oracle'", "lower value", "'a/b'", "grid"):
        assert part in raised.value.text
    ReportRequest(volume).validate()
