"""What the panel says of models: whether they can be used here, under which licence, how large, how much memory."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from slicer.i18n import tr as _

from CTReportLib.choices import Choice, Role, choices, missing_packages, model_path
from CTReportLib.language.memory import estimate, size_text
from MedAILib.errors import MedAIError
from MedAILib.models.manager import Manager
from MedAILib.ui.model_texts import licence_word, state_text
from MedAILib.ui.model_texts import size_text as stored_size_text


@dataclass(frozen=True)
class Badge:
    """A model in a line.

    Attributes
    ----------
    text : str
        Empty where there is nothing to say.
    tip : str
    wanted : str
        Id of the model where it must be fetched or imported first.
    """

    text: str = ""
    tip: str = ""
    wanted: str = ""


class ModelBadges:
    """Looks models up where they lie now.

    Parameters
    ----------
    manager : callable
        Answers the manager of the models of this machine.
    device : callable
        Answers where a language model would be loaded: ``cpu``, ``cuda:0``, ``mps``.

    Notes
    -----
    A model is named by its id, or by the path of a file or folder of the user's own.
    """

    def __init__(self, manager: Callable[[], Manager], device: Callable[[], str]) -> None:
        self._manager, self._device = manager, device

    def offered(self) -> dict[Role, tuple[Choice, ...]]:
        """The models of the catalogues by what they do."""
        return {role: choices(self._manager(), role) for role in Role}

    def title(self, name: str) -> str:
        catalogue = self._manager().catalogue
        return catalogue.entry(name).title if name in catalogue else Path(name).name or name

    def obstacle(self, role: Role, name: str) -> str:
        """Why a model cannot be used here; empty where nothing is known against it."""
        manager, title = self._manager(), self.title(name)
        packages = missing_packages(role)
        if packages:
            return _("{model} needs packages: {names}.").format(model=title, names=", ".join(packages))
        if name in manager.catalogue:
            return "" if manager.state(name).is_usable else _("{model} is not installed.").format(model=title)
        return "" if Path(name).exists() else _("There is no '{path}'.").format(path=name)

    def badge(self, role: Role, name: str) -> Badge:
        """State, licence and size of a model; of a language model also the memory it takes."""
        if not name:
            return Badge()
        manager = self._manager()
        parts, tip, wanted = [_("your own: {path}").format(path=Path(name).name)], name, ""
        if name in manager.catalogue:
            entry, status = manager.catalogue.entry(name), manager.state(name)
            parts = [state_text(status.state), licence_word(entry), stored_size_text(entry, status)]
            tip, wanted = status.why or entry.summary, "" if status.is_usable else name
        if wanted:
            return Badge(" · ".join(parts), tip, wanted)
        obstacle = self.obstacle(role, name)
        if role is Role.LANGUAGE and not obstacle:
            short, full = self._memory(name)
            parts, tip = [*parts, short], f"{tip}\n{full}"
        return Badge("\n".join(filter(None, (" · ".join(parts), obstacle))), tip)

    def _memory(self, name: str) -> tuple[str, str]:
        """What loading a language model takes, in short and in full; else what is wrong with its folder."""
        try:
            found = estimate(model_path(self._manager(), Role.LANGUAGE, name), self._device())
        except MedAIError as error:
            return error.what, error.text
        text = _("needs about {size}").format(size=size_text(found.needed_bytes))
        if not found.fits:
            text = _("{needs}, and only {free} are free").format(needs=text, free=size_text(found.free_bytes or 0))
        return text, found.text
