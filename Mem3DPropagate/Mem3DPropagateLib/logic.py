"""A propagation in the scene: planned from nodes, run by any runner, written back whole or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from MedAILib import imageio
from MedAILib.errors import InputError
from MedAILib.jobs.execute import Outcome
from MedAILib.mrml.label_maps import segmentation_from_label_map
from MedAILib.mrml.nodes import set_run_id
from MedAILib.mrml.segment_edit import write_segment_slices
from MedAILib.mrml.segmentations import (
    get_tag,
    is_on_grid,
    mismatch,
    segment_ids,
    segment_info,
    segment_mask,
    set_reference_geometry,
    set_tag,
)
from MedAILib.mrml.undo import restoring
from MedAILib.mrml.volumes import read_volume, volume_geometry, write_volume
from Mem3DPropagateLib.drawings import default_extent, filled_slices, guess_axis, take_drawing
from Mem3DPropagateLib.record import EMPTY, TAG, Record, changed_slices, merged, new_record
from Mem3DPropagateLib.request import Axis, Drawing, Method, PropagatedSegment, PropagateRequest, PropagateResult
from Mem3DPropagateLib.shapes import centre_px

TASK = "Mem3DPropagateLib.task:PropagateTask"


@dataclass(frozen=True)
class Options:
    """What the user chose.

    Attributes
    ----------
    axis : Axis or None
        None: the axis of the last propagation, or else the one drawn along.
    references : tuple of int or None
        Slices to take as drawn; None: every slice the user drew or corrected.
    extend : int, "auto" or None
        Slices beyond the outermost references; "auto": until the structure has closed; None: 0, or "auto"
        where a single slice is drawn.
    method : Method
    all_gaps : bool
        Recompute everything even where only a few slices were corrected.
    """

    axis: Axis | None = None
    references: tuple[int, ...] | None = None
    extend: int | str | None = None
    method: Method = Method.AUTO
    all_gaps: bool = False


@dataclass(frozen=True, eq=False)
class _Source:
    """One chosen segment as it is in the scene."""

    segment_id: str
    mask_kji: np.ndarray
    record: Record | None
    drawing: Drawing
    corrected: frozenset[int]
    """Slices changed since the last propagation; empty where all must be recomputed."""


class ScenePropagation:
    """A propagation of segments of a segmentation node; nothing in the scene changes before `write`.

    Parameters
    ----------
    segmentation_node : vtkMRMLSegmentationNode
    volume_node : vtkMRMLScalarVolumeNode
    ids : sequence of str, optional
        Segments; all that are not empty where not given.
    options : Options

    Raises
    ------
    InputError, GeometryMismatch, NothingDrawn
    """

    def __init__(
        self, segmentation_node: Any, volume_node: Any, ids: Sequence[str] | None = None, options: Options | None = None
    ) -> None:
        options = options or Options()
        self.segmentationNode = segmentation_node
        volume = read_volume(volume_node)
        self._geometry = volume.geometry
        masks = self._masks(ids)
        records = {one: read_record(segmentation_node, one) for one in masks}
        axis = options.axis or next((r.axis for r in records.values() if r is not None), None)
        self._axis = axis or guess_axis(masks.values())
        sources = [self._source(one, masks[one], records[one], options) for one in masks]
        self._extend = _extend(options, [source.drawing for source in sources])
        span = None if options.all_gaps or options.references is not None else self._span_to_correct(sources)
        # In a correction only the segments that were corrected take part.
        self._sources = sources if span is None else [source for source in sources if source.corrected]
        self._is_correction = span is not None
        self.request = PropagateRequest(
            volume=volume,
            axis=self._axis,
            drawings=tuple(source.drawing for source in self._sources),
            extend=self._extend,
            only_slices=span,
            method=options.method,
        )

    def write(self, outcome: Outcome[PropagateResult]) -> None:
        """Write a result into the segmentation: slices, tags, run id. Where it fails nothing has changed."""
        result, run_id = outcome.result, outcome.report.run_id
        self._check_nothing_changed()
        with restoring(self.segmentationNode, [source.segment_id for source in self._sources]):
            # Twice where needed: a voxel that moves from one segment to another is free the second time.
            waiting = list(zip(self._sources, result.segments, strict=True))
            waiting = [pair for pair in waiting if self._write_slices(*pair)]
            for pair in waiting:
                self._write_slices(*pair)
            for source, segment in zip(self._sources, result.segments, strict=True):
                self._remember(source, segment, run_id)
        set_run_id(self.segmentationNode, run_id)

    def _check_nothing_changed(self) -> None:
        """The scene stays usable during a run: what was drawn meanwhile must not be lost."""
        node = self.segmentationNode
        gone = node.GetScene() is None or any(s.segment_id not in segment_ids(node) for s in self._sources)
        if gone or any(
            not np.array_equal(segment_mask(node, s.segment_id, self._geometry), s.mask_kji) for s in self._sources
        ):
            raise InputError(
                "The segments were changed while the propagation ran; its result was not taken over.",
                why="Writing it could have undone what was drawn meanwhile.",
                todo="Press Propagate again: the new drawing is taken into account.",
            )

    def _masks(self, ids: Sequence[str] | None) -> dict[str, np.ndarray]:
        wanted = segment_ids(self.segmentationNode) if ids is None else tuple(ids)
        masks = {one: segment_mask(self.segmentationNode, one, self._geometry) for one in wanted}
        chosen = masks if ids is not None else {one: mask for one, mask in masks.items() if mask.any()}
        if not wanted:
            raise InputError(
                f"The segmentation '{self.segmentationNode.GetName()}' has no segment.",
                todo="Add a segment and draw the structure on three to five slices.",
            )
        if any(masks[one].any() and not is_on_grid(self.segmentationNode, one, self._geometry) for one in chosen):
            raise mismatch(self.segmentationNode)
        return chosen or masks

    def _source(self, segment_id: str, mask: np.ndarray, record: Record | None, options: Options) -> _Source:
        name = segment_info(self.segmentationNode, segment_id).name
        if record is not None and record.axis is not self._axis:
            record = None
        corrected: frozenset[int] = frozenset()
        references = options.references
        if references is None and record is not None:
            drawn, emptied = changed_slices(record, mask)
            filled = set(filled_slices(mask, self._axis))
            kept = {r for r in record.references if r in filled or record.fingerprints[r] == EMPTY}
            # A propagated slice the user emptied says "not here"; an emptied reference is given up.
            references = tuple(sorted(kept | drawn | (emptied - set(record.references))))
            if kept == set(record.references):
                corrected = frozenset(drawn | emptied)
        return _Source(
            segment_id, mask, record, take_drawing(segment_id, name, mask, self._axis, references), corrected
        )

    def _span_to_correct(self, sources: Sequence[_Source]) -> tuple[int, int] | None:
        """First and last slice of the gaps around all corrections; None where everything must be recomputed."""
        changed = [s for s in sources if s.corrected]
        same_extent = all(s.record is not None and s.record.extend == self._extend for s in sources)
        unseen = any(s.record is None for s in sources)
        if not changed or unseen or not same_extent:
            return None
        count = self._geometry.shape_kji[self._axis.array_axis]
        first, last = count, 0
        for source in changed:
            others = [r for r in source.drawing.slices if r not in source.corrected]
            low, high = min(source.corrected), max(source.corrected)
            first = min(first, max((r for r in others if r < low), default=0))
            last = max(last, min((r for r in others if r > high), default=count - 1))
        return first, last

    def _write_slices(self, source: _Source, segment: PropagatedSegment) -> int:
        """Write one segment; answers how many voxels other segments kept."""
        slices = {q.index for q in segment.slices}
        if not self._is_correction and source.record is not None:
            slices |= {q.index for q in source.record.slices} - set(source.drawing.slices)
        return write_segment_slices(
            self.segmentationNode,
            source.segment_id,
            segment.block,
            segment.origin_kji,
            self._geometry,
            axis=self._axis.array_axis,
            slices=sorted(slices),
            allow_overlap=self._was_drawn_over_others(source),
        ).yielded

    def _was_drawn_over_others(self, source: _Source) -> bool:
        return any(bool((source.mask_kji & other.mask_kji).any()) for other in self._sources if other is not source)

    def _remember(self, source: _Source, segment: PropagatedSegment, run_id: str) -> None:
        mask = segment_mask(self.segmentationNode, source.segment_id, self._geometry)
        record = new_record(segment, mask, self._axis, run_id, self._extend)
        if self._is_correction and source.record is not None:
            record = merged(source.record, record, mask)
        set_tag(self.segmentationNode, source.segment_id, TAG, record.to_json())


def read_record(segmentation_node: Any, segment_id: str) -> Record | None:
    """What a segment remembers of its last propagation; None where there was none."""
    text = get_tag(segmentation_node, segment_id, TAG)
    return None if text is None else Record.from_json(text)


def read_records(segmentation_node: Any, ids: Sequence[str] | None = None) -> list[tuple[str, str, Record]]:
    """Id, name and record of the segments that were propagated."""
    found = []
    for one in segment_ids(segmentation_node):
        record = read_record(segmentation_node, one) if ids is None or one in ids else None
        if record is not None:
            found.append((one, segment_info(segmentation_node, one).name, record))
    return found


def middle_of_slice_ras_mm(
    segmentation_node: Any, segment_id: str, volume_node: Any, index: int
) -> tuple[float, float, float]:
    """The middle of a segment on a slice along its last propagation's axis, or of the slice where it is empty."""
    record = read_record(segmentation_node, segment_id)
    axis = record.axis if record is not None else Axis.K
    geometry = volume_geometry(volume_node)
    mask = segment_mask(segmentation_node, segment_id, geometry)
    plane = np.take(mask, index, axis=axis.array_axis)
    middle = list(centre_px(plane) if plane.any() else (np.array(plane.shape) - 1) / 2)
    middle.insert(axis.array_axis, index)
    right, anterior, superior, _ = geometry.ijk_to_ras @ (*middle[::-1], 1.0)
    return float(right), float(anterior), float(superior)


def load_drawing(scene: Any, volume_path: Path, segmentation_path: Path) -> tuple[Any, Any]:
    """Load a volume and a drawing on it; answers the volume node and the segmentation node."""
    volume_node = write_volume(scene, imageio.read_volume(volume_path))
    label_map = imageio.read_label_map(segmentation_path)
    segmentation_node = segmentation_from_label_map(scene, label_map)
    set_reference_geometry(segmentation_node, volume_node)
    return volume_node, segmentation_node


def _extend(options: Options, drawings: Sequence[Drawing]) -> int | None:
    if options.extend is None:
        return default_extent(drawings)
    return None if options.extend == "auto" else int(options.extend)
