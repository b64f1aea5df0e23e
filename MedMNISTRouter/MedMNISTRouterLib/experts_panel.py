"""The router and the twelve experts in a list: which are here, which are missing, and the way to get them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

from MedMNISTRouterLib.datasets import BY_FLAG
from MedMNISTRouterLib.slots import SlotKind, SlotState, keras_id

_ROW_PX = 22
_MOST_ROWS = 13


class ExpertsPanel:
    """Shows what is in the router's slots.

    Parameters
    ----------
    get_model : callable
        Called with the id of a slot's model in the catalogue when the user wants to import it.

    Attributes
    ----------
    widget : QWidget
        To be added to the module's layout.
    """

    def __init__(self, get_model: Callable[[str], None]) -> None:
        self._get_model = get_model
        self._slots: tuple[SlotState, ...] = ()
        self.widget = qt.QWidget()
        column = qt.QVBoxLayout(self.widget)
        column.setContentsMargins(0, 0, 0, 0)
        self.table = qt.QTableWidget()
        self.table.setColumnCount(2)
        self.table.setHorizontalHeaderLabels([_("Expert"), _("Weights")])
        self.table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self.table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        self.table.verticalHeader().setVisible(False)
        self.table.verticalHeader().setDefaultSectionSize(_ROW_PX)
        self.table.horizontalHeader().setStretchLastSection(True)
        self.table.currentCellChanged.connect(self._chosen)
        self.hintLabel = qt.QLabel()
        self.hintLabel.wordWrap = True
        self.hintLabel.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        self.getButton = qt.QPushButton(_("Import…"))
        self.getButton.toolTip = _("Open this model in the MedAI module, where your own file can be imported.")
        self.getButton.clicked.connect(self._get)
        for part in (self.table, self.hintLabel, self.getButton):
            column.addWidget(part)

    def show(self, slots: Sequence[SlotState]) -> None:
        """Show slots; the one that was chosen stays chosen."""
        row = max(self.table.currentRow(), 0)
        self._slots = tuple(slots)
        self.table.blockSignals(True)
        self.table.setRowCount(len(self._slots))
        for index, slot in enumerate(self._slots):
            for place, text in enumerate((slot.title, slot.kind.value)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(slot.why or _shows(slot))
                self.table.setItem(index, place, item)
        self.table.resizeColumnToContents(0)
        self.table.setCurrentCell(row, 0)
        self.table.blockSignals(False)
        height = self.table.horizontalHeader().sizeHint.height() + _ROW_PX * min(len(self._slots), _MOST_ROWS) + 4
        self.table.setFixedHeight(height)
        self._chosen(row)

    def _chosen(self, row: int, _column: int = 0, _old_row: int = 0, _old_column: int = 0) -> None:
        slot = self._slots[row] if 0 <= row < len(self._slots) else None
        self.getButton.enabled = slot is not None
        if slot is None:
            self.hintLabel.text = ""
        elif slot.kind in (SlotKind.MISSING, SlotKind.INVALID):
            self.hintLabel.text = " ".join(part for part in (slot.why, f"{slot.how_to_get}.") if part)
        else:
            self.hintLabel.text = f"{slot.title}: {slot.source}"

    def _get(self, _checked: bool = False) -> None:
        row = self.table.currentRow()
        if 0 <= row < len(self._slots):
            self._get_model(keras_id(self._slots[row].slot))


def _shows(slot: SlotState) -> str:
    return BY_FLAG[slot.slot].shows if slot.slot in BY_FLAG else _("chooses the expert")
