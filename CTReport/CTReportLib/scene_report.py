"""A report in the scene: a text to read and edit, a table, segments, and a record from which all can be had again.

The four nodes lie in one folder. The text node leads to the others and to the CT by references, so that a scene that
was saved and loaded shows the same report. The record (JSON, in a text node) is what the program reads; the text node
is what people read and may edit anywhere in Slicer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import slicer

from CTReportLib.edits import apply_edit, shown_text
from CTReportLib.record import ReportRecord, read_record_text, record_text
from CTReportLib.request import MEASUREMENT_TAG, RESEARCH_USE, FindingRow, ReportResult
from MedAILib.errors import InputError
from MedAILib.mrml.label_maps import label_map_from_segmentation, replace_segments, segmentation_from_label_map
from MedAILib.mrml.nodes import node_to_world, set_run_id
from MedAILib.mrml.segmentations import (
    get_tag,
    reference_geometry,
    segment_fingerprint,
    segment_ids,
    set_reference_geometry,
    set_tag,
)
from MedAILib.mrml.tables import Cell, Column, read_text, write_table, write_text
from MedAILib.mrml.volumes import volume_geometry
from MedAILib.volume import LabelMap, SegmentInfo

KIND_ATTRIBUTE, KIND = "MedAI.Kind", "CTReport"
"""Marks the text node of a report."""
PREFIX = "MedAI.CT."
"""Of the attributes that say how a report was made."""
NOTE_ATTRIBUTE = "MedAI.Note"
VOLUME_ROLE, RECORD_ROLE, TABLE_ROLE, SEGMENTATION_ROLE = (
    f"MedAICT{name}" for name in ("Volume", "Record", "Table", "Segmentation")
)
COMPUTED_TAG = "MedAI.CT.Computed"
"""Of segments that a run made: their fingerprint. One that a person has changed since does not fit it any more."""
_NAMES = {TABLE_ROLE: "findings", SEGMENTATION_ROLE: "localisation", RECORD_ROLE: "report record"}
_HEADINGS = {
    "finding": "Id",
    "name": "Finding",
    "decision": "Decision",
    "basis": "Basis",
    "probability": "Probability",
    "calibrated": "Calibrated",
    "threshold": "Threshold",
    "evidence": "Evidence",
    "measurement": "Measurement",
    "value": "Value",
    "unit": "Unit of value",
    "side": "Side",
    "place": "Place",
    "volume_ml": "Volume",
    "segment": "Segment",
    "candidate": "Candidate",
}
_UNITS = {"volume_ml": "ml"}
_TYPES = {"probability": float, "threshold": float, "value": float, "volume_ml": float}
_FLAGS = ("calibrated", "candidate")
_EMPTY = "empty"


@dataclass(frozen=True, eq=False)
class SceneReport:
    """A report of a scene; everything is read from the nodes when it is asked for.

    Attributes
    ----------
    text : vtkMRMLTextNode
        The report for people.
    """

    text: Any

    @property
    def is_there(self) -> bool:
        """Whether the report and its record are still in a scene."""
        return self.text.GetScene() is not None and self.record_node is not None

    @property
    def volume(self) -> Any:
        """The CT; None where it has left the scene."""
        return self.text.GetNodeReference(VOLUME_ROLE)

    @property
    def table(self) -> Any:
        return self.text.GetNodeReference(TABLE_ROLE)

    @property
    def segmentation(self) -> Any:
        return self.text.GetNodeReference(SEGMENTATION_ROLE)

    @property
    def record_node(self) -> Any:
        return self.text.GetNodeReference(RECORD_ROLE)

    @property
    def nodes(self) -> tuple[Any, ...]:
        """All that are there, the text first."""
        found = (self.text, self.table, self.segmentation, self.record_node)
        return tuple(node for node in found if node is not None)

    def record(self) -> ReportRecord:
        """What is known of the report.

        Raises
        ------
        InputError
            The record has left the scene.
        UnreadableFile
            It was changed, or is of a later version.
        """
        self.require()
        return read_record_text(read_text(self.record_node))

    def require(self) -> None:
        """Raise `InputError` where the report or its record has left the scene."""
        if not self.is_there:
            raise InputError(
                f"'{self.text.GetName()}' has left the scene, or its evidence has.",
                why="Its text node or its record node was deleted.",
                todo="Make the report again.",
            )

    def result(self) -> ReportResult:
        """The report without masks and pictures; see `with_masks`."""
        return self.record().result

    def masks(self) -> LabelMap | None:
        """All segments, those of people among them, in the CT node's own RAS; None where there are none."""
        node = self.segmentation
        if node is None or not segment_ids(node):
            return None
        geometry = volume_geometry(self.volume) if self.volume is not None else reference_geometry(node)
        if geometry is None:
            return None
        world = node_to_world(node if self.volume is None else self.volume)
        found = moved(label_map_from_segmentation(node, geometry), np.linalg.inv(world))
        changed = persons_segments(node)
        return replace(found, segments=tuple(_unmeasured(i) if i.id in changed else i for i in found.segments))

    def fill(self, record: ReportRecord, *, text: bool = True) -> None:
        """Write a record into text, table and record node; ``text``: False leaves what people read as it is."""
        scene = self.text.GetScene()
        write_text(scene, record_text(record), name=self.record_node.GetName(), node=self.record_node)
        if self.table is not None:
            write_finding_table(scene, record.result.table, self.table.GetName(), self.table)
        for node in self.nodes:
            _describe(node, record)
        if text:  # last: who watches the text finds the record that belongs to it
            write_text(scene, shown_text(record.result), name=self.text.GetName(), node=self.text)

    def take_edit(self, who: str, when: str) -> bool:
        """Take over what a person has changed in the text node; False where no sentence has changed.

        Errors as of `record`.
        """
        record = self.record()
        edited = apply_edit(record.result, read_text(self.text), who, when)
        if edited is record.result:
            return False
        self.fill(replace(record, result=edited), text=False)
        return True


class Snapshot:
    """A report as it is now; `restore` brings it back."""

    def __init__(self, report: SceneReport, *, segments: bool = True) -> None:
        self._report = report
        self._record = report.record()
        node = report.segmentation if segments else None
        self._segmentation = None
        if node is not None:
            self._segmentation = slicer.vtkSegmentation()
            self._segmentation.DeepCopy(node.GetSegmentation())

    def restore(self) -> None:
        report = self._report
        if self._segmentation is not None and report.segmentation is not None:
            report.segmentation.GetSegmentation().DeepCopy(self._segmentation)
        report.fill(self._record)


def persons_segments(node: Any) -> tuple[str, ...]:
    """Ids of the segments that no run made, or that a person has changed since."""
    return tuple(
        one
        for one in segment_ids(node)
        if get_tag(node, one, COMPUTED_TAG) != (segment_fingerprint(node, one) or _EMPTY)
    )


def reports_of(scene: Any) -> tuple[SceneReport, ...]:
    """All reports of a scene."""
    count = scene.GetNumberOfNodesByClass("vtkMRMLTextNode")
    nodes = (scene.GetNthNodeByClass(index, "vtkMRMLTextNode") for index in range(count))
    found = (SceneReport(node) for node in nodes if node.GetAttribute(KIND_ATTRIBUTE) == KIND)
    return tuple(report for report in found if report.is_there)


def report_of(volume_node: Any) -> SceneReport | None:
    """The report of a CT; None where it has none."""
    if volume_node is None or volume_node.GetScene() is None:
        return None
    return next((one for one in reports_of(volume_node.GetScene()) if one.volume is volume_node), None)


def new_report(scene: Any, volume_node: Any, masks: LabelMap, record: ReportRecord) -> SceneReport:
    """Nodes of a report that is not in the scene yet, whole or not at all.

    Parameters
    ----------
    scene : vtkMRMLScene
    volume_node : vtkMRMLScalarVolumeNode
    masks : LabelMap
        In the volume node's own RAS.
    record : ReportRecord
    """
    name = volume_node.GetName() or "CT"
    made: list[Any] = []
    with _removed_on_failure(scene, made):
        text = write_text(scene, "", name=scene.GenerateUniqueName(f"{name} report"))
        made.append(text)
        text.SetAttribute(KIND_ATTRIBUTE, KIND)
        text.SetNodeReferenceID(VOLUME_ROLE, volume_node.GetID())
        _stored(text, "txt")
        sidecar = write_text(scene, "", name=scene.GenerateUniqueName(f"{name} {_NAMES[RECORD_ROLE]}"))
        made.append(sidecar)
        _stored(sidecar, "json")
        table = write_finding_table(
            scene, record.result.table, scene.GenerateUniqueName(f"{name} {_NAMES[TABLE_ROLE]}")
        )
        made.append(table)
        text.SetNodeReferenceID(RECORD_ROLE, sidecar.GetID())
        text.SetNodeReferenceID(TABLE_ROLE, table.GetID())
        report = SceneReport(text)
        made.append(_new_segmentation(report, masks))
        report.fill(record)
        _into_folder(scene, report)
    return report


def replace_report(report: SceneReport, masks: LabelMap, record: ReportRecord) -> Snapshot:
    """A report made anew in the same nodes, whole or not at all; segments that people drew or changed stay.

    Returns
    -------
    Snapshot
        What was there before.
    """
    before = Snapshot(report)
    try:
        node = report.segmentation
        if node is None:
            _new_segmentation(report, masks)
        else:
            _finish_segments(node, replace_segments(node, masks, keep=persons_segments(node)), report.volume)
        report.fill(record)
    except BaseException:
        before.restore()
        raise
    return before


def write_finding_table(scene: Any, rows: tuple[FindingRow, ...], name: str, node: Any = None) -> Any:
    """The finding table as a table node: a column for each field of `FindingRow`, a row for each finding."""
    names = [one.name for one in fields(FindingRow)]
    columns = [
        Column(_HEADINGS[one], bool if one in _FLAGS else _TYPES.get(one, str), _UNITS.get(one, "")) for one in names
    ]
    return write_table(
        scene, columns, [[_cell(getattr(row, one)) for one in names] for row in rows], name=name, node=node
    )


def provenance(record: ReportRecord) -> dict[str, str]:
    """How a report was made, as texts by name, thresholds among them."""
    limits = {row.finding: row.threshold for row in record.result.table if row.threshold is not None}
    told: Mapping[str, str] = record.result.provenance
    said = {"thresholds": "; ".join(f"{name}={value:g}" for name, value in limits.items())}
    return {key: value for key, value in {**said, **told}.items() if value}


def moved(label_map: LabelMap, matrix: np.ndarray) -> LabelMap:
    """The label map in another space: ``matrix`` takes its RAS to the new one."""
    return LabelMap(label_map.layers, matrix @ label_map.ijk_to_ras, label_map.segments, label_map.name)


def _cell(value: Any) -> Cell:
    cell: Cell = getattr(value, "value", value)
    return cell


def _describe(node: Any, record: ReportRecord) -> None:
    set_run_id(node, record.run_id)
    node.SetAttribute(NOTE_ATTRIBUTE, RESEARCH_USE)
    said = provenance(record)
    for old in [one for one in node.GetAttributeNames() if one.startswith(PREFIX)]:
        if old.removeprefix(PREFIX) not in said:
            node.RemoveAttribute(old)
    for key, value in said.items():
        node.SetAttribute(f"{PREFIX}{key}", value)


def _stored(node: Any, ending: str) -> None:
    """With a file of its own when the scene is saved: short texts would go into the scene's file instead."""
    node.SetForceCreateStorageNode(node.CreateStorageNodeAlways)
    node.AddDefaultStorageNode()
    node.GetStorageNode().SetDefaultWriteFileExtension(ending)


def _new_segmentation(report: SceneReport, masks: LabelMap) -> Any:
    scene, volume = report.text.GetScene(), report.volume
    name = scene.GenerateUniqueName(f"{volume.GetName() or 'CT'} {_NAMES[SEGMENTATION_ROLE]}")
    node = segmentation_from_label_map(scene, masks, name=name)
    _finish_segments(node, segment_ids(node), volume)
    report.text.SetNodeReferenceID(SEGMENTATION_ROLE, node.GetID())
    return node


def _unmeasured(info: SegmentInfo) -> SegmentInfo:
    """Of a segment that is not any more what was measured."""
    kept = {tag: value for tag, value in info.tags.items() if tag not in (MEASUREMENT_TAG, COMPUTED_TAG)}
    return replace(info, tags=kept)


def _finish_segments(node: Any, computed: Sequence[str], volume_node: Any) -> None:
    """With the fingerprints of what was computed, under the transform of the CT and on its grid."""
    for one in computed:
        set_tag(node, one, COMPUTED_TAG, segment_fingerprint(node, one) or _EMPTY)
    node.SetAndObserveTransformNodeID(volume_node.GetTransformNodeID())
    set_reference_geometry(node, volume_node)


@contextmanager
def _removed_on_failure(scene: Any, nodes: list[Any]) -> Iterator[None]:
    try:
        yield
    except BaseException:
        for node in reversed(nodes):
            attached = _attached(node)
            scene.RemoveNode(node)
            for one in attached:
                scene.RemoveNode(one)
        raise


def _attached(node: Any) -> list[Any]:
    """Display and storage nodes, which would stay in the scene."""
    found = [node.GetNthStorageNode(index) for index in range(node.GetNumberOfStorageNodes())]
    if node.IsA("vtkMRMLDisplayableNode"):
        found += [node.GetNthDisplayNode(index) for index in range(node.GetNumberOfDisplayNodes())]
    return [one for one in found if one is not None]


def _into_folder(scene: Any, report: SceneReport) -> None:
    """A folder beside the CT with all nodes; scenes without a subject hierarchy are left alone."""
    hierarchy = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    if hierarchy is None:
        return
    volume_item = hierarchy.GetItemByDataNode(report.volume)
    parent = hierarchy.GetItemParent(volume_item) if volume_item else hierarchy.GetSceneItemID()
    folder = hierarchy.CreateFolderItem(parent, report.text.GetName())
    for node in report.nodes:
        item = hierarchy.GetItemByDataNode(node)
        if item:
            hierarchy.SetItemParent(item, folder)
