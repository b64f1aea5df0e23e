"""Back to how a segmentation was: a cheap snapshot of some segments, and the host's own undo history."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer

from MedAILib.grids import bounding_box
from MedAILib.mrml.lattice import overlap, window
from MedAILib.mrml.layers import layer_of, segment_of, segmentation_of
from MedAILib.mrml.nodes import modifying, node_to_world
from MedAILib.mrml.segment_edit import WriteMode, write_segment_block
from MedAILib.mrml.segmentations import add_segment, segment_ids, segment_info, segment_tags
from MedAILib.volume import Geometry, SegmentInfo


@dataclass(frozen=True, eq=False)
class _Saved:
    """A segment: what is known of it, and its voxels in the box around them."""

    position: int
    info: SegmentInfo
    voxels: np.ndarray
    voxels_to_local: np.ndarray


@dataclass(frozen=True, eq=False)
class SegmentationSnapshot:
    """Some segments of a node as they are now; `restore` brings them back.

    Keeps each segment's voxels within the box around them, its name, colour and tags.
    Segments that were not named are neither kept nor changed.
    """

    node: Any
    whole: bool
    saved: Mapping[str, _Saved] = field(repr=False)

    @classmethod
    def of(cls, node: Any, ids: Sequence[str] | None = None) -> SegmentationSnapshot:
        """Take a snapshot.

        Parameters
        ----------
        node : vtkMRMLSegmentationNode
        ids : sequence of str, optional
            The segments about to change; all where not given, and then `restore` removes segments added since.
        """
        known = segment_ids(node)
        chosen = known if ids is None else tuple(ids)
        return cls(node, ids is None, {one: _save(node, one, known) for one in chosen})

    def restore(self) -> None:
        """Bring the segments back; only voxels that differ are written."""
        node = self.node
        with modifying(node):
            if self.whole:
                for added in set(segment_ids(node)) - set(self.saved):
                    segmentation_of(node).RemoveSegment(added)
            for segment_id, saved in self.saved.items():
                _restore(node, segment_id, saved)


@contextmanager
def restoring(node: Any, ids: Sequence[str] | None = None) -> Iterator[SegmentationSnapshot]:
    """Change segments in the block; where it ends in an error or is cancelled, they are as they were."""
    snapshot = SegmentationSnapshot.of(node, ids)
    try:
        yield snapshot
    except BaseException:
        snapshot.restore()
        raise


class UndoHistory:
    """Undo and redo of all changes to a segmentation, by the host's ``vtkSegmentationHistory``.

    Slicer's Segment Editor keeps a history of its own: where an editor is open, ask it to save its state
    (``saveStateForUndo``) instead, so that its Undo button knows of the change.

    Parameters
    ----------
    node : vtkMRMLSegmentationNode
    states : int
        How many states to keep; each holds copies of the layers changed since the one before.
    """

    def __init__(self, node: Any, states: int = 5) -> None:
        self._history = slicer.vtkSegmentationHistory()
        self._history.SetSegmentation(segmentation_of(node))
        self._history.SetMaximumNumberOfStates(states)

    def save(self) -> None:
        """Remember the present state; call it before a change."""
        self._history.SaveState()

    @property
    def can_undo(self) -> bool:
        return bool(self._history.IsRestorePreviousStateAvailable())

    @property
    def can_redo(self) -> bool:
        return bool(self._history.IsRestoreNextStateAvailable())

    def undo(self) -> bool:
        """Back to the state before; False where there is none."""
        return self.can_undo and bool(self._history.RestorePreviousState())

    def redo(self) -> bool:
        """Forward again; False where there is nothing undone."""
        return self.can_redo and bool(self._history.RestoreNextState())

    def clear(self) -> None:
        """Forget all states and free their memory."""
        self._history.RemoveAllStates()


def _save(node: Any, segment_id: str, known: Sequence[str]) -> _Saved:
    info = segment_info(node, segment_id)
    layer = layer_of(node, segment_id)
    mask = layer.array == layer.label_of(segment_id)
    box = bounding_box(mask) if mask.size else None
    to_local = np.linalg.solve(node_to_world(node), layer.ijk_to_world)
    if box is None:
        return _Saved(known.index(segment_id), info, np.zeros((0, 0, 0), bool), to_local)
    shift = np.eye(4)
    shift[:3, 3] = np.add(layer.start_kji, box.start_kji)[::-1]
    return _Saved(known.index(segment_id), info, mask[box.slices].copy(), to_local @ shift)


def _restore(node: Any, segment_id: str, saved: _Saved) -> None:
    segmentation, info = segmentation_of(node), saved.info
    if segmentation.GetSegment(segment_id) is None:
        add_segment(node, info.name, segment_id=segment_id, color_rgb=info.color_rgb, tags=info.tags)
        segmentation.SetSegmentIndex(segment_id, saved.position)
    segment = segment_of(node, segment_id)
    segment.SetName(info.name)
    segment.SetColor(*info.color_rgb)
    for tag in set(segment_tags(node, segment_id)) - set(info.tags):
        segment.RemoveTag(tag)
    for tag, value in info.tags.items():
        segment.SetTag(tag, value)
    _erase_outside(node, segment_id, saved)
    if saved.voxels.size:
        geometry = Geometry(saved.voxels.shape, node_to_world(node) @ saved.voxels_to_local)
        write_segment_block(node, segment_id, saved.voxels, (0, 0, 0), geometry, allow_overlap=True)


def _erase_outside(node: Any, segment_id: str, saved: _Saved) -> None:
    """Erase the segment's voxels outside the box that the snapshot holds."""
    layer = layer_of(node, segment_id)
    if layer.is_empty:
        return
    start = np.eye(4)
    start[:3, 3] = layer.start_kji[::-1]
    geometry = Geometry(layer.array.shape, layer.ijk_to_world @ start)
    erase = layer.array == layer.label_of(segment_id)
    if saved.voxels.size:
        box = Geometry(saved.voxels.shape, node_to_world(node) @ saved.voxels_to_local)
        index = layer.map_to(box)
        if index is not None:
            held_start, held = index.inverse().to_target((0, 0, 0), saved.voxels)
            shared = overlap(layer.start_kji, erase.shape, held_start, held.shape)
            if shared is not None:
                erase[window(*shared, layer.start_kji)] = False
    write_segment_block(node, segment_id, erase, (0, 0, 0), geometry, mode=WriteMode.ERASE)
