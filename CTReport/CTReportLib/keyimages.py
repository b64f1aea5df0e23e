"""Key images: a few slices of the CT in the radiologist's view, with the outline of what was measured there."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from MedAILib.grids import reoriented
from MedAILib.volume import LabelMap, Volume

if TYPE_CHECKING:
    from PIL import Image

LUNG_HU, MEDIASTINUM_HU = (-1350.0, 150.0), (-160.0, 240.0)
MOST_IMAGES = 6
_LUNGS = ("left_lung", "right_lung")
_CHEST = (*_LUNGS, "airways")
_OUTLINE_RGB = (255, 90, 60)
_OUTLINE_PIXELS = 2
_SMALLEST_PIXELS = 400


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

    def fitted(self, width: float, height: float) -> tuple[float, float]:
        """Its width and height when it fills that space without changing its shape, in the space's unit."""
        columns, rows = (int.from_bytes(self.png[at : at + 4].tobytes(), "big") for at in (16, 20))
        scale = min(width / columns, height / rows)
        return columns * scale, rows * scale


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
    known = {info.id for info in labels.segments}
    found = [labels.mask(name) for name in _LUNGS if name in known]
    lungs = np.logical_or.reduce(found) if found else np.zeros(upright.array.shape, bool)
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
    """A plane whose rows run up or to the front and whose columns run to the patient's right, as a PNG.

    The outline is drawn after the picture has its size, just outside the mask: one is as fine as the other.
    """
    from PIL import Image
    from scipy import ndimage

    grey = np.clip((plane.astype(np.float32) - hu[0]) / (hu[1] - hu[0]), 0, 1)
    size = _size(plane.shape, spacing)
    picture = _seen((255 * grey).astype(np.uint8)).resize(size, Image.Resampling.BILINEAR).convert("RGB")
    if mask is not None:
        drawn = np.asarray(_seen(255 * mask.astype(np.uint8)).resize(size, Image.Resampling.BILINEAR)) > 127
        rgb = np.array(picture)
        rgb[ndimage.binary_dilation(drawn, iterations=_OUTLINE_PIXELS) & ~drawn] = _OUTLINE_RGB
        picture = Image.fromarray(rgb)
    _mark_right(picture)
    stream = io.BytesIO()
    picture.save(stream, "PNG", optimize=False)
    return np.frombuffer(stream.getvalue(), np.uint8)


def _seen(plane: np.ndarray) -> Image.Image:
    """As a radiologist sees it: the patient's right on the left, front or top above."""
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(plane[::-1, ::-1]))


def _size(shape: tuple[int, ...], spacing: tuple[float, float]) -> tuple[int, int]:
    """Width and height in square pixels, the shorter one not below the smallest allowed."""
    sides_mm = [n * mm for n, mm in zip(shape, spacing, strict=True)]
    pixels_per_mm = max(1 / min(spacing), _SMALLEST_PIXELS / min(sides_mm))
    height, width = (max(1, round(mm * pixels_per_mm)) for mm in sides_mm)
    return width, height


def _mark_right(picture: Image.Image) -> None:
    """An R at the patient's right, so that a picture taken out of its report still says where that is."""
    from PIL import ImageDraw, ImageFont

    place, middle = 6, picture.height // 2
    font = ImageFont.load_default(max(14, picture.height // 20))
    ImageDraw.Draw(picture).text(
        (place, middle), "R", fill=(255, 255, 255), font=font, anchor="lm", stroke_width=2, stroke_fill=(0, 0, 0)
    )
