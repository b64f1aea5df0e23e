"""The state of a training in its folder, from which a run that was ended goes on.

One file, replaced whole: whenever the process ends, one whole state is there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from MedAILib.models import resume
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
    plain = {name: getattr(state, name) for name in _PLAIN} | {"log": [asdict(row) for row in state.log]}
    resume.save_state(folder / STATE_FILE, plain, {name: getattr(state, name) for name in _TENSORS})


def load_state(folder: Path, device: str) -> TrainingState | None:
    """The state in a folder; None where there is none; raises `InvalidWeights` where it is damaged."""
    path = folder / STATE_FILE
    found = resume.load_state(path, device)
    if found is None:
        return None
    plain, stored = found
    try:
        log = tuple(LogRow(**row) for row in plain.pop("log"))
        losses = tuple(plain.pop("losses"))
        return TrainingState(**plain, log=log, losses=losses, **{name: stored[name] for name in _TENSORS})
    except (ValueError, KeyError, TypeError) as error:
        raise resume.damaged(path, error) from error


def check_same(state: TrainingState, settings: Mapping[str, Any], folder: Path) -> None:
    """`InputError` that names every setting in which a request differs from the training it shall go on with."""
    resume.check_same(state.settings, settings, folder)


def write_log(folder: Path, log: tuple[LogRow, ...]) -> None:
    """The training log as CSV; raises `OutputError`."""
    resume.write_log(folder / LOG_FILE, LogRow, log)
