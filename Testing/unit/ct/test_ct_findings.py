"""The registry of findings."""

from __future__ import annotations

import pytest

from CTReportLib.findings import FINDINGS, GROUND_GLASS, LOCALISED, PUBLISHED_LISTS, columns_of, find, finding
from MedAILib.errors import InputError

CT_RATE = (
    "Medical material; Arterial wall calcification; Cardiomegaly; Pericardial effusion; "
    "Coronary artery wall calcification; Hiatal hernia; Lymphadenopathy; Emphysema; Atelectasis; Lung nodule; "
    "Lung opacity; Pulmonary fibrotic sequela; Pleural effusion; Mosaic attenuation pattern; "
    "Peribronchial thickening; Consolidation; Bronchiectasis; Interlobular septal thickening"
).split("; ")


def test_the_eighteen_findings_stand_in_the_published_order() -> None:
    assert [f.name for f in FINDINGS] == CT_RATE
    assert columns_of(tuple(CT_RATE)) == tuple(range(18))


def test_five_findings_are_localised() -> None:
    assert [f.id for f in LOCALISED] == [
        "pericardial_effusion", "pleural_effusion", "consolidation", "ground_glass_opacity", "lung_nodule",
    ]  # fmt: skip
    assert {f.id for f in (*FINDINGS, GROUND_GLASS) if f.localised} == {f.id for f in LOCALISED}


def test_an_alias_is_found_whatever_its_case_and_joints() -> None:
    assert finding("LUNG-NODULE") is finding("nodule") is finding("lung_nodule")
    assert finding("Enlarged lymph nodes").id == "lymphadenopathy"


def test_what_another_list_has_and_ours_has_not_has_no_counterpart() -> None:
    for name in ("pneumothorax", "pneumonia", "Pulmonary_Edema", "mass", "calcification", "Hernia", "Infiltration"):
        assert find(name) is None
    assert sum(find(name) in FINDINGS for name in PUBLISHED_LISTS["rect-head"]) == 8
    with pytest.raises(InputError, match="is not a finding"):
        finding("pneumothorax")


def test_each_code_is_the_dictionarys_with_its_meaning() -> None:
    concepts = pytest.importorskip("pydicom.sr._concepts_dict", reason="pydicom has moved its dictionary").concepts
    known = {
        (scheme, value, meaning)
        for scheme in ("SCT", "DCM")
        for entries in concepts[scheme].values()
        for value, (meaning, *_) in entries.items()
    }
    codes = [code for f in (*FINDINGS, GROUND_GLASS) for code in (f.code, f.site) if code]
    assert codes
    for code in codes:
        assert (code.scheme, code.value, code.meaning) in known
