"""A small convolutional encoder of chest CTs, made to be trained on a processor within minutes. Needs torch.

    encoder = load_conv("encoder.safetensors")
    features = encoder.network(volume)          # (batch, channels, slices, rows, columns), windowed

Three levels see the volume at a half, a quarter and an eighth of its grid; the coarsest, which sees far, is brought
back to the quarter, where the patches are. Of every level the mean and the largest value of each channel are kept:
the mean tells texture (emphysema), the largest what is small. Where masks teach it, it also drafts findings patch by
patch, and the whole volume's features know how much of each it drafted.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from CTReportLib.layouts import input_of
from CTReportLib.nets.features import Features
from CTReportLib.nets.loaded import Loaded, load_described
from CTReportLib.preprocess import Layout
from MedAILib.errors import InputError, InvalidWeights
from MedAILib.models.checkpoint import save_model_with_config
from MedAILib.models.config import Architecture, ModelConfig, Provenance
from MedAILib.models.resolve import resolve
from MedAILib.models.tensors import inspect_tensors

ARCHITECTURE, FAMILY = "ct_conv", "chest-ct-encoder"
STEP = 8
"""What every side of a volume must be a multiple of, voxels."""
DRAFTS = 5
_SPACE = (2, 3, 4)
_MULTIPLE = 4
_RARE = -4.0
"""Raw number of every draft before training: hardly any patch shows a finding."""


class ConvEncoder(nn.Module):
    """The encoder.

    Parameters
    ----------
    in_channels : int
        Windows of the CT.
    base : int
        Channels at half the grid, a multiple of 4; doubled at every level.
    drafts : int
        Findings that it drafts.

    Attributes
    ----------
    width : int
        Of the features: four times ``base``.
    """

    def __init__(self, in_channels: int = 1, base: int = 12, drafts: int = DRAFTS) -> None:
        super().__init__()
        if base < _MULTIPLE or base % _MULTIPLE or drafts < 1:
            raise InputError(f"The encoder cannot have {base} channels and {drafts} drafts.", todo="Give 12 and 5.")
        self.width = 4 * base
        widths = (base, 2 * base, 4 * base)
        befores = (in_channels, *widths[:-1])
        self.down = nn.ModuleList(_convolution(of, to, 2) for of, to in zip(befores, widths, strict=True))
        self.blocks = nn.ModuleList(Residual(width) for width in widths)
        self.join = _convolution(widths[2] + widths[1], self.width, 1)
        self.draft = nn.Conv3d(self.width, drafts, 1)
        nn.init.constant_(self.draft.bias, _RARE)
        known = 2 * (sum(widths) + self.width + drafts)
        self.pool = nn.Sequential(nn.BatchNorm1d(known), nn.Linear(known, self.width))

    def forward(self, volume: torch.Tensor) -> Features:
        """Features of volumes of shape (batch, channels, slices, rows, columns).

        Raises
        ------
        InputError
            Sides are no multiples of `STEP`.
        """
        return self.answer(volume).features

    def answer(self, volume: torch.Tensor) -> Answer:
        """Features, and what training looks at beside them; errors as of `forward`."""
        if volume.dim() != 5 or any(side % STEP for side in volume.shape[2:]):
            raise InputError(
                f"The encoder cannot take a volume of shape {tuple(volume.shape)}.",
                todo=f"Give (batch, channels, slices, rows, columns) with sides that are multiples of {STEP}.",
            )
        levels: list[torch.Tensor] = []
        for down, block in zip(self.down, self.blocks, strict=True):
            volume = block(down(volume))
            levels.append(volume)
        far = functional.interpolate(levels[2], scale_factor=2, mode="trilinear", align_corners=False)
        joined = self.join(torch.cat([far, levels[1]], dim=1))
        drafts = self.draft(joined)
        known = [fold for level in (*levels, joined) for fold in (level.mean(_SPACE), level.amax(_SPACE))]
        statistics = torch.cat([*known, drafts.sigmoid().mean(_SPACE), drafts.amax(_SPACE)], dim=-1)
        k, j, i = joined.shape[2:]
        patches = joined.flatten(2).transpose(1, 2)
        return Answer(Features(pooled=self.pool(statistics), patches=patches, grid=(k, j, i)), statistics, drafts)


@dataclass(frozen=True, eq=False)
class Answer:
    """All that the encoder says of a batch of volumes.

    Attributes
    ----------
    features : Features
    statistics : torch.Tensor
        What `ConvEncoder.pool` makes the whole volume's features of, shape (batch, statistics).
    drafts : torch.Tensor
        Raw numbers of every finding it drafts and every patch, shape (batch, drafts, planes, rows, columns).
    """

    features: Features
    statistics: torch.Tensor
    drafts: torch.Tensor


class Residual(nn.Module):
    """Two convolutions whose answer is added to what they are given."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            _convolution(width, width, 1),
            nn.Conv3d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm3d(width),
        )

    def forward(self, volume: torch.Tensor) -> torch.Tensor:
        return functional.leaky_relu(volume + self.layers(volume), 0.01)


def describe_conv(
    name: str,
    layout: Layout,
    *,
    base: int = 12,
    drafts: int = DRAFTS,
    training: Mapping[str, Any] | None = None,
    trained_on: str = "",
) -> ModelConfig:
    """The description of an encoder.

    Parameters
    ----------
    name : str
        The model's id.
    layout : Layout
        What it reads; its sides must be multiples of `STEP`.
    base, drafts : int
        As of `ConvEncoder`.
    training : mapping, optional
        How it was trained.
    trained_on : str

    Raises
    ------
    InputError
        The layout's sides are no multiples.
    """
    if any(side % STEP for side in layout.shape_kji):
        raise InputError(f"The encoder cannot read {layout.shape_kji}.", todo=f"Give sides that {STEP} divides.")
    return ModelConfig(
        id=name,
        family=FAMILY,
        architecture=Architecture(ARCHITECTURE, {"in_channels": len(layout.windows), "base": base, "drafts": drafts}),
        title="Small convolutional encoder of chest CTs",
        intended_use="Research use only. Not for diagnosis.",
        inputs=(input_of(layout),),
        provenance=Provenance(
            trained_on=trained_on,
            training=dict(training) if training is not None else None,
            date=datetime.now(UTC).date().isoformat() if training is not None else "",
        ),
        requirements={"torch": ">=2.10"},
    )


def save_conv(network: ConvEncoder, path: str | Path, config: ModelConfig) -> ModelConfig:
    """Write an encoder with its description, as `describe_conv` makes it.

    Raises
    ------
    InputError, InvalidWeights, OutputError
        As `MedAILib.models.checkpoint.save_model_with_config`.
    """
    return save_model_with_config(network, path, config)


def load_conv(path: str | Path, device: str | torch.device = "cpu") -> Loaded[ConvEncoder]:
    """Load an encoder.

    Raises
    ------
    InvalidWeights
        It is damaged, unsafe, described as something else, or not exactly the tensors of this network.
    ConfigMismatch
        Its description does not fit its tensors.
    FileMissing, UnreadableFile, MissingPackage
    """
    weights = inspect_tensors(path)
    config = resolve(weights).config
    if config.architecture.name != ARCHITECTURE:
        raise InvalidWeights(
            f"'{weights.path.name}' is no small convolutional encoder.",
            why=f"Its architecture is '{config.architecture.name}', not '{ARCHITECTURE}'.",
            todo="Choose an encoder that `medai train ct` wrote.",
        )
    return load_described(weights, config, ConvEncoder, device)


def _convolution(of: int, to: int, stride: int) -> nn.Sequential:
    convolution = nn.Conv3d(of, to, 3, stride=stride, padding=1, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm3d(to), nn.LeakyReLU(0.01))
