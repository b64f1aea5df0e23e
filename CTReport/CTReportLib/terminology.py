"""Standard codes of segments as Slicer keeps them: of lungs and airways, and of findings that have a code."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from CTReportLib.findings import Code, find
from CTReportLib.measurement import Measurement
from CTReportLib.request import FINDING_TAG, MEASUREMENT_TAG
from MedAILib.volume import LabelMap, SegmentInfo

TAG = "TerminologyEntry"
_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGIONS_CONTEXT = "Anatomic codes - DICOM master list"
_STRUCTURE = Code("SCT", "123037004", "Anatomical Structure")
_ALTERED = Code("SCT", "49755003", "Morphologically Altered Structure")
_LUNG = Code("SCT", "39607008", "Lung")
SIDES: Mapping[str, Code] = {
    "left": Code("SCT", "7771000", "Left"),
    "right": Code("SCT", "24028007", "Right"),
    "both": Code("SCT", "51440002", "Right and left"),
}
"""Codes of the sides of `Measurement`."""
CHEST: Mapping[str, tuple[Code, str]] = {
    "left_lung": (_LUNG, "left"),
    "right_lung": (_LUNG, "right"),
    "airways": (Code("SCT", "110726009", "Trachea and bronchus"), ""),
}
"""Segments of `CTReportLib.localised.localisation` that are anatomy, by id: what, and on which side."""


def with_terminology(label_map: LabelMap, measurements: Sequence[Measurement] = ()) -> LabelMap:
    """The label map with codes among its segments' tags; a segment without a code keeps the tags it has.

    Parameters
    ----------
    label_map : LabelMap
        Of a `ReportResult`.
    measurements : sequence of Measurement
        They know on which side a segment lies.
    """
    sides = {one.name: one.side for one in measurements}
    return replace(label_map, segments=tuple(_coded(info, sides) for info in label_map.segments))


def terminology_entry(info: SegmentInfo, side: str = "") -> str:
    """Category, type, side and site of a segment as Slicer writes them; empty where there is no code for it."""
    if info.id in CHEST:
        code, side = CHEST[info.id]
        return _entry(_STRUCTURE, code, side, None)
    finding = find(info.tags.get(FINDING_TAG, ""))
    if finding is None or finding.code is None:
        return ""
    return _entry(_ALTERED, finding.code, side, finding.site)


def _coded(info: SegmentInfo, sides: Mapping[str, str]) -> SegmentInfo:
    entry = terminology_entry(info, sides.get(info.tags.get(MEASUREMENT_TAG, ""), ""))
    return replace(info, tags={**info.tags, TAG: entry}) if entry else info


def _entry(category: Code, code: Code, side: str, site: Code | None) -> str:
    parts = (
        _CONTEXT,
        _text(category),
        _text(code),
        _text(SIDES.get(side)),
        _REGIONS_CONTEXT,
        _text(site),
        _text(None),
    )
    return "~".join(parts)


def _text(code: Code | None) -> str:
    return "^^" if code is None else f"{code.scheme}^{code.value}^{code.meaning}"
