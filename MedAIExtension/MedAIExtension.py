"""MedAI's hub: what this machine computes on, and the worker process that does the long work."""

from __future__ import annotations

import logging

import numpy as np
import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
    ScriptedLoadableModuleWidget,
)

from MedAILib.jobs.device import Device, probe_devices
from MedAILib.jobs.execute import Outcome
from MedAILib.jobs.runner import Job, ProgressListener
from MedAILib.jobs.selfcheck import CheckRequest, CheckTask, WorkerCheck, check_runner
from MedAILib.jobs.task import task_name
from MedAILib.jobs.worker_runner import WorkerRunner

logger = logging.getLogger(__name__)


class MedAIExtension(ScriptedLoadableModule):
    """The module; it holds the one worker that all MedAI modules of this application use."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedAI")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = []
        parent.contributors = ["The MedAI maintainers"]
        parent.helpText = _("Shows what this machine can compute on and checks the worker process that MedAI uses.")
        parent.acknowledgementText = _("For research use only. Not a medical device.")
        self.runner = WorkerRunner()
        slicer.app.connect("aboutToQuit()", self.runner.close)


class MedAIExtensionWidget(ScriptedLoadableModuleWidget):
    """The panel."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        self.logic = None
        self.devices: tuple[Device, ...] = ()
        self._search = None

    def setup(self) -> None:
        from MedAILib.ui.run_panel import RunPanel, RunStatus
        from MedAILib.ui.run_times import RunTimes
        from MedAILib.ui.ticker import Ticker

        ScriptedLoadableModuleWidget.setup(self)
        uiWidget = slicer.util.loadUI(self.resourcePath("UI/MedAIExtension.ui"))
        self.layout.addWidget(uiWidget)
        self.ui = slicer.util.childWidgetVariables(uiWidget)
        self._devicesForm = qt.QFormLayout(self.ui.devicesPanel)
        self._devicesForm.setContentsMargins(0, 0, 0, 0)
        self.logic = MedAIExtensionLogic()
        self.runPanel = RunPanel(
            _("Check worker"),
            self.logic.startCheck,
            self.onChecked,
            times=RunTimes(slicer.app.settings(), self.moduleName),
            status=RunStatus(_("Worker check"), "Apache-2.0", "CPU"),
        )
        self.ui.workerSection.layout().addWidget(self.runPanel.widget)
        self.runPanel.on_state_changed = self.showWorker
        self.ui.refreshButton.clicked.connect(self.findDevices)
        self.ui.stopButton.clicked.connect(self.onStop)
        self.ui.copyVersionsButton.clicked.connect(self.onCopyVersions)
        self.ui.versionsLabel.text = self.logic.versionsText()
        self._watch = Ticker(self.showWorker, interval_ms=1000)
        self.findDevices()
        self.showWorker()

    def enter(self) -> None:
        self.showWorker()
        self._watch.start()

    def exit(self) -> None:
        self._watch.stop()

    def cleanup(self) -> None:
        if self._search is not None:
            self._search.close()
        self._watch.close()
        self.runPanel.close()

    # Devices

    def findDevices(self) -> None:
        """Look for devices without waiting for slow drivers."""
        from MedAILib.ui.ticker import Background

        if self._search is not None:
            self._search.close()
        self.ui.refreshButton.enabled = False
        self._search = Background(probe_devices, self.showDevices, self.onDevicesUnknown)

    def showDevices(self, devices: tuple[Device, ...]) -> None:
        from MedAILib.ui.machine import device_text

        self.devices = devices
        self._showDeviceLines([(device.id.upper(), device_text(device)) for device in devices])

    def onDevicesUnknown(self, error: Exception) -> None:
        logger.error("devices could not be found", exc_info=error)
        self._showDeviceLines([(_("Devices"), _("not found: {reason}").format(reason=error))])

    def _showDeviceLines(self, lines: list[tuple[str, str]]) -> None:
        while self._devicesForm.rowCount() > 0:
            self._devicesForm.removeRow(0)
        for caption, text in lines:
            label = qt.QLabel(text)
            label.wordWrap = True
            self._devicesForm.addRow(caption + ":", label)
        self.ui.refreshButton.enabled = True

    # Worker

    def showWorker(self) -> None:
        from MedAILib.ui.machine import worker_text

        self.ui.workerLabel.text = worker_text(self.logic.runner)
        started = self.logic.runner.process_id is not None
        self.ui.stopButton.enabled = started
        self.ui.stopButton.toolTip = (
            _("End the worker and free its memory; a run under way is cancelled.") if started else _("No worker runs.")
        )

    def onChecked(self, outcome: Outcome) -> str:
        result = outcome.result
        return _("The worker answers: process {id}, Python {version}.").format(
            id=result.process_id, version=result.python
        )

    def onStop(self) -> None:
        self.runPanel.cancel()
        self.logic.stopWorker()
        self.showWorker()

    # Versions

    def onCopyVersions(self) -> None:
        qt.QApplication.clipboard().setText(self.logic.versionsText(self.devices))


class MedAIExtensionLogic(ScriptedLoadableModuleLogic):
    """What the panel does, for scripts and other modules.

    Attributes
    ----------
    runner : WorkerRunner
        The worker that all MedAI modules share.
    """

    def __init__(self, runner: WorkerRunner | None = None) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self.runner = runner or slicer.modules.MedAIExtensionInstance.runner

    def startCheck(self, onProgress: ProgressListener | None = None) -> Job:
        """Let the worker do a very small job."""
        return self.runner.start(task_name(CheckTask), CheckRequest(np.arange(100_000)), onProgress)

    def checkWorker(self) -> WorkerCheck:
        """Check the way to the worker and back, and wait for the answer."""
        return check_runner(self.runner)

    def stopWorker(self) -> None:
        self.runner.close()

    def versionsText(self, devices: tuple[Device, ...] = ()) -> str:
        """Versions of what matters, and devices, one a line."""
        from MedAILib.ui.machine import machine_text

        return machine_text(devices, f"{slicer.app.majorVersion}.{slicer.app.minorVersion}")


class MedAIExtensionTest(ScriptedLoadableModuleTest):
    """The self-test that a user can run from within Slicer."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_TheProcessorIsFound()
        self.test_TheWorkerAnswers()

    def test_TheProcessorIsFound(self) -> None:
        self.assertEqual(probe_devices()[-1].id, "cpu")

    def test_TheWorkerAnswers(self) -> None:
        with WorkerRunner() as runner:
            check = MedAIExtensionLogic(runner).checkWorker()
        self.assertGreater(check.process_id, 0)
