"""What can be told of a picture before any model sees it: too small, blank, noise, colour where grey is expected."""

from __future__ import annotations

import numpy as np

from MedMNISTRouterLib.request import PlainImage

SMALLEST_EDGE_PX = 20
"""The smallest of the data sets' own sizes is 28."""
LEAST_DEVIATION = 1.0
"""Of 255: below it nothing is seen."""
LEAST_CORRELATION = 0.1
"""Between neighbouring pixels; white noise has 0 (standard deviation 0.04 at 28 pixels), the roughest of 6500 real
images 0.16."""
LARGEST_TINT = 6.0
"""Mean difference between a pixel's largest and smallest channel, of 255, up to which a picture counts as grey."""
_FEWEST_BLOCKS = 16


def problem_with(image: PlainImage, pixels: np.ndarray) -> str:
    """Why a picture is none of those the models know, one sentence; empty where nothing is wrong.

    Parameters
    ----------
    image : PlainImage
    pixels : ndarray, shape (rows, columns) or (rows, columns, 3), uint8
        The same picture, as of `MedMNISTRouterLib.prepare.eight_bit`.
    """
    raw = np.asarray(image.pixels)
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3):
        return f"Its pixels have the shape {raw.shape}; a grey or an RGB picture is expected."
    if min(pixels.shape[:2]) < SMALLEST_EDGE_PX:
        return f"It is too small: {pixels.shape[0]} x {pixels.shape[1]} pixels, at least {SMALLEST_EDGE_PX} are needed."
    if raw.dtype.kind == "f" and not np.isfinite(raw).all():
        return "Some of its values are not numbers."
    if raw.dtype == np.uint8 and image.value_range is None and raw.max() <= 1 and raw.min() < raw.max():
        return "All its 8-bit values are 0 or 1: it was scaled to 0..1 before it was saved."
    grey = pixels if pixels.ndim == 2 else pixels.mean(axis=2)
    if grey.std() < LEAST_DEVIATION:
        return "It is blank: all its pixels have nearly the same value."
    if is_noise(grey):
        return "It is noise: neighbouring pixels have nothing to do with each other."
    return ""


def is_noise(grey: np.ndarray) -> bool:
    """Whether neighbours are uncorrelated, at full size or in blocks of 2, 4, ... pixels (noise that was enlarged)."""
    values = np.asarray(grey, dtype=np.float64)
    while min(values.shape) >= _FEWEST_BLOCKS:
        if max(_correlation(values[:, 1:], values[:, :-1]), _correlation(values[1:], values[:-1])) < LEAST_CORRELATION:
            return True
        rows, columns = (length // 2 * 2 for length in values.shape)
        values = values[:rows, :columns].reshape(rows // 2, 2, columns // 2, 2).mean(axis=(1, 3))
    return False


def tint(pixels: np.ndarray) -> float:
    """How colourful a picture is: mean difference between a pixel's largest and smallest channel, of 255."""
    return 0.0 if pixels.ndim == 2 else float(np.ptp(pixels, axis=2).mean())


def is_colour(pixels: np.ndarray) -> bool:
    """Whether it is a picture in colours, more than a grey one that compression has tinted."""
    return tint(pixels) > LARGEST_TINT


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if norm > 0 else 1.0
