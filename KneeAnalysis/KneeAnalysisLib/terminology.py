"""Standard codes (SNOMED CT) of the tissues, as Slicer keeps them with segments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from KneeAnalysisLib.labels import CARTILAGES, Tissue
from MedAILib.volume import LabelMap

TAG = "TerminologyEntry"
_CONTEXT = "Segmentation category and type - 3D Slicer General Anatomy list"
_REGIONS_CONTEXT = "Anatomic codes - DICOM master list"
_STRUCTURE, _TISSUE = "SCT^123037004^Anatomical Structure", "SCT^85756007^Tissue"
_CODES: Mapping[Tissue, str] = {
    Tissue.FEMUR: "SCT^71341001^Femur",
    Tissue.TIBIA: "SCT^12611008^Tibia",
    Tissue.PATELLA: "SCT^64234005^Patella",
    Tissue.FIBULA: "SCT^87342007^Fibula",
    Tissue.MEDIAL_MENISCUS: "SCT^59440001^Medial meniscus",
}
_CARTILAGE = "SCT^309312004^Cartilage"
_SIDES = {"right": "SCT^24028007^Right", "left": "SCT^7771000^Left"}


def terminology_entry(tissue: Tissue, side: str = "") -> str:
    """Category, type and side of a tissue as Slicer writes them; empty where we know no code for it."""
    cartilage = tissue in CARTILAGES
    code = _CARTILAGE if cartilage else _CODES.get(tissue, "")
    if not code:
        return ""
    category = _TISSUE if cartilage else _STRUCTURE
    return "~".join((_CONTEXT, category, code, _SIDES.get(side, "^^"), _REGIONS_CONTEXT, "^^", "^^"))


def with_terminology(label_map: LabelMap, side: str = "") -> LabelMap:
    """The label map, of canonical tissues and regions, with codes among its segments' tags.

    Regions have the code of cartilage.
    """
    tissues = {int(tissue): tissue for tissue in Tissue}
    segments = []
    for info in label_map.segments:
        entry = terminology_entry(tissues.get(info.label_value, Tissue.FEMORAL_CARTILAGE), side)
        segments.append(replace(info, tags={**info.tags, TAG: entry}) if entry else info)
    return replace(label_map, segments=tuple(segments))
