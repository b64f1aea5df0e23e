"""Slices to the size of a network and labels back: the same numbers as scikit-image's ``resize``, without it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np


def resized_slices(
    slices: np.ndarray, shape: tuple[int, int], on_slice: Callable[[int], None] = lambda done: None
) -> np.ndarray:
    """Every slice at another size, by a cubic spline.

    Pixels are areas: the outlines of old and new slice coincide. Beyond the edge a slice is mirrored about the
    centres of its outermost pixels. Where it gets smaller, it is smoothed first, by a Gaussian with a standard
    deviation of half of what the factor has above 1. Values stay within those of all slices.

    Parameters
    ----------
    slices : ndarray, shape (n, rows, columns)
    shape : (int, int)
    on_slice : callable
        Receives the number of slices done.

    Returns
    -------
    ndarray, shape (n, *shape), float32
    """
    from scipy import ndimage

    if slices.shape[1:] == shape:
        return slices.astype(np.float32)
    low, high = float(slices.min()), float(slices.max())
    factors = [size / old for size, old in zip(shape, slices.shape[1:], strict=True)]
    sigmas = [max(0.0, (1 / factor - 1) / 2) for factor in factors]
    found = np.empty((len(slices), *shape), dtype=np.float32)
    for index, plane in enumerate(slices):
        values = plane.astype(np.float64)
        if any(sigmas):
            values = ndimage.gaussian_filter(values, sigmas, mode="mirror")
        zoomed = ndimage.zoom(values, factors, order=3, mode="mirror", grid_mode=True)
        np.clip(zoomed, low, high, out=found[index], casting="same_kind")
        on_slice(index + 1)
    return found


def resized_labels(slices: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Every slice of labels at another size: the label of the pixel in which the new pixel's centre lies.

    Parameters
    ----------
    slices : ndarray, shape (n, rows, columns), integers
    shape : (int, int)

    Returns
    -------
    ndarray, shape (n, *shape), of the same type
    """
    rows, columns = (
        np.minimum(((np.arange(size) + 0.5) * old / size).astype(np.intp), old - 1)
        for size, old in zip(shape, slices.shape[1:], strict=True)
    )
    return slices[:, rows[:, None], columns[None, :]]
