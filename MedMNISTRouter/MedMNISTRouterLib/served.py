"""From a slot to what answers for it: the model found, converted where it must be, and how it is loaded."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from MedAILib.errors import InvalidWeights
from MedAILib.filekind import open_error
from MedAILib.models.config import CONFIG_FILE, ModelConfig
from MedAILib.models.heads import Head, Input
from MedAILib.models.home import default_home
from MedMNISTRouterLib import kerasmodel, session
from MedMNISTRouterLib.conversion import Converter
from MedMNISTRouterLib.gate import MahalanobisGate
from MedMNISTRouterLib.modelfolder import ModelFolder, read_model_folder
from MedMNISTRouterLib.request import ROUTER, Engine, ModelUsed
from MedMNISTRouterLib.slots import SLOTS, Slots

LoadedModel = session.OnnxModel | kerasmodel.KerasModel


@dataclass(frozen=True, eq=False)
class Served:
    """A model that can answer.

    Attributes
    ----------
    config : ModelConfig
    gate : MahalanobisGate, optional
    used : ModelUsed
    key : str
        Of the loaded model in the cache.
    expected_bytes : int
    load : callable
    folder : Path, optional
        Of the model; None where Keras itself answers.
    warnings : tuple of str
    """

    config: ModelConfig
    gate: MahalanobisGate | None
    used: ModelUsed
    key: str
    expected_bytes: int
    load: Callable[[], LoadedModel]
    folder: Path | None = None
    warnings: tuple[str, ...] = ()

    @property
    def head(self) -> Head:
        return self.config.heads[0]

    @property
    def wanted(self) -> Input:
        return self.config.inputs[0]

    @property
    def threshold(self) -> float | None:
        """Largest distance that the gate accepts; None where there is no gate."""
        return self.config.gate.threshold if self.config.gate is not None and self.gate is not None else None

    @property
    def least_confidence(self) -> float:
        return self.config.gate.least_confidence if self.config.gate is not None else 0.0


class Server:
    """Finds what serves a slot, and remembers it until a file changes.

    Parameters
    ----------
    slots : Slots
    threads : int
    """

    def __init__(self, slots: Slots, threads: int) -> None:
        self.slots = slots
        self._threads = threads
        self._converter = Converter(_place_to_write(slots.home), threads)
        self._known: dict[str, tuple[tuple[object, ...], Served]] = {}
        self._finding = {slot: threading.Lock() for slot in SLOTS}

    def serve(
        self, slot: str, pictures: Sequence[np.ndarray] = (), on_stage: Callable[[str], None] = lambda text: None
    ) -> Served:
        """What answers for a slot; of several threads that ask for the same one, one finds it.

        Parameters
        ----------
        slot : str
        pictures : sequence of ndarray, uint8
            Real pictures, for comparing answers where a Keras file is converted now.
        on_stage : callable
            As of `MedMNISTRouterLib.conversion.Converter.convert`.

        Raises
        ------
        ModelNotInstalled, InvalidWeights, MissingPackage, FileMissing, UnreadableFile, OutputError
        """
        with self._finding[slot]:
            try:
                return self._serve(slot, pictures, on_stage)
            except OSError as error:  # a file went away while it was looked at
                raise open_error(self.slots.home, error) from error

    def _serve(self, slot: str, pictures: Sequence[np.ndarray], on_stage: Callable[[str], None]) -> Served:
        source = self.slots.find(slot).require()
        mark = _mark(source)
        known = self._known.get(slot)
        if known is not None and known[0] == mark:
            return known[1]
        served = self._of_folder(slot, source) if source.is_dir() else self._of_keras(slot, source, pictures, on_stage)
        _check_head(slot, served)
        self._known[slot] = (_mark(source), served)
        return served

    def _of_folder(self, slot: str, folder: Path) -> Served:
        model = read_model_folder(folder)
        used = ModelUsed(slot, model.config.id, model.sha256, Engine.ONNX)
        return self._served(model, used, ())

    def _of_keras(
        self, slot: str, path: Path, pictures: Sequence[np.ndarray], on_stage: Callable[[str], None]
    ) -> Served:
        found = self._converter.convert(path, slot, pictures, on_stage)
        name = self.slots.find(slot).model_id or path.name
        if found.model is not None:
            return self._served(found.model, ModelUsed(slot, name, found.sha256, Engine.ONNX), found.warnings)
        used = ModelUsed(slot, name, found.sha256, Engine.TENSORFLOW, f"Not converted to ONNX: {found.why_not}.")
        size = path.stat().st_size * kerasmodel.MEMORY_PER_FILE_BYTE + kerasmodel.MEMORY_OF_TENSORFLOW
        threads = self._threads
        return Served(
            found.config,
            None,
            used,
            f"{slot}-{found.sha256[:12]}",
            size,
            lambda: kerasmodel.KerasModel(path, threads),
            warnings=found.warnings,
        )

    def _served(self, model: ModelFolder, used: ModelUsed, warnings: tuple[str, ...]) -> Served:
        size = int(model.graph.stat().st_size * session.MEMORY_PER_FILE_BYTE) + session.MEMORY_OF_A_SESSION
        threads = self._threads
        return Served(
            model.config,
            model.gate,
            used,
            f"{used.slot}-{model.sha256[:12]}",
            size,
            lambda: session.OnnxModel(model.graph, threads),
            model.folder,
            warnings,
        )


def _mark(source: Path) -> tuple[object, ...]:
    """What changes when a model does: path, sizes and times of its files."""
    files = sorted(source.iterdir()) if source.is_dir() else [source, *source.parent.glob(f"*{CONFIG_FILE}")]
    stats = [(file.name, file.stat()) for file in files]
    return (str(source), *((name, stat.st_size, stat.st_mtime_ns) for name, stat in stats))


def _check_head(slot: str, served: Served) -> None:
    """An expert must know the classes of its data set, whatever its description says."""
    from MedMNISTRouterLib.describe import slot_head

    if slot == ROUTER:
        return
    expected = slot_head(slot)
    if served.head.task is not expected.task or len(served.head.classes) != len(expected.classes):
        raise InvalidWeights(
            f"'{served.used.id}' is no model for {slot}.",
            why=f"It is {served.head.task.value} with {len(served.head.classes)} classes; {slot} is "
            f"{expected.task.value} with {len(expected.classes)}.",
            todo="Install the model that belongs there.",
        )


def _place_to_write(home: Path) -> Path:
    """The store, or the user's own where that may not be written."""
    nearest = next(folder for folder in (home, *home.parents) if folder.exists())
    return home if os.access(nearest, os.W_OK) else default_home()
