"""What segmentations and reports in DICOM have in common: codes, the device that observes, what every object says."""

from __future__ import annotations

import uuid
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from highdicom import UID
from highdicom.coding_schemes import CodingSchemeIdentificationItem
from highdicom.sr import CodedConcept
from pydicom.sr.codedict import codes

from CTReportLib.findings import Code, Finding, find
from CTReportLib.request import FINDING_TAG, GIVEN_SEGMENT, MEASUREMENT_TAG
from CTReportLib.terminology import CHEST, SIDES
from MedAILib import __version__
from MedAILib.volume import SegmentInfo

MANUFACTURER, MODEL = "MedAI", "MedAI CTReport"
SHORT_USE = "Research use only. Not for clinical diagnosis. Not verified."
"""For attributes that hold 64 letters."""
SCHEME = "99MEDAI"
"""Designator of our own codes, for what the public schemes have none that our registry knows; 99 marks it private."""
SERIES_NUMBERS = {"SEG": 9901, "SR": 9902}
"""Far from those that scanners give."""
_LONGEST_MEANING, _UNNAMED = 64, "unnamed"

_STRUCTURE, _ALTERED = codes.cid7150.AnatomicalStructure, codes.cid7150.MorphologicallyAbnormalStructure
_UNITS: Mapping[str, tuple[str, str]] = {
    "ml": ("mL", "milliliter"),
    "mm": ("mm", "millimeter"),
    "mm³": ("mm3", "cubic millimeter"),
    "%": ("%", "percent"),
    "HU": ("[hnsf'U]", "Hounsfield unit"),
    "": ("1", "no units"),
}


def own_code(meaning: str, key: str = "") -> CodedConcept:
    """A code of ours; its value is made from the key, or else from the meaning."""
    value = "".join(letter if letter.isalnum() else "_" for letter in (key or meaning).lower()).strip("_")
    return CodedConcept(value[:_LONGEST_MEANING] or _UNNAMED, SCHEME, short(meaning) or _UNNAMED)


def short(text: str, most: int = _LONGEST_MEANING) -> str:
    """A text cut to what a DICOM attribute holds, without what it must not hold."""
    plain = " ".join(text.replace("\\", "/").split())
    return plain if len(plain) <= most else f"{plain[: most - 3]}..."


def coding_schemes() -> list[CodingSchemeIdentificationItem]:
    """Who answers for our own codes."""
    return [CodingSchemeIdentificationItem(SCHEME, name=MODEL, version=__version__)]


def unit_code(unit: str) -> CodedConcept:
    """A unit of ours in UCUM."""
    value, meaning = _UNITS.get(unit, (f"{{{unit}}}", unit))
    return CodedConcept(value, "UCUM", meaning)


def finding_code(finding: Finding) -> CodedConcept:
    """The code of a finding where no site can be said beside it: of the registry, or ours where that needs a site."""
    if finding.code is None or finding.site is not None:
        return own_code(finding.name, finding.id)
    return concept(finding.code)


def side_code(side: str) -> CodedConcept:
    """The code of ``left``, ``right`` or ``both``."""
    return concept(SIDES[side])


def concept(code: Code) -> CodedConcept:
    """A code for highdicom; a new one each time, because what is said of it is written into it."""
    return CodedConcept(code.value, code.scheme, short(code.meaning))


def is_computed(info: SegmentInfo) -> bool:
    """Whether a segment was made here: what bears neither our ids nor our tags somebody brought or drew."""
    measured_on = info.tags.get(MEASUREMENT_TAG, "")
    return bool(measured_on and not measured_on.endswith(GIVEN_SEGMENT)) or info.id in CHEST


def segment_codes(info: SegmentInfo) -> tuple[CodedConcept, CodedConcept, CodedConcept | None, str]:
    """What a segment is: category, type, the site it is in, and its side where that is part of what it is."""
    if info.id in CHEST:
        code, side = CHEST[info.id]
        return CodedConcept.from_code(_STRUCTURE), concept(code), None, side
    finding = find(info.tags.get(FINDING_TAG, "")) or find(info.name) or find(info.id)
    category = CodedConcept.from_code(_ALTERED)
    if finding is None:
        return category, own_code(info.name), None, ""
    if finding.code is None:
        return category, own_code(finding.name, finding.id), None, ""
    return category, concept(finding.code), None if finding.site is None else concept(finding.site), ""


@contextmanager
def any_patient_name() -> Iterator[None]:
    """Without highdicom's warning about names that are not split into parts: they are the source's, not ours."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The string", category=UserWarning, module="highdicom")
        yield


def device_uid() -> UID:
    """Of this program in this version, wherever it runs."""
    return UID.from_uuid(str(uuid.uuid5(uuid.NAMESPACE_OID, f"{MODEL} {__version__}")))
