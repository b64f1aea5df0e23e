"""A small PNG of a picture, as it was routed."""

from __future__ import annotations

import io

from MedMNISTRouterLib.prepare import eight_bit
from MedMNISTRouterLib.request import PlainImage


def thumbnail_png(image: PlainImage, edge_px: int) -> bytes:
    """A picture's PNG whose longer edge is that long; small ones are enlarged without smoothing."""
    from PIL import Image

    picture = Image.fromarray(eight_bit(image).pixels)
    scale = edge_px / max(picture.size)
    size = (max(round(picture.width * scale), 1), max(round(picture.height * scale), 1))
    smooth = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    stream = io.BytesIO()
    picture.resize(size, smooth).save(stream, format="PNG")
    return stream.getvalue()
