"""Which engines can run here: models in the store, packages in this Python."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from KneeAnalysisLib.engines import engine_info
from KneeAnalysisLib.segmentation import EngineName
from MedAILib.errors import MedAIError

if TYPE_CHECKING:
    from MedAILib.models.manager import Manager


@dataclass(frozen=True)
class EngineState:
    """Whether an engine can run.

    Attributes
    ----------
    engine : EngineName
    title : str
    missing_models, missing_packages : tuple of str
    why : str
        What is the matter with the first missing model; empty where none is.
    """

    engine: EngineName
    title: str
    missing_models: tuple[str, ...] = ()
    missing_packages: tuple[str, ...] = ()
    why: str = ""

    @property
    def is_ready(self) -> bool:
        return not self.missing_models and not self.missing_packages


def installed_weights(engine: EngineName, manager: Manager | None = None) -> tuple[Path, ...]:
    """The folders of an engine's models in the store; none for the engine ``none``.

    Raises
    ------
    ModelNotInstalled, InvalidWeights, LicenceNotAccepted
        See `MedAILib.models.manager.Manager.path`.
    """
    models = engine_info(engine).models
    if not models:
        return ()
    from MedAILib.models.manager import Manager

    store = manager or Manager()
    return tuple(store.path(model_id) for model_id in models)


def engine_state(engine: EngineName, manager: Manager) -> EngineState:
    """Whether an engine's models and packages are there; looks, and loads nothing."""
    info = engine_info(engine)
    packages = tuple(name for name in info.packages if importlib.util.find_spec(name) is None)
    missing, why = [], ""
    for model_id in info.models:
        try:
            status = manager.state(model_id)
        except MedAIError as error:
            missing.append(model_id)
            why = why or error.what
            continue
        if not status.is_usable:
            missing.append(model_id)
            why = why or status.why
    return EngineState(engine, info.title, tuple(missing), packages, why)
