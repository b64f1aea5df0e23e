"""Which models a report can be made with: those of the catalogues by what they do, their files, what is missing."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from CTReportLib.request import Models
from MedAILib.errors import InputError

if TYPE_CHECKING:
    from MedAILib.models.entries import ModelEntry
    from MedAILib.models.manager import Manager
    from MedAILib.models.states import Status

FEATURE = "ct"
FEATURES_CACHE = Path("cache") / "ct-features"
"""Where an encoder's features are kept, below the folder of the models."""
_WEIGHTS = (".safetensors", ".pt", ".pth")


class Role(Enum):
    """What a model does for a report; the value is the field of `Models`."""

    ENCODER = "encoder"
    CLASSIFIER = "classifier"
    LOCALIZER = "localizer"
    LANGUAGE = "language"


_ARCHITECTURES: Mapping[Role, tuple[str, ...]] = {
    Role.ENCODER: ("rect3d", "primus", "primus-m", "ct_conv"),
    Role.CLASSIFIER: ("ct_prompt_classifier", "ct_linear_probe", "ct_attention_probe", "ct_zero_shot"),
    Role.LOCALIZER: ("ct_text_unet",),
    Role.LANGUAGE: ("ct_language_model", "qwen3.5-primus", "llama", "gemma2", "gemma3", "qwen2", "qwen3", "qwen3.5"),
}
_PACKAGES: Mapping[Role, tuple[str, ...]] = {
    Role.ENCODER: ("torch", "safetensors"),
    Role.CLASSIFIER: ("torch", "safetensors"),
    Role.LOCALIZER: ("torch", "safetensors"),
    Role.LANGUAGE: ("torch", "safetensors", "transformers", "peft"),
}


@dataclass(frozen=True)
class Choice:
    """A model that can be chosen.

    Attributes
    ----------
    id : str
        In the catalogue.
    title : str
    entry : ModelEntry
    status : Status
    """

    id: str
    title: str
    entry: ModelEntry
    status: Status

    @property
    def is_usable(self) -> bool:
        return self.status.is_usable


def role_of(entry: ModelEntry) -> Role | None:
    """What a model does for a report; None where it has no part in one."""
    name = entry.architecture.name
    return next((role for role, known in _ARCHITECTURES.items() if name in known), None)


def choices(manager: Manager, role: Role) -> tuple[Choice, ...]:
    """The models of the catalogues for a role, those that are here first."""
    found = [
        Choice(entry.id, entry.title, entry, status)
        for entry, status in manager.models(feature=FEATURE)
        if role_of(entry) is role
    ]
    return tuple(sorted(found, key=lambda one: (not one.is_usable, one.title.casefold())))


def chosen_models(manager: Manager, chosen: Mapping[Role, str]) -> Models:
    """Models as a request names them.

    Parameters
    ----------
    manager : Manager
    chosen : mapping of Role to str
        Ids of models, or paths of files and folders; empty or missing: none.

    Raises
    ------
    ModelNotInstalled, InvalidWeights, InputError
        A model that is not here, or is not one.
    """
    paths = {role.value: model_path(manager, role, name) for role, name in chosen.items() if name}
    return Models(**paths)


def model_path(manager: Manager, role: Role, name: str) -> Path:
    """The weight file of a model, or the folder of a language model; ``name``: its id, or a path."""
    is_id = name in manager.catalogue
    place = manager.path(name) if is_id else Path(name).expanduser()
    if role is Role.LANGUAGE or place.is_file():
        return place
    if is_id and manager.catalogue.entry(name).files:
        return manager.weights(name)
    if not place.is_dir():
        raise InputError(f"There is no '{place}'.", todo="Choose a model that is installed, or a weight file.")
    return _only_weights(place)


def missing_packages(role: Role) -> tuple[str, ...]:
    """Python packages that models of a role need and that are not installed; none is loaded."""
    return tuple(name for name in _PACKAGES[role] if find_spec(name) is None)


def _only_weights(folder: Path) -> Path:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in _WEIGHTS)
    best = [path for path in files if path.suffix.lower() == _WEIGHTS[0]] or files
    if len(best) != 1:
        raise InputError(
            f"There are {len(best)} weight files in '{folder}'.",
            todo="Choose the file itself.",
        )
    return best[0]
