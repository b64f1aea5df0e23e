"""Corrections of a propagated structure stay local, also on the next day."""

from __future__ import annotations

import numpy as np
import pytest
from phantoms import ball, ellipsoid, on_slices, tube
from propagating import DRAWN, GRID, ORGAN, SHAPE, draw, mask_of, propagate, scene_of, small_disc
from slanted import oblique_matrix

from host.scene_io import load_scene, read_node, save_scene, write_node
from MedAILib.errors import GeometryMismatch, InputError, NothingDrawn
from MedAILib.mrml.nodes import matrix_from_array
from MedAILib.mrml.segment_edit import write_segment_block
from MedAILib.mrml.segmentations import (
    set_reference_geometry,
    set_tag,
)
from MedAILib.mrml.volumes import read_volume
from MedAILib.volume import Geometry
from Mem3DPropagateLib.logic import (
    middle_of_slice_ras_mm,
    read_record,
)
from Mem3DPropagateLib.record import TAG
from Mem3DPropagateLib.request import Axis
from Mem3DPropagateLib.shapes import dice

# Corrections


def test_pressing_again_without_a_change_changes_nothing(drawn) -> None:
    node, volume = drawn
    propagate(node, volume)
    before = mask_of(node)
    propagate(node, volume)
    np.testing.assert_array_equal(mask_of(node), before)


def test_a_correction_changes_the_two_neighbouring_gaps_alone(drawn) -> None:
    node, volume = drawn
    propagate(node, volume)
    before, record = mask_of(node), read_record(node, "organ")
    draw(node, "organ", 16, small_disc())
    result = propagate(node, volume)
    found, after = mask_of(node), read_record(node, "organ")
    np.testing.assert_array_equal(found[16], small_disc())
    outside = [n for n in range(41) if not 12 < n < 20]
    np.testing.assert_array_equal(found[outside], before[outside])
    assert (found[14] != before[14]).any() and (found[18] != before[18]).any()
    assert after.references == (4, 12, 16, 20, 28, 36)
    assert [q for q in after.slices if q.index in outside] == [q for q in record.slices if q.index in outside]
    assert {q.index for q in result.segments[0].slices} <= set(range(12, 21))
    assert after.advice.slice not in after.references


def test_a_corrected_reference_is_taken_as_drawn_now(drawn) -> None:
    node, volume = drawn
    propagate(node, volume)
    before = mask_of(node)
    draw(node, "organ", 20, small_disc())
    propagate(node, volume)
    found = mask_of(node)
    np.testing.assert_array_equal(found[20], small_disc())
    outside = [n for n in range(41) if not 12 < n < 28]
    np.testing.assert_array_equal(found[outside], before[outside])
    assert read_record(node, "organ").references == DRAWN


def test_two_corrections_leave_the_gaps_between_them_alone(drawn) -> None:
    node, volume = drawn
    propagate(node, volume)
    before = mask_of(node)
    draw(node, "organ", 8, small_disc())
    draw(node, "organ", 32, small_disc())
    propagate(node, volume)
    found = mask_of(node)
    untouched = [*range(0, 5), *range(12, 29), *range(36, 41)]
    np.testing.assert_array_equal(found[untouched], before[untouched])
    assert read_record(node, "organ").references == (4, 8, 12, 20, 28, 32, 36)


def test_corrections_of_two_segments_change_each_of_them_where_it_was_corrected(a_volume, a_segmentation) -> None:
    grid = Geometry((41, 30, 60), GRID.ijk_to_ras)
    masks = {
        "a": tube(grid.shape_kji, (0, 15, 14), (40, 15, 14), 8),
        "b": tube(grid.shape_kji, (0, 15, 44), (40, 15, 44), 8),
    }
    node = a_segmentation(grid, {name: on_slices(mask, (0, 10, 20, 30, 40)) for name, mask in masks.items()})
    volume = a_volume(grid)
    propagate(node, volume)
    before = {name: mask_of(node, name, grid) for name in masks}
    for name, index, column in (("a", 5, 14), ("b", 35, 44)):
        draw(node, name, index, ball((1, 30, 60), (0, 15, column), 3)[0], grid=grid)
    propagate(node, volume)
    np.testing.assert_array_equal(mask_of(node, "a", grid)[10:], before["a"][10:])
    np.testing.assert_array_equal(mask_of(node, "b", grid)[:31], before["b"][:31])
    assert mask_of(node, "a", grid)[3].sum() < before["a"][3].sum()


def test_a_correction_beyond_the_last_reference_lengthens_the_structure(drawn) -> None:
    node, volume = drawn
    propagate(node, volume)
    before = mask_of(node)
    draw(node, "organ", 39, small_disc(2))
    propagate(node, volume)
    found = mask_of(node)
    assert found[37].any() and found[38].any() and not found[40].any()
    np.testing.assert_array_equal(found[:37], before[:37])
    assert read_record(node, "organ").references == (*DRAWN, 39)


def test_a_correction_of_an_extended_end_forgets_what_was_extended_beyond_it(drawn) -> None:
    node, volume = drawn
    node_mask = on_slices(ORGAN, (12, 20))
    write_segment_block(node, "organ", node_mask, (0, 0, 0), GRID)
    propagate(node, volume, extend="auto")
    reached = int(np.flatnonzero(mask_of(node).any(axis=(1, 2)))[-1])
    assert reached > 26
    draw(node, "organ", 23, small_disc(1.5))
    propagate(node, volume, extend="auto")
    found, record = mask_of(node), read_record(node, "organ")
    last = int(np.flatnonzero(found.any(axis=(1, 2)))[-1])
    assert 23 <= last < 26
    assert record.slices[-1].index <= last + 1 and record.references == (12, 20, 23)
    before = mask_of(node)
    propagate(node, volume, extend="auto")
    np.testing.assert_array_equal(mask_of(node)[:13], before[:13])
    assert read_record(node, "organ").references == (12, 20, 23)


def test_an_emptied_propagated_slice_says_that_the_structure_is_not_there(drawn) -> None:
    node, volume = drawn
    propagate(node, volume)
    before = mask_of(node)
    draw(node, "organ", 16, np.zeros(SHAPE[1:], bool))
    propagate(node, volume)
    found = mask_of(node)
    assert not found[16].any() and found[13].any() and found[19].any()
    assert found[15].sum() < before[15].sum() and found[17].sum() < before[17].sum()
    assert 16 in read_record(node, "organ").references
    draw(node, "organ", 24, small_disc())
    propagate(node, volume)
    assert not mask_of(node)[16].any() and 16 in read_record(node, "organ").references


def test_emptying_an_extended_slice_ends_the_structure_before_it(drawn) -> None:
    node, volume = drawn
    write_segment_block(node, "organ", on_slices(ORGAN, (12, 20)), (0, 0, 0), GRID)
    propagate(node, volume, extend=15)
    assert mask_of(node)[35].any()
    draw(node, "organ", 26, np.zeros(SHAPE[1:], bool))
    propagate(node, volume, extend=15)
    found = mask_of(node)
    assert found[21].any() and not found[24:].any()


def test_an_emptied_reference_is_given_up_and_its_gap_filled(drawn) -> None:
    node, volume = drawn
    propagate(node, volume)
    before = mask_of(node)
    draw(node, "organ", 20, np.zeros(SHAPE[1:], bool))
    propagate(node, volume)
    found = mask_of(node)
    assert found[20].any() and dice(found[20], ORGAN[20]) > 0.85
    assert read_record(node, "organ").references == (4, 12, 28, 36)
    outside = [n for n in range(41) if not 12 < n < 28]
    np.testing.assert_array_equal(found[outside], before[outside])


def test_one_segment_s_reference_given_up_and_another_s_corrected_are_both_heeded(a_volume, a_segmentation) -> None:
    grid = Geometry((41, 30, 60), GRID.ijk_to_ras)
    masks = {
        "a": tube(grid.shape_kji, (0, 15, 14), (40, 15, 14), 8),
        "b": tube(grid.shape_kji, (0, 15, 44), (40, 15, 44), 8),
    }
    node = a_segmentation(grid, {name: on_slices(mask, (0, 10, 20, 30, 40)) for name, mask in masks.items()})
    volume = a_volume(grid)
    propagate(node, volume)
    draw(node, "a", 20, np.zeros((30, 60), bool), grid=grid)
    draw(node, "b", 25, ball((1, 30, 60), (0, 15, 44), 3)[0], grid=grid)
    propagate(node, volume)
    assert read_record(node, "a").references == (0, 10, 30, 40) and mask_of(node, "a", grid)[20].any()
    assert read_record(node, "b").references == (0, 10, 20, 25, 30, 40)


def test_an_outermost_reference_given_up_shortens_the_structure(drawn) -> None:
    node, volume = drawn
    propagate(node, volume)
    draw(node, "organ", 36, np.zeros(SHAPE[1:], bool))
    propagate(node, volume)
    found = mask_of(node)
    assert not found[29:].any() and read_record(node, "organ").references == (4, 12, 20, 28)


def test_a_segment_emptied_altogether_is_refused_and_stays_empty(drawn) -> None:
    node, volume = drawn
    propagate(node, volume)
    write_segment_block(node, "organ", np.zeros(SHAPE, bool), (0, 0, 0), GRID)
    with pytest.raises(NothingDrawn):
        propagate(node, volume)
    with pytest.raises(NothingDrawn):
        propagate(node, volume, ["organ"])


def test_all_gaps_are_computed_anew_where_asked(drawn) -> None:
    node, volume = drawn
    propagate(node, volume)
    draw(node, "organ", 16, small_disc())
    result = propagate(node, volume, all_gaps=True)
    assert [q.index for q in result.segments[0].slices] == list(range(4, 37))
    assert read_record(node, "organ").references == (4, 12, 16, 20, 28, 36)


def test_another_extent_computes_everything_and_clears_what_it_does_not_reach(drawn) -> None:
    node, volume = drawn
    propagate(node, volume, extend=3)
    assert mask_of(node)[38].any()
    propagate(node, volume, extend=0)
    assert not mask_of(node)[37:].any() and not mask_of(node)[:4].any()
    assert read_record(node, "organ").references == DRAWN


def test_a_second_slice_drawn_after_a_single_one_keeps_the_extent(a_volume, a_segmentation) -> None:
    grid = Geometry((41, 40, 40), np.eye(4))
    structure = ball((41, 40, 40), (20, 20, 20), 14)
    node = a_segmentation(grid, {"ball": on_slices(structure, (20,))})
    volume = a_volume(grid)
    propagate(node, volume)
    draw(node, "ball", 26, structure[26], grid=grid)
    propagate(node, volume)
    found = mask_of(node, "ball", grid)
    assert found[10].any() and found[30].any()
    assert dice(found, structure) > 0.9


def test_another_axis_after_a_propagation_is_refused_with_the_way_out(drawn) -> None:
    node, volume = drawn
    propagate(node, volume)
    before = scene_of(node)
    with pytest.raises(InputError, match="along k, not along j") as error:
        propagate(node, volume, axis=Axis.J)
    assert "Undo" in error.value.todo and scene_of(node) == before
    propagate(node, volume, axis=Axis.J, references=(5, 15, 25))
    assert read_record(node, "organ").axis is Axis.J


def test_an_unreadable_record_is_refused_with_the_way_out(drawn) -> None:
    node, volume = drawn
    set_tag(node, "organ", TAG, "damaged")
    with pytest.raises(InputError, match=TAG):
        propagate(node, volume)


# The next day


@pytest.mark.parametrize("ending", ["mrml", "mrb"])
def test_a_saved_scene_is_corrected_the_next_day_as_if_it_had_stayed_open(scene, drawn, tmp_path, ending) -> None:
    node, volume = drawn
    set_reference_geometry(node, volume)
    propagate(node, volume)
    folder = tmp_path / "zwei Wörter 漢"
    folder.mkdir()
    assert save_scene(scene, folder / f"scene.{ending}")
    draw(node, "organ", 16, small_disc())
    propagate(node, volume)
    expected, record = mask_of(node), read_record(node, "organ")

    assert load_scene(scene, folder / f"scene.{ending}")
    node = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    volume = scene.GetFirstNodeByName("MR")
    draw(node, "organ", 16, small_disc())
    propagate(node, volume)
    np.testing.assert_array_equal(mask_of(node), expected)
    found = read_record(node, "organ")
    assert (found.references, found.advice.slice) == (record.references, record.advice.slice)
    np.testing.assert_allclose([q.confidence for q in found.slices], [q.confidence for q in record.slices], atol=1e-4)


def test_a_saved_segmentation_file_is_corrected_the_next_day(scene, drawn, tmp_path) -> None:
    node, volume = drawn
    propagate(node, volume)
    before = mask_of(node)
    assert write_node(node, tmp_path / "morgen früh.seg.nrrd")
    loaded = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Loaded")
    assert read_node(loaded, tmp_path / "morgen früh.seg.nrrd")
    assert read_record(loaded, "organ").references == DRAWN
    draw(loaded, "organ", 16, small_disc())
    propagate(loaded, volume)
    outside = [n for n in range(41) if not 12 < n < 20]
    np.testing.assert_array_equal(mask_of(loaded)[outside], before[outside])
    assert read_record(loaded, "organ").references == (4, 12, 16, 20, 28, 36)


@pytest.mark.parametrize("ending", ["mrml", "mrb"])
def test_a_left_handed_volume_that_slicer_turns_on_loading_is_corrected_the_next_day(
    scene, a_volume, a_segmentation, tmp_path, ending
) -> None:
    grid = Geometry(SHAPE, np.diag([-0.9, 0.9, 1.5, 1.0]))
    structure = ellipsoid(SHAPE, (17, 15, 13), (16, 12, 11))  # not the same from either end
    node, volume = a_segmentation(grid, {"organ": on_slices(structure, (2, 10, 18, 32))}), a_volume(grid)
    propagate(node, volume)
    before = mask_of(node, grid=grid)
    assert save_scene(scene, tmp_path / f"s.{ending}") and load_scene(scene, tmp_path / f"s.{ending}")
    node = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")
    volume = scene.GetFirstNodeByName("MR")
    assert np.linalg.det(read_volume(volume).ijk_to_ras) > 0, "Slicer has not turned it"
    draw(node, "organ", 14, small_disc(), grid=grid)
    propagate(node, volume)
    assert read_record(node, "organ").references == (2, 10, 14, 18, 32)
    outside = [n for n in range(41) if not 10 < n < 18]
    np.testing.assert_array_equal(mask_of(node, grid=grid)[outside], before[outside])
    point = middle_of_slice_ras_mm(node, "organ", volume, 14)
    np.testing.assert_allclose(point, (grid.ijk_to_ras @ (15, 15, 14, 1))[:3], atol=0.1)


def test_a_correction_goes_on_after_both_were_moved_by_a_hardened_transform(scene, drawn) -> None:
    node, volume = drawn
    propagate(node, volume)
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    transform.SetMatrixTransformToParent(matrix_from_array(oblique_matrix((1, 1, 1), (0.4, 0.2), (7, 8, 9))))
    for one in (node, volume):
        one.SetAndObserveTransformNodeID(transform.GetID())
        one.HardenTransform()
    grid = read_volume(volume).geometry
    draw(node, "organ", 16, small_disc(), grid=grid)
    propagate(node, volume)
    assert read_record(node, "organ").references == (4, 12, 16, 20, 28, 36)


def test_a_propagated_segment_on_a_cut_out_of_its_volume_is_refused(drawn, a_volume) -> None:
    node, volume = drawn
    propagate(node, volume)
    cut = Geometry((30, 30, 34), GRID.ijk_to_ras)
    with pytest.raises(GeometryMismatch, match="another volume"):
        propagate(node, a_volume(cut))
