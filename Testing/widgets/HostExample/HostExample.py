"""A scripted module written as Slicer's developers write them, to test the host with."""

from __future__ import annotations

from enum import Enum
from typing import Annotated

import slicer
import vtk
from slicer import vtkMRMLScalarVolumeNode
from slicer.i18n import tr as _
from slicer.parameterNodeWrapper import Choice, WithinRange, parameterNodeWrapper
from slicer.ScriptedLoadableModule import (
    ScriptedLoadableModule,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleWidget,
)
from slicer.util import VTKObservationMixin


class Manner(Enum):
    GENTLE = "gentle"
    BOLD = "bold"


class HostExample(ScriptedLoadableModule):
    def __init__(self, parent) -> None:
        super().__init__(parent)
        self.parent.title = _("Host example")
        self.parent.categories = ["Testing"]


@parameterNodeWrapper
class HostExampleParameterNode:
    inputVolume: vtkMRMLScalarVolumeNode
    threshold: Annotated[float, WithinRange(-10, 10)] = 2.5
    count: Annotated[int, WithinRange(0, 9)] = 3
    invert: bool = False
    title: str = "none"
    manner: Manner = Manner.BOLD
    axis: Annotated[str, Choice(["auto", "i", "j", "k"])] = "auto"
    weights: list[float]


class HostExampleWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    def __init__(self, parent=None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.parameters = None
        self.guiTag = None

    def setup(self) -> None:
        super().setup()
        panel = slicer.util.loadUI(self.resourcePath("UI/HostExample.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)
        self.logic = HostExampleLogic()
        self.applied = []
        self.ui.applyButton.connect("clicked(bool)", self.onApply)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(slicer.mrmlScene, slicer.mrmlScene.EndCloseEvent, self.onSceneEndClose)

    def enter(self) -> None:
        self.setParameters(self.logic.getParameterNode())

    def exit(self) -> None:
        self.setParameters(None)

    def cleanup(self) -> None:
        self.removeObservers()

    def onSceneStartClose(self, caller, event) -> None:
        self.setParameters(None)

    def onSceneEndClose(self, caller, event) -> None:
        if self.parent.isEntered:
            self.enter()

    def setParameters(self, parameters) -> None:
        if self.parameters is not None:
            self.parameters.disconnectGui(self.guiTag)
            self.removeObserver(self.parameters, vtk.vtkCommand.ModifiedEvent, self.onParameters)
        self.parameters = parameters
        if parameters is not None:
            self.guiTag = parameters.connectGui(self.ui)
            self.addObserver(parameters, vtk.vtkCommand.ModifiedEvent, self.onParameters)
            self.onParameters()

    def onParameters(self, caller=None, event=None) -> None:
        self.ui.applyButton.enabled = self.parameters.inputVolume is not None

    def onApply(self) -> None:
        self.applied.append(self.parameters.inputVolume.GetName())


class HostExampleLogic(ScriptedLoadableModuleLogic):
    def getParameterNode(self):
        return HostExampleParameterNode(super().getParameterNode())
