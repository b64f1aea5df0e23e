"""What is asked of a predictor, what the user decides, and what a model's description must state."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from MedAILib.errors import ConfigMismatch, InputError, InvalidWeights
from MedAILib.models.config import ModelConfig
from MedAILib.models.heads import Input, Normalisation
from MedAILib.multitask.answers import Answering

if TYPE_CHECKING:
    from MedAILib.multitask.network import MultiTaskUNet


@dataclass(frozen=True)
class Asked:
    """What is asked about images.

    Attributes
    ----------
    segment, classify : bool
    conditional : bool
        Segment only images whose tumour probability reaches the threshold.
    logits : bool
        Hand on the raw outputs.
    gradcam : bool
    target_class : int or None
        Of Grad-CAM; None: the predicted class.
    foreground_only : bool
        Remove heat outside the image's foreground.
    """

    segment: bool = True
    classify: bool = True
    conditional: bool = False
    logits: bool = False
    gradcam: bool = False
    target_class: int | None = None
    foreground_only: bool = False


@dataclass(frozen=True)
class Options:
    """What the user decides instead of the model's description; None: the description does.

    Attributes
    ----------
    classification_threshold, segmentation_threshold : float or None
        Probabilities, 0..1.
    normalisation : Normalisation or None
    threads : int or None
        Processor threads while predicting; None: what torch is set to.
    batch_size : int or None
        Most images that run at once; None: what is fast on the device.
    """

    classification_threshold: float | None = None
    segmentation_threshold: float | None = None
    normalisation: Normalisation | None = None
    threads: int | None = None
    batch_size: int | None = None

    def __post_init__(self) -> None:
        for threshold in (self.classification_threshold, self.segmentation_threshold):
            if threshold is not None and not 0.0 <= threshold <= 1.0:
                raise InputError(f"A threshold is a probability from 0 to 1, not {threshold}.")
        for name in ("threads", "batch_size"):
            count = getattr(self, name)
            if count is not None and count < 1:
                raise InputError(f"The {name.replace('_', ' ')} must be at least 1, not {count}.")


def weights_in(path: str | os.PathLike[str]) -> Path:
    """The weight file meant by a path: itself, or the only one in a folder.

    Raises
    ------
    InputError
        Where a folder holds several, or none.
    """
    from MedAILib.models.describe import weight_files

    files = weight_files(Path(path))
    if len(files) > 1:
        names = ", ".join(f"'{file.name}'" for file in files)
        raise InputError(f"'{os.fspath(path)}' holds {len(files)} weight files: {names}.", todo="Name one of them.")
    return files[0]


def stated_input(config: ModelConfig, normalisation: Normalisation | None) -> Input:
    """The model's input with its normalisation, by the user or else by the description."""
    if not config.inputs:
        raise InvalidWeights(
            f"The description of '{config.id}' has no input.",
            todo="Write one from the weights themselves: medai models describe PATH --write",
        )
    image = config.inputs[0]
    if normalisation is not None:
        return replace(image, normalisation=normalisation)
    if image.normalisation is None:
        raise InputError(
            f"Nobody states how images are normalised for the model '{config.id}'.",
            why="It cannot be read off the weights, and a wrong one gives wrong answers without any sign of it.",
            todo="State 'normalisation' in its description, or give it with the call.",
        )
    return image


def check_heads(model: MultiTaskUNet, config: ModelConfig, classifying: Answering, segmenting: Answering) -> None:
    """`ConfigMismatch` where the description names more or fewer classes than the network answers."""
    layout = model.layout
    for answering_head, channels in ((classifying, layout.cls_num_classes), (segmenting, layout.seg_out_channels)):
        head = answering_head.head
        if len(head.classes) != channels:
            raise ConfigMismatch(
                f"The description of '{config.id}' names {len(head.classes)} classes for the head '{head.name}', "
                f"the network has {channels}.",
                todo="Mend 'classes' in the description, or write it anew: medai models describe PATH --write",
            )
