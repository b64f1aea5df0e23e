"""Runs unmodified Slicer scripted modules offscreen: PySide6 for Qt, slicer-core for MRML.

>>> host = start_host()
>>> widget = host.open_module("MedAIExtension/MedAIExtension.py")
>>> host.screenshot(widget, "panel.png")

Not covered: slice and 3D views, the Segment Editor, and PythonQt's own quirks.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from host.host_errors import HostUnavailable

DEBIAN_PACKAGES = "libegl1 libgl1 libxkbcommon0 libdbus-1-3 libfontconfig1 libglib2.0-0"


@dataclass
class Host:
    """A running host; there is one per process, see `start_host`.

    Attributes
    ----------
    application : QApplication
    scene : vtkMRMLScene
    messages : Messages
        Message boxes and status texts that module code showed.
    opened : list
        Module widgets that are open.
    errors : list of str
        What Qt complained of, and tracebacks of exceptions in slots and observers, which reach no caller.
    """

    application: Any
    scene: Any
    messages: Any
    opened: list[Any] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    _modules: dict[str, Any] = field(default_factory=dict)

    def load_module(self, path: str | Path) -> Any:
        """Make a module known, as Slicer does with all modules when it starts; once per process.

        Returns
        -------
        ScriptedModule
            Also at ``slicer.modules.<name in lower case>``; the object of the module's own class is at
            ``slicer.modules.<name>Instance``.
        """
        import slicer

        from host.slicer_python import ScriptedModule

        path = Path(path).resolve()
        if str(path) in self._modules:
            return self._modules[str(path)]
        module = self._modules[str(path)] = ScriptedModule(path)
        module.source = _import_file(path)
        module.instance = getattr(module.source, path.stem)(module)
        setattr(slicer.modules, path.stem.lower(), module)
        setattr(slicer.modules, f"{path.stem}Instance", module.instance)
        return module

    def open_module(self, path: str | Path) -> Any:
        """Load a module file and open its panel as selecting it in Slicer does.

        Returns
        -------
        ScriptedLoadableModuleWidget
            The module's own widget object after ``setup()`` and ``enter()``.
        """
        import slicer

        from host.mrml_widgets import qSlicerScriptedLoadableModuleWidget

        module = self.load_module(path)
        parent = qSlicerScriptedLoadableModuleWidget()
        parent.setMRMLScene(self.scene)
        widget = module.widget = getattr(module.source, f"{module.name}Widget")(parent)
        setattr(slicer.modules, f"{module.name}Widget", widget)
        widget.setup()
        parent.resize(420, 800)
        parent.show()
        self.opened.append(widget)
        self.enter(widget)
        return widget

    def enter(self, widget: Any) -> None:
        """The user selects the module."""
        widget.parent._entered = True
        if hasattr(widget, "enter"):
            widget.enter()
        self.process_events()

    def exit(self, widget: Any) -> None:
        """The user selects another module."""
        widget.parent._entered = False
        if hasattr(widget, "exit"):
            widget.exit()
        self.process_events()

    def close_module(self, widget: Any) -> None:
        """Leave and unload a module: ``exit()``, ``cleanup()``, then its Qt widgets are destroyed.

        Attributes that were set on widgets and do not exist go to `errors`.
        """
        import qt
        import slicer

        from host.pythonqt import unknown_attributes

        self.errors += unknown_attributes(widget.parent)
        self.exit(widget)
        slicer.app.moduleManager().send("moduleAboutToBeUnloaded(QString)", widget.moduleName)
        self.opened.remove(widget)
        widget.parent.deleteLater()
        qt.QApplication.sendPostedEvents(None, qt.QEvent.DeferredDelete)
        self.process_events()

    def process_events(self) -> None:
        self.application.processEvents()

    def wait_until(self, condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
        """Run the event loop until the condition holds; AssertionError after the timeout."""
        end = time.monotonic() + timeout_s
        while not condition():
            if time.monotonic() > end:
                raise AssertionError(f"Nothing came within {timeout_s} s")
            self.process_events()
            time.sleep(0.005)

    def screenshot(self, widget: Any, png_path: str | Path, width: int = 420) -> Path:
        """Save a picture of a module's panel, as wide as given and as high as it needs.

        Parameters
        ----------
        widget : ScriptedLoadableModuleWidget or QWidget
        """
        panel = widget if hasattr(widget, "isWidgetType") else widget.parent
        panel.setMinimumWidth(width)
        panel.resize(width, 10)
        for _ in range(3):  # word-wrapped labels need a second pass to know their height
            self.process_events()
            layout = panel.layout()
            fits_width = layout is not None and layout.hasHeightForWidth()
            panel.resize(width, layout.totalHeightForWidth(width) if fits_width else panel.sizeHint.height())
        if not panel.grab().save(str(png_path)):
            raise OSError(f"{png_path} could not be written")
        return Path(png_path)

    @contextmanager
    def heartbeat(self, interval_ms: int = 10) -> Iterator[Heartbeat]:
        """Count ticks of the event loop and its longest pause while a block runs."""
        import qt

        beat = Heartbeat()
        timer = qt.QTimer()
        timer.setInterval(interval_ms)
        timer.timeout.connect(beat.tick)
        timer.start()
        try:
            yield beat
        finally:
            timer.stop()


@dataclass
class Heartbeat:
    """How alive the event loop was.

    Attributes
    ----------
    ticks : int
    longest_pause_s : float
        Between two ticks.
    """

    ticks: int = 0
    longest_pause_s: float = 0.0
    _last: float = field(default_factory=time.monotonic)

    def tick(self) -> None:
        now = time.monotonic()
        self.ticks += 1
        self.longest_pause_s = max(self.longest_pause_s, now - self._last)
        self._last = now


_running: list[Host] = []


def start_host() -> Host:
    """Start the host, once per process.

    Raises
    ------
    HostUnavailable
        Where PySide6 or a system library that it needs is missing.
    """
    if _running:
        return _running[0]
    os.environ["QT_QPA_PLATFORM"] = "offscreen"
    try:
        from host import pythonqt
    except ImportError as error:
        raise HostUnavailable(
            f"PySide6 cannot be loaded ({error}). pip install PySide6_Essentials; apt-get install {DEBIAN_PACKAGES}"
        ) from error
    qt = pythonqt.install()
    qt.QSettings.setDefaultFormat(qt.QSettings.IniFormat)
    qt.QSettings.setPath(qt.QSettings.IniFormat, qt.QSettings.UserScope, tempfile.mkdtemp(prefix="medai-settings-"))
    application = qt.QApplication.instance() or qt.QApplication(["medai-host"])
    application.setOrganizationName("MedAI")
    application.setApplicationName("MedAI test host")
    application.setStyle("Fusion")

    from host import ctk_widgets
    from host.scene import start_scene

    ctk_widgets.install()
    scene = start_scene()

    from host import mrml_widgets, parameter_node, slicer_python, ui_loader

    mrml_widgets.install()
    parameter_node.install()
    qt.QUiLoader = ui_loader.QUiLoader
    messages = slicer_python.install(application, scene)
    host = Host(application, scene, messages)
    _collect_errors(qt, host.errors)
    _running.append(host)
    return host


def _collect_errors(qt: Any, errors: list[str]) -> None:
    """Keep what Qt and VTK would only print: their slots and observers have no caller to raise to."""

    def from_python(kind: type[BaseException], error: BaseException, trace: Any) -> None:
        errors.append("".join(traceback.format_exception(kind, error, trace)))

    def from_qt(_kind: Any, _context: Any, text: str) -> None:
        if text != "This plugin does not support propagateSizeHints()":
            errors.append(text)

    sys.excepthook = from_python
    qt.qInstallMessageHandler(from_qt)


def _import_file(path: Path) -> Any:
    """Import a module file by its path, with its folder importable, as Slicer does."""
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    specification = importlib.util.spec_from_file_location(path.stem, path)
    if specification is None or specification.loader is None:
        raise ImportError(f"{path} is no Python file")
    module = importlib.util.module_from_spec(specification)
    sys.modules[path.stem] = module
    specification.loader.exec_module(module)
    return module
