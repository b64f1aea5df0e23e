"""The multi-task U-Net: one encoder, a decoder that segments, a head that classifies.

The layer layout and the names in the state dict are those of the published model, so that checkpoints made
with it load: ``encoder.inc``, ``encoder.down_blocks.{i}``, ``seg_decoder.up_blocks.{i}``, ``seg_decoder.outc``
and ``cls_head.classifier``. This file and `MedAILib.multitask.train.learning` load torch; nothing else does before
a network is asked for.

Source of the design: U-Net, Ronneberger et al., MICCAI 2015, arXiv:1505.04597; the shared encoder with a
classification head as in the public project "SliceWise".
"""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TypedDict

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from MedAILib.errors import InputError


@dataclass(frozen=True)
class UNetParameters:
    """What decides the shape of every tensor, and the dropout rates, which decide none.

    Attributes
    ----------
    in_channels, seg_out_channels, cls_num_classes : int
    base_filters : int
        Channels at full resolution; they double with each level.
    depth : int
        Halvings of the resolution.
    bilinear : bool
        Whether the decoder enlarges by interpolation (corners aligned) or by transposed convolution.
    cls_hidden_dim : int
        Width of the classification head's hidden layer.
    dropout, cls_dropout : float
        Rates while training, of whole feature maps and in the classification head.
    """

    in_channels: int = 1
    seg_out_channels: int = 1
    cls_num_classes: int = 2
    base_filters: int = 64
    depth: int = 4
    bilinear: bool = True
    cls_hidden_dim: int = 32
    dropout: float = 0.0
    cls_dropout: float = 0.5

    def __post_init__(self) -> None:
        names = ("in_channels", "seg_out_channels", "cls_num_classes", "base_filters", "depth", "cls_hidden_dim")
        wrong = [f"{name} = {getattr(self, name)}" for name in names if getattr(self, name) < 1]
        wrong += [f"{name} = {getattr(self, name)}" for name in ("dropout", "cls_dropout") if not self._is_rate(name)]
        if wrong:
            raise InputError(
                f"There is no multi-task network with {', '.join(wrong)}.",
                todo="Counts are at least 1, dropout rates at least 0 and below 1.",
            )

    def _is_rate(self, name: str) -> bool:
        return 0.0 <= getattr(self, name) < 1.0

    @property
    def channels(self) -> tuple[int, ...]:
        """Channels of each level, full resolution first."""
        return tuple(self.base_filters * 2**level for level in range(self.depth + 1))


class Outputs(TypedDict, total=False):
    """What the network answers.

    ``seg``: logits, shape (batch, seg_out_channels, rows, columns); ``cls``: logits, shape
    (batch, cls_num_classes); ``features``: of each encoder level, full resolution first. A head that was
    not asked for has no entry.
    """

    seg: Tensor
    cls: Tensor
    features: list[Tensor]


class DoubleConv(nn.Module):
    """Twice: 3x3 convolution, batch normalisation, ReLU; dropout of feature maps between."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
            nn.Dropout2d(dropout) if dropout > 0 else nn.Identity(),
            nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class Down(nn.Module):
    """Halve the resolution, then convolve."""

    def __init__(self, in_channels: int, out_channels: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2), DoubleConv(in_channels, out_channels, dropout))

    def forward(self, x: Tensor) -> Tensor:
        return self.maxpool_conv(x)


class Up(nn.Module):
    """Double the resolution, join with the encoder's features of that level, convolve."""

    def __init__(self, in_channels: int, skip_channels: int, bilinear: bool, dropout: float = 0.0) -> None:
        super().__init__()
        self.up: nn.Module
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            joined = in_channels + skip_channels
        else:
            self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, 2, stride=2)
            joined = in_channels // 2 + skip_channels
        self.conv = DoubleConv(joined, skip_channels, dropout)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.up(x)
        rows, columns = skip.shape[-2] - x.shape[-2], skip.shape[-1] - x.shape[-1]
        if rows or columns:  # a side that halving rounded down
            x = functional.pad(x, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        return self.conv(torch.cat([skip, x], dim=1))


class Encoder(nn.Module):
    """From the image to features of every level."""

    def __init__(self, parameters: UNetParameters) -> None:
        super().__init__()
        widths, dropout = parameters.channels, parameters.dropout
        self.inc = DoubleConv(parameters.in_channels, widths[0], dropout)
        self.down_blocks = nn.ModuleList(
            Down(widths[level], widths[level + 1], dropout) for level in range(parameters.depth)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        features = [self.inc(x)]
        for block in self.down_blocks:
            features.append(block(features[-1]))
        return features


class OutConv(nn.Module):
    """From features to one logit per class and pixel."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class SegmentationDecoder(nn.Module):
    """From features of every level to logits at full resolution."""

    def __init__(self, parameters: UNetParameters) -> None:
        super().__init__()
        widths = parameters.channels
        self.up_blocks = nn.ModuleList(
            Up(widths[level], widths[level - 1], parameters.bilinear, parameters.dropout)
            for level in range(parameters.depth, 0, -1)
        )
        self.outc = OutConv(widths[0], parameters.seg_out_channels)

    def forward(self, features: list[Tensor]) -> Tensor:
        x = features[-1]
        for block, skip in zip(self.up_blocks, reversed(features[:-1]), strict=True):
            x = block(x, skip)
        return self.outc(x)


class ClassificationHead(nn.Module):
    """From the deepest features to one logit per class of the whole image."""

    def __init__(self, parameters: UNetParameters) -> None:
        super().__init__()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(
            nn.Flatten(),
            nn.Linear(parameters.channels[-1], parameters.cls_hidden_dim),
            nn.ReLU(inplace=True),
            nn.Dropout(parameters.cls_dropout),
            nn.Linear(parameters.cls_hidden_dim, parameters.cls_num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.pool(x))


class MultiTaskUNet(nn.Module):
    """The network.

    Parameters
    ----------
    parameters : UNetParameters

    Notes
    -----
    Any image size works whose sides are at least ``2 ** depth`` pixels.
    """

    def __init__(self, parameters: UNetParameters) -> None:
        super().__init__()
        self.layout = parameters
        self.encoder = Encoder(parameters)
        self.seg_decoder = SegmentationDecoder(parameters)
        self.cls_head = ClassificationHead(parameters)

    def forward(self, x: Tensor, do_seg: bool = True, do_cls: bool = True) -> Outputs:
        """Logits of the heads asked for, and the encoder's features.

        Parameters
        ----------
        x : Tensor, shape (batch, in_channels, rows, columns), float
            Normalised as the model's description says.
        """
        features = self.encoder(x)
        outputs: Outputs = {"features": features}
        if do_seg:
            outputs["seg"] = self.seg_decoder(features)
        if do_cls:
            outputs["cls"] = self.cls_head(features[-1])
        return outputs


def create_multi_task_model(
    in_channels: int = 1,
    seg_out_channels: int = 1,
    cls_num_classes: int = 2,
    base_filters: int = 64,
    depth: int = 4,
    bilinear: bool = True,
    dropout: float = 0.0,
    cls_hidden_dim: int = 32,
    cls_dropout: float = 0.5,
) -> MultiTaskUNet:
    """A new network with random weights; arguments as in `UNetParameters`."""
    return MultiTaskUNet(
        UNetParameters(
            in_channels=in_channels,
            seg_out_channels=seg_out_channels,
            cls_num_classes=cls_num_classes,
            base_filters=base_filters,
            depth=depth,
            bilinear=bilinear,
            cls_hidden_dim=cls_hidden_dim,
            dropout=dropout,
            cls_dropout=cls_dropout,
        )
    )


def parameter_count(model: nn.Module) -> int:
    """Trainable numbers of a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def folded(model: MultiTaskUNet) -> MultiTaskUNet:
    """A copy for inference with each batch normalisation folded into the convolution before it.

    It answers the same up to rounding, faster, and keeps the original untouched. Its state dict has other
    keys: it is never saved.
    """
    fast = copy.deepcopy(model).eval()
    for block in [module for module in fast.modules() if isinstance(module, DoubleConv)]:
        layers = block.double_conv
        for index in (0, 4):
            layers[index] = fuse_conv_bn_eval(layers[index], layers[index + 1])
            layers[index + 1] = nn.Identity()
    return fast.requires_grad_(False)
