"""The CTK widgets our modules use, with the names, properties and signals of the originals.

Written for tests and pictures: they behave alike, they do not look alike to the pixel. A widget that is
not here does not exist; add it when a module needs it.
"""

from __future__ import annotations

import sys
from types import ModuleType

from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal

HEADER_PX = 24


class ctkCollapsibleButton(QtWidgets.QAbstractButton):
    """A section with a header to click; collapsed, its contents are hidden."""

    contentsCollapsed = Signal(bool)

    def __init__(self, text: str | QtWidgets.QWidget | None = None, parent: QtWidgets.QWidget | None = None) -> None:
        if isinstance(text, QtWidgets.QWidget):
            text, parent = None, text
        super().__init__(parent)
        self._hidden_by_us: list[QtWidgets.QWidget] = []
        self.setCheckable(True)
        self.setChecked(True)
        self.setText(text or "")
        self.setContentsMargins(0, HEADER_PX, 0, 0)
        self.setSizePolicy(QtWidgets.QSizePolicy.Preferred, QtWidgets.QSizePolicy.Preferred)
        self.toggled.connect(self._follow)

    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, lambda self: not self.checked, setCollapsed)

    def _follow(self, _open: bool) -> None:
        if self.collapsed:
            self._hide_contents()
        else:
            self.setMaximumHeight(16777215)
            for child in self._hidden_by_us:
                child.show()
            self._hidden_by_us = []
        self.updateGeometry()
        self.contentsCollapsed.emit(self.collapsed)

    def _hide_contents(self) -> None:
        self.setMaximumHeight(HEADER_PX)
        for child in self.children():
            if child.isWidgetType() and not child.isHidden():
                child.hide()
                self._hidden_by_us.append(child)

    def event(self, event: QtCore.QEvent) -> bool:
        if event.type() in (QtCore.QEvent.ChildPolished, QtCore.QEvent.Show) and self.collapsed:
            self._hide_contents()
        return super().event(event)

    def hitButton(self, position: QtCore.QPoint) -> bool:
        return position.y() < HEADER_PX

    def sizeHint(self) -> QtCore.QSize:
        layout = self.layout()
        hint = layout.totalSizeHint() if layout else QtCore.QSize(80, 0)
        return QtCore.QSize(hint.width(), HEADER_PX if self.collapsed else max(hint.height(), HEADER_PX))

    def minimumSizeHint(self) -> QtCore.QSize:
        layout = self.layout()
        hint = layout.totalMinimumSize() if layout else QtCore.QSize(80, 0)
        return QtCore.QSize(hint.width(), HEADER_PX if self.collapsed else max(hint.height(), HEADER_PX))

    def paintEvent(self, _event: QtGui.QPaintEvent) -> None:
        header = QtCore.QRect(0, 0, self.width, HEADER_PX - 2)
        option = QtWidgets.QStyleOptionButton()
        option.initFrom(self)
        option.rect = header
        painter = QtWidgets.QStylePainter(self)
        painter.drawControl(QtWidgets.QStyle.CE_PushButtonBevel, option)
        arrow = QtWidgets.QStyleOption()
        arrow.initFrom(self)
        arrow.rect = QtCore.QRect(8, 6, 10, 10)
        element = QtWidgets.QStyle.PE_IndicatorArrowRight if self.collapsed else QtWidgets.QStyle.PE_IndicatorArrowDown
        painter.drawPrimitive(element, arrow)
        painter.drawText(header.adjusted(24, 0, 0, 0), QtCore.Qt.AlignVCenter | QtCore.Qt.AlignLeft, self.text)


class ctkCollapsibleGroupBox(QtWidgets.QGroupBox):
    """A group box that folds its contents away when unchecked."""

    def __init__(self, *arguments: object) -> None:
        super().__init__(*arguments)
        self.setCheckable(True)
        self.setChecked(True)
        self.toggled.connect(lambda opened: self.setMaximumHeight(16777215 if opened else 20))

    def setCollapsed(self, collapsed: bool) -> None:
        self.setChecked(not collapsed)

    collapsed = Property(bool, lambda self: not self.checked, setCollapsed)


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider for decimal numbers with a spin box beside it."""

    valueChanged = Signal(float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._slider = QtWidgets.QSlider(QtCore.Qt.Horizontal, self)
        self._box = QtWidgets.QDoubleSpinBox(self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._slider)
        row.addWidget(self._box)
        self._box.setRange(0.0, 99.0)
        self._box.valueChanged.connect(self._box_moved)
        self._slider.valueChanged.connect(self._slider_moved)
        self._scale_slider()

    def _scale_slider(self) -> None:
        self._slider.blockSignals(True)
        steps = round((self._box.maximum - self._box.minimum) / self._box.singleStep)
        self._slider.setRange(0, max(min(steps, 2**30), 0))
        self._slider.setValue(round((self._box.value - self._box.minimum) / self._box.singleStep))
        self._slider.blockSignals(False)

    def _box_moved(self, value: float) -> None:
        self._scale_slider()
        self.valueChanged.emit(value)

    def _slider_moved(self, step: int) -> None:
        self._box.setValue(self._box.minimum + step * self._box.singleStep)

    def setValue(self, value: float) -> None:
        self._box.setValue(value)

    def setMinimum(self, value: float) -> None:
        self._box.setMinimum(value)
        self._scale_slider()

    def setMaximum(self, value: float) -> None:
        self._box.setMaximum(value)
        self._scale_slider()

    def setRange(self, low: float, high: float) -> None:
        self._box.setRange(low, high)
        self._scale_slider()

    def setSingleStep(self, value: float) -> None:
        self._box.setSingleStep(value)
        self._scale_slider()

    def setDecimals(self, count: int) -> None:
        self._box.setDecimals(count)

    def setSuffix(self, text: str) -> None:
        self._box.setSuffix(text)

    value = Property(float, lambda self: self._box.value, setValue)
    minimum = Property(float, lambda self: self._box.minimum, setMinimum)
    maximum = Property(float, lambda self: self._box.maximum, setMaximum)
    singleStep = Property(float, lambda self: self._box.singleStep, setSingleStep)
    decimals = Property(int, lambda self: self._box.decimals, setDecimals)
    suffix = Property(str, lambda self: self._box.suffix, setSuffix)


class ctkRangeWidget(QtWidgets.QWidget):
    """A lower and an upper number; the lower never passes the upper."""

    valuesChanged = Signal(float, float)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._low, self._high = QtWidgets.QDoubleSpinBox(self), QtWidgets.QDoubleSpinBox(self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        for box in (self._low, self._high):
            row.addWidget(box)
        self.setRange(0.0, 99.0)
        self.setValues(0.0, 99.0)
        self._low.valueChanged.connect(lambda value: self.setValues(value, max(value, self._high.value)))
        self._high.valueChanged.connect(lambda value: self.setValues(min(value, self._low.value), value))

    def setValues(self, low: float, high: float) -> None:
        for box, value in ((self._low, low), (self._high, high)):
            box.blockSignals(True)
            box.setValue(value)
            box.blockSignals(False)
        self.valuesChanged.emit(self._low.value, self._high.value)

    def setRange(self, low: float, high: float) -> None:
        for box in (self._low, self._high):
            box.setRange(low, high)

    minimum = Property(float, lambda self: self._low.minimum, lambda self, v: self.setRange(v, self._low.maximum))
    maximum = Property(float, lambda self: self._low.maximum, lambda self, v: self.setRange(self._low.minimum, v))
    minimumValue = Property(
        float, lambda self: self._low.value, lambda self, v: self.setValues(v, max(v, self._high.value))
    )
    maximumValue = Property(
        float, lambda self: self._high.value, lambda self, v: self.setValues(min(v, self._low.value), v)
    )


class ctkPathLineEdit(QtWidgets.QWidget):
    """A path to type; the browse button of the original would open a window and is left out."""

    currentPathChanged = Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._line = QtWidgets.QLineEdit(self)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._line)
        self._line.textChanged.connect(self.currentPathChanged)

    def setCurrentPath(self, path: str) -> None:
        self._line.setText(path)

    currentPath = Property(str, lambda self: self._line.text, setCurrentPath)


WIDGETS = (ctkCollapsibleButton, ctkCollapsibleGroupBox, ctkSliderWidget, ctkRangeWidget, ctkPathLineEdit)


def install() -> ModuleType:
    """Return the module ``ctk`` (once per process)."""
    if "ctk" not in sys.modules:
        ctk = ModuleType("ctk", "The CTK widgets of the test host.")
        for widget in WIDGETS:
            setattr(ctk, widget.__name__, widget)
        sys.modules["ctk"] = ctk
    return sys.modules["ctk"]
