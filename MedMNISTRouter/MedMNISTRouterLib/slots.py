"""The router's thirteen places for models, and what is in them on this machine.

For each slot the first of these counts: a model named in the request; a Keras file, in a plain folder or imported
through the weights manager; a model that the user trained here; one that comes with the extension.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from pathlib import Path

from MedAILib.errors import FileMissing, InputError, InvalidWeights, ModelNotInstalled
from MedAILib.models.catalogue import Catalogue
from MedAILib.models.config import CONFIG_FILE
from MedAILib.models.entries import ModelEntry
from MedAILib.models.home import default_home
from MedAILib.models.manager import Manager
from MedAILib.models.states import State
from MedMNISTRouterLib.datasets import BY_FLAG, FLAGS, ROUTER_KERAS_FILE
from MedMNISTRouterLib.describe import SLOT
from MedMNISTRouterLib.kerascheck import check_keras_file
from MedMNISTRouterLib.modelfolder import FAMILY
from MedMNISTRouterLib.request import ROUTER, ModelChoice

SLOTS = (ROUTER, *FLAGS)
TRAINED = "trained"
CATALOGUE_FILE = Path(__file__).with_name("models.json")


class SlotKind(Enum):
    """Where a slot's model comes from; the value is what to call it."""

    CHOSEN = "chosen"
    KERAS = "Keras file"
    TRAINED = "trained here"
    EMBEDDED = "comes with the extension"
    MISSING = "not installed"
    INVALID = "invalid"


@dataclass(frozen=True)
class SlotState:
    """A slot and what is in it.

    Attributes
    ----------
    slot : str
    title : str
        For people: ``router``, ``BloodMNIST``.
    kind : SlotKind
    source : Path, optional
        A ``.keras`` file or a model folder; None where there is none.
    model_id : str
        Of the catalogue; empty for one that is not in it.
    file_name : str
        What a Keras file for this slot is called.
    train_to : Path
        Where a model that is trained here belongs.
    why : str
        Why it is invalid; empty otherwise.
    """

    slot: str
    title: str
    kind: SlotKind
    source: Path | None
    model_id: str
    file_name: str
    train_to: Path
    why: str = ""

    @property
    def is_usable(self) -> bool:
        return self.source is not None

    @property
    def how_to_get(self) -> str:
        """What to do about a missing model."""
        train = "router --data FOLDER" if self.slot == ROUTER else f"expert --data {self.slot}.npz"
        return (
            f"Import your file: medai models import {self.file_name} --as {keras_id(self.slot)}, "
            f"or train one: medai train {train} --out '{self.train_to}'"
        )

    def require(self) -> Path:
        """Where the model lies.

        Raises
        ------
        ModelNotInstalled, InvalidWeights
        """
        if self.source is not None:
            return self.source
        if self.kind is SlotKind.INVALID:
            raise InvalidWeights(f"The model for '{self.slot}' cannot be used.", why=self.why, todo=self.how_to_get)
        what = "The router's weights" if self.slot == ROUTER else f"The weights of the expert for {self.title}"
        raise ModelNotInstalled(f"{what} ('{self.file_name}') are not installed.", todo=f"{self.how_to_get}.")


class Slots:
    """The slots of one store.

    Parameters
    ----------
    models_folder : Path, optional
        A store of the weights manager, or a plain folder with Keras files. Default: the user's store.
    choices : sequence of ModelChoice
        Models that count whatever is installed.

    Attributes
    ----------
    home : Path
        The store; a plain folder with Keras files is taken for one, and converted models are kept there.
    """

    def __init__(self, models_folder: Path | None = None, choices: Sequence[ModelChoice] = ()) -> None:
        self.home = (models_folder or default_home()).expanduser().absolute()
        unknown = [choice.slot for choice in choices if choice.slot not in SLOTS]
        if unknown:
            raise InputError(f"There is no slot '{unknown[0]}'.", todo=f"Slots are: {', '.join(SLOTS)}.")
        self._choices = {choice.slot: choice.path for choice in choices}

    @cached_property
    def _manager(self) -> Manager:
        return Manager(self.home, catalogue=Catalogue([CATALOGUE_FILE]))

    def all(self) -> tuple[SlotState, ...]:
        """Every slot, the router first, then the experts by flag."""
        return tuple(self.find(slot) for slot in SLOTS)

    def find(self, slot: str) -> SlotState:
        """What is in a slot; `InputError` where there is no such slot."""
        if slot not in SLOTS:
            raise InputError(f"There is no slot '{slot}'.", todo=f"Slots are: {', '.join(SLOTS)}.")
        for look in (self._chosen, self._keras, self._trained, self._embedded):
            found = look(slot)
            if found is not None:
                return found
        return self._state(slot, SlotKind.MISSING, None)

    def _chosen(self, slot: str) -> SlotState | None:
        path = self._choices.get(slot)
        if path is None:
            return None
        if not path.exists():
            raise FileMissing(f"There is no model '{path}'.", why=f"It was chosen for '{slot}'.")
        return self._state(slot, SlotKind.CHOSEN, path)

    def _keras(self, slot: str) -> SlotState | None:
        plain = self.home / keras_file(slot)
        if plain.is_file():
            return self._state(slot, SlotKind.KERAS, plain)
        status = self._manager.state(keras_id(slot))
        if status.state is State.INVALID:
            return self._state(slot, SlotKind.INVALID, None, keras_id(slot), status.why)
        if not status.is_usable or status.folder is None:
            return None
        return self._state(slot, SlotKind.KERAS, status.folder / keras_file(slot), keras_id(slot))

    def _trained(self, slot: str) -> SlotState | None:
        folder = trained_folder(self.home, slot)
        return self._state(slot, SlotKind.TRAINED, folder) if (folder / CONFIG_FILE).is_file() else None

    def _embedded(self, slot: str) -> SlotState | None:
        for entry in self._manager.catalogue:
            if _is_embedded_for(entry, slot):
                status = self._manager.state(entry.id)
                if status.is_usable and status.folder is not None:
                    return self._state(slot, SlotKind.EMBEDDED, status.folder, entry.id)
                return self._state(slot, SlotKind.INVALID, None, entry.id, status.why)
        return None

    def _state(self, slot: str, kind: SlotKind, source: Path | None, model_id: str = "", why: str = "") -> SlotState:
        title = "router" if slot == ROUTER else BY_FLAG[slot].title
        return SlotState(slot, title, kind, source, model_id, keras_file(slot), trained_folder(self.home, slot), why)

    def import_models(self, path: Path) -> tuple[str, ...]:
        """Take Keras files into the store through the weights manager.

        Parameters
        ----------
        path : Path
            One of the files, or a folder with some of them, by their names.

        Returns
        -------
        tuple of str
            Slots that were filled.

        Raises
        ------
        InputError
            None of them is there.
        InvalidWeights
            A file is not safe or does not fit its slot; nothing of it is taken.
        FileMissing, OutputError
        """
        if not path.exists():
            raise FileMissing(f"There is no file or folder '{path}'.", todo="Check the path.")
        files = [(slot, path / keras_file(slot)) for slot in SLOTS] if path.is_dir() else [(_slot_of(path), path)]
        there = [(slot, file) for slot, file in files if file.is_file()]
        if not there:
            raise InputError(
                f"'{path}' holds none of the router's models.",
                todo=f"They are called '{ROUTER_KERAS_FILE}' and 'stage2_<data set>_final.keras'.",
            )
        for slot, file in there:
            check_keras_file(file, slot)
        for slot, file in there:
            self._manager.import_(file, as_model=keras_id(slot))
        return tuple(slot for slot, _ in there)


def keras_file(slot: str) -> str:
    """What a Keras file for a slot is called."""
    return ROUTER_KERAS_FILE if slot == ROUTER else BY_FLAG[slot].keras_file


def keras_id(slot: str) -> str:
    """The catalogue's id of a slot's Keras file."""
    return f"medmnist-{slot}-keras"


def trained_folder(home: Path, slot: str) -> Path:
    """Where a model that the user trained for a slot lies."""
    return home / TRAINED / slot


def _is_embedded_for(entry: ModelEntry, slot: str) -> bool:
    return entry.is_embedded and entry.family == FAMILY and entry.architecture.parameters.get(SLOT) == slot


def _slot_of(path: Path) -> str:
    for slot in SLOTS:
        if path.name.casefold() == keras_file(slot):
            return slot
    raise InputError(
        f"'{path.name}' is none of the names of the router's models.",
        todo=f"Rename it as what it is: '{ROUTER_KERAS_FILE}' or 'stage2_<data set>_final.keras'.",
    )
