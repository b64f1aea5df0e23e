"""Writing into segments: exactly the asked voxels change, in this segment only."""

from __future__ import annotations

import numpy as np
import pytest
import slicer
import vtk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slanted import oblique_matrix

from MedAILib.errors import GeometryMismatch, InputError, OutputError
from MedAILib.mrml import segment_edit
from MedAILib.mrml.label_maps import segmentation_from_label_map
from MedAILib.mrml.nodes import matrix_from_array
from MedAILib.mrml.segment_edit import WriteMode, WriteResult, write_segment_block, write_segment_slices
from MedAILib.mrml.segmentations import add_segment, segment_mask, segment_tags, set_tag
from MedAILib.volume import Geometry, LabelMap, SegmentInfo

SHAPE = (12, 10, 8)


def boxes():
    """Random boxes (start, shape) within the grid."""
    sides = [
        st.tuples(st.integers(0, n - 1), st.integers(1, n)).map(lambda p, n=n: (p[0], min(p[1], n - p[0])))
        for n in SHAPE
    ]
    return st.tuples(*sides).map(lambda sides: tuple(zip(*sides, strict=True)))


def a_random_mask(seed: int, shape=SHAPE, density: float = 0.4) -> np.ndarray:
    return np.random.default_rng(seed).random(shape) < density


def three_random_segments(seed: int) -> dict[str, np.ndarray]:
    owner = np.random.default_rng(seed).integers(0, 5, SHAPE)
    return {name: owner == value for value, name in enumerate("abc", start=1)}


def pasted(mask: np.ndarray, block: np.ndarray, start) -> np.ndarray:
    whole = mask.copy()
    whole[tuple(slice(s, s + n) for s, n in zip(start, block.shape, strict=True))] = block
    return whole


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(box=boxes(), seed=st.integers(0, 999), one_layer=st.booleans(), mode=st.sampled_from(WriteMode))
def test_a_block_changes_its_own_voxels_only_and_never_another_segment(
    scene, a_segmentation, an_oblique_grid, box, seed, one_layer, mode
):
    start, shape = box
    masks = three_random_segments(seed)
    node = a_segmentation(an_oblique_grid, masks, None if one_layer else {"a": 0, "b": 1, "c": 0})
    layer_count = node.GetSegmentation().GetNumberOfLayers()
    block = a_random_mask(seed + 1, shape)
    result = write_segment_block(node, "b", block, start, an_oblique_grid, mode=mode)
    asked = pasted(np.zeros(SHAPE, bool), block, start)
    inside = pasted(np.zeros(SHAPE, bool), np.ones(shape, bool), start)
    wanted = {
        WriteMode.REPLACE: np.where(inside, asked, masks["b"]),
        WriteMode.ADD: masks["b"] | asked,
        WriteMode.ERASE: masks["b"] & ~asked,
    }[mode]
    taken = masks["a"] | masks["c"]
    expected = wanted & ~taken
    np.testing.assert_array_equal(segment_mask(node, "b", an_oblique_grid), expected)
    for other in "ac":
        np.testing.assert_array_equal(segment_mask(node, other, an_oblique_grid), masks[other])
    assert node.GetSegmentation().GetNumberOfLayers() == layer_count
    assert result == WriteResult(
        int((expected & ~masks["b"]).sum()), int((masks["b"] & ~expected).sum()), int((wanted & taken).sum())
    )
    scene.RemoveNode(node)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(box=boxes(), seed=st.integers(0, 999), one_layer=st.booleans())
def test_overlap_where_asked_gives_both_segments_the_voxels(
    scene, a_segmentation, an_oblique_grid, box, seed, one_layer
):
    start, shape = box
    masks = three_random_segments(seed)
    node = a_segmentation(an_oblique_grid, masks, None if one_layer else {"a": 0, "b": 1, "c": 0})
    block = a_random_mask(seed + 1, shape)
    result = write_segment_block(node, "b", block, start, an_oblique_grid, allow_overlap=True)
    np.testing.assert_array_equal(segment_mask(node, "b", an_oblique_grid), pasted(masks["b"], block, start))
    for other in "ac":
        np.testing.assert_array_equal(segment_mask(node, other, an_oblique_grid), masks[other])
    assert result.yielded == 0
    scene.RemoveNode(node)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(box=boxes(), seed=st.integers(0, 999), axis=st.integers(0, 2), data=st.data())
def test_replaced_slices_hold_the_block_and_nothing_else_while_other_slices_stay(
    scene, a_segmentation, an_oblique_grid, box, seed, axis, data
):
    start, shape = box
    slices = data.draw(st.lists(st.integers(0, SHAPE[axis] - 1), unique=True))
    mask, block = a_random_mask(seed), a_random_mask(seed + 1, shape)
    node = a_segmentation(an_oblique_grid, {"a": mask})
    write_segment_slices(node, "a", block, start, an_oblique_grid, axis=axis, slices=slices)
    expected = mask.copy()
    chosen = (slice(None),) * axis + (slices,)
    expected[chosen] = pasted(np.zeros(SHAPE, bool), block, start)[chosen]
    np.testing.assert_array_equal(segment_mask(node, "a", an_oblique_grid), expected)
    scene.RemoveNode(node)


def test_the_first_drawing_takes_the_volumes_grid_whatever_its_orientation(scene, an_oblique_grid):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    for name in "abc":
        add_segment(node, name, segment_id=name)
    masks = three_random_segments(3)
    for name in "cab":
        write_segment_block(node, name, masks[name], (0, 0, 0), an_oblique_grid)
    for name, mask in masks.items():
        np.testing.assert_array_equal(segment_mask(node, name, an_oblique_grid, resample=False), mask)
    assert node.GetSegmentation().GetNumberOfLayers() == 1


def test_a_volume_with_other_axis_order_writes_into_the_lattice_that_is_there(scene, a_segmentation, an_oblique_grid):
    masks = three_random_segments(4)
    node = a_segmentation(an_oblique_grid, masks)
    k, j, i = SHAPE
    turn = np.array([[0, -1, 0, i - 1], [0, 0, 1, 0], [-1, 0, 0, k - 1], [0, 0, 0, 1]])
    turned = Geometry((j, i, k), an_oblique_grid.ijk_to_ras @ turn)
    block = a_random_mask(5, (3, 4, 5))
    write_segment_block(node, "a", block, (2, 3, 4), turned, allow_overlap=True)
    expected = pasted(masks["a"][::-1, :, ::-1].transpose(1, 2, 0), block, (2, 3, 4))
    np.testing.assert_array_equal(segment_mask(node, "a", turned, resample=False), expected)
    np.testing.assert_array_equal(segment_mask(node, "b", an_oblique_grid, resample=False), masks["b"])


def test_a_transformed_segmentation_is_written_where_it_is_seen(scene, a_segmentation, an_oblique_grid):
    node = a_segmentation(an_oblique_grid, three_random_segments(6))
    move = oblique_matrix((1, 1, 1), (0.4, 0.3), (30, -10, 5))
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "T")
    transform.SetMatrixTransformToParent(matrix_from_array(move))
    node.SetAndObserveTransformNodeID(transform.GetID())
    moved = Geometry(SHAPE, move @ an_oblique_grid.ijk_to_ras)
    add_segment(node, "new", segment_id="new")
    block = np.ones((1, 3, 3), bool)
    write_segment_block(node, "new", block, (5, 5, 4), moved, allow_overlap=True)
    np.testing.assert_array_equal(segment_mask(node, "new", moved), pasted(np.zeros(SHAPE, bool), block, (5, 5, 4)))


def test_writing_onto_another_grid_is_refused_and_changes_nothing(scene, a_segmentation, an_oblique_grid):
    masks = three_random_segments(7)
    node = a_segmentation(an_oblique_grid, masks)
    add_segment(node, "empty", segment_id="empty")
    other = Geometry(SHAPE, an_oblique_grid.ijk_to_ras @ np.diag([1.5, 1, 1, 1]))
    for segment_id in ("a", "empty"):
        with pytest.raises(GeometryMismatch, match="drawn on another volume"):
            write_segment_block(node, segment_id, np.ones((1, 1, 1), bool), (0, 0, 0), other)
    np.testing.assert_array_equal(segment_mask(node, "a", an_oblique_grid), masks["a"])


def test_a_segmentation_erased_to_nothing_may_move_to_another_grid(scene, a_segmentation, an_oblique_grid):
    node = a_segmentation(an_oblique_grid, {"a": a_random_mask(8)})
    write_segment_block(node, "a", np.ones(SHAPE, bool), (0, 0, 0), an_oblique_grid, mode=WriteMode.ERASE)
    other = Geometry((5, 5, 5), oblique_matrix((1.5, 1, 1), (0.9, 0.1), (3, 2, 1)))
    block = a_random_mask(9, (5, 5, 5))
    write_segment_block(node, "a", block, (0, 0, 0), other)
    np.testing.assert_array_equal(segment_mask(node, "a", other, resample=False), block)


def test_a_segmentation_with_300_segments_in_one_layer_keeps_them_apart(scene):
    geometry = Geometry((1, 20, 20), np.eye(4))
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    for number in range(300):
        segment_id = add_segment(node, f"s{number}", segment_id=f"s{number}")
        block = np.ones((1, 1, 1), bool)
        write_segment_block(node, segment_id, block, (0, number // 20, number % 20), geometry)
    for number in (0, 1, 254, 255, 256, 299):
        found = np.argwhere(segment_mask(node, f"s{number}", geometry))
        assert found.tolist() == [[0, number // 20, number % 20]]


def test_the_first_drawing_of_a_segment_with_a_large_label_is_not_cut_to_8_bits(scene):
    empty = np.zeros(SHAPE, np.uint16)
    node = segmentation_from_label_map(scene, LabelMap((empty,), np.eye(4), (SegmentInfo("a", "A", 300),)))
    block = a_random_mask(1)
    write_segment_block(node, "a", block, (0, 0, 0), Geometry(SHAPE, np.eye(4)))
    np.testing.assert_array_equal(segment_mask(node, "a", Geometry(SHAPE, np.eye(4))), block)


@pytest.mark.parametrize(
    ("block", "origin"),
    [
        (np.ones((2, 2, 2), bool), (11, 0, 0)),
        (np.ones((2, 2, 2), bool), (-1, 0, 0)),
        (np.ones((2, 2), bool), (0, 0, 0)),
        (np.ones((2, 2, 2), np.uint8), (0, 0, 0)),
    ],
    ids=["beyond the end", "before the start", "2D", "not bool"],
)
def test_blocks_that_do_not_fit_are_refused(scene, a_segmentation, an_oblique_grid, block, origin):
    node = a_segmentation(an_oblique_grid, {"a": a_random_mask(1)})
    with pytest.raises(InputError, match="block"):
        write_segment_block(node, "a", block, origin, an_oblique_grid)


def test_slices_outside_the_volume_are_refused(scene, a_segmentation, an_oblique_grid):
    node = a_segmentation(an_oblique_grid, {"a": a_random_mask(1)})
    with pytest.raises(InputError, match="Slices 3 to 12"):
        write_segment_slices(node, "a", np.ones((1, 1, 1), bool), (0, 0, 0), an_oblique_grid, axis=0, slices=[3, 12])


def test_terminology_and_other_tags_stay_when_voxels_are_written(scene, a_segmentation, an_oblique_grid):
    node = a_segmentation(an_oblique_grid, three_random_segments(1))
    set_tag(node, "a", "TerminologyEntry", "list~SCT^1^x~SCT^2^y~^^~~^^~^^")
    set_tag(node, "a", "MedAI.Test", "1")
    before = segment_tags(node, "a")
    write_segment_block(node, "a", np.ones(SHAPE, bool), (0, 0, 0), an_oblique_grid, allow_overlap=True)
    assert segment_tags(node, "a") == before


def modified_events(node) -> list[str]:
    heard: list[str] = []
    event = slicer.vtkSegmentation.SourceRepresentationModified
    node.GetSegmentation().AddObserver(event, lambda *_: heard.append("voxels"))
    node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: heard.append("node"))
    return heard


def test_observers_hear_once_of_a_change_and_nothing_where_nothing_changes(scene, a_segmentation, an_oblique_grid):
    mask = a_random_mask(2)
    node = a_segmentation(an_oblique_grid, {"a": mask})
    heard = modified_events(node)
    assert write_segment_block(node, "a", mask, (0, 0, 0), an_oblique_grid) == WriteResult()
    assert heard == []
    write_segment_block(node, "a", ~mask, (0, 0, 0), an_oblique_grid)
    assert heard.count("voxels") == 1
    assert heard.count("node") <= 1


def test_a_surface_that_is_shown_follows_the_voxels_and_others_stay(scene, a_segmentation):
    geometry = Geometry((20, 20, 40), np.eye(4))
    masks = {name: np.zeros(geometry.shape_kji, bool) for name in "ab"}
    masks["a"][5:10, 5:15, 5:15] = True
    masks["b"][5:10, 5:15, 25:35] = True
    node = a_segmentation(geometry, masks)
    node.CreateClosedSurfaceRepresentation()
    before = {name: node.GetClosedSurfaceInternalRepresentation(name).GetBounds() for name in "ab"}
    write_segment_block(node, "a", np.ones((5, 10, 10), bool), (10, 5, 5), geometry)
    after = {name: node.GetClosedSurfaceInternalRepresentation(name).GetBounds() for name in "ab"}
    assert after["a"][5] > before["a"][5] + 3
    assert after["b"] == before["b"]


def test_where_the_host_refuses_the_segment_is_as_it_was(scene, a_segmentation, an_oblique_grid, monkeypatch):
    masks = three_random_segments(5)
    node = a_segmentation(an_oblique_grid, masks)
    monkeypatch.setattr(segment_edit, "_paint", lambda *_, **__: False)  # the host gives no way to make it refuse
    for block in (~masks["a"], np.zeros(SHAPE, bool)):
        with pytest.raises(OutputError, match="refused"):
            write_segment_block(node, "a", block, (0, 0, 0), an_oblique_grid)
    for name, mask in masks.items():
        np.testing.assert_array_equal(segment_mask(node, name, an_oblique_grid), mask)


def test_one_slice_of_a_large_segment_is_written_exactly(scene, a_segmentation):
    geometry = Geometry((300, 512, 512), np.diag([0.8, 0.8, 1.5, 1]))
    k, j, i = np.ogrid[:300, :512, :512]
    ball = (k - 150) ** 2 + (j - 256) ** 2 + (i - 200) ** 2 < 100**2
    other = np.zeros(geometry.shape_kji, bool)
    other[100:200, 100:400, 350:450] = True
    node = a_segmentation(geometry, {"a": ball & ~other, "b": other})
    drawn = np.zeros((1, 512, 512), bool)
    drawn[0, 200:300, 150:360] = True
    write_segment_block(node, "a", drawn, (140, 0, 0), geometry)
    expected = ball & ~other
    expected[140] = drawn[0] & ~other[140]
    np.testing.assert_array_equal(segment_mask(node, "a", geometry), expected)
    np.testing.assert_array_equal(segment_mask(node, "b", geometry), other)
