"""Loads Qt Designer files with Slicer's and CTK's widgets in them, and is strict about what they say.

Qt's loader quietly makes a plain widget of a class it does not know and a dynamic property of a
misspelt one. Here both are errors: a file that loads in the tests means what it says.
"""

from __future__ import annotations

from typing import Any
from xml.etree import ElementTree

from PySide6 import QtCore, QtUiTools, QtWidgets

from host import ctk_widgets, mrml_widgets

CUSTOM = {widget.__name__: widget for widget in (*ctk_widgets.WIDGETS, *mrml_widgets.WIDGETS)}


class QUiLoader:
    """The part of Qt's loader that ``slicer.util.loadUI`` uses."""

    def load(self, file: QtCore.QFile) -> QtWidgets.QWidget:
        """The widget tree of an open ``.ui`` file; ValueError where the file names what does not exist."""
        text = bytes(file.readAll().data())
        tree = ElementTree.fromstring(text)
        _check_classes(tree)
        loader = QtUiTools.QUiLoader()
        for kind in CUSTOM.values():
            loader.registerCustomWidget(kind)
        connections = [c for c in tree.iter("connection") if "(vtkMRML" in c.findtext("signal", "")]
        for parent in tree.iter("connections"):
            for connection in connections:
                parent.remove(connection)
        buffer = QtCore.QBuffer()
        buffer.setData(ElementTree.tostring(tree))
        buffer.open(QtCore.QBuffer.ReadOnly)
        widget = loader.load(buffer)
        if widget is None:
            raise ValueError(loader.errorString())
        _check_properties(tree, widget)
        for connection in connections:
            _connect(widget, connection)
        for element in tree.iter():  # PySide6 makes children attributes of the root, PythonQt does not
            vars(widget).pop(element.get("name", ""), None)
        return widget


def _check_classes(tree: ElementTree.Element) -> None:
    unknown = {w.get("class", "") for w in tree.iter("widget")} - set(CUSTOM)
    unknown = {name for name in unknown if not hasattr(QtWidgets, name)}
    if unknown:
        raise ValueError(f"The test host has no widget {', '.join(sorted(unknown))}; add it to Testing/host.")


def _named(root: QtWidgets.QWidget, name: str) -> Any:
    return root if root.objectName == name else root.findChild(QtCore.QObject, name)


def _check_properties(tree: ElementTree.Element, root: QtWidgets.QWidget) -> None:
    for element in tree.iter("widget"):
        widget = _named(root, element.get("name", ""))
        for item in element.findall("property"):
            name = item.get("name", "")
            if item.get("stdset") != "0" and widget.metaObject().indexOfProperty(name) < 0:
                raise ValueError(f"{element.get('class')} '{element.get('name')}' has no property '{name}'.")


def _connect(root: QtWidgets.QWidget, connection: ElementTree.Element) -> None:
    """Connections that carry MRML objects; Qt's loader cannot make them for widgets written in Python."""
    sender, receiver = (_named(root, connection.findtext(end, "")) for end in ("sender", "receiver"))
    signal, slot = (connection.findtext(end, "").split("(")[0] for end in ("signal", "slot"))
    getattr(sender, signal).connect(getattr(receiver, slot))
