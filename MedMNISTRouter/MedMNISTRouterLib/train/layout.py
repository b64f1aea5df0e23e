"""The network's layout: plain numbers from which the torch network, the ONNX graph and the Keras file are built.

A residual network (He et al., CVPR 2016, arXiv:1512.03385, basic blocks). Besides its answers it gives features: of
every stage's channels, the square roots of mean and standard deviation over the image. Noise and smooth surfaces
leave their mark in the early stages, unknown anatomy in the late ones; the square root keeps the few strong channels
from hiding the many weak ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

NAME = "residual-classifier"
"""`Architecture.name` in a model's description."""
FEATURE_EPSILON = 1e-3
"""Added to mean and variance before their roots, which are steep at 0."""
NORMALISATION_EPSILON = 1e-5
"""Of batch normalisation."""
MEAN, STD = 0.5, 0.5
"""Of pixels between 0 and 1, as MedMNIST's authors normalise."""
LARGEST_FOR_FULL_STEM, LARGEST_FOR_HALF_STEM = 32, 64
"""Edges in pixels up to which the first convolution keeps the image's size, and halves it; above, it is quartered."""


@dataclass(frozen=True)
class Block:
    """A residual block: two 3 x 3 convolutions, and a 1 x 1 convolution beside them where shapes change."""

    name: str
    inputs: int
    outputs: int
    stride: int

    @property
    def has_projection(self) -> bool:
        return self.stride != 1 or self.inputs != self.outputs


@dataclass(frozen=True)
class Layout:
    """Everything that decides shapes.

    Attributes
    ----------
    channels : int
        Of the image.
    outputs : int
        Numbers answered, one per class.
    size : int
        Edge of the image in pixels.
    widths : tuple of int
        Channels of each stage.
    blocks : int
        Residual blocks per stage.
    """

    channels: int
    outputs: int
    size: int
    widths: tuple[int, ...] = (16, 32, 64)
    blocks: int = 1

    @property
    def stem_stride(self) -> int:
        return 1 if self.size <= LARGEST_FOR_FULL_STEM else 2

    @property
    def has_pooling(self) -> bool:
        """Whether a 3 x 3 maximum with stride 2 follows the first convolution."""
        return self.size > LARGEST_FOR_HALF_STEM

    @property
    def stages(self) -> tuple[tuple[Block, ...], ...]:
        """The blocks of each stage."""
        stages, inputs = [], self.widths[0]
        for number, width in enumerate(self.widths):
            blocks = []
            for place in range(self.blocks):
                stride = 2 if number and not place else 1
                blocks.append(Block(f"stages.{number}.{place}", inputs, width, stride))
                inputs = width
            stages.append(tuple(blocks))
        return tuple(stages)

    @property
    def feature_count(self) -> int:
        return 2 * (self.widths[0] + sum(self.widths))

    def parameters(self) -> dict[str, Any]:
        """As plain JSON values, for `Architecture.parameters`."""
        return {**asdict(self), "widths": list(self.widths)}

    @classmethod
    def from_parameters(cls, parameters: Mapping[str, Any]) -> Layout:
        """The layout that `parameters` wrote."""
        values = {name: parameters[name] for name in ("channels", "outputs", "size", "blocks")}
        return cls(**values, widths=tuple(parameters["widths"]))


def layout_for(network: str, channels: int, outputs: int, size: int) -> Layout:
    """The layout of a network size, see `MedMNISTRouterLib.train.request.NetworkSize`."""
    if network == "resnet18":
        return Layout(channels, outputs, size, (64, 128, 256, 512), 2)
    return Layout(channels, outputs, size)
