"""The part of every slice that a memory network is shown, and how it comes to the network's pixels and back.

Needs torch.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from MedAILib.errors import InputError, NothingDrawn
from MedAILib.models.stm_inference import IMAGENET_MEAN, IMAGENET_STD
from Mem3DPropagateLib.nets.stm import STRIDE

OUTSIDE_LEVEL = -32.0
"""Level where the network was shown nothing, and of an object that has ended."""

_GRID_PX = 32
_GRID_SLICES = 16
"""The region grows in steps, so that a correction rarely changes it, and what was kept of a slice stays good."""
_WINDOW_PERCENTILES = (0.5, 99.5)
_WINDOW_SLICES = 32
_WINDOW_VOXELS = 400_000


@dataclass(frozen=True)
class RegionOptions:
    """Which part of a slice the network is shown, and how bright.

    Attributes
    ----------
    full_frame : bool
        All of it, as the published programs do.
    margin : float
        Around the box of all references, in shares of its longer side.
    smallest_margin_px : int
    smallest_px, largest_px : int
        Within these the longer side of the region is shown pixel by pixel; a smaller one is enlarged, a larger one
        reduced.
    window : tuple of float, optional
        Stored values that become black and white; default: robust percentiles of the region.
    """

    full_frame: bool = False
    margin: float = 0.5
    smallest_margin_px: int = 16
    smallest_px: int = 192
    largest_px: int = 512
    window: tuple[float, float] | None = None


@dataclass(frozen=True)
class Frame:
    """The part of every slice that the network is shown. Frames that are equal show the same.

    Attributes
    ----------
    plane : tuple of int
        Rows and columns of a slice.
    top, bottom, left, right : int
        Rows and columns of the region, ends excluded.
    scaled : tuple of int
        Rows and columns of the region in the network's pixels, which are square.
    window : tuple of float
        Stored values that become 0 and 1.
    """

    plane: tuple[int, int]
    top: int
    bottom: int
    left: int
    right: int
    scaled: tuple[int, int]
    window: tuple[float, float]

    @property
    def size(self) -> tuple[int, int]:
        """Rows and columns of the network's input: `scaled`, filled up to multiples of `STRIDE`."""
        rows, columns = (-(-length // STRIDE) * STRIDE for length in self.scaled)
        return rows, columns

    def part(self, plane: np.ndarray) -> np.ndarray:
        """The region of a plane, or of planes, as a view."""
        return plane[..., self.top : self.bottom, self.left : self.right]

    def picture(self, plane: np.ndarray, *, unit_range: bool) -> Tensor:
        """A slice as the network takes it.

        Parameters
        ----------
        plane : ndarray, shape (rows, columns)
            Stored values.
        unit_range : bool
            From 0 to 1; else normalised with the mean and deviation of ImageNet.

        Returns
        -------
        Tensor, shape (1, 3, *size), float32
        """
        low, high = self.window
        part = np.asarray(self.part(plane), dtype=np.float32)
        values = np.clip((np.nan_to_num(part, nan=low) - low) / (high - low), 0, 1)
        grey = self._fitted(torch.from_numpy(values)[None, None]).expand(-1, 3, -1, -1)
        if unit_range:
            return grey.contiguous()
        mean, std = (torch.tensor(numbers).view(1, 3, 1, 1) for numbers in (IMAGENET_MEAN, IMAGENET_STD))
        return (grey - mean) / std

    def masks(self, masks: np.ndarray) -> Tensor:
        """Masks as the network takes them: 0 and 1.

        Parameters
        ----------
        masks : ndarray, shape (objects, rows, columns), bool

        Returns
        -------
        Tensor, shape (objects, *size), float32
        """
        part = np.ascontiguousarray(self.part(masks), dtype=np.float32)
        return (self._fitted(torch.from_numpy(part)[:, None])[:, 0] >= 0.5).float()

    def level(self, level: Tensor) -> np.ndarray:
        """Levels of the network's pixels on the whole slice; `OUTSIDE_LEVEL` where it was shown nothing.

        Parameters
        ----------
        level : Tensor, shape (objects, *size)

        Returns
        -------
        ndarray, shape (objects, rows, columns), float32
        """
        rows, columns = self.scaled
        part = level[:, None, :rows, :columns].float().cpu()
        shape = (self.bottom - self.top, self.right - self.left)
        if shape != self.scaled:
            part = functional.interpolate(part, shape, mode="bilinear", align_corners=False)
        whole = np.full((len(part), *self.plane), OUTSIDE_LEVEL, np.float32)
        self.part(whole)[:] = part[:, 0].numpy()
        return whole

    def _fitted(self, planes: Tensor) -> Tensor:
        """Planes of the region, shape (n, 1, rows, columns), resampled and filled up with 0 below and on the right."""
        if tuple(planes.shape[2:]) != self.scaled:
            planes = functional.interpolate(planes, self.scaled, mode="bilinear", align_corners=False, antialias=True)
        rows, columns = self.size
        return functional.pad(planes, (0, columns - self.scaled[1], 0, rows - self.scaled[0]))


def frame_for(
    image: np.ndarray,
    references: Iterable[tuple[int, np.ndarray]],
    pixel_mm: tuple[float, float],
    options: RegionOptions,
) -> Frame:
    """The frame for some references.

    Parameters
    ----------
    image : ndarray, shape (slices, rows, columns)
    references : iterable of (int, ndarray)
        Slice index and masks, shape (objects, rows, columns), bool.
    pixel_mm : tuple of float
        Spacing of rows and of columns.
    options : RegionOptions

    Raises
    ------
    NothingDrawn
        All masks are empty.
    InputError
        The window is empty.
    """
    plane = (image.shape[1], image.shape[2])
    drawn = {index: np.asarray(masks.any(0)) for index, masks in references}
    together = np.logical_or.reduce(list(drawn.values())) if drawn else np.zeros(plane, bool)
    if not together.any():
        raise NothingDrawn("Nothing is drawn on any reference slice.", todo="Draw the structure on one slice at least.")
    bounds = [(0, plane[0]), (0, plane[1])]
    if not options.full_frame:
        bounds = _box(together, options)
    (top, bottom), (left, right) = bounds
    low, high = options.window or _percentiles(image, drawn, (top, bottom, left, right))
    if not low < high:
        raise InputError(f"The intensity window from {low:g} to {high:g} is empty.", todo="Give its lower bound first.")
    return Frame(plane, top, bottom, left, right, _scaled(bounds, pixel_mm, options), (low, high))


def _box(drawn: np.ndarray, options: RegionOptions) -> list[tuple[int, int]]:
    """The box of what is drawn with its margin, outward to the grid."""
    spans = []
    for axis in (1, 0):
        places = np.flatnonzero(drawn.any(axis=axis))
        spans.append((int(places[0]), int(places[-1]) + 1))
    margin = max(options.smallest_margin_px, round(options.margin * max(end - start for start, end in spans)))
    grown = []
    for (start, end), length in zip(spans, drawn.shape, strict=True):
        start = max(start - margin, 0) // _GRID_PX * _GRID_PX
        end = -(-(end + margin) // _GRID_PX) * _GRID_PX
        grown.append((start, min(end, length)))
    return grown


def _scaled(bounds: list[tuple[int, int]], pixel_mm: tuple[float, float], options: RegionOptions) -> tuple[int, int]:
    """Rows and columns of the region in square pixels, its longer side within the bounds."""
    lengths = [(end - start) * mm / min(pixel_mm) for (start, end), mm in zip(bounds, pixel_mm, strict=True)]
    longest = max(lengths)
    factor = min(max(longest, options.smallest_px), options.largest_px) / longest
    rows, columns = (max(round(length * factor), 1) for length in lengths)
    return rows, columns


def _percentiles(
    image: np.ndarray, drawn: dict[int, np.ndarray], region: tuple[int, int, int, int]
) -> tuple[float, float]:
    """Robust bounds of the region's values on the slices that the references span, read on some of them."""
    top, bottom, left, right = region
    first = min(drawn) // _GRID_SLICES * _GRID_SLICES
    last = min(-(-(max(drawn) + 1) // _GRID_SLICES) * _GRID_SLICES, len(image))
    slices = np.unique(np.linspace(first, last - 1, _WINDOW_SLICES).round().astype(int))
    step = max(int(np.ceil(np.sqrt(len(slices) * (bottom - top) * (right - left) / _WINDOW_VOXELS))), 1)
    values = np.stack([image[index][top:bottom:step, left:right:step] for index in slices]).astype(np.float32)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, _WINDOW_PERCENTILES))
    if low == high:
        low, high = float(values.min()), float(values.max())
    return (low, high) if low < high else (low, low + 1)
