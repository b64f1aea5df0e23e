"""The findings: the 18 abnormalities of CT-RATE in their published order, and their names elsewhere.

Order and names are those of CT-RATE (Hamamci et al., arXiv:2403.17834), which CT-CLIP and the models
after it keep. Other lists overlap with it only in part: what has no counterpart here has none,
rather than a near one.

Codes are given only where DICOM's own dictionary (`pydicom.sr.codedict`, which a test compares with)
has a code of that meaning; the others are empty. Its code for cardiomegaly (287272002) is left out
because the same dictionary gives it to a septal defect.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum

from MedAILib.errors import InputError


class Section(Enum):
    """Where a finding stands in a structured chest report."""

    DEVICES = "Medical devices"
    LUNGS = "Lungs and airways"
    PLEURA = "Pleura"
    MEDIASTINUM = "Mediastinum and hila"
    HEART = "Heart and pericardium"
    VESSELS = "Great vessels"
    ESOPHAGUS = "Esophagus"


@dataclass(frozen=True)
class Code:
    """A code of a published scheme: ``SCT`` (SNOMED CT) or ``DCM`` (DICOM)."""

    scheme: str
    value: str
    meaning: str


@dataclass(frozen=True)
class Finding:
    """One abnormality.

    Attributes
    ----------
    id : str
        Ours, lower case with underscores.
    name : str
        As CT-RATE spells it.
    section : Section
    has_side : bool
        Whether left and right can be told apart.
    localised : bool
        Whether models draw it: one of the five of the published localisation task.
    measured_by : str
        The rule of this module that speaks for it; empty where there is none.
    aliases : tuple of str
        Other spellings and exact synonyms; compared without case, ``_`` and ``-``.
    code : Code or None
        Of the finding.
    site : Code or None
        Of the structure it is in, where the finding's code does not say.
    """

    id: str
    name: str
    section: Section
    has_side: bool = False
    localised: bool = False
    measured_by: str = ""
    aliases: tuple[str, ...] = ()
    code: Code | None = None
    site: Code | None = None


_LUNG = Code("SCT", "39607008", "Lung")
_CALCIFICATION = Code("SCT", "18115005", "Pathologic calcification, calcified structure (morphologic abnormality)")

FINDINGS: tuple[Finding, ...] = (
    Finding("medical_material", "Medical material", Section.DEVICES, has_side=True,
            aliases=("medical device", "medical devices", "support devices")),
    Finding("arterial_wall_calcification", "Arterial wall calcification", Section.VESSELS,
            measured_by="calcium by threshold near the aorta",
            aliases=("aortic calcification", "arterial calcification"), code=_CALCIFICATION),
    Finding("cardiomegaly", "Cardiomegaly", Section.HEART, measured_by="cardiothoracic ratio",
            aliases=("enlarged heart", "heart enlargement")),
    Finding("pericardial_effusion", "Pericardial effusion", Section.HEART, localised=True,
            code=Code("SCT", "373945007", "Pericardial effusion")),
    Finding("coronary_artery_wall_calcification", "Coronary artery wall calcification", Section.HEART,
            measured_by="calcium by threshold in the heart's region",
            aliases=("coronary artery calcification", "coronary calcification", "CAC"),
            code=_CALCIFICATION, site=Code("SCT", "41801008", "Coronary artery")),
    Finding("hiatal_hernia", "Hiatal hernia", Section.ESOPHAGUS, aliases=("hiatus hernia",)),
    Finding("lymphadenopathy", "Lymphadenopathy", Section.MEDIASTINUM, has_side=True,
            aliases=("enlarged lymph nodes",), code=Code("SCT", "30746006", "Lymphadenopathy")),
    Finding("emphysema", "Emphysema", Section.LUNGS, has_side=True, measured_by="emphysema index LAA-950",
            aliases=("pulmonary emphysema",)),
    Finding("atelectasis", "Atelectasis", Section.LUNGS, has_side=True),
    Finding("lung_nodule", "Lung nodule", Section.LUNGS, has_side=True, localised=True,
            measured_by="nodule candidates", aliases=("nodule", "pulmonary nodule", "lung nodules"),
            code=Code("SCT", "27925004", "Nodule"), site=_LUNG),
    Finding("lung_opacity", "Lung opacity", Section.LUNGS, has_side=True, aliases=("pulmonary opacity",),
            code=Code("DCM", "112001", "Opacity"), site=_LUNG),
    Finding("pulmonary_fibrotic_sequela", "Pulmonary fibrotic sequela", Section.LUNGS, has_side=True,
            aliases=("fibrotic sequela", "fibrotic sequelae", "pulmonary fibrotic sequelae"),
            code=Code("SCT", "112674009", "Fibrosis"), site=_LUNG),
    Finding("pleural_effusion", "Pleural effusion", Section.PLEURA, has_side=True, localised=True,
            measured_by="pleural fluid by HU and place", code=Code("SCT", "60046008", "Pleural effusion")),
    Finding("mosaic_attenuation_pattern", "Mosaic attenuation pattern", Section.LUNGS, has_side=True,
            aliases=("mosaic attenuation", "mosaic pattern"),
            code=Code("DCM", "112130", "Mosaic pattern"), site=_LUNG),
    Finding("peribronchial_thickening", "Peribronchial thickening", Section.LUNGS, has_side=True,
            aliases=("bronchial wall thickening",)),
    Finding("consolidation", "Consolidation", Section.LUNGS, has_side=True, localised=True),
    Finding("bronchiectasis", "Bronchiectasis", Section.LUNGS, has_side=True),
    Finding("interlobular_septal_thickening", "Interlobular septal thickening", Section.LUNGS, has_side=True,
            aliases=("septal thickening",)),
)  # fmt: skip
"""The 18 abnormalities of CT-RATE in canonical order: index n is column n of a model's answer."""

GROUND_GLASS = Finding(
    "ground_glass_opacity", "Ground glass opacity", Section.LUNGS, has_side=True, localised=True,
    aliases=("GGO", "ground-glass opacities", "ground glass opacities"),
    code=Code("DCM", "112120", "Ground glass opacity"), site=_LUNG,
)  # fmt: skip
"""Drawn by localising models, but none of the 18: there it is a part of "Lung opacity"."""

LOCALISED: tuple[Finding, ...] = tuple(
    {f.id: f for f in (*FINDINGS, GROUND_GLASS)}[name]
    for name in ("pericardial_effusion", "pleural_effusion", "consolidation", "ground_glass_opacity", "lung_nodule")
)
"""The five localised findings in the order of the published task."""

PUBLISHED_LISTS: Mapping[str, tuple[str, ...]] = {
    "ct-rate": tuple(finding.name for finding in FINDINGS),
    "rect-head": (
        "lung_nodule", "pleural_effusion", "consolidation", "ground_glass_opacity", "pericardial_effusion",
        "pneumothorax", "atelectasis", "pneumonia", "pulmonary_edema", "emphysema", "fibrosis", "mass",
        "cardiomegaly", "mediastinal_widening", "pleural_thickening", "fracture", "calcification", "lymphadenopathy",
    ),
    "rect-dataset": (
        "Atelectasis", "Cardiomegaly", "Consolidation", "Edema", "Emphysema", "Fibrosis", "Hernia", "Infiltration",
        "Mass", "Nodule", "Pleural_Thickening", "Pneumonia", "Pneumothorax", "Lung nodule", "Lung opacity",
        "Enlarged lymph nodes", "Pleural effusion", "Pericardial effusion",
    ),
}  # fmt: skip
"""Class lists of published models and data, in their own order."""


def find(name: str) -> Finding | None:
    """The finding of an id, a name or an alias in any published list; None where ours has no counterpart."""
    return _BY_NAME.get(_plain(name))


def finding(finding_id: str) -> Finding:
    """The finding of that id, name or alias.

    Raises
    ------
    InputError
        Where there is none.
    """
    found = find(finding_id)
    if found is None:
        raise InputError(
            f"'{finding_id}' is not a finding of this module.",
            todo="The findings are: " + ", ".join(f.id for f in (*FINDINGS, GROUND_GLASS)) + ".",
        )
    return found


def columns_of(names: tuple[str, ...]) -> tuple[int | None, ...]:
    """For each of the 18 findings the first position in another list of names; None where it is missing there."""
    ids = [found.id if (found := find(name)) else "" for name in names]
    return tuple(ids.index(f.id) if f.id in ids else None for f in FINDINGS)


def _plain(name: str) -> str:
    return " ".join(name.replace("_", " ").replace("-", " ").casefold().split())


def _names() -> dict[str, Finding]:
    names: dict[str, Finding] = {}
    for entry in (*FINDINGS, GROUND_GLASS):
        for name in (entry.id, entry.name, *entry.aliases):
            if names.setdefault(_plain(name), entry) is not entry:
                raise ValueError(f"'{name}' names two findings")
    return names


_BY_NAME = _names()
