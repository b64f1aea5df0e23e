"""The template engine: a structured report made from the finding table and from nothing else.

It says of a finding only what its row says. What nobody judged is listed as not judged, and nothing is called
normal that was not judged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from CTReportLib.findings import FINDINGS as REGISTRY
from CTReportLib.findings import Section
from CTReportLib.measurement import LABEL, Measurement
from CTReportLib.request import RESEARCH_USE, Basis, Decision, FindingRow, ReportSection, Sentence
from CTReportLib.table import NOBODY_JUDGED, is_candidate

TECHNIQUE, IMPRESSION, NOT_JUDGED = "Technique", "Impression", "Not judged"
FINDINGS = "Findings"

ANATOMY: Mapping[str, tuple[str, ...]] = {
    section.value: tuple(one.id for one in REGISTRY if one.section is section) for section in Section
}
"""Which findings each part of the section Findings holds; the order of the report."""

MODEL_LABEL = "a model's answer, not diagnosed"
"""Stands beside every answer of a model."""
_DECIMALS = {"%": 1, "ml": 0, "mm": 1, "mm³": 0, "HU": 0, "": 2}


@dataclass(frozen=True)
class Facts:
    """What the report may say of the examination itself.

    Attributes
    ----------
    technique : tuple of str
        Whole sentences.
    field_of_view : tuple of str
        What is not, or not wholly, in the image; whole sentences.
    """

    technique: tuple[str, ...] = ()
    field_of_view: tuple[str, ...] = ()


def template_report(
    table: Sequence[FindingRow], measurements: Sequence[Measurement], facts: Facts
) -> tuple[ReportSection, ...]:
    """The whole report, its sections in the usual order."""
    sections = [ReportSection(TECHNIQUE, tuple(Sentence(text) for text in (*facts.technique, *facts.field_of_view)))]
    for part, findings in ANATOMY.items():
        rows = [row for row in table if row.finding in findings]
        sections.append(ReportSection(f"{FINDINGS}: {part}", tuple(_part(part, rows, measurements, facts))))
    sections.append(ReportSection(NOT_JUDGED, tuple(_not_judged(table))))
    sections.append(ReportSection(IMPRESSION, tuple(_impression(table, facts))))
    return tuple(section for section in sections if section.sentences)


def row_sentence(row: FindingRow) -> Sentence:
    """What can be said of one finding, and what it rests on."""
    measured = (row.measurement,) if row.measurement else ()
    return Sentence(_row_text(row), (row.finding,), measured)


def impression_sentence(row: FindingRow) -> Sentence:
    """A finding that is there, in short."""
    by = {Basis.RULE: f" ({LABEL})", Basis.MASK: " (given segment)", Basis.MODEL: f" ({MODEL_LABEL})"}.get(
        row.basis, ""
    )
    return Sentence(f"{row.name}{_where(row)}{by}.", (row.finding,), (row.measurement,) if row.measurement else ())


def number_text(value: float, unit: str) -> str:
    """A measured value with its unit, rounded to what the unit deserves: ``12.4 %``, ``0.48``."""
    decimals = _DECIMALS.get(unit, 1)
    if unit == "" and float(value).is_integer() and abs(value) >= 1:
        decimals = 0
    return f"{value:.{decimals}f} {unit}".strip()


def _row_text(row: FindingRow) -> str:
    grounds = _grounds(row)
    if row.decision is Decision.NOT_JUDGED:
        return f"{row.name}: not judged{f' ({row.evidence})' if row.evidence else ''}."
    if row.decision is Decision.ABSENT:
        return f"No {_lower(row.name)} found{_by(row)}{grounds}."
    return f"{row.name}: present{_by(row)}{_where(row)}{grounds}."


def _by(row: FindingRow) -> str:
    return {Basis.RULE: " by rule", Basis.MASK: " by the given segment", Basis.MODEL: " by model"}.get(row.basis, "")


def _where(row: FindingRow) -> str:
    if row.place:
        return f", {row.place}"
    return {"left": ", left", "right": ", right", "both": ", on both sides"}.get(row.side, "")


def _grounds(row: FindingRow) -> str:
    said = []
    if row.value is not None:
        shown = row.threshold is not None and row.probability is None
        limit = f", threshold {number_text(row.threshold or 0.0, row.unit)}" if shown else ""
        said.append(f"{_quantity(row)} {number_text(row.value, row.unit)}{limit}")
    if row.volume_ml is not None and (row.unit != "ml" or row.volume_ml != row.value):
        said.append(f"{number_text(row.volume_ml, 'ml')} together")
    if row.probability is not None:
        kind = "calibrated" if row.calibrated else "not calibrated"
        limit = "" if row.threshold is None else f", threshold {row.threshold:.2f}"
        said.append(f"model probability {row.probability:.2f}{limit}, {kind}")
    if row.basis in (Basis.RULE, Basis.MODEL):
        said.append(LABEL if row.basis is Basis.RULE else MODEL_LABEL)
    elif not said and row.basis is not Basis.NOTHING:
        said.append(row.basis.value)
    return f" ({'; '.join(said)})" if said else ""


def _quantity(row: FindingRow) -> str:
    """What a row's value is of; of what is absent the largest of all sides is shown, not that of one."""
    of_one_side = {"left", "right"} & set(row.measurement.lower().split())
    return "at most" if row.decision is Decision.ABSENT and of_one_side else row.measurement or "measured"


def _part(
    part: str, rows: Sequence[FindingRow], measurements: Sequence[Measurement], facts: Facts
) -> Iterable[Sentence]:
    judged = [row for row in rows if row.decision is not Decision.NOT_JUDGED]
    yield from (row_sentence(row) for row in judged if row.decision is Decision.PRESENT)
    yield from (row_sentence(row) for row in judged if row.decision is Decision.ABSENT)
    for row in rows:
        if row.candidate:
            yield _candidates(row, measurements)
    if part == Section.LUNGS.value:
        cut = bool(facts.field_of_view)
        free = (one for one in measurements if not one.finding_id and one.value is not None)
        yield from (measured_sentence(one, cut=cut) for one in free)


def _candidates(row: FindingRow, measurements: Sequence[Measurement]) -> Sentence:
    """What is worth a look and is no finding."""
    found = [one for one in measurements if one.finding_id == row.finding and is_candidate(one)]
    if not found:
        return Sentence(f"For a look, not a finding ({_lower(row.name)}): rule and models do not agree.")
    listed = "; ".join(f"{number_text(one.value or 0.0, one.unit)}, {one.place or 'place not known'}" for one in found)
    text = f"For a look, not a finding ({_lower(row.name)}; {LABEL}): {listed}."
    return Sentence(text, (), tuple(one.name for one in found))


def measured_sentence(one: Measurement, *, cut: bool = False) -> Sentence:
    """A number that speaks for no finding, such as a lung's volume; ``cut``: of what the image holds of it."""
    value = 0.0 if one.value is None else one.value
    part = " (of what the image holds)" if cut else ""
    return Sentence(f"{one.name}: {number_text(value, one.unit)}{part}.", (), (one.name,))


def _not_judged(table: Iterable[FindingRow]) -> Iterable[Sentence]:
    """Those for which there is no rule in one sentence, the others each with the reason."""
    rows = [row for row in table if row.decision is Decision.NOT_JUDGED]
    unasked = [row for row in rows if row.evidence == NOBODY_JUDGED]
    for row in rows:
        if row not in unasked:
            yield Sentence(f"{row.name}: {row.evidence.rstrip('.')}.", (row.finding,))
    if unasked:
        names = ", ".join(_lower(row.name) for row in unasked)
        text = f"Neither present nor absent, because {NOBODY_JUDGED}: {names}."
        yield Sentence(text, tuple(row.finding for row in unasked))


def _impression(table: Sequence[FindingRow], facts: Facts) -> Iterable[Sentence]:
    present = [row for row in table if row.decision is Decision.PRESENT]
    absent = [row for row in table if row.decision is Decision.ABSENT]
    open_ = [row for row in table if row.decision is Decision.NOT_JUDGED]
    yield from (impression_sentence(row) for row in present)
    if not present and absent:
        yield Sentence(f"None of the {len(absent)} findings that were judged is present.")
    if not present and not absent:
        yield Sentence("No finding could be judged.")
    for row in open_:
        if row.candidate:
            yield Sentence(f"For a look, not a finding ({_lower(row.name)}): see Findings.", (row.finding,))
    if open_:
        yield Sentence(
            f"{len(open_)} of {len(table)} findings were not judged; this report does not say that the rest is normal."
        )
    if facts.field_of_view:
        yield Sentence("The image does not hold the whole chest; what lies outside was not seen.")
    yield Sentence(RESEARCH_USE)


def _lower(name: str) -> str:
    return name[:1].lower() + name[1:]
