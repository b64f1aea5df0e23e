"""A chest CT of the scene as a request, its report into the scene, and the way from a sentence to its place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import slicer

from CTReportLib.exports import safe_name
from CTReportLib.record import Point, ReportRecord
from CTReportLib.request import (
    FINDING_TAG,
    MEASUREMENT_TAG,
    FindingRow,
    Models,
    ReportRequest,
    ReportResult,
    Sentence,
)
from CTReportLib.scene_report import (
    SceneReport,
    Snapshot,
    moved,
    new_report,
    persons_segments,
    replace_report,
    report_of,
)
from CTReportLib.terminology import with_terminology
from MedAILib.errors import InputError
from MedAILib.grids import middle_voxel_kji
from MedAILib.jobs.execute import Outcome
from MedAILib.mrml.dicom import dicom_modality, dicom_source_file
from MedAILib.mrml.label_maps import label_map_from_segmentation
from MedAILib.mrml.nodes import node_to_world
from MedAILib.mrml.segmentations import get_tag, segment_ids, segment_middle_ras_mm
from MedAILib.mrml.volumes import read_volume, volume_geometry
from MedAILib.volume import LabelMap, Volume

TASK = "CTReportLib.task:ReportTask"
PICTURED = ("html", "pdf", "docx")
"""Kinds of files with key images."""
_FAINT, _FULL, _USUAL, _CHEST_FILL = 0.12, 1.0, 0.5, 0.1


@dataclass(frozen=True, eq=False)
class ScenePlan:
    """A request and the node that it came from.

    Attributes
    ----------
    request : ReportRequest
    volume_node : vtkMRMLScalarVolumeNode
    world : ndarray, shape (4, 4)
        The node's transform when the request was made: results come in that world.
    """

    request: ReportRequest
    volume_node: Any
    world: np.ndarray


@dataclass(frozen=True, eq=False)
class Written:
    """What a run has put into the scene.

    Attributes
    ----------
    report : SceneReport
    before : Snapshot or None
        The report of the same CT that it took the place of.
    """

    report: SceneReport
    before: Snapshot | None


def plan_report(
    volume_node: Any,
    segments_node: Any = None,
    *,
    engine: str = "template",
    findings_only: bool = False,
    window_hu: tuple[float, float] | None = None,
    models: Models | None = None,
    cache: Path | None = None,
) -> ScenePlan:
    """What to ask about a CT of the scene; nothing has run or changed yet.

    Parameters
    ----------
    volume_node : vtkMRMLScalarVolumeNode
    segments_node : vtkMRMLSegmentationNode, optional
        Segments that are known already; those that bear a finding's name count as evidence of it. What a run has made
        and nobody has changed is left out: it would be evidence of itself.
    engine, findings_only, window_hu, models, cache
        See `ReportRequest`.

    Raises
    ------
    InputError
        No voxels, colours, or a transform that is not linear.
    ConfigError
        Settings that cannot be run; all problems at once.
    """
    volume = read_volume(volume_node)
    given = persons_segments(segments_node) if segments_node is not None else ()
    masks = label_map_from_segmentation(segments_node, volume.geometry, given) if given else None
    request = ReportRequest(
        volume=volume,
        masks=masks,
        modality=dicom_modality(volume_node),
        engine=engine,
        findings_only=findings_only,
        window_hu=window_hu,
        name=safe_name(volume_node.GetName() or "ct"),
        models=models or Models(),
        cache=cache,
    )
    request.validate()
    return ScenePlan(request, volume_node, node_to_world(volume_node))


def write_report(scene: Any, plan: ScenePlan, outcome: Outcome[ReportResult]) -> Written:
    """Take a report into the scene, whole or not at all; of a CT that has one already, into the same nodes.

    Raises
    ------
    InputError
        The CT has left the scene, or other voxels were loaded into it.
    """
    to_local = np.linalg.inv(plan.world)
    result = _with_run(outcome)
    masks = _local_masks(scene, plan, result, to_local)
    record = ReportRecord(result, outcome.report.run_id, measured_places(result, to_local))
    known, before = report_of(plan.volume_node), None
    if known is None:
        known = new_report(scene, plan.volume_node, masks, record)
    else:
        before = replace_report(known, masks, record)
    emphasise(known.segmentation, ())
    return Written(known, before)


def measured_places(result: ReportResult, to_local: np.ndarray) -> dict[str, Point]:
    """From a measurement's name to the middle of its mask, where it has one."""
    found = {}
    for one in result.measurements:
        index = middle_voxel_kji(one.mask.array) if one.mask is not None else None
        if one.mask is not None and index is not None:
            right, anterior, superior, _ = to_local @ one.mask.ijk_to_ras @ (*index[::-1], 1.0)
            found[one.name] = (float(right), float(anterior), float(superior))
    return found


def result_to_export(report: SceneReport, kind: str) -> ReportResult:
    """A report as it is now in the scene, with its segments, those of people among them, and with key images.

    Parameters
    ----------
    report : SceneReport
    kind : str
        What it will be written as; only some kinds show pictures.
    """
    from CTReportLib.keyimages import key_images

    result = replace(report.result(), masks=report.masks())
    volume_node = report.volume
    if kind not in PICTURED or volume_node is None or result.masks is None:
        return result
    volume = read_volume(volume_node)
    local = Volume(volume.array, np.linalg.inv(node_to_world(volume_node)) @ volume.ijk_to_ras, volume.name)
    return replace(result, pictures=key_images(local, result.masks))


def export_report(report: SceneReport, kind: str, path: Path, database: Any = None) -> Path:
    """Write a report as a file; see `CTReportLib.documents.export`.

    Parameters
    ----------
    database : ctkDICOMDatabase, optional
        Where the slices of the CT are found, for DICOM kinds.
    """
    from CTReportLib.documents import KINDS, export

    source = None
    if kind in KINDS and KINDS[kind].needs_source and report.volume is not None:
        source = dicom_source_file(report.volume, database)
    return export(result_to_export(report, kind), kind, path, source=source)


def user_name() -> str:
    """As the system names the user; empty where it does not."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # no such user in the system's list, or no list
        return ""


# From words to places


def show_evidence(report: SceneReport, findings: Sequence[str], measurements: Sequence[str] = ()) -> Point | None:
    """Let the slice views show what findings and measurements rest on, and only that be drawn in full.

    Parameters
    ----------
    report : SceneReport
    findings : sequence of str
        Ids.
    measurements : sequence of str
        Names; their own segments come first.

    Returns
    -------
    tuple of float or None
        The place, world RAS mm; None where nothing shows it: then all segments look as usual.

    Raises
    ------
    InputError
        The report has left the scene.
    """
    report.require()
    node = report.segmentation
    shown = evidence_segments(node, findings, measurements) if node is not None else ()
    place = next((one for one in (segment_middle_ras_mm(node, known) for known in shown) if one is not None), None)
    if place is None:
        place = _measured_place(report, findings, measurements)
    if node is not None:
        emphasise(node, shown)
    if place is not None:
        slicer.vtkMRMLSliceNode.JumpAllSlices(report.text.GetScene(), *place)
    return place


def evidence_segments(node: Any, findings: Sequence[str], measurements: Sequence[str] = ()) -> tuple[str, ...]:
    """Ids of the segments of measurements, else of those of findings."""
    tagged = {one: (get_tag(node, one, MEASUREMENT_TAG), get_tag(node, one, FINDING_TAG)) for one in segment_ids(node)}
    measured = tuple(one for one, (measurement, _finding) in tagged.items() if measurement in measurements)
    return measured or tuple(one for one, (_measurement, finding) in tagged.items() if finding in findings)


def emphasise(node: Any, chosen: Sequence[str]) -> None:
    """Draw some segments in full and all others faintly; with none chosen as usual, lungs and airways lightly."""
    display = node.GetDisplayNode()
    if display is None:
        return
    for one in segment_ids(node):
        usual = _USUAL if get_tag(node, one, FINDING_TAG) else _CHEST_FILL
        fill = (_FULL if one in chosen else _FAINT) if chosen else usual
        display.SetSegmentOpacity2DFill(one, min(fill, 0.7))
        display.SetSegmentOpacity2DOutline(one, _FULL if not chosen or one in chosen else _FAINT)
        display.SetSegmentOpacity3D(one, fill if chosen else (_FULL if usual == _USUAL else 0.3))
        if one in chosen:
            display.SetSegmentVisibility(one, True)


def rows_of(sentence: Sentence, result: ReportResult) -> tuple[FindingRow, ...]:
    """The rows that a sentence speaks of."""
    return tuple(row for row in result.table if row.finding in sentence.findings)


def _measured_place(report: SceneReport, findings: Sequence[str], measurements: Sequence[str]) -> Point | None:
    record = report.record()
    names = [*measurements, *(one.name for one in record.result.measurements if one.finding_id in findings)]
    local = next((record.places[name] for name in names if name in record.places), None)
    if local is None or report.volume is None:
        return None
    right, anterior, superior, _ = node_to_world(report.volume) @ (*local, 1.0)
    return float(right), float(anterior), float(superior)


def _with_run(outcome: Outcome[ReportResult]) -> ReportResult:
    """With versions of packages and hashes of weights as the run's report has them."""
    told: dict[str, str] = {}
    if outcome.report.versions:
        told["packages"] = "; ".join(f"{name} {version}" for name, version in outcome.report.versions.items())
    if outcome.report.weights:
        told["weights"] = "; ".join(outcome.report.weights)
    provenance: Mapping[str, str] = {**told, **outcome.result.provenance}
    return replace(outcome.result, provenance=provenance)


def _local_masks(scene: Any, plan: ScenePlan, result: ReportResult, to_local: np.ndarray) -> LabelMap:
    node = plan.volume_node
    if node.GetScene() is not scene:
        raise InputError(
            "The report was not taken over.",
            why="Its CT has left the scene.",
            todo="Load the CT again, then run again.",
        )
    now = volume_geometry(node)
    local_now = type(now)(now.shape_kji, np.linalg.inv(node_to_world(node)) @ now.ijk_to_ras)
    if result.masks is None:
        return LabelMap((np.zeros(now.shape_kji, np.uint8),), local_now.ijk_to_ras, ())
    masks = moved(with_terminology(result.masks, result.measurements), to_local)
    if not masks.geometry.same_grid_as(local_now):
        raise InputError(
            f"The report was not taken over: it does not fit '{node.GetName()}' any more.",
            why="Other voxels were loaded into it while the report was made.",
            todo="Run again.",
        )
    return masks
