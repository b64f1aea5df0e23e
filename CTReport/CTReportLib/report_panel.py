"""The report beside its evidence: a list of sentences, what each rests on, and the text to edit."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from typing import Any

import qt
from slicer.i18n import tr as _

from CTReportLib.edits import shown_text
from CTReportLib.evidence_text import finding_html, sentence_html
from CTReportLib.request import RESEARCH_USE, FindingRow, ReportResult, Sentence, Verdict

_LIST_PX, _EVIDENCE_PX, _NARROWEST_PX = 260, 150, 240
_STRUCK_RGB, _ADDED_RGB, _EDITED_RGB = (150, 60, 60), (120, 80, 10), (38, 110, 214)


@dataclass(frozen=True)
class Actions:
    """What the panel asks the module to do.

    Attributes
    ----------
    show_sentence : callable
        Called with the sentence that was chosen.
    take_text : callable
        Called with the text that a person has edited.
    restore : callable
        Called without arguments: back to the report before.
    editing_changed : callable
        Called without arguments when a person has begun to edit the text, or has ended.
    """

    show_sentence: Callable[[Sentence], None]
    take_text: Callable[[str], None]
    restore: Callable[[], None]
    editing_changed: Callable[[], None]


class ReportPanel:
    """Shows a report, sentence by sentence.

    Parameters
    ----------
    actions : Actions

    Attributes
    ----------
    widget : QWidget
        To be added to the module's layout.
    list : QListWidget
        Titles and sentences; titles cannot be chosen.
    evidenceView : QTextBrowser
        What the chosen sentence rests on.
    editor : QPlainTextEdit
        The whole text, while it is edited.
    """

    def __init__(self, actions: Actions) -> None:
        self._actions = actions
        self._result: ReportResult | None = None
        self._key: Any = None
        self._items: list[Sentence | None] = []
        self.widget = qt.QWidget()
        self._build_list()
        self._build_editor()
        self.useLabel = _wrapped(f"<b>{RESEARCH_USE}</b>")
        self.stateLabel = _wrapped()
        column = qt.QVBoxLayout(self.widget)
        column.setContentsMargins(0, 0, 0, 0)
        for part in (self.useLabel, self.stateLabel, self.list, self.struckBox, self.evidenceView, self.editor):
            column.addWidget(part)
        for buttons in ((self.editButton, self.restoreButton), (self.keepButton, self.discardButton)):
            row = qt.QHBoxLayout()
            for button in buttons:
                row.addWidget(button)
            column.addLayout(row)
        for part in (self.editor, self.keepButton, self.discardButton):
            part.visible = False
        self.clear()

    def _build_list(self) -> None:
        self.list = qt.QListWidget()
        self.list.setWordWrap(True)
        self.list.setResizeMode(qt.QListView.Adjust)
        self.list.setTextElideMode(qt.Qt.ElideNone)
        self.list.setHorizontalScrollBarPolicy(qt.Qt.ScrollBarAlwaysOff)
        self.list.setVerticalScrollMode(qt.QAbstractItemView.ScrollPerPixel)
        self.list.setMinimumWidth(_NARROWEST_PX)
        self.list.setFixedHeight(_LIST_PX)
        self.list.toolTip = _("Choose a sentence to see what it rests on, and where that is.")
        self.list.currentRowChanged.connect(self._chosen)
        self.struckBox = qt.QCheckBox()
        self.struckBox.toolTip = _("Sentences that the guard has taken out of the report, each with the reason.")
        self.struckBox.toggled.connect(self._struck_toggled)
        self.evidenceView = qt.QTextBrowser()
        self.evidenceView.setMinimumWidth(_NARROWEST_PX)
        self.evidenceView.setFixedHeight(_EVIDENCE_PX)
        self.evidenceView.placeholderText = _("What the chosen sentence rests on.")

    def _build_editor(self) -> None:
        self.editor = qt.QPlainTextEdit()
        self.editor.setMinimumWidth(_NARROWEST_PX)
        self.editor.setFixedHeight(_LIST_PX + _EVIDENCE_PX)
        self.editButton = qt.QPushButton(_("Edit report…"))
        self.editButton.toolTip = _("Change the text. Sentences that stay as they are keep their evidence.")
        self.editButton.clicked.connect(self._edit)
        self.restoreButton = qt.QPushButton(_("Undo"))
        self.restoreButton.clicked.connect(self._restore)
        self.keepButton = qt.QPushButton(_("Keep changes"))
        self.keepButton.toolTip = _("Take the edited text over; what has changed is recorded.")
        self.keepButton.clicked.connect(self._keep)
        self.discardButton = qt.QPushButton(_("Discard"))
        self.discardButton.toolTip = _("Leave the report as it was.")
        self.discardButton.clicked.connect(self._discard)

    # What the module calls

    def show(self, result: ReportResult, *, key: Any, can_restore: bool) -> None:
        """Show a report.

        Of the report that is shown already, the sentence that was chosen stays chosen where it is still there, and a
        text that is being edited stays open.

        Parameters
        ----------
        result : ReportResult
        key : object
            Tells reports apart.
        can_restore : bool
            Whether there is a state to go back to.
        """
        same = self._result is not None and self._key is key
        chosen, editing = (self.current, self.is_editing) if same else (None, False)
        self._result, self._key = result, key
        self.widget.visible = True
        self.stateLabel.text = state_text(result)
        self.stateLabel.visible = bool(self.stateLabel.text)
        self.restoreButton.enabled = can_restore
        self.restoreButton.toolTip = (
            _("Back to the report as it was before the last run or edit.")
            if can_restore
            else _("There is nothing to undo.")
        )
        struck = sum(not one.shown for section in result.sections for one in section.sentences)
        self.struckBox.text = _("Show struck sentences ({count})").format(count=struck)
        self._fill()
        self._show_editing(editing)
        self.choose(chosen)

    def clear(self) -> None:
        """There is nothing to show."""
        self._result = self._key = None
        self._items = []
        self.list.clear()
        self.editor.clear()
        self.evidenceView.clear()
        self._show_editing(False)
        self.widget.visible = False

    @property
    def current(self) -> Sentence | None:
        """The sentence that is chosen."""
        row = self.list.currentRow
        return self._items[row] if 0 <= row < len(self._items) else None

    @property
    def is_editing(self) -> bool:
        """Whether the text is being edited."""
        return not self.editor.isHidden()

    def choose(self, sentence: Sentence | None) -> None:
        """Choose a sentence without jumping anywhere; None: none."""
        self.list.blockSignals(True)
        self.list.setCurrentRow(self._items.index(sentence) if sentence is not None and sentence in self._items else -1)
        self.list.blockSignals(False)
        self._show_evidence()

    def show_finding(self, row: FindingRow) -> None:
        """Show what a finding rests on, and choose the first sentence that speaks of it alone."""
        if self._result is None:
            return
        speaks = [one for one in self._items if one is not None and row.finding in one.findings and one.shown]
        self.choose(min(speaks, key=lambda one: len(one.findings)) if speaks else None)
        self.evidenceView.setHtml(finding_html(row, self._result))

    # What is shown

    def _fill(self) -> None:
        assert self._result is not None
        self.list.blockSignals(True)
        self.list.clear()
        self._items = []
        for section in self._result.sections:
            sentences = [one for one in section.sentences if one.shown or self.struckBox.checked]
            if sentences:
                self._add(section.title, None)
            for sentence in sentences:
                self._add(_marked(sentence), sentence)
        self.list.blockSignals(False)

    def _add(self, text: str, sentence: Sentence | None) -> None:
        item = qt.QListWidgetItem(text)
        font = qt.QFont(self.list.font)
        if sentence is None:
            font.setBold(True)
            item.setFlags(qt.Qt.ItemIsEnabled)
        else:
            font.setStrikeOut(not sentence.shown)
            color = _color(sentence)
            if color is not None:
                item.setForeground(qt.QBrush(qt.QColor(*color)))
            item.setToolTip(sentence.reason)
        item.setFont(font)
        self.list.addItem(item)
        self._items.append(sentence)

    def _show_evidence(self) -> None:
        sentence = self.current
        if sentence is None or self._result is None:
            self.evidenceView.clear()
        else:
            self.evidenceView.setHtml(sentence_html(sentence, self._result))

    def _show_editing(self, editing: bool) -> None:
        has_struck = self._result is not None and any(
            not one.shown for section in self._result.sections for one in section.sentences
        )
        has_text = self._result is not None and bool(self._result.sections)
        for part in (self.list, self.evidenceView):
            part.visible = not editing and has_text
        self.struckBox.visible = not editing and has_struck
        for part in (self.editButton, self.restoreButton):
            part.visible = not editing
        was_editing = self.is_editing
        for part in (self.editor, self.keepButton, self.discardButton):
            part.visible = editing
        if was_editing != editing:
            self._actions.editing_changed()

    # What the user does

    def _chosen(self, _row: int) -> None:
        self._show_evidence()
        if self.current is not None:
            self._actions.show_sentence(self.current)

    def _struck_toggled(self, _checked: bool) -> None:
        if self._result is not None:
            chosen = self.current
            self._fill()
            self.choose(chosen)

    def _edit(self, _checked: bool = False) -> None:
        if self._result is not None:
            self.editor.setPlainText(shown_text(self._result))
            self._show_editing(True)

    def _keep(self, _checked: bool = False) -> None:
        text = str(self.editor.toPlainText())
        self._show_editing(False)
        self._actions.take_text(text)

    def _discard(self, _checked: bool = False) -> None:
        self._show_editing(False)

    def _restore(self, _checked: bool = False) -> None:
        self._actions.restore()


def state_text(result: ReportResult) -> str:
    """What a reader must know first: whether it is whole, and who changed it."""
    lines = []
    if not result.sections:
        lines.append(_("Only the finding table was asked for; there is no report text."))
    if not result.complete:
        lines.append(f"<b>{_('This report is not complete.')}</b>")
    if result.edits:
        last = result.edits[-1]
        who = last.who or _("somebody")
        text = _("Edited: {count} changes, the last by {who} on {when}.")
        if len(result.edits) == 1:
            text = _("Edited: 1 change, by {who} on {when}.")
        lines.append(text.format(count=len(result.edits), who=escape(who), when=_day(last.when)))
    return "<br>".join(lines)


def _marked(sentence: Sentence) -> str:
    mark = {
        Verdict.ADDED: _("added by the guard"),
        Verdict.EDITED: _("edited"),
        Verdict.STRUCK: _("struck"),
    }.get(sentence.verdict)
    return f"{sentence.text} [{mark}]" if mark else sentence.text


def _color(sentence: Sentence) -> tuple[int, int, int] | None:
    return {Verdict.STRUCK: _STRUCK_RGB, Verdict.ADDED: _ADDED_RGB, Verdict.EDITED: _EDITED_RGB}.get(sentence.verdict)


def _wrapped(text: str = "") -> Any:
    label = qt.QLabel(text)
    label.wordWrap = True
    label.setTextFormat(qt.Qt.RichText)
    return label


def _day(when: str) -> str:
    return f"{when.replace('T', ' ')[:16]} UTC"
