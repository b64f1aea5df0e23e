"""The result part of the panel: a table of regions; a click on one shows it."""

from __future__ import annotations

from collections.abc import Callable

import qt
from slicer.i18n import tr as _

from KneeAnalysisLib.report import cell_text
from KneeAnalysisLib.results import KneeResult
from KneeAnalysisLib.table import Row, heading, rows

_THICKNESS = ("region", "mean_mm", "sd_mm", "denuded_percent", "volume_mm3")
_T2 = ("t2_mean_ms", "t2_deep_ms", "t2_superficial_ms")
_ROW_PX = 22
_MOST_ROWS = 12


class ResultPanel:
    """Shows the regions of a result.

    Parameters
    ----------
    show_region : callable
        Called with the key of the region that was clicked.
    open_folder : callable
        Called without arguments.

    Attributes
    ----------
    widget : QWidget
        To be added to the module's layout.
    """

    def __init__(self, show_region: Callable[[str], None], open_folder: Callable[[], None]) -> None:
        self._show_region = show_region
        self._open_folder = open_folder
        self._rows: tuple[Row, ...] = ()
        self.widget = qt.QWidget()
        column = qt.QVBoxLayout(self.widget)
        column.setContentsMargins(0, 0, 0, 0)
        self.summaryLabel = qt.QLabel()
        self.summaryLabel.wordWrap = True
        self.table = qt.QTableWidget()
        self.table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self.table.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        self.table.verticalHeader().setVisible(False)
        self.table.verticalHeader().setDefaultSectionSize(_ROW_PX)
        self.table.setMinimumWidth(260)
        self.table.toolTip = _("Click on a region to see it in the slice views.")
        self.table.cellClicked.connect(self._clicked)
        self.notesLabel = qt.QLabel()
        self.notesLabel.wordWrap = True
        self.openButton = qt.QPushButton(_("Open output folder"))
        self.openButton.toolTip = _("Show the report and the result files in the file browser.")
        self.openButton.clicked.connect(self._open)
        for part in (self.summaryLabel, self.table, self.notesLabel, self.openButton):
            column.addWidget(part)
        self.clear()

    def show(self, result: KneeResult) -> None:
        """Show a result."""
        self._rows = rows(result)
        side = {"left": _("Left knee"), "right": _("Right knee")}.get(result.side, _("Side not known"))
        self.summaryLabel.text = _("{side}, {count} regions; thickness by area, denuded bone as zero.").format(
            side=side, count=len(self._rows)
        )
        self._fill((*_THICKNESS, *(_T2 if result.t2 is not None else ())))
        self.notesLabel.text = "\n".join(result.notes)
        self.notesLabel.visible = bool(result.notes)
        self.openButton.visible = result.out is not None

    def clear(self) -> None:
        self._rows = ()
        self.table.visible = False
        self.notesLabel.visible = False
        self.openButton.visible = False
        self.summaryLabel.text = _("Nothing is measured yet.")

    def _fill(self, fields: tuple[str, ...]) -> None:
        self.table.visible = bool(self._rows)
        self.table.setColumnCount(len(fields))
        self.table.setRowCount(len(self._rows))
        self.table.setHorizontalHeaderLabels([_short(field) for field in fields])
        for index, row in enumerate(self._rows):
            for number, field in enumerate(fields):
                item = qt.QTableWidgetItem(cell_text(field, getattr(row, field)).removesuffix(" cartilage"))
                item.setToolTip(f"{row.region}: {heading(field)}")
                if number:
                    item.setTextAlignment(qt.Qt.AlignRight | qt.Qt.AlignVCenter)
                self.table.setItem(index, number, item)
        self.table.resizeColumnsToContents()
        height = self.table.horizontalHeader().sizeHint.height() + _ROW_PX * min(len(self._rows), _MOST_ROWS) + 20
        self.table.setMinimumHeight(height)

    def _clicked(self, row: int, _column: int = 0) -> None:
        if 0 <= row < len(self._rows):
            self._show_region(self._rows[row].key)

    def _open(self, _checked: bool = False) -> None:
        self._open_folder()


def _short(field: str) -> str:
    """The title of a column, the unit below."""
    text = {
        "region": _("Region"),
        "mean_mm": _("Mean\n(mm)"),
        "sd_mm": _("SD\n(mm)"),
        "denuded_percent": _("Denuded\n(%)"),
        "volume_mm3": _("Volume\n(mm³)"),
        "t2_mean_ms": _("T2\n(ms)"),
        "t2_deep_ms": _("T2 deep\n(ms)"),
        "t2_superficial_ms": _("T2 superf.\n(ms)"),
    }
    return text[field]
