"""A picture as it was read: its pixels, and what had to be decided on the way."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MedMNISTRouterLib.request import PlainImage

_CHROMA_NOISE = 4
"""Channels that differ by no more grey levels are one channel, stored as a JPEG in colour."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture to route.

    Attributes
    ----------
    image : PlainImage
    notes : tuple of str
        What the user should know of how it was read: a frame or slice that was chosen, a transparent border.
    """

    image: PlainImage
    notes: tuple[str, ...] = ()


def grey_where_grey(pixels: np.ndarray) -> np.ndarray:
    """One channel of a picture whose three channels say the same; others as they are.

    Parameters
    ----------
    pixels : ndarray, shape (rows, columns) or (rows, columns, 3)

    Returns
    -------
    ndarray, shape (rows, columns) or (rows, columns, 3)
        Of 8 bit pictures, channels that differ by up to 4 levels everywhere are the same: the JPEG format
        stores a grey picture so.
    """
    if pixels.ndim != 3:
        return pixels
    noise = _CHROMA_NOISE if pixels.dtype == np.uint8 else 0
    spread = pixels.max(axis=2).astype(np.float32) - pixels.min(axis=2).astype(np.float32)
    return np.ascontiguousarray(pixels[..., 1]) if float(spread.max(initial=0.0)) <= noise else pixels
