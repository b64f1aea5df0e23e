"""The network in torch, for training."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from MedMNISTRouterLib.train.layout import FEATURE_EPSILON, NORMALISATION_EPSILON, Block, Layout


class ResidualBlock(nn.Module):
    """One `Block` of the layout."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.conv1 = _convolution(block.inputs, block.outputs, 3, block.stride)
        self.norm1 = nn.BatchNorm2d(block.outputs, eps=NORMALISATION_EPSILON)
        self.conv2 = _convolution(block.outputs, block.outputs, 3, 1)
        self.norm2 = nn.BatchNorm2d(block.outputs, eps=NORMALISATION_EPSILON)
        if block.has_projection:
            self.conv3 = _convolution(block.inputs, block.outputs, 1, block.stride)
            self.norm3 = nn.BatchNorm2d(block.outputs, eps=NORMALISATION_EPSILON)
        self.has_projection = block.has_projection

    def forward(self, x: Tensor) -> Tensor:
        beside = self.norm3(self.conv3(x)) if self.has_projection else x
        return functional.relu(self.norm2(self.conv2(functional.relu(self.norm1(self.conv1(x))))) + beside)


class ResidualClassifier(nn.Module):
    """The network of a layout.

    Parameters
    ----------
    layout : Layout
    """

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        self.layout = layout
        self.stem = _convolution(layout.channels, layout.widths[0], 3, layout.stem_stride)
        self.stem_norm = nn.BatchNorm2d(layout.widths[0], eps=NORMALISATION_EPSILON)
        self.stages = nn.ModuleList(
            nn.Sequential(*(ResidualBlock(block) for block in blocks)) for blocks in layout.stages
        )
        self.head = nn.Linear(layout.widths[-1], layout.outputs)

    def forward(self, images: Tensor) -> Tensor:
        """Answers before the activation.

        Parameters
        ----------
        images : Tensor, shape (n, channels, rows, columns)

        Returns
        -------
        Tensor, shape (n, outputs)
        """
        return self.head(self._maps(images)[-1].mean(dim=(2, 3)))

    def with_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Answers, and features, shape (n, `Layout.feature_count`)."""
        maps = self._maps(images)
        means = [item.mean(dim=(2, 3)) for item in maps]
        spreads = [item.var(dim=(2, 3), unbiased=False) for item in maps]
        roots = [(mean + FEATURE_EPSILON).sqrt() for mean in means]
        roots += [(spread + FEATURE_EPSILON).sqrt().sqrt() for spread in spreads]
        return self.head(means[-1]), torch.cat(roots, dim=1)

    def _maps(self, images: Tensor) -> list[Tensor]:
        """What the first convolution and each stage give, none below 0."""
        x = functional.relu(self.stem_norm(self.stem(images)))
        if self.layout.has_pooling:
            x = functional.max_pool2d(x, 3, 2, 1)
        maps = [x]
        for stage in self.stages:
            maps.append(stage(maps[-1]))
        return maps


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def _convolution(inputs: int, outputs: int, kernel: int, stride: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
