"""What a training of encoder, classifier and localizer is asked, what it logs and what it answers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from CTReportLib.preprocess import Layout, Window
from MedAILib.errors import ConfigError

TASK = "CTReportLib.train.task:TrainTask"
HEADS = {"linear": "ct_linear_probe", "attention": "ct_attention_probe", "prompt": "ct_prompt_classifier"}
LOCALIZER: dict[str, Any] = {"norm": "batch", "context": False}
"""Of the network that draws, which learns on crops and is given whole volumes."""
LOSSES = ("bce", "focal")
WINDOWS = (Window(-1000, -900, -1, 1), Window(-900, -300, -1, 1), Window(-100, 200, -1, 1), Window(150, 900, -1, 1))
"""Destroyed lung, hazy lung, soft tissue and fluid, bone and calcium."""
ENCODER_LAYOUT = Layout("ct_conv", (56, 48, 56), 6.0, WINDOWS)
LOCALIZER_LAYOUT = Layout("ct_text_unet", (96, 72, 96), 3.5, WINDOWS[1:3])


@dataclass(frozen=True)
class Stage:
    """Part of a training.

    Attributes
    ----------
    steps : int
        0: it is left out.
    batch_size : int
    learning_rate : float
        The highest.
    """

    steps: int
    batch_size: int
    learning_rate: float

    def problems(self, name: str) -> list[str]:
        found = []
        if self.steps < 0 or self.batch_size < 1:
            found.append(f"{name}: {self.steps} steps of {self.batch_size} cannot be taken")
        if not 0 < self.learning_rate < 1:
            found.append(f"{name}: the learning rate is {self.learning_rate}")
        return found


@dataclass(frozen=True)
class TrainRequest:
    """Train encoder and classifier, or a classifier on a given encoder, and a localizer.

    Attributes
    ----------
    data : Path
        See `CTReportLib.train.ctrate`.
    out : Path
        Folder for ``encoder``, ``classifier``, ``localizer``, the log and the state to resume from.
    encoder : Path or None
        Weights of an encoder that stays as it is; None: a small one is trained.
    text_encoder : Path or None
        Folder of a BERT model whose vectors of the findings' prompts are used; None: fixed orthogonal vectors.
    head : str
        One of `HEADS`.
    loss : str
        One of `LOSSES`, of the classifier.
    encoding : Stage
        Encoder and classifier together; left out where `encoder` is given.
    probing : Stage
        The classifier on kept features.
    drawing : Stage
        The localizer, where there are masks.
    base, localizer_base, localizer_depth : int
        Width of the small encoder; width and depth of the localizer.
    encoder_layout, localizer_layout : Layout
    crop : int
        Voxels along each side of what the localizer learns from.
    split : str
        To learn from; empty: all but ``valid`` and ``test``.
    held_share : float
        Of the patients, kept apart for calibration, where there is no split ``valid``.
    sensitivity : float or None
        That thresholds must reach on held patients; None: the best F1.
    seed : int
    half_precision : bool
        Compute in bfloat16 on CUDA.
    log_every, save_every : int
        Steps.
    resume : bool
        Go on from the state in ``out``.
    """

    data: Path
    out: Path
    encoder: Path | None = None
    text_encoder: Path | None = None
    head: str = "linear"
    loss: str = "bce"
    encoding: Stage = Stage(450, 8, 4e-3)
    probing: Stage = Stage(400, 64, 3e-3)
    drawing: Stage = Stage(700, 8, 5e-3)
    base: int = 12
    localizer_base: int = 8
    localizer_depth: int = 3
    encoder_layout: Layout = ENCODER_LAYOUT
    localizer_layout: Layout = LOCALIZER_LAYOUT
    crop: int = 24
    split: str = ""
    held_share: float = 0.25
    sensitivity: float | None = None
    seed: int = 0
    half_precision: bool = False
    log_every: int = 25
    save_every: int = 50
    resume: bool = False

    def validate(self) -> None:
        """Say every problem at once.

        Raises
        ------
        ConfigError
        """
        problems = [
            *self.encoding.problems("encoder"),
            *self.probing.problems("classifier"),
            *self.drawing.problems("localizer"),
        ]
        if self.head not in HEADS:
            problems.append(f"there is no head '{self.head}'; there is {', '.join(HEADS)}")
        if self.loss not in LOSSES:
            problems.append(f"there is no loss '{self.loss}'; there is {' and '.join(LOSSES)}")
        if not 0 <= self.held_share < 1:
            problems.append(f"the share of patients kept apart is {self.held_share}")
        if self.sensitivity is not None and not 0 < self.sensitivity <= 1:
            problems.append(f"the sensitivity is {self.sensitivity}")
        if min(self.log_every, self.save_every) < 1:
            problems.append("log and state must be written every so many steps")
        step = 1 << (self.localizer_depth - 1)
        sides = (*self.localizer_layout.shape_kji, self.crop)
        if self.drawing.steps and any(side % step for side in sides):
            problems.append(f"crops and the localizer's grid must be multiples of {step} voxels, not {sides}")
        if self.drawing.steps and self.crop > min(self.localizer_layout.shape_kji):
            problems.append(f"crops of {self.crop} voxels do not fit into {self.localizer_layout.shape_kji}")
        if not (self.encoding.steps or self.encoder) and not self.drawing.steps:
            problems.append("nothing shall be trained")
        if problems:
            raise ConfigError("The training cannot be started: " + "; ".join(problems) + ".")

    def settings(self) -> dict[str, Any]:
        """All that decides the outcome besides the data, as plain JSON values."""
        without = ("data", "out", "resume", "save_every", "encoder", "text_encoder")
        kept = {name: value for name, value in asdict(self).items() if name not in without}
        return {**kept, "encoder": str(self.encoder or ""), "text_encoder": str(self.text_encoder or "")}


@dataclass(frozen=True)
class LogRow:
    """One line of the training's log.

    Attributes
    ----------
    phase : str
        ``encoder``, ``classifier`` or ``localizer``.
    step : int
        Of the phase.
    learning_rate : float
    loss : float
        Mean since the line before.
    seconds, cpu_seconds : float
        Of the training so far, with those before it was resumed.
    """

    phase: str
    step: int
    learning_rate: float
    loss: float
    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class TrainResult:
    """A training that ended.

    Attributes
    ----------
    encoder, classifier, localizer : Path or None
        Weight files; None: not trained here (of the encoder: the one that was given).
    findings : tuple of str
        Ids, in the order of the classifier's answers.
    drawn : tuple of str
        Of the localizer's.
    log : tuple of LogRow
    learned_from, held : tuple of str
        Patients.
    metrics : dict
        On the held patients, after which calibration and thresholds were fitted: better than on new ones.
    warnings : tuple of str
    """

    encoder: Path | None
    classifier: Path | None
    localizer: Path | None
    findings: tuple[str, ...]
    drawn: tuple[str, ...]
    log: tuple[LogRow, ...]
    learned_from: tuple[str, ...]
    held: tuple[str, ...]
    metrics: dict[str, dict[str, float | None]] = field(default_factory=dict)
    warnings: tuple[str, ...] = ()
