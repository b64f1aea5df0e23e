"""Slicer's MRML widgets over a real MRML scene, as far as our modules use them.

They follow the scene: nodes that come, go or change their name appear so in the selectors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import shiboken6
import slicer
import vtk
from PySide6 import QtCore, QtGui, QtWidgets
from PySide6.QtCore import Property, Signal


class Watch:
    """VTK observations that end with the Qt object they serve."""

    def __init__(self, owner: QtCore.QObject) -> None:
        self._owner = owner
        self._tags: list[tuple[Any, int]] = []

    def add(self, subject: Any, event: int, action: Callable[[], None]) -> None:
        def relay(caller: Any, _event: str) -> None:
            if shiboken6.isValid(self._owner):
                action()
            else:
                self.clear()

        self._tags.append((subject, subject.AddObserver(event, relay)))

    def clear(self) -> None:
        for subject, tag in self._tags:
            subject.RemoveObserver(tag)
        self._tags = []


class qMRMLWidget(QtWidgets.QWidget):
    """A widget that knows the scene and tells its children."""

    mrmlSceneChanged = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._scene: Any = None

    def setMRMLScene(self, scene: Any) -> None:
        if scene is not self._scene:
            self._scene = scene
            self.mrmlSceneChanged.emit(scene)

    def mrmlScene(self) -> Any:
        return self._scene


class qSlicerScriptedLoadableModuleWidget(qMRMLWidget):
    """What a scripted module's widget object gets as ``parent``: an empty panel that knows whether it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self._entered = False
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)

    isEntered = Property(bool, lambda s: s._entered)


class qMRMLNodeComboBox(qMRMLWidget):
    """A selector of scene nodes of given classes."""

    currentNodeChanged = Signal(object)
    currentNodeIDChanged = Signal(str)
    nodeAddedByUser = Signal(object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._types: list[str] = []
        self._none = self._hidden = False
        self._add = self._remove = self._rename = self._select_new = self._children = True
        self._base_name = ""
        self._attributes: list[tuple[str, str, str | None]] = []
        self._ids: list[str | None] = []
        self._current_id: str | None = None
        self._watch, self._names = Watch(self), Watch(self)
        self._combo = QtWidgets.QComboBox(self)
        self._combo.setSizeAdjustPolicy(QtWidgets.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        self._combo.setMinimumContentsLength(8)
        row = QtWidgets.QHBoxLayout(self)
        row.setContentsMargins(0, 0, 0, 0)
        row.addWidget(self._combo)
        self._combo.activated.connect(self._picked)

    # The scene

    def setMRMLScene(self, scene: Any) -> None:
        self._watch.clear()
        if scene is not None:
            kind = slicer.vtkMRMLScene
            for event in (kind.NodeAddedEvent, kind.NodeRemovedEvent, kind.EndBatchProcessEvent, kind.EndCloseEvent):
                self._watch.add(scene, event, self._refresh)
        super().setMRMLScene(scene)
        self._refresh()

    def _offered(self) -> list[Any]:
        if self._scene is None:
            return []
        nodes = [self._scene.GetNthNode(n) for n in range(self._scene.GetNumberOfNodes())]
        return [node for node in nodes if self._offers(node)]

    def _offers(self, node: Any) -> bool:
        exact_or_derived = node.IsA if self._children else (lambda name: node.GetClassName() == name)
        if not any(exact_or_derived(name) for name in self._types):
            return False
        if node.GetHideFromEditors() and not self._hidden:
            return False
        for class_name, name, wanted in self._attributes:
            if node.IsA(class_name):
                value = node.GetAttribute(name)
                if value is None or (wanted is not None and value != wanted):
                    return False
        return True

    def _refresh(self) -> None:
        if self._scene is not None and self._scene.IsBatchProcessing():
            return
        nodes = self._offered()
        self._names.clear()
        for node in nodes:
            self._names.add(node, vtk.vtkCommand.ModifiedEvent, self._show_names)
        self._ids = ([None] if self._none else []) + [node.GetID() for node in nodes]
        if self._current_id not in self._ids:
            self._select(None if self._none or not self._ids else self._ids[0])
        self._show_names()

    def _show_names(self) -> None:
        self._combo.blockSignals(True)
        self._combo.clear()
        for node_id in self._ids:
            node = self._scene.GetNodeByID(node_id) if node_id else None
            self._combo.addItem(node.GetName() if node else "None", node_id)
        if self._add and self._scene is not None:
            self._combo.insertSeparator(self._combo.count)
            self._combo.addItem(f"Create new {self._type_label()}", "create")
        self._combo.setCurrentIndex(self._ids.index(self._current_id) if self._current_id in self._ids else -1)
        self._combo.blockSignals(False)

    def _type_label(self) -> str:
        if not self._types:
            return "node"
        return self._scene.CreateNodeByClass(self._types[0]).GetNodeTagName()

    def _picked(self, index: int) -> None:
        if self._combo.itemData(index) == "create":
            self.addNode()
        else:
            self.setCurrentNodeID(self._combo.itemData(index))

    def _select(self, node_id: str | None) -> None:
        if node_id == self._current_id:
            return
        self._current_id = node_id
        self.currentNodeChanged.emit(self.currentNode())
        self.currentNodeIDChanged.emit(node_id or "")

    # What modules call

    def currentNode(self) -> Any:
        return self._scene.GetNodeByID(self._current_id) if self._scene is not None and self._current_id else None

    def setCurrentNode(self, node: Any) -> None:
        self.setCurrentNodeID(node.GetID() if node is not None else None)

    def setCurrentNodeID(self, node_id: str | None) -> None:
        node_id = node_id or None
        if node_id is not None and node_id not in self._ids:
            return
        self._select(node_id)
        self._show_names()

    def addNode(self, class_name: str | None = None) -> Any:
        class_name = class_name or self._types[0]
        node = self._scene.CreateNodeByClass(class_name)
        node.UnRegister(None)
        node.SetName(self._scene.GenerateUniqueName(self._base_name or node.GetNodeTagName()))
        for kind, name, value in self._attributes:
            if node.IsA(kind):
                node.SetAttribute(name, value or "")
        self._scene.AddNode(node)
        self.nodeAddedByUser.emit(node)
        if self._select_new:
            self.setCurrentNode(node)
        return node

    def nodeCount(self) -> int:
        return len(self._offered())

    def nodeFromIndex(self, index: int) -> Any:
        return self._offered()[index]

    def addAttribute(self, class_name: str, name: str, value: str | None = None) -> None:
        self._attributes.append((class_name, name, value))
        self._refresh()

    def _assign(self, field: str, value: Any) -> None:
        setattr(self, field, value)
        self._refresh()

    nodeTypes = Property("QStringList", lambda s: s._types, lambda s, v: s._assign("_types", list(v)))
    noneEnabled = Property(bool, lambda s: s._none, lambda s, v: s._assign("_none", v))
    addEnabled = Property(bool, lambda s: s._add, lambda s, v: s._assign("_add", v))
    removeEnabled = Property(bool, lambda s: s._remove, lambda s, v: s._assign("_remove", v))
    renameEnabled = Property(bool, lambda s: s._rename, lambda s, v: s._assign("_rename", v))
    showHidden = Property(bool, lambda s: s._hidden, lambda s, v: s._assign("_hidden", v))
    showChildNodeTypes = Property(bool, lambda s: s._children, lambda s, v: s._assign("_children", v))
    selectNodeUponCreation = Property(bool, lambda s: s._select_new, lambda s, v: s._assign("_select_new", v))
    baseName = Property(str, lambda s: s._base_name, lambda s, v: s._assign("_base_name", v))
    currentNodeID = Property(str, lambda s: s._current_id or "", setCurrentNodeID)


def _stored(kind: type, name: str, default: Any) -> Property:
    """A property that is kept and changes nothing in these plain widgets."""
    return Property(kind, lambda s: s.__dict__.get(name, default), lambda s, value: s.__dict__.update({name: value}))


class _SegmentationFollower(qMRMLWidget):
    """What both segment widgets share: one segmentation whose segments are listed."""

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._segmentation_node: Any = None
        self._watch = Watch(self)

    def _follow(self, node: Any) -> None:
        self._watch.clear()
        self._segmentation_node = node
        if node is not None:
            kind = slicer.vtkSegmentation
            for event in (kind.SegmentAdded, kind.SegmentRemoved, kind.SegmentModified, kind.SegmentsOrderModified):
                self._watch.add(node.GetSegmentation(), event, self._show_segments)
            self._watch.add(node.GetScene(), slicer.vtkMRMLScene.NodeRemovedEvent, self._leave_removed_node)
        self._show_segments()

    def _leave_removed_node(self) -> None:
        if self._segmentation_node is not None and self._segmentation_node.GetScene() is None:
            self._follow(None)

    def _segments(self) -> list[tuple[str, Any]]:
        if self._segmentation_node is None:
            return []
        segmentation = self._segmentation_node.GetSegmentation()
        return [(name, segmentation.GetSegment(name)) for name in segmentation.GetSegmentIDs()]

    def _show_segments(self) -> None:
        raise NotImplementedError


class qMRMLSegmentSelectorWidget(_SegmentationFollower):
    """A segmentation selector and, below it, one of its segments."""

    currentNodeChanged = Signal(object)
    currentSegmentChanged = Signal(str)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._nodes = qMRMLNodeComboBox(self)
        self._nodes.nodeTypes = ["vtkMRMLSegmentationNode"]
        self._nodes.addEnabled = False
        self._combo = QtWidgets.QComboBox(self)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._nodes)
        column.addWidget(self._combo)
        self._nodes.currentNodeChanged.connect(self._node_changed)
        self._combo.currentIndexChanged.connect(lambda _index: self.currentSegmentChanged.emit(self.currentSegmentID()))

    def setMRMLScene(self, scene: Any) -> None:
        super().setMRMLScene(scene)
        self._nodes.setMRMLScene(scene)

    def _node_changed(self, node: Any) -> None:
        self._follow(node)
        self.currentNodeChanged.emit(node)

    def _show_segments(self) -> None:
        chosen = self.currentSegmentID()
        self._combo.blockSignals(True)
        self._combo.clear()
        for segment_id, segment in self._segments():
            self._combo.addItem(segment.GetName(), segment_id)
        self._combo.setCurrentIndex(max(self._combo.findData(chosen), 0))
        self._combo.blockSignals(False)
        if self.currentSegmentID() != chosen:
            self.currentSegmentChanged.emit(self.currentSegmentID())

    def currentNode(self) -> Any:
        return self._nodes.currentNode()

    def setCurrentNode(self, node: Any) -> None:
        self._nodes.setCurrentNode(node)

    def currentSegmentID(self) -> str:
        return self._combo.currentData or ""

    def setCurrentSegmentID(self, segment_id: str) -> None:
        self._combo.setCurrentIndex(self._combo.findData(segment_id))

    def setNoneEnabled(self, value: bool) -> None:
        self._nodes.noneEnabled = value

    noneEnabled = Property(bool, lambda s: s._nodes.noneEnabled, setNoneEnabled)


class qMRMLSegmentsTableView(_SegmentationFollower):
    """The segments of one segmentation as a table; several can be selected."""

    selectionChanged = Signal(object, object)

    def __init__(self, parent: QtWidgets.QWidget | None = None) -> None:
        super().__init__(parent)
        self._table = QtWidgets.QListWidget(self)
        self._table.setSelectionMode(QtWidgets.QAbstractItemView.ExtendedSelection)
        column = QtWidgets.QVBoxLayout(self)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self._table)
        self._table.itemSelectionChanged.connect(lambda: self.selectionChanged.emit(None, None))

    def setSegmentationNode(self, node: Any) -> None:
        self._follow(node)

    def segmentationNode(self) -> Any:
        return self._segmentation_node

    def _show_segments(self) -> None:
        chosen = set(self.selectedSegmentIDs())
        self._table.blockSignals(True)
        self._table.clear()
        for segment_id, segment in self._segments():
            item = QtWidgets.QListWidgetItem(segment.GetName())
            item.setData(QtCore.Qt.UserRole, segment_id)
            item.setData(QtCore.Qt.DecorationRole, _swatch(segment.GetColor()))
            self._table.addItem(item)
            item.setSelected(segment_id in chosen)
        self._table.blockSignals(False)
        if set(self.selectedSegmentIDs()) != chosen:
            self.selectionChanged.emit(None, None)

    def selectedSegmentIDs(self) -> list[str]:
        items = [self._table.item(row) for row in range(self._table.count)]
        return [item.data(QtCore.Qt.UserRole) for item in items if item.isSelected()]

    def setSelectedSegmentIDs(self, segment_ids: list[str]) -> None:
        for row in range(self._table.count):
            item = self._table.item(row)
            item.setSelected(item.data(QtCore.Qt.UserRole) in segment_ids)

    def clearSelection(self) -> None:
        self._table.clearSelection()

    def setSelectionMode(self, mode: Any) -> None:
        self._table.setSelectionMode(mode)

    headerVisible = _stored(bool, "_header", True)
    visibilityColumnVisible = _stored(bool, "_visibility", True)
    colorColumnVisible = _stored(bool, "_color", True)
    opacityColumnVisible = _stored(bool, "_opacity", True)
    statusColumnVisible = _stored(bool, "_status", False)
    filterBarVisible = _stored(bool, "_filter", False)
    readOnly = _stored(bool, "_read_only", False)


def _swatch(color_rgb: tuple[float, float, float]) -> Any:
    return QtGui.QColor.fromRgbF(*color_rgb)


WIDGETS = (qMRMLWidget, qMRMLNodeComboBox, qMRMLSegmentSelectorWidget, qMRMLSegmentsTableView)


def install() -> None:
    """Make the widgets known as ``slicer.qMRML...``, where Slicer has them."""
    for widget in WIDGETS:
        setattr(slicer, widget.__name__, widget)
