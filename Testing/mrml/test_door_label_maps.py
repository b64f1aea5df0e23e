"""Whole segmentations <-> LabelMap."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from slanted import oblique_matrix

from MedAILib.errors import InputError
from MedAILib.mrml.label_maps import label_map_from_segmentation, segmentation_from_label_map
from MedAILib.mrml.segmentations import add_segment, reference_geometry, segment_mask
from MedAILib.volume import Geometry, LabelMap, SegmentInfo

SHAPE = (6, 5, 4)
MATRIX = oblique_matrix((0.7, 1.5, 2.0), (0.3, -0.5), (12.5, -40.0, 7.25), left_handed=True)


def a_label_map(seed: int = 0, labels: tuple[int, ...] = (1, 2, 3, 1, 7), layer_count: int = 2) -> LabelMap:
    """Random segments in layers; the fourth and fifth overlap the first three."""
    random = np.random.default_rng(seed)
    homes = [0, 0, 0, 1, 1][: len(labels)]
    infos = tuple(
        SegmentInfo(f"s{n}", f"Segment {n} ü", label, home, (0.25 * n, 0.5, 1.0), {"T": f"tag {n}", "Other": "x:y"})
        for n, (label, home) in enumerate(zip(labels, homes, strict=True))
    )
    layers = []
    for layer in range(layer_count):
        values = [0] + [info.label_value for info in infos if info.layer == layer]
        layers.append(random.choice(values, SHAPE).astype(np.uint16))
    return LabelMap(tuple(layers), MATRIX, infos, "Organs")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 9999))
def test_segments_overlaps_names_colours_and_tags_make_the_round_trip(scene, seed):
    label_map = a_label_map(seed)
    node = segmentation_from_label_map(scene, label_map)
    back = label_map_from_segmentation(node, label_map.geometry)
    assert back.name == node.GetName() == "Organs"
    assert [info.id for info in back.segments] == [info.id for info in label_map.segments]
    for info, found in zip(label_map.segments, back.segments, strict=True):
        assert (found.name, found.color_rgb) == (info.name, info.color_rgb)
        assert {tag: found.tags[tag] for tag in info.tags} == info.tags
        np.testing.assert_array_equal(back.mask(info.id), label_map.mask(info.id))
    assert len(back.layers) == len(label_map.layers)
    scene.RemoveNode(node)


def test_the_grid_becomes_the_reference_geometry_and_the_node_can_be_shown(scene):
    node = segmentation_from_label_map(scene, a_label_map(), name="Other name")
    assert node.GetName() == "Other name"
    assert reference_geometry(node).same_grid_as(a_label_map().geometry)
    assert node.GetDisplayNode() is not None


@pytest.mark.parametrize("label", [200, 255, 256, 40000, 70000])
def test_large_label_values_are_kept(scene, label):
    array = np.zeros(SHAPE, np.uint32)
    array[1, 2, 3] = label
    node = segmentation_from_label_map(scene, LabelMap((array,), MATRIX, (SegmentInfo("a", "A", label),)))
    back = label_map_from_segmentation(node, Geometry(SHAPE, MATRIX))
    np.testing.assert_array_equal(back.layers[0], array)


def test_labels_that_no_segment_has_do_not_enter_the_scene(scene):
    array = np.full(SHAPE, 9, np.uint8)
    array[0] = 4
    node = segmentation_from_label_map(scene, LabelMap((array,), MATRIX, (SegmentInfo("a", "A", 4),)))
    back = label_map_from_segmentation(node, Geometry(SHAPE, MATRIX))
    np.testing.assert_array_equal(back.layers[0], np.where(array == 4, 4, 0))


def test_chosen_segments_come_alone_and_in_the_order_asked(scene):
    label_map = a_label_map(3)
    node = segmentation_from_label_map(scene, label_map)
    back = label_map_from_segmentation(node, label_map.geometry, ["s2", "s0"])
    assert [info.id for info in back.segments] == ["s2", "s0"]
    for segment_id in ("s2", "s0"):
        np.testing.assert_array_equal(back.mask(segment_id), label_map.mask(segment_id))
    assert set(np.unique(back.layers[0])) == {0, 1, 3}
    assert len(back.layers) == 1


def test_empty_segments_and_no_segments_at_all_are_label_maps_too(scene):
    node = scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "S")
    geometry = Geometry(SHAPE, MATRIX)
    assert label_map_from_segmentation(node, geometry).segments == ()
    add_segment(node, "A", segment_id="a")
    back = label_map_from_segmentation(node, geometry)
    assert not back.mask("a").any()
    empty = LabelMap((np.zeros(SHAPE, np.uint8),), MATRIX, (SegmentInfo("a", "A", 1), SegmentInfo("b", "B", 2)))
    node = segmentation_from_label_map(scene, empty)
    assert not segment_mask(node, "b", geometry).any()


def test_another_grid_gets_the_nearest_voxels_of_every_layer(scene):
    label_map = a_label_map(5)
    node = segmentation_from_label_map(scene, label_map)
    fine = Geometry((9, 9, 9), oblique_matrix((0.5, 0.6, 0.7), (0.1, 0.2), tuple(node.GetSegmentCenterRAS("s0"))))
    back = label_map_from_segmentation(node, fine)
    for info in label_map.segments:
        np.testing.assert_array_equal(back.mask(info.id), segment_mask(node, info.id, fine))


@pytest.mark.parametrize(
    "infos",
    [
        (SegmentInfo("a", "A", 1), SegmentInfo("a", "B", 2)),
        (SegmentInfo("a", "A", 1), SegmentInfo("b", "B", 1)),
        (SegmentInfo("a", "A", 1, layer=3),),
        (SegmentInfo("a", "A", 0),),
        (SegmentInfo("a", "A", 1, tags={"T": "x|y"}),),
    ],
    ids=["same id", "same label", "no such layer", "background", "tag that would be lost"],
)
def test_a_label_map_that_cannot_be_a_segmentation_leaves_the_scene_as_it_was(scene, infos):
    segmentation_from_label_map(scene, a_label_map())
    count = scene.GetNumberOfNodes()
    with pytest.raises(InputError):
        segmentation_from_label_map(scene, LabelMap((np.ones(SHAPE, np.uint8),), MATRIX, infos))
    assert scene.GetNumberOfNodes() == count
