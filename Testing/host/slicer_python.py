"""The parts of Slicer's Python that ``slicer-core`` does not ship and module files import.

``slicer.ScriptedLoadableModule``, ``slicer.i18n``, the windowed half of ``slicer.app``, and message
boxes that are noted instead of shown. What is not here raises AttributeError, as a typing mistake would.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import TestCase

import slicer
import slicer.util

from host.host_errors import WindowOpened
from host.scene import HostApplication

log = logging.getLogger(__name__)


@dataclass
class Messages:
    """What the code under test showed to the user.

    Attributes
    ----------
    shown : list of (str, str)
        Kind (``error``, ``warning``, ``info``, ``question``, ``status``) and text, oldest first.
    answers : list of bool
        Answers to the next questions; a question without one raises `WindowOpened`.
    """

    shown: list[tuple[str, str]] = field(default_factory=list)
    answers: list[bool] = field(default_factory=list)

    def of_kind(self, kind: str) -> list[str]:
        return [text for shown_kind, text in self.shown if shown_kind == kind]

    def clear(self) -> None:
        self.shown.clear()
        self.answers.clear()

    def note(self, kind: str) -> Callable[..., None]:
        def noted(text: str, *_arguments: Any, **_options: Any) -> None:
            self.shown.append((kind, text))

        return noted

    def ask(self, text: str, *_arguments: Any, **_options: Any) -> bool:
        self.shown.append(("question", text))
        if not self.answers:
            raise WindowOpened(f"The user was asked '{text}'. Put the answer into messages.answers first.")
        return self.answers.pop(0)


class Announcements:
    """Signals that Slicer's C++ objects send, connected by their signature."""

    def __init__(self, *signatures: str) -> None:
        self._receivers: dict[str, list[Callable[..., Any]]] = {signature: [] for signature in signatures}

    def connect(self, signature: str, receiver: Callable[..., Any]) -> bool:
        self._known(signature).append(receiver)
        return True

    def disconnect(self, signature: str, receiver: Callable[..., Any]) -> bool:
        known = self._known(signature)
        present = receiver in known
        if present:
            known.remove(receiver)
        return present

    def send(self, signature: str, *values: Any) -> None:
        for receiver in list(self._known(signature)):
            receiver(*values)

    def _known(self, signature: str) -> list[Callable[..., Any]]:
        if signature not in self._receivers:
            raise AttributeError(f"The test host sends no {signature}")
        return self._receivers[signature]


class DesktopApplication(HostApplication):
    """``slicer.app`` of a Slicer without main window: layoutManager() is None there too."""

    def __init__(self, application: Any, scene: Any, application_logic: Any) -> None:
        super().__init__(scene, application_logic)
        self.temporaryPath = tempfile.mkdtemp(prefix="medai-host-")
        self._application = application
        self._announcements = Announcements("startupCompleted()", "aboutToQuit()", "lastWindowClosed()")
        self._modules = ModuleManager()
        self.connect = self._announcements.connect
        self.disconnect = self._announcements.disconnect
        self.announce = self._announcements.send
        self.clipboard = application.clipboard
        self.topLevelWidgets = application.topLevelWidgets
        self.setOverrideCursor = application.setOverrideCursor
        self.restoreOverrideCursor = application.restoreOverrideCursor

    def processEvents(self) -> None:
        self._application.processEvents()

    def settings(self) -> Any:
        import qt

        return qt.QSettings()

    userSettings = revisionUserSettings = settings

    def moduleManager(self) -> ModuleManager:
        return self._modules

    def testingEnabled(self) -> bool:
        """False: the code under test shows its messages, and they are noted."""
        return False


class ModuleManager(Announcements):
    def __init__(self) -> None:
        super().__init__("moduleAboutToBeUnloaded(QString)")

    def module(self, name: str) -> Any:
        return getattr(slicer.modules, name.lower(), None)


class ScriptedModule:
    """What a module's class gets as ``parent``; only what Slicer has can be set."""

    __slots__ = (
        "acknowledgementText",
        "associatedNodeTypes",
        "categories",
        "contributors",
        "dependencies",
        "helpText",
        "hidden",
        "icon",
        "index",
        "instance",
        "name",
        "path",
        "source",
        "title",
        "widget",
    )

    def __init__(self, path: Path) -> None:
        self.path = str(path)
        self.name = path.stem
        self.title = ""

    def widgetRepresentation(self) -> Any:
        return self.widget.parent


class ScriptedLoadableModule:
    def __init__(self, parent: ScriptedModule) -> None:
        self.parent = parent
        self.moduleName = type(self).__name__

    def resourcePath(self, filename: str) -> str:
        return str(Path(self.parent.path).parent / "Resources" / filename)


class ScriptedLoadableModuleWidget:
    def __init__(self, parent: Any) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Widget")
        self.developerMode = False
        self.parent = parent
        self.layout = parent.layout()
        slicer.app.moduleManager().connect("moduleAboutToBeUnloaded(QString)", self._about_to_be_unloaded)

    def resourcePath(self, filename: str) -> str:
        return str(Path(slicer.util.modulePath(self.moduleName)).parent / "Resources" / filename)

    def setup(self) -> None:
        """Slicer adds its developer section here, in developer mode only."""

    def cleanup(self) -> None:
        """For modules to override."""

    def _about_to_be_unloaded(self, name: str) -> None:
        if name == self.moduleName:
            self.cleanup()
            slicer.app.moduleManager().disconnect("moduleAboutToBeUnloaded(QString)", self._about_to_be_unloaded)


class ScriptedLoadableModuleLogic:
    def __init__(self, parent: Any = None) -> None:
        super().__init__()
        self.moduleName = type(self).__name__.removesuffix("Logic")
        self.isSingletonParameterNode = True

    def getParameterNode(self) -> Any:
        """The module's one parameter node in the scene, made when missing."""
        scene = slicer.mrmlScene
        node = scene.GetSingletonNode(self.moduleName, "vtkMRMLScriptedModuleNode")
        if node is None:
            node = scene.CreateNodeByClass("vtkMRMLScriptedModuleNode")
            node.UnRegister(None)
            node.SetSingletonTag(self.moduleName)
            node.SetName(self.moduleName)
            node.SetModuleName(self.moduleName)
            node = scene.AddNode(node)
        node.SetAttribute("ModuleName", self.moduleName)
        return node


class ScriptedLoadableModuleTest(TestCase):
    def __init__(self, *arguments: Any) -> None:
        super().__init__(*(arguments or ("runTest",)))

    def setUp(self) -> None:
        slicer.mrmlScene.Clear(False)

    def runTest(self) -> None:
        """Run every ``test_...`` method; modules may override it."""
        names = [name for name in dir(self) if name.startswith("test_")]
        if not names:
            raise AssertionError(f"{type(self).__name__} has no test")
        for name in names:
            self.setUp()
            getattr(self, name)()
            self.tearDown()

    def delayDisplay(self, message: str, *_arguments: Any, **_options: Any) -> None:
        log.info("%s", message)


BASES = (
    ScriptedLoadableModule,
    ScriptedLoadableModuleWidget,
    ScriptedLoadableModuleLogic,
    ScriptedLoadableModuleTest,
)


def install(application: Any, scene: Any) -> Messages:
    """Complete ``slicer`` for module files; returns the notebook of messages shown."""
    bases = ModuleType("slicer.ScriptedLoadableModule")
    bases.__all__ = [base.__name__ for base in BASES]  # type: ignore[attr-defined]
    for base in BASES:
        setattr(bases, base.__name__, base)
    i18n = ModuleType("slicer.i18n")
    i18n.tr = lambda text: text  # type: ignore[attr-defined]
    i18n.translate = lambda context, text: text  # type: ignore[attr-defined]
    for module in (bases, i18n):
        sys.modules[module.__name__] = module
        setattr(slicer, module.__name__.split(".")[1], module)
    slicer.selfTests = {}
    slicer.app = DesktopApplication(application, scene, slicer.app.applicationLogic())
    return _note_messages()


def _note_messages() -> Messages:
    messages = Messages()
    for kind in ("error", "warning", "info"):
        setattr(slicer.util, f"{kind}Display", messages.note(kind))
    for name in ("messageBox", "delayDisplay"):
        setattr(slicer.util, name, messages.note("info"))
    slicer.util.showStatusMessage = messages.note("status")
    for name in ("confirmOkCancelDisplay", "confirmYesNoDisplay", "confirmRetryCloseDisplay"):
        setattr(slicer.util, name, messages.ask)
    return messages
