"""The host's MRML widgets follow a real scene."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


@pytest.fixture
def scene(host: Any) -> Any:
    return host.scene


@pytest.fixture
def selector(scene: Any) -> Any:
    import slicer

    selector = slicer.qMRMLNodeComboBox()
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.noneEnabled = True
    selector.setMRMLScene(scene)
    return selector


def _a_volume(name: str) -> Any:
    import slicer

    return slicer.util.addVolumeFromArray(np.zeros((2, 3, 4), np.int16), name=name)


@pytest.fixture
def a_segmentation(scene: Any) -> Any:
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Drawing")
    node.CreateDefaultDisplayNodes()
    for name in ("liver", "spleen"):
        node.GetSegmentation().AddEmptySegment(name, name)
    return node


def test_a_selector_offers_the_nodes_of_its_types(scene: Any, selector: Any) -> None:
    ct = _a_volume("CT")
    scene.AddNewNodeByClass("vtkMRMLTextNode", "note")
    hidden = _a_volume("hidden")
    hidden.HideFromEditorsOn()
    selector.setMRMLScene(scene)
    assert selector.nodeCount() == 1 and selector.nodeFromIndex(0) is ct


def test_a_derived_class_is_offered_unless_it_is_excluded(scene: Any, selector: Any) -> None:
    scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "labels")
    assert selector.nodeCount() == 1
    selector.showChildNodeTypes = False
    assert selector.nodeCount() == 0


def test_a_selector_with_none_waits_for_the_user_and_one_without_takes_the_first(scene: Any, selector: Any) -> None:
    ct = _a_volume("CT")
    assert selector.currentNode() is None
    selector.noneEnabled = False
    assert selector.currentNode() is ct


def test_a_change_is_told_by_attribute_and_by_signature(selector: Any) -> None:
    ct = _a_volume("CT")
    by_attribute: list[Any] = []
    by_signature: list[Any] = []
    selector.currentNodeChanged.connect(by_attribute.append)
    selector.connect("currentNodeChanged(vtkMRMLNode*)", by_signature.append)
    selector.setCurrentNode(ct)
    selector.setCurrentNode(ct)
    selector.setCurrentNode(None)
    assert by_attribute == by_signature == [ct, None]


def test_a_removed_node_leaves_the_selector(scene: Any, selector: Any) -> None:
    ct = _a_volume("CT")
    selector.setCurrentNode(ct)
    scene.RemoveNode(ct)
    assert selector.currentNode() is None and selector.nodeCount() == 0


def test_a_renamed_node_is_shown_under_its_new_name(selector: Any) -> None:
    import qt

    ct = _a_volume("CT")
    selector.setCurrentNode(ct)
    ct.SetName("Tête café")
    assert selector.findChild(qt.QComboBox).currentText == "Tête café"


def test_closing_the_scene_empties_the_selector(scene: Any, selector: Any) -> None:
    selector.setCurrentNode(_a_volume("CT"))
    scene.Clear(False)
    assert selector.currentNode() is None and selector.nodeCount() == 0


def test_a_new_node_is_made_named_and_selected(selector: Any) -> None:
    selector.baseName = "Result"
    node = selector.addNode()
    assert selector.currentNode() is node and node.GetName() == "Result"


def test_an_attribute_filters_and_marks_new_nodes(scene: Any, selector: Any) -> None:
    _a_volume("other")
    selector.addAttribute("vtkMRMLScalarVolumeNode", "Kind", "mine")
    assert selector.nodeCount() == 0
    assert selector.addNode().GetAttribute("Kind") == "mine"


def test_a_deleted_selector_leaves_the_scene_alone(host: Any, scene: Any) -> None:
    import qt
    import slicer

    panel = qt.QWidget()
    selector = slicer.qMRMLNodeComboBox(panel)
    selector.nodeTypes = ["vtkMRMLScalarVolumeNode"]
    selector.setMRMLScene(scene)
    panel.deleteLater()
    qt.QApplication.sendPostedEvents(None, qt.QEvent.DeferredDelete)
    _a_volume("CT")
    assert host.errors == []


def test_a_segment_selector_follows_the_segments(scene: Any, a_segmentation: Any) -> None:
    import slicer

    selector = slicer.qMRMLSegmentSelectorWidget()
    selector.setMRMLScene(scene)
    heard: list[str] = []
    selector.currentSegmentChanged.connect(heard.append)
    selector.setCurrentNode(a_segmentation)
    selector.setCurrentSegmentID("spleen")
    assert selector.currentSegmentID() == "spleen"
    a_segmentation.GetSegmentation().RemoveSegment("spleen")
    assert selector.currentSegmentID() == "liver" and heard[-1] == "liver"


def test_a_segments_table_selects_several_and_follows_the_segmentation(scene: Any, a_segmentation: Any) -> None:
    import slicer

    table = slicer.qMRMLSegmentsTableView()
    table.setMRMLScene(scene)
    table.setSegmentationNode(a_segmentation)
    heard: list[Any] = []
    table.selectionChanged.connect(lambda *_: heard.append(table.selectedSegmentIDs()))
    table.setSelectedSegmentIDs(["liver", "spleen"])
    assert table.selectedSegmentIDs() == ["liver", "spleen"]
    a_segmentation.GetSegmentation().RemoveSegment("liver")
    assert table.selectedSegmentIDs() == ["spleen"] and heard[-1] == ["spleen"]
    scene.RemoveNode(a_segmentation)
    assert table.segmentationNode() is None and table.selectedSegmentIDs() == []
