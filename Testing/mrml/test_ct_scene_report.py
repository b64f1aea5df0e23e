"""A chest-CT report in a real scene: nodes in, one folder of linked nodes out, saved, loaded, edited, made anew."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from chest_phantoms import ChestSpec, make_chest

from CTReportLib import scene_report
from CTReportLib.edits import shown_text
from CTReportLib.logic import (
    evidence_segments,
    export_report,
    plan_report,
    result_to_export,
    show_evidence,
    write_report,
)
from CTReportLib.request import (
    FINDING_TAG,
    MEASUREMENT_TAG,
    RESEARCH_USE,
    Decision,
    FindingRow,
    ReportRequest,
    ReportResult,
    Verdict,
)
from CTReportLib.scene_report import (
    KIND_ATTRIBUTE,
    PREFIX,
    SceneReport,
    persons_segments,
    report_of,
    reports_of,
)
from CTReportLib.task import ReportTask
from host.scene_io import load_scene, save_scene
from MedAILib.errors import ConfigError, InputError, UnreadableFile
from MedAILib.grids import Box, cropped, reoriented
from MedAILib.jobs.execute import Outcome
from MedAILib.jobs.runner import InProcessRunner
from MedAILib.mrml.label_maps import segmentation_from_label_map
from MedAILib.mrml.nodes import matrix_from_array, node_to_world, run_id
from MedAILib.mrml.segment_edit import WriteMode, write_segment_block
from MedAILib.mrml.segmentations import (
    add_segment,
    get_tag,
    reference_geometry,
    segment_ids,
    segment_mask,
    segment_middle_ras_mm,
)
from MedAILib.mrml.tables import read_table, read_text
from MedAILib.mrml.volumes import read_volume, volume_geometry, write_volume
from MedAILib.volume import LabelMap, SegmentInfo, Volume

EFFUSION = make_chest(ChestSpec(effusion="right", spacing_mm=5.0)).volume
HEALTHY = make_chest(ChestSpec(spacing_mm=5.0)).volume
RUNNER = InProcessRunner()
TURN = np.array([[0.0, -1.0, 0.0, 15.0], [1.0, 0.0, 0.0, -20.0], [0.0, 0.0, 1.0, 40.0], [0.0, 0.0, 0.0, 1.0]])
SHIFT = np.eye(4)
SHIFT[:3, 3] = 11.0, -7.0, 30.0


def run(request: ReportRequest) -> Outcome[ReportResult]:
    return RUNNER.run(ReportTask(), request)


@pytest.fixture(scope="module")
def effusion() -> Outcome[ReportResult]:
    return run(ReportRequest(EFFUSION, name="Müller"))


@pytest.fixture(scope="module")
def healthy() -> Outcome[ReportResult]:
    return run(ReportRequest(HEALTHY, name="Müller"))


@pytest.fixture
def ct(scene: Any) -> Any:
    return write_volume(scene, EFFUSION, name="Müller")


@pytest.fixture
def report(scene: Any, ct: Any, effusion: Outcome[ReportResult]) -> SceneReport:
    return write_report(scene, plan_report(ct), effusion).report


def under_transform(scene: Any, node: Any, matrix: np.ndarray) -> Any:
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Table height")
    transform.SetMatrixTransformToParent(matrix_from_array(matrix))
    node.SetAndObserveTransformNodeID(transform.GetID())
    return transform


def node_ids(scene: Any) -> set[str]:
    return {scene.GetNthNode(index).GetID() for index in range(scene.GetNumberOfNodes())}


# In


def test_a_node_is_read_where_it_is_seen_and_asked_as_it_is(scene: Any, ct: Any) -> None:
    under_transform(scene, ct, SHIFT)
    plan = plan_report(ct, findings_only=True, window_hu=(-160.0, 240.0))
    request = plan.request
    np.testing.assert_array_equal(request.volume.ijk_to_ras, SHIFT @ EFFUSION.ijk_to_ras)
    assert (request.name, request.findings_only, request.window_hu) == ("Müller", True, (-160.0, 240.0))
    assert request.masks is None and request.modality == ""
    with pytest.raises(ConfigError, match="oracle"):
        plan_report(ct, engine="oracle")
    with pytest.raises(InputError, match="scalar volume"):
        plan_report(None)


def test_given_segments_come_on_the_grid_of_the_ct_and_count_as_evidence(scene: Any, ct: Any) -> None:
    grid = EFFUSION.geometry
    mask = np.zeros(grid.shape_kji, np.uint8)
    mask[20:24, 20:24, 15:20] = 1
    lesions = LabelMap((mask,), grid.ijk_to_ras, (SegmentInfo("s", "Lung nodule", 1),))
    given = segmentation_from_label_map(scene, lesions)
    plan = plan_report(ct, given)
    assert plan.request.masks is not None and plan.request.masks.geometry.same_grid_as(grid)
    report = write_report(scene, plan, run(plan.request)).report
    row = report.result().row("lung_nodule")
    assert row is not None and row.decision is Decision.PRESENT
    place = show_evidence(report, ["lung_nodule"])
    assert place is not None
    index = np.rint(np.linalg.solve(grid.ijk_to_ras, [*place, 1.0])[:3]).astype(int)
    assert mask[tuple(index[::-1])]
    assert plan_report(ct, scene.AddNewNodeByClass("vtkMRMLSegmentationNode")).request.masks is None


# Out


def test_all_nodes_lie_in_one_folder_and_know_how_they_were_made(
    scene: Any, ct: Any, report: SceneReport, effusion: Outcome[ReportResult]
) -> None:
    hierarchy = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    folder = hierarchy.GetItemParent(hierarchy.GetItemByDataNode(report.text))
    assert hierarchy.GetItemName(folder) == "Müller report" and len(report.nodes) == 4
    for node in report.nodes:
        assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(node)) == folder
        assert run_id(node) == effusion.report.run_id
        assert node.GetAttribute(f"{PREFIX}image_sha256") == effusion.result.provenance["image_sha256"]
        assert node.GetAttribute("MedAI.Note") == RESEARCH_USE
        for key in ("engine", "medai", "models", "packages", "prompt"):
            assert node.GetAttribute(f"{PREFIX}{key}"), key
    assert report.volume is ct and report.text.GetAttribute(KIND_ATTRIBUTE) == "CTReport"
    assert report_of(ct) is not None and len(reports_of(scene)) == 1


def test_the_table_has_eighteen_rows_and_every_column(report: SceneReport, effusion: Outcome[ReportResult]) -> None:
    columns, rows = read_table(report.table)
    assert len(rows) == 18 and len(columns) == len(fields(FindingRow))
    names = [column.name for column in columns]
    assert {"Finding", "Decision", "Probability", "Calibrated", "Threshold", "Evidence", "Volume", "Place"} <= set(
        names
    )
    assert columns[names.index("Volume")].unit == "ml"
    for row, known in zip(rows, effusion.result.table, strict=True):
        said = dict(zip(names, row, strict=True))
        assert (said["Id"], said["Finding"], said["Decision"]) == (known.finding, known.name, known.decision.value)
        assert said["Volume"] == pytest.approx(known.volume_ml) if known.volume_ml else np.isnan(said["Volume"])
        assert said["Candidate"] == known.candidate and said["Place"] == known.place


def test_the_report_is_utf8_text_and_the_record_json(report: SceneReport, effusion: Outcome[ReportResult]) -> None:
    text = read_text(report.text)
    assert text == shown_text(report.result()) and text.startswith("CHEST CT: Müller\n") and RESEARCH_USE in text
    assert report.text.GetEncodingAsString() == "UTF-8" and report.text.GetStorageNode() is not None
    record = json.loads(read_text(report.record_node))
    assert record["run_id"] == effusion.report.run_id and record["research_use"] == RESEARCH_USE
    assert report.result().table == effusion.result.table


def test_segments_have_codes_and_lie_on_the_grid_of_the_ct(
    ct: Any, report: SceneReport, effusion: Outcome[ReportResult]
) -> None:
    node, masks = report.segmentation, effusion.result.masks
    assert masks is not None and set(segment_ids(node)) == {info.id for info in masks.segments}
    assert node.GetDisplayNode().GetSegmentOpacity2DFill("left_lung") < 0.2  # the CT is to be seen
    np.testing.assert_array_equal(segment_mask(node, "left_lung", masks.geometry), masks.mask("left_lung"))
    lung = get_tag(node, "left_lung", "TerminologyEntry")
    assert "SCT^39607008^Lung" in lung and "SCT^7771000^Left" in lung
    assert "SCT^110726009" in get_tag(node, "airways", "TerminologyEntry")
    (fluid,) = evidence_segments(node, ["pleural_effusion"])
    assert "SCT^60046008^Pleural effusion" in get_tag(node, fluid, "TerminologyEntry")
    assert "SCT^24028007^Right" in get_tag(node, fluid, "TerminologyEntry")
    geometry = reference_geometry(node)
    assert geometry is not None and geometry.same_grid_as(volume_geometry(ct))
    assert node.GetNodeReference(node.GetReferenceImageGeometryReferenceRole()) is ct


@pytest.mark.parametrize("matrix", [SHIFT, TURN], ids=["shifted", "turned"])
def test_under_a_transform_all_lies_where_the_ct_is_seen(scene: Any, ct: Any, matrix: np.ndarray) -> None:
    transform = under_transform(scene, ct, matrix)
    plan = plan_report(ct)
    outcome = run(plan.request)
    report = write_report(scene, plan, outcome).report
    assert report.segmentation.GetParentTransformNode() is transform
    world, masks = volume_geometry(ct), outcome.result.masks
    assert masks is not None
    for info in masks.segments:
        np.testing.assert_array_equal(segment_mask(report.segmentation, info.id, world), masks.mask(info.id))
    local = report.masks()
    assert local is not None and local.geometry.same_grid_as(EFFUSION.geometry)
    before = show_evidence(report, [], ["Volume of the left lung"])
    transform.SetMatrixTransformToParent(matrix_from_array(np.eye(4)))  # moved after the run: all moves with the CT
    after = show_evidence(report, [], ["Volume of the left lung"])
    assert before is not None and after is not None
    np.testing.assert_allclose(matrix @ [*after, 1.0], [*before, 1.0], atol=1e-6)
    np.testing.assert_array_equal(
        segment_mask(report.segmentation, "left_lung", EFFUSION.geometry), masks.mask("left_lung")
    )


def test_a_ct_that_was_only_moved_during_the_run_keeps_its_report(scene: Any, ct: Any) -> None:
    plan = plan_report(ct)
    outcome = run(plan.request)
    under_transform(scene, ct, SHIFT)
    report = write_report(scene, plan, outcome).report
    left = segment_middle_ras_mm(report.segmentation, "left_lung")
    assert left is not None and outcome.result.masks is not None
    index = np.rint(np.linalg.solve(SHIFT @ EFFUSION.ijk_to_ras, [*left, 1.0])[:3]).astype(int)
    assert outcome.result.masks.mask("left_lung")[tuple(index[::-1])]


def test_a_ct_that_is_gone_or_another_one_takes_no_report(scene: Any, ct: Any, effusion: Outcome[ReportResult]) -> None:
    plan = plan_report(ct)
    write_volume(scene, reoriented(EFFUSION, "LPS"), node=ct)
    before = node_ids(scene)
    with pytest.raises(InputError, match="does not fit"):
        write_report(scene, plan, effusion)
    assert node_ids(scene) == before
    scene.RemoveNode(ct)
    with pytest.raises(InputError, match="left the scene"):
        write_report(scene, plan, effusion)


def test_a_failure_midway_leaves_the_scene_as_it_was(
    scene: Any, ct: Any, effusion: Outcome[ReportResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = node_ids(scene)

    def broken(*_arguments: Any) -> None:
        raise InputError("No folder today.")

    monkeypatch.setattr(scene_report, "_into_folder", broken)
    with pytest.raises(InputError, match="No folder"):
        write_report(scene, plan_report(ct), effusion)
    assert node_ids(scene) == before


# Again


def test_a_second_run_uses_the_same_nodes_and_the_first_can_be_had_back(
    scene: Any, ct: Any, report: SceneReport, healthy: Outcome[ReportResult]
) -> None:
    text, count, segments = read_text(report.text), scene.GetNumberOfNodes(), segment_ids(report.segmentation)
    fluid = evidence_segments(report.segmentation, ["pleural_effusion"])[0]
    voxels = segment_mask(report.segmentation, fluid, EFFUSION.geometry)
    own = add_segment(report.segmentation, "Mine")
    written = write_report(scene, plan_report(ct), healthy)
    assert written.report.nodes == report.nodes and scene.GetNumberOfNodes() == count
    assert read_text(report.text) != text and run_id(report.table) == healthy.report.run_id
    assert evidence_segments(report.segmentation, ["pleural_effusion"]) == ()
    assert own in segment_ids(report.segmentation)
    assert written.before is not None
    written.before.restore()
    assert read_text(report.text) == text and set(segment_ids(report.segmentation)) == {*segments, own}
    np.testing.assert_array_equal(segment_mask(report.segmentation, fluid, EFFUSION.geometry), voxels)
    assert run_id(report.table) == report.record().run_id != healthy.report.run_id
    _columns, rows = read_table(report.table)
    assert "present" in {row[2] for row in rows}


def test_a_segment_that_a_person_has_changed_stays_and_counts_and_is_no_measurement_any_more(
    scene: Any, ct: Any, report: SceneReport, healthy: Outcome[ReportResult], tmp_path: Path
) -> None:
    node = report.segmentation
    assert persons_segments(node) == () and plan_report(ct, node).request.masks is None
    (fluid,) = evidence_segments(node, ["pleural_effusion"])
    node.GetSegmentation().GetSegment(fluid).SetName("Pleural effusion")
    mask = segment_mask(node, fluid, EFFUSION.geometry)
    k = np.flatnonzero(mask.any(axis=(1, 2)))[0]
    mask[k] = False
    write_segment_block(node, fluid, mask, (0, 0, 0), EFFUSION.geometry)
    write_segment_block(node, fluid, ~mask, (0, 0, 0), EFFUSION.geometry, mode=WriteMode.ERASE)
    assert persons_segments(node) == (fluid,)
    path = tmp_path / "szene.mrb"
    save_scene(scene, path)
    given = plan_report(ct, node).request.masks
    assert given is not None and [info.name for info in given.segments] == ["Pleural effusion"]
    exported = result_to_export(report, "seg").masks
    assert exported is not None
    assert MEASUREMENT_TAG not in exported.segment(fluid).tags and FINDING_TAG in exported.segment(fluid).tags
    write_report(scene, plan_report(ct), healthy)
    assert fluid in segment_ids(node) and persons_segments(node) == (fluid,)
    np.testing.assert_array_equal(segment_mask(node, fluid, EFFUSION.geometry), mask)
    load_scene(scene, path)
    (again,) = reports_of(scene)
    assert persons_segments(again.segmentation) == (fluid,)


def test_a_second_run_that_fails_midway_brings_the_first_back(
    scene: Any, ct: Any, report: SceneReport, healthy: Outcome[ReportResult], monkeypatch: pytest.MonkeyPatch
) -> None:
    text, segments = read_text(report.text), segment_ids(report.segmentation)

    def broken(*_arguments: Any) -> None:
        monkeypatch.undo()
        raise InputError("No table today.")

    monkeypatch.setattr(scene_report, "write_finding_table", broken)
    with pytest.raises(InputError, match="No table"):
        write_report(scene, plan_report(ct), healthy)
    assert read_text(report.text) == text and segment_ids(report.segmentation) == segments
    assert read_text(report.text) == shown_text(report.result())


def test_a_deleted_segmentation_or_table_is_made_anew_or_done_without(
    scene: Any, ct: Any, report: SceneReport, healthy: Outcome[ReportResult]
) -> None:
    scene.RemoveNode(report.segmentation)
    assert report.masks() is None and show_evidence(report, ["pleural_effusion"]) is not None
    write_report(scene, plan_report(ct), healthy)
    assert report.segmentation is not None and "left_lung" in segment_ids(report.segmentation)
    scene.RemoveNode(report.table)
    write_report(scene, plan_report(ct), healthy)
    assert report.table is None and len(report.nodes) == 3
    scene.RemoveNode(report.record_node)
    assert not report.is_there and reports_of(scene) == ()
    with pytest.raises(InputError, match="left the scene"):
        report.record()


def test_each_ct_has_its_own_report(scene: Any, ct: Any, report: SceneReport, healthy: Outcome[ReportResult]) -> None:
    other = write_volume(scene, HEALTHY, name="Other")
    assert report_of(other) is None
    second = write_report(scene, plan_report(other), healthy).report
    assert second.text is not report.text and len(reports_of(scene)) == 2
    found = report_of(ct)
    assert found is not None and found.text is report.text and report_of(None) is None


# Saved and loaded


@pytest.mark.parametrize("ending", ["mrb", "mrml"])
def test_a_loaded_scene_shows_the_same_report(
    scene: Any, ct: Any, report: SceneReport, tmp_path: Path, ending: str
) -> None:
    report.text.SetText(read_text(report.text) + "- Größe geprüft.\n", report.text.GetEncoding())
    assert report.take_edit("Zoë", "2026-01-01T10:00:00Z")
    text, record = read_text(report.text), report.record()
    path = tmp_path / f"szene ü.{ending}"
    save_scene(scene, path)
    load_scene(scene, path)
    (again,) = reports_of(scene)
    assert again.volume is not None and again.volume.GetName() == "Müller"
    assert read_text(again.text) == text and "Größe" in text
    assert again.record().result.sections == record.result.sections
    assert again.record().result.edits == record.result.edits
    assert again.record().places == record.places and run_id(again.table) == record.run_id
    assert again.take_edit("Zoë", "later") is False
    assert {"left_lung", "right_lung", "airways"} < set(segment_ids(again.segmentation))
    assert show_evidence(again, ["pleural_effusion"]) is not None
    assert again.text.GetAttribute(f"{PREFIX}image_sha256") == record.result.provenance["image_sha256"]


def test_reports_of_two_scenes_are_told_apart_when_one_is_added_to_the_other(
    scene: Any, ct: Any, report: SceneReport, healthy: Outcome[ReportResult], tmp_path: Path
) -> None:
    path = tmp_path / "first.mrb"
    save_scene(scene, path)
    write_report(scene, plan_report(ct), healthy)
    load_scene(scene, path, clear=False)
    first, second = reports_of(scene)
    assert first.volume is ct and second.volume is not ct and second.volume is not None
    assert first.result().table == healthy.result.table
    assert second.result().table != healthy.result.table and second.segmentation is not first.segmentation


# Edited


def test_an_edit_anywhere_in_slicer_is_taken_over_and_recorded(report: SceneReport) -> None:
    assert report.take_edit("Zoë", "now") is False
    text = read_text(report.text)
    report.text.SetText(text.replace("TECHNIQUE\n", "TECHNIQUE\n- Breath held.\n"), report.text.GetEncoding())
    assert report.take_edit("Zoë", "2026-01-01T10:00:00Z") is True
    result = report.result()
    assert [(one.who, one.section, one.before, one.after) for one in result.edits] == [
        ("Zoë", "Technique", "", "Breath held.")
    ]
    assert result.sections[0].sentences[0].verdict is Verdict.EDITED
    assert shown_text(result) == read_text(report.text)


def test_a_record_that_was_changed_by_hand_is_said(report: SceneReport) -> None:
    report.record_node.SetText("{}", report.text.GetEncoding())
    with pytest.raises(UnreadableFile, match="cannot be read"):
        report.take_edit("", "")


# Places


def test_a_sentence_leads_to_its_segment_and_only_that_is_drawn_in_full(scene: Any, report: SceneReport) -> None:
    view = scene.AddNewNodeByClass("vtkMRMLSliceNode")
    view.SetLayoutName("Red")
    view.SetOrientation("Axial")
    node = report.segmentation
    (fluid,) = evidence_segments(node, ["pleural_effusion"])
    place = show_evidence(report, ["pleural_effusion"])
    assert place == segment_middle_ras_mm(node, fluid)
    assert view.GetSliceOffset() == pytest.approx(place[2], abs=0.01)
    display = node.GetDisplayNode()
    assert display.GetSegmentOpacity2DFill(fluid) > 0.5 > display.GetSegmentOpacity2DFill("left_lung")
    assert display.GetSegmentOpacity2DOutline("left_lung") < 0.5
    assert show_evidence(report, ["hiatal_hernia"]) is None
    assert display.GetSegmentOpacity2DOutline("left_lung") == 1.0


def test_a_number_leads_to_where_it_was_measured(report: SceneReport) -> None:
    place = show_evidence(report, [], ["Volume of the left lung"])
    assert place is not None
    index = np.rint(np.linalg.solve(EFFUSION.ijk_to_ras, [*place, 1.0])[:3]).astype(int)
    assert EFFUSION.array[tuple(index[::-1])] < -500 and place[0] < 0
    assert show_evidence(report, [], ["no such number"]) is None


# Files


def test_the_report_is_exported_as_it_is_now(scene: Any, report: SceneReport, tmp_path: Path) -> None:
    text = read_text(report.text)
    report.text.SetText(text.replace("TECHNIQUE\n", "TECHNIQUE\n- Breath held.\n"), report.text.GetEncoding())
    report.take_edit("Zoë", "now")
    report.segmentation.GetSegmentation().RemoveSegment("left_lung")
    add_segment(report.segmentation, "Mine")
    folder = tmp_path / "Ärzte 1"
    folder.mkdir()
    page = export_report(report, "html", folder).read_text(encoding="utf-8")
    assert "Breath held." in page and "data:image/png" in page and "Research use only" in page
    assert "Zoë" in export_report(report, "json", folder).read_text(encoding="utf-8")
    result = result_to_export(report, "nii")
    assert result.masks is not None and "left_lung" not in {info.id for info in result.masks.segments}
    assert "Mine" in {info.name for info in result.masks.segments}
    with pytest.raises(InputError, match="DICOM"):
        export_report(report, "sr", folder)


def test_dicom_objects_of_a_ct_under_a_transform_refer_to_its_slices(
    scene: Any, shared_data: Callable[[str], Path], tmp_path: Path
) -> None:
    pytest.importorskip("highdicom", reason="highdicom is not installed: no DICOM objects")
    import pydicom

    from MedAILib.imageio import read_volume as read_image

    folder = shared_data("dicom/ct_pat1_rtstruct")
    files = {}
    for path in sorted(folder.iterdir()):
        header = pydicom.dcmread(path, stop_before_pixels=True)
        if header.Modality == "CT":
            files[str(header.SOPInstanceUID)] = str(path)

    class Database:
        def fileForInstance(self, uid: str) -> str:
            return files.get(uid, "")

    node = write_volume(scene, read_image(folder), name="Pat1")
    node.SetAttribute("DICOM.instanceUIDs", " ".join(files))
    under_transform(scene, node, SHIFT)
    plan = plan_report(node)
    report = write_report(scene, plan, run(plan.request)).report
    for kind in ("sr", "seg"):
        written = pydicom.dcmread(export_report(report, kind, tmp_path / kind, Database()))
        assert written.Modality == kind.upper()
        assert written.PatientID == pydicom.dcmread(next(iter(files.values())), stop_before_pixels=True).PatientID
    planes = pydicom.dcmread(tmp_path / "seg.dcm")
    referred = {
        str(one.ReferencedSOPInstanceUID)
        for series in planes.ReferencedSeriesSequence
        for one in series.ReferencedInstanceSequence
    }
    assert referred <= set(files)
    with pytest.raises(InputError):
        export_report(report, "seg", tmp_path, None)


# A real CT


def test_a_real_ct_becomes_a_report_in_the_scene(scene: Any, shared_data: Callable[[str], Path]) -> None:
    from MedAILib.imageio import read_volume as read_image

    whole = read_image(shared_data("vol3d/chestct_lung1_001/image.nii.gz"))
    k, j, i = whole.array.shape
    part = cropped(whole, Box((0, j // 6, 0), (k, j - j // 8, i)))
    thin = Volume(part.array[:, ::2, ::2], part.ijk_to_ras @ np.diag([2.0, 2.0, 1.0, 1.0]), "Lung1 001")
    node = write_volume(scene, thin)
    plan = plan_report(node)
    report = write_report(scene, plan, run(plan.request)).report
    result = report.result()
    assert len(result.table) == 18 and result.sections[-1].title == "Impression"
    left, right = (segment_middle_ras_mm(report.segmentation, one) for one in ("left_lung", "right_lung"))
    assert left is not None and right is not None and left[0] < right[0]
    for section in result.sections:
        for sentence in section.sentences:
            show_evidence(report, sentence.findings, sentence.measurements)
    np.testing.assert_array_equal(read_volume(node).array, thin.array)
    np.testing.assert_array_equal(node_to_world(node), np.eye(4))
    assert replace(result, edits=()) is not result
