"""What a training is asked and what it answers: plain values."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from MedAILib.errors import InputError
from MedAILib.models.heads import Normalisation, NormalisationKind
from MedAILib.models.records import record_to_json

TASK = "MedAILib.multitask.train.task:TrainTask"


class PhaseKind(Enum):
    """What learns, and from what."""

    SEG = "seg"
    """Encoder and decoder, from masks."""
    CLS = "cls"
    """The classification head alone, from whether a slice shows a tumour; all else is frozen."""
    JOINT = "joint"
    """Everything, from both."""


@dataclass(frozen=True)
class Phase:
    """A stretch of training.

    Attributes
    ----------
    kind : PhaseKind
    steps : int
        Batches.
    learning_rate : float
        Highest; it rises over the first twentieth of the steps and falls along a cosine.
    """

    kind: PhaseKind
    steps: int
    learning_rate: float

    def __post_init__(self) -> None:
        if self.steps < 1 or self.learning_rate <= 0:
            raise InputError(
                f"A training phase of {self.steps} steps at the learning rate {self.learning_rate} is not possible."
            )


USUAL_RATE = {PhaseKind.SEG: 1e-3, PhaseKind.CLS: 1e-3, PhaseKind.JOINT: 3e-4}
USUAL_PHASES = (
    Phase(PhaseKind.SEG, 1500, USUAL_RATE[PhaseKind.SEG]),
    Phase(PhaseKind.CLS, 500, USUAL_RATE[PhaseKind.CLS]),
    Phase(PhaseKind.JOINT, 1500, USUAL_RATE[PhaseKind.JOINT]),
)


def phases_from_text(text: str) -> tuple[Phase, ...]:
    """``seg:400,cls:100,joint:400:1e-4``: kind, steps, and a learning rate where it is not the usual one.

    Raises
    ------
    InputError
    """
    try:
        parts = [part.split(":") for part in text.split(",")]
        phases = []
        for kind_name, steps, *rate in parts:
            kind = PhaseKind(kind_name.strip())
            (learning_rate,) = [float(value) for value in rate] or [USUAL_RATE[kind]]
            phases.append(Phase(kind, int(steps), learning_rate))
    except ValueError as error:
        raise InputError(
            f"'{text}' is not a list of training phases.",
            why=f"{str(error)[:1].upper()}{str(error)[1:]}.",
            todo="Write kind:steps or kind:steps:rate, with commas between, such as seg:400,cls:100,joint:400:1e-4.",
        ) from error
    return tuple(phases)


@dataclass(frozen=True)
class TrainRequest:
    """Train a network.

    Attributes
    ----------
    data : Path
        A folder of cases or a manifest, see `MedAILib.multitask.train.cases`.
    out : Path
        Folder for the model, the log and the state to resume from.
    phases : tuple of Phase
    network : mapping of str to int, float or bool
        Arguments of `MedAILib.multitask.network.create_multi_task_model`; one channel, one segment, two classes.
    size : int
        Rows and columns of the network's input.
    keep_aspect : bool
    normalisation : Normalisation
    orientation : str
        Plane of the slices: axial, coronal, sagittal, or an axis code.
    modality : str
        DICOM's word, for the model's description.
    batch_size : int
    augment : bool
        Flip, turn, scale, shift and change the contrast of slices at random.
    validation_fraction : float
        Share of the patients that is kept apart.
    validate_every, save_every : int
        Steps.
    seed : int
    resume : bool
        Go on from the state in ``out``, which must be of the same request.
    """

    data: Path
    out: Path
    phases: tuple[Phase, ...] = USUAL_PHASES
    network: Mapping[str, Any] = field(
        default_factory=lambda: {"base_filters": 32, "depth": 4, "cls_hidden_dim": 64, "bilinear": True}
    )
    size: int = 256
    keep_aspect: bool = False
    normalisation: Normalisation = field(default_factory=lambda: Normalisation(NormalisationKind.Z_SCORE))
    orientation: str = "axial"
    modality: str = "MR"
    batch_size: int = 8
    augment: bool = True
    validation_fraction: float = 0.2
    validate_every: int = 50
    save_every: int = 50
    seed: int = 0
    resume: bool = False

    def __post_init__(self) -> None:
        wrong = []
        if not self.phases:
            wrong.append("there is no phase")
        for name in ("size", "batch_size", "validate_every", "save_every"):
            if getattr(self, name) < 1:
                wrong.append(f"{name.replace('_', ' ')} is {getattr(self, name)}")
        if not 0 <= self.validation_fraction < 1:
            wrong.append(f"the validation fraction is {self.validation_fraction}")
        if self.batch_size < 2:
            wrong.append("a batch needs at least 2 slices, one with and one without a tumour")
        if wrong:
            raise InputError(f"The training cannot be started: {'; '.join(wrong)}.")

    @property
    def steps(self) -> int:
        """Of all phases."""
        return sum(phase.steps for phase in self.phases)

    def settings(self) -> dict[str, Any]:
        """All that decides the outcome besides the data, as plain JSON values."""
        plain = {
            name: getattr(self, name)
            for name in (
                "size", "keep_aspect", "orientation", "modality", "batch_size", "augment", "validation_fraction",
                "validate_every", "seed",
            )
        }  # fmt: skip
        phases = [{**asdict(phase), "kind": phase.kind.value} for phase in self.phases]
        normalisation = record_to_json(self.normalisation)
        return {**plain, "phases": phases, "network": dict(self.network), "normalisation": normalisation}


def fingerprint(settings: Mapping[str, Any]) -> str:
    """A short text that differs where the settings do."""
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class LogRow:
    """One line of the training log.

    Attributes
    ----------
    step : int
        Of the whole training, from 1.
    phase : str
    learning_rate : float
    loss, seg_loss, cls_loss : float or None
        Means over the steps since the line before; None where the phase has no such part.
    val_dice : float or None
        Mean over the validation slices with a tumour, at probability 0.5.
    val_auc, val_accuracy : float or None
        Of whether a slice shows a tumour; accuracy at probability 0.5.
    seconds : float
        Of training so far.
    """

    step: int
    phase: str
    learning_rate: float
    loss: float
    seg_loss: float | None
    cls_loss: float | None
    val_dice: float | None
    val_auc: float | None
    val_accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """A training that ended.

    Attributes
    ----------
    checkpoint : Path
        The weights, with the description beside them.
    log : tuple of LogRow
    train_patients, validation_patients : tuple of str
    train_slices, train_tumor_slices : int
    metrics : mapping of str to float
        On the validation slices, of the weights that were kept.
    classification_threshold, temperature : float or None
        Fitted on the validation slices; None where there are none.
    warnings : tuple of str
    """

    checkpoint: Path
    log: tuple[LogRow, ...]
    train_patients: tuple[str, ...]
    validation_patients: tuple[str, ...]
    train_slices: int
    train_tumor_slices: int
    metrics: Mapping[str, float]
    classification_threshold: float | None
    temperature: float | None
    warnings: tuple[str, ...] = ()
