"""Volume nodes <-> Volume."""

from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
import slicer
import vtk
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slanted import oblique_matrix

from MedAILib.errors import InputError
from MedAILib.mrml.nodes import matrix_from_array, run_id, set_run_id
from MedAILib.mrml.volumes import read_volume, volume_geometry, write_volume
from MedAILib.volume import Volume

ORIENTATIONS = list(product(permutations(range(3)), product((1, -1), repeat=3)))


def a_volume(matrix: np.ndarray, shape: tuple[int, int, int] = (4, 5, 6)) -> Volume:
    return Volume(np.arange(np.prod(shape), dtype=np.int16).reshape(shape), matrix, "A volume")


def world_position_in_the_scene(node, value: float) -> np.ndarray:
    """Where the scene shows the voxel of a value, found with VTK's own indexing."""
    image = node.GetImageData()
    matrix, to_world = vtk.vtkMatrix4x4(), vtk.vtkMatrix4x4()
    node.GetIJKToRASMatrix(matrix)
    if node.GetParentTransformNode():
        node.GetParentTransformNode().GetMatrixTransformToWorld(to_world)
    for i, j, k in product(*(range(n) for n in image.GetDimensions())):
        if image.GetScalarComponentAsDouble(i, j, k, 0) == value:
            return np.array(to_world.MultiplyPoint(matrix.MultiplyPoint((i, j, k, 1))))
    raise AssertionError(f"no voxel has the value {value}")


@pytest.mark.parametrize(("axes", "signs"), ORIENTATIONS)
def test_a_marker_voxel_lies_at_one_place_in_the_world_in_all_48_orientations(scene, axes, signs):
    matrix = np.eye(4)
    matrix[:3, :3] = (np.eye(3)[:, list(axes)] * signs) @ np.diag([0.5, 2.0, 3.0])
    matrix[:3, 3] = (10, -20, 30)
    volume = a_volume(matrix)
    node = write_volume(scene, volume)
    marker_kji = (1, 2, 4)
    expected = matrix @ [*marker_kji[::-1], 1]
    np.testing.assert_allclose(world_position_in_the_scene(node, volume.array[marker_kji]), expected, atol=1e-6)
    back = read_volume(node)
    np.testing.assert_array_equal(back.array, volume.array)
    np.testing.assert_allclose(back.ijk_to_ras, matrix, atol=1e-9)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    spacing=st.tuples(*[st.floats(0.1, 10)] * 3),
    turns=st.tuples(*[st.floats(-3, 3)] * 2),
    origin=st.tuples(*[st.floats(-500, 500)] * 3),
    left_handed=st.booleans(),
)
def test_oblique_and_left_handed_grids_come_back_as_they_went(scene, spacing, turns, origin, left_handed):
    matrix = oblique_matrix(spacing, turns, origin, left_handed=left_handed)
    node = write_volume(scene, a_volume(matrix, (2, 3, 4)))
    np.testing.assert_allclose(read_volume(node).ijk_to_ras, matrix, atol=1e-6)
    scene.RemoveNode(node)


def test_reading_copies_nothing_and_gives_a_read_only_view(scene):
    node = write_volume(scene, a_volume(np.eye(4)))
    volume = read_volume(node)
    with pytest.raises(ValueError, match="read-only"):
        volume.array[0, 0, 0] = 1
    node.GetImageData().SetScalarComponentFromDouble(3, 2, 1, 0, -7)
    assert volume.array[1, 2, 3] == -7


def test_what_was_read_outlives_its_node(scene):
    node = write_volume(scene, a_volume(np.eye(4)))
    volume = read_volume(node)
    scene.RemoveNode(node)
    del node
    assert volume.array.sum() == sum(range(120))


@pytest.mark.parametrize("dtype", ["?", "u1", "i1", "u2", "i2", ">i2", "i4", "u4", "i8", "u8", "f2", "f4", "f8"])
def test_voxels_of_every_usual_type_keep_their_values(scene, dtype):
    array = (np.arange(24).reshape(2, 3, 4) % 2 if dtype == "?" else np.arange(24).reshape(2, 3, 4)).astype(dtype)
    node = write_volume(scene, Volume(array, np.eye(4)))
    np.testing.assert_array_equal(read_volume(node).array, array)


def test_large_64_bit_integers_become_floats_rather_than_wrap_around(scene):
    node = write_volume(scene, Volume(np.full((1, 1, 2), 2**40), np.eye(4)))
    assert read_volume(node).array.tolist() == [[[2.0**40, 2.0**40]]]


def a_transform(scene, matrix: np.ndarray):
    transform = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "T")
    transform.SetMatrixTransformToParent(matrix_from_array(matrix))
    return transform


def test_a_volume_under_nested_linear_transforms_is_read_where_it_is_seen(scene, an_oblique_grid):
    node = write_volume(scene, a_volume(an_oblique_grid.ijk_to_ras))
    outer = a_transform(scene, oblique_matrix((1, 1, 1), (0.2, 0.4), (5, 6, 7)))
    inner = a_transform(scene, oblique_matrix((1, 1, 1), (-0.7, 0.1), (-1, 2, 0)))
    inner.SetAndObserveTransformNodeID(outer.GetID())
    node.SetAndObserveTransformNodeID(inner.GetID())
    volume = read_volume(node)
    expected = world_position_in_the_scene(node, float(volume.array[3, 1, 2]))
    np.testing.assert_allclose(volume.ijk_to_ras @ [2, 1, 3, 1], expected, atol=1e-9)
    assert volume_geometry(node).same_grid_as(volume.geometry)


def test_writing_into_a_transformed_node_puts_voxels_where_the_volume_says(scene, an_oblique_grid):
    node = write_volume(scene, a_volume(np.eye(4)))
    node.SetAndObserveTransformNodeID(a_transform(scene, oblique_matrix((1, 1, 1), (0.2, 0.4), (5, 6, 7))).GetID())
    write_volume(scene, a_volume(an_oblique_grid.ijk_to_ras), node=node)
    assert node.GetParentTransformNode() is not None
    np.testing.assert_allclose(read_volume(node).ijk_to_ras, an_oblique_grid.ijk_to_ras, atol=1e-9)


def test_a_warping_transform_is_refused_by_name_and_nothing_is_written(scene):
    node = write_volume(scene, a_volume(np.eye(4)))
    warp = scene.AddNewNodeByClass("vtkMRMLTransformNode", "Warp")
    spline = vtk.vtkThinPlateSplineTransform()
    points = vtk.vtkPoints()
    for position in ((0, 0, 0), (9, 0, 0), (0, 9, 0), (0, 0, 9)):
        points.InsertNextPoint(position)
    moved = vtk.vtkPoints()
    moved.DeepCopy(points)
    moved.SetPoint(1, 11, 3, 1)
    spline.SetSourceLandmarks(points)
    spline.SetTargetLandmarks(moved)
    spline.SetBasisToR()
    warp.SetAndObserveTransformToParent(spline)
    node.SetAndObserveTransformNodeID(warp.GetID())
    for attempt in (lambda: read_volume(node), lambda: write_volume(scene, a_volume(np.eye(4) * 2), node=node)):
        with pytest.raises(InputError, match="Warp"):
            attempt()
    node.SetAndObserveTransformNodeID(None)
    np.testing.assert_array_equal(read_volume(node).ijk_to_ras, np.eye(4))


def test_volumes_with_several_values_per_voxel_are_refused_with_the_cause(scene):
    for class_name in ("vtkMRMLVectorVolumeNode", "vtkMRMLScalarVolumeNode"):
        node = scene.AddNewNodeByClass(class_name, "Colours")
        image = vtk.vtkImageData()
        image.SetDimensions(4, 3, 2)
        image.AllocateScalars(vtk.VTK_UNSIGNED_CHAR, 3)
        node.SetAndObserveImageData(image)
        with pytest.raises(InputError, match="3 values per voxel"):
            read_volume(node)


def test_nodes_without_voxels_and_other_nodes_are_refused(scene):
    for node in (None, scene.AddNewNodeByClass("vtkMRMLModelNode"), scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")):
        with pytest.raises(InputError):
            read_volume(node)


def test_a_sequence_is_refused_with_what_to_choose_instead(scene):
    with pytest.raises(InputError, match="current time point"):
        read_volume(scene.AddNewNodeByClass("vtkMRMLSequenceNode", "4D"))


def test_a_label_map_volume_is_a_volume_too(scene):
    node = write_volume(scene, a_volume(np.eye(4)), label_map=True, name="Labels")
    assert node.IsA("vtkMRMLLabelMapVolumeNode")
    assert read_volume(node).name == "Labels"


def test_writing_again_keeps_node_name_and_window_set_by_hand(scene):
    node = write_volume(scene, a_volume(np.eye(4)), name="CT")
    display = node.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevel(400, 40)
    count = scene.GetNumberOfNodes()
    assert write_volume(scene, a_volume(np.eye(4), (7, 3, 2)), node=node) is node
    assert (node.GetName(), display.GetWindow(), display.GetLevel()) == ("CT", 400, 40)
    assert scene.GetNumberOfNodes() == count
    assert read_volume(node).array.shape == (7, 3, 2)


def test_observers_hear_of_a_write_once_and_see_it_whole(scene):
    node = write_volume(scene, a_volume(np.eye(4)))
    seen = []
    node.AddObserver(vtk.vtkCommand.ModifiedEvent, lambda *_: seen.append(read_volume(node)))
    write_volume(scene, a_volume(np.diag([2, 2, 2, 1]), (3, 3, 3)), node=node, name="New")
    assert len(seen) == 1
    assert (seen[0].array.shape, seen[0].geometry.spacing_ijk_mm) == ((3, 3, 3), (2, 2, 2))


def test_a_failing_write_leaves_no_node_behind(scene):
    vectors = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "Vectors")
    count = scene.GetNumberOfNodes()
    with pytest.raises(InputError):
        write_volume(scene, Volume(np.zeros((2, 2, 2), complex), np.eye(4)))
    with pytest.raises(InputError):
        write_volume(scene, a_volume(np.eye(4)), node=vectors)
    assert scene.GetNumberOfNodes() == count


def test_the_run_that_made_a_node_is_kept_with_it(scene):
    node = write_volume(scene, a_volume(np.eye(4)))
    assert run_id(node) is None
    set_run_id(node, "2026-11-21-abc")
    assert run_id(node) == "2026-11-21-abc"
    assert slicer.mrmlScene is scene
