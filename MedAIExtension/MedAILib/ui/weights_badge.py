"""The state of one model in one line, for the panel of the module that needs it."""

from __future__ import annotations

from collections.abc import Callable

import qt
import slicer
from slicer.i18n import tr as _

from MedAILib.errors import MedAIError
from MedAILib.models.states import Status
from MedAILib.ui.model_store import ModelStore
from MedAILib.ui.model_texts import badge_text, get_obstacle


class WeightsBadge:
    """Title, state, licence and size, and where the model is missing a button that leads to it.

    Parameters
    ----------
    store : ModelStore
    model_id : str
    get : callable, optional
        Called with the id; default: `open_hub`.

    Attributes
    ----------
    widget : QWidget
    status : Status or None
        As of the last `refresh`; None where no catalogue knows the model.
    """

    def __init__(self, store: ModelStore, model_id: str, get: Callable[[str], None] | None = None) -> None:
        self._store = store
        self._get = get or open_hub
        self.model_id = model_id
        self.status: Status | None = None
        self.widget = qt.QWidget()
        row = qt.QHBoxLayout(self.widget)
        row.setContentsMargins(0, 0, 0, 0)
        self.label = qt.QLabel()
        self.label.wordWrap = True
        self.getButton = qt.QPushButton(_("Get…"))
        self.getButton.toolTip = _("Open this model in the MedAI module, where it can be fetched or imported.")
        self.getButton.clicked.connect(self._clicked)
        row.addWidget(self.label, 1)
        row.addWidget(self.getButton)
        self.refresh()

    def refresh(self) -> None:
        """Look again: call it from the module's ``enter``."""
        try:
            entry, self.status = self._store.manager.catalogue.entry(self.model_id), self._look()
        except MedAIError as error:
            self.status = None
            self.label.text, self.label.toolTip = error.what, error.text
            self.getButton.visible = False
            return
        self.label.text = badge_text(entry, self.status)
        self.label.toolTip = self.status.why or entry.summary
        self.getButton.visible = not self.status.is_usable
        self.getButton.text = _("Import…") if get_obstacle(entry, self.status) else _("Get…")

    def _look(self) -> Status:
        return self._store.manager.state(self.model_id)

    def _clicked(self, _checked: bool = False) -> None:
        self._get(self.model_id)


def open_hub(model_id: str) -> None:
    """Switch to the MedAI module with a model selected."""
    slicer.util.selectModule("MedAIExtension")
    slicer.modules.MedAIExtensionWidget.showModel(model_id)
