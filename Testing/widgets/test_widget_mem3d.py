"""The propagation module's panel, opened from its own file."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from phantoms import ball, ellipsoid, on_slices

from MedAILib.errors import InputError
from MedAILib.jobs.runner import InProcessRunner
from MedAILib.volume import LabelMap, SegmentInfo, Volume

SHAPE = (31, 28, 30)
MATRIX = np.diag([1.0, 1.0, 1.5, 1.0])
ORGAN = ellipsoid(SHAPE, (15, 14, 11), (13, 10, 9))
CYST = ball(SHAPE, (15, 14, 25), 4)
DRAWN = (3, 9, 15, 21, 27)
TAG = "MedAI.Propagation"


@pytest.fixture
def module(open_module: Callable[[str], Any]) -> Iterator[Any]:
    import slicer

    yield open_module("Mem3DPropagate")
    slicer.modules.MedAIExtensionInstance.runner.close()


def a_case(matrix: np.ndarray = MATRIX, masks: dict[str, np.ndarray] | None = None) -> tuple[Any, Any]:
    """A volume node and a segmentation node with ``organ`` and ``cyst`` drawn on some slices."""
    import slicer

    from MedAILib.mrml.label_maps import segmentation_from_label_map
    from MedAILib.mrml.volumes import write_volume

    masks = masks or {"organ": on_slices(ORGAN, DRAWN), "cyst": on_slices(CYST, (12, 15, 18))}
    labels = np.zeros(next(iter(masks.values())).shape, np.uint8)
    for value, mask in enumerate(masks.values(), start=1):
        labels[mask] = value
    infos = tuple(SegmentInfo(one, one.title(), value) for value, one in enumerate(masks, start=1))
    volume = write_volume(slicer.mrmlScene, Volume(np.zeros(labels.shape, np.int16), matrix, "MR"))
    return volume, segmentation_from_label_map(slicer.mrmlScene, LabelMap((labels,), matrix, infos, "Drawing"))


@pytest.fixture
def case(host: Any, module: Any) -> tuple[Any, Any]:
    """The case, chosen in the panel."""
    volume, segmentation = a_case()
    choose(host, module, volume, segmentation)
    return volume, segmentation


def choose(host: Any, module: Any, volume: Any, segmentation: Any) -> None:
    """Choose both in the panel, and geometry: there is nothing to see in these volumes."""
    from Mem3DPropagate import MethodChoice

    module._parameterNode.method = MethodChoice.GEOMETRY
    module.ui.volumeSelector.setCurrentNode(volume)
    module.ui.segmentationSelector.setCurrentNode(segmentation)
    host.process_events()


def run(host: Any, module: Any) -> str:
    """Press Propagate, wait for the end, and answer what the panel says."""
    assert module.runPanel.button.enabled, module.runPanel.button.toolTip
    module.runPanel.button.click()
    host.wait_until(lambda: not module.runPanel.is_running, 120)
    return module.runPanel.message.text


def mask_of(segmentation: Any, segment_id: str = "organ") -> np.ndarray:
    from MedAILib.mrml.segmentations import segment_mask
    from MedAILib.volume import Geometry

    return segment_mask(segmentation, segment_id, Geometry(SHAPE, MATRIX))


def draw(segmentation: Any, index: int, plane: np.ndarray) -> None:
    from MedAILib.mrml.segment_edit import write_segment_block
    from MedAILib.volume import Geometry

    write_segment_block(segmentation, "organ", plane[None], (index, 0, 0), Geometry(SHAPE, MATRIX))


# Opening


def test_the_module_opens_with_its_name_and_asks_for_what_is_missing(module: Any) -> None:
    import slicer

    known = slicer.modules.mem3dpropagate
    assert (known.title, known.categories) == ("Propagate Slices (MedAI)", ["Segmentation"])
    assert not module.runPanel.button.enabled
    assert "Choose the volume" in module.runPanel.button.toolTip
    assert "Choose the segmentation" in module.runPanel.button.toolTip
    assert module.resultPanel.summaryLabel.text == "Nothing is propagated yet."
    assert not module.resultPanel.goButton.enabled and not module.resultPanel.undoButton.enabled


def test_what_is_in_the_scene_is_chosen_when_the_module_is_entered(host: Any, module: Any) -> None:
    host.exit(module)
    volume, segmentation = a_case()
    host.enter(module)
    assert module.ui.volumeSelector.currentNode() is volume
    assert module.ui.segmentationSelector.currentNode() is segmentation
    assert module.runPanel.button.enabled


def test_the_panel_fits_a_narrow_window(host: Any, module: Any, case: Any, tmp_path: Path) -> None:
    run(host, module)
    assert module.parent.minimumSizeHint.width() <= 340
    assert host.screenshot(module, tmp_path / "panel.png").stat().st_size > 5000


def test_opening_loads_no_torch_and_takes_less_than_a_second(repository: Path) -> None:
    program = (
        "import sys, time; from host.qt_host import start_host; host = start_host();"
        "host.load_module('MedAIExtension/MedAIExtension.py'); started = time.process_time();"
        "host.open_module('Mem3DPropagate/Mem3DPropagate.py'); seconds = time.process_time() - started;"
        "heavy = {'torch', 'SimpleITK', 'pydicom', 'tensorflow'} & set(sys.modules);"
        "print(sorted(heavy), seconds < 1.0, seconds)"
    )
    paths = os.pathsep.join(str(repository / name) for name in ("Testing", "MedAIExtension", "Mem3DPropagate"))
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=repository,
        env={"PYTHONPATH": paths, "PATH": "/usr/bin:/bin", "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] and done.stdout.splitlines()[-1].startswith("[] True"), (
        done.stdout + done.stderr
    )


# Propagating


def test_a_run_writes_the_structure_and_keeps_the_event_loop_alive(host: Any, module: Any, case: Any) -> None:
    with host.heartbeat() as beat:
        message = run(host, module)
    assert "slices propagated; drawn slices are unchanged" in message
    assert beat.ticks > 5 and beat.longest_pause_s < 1.0
    found = mask_of(case[1])
    np.testing.assert_array_equal(found[list(DRAWN)], ORGAN[list(DRAWN)])
    assert (found & ORGAN).sum() > 0.95 * ORGAN[3:28].sum()
    assert mask_of(case[1], "cyst")[14].any()


def test_the_result_is_shown_as_a_picture_with_a_suggestion(host: Any, module: Any, case: Any) -> None:
    run(host, module)
    panel = module.resultPanel
    assert panel.summaryLabel.text.startswith("Organ: 5 slices drawn, 20 propagated by geometry; expected Dice 0.")
    assert panel.stripLabel.pixmap.width() >= 280 and panel.stripLabel.pixmap.height() == 92
    assert panel.segmentBox.count == 2 and not panel.segmentBox.isHidden()
    record = panel.current[2]
    assert panel.adviceLabel.text == record.advice.reason
    assert (panel.goButton.enabled, panel.goButton.text) == (True, f"Go to slice {record.advice.slice}")
    assert (panel.sliceSlider.minimum, panel.sliceSlider.maximum) == (3, 27)
    panel.segmentBox.setCurrentIndex(1)
    assert panel.summaryLabel.text.startswith("Cyst: 3 slices drawn")


def test_the_suggested_slice_and_the_slider_s_slice_are_shown_in_the_slice_views(
    host: Any, module: Any, case: Any
) -> None:
    import slicer

    run(host, module)
    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    view.SetLayoutName("Red")
    view.SetOrientation("Axial")
    module.resultPanel.goButton.click()
    advised = module.resultPanel.current[2].advice.slice
    assert view.GetSliceOffset() == pytest.approx(1.5 * advised)
    assert module.resultPanel.sliceSlider.value == advised
    module.resultPanel.sliceSlider.setValue(7)
    assert view.GetSliceOffset() == pytest.approx(1.5 * 7)


def test_only_the_selected_segment_is_propagated(host: Any, module: Any, case: Any) -> None:
    module.ui.segmentsTable.setSelectedSegmentIDs(["cyst"])
    host.process_events()
    run(host, module)
    np.testing.assert_array_equal(mask_of(case[1]), on_slices(ORGAN, DRAWN))
    assert mask_of(case[1], "cyst")[13].any()
    assert module.resultPanel.summaryLabel.text.startswith("Cyst")


def test_the_extent_is_heeded_and_remembered_with_the_scene(host: Any, module: Any, case: Any) -> None:
    module.ui.extentSpinBox.setValue(2)
    run(host, module)
    found = mask_of(case[1])
    assert found[1].any() and found[29].any() and not found[0].any()
    assert module.logic.getParameterNode().extent == 2
    module.ui.extentSpinBox.setValue(-1)
    assert module.ui.extentSpinBox.text == "until the structure ends"


def test_a_correction_is_taken_up_and_every_gap_where_it_is_asked_for(host: Any, module: Any, case: Any) -> None:
    run(host, module)
    before = mask_of(case[1])
    draw(case[1], 12, ball((1, *SHAPE[1:]), (0, 14, 11), 4)[0])
    assert "10 slices" not in run(host, module)
    found = mask_of(case[1])
    np.testing.assert_array_equal(np.delete(found, range(10, 15), 0), np.delete(before, range(10, 15), 0))
    module.ui.allGapsBox.setChecked(True)
    assert "slices propagated" in run(host, module)


# Undo


def test_undo_takes_one_propagation_after_the_other_back(host: Any, module: Any, case: Any) -> None:
    run(host, module)
    first = mask_of(case[1])
    draw(case[1], 12, ball((1, *SHAPE[1:]), (0, 14, 11), 4)[0])
    corrected = mask_of(case[1])
    run(host, module)
    module.resultPanel.undoButton.click()
    np.testing.assert_array_equal(mask_of(case[1]), corrected)
    assert module.resultPanel.undoButton.enabled
    module.resultPanel.undoButton.click()
    np.testing.assert_array_equal(mask_of(case[1]), on_slices(ORGAN, DRAWN))
    assert not module.resultPanel.undoButton.enabled
    assert module.resultPanel.summaryLabel.text == "Nothing is propagated yet."
    run(host, module)
    np.testing.assert_array_equal(mask_of(case[1]), first)


def test_after_closing_the_scene_there_is_nothing_to_undo(host: Any, module: Any, case: Any) -> None:
    run(host, module)
    host.scene.Clear(False)
    host.process_events()
    volume, segmentation = a_case()
    choose(host, module, volume, segmentation)
    assert not module.logic.canUndo(segmentation) and not module.resultPanel.undoButton.enabled
    run(host, module)
    module.resultPanel.undoButton.click()
    np.testing.assert_array_equal(mask_of(segmentation), on_slices(ORGAN, DRAWN))


def test_a_script_s_undo_heeds_a_new_scene_without_being_told(host: Any, module: Any, case: Any) -> None:
    import Mem3DPropagate

    logic = Mem3DPropagate.Mem3DPropagateLogic()
    logic.propagate(case[1], volumeNode=case[0])
    host.scene.Clear(False)
    volume, segmentation = a_case()
    assert not logic.canUndo(segmentation)
    logic.propagate(segmentation, volumeNode=volume)
    assert logic.undo(segmentation)
    np.testing.assert_array_equal(mask_of(segmentation), on_slices(ORGAN, DRAWN))


# What goes wrong


def test_a_wrong_input_is_said_in_the_panel(host: Any, module: Any) -> None:
    volume, segmentation = a_case(masks={"organ": ORGAN})
    choose(host, module, volume, segmentation)
    assert "cannot be told along which axis" in run(host, module)
    module.ui.axisBox.setCurrentIndex(1)
    assert "0 slices propagated" in run(host, module)
    np.testing.assert_array_equal(mask_of(segmentation), ORGAN)


def test_a_segmentation_of_another_volume_is_refused(host: Any, module: Any, case: Any) -> None:
    other, _ = a_case(np.diag([1.1, 1.0, 1.5, 1.0]))
    choose(host, module, other, case[1])
    assert "does not lie on the voxels of this volume" in run(host, module)
    np.testing.assert_array_equal(mask_of(case[1]), on_slices(ORGAN, DRAWN))


def test_an_unreadable_memory_is_said_and_the_panel_goes_on(host: Any, module: Any, case: Any) -> None:
    from MedAILib.mrml.segmentations import set_tag

    set_tag(case[1], "organ", TAG, "damaged")
    host.exit(module)
    host.enter(module)
    module.showResult()
    assert TAG in run(host, module)
    set_tag(case[1], "organ", TAG, None)
    assert "slices propagated" in run(host, module)


def a_large_case() -> tuple[Any, Any, np.ndarray]:
    big = ellipsoid((160, 320, 320), (80, 160, 160), (79, 150, 150))
    drawn = on_slices(big, (5, 40, 80, 120, 155))
    return *a_case(masks={"organ": drawn}), drawn


def large_mask(segmentation: Any) -> np.ndarray:
    from MedAILib.mrml.segmentations import segment_mask
    from MedAILib.volume import Geometry

    return segment_mask(segmentation, "organ", Geometry((160, 320, 320), MATRIX))


def start_and_wait_until_it_propagates(host: Any, module: Any) -> None:
    module.runPanel.button.click()
    assert module.runPanel.is_running
    host.wait_until(lambda: module.runPanel.stageLabel.text.startswith("Propagating"), 20)


def test_a_worker_killed_in_mid_job_leaves_the_scene_as_it_was_and_the_panel_says_so(host: Any, module: Any) -> None:
    import slicer

    from MedAILib.mrml.segmentations import get_tag

    volume, segmentation, drawn = a_large_case()
    choose(host, module, volume, segmentation)
    start_and_wait_until_it_propagates(host, module)
    os.kill(slicer.modules.MedAIExtensionInstance.runner.process_id, signal.SIGKILL)
    host.wait_until(lambda: not module.runPanel.is_running, 5)
    assert "worker" in module.runPanel.message.text.lower()
    np.testing.assert_array_equal(large_mask(segmentation), drawn)
    assert get_tag(segmentation, "organ", TAG) is None
    assert not module.resultPanel.undoButton.enabled
    start_and_wait_until_it_propagates(host, module)  # the next run gets a new worker
    module.runPanel.button.click()  # Cancel
    assert not module.runPanel.is_running and "cancelled" in module.runPanel.message.text
    np.testing.assert_array_equal(large_mask(segmentation), drawn)


def test_what_is_drawn_during_a_run_is_kept_and_the_panel_says_so(host: Any, module: Any, case: Any) -> None:
    plane = ball((1, *SHAPE[1:]), (0, 14, 11), 4)[0]
    module.runPanel.button.click()
    assert module.runPanel.is_running
    draw(case[1], 12, plane)
    before = mask_of(case[1])
    host.wait_until(lambda: not module.runPanel.is_running, 120)
    assert "changed while the propagation ran" in module.runPanel.message.text
    np.testing.assert_array_equal(mask_of(case[1]), before)
    assert not module.resultPanel.undoButton.enabled
    run(host, module)
    np.testing.assert_array_equal(mask_of(case[1])[12], plane)


def test_closing_the_scene_during_a_run_ends_it(host: Any, module: Any, case: Any) -> None:
    module.runPanel.button.click()
    host.scene.Clear(False)
    host.process_events()
    assert not module.runPanel.is_running


def test_leaving_the_module_during_a_run_does_not_lose_its_result(host: Any, module: Any, case: Any) -> None:
    module.runPanel.button.click()
    host.exit(module)
    host.wait_until(lambda: not module.runPanel.is_running, 120)
    assert mask_of(case[1])[12].any()
    host.enter(module)
    assert module.resultPanel.summaryLabel.text.startswith("Organ")


# Scripts


def test_three_lines_in_the_console_do_it(host: Any, module: Any, repository: Path) -> None:
    from Mem3DPropagate import Mem3DPropagateLogic

    logic = Mem3DPropagateLogic()
    _, segmentation = logic.loadSample(str(repository / "Mem3DPropagate" / "Resources" / "SampleData"))
    result = logic.propagate(segmentation)
    (segment,) = result.segments
    assert segment.method.value == "mem3d_memory" and 0 < segment.quality_score < segment.confidence < 1
    assert len(segment.used_slices) == 5 and segment.distance_to_nearest == 5.0
    ((segment_id, name, record),) = logic.results(segmentation)
    assert (segment_id, name) == (segment.segment_id, segment.name) and record.references == segment.used_slices
    assert logic.canUndo(segmentation) and logic.undo(segmentation) and not logic.results(segmentation)


def test_a_script_may_name_axis_references_and_runner(host: Any, module: Any) -> None:
    from Mem3DPropagate import Mem3DPropagateLogic

    volume, segmentation = a_case(masks={"organ": ORGAN})
    result = Mem3DPropagateLogic().propagate(
        segmentation, ["organ"], volume, axis="k", references=[3, 15, 27], extend=1, runner=InProcessRunner()
    )
    assert result.segments[0].used_slices == (3, 15, 27) and len(result.segments[0].slices) == 27


def test_a_script_s_mistake_is_an_error_with_cause_and_action(host: Any, module: Any) -> None:
    from Mem3DPropagate import Mem3DPropagateLogic

    volume, segmentation = a_case()
    logic = Mem3DPropagateLogic()
    with pytest.raises(InputError, match="on which volume"):
        logic.propagate(segmentation)
    with pytest.raises(InputError, match="segmentation is needed"):
        logic.propagate(None, volumeNode=volume)
    with pytest.raises(InputError, match="segmentation is needed"):
        logic.propagate(volume, volumeNode=volume)
    with pytest.raises(InputError, match="no axis 'z'"):
        logic.propagate(segmentation, volumeNode=volume, axis="z")
    with pytest.raises(InputError, match="liver"):
        logic.propagate(segmentation, ["liver"], volume)
    for extend in (-2, "far", 1.5):
        with pytest.raises(InputError):
            logic.propagate(segmentation, None, volume, extend=extend)
    np.testing.assert_array_equal(mask_of(segmentation), on_slices(ORGAN, DRAWN))


def test_the_sample_button_loads_and_chooses_the_sample(host: Any, module: Any) -> None:
    module.ui.sampleButton.click()
    host.process_events()
    assert module.ui.volumeSelector.currentNode().GetName() == "Mem3DPropagateHippocampus"
    assert module.ui.segmentationSelector.currentNode() is not None
    assert "34 slices propagated" in run(host, module)
    assert "34 propagated by the network medai-propagate-s; expected Dice 0." in module.resultPanel.summaryLabel.text


def test_the_method_decides_what_the_status_line_says_and_which_weights_are_asked_for(host: Any, module: Any) -> None:
    from Mem3DPropagate import MethodChoice

    volume, segmentation = a_case()
    choose(host, module, volume, segmentation)
    assert "Geometry · Apache-2.0" in module.runPanel.statusLabel.text
    module._parameterNode.method = MethodChoice.NETWORK
    host.process_events()
    assert "MedAI network over geometry" in module.runPanel.statusLabel.text
    assert not module.ui.weightsPathLine.visible and module.runPanel.button.enabled
    module._parameterNode.method = MethodChoice.STM
    host.process_events()
    assert "licence of your weights" in module.runPanel.statusLabel.text
    assert "Choose the weight file" in module.runPanel.button.toolTip


def test_the_self_test_of_the_module_succeeds(module: Any) -> None:
    import Mem3DPropagate

    result = unittest.TestResult()
    Mem3DPropagate.Mem3DPropagateTest("runTest").run(result)
    assert result.testsRun == 1 and result.wasSuccessful(), result.errors + result.failures
