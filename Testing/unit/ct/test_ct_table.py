"""Who decides in the finding table: segments first, then rule and model together, and nobody where they disagree."""

from __future__ import annotations

import numpy as np
import pytest

from CTReportLib.guard import guard_template
from CTReportLib.measurement import Measurement
from CTReportLib.prediction import Prediction
from CTReportLib.report import IMPRESSION, MODEL_LABEL, Facts, template_report
from CTReportLib.request import FINDING_TAG, GIVEN_SEGMENT, MEASUREMENT_TAG, Basis, Decision, FindingRow, Verdict
from CTReportLib.table import NOBODY_JUDGED, finding_table
from MedAILib.errors import InputError
from MedAILib.volume import SegmentInfo, Volume

EFFUSION = "pleural_effusion"
MASK = Volume(np.ones((2, 2, 2), np.uint8), np.eye(4))


def by_rule(decision: bool | None, value: float | None = 120.0) -> Measurement:
    place = "lower third, left" if decision else ""
    return Measurement(
        EFFUSION, "Fluid beside the left lung", value, "ml", "A rule.", "left", place, decision, mask=MASK
    )


def given_segment() -> Measurement:
    name = f"Pleural effusion{GIVEN_SEGMENT}"
    return Measurement(EFFUSION, name, 30.0, "ml", "Given.", "right", "lower third, right", True, mask=MASK)


def drawn(finding: str = EFFUSION) -> Measurement:
    name = "Pleural effusion, drawn by a model"
    return Measurement(
        finding, name, 80.0, "ml", "Drawn.", "right", "middle third, right", True, mask=MASK, model="unet"
    )


def says(present: bool, *, calibrated: bool = True, finding: str = EFFUSION) -> Prediction:
    return Prediction(finding, 0.9 if present else 0.1, calibrated, 0.42, "probe")


def row_of(*measured: Measurement, said: Prediction | None = None, finding: str = EFFUSION) -> FindingRow:
    table = finding_table(measured, () if said is None else (said,))
    assert len(table) == 18
    return next(row for row in table if row.finding == finding)


def test_a_model_alone_decides_with_its_threshold_and_says_whether_it_is_calibrated() -> None:
    row = row_of(said=says(True))
    assert (row.decision, row.basis) == (Decision.PRESENT, Basis.MODEL)
    assert (row.probability, row.calibrated, row.threshold) == (0.9, True, 0.42)
    assert "probe" in row.evidence and "calibrated" in row.evidence
    assert row_of(said=says(False)).decision is Decision.ABSENT
    raw = row_of(said=says(True, calibrated=False))
    assert not raw.calibrated and "not calibrated" in raw.evidence


def test_a_model_that_saw_a_part_of_the_chest_only_excludes_nothing() -> None:
    predictions = (says(False), says(True, finding="emphysema"))
    rows = {row.finding: row for row in finding_table((), predictions, whole_chest=False)}
    assert rows[EFFUSION].decision is Decision.NOT_JUDGED and not rows[EFFUSION].candidate
    assert "does not hold the whole chest" in rows[EFFUSION].evidence and rows[EFFUSION].probability == 0.1
    assert rows["emphysema"].decision is Decision.PRESENT


def test_a_rule_alone_decides_as_ever() -> None:
    row = row_of(by_rule(True))
    assert (row.decision, row.basis, row.probability) == (Decision.PRESENT, Basis.RULE, None)


def test_a_rule_and_a_model_that_agree_decide_together() -> None:
    row = row_of(by_rule(True), said=says(True))
    assert (row.decision, row.basis) == (Decision.PRESENT, Basis.RULE)
    assert (row.value, row.place, row.probability) == (120.0, "lower third, left", 0.9)
    assert "A rule." in row.evidence and "probe" in row.evidence
    assert row_of(by_rule(False, 3.0), said=says(False)).decision is Decision.ABSENT


@pytest.mark.parametrize(("rule", "model"), [(True, False), (False, True)])
def test_a_rule_and_a_model_that_disagree_decide_nothing_and_both_are_named(rule: bool, model: bool) -> None:
    row = row_of(by_rule(rule), said=says(model))
    assert (row.decision, row.basis, row.candidate) == (Decision.NOT_JUDGED, Basis.NOTHING, True)
    assert "A rule." in row.evidence and "probe" in row.evidence and "disagree" in row.evidence
    assert row.probability == (0.9 if model else 0.1)


def test_a_model_decides_where_the_rule_does_not() -> None:
    row = row_of(by_rule(None, None), said=says(True))
    assert (row.decision, row.basis, row.value) == (Decision.PRESENT, Basis.MODEL, None)


def test_a_model_that_denies_what_a_rule_finds_worth_a_look_does_not_close_the_case() -> None:
    candidate = Measurement("lung_nodule", "Nodule candidate 1", 8.1, "mm", "a rule", "right", "middle third, right")
    denied = row_of(candidate, said=says(False, finding="lung_nodule"), finding="lung_nodule")
    assert (denied.decision, denied.candidate) == (Decision.NOT_JUDGED, True)
    seen = row_of(candidate, said=says(True, finding="lung_nodule"), finding="lung_nodule")
    assert (seen.decision, seen.basis, seen.place) == (Decision.PRESENT, Basis.MODEL, "")


@pytest.mark.parametrize("rule", [True, False])
@pytest.mark.parametrize("model", [True, False])
def test_a_given_segment_decides_whatever_rules_and_models_say(rule: bool, model: bool) -> None:
    row = row_of(given_segment(), by_rule(rule), drawn(), said=says(model))
    assert (row.decision, row.basis, row.value, row.side) == (Decision.PRESENT, Basis.MASK, 30.0, "right")
    assert row.probability == (0.9 if model else 0.1)


def test_what_a_model_drew_gives_place_and_volume() -> None:
    alone = row_of(drawn())
    assert (alone.decision, alone.basis, alone.volume_ml) == (Decision.PRESENT, Basis.MODEL, 80.0)
    assert (alone.side, alone.place, alone.probability) == ("right", "middle third, right", None)
    with_probability = row_of(drawn(), said=says(True))
    assert (with_probability.decision, with_probability.place) == (Decision.PRESENT, "middle third, right")
    with_rule = row_of(by_rule(True), drawn(), said=says(True))
    assert (with_rule.basis, with_rule.place, with_rule.volume_ml) == (Basis.RULE, "middle third, right", 80.0)


def test_two_models_that_disagree_decide_nothing() -> None:
    row = row_of(drawn(), said=says(False))
    assert (row.decision, row.candidate) == (Decision.NOT_JUDGED, True)
    assert "unet drew it nevertheless" in row.evidence


def test_rows_name_real_segments() -> None:
    def info(number: int, measurement: Measurement) -> SegmentInfo:
        tags = {FINDING_TAG: measurement.finding_id, MEASUREMENT_TAG: measurement.name}
        return SegmentInfo(f"pleural_effusion_{number}", measurement.name, 1, number, tags=tags)

    segments = (info(1, by_rule(True)), info(2, drawn()))
    rows = finding_table((by_rule(True), drawn()), (), segments)
    assert {row.segment for row in rows} == {"", "pleural_effusion_2"}
    (row,) = [row for row in finding_table((by_rule(True),), (), segments) if row.segment]
    assert (row.finding, row.segment) == (EFFUSION, "pleural_effusion_1")
    assert not any(row.segment for row in finding_table((by_rule(True),)))


def test_nobody_judged_what_nobody_spoke_of() -> None:
    assert {row.evidence for row in finding_table((), (says(True),)) if row.finding != EFFUSION} == {NOBODY_JUDGED}


@pytest.mark.parametrize(
    ("finding", "probability", "threshold"),
    [("unicorn", 0.5, 0.5), ("Pleural effusion", 0.5, 0.5), (EFFUSION, float("nan"), 0.5), (EFFUSION, 0.5, 1.1)],
)
def test_what_is_no_prediction_is_refused(finding: str, probability: float, threshold: float) -> None:
    with pytest.raises(InputError):
        Prediction(finding, probability, True, threshold, "probe")


@pytest.mark.parametrize("measured", [(), (by_rule(True),), (by_rule(False),), (drawn(),), (given_segment(),)])
@pytest.mark.parametrize("present", [True, False])
def test_the_report_of_any_of_them_passes_the_guard(measured: tuple[Measurement, ...], present: bool) -> None:
    table = finding_table(measured, (says(present), says(not present, finding="emphysema")))
    held = guard_template(template_report(table, measured, Facts(("CT.",))), table)
    assert {sentence.verdict for sentence in held.sentences} == {Verdict.SUPPORTED}
    assert "model probability" in held.text


def test_the_impression_says_that_a_model_answered_and_the_findings_how_probable() -> None:
    table = finding_table((), (says(True),))
    sections = {section.title: section.text for section in template_report(table, (), Facts())}
    assert f"Pleural effusion ({MODEL_LABEL})." in sections[IMPRESSION]
    assert "model probability 0.90, threshold 0.42, calibrated" in sections["Findings: Pleura"]
