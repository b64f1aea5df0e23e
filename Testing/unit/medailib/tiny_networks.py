"""Networks small enough to be made by the hundred, and their descriptions. Needs torch."""

from __future__ import annotations

from typing import Any

import torch
from model_files import SMALL
from torch import nn

from MedAILib.models.config import Architecture, ModelConfig


class Perceptron(nn.Module):
    """A tiny network of no family known to the library."""

    def __init__(self, width: int = 3, deep: bool = False) -> None:
        super().__init__()
        self.first = nn.Linear(2, width)
        self.norm = nn.BatchNorm1d(width)
        self.second = nn.Linear(width, width) if deep else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.norm(self.first(x)))


def tiny_config(**parameters: Any) -> ModelConfig:
    return ModelConfig("tiny", "perceptron", Architecture("perceptron", parameters))


def unet_config(**parameters: Any) -> ModelConfig:
    return ModelConfig("unet", "multitask-unet", Architecture("multitask_unet", {**SMALL, **parameters}))


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def never(**parameters: Any) -> nn.Module:
    raise AssertionError("the network must not be built")


def trained(model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(model.parameters(), 0.1)
    sum(parameter.sum() for parameter in model.parameters()).backward()
    optimizer.step()
    return optimizer
