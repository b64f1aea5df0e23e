"""The searchable list of models."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

from MedAILib.models.entries import ModelEntry
from MedAILib.models.states import State, Status
from MedAILib.ui.model_texts import licence_word, seconds_text, size_text, state_text

Rows = Sequence[tuple[ModelEntry, Status]]
_HEIGHT_PX = 220
_NARROWEST_PX = 200
_LINES = 2


class ModelTable:
    """Name, state, seconds where they were measured, size, licence; several models can be selected.

    Parameters
    ----------
    rows : callable
        From the words that were typed to the models that fit.
    changed : callable
        Called without arguments when another selection was made.

    Attributes
    ----------
    widget : QWidget
    searchLine : QLineEdit
    table : QTableWidget
    """

    def __init__(self, rows: Callable[[str], Rows], changed: Callable[[], None]) -> None:
        self._find = rows
        self._changed = changed
        self._ids: list[str] = []
        self.widget = qt.QWidget()
        column = qt.QVBoxLayout(self.widget)
        column.setContentsMargins(0, 0, 0, 0)
        self.searchLine = qt.QLineEdit()
        self.searchLine.placeholderText = _("Search: knee, CT, report, femur …")
        self.searchLine.setClearButtonEnabled(True)
        self.searchLine.textChanged.connect(self.show)
        self.table = self._new_table()
        column.addWidget(self.searchLine)
        column.addWidget(self.table)

    def _new_table(self) -> qt.QTableWidget:
        heads = (
            (_("Model"), _("Bold: can be used")),
            (_("State"), _("State on this machine; below it seconds on CPU / GPU where they were measured")),
            (_("Size, licence"), _("Size, and below it the licence; *: must be accepted before it is fetched")),
        )
        table = qt.QTableWidget(0, len(heads))
        for column, (text, tip) in enumerate(heads):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(tip)
            table.setHorizontalHeaderItem(column, item)
        table.verticalHeader().setVisible(False)
        table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        table.setSelectionMode(qt.QAbstractItemView.ExtendedSelection)
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.verticalHeader().setDefaultSectionSize(_LINES * table.fontMetrics().height() + 4)
        table.setAlternatingRowColors(True)
        table.setShowGrid(False)
        table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        table.setMinimumWidth(_NARROWEST_PX)
        table.setFixedHeight(_HEIGHT_PX)
        header = table.horizontalHeader()
        header.setSectionResizeMode(0, qt.QHeaderView.Stretch)
        for column in range(1, len(heads)):
            header.setSectionResizeMode(column, qt.QHeaderView.ResizeToContents)
        header.setHighlightSections(False)
        table.itemSelectionChanged.connect(self._selection_changed)
        return table

    @property
    def shown_ids(self) -> tuple[str, ...]:
        return tuple(self._ids)

    @property
    def selected_ids(self) -> tuple[str, ...]:
        """By ascending row."""
        rows = sorted({index.row() for index in self.table.selectionModel().selectedRows()})
        return tuple(self._ids[row] for row in rows if row < len(self._ids))

    def select(self, model_ids: Sequence[str]) -> None:
        """Select models; those that are not shown because of the search make it end."""
        if not set(model_ids) <= set(self._ids):
            self.searchLine.text = ""
        self.table.blockSignals(True)
        self.table.clearSelection()
        model, flags = self.table.selectionModel(), qt.QItemSelectionModel
        for model_id in model_ids:
            if model_id in self._ids:
                index = self.table.model().index(self._ids.index(model_id), 0)
                model.select(index, flags.Select | flags.Rows)
                self.table.scrollTo(index)
        self.table.blockSignals(False)
        self._changed()

    def show(self, _text: str = "") -> None:
        """Show what fits the search, with the states of now; what was selected stays so where it is shown."""
        chosen = self.selected_ids
        rows = self._find(str(self.searchLine.text))
        self.table.blockSignals(True)
        self._ids = [entry.id for entry, _status in rows]
        self.table.setRowCount(len(rows))
        for row, (entry, status) in enumerate(rows):
            self._fill(row, entry, status)
        self.table.blockSignals(False)
        self.select([one for one in chosen if one in self._ids] or self._ids[:1])

    def _fill(self, row: int, entry: ModelEntry, status: Status) -> None:
        state = state_text(status.state)
        shown = _("–") if status.state is State.NOT_INSTALLED else state
        cells = (
            (entry.title, f"{entry.title}\n{entry.id}"),
            (f"{shown}\n{seconds_text(entry)}".rstrip(), f"{state}\n{entry.resources.measured_on}".rstrip()),
            (f"{size_text(entry, status)}\n{licence_word(entry)}", entry.licence.name or entry.licence.spdx),
        )
        for column, (text, tip) in enumerate(cells):
            item = qt.QTableWidgetItem(text)
            item.setToolTip(tip)
            if column == 0 and status.is_usable:
                font = item.font()
                font.setBold(True)
                item.setFont(font)
            self.table.setItem(row, column, item)

    def _selection_changed(self) -> None:
        self._changed()
