"""The knee module's panel, opened from its own file."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture
def module(open_module: Callable[[str], Any]) -> Iterator[Any]:
    import slicer

    yield open_module("KneeAnalysis")
    slicer.modules.MedAIExtensionInstance.runner.close()


@pytest.fixture
def knee(host: Any, module: Any, tmp_path: Path) -> Any:
    """The example knee, chosen in the panel; results go into the test's folder."""
    import slicer

    from KneeAnalysisLib.logic import example_knee

    node = example_knee(slicer.mrmlScene)
    module.ui.segmentationSelector.setCurrentNode(node)
    module.ui.outPathLine.setCurrentPath(str(tmp_path / "Knie ü"))
    host.process_events()
    return node


def run(host: Any, module: Any) -> str:
    """Press Analyze, wait for the end, and answer what the panel says."""
    assert module.runPanel.button.enabled, module.runPanel.button.toolTip
    module.runPanel.button.click()
    host.wait_until(lambda: not module.runPanel.is_running, 60)
    return module.runPanel.message.text


def test_the_module_opens_with_its_name_and_asks_for_what_is_missing(module: Any) -> None:
    import slicer

    known = slicer.modules.kneeanalysis
    assert (known.title, known.categories) == ("Knee Analysis (MedAI)", ["Segmentation"])
    assert not module.runPanel.button.enabled
    assert "Choose the segmentation" in module.runPanel.button.toolTip
    assert module.resultPanel.summaryLabel.text == "Nothing is measured yet."


def test_segments_are_matched_to_tissues_by_their_names_for_all_to_see(module: Any, knee: Any) -> None:
    assert not module.mappingPanel.widget.isHidden()
    assert module.mappingPanel.labels() == {
        "femur": "femur",
        "tibia": "tibia",
        "femoral_cartilage": "femoral_cartilage",
        "medial_tibial_cartilage": "medial_tibial_cartilage",
        "lateral_tibial_cartilage": "lateral_tibial_cartilage",
    }
    assert module.runPanel.button.enabled


def test_a_run_fills_the_table_and_a_click_shows_the_region(host: Any, module: Any, knee: Any, tmp_path: Path) -> None:
    import slicer

    from KneeAnalysisLib.logic import chosen_segments

    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    view.SetLayoutName("Red")
    view.SetOrientation("Axial")
    with host.heartbeat() as beat:
        message = run(host, module)
    assert "regions measured" in message
    assert beat.longest_pause_s < 1.0
    table = module.resultPanel.table
    keys = [row.key for row in module.resultPanel._rows]
    assert table.rowCount == len(keys) and "med_tib_cart" in keys
    place = keys.index("med_tib_cart")
    assert table.item(place, 0).text() == "Medial tibial"
    assert float(table.item(place, 1).text()) == pytest.approx(3.0, abs=0.3)
    table.cellClicked.emit(place, 0)
    assert view.GetSliceOffset() == pytest.approx(-0.5, abs=2.0)
    assert chosen_segments(module.nodes) == ["medial_tibial_cartilage"]
    assert (tmp_path / "Knie ü" / "results.json").is_file()
    assert "patella" in module.resultPanel.notesLabel.text


def test_the_panel_fits_a_narrow_window(host: Any, module: Any, knee: Any, tmp_path: Path) -> None:
    run(host, module)
    assert module.parent.minimumSizeHint.width() <= 340
    assert host.screenshot(module, tmp_path / "panel.png").stat().st_size > 5000


def test_a_network_that_is_not_installed_is_said_and_cannot_run(host: Any, module: Any, knee: Any) -> None:
    module.ui.engineBox.setCurrentIndex(1)
    host.process_events()
    assert module.ui.engineBadge.text.startswith("missing: knee-nnunet-fullres")
    assert not module.ui.getModelButton.isHidden()
    assert "not installed" in module.runPanel.button.toolTip
    assert module.mappingPanel.widget.isHidden()
    module.ui.engineBox.setCurrentIndex(0)
    host.process_events()
    assert module.ui.engineBadge.text == "No network is needed."
    assert module.runPanel.button.enabled


def test_wrong_labels_are_said_in_the_panel_and_leave_the_scene_alone(host: Any, module: Any, knee: Any) -> None:
    import slicer

    module.ui.labelsBox.setCurrentIndex(3)  # as a file says
    host.process_events()
    assert "labels file" in module.runPanel.button.toolTip
    module.ui.labelsPathLine.setCurrentPath("/no/labels.json")
    host.process_events()
    before = slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLModelNode")
    message = run(host, module)
    assert "There is no labels file '/no/labels.json'" in message
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLModelNode") == before


def test_a_cancelled_run_says_so_and_the_next_one_ends_well(host: Any, module: Any, knee: Any) -> None:
    module.runPanel.button.click()
    assert module.runPanel.is_running
    module.runPanel.button.click()
    assert not module.runPanel.is_running
    assert "cancelled" in module.runPanel.message.text.lower()
    assert "regions measured" in run(host, module)


def test_t2_asks_for_its_series(host: Any, module: Any, knee: Any) -> None:
    module.ui.t2Box.setChecked(True)
    host.process_events()
    assert not module.ui.t2PathLine.isHidden()
    assert "T2 series" in module.runPanel.button.toolTip
    module.ui.t2PathLine.setCurrentPath("/no/such/folder")
    host.process_events()
    assert "/no/such/folder" in run(host, module)


def test_closing_the_scene_clears_the_result(host: Any, module: Any, knee: Any) -> None:
    run(host, module)
    host.scene.Clear(False)
    host.process_events()
    assert module.nodes is None
    assert module.resultPanel.summaryLabel.text == "Nothing is measured yet."


def test_the_self_test_of_the_module_succeeds(module: Any) -> None:
    import KneeAnalysis

    result = unittest.TestResult()
    KneeAnalysis.KneeAnalysisTest("runTest").run(result)
    assert result.testsRun == 1 and result.wasSuccessful(), result.errors + result.failures
