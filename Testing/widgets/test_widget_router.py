"""The router module's panel, opened from its own file, with small models made here."""

from __future__ import annotations

import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed: no model can run")
pytest.importorskip("onnx", reason="onnx is not installed: no model can be made")

from PIL import Image
from router_store import a_grey_picture, a_reddish_picture, a_strange_picture, write_store

LPS = np.diag([-1.0, -1.0, 2.0, 1.0])


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_store(tmp_path_factory.mktemp("models"))


@pytest.fixture
def module(open_module: Callable[[str], Any], store: Path) -> Iterator[Any]:
    import slicer

    widget = open_module("MedMNISTRouter")
    widget.ui.modelsPathLine.setCurrentPath(str(store))
    yield widget
    slicer.modules.MedAIExtensionInstance.runner.close()


@pytest.fixture
def pictures(tmp_path: Path) -> dict[str, Path]:
    """A picture of every kind, by name, and a file that is none."""
    folder = tmp_path / "Bilder ü"
    folder.mkdir()
    found = {
        "top": a_grey_picture(1000),
        "bottom": a_grey_picture(1001, bright_top=False),
        "red": a_reddish_picture(1002),
        "stripes": a_strange_picture(),
    }
    for name, pixels in found.items():
        Image.fromarray(pixels).save(folder / f"{name}.png")
    (folder / "broken.png").write_bytes(b"")
    return {name: folder / f"{name}.png" for name in (*found, "broken")}


@pytest.fixture
def stack(module: Any) -> Any:
    import slicer

    from MedAILib.mrml.volumes import write_volume
    from MedAILib.volume import Volume

    slices = np.stack([a_grey_picture(n, bright_top=n < 2) for n in range(3)])
    return write_volume(slicer.mrmlScene, Volume(slices, LPS, "Stack"))


def run(host: Any, module: Any) -> str:
    """Press Route, wait for the end, and answer what the panel says."""
    host.process_events()
    assert module.runPanel.button.enabled, module.runPanel.button.toolTip
    module.runPanel.button.click()
    host.wait_until(lambda: not module.runPanel.is_running, 60)
    host.process_events()
    return module.runPanel.message.text


def choose_source(host: Any, module: Any, index: int) -> None:
    module.ui.sourceBox.setCurrentIndex(index)
    host.process_events()


def test_the_module_opens_with_its_name_and_asks_for_what_is_missing(module: Any) -> None:
    import slicer

    known = slicer.modules.medmnistrouter
    assert known.title == "MedMNIST Router (MedAI)"
    assert not module.runPanel.button.enabled
    assert "Choose image files" in module.runPanel.button.toolTip
    assert not module.resultPanel.emptyLabel.isHidden()
    assert "research use only" in module.runPanel.researchLabel.text.lower()


def test_a_picture_gets_its_class_bars_distance_and_routes(host: Any, module: Any, pictures: dict[str, Path]) -> None:
    module.chooseFiles([pictures["top"]])
    with host.heartbeat() as beat:
        assert run(host, module) == "top.png: pneumonia"
    assert beat.longest_pause_s < 1.0
    panel = module.resultPanel
    assert panel.headlineLabel.text == "pneumonia"
    assert "PneumoniaMNIST" in panel.explanationLabel.text
    assert panel.calibrationLabel.text == "Calibrated probabilities."
    assert panel.classChart.toolTip.startswith("pneumonia: 9")
    assert not panel.distanceChart.isHidden() and not panel.routesChart.isHidden()
    assert not panel.pictureLabel.isHidden() and panel.iconLabel.isHidden()
    assert panel.list.isHidden()
    assert "test-pneumoniamnist" in panel.modelsLabel.text
    assert panel.modelsLabel.toolTip.count("SHA-256") == 2


def test_what_is_not_recognised_has_no_class_and_shows_how_far_it_is(
    host: Any, module: Any, pictures: dict[str, Path]
) -> None:
    module.chooseFiles([pictures["stripes"]])
    assert run(host, module) == "stripes.png: Not recognised"
    panel = module.resultPanel
    assert panel.headlineLabel.text == "Not recognised" and not panel.iconLabel.isHidden()
    assert panel.classChart.isHidden() and panel.calibrationLabel.isHidden()
    assert not panel.distanceChart.isHidden()
    assert "is accepted" in panel.explanationLabel.text


def test_a_missing_expert_is_named_and_a_button_leads_to_it(host: Any, module: Any, pictures: dict[str, Path]) -> None:
    import slicer

    module.chooseFiles([pictures["red"]])
    assert run(host, module) == "red.png: No answer: BloodMNIST"
    panel = module.resultPanel
    assert "stage2_bloodmnist_final.keras" in panel.explanationLabel.text
    opened: list[str] = []
    panel._get_expert = lambda flag: opened.append(module.logic.modelId(flag))
    panel.getButton.click()
    assert opened == ["medmnist-bloodmnist-keras"]
    assert slicer.modules.MedAIExtensionInstance is not None


def test_several_files_are_listed_and_written_into_a_table(host: Any, module: Any, pictures: dict[str, Path]) -> None:
    import slicer

    from MedAILib.mrml.tables import read_table

    module.chooseFiles(pictures.values())
    assert module.ui.filesLabel.text == "5 files"
    said = run(host, module)
    assert said.startswith("5 images: 2 answered, 1 not recognised, 2 failed.")
    table = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLTableNode")
    assert table.GetName() in said
    _columns, rows = read_table(table)
    assert [row[0] for row in rows] == ["top.png", "bottom.png", "red.png", "stripes.png", "broken.png"]
    panel = module.resultPanel
    assert panel.list.rowCount == 5
    assert panel.list.item(1, 1).text() == "normal" and panel.list.item(3, 1).text() == "not recognised"
    assert panel.current.image == "top.png"
    panel.choose(4)
    assert panel.headlineLabel.text == "No answer" and "empty file" in panel.explanationLabel.text
    assert panel.pictureLabel.isHidden()
    panel.choose(1)
    assert panel.headlineLabel.text == "normal" and not panel.pictureLabel.isHidden()


def test_the_chosen_table_is_used_again(host: Any, module: Any, pictures: dict[str, Path]) -> None:
    import slicer

    table = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLTableNode", "Mine")
    module.ui.tableSelector.setCurrentNode(table)
    module.chooseFiles([pictures["top"]])
    assert "'Mine'" in run(host, module)
    assert slicer.mrmlScene.GetNumberOfNodesByClass("vtkMRMLTableNode") == 1
    assert table.GetNumberOfRows() == 1


def test_the_sample_is_there_and_chosen_by_one_click(host: Any, module: Any) -> None:
    module.ui.sampleButton.click()
    host.process_events()
    assert len(module.files()) == 4 and all(path.is_file() for path in module.files())
    assert module.runPanel.button.enabled


def test_files_are_chosen_in_a_window(
    host: Any, module: Any, pictures: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    import qt

    wanted = [str(pictures[name]) for name in ("top", "red")]
    for answer in (wanted, (wanted, "Images")):  # as PythonQt gives it, and as PySide6 does
        monkeypatch.setattr(qt.QFileDialog, "getOpenFileNames", lambda *_arguments, given=answer: given)
        module.chooseFiles([pictures["bottom"]])
        module.ui.filesButton.click()
        assert [str(path) for path in module.files()] == wanted
    monkeypatch.setattr(qt.QFileDialog, "getOpenFileNames", lambda *_arguments: ([], ""))
    module.ui.filesButton.click()
    assert [str(path) for path in module.files()] == wanted


def test_a_slice_of_a_volume_is_chosen_with_the_slider(host: Any, module: Any, stack: Any) -> None:
    choose_source(host, module, 1)
    assert "Choose the volume" in module.runPanel.button.toolTip or module.runPanel.button.enabled
    module.ui.volumeSelector.setCurrentNode(stack)
    host.process_events()
    slider = module.ui.sliceSlider
    assert (slider.minimum, slider.maximum, slider.value) == (0, 2, 1)
    slider.setValue(2)
    assert run(host, module) == "Stack [k 2]: normal"
    assert module.ui.filesButton.isHidden() and not slider.isHidden()
    module.ui.axisBox.setCurrentIndex(2)  # coronal
    host.process_events()
    assert slider.maximum == 31


def test_all_slices_of_a_volume_go_in_one_run(host: Any, module: Any, stack: Any) -> None:
    choose_source(host, module, 3)
    module.ui.volumeSelector.setCurrentNode(stack)
    said = run(host, module)
    assert said.startswith("3 images: 3 answered.")
    assert [module.resultPanel.list.item(row, 1).text() for row in range(3)] == ["pneumonia", "pneumonia", "normal"]


def test_the_slice_that_a_view_shows_is_routed(host: Any, module: Any, stack: Any) -> None:
    import slicer

    view = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceNode")
    view.SetLayoutName("Red")
    view.SetOrientation("Axial")
    choose_source(host, module, 2)
    assert "The view 'Red' shows no volume" in run(host, module)
    layers = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSliceCompositeNode")
    layers.SetLayoutName("Red")
    layers.SetBackgroundVolumeID(stack.GetID())
    view.JumpSliceByCentering(0.0, 0.0, 4.0)
    assert run(host, module) == "Stack [k 2]: normal"


def test_the_list_of_experts_says_what_is_installed_and_how_to_get_the_others(module: Any) -> None:
    assert module.ui.expertsSection.text.endswith("of 12 installed")
    panel = module.expertsPanel
    names = [panel.table.item(row, 0).text() for row in range(panel.table.rowCount)]
    assert len(names) == 13 and names[0] == "router" and "BloodMNIST" in names
    states = {name: panel.table.item(row, 1).text() for row, name in enumerate(names)}
    assert states["PneumoniaMNIST"] == "trained here" and states["BloodMNIST"] == "not installed"
    panel.table.setCurrentCell(names.index("BloodMNIST"), 0)
    assert "medai models import stage2_bloodmnist_final.keras" in panel.hintLabel.text


def test_an_expert_without_statistics_answers_only_when_that_is_asked_for(
    host: Any, module: Any, pictures: dict[str, Path]
) -> None:
    module.chooseFiles([pictures["top"]])
    module.ui.expertBox.setCurrentIndex(3)  # ChestMNIST
    assert run(host, module) == "top.png: Not recognised"
    module.ui.withoutGateBox.setChecked(True)
    assert run(host, module) == "top.png: atelectasis, effusion"
    assert module.resultPanel.calibrationLabel.text.startswith("Not calibrated")
    assert module.resultPanel.distanceChart.isHidden()


def test_a_cancelled_run_says_so_and_the_next_one_ends_well(host: Any, module: Any, pictures: dict[str, Path]) -> None:
    module.chooseFiles([pictures["top"]])
    host.process_events()
    module.runPanel.button.click()
    assert module.runPanel.is_running
    module.runPanel.button.click()
    assert "cancelled" in module.runPanel.message.text.lower()
    assert not module.resultPanel.emptyLabel.isHidden()
    assert run(host, module) == "top.png: pneumonia"


def test_the_panel_fits_a_narrow_window(host: Any, module: Any, pictures: dict[str, Path], tmp_path: Path) -> None:
    module.chooseFiles(pictures.values())
    run(host, module)
    assert module.parent.minimumSizeHint.width() <= 340
    assert host.screenshot(module, tmp_path / "panel.png").stat().st_size > 5000


def test_closing_the_scene_clears_the_result(host: Any, module: Any, pictures: dict[str, Path]) -> None:
    module.chooseFiles([pictures["top"]])
    run(host, module)
    host.scene.Clear(False)
    host.process_events()
    assert module.resultPanel.current is None
    assert not module.resultPanel.emptyLabel.isHidden()


def test_the_console_answers_without_the_panel(module: Any, stack: Any, store: Path, pictures: dict[str, Path]) -> None:
    from MedMNISTRouter import MedMNISTRouterLogic

    logic = MedMNISTRouterLogic()
    logic.modelsFolder = str(store)
    assert logic.route(stack, slice=2).predicted_class_name == "normal"
    assert logic.route(pictures["top"]).predicted_class_name == "pneumonia"
    assert logic.route(str(pictures["broken"])).error_code == "INVALID_FORMAT"
    assert [answer.predicted_class_name for answer in logic.routeStack(stack)] == ["pneumonia", "pneumonia", "normal"]
    table = logic.batch([pictures["top"].parent])
    assert table.GetNumberOfRows() == 5


def test_the_self_test_of_the_module_succeeds(module: Any) -> None:
    import MedMNISTRouter

    result = unittest.TestResult()
    MedMNISTRouter.MedMNISTRouterTest("runTest").run(result)
    assert result.testsRun == 1 and result.wasSuccessful(), result.errors + result.failures
