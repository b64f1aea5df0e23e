"""The numbers of a knee as a table node and as charts of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import slicer

from KneeAnalysisLib.labels import Tissue
from KneeAnalysisLib.pictures import THICKEST_MM
from KneeAnalysisLib.table import HEADINGS, Row, unit_of
from KneeAnalysisLib.thickness import BoneThickness
from MedAILib.mrml.nodes import new_node
from MedAILib.mrml.tables import Column, write_table

_HISTOGRAM_BINS = 30
_BAR_COLUMNS = ("mean_mm", "t2_mean_ms")


@dataclass(eq=False)
class Charts:
    """Charts and what they are made of.

    Attributes
    ----------
    name : str
    charts : list of vtkMRMLPlotChartNode
    all : list
        These, their series and tables.
    """

    name: str
    charts: list[Any] = field(default_factory=list)
    all: list[Any] = field(default_factory=list)

    def kept(self, node: Any) -> Any:
        """The node, which is remembered."""
        self.all.append(node)
        return node


def write_rows(scene: Any, found: tuple[Row, ...], name: str) -> Any:
    names = [one for one in HEADINGS if not _is_empty(found, one)]
    columns = [
        Column(HEADINGS[one], {"key": str, "region": str, "value": int}.get(one, float), unit_of(one)) for one in names
    ]
    return write_table(scene, columns, [[getattr(row, one) for one in names] for row in found], name=name)


def _is_empty(found: tuple[Row, ...], name: str) -> bool:
    values = [getattr(row, name) for row in found]
    return all(isinstance(value, float) and np.isnan(value) for value in values)


def write_charts(scene: Any, name: str, table: Any, found: tuple[Row, ...], bones: tuple[BoneThickness, ...]) -> Charts:
    """A bar per region for thickness, and for T2 where there is one, and a histogram of thickness by area.

    Parameters
    ----------
    scene : vtkMRMLScene
    name : str
        Start of the charts' names.
    table : vtkMRMLTableNode
        Of `write_rows`.
    found : tuple of Row
    bones : tuple of BoneThickness
    """
    charts = Charts(name)
    try:
        _draw(scene, charts, table, found, bones)
    except BaseException:
        for node in reversed(charts.all):
            scene.RemoveNode(node)
        raise
    return charts


def _draw(scene: Any, charts: Charts, table: Any, found: tuple[Row, ...], bones: tuple[BoneThickness, ...]) -> None:
    for column in _BAR_COLUMNS:
        if not _is_empty(found, column):
            _bar_chart(scene, charts, table, column)
    if bones:
        _histogram(scene, charts, bones)


def _bar_chart(scene: Any, charts: Charts, table: Any, column: str) -> None:
    title = f"{HEADINGS[column]} ({unit_of(column)})"
    series = _series(scene, charts, f"{charts.name} {HEADINGS[column].lower()}", table, HEADINGS[column])
    series.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeBar)
    series.SetLabelColumnName(HEADINGS["region"])
    _chart(scene, charts, f"{charts.name}: {title}", [series], "Region", title)


def _histogram(scene: Any, charts: Charts, bones: tuple[BoneThickness, ...]) -> None:
    edges = np.linspace(0.0, 1.5 * THICKEST_MM, _HISTOGRAM_BINS + 1)
    middles = (edges[:-1] + edges[1:]) / 2
    columns, counts = [Column("Thickness", float, "mm")], []
    for bone in bones:
        columns.append(Column(bone.bone.title, float, "mm2"))
        chosen = bone.labels > 0
        areas = bone.mesh.point_areas_mm2[chosen]
        counts.append(np.histogram(bone.thickness_mm[chosen], edges, weights=areas)[0])
    lines = [[float(middle), *(float(count[index]) for count in counts)] for index, middle in enumerate(middles)]
    table = charts.kept(write_table(scene, columns, lines, name=f"{charts.name} histogram"))
    series = [
        _series(scene, charts, f"{charts.name} {column.name}", table, column.name, "Thickness")
        for column in columns[1:]
    ]
    for one, bone in zip(series, bones, strict=True):
        one.SetPlotType(slicer.vtkMRMLPlotSeriesNode.PlotTypeScatter)
        one.SetMarkerStyle(slicer.vtkMRMLPlotSeriesNode.MarkerStyleNone)
        one.SetColor(*_LINE_COLORS[bone.bone])
    _chart(scene, charts, f"{charts.name}: thickness histogram", series, "Thickness (mm)", "Area (mm2)")


_LINE_COLORS = {Tissue.FEMUR: (0.17, 0.48, 0.73), Tissue.TIBIA: (0.18, 0.60, 0.35), Tissue.PATELLA: (0.85, 0.45, 0.1)}


def _series(scene: Any, charts: Charts, name: str, table: Any, y: str, x: str = "") -> Any:
    with new_node(scene, "vtkMRMLPlotSeriesNode", name) as node:
        node.SetAndObserveTableNodeID(table.GetID())
        node.SetYColumnName(y)
        if x:
            node.SetXColumnName(x)
        node.SetColor(*_LINE_COLORS[Tissue.FEMUR])
    return charts.kept(node)


def _chart(scene: Any, charts: Charts, title: str, series: list[Any], x: str, y: str) -> None:
    with new_node(scene, "vtkMRMLPlotChartNode", title) as node:
        for one in series:
            node.AddAndObservePlotSeriesNodeID(one.GetID())
        node.SetTitle(title)
        node.SetXAxisTitle(x)
        node.SetYAxisTitle(y)
        node.SetLegendVisibility(len(series) > 1)
    charts.charts.append(charts.kept(node))
