"""A network that draws findings, run over a prepared CT: whole where it fits into memory, else in tiles. Needs torch.

Tiles overlap by half and are weighted by a Gaussian about their centres, so no border shows. A network that looks at
the whole of what it is given (`TextUNet` does) sees the tile for the whole then, so tiles are as large as memory
allows.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from MedAILib.errors import InvalidWeights
from MedAILib.models.torchuse import exact_arithmetic

Watch = Callable[[float], None]
Size = tuple[int, int, int]

MOST_BYTES = 6 << 30
"""That one pass may take; what it takes is estimated after the channels at full resolution."""
OVERLAP = 0.5
"""Of neighbouring tiles."""
_SIGMA = 1 / 8
"""Standard deviation of a tile's weights, in tiles."""
_LEAST_WEIGHT = 1e-3
_MAPS = 8
"""Maps of full resolution, as wide as the first level, that exist at once."""


def drawn(
    network: nn.Module,
    channels: np.ndarray,
    findings: int,
    *,
    step: int = 1,
    width: int = 16,
    device: torch.device | str = "cpu",
    most_bytes: int = MOST_BYTES,
    watch: Watch | None = None,
) -> np.ndarray:
    """Raw numbers of every voxel and finding, float32, shape (findings, k, j, i).

    Parameters
    ----------
    network : torch.nn.Module
        From (batch, channels, k, j, i) to (batch, findings, k, j, i).
    channels : numpy.ndarray
        Windowed, shape (channels, k, j, i), float32.
    findings : int
    step : int
        What the sides that the network takes must be multiples of; the rest is padded with the border's values.
    width : int
        Channels at full resolution.
    device : torch.device or str
    most_bytes : int
        That one pass may take.
    watch : callable, optional
        Told the share that is done; may raise to stop.

    Raises
    ------
    InvalidWeights
        The network answers values that are no numbers.
    """
    image, inside = _padded(torch.from_numpy(channels), step)
    k, j, i = image.shape[1:]
    tile = _tile((k, j, i), step, max(1, most_bytes // (4 * _MAPS * width)))
    starts = [_starts(side, part) for side, part in zip((k, j, i), tile, strict=True)]
    corners = list(itertools.product(*starts))
    sums = torch.zeros(findings, k, j, i)
    weights = torch.zeros(k, j, i)
    window = _window(tile) if len(corners) > 1 else torch.ones(tile)
    with exact_arithmetic():
        for number, corner in enumerate(corners, start=1):
            box = tuple(slice(low, low + side) for low, side in zip(corner, tile, strict=True))
            answer = network(image[(slice(None), *box)][None].to(device))[0].float().cpu()
            sums[(slice(None), *box)] += answer * window
            weights[box] += window
            if watch is not None:
                watch(number / len(corners))
    raw = (sums / weights)[(slice(None), *inside)].numpy()
    if not np.isfinite(raw).all():
        raise InvalidWeights(
            "The network that draws findings answered values that are no numbers.",
            why="Its weights are damaged, or the image is far from those it was trained on.",
            todo="Get its weights again.",
        )
    return raw


def _padded(image: torch.Tensor, step: int) -> tuple[torch.Tensor, tuple[slice, ...]]:
    """An image whose sides are multiples of ``step``, and where the given one lies in it."""
    sides = image.shape[1:]
    more = [-side % step for side in sides]
    if not any(more):
        return image, tuple(slice(0, side) for side in sides)
    pads = [part for extra in reversed(more) for part in (extra // 2, extra - extra // 2)]
    padded = functional.pad(image[None], pads, mode="replicate")[0]
    return padded, tuple(slice(extra // 2, extra // 2 + side) for extra, side in zip(more, sides, strict=True))


def _tile(sides: Size, step: int, most_voxels: int) -> Size:
    """The largest tile, in multiples of ``step``, of at most so many voxels: longest sides are halved first."""
    tile = list(sides)
    while np.prod(tile) > most_voxels and max(tile) > step:
        longest = tile.index(max(tile))
        tile[longest] = max(step, -(-tile[longest] // (2 * step)) * step)
    return tile[0], tile[1], tile[2]


def _starts(side: int, tile: int) -> Sequence[int]:
    """First voxels of the tiles along one axis, evenly spread, the last one at the end."""
    room = side - tile
    count = 1 + -(-room // max(1, int(tile * (1 - OVERLAP))))
    return [round(room * number / (count - 1)) if count > 1 else 0 for number in range(count)]


def _window(tile: Size) -> torch.Tensor:
    """Weights of a tile's voxels, a Gaussian about its centre that is nowhere zero."""
    axes = [
        torch.exp(-0.5 * (((torch.arange(side) - (side - 1) / 2) / (side * _SIGMA)) ** 2)).clamp(min=_LEAST_WEIGHT)
        for side in tile
    ]
    return axes[0][:, None, None] * axes[1][:, None] * axes[2]
