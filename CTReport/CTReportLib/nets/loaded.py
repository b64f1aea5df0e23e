"""A network all of whose tensors come from a file. Needs torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar, cast

import torch
from torch import nn

from MedAILib.models.checkpoint import load_model_with_config
from MedAILib.models.config import ModelConfig
from MedAILib.models.exact import require_exact, require_finite, shapes_of
from MedAILib.models.infer import parameters_text
from MedAILib.models.tensors import WeightFile

Network = TypeVar("Network", bound=nn.Module)


@dataclass(frozen=True, eq=False)
class Loaded(Generic[Network]):
    """A network all of whose tensors come from a file.

    Attributes
    ----------
    network : torch.nn.Module
        In evaluation mode, without gradients.
    weights : WeightFile
    config : ModelConfig, optional
        Its description; what is assumed in it says ``config.assumed``. None: of a part that has none.
    """

    network: Network
    weights: WeightFile
    config: ModelConfig | None = None

    @property
    def sha256(self) -> str:
        """Of the weight file."""
        return self.weights.sha256


def load_described(
    weights: WeightFile, config: ModelConfig, build: Callable[..., Network], device: str | torch.device = "cpu"
) -> Loaded[Network]:
    """Load a network that its description says how to build, whole or not at all.

    Parameters
    ----------
    weights : WeightFile
    config : ModelConfig
        The description that belongs to them.
    build : callable
        Gets the architecture's parameters by name, returns the network.
    device : str or torch.device

    Raises
    ------
    InvalidWeights
        It is damaged, unsafe, or not exactly the tensors of that network, each of which is named.
    ConfigMismatch, UnreadableFile, MissingPackage
    """
    name = weights.path.name
    with torch.device("meta"):
        wanted = shapes_of(build(**config.get_model_params()).state_dict())
    require_exact(wanted, weights.shapes, name, architecture_text(config))
    network, config, checkpoint = load_model_with_config(weights.path, build, device)
    require_finite(network.state_dict(), name)
    return Loaded(cast(Network, network).requires_grad_(False), checkpoint.weights, config)


def architecture_text(config: ModelConfig) -> str:
    """``ct_conv with in_channels=1 base=8`` for a message."""
    return f"{config.architecture.name} with {parameters_text(config.get_model_params())}"
