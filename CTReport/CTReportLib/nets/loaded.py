"""A network all of whose tensors come from a file. Needs torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

from torch import nn

from MedAILib.models.config import ModelConfig
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
