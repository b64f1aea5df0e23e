"""The scene host: what it promises to tests that use it."""

from __future__ import annotations

import numpy as np
import pytest
import slicer

from host.scene import MODULE_LOGICS, clear_scene, start_scene


def test_starting_twice_gives_the_same_scene(scene):
    assert start_scene() is scene is slicer.mrmlScene is slicer.app.mrmlScene()


@pytest.mark.parametrize("name", MODULE_LOGICS)
def test_every_module_logic_is_there_and_knows_the_scene(scene, name):
    logic = getattr(slicer.modules, name.lower()).logic()
    assert logic.GetMRMLScene() is scene
    assert slicer.app.applicationLogic().GetModuleLogic(name) is logic


def test_data_nodes_have_a_place_in_the_subject_hierarchy_while_they_live(scene):
    hierarchy = slicer.vtkMRMLSubjectHierarchyNode.GetSubjectHierarchyNode(scene)
    node = slicer.util.addVolumeFromArray(np.zeros((2, 3, 4)))
    item = hierarchy.GetItemByDataNode(node)
    assert hierarchy.GetItemName(item) == node.GetName()
    scene.RemoveNode(node)
    assert hierarchy.GetItemByName("Volume") == 0


def test_the_load_and_save_functions_of_slicer_util_work(scene, tmp_path):
    volume = slicer.util.addVolumeFromArray(np.arange(24.0).reshape(2, 3, 4), name="V")
    assert slicer.util.saveNode(volume, str(tmp_path / "v ü.nrrd"))
    loaded = slicer.util.loadVolume(str(tmp_path / "v ü.nrrd"))
    np.testing.assert_array_equal(slicer.util.arrayFromVolume(loaded), slicer.util.arrayFromVolume(volume))
    with pytest.raises(RuntimeError, match="Failed to load"):
        slicer.util.loadVolume(str(tmp_path / "absent.nrrd"))


def test_a_cleared_scene_has_no_data_left(scene):
    slicer.util.addVolumeFromArray(np.zeros((2, 3, 4)))
    clear_scene()
    assert all(node.IsA("vtkMRMLColorNode") for node in slicer.util.getNodesByClass("vtkMRMLStorableNode"))
