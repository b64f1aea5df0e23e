"""Slices of a volume as a radiologist looks at them: upright, patient's right on the left, square pixels."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from MedAILib.errors import InputError
from MedAILib.grids import axis_code, reoriented
from MedAILib.volume import Geometry, Volume
from MedMNISTRouterLib.picture import Picture
from MedMNISTRouterLib.planes import AXES, PLANE_OF
from MedMNISTRouterLib.request import PlainImage

_AWAY_FROM_LPS = "RAI"
_SHOWN_PERCENTILES = (0.5, 99.5)
_SAMPLED_VOXELS = 2_000_000
_SQUARE_TOLERANCE = 0.01
_OBLIQUE_DEGREES = 1.0


@dataclass(frozen=True)
class Cut:
    """One slice of a volume.

    Attributes
    ----------
    axis : str
        ``i``, ``j`` or ``k``.
    index : int
        From 0.
    notes : tuple of str
    """

    axis: str
    index: int
    notes: tuple[str, ...] = ()


def voxel_axis(geometry: Geometry, axis: str = "auto") -> str:
    """The voxel axis (``i``, ``j`` or ``k``) across slices.

    Parameters
    ----------
    geometry : Geometry
    axis : str
        One of `AXES`; ``auto``: the only axis with one slice, else the one with the largest spacing, k of equals.

    Raises
    ------
    InputError
        An unknown name.
    """
    if axis in ("i", "j", "k"):
        return axis
    if axis == "auto":
        sizes = geometry.shape_kji[::-1]
        flat = [name for name, size in zip("ijk", sizes, strict=True) if size == 1]
        if len(flat) == 1:
            return flat[0]
        spacing = geometry.spacing_ijk_mm
        return max("kji", key=lambda name: round(spacing["ijk".index(name)], 2))
    for name, letter in zip("ijk", axis_code(geometry), strict=True):
        if PLANE_OF[letter] == axis:
            return name
    raise InputError(f"There is no axis '{axis}'.", todo=f"The names are: {', '.join(AXES)}.")


def plane_of(geometry: Geometry, axis: str) -> str:
    """The anatomical plane closest to the slices across a voxel axis."""
    return PLANE_OF[axis_code(geometry)["ijk".index(axis)]]


def slice_count(geometry: Geometry, axis: str) -> int:
    return geometry.shape_kji["kji".index(axis)]


def cut_at(geometry: Geometry, slice_to_ras: np.ndarray) -> Cut:
    """The slice of a volume closest to a plane in space, such as a slice view's.

    Parameters
    ----------
    geometry : Geometry
    slice_to_ras : ndarray, shape (4, 4)
        Third column: the plane's normal; fourth: a point on it, in world RAS mm.

    Raises
    ------
    InputError
        The plane does not meet the volume.
    """
    normals = np.linalg.inv(geometry.ijk_to_ras[:3, :3])  # rows: normals of the planes of constant i, j, k
    normals = normals / np.linalg.norm(normals, axis=1, keepdims=True)
    plane = np.asarray(slice_to_ras, dtype=np.float64)
    cosines = np.abs(normals @ (plane[:3, 2] / np.linalg.norm(plane[:3, 2])))
    axis = int(np.argmax(cosines))
    place_ijk = np.linalg.solve(geometry.ijk_to_ras, plane[:, 3])[:3]
    index, count = round(float(place_ijk[axis])), slice_count(geometry, "ijk"[axis])
    if not 0 <= index < count:
        raise InputError("The slice view does not show this volume.", todo="Move the view to a slice of it.")
    angle = float(np.degrees(np.arccos(min(float(cosines[axis]), 1.0))))
    name = "ijk"[axis]
    notes = (
        (f"The view is turned by {angle:.0f} degrees; the closest slice along {name}, {index}, was taken.",)
        if angle > _OBLIQUE_DEGREES
        else ()
    )
    return Cut(name, index, notes)


def middle_cut(geometry: Geometry, axis: str) -> Cut:
    """The middle slice; a note says so where there are others."""
    count = slice_count(geometry, axis)
    note = f"Of {count} slices along {axis} the middle one, {count // 2}, was taken."
    return Cut(axis, count // 2, (note,) if count > 1 else ())


def all_cuts(geometry: Geometry, axis: str) -> tuple[Cut, ...]:
    return tuple(Cut(axis, index) for index in range(slice_count(geometry, axis)))


def pictures_of(
    volume: Volume, cuts: Sequence[Cut], window: tuple[float, float] | None = None, modality: str = ""
) -> tuple[Picture, ...]:
    """Slices as 8 bit pictures, all of them with the same window.

    Parameters
    ----------
    volume : Volume
    cuts : sequence of Cut
    window : tuple of float, optional
        Values of black and white. Default: none for 8 bit voxels, else the 0.5th and 99.5th percentile of the
        whole volume, and a note says so.
    modality : str
        DICOM's word, where it is known.

    Raises
    ------
    InputError
        There is no such slice, or the window's bounds are not in order.
    """
    if window is not None and not window[0] < window[1]:
        raise InputError(f"A window needs a lower and a higher bound, got {window[0]:g} and {window[1]:g}.")
    notes: tuple[str, ...] = ()
    if window is None and volume.array.dtype not in (np.uint8, np.bool_):
        window = shown_range(volume.array)
        notes = (f"No window was given: values from {window[0]:g} to {window[1]:g} are shown as black to white.",)
    return tuple(_picture(volume, cut, window, modality, notes) for cut in cuts)


def shown_range(array: np.ndarray) -> tuple[float, float]:
    """Values of black and white that show nearly all of an image: its 0.5th and 99.5th percentile."""
    step = max(int((array.size / _SAMPLED_VOXELS) ** (1 / 3)), 1)
    sampled = array[::step, ::step, ::step]
    finite = sampled[np.isfinite(sampled)]
    if not finite.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(finite, _SHOWN_PERCENTILES))
    if low < high:
        return low, high
    low, high = float(finite.min()), float(finite.max())
    return (low, high) if low < high else (low, low + 1.0)


def upright(volume: Volume, axis: str, index: int) -> tuple[np.ndarray, tuple[float, float]]:
    """A slice as it is looked at, and its spacing (between rows, between columns) in mm.

    Returns
    -------
    pixels : ndarray, shape (rows, columns)
        Axial: anterior up; coronal and sagittal: superior up. Left of the picture is the patient's right, or
        anterior in sagittal slices. A view, not interpolated.
    spacing_mm : tuple of float

    Raises
    ------
    InputError
        There is no such slice.
    """
    count = slice_count(volume.geometry, axis)
    if not 0 <= index < count:
        raise InputError(f"There is no slice {index} along {axis}.", todo=f"There are {count}, counted from 0.")
    letter = axis_code(volume.geometry)["ijk".index(axis)]
    turned = reoriented(volume, "LPS")
    place = count - 1 - index if letter in _AWAY_FROM_LPS else index
    x_mm, y_mm, z_mm = turned.geometry.spacing_ijk_mm
    plane = PLANE_OF[letter]
    if plane == "axial":
        return turned.array[place], (y_mm, x_mm)
    if plane == "coronal":
        return turned.array[::-1, place, :], (z_mm, x_mm)
    return turned.array[::-1, :, place], (z_mm, y_mm)


def _picture(
    volume: Volume, cut: Cut, window: tuple[float, float] | None, modality: str, notes: Iterable[str]
) -> Picture:
    pixels, spacing_mm = upright(volume, cut.axis, cut.index)
    shown = _square(_eight_bit(pixels, window), spacing_mm)
    name = f"{volume.name or 'volume'} [{cut.axis} {cut.index}]"
    image = PlainImage(name, shown, modality=modality, plane=plane_of(volume.geometry, cut.axis))
    return Picture(image, (*cut.notes, *notes))


def _eight_bit(pixels: np.ndarray, window: tuple[float, float] | None) -> np.ndarray:
    if window is None:
        return np.ascontiguousarray(pixels, dtype=np.uint8) * np.uint8(255 if pixels.dtype == np.bool_ else 1)
    low, high = window
    values = np.nan_to_num(pixels.astype(np.float64), nan=low, posinf=high, neginf=low)
    return np.rint(255.0 * np.clip((values - low) / (high - low), 0.0, 1.0)).astype(np.uint8)


def _square(pixels: np.ndarray, spacing_mm: tuple[float, float]) -> np.ndarray:
    """The picture with pixels as high as wide: the coarser direction is interpolated."""
    finest = min(spacing_mm)
    if max(spacing_mm) <= finest * (1.0 + _SQUARE_TOLERANCE):
        return pixels
    from PIL import Image

    rows, columns = (max(round(size * mm / finest), 1) for size, mm in zip(pixels.shape, spacing_mm, strict=True))
    return np.asarray(Image.fromarray(pixels).resize((columns, rows), Image.Resampling.BILINEAR))
