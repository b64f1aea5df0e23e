"""What an encoder says of a volume, once for all heads. Needs torch."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, eq=False, kw_only=True)
class Features:
    """Features of a batch of volumes.

    Attributes
    ----------
    pooled : torch.Tensor
        Of the whole volume, shape (batch, width).
    patches : torch.Tensor
        Of every patch, shape (batch, patches, width); planes slowest, columns fastest.
    grid : tuple of int
        Patches along planes, rows and columns.
    regions : torch.Tensor, optional
        Of every anatomical region, shape (batch, regions, width); None: the encoder knows no regions.
    shared : torch.Tensor, optional
        Of the whole volume in the space that the encoder's training shared with texts, shape (batch, shared width);
        None: its file has no projection there.
    """

    pooled: torch.Tensor
    patches: torch.Tensor
    grid: tuple[int, int, int]
    regions: torch.Tensor | None = None
    shared: torch.Tensor | None = None
