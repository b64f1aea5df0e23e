"""The picture of a propagation: slices with contours, and the confidence of every slice below."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from MedAILib.grids import axis_code
from MedAILib.volume import Geometry, Volume
from Mem3DPropagateLib.evaluate import placed
from Mem3DPropagateLib.request import Axis, PropagatedSegment, PropagateResult
from Mem3DPropagateLib.strip import REFERENCE_RGB, confidence_rgb, draw_strip, shown_span

if TYPE_CHECKING:
    from PIL import Image

COLUMNS, ROWS = 6, 2
TILE_PX, BORDER_PX, CAPTION_PX, STRIP_PX = 176, 6, 20, 92
MARGIN = 0.35
"""Surroundings shown around the structure, as a share of its size."""

_PAPER, _INK, _TRUTH_RGB = (255, 255, 255), (40, 40, 40), (255, 255, 255)


@dataclass(frozen=True, eq=False)
class Contour:
    """A mask to outline: ``mask_kji`` bool, shape (k, j, i), and its colour 0..255."""

    mask_kji: np.ndarray
    rgb: tuple[int, int, int]
    dashed: bool = False


def draw_picture(
    volume: Volume,
    result: PropagateResult,
    colors_rgb: Sequence[tuple[float, float, float]],
    truths_kji: Sequence[np.ndarray] = (),
) -> Image.Image:
    """Montage of slices over the confidence strips of all segments.

    Parameters
    ----------
    volume : Volume
    result : PropagateResult
        With at least one segment that has slices.
    colors_rgb : sequence of tuple of float
        A colour, 0..1, per segment.
    truths_kji : sequence of ndarray, shape (k, j, i), bool
        True masks, outlined in dashes; may be empty.
    """
    from PIL import Image, ImageDraw, ImageFont

    contours = [
        Contour(placed(segment, volume.array.shape), _bytes(color))
        for segment, color in zip(result.segments, colors_rgb, strict=True)
    ]
    contours += [Contour(truth, _TRUTH_RGB, dashed=True) for truth in truths_kji]
    view = _View(volume, result.axis, np.logical_or.reduce([c.mask_kji for c in contours]))
    indices = slices_to_show(result.segments)
    rows = -(-len(indices) // COLUMNS)
    spans = [shown_span(segment.slices, segment.advice) for segment in result.segments if segment.slices]
    span = (min(first for first, _ in spans), max(last for _, last in spans))
    width = COLUMNS * (TILE_PX + BORDER_PX) + BORDER_PX
    montage_px = rows * (TILE_PX + CAPTION_PX + BORDER_PX) + BORDER_PX
    strip_px = CAPTION_PX + STRIP_PX
    picture = Image.new("RGB", (width, montage_px + len(result.segments) * strip_px + CAPTION_PX), _PAPER)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    for number, index in enumerate(indices):
        x = BORDER_PX + number % COLUMNS * (TILE_PX + BORDER_PX)
        y = BORDER_PX + number // COLUMNS * (TILE_PX + CAPTION_PX + BORDER_PX)
        frame, caption = _caption(result.segments, index)
        draw.rectangle((x - 3, y - 3, x + TILE_PX + 2, y + TILE_PX + 2), fill=frame)
        picture.paste(view.tile(index, contours), (x, y))
        draw.text((x + TILE_PX / 2, y + TILE_PX + 4), caption, fill=_INK, font=font, anchor="mt")
    for number, (segment, color) in enumerate(zip(result.segments, colors_rgb, strict=True)):
        y = montage_px + number * strip_px
        draw.rectangle((BORDER_PX, y + 3, BORDER_PX + 12, y + 15), fill=_bytes(color))
        draw.text((BORDER_PX + 20, y + 2), f"{segment.name}: expected Dice per slice", fill=_INK, font=font)
        strip = draw_strip(segment.slices, segment.advice, width - 2 * BORDER_PX, STRIP_PX, span)
        picture.paste(strip, (BORDER_PX, y + CAPTION_PX))
    legend = "Blue frame and bar: drawn by the user.  Triangle: slice worth drawing next.  "
    legend += "White dashes: expert.  " if truths_kji else ""
    draw.text((BORDER_PX, picture.height - CAPTION_PX + 2), legend + "Research use only.", fill=_INK, font=font)
    return picture


def slices_to_show(segments: Sequence[PropagatedSegment]) -> list[int]:
    """Up to a montage full of slices, evenly over all that hold something; references before others."""
    qualities = [q for segment in segments for q in segment.slices]
    first, last = min(q.index for q in qualities), max(q.index for q in qualities)
    references = sorted({q.index for q in qualities if q.is_reference})
    most = COLUMNS * ROWS
    if last - first < most:
        return list(range(first, last + 1))
    kept = references if len(references) <= most // 2 else references[:: -(-len(references) // (most // 2))]
    shown = set(kept)
    candidates = sorted({q.index for q in qualities} - shown)
    while len(shown) < most and candidates:
        farthest = max(candidates, key=lambda index: (min(abs(index - s) for s in shown), -index))
        shown.add(farthest)
        candidates.remove(farthest)
    return sorted(shown)


class _View:
    """Tiles of a volume's slices around a structure, upright as anatomy is looked at."""

    def __init__(self, volume: Volume, axis: Axis, mask_kji: np.ndarray) -> None:
        self._axis = axis.array_axis
        self._array = volume.array
        self._transposed, self._flips = _upright(volume.geometry, self._axis)
        self._window = self._square_window(volume.geometry, mask_kji)
        shown = self._array[mask_kji] if mask_kji.any() else self._array
        low, high = np.percentile(_finite(self._crop(self._array, slice(None))), (1, 99))
        self._low, self._high = float(low), float(max(high, low + 1e-6, np.percentile(_finite(shown), 99)))

    def _square_window(self, geometry: Geometry, mask_kji: np.ndarray) -> tuple[slice, slice]:
        spacing = [s for a, s in enumerate(geometry.spacing_kji_mm) if a != self._axis]
        plane = np.asarray(np.moveaxis(mask_kji, self._axis, 0).any(axis=0))
        filled = [np.flatnonzero(plane.any(axis=1 - a)) for a in (0, 1)]
        size_mm = (1 + 2 * MARGIN) * max((f[-1] - f[0] + 1) * s for f, s in zip(filled, spacing, strict=True))
        window = []
        for a in (0, 1):
            half = 0.5 * size_mm / spacing[a]
            middle = 0.5 * (filled[a][0] + filled[a][-1] + 1)
            window.append(slice(max(round(middle - half), 0), min(round(middle + half), plane.shape[a])))
        shown_mm = [(w.stop - w.start) * s for w, s in zip(window, spacing, strict=True)]
        self._aspect = [s / max(shown_mm) for s in shown_mm]
        return window[0], window[1]

    def _crop(self, array: np.ndarray, index: int | slice) -> np.ndarray:
        return np.moveaxis(array, self._axis, 0)[(index, *self._window)]

    def tile(self, index: int, contours: Sequence[Contour]) -> Image.Image:
        from PIL import Image

        values = np.clip(self._crop(self._array, index).astype(np.float32), self._low, self._high)
        grey = np.nan_to_num((values - self._low) / (self._high - self._low))
        picture = self._placed(Image.fromarray((255 * self._turned(grey)).astype(np.uint8)), Image.Resampling.BICUBIC)
        pixels = np.asarray(picture.convert("RGB")).copy()
        for contour in contours:
            mask = self._turned(self._crop(contour.mask_kji, index).astype(np.float32))
            smooth = self._placed(Image.fromarray((255 * mask).astype(np.uint8)), Image.Resampling.BILINEAR)
            line = _outline(np.asarray(smooth) > 127, 1 if contour.dashed else 2)
            if contour.dashed:
                rows, columns = np.indices(line.shape)
                line &= (rows + columns) // 4 % 2 == 0
            pixels[line] = contour.rgb
        return Image.fromarray(pixels)

    def _turned(self, plane: np.ndarray) -> np.ndarray:
        flipped = plane[:: self._flips[0], :: self._flips[1]]
        return flipped.T if self._transposed else flipped

    def _placed(self, picture: Image.Image, resampling: Image.Resampling) -> Image.Image:
        """Scale to the tile in true proportions, black around."""
        from PIL import Image

        height, width = self._aspect[::-1] if self._transposed else self._aspect
        size = (max(round(TILE_PX * width), 1), max(round(TILE_PX * height), 1))
        tile = Image.new("L", (TILE_PX, TILE_PX))
        tile.paste(picture.resize(size, resampling), ((TILE_PX - size[0]) // 2, (TILE_PX - size[1]) // 2))
        return tile


def _upright(geometry: Geometry, axis: int) -> tuple[bool, tuple[int, int]]:
    """How to turn a plane across an array axis so that anatomy stands upright.

    Up is superior, else anterior; left is the patient's right, else anterior.

    Returns
    -------
    transposed : bool
        Whether rows and columns must change places, after flipping.
    flips : tuple of int
        -1 for each of the plane's axes (k, j, i order) that must be reversed, else 1.
    """
    code = axis_code(geometry)[::-1]
    rows, columns = (letter for a, letter in enumerate(code) if a != axis)
    vertical = "SI" if {rows, columns} & set("SI") else "AP"
    # Indices must run downwards and to the right: towards inferior, posterior, left.
    flips = tuple(-1 if letter in "SAR" else 1 for letter in (rows, columns))
    return columns in vertical, (flips[0], flips[1])


def _finite(values: np.ndarray) -> np.ndarray:
    """The values that are numbers, in one row; a zero where there are none."""
    found = values[np.isfinite(values)]
    return found if found.size else np.zeros(1)


def _outline(mask: np.ndarray, width_px: int) -> np.ndarray:
    from scipy import ndimage

    return mask & ~ndimage.binary_erosion(mask, iterations=width_px)


def _caption(segments: Sequence[PropagatedSegment], index: int) -> tuple[tuple[int, int, int], str]:
    """Frame colour and words for a slice: drawn by the user, or the lowest expected Dice on it."""
    qualities = [q for segment in segments for q in segment.slices if q.index == index]
    propagated = [q.confidence for q in qualities if not q.is_reference]
    if not propagated:
        return (REFERENCE_RGB, f"{index}  drawn") if qualities else (_INK, f"{index}")
    return confidence_rgb(min(propagated)), f"{index}  Dice {min(propagated):.2f} expected"


def _bytes(color: tuple[float, float, float]) -> tuple[int, int, int]:
    red, green, blue = (round(255 * c) for c in color)
    return red, green, blue
