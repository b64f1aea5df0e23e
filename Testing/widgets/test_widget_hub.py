"""The hub module's panel, opened from its own file."""

from __future__ import annotations

import subprocess
import sys
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from MedAILib.jobs.runner import JobState


@pytest.fixture
def hub(open_module: Callable[[str], Any]) -> Iterator[Any]:
    hub = open_module("MedAIExtension")
    yield hub
    hub.logic.stopWorker()


def _device_rows(hub: Any) -> list[str]:
    import qt

    return [label.text for label in hub.ui.devicesPanel.findChildren(qt.QLabel)]


def test_the_hub_opens_with_its_name_and_picture(hub: Any) -> None:
    import slicer

    module = slicer.modules.medaiextension
    assert (module.title, module.categories) == ("MedAI", ["Segmentation"])
    assert (Path(module.path).parent / "Resources" / "Icons" / "MedAIExtension.png").is_file()


def test_the_picture_is_128_pixels_wide_and_high(host: Any, repository: Path) -> None:
    import qt

    picture = qt.QImage(str(repository / "MedAIExtension" / "Resources" / "Icons" / "MedAIExtension.png"))
    assert (picture.width(), picture.height()) == (128, 128)


def test_devices_appear_with_the_processor_last(host: Any, hub: Any) -> None:
    host.wait_until(lambda: bool(hub.devices))
    rows = _device_rows(hub)
    assert rows[-2] == "CPU:" and "core" in rows[-1] and "GB" in rows[-1]
    assert hub.ui.refreshButton.enabled


def test_looking_again_shows_the_devices_once(host: Any, hub: Any) -> None:
    host.wait_until(lambda: bool(hub.devices))
    before = _device_rows(hub)
    hub.ui.refreshButton.click()
    assert not hub.ui.refreshButton.enabled
    host.wait_until(lambda: hub.ui.refreshButton.enabled)
    host.wait_until(lambda: len(_device_rows(hub)) == len(before))


def test_a_fresh_hub_has_no_worker_and_nothing_to_stop(hub: Any) -> None:
    assert hub.ui.workerLabel.text == "not started"
    assert not hub.ui.stopButton.enabled and hub.ui.stopButton.toolTip == "No worker runs."


def test_checking_the_worker_leaves_the_event_loop_alive(host: Any, hub: Any) -> None:
    with host.heartbeat() as beat:
        hub.runPanel.button.click()
        assert hub.runPanel.is_running and hub.ui.workerLabel.text.startswith("working, process ")
        host.wait_until(lambda: not hub.runPanel.is_running)
    assert beat.ticks > 5 and beat.longest_pause_s < 0.5
    process_id = hub.logic.runner.process_id
    assert hub.runPanel.message.text.startswith(f"The worker answers: process {process_id}, Python ")
    assert hub.ui.workerLabel.text.startswith(f"idle, process {process_id}")
    assert hub.ui.stopButton.enabled


def test_a_check_can_be_cancelled(host: Any, hub: Any) -> None:
    hub.logic.stopWorker()
    hub.runPanel.button.click()
    hub.runPanel.button.click()
    assert not hub.runPanel.is_running and "cancelled" in hub.runPanel.message.text
    hub.runPanel.button.click()
    host.wait_until(lambda: not hub.runPanel.is_running)
    assert hub.runPanel.message.text.startswith("The worker answers")


def test_stopping_ends_the_worker_process(host: Any, hub: Any) -> None:
    hub.runPanel.button.click()
    host.wait_until(lambda: not hub.runPanel.is_running)
    hub.ui.stopButton.click()
    assert hub.logic.runner.process_id is None and hub.ui.workerLabel.text == "not started"


def test_stopping_in_the_middle_of_a_check_cancels_it(host: Any, hub: Any) -> None:
    hub.runPanel.button.click()
    hub.ui.stopButton.click()
    assert not hub.runPanel.is_running and hub.logic.runner.process_id is None


def test_all_modules_share_one_worker(hub: Any) -> None:
    import MedAIExtension

    assert MedAIExtension.MedAIExtensionLogic().runner is hub.logic.runner


def test_versions_and_devices_are_copied(host: Any, hub: Any) -> None:
    import qt

    host.wait_until(lambda: bool(hub.devices))
    hub.ui.copyVersionsButton.click()
    text = qt.QApplication.clipboard().text()
    assert text.startswith("MedAI ") and "\nnumpy " in text and "\ncpu: " in text


def test_closing_the_scene_during_a_check_does_not_disturb_it(host: Any, hub: Any) -> None:
    hub.runPanel.button.click()
    host.scene.Clear(False)
    host.wait_until(lambda: not hub.runPanel.is_running)
    assert hub.runPanel.message.text.startswith("The worker answers")


def test_a_left_hub_does_not_watch_the_worker(host: Any, hub: Any) -> None:
    host.exit(hub)
    assert not hub._watch.is_running
    host.enter(hub)
    assert hub._watch.is_running


def test_a_closed_hub_ends_its_ticks_and_its_run(host: Any, hub: Any) -> None:
    hub.runPanel.button.click()
    job = hub.runPanel._job
    host.close_module(hub)
    assert not hub._watch.is_running and not hub.runPanel.is_running
    assert job.state is JobState.CANCELLED


def test_the_panel_fits_a_narrow_window(host: Any, hub: Any, tmp_path: Path) -> None:
    import qt

    host.wait_until(lambda: bool(hub.devices))
    assert hub.parent.minimumSizeHint.width() <= 300
    assert qt.QImage(str(host.screenshot(hub, tmp_path / "hub.png", width=420))).width() == 420


def test_the_self_test_of_the_module_succeeds(hub: Any) -> None:
    import MedAIExtension

    result = unittest.TestResult()
    MedAIExtension.MedAIExtensionTest("runTest").run(result)
    assert result.testsRun == 1 and result.wasSuccessful(), result.errors + result.failures


def test_opening_the_hub_loads_no_heavy_package(repository: Path) -> None:
    program = (
        "import sys; from host.qt_host import start_host; host = start_host();"
        "host.open_module('MedAIExtension/MedAIExtension.py');"
        "print(sorted({'torch', 'SimpleITK', 'scipy', 'pydicom'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=repository,
        env={"PYTHONPATH": "Testing:MedAIExtension", "PATH": "/usr/bin:/bin", "QT_QPA_PLATFORM": "offscreen"},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.stdout.splitlines()[-1:] == ["[]"], done.stderr
