"""The confidence strip: one bar per slice, as a picture."""

from __future__ import annotations

import io
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from Mem3DPropagateLib.request import Advice, SliceQuality

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

REFERENCE_RGB = (38, 110, 214)
SUGGESTED_RGB = (147, 51, 180)
_INK, _FAINT, _PAPER = (40, 40, 40), (205, 205, 205), (255, 255, 255)
_SCALE = ((0.0, (196, 40, 40)), (0.5, (232, 140, 40)), (0.75, (226, 200, 60)), (1.0, (46, 150, 80)))


def confidence_rgb(confidence: float) -> tuple[int, int, int]:
    """Colour of an expected Dice: red over orange and yellow to green."""
    for (low, low_rgb), (high, high_rgb) in itertools.pairwise(_SCALE):
        if confidence <= high:
            share = (confidence - low) / (high - low)
            mixed = [round(a + share * (b - a)) for a, b in zip(low_rgb, high_rgb, strict=True)]
            return (mixed[0], mixed[1], mixed[2])
    return _SCALE[-1][1]


def shown_span(slices: Sequence[SliceQuality], advice: Advice) -> tuple[int, int]:
    """First and last of the slices, ascending, and of the advised one, which may lie beyond them."""
    advised = slices[0].index if advice.slice is None else advice.slice
    return min(slices[0].index, advised), max(slices[-1].index, advised)


def draw_strip(
    slices: Sequence[SliceQuality],
    advice: Advice,
    width_px: int,
    height_px: int,
    span: tuple[int, int] | None = None,
) -> Image.Image:
    """Bars of expected Dice over the slices; references blue, the advised slice marked.

    Parameters
    ----------
    slices : sequence of SliceQuality
        Ascending, at least one.
    advice : Advice
    width_px, height_px : int
        Size of the picture.
    span : tuple of int, optional
        First and last slice of the axis; by default `shown_span`.
    """
    from PIL import Image, ImageDraw

    picture = Image.new("RGB", (width_px, height_px), _PAPER)
    draw = ImageDraw.Draw(picture)
    chart = Chart(span or shown_span(slices, advice), width_px, height_px)
    for share in (0.0, 0.5, 1.0):
        y = chart.y(share)
        draw.line([(chart.left, y), (chart.right, y)], fill=_FAINT)
        _text(draw, (chart.left - 4, y), f"{share:g}", anchor="rm", size=chart.font_px)
    for quality in slices:
        colour = REFERENCE_RGB if quality.is_reference else confidence_rgb(quality.confidence)
        draw.rectangle(chart.bar(quality), fill=colour)
    for index in chart.labelled:
        _text(draw, (chart.x(index), chart.bottom + 3), str(index), anchor="mt", size=chart.font_px)
    if advice.slice is not None:
        x, size = chart.x(advice.slice), max(chart.font_px // 2, 4)
        draw.polygon([(x - size, 0), (x + size, 0), (x, size + 2)], fill=SUGGESTED_RGB)
        draw.line([(x, size), (x, chart.bottom)], fill=SUGGESTED_RGB)
    return picture


class Chart:
    """Where things stand on a strip, in pixels."""

    def __init__(self, span: tuple[int, int], width_px: int, height_px: int) -> None:
        self.font_px = max(min(height_px // 7, 14), 9)
        self.left, self.right = 2 * self.font_px + 4, width_px - self.font_px
        self.top, self.bottom = self.font_px, height_px - self.font_px - 6
        self.first, self.last = span
        self._step = (self.right - self.left) / (self.last - self.first + 1)

    @property
    def labelled(self) -> list[int]:
        """Slice indices written under the axis: about one every 60 pixels, the ends included."""
        count = max(int((self.right - self.left) / (4 * self.font_px)), 2)
        span = self.last - self.first
        return sorted({self.first + round(span * n / (count - 1)) for n in range(count)})

    def x(self, index: int) -> float:
        return self.left + (index - self.first + 0.5) * self._step

    def y(self, share: float) -> float:
        return self.bottom - share * (self.bottom - self.top)

    def bar(self, quality: SliceQuality) -> tuple[float, float, float, float]:
        half = max(0.5 * self._step - (0.5 if self._step > 3 else 0.0), 0.5)
        centre = self.x(quality.index)
        return (centre - half, self.y(max(quality.confidence, 0.02)), centre + half, self.bottom)


def png_bytes(picture: Image.Image) -> bytes:
    """A picture as a PNG file."""
    stream = io.BytesIO()
    picture.save(stream, format="PNG", optimize=True)
    return stream.getvalue()


def _text(draw: ImageDraw.ImageDraw, at: tuple[float, float], text: str, anchor: str, size: int) -> None:
    from PIL import ImageFont

    draw.text(at, text, fill=_INK, anchor=anchor, font=ImageFont.load_default(size))
