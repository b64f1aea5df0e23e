"""Buttons that write the report as a file, one for each format."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import qt
from slicer.i18n import tr as _

from MedAILib.ui.path_line import narrow

_BUTTONS_A_ROW = 4


class ExportPanel:
    """Offers the formats; those that need a DICOM series only where there is one.

    Parameters
    ----------
    export : callable
        Called with the id of a format.

    Attributes
    ----------
    widget : QWidget
        To be added to the module's layout.
    buttons : dict of str to QPushButton
        By the id of the format.
    """

    def __init__(self, export: Callable[[str], None]) -> None:
        from CTReportLib.documents import KINDS

        self._export = export
        self._kinds = KINDS
        self.widget = qt.QWidget()
        grid = qt.QGridLayout(self.widget)
        grid.setContentsMargins(0, 0, 0, 0)
        self.buttons: dict[str, Any] = {}
        for place, kind in enumerate(KINDS):
            button = qt.QPushButton(_short(kind))
            narrow(button)
            button.clicked.connect(self._pressed(kind))
            grid.addWidget(button, place // _BUTTONS_A_ROW, place % _BUTTONS_A_ROW)
            self.buttons[kind] = button
        self.show(has_report=False, has_source=False, has_masks=False)

    def show(self, *, has_report: bool, has_source: bool, has_masks: bool) -> None:
        """Allow what can be written now."""
        for name, button in self.buttons.items():
            kind = self._kinds[name]
            obstacle = ""
            if not has_report:
                obstacle = _("There is no report yet.")
            elif kind.needs_source and not has_source:
                obstacle = _("Only for a CT that was loaded from Slicer's DICOM database.")
            elif name in ("seg", "nii") and not has_masks:
                obstacle = _("There are no segments.")
            button.enabled = not obstacle
            button.toolTip = "\n".join(filter(None, (f"{kind.title}…", obstacle)))

    def _pressed(self, kind: str) -> Callable[[], None]:
        return lambda: self._export(kind)


def _short(kind: str) -> str:
    texts: Mapping[str, str] = {
        "sr": _("DICOM SR"),
        "seg": _("DICOM SEG"),
        "nii": _("NIfTI"),
        "docx": _("Word"),
    }
    return texts.get(kind, kind.upper())
