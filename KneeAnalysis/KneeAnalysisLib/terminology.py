"""Standard codes (SNOMED CT) of the tissues, as Slicer keeps them with segments.

Codes of types and sides are DICOM's (`pydicom.sr.codedict`, which a test compares with); that of
the category "Anatomical Structure" is the one Slicer's own lists have.
"""

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
    Tissue.MEDIAL_MENISCUS: "SCT^74135004^Meniscus",
    Tissue.LATERAL_MENISCUS: "SCT^74135004^Meniscus",
}
_CARTILAGE = "SCT^309312004^Cartilage"
_SIDES = {"right": "SCT^24028007^Right", "left": "SCT^7771000^Left"}


def terminology_entry(tissue: Tissue, side: str = "") -> str:
    """Category, type and side of a tissue as Slicer writes them."""
    cartilage = tissue in CARTILAGES
    code = _CARTILAGE if cartilage else _CODES[tissue]
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
        segments.append(replace(info, tags={**info.tags, TAG: entry}))
    return replace(label_map, segments=tuple(segments))
