"""MedMNISTRouter: a 2D image goes to the expert that knows its kind, or is not recognised."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import slicer
from slicer.i18n import tr as _
from slicer.i18n import translate
from slicer.parameterNodeWrapper import WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
)

from MedAILib.ui.module_widget import ParameterNodeWidget

SAMPLES = ("ChestRadiograph", "TissueSection", "HeadCT", "BloodSmear")


class MedMNISTRouter(ScriptedLoadableModule):
    """The module."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("MedMNIST Router (MedAI)")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["MedAIExtension"]
        parent.contributors = ["The MedAI maintainers"]
        parent.helpText = _(
            "Routes 2D images (pictures, DICOM files, slices of volumes) to small expert classifiers for the twelve "
            "data sets of MedMNIST. An image that is like none of those the models know gets no label."
        )
        parent.acknowledgementText = _("For research use only. Not a medical device.")


class SourceChoice(Enum):
    """What is routed."""

    FILES = "files"
    SLICE = "slice"
    VIEW = "view"
    STACK = "stack"

    def label(self) -> str:
        return {
            "files": _("image files"),
            "slice": _("a slice of a volume"),
            "view": _("the slice that a view shows"),
            "stack": _("all slices of a volume"),
        }[self.value]


class AxisChoice(Enum):
    """The plane of the slices."""

    AUTO = "auto"
    AXIAL = "axial"
    CORONAL = "coronal"
    SAGITTAL = "sagittal"

    def label(self) -> str:
        return {
            "auto": _("as acquired"),
            "axial": _("axial"),
            "coronal": _("coronal"),
            "sagittal": _("sagittal"),
        }[self.value]


class ExpertChoice(Enum):
    """Who answers."""

    ROUTER = ""
    BLOOD = "bloodmnist"
    BREAST = "breastmnist"
    CHEST = "chestmnist"
    DERMA = "dermamnist"
    OCT = "octmnist"
    ORGAN_A = "organamnist"
    ORGAN_C = "organcmnist"
    ORGAN_S = "organsmnist"
    PATH = "pathmnist"
    PNEUMONIA = "pneumoniamnist"
    RETINA = "retinamnist"
    TISSUE = "tissuemnist"

    def label(self) -> str:
        from MedMNISTRouterLib.datasets import BY_FLAG

        return BY_FLAG[self.value].title if self.value else _("as the router says")


@parameterNodeWrapper
class MedMNISTRouterParameterNode:
    """What the user chose; saved with the scene."""

    source: SourceChoice = SourceChoice.FILES
    volume: slicer.vtkMRMLScalarVolumeNode
    axis: AxisChoice = AxisChoice.AUTO
    sliceIndex: int = -1  # the middle
    view: str = "Red"
    files: str = ""  # one path a line
    expert: ExpertChoice = ExpertChoice.ROUTER
    top: Annotated[int, WithinRange(1, 12)] = 3
    withoutGate: bool = False
    table: slicer.vtkMRMLTableNode


class MedMNISTRouterWidget(ParameterNodeWidget):
    """The panel; what it does is in the logic."""

    def __init__(self, parent=None) -> None:
        ParameterNodeWidget.__init__(self, parent)
        self._pending = None
        self._updating = False

    def setup(self) -> None:
        from MedAILib.ui.run_panel import RunPanel
        from MedAILib.ui.run_times import RunTimes
        from MedMNISTRouterLib.experts_panel import ExpertsPanel
        from MedMNISTRouterLib.result_panel import ResultPanel

        ParameterNodeWidget.setup(self)
        self.loadPanel()
        self.logic = MedMNISTRouterLogic()
        self.runPanel = RunPanel(
            _("Route"),
            self.start,
            self.finish,
            times=RunTimes(slicer.app.settings(), self.moduleName),
            status=self.runStatus(1),
            shortcut="Ctrl+Return",
        )
        self.ui.runLayout.addWidget(self.runPanel.widget)
        self.resultPanel = ResultPanel(self.onGetExpert)
        self.ui.resultLayout.addWidget(self.resultPanel.widget)
        self.expertsPanel = ExpertsPanel(self.onGetModel)
        self.ui.expertsLayout.addWidget(self.expertsPanel.widget)
        self.ui.filesButton.clicked.connect(self.onChooseFiles)
        self.ui.sampleButton.clicked.connect(self.onLoadSample)
        self.ui.sliceSlider.valueChanged.connect(self.onSliceMoved)
        self.ui.viewBox.currentIndexChanged.connect(self.onViewChosen)
        self.ui.modelsPathLine.currentPathChanged.connect(self.onModelsFolder)
        self.followScene()

    def enter(self) -> None:
        self.logic.store.refresh()
        ParameterNodeWidget.enter(self)
        self.showExperts()

    def forgetScene(self) -> None:
        self._pending = None
        self.resultPanel.clear()

    def fillParameterNode(self) -> None:
        if self._parameterNode.volume is None:
            self._parameterNode.volume = slicer.mrmlScene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")

    # Choices

    def onChoiceChanged(self, caller=None, event=None) -> None:
        choice = self._parameterNode
        if choice is None or self._updating:
            return
        self._updating = True  # what is shown here changes widgets, and these the parameter node
        try:
            self.showChoices()
        finally:
            self._updating = False
        self.runPanel.set_missing(self.missing())
        self.runPanel.set_status(self.runStatus(self.imageCount()))

    def showChoices(self) -> None:
        choice, ui = self._parameterNode, self.ui
        shown = {
            SourceChoice.FILES: (ui.filesCaption, ui.filesLabel, ui.filesButton, ui.sampleButton),
            SourceChoice.SLICE: (
                ui.volumeCaption,
                ui.volumeSelector,
                ui.axisCaption,
                ui.axisBox,
                ui.sliceCaption,
                ui.sliceSlider,
            ),
            SourceChoice.VIEW: (ui.viewCaption, ui.viewBox),
            SourceChoice.STACK: (ui.volumeCaption, ui.volumeSelector, ui.axisCaption, ui.axisBox),
        }
        for part in {one for parts in shown.values() for one in parts}:
            part.visible = part in shown[choice.source]
        self.showFiles()
        self.showViews()
        if choice.source == SourceChoice.SLICE:
            self.showSlices()

    def showFiles(self) -> None:
        files = self.files()
        if not files:
            self.ui.filesLabel.text = _("none chosen")
        else:
            several = _("{count} files").format(count=len(files))
            self.ui.filesLabel.text = several if len(files) > 1 else shortened(files[0].name)
        self.ui.filesLabel.toolTip = "\n".join(str(path) for path in files)

    def showViews(self) -> None:
        names = self.logic.views()
        box = self.ui.viewBox
        box.blockSignals(True)
        box.clear()
        for name in names:
            box.addItem(name)
        wanted = self._parameterNode.view
        box.setCurrentIndex(names.index(wanted) if wanted in names else min(len(names), 1) - 1)
        box.blockSignals(False)

    def showSlices(self) -> None:
        choice, slider = self._parameterNode, self.ui.sliceSlider
        count = self.logic.sliceCount(choice.volume, choice.axis.value)
        slider.enabled = count > 0
        index = choice.sliceIndex if 0 <= choice.sliceIndex < count else count // 2
        slider.blockSignals(True)
        slider.setRange(0, max(count - 1, 0))
        slider.setValue(index)
        slider.blockSignals(False)

    def files(self) -> list[Path]:
        return [Path(line) for line in self._parameterNode.files.splitlines() if line]

    def imageCount(self) -> int:
        choice = self._parameterNode
        if choice.source == SourceChoice.STACK:
            return max(self.logic.sliceCount(choice.volume, choice.axis.value), 1)
        return max(len(self.files()), 1) if choice.source == SourceChoice.FILES else 1

    def runStatus(self, images: int):
        from MedAILib.ui.run_panel import RunStatus

        return RunStatus(_("Router and experts"), _("research use only"), "CPU", float(images))

    def missing(self) -> list[str]:
        """What a run still needs."""
        choice = self._parameterNode
        if choice.source == SourceChoice.FILES:
            return [] if self.files() else [_("Choose image files.")]
        if choice.source == SourceChoice.VIEW:
            return [] if self.ui.viewBox.currentText else [_("There is no slice view.")]
        return [] if choice.volume is not None else [_("Choose the volume.")]

    def onChooseFiles(self) -> None:
        from MedAILib.ui.choose import files_to_open

        files = self.files()
        images = "*.png *.jpg *.jpeg *.tif *.tiff *.bmp *.webp *.dcm *.nii *.nii.gz *.nrrd *.mha"
        kinds = f"{_('Images')} ({images});;{_('All files')} (*)"
        chosen = files_to_open(self.ui.filesButton, _("Images to route"), files[0].parent if files else None, kinds)
        if chosen:
            self.chooseFiles(chosen)

    def chooseFiles(self, paths) -> None:
        """Route these files when the button is pressed."""
        self._parameterNode.files = "\n".join(str(path) for path in paths)
        self._parameterNode.source = SourceChoice.FILES

    def onLoadSample(self) -> None:
        self.chooseFiles([self.resourcePath(f"SampleData/MedMNISTRouter{name}.png") for name in SAMPLES])

    def onSliceMoved(self, value: float) -> None:
        choice = self._parameterNode
        choice.sliceIndex = round(value)
        self.logic.showSlice(choice.volume, choice.axis.value, choice.sliceIndex)

    def onViewChosen(self, index: int = 0) -> None:
        self._parameterNode.view = self.ui.viewBox.currentText
        self.onChoiceChanged()

    # Models

    def onModelsFolder(self, path: str = "") -> None:
        self.logic.modelsFolder = path
        self.showExperts()

    def showExperts(self) -> None:
        slots = self.logic.experts()
        self.expertsPanel.show(slots)
        count = sum(slot.is_usable for slot in slots[1:])
        self.ui.expertsSection.text = _("Experts: {count} of {all} installed").format(count=count, all=len(slots) - 1)

    def onGetExpert(self, flag: str) -> None:
        self.onGetModel(self.logic.modelId(flag))

    def onGetModel(self, modelId: str) -> None:
        from MedAILib.ui.weights_badge import open_hub

        open_hub(modelId)

    # Runs

    def start(self, onProgress):
        self.resultPanel.clear()
        choice = self._parameterNode
        how = {"expert": choice.expert.value, "top": choice.top, "withoutGate": choice.withoutGate}
        if choice.source == SourceChoice.FILES:
            self._pending = self.logic.planFiles(self.files(), **how)
        elif choice.source == SourceChoice.VIEW:
            self._pending = self.logic.plan(None, view=self.ui.viewBox.currentText, **how)
        else:
            index = "all" if choice.source == SourceChoice.STACK else round(self.ui.sliceSlider.value)
            self._pending = self.logic.plan(choice.volume, choice.axis.value, index, **how)
        return self.logic.start(self._pending, onProgress)

    def finish(self, outcome) -> str:
        plan, self._pending = self._pending, None  # it holds copies of the pictures
        answers = plan.answers(outcome)
        self.resultPanel.show(answers, plan.picture)
        said = self.logic.summary(answers)
        table = self._parameterNode.table if self._parameterNode is not None else None
        if table is not None or len(answers) > 1:
            table = self.logic.write(plan, outcome, table)
            said = _("{said} They are in the table '{name}'.").format(said=said, name=table.GetName())
        return said


def shortened(name: str, most: int = 26) -> str:
    """A file's name with its middle left out where it is long."""
    return name if len(name) <= most else f"{name[: most // 2 - 1]}…{name[-most // 2 :]}"


class MedMNISTRouterLogic(ScriptedLoadableModuleLogic):
    """Routing for scripts, the console and the panel.

    Parameters
    ----------
    runner : MedAILib.jobs.runner.Runner, optional
        Where the panel's jobs run; by default the worker process that all MedAI modules share.
    store : MedAILib.ui.model_store.ModelStore, optional
        Default: the models where the user keeps them.

    Attributes
    ----------
    modelsFolder : str
        A folder with ``stage1_final.keras`` and its fellows, or another store; empty: the user's store.
    """

    def __init__(self, runner=None, store=None) -> None:
        from MedAILib.jobs.runner import InProcessRunner
        from MedAILib.ui.model_store import ModelStore

        ScriptedLoadableModuleLogic.__init__(self)
        self._runner = runner
        self._here = InProcessRunner()  # keeps its models between calls
        self.store = store or ModelStore(slicer.app.settings())
        self.modelsFolder = ""

    def getParameterNode(self) -> MedMNISTRouterParameterNode:
        return MedMNISTRouterParameterNode(super().getParameterNode())

    def route(self, image=None, axis="auto", slice=None, view=None, expert="", top=3, withoutGate=False, runner=None):
        """Route one image and answer what is said about it; waits, and leaves the scene as it is.

        Parameters
        ----------
        image : vtkMRMLScalarVolumeNode, vtkMRMLVectorVolumeNode, path or str, optional
            A volume node or a file. Default: the volume that the view shows.
        axis : str
            ``auto`` (as acquired), ``axial``, ``coronal``, ``sagittal``, ``i``, ``j`` or ``k``.
        slice : int, optional
            From 0; default: the middle one.
        view : str or vtkMRMLSliceNode, optional
            Take the slice that this view (``Red``) shows.
        expert : str
            A data set's flag such as ``pneumoniamnist``: skip the router.
        top : int
            How many routes to list.
        withoutGate : bool
            Answer also where no statistics tell whether the models know such images.
        runner : MedAILib.jobs.runner.Runner, optional
            Default: in this process, where models stay loaded.

        Returns
        -------
        MedMNISTRouterLib.request.Answer

            A file that cannot be read, or a model that is missing, is said in its ``error``.

        Raises
        ------
        MedAILib.errors.MedAIError
            The volume, view or slice cannot be used: what happened, why probably, and what to do.
        """
        if isinstance(image, str | Path):
            plan = self.planFiles([image], axis=axis, slice=slice, expert=expert, top=top, withoutGate=withoutGate)
        else:
            plan = self.plan(image, axis, slice, view, expert=expert, top=top, withoutGate=withoutGate)
        return plan.answers(self._run(plan, runner))[0]

    def routeStack(self, volumeNode, axis="auto", expert="", top=3, withoutGate=False, runner=None):
        """Route all slices of a volume in one request; answers one `Answer` per slice. See `route`."""
        plan = self.plan(volumeNode, axis, "all", expert=expert, top=top, withoutGate=withoutGate)
        return plan.answers(self._run(plan, runner))

    def batch(self, paths, tableNode=None, expert="", top=3, withoutGate=False, runner=None):
        """Route files, folders and patterns, and put the answers into a table node; waits.

        Parameters
        ----------
        paths : sequence of path or str
            A file that cannot be read has its error in the table.
        tableNode : vtkMRMLTableNode, optional
            Replaced; default: a new one.

        Returns
        -------
        vtkMRMLTableNode
        """
        plan = self.planFiles(paths, expert=expert, top=top, withoutGate=withoutGate)
        return self.write(plan, self._run(plan, runner), tableNode)

    def plan(self, volumeNode, axis="auto", slice=None, view=None, expert="", top=3, withoutGate=False):
        """The request as `route` would run it (``slice="all"``: the whole stack); nothing has run yet."""
        from MedMNISTRouterLib.inputs import ALL_SLICES
        from MedMNISTRouterLib.logic import plan_volume, view_node, volume_in_view

        viewNode = view_node(slicer.mrmlScene, view) if view is not None else None
        if volumeNode is None and viewNode is not None:
            volumeNode = volume_in_view(viewNode)
        index = ALL_SLICES if slice == "all" else slice
        return plan_volume(volumeNode, axis, index, viewNode, self._options(expert, top, withoutGate))

    def planFiles(self, paths, axis="auto", slice=None, expert="", top=3, withoutGate=False):
        """The request as `batch` would run it; nothing is read yet."""
        from MedMNISTRouterLib.inputs import ALL_SLICES, Reading
        from MedMNISTRouterLib.logic import plan_files

        index = ALL_SLICES if slice == "all" else slice
        return plan_files(paths, Reading(axis, index), self._options(expert, top, withoutGate))

    def start(self, plan, onProgress=None):
        """Start a plan in the worker; answers the job."""
        from MedMNISTRouterLib.files_task import TASK

        runner = self._runner or slicer.modules.MedAIExtensionInstance.runner
        return runner.start(TASK, plan.request, onProgress)

    def write(self, plan, outcome, tableNode=None):
        """Put the answers of a plan's job into a table node."""
        from MedMNISTRouterLib.logic import write_answers

        return write_answers(
            slicer.mrmlScene,
            plan.answers(outcome),
            name=slicer.mrmlScene.GenerateUniqueName(f"{plan.name} routed"),
            run_id=outcome.report.run_id,
            source=plan.source,
            node=tableNode,
        )

    def experts(self):
        """The router and the twelve experts as `MedMNISTRouterLib.slots.SlotState`: what is on this machine."""
        from MedMNISTRouterLib.slots import Slots

        return Slots(self._folder()).all()

    def modelId(self, slot: str) -> str:
        """Id of a slot's model (``router``, or a data set's flag) in the list of models, where it can be imported."""
        from MedMNISTRouterLib.slots import keras_id

        return keras_id(slot)

    def summary(self, answers) -> str:
        """What became of the images, in a sentence."""
        from MedMNISTRouterLib.summary import counts_text, headline

        if len(answers) == 1:
            return f"{answers[0].image}: {headline(answers[0])}"
        return _("{count} images: {answers}.").format(count=len(answers), answers=counts_text(answers))

    # The scene

    def views(self) -> list[str]:
        """Names of the slice views."""
        from MedMNISTRouterLib.logic import views

        return list(views(slicer.mrmlScene))

    def sliceCount(self, volumeNode, axis="auto") -> int:
        """How many slices a volume has along an axis; 0 without a volume."""
        from MedMNISTRouterLib.logic import slice_range

        return slice_range(volumeNode, axis)[1]

    def showSlice(self, volumeNode, axis, index: int) -> None:
        """Let all slice views show a slice of a volume."""
        from MedMNISTRouterLib.logic import slice_middle_ras_mm

        slicer.vtkMRMLSliceNode.JumpAllSlices(slicer.mrmlScene, *slice_middle_ras_mm(volumeNode, axis, index))

    def _run(self, plan, runner=None):
        from MedMNISTRouterLib.files_task import TASK

        return (runner or self._here).run(TASK, plan.request)

    def _folder(self) -> Path:
        return Path(self.modelsFolder) if self.modelsFolder else self.store.home

    def _options(self, expert: str, top: int, withoutGate: bool):
        from MedMNISTRouterLib.logic import Options

        return Options(expert, top, self._folder(), withoutGate)


class MedMNISTRouterTest(ScriptedLoadableModuleTest):
    """The self-test that a user can run from within Slicer."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_ABlankImageGetsNoLabel()

    def test_ABlankImageGetsNoLabel(self) -> None:
        import numpy as np

        from MedAILib.mrml.volumes import write_volume
        from MedAILib.volume import Volume

        blank = Volume(np.zeros((1, 64, 64), np.uint8), np.diag([-1.0, -1.0, 1.0, 1.0]), "blank")
        answer = MedMNISTRouterLogic().route(write_volume(slicer.mrmlScene, blank))
        self.assertFalse(answer.recognised)
        self.assertEqual(answer.routed_dataset, "")
