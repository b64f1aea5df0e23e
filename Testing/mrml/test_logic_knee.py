"""A knee in the scene: nodes in, a folder of nodes out, whole or not at all."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.append(str(Path(__file__).resolve().parents[1] / "unit" / "knee"))

from knee_cases import NO_REPORT, a_label_map, a_request, some_echoes

from host.scene_io import load_scene, save_scene
from KneeAnalysisLib import charts, logic
from KneeAnalysisLib.labels import Tissue
from KneeAnalysisLib.logic import (
    KneeNodes,
    chosen_segments,
    example_knee,
    image_of,
    label_map_of,
    result_name,
    segments_of,
    show_region,
    write_knee,
)
from KneeAnalysisLib.table import rows
from KneeAnalysisLib.task import KneeTask
from MedAILib.errors import InputError
from MedAILib.jobs.execute import Outcome
from MedAILib.jobs.runner import InProcessRunner
from MedAILib.mrml.label_maps import segmentation_from_label_map
from MedAILib.mrml.nodes import run_id
from MedAILib.mrml.segmentations import get_tag, segment_ids, segment_mask
from MedAILib.mrml.tables import read_table
from MedAILib.mrml.volumes import write_volume
from MedAILib.volume import Volume


@pytest.fixture(scope="module")
def outcome() -> Outcome:
    """A small knee with T2, analysed once."""
    label_map = a_label_map()
    return InProcessRunner().run(
        KneeTask, a_request(label_map=label_map, echoes=some_echoes(label_map), name="Knie_ü", finer=True)
    )


@pytest.fixture
def nodes(scene: Any, outcome: Outcome) -> KneeNodes:
    return write_knee(scene, outcome)


# In


def test_a_segmentation_becomes_a_label_map_with_its_names(scene: Any) -> None:
    label_map = a_label_map()
    node = segmentation_from_label_map(scene, label_map)
    again = label_map_of(node)
    assert {info.name for info in again.segments} == {info.name for info in label_map.segments}
    assert again.geometry.same_grid_as(label_map.geometry)
    for info in label_map.segments:
        np.testing.assert_array_equal(again.mask(info.id), label_map.mask(info.id))
    assert ("femur", "Femur") in segments_of(node) and segments_of(None) == []


def test_a_label_map_volume_is_read_by_its_values(scene: Any) -> None:
    label_map = a_label_map()
    volume = write_volume(scene, Volume(label_map.layers[0], label_map.ijk_to_ras, "labels"), label_map=True)
    again = label_map_of(volume)
    np.testing.assert_array_equal(again.layers[0], label_map.layers[0])
    assert ("1", "1") in segments_of(volume)


def test_other_nodes_are_refused(scene: Any) -> None:
    volume = write_volume(scene, Volume(np.zeros((2, 2, 2)), np.eye(4), "MR"))
    for node in (None, volume):
        with pytest.raises(InputError, match="segmentation"):
            label_map_of(node)
    with pytest.raises(InputError, match="volume"):
        image_of(None)
    assert image_of(volume).name == "MR" and result_name(None, volume) == "MR" and result_name() == "knee"
    assert segments_of(volume) == []


# Out


def test_everything_lies_in_one_folder_and_knows_its_run(scene: Any, nodes: KneeNodes, outcome: Outcome) -> None:
    hierarchy = scene.GetFirstNodeByClass("vtkMRMLSubjectHierarchyNode")
    assert hierarchy.GetItemName(nodes.folder) == "Knie_ü knee"
    for node in nodes.all:
        assert run_id(node) == outcome.report.run_id and node.GetAttribute(logic.SIDE_ATTRIBUTE) == "right"
        item = hierarchy.GetItemByDataNode(node)
        assert not item or hierarchy.GetItemParent(item) == nodes.folder
    assert hierarchy.GetItemParent(hierarchy.GetItemByDataNode(nodes.models["femur"])) == nodes.folder


def test_tissues_and_sub_regions_have_names_colours_and_codes(nodes: KneeNodes, outcome: Outcome) -> None:
    tissues = nodes.segmentation.GetSegmentation()
    assert tissues.GetSegment("femur").GetColor() == pytest.approx(Tissue.FEMUR.color_rgb, abs=1e-6)
    assert "71341001" in get_tag(nodes.segmentation, "femur", "TerminologyEntry")
    assert {"ant_fem_cart", "med_wb_fem_cart", "patellar_cartilage"} <= set(segment_ids(nodes.regions))
    assert "femur" not in segment_ids(nodes.regions)
    result = outcome.result
    np.testing.assert_array_equal(
        segment_mask(nodes.regions, "ant_fem_cart", result.regions.geometry), result.regions.mask("ant_fem_cart")
    )


def test_models_carry_the_thickness_map_with_its_colours_and_legend(nodes: KneeNodes, outcome: Outcome) -> None:
    import slicer
    from vtk.util.numpy_support import vtk_to_numpy

    femur, bone = nodes.models["femur"], outcome.result.bones[0]
    array = femur.GetPolyData().GetPointData().GetArray("thickness (mm)")
    np.testing.assert_array_equal(vtk_to_numpy(array), bone.thickness_mm)
    display = femur.GetDisplayNode()
    assert display.GetActiveScalarName() == "thickness (mm)" and display.GetScalarVisibility()
    assert display.GetScalarRange() == (0.0, 4.0)
    legend = slicer.modules.colors.logic().GetColorLegendDisplayNode(display)
    assert legend is not None and legend.GetTitleText() == "Thickness (mm)"
    assert nodes.models["tibia"].GetDisplayNode().GetColorNode() is display.GetColorNode()
    bare, thick = [0.0] * 3, [0.0] * 3
    colors = display.GetColorNode().GetColorTransferFunction()
    colors.GetColor(0.0, bare), colors.GetColor(4.0, thick)
    assert bare == pytest.approx([0.87, 0.84, 0.78], abs=0.01) and thick == pytest.approx([0.99, 0.91, 0.15], abs=0.01)
    assert not nodes.models["femoral_cartilage"].GetDisplayNode().GetVisibility()


def test_the_table_has_every_region_with_thickness_and_t2(nodes: KneeNodes, outcome: Outcome) -> None:
    columns, lines = read_table(nodes.table)
    found = rows(outcome.result)
    assert [line[1] for line in lines] == [row.region for row in found]
    names = [column.name for column in columns]
    assert "Thickness mean" in names and "T2 mean" in names
    assert next(column.unit for column in columns if column.name == "Area") == "mm2"
    assert lines[0][names.index("Thickness mean")] == pytest.approx(found[0].mean_mm)


def test_charts_are_bars_of_the_table_and_a_histogram_by_area(nodes: KneeNodes, outcome: Outcome) -> None:
    titles = [chart.GetTitle() for chart in nodes.charts]
    assert len(titles) == 3 and "Thickness mean (mm)" in titles[0] and "T2 mean (ms)" in titles[1]
    bars = nodes.charts[0].GetNthPlotSeriesNode(0)
    assert bars.GetTableNode() is nodes.table and bars.GetYColumnName() == "Thickness mean"
    assert bars.GetLabelColumnName() == "Region" and bars.GetPlotTypeAsString(bars.GetPlotType()) == "Bar"
    histogram = nodes.charts[2].GetNthPlotSeriesNode(0).GetTableNode()
    columns, lines = read_table(histogram)
    bone = outcome.result.bones[0]
    area = bone.mesh.point_areas_mm2[(bone.labels > 0) & (bone.thickness_mm <= 6.0)].sum()
    assert sum(line[1] for line in lines) == pytest.approx(area) and columns[1].name == "Femur"


def test_the_t2_volume_shows_its_range(nodes: KneeNodes) -> None:
    display = nodes.t2.GetDisplayNode()
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (10.0, 80.0) and display.GetApplyThreshold()


def test_the_image_becomes_the_source_volume_of_the_segmentations(scene: Any, outcome: Outcome) -> None:
    grid = a_label_map().geometry
    volume = write_volume(scene, Volume(np.zeros(grid.shape_kji), grid.ijk_to_ras, "MR"))
    nodes = write_knee(scene, outcome, volume)
    role = nodes.regions.GetReferenceImageGeometryReferenceRole()
    assert nodes.regions.GetNodeReference(role) is volume and nodes.segmentation.GetNodeReference(role) is volume


def test_two_knees_have_folders_and_names_of_their_own(scene: Any, outcome: Outcome) -> None:
    first, second = write_knee(scene, outcome), write_knee(scene, outcome)
    assert first.folder != second.folder and first.name != second.name
    assert first.models["femur"].GetName() != second.models["femur"].GetName()
    assert scene.GetNumberOfNodesByClass("vtkMRMLProceduralColorNode") == 1 + _own_color_nodes(scene)


def _own_color_nodes(scene: Any) -> int:
    """Procedural colour nodes that Slicer itself has."""
    nodes = [scene.GetNthNodeByClass(i, "vtkMRMLProceduralColorNode")
             for i in range(scene.GetNumberOfNodesByClass("vtkMRMLProceduralColorNode"))]  # fmt: skip
    return sum(node.GetSingletonTag() != logic.COLOR_NODE for node in nodes)


def test_a_failure_midway_leaves_the_scene_as_it_was(
    scene: Any, outcome: Outcome, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_knee(scene, outcome)  # the colours are there from now on
    before = {scene.GetNthNode(i).GetID() for i in range(scene.GetNumberOfNodes())}

    def broken(*_arguments: Any) -> None:
        raise InputError("No chart today.")

    monkeypatch.setattr(charts, "_histogram", broken)
    with pytest.raises(InputError, match="No chart"):
        write_knee(scene, outcome)
    left = {scene.GetNthNode(i) for i in range(scene.GetNumberOfNodes())}
    assert {node.GetID() for node in left} == before, [node.GetName() for node in left if node.GetID() not in before]


def test_without_sub_regions_and_t2_the_rest_is_there(scene: Any) -> None:
    steps = tuple(step for step in NO_REPORT if step.value != "subregions")
    nodes = write_knee(scene, InProcessRunner().run(KneeTask, a_request(steps=steps)))
    assert nodes.regions is None and nodes.t2 is None and len(nodes.charts) == 2
    assert nodes.segmentation.GetDisplayNode().GetVisibility()
    show_region(nodes, "pat_cart")
    assert chosen_segments(nodes) == ["patellar_cartilage"]


# Regions


def test_a_region_is_shown_in_its_own_voxels_and_alone(scene: Any, nodes: KneeNodes, outcome: Outcome) -> None:
    view = scene.AddNewNodeByClass("vtkMRMLSliceNode")
    view.SetLayoutName("Red")
    view.SetOrientation("Axial")
    regions = outcome.result.regions
    for key, segments in (
        ("ant_fem_cart", ["ant_fem_cart"]),
        ("lat_tib_cart", ["lateral_tibial_cartilage"]),
        ("fem_cart", ["ant_fem_cart", "med_wb_fem_cart", "lat_wb_fem_cart", "med_post_fem_cart", "lat_post_fem_cart"]),
    ):
        place = show_region(nodes, key)
        index = np.rint(np.linalg.solve(regions.ijk_to_ras, [*place, 1.0])[:3]).astype(int)
        value = int(regions.layers[0][tuple(index[::-1])])
        assert value in logic._members(key)
        assert view.GetSliceOffset() == pytest.approx(place[2], abs=0.01)
        assert set(chosen_segments(nodes)) == set(segments) & set(segment_ids(nodes.regions))


def test_a_region_that_is_not_there_is_said(scene: Any, nodes: KneeNodes) -> None:
    with pytest.raises(InputError, match="no region 'toe'"):
        show_region(nodes, "toe")
    scene.RemoveNode(nodes.regions)
    with pytest.raises(InputError, match="left the scene"):
        show_region(nodes, "pat_cart")


def test_the_result_survives_saving_and_loading_the_scene(scene: Any, nodes: KneeNodes, tmp_path: Path) -> None:
    name, expected = nodes.models["femur"].GetName(), run_id(nodes.table)
    count = nodes.models["femur"].GetPolyData().GetNumberOfPoints()
    path = tmp_path / "szene.mrb"
    save_scene(scene, path)
    load_scene(scene, path)
    femur = scene.GetFirstNodeByName(name)
    assert femur.GetPolyData().GetNumberOfPoints() == count
    assert femur.GetPolyData().GetPointData().GetArray("thickness (mm)") is not None
    assert run_id(femur) == expected


def test_the_example_knee_is_a_right_knee_of_known_thickness(scene: Any) -> None:
    label_map = label_map_of(example_knee(scene))
    outcome = InProcessRunner().run(KneeTask, a_request(label_map=label_map))
    found = {row.key: row.mean_mm for row in outcome.result.statistics.thickness}
    assert found["med_tib_cart"] == pytest.approx(3.0, abs=0.2) and outcome.result.side == "right"
    assert replace(outcome.result, out=None).missing_regions
