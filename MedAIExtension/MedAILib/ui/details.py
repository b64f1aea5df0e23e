"""A long text behind a closed section, with a button that copies it."""

from __future__ import annotations

import ctk
import qt
from slicer.i18n import tr as _

MAXIMUM_LINES = 2000


class Details:
    """A log that is there when it is needed.

    Parameters
    ----------
    title : str
    intro : str
        Put before the text when it is copied, such as versions.

    Attributes
    ----------
    widget : ctkCollapsibleButton
    """

    def __init__(self, title: str, intro: str = "") -> None:
        self._intro = intro
        self.widget = ctk.ctkCollapsibleButton()
        self.widget.text = title
        self.widget.collapsed = True
        column = qt.QVBoxLayout(self.widget)
        self._text = qt.QPlainTextEdit()
        self._text.readOnly = True
        self._text.setMaximumBlockCount(MAXIMUM_LINES)
        self._text.setMinimumHeight(120)
        self.copyButton = qt.QPushButton(_("Copy"))
        self.copyButton.toolTip = _("Copy this text to the clipboard, for a report of a problem.")
        self.copyButton.clicked.connect(self.copy)
        column.addWidget(self._text)
        column.addWidget(self.copyButton)

    @property
    def text(self) -> str:
        return str(self._text.toPlainText())

    def add(self, line: str) -> None:
        """Add a line or several at the end."""
        self._text.appendPlainText(line)

    def replace(self, text: str) -> None:
        self._text.setPlainText(text)

    def clear(self) -> None:
        self._text.clear()

    def copy(self) -> None:
        qt.QApplication.clipboard().setText("\n".join(part for part in (self._intro, self.text) if part))
