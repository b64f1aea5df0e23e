"""An image brought to the network's size, and the network's answer brought back to the image.

Pixels are areas: resizing aligns the images' borders, not the centres of their corner pixels, as OpenCV
and torch (``align_corners=False``) do. Both ways are linear maps along rows and along columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from MedAILib.errors import InputError
from MedAILib.models.heads import Input, Resize

_CUBIC_A = -0.75
"""Of the cubic convolution kernel (Keys, IEEE TASSP 29(6):1153, 1981), OpenCV's choice."""


@dataclass(frozen=True)
class Framing:
    """Where an image lies in the network's input.

    Attributes
    ----------
    image_size : tuple of int
        Rows and columns of the image.
    size : tuple of int
        Rows and columns of the network's input.
    content : tuple of int
        Rows and columns that the image takes there; less than ``size`` where its aspect is kept.
    method : Resize
    """

    image_size: tuple[int, int]
    size: tuple[int, int]
    content: tuple[int, int]
    method: Resize

    @property
    def start(self) -> tuple[int, int]:
        """First row and column of the image in the network's input."""
        return ((self.size[0] - self.content[0]) // 2, (self.size[1] - self.content[1]) // 2)

    @property
    def window(self) -> tuple[slice, slice]:
        """The image's rows and columns in the network's input."""
        rows, columns = (slice(a, a + n) for a, n in zip(self.start, self.content, strict=True))
        return rows, columns

    def resized(self, image: np.ndarray) -> np.ndarray:
        """The image at its size in the network's input.

        Parameters
        ----------
        image : ndarray, shape (channels, rows, columns)

        Returns
        -------
        ndarray, shape (channels, *content), float32; or the image itself where its size stays
        """
        return resampled(image, self.content, self.method)

    def padded(self, content: np.ndarray) -> np.ndarray:
        """The network's input: around the image each channel's smallest value.

        Parameters
        ----------
        content : ndarray, shape (channels, *content)

        Returns
        -------
        ndarray, shape (channels, *size)
        """
        if self.content == self.size:
            return content
        framed = np.empty((len(content), *self.size), content.dtype)
        framed[:] = content.min(axis=(1, 2), keepdims=True)
        framed[:, *self.window] = content
        return framed

    def back(self, answer: np.ndarray) -> np.ndarray:
        """Of a map at the network's size, the image's part at the image's size.

        Interpolates linearly where it enlarges, averages where it shrinks; a map whose size stays comes back bit
        for bit.

        Parameters
        ----------
        answer : ndarray, shape (channels, *size), float32

        Returns
        -------
        ndarray, shape (channels, *image_size), float32
        """
        return resampled(answer[:, *self.window], self.image_size, None)


def framing_for(image_size: tuple[int, int], image_input: Input, pixel_mm: Sequence[float] = (1.0, 1.0)) -> Framing:
    """How an image of that size is brought to the network's input.

    Parameters
    ----------
    image_size : tuple of int
        Rows, columns.
    image_input : Input
        Its ``size``, ``resize`` and ``keep_aspect`` count.
    pixel_mm : sequence of two floats
        Height and width of a pixel; only their ratio counts, and only where the aspect is kept.

    Raises
    ------
    InputError
        Where the model takes one size, does not resize, and the image has another.
    """
    if len(image_input.size) not in (0, 2):
        raise InputError(
            f"The model takes images of {len(image_input.size)} dimensions, not slices.",
            todo="Mend 'size' in the model's description: rows and columns.",
        )
    method = image_input.resize or Resize.NONE
    size = (image_input.size[0], image_input.size[1]) if image_input.size else image_size
    if method is Resize.NONE and size != image_size:
        raise InputError(
            f"The image has {_text(image_size)} pixels, the model takes {_text(size)}.",
            why="Its description does not let images be resized.",
            todo="Give an image of that size, or state 'resize' in the model's description.",
        )
    content = _fitting(image_size, size, pixel_mm) if image_input.keep_aspect else size
    return Framing(image_size, size, content, method)


def resampled(image: np.ndarray, size: tuple[int, int], method: Resize | None) -> np.ndarray:
    """An image at another size.

    Parameters
    ----------
    image : ndarray, shape (channels, rows, columns)
    size : tuple of int
        Rows, columns.
    method : Resize or None
        None: linear along an axis that grows, area along one that shrinks.

    Returns
    -------
    ndarray, float32; or the image itself where its size stays
    """
    if image.shape[1:] == size:
        return image
    rows, columns = (
        _weights(before, after, method or (Resize.AREA if after < before else Resize.LINEAR))
        for before, after in zip(image.shape[1:], size, strict=True)
    )
    planes = [(columns @ (rows @ plane.astype(np.float64)).T).T for plane in image]
    return np.stack(planes).astype(np.float32)


def _fitting(image_size: tuple[int, int], size: tuple[int, int], pixel_mm: Sequence[float]) -> tuple[int, int]:
    """The largest rows and columns within ``size`` that keep the image's proportions."""
    extents = [count * mm for count, mm in zip(image_size, pixel_mm, strict=True)]
    scale = min(target / extent for target, extent in zip(size, extents, strict=True))
    rows, columns = (min(max(round(extent * scale), 1), target) for extent, target in zip(extents, size, strict=True))
    return rows, columns


@lru_cache(maxsize=64)
def _weights(before: int, after: int, method: Resize) -> Any:
    """The linear map along one axis: scipy sparse array, shape (after, before), float64, rows that sum to 1."""
    from scipy.sparse import csr_array

    if method is Resize.AREA and after < before:
        edges = np.arange(after + 1) * (before / after)
        first = np.floor(edges[:-1]).astype(int)
        reach = int(np.ceil(before / after)) + 1
        places = first[:, None] + np.arange(reach)
        weights = np.clip(np.minimum(places + 1, edges[1:, None]) - np.maximum(places, edges[:-1, None]), 0.0, None)
    else:
        centres = (np.arange(after) + 0.5) * (before / after) - 0.5
        places, weights = _kernel(centres, method)
    weights = weights / weights.sum(axis=1, keepdims=True)
    places = np.clip(places, 0, before - 1)
    rows = np.repeat(np.arange(after), places.shape[1])
    matrix = csr_array((weights.ravel(), (rows, places.ravel())), shape=(after, before))
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    return matrix


def _kernel(centres: np.ndarray, method: Resize) -> tuple[np.ndarray, np.ndarray]:
    """Around each position the pixels that count and their weights, both of shape (n, taps)."""
    if method is Resize.NEAREST:
        return np.floor(centres + 0.5).astype(int)[:, None], np.ones((len(centres), 1))
    base = np.floor(centres).astype(int)
    offset = centres - base
    if method is not Resize.CUBIC:
        return base[:, None] + np.arange(2), np.stack([1.0 - offset, offset], axis=1)
    places = base[:, None] + np.arange(-1, 3)
    distance = np.abs(places - centres[:, None])
    near = ((_CUBIC_A + 2) * distance - (_CUBIC_A + 3)) * distance**2 + 1
    far = _CUBIC_A * (((distance - 5) * distance + 8) * distance - 4)
    return places, np.where(distance <= 1, near, np.where(distance < 2, far, 0.0))


def _text(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"
