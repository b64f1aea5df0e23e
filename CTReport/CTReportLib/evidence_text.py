"""What a sentence or a finding rests on, as text for a panel."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from html import escape

from slicer.i18n import tr as _

from CTReportLib.measurement import LABEL, Measurement
from CTReportLib.report import number_text
from CTReportLib.request import Basis, Decision, FindingRow, ReportResult, Sentence, Verdict


def sentence_html(sentence: Sentence, result: ReportResult) -> str:
    """Verdict, rows and measurements of a sentence."""
    rows = [row for row in result.table if row.finding in sentence.findings]
    measured = evidence_measurements(rows, sentence.measurements, result)
    parts = [*_verdict(sentence), *_rows(rows), *_measurements(measured)]
    if not rows and not measured and sentence.verdict in (Verdict.SUPPORTED, Verdict.ADDED):
        parts.append(escape(_("It says nothing of a finding and needs no evidence.")))
    return "<br>".join(parts)


def finding_html(row: FindingRow, result: ReportResult) -> str:
    """A row and its measurements."""
    return "<br>".join([*_rows([row]), *_measurements(evidence_measurements([row], (), result))])


def evidence_measurements(
    rows: Sequence[FindingRow], names: Sequence[str], result: ReportResult
) -> tuple[Measurement, ...]:
    """The measurements of those names, then those of rows that do not only say that nobody judged them."""
    judged = {row.finding for row in rows if row.decision is not Decision.NOT_JUDGED or row.candidate}
    main = {*names, *(row.measurement for row in rows)}
    found = [one for one in result.measurements if one.name in main or one.finding_id in judged]
    return tuple(sorted(found, key=lambda one: one.name not in main))


def _verdict(sentence: Sentence) -> Iterator[str]:
    reason = sentence.reason
    if sentence.verdict is Verdict.STRUCK:
        yield f"<b>{escape(_('Struck by the guard'))}</b>: {escape(reason)}"
    elif sentence.verdict is Verdict.ADDED:
        yield f"<b>{escape(_('Added by the guard'))}</b>: {escape(reason)}"
    elif sentence.verdict is Verdict.EDITED:
        yield f"<b>{escape(_('Written by a person: no evidence is kept for it.'))}</b>"
        if reason:
            yield f"{escape(_('The guard would object'))}: {escape(reason)}"


def _rows(rows: Sequence[FindingRow]) -> Iterator[str]:
    for row in rows:
        facts = [f"<b>{escape(row.name)}: {escape(row.decision.value)}</b>"]
        if row.basis is not Basis.NOTHING:
            facts.append(escape(row.basis.value))
        if row.probability is not None:
            facts.append(escape(_probability(row)))
        if row.place or row.side:
            facts.append(escape(row.place or row.side))
        if row.volume_ml is not None:
            facts.append(escape(number_text(row.volume_ml, "ml")))
        yield " · ".join(facts)
        measured = row.basis is Basis.RULE and row.measurement  # its rule comes with the measurement
        if row.evidence and not measured:
            yield escape(row.evidence)


def _probability(row: FindingRow) -> str:
    kind = _("calibrated") if row.calibrated else _("not calibrated")
    text = _("probability {value}, {kind}").format(value=f"{row.probability:.2f}", kind=kind)
    if row.threshold is None:
        return text
    return _("{probability}, threshold {limit}").format(probability=text, limit=f"{row.threshold:.2f}")


def _measurements(measured: Sequence[Measurement]) -> Iterator[str]:
    said: set[str] = set()
    for one in measured:
        value = _("not measured") if one.value is None else number_text(one.value, one.unit)
        place = f" · {one.place}" if one.place else ""
        yield f"{escape(one.name)}: <b>{escape(value)}</b>{escape(place)}"
        for caption, text in ((_("Rule"), one.rule), (_("Limits"), one.limits)):
            if text and text not in said:  # of both sides, and of all candidates, they are the same
                said.add(text)
                yield f"<i>{escape(caption)}:</i> {escape(text)}"
    if any(not one.model for one in measured):
        yield escape(f"({LABEL})")
