"""What a training of a router or an expert is asked and what it answers: plain values."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from MedAILib.errors import InputError

TASK = "MedMNISTRouterLib.train.task:TrainTask"
"""Name of the task that carries out a `TrainRequest`, as runners know it."""

SMALLEST_SIZE, LARGEST_SIZE = 28, 224


class Kind(Enum):
    """What is trained."""

    ROUTER = "router"
    EXPERT = "expert"


class NetworkSize(Enum):
    """How large a network."""

    SMALL = "small"
    """Three stages of 16, 32 and 64 channels, one residual block each: 77,000 parameters, 0.3 MB."""
    RESNET18 = "resnet18"
    """Four stages of 64 to 512 channels, two blocks each: 11 million parameters, 45 MB."""


class Recipe(Enum):
    """How it is taught."""

    SHORT = "short"
    """For few epochs: AdamW 1e-3 falling along a cosine, augmentation, classes of a binary task drawn equally often,
    the weights' moving average is kept."""
    PUBLISHED = "published"
    """As MedMNIST's authors: Adam 1e-3, a tenth of it from half and from three quarters of the epochs, no
    augmentation, the last weights are kept."""


PUBLISHED_EPOCHS = 100
PUBLISHED_BATCH = 128
SHORT_STEPS = 750
"""Steps that a short training takes where no number of epochs was asked for, within the bounds below."""
FEWEST_EPOCHS, MOST_EPOCHS = 5, 60
SMALLEST_BATCH, STEPS_AN_EPOCH = 16, 20
"""Of a short training: batches shrink where there are too few images for so many steps an epoch."""


@dataclass(frozen=True)
class TrainRequest:
    """Train a router or an expert.

    Attributes
    ----------
    kind : Kind
    data : tuple of Path
        Expert: one ``.npz``. Router: ``.npz`` files named as MedMNIST names them, folders of such, or one plan, see
        `MedMNISTRouterLib.train.plan`.
    out : Path
        Folder for the model, its log, and the state to resume from.
    flag : str
        Expert: the data set. Empty: as the file's name says.
    size : int, optional
        Edge of the network's input in pixels. None: that of the images (the smallest one for a router).
    network : NetworkSize
    recipe : Recipe
    epochs : int, optional
        None: 100 of the published recipe, else `SHORT_STEPS` of the images there are.
    batch_size : int, optional
        None: 128, and fewer of the short recipe where there are few images.
    most_per_class : int, optional
        Router: at most so many training images of each class. None: all.
    acceptance : float
        Share of the validation images that the gate accepts.
    keras : bool
        Also write a Keras file.
    origin : str
        Where the images come from, for the model card; empty: what is known of the data set.
    seed : int
    save_every_s : float
        Seconds between two states to resume from.
    resume : bool
        Go on from the state in ``out``, which must be of the same request.
    """

    kind: Kind
    data: tuple[Path, ...]
    out: Path
    flag: str = ""
    size: int | None = None
    network: NetworkSize = NetworkSize.SMALL
    recipe: Recipe = Recipe.SHORT
    epochs: int | None = None
    batch_size: int | None = None
    most_per_class: int | None = None
    acceptance: float = 0.95
    keras: bool = True
    origin: str = ""
    seed: int = 0
    save_every_s: float = 30.0
    resume: bool = False

    def __post_init__(self) -> None:
        wrong = []
        if not self.data:
            wrong.append("there is no data")
        if self.kind is Kind.EXPERT and len(self.data) > 1:
            wrong.append("an expert learns from one file")
        if self.size is not None and not SMALLEST_SIZE <= self.size <= LARGEST_SIZE:
            wrong.append(f"the size is {self.size}; it must be {SMALLEST_SIZE} to {LARGEST_SIZE} pixels")
        if self.epochs is not None and self.epochs < 1:
            wrong.append(f"epochs is {self.epochs}")
        if self.batch_size is not None and self.batch_size < 2:
            wrong.append("a batch needs at least 2 images")
        if self.most_per_class is not None and self.most_per_class < 1:
            wrong.append(f"the most per class is {self.most_per_class}")
        if not 0 < self.acceptance < 1:
            wrong.append(f"the acceptance is {self.acceptance}; it must be between 0 and 1")
        if wrong:
            raise InputError(f"The training cannot be started: {'; '.join(wrong)}.")

    def batch_for(self, images: int) -> int:
        """Images per step with so many training images."""
        if self.batch_size is not None:
            return min(self.batch_size, images)
        if self.recipe is Recipe.PUBLISHED:
            return min(PUBLISHED_BATCH, images)
        return min(max(images // STEPS_AN_EPOCH, SMALLEST_BATCH), PUBLISHED_BATCH, images)

    def epochs_for(self, images: int) -> int:
        """Epochs to train for with so many training images."""
        if self.epochs is not None:
            return self.epochs
        if self.recipe is Recipe.PUBLISHED:
            return PUBLISHED_EPOCHS
        steps_an_epoch = max(images // self.batch_for(images), 1)
        return min(max(round(SHORT_STEPS / steps_an_epoch), FEWEST_EPOCHS), MOST_EPOCHS)

    def settings(self) -> dict[str, Any]:
        """All that decides the outcome besides the data, as plain JSON values."""
        plain = {name: getattr(self, name) for name in ("flag", "size", "epochs", "batch_size", "seed")}
        kinds = {name: getattr(self, name).value for name in ("kind", "network", "recipe")}
        return {**kinds, **plain, "most_per_class": self.most_per_class}


@dataclass(frozen=True)
class LogRow:
    """One line of the training log: an epoch.

    Attributes
    ----------
    epoch : int
        From 1.
    learning_rate : float
        At its end.
    loss : float
        Mean over its steps.
    val_accuracy, val_auc : float or None
        On the validation images, of the weights that would be kept.
    seconds : float
        Of training so far.
    """

    epoch: int
    learning_rate: float
    loss: float
    val_accuracy: float | None
    val_auc: float | None
    seconds: float


@dataclass(frozen=True)
class TrainResult:
    """A training that ended.

    Attributes
    ----------
    folder : Path
        The model: graph, description, gate, card.
    model_id : str
    keras_file : Path, optional
    class_names : tuple of str
    images : mapping of str to int
        How many of ``train``, ``val``, ``test``.
    metrics : mapping of str to float
        On the test images, and ``val_``... on the validation images; see `MedMNISTRouterLib.train.measures`.
    temperature : float
    gate_threshold : float or None
        None: no gate was fitted.
    parity : float or None
        Largest difference between the written graph and the trained network; None where it was not run.
    log : tuple of LogRow
    seconds, cpu_seconds : float
        Of learning, on the clock and of the processor.
    warnings : tuple of str
    """

    folder: Path
    model_id: str
    keras_file: Path | None
    class_names: tuple[str, ...]
    images: Mapping[str, int]
    metrics: Mapping[str, float]
    temperature: float
    gate_threshold: float | None
    parity: float | None
    log: tuple[LogRow, ...] = ()
    seconds: float = 0.0
    cpu_seconds: float = 0.0
    warnings: tuple[str, ...] = field(default=())
