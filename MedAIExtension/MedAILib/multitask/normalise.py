"""From stored pixel values to what the network was trained on.

Nothing is guessed from the values: an 8-bit picture and a 16-bit MR slice go the way that the model's
description states (`MedAILib.models.heads.Normalisation`).
"""

from __future__ import annotations

import numpy as np

from MedAILib.errors import InputError
from MedAILib.models.heads import Normalisation, NormalisationKind


def normalised(image: np.ndarray, normalisation: Normalisation) -> np.ndarray:
    """An image as the network takes it.

    Parameters
    ----------
    image : ndarray, shape (channels, rows, columns), any real type
        Stored values, already at the size that their statistics shall be taken from.
    normalisation : Normalisation
        Statistics of an image are those of each channel by itself.

    Returns
    -------
    ndarray, float32, same shape
        A channel without contrast becomes 0 where its own statistics are used.

    Raises
    ------
    InputError
        Where a fixed normalisation is for another number of channels.
    """
    values = image.astype(np.float64)
    match normalisation.kind:
        case NormalisationKind.NONE:
            result = values
        case NormalisationKind.Z_SCORE:
            result = _divided(values - _per_channel(values.mean(axis=(1, 2))), values.std(axis=(1, 2)))
        case NormalisationKind.MIN_MAX:
            low, high = values.min(axis=(1, 2)), values.max(axis=(1, 2))
            result = _divided(values - _per_channel(low), high - low)
        case NormalisationKind.PERCENTILES:
            low, high = np.percentile(values, [normalisation.lower, normalisation.upper], axis=(1, 2))
            result = np.clip(_divided(values - _per_channel(low), high - low), 0.0, 1.0)
        case NormalisationKind.WINDOW:
            assert normalisation.lower is not None and normalisation.upper is not None  # the description is valid
            result = np.clip((values - normalisation.lower) / (normalisation.upper - normalisation.lower), 0.0, 1.0)
        case NormalisationKind.FIXED:
            mean, std = (_fitting(numbers, len(values)) for numbers in (normalisation.mean, normalisation.std))
            result = (values / normalisation.scale - mean) / std
    return result.astype(np.float32)


def finite(image: np.ndarray) -> np.ndarray:
    """The image with what is no finite number replaced by its smallest finite value.

    Raises
    ------
    InputError
        Where it holds no finite number.
    """
    if image.dtype.kind != "f":
        return image
    good = np.isfinite(image)
    if good.all():
        return image
    if not good.any():
        raise InputError("The image holds no number.", why="Every pixel is NaN or infinite.", todo="Check the file.")
    return np.where(good, image, image[good].min())


def _per_channel(numbers: np.ndarray) -> np.ndarray:
    return numbers[:, None, None]


def _divided(values: np.ndarray, by: np.ndarray) -> np.ndarray:
    """Values divided channel by channel; 0 where a channel's divisor is 0 or lost in rounding."""
    usable = by > 1e-12 * np.maximum(np.abs(values).max(axis=(1, 2)), 1.0)
    return np.where(_per_channel(usable), values / _per_channel(np.where(usable, by, 1.0)), 0.0)


def _fitting(numbers: tuple[float, ...], channels: int) -> np.ndarray:
    if len(numbers) not in (1, channels):
        raise InputError(
            f"The model's normalisation is for {len(numbers)} channels, the image has {channels}.",
            todo="Mend 'normalisation' in the model's description.",
        )
    return _per_channel(np.broadcast_to(np.asarray(numbers, np.float64), (channels,)))
