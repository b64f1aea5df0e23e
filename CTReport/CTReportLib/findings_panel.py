"""The finding table as a picture of bars; a click on a finding shows what it rests on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import qt
from slicer.i18n import tr as _

from CTReportLib.finding_bars import finding_bar, ordered_rows
from CTReportLib.request import Decision, FindingRow, ReportResult
from MedAILib.ui.bar_chart import draw_bars, row_height_px

_NARROWEST_PX = 240
_MOST_ROWS = 18
_MARGIN_PX = 6


class FindingsPanel:
    """Shows the findings of a report.

    Parameters
    ----------
    show_finding : callable
        Called with the row of the finding that was clicked.

    Attributes
    ----------
    widget : QWidget
        To be added to the module's layout.
    table : QTableWidget
        A row for each finding, what matters first.
    """

    def __init__(self, show_finding: Callable[[FindingRow], None]) -> None:
        self._show_finding = show_finding
        self._result: ReportResult | None = None
        self._rows: tuple[FindingRow, ...] = ()
        self._drawn_px = 0
        self.widget = qt.QWidget()
        column = qt.QVBoxLayout(self.widget)
        column.setContentsMargins(0, 0, 0, 0)
        self.summaryLabel = qt.QLabel()
        self.summaryLabel.wordWrap = True
        self.table = self._new_table()
        self.legendLabel = qt.QLabel()
        self.legendLabel.wordWrap = True
        for part in (self.summaryLabel, self.table, self.legendLabel):
            column.addWidget(part)
        self.clear()

    def _new_table(self) -> Any:
        table = qt.QTableWidget()
        table.setColumnCount(1)
        table.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        table.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        table.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        table.setShowGrid(False)
        table.setMinimumWidth(_NARROWEST_PX)
        table.verticalHeader().setVisible(False)
        table.horizontalHeader().setFixedHeight(0)  # a hidden one would not follow the panel's width
        table.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        table.horizontalHeader().sectionResized.connect(self._resized)
        table.toolTip = _("Click on a finding to see what it rests on, and where it is.")
        table.cellClicked.connect(self._clicked)
        return table

    # What the module calls

    def show(self, result: ReportResult) -> None:
        """Show the findings of a result."""
        self._result, self._rows = result, ordered_rows(result)
        counts = {decision: sum(row.decision is decision for row in self._rows) for decision in Decision}
        self.summaryLabel.text = _("{present} present, {absent} absent, {open} not judged").format(
            present=counts[Decision.PRESENT], absent=counts[Decision.ABSENT], open=counts[Decision.NOT_JUDGED]
        )
        self.table.setRowCount(len(self._rows))
        height = row_height_px(self.table)
        self.table.verticalHeader().setDefaultSectionSize(height)
        self.table.setFixedHeight(height * min(len(self._rows), _MOST_ROWS) + 4)
        self.table.visible = self.legendLabel.visible = True
        self.legendLabel.text = self._legend()
        self._drawn_px = 0
        self._draw(self.table.columnWidth(0))

    def clear(self) -> None:
        """There is nothing to show."""
        self._result, self._rows = None, ()
        self.table.setRowCount(0)
        self.table.visible = self.legendLabel.visible = False
        self.summaryLabel.text = _("Nothing is reported yet.")

    def choose(self, finding: str) -> None:
        """Mark the row of a finding, without a click."""
        places = [place for place, row in enumerate(self._rows) if row.finding == finding]
        self.table.setCurrentCell(places[0] if places else -1, 0)

    # What is shown

    def _legend(self) -> str:
        words = [_("Orange: present; green: absent; grey: not judged; line: threshold.")]
        if any(row.candidate for row in self._rows):
            words.append(_("A grey bar is worth a look."))
        if any(row.probability is not None and not row.calibrated for row in self._rows):
            words.append(_("Hatched: probability that is not calibrated."))
        return " ".join(words)

    def _draw(self, column_px: int) -> None:
        """All bars in one picture, cut into rows, so that names and values line up."""
        if self._result is None:
            return
        width_px = max(column_px, _NARROWEST_PX) - _MARGIN_PX
        if width_px == self._drawn_px:
            return
        self._drawn_px = width_px
        bars = [finding_bar(row, self._result) for row in self._rows]
        picture, height = draw_bars(bars, width_px, self.table), row_height_px(self.table)
        self.table.setIconSize(qt.QSize(width_px, height))
        for place, (row, bar) in enumerate(zip(self._rows, bars, strict=True)):
            item = qt.QTableWidgetItem()
            item.setIcon(_icon(picture.copy(0, place * height, width_px, height)))
            item.setToolTip(tip_of(row, bar.text))
            self.table.setItem(place, 0, item)

    def _resized(self, _section: int, _old_px: int, new_px: int) -> None:
        self._draw(new_px)

    def _clicked(self, row: int, _column: int = 0) -> None:
        if 0 <= row < len(self._rows):
            self._show_finding(self._rows[row])


def _icon(picture: Any) -> Any:
    """An icon that keeps its colours where its row is selected."""
    icon = qt.QIcon()
    for mode in (qt.QIcon.Normal, qt.QIcon.Selected):
        icon.addPixmap(picture, mode)
    return icon


def tip_of(row: FindingRow, value: str) -> str:
    """A row in words."""
    decision = row.decision.value
    if row.candidate:
        decision = _("{decision}, worth a look").format(decision=decision)
    lines = [f"{row.name}: {decision} ({value})"]
    if row.probability is not None:
        lines.append(_("Probability calibrated.") if row.calibrated else _("Probability not calibrated."))
    return "\n".join([*lines, *filter(None, (row.place, row.evidence))])
