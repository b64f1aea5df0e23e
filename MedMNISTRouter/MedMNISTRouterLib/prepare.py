"""From a picture to what a network takes: 8 bits, the middle cut out, resized, colours in order, normalised."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from MedAILib.errors import ConfigError
from MedAILib.models.heads import Input, NormalisationKind, Resize
from MedAILib.multitask.normalise import normalised
from MedMNISTRouterLib.datasets import Crop
from MedMNISTRouterLib.request import PlainImage

_CELLS = ((360, 363), (363, 360))
_CELL_PX = 200
_ORDERS: dict[tuple[str, ...], tuple[int, ...]] = {("R", "G", "B"): (0, 1, 2), ("B", "G", "R"): (2, 1, 0)}
GREY: tuple[str, ...] = ("grey",)
_FROM_STATISTICS = (NormalisationKind.Z_SCORE, NormalisationKind.MIN_MAX, NormalisationKind.PERCENTILES)
_NORMALISATIONS = (NormalisationKind.NONE, NormalisationKind.FIXED, *_FROM_STATISTICS)


@dataclass(frozen=True, eq=False)
class EightBit:
    """A picture as it is shown.

    Attributes
    ----------
    pixels : ndarray, shape (rows, columns) or (rows, columns, 3), uint8
    remark : str
        What was guessed about its values; empty where nothing was.
    """

    pixels: np.ndarray
    remark: str = ""


def eight_bit(image: PlainImage) -> EightBit:
    """A picture's values from black to white as 0 to 255.

    Raises nothing: values that are not finite become black; `MedMNISTRouterLib.checks` turns such pictures away.
    """
    pixels, remark, window = np.asarray(image.pixels), "", image.value_range
    if window is None:
        if pixels.dtype == np.uint8:
            return EightBit(pixels)
        values = pixels[np.isfinite(pixels)] if pixels.dtype.kind == "f" else pixels
        low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 1.0)
        window, remark = _guess(pixels, low, high)
    low, high = window
    scaled = (np.nan_to_num(pixels.astype(np.float64), nan=low) - low) * (255.0 / max(high - low, 1e-30))
    return EightBit(np.rint(np.clip(scaled, 0, 255)).astype(np.uint8), remark)


def _guess(pixels: np.ndarray, low: float, high: float) -> tuple[tuple[float, float], str]:
    if pixels.dtype.kind != "f":
        return (low, high), ""
    if low >= 0 and high <= 1:
        return (0.0, 1.0), "Its values lie between 0 and 1 and were taken as from 0 (black) to 1 (white)."
    if low >= 0 and high <= 255:
        return (0.0, 255.0), "Its values lie between 0 and 255 and were taken as those of an 8-bit picture."
    return (low, high), f"Its values lie between {low:g} and {high:g}; these were taken as black and white."


def cropped(pixels: np.ndarray, crop: Crop) -> np.ndarray:
    """What the data set's makers cut out of the original, where the picture is such an original."""
    rows, columns = pixels.shape[:2]
    if crop is Crop.MIDDLE_200 and (rows, columns) in _CELLS:
        size = _CELL_PX
    elif crop is Crop.SHORT_EDGE:
        size = min(rows, columns)
    else:
        return pixels
    top, left = (rows - size) // 2, (columns - size) // 2
    return pixels[top : top + size, left : left + size]


def prepared(pixels: np.ndarray, wanted: Input, crop: Crop = Crop.NONE) -> np.ndarray:
    """A picture as a model takes it.

    Parameters
    ----------
    pixels : ndarray, shape (rows, columns) or (rows, columns, 3), uint8
        As of `eight_bit`.
    wanted : Input
        ``size``, ``channels`` (``grey``, or ``R, G, B`` in the network's order), ``resize``, ``normalisation``.
    crop : Crop

    Returns
    -------
    ndarray, shape (rows, columns, channels), float32

    Raises
    ------
    ConfigError
        The description of the model's input leaves something open, or asks for what is not known here.
    """
    order = _order(wanted)
    small = _resized(cropped(pixels, crop), wanted)
    if order is None:
        channels = (_grey(small) if small.ndim == 3 else small)[None]
    else:
        colour = small if small.ndim == 3 else np.repeat(small[..., None], 3, axis=2)
        channels = np.moveaxis(colour, 2, 0)[list(order)]
    norm = wanted.normalisation
    if norm is None or norm.kind not in _NORMALISATIONS:
        kind = "nothing" if norm is None else f"'{norm.kind.value}'"
        raise ConfigError(
            "The model's description does not say how pictures are normalised.",
            why=f"Its input's normalisation is {kind}.",
            todo="State it in model_config.json: inputs[0].normalisation.",
        )
    return np.ascontiguousarray(np.moveaxis(normalised(channels, norm), 0, 2))


def _order(wanted: Input) -> tuple[int, ...] | None:
    """Places of red, green, blue in the network's order; None for grey."""
    if wanted.channels == GREY:
        return None
    order = _ORDERS.get(wanted.channels)
    if order is None:
        raise ConfigError(
            f"The model takes the channels {', '.join(wanted.channels) or '(not stated)'}.",
            todo="State 'grey', or 'R', 'G', 'B' in the network's order, in model_config.json: inputs[0].channels.",
        )
    return order


def _grey(colour: np.ndarray) -> np.ndarray:
    """ITU-R 601 luma, as Pillow's mode ``L``."""
    return np.rint(colour @ np.array([0.299, 0.587, 0.114])).astype(np.uint8)


def _resized(pixels: np.ndarray, wanted: Input) -> np.ndarray:
    if not wanted.size or tuple(pixels.shape[:2]) == tuple(wanted.size):
        return pixels
    if len(wanted.size) != 2 or wanted.keep_aspect or wanted.resize is Resize.NONE:
        raise ConfigError(
            f"A picture of {pixels.shape[0]} x {pixels.shape[1]} pixels cannot be brought to the model's size.",
            todo="State 'size' (rows, columns) and 'resize' in model_config.json: inputs[0].",
        )
    from PIL import Image

    filters = {
        Resize.NEAREST: Image.Resampling.NEAREST,
        Resize.LINEAR: Image.Resampling.BILINEAR,
        Resize.CUBIC: Image.Resampling.BICUBIC,
        Resize.AREA: Image.Resampling.BOX,
    }
    rows, columns = wanted.size
    return np.asarray(Image.fromarray(pixels).resize((columns, rows), filters[wanted.resize or Resize.CUBIC]))
