"""A real MRML scene without the Slicer application, for tests.

Needs the ``slicer-core`` distribution. `start_scene` makes ``import slicer`` look as it does inside
Slicer as far as scene and module logics go: ``slicer.mrmlScene``, ``slicer.modules.<name>.logic()``,
and a small ``slicer.app``. Nothing here draws; widgets are another file's matter.
"""

from __future__ import annotations

import tempfile
from types import SimpleNamespace
from typing import Any

import slicer
import vtk

from host.scene_io import FileManager

# Order matters: the Segmentations logic must be there before a segment is added, and it looks for the
# application's other logics by these names.
MODULE_LOGICS = {
    "Colors": "vtkSlicerColorLogic",
    "Units": "vtkSlicerUnitsLogic",
    "Markups": "vtkSlicerMarkupsLogic",
    "Volumes": "vtkSlicerVolumesLogic",
    "Terminologies": "vtkSlicerTerminologiesModuleLogic",
    "Segmentations": "vtkSlicerSegmentationsModuleLogic",
    "SubjectHierarchy": "vtkSlicerSubjectHierarchyModuleLogic",
    "Data": "vtkSlicerDataModuleLogic",
    "Models": "vtkSlicerModelsLogic",
    "Tables": "vtkSlicerTablesLogic",
    "Texts": "vtkSlicerTextsLogic",
    "Transforms": "vtkSlicerTransformLogic",
    "Sequences": "vtkSlicerSequencesLogic",
    "CropVolume": "vtkSlicerCropVolumeLogic",
    "VolumeRendering": "vtkSlicerVolumeRenderingLogic",
    "Plots": "vtkSlicerPlotsLogic",
}


class HostApplication:
    """The few non-graphical members of ``slicer.app`` that logic code may use."""

    applicationName = "MedAI test host"
    majorVersion = 5
    minorVersion = 12
    revision = "0"

    def __init__(self, scene: Any, application_logic: Any) -> None:
        self._scene = scene
        self._logic = application_logic
        self._files = FileManager(scene)
        self.temporaryPath = tempfile.gettempdir()

    def mrmlScene(self) -> Any:
        return self._scene

    def applicationLogic(self) -> Any:
        return self._logic

    def coreIOManager(self) -> FileManager:
        return self._files

    ioManager = coreIOManager

    def testingEnabled(self) -> bool:
        return True

    def processEvents(self) -> None:
        """Nothing waits in a process without an event loop."""

    def layoutManager(self) -> None:
        """There are no views."""


class HostModule:
    """What ``slicer.modules.<name>`` answers for a module that has a logic only."""

    def __init__(self, name: str, logic: Any) -> None:
        self.name = name
        self._logic = logic

    def logic(self) -> Any:
        return self._logic


def start_scene() -> Any:
    """Start the scene, once per process.

    Returns
    -------
    vtkMRMLScene
        The same scene at every call, also at ``slicer.mrmlScene``.
    """
    running = getattr(slicer, "mrmlScene", None)
    if running is not None:
        return running
    scene = slicer.vtkMRMLScene()
    crosshair = slicer.vtkMRMLCrosshairNode()
    crosshair.SetCrosshairName("default")
    scene.AddNode(crosshair)
    application_logic = _start_application_logic(scene)
    modules = _start_module_logics(scene, application_logic)
    scene.AddObserver(slicer.vtkMRMLScene.NodeAddedEvent, _add_to_subject_hierarchy)
    scene.AddObserver(slicer.vtkMRMLScene.NodeAboutToBeRemovedEvent, _take_from_subject_hierarchy)
    slicer.mrmlScene = scene
    slicer.modules = modules
    slicer.app = HostApplication(scene, application_logic)
    return scene


def clear_scene() -> None:
    """Empty the running scene, as "Close scene" does; default colours and singleton nodes stay."""
    start_scene().Clear(False)


def _start_application_logic(scene: Any) -> Any:
    logic = slicer.vtkSlicerApplicationLogic()
    logic.SetMRMLScene(scene)
    logic.GetColorLogic().SetMRMLScene(scene)
    logic.GetColorLogic().AddDefaultColorNodes()
    logic.SetSliceLogics(vtk.vtkCollection())
    logic.SetViewLogics(vtk.vtkCollection())
    slicer.vtkMRMLSliceNode.AddDefaultSliceOrientationPresets(scene, True)
    return logic


def _start_module_logics(scene: Any, application_logic: Any) -> SimpleNamespace:
    modules = SimpleNamespace()
    for name, class_name in MODULE_LOGICS.items():
        logic = getattr(slicer, class_name)()
        logic.SetMRMLApplicationLogic(application_logic)
        _set_scene(logic, scene, quiet=name in ("Colors", "Terminologies"))
        application_logic.SetModuleLogic(name, logic)
        setattr(modules, name.lower(), HostModule(name, logic))
    return modules


def _set_scene(logic: Any, scene: Any, *, quiet: bool) -> None:
    """Give the scene to a logic; ``quiet`` for those that report colour and term files which only Slicer ships."""
    verbosity = vtk.vtkLogger.GetCurrentVerbosityCutoff()
    if quiet:
        vtk.vtkLogger.SetStderrVerbosity(vtk.vtkLogger.VERBOSITY_OFF)
    try:
        logic.SetMRMLScene(scene)
    finally:
        vtk.vtkLogger.SetStderrVerbosity(verbosity)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _add_to_subject_hierarchy(scene: Any, _event: str, node: Any) -> None:
    """Give a new data node its item in the subject hierarchy; in Slicer the module's widget does this."""
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    if scene.IsBatchProcessing() or node.GetHideFromEditors() or node.IsA("vtkMRMLSubjectHierarchyNode"):
        return
    if node.IsA("vtkMRMLStorableNode") or node.IsA("vtkMRMLDisplayableNode"):
        hierarchy.CreateItem(hierarchy.GetSceneItemID(), node)


@vtk.calldata_type(vtk.VTK_OBJECT)
def _take_from_subject_hierarchy(scene: Any, _event: str, node: Any) -> None:
    """Take the item of a node away with it."""
    if scene.IsBatchProcessing() or node.IsA("vtkMRMLSubjectHierarchyNode"):
        return
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    item = hierarchy.GetItemByDataNode(node)
    if item:
        hierarchy.RemoveItem(item, False, False)
