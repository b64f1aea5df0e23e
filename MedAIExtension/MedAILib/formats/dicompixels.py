"""The voxels of DICOM slices in true values."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from MedAILib.errors import UnreadableFile
from MedAILib.formats.dicomslice import DicomSlice, damage

if TYPE_CHECKING:
    import pydicom


def voxels(ordered: Sequence[DicomSlice]) -> np.ndarray:
    """All slices in one array, its type widened when a slice needs it."""
    array: np.ndarray | None = None
    opened: tuple[Path, np.ndarray] | None = None
    for index, part in enumerate(ordered):
        if opened is None or opened[0] != part.path:
            opened = (part.path, _frames(part.path))
        values = _true_values(opened[1][part.frame], part)
        if array is None:
            array = np.empty((len(ordered), *part.shape), values.dtype)
        elif (wider := np.result_type(array.dtype, values.dtype)) != array.dtype:
            array = array.astype(wider)
        array[index] = values
    assert array is not None
    return array


def _frames(path: Path) -> np.ndarray:
    """Stored values of a file, shape (frames, rows, columns)."""
    import pydicom

    try:
        dataset = pydicom.dcmread(path, force=True)
        _complete_meta(dataset)
        stored = _compressed(path, dataset) if _is_compressed(dataset) else dataset.pixel_array
    except damage() as error:
        raise UnreadableFile(
            f"The pixels of '{path}' could not be read.",
            why=f"The file is damaged, truncated or of an unknown encoding ({_first_line(error)}).",
            todo="Export the series again.",
        ) from error
    return stored if stored.ndim == 3 else stored[np.newaxis]


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]


def _complete_meta(dataset: pydicom.Dataset) -> None:
    """Files without a preamble do not state their transfer syntax; it is how pydicom found it to be."""
    from pydicom.uid import ExplicitVRBigEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

    if "TransferSyntaxUID" not in dataset.file_meta:
        implicit, little = dataset.original_encoding
        explicit = ExplicitVRLittleEndian if little else ExplicitVRBigEndian
        dataset.file_meta.TransferSyntaxUID = ImplicitVRLittleEndian if implicit else explicit


def _is_compressed(dataset: pydicom.Dataset) -> bool:
    """Whether the pixels need a codec that pydicom alone has not (it has run-length)."""
    from pydicom.uid import RLELossless

    syntax = dataset.file_meta.TransferSyntaxUID
    return syntax.is_encapsulated and syntax != RLELossless


def _compressed(path: Path, dataset: pydicom.Dataset) -> np.ndarray:
    """Stored values decoded by GDCM; its scaled values are taken back to the stored ones."""
    import SimpleITK

    from MedAILib.itkimage import array_of

    scaled = array_of(SimpleITK.ReadImage(str(path)))
    slope, intercept = float(dataset.get("RescaleSlope", 1.0)), float(dataset.get("RescaleIntercept", 0.0))
    if (slope, intercept) == (1.0, 0.0):
        return scaled
    return np.rint((scaled.astype(np.float64) - intercept) / slope).astype(np.int32)


def _true_values(stored: np.ndarray, part: DicomSlice) -> np.ndarray:
    """Stored values times slope plus intercept, in the smallest type of ours that holds them."""
    if (part.slope, part.intercept) == (1.0, 0.0):
        return stored
    if part.slope.is_integer() and part.intercept.is_integer() and stored.dtype.kind in "iu":
        values = stored.astype(np.int64) * int(part.slope) + int(part.intercept)
        low, high = int(values.min()), int(values.max())
        for dtype in (np.int16, np.int32):
            if np.iinfo(dtype).min <= low and high <= np.iinfo(dtype).max:
                return values.astype(dtype)
    return (stored * np.float64(part.slope) + part.intercept).astype(np.float32)
