"""Table and text nodes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum

import pytest

from host.scene_io import read_node, write_node
from MedAILib.errors import InputError
from MedAILib.mrml.tables import Column, read_table, read_text, write_records, write_table, write_text

COLUMNS = (Column("name"), Column("slice", int), Column("area", float, "mm2"), Column("drawn", bool))
ROWS = (("Niere, links ü", 3, 1.5, True), ("", -1, math.inf, False), ("你好", 2**31 - 1, -0.25, True))


def test_rows_come_back_with_their_types_and_units(scene):
    node = write_table(scene, COLUMNS, ROWS, name="Areas")
    assert node.GetName() == "Areas"
    assert read_table(node) == (COLUMNS, ROWS)


@pytest.mark.parametrize("ending", ["tsv", "csv"])
def test_a_saved_table_is_the_same_when_loaded(scene, tmp_path, ending):
    folder = tmp_path / "a folder ü"
    folder.mkdir()
    assert write_node(write_table(scene, COLUMNS, ROWS, name="Areas"), folder / f"areas.{ending}")
    loaded = scene.AddNewNodeByClass("vtkMRMLTableNode", "Loaded")
    assert read_node(loaded, folder / f"areas.{ending}")
    assert read_table(loaded) == (COLUMNS, ROWS)


@pytest.mark.parametrize("ending", ["tsv", "csv"])
def test_texts_that_would_break_a_table_file_are_made_harmless(scene, tmp_path, ending):
    rows = [('a\t"quoted"\nline', 1), ("next", 2)]
    node = write_table(scene, (Column("text"), Column("n", int)), rows, name="T")
    assert write_node(node, tmp_path / f"t.{ending}")
    loaded = scene.AddNewNodeByClass("vtkMRMLTableNode", "Loaded")
    assert read_node(loaded, tmp_path / f"t.{ending}")
    assert read_table(loaded)[1] == (("a 'quoted' line", 1), ("next", 2))


def test_missing_numbers_are_shown_as_nan_and_missing_texts_as_nothing(scene):
    node = write_table(scene, (Column("x", float), Column("t")), [(None, None)], name="T")
    (row,) = read_table(node)[1]
    assert math.isnan(row[0]) and row[1] == ""


@pytest.mark.parametrize(
    ("columns", "rows"),
    [
        ((Column("a", int),), [(1, 2)]),
        ((Column("a", int),), [(None,)]),
        ((Column("a", int),), [(1.5,)]),
        ((Column("a", float),), [("x",)]),
        ((Column("a", dict),), [({},)]),
        ((Column("a"), Column("a")), [("x", "y")]),
        ((Column("a", int),), [(2**40,)]),
    ],
    ids=["too long", "missing int", "fraction", "text", "dict", "same name", "too large"],
)
def test_rows_that_do_not_fit_leave_the_table_as_it_was(scene, columns, rows):
    node = write_table(scene, COLUMNS, ROWS, name="Areas")
    count = scene.GetNumberOfNodes()
    for target in (node, None):
        with pytest.raises(InputError):
            write_table(scene, columns, rows, name="New", node=target)
    assert read_table(node) == (COLUMNS, ROWS)
    assert node.GetName() == "Areas"
    assert scene.GetNumberOfNodes() == count


def test_a_table_is_replaced_whole(scene):
    node = write_table(scene, COLUMNS, ROWS, name="Areas")
    assert write_table(scene, (Column("area", int),), [(1,)], name="Other", node=node) is node
    assert read_table(node) == ((Column("area", int),), ((1,),))
    assert node.GetName() == "Other"
    assert read_table(write_table(scene, COLUMNS, [], name="Empty")) == (COLUMNS, ())


class Kind(Enum):
    FAR = "far away"


@dataclass(frozen=True)
class Record:
    index: int
    confidence: float | None
    is_reference: bool
    kind: Kind
    used: tuple[int, ...]


def test_records_become_a_column_per_field(scene):
    records = [Record(1, 0.5, True, Kind.FAR, (1, 2)), Record(2, None, False, Kind.FAR, ())]
    columns, rows = read_table(write_records(scene, records, name="R", units={"confidence": "1"}))
    assert columns == (
        Column("index", int),
        Column("confidence", float, "1"),
        Column("is_reference", bool),
        Column("kind"),
        Column("used"),
    )
    assert rows[0] == (1, 0.5, True, "far away", "1, 2")
    assert math.isnan(rows[1][1])
    with pytest.raises(InputError, match="at least one"):
        write_records(scene, [], name="R")


def test_texts_are_utf_8_in_the_scene_and_in_files(scene, tmp_path):
    text = "Größe: 3 µm\n„quoted“ 你好"
    node = write_text(scene, text, name="Report")
    assert (node.GetName(), node.GetEncodingAsString(), read_text(node)) == ("Report", "UTF-8", text)
    assert write_node(node, tmp_path / "ü.txt")
    assert (tmp_path / "ü.txt").read_text(encoding="utf-8") == text
    assert write_text(scene, "neu", name="Report", node=node) is node
    assert read_text(node) == "neu"


def test_a_node_of_another_kind_is_refused(scene):
    text = write_text(scene, "x", name="Report")
    with pytest.raises(InputError, match="vtkMRMLTableNode is needed"):
        write_table(scene, COLUMNS, ROWS, name="T", node=text)
    assert text.GetName() == "Report"
