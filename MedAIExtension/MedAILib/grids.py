"""Pure operations on volumes and label maps: reorient, crop, paste, place, resample, window.

Each takes a `Volume` or a `LabelMap` and gives a new value of the same type. Whatever can be a view
of the given voxels is one: reorienting and cropping copy nothing.

Axis codes
----------
Three letters name the anatomical directions in which the voxel indices i, j and k increase, one of
R/L, A/P and S/I each: ``"RAS"`` has i increasing to the right. There are 48 of them. For an oblique
grid the code names the closest axes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from itertools import permutations
from typing import TypeVar, overload

import numpy as np

from MedAILib.errors import GeometryMismatch, InputError
from MedAILib.volume import Geometry, LabelMap, Volume

Image = TypeVar("Image", Volume, LabelMap)

_POSITIVE, _NEGATIVE = "RAS", "LPI"


@dataclass(frozen=True)
class Box:
    """A block of voxels: start included, stop excluded, in k, j, i order.

    Raises
    ------
    InputError
        Where the box holds no voxel or starts below zero.
    """

    start_kji: tuple[int, int, int]
    stop_kji: tuple[int, int, int]

    def __post_init__(self) -> None:
        start, stop = (tuple(int(n) for n in corner) for corner in (self.start_kji, self.stop_kji))
        empty = any(low >= high for low, high in zip(start, stop, strict=False))
        if len(start) != 3 or len(stop) != 3 or min(start) < 0 or empty:
            raise InputError(f"A box from {start} to {stop} (k, j, i) holds no voxel.")
        object.__setattr__(self, "start_kji", start)
        object.__setattr__(self, "stop_kji", stop)

    @property
    def shape_kji(self) -> tuple[int, int, int]:
        k, j, i = (high - low for low, high in zip(self.start_kji, self.stop_kji, strict=True))
        return (k, j, i)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The index of this block in a k, j, i array."""
        k, j, i = (slice(low, high) for low, high in zip(self.start_kji, self.stop_kji, strict=True))
        return (k, j, i)

    def fits(self, shape_kji: Sequence[int]) -> bool:
        """True where the whole box lies in an array of that shape."""
        return all(high <= size for high, size in zip(self.stop_kji, shape_kji, strict=True))


class Interpolation(Enum):
    """How `resampled` reads between voxel centres."""

    NEAREST = "nearest"
    LINEAR = "linear"
    CUBIC = "cubic"
    """Cubic B-spline through the voxels; overshoots at edges."""


def axis_code(geometry: Geometry) -> str:
    """The code of the anatomical axes closest to i, j, k, for example ``"LPS"``.

    Of the six ways to pair voxel axes with anatomical axes the one with the largest sum of direction
    cosines is taken; a tie is decided by the directions themselves, so that the pairing stays the same
    when the grid is permuted or flipped.
    """
    directions = geometry.ijk_to_ras[:3, :3] / np.linalg.norm(geometry.ijk_to_ras[:3, :3], axis=0)
    lines = [_line(directions[:, axis]) for axis in range(3)]

    def fit(voxel_axis_of: tuple[int, ...]) -> tuple[float, tuple[tuple[float, ...], ...]]:
        chosen = tuple(lines[axis] for axis in voxel_axis_of)
        return sum(abs(line[row]) for row, line in enumerate(chosen)), chosen

    voxel_axis_of = max(permutations(range(3)), key=fit)
    letters = [""] * 3
    for anatomical, axis in enumerate(voxel_axis_of):
        letters[axis] = (_POSITIVE if directions[anatomical, axis] > 0 else _NEGATIVE)[anatomical]
    return "".join(letters)


def reoriented(image: Image, axes: str = "RAS") -> Image:
    """The same voxels at the same places in space, with i, j, k running (closest) along other axes.

    Permutes and flips, never interpolates; the voxels are a view. ``reoriented(there, axis_code(image.geometry))``
    goes back exactly.

    Parameters
    ----------
    image : Volume or LabelMap
    axes : str
        One of the 48 axis codes.

    Raises
    ------
    InputError
        Where `axes` is no axis code.
    """
    order, flipped = _moves(axis_code(image.geometry), _checked_code(axes))
    matrix = image.ijk_to_ras.copy()
    for axis in range(3):
        old = order[axis]
        column = image.ijk_to_ras[:, old]
        matrix[:, axis] = -column if flipped[axis] else column
        if flipped[axis]:
            matrix[:3, 3] += column[:3] * (image.geometry.shape_kji[2 - old] - 1)
    array_order = tuple(2 - order[2 - axis] for axis in range(3))
    steps = tuple(slice(None, None, -1 if flipped[2 - axis] else 1) for axis in range(3))
    return _with(image, [array.transpose(array_order)[steps] for array in _arrays(image)], matrix)


def cropped(image: Image, box: Box) -> Image:
    """The part of an image within a box, where it was in space; the voxels are a view.

    Raises
    ------
    InputError
        Where the box reaches beyond the image.
    """
    _check_inside(box, image.geometry)
    return _with(image, [array[box.slices] for array in _arrays(image)], _moved_origin(image, box.start_kji))


def pasted(block: Image, into: Image, box: Box) -> Image:
    """A copy of `into` with the voxels of `block` in the box: the way back from `cropped`.

    Name, voxel type and segments are those of `into`.

    Raises
    ------
    InputError
        Where the box reaches beyond the image, or values do not fit its voxel type.
    GeometryMismatch
        Where the block does not lie in space where the box does.
    """
    _check_inside(box, into.geometry)
    place = Geometry(box.shape_kji, _moved_origin(into, box.start_kji))
    if not block.geometry.same_grid_as(place):
        raise GeometryMismatch(
            "The block does not lie where it is to be pasted.",
            why=f"Its {block.geometry.shape_kji} voxels are not those of the box {box.start_kji} to {box.stop_kji}.",
            todo="Paste what was cropped with the same box, or resample it to the image's grid first.",
        )
    if len(_arrays(block)) != len(_arrays(into)):
        raise InputError("The block has another number of layers than the label map it is to be pasted into.")
    copies = [array.copy() for array in _arrays(into)]
    for copy, voxels in zip(copies, _arrays(block), strict=True):
        copy[box.slices] = _cast_exactly(voxels, copy.dtype)
    return _with(into, copies, into.ijk_to_ras)


def placed(image: Image, on: Geometry, *, fill: float = 0) -> Image:
    """The same voxels on a larger, smaller or shifted grid whose voxels coincide with the image's.

    This is how a segmentation saved with its empty border cut off returns to the grid of its volume.
    Nothing is interpolated; what lies outside `on` is cut off, what `on` has more is filled.

    Raises
    ------
    GeometryMismatch
        Where the two grids' voxel centres do not coincide (to a hundredth of a voxel).
    """
    offset_ijk = np.linalg.solve(on.ijk_to_ras, image.ijk_to_ras[:, 3])[:3]
    shift_ijk = np.rint(offset_ijk).astype(int)
    shift_kji = shift_ijk[::-1]
    there = Geometry(image.geometry.shape_kji, on.ijk_to_ras @ _translation(shift_ijk))
    tolerance_mm = 0.01 * min(on.spacing_ijk_mm)
    if not there.same_grid_as(image.geometry, tolerance_mm):
        raise GeometryMismatch(
            "The two images do not share their voxels.",
            why="Their spacings or directions differ, or one is shifted by a part of a voxel.",
            todo="Resample one of them to the grid of the other.",
        )
    low = np.maximum(shift_kji, 0)
    high = np.minimum(shift_kji + image.geometry.shape_kji, on.shape_kji)
    arrays = []
    for array in _arrays(image):
        whole = np.full(on.shape_kji, fill, dtype=array.dtype)
        if (low < high).all():
            target = tuple(slice(a, b) for a, b in zip(low, high, strict=True))
            source = tuple(slice(a, b) for a, b in zip(low - shift_kji, high - shift_kji, strict=True))
            whole[target] = array[source]
        arrays.append(whole)
    return _with(image, arrays, on.ijk_to_ras)


@overload
def resampled(
    image: Volume, to: Geometry, interpolation: Interpolation | str | None = None, *, fill: float = 0
) -> Volume: ...
@overload
def resampled(
    image: LabelMap, to: Geometry, interpolation: Interpolation | str | None = None, *, fill: float = 0
) -> LabelMap: ...
def resampled(image, to, interpolation=None, *, fill=0):
    """The image read at the voxel centres of another grid (SimpleITK).

    Parameters
    ----------
    image : Volume or LabelMap
        Its voxel type is kept; values are rounded where it is an integer type.
    to : Geometry
        Any grid: oblique, anisotropic, left-handed, sheared.
    interpolation : Interpolation or its value, optional
        Linear for a volume where not given; a label map allows nearest only.
    fill : float
        Value of voxels whose centre lies outside the image.

    Raises
    ------
    InputError
        Where a label map is to be interpolated, or the voxel type is not one of SimpleITK's.
    """
    from MedAILib.itkimage import resample_array

    is_labels = isinstance(image, LabelMap)
    kind = Interpolation(interpolation or ("nearest" if is_labels else "linear"))
    if is_labels and kind is not Interpolation.NEAREST:
        raise InputError(
            "Labels cannot be interpolated.",
            why=f"Between label 1 and label 3 there is no label 2, and '{kind.value}' would make one.",
            todo="Use nearest, or resample each segment's mask as a volume.",
        )
    arrays = [resample_array(array, image.ijk_to_ras, to, kind.value, fill) for array in _arrays(image)]
    return _with(image, arrays, to.ijk_to_ras)


class Resampler:
    """A volume that is read on several grids, and is handed to SimpleITK only once for all of them.

    Parameters
    ----------
    volume : Volume

    Raises
    ------
    InputError
        Where the voxel type is not one of SimpleITK's.
    """

    def __init__(self, volume: Volume) -> None:
        from MedAILib.itkimage import to_sitk

        self.volume = volume
        self._image = to_sitk(volume.array, volume.ijk_to_ras)

    def at(self, to: Geometry, interpolation: Interpolation | str = Interpolation.LINEAR, *, fill: float = 0) -> Volume:
        """As `resampled`."""
        from MedAILib.itkimage import resample_image

        kind = Interpolation(interpolation)
        array = resample_image(self._image, self.volume.array.dtype, to, kind.value, fill)
        return _with(self.volume, [array], to.ijk_to_ras)


def windowed(volume: Volume, low: float, high: float) -> Volume:
    """Values from `low` to `high` as 0..1 (float32), clipped; a voxel that is not a number becomes 0.

    Raises
    ------
    InputError
        Where `low` is not below `high`.
    """
    if not low < high:
        raise InputError(f"A window needs a lower and a higher bound, got {low} and {high}.")
    with np.errstate(invalid="ignore", over="ignore"):
        scaled = np.subtract(volume.array, np.float32(low), dtype=np.float32)
        scaled *= np.float32(1.0 / (high - low))
    np.clip(scaled, 0.0, 1.0, out=scaled)
    if volume.array.dtype.kind == "f":
        np.copyto(scaled, 0.0, where=np.isnan(scaled))
    return replace(volume, array=scaled)


def bounding_box(
    mask_kji: np.ndarray, *, margin_mm: float = 0.0, spacing_kji_mm: Sequence[float] = (1.0, 1.0, 1.0)
) -> Box | None:
    """The smallest box around the voxels that are not zero, widened by a margin within the array.

    Parameters
    ----------
    mask_kji : ndarray, shape (k, j, i)
    margin_mm : float
        At least so far on every side; whole voxels, rounded up.
    spacing_kji_mm : sequence of three floats

    Returns
    -------
    Box or None
        None where the mask is empty.
    """
    block = mask_kji
    start, stop = [0, 0, 0], [0, 0, 0]
    for axis in range(3):
        others = tuple(other for other in range(3) if other != axis)
        hits = np.flatnonzero(block.any(axis=others))
        if hits.size == 0:
            return None
        margin = int(np.ceil(margin_mm / spacing_kji_mm[axis] - 1e-6))
        start[axis] = max(int(hits[0]) - margin, 0)
        stop[axis] = min(int(hits[-1]) + 1 + margin, mask_kji.shape[axis])
        block = block[(slice(None),) * axis + (slice(hits[0], hits[-1] + 1),)]
    return Box((start[0], start[1], start[2]), (stop[0], stop[1], stop[2]))


def middle_voxel_kji(mask_kji: np.ndarray) -> tuple[int, int, int] | None:
    """A voxel of a mask near its centre of gravity, which itself may lie outside of a curved shape.

    Parameters
    ----------
    mask_kji : ndarray, shape (k, j, i)
        Not zero where the shape is.

    Returns
    -------
    tuple of int or None
        In the slice (k) of the mask that is nearest to the centre, the voxel nearest to it; None of an empty mask.
    """
    box = bounding_box(mask_kji)
    if box is None:
        return None
    block = np.asarray(mask_kji[box.slices], dtype=bool)
    counts = [block.sum(axis=tuple(other for other in range(3) if other != axis)) for axis in range(3)]
    centre = [float(np.average(np.arange(len(count)), weights=count)) for count in counts]
    slices = np.flatnonzero(counts[0])
    k = int(slices[np.argmin(np.abs(slices - centre[0]))])
    plane = np.argwhere(block[k])
    j, i = plane[np.argmin(((plane - centre[1:]) ** 2).sum(axis=1))]
    start = box.start_kji
    return start[0] + k, start[1] + int(j), start[2] + int(i)


def _arrays(image: Volume | LabelMap) -> tuple[np.ndarray, ...]:
    return (image.array,) if isinstance(image, Volume) else image.layers


def _with(image: Image, arrays: Sequence[np.ndarray], ijk_to_ras: np.ndarray) -> Image:
    if isinstance(image, Volume):
        return Volume(arrays[0], ijk_to_ras, image.name)
    return LabelMap(tuple(arrays), ijk_to_ras, image.segments, image.name)


def _line(direction: np.ndarray) -> tuple[float, ...]:
    """A direction without its sign: the first component that is not zero is positive."""
    sign = -1.0 if next(x for x in direction if x != 0) < 0 else 1.0
    return tuple(float(sign * x) for x in direction)


def _checked_code(axes: str) -> str:
    code = str(axes).upper()
    if sorted(_anatomical(letter) for letter in code) != [0, 1, 2]:
        raise InputError(
            f"'{axes}' is not an axis code.",
            todo="Give one letter of each pair R/L, A/P and S/I, in the order of i, j, k; for example RAS or LPS.",
        )
    return code


def _anatomical(letter: str) -> int:
    """0 for R and L, 1 for A and P, 2 for S and I, -1 for anything else."""
    return max(_POSITIVE.find(letter), _NEGATIVE.find(letter))


def _moves(old: str, new: str) -> tuple[list[int], list[bool]]:
    """For each new voxel axis (i, j, k): which old one it is, and whether it runs the other way."""
    old_axes = [_anatomical(letter) for letter in old]
    order = [old_axes.index(_anatomical(letter)) for letter in new]
    return order, [old[order[axis]] != new[axis] for axis in range(3)]


def _check_inside(box: Box, geometry: Geometry) -> None:
    if not box.fits(geometry.shape_kji):
        raise InputError(
            f"The box {box.start_kji} to {box.stop_kji} reaches beyond the image of {geometry.shape_kji} voxels."
        )


def _moved_origin(image: Volume | LabelMap, start_kji: Sequence[int]) -> np.ndarray:
    """The image's matrix with its origin at the voxel of that index."""
    return image.ijk_to_ras @ _translation(start_kji[::-1])


def _translation(offset: Sequence[float] | np.ndarray) -> np.ndarray:
    matrix = np.eye(4)
    matrix[:3, 3] = offset
    return matrix


def _cast_exactly(voxels: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """The voxels in another type, or `InputError` where a value would change."""
    if np.can_cast(voxels.dtype, dtype, "safe"):
        return voxels
    with np.errstate(invalid="ignore", over="ignore"):
        cast = voxels.astype(dtype)
    if not np.array_equal(cast.astype(voxels.dtype), voxels, equal_nan=voxels.dtype.kind == "f"):
        raise InputError(f"Values of the block do not fit the voxel type {dtype} of the image it is to be pasted into.")
    return cast
