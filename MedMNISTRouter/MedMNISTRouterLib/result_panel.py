"""The result part of the panel: one picture's answer, and a list of all where there are several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import qt
from slicer.i18n import tr as _

from MedAILib.ui.bar_chart import bars_text, draw_bars
from MedAILib.ui.bars import Bar
from MedMNISTRouterLib.bars import class_bars, distance_bar, route_bars
from MedMNISTRouterLib.request import Answer, PlainImage
from MedMNISTRouterLib.summary import (
    State,
    calibration_text,
    counts_text,
    explanation,
    headline,
    percent,
    state_of,
)
from MedMNISTRouterLib.thumbnail import thumbnail_png

FindPicture = Callable[[str], "PlainImage | None"]
"""From an answer's ``image`` to the picture; None where it cannot be read."""

NARROWEST_PX = 260
_THUMBNAIL_PX = 88
_HEADLINE_SCALE = 1.35
_ROW_PX = 22
_MOST_ROWS = 8
_WIDEST_ANSWER_PX = 150
_NOT_INSTALLED = "MODEL_NOT_INSTALLED"


class ResultPanel:
    """Shows answers.

    Parameters
    ----------
    get_expert : callable
        Called with a data set's flag when the user wants its expert that is not installed.

    Attributes
    ----------
    widget : QWidget
        To be added to the module's layout.
    """

    def __init__(self, get_expert: Callable[[str], None]) -> None:
        self._get_expert = get_expert
        self._answers: tuple[Answer, ...] = ()
        self._find_picture: FindPicture = _no_picture
        self._index = 0
        self.widget = qt.QWidget()
        self._build_list()
        self._build_answer()
        column = qt.QVBoxLayout(self.widget)
        column.setContentsMargins(0, 0, 0, 0)
        column.addWidget(self.emptyLabel)
        top = qt.QHBoxLayout()
        top.addWidget(self.pictureLabel, 0, qt.Qt.AlignTop)
        words = qt.QVBoxLayout()
        head = qt.QHBoxLayout()
        head.addWidget(self.iconLabel, 0, qt.Qt.AlignTop)
        head.addWidget(self.headlineLabel, 1)
        words.addLayout(head)
        words.addWidget(self.explanationLabel)
        words.addWidget(self.getButton)
        words.addStretch(1)
        top.addLayout(words, 1)
        for part in (self.countsLabel, self.list):
            column.addWidget(part)
        column.addLayout(top)
        for part in (
            self.distanceChart,
            self.classChart,
            self.calibrationLabel,
            self.routesLabel,
            self.routesChart,
            self.notesLabel,
            self.modelsLabel,
        ):
            column.addWidget(part)
        self.clear()

    def _build_list(self) -> None:
        self.emptyLabel = qt.QLabel(_("Nothing is routed yet."))
        self.countsLabel = _wrapped()
        self.list = qt.QTableWidget()
        self.list.setColumnCount(3)
        self.list.setHorizontalHeaderLabels([_("Image"), _("Answer"), _("Probability")])
        self.list.setEditTriggers(qt.QAbstractItemView.NoEditTriggers)
        self.list.setSelectionBehavior(qt.QAbstractItemView.SelectRows)
        self.list.setSelectionMode(qt.QAbstractItemView.SingleSelection)
        self.list.setTextElideMode(qt.Qt.ElideMiddle)
        self.list.verticalHeader().setVisible(False)
        self.list.verticalHeader().setDefaultSectionSize(_ROW_PX)
        self.list.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        self.list.toolTip = _("Choose an image to see its answer below.")
        self.list.currentCellChanged.connect(self._chosen)

    def _build_answer(self) -> None:
        self.pictureLabel = qt.QLabel()
        self.iconLabel = qt.QLabel()
        self.headlineLabel = _wrapped()
        font = qt.QFont(self.headlineLabel.font)
        font.setBold(True)
        font.setPointSizeF(_HEADLINE_SCALE * font.pointSizeF())
        self.headlineLabel.setFont(font)
        self.explanationLabel = _wrapped()
        self.getButton = qt.QPushButton(_("Get the expert…"))
        self.getButton.toolTip = _("Open it in the MedAI module, where it can be imported.")
        self.getButton.clicked.connect(self._get)
        self.distanceChart, self.classChart, self.routesChart = _chart(), _chart(), _chart()
        self.calibrationLabel, self.notesLabel, self.modelsLabel = _wrapped(), _wrapped(), _wrapped()
        self.routesLabel = qt.QLabel()

    # What the module calls

    def show(self, answers: Sequence[Answer], find_picture: FindPicture) -> None:
        """Show answers, the first one in full; an empty sequence clears the panel."""
        self._answers, self._find_picture = tuple(answers), find_picture
        self._index = 0
        several = len(self._answers) > 1
        self.countsLabel.visible = self.list.visible = several
        if several:
            self.countsLabel.text = _("{count} images: {answers}").format(
                count=len(self._answers), answers=counts_text(self._answers)
            )
            self._fill_list(self._answers)
        self._show_one()

    def clear(self) -> None:
        self.show((), _no_picture)

    @property
    def current(self) -> Answer | None:
        """The answer that is shown in full."""
        return self._answers[self._index] if self._answers else None

    def choose(self, index: int) -> None:
        """Show one of several answers in full."""
        self.list.setCurrentCell(index, 0)

    # What is shown

    def _fill_list(self, answers: Sequence[Answer]) -> None:
        self.list.blockSignals(True)
        self.list.setRowCount(len(answers))
        for row, answer in enumerate(answers):
            for column, text in enumerate(_cells(answer)):
                item = qt.QTableWidgetItem(text)
                item.setToolTip(f"{answer.image}: {headline(answer)}")
                self.list.setItem(row, column, item)
        self.list.setCurrentCell(0, 0)
        self.list.resizeColumnsToContents()
        self.list.setColumnWidth(1, min(self.list.columnWidth(1), _WIDEST_ANSWER_PX))
        self.list.horizontalHeader().setSectionResizeMode(0, qt.QHeaderView.Stretch)
        self.list.blockSignals(False)
        rows = min(len(answers), _MOST_ROWS)
        self.list.setFixedHeight(self.list.horizontalHeader().sizeHint.height() + _ROW_PX * rows + 6)

    def _show_one(self) -> None:
        answer = self.current
        self.emptyLabel.visible = answer is None
        if answer is None:
            for part in self._answer_parts():
                part.visible = False
            return
        state = state_of(answer)
        _say(self.headlineLabel, headline(answer))
        _say(self.explanationLabel, explanation(answer))
        self._show_icon(state)
        self._show_picture(self._find_picture(answer.image))
        self.getButton.visible = answer.error_code == _NOT_INSTALLED
        classes, distance, routes = class_bars(answer), distance_bar(answer), route_bars(answer)
        self._show_bars(self.distanceChart, (distance,) if distance is not None else ())
        self.distanceChart.toolTip = _(
            "How far the picture is from those the models were trained on. The line is the largest distance that is "
            "accepted; beyond it no label is given."
        )
        self._show_bars(self.classChart, classes if answer.success else ())
        self._show_bars(self.routesChart, routes)
        turned_away = state is State.NOT_RECOGNISED
        routes_text = _("The router's choice, not followed:") if turned_away else _("Routes:")
        _say(self.routesLabel, routes_text if routes else "")
        _say(self.calibrationLabel, calibration_text(answer))
        _say(self.notesLabel, "\n".join(answer.warnings))
        _say(self.modelsLabel, _models_text(answer))
        self.modelsLabel.toolTip = "\n".join(f"{m.slot}: {m.id}\nSHA-256 {m.sha256}" for m in answer.models)

    def _answer_parts(self) -> tuple[Any, ...]:
        return (
            self.pictureLabel,
            self.iconLabel,
            self.headlineLabel,
            self.explanationLabel,
            self.getButton,
            self.distanceChart,
            self.classChart,
            self.calibrationLabel,
            self.routesLabel,
            self.routesChart,
            self.notesLabel,
            self.modelsLabel,
        )

    def _show_icon(self, state: State) -> None:
        self.iconLabel.visible = state is not State.ANSWERED
        if state is not State.ANSWERED:
            icon = self.widget.style().standardIcon(qt.QStyle.SP_MessageBoxWarning)
            self.iconLabel.setPixmap(icon.pixmap(22, 22))

    def _show_picture(self, image: PlainImage | None) -> None:
        self.pictureLabel.visible = image is not None
        if image is not None:
            picture = qt.QPixmap()
            picture.loadFromData(qt.QByteArray(thumbnail_png(image, _THUMBNAIL_PX)))
            self.pictureLabel.setPixmap(picture)
            rows, columns = image.pixels.shape[:2]
            self.pictureLabel.toolTip = _("{name}, {columns} x {rows} pixels").format(
                name=image.name, columns=columns, rows=rows
            )

    def _show_bars(self, label: Any, bars: Sequence[Bar]) -> None:
        label.visible = bool(bars)
        if bars:
            label.setPixmap(draw_bars(bars, max(self.widget.width, NARROWEST_PX), label))
            label.toolTip = bars_text(bars)

    def _chosen(self, row: int, _column: int = 0, _old_row: int = 0, _old_column: int = 0) -> None:
        if 0 <= row < len(self._answers):
            self._index = row
            self._show_one()

    def _get(self, _checked: bool = False) -> None:
        if self.current is not None:
            self._get_expert(self.current.routed_dataset)


def _no_picture(_name: str) -> None:
    return None


def _wrapped() -> Any:
    label = qt.QLabel()
    label.wordWrap = True
    label.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
    return label


def _chart() -> Any:
    label = qt.QLabel()
    label.setSizePolicy(qt.QSizePolicy.Ignored, qt.QSizePolicy.Fixed)  # a picture must not keep the panel wide
    return label


def _say(label: Any, text: str) -> None:
    label.text = text
    label.visible = bool(text)


def _cells(answer: Answer) -> tuple[str, str, str]:
    state = state_of(answer)
    if state is not State.ANSWERED:
        return answer.image, state.value, ""
    return answer.image, headline(answer), percent(answer.predicted_class_confidence or 0.0)


def _models_text(answer: Answer) -> str:
    """Models, engine and time in one line."""
    if not answer.models:
        return ""
    names = ", ".join(dict.fromkeys(f"{model.id} ({model.sha256[:8]})" for model in answer.models))
    engine = answer.engine.value if answer.engine is not None else ""
    total = answer.milliseconds.get("total")
    parts = [_("Models: {names}").format(names=names), engine, "" if total is None else f"{total:.0f} ms"]
    return " · ".join(part for part in parts if part)
