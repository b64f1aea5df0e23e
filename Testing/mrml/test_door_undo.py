"""Back to how a segmentation was."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slanted import oblique_matrix

from MedAILib.errors import Cancelled
from MedAILib.mrml.nodes import matrix_from_array
from MedAILib.mrml.segment_edit import write_segment_block
from MedAILib.mrml.segmentations import add_segment, segment_ids, segment_info, segment_mask, set_tag
from MedAILib.mrml.undo import SegmentationSnapshot, UndoHistory, restoring

SHAPE = (12, 10, 8)


def random_segments(seed: int) -> dict[str, np.ndarray]:
    owner = np.random.default_rng(seed).integers(0, 5, SHAPE)
    return {name: owner == value for value, name in enumerate("abc", start=1)}


def read_all(node, geometry) -> dict[str, np.ndarray]:
    return {one: segment_mask(node, one, geometry) for one in segment_ids(node)}


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
    assert found.keys() == expected.keys()
    for name, mask in expected.items():
        np.testing.assert_array_equal(found[name], mask, err_msg=name)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 999), overlap=st.booleans(), empty=st.booleans())
def test_a_snapshot_restores_voxels_whatever_was_written_since(
    scene, a_segmentation, an_oblique_grid, seed, overlap, empty
):
    masks = random_segments(seed)
    if empty:
        masks["b"][:] = False
    node = a_segmentation(an_oblique_grid, masks)
    snapshot = SegmentationSnapshot.of(node, ["a", "b"])
    block = np.random.default_rng(seed).random((6, 5, 4)) < 0.5
    for name, origin in (("a", (0, 0, 0)), ("b", (6, 5, 4)), ("a", (3, 3, 3))):
        write_segment_block(node, name, block, origin, an_oblique_grid, allow_overlap=overlap)
    snapshot.restore()
    assert_same(read_all(node, an_oblique_grid), masks)
    scene.RemoveNode(node)


def test_names_colours_and_tags_are_restored_too(scene, a_segmentation, an_oblique_grid):
    node = a_segmentation(an_oblique_grid, random_segments(1))
    set_tag(node, "a", "Kept", "1")
    before = segment_info(node, "a")
    snapshot = SegmentationSnapshot.of(node)
    set_tag(node, "a", "Kept", "2")
    set_tag(node, "a", "New", "x")
    node.GetSegmentation().GetSegment("a").SetName("other")
    node.GetSegmentation().GetSegment("a").SetColor(1, 1, 1)
    snapshot.restore()
    assert segment_info(node, "a") == before


def test_a_snapshot_of_everything_brings_back_what_was_removed_and_drops_what_was_added(
    scene, a_segmentation, an_oblique_grid
):
    masks = random_segments(2)
    node = a_segmentation(an_oblique_grid, masks)
    snapshot = SegmentationSnapshot.of(node)
    node.GetSegmentation().RemoveSegment("b")
    write_segment_block(node, "a", masks["b"], (0, 0, 0), an_oblique_grid)
    add_segment(node, "new", segment_id="new")
    snapshot.restore()
    assert segment_ids(node) == ("a", "b", "c")
    assert_same(read_all(node, an_oblique_grid), masks)


def test_segments_that_were_not_named_keep_what_was_drawn_since(scene, a_segmentation, an_oblique_grid):
    masks = random_segments(3)
    node = a_segmentation(an_oblique_grid, masks)
    snapshot = SegmentationSnapshot.of(node, ["a"])
    write_segment_block(node, "c", ~(masks["a"] | masks["b"]), (0, 0, 0), an_oblique_grid)
    drawn = segment_mask(node, "c", an_oblique_grid)
    snapshot.restore()
    assert_same(read_all(node, an_oblique_grid), {**masks, "c": drawn})


def test_a_snapshot_is_restored_after_the_segmentation_was_moved(scene, a_segmentation, an_oblique_grid):
    masks = random_segments(4)
    node = a_segmentation(an_oblique_grid, masks)
    snapshot = SegmentationSnapshot.of(node)
    write_segment_block(node, "a", np.zeros(SHAPE, bool), (0, 0, 0), an_oblique_grid)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "T")
    transform.SetMatrixTransformToParent(matrix_from_array(oblique_matrix((1, 1, 1), (0.4, 0.3), (30, -10, 5))))
    node.SetAndObserveTransformNodeID(transform.GetID())
    snapshot.restore()
    node.SetAndObserveTransformNodeID(None)
    assert_same(read_all(node, an_oblique_grid), masks)


@pytest.mark.parametrize("error", [Cancelled("stop"), RuntimeError("broken"), KeyboardInterrupt()])
def test_a_failing_block_of_changes_leaves_the_segmentation_as_it_was(scene, a_segmentation, an_oblique_grid, error):
    masks = random_segments(5)
    node = a_segmentation(an_oblique_grid, masks)
    with pytest.raises(type(error)), restoring(node, ["a"]):
        write_segment_block(node, "a", ~masks["a"], (0, 0, 0), an_oblique_grid, allow_overlap=True)
        raise error
    assert_same(read_all(node, an_oblique_grid), masks)


def test_the_hosts_history_undoes_and_redoes_voxels_and_tags(scene, a_segmentation, an_oblique_grid):
    masks = random_segments(6)
    node = a_segmentation(an_oblique_grid, masks)
    set_tag(node, "a", "State", "before")
    history = UndoHistory(node)
    assert not history.can_undo and not history.undo()
    history.save()
    write_segment_block(node, "a", ~masks["a"], (0, 0, 0), an_oblique_grid)
    set_tag(node, "a", "State", "after")
    changed = read_all(node, an_oblique_grid)
    assert history.undo()
    assert_same(read_all(node, an_oblique_grid), masks)
    assert segment_info(node, "a").tags["State"] == "before"
    assert history.can_redo and history.redo()
    assert_same(read_all(node, an_oblique_grid), changed)
    assert segment_info(node, "a").tags["State"] == "after"
    history.clear()
    assert not history.can_undo


def test_the_history_notices_a_change_that_only_erases(scene, a_segmentation, an_oblique_grid):
    masks = random_segments(7)
    node = a_segmentation(an_oblique_grid, masks)
    history = UndoHistory(node)
    for count in (1, 2):
        history.save()
        write_segment_block(node, "a", np.zeros((count, 10, 8), bool), (0, 0, 0), an_oblique_grid)
    assert history.undo() and history.undo()
    assert_same(read_all(node, an_oblique_grid), masks)
