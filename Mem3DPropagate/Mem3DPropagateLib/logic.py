"""A propagation in the scene: planned from nodes, run by any runner, written back whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np

from MedAILib import imageio
from MedAILib.errors import GeometryMismatch, InputError
from MedAILib.grids import bounding_box
from MedAILib.jobs.execute import Outcome
from MedAILib.mrml.label_maps import segmentation_from_label_map
from MedAILib.mrml.lattice import lattice_map
from MedAILib.mrml.nodes import node_to_world, set_run_id
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
from MedAILib.mrml.volumes import read_volume, write_volume
from MedAILib.volume import Geometry, Volume
from Mem3DPropagateLib.drawings import default_extent, filled_slices, guess_axis, take_drawing
from Mem3DPropagateLib.record import EMPTY, TAG, Record, changed_slices, gaps_around, merged, new_record
from Mem3DPropagateLib.request import Axis, Drawing, Method, PropagatedSegment, PropagateRequest, PropagateResult
from Mem3DPropagateLib.shapes import centre_px

_Neighbours = tuple[list[str], list[str]]


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
        Slices beyond the outermost references; "auto": until the structure has closed; None: as in the last
        propagation, or else 0, or "auto" where a single slice is drawn.
    method : Method
    weights : str
        A weight file for the method, see `PropagateRequest`.
    all_gaps : bool
        Recompute everything even where only a few slices were corrected.
    """

    axis: Axis | None = None
    references: tuple[int, ...] | None = None
    extend: int | str | None = None
    method: Method = Method.AUTO
    weights: str = ""
    all_gaps: bool = False


@dataclass(frozen=True, eq=False)
class _Source:
    """One chosen segment as it is in the scene."""

    segment_id: str
    mask_kji: np.ndarray
    record: Record | None
    drawing: Drawing
    gaps: frozenset[int]
    """Slices to compute anew in a correction: the gaps around what has changed since the last propagation."""


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
        known = segment_ids(segmentation_node) if ids is None else tuple(ids)
        records = {one: read_record(segmentation_node, one) for one in known}
        last = next((record for record in records.values() if record is not None), None)
        volume = _as_at(last, read_volume(volume_node), segmentation_node)
        self._geometry = volume.geometry
        self._known_grid = volume.geometry if last is None else _grid_of(last, segmentation_node)
        masks = self._masks(ids)
        self._axis = options.axis or (last.axis if last is not None else guess_axis(masks.values()))
        sources = [self._source(one, masks[one], records[one], options) for one in masks]
        self._extend = _extend(options, last, [source.drawing for source in sources])
        self._is_correction = self._can_correct(sources, options)
        # In a correction only the segments that were corrected take part.
        self._sources = [source for source in sources if source.gaps] if self._is_correction else sources
        gaps = frozenset().union(*(source.gaps for source in self._sources))
        self.request = PropagateRequest(
            volume=volume,
            axis=self._axis,
            drawings=tuple(source.drawing for source in self._sources),
            extend=self._extend,
            only_slices=(min(gaps), max(gaps)) if self._is_correction else None,
            method=options.method,
            weights=options.weights,
        )

    def write(self, outcome: Outcome[PropagateResult], save_state: Callable[[], object] | None = None) -> None:
        """Write a result into the segmentation: slices, tags, run id. Where it fails nothing has changed.

        Parameters
        ----------
        outcome : Outcome
        save_state : callable, optional
            Called without arguments just before the first change, for undo.
        """
        result, run_id = outcome.result, outcome.report.run_id
        self._check_nothing_changed()
        if save_state is not None:
            save_state()
        neighbours = [self._neighbours(source) for source in self._sources]
        with restoring(self.segmentationNode, [source.segment_id for source in self._sources]):
            # Twice where needed: a voxel that moves from one segment to another is free the second time.
            waiting = list(zip(self._sources, result.segments, neighbours, strict=True))
            waiting = [one for one in waiting if self._write_slices(*one)]
            for one in waiting:
                self._write_slices(*one)
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
        references, gaps = options.references, frozenset[int]()
        if record is not None and not _grid_of(record, self.segmentationNode).same_grid_as(self._known_grid):
            raise _other_grid(name)
        if record is not None and record.axis is not self._axis:
            if references is None:
                raise _other_axis(name, record.axis, self._axis)
            record = None
        if references is None and record is not None:
            drawn, emptied = changed_slices(record, mask)
            filled = set(filled_slices(mask, self._axis))
            kept = {r for r in record.references if r in filled or record.fingerprints[r] == EMPTY}
            # A propagated slice the user emptied says "not here"; an emptied reference is given up.
            references = tuple(sorted(kept | drawn | (emptied - set(record.references))))
            count = self._geometry.shape_kji[self._axis.array_axis]
            gaps = gaps_around(drawn | emptied, references, count)
        drawing = take_drawing(segment_id, name, mask, self._axis, references)
        return _Source(segment_id, mask, record, drawing, gaps)

    def _can_correct(self, sources: Sequence[_Source], options: Options) -> bool:
        """True where only the gaps around what was changed need computing."""
        return (
            not options.all_gaps
            and options.references is None
            and all(s.record is not None and s.record.extend == self._extend for s in sources)
            and any(s.gaps for s in sources)
        )

    def _slices_to_write(self, source: _Source, segment: PropagatedSegment) -> frozenset[int]:
        """Slices of the result, and those of the last one that this one does not reach any more."""
        slices = frozenset(q.index for q in segment.slices)
        if source.record is not None:
            slices |= {q.index for q in source.record.slices}
        return slices & source.gaps if self._is_correction else slices

    def _write_slices(self, source: _Source, segment: PropagatedSegment, neighbours: _Neighbours) -> int:
        """Write one segment; answers how many voxels other segments kept."""
        over, beside = neighbours
        block = segment.block
        if over and beside:  # overlap is allowed then: keep out of segments that this one was not drawn over
            grid = _part_of(self._geometry, segment.origin_kji, block.shape)
            block = block & ~np.logical_or.reduce([segment_mask(self.segmentationNode, one, grid) for one in beside])
        return write_segment_slices(
            self.segmentationNode,
            source.segment_id,
            block,
            segment.origin_kji,
            self._geometry,
            axis=self._axis.array_axis,
            slices=sorted(self._slices_to_write(source, segment)),
            allow_overlap=bool(over),
        ).yielded

    def _neighbours(self, source: _Source) -> _Neighbours:
        """Other segments this one was drawn over; and those it was not, but for those that take part themselves."""
        node, box = self.segmentationNode, bounding_box(source.mask_kji)
        assert box is not None, "the task refuses a segment without a voxel"
        grid, own = _part_of(self._geometry, box.start_kji, box.shape_kji), source.mask_kji[box.slices]
        others = [one for one in segment_ids(node) if one != source.segment_id]
        over = [one for one in others if (own & segment_mask(node, one, grid)).any()]
        taking_part = {other.segment_id for other in self._sources}
        return over, [one for one in others if one not in over and one not in taking_part]

    def _remember(self, source: _Source, segment: PropagatedSegment, run_id: str) -> None:
        mask = segment_mask(self.segmentationNode, source.segment_id, self._geometry)
        to_local = np.linalg.solve(node_to_world(self.segmentationNode), self._geometry.ijk_to_ras)
        record = new_record(segment, mask, self._axis, run_id, self._extend, to_local)
        if self._is_correction and source.record is not None:
            record = merged(source.record, record, source.gaps, mask)
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
    geometry = _as_at(record, read_volume(volume_node), segmentation_node).geometry
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


def _grid_of(record: Record, segmentation_node: Any) -> Geometry:
    """The grid a record counts its slices on, in world RAS."""
    return Geometry(record.shape_kji, node_to_world(segmentation_node) @ np.array(record.ijk_to_local))


def _as_at(record: Record | None, volume: Volume, segmentation_node: Any) -> Volume:
    """The volume with its voxels in the order they had at a segment's last propagation.

    Slicer turns a left-handed volume round when it loads it: its slices are counted from the other end then.
    """
    if record is None:
        return volume
    grid = _grid_of(record, segmentation_node)
    index = lattice_map(volume.ijk_to_ras, grid.ijk_to_ras, grid.shape_kji)
    if index is None and volume.array.shape == grid.shape_kji:
        return volume  # both were moved since, by the same hardened transform
    if index is not None:
        start, array = index.to_target((0, 0, 0), volume.array)
        if start == (0, 0, 0) and array.shape == grid.shape_kji:
            return Volume(array, grid.ijk_to_ras, volume.name)
    raise _other_grid(segmentation_node.GetName())


def _other_grid(name: str) -> GeometryMismatch:
    return GeometryMismatch(
        f"'{name}' was last propagated through another volume.",
        why="Its slices are counted on that volume's voxels.",
        todo="Choose that volume, or propagate the segments one by one.",
    )


def _extend(options: Options, last: Record | None, drawings: Sequence[Drawing]) -> int | None:
    if options.extend is None:
        return default_extent(drawings) if last is None else last.extend
    if options.extend == "auto":
        return None
    if not isinstance(options.extend, Integral) or options.extend < 0:
        raise InputError(
            f"The structure cannot be extended by '{options.extend}' slices.", todo="Give a number from 0, or 'auto'."
        )
    return int(options.extend)


def _other_axis(name: str, before: Axis, now: Axis) -> InputError:
    return InputError(
        f"The segment '{name}' was last propagated along {before.value}, not along {now.value}.",
        why="Its propagated slices would be taken for drawn ones.",
        todo="Undo that propagation first, keep its axis, or name the reference slices.",
    )


def _part_of(geometry: Geometry, start_kji: Sequence[int], shape_kji: tuple[int, ...]) -> Geometry:
    matrix = geometry.ijk_to_ras.copy()
    matrix[:3, 3] += matrix[:3, :3] @ np.array(start_kji[::-1])
    return Geometry((shape_kji[0], shape_kji[1], shape_kji[2]), matrix)
