"""A report as a DICOM Enhanced SR by template TID 2000, Basic Diagnostic Imaging Report (highdicom).

The tree, by DICOM PS3.16 TID 2000, 2001, 2002 and 1404, which allow nothing else:

- the document: its language, the device that observes, and sections;
- a section: texts, and in Findings a code for each finding that is present;
- under a text or a code what it is inferred from: measurements (NUM, units in UCUM), and the slice that shows it best.

Never verified: ``VerificationFlag`` is ``UNVERIFIED`` whatever people edited, ``PreliminaryFlag`` is ``PRELIMINARY``.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeAlias

import numpy as np
from highdicom import UID, ContentQualificationValues
from highdicom.sr import (
    CodeContentItem,
    CodedConcept,
    ContainerContentItem,
    ContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    EnhancedSR,
    ImageContentItem,
    LanguageOfContentItemAndDescendants,
    NumContentItem,
    ObservationContext,
    ObserverContext,
    RelationshipTypeValues,
    TextContentItem,
)
from pydicom.sr.codedict import codes
from pydicom.sr.coding import Code

from CTReportLib import document
from CTReportLib.dicom_codes import (
    MANUFACTURER,
    MODEL,
    SERIES_NUMBERS,
    any_patient_name,
    coding_schemes,
    device_uid,
    finding_code,
    own_code,
    short,
    side_code,
    unit_code,
)
from CTReportLib.dicom_source import UNICODE, SourceSeries
from CTReportLib.findings import finding
from CTReportLib.measurement import LABEL, Measurement
from CTReportLib.report import FINDINGS, IMPRESSION, TECHNIQUE, row_sentence
from CTReportLib.request import (
    GIVEN_SEGMENT,
    RESEARCH_USE,
    Decision,
    Edit,
    FindingRow,
    ReportResult,
    ReportSection,
    Sentence,
)
from MedAILib import __version__

_CONTAINS, _INFERRED = RelationshipTypeValues.CONTAINS, RelationshipTypeValues.INFERRED_FROM
_MODIFIER = RelationshipTypeValues.HAS_CONCEPT_MOD
Concept: TypeAlias = Code | CodedConcept
_TITLE = Code("24627-2", "LN", "CT Chest Report")
_ENGLISH = Code("en", "RFC5646", "English")
_FINDINGS_HEADING, _IMPRESSIONS = (
    Code("59776-5", "LN", "Findings"),
    Code("19005-8", "LN", "Impressions"),
)
_PROCEDURE = Code("55111-9", "LN", "Current Procedure Descriptions")
_FINDING = Code("121071", "DCM", "Finding")
_ELEMENTS: Mapping[str, Code] = {
    _FINDINGS_HEADING.value: _FINDING,
    _IMPRESSIONS.value: Code("121073", "DCM", "Impression"),
    _PROCEDURE.value: Code("121065", "DCM", "Procedure Description"),
}
_BEST_SLICE = Code("121080", "DCM", "Best illustration of finding")


def sr_bytes(result: ReportResult, source: SourceSeries) -> bytes:
    """The structured report as a DICOM file."""
    stream = io.BytesIO()
    with any_patient_name():
        structured_report(result, source).save_as(stream)
    return stream.getvalue()


def structured_report(result: ReportResult, source: SourceSeries) -> EnhancedSR:
    """The report as a DICOM object of the patient and study of the series.

    Parameters
    ----------
    result : ReportResult
    source : SourceSeries
        Of `CTReportLib.dicom_source.source_series`.
    """
    report = EnhancedSR(
        evidence=source.datasets,
        content=_Tree(result, source).root()[0],
        series_instance_uid=UID(),
        series_number=SERIES_NUMBERS["SR"],
        sop_instance_uid=UID(),
        instance_number=1,
        manufacturer=MANUFACTURER,
        is_complete=result.complete,
        is_final=False,
        is_verified=False,
        manufacturer_model_name=MODEL,
        software_versions=__version__,
        device_serial_number=__version__,
        content_qualification=ContentQualificationValues.RESEARCH,
        series_description=short(f"{MODEL}, research use only"),
        coding_schemes=coding_schemes(),
    )
    report.SpecificCharacterSet = UNICODE  # highdicom before 0.28 writes Latin-1 whatever the source has
    report.CompletionFlagDescription = "Research use only." if result.complete else document.INCOMPLETE
    return report


class _Tree:
    """Makes the content tree of one report; every measurement stands in it once."""

    def __init__(self, result: ReportResult, source: SourceSeries) -> None:
        self.result = result
        self.source = source
        self.masks = None if result.masks is None else source.on_slices(result.masks)
        self.waiting = {one.name: one for one in result.measurements}

    def root(self) -> ContentSequence:
        """The document."""
        container = ContainerContentItem(_TITLE, template_id="2000")
        container.ContentSequence = ContentSequence()
        container.ContentSequence.extend(LanguageOfContentItemAndDescendants(_ENGLISH))
        container.ContentSequence.extend(_observer())
        for heading, items in self._sections():
            if items:
                section = ContainerContentItem(heading, relationship_type=_CONTAINS)
                section.ContentSequence = ContentSequence(items)
                container.ContentSequence.append(section)
        return ContentSequence([container], is_root=True)

    def _sections(self) -> Iterator[tuple[Concept, list[ContentItem]]]:
        """Headings and what stands under each, in the order of a report."""
        result = self.result
        warnings = [_text(_FINDING, text) for text in document.unsaid_warnings(result)]
        yield own_code("Intended use"), [_text(own_code("Intended use"), text) for text in self._notices()]
        yield _PROCEDURE, self._told(_PROCEDURE, (s for s in result.sections if s.title == TECHNIQUE))
        found = self._told(_FINDINGS_HEADING, self._written())
        yield _FINDINGS_HEADING, [*found, *map(self._code, self._present())]
        yield _IMPRESSIONS, self._told(_IMPRESSIONS, (s for s in result.sections if s.title == IMPRESSION))
        yield own_code("Measurements"), [self._measured(one) for one in result.measurements]
        yield own_code("Remarks"), warnings
        yield own_code("Edits by people"), [_text(own_code("Edit"), _edit_text(edit)) for edit in result.edits]
        made = ((key.replace("_", " "), value) for key, value in result.provenance.items() if value)
        yield own_code("How it was made"), [_text(own_code("Provenance"), f"{key}: {value}") for key, value in made]

    def _written(self) -> Iterable[ReportSection]:
        """What is neither technique nor impression; of a report without sentences what its rows say."""
        if not self.result.sections:
            return (ReportSection(FINDINGS, tuple(row_sentence(row) for row in self.result.table)),)
        return (section for section in self.result.sections if section.title not in (TECHNIQUE, IMPRESSION))

    def _notices(self) -> Iterator[str]:
        yield RESEARCH_USE
        if not self.result.complete:
            yield document.INCOMPLETE
        if self.result.edits:
            yield document.edits_notice(self.result.edits)

    def _told(self, heading: Code, sections: Iterable[ReportSection]) -> list[ContentItem]:
        """The sentences that are shown, each with the measurements that are first named in it."""
        element = _ELEMENTS[heading.value]
        return [self._sentence(element, one) for section in sections for one in section.sentences if one.shown]

    def _sentence(self, element: Code, sentence: Sentence) -> ContentItem:
        note = document.sentence_note(sentence)
        item = _text(element, f"{sentence.text}{f' ({note})' if note else ''}")
        taken = (self.waiting.pop(name, None) for name in sentence.measurements)
        return _inferred(item, (_number(one, _INFERRED) for one in taken if one is not None and one.value is not None))

    def _measured(self, one: Measurement) -> ContentItem:
        """A measurement with its rule and limits; its number where no sentence had it."""
        value = "not measured" if one.value is None else document.value_text(one.value, one.unit)
        rule = " ".join(part for part in (f"{one.name}: {value}", f"({LABEL}).", one.rule, one.limits) if part)
        waiting = self.waiting.pop(one.name, None) is not None and one.value is not None
        return _inferred(_text(_FINDING, rule), [_number(one, _INFERRED)] if waiting else [])

    def _present(self) -> Iterable[FindingRow]:
        """Only what is present has a code in the tree: one that stood there for an absent finding would assert it."""
        return (row for row in self.result.table if row.decision is Decision.PRESENT)

    def _code(self, row: FindingRow) -> ContentItem:
        item = CodeContentItem(_FINDING, finding_code(finding(row.finding)), relationship_type=_CONTAINS)
        grounds: list[ContentItem] = []
        if row.probability is not None:
            kind = "calibrated" if row.calibrated else "not calibrated"
            name = own_code(f"Probability by the model, {kind}")
            grounds.append(NumContentItem(name, float(row.probability), unit_code(""), relationship_type=_INFERRED))
        best = self._best_slice(row.segment)
        return _inferred(item, [*grounds, *([best] if best is not None else [])])

    def _best_slice(self, segment: str) -> ContentItem | None:
        """The slice that holds most of a segment."""
        if self.masks is None or segment not in {info.id for info in self.masks.segments}:
            return None
        k = int(np.argmax(self.masks.mask(segment).sum(axis=(1, 2))))
        header = self.source.dataset(k)
        frame = self.source.frames[k] + 1 if self.source.multi_frame else None
        return ImageContentItem(_BEST_SLICE, header.SOPClassUID, header.SOPInstanceUID, frame, None, _INFERRED)


def _observer() -> ObservationContext:
    """The program, in its version."""
    device = DeviceObserverIdentifyingAttributes(
        uid=device_uid(), name=MODEL, manufacturer_name=MANUFACTURER, model_name=f"{MODEL} {__version__}"
    )
    return ObservationContext(observer_device_context=ObserverContext(codes.DCM.Device, device))


def _text(name: Concept, text: str) -> TextContentItem:
    return TextContentItem(name, document.writable_text(text), relationship_type=_CONTAINS)


def _number(one: Measurement, relationship: RelationshipTypeValues) -> NumContentItem:
    """A measured value (TID 300) with its side, and how it was found."""
    assert one.value is not None
    item = NumContentItem(own_code(one.name), float(one.value), unit_code(one.unit), relationship_type=relationship)
    modifiers = [CodeContentItem(codes.SCT.MeasurementMethod, _method(one), relationship_type=_MODIFIER)]
    if one.side:
        modifiers.insert(0, CodeContentItem(codes.SCT.Laterality, side_code(one.side), relationship_type=_MODIFIER))
    item.ContentSequence = ContentSequence(modifiers)
    return item


def _method(one: Measurement) -> CodedConcept:
    if one.model:
        return own_code(f"On a segment drawn by the model {one.model}", "model segment")
    if one.name.endswith(GIVEN_SEGMENT):
        return own_code("On a segment that was given")
    return own_code(LABEL[:1].upper() + LABEL[1:])


def _inferred(item: ContentItem, grounds: Iterable[ContentItem]) -> ContentItem:
    """An item with what it is inferred from."""
    found = list(grounds)
    if found:
        item.ContentSequence = ContentSequence(found)
    return item


def _edit_text(edit: Edit) -> str:
    return f'{edit.when}, {edit.who or "unknown"}, {edit.section}: "{edit.before}" became "{edit.after}"'
