"""The finding table: for each of the eighteen findings what was decided, and on what grounds.

A given segment decides first. A rule and a model that agree decide together; where they disagree nothing is decided and
both are named. Where only one of them answers, it decides.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace

from CTReportLib.findings import FINDINGS, Finding
from CTReportLib.measurement import Measurement
from CTReportLib.prediction import Prediction
from CTReportLib.request import FINDING_TAG, GIVEN_SEGMENT, MEASUREMENT_TAG, Basis, Decision, FindingRow
from MedAILib.volume import SegmentInfo

NOBODY_JUDGED = "no rule or model here judges them"
"""Evidence of a finding for which there is neither."""


def finding_table(
    measurements: Sequence[Measurement],
    predictions: Sequence[Prediction] = (),
    segments: Sequence[SegmentInfo] = (),
    *,
    whole_chest: bool = True,
) -> tuple[FindingRow, ...]:
    """All findings in canonical order, decided by what was measured and by what models say.

    By rule a finding is present where one of its rules says so, absent where all of them were judged and none does. A
    rule that finds candidates only judges nothing.

    Parameters
    ----------
    measurements : sequence of Measurement
        By rule, of given segments, and of what models drew.
    predictions : sequence of Prediction
        Of one finding at most one.
    segments : sequence of SegmentInfo
        Of the label map of places, see `CTReportLib.localised.localisation`: rows name them.
    whole_chest : bool
        Whether the image holds the whole chest; else a model that finds nothing in it excludes nothing.
    """
    said = {one.finding: one for one in predictions}
    rows = (_row(one, [m for m in measurements if m.finding_id == one.id], said.get(one.id)) for one in FINDINGS)
    return tuple(_with_segment(row if whole_chest else _of_a_part(row), segments) for row in rows)


def is_candidate(measurement: Measurement) -> bool:
    """Whether a measurement shows a place worth a look that makes no finding by itself.

    Such are nodule candidates, and calcium found by threshold: that it lies in the vessel's wall, only an eye can
    tell.
    """
    if not measurement.value:
        return False
    name = measurement.name.lower()
    return "candidate" in name or (name.startswith("calcium") and measurement.decision is not False)


def _row(finding: Finding, measured: Sequence[Measurement], prediction: Prediction | None) -> FindingRow:
    given = [one for one in measured if one.name.endswith(GIVEN_SEGMENT)]
    if given:
        return _predicted(_decided(finding, _main(given), Decision.PRESENT, given), prediction)
    drawn = [one for one in measured if one.model]
    by_rule = _by_rule(finding, [one for one in measured if not one.model])
    by_model = _by_model(finding, drawn, prediction)
    if by_model is None:
        return by_rule
    return _predicted(_joined(by_rule, by_model), prediction)


def _by_rule(finding: Finding, measured: Sequence[Measurement]) -> FindingRow:
    if not measured:
        return FindingRow(finding.id, finding.name, Decision.NOT_JUDGED, evidence=NOBODY_JUDGED)
    candidates = [one for one in measured if is_candidate(one)]
    passed = [one for one in measured if one.decision and not is_candidate(one)]
    if passed:
        return _decided(finding, _main(passed), Decision.PRESENT, passed)
    if candidates:
        reason = f"its rule finds what is worth a look only, here {len(candidates)}, and does not decide"
        shown = next((one.name for one in candidates if one.mask is not None), "")
        return FindingRow(finding.id, finding.name, Decision.NOT_JUDGED, evidence=reason, segment=shown, candidate=True)
    open_ = next((one for one in measured if one.decision is None), None)
    if open_ is not None:
        return FindingRow(finding.id, finding.name, Decision.NOT_JUDGED, evidence=_why_open(open_))
    return _decided(finding, _main(measured), Decision.ABSENT, measured)


def _by_model(finding: Finding, drawn: Sequence[Measurement], prediction: Prediction | None) -> FindingRow | None:
    """What the models make of a finding; None where none of them says anything."""
    if prediction is None and not drawn:
        return None
    if prediction is None:
        return _decided(finding, _main(drawn), Decision.PRESENT, drawn)
    if prediction.present and drawn:
        row = _decided(finding, _main(drawn), Decision.PRESENT, drawn)
        return replace(row, evidence=f"{_said(prediction)} {row.evidence}")
    if drawn:
        names = ", ".join(dict.fromkeys(one.model for one in drawn))
        reason = f"{_said(prediction)} {names} drew it nevertheless: they disagree, and neither decides"
        row = _decided(finding, _main(drawn), Decision.NOT_JUDGED, drawn)
        return replace(row, basis=Basis.NOTHING, evidence=reason, candidate=True)
    decision = Decision.PRESENT if prediction.present else Decision.ABSENT
    return FindingRow(finding.id, finding.name, decision, Basis.MODEL, evidence=_said(prediction))


def _joined(by_rule: FindingRow, by_model: FindingRow) -> FindingRow:
    """One row of what a rule and what models say."""
    model_open = by_model.decision is Decision.NOT_JUDGED
    if by_rule.decision is Decision.NOT_JUDGED:
        if by_rule.candidate and by_model.decision is Decision.ABSENT:
            reason = f"{by_model.evidence} But {by_rule.evidence}: the two do not agree"
            return replace(by_rule, evidence=reason)
        return by_model
    if by_rule.decision is by_model.decision:
        placed = by_model if by_model.place or by_model.volume_ml is not None else by_rule
        return replace(
            by_rule,
            evidence=f"{by_rule.evidence} {by_model.evidence}",
            side=placed.side,
            place=placed.place,
            volume_ml=placed.volume_ml,
            segment=placed.segment or by_rule.segment,
        )
    verb = "does not decide" if model_open else f"says {by_model.decision.value}"
    reason = (
        f"the rule says {by_rule.decision.value}, the model {verb}: they disagree. "
        f"By rule: {by_rule.evidence} By model: {by_model.evidence}"
    )
    present = by_rule if by_rule.decision is Decision.PRESENT else by_model
    return replace(present, decision=Decision.NOT_JUDGED, basis=Basis.NOTHING, evidence=reason, candidate=True)


def _predicted(row: FindingRow, prediction: Prediction | None) -> FindingRow:
    """With the probability of the model that tells findings, and with its threshold; whatever was decided."""
    if prediction is None:
        return row
    return replace(
        row,
        probability=prediction.probability,
        calibrated=prediction.calibrated,
        threshold=prediction.threshold,
    )


def _of_a_part(row: FindingRow) -> FindingRow:
    """What a model that saw only a part of the chest can decide: that something is there."""
    if row.decision is not Decision.ABSENT or row.basis is not Basis.MODEL:
        return row
    reason = f"{row.evidence} The image does not hold the whole chest, so that excludes nothing"
    return replace(row, decision=Decision.NOT_JUDGED, basis=Basis.NOTHING, evidence=reason)


def _said(prediction: Prediction) -> str:
    kind = "calibrated" if prediction.calibrated else "not calibrated"
    return (
        f"The model {prediction.model} says {'present' if prediction.present else 'absent'}: probability "
        f"{prediction.probability:.2f}, {kind}, threshold {prediction.threshold:.2f}."
    )


def _why_open(measurement: Measurement) -> str:
    """Why a rule did not decide: the first sentence of its limits where nothing could be measured."""
    if measurement.value is not None or not measurement.limits:
        return "its rule does not decide in this image, which may not hold all that the rule needs"
    first = re.split(r"(?<=\.)\s", measurement.limits, maxsplit=1)[0]
    return first[:1].lower() + first[1:].rstrip(".")


def _decided(finding: Finding, main: Measurement, decision: Decision, all_: Sequence[Measurement]) -> FindingRow:
    shown = decision is not Decision.ABSENT
    return FindingRow(
        finding=finding.id,
        name=finding.name,
        decision=decision,
        basis=_basis(main),
        threshold=main.threshold,
        evidence=" ".join(part for part in (main.rule, main.limits) if part),
        measurement=main.name,
        value=main.value,
        unit=main.unit,
        side=_side(all_) if shown and finding.has_side else "",
        place=_places(all_) if shown and finding.has_side else "",
        volume_ml=_volume_ml(main, all_) if shown else None,
        segment=main.name if shown and main.mask is not None else "",
    )


def _basis(main: Measurement) -> Basis:
    if main.model:
        return Basis.MODEL
    return Basis.MASK if main.name.endswith(GIVEN_SEGMENT) else Basis.RULE


def _with_segment(row: FindingRow, segments: Sequence[SegmentInfo]) -> FindingRow:
    """With the id of the segment in which the measurement is shown that the row rests on; empty where none is."""
    found = (
        info.id
        for info in segments
        if (info.tags.get(FINDING_TAG), info.tags.get(MEASUREMENT_TAG)) == (row.finding, row.segment)
    )
    return replace(row, segment=next(found, "") if row.segment else "")


def _main(measured: Sequence[Measurement]) -> Measurement:
    """The one that speaks for all: of both sides where there is one, else the largest."""
    return max(measured, key=lambda one: (one.side == "both", one.value if one.value is not None else float("-inf")))


def _places(measured: Iterable[Measurement]) -> str:
    return "; ".join(dict.fromkeys(one.place for one in measured if one.place))


def _volume_ml(main: Measurement, measured: Iterable[Measurement]) -> float | None:
    """Of both sides together, where each was measured by itself."""
    if main.unit != "ml" or main.value is None or main.side == "both":
        return main.value if main.unit == "ml" else None
    return sum(one.value for one in measured if one.value is not None and one.unit == "ml")


def _side(measured: Iterable[Measurement]) -> str:
    sides = {one.side for one in measured if one.side}
    return "both" if "both" in sides or len(sides) > 1 else next(iter(sides), "")
