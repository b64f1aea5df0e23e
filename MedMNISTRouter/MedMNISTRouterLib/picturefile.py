"""Picture files (PNG, JPEG, TIFF, BMP, GIF, WebP) as a person sees them: upright, without palette or transparency."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedAILib.errors import InputError, UnreadableFile
from MedMNISTRouterLib.picture import Picture, grey_where_grey
from MedMNISTRouterLib.request import PlainImage

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "JPEG2000")
"""What Pillow may take a file for; its readers of documents and scripts are left out."""

_WHITE_IS_ZERO_TAG = 262
_DAMAGE = (OSError, EOFError, SyntaxError, ValueError, IndexError, KeyError, struct.error, zlib.error)
"""What Pillow may raise on a damaged file."""


def read_picture_file(path: Path, frame: int | None = None) -> tuple[Picture, ...]:
    """Read a picture file.

    Parameters
    ----------
    path : Path
    frame : int, optional
        Page of a TIFF or frame of a GIF, from 1; 0: all of them. Default: the first, and a note says so.

    Raises
    ------
    UnreadableFile
        No picture, damaged or truncated, or too large to be meant.
    InputError
        There is no such frame.
    """
    from PIL import Image

    try:
        with Image.open(path, formats=FORMATS) as opened:
            return _frames(opened, path, frame)
    except Image.DecompressionBombError as error:
        raise UnreadableFile(
            f"'{path}' is too large to be one picture.",
            why="Unpacked it has more than 178 million pixels.",
            todo="Cut out the part that matters, or save it smaller.",
        ) from error
    except _DAMAGE as error:
        raise _damaged(path, error) from error


def chosen_frames(path: Path, count: int, frame: int | None, word: str = "frame") -> tuple[range, tuple[str, ...]]:
    """Which frames to read of a file with several, from 0, and what to say about it.

    Raises
    ------
    InputError
        There is no such frame.
    """
    if frame == 0:
        return range(count), ()
    if frame is not None and not 1 <= frame <= count:
        raise InputError(
            f"'{path}' has no {word} {frame}.", todo=f"It has {count}; they are counted from 1, and 0 means all."
        )
    chosen = frame or 1
    notes = (f"It has {count} {word}s; number {chosen} was taken.",) if count > 1 and frame is None else ()
    return range(chosen - 1, chosen), notes


def _frames(opened: Image.Image, path: Path, frame: int | None) -> tuple[Picture, ...]:
    # the further pictures of an MPO are the camera's previews of the first
    count = 1 if opened.format == "MPO" else int(getattr(opened, "n_frames", 1))
    chosen, notes = chosen_frames(path, count, frame, "page" if opened.format == "TIFF" else "frame")
    found = []
    for index in chosen:
        if count > 1:
            opened.seek(index)
        name = path.name if count == 1 else f"{path.name} [{index + 1}]"
        pixels, said = _pixels(opened)
        found.append(Picture(PlainImage(name, grey_where_grey(pixels)), (*notes, *said)))
    return tuple(found)


def _pixels(opened: Image.Image) -> tuple[np.ndarray, tuple[str, ...]]:
    from PIL import Image, ImageOps

    is_negative = opened.mode.startswith("I;16") and _is_white_zero(opened)
    image = ImageOps.exif_transpose(opened)
    if image.mode.startswith("I") or image.mode == "F":
        return _deep(np.asarray(image), is_negative), ()
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        upright = image.convert("RGBA")
        ground = Image.new("RGBA", upright.size, (0, 0, 0, 255))
        is_transparent = bool((np.asarray(upright.getchannel("A")) < np.iinfo(np.uint8).max).any())
        pixels = np.asarray(Image.alpha_composite(ground, upright).convert("RGB"))
        return pixels, ("Its transparent parts were taken as black.",) if is_transparent else ()
    return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB")), ()


def _deep(values: np.ndarray, is_negative: bool) -> np.ndarray:
    """Grey values of more than 8 bit in a type that pictures may have."""
    if values.dtype.kind == "f":
        return np.asarray(values, dtype=np.float32)
    if values.min() < 0 or values.max() > np.iinfo(np.uint16).max:
        return values.astype(np.float32)
    grey: np.ndarray = values.astype(np.uint16)
    return np.uint16(np.iinfo(np.uint16).max) - grey if is_negative else grey


def _is_white_zero(opened: Image.Image) -> bool:
    """Whether a TIFF stores white as 0; Pillow heeds that in 8 bit only."""
    return dict(getattr(opened, "tag_v2", {})).get(_WHITE_IS_ZERO_TAG) == 0


def _damaged(path: Path, error: Exception) -> UnreadableFile:
    reason = (str(error) or type(error).__name__).splitlines()[0].rstrip(".").replace(str(path), path.name)
    return UnreadableFile(
        f"'{path}' could not be read as a picture.",
        why=f"It is damaged, truncated or of a kind we do not know ({reason}).",
        todo="Copy or download it again, or save it as PNG.",
    )
