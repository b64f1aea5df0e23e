"""A path to read, to copy and to open."""

from __future__ import annotations

from pathlib import Path

import qt
from slicer.i18n import tr as _

_TEXT_MARGIN_PX = 14


class PathLine:
    """A line that shows a path, with Copy and Open.

    Parameters
    ----------
    meaning : str
        For the tooltip.

    Attributes
    ----------
    widget : QWidget
    row : QHBoxLayout
        To add buttons to.
    """

    def __init__(self, meaning: str) -> None:
        self._meaning = meaning
        self._path: Path | None = None
        self.widget = qt.QWidget()
        self.row = qt.QHBoxLayout(self.widget)
        self.row.setContentsMargins(0, 0, 0, 0)
        self.line = qt.QLineEdit()
        self.line.readOnly = True
        self.copyButton = qt.QPushButton(_("Copy"))
        self.copyButton.clicked.connect(self._copy)
        self.openButton = qt.QPushButton(_("Open"))
        self.openButton.toolTip = _("Show the folder in the file browser.")
        self.openButton.clicked.connect(self._open)
        self.row.addWidget(self.line, 1)
        for button in (self.copyButton, self.openButton):
            narrow(button)
            button.setMaximumWidth(button.minimumWidth + 8)
            self.row.addWidget(button)
        self.show(None)

    def show(self, path: Path | None) -> None:
        """Show a path; None: there is none."""
        self._path = path
        self.line.text = str(path) if path is not None else ""
        self.line.placeholderText = _("not here")
        self.line.toolTip = "\n".join(filter(None, (self._meaning, self.line.text)))
        self.copyButton.enabled = path is not None
        self.openButton.enabled = path is not None and path.is_dir()

    def _copy(self, _checked: bool = False) -> None:
        qt.QApplication.clipboard().setText(str(self._path or ""))

    def _open(self, _checked: bool = False) -> None:
        qt.QDesktopServices.openUrl(qt.QUrl.fromLocalFile(str(self._path)))


def narrow(button: qt.QPushButton) -> None:
    """Let a button become as narrow as its text; styles keep a minimum that a narrow panel has no room for."""
    button.setMinimumWidth(button.fontMetrics().horizontalAdvance(button.text) + _TEXT_MARGIN_PX)
