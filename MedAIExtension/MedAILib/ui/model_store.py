"""The models as Slicer's panels see them: where they lie by the user's choice, and what to ask a worker for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from slicer.i18n import tr as _

from MedAILib.atomic import output_error
from MedAILib.errors import OutputError
from MedAILib.models.catalogue import shipped_catalogues
from MedAILib.models.home import default_home
from MedAILib.models.manage_task import Action, ManageRequest
from MedAILib.models.manager import Manager
from MedAILib.models.network import Network
from MedAILib.ui.run_times import Settings

HOME_KEY = "MedAI/ModelStore"


class ModelStore:
    """One manager for all panels, made when first asked for, and made anew by `refresh`.

    Parameters
    ----------
    settings : QSettings
        Remembers where the models lie; all modules that are given the application's settings agree.
    network : Network, optional
        For downloads; default: as the system says.
    """

    def __init__(self, settings: Settings, network: Network | None = None) -> None:
        self._settings = settings
        self._network = network
        self._manager: Manager | None = None

    @property
    def home(self) -> Path:
        """The user's choice, else ``MEDAI_HOME``, else the operating system's folder for a user's data."""
        chosen = str(self._settings.value(HOME_KEY) or "")
        return Path(chosen) if chosen else default_home()

    def set_home(self, folder: Path | None) -> None:
        """Keep models in another folder from now on; None: the default. What lies in the old one stays there.

        Raises
        ------
        OutputError
            Nothing can be written there; the choice is as before.
        """
        if folder is not None:
            _check_writable(folder)
        self._settings.setValue(HOME_KEY, str(folder.absolute()) if folder is not None else "")
        self.refresh()

    @property
    def manager(self) -> Manager:
        """Looks, and nothing that takes long."""
        if self._manager is None or self._manager.home != self.home:
            self._manager = Manager(self.home, network=self._network)
        return self._manager

    def refresh(self) -> None:
        """Read the catalogues anew."""
        self._manager = None

    def request(
        self, action: Action, model_ids: Sequence[str] = (), path: Path | None = None, accepted: Sequence[str] = ()
    ) -> ManageRequest:
        """What a worker needs to do the same as this process would."""
        return ManageRequest(
            action,
            tuple(model_ids),
            path,
            tuple(accepted),
            home=self.home,
            catalogues=tuple(shipped_catalogues()),
            network=self._network,
        )


def _check_writable(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise output_error(folder, error) from error
    if not os.access(folder, os.W_OK):
        raise OutputError(
            _("Nothing can be written into '{folder}'.").format(folder=folder),
            todo=_("Choose another folder. One that is only read belongs into the variable MEDAI_SHARED_HOME."),
        )
