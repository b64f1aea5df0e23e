"""Which model does what: for each role a list of models, whether it is here, and the way to get it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import qt
from slicer.i18n import tr as _

from CTReportLib.choices import Choice, Role
from CTReportLib.model_badges import Badge
from MedAILib.ui import choose
from MedAILib.ui.path_line import narrow

Describe = Callable[[Role, str], Badge]
"""From a role and what is chosen for it (id or path; empty: none) to what is to say of it."""


class ModelRows:
    """A combo box and a badge for each role.

    Parameters
    ----------
    changed : callable
        Called with a role and the id or path that was chosen for it; empty: none.
    describe : callable
        See `Describe`.
    get_model : callable
        Called with the id of a model that the user wants to fetch or import.

    Attributes
    ----------
    widget : QWidget
        To be added to the module's layout.
    boxes, badges, getButtons, fileButtons : dict by Role
    """

    def __init__(
        self, changed: Callable[[Role, str], None], describe: Describe, get_model: Callable[[str], None]
    ) -> None:
        self._changed, self._describe, self._get_model = changed, describe, get_model
        self._offered: dict[Role, list[str]] = {role: [""] for role in Role}
        self._wanted: dict[Role, str] = dict.fromkeys(Role, "")
        self.widget = qt.QWidget()
        self.boxes: dict[Role, Any] = {}
        self.badges: dict[Role, Any] = {}
        self.getButtons: dict[Role, Any] = {}
        self.fileButtons: dict[Role, Any] = {}
        form = qt.QFormLayout(self.widget)
        form.setContentsMargins(0, 0, 0, 0)
        for role in Role:
            self._add(form, role)

    def _add(self, form: Any, role: Role) -> None:
        box = qt.QComboBox()
        box.setSizeAdjustPolicy(qt.QComboBox.AdjustToMinimumContentsLengthWithIcon)
        box.setMinimumContentsLength(8)
        box.toolTip = _tip(role)
        box.currentIndexChanged.connect(self._chosen(role))
        file_button = qt.QPushButton("…")
        file_button.toolTip = _("Take a model of your own from a folder or a file.")
        narrow(file_button)
        file_button.setMaximumWidth(file_button.minimumWidth + 8)
        file_button.clicked.connect(self._own(role))
        row = qt.QHBoxLayout()
        row.addWidget(box, 1)
        row.addWidget(file_button)
        badge = qt.QLabel()
        badge.wordWrap = True
        get_button = qt.QPushButton(_("Get…"))
        get_button.toolTip = _("Open this model in the MedAI module, where it can be fetched or imported.")
        get_button.clicked.connect(self._get(role))
        line = qt.QHBoxLayout()
        line.addWidget(badge, 1)
        line.addWidget(get_button)
        column = qt.QVBoxLayout()
        column.addLayout(row)
        column.addLayout(line)
        form.addRow(f"{_caption(role)}:", column)
        self.boxes[role], self.badges[role] = box, badge
        self.getButtons[role], self.fileButtons[role] = get_button, file_button

    # What the module calls

    def show(self, offered: Mapping[Role, Sequence[Choice]], chosen: Mapping[Role, str]) -> None:
        """Offer models and show which are chosen; a chosen one that no catalogue knows is a file of the user's own."""
        for role, box in self.boxes.items():
            wanted = chosen.get(role, "")
            ids = ["", *(one.id for one in offered[role])]
            titles = [_none(role), *(_title(one) for one in offered[role])]
            if wanted not in ids:
                ids.append(wanted)
                titles.append(Path(wanted).name or wanted)
            self._offered[role], self._wanted[role] = ids, wanted
            box.blockSignals(True)
            box.clear()
            for title in titles:
                box.addItem(title)
            box.setCurrentIndex(ids.index(wanted))
            box.blockSignals(False)
            self._show_badge(role)

    # What is shown

    def _show_badge(self, role: Role) -> None:
        badge = self._describe(role, self._wanted[role])
        self.badges[role].text, self.badges[role].toolTip = badge.text, badge.tip
        self.badges[role].visible = bool(badge.text)
        self.getButtons[role].visible = bool(badge.wanted)

    # What the user does

    def _chosen(self, role: Role) -> Callable[[int], None]:
        def chosen(_index: int = 0) -> None:
            index = self.boxes[role].currentIndex  # what the signal brings along depends on the version of Qt
            if 0 <= index < len(self._offered[role]):
                self._choose(role, self._offered[role][index])

        return chosen

    def _choose(self, role: Role, name: str) -> None:
        self._wanted[role] = name
        self._show_badge(role)
        self._changed(role, name)

    def _own(self, role: Role) -> Callable[[], None]:
        def own() -> None:
            if role is Role.LANGUAGE:
                path = choose.folder(self.widget, _("Folder of a language model"), None)
            else:
                kinds = f"{_('Weights')} (*.safetensors *.pth *.pt);;{_('All files')} (*)"
                path = choose.file_to_open(self.widget, _("Weight file of a model"), None, kinds)
            if path is not None:
                self._choose(role, str(path))

        return own

    def _get(self, role: Role) -> Callable[[], None]:
        def get() -> None:
            badge = self._describe(role, self._wanted[role])
            if badge.wanted:
                self._get_model(badge.wanted)

        return get


def _caption(role: Role) -> str:
    return {
        Role.ENCODER: _("Encoder"),
        Role.CLASSIFIER: _("Findings"),
        Role.LOCALIZER: _("Places"),
        Role.LANGUAGE: _("Language"),
    }[role]


def _none(role: Role) -> str:
    return _("none (template)") if role is Role.LANGUAGE else _("none (measured findings)")


def _tip(role: Role) -> str:
    return {
        Role.ENCODER: _("Turns the CT into features. None: findings are measured by rule alone."),
        Role.CLASSIFIER: _("Says from the encoder's features how probable each finding is."),
        Role.LOCALIZER: _("Draws findings on the CT."),
        Role.LANGUAGE: _("Writes the sentences, where that is chosen above."),
    }[role]


def _title(choice: Choice) -> str:
    return choice.title if choice.is_usable else _("{title} (not installed)").format(title=choice.title)
