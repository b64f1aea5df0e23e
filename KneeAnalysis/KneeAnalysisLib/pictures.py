"""Pictures of the bones, coloured by cartilage thickness, from six views."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np

from KneeAnalysisLib.painter import painting
from KneeAnalysisLib.results import Report
from KneeAnalysisLib.thickness import BoneThickness
from MedAILib.jobs.task import Context

THICKEST_MM = 4.0
"""Upper end of the colours of all pictures, so that knees can be compared by eye."""
COLOR_STOPS = ((0.0, "440154"), (0.25, "3b528b"), (0.5, "21918c"), (0.75, "5ec962"), (1.0, "fde725"))
"""Share of `THICKEST_MM` and colour, of a map that is even to the eye and safe for the colour-blind (viridis)."""
BARE = (0.87, 0.84, 0.78)
"""Bone that bears no cartilage."""

_PANEL_PX = 340
_BAR_PX = 110
_DENUDED = (0.85, 0.33, 0.31)
_CAPTION = (38, 43, 51)
_QUICK = 3
"""Compression of PNG files: half the time of the usual one, a few percent larger."""
_SHOWN_SHARE = 1 / 1.12
"""Of a panel's side, what the bone's longest side takes."""


@dataclass(frozen=True)
class View:
    """A direction to look from: from where, and what is up, in RAS."""

    title: str
    from_ras: tuple[float, float, float]
    up_ras: tuple[float, float, float]


def views(side: str) -> tuple[View, ...]:
    """The six views of a knee of that side (``left``, ``right`` or empty: unknown)."""
    lateral = {"right": "Lateral", "left": "Medial"}.get(side, "Right")
    medial = {"right": "Medial", "left": "Lateral"}.get(side, "Left")
    return (
        View("Anterior", (0, 1, 0), (0, 0, 1)),
        View("Posterior", (0, -1, 0), (0, 0, 1)),
        View(lateral, (1, 0, 0), (0, 0, 1)),
        View(medial, (-1, 0, 0), (0, 0, 1)),
        View("Superior", (0, 0, 1), (0, 1, 0)),
        View("Inferior", (0, 0, -1), (0, 1, 0)),
    )


def draw_pictures(bones: tuple[BoneThickness, ...], side: str, context: Context) -> Report:
    """A picture of every bone from six views; none, with the reason, where no bone was measured.

    Parameters
    ----------
    bones : tuple of BoneThickness
    side : str
        ``left``, ``right`` or empty: names the views.
    context : Context
    """
    if not bones:
        return Report(no_pictures="No bone with cartilage was measured.")
    pictures = []
    for number, bone in enumerate(bones):
        context.progress(bone.bone.title, number / len(bones))
        pictures.append(np.frombuffer(_png(draw_bone(bone, side, context)), np.uint8))
    return Report(tuple(bone.bone.title for bone in bones), tuple(pictures))


def draw_bone(bone: BoneThickness, side: str, context: Context | None = None) -> np.ndarray:
    """The six views of a bone in two rows, and the legend: (rows, columns, 3), uint8, top row first."""
    points = bone.mesh.points_ras_mm
    low, high = points.min(axis=0).astype(float), points.max(axis=0).astype(float)
    pixel_mm = float((high - low).max()) / (_SHOWN_SHARE * _PANEL_PX)
    painted = painting(bone.mesh, point_colors(bone), pixel_mm)
    page = np.full((2 * _PANEL_PX, 3 * _PANEL_PX + _BAR_PX, 3), 255, dtype=np.uint8)
    places = [(row * _PANEL_PX, column * _PANEL_PX) for row in (0, 1) for column in (0, 1, 2)]
    for view, (top, left) in zip(views(side), places, strict=True):
        if context is not None:
            context.check()
        page[top : top + _PANEL_PX, left : left + _PANEL_PX] = painted.seen(
            np.array(view.from_ras, dtype=float), np.array(view.up_ras, dtype=float), (low + high) / 2, _PANEL_PX
        )
    return _with_words(page, side, places)


def point_colors(bone: BoneThickness) -> np.ndarray:
    """The colour of every point: (N, 3), uint8; denuded bone red, bone without cartilage bone-coloured."""
    colors = _scale_colors(bone.thickness_mm / THICKEST_MM)
    colors[~bone.covered] = np.round(255 * np.array(BARE))
    colors[bone.denuded] = np.round(255 * np.array(_DENUDED))
    return colors


def _scale_colors(shares: np.ndarray) -> np.ndarray:
    """Colours of shares of `THICKEST_MM`: (n, 3), uint8."""
    stops = [share for share, _ in COLOR_STOPS]
    codes = np.array([list(bytes.fromhex(code)) for _, code in COLOR_STOPS], dtype=float)
    return np.stack([np.interp(shares, stops, channel) for channel in codes.T], axis=1).round().astype(np.uint8)


def _with_words(page: np.ndarray, side: str, places: list[tuple[int, int]]) -> np.ndarray:
    """The page with the names of the views and the legend."""
    from PIL import Image, ImageDraw, ImageFont

    image = Image.fromarray(page)
    draw = ImageDraw.Draw(image)
    font = ImageFont.load_default(16)
    for view, (top, left) in zip(views(side), places, strict=True):
        draw.text((left + 10, top + _PANEL_PX - 8), view.title, _CAPTION, font, anchor="ls")
    left, top, length, width = 3 * _PANEL_PX + 12, 110, 2 * _PANEL_PX - 260, 30
    shares = np.linspace(1, 0, length)
    image.paste(Image.fromarray(np.repeat(_scale_colors(shares)[:, None], width, axis=1)), (left, top))
    draw.text((left + width / 2, top - 14), "mm", _CAPTION, font, anchor="ms")
    for mm in range(int(THICKEST_MM) + 1):
        height = top + (1 - mm / THICKEST_MM) * (length - 1)
        text = f"{mm} +" if mm == THICKEST_MM else str(mm)
        draw.text((left + width + 8, height), text, _CAPTION, font, anchor="lm")
    for line, (text, color) in enumerate((("denuded", _DENUDED), ("bare bone", BARE))):
        height = top + length + 40 + 28 * line
        draw.rectangle((left, height - 8, left + 16, height + 8), tuple(round(255 * one) for one in color))
        draw.text((left + 22, height), text, _CAPTION, font, anchor="lm")
    return np.asarray(image)


def _png(page: np.ndarray) -> bytes:
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(page).save(file, "PNG", compress_level=_QUICK)
    return file.getvalue()
