"""Image files that SimpleITK reads well, with its refusals in our words."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedAILib.errors import UnreadableFile
from MedAILib.filekind import not_3d
from MedAILib.itkimage import array_of, ijk_to_ras_of

if TYPE_CHECKING:
    import SimpleITK


def read_sitk(path: Path, *, components: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Read a 3D image file through SimpleITK.

    Parameters
    ----------
    path : Path
    components : bool
        Allow several numbers per voxel.

    Returns
    -------
    array : ndarray, shape (k, j, i) or, with several numbers per voxel, (k, j, i, components)
    ijk_to_ras : ndarray, shape (4, 4), float64

    Raises
    ------
    UnreadableFile
        Damaged, not 3D, complex, or several numbers per voxel where one is needed.
    """
    import SimpleITK

    reader = SimpleITK.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
        _check_scalar_3d(reader, path, components)
        if reader.GetDimension() == 4:
            reader.SetExtractSize([*reader.GetSize()[:3], 0])
        image = reader.Execute()
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1].strip().rstrip(".")
        raise UnreadableFile(
            f"'{path}' could not be read.",
            why=f"It is damaged, truncated, or one of its files is missing ({reason}).",
            todo="Copy or download it again, with all files that belong to it.",
        ) from error
    return array_of(image), ijk_to_ras_of(image)


def _check_scalar_3d(reader: SimpleITK.ImageFileReader, path: Path, components: bool) -> None:
    import SimpleITK

    size = reader.GetSize()
    if reader.GetDimension() < 3:
        raise not_3d(path, reader.GetDimension())
    if int(np.prod(size[3:])) > 1:
        raise not_3d(path, 4, int(np.prod(size[3:])))
    if "complex" in SimpleITK.GetPixelIDValueAsString(reader.GetPixelIDValue()):
        raise UnreadableFile(f"'{path}' holds complex numbers.", todo="Take its magnitude or phase first.")
    count = reader.GetNumberOfComponents()
    if count > 1 and not components:
        raise UnreadableFile(
            f"'{path}' holds {count} numbers per voxel.",
            why="It is a colour image, a vector field, a time series, or a segmentation with overlapping segments.",
            todo="Use a scalar image, or open a segmentation as one.",
        )
