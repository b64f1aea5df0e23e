"""Small ReCT encoders, and what they are asked in tests."""

from __future__ import annotations

from typing import Any

import torch

from CTReportLib.nets.features import Features
from CTReportLib.nets.rect3d import Rect3D

torch.set_num_threads(1)  # more only wait for each other with networks as small as these

SMALL: dict[str, int] = {
    "in_channels": 1,
    "embed_dim": 24,
    "depth": 2,
    "num_heads": 3,
    "num_regions": 4,
    "patch_slices": 2,
    "patch_rows": 4,
    "patch_columns": 4,
    "tokens": 6 * 4 * 4,
    "mlp_dim": 40,
    "distances": 33,
}
"""The published topology, narrow; its shape lets every parameter be read back."""


def small(seed: int = 0, **changed: Any) -> Rect3D:
    """An encoder whose every tensor is random, so that each shows in the answers."""
    torch.manual_seed(seed)
    encoder = Rect3D(**{**SMALL, "planes": 6, **changed}).eval()
    with torch.no_grad():
        for name, parameter in encoder.named_parameters():
            if "norm" not in name:
                parameter.add_(0.2 * torch.randn_like(parameter))
            if name.endswith("slice_bias"):
                parameter.copy_(2 * torch.randn_like(parameter))
    return encoder


def a_volume(encoder: Rect3D, batch: int = 2, seed: int = 1) -> tuple[torch.Tensor, torch.Tensor]:
    """Random volumes and label maps of the encoder's size; some patches hold no region at all."""
    torch.manual_seed(seed)
    volume = torch.rand(batch, encoder.in_channels, *encoder.size)
    labels = torch.randint(0, encoder.regions + 1, (batch, *encoder.size), dtype=torch.int16)
    labels[:, :, : encoder.patch[1]] = 0
    return volume, labels


def some_features(batch: int = 3, width: int = 24, regions: int | None = 4, seed: int = 2) -> Features:
    torch.manual_seed(seed)
    return Features(
        pooled=torch.randn(batch, width),
        patches=torch.randn(batch, 12, width),
        grid=(3, 2, 2),
        regions=None if regions is None else torch.randn(batch, regions, width),
    )
