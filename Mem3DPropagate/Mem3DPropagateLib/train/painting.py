"""Images painted onto labels, and real images altered: numpy only."""

from __future__ import annotations

import numpy as np
from scipy import ndimage

MEMBRANES = 0.15
"""Share of paintings in which the structure's neighbours look almost as it does."""


def painted(labels: np.ndarray, label: int, rng: np.random.Generator) -> np.ndarray:
    """An image of slices of labels: every label a brightness and a grain of its own, blurred, with noise.

    Parameters
    ----------
    labels : ndarray, shape (n, rows, columns), integer
    label : int
        The structure, which differs from the others' mean by at least a little.
    rng : numpy.random.Generator

    Returns
    -------
    ndarray, shape (n, rows, columns), float32
        Brightness about 0..1.
    """
    found, places = np.unique(labels, return_inverse=True)
    means = rng.uniform(0, 1, len(found)).astype(np.float32)
    grains = (rng.uniform(0, 0.12, len(found)) ** 1.3).astype(np.float32)
    if rng.random() < MEMBRANES and label in found:
        means[found != label] = means[found == label] + rng.uniform(0.08, 0.3) * rng.choice((-1, 1), len(found) - 1)
    places = places.reshape(labels.shape)
    noise = rng.standard_normal(labels.shape, np.float32)
    grain_px = rng.uniform(0.0, 1.5)
    if grain_px > 0.4:
        noise = ndimage.gaussian_filter(noise, (0, grain_px, grain_px), truncate=2.5) * (1 + grain_px)
    image = means[places] + grains[places] * noise
    blur_px = rng.uniform(0.3, 1.3)
    return ndimage.gaussian_filter(image, (0, blur_px, blur_px), truncate=2.5)


def altered(images: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Slices of one volume with another contrast: gamma, inversion, bias field, blur, noise.

    Parameters
    ----------
    images : ndarray, shape (n, rows, columns), float32

    Returns
    -------
    ndarray of the same shape, float32
        In another scale; the input is scaled by its own range anyway.
    """
    low, high = np.percentile(images[:: max(len(images) // 4, 1)], (0.5, 99.5))
    images = (images - low) / max(high - low, 1e-6)
    if rng.random() < 0.5:
        images = np.clip(images, 0, None) ** np.exp(rng.normal(0, 0.3))
    if rng.random() < 0.15:
        images = 1 - images
    if rng.random() < 0.3:
        field = ndimage.zoom(rng.standard_normal((4, 4)), [n / 4 for n in images.shape[1:]], order=1)
        images = images * np.exp(0.15 * field).astype(np.float32)
    if rng.random() < 0.2:
        blur_px = rng.uniform(0.3, 1.0)
        images = ndimage.gaussian_filter(images, (0, blur_px, blur_px), truncate=2.5)
    if rng.random() < 0.4:
        images = images + rng.uniform(0, 0.08) * rng.standard_normal(images.shape, np.float32)
    return np.asarray(images, np.float32)
