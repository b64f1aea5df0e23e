"""What the door puts into the scene is there the next day: .seg.nrrd, .mrml, .mrb."""

from __future__ import annotations

import numpy as np
import pytest

from host.scene_io import load_scene, read_node, save_scene, write_node
from MedAILib.mrml.lattice import lattice_map
from MedAILib.mrml.nodes import run_id, set_run_id
from MedAILib.mrml.segment_edit import write_segment_block
from MedAILib.mrml.segmentations import (
    TERMINOLOGY_TAG,
    get_tag_json,
    reference_geometry,
    segment_ids,
    segment_info,
    segment_mask,
    set_tag,
    set_tag_json,
)
from MedAILib.mrml.tables import Column, read_table, read_text, write_table, write_text
from MedAILib.mrml.volumes import read_volume, write_volume
from MedAILib.volume import Volume

KIDNEY = (
    "Segmentation category and type - 3D Slicer General Anatomy list~SCT^123037004^Anatomical Structure"
    "~SCT^64033007^Kidney~SCT^7771000^Left~Anatomic codes - DICOM master list~^^~^^"
)
STATE = {"references": [1, 5], "confidence": [0.25, None], "note": 'a|b:c\n"ü" \\ ~^', "long": list(range(5000))}


@pytest.fixture
def masks(an_oblique_grid) -> dict[str, np.ndarray]:
    """Two segments sharing a layer, and one that overlaps both."""
    owner = np.random.default_rng(1).integers(0, 3, an_oblique_grid.shape_kji)
    middle = np.zeros(an_oblique_grid.shape_kji, bool)
    middle[4:8, 3:7, 2:6] = True
    return {"a": owner == 1, "b": owner == 2, "c": middle}


@pytest.fixture
def a_tagged_segmentation(a_segmentation, an_oblique_grid, masks):
    node = a_segmentation(an_oblique_grid, masks, {"a": 0, "b": 0, "c": 1})
    set_tag(node, "a", TERMINOLOGY_TAG, KIDNEY)
    set_tag_json(node, "a", "MedAI.Propagation", STATE)
    write_segment_block(node, "a", np.zeros((1, 10, 8), bool), (0, 0, 0), an_oblique_grid)
    masks["a"][0] = False
    return node


def assert_all_there(node, geometry, masks) -> None:
    assert segment_ids(node) == ("a", "b", "c")
    for name, mask in masks.items():
        np.testing.assert_array_equal(segment_mask(node, name, geometry, resample=False), mask, err_msg=name)
    info = segment_info(node, "a")
    assert (info.name, info.tags[TERMINOLOGY_TAG]) == ("A", KIDNEY)
    assert info.color_rgb == pytest.approx((0.1, 0.5, 0.25))
    assert get_tag_json(node, "a", "MedAI.Propagation") == STATE
    assert get_tag_json(node, "b", "MedAI.Propagation") is None
    assert reference_geometry(node).same_grid_as(geometry)


def test_a_seg_nrrd_file_keeps_voxels_tags_terminology_and_geometry(
    scene, tmp_path, a_tagged_segmentation, an_oblique_grid, masks
):
    path = tmp_path / "two words ü.seg.nrrd"
    assert write_node(a_tagged_segmentation, path)
    loaded = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Loaded")
    assert read_node(loaded, path)
    assert_all_there(loaded, an_oblique_grid, masks)


def test_a_loaded_segmentation_can_be_drawn_on_further(scene, tmp_path, a_tagged_segmentation, an_oblique_grid, masks):
    assert write_node(a_tagged_segmentation, tmp_path / "s.seg.nrrd")
    loaded = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "Loaded")
    assert read_node(loaded, tmp_path / "s.seg.nrrd")
    block = np.random.default_rng(3).random((1, 10, 8)) < 0.5
    write_segment_block(loaded, "c", block, (2, 0, 0), an_oblique_grid, allow_overlap=True)
    masks["c"][2] = block[0]
    assert_all_there(loaded, an_oblique_grid, masks)


@pytest.mark.parametrize("ending", ["mrml", "mrb"])
def test_a_scene_keeps_everything(scene, tmp_path, a_tagged_segmentation, an_oblique_grid, masks, ending):
    voxels = np.random.default_rng(2).normal(size=an_oblique_grid.shape_kji).astype(np.float32)
    volume = write_volume(scene, Volume(voxels, an_oblique_grid.ijk_to_ras, "MR ü"))
    set_run_id(volume, "run-1")
    write_table(scene, (Column("x", float, "mm"),), [(0.5,)], name="Table")
    write_text(scene, "Bericht ü", name="Text")
    folder = tmp_path / "two words ü"
    folder.mkdir()
    path = folder / f"scene.{ending}"
    assert save_scene(scene, path)
    assert load_scene(scene, path)
    assert_all_there(scene.GetFirstNodeByClass("vtkMRMLSegmentationNode"), an_oblique_grid, masks)
    loaded = scene.GetFirstNodeByName("MR ü")
    back = read_volume(loaded)
    # Slicer reads a left-handed volume with its slices in reverse; each voxel stays at its place in the world.
    index = lattice_map(back.ijk_to_ras, an_oblique_grid.ijk_to_ras, an_oblique_grid.shape_kji)
    start, array = index.to_target((0, 0, 0), back.array)
    assert start == (0, 0, 0)
    np.testing.assert_array_equal(array, voxels)
    assert run_id(loaded) == "run-1"
    assert read_table(scene.GetFirstNodeByName("Table")) == ((Column("x", float, "mm"),), ((0.5,),))
    assert read_text(scene.GetFirstNodeByName("Text")) == "Bericht ü"


def test_a_left_handed_volume_that_slicer_turned_on_loading_still_fits_its_segmentation(
    scene, tmp_path, a_tagged_segmentation, an_oblique_grid, masks
):
    voxels = np.random.default_rng(2).normal(size=an_oblique_grid.shape_kji)
    volume = write_volume(scene, Volume(voxels, an_oblique_grid.ijk_to_ras))
    assert write_node(volume, tmp_path / "v.nrrd")
    assert write_node(a_tagged_segmentation, tmp_path / "s.seg.nrrd")
    loaded = scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "V")
    segmentation = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    assert read_node(loaded, tmp_path / "v.nrrd")
    assert read_node(segmentation, tmp_path / "s.seg.nrrd")
    back = read_volume(loaded)
    for name, mask in masks.items():
        found = segment_mask(segmentation, name, back.geometry, resample=False)
        assert sorted(back.array[found]) == sorted(voxels[mask])
    block = np.ones((1, 3, 3), bool)
    write_segment_block(segmentation, "b", block, (4, 5, 2), back.geometry, allow_overlap=True)
    assert segment_mask(segmentation, "b", back.geometry, resample=False)[4, 5:8, 2:5].all()
