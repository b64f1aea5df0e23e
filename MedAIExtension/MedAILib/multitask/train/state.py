"""The state of a training in its folder, from which a run that was ended goes on.

Each state is a folder ``resume/step-<n>`` of weights, optimizer, description and ``progress.json``. It is written
beside and renamed when it is complete, then older ones go: whenever the process ends, one whole state is there.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from MedAILib.atomic import output_error, write_text
from MedAILib.errors import InvalidWeights
from MedAILib.models import resume
from MedAILib.models.checkpoint import load_model_with_config, save_model_with_config
from MedAILib.models.config import ModelConfig
from MedAILib.multitask.train.request import LogRow

if TYPE_CHECKING:
    import torch

    from MedAILib.multitask.network import MultiTaskUNet

FOLDER = "resume"
WEIGHTS = "model.safetensors"
PROGRESS = "progress.json"


@dataclass(frozen=True)
class TrainingState:
    """How far a training has come.

    Attributes
    ----------
    step : int
        Steps done, of all phases.
    settings : mapping
        Of the request and the data: a training goes on only where they are the same.
    log : tuple of LogRow
    sums : mapping of str to tuple of float
        Running sums of the losses since the last line of the log: their sum and their number.
    best : float or None
        Score of the weights that are kept as best; None: none yet.
    seconds : float
    """

    step: int
    settings: Mapping[str, Any]
    log: tuple[LogRow, ...]
    sums: Mapping[str, tuple[float, int]]
    best: float | None
    seconds: float

    @classmethod
    def from_json(cls, text: str) -> TrainingState:
        stored = json.loads(text)
        log = tuple(LogRow(**row) for row in stored.pop("log"))
        sums = {name: (float(total), int(count)) for name, (total, count) in stored.pop("sums").items()}
        return cls(**stored, log=log, sums=sums)


def states(out: Path) -> list[Path]:
    """The states in a training's folder, oldest first."""
    found = [path for path in (out / FOLDER).glob("step-*") if (path / PROGRESS).is_file()]
    return sorted(found, key=lambda path: int(path.name.removeprefix("step-")))


def save_state(
    out: Path, model: MultiTaskUNet, optimizer: torch.optim.Optimizer, config: ModelConfig, progress: TrainingState
) -> None:
    """Write a state, then remove older ones.

    Raises
    ------
    OutputError
        The folder cannot take it; the state before stays.
    """
    home = out / FOLDER
    partial, final = home / f".{os.getpid()}.part", home / f"step-{progress.step:08d}"
    try:
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(parents=True)
        save_model_with_config(model, partial / WEIGHTS, config, optimizer, progress.step)
        write_text(partial / PROGRESS, json.dumps(asdict(progress)))
        if final.exists():
            shutil.rmtree(final)
        partial.replace(final)
    except OSError as error:
        raise output_error(final, error) from error
    for other in home.iterdir():
        if other != final:
            shutil.rmtree(other, ignore_errors=True)


def load_state(state: Path, device: str) -> tuple[MultiTaskUNet, Mapping[str, Any], TrainingState]:
    """Network, the optimizer's state, progress.

    Raises
    ------
    InvalidWeights
        Where the state is damaged.
    """
    from MedAILib.multitask.network import create_multi_task_model

    try:
        progress = TrainingState.from_json((state / PROGRESS).read_text(encoding="utf-8"))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise _damaged(state, f"{PROGRESS}: {error}.") from error
    model, _, checkpoint = load_model_with_config(state / WEIGHTS, create_multi_task_model, device)
    optimizer = checkpoint.optimizer_state_dict
    if optimizer is None:
        raise _damaged(state, "The optimizer's state is missing.")
    return model, optimizer, progress


def check_same(progress: TrainingState, settings: Mapping[str, Any], out: Path) -> None:
    """`InputError` that names every setting in which a request differs from the training it shall go on with."""
    resume.check_same(progress.settings, settings, out)


def write_log(path: Path, log: tuple[LogRow, ...]) -> None:
    """The training log as CSV; raises `OutputError`."""
    resume.write_log(path, LogRow, log)


def _damaged(state: Path, why: str) -> InvalidWeights:
    return InvalidWeights(
        f"The training state '{state}' is damaged.", why=why, todo="Start the training again in another folder."
    )
