"""ReCT weight files into the encoder and its classifier, whole or not at all. Needs torch.

    loaded = load_rect3d(Manager().weights("an-encoder"))
    loaded = load_rect3d("phase_2/checkpoints/best_model.pt")      # the encoder inside a whole training checkpoint

A file in which one tensor of the network is missing, too many, of another shape or not a number is refused with the
names of all of them. Of a whole training checkpoint only the asked part is read so; its other parts are left.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import nn

from CTReportLib.nets.heads import PromptClassifier
from CTReportLib.nets.loaded import Loaded
from CTReportLib.nets.rect3d import Rect3D
from MedAILib.errors import InvalidWeights
from MedAILib.models import torchmodel
from MedAILib.models.checkpoint import load_model_with_config
from MedAILib.models.exact import require_exact, require_finite, shapes_of
from MedAILib.models.infer import RECT3D, Recognised
from MedAILib.models.rect3d_inference import TELLING
from MedAILib.models.resolve import inferred_config
from MedAILib.models.tensornames import prefixes_of, without_prefix
from MedAILib.models.tensors import WeightFile, inspect_tensors

logger = logging.getLogger(__name__)

ENCODER_PART, CLASSIFIER_PART = "vision_encoder.", "classification_head."
"""What the names of the parts' tensors begin with in a training checkpoint."""
TEXT_ENCODER = "text_encoder."
"""Inside the classifier: a language model that the classifier's answers no longer need."""

Shape = tuple[int, ...]
T = TypeVar("T")


def load_rect3d(path: str | Path, device: str | torch.device = "cpu") -> Loaded[Rect3D]:
    """Load the encoder, of any width and depth, from a file of its own or from a training checkpoint.

    Parameters
    ----------
    path : path
        safetensors, or what ``torch.save`` wrote. Names may begin with ``module.``.
    device : str or torch.device

    Raises
    ------
    InvalidWeights
        It is damaged, unsafe, of another network, or not exactly the tensors of this one: then its message names them
        (those that do not fit into it are in ``details``).
    ConfigMismatch
        A description of the file contradicts it.
    FileMissing, UnreadableFile, MissingPackage
    """
    weights = inspect_tensors(path)
    name = weights.path.name
    part = part_of(weights.shapes, ENCODER_PART)
    parameters = check_encoder(part or weights.shapes, name)
    if not part:
        network, config, checkpoint = load_model_with_config(path, Rect3D, device)
        require_finite(network.state_dict(), name)
        return Loaded(cast(Rect3D, network).requires_grad_(False), checkpoint.weights, config)
    encoder = Rect3D(**parameters)
    _fill(encoder, part_of(_state(weights), ENCODER_PART), name)
    config = inferred_config(weights, Recognised(RECT3D, dict(parameters)))
    logger.warning("%s is a training checkpoint; nothing in it describes the encoder's input", name)
    return Loaded(encoder.to(device).eval().requires_grad_(False), weights, config)


def load_rect3d_classifier(path: str | Path, device: str | torch.device = "cpu") -> Loaded[PromptClassifier]:
    """Load the classifier of a ReCT training checkpoint, with the text embeddings stored in it.

    Its findings are in the order of its training, which the file does not tell.

    Raises
    ------
    InvalidWeights
        The file holds no classifier, or not exactly its tensors.
    FileMissing, UnreadableFile, MissingPackage
    """
    weights = inspect_tensors(path)
    name = weights.path.name
    shapes = _without_text_encoder(part_of(weights.shapes, CLASSIFIER_PART))
    vision, text = shapes.get("vision_proj.0.weight", ()), shapes.get("text_proj.0.weight", ())
    bias = shapes.get("disease_bias", ())
    if len(vision) != 2 or len(text) != 2 or len(bias) != 1:
        raise InvalidWeights(
            f"'{name}' holds no classifier of ReCT.",
            why=f"The projections and biases that begin with '{CLASSIFIER_PART}' are missing.",
            todo="Give a training checkpoint of the second phase or later.",
        )
    classifier = PromptClassifier(vision[1], text[1], vision[0], bias[0], live=False)
    require_exact(shapes_of(classifier.state_dict()), shapes, name, "the classifier of ReCT")
    _fill(classifier, _without_text_encoder(part_of(_state(weights), CLASSIFIER_PART)), name)
    return Loaded(classifier.to(device).eval().requires_grad_(False), weights)


def check_encoder(shapes: Mapping[str, Shape], file_name: str) -> dict[str, int]:
    """The encoder's parameters, where the tensors are exactly those of one.

    Parameters
    ----------
    shapes : mapping
        Names, with or without a known prefix, and shapes.
    file_name : str
        For the message.

    Raises
    ------
    InvalidWeights
        Every difference is named.
    """
    for prefix in prefixes_of(shapes):
        parameters = RECT3D.guess(without_prefix(shapes, prefix))
        if parameters is not None:
            resembles = Recognised(RECT3D, parameters).text
            require_exact(RECT3D.expected_shapes(parameters), shapes, file_name, resembles)
            return parameters
    missing = [name for name in TELLING if not any(found.endswith(name) for found in shapes)]
    raise InvalidWeights(
        f"'{file_name}' holds no ReCT encoder.",
        why=f"It lacks {', '.join(missing)}." if missing else "It lacks whole parts of it, or they are misshapen.",
        todo="Give the encoder's weights, or a whole training checkpoint of ReCT.",
    )


def part_of(items: Mapping[str, T], part: str) -> dict[str, T]:
    """What begins with a part's name, without it; known prefixes before it are seen through; empty: there is none."""
    for prefix in prefixes_of(items):
        whole = prefix + part
        found = {name.removeprefix(whole): value for name, value in items.items() if name.startswith(whole)}
        if found:
            return found
    return {}


def _without_text_encoder(items: Mapping[str, T]) -> dict[str, T]:
    return {name: value for name, value in items.items() if not name.startswith(TEXT_ENCODER)}


def _state(weights: WeightFile) -> dict[str, torch.Tensor]:
    return dict(torchmodel.read_weights(weights)[0])


def _fill(network: nn.Module, state: dict[str, torch.Tensor], file_name: str) -> None:
    require_finite(state, file_name)
    network.load_state_dict(state)
