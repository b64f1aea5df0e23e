"""Table and text nodes <-> rows and strings."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, get_type_hints

import vtk

from MedAILib.errors import InputError
from MedAILib.mrml.nodes import node_to_write

Cell = bool | int | float | str | None

_ARRAYS = {bool: "vtkBitArray", int: "vtkIntArray", float: "vtkDoubleArray", str: "vtkStringArray"}
# Table files are written without quoting: these signs end a cell when the table is read again, and a row
# that starts with an empty cell loses it, so that all others move up. A blank that does not break stands there.
_UNSAFE = str.maketrans({"\t": " ", "\n": " ", "\r": " ", '"': "'"})
_EMPTY_FIRST_CELL = "\u00a0"
_INT_LIMIT = 2**31


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes
    ----------
    name : str
    type : type
        ``bool``, ``int``, ``float`` or ``str``. Missing values need ``float`` (shown as nan) or ``str``.
    unit : str
        Such as ``mm``; empty for none.
    """

    name: str
    type: type = str
    unit: str = ""


def write_table(
    scene: Any, columns: Sequence[Column], rows: Iterable[Sequence[Cell]], *, name: str, node: Any = None
) -> Any:
    """Rows into a table node.

    Parameters
    ----------
    scene : vtkMRMLScene
    columns : sequence of Column
    rows : iterable of sequence
        One value per column. In texts tabs, line ends and double quotes become blanks and single quotes,
        and blanks at the ends go: table files would lose them and what follows.
    name : str
        Of the node.
    node : vtkMRMLTableNode, optional
        Replaced whole; a new node otherwise.

    Returns
    -------
    vtkMRMLTableNode

    Raises
    ------
    InputError
        Where a row does not fit the columns; nothing is changed then.
    """
    if len({column.name for column in columns}) != len(columns):
        raise InputError("Two columns of the table have the same name.")
    table = _table(columns, [tuple(row) for row in rows])
    with node_to_write(scene, node, "vtkMRMLTableNode", name) as target:
        target.SetName(name)
        for old in range(target.GetNumberOfColumns()):
            target.RemoveAllColumnProperties(target.GetColumnName(old))
        target.SetAndObserveTable(table)
        target.SetUseColumnTitleAsColumnHeader(True)
        for column in columns:
            if column.unit:
                target.SetColumnUnitLabel(column.name, column.unit)
    return target


def write_records(
    scene: Any, records: Sequence[Any], *, name: str, units: Mapping[str, str] | None = None, node: Any = None
) -> Any:
    """Dataclass values of one type into a table node, a column per field.

    Parameters
    ----------
    records : sequence of dataclass
        At least one; fields of type bool, int and float keep it, ``X | None`` of numbers become float, all
        others are written as text.
    units : mapping of str to str, optional
        Field name to unit.

    Other parameters as for `write_table`.
    """
    if not records or not is_dataclass(records[0]):
        raise InputError("A table of records needs at least one dataclass value.")
    hints = get_type_hints(type(records[0]))
    names = [one.name for one in fields(records[0])]
    columns = [Column(one, _column_type(hints[one]), (units or {}).get(one, "")) for one in names]
    rows = [[_cell(getattr(record, column.name), column.type) for column in columns] for record in records]
    return write_table(scene, columns, rows, name=name, node=node)


def read_table(node: Any) -> tuple[tuple[Column, ...], tuple[tuple[Cell, ...], ...]]:
    """The columns and rows of a table node."""
    table = node.GetTable()
    arrays = [table.GetColumn(index) for index in range(table.GetNumberOfColumns())]
    columns = tuple(
        Column(array.GetName() or "", _type_of(array), node.GetColumnUnitLabel(array.GetName() or "") or "")
        for array in arrays
    )
    rows = tuple(
        tuple(_read(array.GetValue(row), column) for column, array in zip(columns, arrays, strict=True))
        for row in range(table.GetNumberOfRows())
    )
    return columns, rows


def write_text(scene: Any, text: str, *, name: str, node: Any = None) -> Any:
    """A text into a text node (a new one where none is given), always as UTF-8."""
    with node_to_write(scene, node, "vtkMRMLTextNode", name) as target:
        target.SetName(name)
        target.SetText(text, vtk.VTK_ENCODING_UTF_8)
    return target


def read_text(node: Any) -> str:
    """The text of a text node."""
    return node.GetText() or ""


def _table(columns: Sequence[Column], rows: Sequence[tuple[Cell, ...]]) -> Any:
    table = vtk.vtkTable()
    for index, column in enumerate(columns):
        if column.type not in _ARRAYS:
            raise InputError(f"The column '{column.name}' has a type that tables lack: {column.type}.")
        array = getattr(vtk, _ARRAYS[column.type])()
        array.SetName(column.name)
        for row in rows:
            if len(row) != len(columns):
                raise InputError(f"A row of the table has {len(row)} values for {len(columns)} columns.")
            value = _stored(row[index], column)
            array.InsertNextValue(_EMPTY_FIRST_CELL if index == 0 and value == "" else value)
        table.AddColumn(array)
    return table


def _stored(value: Cell, column: Column) -> Any:
    if value is None:
        if column.type not in (float, str):
            raise InputError(f"The column '{column.name}' of whole numbers cannot hold a missing value.")
        return math.nan if column.type is float else ""
    if column.type is str:
        return str(value).translate(_UNSAFE).strip()
    if isinstance(value, str) or (column.type is int and not _is_int32(value)):
        raise InputError(f"The column '{column.name}' cannot hold {value!r}.")
    return column.type(value)


def _is_int32(value: float) -> bool:
    return math.isfinite(value) and int(value) == value and -_INT_LIMIT <= value < _INT_LIMIT


def _read(value: Any, column: Column) -> Cell:
    if column.type is str:
        return "" if value == _EMPTY_FIRST_CELL else str(value)
    cell: Cell = column.type(value)
    return cell


def _column_type(hint: Any) -> type:
    if hint in _ARRAYS:
        return hint
    parts = set(getattr(hint, "__args__", ())) - {type(None)}
    return float if parts and parts <= {int, float} else str


def _cell(value: Any, kind: type) -> Cell:
    if value is None or kind is not str:
        return value
    if isinstance(value, (tuple, list)):
        return ", ".join(str(part) for part in value)
    return str(getattr(value, "value", value))


def _type_of(array: Any) -> type:
    if array.IsA("vtkStringArray"):
        return str
    if array.IsA("vtkBitArray"):
        return bool
    return float if array.IsA("vtkDoubleArray") or array.IsA("vtkFloatArray") else int
