"""Rows of the finding table as bars, models by what they do, and codes of segments."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from pydicom.sr.codedict import codes

from CTReportLib.choices import Role, choices, chosen_models, missing_packages, model_path, role_of
from CTReportLib.example import example_chest
from CTReportLib.finding_bars import finding_bar, ordered_rows
from CTReportLib.findings import FINDINGS
from CTReportLib.measurement import Measurement
from CTReportLib.request import FINDING_TAG, MEASUREMENT_TAG, Basis, Decision, FindingRow, ReportResult
from CTReportLib.terminology import TAG, terminology_entry, with_terminology
from MedAILib.errors import InputError, ModelNotInstalled
from MedAILib.models.manager import Manager
from MedAILib.ui.bars import BarKind
from MedAILib.volume import LabelMap, SegmentInfo


def a_row(finding: str = "emphysema", decision: Decision = Decision.PRESENT, **more: object) -> FindingRow:
    return replace(FindingRow(finding, finding.capitalize(), decision), **more)  # type: ignore[arg-type]


def a_result(row: FindingRow, *measurements: Measurement) -> ReportResult:
    return ReportResult("case", (row,), (), measurements)


# Bars


def test_a_probability_stands_beside_its_threshold_and_is_hatched_unless_calibrated() -> None:
    row = a_row(probability=0.8, threshold=0.6, calibrated=True, value=7.0, unit="%", measurement="Index")
    bar = finding_bar(row, a_result(row))
    assert (bar.share, bar.mark, bar.text, bar.kind) == (0.8, 0.6, "80 %", BarKind.BEYOND)
    assert not bar.hatched and not bar.faded
    absent = replace(row, calibrated=False, decision=Decision.ABSENT)
    assert finding_bar(absent, a_result(absent)).hatched
    assert finding_bar(absent, a_result(absent)).kind is BarKind.WITHIN


def test_a_measured_value_is_drawn_relative_to_its_threshold() -> None:
    index = Measurement("emphysema", "Index", 7.5, "%", "rule", threshold=5.0)
    row = a_row(value=7.5, unit="%", measurement="Index", basis=Basis.RULE, threshold=0.3)
    bar = finding_bar(row, a_result(row, index))
    assert (bar.share, bar.mark, bar.text) == (0.75, 0.5, "7.5 %")
    many = replace(row, value=400.0)
    assert finding_bar(many, a_result(many, index)).share == 1.0
    none = replace(row, value=0.0, decision=Decision.ABSENT)
    assert 0 < finding_bar(none, a_result(none, index)).share < 0.05
    without = replace(row, measurement="", threshold=None)
    assert finding_bar(without, a_result(without)).mark is None


def test_what_was_not_judged_is_pale_and_what_is_worth_a_look_is_not() -> None:
    nobody = a_row(decision=Decision.NOT_JUDGED)
    bar = finding_bar(nobody, a_result(nobody))
    assert (bar.share, bar.kind, bar.text, bar.faded) == (0.0, BarKind.OTHER, "–", True)
    spot = Measurement("emphysema", "Candidate 1", 12.0, "mm", "rule")
    look = a_row(decision=Decision.NOT_JUDGED, candidate=True)
    bar = finding_bar(look, a_result(look, spot))
    assert (bar.share, bar.kind, bar.text, bar.faded) == (1.0, BarKind.OTHER, "12.0 mm", False)
    assert finding_bar(look, a_result(look)).text == "to look at"
    said = a_row()
    assert finding_bar(said, a_result(said)).text == "present"


def test_what_matters_comes_first() -> None:
    decisions = [Decision.NOT_JUDGED, Decision.ABSENT, Decision.PRESENT, Decision.NOT_JUDGED]
    rows = [a_row(str(n), decision) for n, decision in enumerate(decisions)]
    rows[3] = replace(rows[3], candidate=True)
    result = ReportResult("case", tuple(rows), ())
    assert [row.finding for row in ordered_rows(result)] == ["2", "3", "1", "0"]


# Models


@pytest.fixture
def manager(tmp_path: Path) -> Manager:
    return Manager(tmp_path / "store", shared=())


def test_models_are_offered_by_what_they_do(manager: Manager) -> None:
    offered = {role: [one.id for one in choices(manager, role)] for role in Role}
    assert "ct-colipri" in offered[Role.ENCODER]
    assert {"llm-llama-3.1-8b-instruct", "llm-gemma-2-27b-it", "ct-nv-reason"} <= set(offered[Role.LANGUAGE])
    assert role_of(manager.catalogue.entry("text-bio-clinicalbert")) is None
    assert not any("knee" in one for ids in offered.values() for one in ids)


def test_every_network_that_can_answer_can_be_chosen() -> None:
    pytest.importorskip("torch", reason="torch is not installed: no network can be asked for")
    from CTReportLib.choices import _ARCHITECTURES, FEATURES_CACHE
    from CTReportLib.language.folder import ARCHITECTURE
    from CTReportLib.nets.encoders import KINDS
    from CTReportLib.nets.featurecache import default_folder
    from CTReportLib.nets.heads_weights import DRAWING, FACTORIES

    assert set(KINDS) <= set(_ARCHITECTURES[Role.ENCODER])
    assert set(DRAWING) == set(_ARCHITECTURES[Role.LOCALIZER])
    assert set(FACTORIES) - set(DRAWING) == set(_ARCHITECTURES[Role.CLASSIFIER])
    assert ARCHITECTURE in _ARCHITECTURES[Role.LANGUAGE]
    assert default_folder().parts[-2:] == FEATURES_CACHE.parts


def test_chosen_models_become_paths_or_say_what_is_missing(manager: Manager, tmp_path: Path) -> None:
    own = tmp_path / "eigenes ü.safetensors"
    own.write_bytes(b"")
    folder = tmp_path / "llm"
    folder.mkdir()
    found = chosen_models(manager, {Role.ENCODER: str(own), Role.LANGUAGE: str(folder), Role.CLASSIFIER: ""})
    assert (found.encoder, found.language, found.classifier) == (own, folder, None)
    with pytest.raises(ModelNotInstalled, match="COLIPRI"):
        chosen_models(manager, {Role.ENCODER: "ct-colipri"})
    with pytest.raises(InputError, match="There is no"):
        model_path(manager, Role.ENCODER, str(tmp_path / "none"))


def test_a_folder_with_one_weight_file_is_as_good_as_the_file(manager: Manager, tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "model.pt").write_bytes(b"")
    assert model_path(manager, Role.LOCALIZER, str(tmp_path)) == tmp_path / "model.safetensors"
    (tmp_path / "other.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="2 weight files"):
        model_path(manager, Role.LOCALIZER, str(tmp_path))


def test_packages_are_looked_for_and_not_loaded() -> None:
    assert set(missing_packages(Role.LANGUAGE)) >= set(missing_packages(Role.ENCODER))


# Codes


def test_codes_of_segments_are_dicoms() -> None:
    lung = terminology_entry(SegmentInfo("left_lung", "Left lung", 1)).split("~")
    assert lung[2].split("^")[:2] == ["SCT", codes.SCT.Lung.value]
    assert lung[3].split("^")[:2] == ["SCT", codes.SCT.Left.value]
    assert terminology_entry(SegmentInfo("airways", "Airways", 3)).split("~")[2].split("^")[1] == (
        codes.SCT.TracheaAndBronchus.value
    )


def test_segments_of_findings_have_the_registrys_code_with_side_and_site() -> None:
    layer = np.ones((1, 1, 1), np.uint8)
    tags = {FINDING_TAG: "lung_nodule", MEASUREMENT_TAG: "Nodule candidate 1"}
    infos = (
        SegmentInfo("a", "Nodule candidate 1", 1, tags=tags),
        SegmentInfo("b", "Low attenuation", 2, tags={FINDING_TAG: "emphysema"}),
        SegmentInfo("c", "Mine", 3),
    )
    given = LabelMap((layer,), np.eye(4), infos)
    spot = Measurement("lung_nodule", "Nodule candidate 1", 9.0, "mm", "rule", side="both")
    coded = with_terminology(given, [spot]).segments
    entry = coded[0].tags[TAG].split("~")
    assert [part.split("^")[1] for part in entry[1:4]] == ["49755003", "27925004", codes.SCT.RightAndLeft.value]
    assert entry[5].split("^")[1] == codes.SCT.Lung.value and coded[0].tags[FINDING_TAG] == "lung_nodule"
    assert TAG not in coded[1].tags and TAG not in coded[2].tags
    for finding in FINDINGS:
        known = terminology_entry(SegmentInfo("x", "x", 1, tags={FINDING_TAG: finding.id}))
        assert bool(known) == (finding.code is not None)


# The sample


def test_the_synthetic_chest_is_always_the_same_and_within_hounsfield_units() -> None:
    chest = example_chest()
    np.testing.assert_array_equal(chest.array, example_chest().array)
    assert chest.array.dtype == np.int16 and chest.array.min() >= -1024 and 2000 < chest.array.size < 1_000_000
