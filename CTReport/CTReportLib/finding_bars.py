"""The finding table as bars: a probability, or a measured value, beside its threshold."""

from __future__ import annotations

from collections.abc import Mapping

from CTReportLib.report import number_text
from CTReportLib.request import Decision, FindingRow, ReportResult
from MedAILib.ui.bars import Bar, BarKind

_KINDS: Mapping[Decision, BarKind] = {
    Decision.PRESENT: BarKind.BEYOND,
    Decision.ABSENT: BarKind.WITHIN,
    Decision.NOT_JUDGED: BarKind.OTHER,
}
_MARK = 0.5
"""Where the threshold of a measured value is drawn: bars end at twice the threshold."""
_SHORTEST = 0.02
"""So that the colour of a zero is seen."""
NOTHING = "–"


def ordered_rows(result: ReportResult) -> tuple[FindingRow, ...]:
    """The table's rows, what matters first: present, worth a look, absent, not judged; each in canonical order."""
    return tuple(sorted(result.table, key=_rank))


def finding_bar(row: FindingRow, result: ReportResult) -> Bar:
    """The bar of a row.

    Its colour says the decision alone. It is hatched where a probability is not calibrated.
    """
    kind, faded = _KINDS[row.decision], row.decision is Decision.NOT_JUDGED and not row.candidate
    if row.probability is not None:
        text = f"{100 * row.probability:.0f} %"
        return Bar(row.name, row.probability, text, kind, row.threshold, not row.calibrated, faded)
    value, unit, threshold = _measured(row, result)
    if value is None:
        text = {Decision.PRESENT: "present", Decision.ABSENT: "absent"}.get(row.decision, NOTHING)
        share = 1.0 if row.decision is Decision.PRESENT else 0.0
        return Bar(row.name, share, "to look at" if row.candidate else text, kind, faded=faded)
    share = 1.0 if not threshold else min(max(_MARK * value / threshold, _SHORTEST), 1.0)
    return Bar(row.name, share, number_text(value, unit), kind, _MARK if threshold else None, faded=faded)


def _rank(row: FindingRow) -> int:
    if row.decision is Decision.PRESENT:
        return 0
    if row.candidate:
        return 1
    return 2 if row.decision is Decision.ABSENT else 3


def _measured(row: FindingRow, result: ReportResult) -> tuple[float | None, str, float | None]:
    """The value that speaks for a row, its unit and its threshold; of an open row its largest measured one."""
    if row.value is not None:
        own = next((one for one in result.measurements if one.name == row.measurement), None)
        return row.value, row.unit, own.threshold if own is not None else row.threshold
    measured = [one for one in result.measurements if one.finding_id == row.finding and one.value]
    if not measured:
        return None, "", None
    largest = max(measured, key=lambda one: one.value or 0.0)
    return largest.value, largest.unit, largest.threshold
