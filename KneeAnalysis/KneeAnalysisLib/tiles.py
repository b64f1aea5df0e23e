"""A network slid over a volume, tile by tile, in one thread: progress and a way out between any two layers.

What is computed is nnU-Net's sliding window to the last bit on the processor: the same tiles, the same Gaussian
weights, sums in half precision. nnU-Net's own loop feeds a queue from a second thread, which stays behind with
the volume when the loop is left early; here nothing stays behind.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import nn

from KneeAnalysisLib.batches import CPU, Batches, Footing

if TYPE_CHECKING:
    from KneeAnalysisLib.watch import Watch

SIGMA = 1 / 8
"""Standard deviation of a tile's weights, in tiles."""
HIGHEST_WEIGHT = 10.0
"""Keeps the weights of the tile's corners above the smallest half-precision number."""


def slid(
    network: nn.Module,
    image: torch.Tensor,
    tile: Sequence[int],
    channels: int,
    *,
    step: float,
    mirror_axes: Sequence[int],
    batches: Batches,
    watch: Watch,
    stage: str,
) -> torch.Tensor:
    """The network's answer for every voxel, the weighted mean over the tiles that hold it.

    Parameters
    ----------
    network : Module
        From (n, c, *tile) to (n, channels, *tile).
    image : Tensor, shape (c, k, j, i), float32, on the processor
        Smaller ones than the tile are padded with zeros.
    tile : three ints
    channels : int
    step : float
        Distance of neighbouring tiles in tiles.
    mirror_axes : sequence of int
        Spatial axes (0 to 2) in all mirrorings of which every tile is predicted.
    batches : Batches
    watch : Watch
    stage : str
        What to call it to the user.

    Returns
    -------
    Tensor, shape (channels, k, j, i), float16, on the processor
    """
    image, inside = _padded(image, tile)
    corners = list(itertools.product(*(_starts(n, t, step) for n, t in zip(image.shape[1:], tile, strict=True))))
    sums = _Sums(network, image, tile, channels, mirror_axes)
    try:
        with torch.inference_mode(), watch.between_layers(network):
            while not batches.tried(lambda: sums.settle(batches.footing)):
                watch.check()
            batches.run(
                len(corners),
                lambda part, footing: sums.add([corners[index] for index in part], footing),
                lambda done: watch.progress(stage, done / len(corners), f"tile {done} of {len(corners)}"),
            )
            return sums.mean()[(slice(None), *inside)]
    finally:
        network.to(CPU)


class _Sums:
    """Weighted sums of predictions and of weights, wherever the footing wants them."""

    def __init__(
        self, network: nn.Module, image: torch.Tensor, tile: Sequence[int], channels: int, mirror_axes: Sequence[int]
    ) -> None:
        self._network = network
        self._image = image
        self._tile = tuple(tile)
        self._flips = [
            axes for count in range(len(mirror_axes) + 1) for axes in itertools.combinations(mirror_axes, count)
        ]
        self._place = ""
        self._predicted = torch.zeros((channels, *image.shape[1:]), dtype=torch.half)
        self._weights = torch.zeros(image.shape[1:], dtype=torch.half)
        self._window = window(self._tile)

    def settle(self, footing: Footing) -> None:
        """Bring network and sums where the footing wants them; all or nothing of the sums."""
        self._network.to(footing.device)
        place = footing.device if footing.gathers_on_device else CPU
        if place != self._place:
            self._predicted, self._weights, self._window = (
                tensor.to(place) for tensor in (self._predicted, self._weights, self._window)
            )
            self._place = place

    def add(self, corners: Sequence[tuple[int, ...]], footing: Footing) -> None:
        self.settle(footing)
        boxes = [tuple(slice(low, low + size) for low, size in zip(c, self._tile, strict=True)) for c in corners]
        batch = torch.stack([self._image[(slice(None), *box)] for box in boxes]).to(footing.device)
        with torch.autocast("cuda", enabled=footing.device.startswith("cuda")):
            predicted = self._mirrored(batch)
        predicted = predicted.to(self._place)
        predicted *= self._window
        for box, answer in zip(boxes, predicted, strict=True):
            self._predicted[(slice(None), *box)] += answer
            self._weights[box] += self._window

    def _mirrored(self, batch: torch.Tensor) -> torch.Tensor:
        total: torch.Tensor | None = None
        for axes in self._flips:
            dims = [axis + 2 for axis in axes]
            found = torch.flip(self._network(torch.flip(batch, dims)), dims) if dims else self._network(batch)
            total = found if total is None else total.add_(found)
        assert total is not None
        return total.div_(len(self._flips)) if len(self._flips) > 1 else total

    def mean(self) -> torch.Tensor:
        return self._predicted.div_(self._weights).to(CPU)


def window(tile: Sequence[int]) -> torch.Tensor:
    """Weights of a tile's voxels, a Gaussian about its centre that is nowhere zero; half precision."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    peak = np.zeros(tuple(tile))
    peak[tuple(size // 2 for size in tile)] = 1
    weights = gaussian_filter(peak, [size * SIGMA for size in tile], mode="constant")
    weights /= weights.max() / HIGHEST_WEIGHT
    half = torch.from_numpy(weights).to(torch.half)
    return half.clamp(min=float(half[half > 0].min()))


def _starts(size: int, tile: int, step: float) -> list[int]:
    """First voxels of the tiles along one axis: evenly spread, at most ``step`` tiles apart, the last at the end."""
    room = size - tile
    count = -int(-room // (tile * step)) + 1
    return [round(room / (count - 1) * index) if count > 1 else 0 for index in range(count)]


def _padded(image: torch.Tensor, tile: Sequence[int]) -> tuple[torch.Tensor, tuple[slice, ...]]:
    """The image with zeros around it where the tile is larger, and where in it the image lies."""
    edges, inside = [], []
    for size, wanted in zip(image.shape[1:], tile, strict=True):
        missing = max(wanted - size, 0)
        edges.append((missing // 2, missing - missing // 2))
        inside.append(slice(missing // 2, missing // 2 + size))
    if any(map(any, edges)):
        image = nn.functional.pad(image, [edge for pair in reversed(edges) for edge in pair])
    return image, tuple(inside)
