"""The ties between a parameter and a widget: which signal, how to read, how to show."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ctk
import qt
import shiboken6
import slicer
import vtk

from host.parameter_node import Choice, Decimals, Maximum, Minimum, SingleStep, WithinRange


@dataclass(frozen=True)
class Tie:
    """How one kind of widget stands for one kind of value."""

    signal: str
    read: Callable[[], Any]
    show: Callable[[Any], None]


def tie(node: Any, name: str, widget: Any) -> list[Callable[[], None]]:
    """Keep a widget and a parameter equal; the functions returned undo it."""
    found = _tie_of(node.allParameters[name], widget)
    busy = [False]

    def to_node(*_values: Any) -> None:
        if not busy[0]:
            node.setValue(name, found.read())

    def to_widget(*_arguments: Any) -> None:
        if not shiboken6.isValid(widget):
            return
        busy[0] = True
        try:
            found.show(node.getValue(name))
        finally:
            busy[0] = False

    to_widget()
    signal = getattr(widget, found.signal)
    signal.connect(to_node)
    tag = node.AddObserver(vtk.vtkCommand.ModifiedEvent, to_widget)
    return [
        lambda: node.RemoveObserver(tag),
        lambda: shiboken6.isValid(widget) and signal.disconnect(to_node),
    ]


def _attribute(widget: Any, signal: str, name: str) -> Tie:
    return Tie(signal, lambda: getattr(widget, name), lambda value: setattr(widget, name, value))


def _tie_of(parameter: Any, widget: Any) -> Tie:
    kind, look = parameter.kind, type(widget)
    if kind is bool and look in (qt.QCheckBox, qt.QPushButton):
        widget.checkable = True
        return _attribute(widget, "toggled", "checked")
    if (kind is int and look in (qt.QSpinBox, qt.QSlider)) or (
        kind is float and look in (qt.QDoubleSpinBox, ctk.ctkSliderWidget)
    ):
        _apply_limits(parameter, widget)
        return _attribute(widget, "valueChanged", "value")
    if look is qt.QComboBox:
        return _combo_tie(parameter, widget)
    if kind is str and look is qt.QLineEdit:
        return _attribute(widget, "textChanged", "text")
    if kind is str and look in (qt.QTextEdit, qt.QPlainTextEdit):
        return Tie("textChanged", widget.toPlainText, widget.setPlainText)
    if kind is Path and look is ctk.ctkPathLineEdit:
        return Tie("currentPathChanged", lambda: Path(widget.currentPath), lambda p: widget.setCurrentPath(str(p)))
    if parameter.is_node and look is slicer.qMRMLNodeComboBox:
        return Tie("currentNodeChanged", widget.currentNode, widget.setCurrentNode)
    raise RuntimeError(f"No tie between {look.__name__} and {kind} ('{parameter.name}'); Slicer or the host lacks it.")


def _combo_tie(parameter: Any, widget: Any) -> Tie:
    """As in Slicer, the tie fills the combo box itself: with the choices, or the labels of an enum."""
    choice = parameter.find(Choice)
    if choice is not None:
        values = list(choice.choices)
        labels = [str(value) for value in values]
    elif isinstance(parameter.kind, type) and issubclass(parameter.kind, enum.Enum):
        values = list(parameter.kind)
        label = getattr(parameter.kind, "label", lambda member: member.name)
        labels = [label(value) for value in values]
    else:
        raise RuntimeError(f"'{parameter.name}' needs a Choice annotation or an Enum to be shown in a combo box.")
    widget.clear()
    widget.addItems(labels)
    return Tie(
        "currentIndexChanged",
        lambda: values[widget.currentIndex],
        lambda value: setattr(widget, "currentIndex", values.index(value)),
    )


def _apply_limits(parameter: Any, widget: Any) -> None:
    for annotation in (parameter.find(Decimals), parameter.find(SingleStep)):
        if annotation is not None:
            setattr(widget, "decimals" if isinstance(annotation, Decimals) else "singleStep", annotation.value)
    limits = parameter.find(WithinRange)
    low = limits or parameter.find(Minimum)
    high = limits or parameter.find(Maximum)
    if (low is None or high is None) and type(widget) in (qt.QSlider, ctk.ctkSliderWidget):
        raise RuntimeError(f"'{parameter.name}' needs WithinRange to be shown on a slider.")
    far = 2**31 - 1 if parameter.kind is int else float("inf")
    widget.setMinimum(low.minimum if low else -far)
    widget.setMaximum(high.maximum if high else far)
