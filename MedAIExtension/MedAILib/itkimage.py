"""Between our values (RAS, k-j-i arrays) and SimpleITK's images (LPS, i-j-k indices).

SimpleITK is imported inside the functions: loading it takes a good part of a second.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from MedAILib.errors import InputError
from MedAILib.volume import Geometry

if TYPE_CHECKING:
    import SimpleITK

RAS_TO_LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
"""Also LPS to RAS: the matrix is its own inverse."""

_SCALARS = {np.dtype(t) for t in ("u1", "i1", "u2", "i2", "u4", "i4", "u8", "i8", "f4", "f8")}


def to_sitk(array: np.ndarray, ijk_to_ras: np.ndarray) -> SimpleITK.Image:
    """A SimpleITK image with a copy of the voxels.

    Parameters
    ----------
    array : ndarray, shape (k, j, i)
        Integers or floats of 8 to 64 bits; bool becomes unsigned 8 bits.
    ijk_to_ras : ndarray, shape (4, 4)

    Raises
    ------
    InputError
        Where SimpleITK has no such voxel type.
    """
    import SimpleITK

    image = SimpleITK.GetImageFromArray(_storable(array))
    place(image, ijk_to_ras)
    return image


def place(image: SimpleITK.Image, ijk_to_ras: np.ndarray) -> None:
    """Set a 3D image's origin, spacing and direction from an IJK-to-RAS matrix."""
    ijk_to_lps = RAS_TO_LPS @ ijk_to_ras
    spacing = np.linalg.norm(ijk_to_lps[:3, :3], axis=0)
    image.SetSpacing(spacing.tolist())
    image.SetOrigin(ijk_to_lps[:3, 3].tolist())
    image.SetDirection((ijk_to_lps[:3, :3] / spacing).ravel().tolist())


def array_of(image: SimpleITK.Image) -> np.ndarray:
    """The voxels of an image without a copy; the array keeps the image alive.

    Returns
    -------
    ndarray, shape (k, j, i) or (k, j, i, components)
    """
    import SimpleITK

    return np.asarray(_Kept(image, SimpleITK.GetArrayViewFromImage(image)))


def ijk_to_ras_of(image: SimpleITK.Image) -> np.ndarray:
    """The IJK-to-RAS matrix, float64 (4, 4), of a 3D image or image reader."""
    ijk_to_lps = np.eye(4)
    ijk_to_lps[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * np.asarray(image.GetSpacing())
    ijk_to_lps[:3, 3] = image.GetOrigin()
    return RAS_TO_LPS @ ijk_to_lps


def resample_array(
    array: np.ndarray, ijk_to_ras: np.ndarray, to: Geometry, interpolation: str, fill: float
) -> np.ndarray:
    """Voxels read at the voxel centres of another grid; see `MedAILib.grids.resampled`."""
    return resample_image(to_sitk(array, ijk_to_ras), array.dtype, to, interpolation, fill)


def resample_image(
    image: SimpleITK.Image, dtype: np.dtype, to: Geometry, interpolation: str, fill: float
) -> np.ndarray:
    """Likewise of an image that `to_sitk` made of voxels of that type."""
    import SimpleITK

    interpolator = {
        "nearest": SimpleITK.sitkNearestNeighbor,
        "linear": SimpleITK.sitkLinear,
        "cubic": SimpleITK.sitkBSpline,
    }
    grid = SimpleITK.Image(1, 1, 1, SimpleITK.sitkUInt8)
    place(grid, to.ijk_to_ras)
    resampler = SimpleITK.ResampleImageFilter()
    resampler.SetSize([int(n) for n in reversed(to.shape_kji)])
    resampler.SetOutputOrigin(grid.GetOrigin())
    resampler.SetOutputSpacing(grid.GetSpacing())
    resampler.SetOutputDirection(grid.GetDirection())
    resampler.SetInterpolator(interpolator[interpolation])
    resampler.SetDefaultPixelValue(float(fill))
    rounds = interpolation != "nearest" and dtype.kind in "iub"
    if rounds:
        resampler.SetOutputPixelType(SimpleITK.sitkFloat64 if dtype.itemsize > 2 else SimpleITK.sitkFloat32)
    found = array_of(resampler.Execute(image))
    return _rounded(found, dtype) if rounds else found.astype(dtype, copy=False)


def _rounded(values: np.ndarray, dtype: np.dtype) -> np.ndarray:
    """Floats as the nearest integers of a type; ITK itself would cut off the fraction."""
    low, high = (0, 1) if dtype == np.bool_ else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    rounded = np.empty(values.shape, dtype)
    for into, plane in zip(rounded, values, strict=True):
        into[...] = np.clip(np.rint(plane), low, high)
    return rounded


class _Kept:
    """What numpy asks for an array's memory; numpy keeps it, and with it the image that owns the memory."""

    def __init__(self, image: Any, view: np.ndarray) -> None:
        self._image = image
        self.__array_interface__ = view.__array_interface__


def _storable(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.bool_:
        return np.ascontiguousarray(array).view(np.uint8)
    native = array.astype(array.dtype.newbyteorder("="), copy=False)
    if native.dtype not in _SCALARS:
        raise InputError(
            f"Voxels of type {array.dtype} cannot be handled here.",
            todo="Convert them to integers or floating point numbers of at most 64 bits first.",
        )
    return native
