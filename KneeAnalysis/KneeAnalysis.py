"""KneeAnalysis: cartilage thickness and T2 of a knee, by region, from an MRI or a segmentation."""

from __future__ import annotations

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


class KneeAnalysis(ScriptedLoadableModule):
    """The module."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Knee Analysis (MedAI)")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["MedAIExtension"]
        parent.contributors = ["The MedAI maintainers"]
        parent.helpText = _(
            "Measures the cartilage of a knee: thickness on the bones by region, denuded bone, volumes, and T2 where "
            "a series with several echoes is given. Start from a segmentation of bones and cartilages, or let a "
            "network make it. A click on a region of the table shows it."
        )
        parent.acknowledgementText = _("For research use only. Not a medical device.")


class EngineChoice(Enum):
    """What segments the knee."""

    NONE = "none"
    NNUNET_FULLRES = "nnunet-fullres"
    NNUNET_CASCADE = "nnunet-cascade"
    DOSMA_SAGITTAL = "dosma-sagittal"
    DOSMA_CORONAL = "dosma-coronal"
    DOSMA_AXIAL = "dosma-axial"
    DOSMA_STAPLE = "dosma-staple"

    def label(self) -> str:
        return {
            "none": _("a segmentation that is there"),
            "nnunet-fullres": _("nnU-Net, full resolution"),
            "nnunet-cascade": _("nnU-Net, cascade"),
            "dosma-sagittal": _("DOSMA, sagittal"),
            "dosma-coronal": _("DOSMA, coronal"),
            "dosma-axial": _("DOSMA, axial"),
            "dosma-staple": _("DOSMA, consensus of three"),
        }[self.value]


class LabelsChoice(Enum):
    """How it is known which segment is which tissue."""

    SEGMENTS = "segments"
    NATIVE = "native"
    CANONICAL = "canonical"
    FILE = "file"

    def label(self) -> str:
        return {
            "segments": _("segments as chosen here"),
            "native": _("the networks' numbers"),
            "canonical": _("MedAI's numbers"),
            "file": _("as a file says"),
        }[self.value]


class SideChoice(Enum):
    """Left or right knee."""

    AUTO = "auto"
    LEFT = "left"
    RIGHT = "right"

    def label(self) -> str:
        return {"auto": _("find out"), "left": _("left"), "right": _("right")}[self.value]


@parameterNodeWrapper
class KneeAnalysisParameterNode:
    """What the user chose; saved with the scene."""

    volume: slicer.vtkMRMLScalarVolumeNode
    segmentation: slicer.vtkMRMLNode
    engine: EngineChoice = EngineChoice.NONE
    labels: LabelsChoice = LabelsChoice.SEGMENTS
    side: SideChoice = SideChoice.AUTO
    subregions: bool = True
    finer: bool = False
    report: bool = True
    t2: bool = False


class KneeAnalysisWidget(ParameterNodeWidget):
    """The panel; what it does is in the logic."""

    def __init__(self, parent=None) -> None:
        ParameterNodeWidget.__init__(self, parent)
        self.nodes = None
        self._mapped = None
        self._pending = None

    def setup(self) -> None:
        from KneeAnalysisLib.mapping_panel import MappingPanel
        from KneeAnalysisLib.result_panel import ResultPanel
        from MedAILib.ui.run_panel import RunPanel
        from MedAILib.ui.run_times import RunTimes

        ParameterNodeWidget.setup(self)
        self.loadPanel()
        self.logic = KneeAnalysisLogic()
        self.runPanel = RunPanel(
            _("Analyze"),
            self.start,
            self.finish,
            times=RunTimes(slicer.app.settings(), self.moduleName),
            status=self.runStatus(EngineChoice.NONE),
            shortcut="Ctrl+Return",
        )
        self.ui.runLayout.addWidget(self.runPanel.widget)
        self.resultPanel = ResultPanel(self.onShowRegion, self.onOpenFolder)
        self.ui.resultLayout.addWidget(self.resultPanel.widget)
        self.mappingPanel = MappingPanel(self.onChoiceChanged)
        self.ui.mappingLayout.addWidget(self.mappingPanel.widget)

        self.ui.getModelButton.clicked.connect(self.onGetModel)
        for line in (self.ui.labelsPathLine, self.ui.t2PathLine):
            line.currentPathChanged.connect(self.onPathChanged)
        self.followScene()

    def enter(self) -> None:
        self.logic.store.refresh()
        ParameterNodeWidget.enter(self)

    def forgetScene(self) -> None:
        self.nodes = None
        self.resultPanel.clear()

    def fillParameterNode(self) -> None:
        if self._parameterNode.segmentation is None:
            self._parameterNode.segmentation = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLSegmentationNode")

    # Choices

    def onChoiceChanged(self, caller=None, event=None) -> None:
        choice = self._parameterNode
        if choice is None:
            return
        if choice.segmentation is not self._mapped:
            self._mapped = choice.segmentation
            self.mappingPanel.show(self.logic.segments(choice.segmentation))  # calls back
            return
        given = choice.engine == EngineChoice.NONE
        self.ui.segmentationSelector.enabled = given
        self.ui.labelsBox.enabled = given
        mapped = given and choice.segmentation is not None and choice.labels == LabelsChoice.SEGMENTS
        self.mappingPanel.widget.visible = mapped
        for part in (self.ui.labelsFileCaption, self.ui.labelsPathLine):
            part.visible = given and choice.labels == LabelsChoice.FILE
        for part in (self.ui.t2Caption, self.ui.t2PathLine):
            part.visible = choice.t2
        self.ui.finerBox.enabled = choice.subregions
        self.showEngine(choice.engine)
        self.runPanel.set_missing(self.missing())

    def onPathChanged(self, path: str = "") -> None:
        self.onChoiceChanged()

    def showEngine(self, engine: EngineChoice) -> None:
        """Say whether the engine can run here."""
        state = self.logic.engineState(engine.value)
        if engine == EngineChoice.NONE:
            text = _("No network is needed.")
        elif state.is_ready:
            text = _("installed")
        else:
            absent = [*state.missing_models, *(_("package {name}").format(name=one) for one in state.missing_packages)]
            text = _("missing: {names}").format(names=", ".join(absent))
        self.ui.engineBadge.text = text
        self.ui.engineBadge.toolTip = state.why
        self.ui.getModelButton.visible = bool(state.missing_models)
        self.runPanel.set_status(self.runStatus(engine))

    def runStatus(self, engine: EngineChoice):
        from MedAILib.ui.run_panel import RunStatus

        if engine == EngineChoice.NONE:
            return RunStatus(_("Geometry, no model"), "Apache-2.0", "CPU")
        return RunStatus(engine.label(), _("see the model"), _("GPU or CPU"))

    def missing(self) -> list[str]:
        """What a run still needs."""
        choice, found = self._parameterNode, []
        if choice.engine == EngineChoice.NONE:
            if choice.segmentation is None:
                found.append(_("Choose the segmentation of the knee."))
            elif choice.labels == LabelsChoice.SEGMENTS and not self.mappingPanel.labels():
                found.append(_("Say which segment is which tissue."))
            elif choice.labels == LabelsChoice.FILE and not self.ui.labelsPathLine.currentPath:
                found.append(_("Choose the labels file."))
        else:
            if choice.volume is None:
                found.append(_("Choose the MRI of the knee."))
            if not self.logic.engineState(choice.engine.value).is_ready:
                found.append(_("The network is not installed."))
        if choice.t2 and not self.ui.t2PathLine.currentPath:
            found.append(_("Choose the DICOM folder of the T2 series."))
        return found

    def onGetModel(self) -> None:
        from MedAILib.ui.weights_badge import open_hub

        open_hub(self.logic.engineState(self._parameterNode.engine.value).missing_models[0])

    # Runs

    def start(self, onProgress):
        choice = self._parameterNode
        self._pending = self.logic.plan(
            choice.segmentation,
            choice.volume,
            labels=self.chosenLabels(),
            engine=choice.engine.value,
            side=choice.side.value,
            steps=self.chosenSteps(),
            t2Folder=self.ui.t2PathLine.currentPath if choice.t2 else None,
            out=self.ui.outPathLine.currentPath or None,
            finer=choice.subregions and choice.finer,
            resume=True,
        )
        return self.logic.start(self._pending, onProgress)

    def finish(self, outcome) -> str:
        plan, self._pending = self._pending, None  # it holds copies of the images
        self.nodes = self.logic.write(plan, outcome)
        self.resultPanel.show(outcome.result)
        return _("{count} regions measured; files are in {folder}.").format(
            count=len(outcome.result.statistics.thickness), folder=outcome.result.out
        )

    def chosenLabels(self):
        choice = self._parameterNode.labels
        if self._parameterNode.engine != EngineChoice.NONE:
            return ""
        if choice == LabelsChoice.SEGMENTS:
            return self.mappingPanel.labels()
        return self.ui.labelsPathLine.currentPath if choice == LabelsChoice.FILE else choice.value

    def chosenSteps(self) -> str:
        choice = self._parameterNode
        also = {"subregions": choice.subregions, "t2": choice.t2, "report": choice.report}
        return ",".join(["segment", "meshes", "thickness", "statistics", *(name for name in also if also[name])])

    def onShowRegion(self, key: str) -> None:
        from MedAILib.errors import MedAIError

        try:
            self.logic.showRegion(self.nodes, key)
        except MedAIError as error:
            self.runPanel.show_error(error)

    def onOpenFolder(self) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self.nodes.result.out)))


class KneeAnalysisLogic(ScriptedLoadableModuleLogic):
    """The analysis for scripts, the console and the panel.

    Parameters
    ----------
    runner : MedAILib.jobs.runner.Runner, optional
        Where the panel's jobs run; by default the worker process that all MedAI modules share.
    store : MedAILib.ui.model_store.ModelStore, optional
        Default: the models where the user keeps them.
    """

    def __init__(self, runner=None, store=None) -> None:
        from MedAILib.ui.model_store import ModelStore

        ScriptedLoadableModuleLogic.__init__(self)
        self._runner = runner
        self.store = store or ModelStore(slicer.app.settings())

    def getParameterNode(self) -> KneeAnalysisParameterNode:
        return KneeAnalysisParameterNode(super().getParameterNode())

    def analyze(self, segmentationNode=None, volumeNode=None, runner=None, **options):
        """Analyze a knee and put the result into the scene; waits for the end.

        Parameters
        ----------
        segmentationNode : vtkMRMLSegmentationNode or vtkMRMLLabelMapVolumeNode, optional
            Bones and cartilages, where the engine is ``none``.
        volumeNode : vtkMRMLScalarVolumeNode, optional
            The MRI, where a network segments it.
        runner : MedAILib.jobs.runner.Runner, optional
            Default: in this process.
        options
            See `plan`.

        Returns
        -------
        KneeAnalysisLib.logic.KneeNodes

        Raises
        ------
        MedAILib.errors.MedAIError
            With what happened, why probably, and what to do. The scene is as it was.
        """
        from KneeAnalysisLib.logic import TASK
        from MedAILib.jobs.runner import InProcessRunner

        plan = self.plan(segmentationNode, volumeNode, **options)
        return self.write(plan, (runner or InProcessRunner()).run(TASK, plan.request))

    def plan(
        self,
        segmentationNode=None,
        volumeNode=None,
        labels="",
        engine="none",
        side="auto",
        steps="all",
        t2Folder=None,
        out=None,
        finer=False,
        resume=False,
        weights=(),
    ):
        """The analysis as `analyze` would run it; nothing has run or changed yet.

        Parameters
        ----------
        segmentationNode, volumeNode
            See `analyze`.
        labels : str or dict
            ``native``, ``canonical``, a JSON file, or tissue keys with label values or segment ids.
        engine : str
            As of ``medai knee analyze --model``.
        side : str
            ``auto``, ``left`` or ``right``.
        steps : str
            ``all``, or names separated by commas.
        t2Folder : str, optional
            DICOM folder of a series with several echoes.
        out : str, optional
            Folder for result files; default: one below Slicer's temporary folder.
        finer, resume : bool
        weights : sequence of str
            Default: the installed model.
        """
        from KneeAnalysisLib.installed import installed_weights
        from KneeAnalysisLib.logic import ScenePlan, image_of, label_map_of, result_name
        from KneeAnalysisLib.request import KneeRequest, steps_named
        from KneeAnalysisLib.segmentation import EngineName
        from KneeAnalysisLib.source import read_echo_folder

        chosen = EngineName(engine)
        given = chosen is EngineName.NONE
        name = result_name(segmentationNode if given else volumeNode)
        places = tuple(Path(one) for one in weights)
        request = KneeRequest(
            image=None if given else image_of(volumeNode),
            label_map=label_map_of(segmentationNode) if given else None,
            labels=labels,
            engine=chosen,
            weights=places or installed_weights(chosen, self.store.manager),
            echoes=read_echo_folder(t2Folder) if t2Folder else None,
            side=side,
            steps=steps_named(steps),
            finer=finer,
            name=name,
            out=Path(out) if out else Path(slicer.app.temporaryPath) / "MedAIKnee" / name,
            resume=resume,
        )
        request.validate()
        return ScenePlan(request, volumeNode)

    def start(self, plan, onProgress=None):
        """Start a plan in the worker; answers the job."""
        from KneeAnalysisLib.logic import TASK

        runner = self._runner or slicer.modules.MedAIExtensionInstance.runner
        return runner.start(TASK, plan.request, onProgress)

    def write(self, plan, outcome):
        """Take the outcome of a plan's job into the scene and finish its folder."""
        from KneeAnalysisLib.exports import finish_output
        from KneeAnalysisLib.logic import write_knee

        finish_output(outcome, plan.request.out)
        return write_knee(slicer.mrmlScene, outcome, plan.volume_node)

    def segments(self, node) -> list[tuple[str, str]]:
        """Id and name of every segment of a segmentation, or label value of a label map volume."""
        from KneeAnalysisLib.logic import segments_of

        return segments_of(node)

    def engineState(self, engine: str):
        """Whether an engine's model and packages are there; see `KneeAnalysisLib.installed.EngineState`."""
        from KneeAnalysisLib.installed import engine_state
        from KneeAnalysisLib.segmentation import EngineName

        return engine_state(EngineName(engine), self.store.manager)

    def showRegion(self, nodes, key: str):
        """Let the slice views show a region; answers the place, RAS mm."""
        from KneeAnalysisLib.logic import show_region

        return show_region(nodes, key)


class KneeAnalysisTest(ScriptedLoadableModuleTest):
    """The self-test that a user can run from within Slicer."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_ASmallKneeIsMeasured()

    def test_ASmallKneeIsMeasured(self) -> None:
        from KneeAnalysisLib.logic import example_knee

        node = example_knee(slicer.mrmlScene)
        nodes = KneeAnalysisLogic().analyze(node, labels="canonical", steps="statistics")
        rows = {row.key: row for row in nodes.result.statistics.thickness}
        self.assertAlmostEqual(rows["med_tib_cart"].mean_mm, 3.0, delta=0.3)
        self.assertEqual(nodes.result.side, "right")
