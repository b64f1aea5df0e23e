"""A message within a panel instead of a pop-up window: what happened, why, what you can do."""

from __future__ import annotations

from html import escape

import qt

from MedAILib.errors import MedAIError


class PanelMessage:
    """An icon and a text, hidden while there is nothing to say.

    Attributes
    ----------
    widget : QWidget
    """

    def __init__(self) -> None:
        self.widget = qt.QWidget()
        row = qt.QHBoxLayout(self.widget)
        row.setContentsMargins(0, 0, 0, 0)
        self._icon = qt.QLabel()
        self._text = qt.QLabel()
        self._text.wordWrap = True
        self._text.setTextFormat(qt.Qt.RichText)
        self._text.setTextInteractionFlags(qt.Qt.TextSelectableByMouse)
        row.addWidget(self._icon, 0, qt.Qt.AlignTop)
        row.addWidget(self._text, 1)
        self.clear()

    @property
    def text(self) -> str:
        """The message as plain text, empty while there is none."""
        return self._plain

    def clear(self) -> None:
        self._plain = ""
        self._text.text = ""
        self.widget.visible = False

    def show_error(self, error: MedAIError) -> None:
        """What in bold, why and todo below."""
        self._show(qt.QStyle.SP_MessageBoxWarning, error.what, (error.why, error.todo))

    def show_note(self, text: str) -> None:
        """Sentences that are no error, one a line."""
        self._show(qt.QStyle.SP_MessageBoxInformation, "", tuple(text.splitlines()))

    def _show(self, icon: int, headline: str, others: tuple[str, ...]) -> None:
        self._plain = " ".join(part for part in (headline, *others) if part)
        lines = [f"<b>{escape(headline)}</b>"] if headline else []
        lines += [escape(part) for part in others if part]
        self._text.text = "<br>".join(lines)
        self._icon.setPixmap(self.widget.style().standardIcon(icon).pixmap(20, 20))
        self.widget.visible = True
