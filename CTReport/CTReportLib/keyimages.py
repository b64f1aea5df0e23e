"""Key images: a few slices of the CT in the radiologist's view, with the outline of what was measured there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from MedAILib.grids import reoriented
from MedAILib.volume import LabelMap, Volume

LUNG_HU, MEDIASTINUM_HU = (-1350.0, 150.0), (-160.0, 240.0)
MOST_IMAGES = 6
_LUNGS = ("left_lung", "right_lung")
_CHEST = (*_LUNGS, "airways")
_OUTLINE_RGB = (255, 90, 60)
_SMALLEST_PIXELS = 320


@dataclass(frozen=True, eq=False)
class KeyImage:
    """One picture.

    Attributes
    ----------
    title : str
    png : ndarray, shape (n,), uint8
        The bytes of a PNG file; the patient's right is on the left.
    """

    title: str
    png: np.ndarray


def key_images(volume: Volume, masks: LabelMap, window_hu: tuple[float, float] | None = None) -> tuple[KeyImage, ...]:
    """An axial and a coronal slice through most of the lungs, and one through each measured segment.

    Parameters
    ----------
    volume : Volume
        Hounsfield units.
    masks : LabelMap
        On the volume's grid: see `CTReportLib.localised.localisation`.
    window_hu : tuple of float, optional
        Black and white; without it the lung's window, and the mediastinum's for what is not in the lungs.
    """
    upright, labels = reoriented(volume, "RAS"), reoriented(masks, "RAS")
    lungs = np.logical_or.reduce([labels.mask(name) for name in _LUNGS])
    return tuple(_pictures(upright, labels, lungs, window_hu))[:MOST_IMAGES]


def _pictures(
    volume: Volume, labels: LabelMap, lungs: np.ndarray, window_hu: tuple[float, float] | None
) -> Iterator[KeyImage]:
    spacing = volume.geometry.spacing_kji_mm
    if lungs.any():
        k, j = (int(np.argmax(lungs.sum(axis=axes))) for axes in ((1, 2), (0, 2)))
        hu = window_hu or LUNG_HU
        yield KeyImage("Lungs, axial", _png(volume.array[k], None, (spacing[1], spacing[2]), hu))
        yield KeyImage("Lungs, coronal", _png(volume.array[:, j], None, (spacing[0], spacing[2]), hu))
    for segment in labels.segments:
        mask = labels.mask(segment.id) if segment.id not in _CHEST else np.zeros(0, bool)
        if mask.any():
            k = int(np.argmax(mask.sum(axis=(1, 2))))
            hu = window_hu or (LUNG_HU if lungs[mask].mean() > 0.5 else MEDIASTINUM_HU)
            yield KeyImage(segment.name, _png(volume.array[k], mask[k], (spacing[1], spacing[2]), hu))


def _png(
    plane: np.ndarray, mask: np.ndarray | None, spacing: tuple[float, float], hu: tuple[float, float]
) -> np.ndarray:
    """A plane whose rows run up or to the front and whose columns run to the patient's right, as a PNG."""
    from PIL import Image
    from scipy import ndimage

    grey = np.clip((plane.astype(np.float32) - hu[0]) / (hu[1] - hu[0]), 0, 1)
    rgb = np.repeat((255 * grey).astype(np.uint8)[..., None], 3, axis=2)
    if mask is not None:
        rgb[ndimage.binary_dilation(mask) & ~mask] = _OUTLINE_RGB
    scale = max(1.0, _SMALLEST_PIXELS / (min(rgb.shape[:2]) * max(spacing) / min(spacing))) / min(spacing)
    size = tuple(max(1, round(n * mm * scale)) for n, mm in zip(rgb.shape[1::-1], spacing[::-1], strict=True))
    picture = Image.fromarray(np.ascontiguousarray(rgb[::-1, ::-1])).resize(size, Image.Resampling.BILINEAR)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=False)
    return np.frombuffer(stream.getvalue(), np.uint8)
