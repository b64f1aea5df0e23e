"""Mem3DPropagate: a structure drawn on a few slices becomes the whole structure."""

from __future__ import annotations

from enum import Enum
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

UNTIL_CLOSED = -1
"""Of the parameter ``extent``: go on beyond the drawn slices until the structure has closed."""


class Mem3DPropagate(ScriptedLoadableModule):
    """The module."""

    def __init__(self, parent) -> None:
        ScriptedLoadableModule.__init__(self, parent)
        parent.title = _("Propagate Slices (MedAI)")
        parent.categories = [translate("qSlicerAbstractCoreModule", "Segmentation")]
        parent.dependencies = ["MedAIExtension"]
        parent.contributors = ["The MedAI maintainers"]
        parent.helpText = _(
            "Draw a structure on three to five slices in the Segment Editor, its middle and its ends among them, "
            "then press Propagate. Drawn slices are never changed. Correct a slice and press again: only the gaps "
            "around it are computed anew."
        )
        parent.acknowledgementText = _("For research use only. Not a medical device.")


class AxisChoice(Enum):
    """Along which voxel axis the slices were drawn."""

    AUTO = "auto"
    K = "k"
    J = "j"
    I = "i"  # noqa: E741  the field's name of this axis

    def label(self) -> str:
        return {"auto": _("as drawn"), "k": _("k (third)"), "j": _("j (second)"), "i": _("i (first)")}[self.value]


class MethodChoice(Enum):
    """How to propagate."""

    AUTO = "auto"
    GEOMETRY = "geometry"
    NETWORK = "network"
    STM = "stm"

    def label(self) -> str:
        return {
            "auto": _("network where it is better"),
            "geometry": _("geometry only"),
            "network": _("network always"),
            "stm": _("memory network (STM, VMN), own weights"),
        }[self.value]


@parameterNodeWrapper
class Mem3DPropagateParameterNode:
    """What the user chose; saved with the scene."""

    volume: slicer.vtkMRMLScalarVolumeNode
    segmentation: slicer.vtkMRMLSegmentationNode
    axis: AxisChoice = AxisChoice.AUTO
    extent: Annotated[int, WithinRange(UNTIL_CLOSED, 200)] = 0
    allGaps: bool = False
    method: MethodChoice = MethodChoice.AUTO


class Mem3DPropagateWidget(ParameterNodeWidget):
    """The panel; what it does is in the logic."""

    def __init__(self, parent=None) -> None:
        ParameterNodeWidget.__init__(self, parent)
        self._pending = None

    def setup(self) -> None:
        from MedAILib.ui.run_panel import RunPanel, RunStatus
        from MedAILib.ui.run_times import RunTimes
        from Mem3DPropagateLib.result_panel import ResultPanel

        ParameterNodeWidget.setup(self)
        self.loadPanel()
        self.logic = Mem3DPropagateLogic()
        self.runPanel = RunPanel(
            _("Propagate"),
            self.start,
            self.finish,
            times=RunTimes(slicer.app.settings(), self.moduleName),
            status=RunStatus(_("Geometry"), "Apache-2.0", "CPU"),
            shortcut="Ctrl+Return",
        )
        self.ui.runLayout.addWidget(self.runPanel.widget)
        self.resultPanel = ResultPanel(self.onShowSlice, self.onUndo)
        self.ui.resultLayout.addWidget(self.resultPanel.widget)

        self.ui.sampleButton.clicked.connect(self.onLoadSample)
        self.ui.segmentationSelector.currentNodeChanged.connect(self.onSegmentationChanged)
        self.ui.segmentsTable.selectionChanged.connect(self.onSegmentsChosen)
        self.ui.weightsPathLine.currentPathChanged.connect(self.onChoiceChanged)
        self.followScene()

    def forgetScene(self) -> None:
        self.logic.forgetHistory()
        self.resultPanel.clear()

    def fillParameterNode(self) -> None:
        scene, choice = slicer.mrmlScene, self._parameterNode
        if choice.volume is None:
            choice.volume = scene.GetFirstNodeByClass("vtkMRMLScalarVolumeNode")
        if choice.segmentation is None:
            choice.segmentation = scene.GetFirstNodeByClass("vtkMRMLSegmentationNode")

    def setParameterNode(self, node) -> None:
        ParameterNodeWidget.setParameterNode(self, node)
        if node is not None:
            self.showResult()

    # Choices

    def onChoiceChanged(self, caller=None, event=None) -> None:
        missing = []
        if self._parameterNode is None or self._parameterNode.volume is None:
            missing.append(_("Choose the volume to propagate through."))
        if self._parameterNode is None or self._parameterNode.segmentation is None:
            missing.append(_("Choose the segmentation you have drawn on."))
        method = self._parameterNode.method if self._parameterNode is not None else MethodChoice.AUTO
        for part in (self.ui.weightsCaption, self.ui.weightsPathLine):
            part.visible = method == MethodChoice.STM
        if method == MethodChoice.STM and not self.ui.weightsPathLine.currentPath:
            missing.append(_("Choose the weight file of the memory network."))
        self.runPanel.set_missing(missing)
        self.showMethod(method)

    def showMethod(self, method) -> None:
        from MedAILib.models.torchuse import networks_can_run
        from MedAILib.ui.run_panel import RunStatus

        if method == MethodChoice.STM:
            status = RunStatus(_("Memory network, your weights"), _("licence of your weights"), "CPU")
        elif method == MethodChoice.GEOMETRY:
            status = RunStatus(_("Geometry"), "Apache-2.0", "CPU")
        elif method == MethodChoice.AUTO and not networks_can_run():
            status = RunStatus(_("Geometry (PyTorch is not installed)"), "Apache-2.0", "CPU")
        else:
            status = RunStatus(_("MedAI network over geometry"), _("weights CC-BY-SA-4.0"), "CPU")
        self.runPanel.set_status(status)

    def onSegmentationChanged(self, node) -> None:
        self.ui.segmentsTable.setSegmentationNode(node)
        self.showResult()

    def onSegmentsChosen(self, selected=None, deselected=None) -> None:
        self.showResult()

    def onLoadSample(self) -> None:
        with slicer.util.tryWithErrorDisplay(_("The sample could not be loaded.")):
            volume, segmentation = self.logic.loadSample(self.resourcePath("SampleData"))
            self._parameterNode.volume, self._parameterNode.segmentation = volume, segmentation

    def chosenSegmentIds(self) -> list[str] | None:
        """Segments selected in the table; None (all that are drawn) where none is."""
        return list(self.ui.segmentsTable.selectedSegmentIDs()) or None

    # Runs

    def start(self, onProgress):
        choice = self._parameterNode
        self._pending = self.logic.plan(
            choice.segmentation,
            self.chosenSegmentIds(),
            choice.volume,
            axis=choice.axis.value,
            extend="auto" if choice.extent == UNTIL_CLOSED else choice.extent,
            allGaps=choice.allGaps,
            method=choice.method.value,
            weights=self.ui.weightsPathLine.currentPath if choice.method == MethodChoice.STM else None,
        )
        return self.logic.start(self._pending, onProgress)

    def finish(self, outcome) -> str:
        plan, self._pending = self._pending, None  # it holds copies of the segments
        result = self.logic.write(plan, outcome)
        self.showResult()
        propagated = {q.index for segment in result.segments for q in segment.slices if not q.is_reference}
        return _("{count} slices propagated; drawn slices are unchanged.").format(count=len(propagated))

    def onUndo(self) -> None:
        self.logic.undo(self._parameterNode.segmentation)
        self.showResult()

    def onShowSlice(self, segmentId: str, index: int) -> None:
        self.logic.showSlice(self._parameterNode.segmentation, segmentId, self._parameterNode.volume, index)

    def showResult(self) -> None:
        """Show what the chosen segments remember of their last propagation."""
        from MedAILib.errors import MedAIError

        node = self._parameterNode.segmentation if self._parameterNode is not None else None
        results = []
        if node is not None:
            try:
                results = self.logic.results(node, self.chosenSegmentIds())
            except MedAIError as error:
                self.runPanel.show_error(error)
        self.resultPanel.show(results, undo=node is not None and self.logic.canUndo(node))


class Mem3DPropagateLogic(ScriptedLoadableModuleLogic):
    """Propagation for scripts, the console and the panel.

    Parameters
    ----------
    runner : MedAILib.jobs.runner.Runner, optional
        Where the panel's jobs run; by default the worker process that all MedAI modules share.
    """

    def __init__(self, runner=None) -> None:
        ScriptedLoadableModuleLogic.__init__(self)
        self._runner = runner
        self._histories: dict[object, object] = {}

    def getParameterNode(self) -> Mem3DPropagateParameterNode:
        return Mem3DPropagateParameterNode(super().getParameterNode())

    def propagate(
        self,
        segmentationNode,
        segmentIds=None,
        volumeNode=None,
        axis="auto",
        references=None,
        extend=None,
        allGaps=False,
        method="auto",
        weights=None,
        runner=None,
    ):
        """Propagate segments through their volume and write them back; waits for the end.

        Parameters
        ----------
        segmentationNode : vtkMRMLSegmentationNode
        segmentIds : list of str, optional
            Default: every segment that is not empty.
        volumeNode : vtkMRMLScalarVolumeNode, optional
            Default: the volume the segmentation was drawn on.
        axis : str
            ``i``, ``j``, ``k`` or ``auto``: as drawn.
        references : list of int, optional
            Slices (counted from 0) to take as drawn, where a segment without voxels is taken to be absent.
            Default: every slice drawn or corrected by the user.
        extend : int or "auto", optional
            Slices beyond the outermost drawn ones; ``auto``: until the structure has closed. Default: as in
            the last propagation, or else 0, or ``auto`` where a single slice is drawn.
        allGaps : bool
            Compute everything anew, not only the gaps around corrected slices.
        method : str
            ``auto``: our network where it was measured to be better and can run, else geometry; ``geometry``;
            ``network``; ``stm``: a space-time memory network with ``weights`` of your own.
        weights : path, optional
        runner : MedAILib.jobs.runner.Runner, optional
            Default: in this process.

        Returns
        -------
        Mem3DPropagateLib.request.PropagateResult

        Raises
        ------
        MedAILib.errors.MedAIError
            With what happened, why probably, and what to do. The scene is as it was.
        """
        from MedAILib.jobs.runner import InProcessRunner
        from Mem3DPropagateLib.request import TASK

        plan = self.plan(segmentationNode, segmentIds, volumeNode, axis, references, extend, allGaps, method, weights)
        return self.write(plan, (runner or InProcessRunner()).run(TASK, plan.request))

    def plan(
        self,
        segmentationNode,
        segmentIds=None,
        volumeNode=None,
        axis="auto",
        references=None,
        extend=None,
        allGaps=False,
        method="auto",
        weights=None,
    ):
        """The propagation as `propagate` would run it; nothing has run or changed yet."""
        from MedAILib.errors import InputError
        from MedAILib.mrml.layers import segmentation_of
        from Mem3DPropagateLib.logic import Options, ScenePropagation
        from Mem3DPropagateLib.request import Axis, Method

        segmentation_of(segmentationNode)
        if axis not in ("auto", *(known.value for known in Axis)):
            raise InputError(_("There is no axis '{axis}'.").format(axis=axis), todo=_("Give i, j, k or auto."))
        if method not in [known.value for known in Method]:
            todo = _("Give one of: {methods}.").format(methods=", ".join(known.value for known in Method))
            raise InputError(_("There is no method '{method}'.").format(method=method), todo=todo)
        volumeNode = volumeNode or segmentationNode.GetNodeReference(
            segmentationNode.GetReferenceImageGeometryReferenceRole()
        )
        if volumeNode is None:
            raise InputError(
                _("It is not known on which volume the segmentation was drawn."), todo=_("Choose the volume.")
            )
        options = Options(
            axis=None if axis == "auto" else Axis(axis),
            references=None if references is None else tuple(references),
            extend=extend,
            method=Method(method),
            weights=str(weights or ""),
            all_gaps=allGaps,
        )
        return ScenePropagation(segmentationNode, volumeNode, segmentIds, options)

    def start(self, plan, onProgress=None):
        """Start a plan in the worker; answers the job."""
        from Mem3DPropagateLib.request import TASK

        runner = self._runner or slicer.modules.MedAIExtensionInstance.runner
        return runner.start(TASK, plan.request, onProgress)

    def write(self, plan, outcome):
        """Take the outcome of a plan's job into the scene; it can be undone."""
        plan.write(outcome, self._history(plan.segmentationNode).save)
        return outcome.result

    def results(self, segmentationNode, segmentIds=None) -> list:
        """Name and `Mem3DPropagateLib.record.Record` of every propagated segment."""
        from Mem3DPropagateLib.logic import read_records

        return read_records(segmentationNode, segmentIds)

    def undo(self, segmentationNode) -> bool:
        """Take the last propagation back; False where there is none."""
        return self._history(segmentationNode).undo()

    def canUndo(self, segmentationNode) -> bool:
        return self._history(segmentationNode).can_undo

    def forgetHistory(self) -> None:
        """Free what undo has kept."""
        self._histories.clear()

    def showSlice(self, segmentationNode, segmentId: str, volumeNode, index: int) -> None:
        """Let all slice views show a slice, at the middle of the segment."""
        from Mem3DPropagateLib.logic import middle_of_slice_ras_mm

        point = middle_of_slice_ras_mm(segmentationNode, segmentId, volumeNode, index)
        slicer.vtkMRMLSliceNode.JumpAllSlices(segmentationNode.GetScene(), *point)

    def loadSample(self, folder: str):
        """Load the sample: an MR volume and a hippocampus drawn on five slices; answers both nodes."""
        from pathlib import Path

        from Mem3DPropagateLib.logic import load_drawing

        files = Path(folder)
        return load_drawing(
            slicer.mrmlScene,
            files / "Mem3DPropagateHippocampus.nii.gz",
            files / "Mem3DPropagateHippocampusDrawing.seg.nrrd",
        )

    def _history(self, segmentationNode):
        from MedAILib.mrml.undo import UndoHistory

        # By the object, not by the node's id: a new scene gives the same ids again.
        segmentation = segmentationNode.GetSegmentation()
        if segmentation not in self._histories:
            self._histories[segmentation] = UndoHistory(segmentationNode)
        return self._histories[segmentation]


class Mem3DPropagateTest(ScriptedLoadableModuleTest):
    """The self-test that a user can run from within Slicer."""

    def setUp(self) -> None:
        slicer.mrmlScene.Clear()

    def runTest(self) -> None:
        self.setUp()
        self.test_TheSampleIsPropagated()

    def test_TheSampleIsPropagated(self) -> None:
        from pathlib import Path

        logic = Mem3DPropagateLogic()
        folder = Path(slicer.util.modulePath("Mem3DPropagate")).parent / "Resources" / "SampleData"
        volume, segmentation = logic.loadSample(str(folder))
        result = logic.propagate(segmentation, volumeNode=volume)
        self.assertEqual(len(result.segments[0].slices), 39)
        self.assertGreater(result.segments[0].confidence, 0.5)
