"""The result part of the panel: confidence strip, advice, undo."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import qt
from slicer.i18n import tr as _

from Mem3DPropagateLib.record import Record
from Mem3DPropagateLib.request import SliceMethod
from Mem3DPropagateLib.strip import Chart, draw_strip, png_bytes, shown_span

STRIP_HEIGHT_PX = 92
NARROWEST_PX = 280


class ResultPanel:
    """Shows what segments remember of their last propagation.

    Parameters
    ----------
    show_slice : callable
        Called with a segment's id and a slice index.
    undo : callable
        Called without arguments.

    Attributes
    ----------
    widget : QWidget
        To be added to the module's layout.
    """

    def __init__(self, show_slice: Callable[[str, int], None], undo: Callable[[], None]) -> None:
        self._show_slice = show_slice
        self._undo = undo
        self._results: list[tuple[str, str, Record]] = []
        self.widget = qt.QWidget()
        column = qt.QVBoxLayout(self.widget)
        column.setContentsMargins(0, 0, 0, 0)
        self.segmentBox = qt.QComboBox()
        self.segmentBox.toolTip = _("The propagated segment to look at.")
        self.summaryLabel = qt.QLabel()
        self.summaryLabel.wordWrap = True
        self.stripLabel = qt.QLabel()
        self.stripLabel.setMinimumWidth(NARROWEST_PX)
        self.stripLabel.toolTip = _(
            "One bar per slice: expected Dice overlap with what you would have drawn. Blue: drawn by you. "
            "Triangle: slice worth drawing next."
        )
        self.adviceLabel = qt.QLabel()
        self.adviceLabel.wordWrap = True
        self.sliceSlider = qt.QSlider(qt.Qt.Horizontal)
        self.sliceSlider.toolTip = _("Show a slice of the result in the slice views.")
        self.goButton = qt.QPushButton()
        self.undoButton = qt.QPushButton(_("Undo propagation"))
        row = qt.QHBoxLayout()
        row.addWidget(self.goButton)
        row.addWidget(self.undoButton)
        for part in (self.segmentBox, self.summaryLabel, self.stripLabel, self.sliceSlider, self.adviceLabel):
            column.addWidget(part)
        column.addLayout(row)
        self.segmentBox.currentIndexChanged.connect(self._show_one)
        self.sliceSlider.valueChanged.connect(self._slide)
        self.goButton.clicked.connect(self._go)
        self.undoButton.clicked.connect(self._undo_clicked)
        self.clear()

    def show(self, results: Sequence[tuple[str, str, Record]], undo: bool) -> None:
        """Show results, each with the segment's id and name; an empty sequence clears the panel."""
        chosen = self.segmentBox.currentIndex
        self._results = list(results)
        self.segmentBox.blockSignals(True)
        self.segmentBox.clear()
        for _id, name, _record in self._results:
            self.segmentBox.addItem(name)
        self.segmentBox.setCurrentIndex(min(max(chosen, 0), len(self._results) - 1))
        self.segmentBox.blockSignals(False)
        self.segmentBox.visible = len(self._results) > 1
        self.undoButton.enabled = undo
        self.undoButton.toolTip = _("Take the last propagation back.") if undo else _("There is nothing to undo.")
        self._show_one()

    def clear(self) -> None:
        self.show([], undo=False)

    @property
    def current(self) -> tuple[str, str, Record] | None:
        """Id, name and record of the segment looked at."""
        index = self.segmentBox.currentIndex
        return self._results[index] if 0 <= index < len(self._results) else None

    def _show_one(self, _index: int = 0) -> None:
        shown = self.current
        for part in (self.stripLabel, self.sliceSlider, self.adviceLabel):
            part.visible = shown is not None
        self.goButton.enabled = shown is not None and shown[2].advice.slice is not None
        if shown is None:
            self.summaryLabel.text = _("Nothing is propagated yet.")
            self.goButton.text = _("Go to the suggested slice")
            self.goButton.toolTip = _("A suggestion comes with the first propagation.")
            return
        record = shown[2]
        self.summaryLabel.text = _(
            "{name}: {drawn} slices drawn, {count} propagated by {method}; expected Dice {mean:.2f}, lowest {low:.2f}"
        ).format(
            method=_method_text(record),
            name=shown[1],
            drawn=len(record.references),
            count=len(record.slices) - len(record.references),
            mean=record.confidence,
            low=record.quality_score,
        )
        self._show_strip(record)
        self.adviceLabel.text = record.advice.reason
        if record.advice.slice is None:
            self.goButton.text = _("Go to the suggested slice")
            self.goButton.toolTip = record.advice.reason
        else:
            self.goButton.text = _("Go to slice {index}").format(index=record.advice.slice)
            self.goButton.toolTip = _("Show the suggested slice in the slice views.")

    def _show_strip(self, record: Record) -> None:
        width_px = max(self.widget.width, NARROWEST_PX)
        picture = qt.QPixmap()
        picture.loadFromData(
            qt.QByteArray(png_bytes(draw_strip(record.slices, record.advice, width_px, STRIP_HEIGHT_PX)))
        )
        self.stripLabel.setPixmap(picture)
        chart = Chart(shown_span(record.slices, record.advice), width_px, STRIP_HEIGHT_PX)
        self.sliceSlider.blockSignals(True)
        self.sliceSlider.setRange(chart.first, chart.last)
        self.sliceSlider.blockSignals(False)

    def _slide(self, index: int) -> None:
        if self.current is not None:
            self._show_slice(self.current[0], index)

    def _go(self, _checked: bool = False) -> None:
        if self.current is not None and self.current[2].advice.slice is not None:
            self.sliceSlider.blockSignals(True)
            self.sliceSlider.setValue(self.current[2].advice.slice)
            self.sliceSlider.blockSignals(False)
            self._show_slice(self.current[0], self.current[2].advice.slice)

    def _undo_clicked(self, _checked: bool = False) -> None:
        self._undo()


def _method_text(record: Record) -> str:
    """How the propagated slices came to be, with the count of the rarer way where there are two."""
    methods = [q.method for q in record.slices if not q.is_reference]
    by_network = methods.count(SliceMethod.MEMORY)
    if not by_network:
        return _("geometry")
    if by_network == len(methods):
        return _("the network {model}").format(model=record.model)
    return _("the network {model} ({count} of them by geometry)").format(
        model=record.model, count=len(methods) - by_network
    )
