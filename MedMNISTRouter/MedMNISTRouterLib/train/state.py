"""The state of a training in its folder, from which a run that was ended goes on.

One file, replaced whole: whenever the process ends, one whole state is there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

from MedAILib.atomic import replacing, write_text
from MedAILib.errors import InputError, InvalidWeights
from MedMNISTRouterLib.train.request import LogRow

STATE_FILE = "training.pt"
LOG_FILE = "log.csv"


@dataclass(frozen=True, eq=False)
class TrainingState:
    """How far a training has come.

    Attributes
    ----------
    step : int
        Steps done.
    settings : mapping
        Of the request and the data: a training goes on only where they are the same.
    log : tuple of LogRow
    losses : tuple of float
        Of the steps of the epoch that is not finished.
    seconds, cpu_seconds : float
    network, average, optimizer : mapping
        States by torch's names.
    """

    step: int
    settings: Mapping[str, Any]
    log: tuple[LogRow, ...]
    losses: tuple[float, ...]
    seconds: float
    cpu_seconds: float
    network: Mapping[str, Any]
    average: Mapping[str, Any]
    optimizer: Mapping[str, Any]


_PLAIN = ("step", "settings", "losses", "seconds", "cpu_seconds")
_TENSORS = ("network", "average", "optimizer")


def save_state(folder: Path, state: TrainingState) -> None:
    """Replace the state in a folder; raises `OutputError`."""
    import torch

    plain = {name: getattr(state, name) for name in _PLAIN} | {"log": [asdict(row) for row in state.log]}
    with replacing(folder / STATE_FILE) as partial:
        torch.save({"plain": json.dumps(plain)} | {name: getattr(state, name) for name in _TENSORS}, partial)


def load_state(folder: Path, device: str) -> TrainingState | None:
    """The state in a folder; None where there is none.

    Raises
    ------
    InvalidWeights
        It is damaged.
    """
    import pickle

    import torch

    path = folder / STATE_FILE
    if not path.is_file():
        return None
    try:
        stored = torch.load(path, map_location=device, weights_only=True)
        plain = json.loads(stored["plain"])
        log = tuple(LogRow(**row) for row in plain.pop("log"))
        losses = tuple(plain.pop("losses"))
        return TrainingState(**plain, log=log, losses=losses, **{name: stored[name] for name in _TENSORS})
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, pickle.UnpicklingError) as error:
        raise InvalidWeights(
            f"The training state '{path}' is damaged.",
            why=f"{error}.",
            todo="Start the training again in another folder.",
        ) from error


def check_same(state: TrainingState, settings: Mapping[str, Any], folder: Path) -> None:
    """`InputError` that names every setting in which a request differs from the training it shall go on with."""
    wanted = json.loads(json.dumps(settings))
    names = sorted(name for name in {*wanted, *state.settings} if wanted.get(name) != state.settings.get(name))
    if names:
        raise InputError(
            f"The training in '{folder}' cannot be resumed: it was begun with other settings.",
            why=f"These differ: {', '.join(names)}.",
            todo="Give the same settings and data as before, or another folder.",
        )


def write_log(folder: Path, log: tuple[LogRow, ...]) -> None:
    """The training log as CSV; raises `OutputError`."""
    names = [field.name for field in fields(LogRow)]
    lines = [",".join(names), *(",".join(_cell(getattr(row, name)) for name in names) for row in log)]
    write_text(folder / LOG_FILE, "\n".join(lines) + "\n")


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
