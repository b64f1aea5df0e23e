"""The life cycle that module panels with a parameter node share: opened, entered, left, scene closed, closed."""

from __future__ import annotations

from typing import Any

import slicer
import vtk
from slicer.ScriptedLoadableModule import ScriptedLoadableModuleWidget
from slicer.util import VTKObservationMixin


class ParameterNodeWidget(ScriptedLoadableModuleWidget, VTKObservationMixin):
    """A module's panel whose choices are in its parameter node.

    A subclass loads its panel and gives ``logic`` and ``runPanel`` in `setup`, then calls `followScene`; it says in
    `onChoiceChanged` what the choices mean, and where there is something to do in `fillParameterNode` and
    `forgetScene`.

    Attributes
    ----------
    logic : ScriptedLoadableModuleLogic
        With ``getParameterNode()``.
    runPanel : MedAILib.ui.run_panel.RunPanel
    ui : namespace
        The widgets of the panel by their names.
    """

    logic: Any
    runPanel: Any
    ui: Any

    def __init__(self, parent: Any = None) -> None:
        ScriptedLoadableModuleWidget.__init__(self, parent)
        VTKObservationMixin.__init__(self)
        self.logic = None
        self._parameterNode: Any = None
        self._parameterNodeGuiTag: Any = None

    def loadPanel(self) -> None:
        """Show ``Resources/UI/<module>.ui`` with the scene."""
        panel = slicer.util.loadUI(self.resourcePath(f"UI/{self.moduleName}.ui"))
        self.layout.addWidget(panel)
        self.ui = slicer.util.childWidgetVariables(panel)
        panel.setMRMLScene(slicer.mrmlScene)

    def followScene(self) -> None:
        """Take the parameter node from the scene, and let go of it when the scene closes."""
        scene = slicer.mrmlScene
        self.addObserver(scene, scene.StartCloseEvent, self.onSceneStartClose)
        self.addObserver(scene, scene.EndCloseEvent, self.onSceneEndClose)
        self.initializeParameterNode()

    def cleanup(self) -> None:
        self.removeObservers()
        self.runPanel.close()
        self.setParameterNode(None)

    def enter(self) -> None:
        self.initializeParameterNode()

    def exit(self) -> None:
        self.setParameterNode(None)

    def onSceneStartClose(self, caller: Any, event: Any) -> None:
        self.runPanel.cancel()
        self.setParameterNode(None)
        self.forgetScene()

    def onSceneEndClose(self, caller: Any, event: Any) -> None:
        if self.parent.isEntered:
            self.initializeParameterNode()

    def initializeParameterNode(self) -> None:
        if self._parameterNode is None:
            self.setParameterNode(self.logic.getParameterNode())
        self.fillParameterNode()

    def setParameterNode(self, node: Any) -> None:
        """Show the choices of a parameter node; None: of none."""
        if self._parameterNode is not None:
            self._parameterNode.disconnectGui(self._parameterNodeGuiTag)
            self.removeObserver(self._parameterNode, vtk.vtkCommand.ModifiedEvent, self.onChoiceChanged)
        self._parameterNode = node
        if node is not None:
            self._parameterNodeGuiTag = node.connectGui(self.ui)
            self.addObserver(node, vtk.vtkCommand.ModifiedEvent, self.onChoiceChanged)
            self.onChoiceChanged()

    # For modules to override

    def onChoiceChanged(self, caller: Any = None, event: Any = None) -> None:
        """The parameter node was set or has changed."""

    def fillParameterNode(self) -> None:
        """Choose what is plain to choose where nothing is chosen yet."""

    def forgetScene(self) -> None:
        """Let go of nodes and results of a scene that closes."""
