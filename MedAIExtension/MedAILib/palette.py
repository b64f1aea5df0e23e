"""Colours for segments that come without any."""

from __future__ import annotations

import colorsys

_GOLDEN_RATIO = 0.618033988749895
_SHADES = ((0.55, 0.90), (0.80, 0.75), (0.40, 0.95), (0.90, 0.60))
"""Saturation and value, taken in turn so that near hues still differ."""


def default_color(index: int) -> tuple[float, float, float]:
    """A colour (red, green, blue, 0..1) for the segment of that index, starting at 0.

    Hues step by the golden ratio, so that any first n of them are spread around the circle.
    """
    saturation, value = _SHADES[index % len(_SHADES)]
    red, green, blue = colorsys.hsv_to_rgb((0.02 + index * _GOLDEN_RATIO) % 1.0, saturation, value)
    return (round(red, 4), round(green, 4), round(blue, 4))
