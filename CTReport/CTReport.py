"""CTReport: a chest CT becomes findings with evidence, their places, and a report that says nothing it cannot show."""

from __future__ import annotations

from contextlib import contextmanager
from enum import Enum
from pathlib import Path

import qt
import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
)

from MedAILib.ui.module_widget import ParameterNodeWidget


class CTReport(ScriptedLoadableModule):
    """The module."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("CT Report (MedAI)")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["MedAIExtension"]
        parent.contributors = ["The MedAI maintainers"]
        parent.helpText = _(
            "Reports a chest CT: findings measured by rule or told by models, each with its evidence and its place, "
            "and a report of which every sentence is held against them. Choose a sentence to see what it rests on; "
            "edit it, and what you changed is recorded."
        )
        parent.acknowledgementText = _("For research use only. Not a medical device.")


class EngineChoice(Enum):
    """What writes the report."""

    TEMPLATE = "template"
    LANGUAGE_MODEL = "llm"

    def label(self) -> str:
        return {"template": _("template (from the findings)"), "llm": _("language model")}[self.value]


@parameterNodeWrapper
class CTReportParameterNode:
    """What the user chose; saved with the scene. Models by id, or as the path of a file or folder."""

    volume: slicer.vtkMRMLScalarVolumeNode
    segments: slicer.vtkMRMLSegmentationNode
    engine: EngineChoice = EngineChoice.TEMPLATE
    findingsOnly: bool = False
    encoder: str = ""
    classifier: str = ""
    localizer: str = ""
    language: str = ""


class CTReportWidget(ParameterNodeWidget):
    """The panel; what it does is in the logic."""

    def __init__(self, parent=None) -> None:
        ParameterNodeWidget.__init__(self, parent)
        self.report = None
        self._shownVolume = None
        self._pending = None
        self.deviceBox = None
        self._exportFolder = Path.home()

    def setup(self) -> None:
        from CTReportLib.device_box import DeviceBox
        from CTReportLib.export_panel import ExportPanel
        from CTReportLib.findings_panel import FindingsPanel
        from CTReportLib.model_rows import ModelRows
        from CTReportLib.report_panel import Actions, ReportPanel
        from MedAILib.ui.run_panel import RunPanel
        from MedAILib.ui.run_times import RunTimes

        ParameterNodeWidget.setup(self)
        self.loadPanel()
        self.logic = CTReportLogic()
        self.modelRows = ModelRows(self.onModelChosen, self.logic.badges.badge, self.onGetModel)
        self.ui.modelsLayout.addWidget(self.modelRows.widget)
        self.runPanel = RunPanel(
            _("Report"),
            self.start,
            self.finish,
            times=RunTimes(slicer.app.settings(), self.moduleName),
            status=self.runStatus(),
            shortcut="Ctrl+Return",
        )
        self.ui.runLayout.addWidget(self.runPanel.widget)
        self.findingsPanel = FindingsPanel(self.onShowFinding)
        self.ui.findingsLayout.addWidget(self.findingsPanel.widget)
        actions = Actions(self.onShowSentence, self.onTextEdited, self.onRestore, self.onChoiceChanged)
        self.reportPanel = ReportPanel(actions)
        self.ui.reportLayout.addWidget(self.reportPanel.widget)
        self.exportPanel = ExportPanel(self.onExport)
        self.ui.exportLayout.addWidget(self.exportPanel.widget)
        self.ui.sampleButton.clicked.connect(self.onLoadSample)
        slicer.app.connect("aboutToQuit()", self.logic.devices.close)
        self.deviceBox = DeviceBox(self.ui.deviceBox, self.logic.devices, self.onChoiceChanged)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndImportEvent, self.onSceneEndImport)
        self.followScene()

    def enter(self) -> None:
        self.logic.store.refresh()
        ParameterNodeWidget.enter(self)
        self.showModels()
        self.showReport()

    def forgetScene(self) -> None:
        self._pending = None
        self.logic.forgetHistory()
        self.showReport()

    def cleanup(self) -> None:
        self.deviceBox.close()
        ParameterNodeWidget.cleanup(self)
        slicer.app.disconnect("aboutToQuit()", self.logic.devices.close)
        self.logic.devices.close()

    def onSceneEndImport(self, caller, event) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()
            self.showReport()

    def fillParameterNode(self) -> None:
        if self._parameterNode.volume is None:
            self._parameterNode.volume = self.logic.likelyVolume()

    # Choices

    def onChoiceChanged(self, caller=None, event=None) -> None:
        choice = self._parameterNode
        if choice is None:
            return
        if choice.volume is not self._shownVolume:
            self.showReport()
        self.showModels()
        self.showEngine()
        self.runPanel.set_missing(self.missing())
        self.runPanel.set_status(self.runStatus())

    def chosenModels(self) -> dict:
        """Id or path of the model of each role; empty: none."""
        from CTReportLib.choices import Role

        choice = self._parameterNode
        return {} if choice is None else {role: getattr(choice, role.value) for role in Role}

    def usedModels(self) -> dict:
        """Of the chosen models those that the next run will use: the language model only where it writes."""
        from CTReportLib.choices import Role

        writes = self._parameterNode is not None and self._parameterNode.engine == EngineChoice.LANGUAGE_MODEL
        return {role: name for role, name in self.chosenModels().items() if name and (writes or role != Role.LANGUAGE)}

    def showModels(self) -> None:
        chosen = self.chosenModels()
        self.modelRows.show(self.logic.badges.offered(), chosen)
        used = [self.logic.badges.title(name) for name in self.usedModels().values()]
        self.ui.modelsSection.text = _("Models: {names}").format(
            names=", ".join(used) if used else _("none (measured findings)")
        )

    def showEngine(self) -> None:
        """Say whether the engine can write here."""
        from CTReportLib.choices import Role

        choice, badge = self._parameterNode, self.ui.engineBadge
        if choice.engine == EngineChoice.TEMPLATE:
            badge.text, badge.toolTip = _("No model is needed."), ""
        elif not choice.language:
            badge.text, badge.toolTip = _("Choose a language model below."), ""
            self.ui.modelsSection.collapsed = False
        else:
            said = self.logic.badges.badge(Role.LANGUAGE, choice.language)
            badge.text, badge.toolTip = said.text, said.tip

    def runStatus(self):
        from MedAILib.ui.run_panel import RunStatus

        choice = self._parameterNode
        image = choice.volume.GetImageData() if choice is not None and choice.volume is not None else None
        voxels = float(image.GetNumberOfPoints()) if image is not None else 1.0
        used = [self.logic.badges.title(name) for name in self.usedModels().values()]
        if not used:
            return RunStatus(_("Rules and template, no model"), "Apache-2.0", "CPU", voxels)
        return RunStatus(", ".join(used), _("see the models"), self.logic.devices.device.upper(), voxels)

    def missing(self) -> list[str]:
        """What a run still needs."""
        from CTReportLib.choices import Role

        choice, used = self._parameterNode, self.usedModels()
        found = [] if choice.volume is not None else [_("Choose the CT.")]
        if self.reportPanel.is_editing:
            found.append(_("Keep or discard your changes of the report first."))
        if choice.engine == EngineChoice.LANGUAGE_MODEL and Role.LANGUAGE not in used:
            found.append(_("Choose the language model under Models."))
        if Role.CLASSIFIER in used and Role.ENCODER not in used:
            found.append(_("Choose the encoder that the model for findings was trained on."))
        return [*found, *(why for role, name in used.items() if (why := self.logic.badges.obstacle(role, name)))]

    def onLoadSample(self) -> None:
        self._parameterNode.volume = self.logic.loadSample()

    def onModelChosen(self, role, name: str) -> None:
        setattr(self._parameterNode, role.value, name)

    def onGetModel(self, modelId: str) -> None:
        from MedAILib.ui.weights_badge import open_hub

        open_hub(modelId)

    # Runs

    def start(self, onProgress):
        choice = self._parameterNode
        self._pending = self.logic.plan(
            choice.volume,
            choice.segments,
            engine=choice.engine.value,
            findingsOnly=choice.findingsOnly,
            **{role.value: name for role, name in self.usedModels().items()},
        )
        return self.logic.start(self._pending, onProgress)

    def finish(self, outcome) -> str:
        plan, self._pending = self._pending, None  # it holds the image
        report = self.logic.write(plan, outcome)
        if self._parameterNode is not None:
            self.showReport()
        names = {"report": report.text.GetName(), "count": len(report.nodes)}
        return _("'{report}' is in the scene: {count} nodes in one folder.").format(**names)

    # Results

    def showReport(self) -> None:
        """Show the report of the chosen CT, as it is in the scene now."""
        from MedAILib.errors import MedAIError

        self._shownVolume = self._parameterNode.volume if self._parameterNode is not None else None
        self.follow(self.logic.reportOf(self._shownVolume))
        if self.report is not None:
            try:
                self.logic.takeEdit(self.report)
                self.showResult(self.report.result())
                return
            except MedAIError as error:
                self.runPanel.show_error(error)
        self.findingsPanel.clear()
        self.reportPanel.clear()
        self.exportPanel.show(has_report=False, has_source=False, has_masks=False)
        self.showSections(False)

    def showResult(self, result) -> None:
        self.findingsPanel.show(result)
        self.reportPanel.show(result, key=self.report.text, can_restore=self.logic.canRestore(self.report))
        self.exportPanel.show(
            has_report=True,
            has_source=self.logic.dicomSource(self.report.volume) is not None,
            has_masks=self.report.segmentation is not None,
        )
        self.showSections(True)

    def showSections(self, hasReport: bool) -> None:
        for section in (self.ui.reportSection, self.ui.exportSection):
            section.visible = hasReport

    def follow(self, report) -> None:
        """Watch the text of a report, which may be edited anywhere in Slicer, and no other one's."""
        event = slicer.vtkMRMLTextNode.TextModifiedEvent
        if self.report is not None:
            self.removeObserver(self.report.text, event, self.onTextModified)
        self.report = report
        if report is not None:
            self.addObserver(report.text, event, self.onTextModified)

    def onTextModified(self, caller, event) -> None:
        with self.told():
            if self.report is not None and self.logic.takeEdit(self.report):
                self.showResult(self.report.result())

    def onTextEdited(self, text: str) -> None:
        with self.told():
            self.logic.edit(self.report, text)
            self.showResult(self.report.result())

    def onRestore(self) -> None:
        with self.told():
            self.logic.restore(self.report)
            self.showResult(self.report.result())

    def onShowSentence(self, sentence) -> None:
        with self.told():
            self.findingsPanel.choose(sentence.findings[0] if len(sentence.findings) == 1 else "")
            self.logic.showEvidence(self.report, sentence.findings, sentence.measurements)

    def onShowFinding(self, row) -> None:
        with self.told():
            self.reportPanel.show_finding(row)
            self.logic.showEvidence(self.report, [row.finding], [row.measurement] if row.measurement else [])

    def onExport(self, kind: str) -> None:
        from MedAILib.ui.choose import file_to_save

        with self.told():
            title, name, kinds = self.logic.exportFile(self.report, kind)
            path = file_to_save(self.exportPanel.widget, title, self._exportFolder / name, kinds)
            if path is not None:
                self._exportFolder = path.parent
                with self.waiting():
                    written = self.logic.export(self.report, kind, path)
                self.runPanel.message.show_note(_("Written: {path}").format(path=written))

    @contextmanager
    def waiting(self):
        """A block of a few seconds, during which the pointer says so."""
        qt.QApplication.setOverrideCursor(qt.QCursor(qt.Qt.WaitCursor))
        try:
            yield
        finally:
            qt.QApplication.restoreOverrideCursor()

    @contextmanager
    def told(self):
        """A block whose errors are said in the panel."""
        from MedAILib.errors import MedAIError

        try:
            yield
        except MedAIError as error:
            self.runPanel.show_error(error)


class CTReportLogic(ScriptedLoadableModuleLogic):
    """Reports for scripts, the console and the panel.

    Parameters
    ----------
    runner : MedAILib.jobs.runner.Runner, optional
        Where the panel's jobs run; by default the worker process that all MedAI modules share.
    store : MedAILib.ui.model_store.ModelStore, optional
        Default: the models where the user keeps them.

    Attributes
    ----------
    devices : CTReportLib.devices.DeviceRunners
        Where models run.
    badges : CTReportLib.model_badges.ModelBadges
        Which models there are, and what is to say of them.
    """

    def __init__(self, runner=None, store=None) -> None:
        from CTReportLib.devices import DeviceRunners
        from CTReportLib.history import History
        from CTReportLib.model_badges import ModelBadges
        from MedAILib.ui.model_store import ModelStore

        ScriptedLoadableModuleLogic.__init__(self)
        self._runner = runner
        self._history = History()
        self.store = store or ModelStore(slicer.app.settings())
        self.devices = DeviceRunners(lambda: slicer.modules.MedAIExtensionInstance.runner, slicer.app.settings())
        self.badges = ModelBadges(lambda: self.store.manager, lambda: self.devices.device)

    def getParameterNode(self) -> CTReportParameterNode:
        return CTReportParameterNode(super().getParameterNode())

    # Runs

    def report(self, volumeNode, segmentsNode=None, runner=None, **options):
        """Report a chest CT and put the result into the scene; waits for the end.

        Parameters
        ----------
        volumeNode : vtkMRMLScalarVolumeNode
            Hounsfield units; under any linear transform.
        segmentsNode : vtkMRMLSegmentationNode, optional
            Segments that are known already; those that bear a finding's name count as evidence of it.
        runner : MedAILib.jobs.runner.Runner, optional
            Default: in this process.
        options
            See `plan`.

        Returns
        -------
        CTReportLib.scene_report.SceneReport
            Its ``text``, ``table``, ``segmentation`` and ``record_node``, in one folder; made anew in the same nodes
            where this CT has a report already. ``result()`` answers the values.

        Raises
        ------
        MedAILib.errors.MedAIError
            With what happened, why probably, and what to do. The scene is as it was.
        """
        from CTReportLib.logic import TASK
        from MedAILib.jobs.runner import InProcessRunner

        plan = self.plan(volumeNode, segmentsNode, **options)
        return self.write(plan, (runner or InProcessRunner()).run(TASK, plan.request))

    def plan(
        self,
        volumeNode,
        segmentsNode=None,
        engine="template",
        findingsOnly=False,
        windowHu=None,
        encoder="",
        classifier="",
        localizer="",
        language="",
    ):
        """The report as `report` would make it; nothing has run or changed yet.

        Parameters
        ----------
        volumeNode, segmentsNode
            See `report`.
        engine : str
            ``template``, or ``llm``: a language model writes, which then must be named.
        findingsOnly : bool
            The finding table without sentences.
        windowHu : tuple of float, optional
            Black and white of key images.
        encoder, classifier, localizer, language : str
            Models by id, or as the path of a weight file (of a folder for the language model); empty: none.
        """
        from CTReportLib.choices import FEATURES_CACHE, Role, chosen_models
        from CTReportLib.logic import plan_report

        chosen = {
            Role.ENCODER: encoder,
            Role.CLASSIFIER: classifier,
            Role.LOCALIZER: localizer,
            Role.LANGUAGE: language,
        }
        return plan_report(
            volumeNode,
            segmentsNode,
            engine=engine,
            findings_only=findingsOnly,
            window_hu=windowHu,
            models=chosen_models(self.store.manager, {role: str(name) for role, name in chosen.items()}),
            cache=self.store.home / FEATURES_CACHE,
        )

    def start(self, plan, onProgress=None):
        """Start a plan in the worker; answers the job."""
        from CTReportLib.logic import TASK

        runner = self._runner or self.devices.runner(models=plan.request.models.any)
        return runner.start(TASK, plan.request, onProgress)

    def write(self, plan, outcome):
        """Take the outcome of a plan's job into the scene; a report that it takes the place of can be restored."""
        from CTReportLib.logic import write_report

        known = self.reportOf(plan.volume_node)
        if known is not None:
            self.takeEdit(known)
        written = write_report(slicer.mrmlScene, plan, outcome)
        if written.before is not None:
            self._history.remember(written.report, written.before)
        return written.report

    def loadSample(self):
        """A synthetic chest with fluid on the right, as a new volume node: something to try the module with."""
        from CTReportLib.example import example_chest
        from MedAILib.mrml.volumes import write_volume

        return write_volume(slicer.mrmlScene, example_chest())

    # Reports of the scene

    def reportOf(self, volumeNode):
        """The report of a CT, also one of a loaded scene; None where it has none."""
        from CTReportLib.scene_report import report_of

        return report_of(volumeNode)

    def likelyVolume(self):
        """The CT of the first report of the scene, else the first volume; None without any."""
        from CTReportLib.scene_report import reports_of

        found = [report.volume for report in reports_of(slicer.mrmlScene) if report.volume is not None]
        return found[0] if found else slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")

    def edit(self, report, text: str) -> bool:
        """Change the text of a report as a person; what stays keeps its evidence. False where nothing has changed."""
        from MedAILib.mrml.tables import write_text

        before = report.result()
        write_text(slicer.mrmlScene, text, name=report.text.GetName(), node=report.text)
        self.takeEdit(report)  # done already where somebody watches the text
        return report.result().edits != before.edits

    def takeEdit(self, report) -> bool:
        """Take over what a person has changed in a report's text node; False where nothing has changed."""
        from CTReportLib.logic import user_name
        from CTReportLib.scene_report import Snapshot
        from MedAILib.jobs.report import now_utc

        before = Snapshot(report, segments=False)
        changed = report.take_edit(user_name(), now_utc())
        if changed:
            self._history.remember(report, before)
        return changed

    def restore(self, report) -> bool:
        """Back to the report as it was before the last run or edit; False where there is nothing to undo."""
        return self._history.restore(report)

    def canRestore(self, report) -> bool:
        return self._history.can_restore(report)

    def forgetHistory(self) -> None:
        """Free what undo has kept."""
        self._history.clear()

    def showEvidence(self, report, findings=(), measurements=()):
        """Let the slice views show what findings (ids) and measurements (names) rest on; answers the place, RAS mm."""
        from CTReportLib.logic import show_evidence

        return show_evidence(report, findings, measurements)

    # Files

    def export(self, report, kind: str, path) -> Path:
        """Write a report, edits included, as a file: ``txt json html pdf docx sr seg nii``; answers its path."""
        from CTReportLib.logic import export_report

        return export_report(report, kind, Path(path), self._database())

    def exportFile(self, report, kind: str) -> tuple[str, str, str]:
        """Title, usual file name and file types for a window that asks where to write."""
        from CTReportLib.documents import KINDS, file_name

        chosen = KINDS[kind]
        patterns = " ".join(f"*{suffix}" for suffix in chosen.suffixes)
        return chosen.title, file_name(report.result(), kind), f"{chosen.title} ({patterns})"

    def dicomSource(self, volumeNode) -> Path | None:
        """A file of the DICOM series that a CT was loaded from; None where Slicer's database does not have it."""
        from MedAILib.mrml.dicom import dicom_source_file

        return dicom_source_file(volumeNode, self._database()) if volumeNode is not None else None

    def _database(self):
        return getattr(slicer, "dicomDatabase", None)


class CTReportTest(ScriptedLoadableModuleTest):
    """The self-test that a user can run from within Slicer."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_ASmallChestIsReported()

    def test_ASmallChestIsReported(self) -> None:
        logic = CTReportLogic()
        report = logic.report(logic.loadSample())
        self.assertEqual(report.table.GetNumberOfRows(), 18)
        self.assertEqual(report.result().row("pleural_effusion").side, "right")
        self.assertIn("Research use only", report.text.GetText())
        self.assertIsNotNone(logic.showEvidence(report, ["pleural_effusion"]))
