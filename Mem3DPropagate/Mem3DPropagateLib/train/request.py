"""What a training of our propagation network is asked, what it writes and what it answers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from MedAILib.errors import InputError

TASK = "Mem3DPropagateLib.train.task:TrainTask"


@dataclass(frozen=True)
class TrainRequest:
    """Train our propagation network.

    Attributes
    ----------
    data : Path
        Manifest of the cases, see `Mem3DPropagateLib.train.subjects.read_subjects`.
    out : Path
        Folder for the network, the log and the state to resume from.
    steps : int
    episodes : int
        Structures per step, six wanted slices each.
    learning_rate : float
        The highest.
    network : mapping
        Arguments of `Mem3DPropagateLib.nets.gapnet.GapNet`.
    shapes : int
        Synthetic volumes of random shapes, beside the data.
    regions : bool
        Also learn from regions of the real images, by watershed and by brightness.
    validation_share : float
        Of the patients, kept apart.
    validation_episodes : int
    validate_every, save_every : int
        Steps.
    seed : int
    half_precision : bool
        Compute in bfloat16, which pays on GPUs and on processors with instructions for it.
    loaders : int
        Processes that prepare episodes beside the training; 0: the training does it itself.
    resume : bool
        Go on from the state in ``out``, which must be of the same request.
    """

    data: Path
    out: Path
    steps: int = 5000
    episodes: int = 5
    learning_rate: float = 2e-3
    network: Mapping[str, Any] = field(default_factory=lambda: {"width": 24, "keys": 32})
    shapes: int = 8
    regions: bool = True
    validation_share: float = 0.12
    validation_episodes: int = 40
    validate_every: int = 200
    save_every: int = 50
    seed: int = 0
    half_precision: bool = False
    loaders: int = 1
    resume: bool = False

    def __post_init__(self) -> None:
        wrong = [
            f"{name.replace('_', ' ')} is {getattr(self, name)}"
            for name in ("steps", "episodes", "validate_every", "save_every")
            if getattr(self, name) < 1
        ]
        if not 0 <= self.validation_share < 1:
            wrong.append(f"the validation share is {self.validation_share}")
        if not 0 < self.learning_rate < 1:
            wrong.append(f"the learning rate is {self.learning_rate}")
        if wrong:
            raise InputError(f"The training cannot be started: {'; '.join(wrong)}.")

    def settings(self) -> dict[str, Any]:
        """All that decides the outcome besides the data, as plain JSON values."""
        without = ("data", "out", "loaders", "resume", "save_every")
        return {name: value for name, value in asdict(self).items() if name not in without}


@dataclass(frozen=True)
class LogRow:
    """One line of the training log: means since the line before, then scores on the validation episodes.

    Attributes
    ----------
    step : int
        Steps done.
    loss : float
    dice, prior_dice : float or None
        Between references, of the answer and of geometry alone; None where nothing is validated.
    far_dice, far_prior_dice : float or None
        The same beyond the last reference, on slices that hold the structure.
    presence : float or None
        Share of the slices beyond the last reference of which the network knows whether they hold the structure.
    quality : float or None
        Correlation of stated with true Dice.
    seconds : float
        Of training so far.
    """

    step: int
    loss: float
    dice: float | None
    prior_dice: float | None
    far_dice: float | None
    far_prior_dice: float | None
    presence: float | None
    quality: float | None
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """A training that ended.

    Attributes
    ----------
    weights : Path
        The averaged weights, float16, with their description beside them.
    log : tuple of LogRow
    train_subjects, validation_subjects : tuple of str
    """

    weights: Path
    log: tuple[LogRow, ...]
    train_subjects: tuple[str, ...]
    validation_subjects: tuple[str, ...]
