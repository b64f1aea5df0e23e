"""MedAI's hub: the models of this machine, prediction with a multi-task network, devices, and the worker process."""

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
from slicer.util import VTKObservationMixin

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
        parent.helpText = _(
            "Get, import, export and check the models that MedAI's modules use; predict with a multi-task network; "
            "see what this machine can compute on, and the worker process that does the long work."
        )
        parent.acknowledgementText = _("For research use only. Not a medical device.")
        self.runner = WorkerRunner()
        # Downloads take hours at times and must not hold up the work of other modules.
        self.modelsRunner = WorkerRunner()
        for runner in (self.runner, self.modelsRunner):
            slicer.app.connect("aboutToQuit()", runner.close)


class MedAIExtensionWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """The panel; what it does is in the logic."""

    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
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
        self.setupModels()
        self.setupMultitask()
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

    def setupModels(self) -> None:
        from MedAILib.ui.models_panel import ModelsPanel
        from MedAILib.ui.run_times import RunTimes

        times = RunTimes(slicer.app.settings(), f"{self.moduleName}.Models")
        self.modelsPanel = ModelsPanel(self.logic.store, self.logic.startManaging, times)
        self.ui.modelsSection.layout().addWidget(self.modelsPanel.widget)

    def setupMultitask(self) -> None:
        from MedAILib.ui.multitask_panel import MultitaskPanel
        from MedAILib.ui.run_times import RunTimes

        self.multitaskPanel = MultitaskPanel(
            slicer.mrmlScene,
            self.logic.tumourModels,
            self.logic.startPrediction,
            self.logic.writePrediction,
            self.logic.showSlice,
            RunTimes(slicer.app.settings(), f"{self.moduleName}.Multitask"),
        )
        self.ui.multitaskSection.layout().addWidget(self.multitaskPanel.widget)
        self.modelsPanel.on_models_changed = self.multitaskPanel.show_models
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)

    def enter(self) -> None:
        self.modelsPanel.refresh()
        self.multitaskPanel.show_models()
        self.showWorker()
        self._watch.start()

    def exit(self) -> None:
        self._watch.stop()

    def cleanup(self) -> None:
        self.removeObservers()
        if self._search is not None:
            self._search.close()
        self._watch.close()
        self.modelsPanel.close()
        self.multitaskPanel.close()
        self.runPanel.close()

    def onSceneStartClose(self, caller, event) -> None:
        self.multitaskPanel.scene_closes()

    def showModel(self, modelId: str) -> None:
        """Open the list of models with one selected; other modules' badges lead here."""
        self.ui.modelsSection.collapsed = False
        self.modelsPanel.select(modelId)

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
        for panel in (self.runPanel, self.modelsPanel.runPanel, self.multitaskPanel.runPanel):
            panel.cancel()
        self.logic.stopWorker()
        self.showWorker()

    # Versions

    def onCopyVersions(self) -> None:
        qt.QApplication.clipboard().setText(self.logic.versionsText(self.devices))


class MedAIExtensionLogic(ScriptedLoadableModuleLogic):
    """What the panel does, for scripts and other modules.

    Parameters
    ----------
    runner : MedAILib.jobs.runner.Runner, optional
        Default: the worker that all MedAI modules share, and another one for getting and checking models.
    store : MedAILib.ui.model_store.ModelStore, optional
        Default: the models where the user keeps them.

    Attributes
    ----------
    runner, modelsRunner : Runner
    store : ModelStore
    """

    def __init__(self, runner=None, store=None) -> None:
        from MedAILib.ui.model_store import ModelStore

        ScriptedLoadableModuleLogic.__init__(self)
        self.runner = runner or slicer.modules.MedAIExtensionInstance.runner
        self.modelsRunner = runner or slicer.modules.MedAIExtensionInstance.modelsRunner
        self.store = store or ModelStore(slicer.app.settings())

    # Models

    def models(self, text: str = ""):
        """Models whose texts hold every word, each as `ModelEntry` and `Status`."""
        return self.store.manager.models(text)

    def getModel(self, modelId: str, acceptLicence: bool = False):
        """The folder of a model, downloaded where it is not here yet; waits.

        Parameters
        ----------
        modelId : str
        acceptLicence : bool
            You have read ``store.manager.licence(modelId)`` and accept it; that is written down.

        Raises
        ------
        MedAILib.errors.MedAIError
        """
        from MedAILib.models.manage_task import Action

        self._manage(Action.GET, [modelId], accepted=[modelId] if acceptLicence else [])
        return self.store.manager.path(modelId)

    def importModel(self, path, modelId: str = "", acceptLicences=()):
        """Install from a file, folder, archive or bundle; waits. Answers the `ManageResult`.

        Parameters
        ----------
        path : path
        modelId : str
            Take it for this model, where no hash of it is known.
        acceptLicences : iterable of str
            Ids of models whose licences you have read and accept.
        """
        from pathlib import Path

        from MedAILib.models.manage_task import Action

        return self._manage(Action.IMPORT, [modelId] if modelId else [], Path(path), acceptLicences)

    def exportModels(self, modelIds, path):
        """Pack installed models into one file for a machine without a network; waits. Answers its path."""
        from pathlib import Path

        from MedAILib.models.manage_task import Action

        return self._manage(Action.EXPORT, modelIds, Path(path)).path

    def verifyModel(self, modelId: str):
        """Hash every file of a model; waits. Answers its `Status`, raises `InvalidWeights` where one is wrong."""
        from MedAILib.models.manage_task import Action

        self._manage(Action.VERIFY, [modelId])
        return self.store.manager.state(modelId)

    def removeModel(self, modelId: str) -> int:
        """Delete a model from the user's store; the bytes freed."""
        from MedAILib.models.manage_task import Action

        return self._manage(Action.REMOVE, [modelId]).freed_bytes

    def startManaging(self, request, onProgress: ProgressListener | None = None) -> Job:
        """Start a `ManageRequest`."""
        from MedAILib.models.manage_task import TASK

        return self.modelsRunner.start(TASK, request, onProgress)

    def _manage(self, action, modelIds=(), path=None, accepted=()):
        from MedAILib.errors import LicenceNotAccepted
        from MedAILib.models.manage_task import TASK

        result = self.modelsRunner.run(TASK, self.store.request(action, modelIds, path, tuple(accepted))).result
        self.store.refresh()
        if result.question is not None:
            raise LicenceNotAccepted(
                _("The licence of '{name}' has not been accepted.").format(name=result.question.model_id),
                why=result.question.text,
                todo=_("Read it; if you accept, say so in the call."),
            )
        return result

    # Prediction with a multi-task network

    def tumourModels(self):
        """Installed multi-task models, as `MedAILib.ui.multitask_panel.Choice`."""
        from MedAILib.ui.model_texts import licence_word
        from MedAILib.ui.multitask_panel import Choice

        manager = self.store.manager
        found = [entry for entry, status in manager.models() if status.is_usable and _isMultitask(entry)]
        return [Choice(entry.title, licence_word(entry), manager.weights(entry.id)) for entry in found]

    def predictTumour(self, volumeNode, checkpoint, segmentEverySlice: bool = False, smallestMm3: float = 0.0):
        """Predict on all slices of a volume and put the result into the scene; waits.

        Parameters
        ----------
        volumeNode : vtkMRMLScalarVolumeNode
        checkpoint : path or str
            Weight file, folder of one model, or the id of an installed model. There are no clinical weights.
        segmentEverySlice : bool
            Default: only slices whose probability reaches the model's threshold.
        smallestMm3 : float
            Connected parts of the mask that are smaller are removed.

        Returns
        -------
        MedAILib.mrml.multitask_result.MultitaskNodes
            The result as values, the segmentation node and the table node.

        Raises
        ------
        MedAILib.errors.MedAIError
            The scene is as it was.
        """
        from pathlib import Path

        from MedAILib.multitask.volume_task import TASK

        manager = self.store.manager
        isModel = str(checkpoint) in manager.catalogue
        path = manager.weights(str(checkpoint)) if isModel else Path(checkpoint)
        request = _volumeRequest(volumeNode, path, not segmentEverySlice, smallestMm3)
        return self.writePrediction(volumeNode, self.runner.run(TASK, request))

    def startPrediction(self, volumeNode, checkpoint, options, onProgress: ProgressListener | None = None) -> Job:
        """Start a prediction; ``options`` as in `MedAILib.ui.multitask_panel.Options`."""
        from MedAILib.multitask.volume_task import TASK

        request = _volumeRequest(volumeNode, checkpoint, options.conditional, options.smallest_object_mm3)
        return self.runner.start(TASK, request, onProgress)

    def writePrediction(self, volumeNode, outcome: Outcome):
        """Take the outcome of a prediction into the volume's scene."""
        from MedAILib.mrml.multitask_result import write_multitask_result

        return write_multitask_result(slicer.mrmlScene, outcome.result, volumeNode, outcome.report.run_id)

    def showSlice(self, result, index: int) -> None:
        """Let all slice views show a slice of a prediction, at the middle of what is segmented there."""
        from MedAILib.mrml.multitask_result import slice_point_ras_mm

        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *slice_point_ras_mm(result, index))

    # The worker

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


def _isMultitask(entry) -> bool:
    from MedAILib.models.unet_inference import NAME

    return entry.architecture.name == NAME


def _volumeRequest(volumeNode, checkpoint, conditional: bool, smallestMm3: float):
    from MedAILib.mrml.volumes import read_volume
    from MedAILib.multitask.volume_task import VolumeRequest

    return VolumeRequest(read_volume(volumeNode), checkpoint, conditional=conditional, smallest_object_mm3=smallestMm3)


class MedAIExtensionTest(ScriptedLoadableModuleTest):
    """The self-test that a user can run from within Slicer."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_TheProcessorIsFound()
        self.test_TheModelsAreListed()
        self.test_TheWorkerAnswers()

    def test_TheProcessorIsFound(self) -> None:
        self.assertEqual(probe_devices()[-1].id, "cpu")

    def test_TheModelsAreListed(self) -> None:
        found = MedAIExtensionLogic().models("knee")
        self.assertTrue(all(status.model_id == entry.id for entry, status in found) and found)

    def test_TheWorkerAnswers(self) -> None:
        with WorkerRunner() as runner:
            check = MedAIExtensionLogic(runner).checkWorker()
        self.assertGreater(check.process_id, 0)
