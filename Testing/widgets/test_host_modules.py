"""The host opens scripted modules: life cycle, ``.ui`` files, parameter nodes, messages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from host.host_errors import WindowOpened

EXAMPLE = Path(__file__).parent / "HostExample" / "HostExample.py"


@pytest.fixture
def example(host: Any) -> Any:
    return host.open_module(EXAMPLE)


def _a_volume(name: str) -> Any:
    import slicer

    return slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.int16), name=name)


def test_a_module_opens_with_its_panel_and_its_metadata(example: Any) -> None:
    import slicer

    assert slicer.modules.hostexample.title == "Host example"
    assert slicer.util.modulePath("HostExample") == str(EXAMPLE)
    assert example.ui.inputsSection.text == "Inputs"
    assert example.ui.advancedSection.collapsed and not example.ui.countBox.visible


def test_the_scene_reaches_selectors_through_the_connections_of_the_ui_file(example: Any) -> None:
    ct = _a_volume("CT")
    assert example.ui.volumeSelector.nodeFromIndex(0) is ct


def test_widgets_and_parameters_follow_each_other(example: Any) -> None:
    ui, parameters = example.ui, example.parameters
    ct = _a_volume("CT")
    ui.volumeSelector.setCurrentNode(ct)
    ui.thresholdSlider.value = -3.5
    ui.countBox.value = 5
    ui.invertBox.checked = True
    ui.titleLine.text = "Tête"
    ui.axisBox.currentIndex = 2
    ui.mannerBox.currentIndex = 0
    assert parameters.inputVolume is ct
    assert (parameters.threshold, parameters.count, parameters.invert) == (-3.5, 5, True)
    assert (parameters.title, parameters.axis, parameters.manner.value) == ("Tête", "j", "gentle")
    parameters.count = 1
    parameters.inputVolume = None
    assert ui.countBox.value == 1 and ui.volumeSelector.currentNode() is None


def test_parameters_live_on_a_node_of_the_scene(host: Any, example: Any, tmp_path: Path) -> None:
    """Written to a scene file and read again, they are what they were."""
    example.parameters.threshold = 4.25
    example.parameters.weights = [0.5, 0.25]
    host.exit(example)
    host.scene.SetURL(str(tmp_path / "scene.mrml"))
    assert host.scene.Commit()
    host.scene.Clear(True)
    host.scene.SetURL(str(tmp_path / "scene.mrml"))
    assert host.scene.Connect()
    host.enter(example)
    assert (example.parameters.threshold, example.parameters.weights) == (4.25, [0.5, 0.25])
    assert example.ui.thresholdSlider.value == 4.25


def test_a_value_out_of_its_range_or_of_another_kind_is_refused(example: Any) -> None:
    with pytest.raises(ValueError, match="11"):
        example.parameters.threshold = 11
    with pytest.raises(TypeError, match="count"):
        example.parameters.count = "many"
    with pytest.raises(ValueError, match="diagonal"):
        example.parameters.axis = "diagonal"


def test_an_unknown_parameter_is_an_error(example: Any) -> None:
    with pytest.raises(ValueError, match="nothing"):
        example.parameters.connectParametersToGui({"nothing": example.ui.countBox})


def test_a_left_module_no_longer_writes_parameters(host: Any, example: Any) -> None:
    parameters = example.parameters
    host.exit(example)
    example.ui.countBox.value = 9
    assert parameters.count == 3


def test_a_closed_scene_gives_fresh_parameters(host: Any, example: Any) -> None:
    example.parameters.count = 8
    host.scene.Clear(False)
    assert example.parameters.count == 3 and example.ui.countBox.value == 3


def test_a_button_is_pressed_as_by_a_user(example: Any) -> None:
    example.ui.applyButton.click()
    assert example.applied == []
    example.ui.volumeSelector.setCurrentNode(_a_volume("CT"))
    example.ui.applyButton.click()
    assert example.applied == ["CT"]


def test_a_closed_module_observes_nothing_any_more(host: Any, example: Any) -> None:
    host.close_module(example)
    assert example.Observations == [] and host.opened == []
    host.scene.Clear(False)


def test_a_screenshot_is_as_wide_as_asked(host: Any, example: Any, tmp_path: Path) -> None:
    import qt

    picture = qt.QImage(str(host.screenshot(example, tmp_path / "panel.png", width=420)))
    assert picture.width() == 420 and 100 < picture.height() < 600


def _ui_file(folder: Path, widget: str) -> str:
    path = folder / "broken.ui"
    path.write_text(f'<ui version="4.0"><class>Form</class>{widget}</ui>', encoding="utf-8")
    return str(path)


def test_a_ui_file_with_an_unknown_widget_does_not_load(host: Any, tmp_path: Path) -> None:
    import slicer

    with pytest.raises(ValueError, match="ctkNothing"):
        slicer.util.loadUI(_ui_file(tmp_path, '<widget class="ctkNothing" name="Form"/>'))


def test_a_ui_file_with_a_misspelt_property_does_not_load(host: Any, tmp_path: Path) -> None:
    import slicer

    widget = '<widget class="QLabel" name="Form"><property name="txt"><string>x</string></property></widget>'
    with pytest.raises(ValueError, match="txt"):
        slicer.util.loadUI(_ui_file(tmp_path, widget))


def test_messages_are_noted_instead_of_shown(host: Any) -> None:
    import slicer

    slicer.util.errorDisplay("bad")
    slicer.util.showStatusMessage("working", 1000)
    with pytest.raises(RuntimeError), slicer.util.tryWithErrorDisplay("It failed."):
        raise RuntimeError("cause")
    assert host.messages.of_kind("error") == ["bad", "It failed.\n\ncause"]
    assert host.messages.of_kind("status") == ["working"]


def test_questions_get_the_answers_the_test_has_prepared(host: Any) -> None:
    import slicer

    host.messages.answers.append(False)
    assert slicer.util.confirmOkCancelDisplay("Sure?") is False
    with pytest.raises(WindowOpened, match="Sure"):
        slicer.util.confirmYesNoDisplay("Sure?")


def test_the_application_is_one_without_a_main_window(host: Any) -> None:
    import slicer

    assert slicer.app.layoutManager() is None and slicer.util.mainWindow() is None
    with pytest.raises(AttributeError):
        slicer.app.nothing()


def test_startup_is_announced_to_whoever_waits_for_it(host: Any) -> None:
    import slicer

    heard: list[str] = []
    slicer.app.connect("startupCompleted()", lambda: heard.append("started"))
    slicer.app.announce("startupCompleted()")
    assert heard == ["started"]


def test_modules_are_loaded_once_and_keep_what_they_hold(host: Any, example: Any) -> None:
    import slicer

    instance = slicer.modules.HostExampleInstance
    host.close_module(example)
    assert host.open_module(EXAMPLE).moduleName == "HostExample"
    assert slicer.modules.HostExampleInstance is instance


def test_without_pyside_the_host_says_what_to_install() -> None:
    """Then the tests of this folder skip with this reason."""
    program = (
        "import sys; sys.modules['PySide6'] = None\n"
        "from host.qt_host import HostUnavailable, start_host\n"
        "try:\n    start_host()\n"
        "except HostUnavailable as unavailable:\n    print(unavailable)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={"PYTHONPATH": str(EXAMPLE.parents[2])},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert "PySide6_Essentials" in done.stdout and "libegl1" in done.stdout, done.stderr


def test_no_torch_is_loaded_by_the_host() -> None:
    assert "torch" not in sys.modules
