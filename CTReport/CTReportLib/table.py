"""The finding table: for each of the eighteen findings what was decided, and on what grounds."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from CTReportLib.findings import FINDINGS, Finding
from CTReportLib.measurement import Measurement
from CTReportLib.request import GIVEN_SEGMENT, Basis, Decision, FindingRow

NOBODY_JUDGED = "no rule or model here judges them"
"""Evidence of a finding for which there is neither."""


def finding_table(measurements: Sequence[Measurement]) -> tuple[FindingRow, ...]:
    """All findings in canonical order, decided by what was measured.

    A finding is present where one of its rules says so, absent where all of them were judged and none does. A rule that
    finds candidates only judges nothing.
    """
    return tuple(_row(one, [m for m in measurements if m.finding_id == one.id]) for one in FINDINGS)


def is_candidate(measurement: Measurement) -> bool:
    """Whether a measurement shows what is worth a look, and not that the finding is there.

    So do nodule candidates, and calcium in a coarse region: bone, a valve or a node as well as a vessel's wall.
    """
    if not measurement.value:
        return False
    name = measurement.name.lower()
    return "candidate" in name or (name.startswith("calcium") and measurement.decision is not False)


def _row(finding: Finding, measured: Sequence[Measurement]) -> FindingRow:
    if not measured:
        return FindingRow(finding.id, finding.name, Decision.NOT_JUDGED, evidence=NOBODY_JUDGED)
    candidates = [one for one in measured if is_candidate(one)]
    passed = [one for one in measured if one.decision and not is_candidate(one)]
    if passed:
        return _decided(finding, _main(passed), Decision.PRESENT, passed)
    if candidates:
        reason = f"its rule finds what is worth a look only, here {len(candidates)}, and does not decide"
        return FindingRow(finding.id, finding.name, Decision.NOT_JUDGED, evidence=reason, candidate=True)
    open_ = next((one for one in measured if one.decision is None), None)
    if open_ is not None:
        return FindingRow(finding.id, finding.name, Decision.NOT_JUDGED, evidence=_why_open(open_))
    return _decided(finding, _main(measured), Decision.ABSENT, measured)


def _why_open(measurement: Measurement) -> str:
    """Why a rule did not decide: the first sentence of its limits where nothing could be measured."""
    if measurement.value is not None or not measurement.limits:
        return "its rule does not decide in this image, which may not hold all that the rule needs"
    first = re.split(r"(?<=\.)\s", measurement.limits, maxsplit=1)[0]
    return first[:1].lower() + first[1:].rstrip(".")


def _decided(finding: Finding, main: Measurement, decision: Decision, all_: Sequence[Measurement]) -> FindingRow:
    present = decision is Decision.PRESENT
    return FindingRow(
        finding=finding.id,
        name=finding.name,
        decision=decision,
        basis=Basis.MASK if main.name.endswith(GIVEN_SEGMENT) else Basis.RULE,
        evidence=" ".join(part for part in (main.rule, main.limits) if part),
        measurement=main.name,
        value=main.value,
        unit=main.unit,
        side=_side(all_) if present and finding.has_side else "",
        place=_places(all_) if present and finding.has_side else "",
        volume_ml=_volume_ml(main, all_) if present else None,
        segment=finding.id if present and main.mask is not None else "",
    )


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
