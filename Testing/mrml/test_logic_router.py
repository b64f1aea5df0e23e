"""Routing in a real scene: volumes, colour images, slice views, and the table of answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: no model can run")
pytest.importorskip("onnx", reason="onnx is not installed: no model can be made")

from router_store import a_grey_picture, a_reddish_picture, a_strange_picture, write_store

from MedAILib.errors import InputError
from MedAILib.jobs.runner import InProcessRunner
from MedAILib.mrml.nodes import matrix_from_array, run_id
from MedAILib.mrml.tables import read_table
from MedAILib.mrml.volumes import image_from_array, write_volume
from MedAILib.volume import Volume
from MedMNISTRouterLib.files_task import TASK
from MedMNISTRouterLib.inputs import ALL_SLICES
from MedMNISTRouterLib.logic import (
    MODELS_ATTRIBUTE,
    NOTE_ATTRIBUTE,
    SOURCE_ATTRIBUTE,
    Options,
    plan_files,
    plan_volume,
    slice_middle_ras_mm,
    slice_range,
    view_node,
    views,
    volume_in_view,
    write_answers,
)

LPS = np.diag([-1.0, -1.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def options(tmp_path_factory: pytest.TempPathFactory) -> Options:
    return Options(models_folder=write_store(tmp_path_factory.mktemp("models")))


@pytest.fixture
def stack(scene: Any) -> Any:
    """Slices 0 and 1 bright at the top (anterior), slice 2 at the bottom, slice 3 stripes; 8 bit."""
    slices = [a_grey_picture(n, bright_top=n < 2) for n in range(3)] + [a_strange_picture()]
    return write_volume(scene, Volume(np.stack(slices), LPS, "Stack"))


def a_view(scene: Any, name: str, orientation: str, ras_mm: tuple[float, float, float], volume: Any = None) -> Any:
    view = scene.AddNewNodeByClass("vtkMRMLSliceNode")
    view.SetLayoutName(name)
    view.SetOrientation(orientation)
    view.JumpSliceByCentering(*ras_mm)
    layers = scene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    layers.SetLayoutName(name)
    if volume is not None:
        layers.SetBackgroundVolumeID(volume.GetID())
    return view


def run(plan: Any) -> Any:
    return InProcessRunner().run(TASK, plan.request)


def labels(plan: Any) -> list[str]:
    return [answer.predicted_class_name for answer in plan.answers(run(plan))]


def test_a_slice_and_the_whole_stack_agree(stack: Any, options: Options) -> None:
    assert labels(plan_volume(stack, "axial", ALL_SLICES, options=options)) == ["pneumonia", "pneumonia", "normal", ""]
    assert labels(plan_volume(stack, "k", 2, options=options)) == ["normal"]
    (middle,) = plan_volume(stack, options=options).answers(run(plan_volume(stack, options=options)))
    assert middle.image == "Stack [k 2]"
    assert "Of 4 slices along k the middle one, 2, was taken." in middle.warnings


def test_a_volume_lying_the_other_way_gives_the_same_answers(scene: Any, stack: Any, options: Options) -> None:
    from MedAILib.grids import reoriented
    from MedAILib.mrml.volumes import read_volume

    turned = write_volume(scene, reoriented(read_volume(stack), "PIR"))
    assert labels(plan_volume(turned, "axial", ALL_SLICES, options=options)) == ["", "normal", "pneumonia", "pneumonia"]


def test_a_transform_above_the_volume_counts(scene: Any, stack: Any, options: Options) -> None:
    turn = scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    turn.SetMatrixTransformToParent(matrix_from_array(np.diag([-1.0, -1.0, 1.0, 1.0])))  # half a turn about S
    stack.SetAndObserveTransformNodeID(turn.GetID())
    assert labels(plan_volume(stack, "axial", 0, options=options)) == ["normal"]


def test_what_a_slice_view_shows_is_routed(scene: Any, stack: Any, options: Options) -> None:
    red = a_view(scene, "Red", "Axial", (0.0, 0.0, 4.3), stack)
    assert labels(plan_volume(stack, view=red, options=options)) == ["normal"]
    red.JumpSliceByCentering(0.0, 0.0, 0.0)
    assert labels(plan_volume(volume_in_view(red), view=red, options=options)) == ["pneumonia"]
    red.GetSliceToRAS().SetElement(1, 2, 0.3)
    red.UpdateMatrices()
    (answer,) = plan_volume(stack, view=red, options=options).answers(
        run(plan_volume(stack, view=red, options=options))
    )
    assert "turned by 17 degrees" in answer.warnings[0]
    red.JumpSliceByCentering(0.0, 0.0, 900.0)
    with pytest.raises(InputError, match="does not show"):
        plan_volume(stack, view=red, options=options)


def test_views_are_found_by_name_and_an_unknown_one_is_said(scene: Any, stack: Any) -> None:
    red = a_view(scene, "Red", "Axial", (0, 0, 0), stack)
    green = a_view(scene, "Green", "Coronal", (0, 0, 0))
    assert set(views(scene)) >= {"Red", "Green"}
    assert view_node(scene, red) is red
    assert volume_in_view(view_node(scene, "Red")) is stack
    with pytest.raises(InputError, match="'Green' shows no volume"):
        volume_in_view(green)
    with pytest.raises(InputError, match="no slice view 'Blue'"):
        view_node(scene, "Blue")


def test_a_colour_image_keeps_its_colours(scene: Any, options: Options) -> None:
    from MedAILib.mrml.volumes import read_channels

    node = scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "cells")
    node.SetIJKToRASMatrix(matrix_from_array(LPS))
    import slicer

    slicer.util.updateVolumeFromArray(node, a_reddish_picture(1)[None])
    assert len(read_channels(node)) == 3
    plan = plan_volume(node, options=options)
    np.testing.assert_array_equal(plan.request.images[0].pixels, a_reddish_picture(1))
    (answer,) = plan.answers(run(plan))
    assert (answer.routed_dataset, answer.error_code) == ("bloodmnist", "MODEL_NOT_INSTALLED")
    slicer.util.updateVolumeFromArray(node, np.zeros((1, 32, 32, 2), np.uint8))
    with pytest.raises(InputError, match="2 values per voxel"):
        plan_volume(node, options=options)


def test_the_window_in_slicer_is_black_and_white(scene: Any, options: Options) -> None:
    values = a_grey_picture(5).astype(np.int16) * 4 - 1000
    node = write_volume(scene, Volume(values[None], LPS, "CT"))
    display = node.GetDisplayNode()
    display.SetAutoWindowLevel(False)
    display.SetWindowLevelMinMax(-1000, 20)
    (image,) = plan_volume(node, options=options).request.images
    np.testing.assert_allclose(image.pixels, a_grey_picture(5), atol=1)
    display.SetAndObserveColorNodeID("vtkMRMLColorTableNodeInvertedGrey")
    plan = plan_volume(node, options=options)
    np.testing.assert_allclose(plan.request.images[0].pixels, 255 - a_grey_picture(5).astype(int), atol=1)
    assert "inverted" in plan.batch.entries[0].notes[-1]


def test_answers_become_a_table_that_says_where_they_come_from(scene: Any, stack: Any, options: Options) -> None:
    plan = plan_volume(stack, "k", ALL_SLICES, options=options)
    outcome = run(plan)
    attributes = stack.GetAttributeNames()
    table = write_answers(
        scene, plan.answers(outcome), name="Answers", run_id=outcome.report.run_id, source=plan.source
    )
    columns, rows = read_table(table)
    names = [column.name for column in columns]
    assert names[:3] == ["image", "state", "dataset"]
    assert [row[names.index("state")] for row in rows] == ["answered"] * 3 + ["not recognised"]
    assert [row[names.index("class_name")] for row in rows] == ["pneumonia", "pneumonia", "normal", ""]
    assert run_id(table) == outcome.report.run_id
    assert table.GetAttribute(SOURCE_ATTRIBUTE) == stack.GetID()
    assert table.GetAttribute(MODELS_ATTRIBUTE).count("sha256:") == 2
    assert "research use" in table.GetAttribute(NOTE_ATTRIBUTE)
    assert stack.GetAttributeNames() == attributes  # the image itself is left alone
    again = write_answers(scene, plan.answers(outcome)[:1], name="Other", run_id="x", node=table)
    assert again is table and table.GetName() == "Answers" and table.GetNumberOfRows() == 1


def test_files_are_read_by_the_task_and_found_again(tmp_path: Path, options: Options) -> None:
    from PIL import Image

    Image.fromarray(a_grey_picture(3)).save(tmp_path / "a ü.png")
    plan = plan_files([tmp_path / "a ü.png", tmp_path / "none.png"], options=options)
    answers = plan.answers(run(plan))
    assert [answer.error_code for answer in answers] == ["", "FILE_NOT_FOUND"]
    picture = plan.picture(answers[0].image)
    assert picture is not None
    np.testing.assert_array_equal(picture.pixels, a_grey_picture(3))
    assert plan.picture(answers[1].image) is None
    with pytest.raises(InputError, match="No file was named"):
        plan_files([])


def test_slices_are_counted_and_their_middles_found(scene: Any, stack: Any) -> None:
    assert slice_range(stack, "auto") == ("k", 4)
    assert slice_range(stack, "coronal") == ("j", 32)
    assert slice_range(None, "auto") == ("k", 0)
    assert slice_middle_ras_mm(stack, "axial", 3) == (-15.5, -15.5, 6.0)


def test_a_node_without_voxels_is_refused(scene: Any, options: Options) -> None:
    empty = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "empty")
    with pytest.raises(InputError, match="has no voxels"):
        plan_volume(empty, options=options)
    empty.SetAndObserveImageData(image_from_array(np.zeros((3, 32, 32), np.uint8)))
    with pytest.raises(InputError, match="no axis 'up'"):
        plan_volume(empty, "up", options=options)
    with pytest.raises(InputError, match="no slice 3"):
        plan_volume(empty, "k", 3, options=options)
